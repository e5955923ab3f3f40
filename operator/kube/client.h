/* client — requests to the API server on a loop: one request, one answer.
 *
 * HTTP/2, many requests on one connection; watches, ordinary requests and the leader's lease have connections of their
 * own. Reads that meet 429 or 503 are tried again here, with back-off and Retry-After; writes are not: their caller's
 * queue decides. A 401, or a certificate that is not believed, makes the credentials be read again and the request be
 * sent once more. A connection whose request timed out is never used again.
 */
#ifndef THOLE_OPERATOR_KUBE_CLIENT_H
#define THOLE_OPERATOR_KUBE_CLIENT_H

#include "common/log.h"
#include "kube/config.h"
#include "kube/resource.h"
#include "loop/loop.h"

#include <stddef.h>
#include <stdint.h>

struct kube_client; /* opaque */

/* `config` is taken over, also on failure. `log` is borrowed and may be NULL. */
struct kube_client *kube_client_new(struct loop *loop, struct kube_config *config, const struct log *log,
                                    struct error *err);

/* Every outstanding handler is called once more, with `cancelled` set; then nothing is called any longer. Stop watches,
 * informers and controllers first; not from a handler. NULL is fine. */
void kube_client_free(struct kube_client *client);
CLEANUP_DEFINE(cleanup_kube_client_pointer, struct kube_client, kube_client_free)
#define cleanup_kube_client CLEANUP(cleanup_kube_client_pointer)

const struct kube_config *kube_client_config(const struct kube_client *client);

/* Who leads may write. Asked right before a write (all but the Lease's own) is handed to libcurl, for its second
 * attempt too, and, while writes are under way, each time before libcurl runs: where the answer is false, the one is
 * refused with an error, and of the others nothing more is sent. NULL, as in the beginning: may always be written. */
typedef bool kube_gate(void *arg);
void kube_client_set_gate(struct kube_client *client, kube_gate *gate, void *arg);

/* Writes that were accepted and not yet answered, without the Lease's. */
unsigned kube_client_writes(const struct kube_client *client);

enum kube_method { KUBE_GET, KUBE_POST, KUBE_PUT, KUBE_PATCH, KUBE_DELETE };

/* Which connection. KUBE_LANE_WATCH is for streams, KUBE_LANE_LEASE for leader election alone. */
enum kube_lane { KUBE_LANE_REQUESTS, KUBE_LANE_WATCH, KUBE_LANE_LEASE };

/* Everything is borrowed until the call returns. */
struct kube_request {
    enum kube_method method;
    const struct kube_resource *resource; /* the object, … */
    const char *namespace, *name, *subresource;
    const char *path;         /* … or instead a path, already escaped ("/version") */
    const char *query;        /* already escaped (kube_query_add); may be NULL */
    const char *content_type; /* NULL: application/json */
    const char *body;
    size_t body_length;
    enum kube_lane lane;
    int64_t timeout;   /* nanoseconds for one attempt; 0: 30 s; < 0: none (streams) */
    int64_t silence;   /* nothing of the answer came for so long: it timed out; 0: no such limit */
    size_t most_bytes; /* of the answer; 0: 8 MiB */
};

struct kube_response {
    int status;                /* of HTTP; 0: no answer came */
    bool cancelled;            /* by kube_client_free */
    bool timed_out;            /* no answer, or no more of it, came in time */
    bool conflict;             /* a precondition was violated: look again */
    const char *reason;        /* of a failed request, the API server's CamelCase word ("AlreadyExists"), or "" */
    int64_t retry_after;       /* nanoseconds the server asks us to wait, at most 60 s, or 0 */
    cJSON *object;             /* the answer, NULL where it is none; freed after the handler unless moved away */
    const struct error *error; /* NULL: 2xx. Else one sentence with verb, object and the server's own message */
};

/* Called exactly once for every request that was accepted, on the loop, never inside kube_request(). */
typedef void kube_handler(void *arg, struct kube_response *response);

struct kube_call; /* opaque: a request under way, valid until its handler is called */

/* 0, or -1 with *err (no memory, no such name): the handler is then never called. `call` may be NULL. */
int kube_request(struct kube_client *client, const struct kube_request *request, kube_handler *handler, void *arg,
                 struct kube_call **call, struct error *err);

/* Ends it; its handler is not called. The server may have acted on it all the same. */
void kube_call_cancel(struct kube_call *call);

/* The same for an answer that comes in pieces: `data` gets the bytes of a 2xx answer as they arrive (0, or -1 with
 * *err to break off), `handler` its end. Not retried except for a 401. */
typedef int kube_data(void *arg, const char *data, size_t length, struct error *err);
int kube_stream(struct kube_client *client, const struct kube_request *request, kube_data *data, kube_handler *handler,
                void *arg, struct kube_call **call, struct error *err);

/* Counters, as Prometheus' rest_client_requests_total{method,code}. From any thread. */
enum { KUBE_CODES = 20 };
struct kube_client_metrics {
    uint64_t requests[KUBE_DELETE + 1][KUBE_CODES];
    uint64_t connections; /* opened so far */
};
void kube_client_metrics(const struct kube_client *client, struct kube_client_metrics *out);
const char *kube_method_name(enum kube_method method); /* "GET" */
const char *kube_code_name(int index);                 /* "200", …; "<error>" where no answer came, "other" */

#endif
