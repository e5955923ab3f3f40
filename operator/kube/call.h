/* call — one request as libcurl and the API server see it; private to kube.
 *
 * client.c decides when a call is sent, sent again and ended; here are its bytes: what goes out, what came back, and
 * the sentence that says why it failed.
 */
#ifndef THOLE_OPERATOR_KUBE_CALL_H
#define THOLE_OPERATOR_KUBE_CALL_H

#include "kube/client.h"
#include "loop/pool.h"

enum kube_call_state { CALL_WAITING, CALL_ACTIVE, CALL_BACKING_OFF };

struct kube_call {
    struct kube_client *client;
    struct kube_call *next, *previous; /* of all calls of the client */
    struct kube_call *next_waiting;    /* of those that wait in the lane */
    enum kube_call_state state;
    bool aborted; /* cancelled inside a callback of libcurl, where it cannot be taken out at once */

    enum kube_method method;
    enum kube_lane lane;
    char *path; /* with the query */
    char *content_type;
    char *body;
    size_t body_length;
    int64_t timeout, silence;
    char what[KUBE_KEY_SIZE + 96]; /* "create Deployment default/lenet-ps-0" */

    kube_data *data; /* of a stream */
    kube_handler *handler;
    void *arg;

    unsigned attempts;
    bool authenticated_again;
    uint64_t credentials;    /* which version of them this attempt carries */
    struct loop_timer timer; /* of the pause before the next attempt, or of silence in this one */

    struct line *line;
    struct transfer transfer;
    CURL *easy;
    struct curl_slist *headers, *connect_to;
    char curl_error[CURL_ERROR_SIZE];
    struct buffer answer;
    struct error data_error; /* why `data` or the cap broke the answer off */
};

struct kube_call *call_new(const struct kube_request *request, struct error *err);
void call_free(struct kube_call *call);

/* Makes the libcurl handle for an attempt. */
int call_prepare(struct kube_call *call, const struct kube_config *config, struct error *err);
/* Releases what belongs to one attempt. */
void call_reset(struct kube_call *call);

/* Called by libcurl with the bytes of an answer; client.c guards it. */
size_t call_receive(const char *data, size_t length, struct kube_call *call);

/* What the attempt brought: fills `out` and `err` (to which out->error points where it failed). */
void call_answer(struct kube_call *call, CURLcode result, const struct kube_config *config, struct kube_response *out,
                 struct error *err);

/* In client.c: the write callback, which keeps count of the nesting. */
size_t kube_client_receive(char *data, size_t size, size_t count, void *arg);

#endif
