#include "kube/config.h"
#include "common/buffer.h"
#include "common/json.h"
#include "common/yaml.h"

#include <openssl/evp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PEM_MOST = 1024 * 1024, TOKEN_MOST = 64 * 1024, NAMESPACE_MOST = 64, FILES_MOST = 32 };

#define SERVICE_ACCOUNT_DIR "/var/run/secrets/kubernetes.io/serviceaccount"

struct kube_config_source kube_config_source_environment(void)
{
    return (struct kube_config_source){
        .kubeconfig_variable = getenv("KUBECONFIG"),
        .service_host = getenv("KUBERNETES_SERVICE_HOST"),
        .service_port = getenv("KUBERNETES_SERVICE_PORT"),
        .service_account_dir = SERVICE_ACCOUNT_DIR,
        .home = getenv("HOME"),
    };
}

void kube_config_free(struct kube_config *config)
{
    if (config == NULL)
        return;
    char *const owned[] = {config->origin,           config->server,  config->namespace, config->tls_server_name,
                           config->proxy_url,        config->ca_pem,  config->ca_file,   config->certificate_pem,
                           config->certificate_file, config->key_pem, config->key_file,  config->token,
                           config->token_file};
    for (size_t i = 0; i < sizeof owned / sizeof owned[0]; i++)
        free(owned[i]);
    free(config);
}

static int set_text(char **out, const char *text, struct error *err)
{
    char *copy = strdup(text);
    if (copy == NULL)
        return error_set(err, "out of memory");
    free(*out);
    *out = copy;
    return 0;
}

static int set_format(char **out, struct error *err, const char *format, ...) __attribute__((format(printf, 3, 4)));
static int set_format(char **out, struct error *err, const char *format, ...)
{
    char *text = NULL;
    va_list arguments;
    va_start(arguments, format);
    int length = vasprintf(&text, format, arguments);
    va_end(arguments);
    if (length < 0)
        return error_set(err, "out of memory");
    free(*out);
    *out = text;
    return 0;
}

/* The file's text; of a token without the white space around it. */
static int read_text(char **out, const char *path, size_t most, bool trim, struct error *err)
{
    cleanup_buffer struct buffer buffer;
    buffer_init(&buffer, most);
    if (buffer_read_file(&buffer, path, err) < 0)
        return -1;
    const char *text = buffer_text(&buffer);
    if (strlen(text) != buffer.length)
        return error_set(err, "'%s' is no text", path);
    if (trim) {
        text += strspn(text, " \t\r\n");
        size_t length = strlen(text);
        while (length > 0 && strchr(" \t\r\n", text[length - 1]) != NULL)
            length--;
        if (length == 0 || strcspn(text, "\r\n") < length)
            return error_set(err, "'%s' holds no token: one line of text is expected", path);
        free(*out);
        *out = strndup(text, length);
        return *out == NULL ? error_set(err, "out of memory") : 0;
    }
    return set_text(out, text, err);
}

static int decode_base64(char **out, const char *text, const char *what, struct error *err)
{
    size_t length = strlen(text);
    if (length > PEM_MOST)
        return error_set(err, "%s is longer than %d bytes", what, PEM_MOST);
    cleanup_free unsigned char *bytes = malloc(length + 1);
    EVP_ENCODE_CTX *context = EVP_ENCODE_CTX_new();
    if (bytes == NULL || context == NULL) {
        EVP_ENCODE_CTX_free(context);
        return error_set(err, "out of memory");
    }
    int written = 0;
    int rest = 0;
    EVP_DecodeInit(context);
    bool good = EVP_DecodeUpdate(context, bytes, &written, (const unsigned char *)text, (int)length) >= 0 &&
                EVP_DecodeFinal(context, bytes + written, &rest) == 1 && written + rest > 0;
    size_t size = good ? (size_t)written + (size_t)rest : 0;
    EVP_ENCODE_CTX_free(context);
    if (!good)
        return error_set(err, "%s is no base64", what);
    bytes[size] = '\0';
    if (strlen((char *)bytes) != size)
        return error_set(err, "%s is no PEM text", what);
    free(*out);
    *out = (char *)move(bytes);
    return 0;
}

/* ---- kubeconfig files ------------------------------------------------------------------------------------------- */

struct kubeconfig_file {
    char *path;
    cJSON *tree;
};

struct kubeconfig {
    struct kubeconfig_file files[FILES_MOST];
    size_t count;
};

static void kubeconfig_free(struct kubeconfig *kubeconfig)
{
    for (size_t i = 0; i < kubeconfig->count; i++) {
        free(kubeconfig->files[i].path);
        cJSON_Delete(kubeconfig->files[i].tree);
    }
}
#define cleanup_kubeconfig CLEANUP(kubeconfig_free)

/* An absent file is fine where several are listed. */
static int kubeconfig_add(struct kubeconfig *kubeconfig, const char *path, bool must_exist, struct error *err)
{
    if (!must_exist && access(path, F_OK) != 0)
        return 0;
    if (kubeconfig->count == FILES_MOST)
        return error_set(err, "KUBECONFIG lists more than %d files", FILES_MOST);
    cleanup_json cJSON *documents = yaml_read_file(path, err);
    if (documents == NULL)
        return -1;
    if (cJSON_GetArraySize(documents) > 1)
        return error_set(err, "kubeconfig '%s' holds more than one document", path);
    cleanup_free char *copy = strdup(path);
    if (copy == NULL)
        return error_set(err, "out of memory");
    cJSON *tree = cJSON_DetachItemFromArray(documents, 0);
    if (tree == NULL)
        return 0;
    kubeconfig->files[kubeconfig->count++] = (struct kubeconfig_file){move(copy), tree};
    return 0;
}

static int kubeconfig_add_list(struct kubeconfig *kubeconfig, const char *list, struct error *err)
{
    while (*list != '\0') {
        size_t length = strcspn(list, ":");
        cleanup_free char *path = strndup(list, length);
        if (path == NULL)
            return error_set(err, "out of memory");
        if (length > 0 && kubeconfig_add(kubeconfig, path, false, err) < 0)
            return -1;
        list += length + (list[length] == ':');
    }
    return 0;
}

/* The entry `name` of a list like "clusters", from the first file that has it. */
static const cJSON *kubeconfig_find(const struct kubeconfig *kubeconfig, const char *list, const char *name,
                                    const struct kubeconfig_file **file)
{
    for (size_t i = 0; i < kubeconfig->count; i++) {
        const cJSON *entry = NULL;
        cJSON_ArrayForEach(entry, json_at(kubeconfig->files[i].tree, list))
        {
            if (strcmp(json_string(entry, "name", ""), name) == 0) {
                *file = &kubeconfig->files[i];
                return entry;
            }
        }
    }
    return NULL;
}

static const char *kubeconfig_current_context(const struct kubeconfig *kubeconfig)
{
    for (size_t i = 0; i < kubeconfig->count; i++) {
        const char *name = json_string(kubeconfig->files[i].tree, "current-context", "");
        if (*name != '\0')
            return name;
    }
    return "";
}

/* A file that a kubeconfig names stands relative to that kubeconfig. */
static int set_relative_path(char **out, const struct kubeconfig_file *file, const char *path, struct error *err)
{
    const char *slash = strrchr(file->path, '/');
    if (*path == '/' || slash == NULL)
        return set_text(out, path, err);
    return set_format(out, err, "%.*s/%s", (int)(slash - file->path), file->path, path);
}

/* Takes "NAME-data" (base64), else the file that "NAME" points to. */
static int take_pem(char **pem, char **pem_file, const cJSON *entry, const struct kubeconfig_file *file,
                    const char *name, struct error *err)
{
    char data_name[64];
    snprintf(data_name, sizeof data_name, "%s-data", name);
    const char *data = json_string(entry, data_name, "");
    if (*data != '\0') {
        char what[512];
        snprintf(what, sizeof what, "%s in kubeconfig '%s'", data_name, file->path);
        return decode_base64(pem, data, what, err);
    }
    const char *path = json_string(entry, name, "");
    if (*path == '\0')
        return 0;
    if (set_relative_path(pem_file, file, path, err) < 0)
        return -1;
    return read_text(pem, *pem_file, PEM_MOST, false, err);
}

static int take_server(struct kube_config *config, const char *server, const char *where, struct error *err)
{
    size_t scheme = strncmp(server, "https://", 8) == 0 ? 8 : strncmp(server, "http://", 7) == 0 ? 7 : 0;
    if (scheme == 0)
        return error_set(err, "%s: the server '%s' must begin with https:// or http://", where, server);
    size_t length = strlen(server);
    while (length > scheme && server[length - 1] == '/')
        length--;
    if (length == scheme)
        return error_set(err, "%s: the server '%s' names no host", where, server);
    return set_format(&config->server, err, "%.*s", (int)length, server);
}

static int take_cluster(struct kube_config *config, const struct kubeconfig *kubeconfig, const char *name,
                        struct error *err)
{
    const struct kubeconfig_file *file = NULL;
    const cJSON *entry = kubeconfig_find(kubeconfig, "clusters", name, &file);
    if (entry == NULL || file == NULL)
        return error_set(err, "%s names the cluster '%s', which no kubeconfig defines", config->origin, name);
    const cJSON *cluster = json_at(entry, "cluster");
    char where[512];
    snprintf(where, sizeof where, "cluster '%s' of kubeconfig '%s'", name, file->path);
    if (take_server(config, json_string(cluster, "server", ""), where, err) < 0)
        return -1;
    config->insecure_skip_tls_verify = json_bool(cluster, "insecure-skip-tls-verify", false);
    const char *server_name = json_string(cluster, "tls-server-name", "");
    if (*server_name != '\0' && set_text(&config->tls_server_name, server_name, err) < 0)
        return -1;
    const char *proxy = json_string(cluster, "proxy-url", "");
    if (*proxy != '\0' && set_text(&config->proxy_url, proxy, err) < 0)
        return -1;
    return take_pem(&config->ca_pem, &config->ca_file, cluster, file, "certificate-authority", err);
}

/* Ways of saying who one is that we do not offer: better refused than ignored. */
static int refuse_foreign_credentials(const cJSON *user, const char *where, struct error *err)
{
    if (json_at(user, "exec") != NULL)
        return error_set(err,
                         "%s gets its credentials from the program '%s', and Thole runs no foreign programs: use a "
                         "token, a tokenFile or a client certificate",
                         where, json_string(user, "exec.command", ""));
    if (json_at(user, "auth-provider") != NULL)
        return error_set(err,
                         "%s uses the auth-provider '%s', which Kubernetes itself has removed: use a token, a "
                         "tokenFile or a client certificate",
                         where, json_string(user, "auth-provider.name", ""));
    if (json_at(user, "username") != NULL || json_at(user, "password") != NULL)
        return error_set(err,
                         "%s has a username and password, which Kubernetes no longer accepts: use a token, a "
                         "tokenFile or a client certificate",
                         where);
    static const char *const impersonation[] = {"as", "as-uid", "as-groups", "as-user-extra"};
    for (size_t i = 0; i < sizeof impersonation / sizeof impersonation[0]; i++)
        if (json_at(user, impersonation[i]) != NULL)
            return error_set(err,
                             "%s impersonates somebody ('%s'), which Thole does not support: use that user's own "
                             "credentials",
                             where, impersonation[i]);
    return 0;
}

static int take_user(struct kube_config *config, const struct kubeconfig *kubeconfig, const char *name,
                     struct error *err)
{
    if (*name == '\0')
        return 0;
    const struct kubeconfig_file *file = NULL;
    const cJSON *entry = kubeconfig_find(kubeconfig, "users", name, &file);
    if (entry == NULL || file == NULL)
        return error_set(err, "%s names the user '%s', whom no kubeconfig defines", config->origin, name);
    const cJSON *user = json_at(entry, "user");
    char where[512];
    snprintf(where, sizeof where, "user '%s' of kubeconfig '%s'", name, file->path);
    if (refuse_foreign_credentials(user, where, err) < 0)
        return -1;
    if (take_pem(&config->certificate_pem, &config->certificate_file, user, file, "client-certificate", err) < 0 ||
        take_pem(&config->key_pem, &config->key_file, user, file, "client-key", err) < 0)
        return -1;
    if ((config->certificate_pem == NULL) != (config->key_pem == NULL))
        return error_set(err, "%s has a client certificate or its key, but not both", where);
    const char *token_file = json_string(user, "tokenFile", "");
    if (*token_file != '\0') {
        if (set_relative_path(&config->token_file, file, token_file, err) < 0)
            return -1;
        return read_text(&config->token, config->token_file, TOKEN_MOST, true, err);
    }
    const char *token = json_string(user, "token", "");
    if (strpbrk(token, "\r\n") != NULL)
        return error_set(err, "%s has a token of several lines", where);
    return *token == '\0' ? 0 : set_text(&config->token, token, err);
}

static int take_context(struct kube_config *config, const struct kubeconfig *kubeconfig, const char *name,
                        struct error *err)
{
    if (*name == '\0')
        name = kubeconfig_current_context(kubeconfig);
    if (*name == '\0')
        return error_set(err, "kubeconfig '%s' has no current-context: name one with --context",
                         kubeconfig->files[0].path);
    const struct kubeconfig_file *file = NULL;
    const cJSON *entry = kubeconfig_find(kubeconfig, "contexts", name, &file);
    if (entry == NULL || file == NULL)
        return error_set(err, "kubeconfig '%s' has no context '%s'", kubeconfig->files[0].path, name);
    const cJSON *context = json_at(entry, "context");
    const char *namespace = json_string(context, "namespace", "");
    if (set_format(&config->origin, err, "context '%s' of kubeconfig '%s'", name, file->path) < 0 ||
        set_text(&config->namespace, *namespace == '\0' ? "default" : namespace, err) < 0)
        return -1;
    if (take_cluster(config, kubeconfig, json_string(context, "cluster", ""), err) < 0)
        return -1;
    return take_user(config, kubeconfig, json_string(context, "user", ""), err);
}

/* ---- in a pod --------------------------------------------------------------------------------------------------- */

static bool in_pod(const struct kube_config_source *source)
{
    return source->service_host != NULL && *source->service_host != '\0' && source->service_port != NULL &&
           *source->service_port != '\0' && source->service_account_dir != NULL;
}

static int take_service_account(struct kube_config *config, const struct kube_config_source *source, struct error *err)
{
    const char *host = source->service_host;
    bool bare_ipv6 = strchr(host, ':') != NULL && *host != '[';
    if (set_text(&config->origin, "the pod's service account", err) < 0 ||
        set_format(&config->server, err, "https://%s%s%s:%s", bare_ipv6 ? "[" : "", host, bare_ipv6 ? "]" : "",
                   source->service_port) < 0 ||
        set_format(&config->token_file, err, "%s/token", source->service_account_dir) < 0 ||
        set_format(&config->ca_file, err, "%s/ca.crt", source->service_account_dir) < 0)
        return -1;
    if (read_text(&config->token, config->token_file, TOKEN_MOST, true, err) < 0 ||
        read_text(&config->ca_pem, config->ca_file, PEM_MOST, false, err) < 0)
        return -1;
    cleanup_free char *namespace_file = NULL;
    if (set_format(&namespace_file, err, "%s/namespace", source->service_account_dir) < 0)
        return -1;
    if (access(namespace_file, F_OK) != 0)
        return set_text(&config->namespace, "default", err);
    return read_text(&config->namespace, namespace_file, NAMESPACE_MOST, true, err);
}

/* ---- which of them ---------------------------------------------------------------------------------------------- */

static int collect_files(struct kubeconfig *kubeconfig, const struct kube_config_source *source, struct error *err)
{
    if (source->kubeconfig != NULL && *source->kubeconfig != '\0') {
        if (kubeconfig_add(kubeconfig, source->kubeconfig, true, err) < 0)
            return -1;
        return kubeconfig->count > 0 ? 0 : error_set(err, "kubeconfig '%s' is empty", source->kubeconfig);
    }
    if (source->kubeconfig_variable != NULL && *source->kubeconfig_variable != '\0') {
        if (kubeconfig_add_list(kubeconfig, source->kubeconfig_variable, err) < 0)
            return -1;
        return kubeconfig->count > 0
                   ? 0
                   : error_set(err, "none of the files in KUBECONFIG ('%s') exists and holds something",
                               source->kubeconfig_variable);
    }
    if (in_pod(source) || source->home == NULL)
        return 0;
    cleanup_free char *path = NULL;
    if (set_format(&path, err, "%s/.kube/config", source->home) < 0)
        return -1;
    return kubeconfig_add(kubeconfig, path, false, err);
}

int kube_config_load(struct kube_config **out, const struct kube_config_source *source, struct error *err)
{
    cleanup_kube_config struct kube_config *config = calloc(1, sizeof *config);
    if (config == NULL)
        return error_set(err, "out of memory");
    cleanup_kubeconfig struct kubeconfig kubeconfig = {.count = 0};
    if (collect_files(&kubeconfig, source, err) < 0)
        return -1;
    if (kubeconfig.count > 0) {
        if (take_context(config, &kubeconfig, source->context == NULL ? "" : source->context, err) < 0)
            return -1;
    } else if (source->context != NULL && *source->context != '\0') {
        return error_set(err,
                         "context '%s' is asked for, but there is no kubeconfig to look it up in: give --kubeconfig",
                         source->context);
    } else if (in_pod(source)) {
        if (take_service_account(config, source, err) < 0)
            return -1;
    } else {
        return error_set(err, "no API server is known: give --kubeconfig, set KUBECONFIG, or run in a pod");
    }
    *out = move(config);
    return 0;
}

static int reread(char **text, const char *path, size_t most, bool trim, bool *changed, struct error *err)
{
    if (path == NULL)
        return 0;
    cleanup_free char *fresh = NULL;
    if (read_text(&fresh, path, most, trim, err) < 0)
        return -1;
    if (fresh != NULL && *text != NULL && strcmp(fresh, *text) == 0)
        return 0;
    free(*text);
    *text = move(fresh);
    *changed = true;
    return 0;
}

int kube_config_reload(struct kube_config *config, bool *changed, struct error *err)
{
    *changed = false;
    if (reread(&config->token, config->token_file, TOKEN_MOST, true, changed, err) < 0 ||
        reread(&config->ca_pem, config->ca_file, PEM_MOST, false, changed, err) < 0)
        return -1;
    /* A certificate and a key that do not belong together, because they are being replaced, must not be used: both
     * are read before either is kept. */
    cleanup_free char *certificate = config->certificate_pem == NULL ? NULL : strdup(config->certificate_pem);
    cleanup_free char *key = config->key_pem == NULL ? NULL : strdup(config->key_pem);
    bool pair_changed = false;
    if ((config->certificate_pem != NULL && certificate == NULL) || (config->key_pem != NULL && key == NULL))
        return error_set(err, "out of memory");
    if (reread(&certificate, config->certificate_file, PEM_MOST, false, &pair_changed, err) < 0 ||
        reread(&key, config->key_file, PEM_MOST, false, &pair_changed, err) < 0)
        return -1;
    if (pair_changed) {
        free(config->certificate_pem);
        free(config->key_pem);
        config->certificate_pem = move(certificate);
        config->key_pem = move(key);
        *changed = true;
    }
    return 0;
}
