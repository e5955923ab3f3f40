/* config — where the API server is and who we are.
 *
 * Read from kubeconfig files like kubectl's, or from what Kubernetes mounts into a pod. Credential plugins are
 * refused: an operator runs no foreign program.
 */
#ifndef THOLE_OPERATOR_KUBE_CONFIG_H
#define THOLE_OPERATOR_KUBE_CONFIG_H

#include "common/cleanup.h"
#include "common/error.h"

#include <stdbool.h>

/* What decides; kube_config_source_environment() fills it from the process' environment. All members may be NULL. */
struct kube_config_source {
    const char *kubeconfig;          /* --kubeconfig: this file and no other */
    const char *context;             /* --context */
    const char *kubeconfig_variable; /* $KUBECONFIG: files with ':' between, the first to define a thing wins */
    const char *service_host;        /* $KUBERNETES_SERVICE_HOST: we are in a pod */
    const char *service_port;
    const char *service_account_dir; /* where token, ca.crt and namespace are mounted */
    const char *home;                /* $HOME, for .kube/config: the last resort */
};
struct kube_config_source kube_config_source_environment(void);

/* Strings are owned and NULL where absent. PEM is kept as text; what came from a file keeps its name too, so that
 * the client can read it again when it changes. */
struct kube_config {
    char *origin;    /* "context 'dev' of /home/x/.kube/config", "the pod's service account": for people */
    char *server;    /* "https://10.0.0.1:6443", without a slash at the end */
    char *namespace; /* of the context or the pod; "default" where neither says */
    char *tls_server_name;
    char *proxy_url;
    bool insecure_skip_tls_verify;
    char *ca_pem, *ca_file;
    char *certificate_pem, *certificate_file;
    char *key_pem, *key_file;
    char *token, *token_file;
};

/* 0, or -1 with one sentence naming file, context and mend. */
int kube_config_load(struct kube_config **out, const struct kube_config_source *source, struct error *err);

/* Reads the files again. `*changed` says whether anything differs. On failure the old values stay. */
int kube_config_reload(struct kube_config *config, bool *changed, struct error *err);

void kube_config_free(struct kube_config *config);
CLEANUP_DEFINE(cleanup_kube_config_pointer, struct kube_config, kube_config_free)
#define cleanup_kube_config CLEANUP(cleanup_kube_config_pointer)

#endif
