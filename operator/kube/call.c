#include "kube/call.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum {
    PATH_MOST = 16 * 1024,
    ANSWER_MOST = 8 * 1024 * 1024,
    REFUSAL_MOST = 64 * 1024, /* of a stream that was not granted */
    CONNECT_MILLISECONDS = 10 * 1000,
    DEAD_MILLISECONDS = 15 * 1000, /* bytes unacknowledged for so long end a connection */
};

static const int64_t default_timeout = 30 * SECONDS;
static const int64_t longest_retry_after = 60; /* seconds: no server may put us to sleep */

const char *kube_method_name(enum kube_method method)
{
    static const char *const names[] = {"GET", "POST", "PUT", "PATCH", "DELETE"};
    return names[method];
}

static const char *verb_of(const struct kube_request *request)
{
    static const char *const verbs[] = {"get", "create", "replace", "patch", "delete"};
    if (request->method != KUBE_GET || request->name != NULL || request->path != NULL)
        return verbs[request->method];
    return request->lane == KUBE_LANE_WATCH ? "watch" : "list";
}

static void describe(struct kube_call *call, const struct kube_request *request)
{
    const char *verb = verb_of(request);
    if (request->path != NULL) {
        snprintf(call->what, sizeof call->what, "%s %s", verb, request->path);
        return;
    }
    const struct kube_resource *resource = request->resource;
    struct kube_key key;
    if (kube_key_make(&key, resource->namespaced ? request->namespace : NULL, request->name) == 0)
        snprintf(call->what, sizeof call->what, "%s %s%s%s %s", verb, resource->kind,
                 request->subresource == NULL ? "" : "/", request->subresource == NULL ? "" : request->subresource,
                 key.text);
    else if (resource->namespaced && request->namespace != NULL)
        snprintf(call->what, sizeof call->what, "%s %s in %s", verb, resource->plural, request->namespace);
    else
        snprintf(call->what, sizeof call->what, "%s %s", verb, resource->plural);
}

static int build_path(struct kube_call *call, const struct kube_request *request, struct error *err)
{
    cleanup_buffer struct buffer path;
    buffer_init(&path, PATH_MOST);
    if (request->path != NULL) {
        if (buffer_append_text(&path, request->path, err) < 0)
            return -1;
    } else {
        /* A POST goes to the collection, its object names itself. */
        const char *name = request->method == KUBE_POST && request->subresource == NULL ? NULL : request->name;
        if (kube_path(&path, request->resource, request->namespace, name, request->subresource, err) < 0)
            return -1;
    }
    if (request->query != NULL && *request->query != '\0')
        if (buffer_append_text(&path, "?", err) < 0 || buffer_append_text(&path, request->query, err) < 0)
            return -1;
    call->path = move(path.data);
    return 0;
}

struct kube_call *call_new(const struct kube_request *request, struct error *err)
{
    struct kube_call *call = calloc(1, sizeof *call);
    if (call == NULL) {
        error_set(err, "out of memory for a request");
        return NULL;
    }
    call->method = request->method;
    call->lane = request->lane;
    call->timeout = request->timeout == 0 ? default_timeout : request->timeout;
    call->silence = request->silence;
    buffer_init(&call->answer, request->most_bytes == 0 ? ANSWER_MOST : request->most_bytes);
    describe(call, request);
    if (build_path(call, request, err) < 0) {
        call_free(call);
        return NULL;
    }
    call->content_type = strdup(request->content_type == NULL ? "application/json" : request->content_type);
    if (request->body != NULL) {
        call->body = malloc(request->body_length + 1);
        call->body_length = request->body_length;
        if (call->body != NULL)
            memcpy(call->body, request->body, request->body_length);
    }
    if (call->content_type == NULL || (request->body != NULL && call->body == NULL)) {
        error_set(err, "%s: out of memory for the request", call->what);
        call_free(call);
        return NULL;
    }
    return call;
}

void call_reset(struct kube_call *call)
{
    if (call->easy != NULL)
        curl_easy_cleanup(call->easy);
    call->easy = NULL;
    curl_slist_free_all(call->headers);
    call->headers = NULL;
    curl_slist_free_all(call->connect_to);
    call->connect_to = NULL;
    buffer_free(&call->answer);
    call->data_error = (struct error){0};
    call->curl_error[0] = '\0';
}

void call_free(struct kube_call *call)
{
    if (call == NULL)
        return;
    call_reset(call);
    free(call->path);
    free(call->content_type);
    free(call->body);
    free(call);
}

/* A peer that vanished without a word is noticed by what it does not acknowledge; keep-alive probes see to it that
 * there is something to acknowledge. */
static int harden_socket(void *arg, curl_socket_t socket, curlsocktype purpose)
{
    (void)arg;
    if (purpose == CURLSOCKTYPE_IPCXN) {
        unsigned milliseconds = DEAD_MILLISECONDS;
        setsockopt(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, &milliseconds, sizeof milliseconds);
    }
    return CURL_SOCKOPT_OK;
}

static int add_line(struct curl_slist **list, const char *line)
{
    struct curl_slist *longer = curl_slist_append(*list, line);
    if (longer == NULL)
        return -1;
    *list = longer;
    return 0;
}

static int add_header(struct kube_call *call, const char *name, const char *value)
{
    cleanup_free char *line = NULL;
    if (asprintf(&line, "%s: %s", name, value) < 0) {
        line = NULL;
        return -1;
    }
    return add_line(&call->headers, line);
}

static int set_headers(struct kube_call *call, const struct kube_config *config)
{
    cleanup_free char *bearer = NULL;
    if (config->token != NULL && asprintf(&bearer, "Bearer %s", config->token) < 0) {
        bearer = NULL;
        return -1;
    }
    if (add_header(call, "Accept", "application/json") < 0 || add_line(&call->headers, "Expect:") < 0)
        return -1;
    if (call->body != NULL && add_header(call, "Content-Type", call->content_type) < 0)
        return -1;
    if (bearer != NULL && add_header(call, "Authorization", bearer) < 0)
        return -1;
    return curl_easy_setopt(call->easy, CURLOPT_HTTPHEADER, call->headers) == CURLE_OK ? 0 : -1;
}

static CURLcode set_blob(CURL *easy, CURLoption option, char *pem)
{
    struct curl_blob blob = {.data = pem, .len = strlen(pem), .flags = CURL_BLOB_COPY};
    return curl_easy_setopt(easy, option, &blob);
}

static int set_tls(CURL *easy, const struct kube_config *config)
{
    if (config->insecure_skip_tls_verify) {
        curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L);
        curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L);
    } else if (config->ca_pem != NULL) {
        /* This authority and none of the system's. */
        curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
        if (set_blob(easy, CURLOPT_CAINFO_BLOB, config->ca_pem) != CURLE_OK)
            return -1;
    }
    if (config->certificate_pem == NULL)
        return 0;
    if (set_blob(easy, CURLOPT_SSLCERT_BLOB, config->certificate_pem) != CURLE_OK ||
        set_blob(easy, CURLOPT_SSLKEY_BLOB, config->key_pem) != CURLE_OK)
        return -1;
    return 0;
}

/* With a tls-server-name the URL names that, so that it is what the certificate must say, and the connection goes to
 * the server's own address all the same. */
static int set_renamed_url(struct kube_call *call, const struct kube_config *config, char **url)
{
    const char *host = strstr(config->server, "://") + 3;
    size_t authority = strcspn(host, "/");
    const char *colon = memrchr(host, ':', authority);
    const char *bracket = memrchr(host, ']', authority);
    bool has_port = colon != NULL && (bracket == NULL || colon > bracket);
    int host_length = (int)(has_port ? (size_t)(colon - host) : authority);
    int port_length = has_port ? (int)(host + authority - colon) : 0; /* with its colon */

    cleanup_free char *address = NULL;
    if (asprintf(&address, "::%.*s%.*s", host_length, host, port_length, has_port ? colon : "") < 0) {
        address = NULL;
        return -1;
    }
    if (add_line(&call->connect_to, address) < 0)
        return -1;
    curl_easy_setopt(call->easy, CURLOPT_CONNECT_TO, call->connect_to);
    return asprintf(url, "%.*s%s%s%s", (int)(host - config->server), config->server, config->tls_server_name,
                    host + host_length, call->path);
}

static int set_url(struct kube_call *call, const struct kube_config *config)
{
    cleanup_free char *url = NULL;
    int length = config->tls_server_name == NULL ? asprintf(&url, "%s%s", config->server, call->path)
                                                 : set_renamed_url(call, config, &url);
    if (length < 0) {
        url = NULL;
        return -1;
    }
    return curl_easy_setopt(call->easy, CURLOPT_URL, url) == CURLE_OK ? 0 : -1;
}

static void set_method(struct kube_call *call)
{
    CURL *easy = call->easy;
    if (call->body != NULL) {
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, call->body);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)call->body_length);
    }
    if (call->method != KUBE_GET)
        curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, kube_method_name(call->method));
}

int call_prepare(struct kube_call *call, const struct kube_config *config, struct error *err)
{
    call_reset(call);
    CURL *easy = call->easy = curl_easy_init();
    if (easy == NULL || set_url(call, config) < 0 || set_headers(call, config) < 0 || set_tls(easy, config) < 0) {
        call_reset(call);
        return error_set(err, "%s: out of memory for the request", call->what);
    }
    set_method(call);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "https,http");
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "thole-operator/" THOLE_VERSION);
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
    curl_easy_setopt(easy, CURLOPT_PIPEWAIT, 1L);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MILLISECONDS);
    if (call->timeout > 0)
        curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)(call->timeout / MILLISECONDS));
    curl_easy_setopt(easy, CURLOPT_SOCKOPTFUNCTION, harden_socket);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPIDLE, 10L);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPINTVL, 5L);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, call->curl_error);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, kube_client_receive);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, call);
    if (config->proxy_url != NULL)
        curl_easy_setopt(easy, CURLOPT_PROXY, config->proxy_url);
    return 0;
}

static long status_of(const struct kube_call *call)
{
    long status = 0;
    curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status);
    return status;
}

size_t call_receive(const char *data, size_t length, struct kube_call *call)
{
    bool granted = status_of(call) / 100 == 2;
    if (call->data != NULL && granted)
        return call->data(call->arg, data, length, &call->data_error) == 0 ? length : 0;
    size_t most = call->data != NULL ? REFUSAL_MOST : call->answer.cap;
    if (length <= most - call->answer.length && buffer_append(&call->answer, data, length, NULL) == 0)
        return length;
    error_set(&call->data_error, "the answer is larger than %zu bytes", most);
    return 0;
}

/* What the server says went wrong: the message of a Status, else the beginning of whatever text came. */
static void server_message(const struct kube_call *call, const cJSON *status, char *out, size_t size)
{
    const char *message = json_string(status, "message", "");
    if (*message == '\0')
        message = buffer_text(&call->answer);
    snprintf(out, size, "%.600s", message);
    for (char *c = out; *c != '\0'; c++)
        if ((unsigned char)*c < ' ')
            *c = ' ';
    size_t length = strlen(out);
    while (length > 0 && (out[length - 1] == ' ' || out[length - 1] == '.'))
        out[--length] = '\0';
}

/* A patch that names another UID is not "Conflict" but "Invalid", because a UID cannot be changed. */
static bool is_conflict(long status, const char *reason, const cJSON *object)
{
    if (status == 409)
        return strcmp(reason, "Conflict") == 0;
    const cJSON *cause = NULL;
    cJSON_ArrayForEach(cause, json_at(object, "details.causes"))
    {
        if (status == 422 && strcmp(json_string(cause, "field", ""), "metadata.uid") == 0)
            return true;
    }
    return false;
}

static void answer_refused(struct kube_call *call, long status, struct kube_response *out, struct error *err)
{
    out->reason = json_string(out->object, "reason", "");
    int64_t seconds = json_int(out->object, "details.retryAfterSeconds", 0);
    curl_off_t header = 0;
    if (curl_easy_getinfo(call->easy, CURLINFO_RETRY_AFTER, &header) == CURLE_OK && header > 0)
        seconds = header;
    if (seconds > longest_retry_after)
        seconds = longest_retry_after;
    out->retry_after = seconds < 0 ? 0 : seconds * SECONDS;
    out->conflict = is_conflict(status, out->reason, out->object);
    char message[700];
    server_message(call, out->object, message, sizeof message);
    error_code(err, (int)status, "%s: the API server answered %ld%s%s%s%s", call->what, status,
               *out->reason == '\0' ? "" : " ", out->reason, *message == '\0' ? "" : ": ", message);
    out->error = err;
}

static void answer_absent(struct kube_call *call, CURLcode result, const struct kube_config *config,
                          struct kube_response *out, struct error *err)
{
    if (call->data_error.message[0] != '\0') {
        error_set(err, "%s: %s", call->what, error_message(&call->data_error));
    } else {
        const char *why = call->curl_error[0] != '\0' ? call->curl_error : curl_easy_strerror(result);
        error_set(err, "%s: no answer from %s: %s", call->what, config->server, why);
    }
    out->error = err;
}

void call_answer(struct kube_call *call, CURLcode result, const struct kube_config *config, struct kube_response *out,
                 struct error *err)
{
    *out = (struct kube_response){.timed_out = result == CURLE_OPERATION_TIMEDOUT, .reason = ""};
    if (result != CURLE_OK) {
        answer_absent(call, result, config, out, err);
        return;
    }
    long status = status_of(call);
    out->status = (int)status;
    if (call->answer.length > 0)
        out->object = json_parse(call->answer.data, call->answer.length, "the answer", NULL);
    if (status / 100 != 2) {
        answer_refused(call, status, out, err);
    } else if (call->data == NULL && call->answer.length > 0 && out->object == NULL) {
        error_set(err, "%s: the API server answered something that is not JSON", call->what);
        out->error = err;
    }
}
