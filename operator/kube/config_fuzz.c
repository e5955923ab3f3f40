/* Any bytes as kubeconfig: refused with a sentence, or a config that is usable and reads itself again as the same.
 *
 * The linker puts the reader below before the one of common/buffer.h: no file of this machine is read. The input, cut
 * at its first form feed, is two files, named in $KUBECONFIG; beside them lie a certificate, a token and a directory's
 * name. */
#include "common/buffer.h"
#include "common/test/fuzz.h"
#include "kube/config.h"

#include <string.h>

static _Thread_local struct {
    const char *path;
    const char *text;
    size_t length;
} files[] = {{"/fuzz/a", NULL, 0},
             {"/fuzz/b", NULL, 0},
             {"/fuzz/pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", 60},
             {"/fuzz/token", " abc\n", 5},
             {"/fuzz/ca.crt", "ca", 2},
             {"/fuzz/namespace", "team\n", 5},
             {"/fuzz/binary", "a\0b", 3}};

/* NOLINTBEGIN(bugprone-reserved-identifier): the names are the linker's */
int __wrap_buffer_read_file(struct buffer *buffer, const char *path, struct error *err);
int __wrap_access(const char *path, int mode);

int __wrap_buffer_read_file(struct buffer *buffer, const char *path, struct error *err)
{
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        if (strcmp(files[i].path, path) == 0)
            return buffer_append(buffer, files[i].text, files[i].length, err);
    return error_set(err, "open '%s': No such file", path);
}

int __wrap_access(const char *path, int mode)
{
    (void)mode;
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        if (strcmp(files[i].path, path) == 0)
            return 0;
    return -1;
}
/* NOLINTEND(bugprone-reserved-identifier) */

static void check(struct kube_config *config)
{
    require(config->origin != NULL && config->namespace != NULL && config->server != NULL);
    const char *host = strstr(config->server, "://");
    require(strncmp(config->server, "http", 4) == 0 && host != NULL && host[3] != '\0');
    require((config->certificate_pem == NULL) == (config->key_pem == NULL));
    require(config->token == NULL || strpbrk(config->token, "\r\n") == NULL); /* it becomes a header */
    bool changed = true;
    struct error err = {0};
    int result = kube_config_reload(config, &changed, &err);
    require((result < 0) == (error_message(&err)[0] != '\0'));
    require_with_memory(result == 0 && !changed);
}

static void load(const struct kube_config_source *source)
{
    struct error err = {0};
    cleanup_kube_config struct kube_config *config = NULL;
    int result = kube_config_load(&config, source, &err);
    require((result < 0) == (error_message(&err)[0] != '\0') && (result < 0) == (config == NULL));
    if (config != NULL)
        check(config);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *cut = memchr(data, '\f', size);
    files[0].text = (const char *)data;
    files[0].length = cut == NULL ? size : (size_t)(cut - data);
    files[1].text = cut == NULL ? "" : (const char *)cut + 1;
    files[1].length = cut == NULL ? 0 : size - files[0].length - 1;
    load(&(struct kube_config_source){.kubeconfig_variable = "/fuzz/a:/fuzz/none::/fuzz/b", .home = "/fuzz"});
    load(&(struct kube_config_source){.kubeconfig = "/fuzz/a", .context = "b"});
    load(&(struct kube_config_source){.service_host = "::1", .service_port = "443", .service_account_dir = "/fuzz"});
    return 0;
}
