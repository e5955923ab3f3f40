#include "kube/resource.h"

#include <stdio.h>
#include <string.h>

int kube_key_make(struct kube_key *out, const char *namespace, const char *name)
{
    if (name == NULL || *name == '\0' || strlen(name) >= KUBE_NAME_SIZE || strchr(name, '/') != NULL)
        return -1;
    if (namespace == NULL || *namespace == '\0') {
        snprintf(out->text, sizeof out->text, "%s", name);
        return 0;
    }
    if (strlen(namespace) >= KUBE_NAMESPACE_SIZE || strchr(namespace, '/') != NULL)
        return -1;
    snprintf(out->text, sizeof out->text, "%s/%s", namespace, name);
    return 0;
}

int kube_key_of(struct kube_key *out, const cJSON *object)
{
    return kube_key_make(out, json_string(object, "metadata.namespace", NULL),
                         json_string(object, "metadata.name", NULL));
}

int kube_key_split(const char *key, char *namespace, char *name)
{
    const char *slash = strchr(key, '/');
    size_t length = slash == NULL ? 0 : (size_t)(slash - key);
    const char *rest = slash == NULL ? key : slash + 1;
    if (length >= KUBE_NAMESPACE_SIZE || (slash != NULL && length == 0))
        return -1;
    if (*rest == '\0' || strlen(rest) >= KUBE_NAME_SIZE || strchr(rest, '/') != NULL)
        return -1;
    memcpy(namespace, key, length);
    namespace[length] = '\0';
    snprintf(name, KUBE_NAME_SIZE, "%s", rest);
    return 0;
}

/* Everything but RFC 3986's unreserved characters. */
static int append_escaped(struct buffer *out, const char *text, struct error *err)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
    static const char digits[] = "0123456789ABCDEF";
    while (*text != '\0') {
        size_t length = strspn(text, plain);
        if (buffer_append(out, text, length, err) < 0)
            return -1;
        text += length;
        if (*text == '\0')
            break;
        unsigned char byte = (unsigned char)*text++;
        const char escaped[3] = {'%', digits[byte >> 4], digits[byte & 15]};
        if (buffer_append(out, escaped, sizeof escaped, err) < 0)
            return -1;
    }
    return 0;
}

static int append_segment(struct buffer *out, const char *segment, struct error *err)
{
    /* "." and ".." are plain characters that servers and libraries resolve as directories. */
    if (*segment == '\0' || strcmp(segment, ".") == 0 || strcmp(segment, "..") == 0)
        return error_set(err, "'%s' cannot name anything in a request's path", segment);
    if (buffer_append_text(out, "/", err) < 0)
        return -1;
    return append_escaped(out, segment, err);
}

int kube_path(struct buffer *out, const struct kube_resource *resource, const char *namespace, const char *name,
              const char *subresource, struct error *err)
{
    bool core = *resource->group == '\0';
    if (append_segment(out, core ? "api" : "apis", err) < 0)
        return -1;
    if (!core && append_segment(out, resource->group, err) < 0)
        return -1;
    if (append_segment(out, resource->version, err) < 0)
        return -1;
    if (resource->namespaced && namespace != NULL)
        if (append_segment(out, "namespaces", err) < 0 || append_segment(out, namespace, err) < 0)
            return -1;
    if (append_segment(out, resource->plural, err) < 0)
        return -1;
    if (name != NULL && append_segment(out, name, err) < 0)
        return -1;
    if (subresource != NULL && append_segment(out, subresource, err) < 0)
        return -1;
    return 0;
}

int kube_query_add(struct buffer *out, const char *name, const char *value, struct error *err)
{
    if (out->length > 0 && buffer_append_text(out, "&", err) < 0)
        return -1;
    if (append_escaped(out, name, err) < 0 || buffer_append_text(out, "=", err) < 0)
        return -1;
    return append_escaped(out, value, err);
}

void kube_api_version(const struct kube_resource *resource, char *out)
{
    if (*resource->group == '\0')
        snprintf(out, KUBE_API_VERSION_SIZE, "%s", resource->version);
    else
        snprintf(out, KUBE_API_VERSION_SIZE, "%s/%s", resource->group, resource->version);
}
