#include "common/buffer.h"
#include "kube/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

/* A folder of its own for each test, with the files that the cases name. */
struct folder {
    char path[64];
};

static void write_file(const struct folder *folder, const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder->path, name);
    struct error err = {0};
    if (file_write_atomically(path, text, strlen(text), &err) < 0)
        fail_msg("%s", error_message(&err));
}

static int make_folder(void **state)
{
    struct folder *folder = calloc(1, sizeof *folder);
    assert_non_null(folder);
    snprintf(folder->path, sizeof folder->path, "/tmp/thole-config-test-XXXXXX");
    assert_non_null(mkdtemp(folder->path));
    *state = folder;
    return 0;
}

static int remove_folder(void **state)
{
    struct folder *folder = *state;
    static const char *const names[] = {"config", "other", "token", "ca.crt", "namespace", "me.crt", "me.key", "empty"};
    char path[256];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", folder->path, names[i]);
        unlink(path);
    }
    int result = rmdir(folder->path);
    free(folder);
    return result;
}

static struct kube_config *load(const struct folder *folder, const char *context, struct error *err)
{
    char path[256];
    snprintf(path, sizeof path, "%s/config", folder->path);
    const struct kube_config_source source = {.kubeconfig = path, .context = context};
    struct kube_config *config = NULL;
    return kube_config_load(&config, &source, err) < 0 ? NULL : config;
}

#define HEAD    "apiVersion: v1\nkind: Config\ncurrent-context: main\n"
#define CONTEXT "contexts: [{name: main, context: {cluster: c, user: u}}]\n"
#define CLUSTER "clusters: [{name: c, cluster: {server: 'https://10.0.0.1:6443/'}}]\n"

static void everything_in_one_file(void **state)
{
    const struct folder *folder = *state;
    write_file(folder, "config",
               "current-context: main\n"
               "contexts:\n"
               "- {name: main, context: {cluster: c, user: u, namespace: team}}\n"
               "- {name: plain, context: {cluster: p, user: ''}}\n"
               "clusters:\n"
               "- {name: c, cluster: {server: 'https://10.0.0.1:6443/', certificate-authority-data: Q0EK,\n"
               "    tls-server-name: kubernetes, proxy-url: 'http://proxy:3128'}}\n"
               "- {name: p, cluster: {server: 'http://127.0.0.1:8080', insecure-skip-tls-verify: true}}\n"
               "users:\n"
               "- {name: u, user: {client-certificate-data: Q0VSVAo=, client-key: me.key, token: secret}}\n");
    write_file(folder, "me.key", "KEY\n");
    struct error err = {0};
    cleanup_kube_config struct kube_config *config = load(folder, NULL, &err);
    assert_string_equal(error_message(&err), "");
    assert_non_null(config);
    assert_string_equal(config->server, "https://10.0.0.1:6443");
    assert_string_equal(config->namespace, "team");
    assert_string_equal(config->ca_pem, "CA\n");
    assert_string_equal(config->certificate_pem, "CERT\n");
    assert_string_equal(config->key_pem, "KEY\n");
    assert_string_equal(config->token, "secret");
    assert_string_equal(config->tls_server_name, "kubernetes");
    assert_string_equal(config->proxy_url, "http://proxy:3128");
    assert_false(config->insecure_skip_tls_verify);
    assert_non_null(strstr(config->origin, "context 'main'"));

    cleanup_kube_config struct kube_config *plain = load(folder, "plain", &err);
    assert_non_null(plain);
    assert_string_equal(plain->server, "http://127.0.0.1:8080");
    assert_string_equal(plain->namespace, "default");
    assert_true(plain->insecure_skip_tls_verify);
    assert_null(plain->token);
}

static const struct {
    const char *name, *text, *context, *error;
} mistakes[] = {
    {"no context", CONTEXT CLUSTER, NULL, "has no current-context: name one with --context"},
    {"unknown context", HEAD CONTEXT CLUSTER, "nope", "has no context 'nope'"},
    {"unknown cluster", HEAD CONTEXT, NULL, "names the cluster 'c', which no kubeconfig defines"},
    {"unknown user", HEAD CONTEXT CLUSTER, NULL, "names the user 'u', whom no kubeconfig defines"},
    {"no server", HEAD CONTEXT "clusters: [{name: c, cluster: {}}]\n", NULL, "must begin with https://"},
    {"a foreign scheme", HEAD CONTEXT "clusters: [{name: c, cluster: {server: 'ftp://x'}}]\n", NULL,
     "'ftp://x' must begin"},
    {"exec", HEAD CONTEXT CLUSTER "users: [{name: u, user: {exec: {command: aws}}}]\n", NULL,
     "gets its credentials from the program 'aws', and Thole runs no foreign programs"},
    {"auth-provider", HEAD CONTEXT CLUSTER "users: [{name: u, user: {auth-provider: {name: gcp}}}]\n", NULL,
     "auth-provider 'gcp'"},
    {"password", HEAD CONTEXT CLUSTER "users: [{name: u, user: {username: me, password: x}}]\n", NULL,
     "username and password"},
    {"impersonation", HEAD CONTEXT CLUSTER "users: [{name: u, user: {as: root, token: x}}]\n", NULL,
     "impersonates somebody"},
    {"half a pair", HEAD CONTEXT CLUSTER "users: [{name: u, user: {client-certificate-data: Q0VSVAo=}}]\n", NULL,
     "but not both"},
    {"no base64",
     HEAD CONTEXT CLUSTER "users: [{name: u, user: {client-certificate-data: '%%%', client-key-data: Cg==}}]\n", NULL,
     "client-certificate-data in kubeconfig"},
    {"a missing file", HEAD CONTEXT CLUSTER "users: [{name: u, user: {tokenFile: nowhere}}]\n", NULL, "nowhere"},
    {"an empty token file", HEAD CONTEXT CLUSTER "users: [{name: u, user: {tokenFile: empty}}]\n", NULL,
     "holds no token"},
    {"a token of two lines", HEAD CONTEXT CLUSTER "users: [{name: u, user: {token: \"a\\r\\nb\"}}]\n", NULL,
     "several lines"},
    {"no YAML", "a: [\n", NULL, "line"},
    {"two documents", HEAD "---\n" HEAD, NULL, "more than one document"},
    {"empty", "", NULL, "is empty"},
    {"a list", "[1, 2]\n", NULL, "has no current-context"},
};

static void each_mistake_gets_its_sentence(void **state)
{
    const struct folder *folder = *state;
    write_file(folder, "empty", "\n");
    for (size_t i = 0; i < sizeof mistakes / sizeof mistakes[0]; i++) {
        write_file(folder, "config", mistakes[i].text);
        struct error err = {0};
        struct kube_config *config = load(folder, mistakes[i].context, &err);
        if (config != NULL || strstr(error_message(&err), mistakes[i].error) == NULL)
            fail_msg("%s: '%s'", mistakes[i].name, error_message(&err));
    }
}

static void several_files_are_merged_and_the_first_wins(void **state)
{
    const struct folder *folder = *state;
    write_file(folder, "config",
               "contexts: [{name: main, context: {cluster: c, user: u}}]\n"
               "users: [{name: u, user: {token: first}}]\n");
    write_file(folder, "other", HEAD CLUSTER "users: [{name: u, user: {token: second}}]\n");
    char list[256];
    snprintf(list, sizeof list, ":%s/config:%s/missing:%s/other", folder->path, folder->path, folder->path);
    struct kube_config_source source = {.kubeconfig_variable = list};
    struct error err = {0};
    cleanup_kube_config struct kube_config *config = NULL;
    assert_int_equal(kube_config_load(&config, &source, &err), 0);
    assert_string_equal(config->token, "first");
    assert_string_equal(config->server, "https://10.0.0.1:6443");

    source.kubeconfig_variable = "/nowhere/a:/nowhere/b";
    struct kube_config *none = NULL;
    assert_int_equal(kube_config_load(&none, &source, &err), -1);
    assert_non_null(strstr(error_message(&err), "none of the files in KUBECONFIG"));
    source = (struct kube_config_source){.kubeconfig = "/nowhere/a"};
    assert_int_equal(kube_config_load(&none, &source, &err), -1);
    assert_non_null(strstr(error_message(&err), "/nowhere/a"));
    source = (struct kube_config_source){.home = "/nowhere"};
    assert_int_equal(kube_config_load(&none, &source, &err), -1);
    assert_non_null(strstr(error_message(&err), "no API server is known"));
}

static void a_pod_has_its_service_account_and_its_token_rotates(void **state)
{
    const struct folder *folder = *state;
    write_file(folder, "token", "one\n");
    write_file(folder, "ca.crt", "CA\n");
    write_file(folder, "namespace", "thole-system");
    const struct kube_config_source source = {
        .service_host = "fd00::1", .service_port = "443", .service_account_dir = folder->path, .home = "/nowhere"};
    struct error err = {0};
    cleanup_kube_config struct kube_config *config = NULL;
    assert_int_equal(kube_config_load(&config, &source, &err), 0);
    assert_string_equal(config->server, "https://[fd00::1]:443");
    assert_string_equal(config->namespace, "thole-system");
    assert_string_equal(config->token, "one");

    bool changed = true;
    assert_int_equal(kube_config_reload(config, &changed, &err), 0);
    assert_false(changed);
    write_file(folder, "token", "two");
    assert_int_equal(kube_config_reload(config, &changed, &err), 0);
    assert_true(changed);
    assert_string_equal(config->token, "two");
    /* A file that is being replaced keeps the old token in use. */
    write_file(folder, "token", "");
    assert_int_equal(kube_config_reload(config, &changed, &err), -1);
    assert_string_equal(config->token, "two");
}

static void a_renewed_certificate_is_read_with_its_key(void **state)
{
    const struct folder *folder = *state;
    write_file(folder, "config",
               HEAD CONTEXT CLUSTER "users: [{name: u, user: {client-certificate: me.crt, client-key: me.key}}]\n");
    write_file(folder, "me.crt", "CERT 1\n");
    write_file(folder, "me.key", "KEY 1\n");
    struct error err = {0};
    cleanup_kube_config struct kube_config *config = load(folder, NULL, &err);
    assert_non_null(config);
    char path[256];
    snprintf(path, sizeof path, "%s/me.key", folder->path);
    write_file(folder, "me.crt", "CERT 2\n");
    unlink(path);
    bool changed = true;
    assert_int_equal(kube_config_reload(config, &changed, &err), -1);
    assert_string_equal(config->certificate_pem, "CERT 1\n");
    write_file(folder, "me.key", "KEY 2\n");
    assert_int_equal(kube_config_reload(config, &changed, &err), 0);
    assert_true(changed);
    assert_string_equal(config->certificate_pem, "CERT 2\n");
    assert_string_equal(config->key_pem, "KEY 2\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(everything_in_one_file, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(each_mistake_gets_its_sentence, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(several_files_are_merged_and_the_first_wins, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(a_pod_has_its_service_account_and_its_token_rotates, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(a_renewed_certificate_is_read_with_its_key, make_folder, remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
