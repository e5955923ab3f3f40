#include "kube/client.h"
#include "common/crypto.h"
#include "kube/call.h"
#include "loop/pool.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LANES = KUBE_LANE_LEASE + 1, READ_ATTEMPTS = 6 };

static const int64_t credentials_age = 60 * SECONDS; /* projected tokens rotate: the files are read again so often */
static const int64_t first_backoff = 100 * MILLISECONDS;
static const int64_t longest_backoff = 30 * SECONDS;

/* How much a lane does at once. Beyond it requests wait here, where their time-out does not run yet. */
static const struct {
    unsigned calls;
    long connections;
} lane_limits[LANES] = {
    [KUBE_LANE_REQUESTS] = {64, 4},
    [KUBE_LANE_WATCH] = {256, 0},
    [KUBE_LANE_LEASE] = {4, 1},
};

/* A pool of connections. One whose request timed out is retired: it takes no new requests, and goes when those under
 * way have ended. */
struct line {
    struct kube_client *client;
    struct pool *pool;
    unsigned calls, writes;
    struct line *next_retired;
};

struct lane {
    struct line *line; /* current; NULL until needed */
    struct kube_call *first_waiting, **last_waiting;
    unsigned active;
};

struct kube_client {
    struct loop *loop;
    struct kube_config *config;
    const struct log *log;
    struct lane lanes[LANES];
    struct line *retired;
    struct kube_call *calls;
    struct loop_timer pump;
    unsigned receiving; /* callbacks of libcurl that are running */
    bool aborted;       /* some call is */
    bool closing;
    kube_gate *gate;
    void *gate_arg;
    uint64_t credentials; /* counts their versions */
    struct instant credentials_read;
    _Atomic uint64_t requests[KUBE_DELETE + 1][KUBE_CODES];
    _Atomic uint64_t connections;
};

static const int counted_codes[KUBE_CODES - 1] = {0,   200, 201, 202, 400, 401, 403, 404, 405, 409,
                                                  410, 413, 415, 422, 429, 500, 502, 503, 504};

const char *kube_code_name(int index)
{
    static const char *const names[KUBE_CODES] = {"<error>", "200", "201", "202", "400", "401",  "403",
                                                  "404",     "405", "409", "410", "413", "415",  "422",
                                                  "429",     "500", "502", "503", "504", "other"};
    return names[index];
}

static void count_answer(struct kube_client *client, enum kube_method method, int status, CURL *easy)
{
    long opened = 0;
    curl_easy_getinfo(easy, CURLINFO_NUM_CONNECTS, &opened);
    atomic_fetch_add_explicit(&client->connections, (uint64_t)opened, memory_order_relaxed);
    int index = 0;
    while (index < KUBE_CODES - 1 && counted_codes[index] != status)
        index++;
    atomic_fetch_add_explicit(&client->requests[method][index], 1, memory_order_relaxed);
}

void kube_client_metrics(const struct kube_client *client, struct kube_client_metrics *out)
{
    out->connections = atomic_load_explicit(&client->connections, memory_order_relaxed);
    for (int method = 0; method <= KUBE_DELETE; method++)
        for (int code = 0; code < KUBE_CODES; code++)
            out->requests[method][code] = atomic_load_explicit(&client->requests[method][code], memory_order_relaxed);
}

/* ---- connections ------------------------------------------------------------------------------------------------ */

static bool is_gated(const struct kube_call *call)
{
    return call->method != KUBE_GET && call->lane != KUBE_LANE_LEASE;
}

static bool gate_is_open(const struct kube_client *client)
{
    return client->gate == NULL || client->gate(client->gate_arg);
}

/* Bytes of a write may still be libcurl's when the lead is lost. */
static bool may_run(void *arg)
{
    const struct line *line = arg;
    return line->writes == 0 || gate_is_open(line->client);
}

static struct line *current_line(struct kube_client *client, enum kube_lane lane, struct error *err)
{
    if (client->lanes[lane].line != NULL)
        return client->lanes[lane].line;
    struct line *line = calloc(1, sizeof *line);
    if (line == NULL) {
        error_set(err, "out of memory for connections");
        return NULL;
    }
    line->pool = pool_new(client->loop, lane_limits[lane].connections, err);
    if (line->pool == NULL) {
        free(line);
        return NULL;
    }
    line->client = client;
    pool_set_guard(line->pool, may_run, line);
    client->lanes[lane].line = line;
    return line;
}

static void retire_line(struct kube_client *client, struct line *line)
{
    for (int i = 0; i < LANES; i++) {
        if (client->lanes[i].line != line)
            continue;
        client->lanes[i].line = NULL;
        line->next_retired = client->retired;
        client->retired = line;
    }
}

static void free_line(struct line *line)
{
    pool_free(line->pool);
    free(line);
}

/* Only from the pump: a pool cannot go while it is calling us. */
static void free_retired_lines(struct kube_client *client)
{
    for (struct line **link = &client->retired; *link != NULL;) {
        struct line *line = *link;
        if (line->calls > 0) {
            link = &line->next_retired;
            continue;
        }
        *link = line->next_retired;
        free_line(line);
    }
}

/* ---- credentials ------------------------------------------------------------------------------------------------ */

static void read_credentials(struct kube_client *client)
{
    bool changed = false;
    struct error err = {0};
    client->credentials_read = loop_now(client->loop);
    if (kube_config_reload(client->config, &changed, &err) < 0)
        log_warn(client->log, "credentials cannot be read again; the old ones stay", "error", error_message(&err),
                 NULL);
    if (!changed)
        return;
    log_info(client->log, "credentials changed and were read again", NULL);
    client->credentials++;
    for (int i = 0; i < LANES; i++)
        if (client->lanes[i].line != NULL)
            retire_line(client, client->lanes[i].line);
}

/* ---- calls ------------------------------------------------------------------------------------------------------ */

static void link_call(struct kube_client *client, struct kube_call *call)
{
    call->client = client;
    call->next = client->calls;
    if (client->calls != NULL)
        client->calls->previous = call;
    client->calls = call;
}

static void unlink_call(struct kube_call *call)
{
    if (call->previous != NULL)
        call->previous->next = call->next;
    else
        call->client->calls = call->next;
    if (call->next != NULL)
        call->next->previous = call->previous;
}

static void enqueue(struct kube_call *call)
{
    struct kube_client *client = call->client;
    struct lane *lane = &client->lanes[call->lane];
    call->state = CALL_WAITING;
    call->next_waiting = NULL;
    *lane->last_waiting = call;
    lane->last_waiting = &call->next_waiting;
    loop_timer_set(&client->pump, 0);
}

static struct kube_call *dequeue(struct lane *lane)
{
    struct kube_call *call = lane->first_waiting;
    lane->first_waiting = call->next_waiting;
    if (lane->first_waiting == NULL)
        lane->last_waiting = &lane->first_waiting;
    return call;
}

static void take_out_of_lane(struct kube_call *call)
{
    struct lane *lane = &call->client->lanes[call->lane];
    struct kube_call **link = &lane->first_waiting;
    while (*link != call)
        link = &(*link)->next_waiting;
    *link = call->next_waiting;
    if (lane->last_waiting == &call->next_waiting)
        lane->last_waiting = link;
}

/* The transfer is out of libcurl's hands: the slot is free for the next. */
static void release_slot(struct kube_call *call)
{
    loop_timer_cancel(&call->timer);
    call->client->lanes[call->lane].active--;
    call->line->calls--;
    call->line->writes -= is_gated(call);
    call->line = NULL;
    loop_timer_set(&call->client->pump, 0);
}

static void destroy(struct kube_call *call)
{
    loop_timer_cancel(&call->timer);
    unlink_call(call);
    call_free(call);
}

static void finish(struct kube_call *call, struct kube_response *response)
{
    kube_handler *handler = call->handler;
    void *arg = call->arg;
    /* The handler may send the next request, or free what `call` was for: the call is out of the way first. */
    destroy(call);
    handler(arg, response);
    cJSON_Delete(response->object);
}

static void finish_failed(struct kube_call *call, const struct error *error, bool cancelled)
{
    struct kube_response response = {.cancelled = cancelled, .reason = "", .error = error};
    finish(call, &response);
}

/* Doubling, between half and whole, never less than the server asked for. */
static void back_off(struct kube_call *call, int64_t least)
{
    int64_t delay = first_backoff << (call->attempts < 10 ? call->attempts : 10);
    if (delay > longest_backoff)
        delay = longest_backoff;
    delay = delay / 2 + (int64_t)(random_u64() % (uint64_t)(delay / 2));
    if (least > 0)
        delay += least;
    call_reset(call);
    call->state = CALL_BACKING_OFF;
    loop_timer_set(&call->timer, delay);
}

/* The server's certificate or ours is not believed: authorities and certificates rotate as tokens do. Nothing of the
 * request was sent. */
static bool is_distrust(CURLcode result)
{
    return result == CURLE_PEER_FAILED_VERIFICATION || result == CURLE_SSL_CONNECT_ERROR ||
           result == CURLE_SSL_CERTPROBLEM || result == CURLE_SSL_CACERT_BADFILE;
}

static bool try_again(struct kube_call *call, CURLcode result, const struct kube_response *response)
{
    struct kube_client *client = call->client;
    if ((response->status == 401 || is_distrust(result)) && !call->authenticated_again) {
        if (call->credentials == client->credentials)
            read_credentials(client);
        if (call->credentials == client->credentials)
            return false;
        call->authenticated_again = true;
        call_reset(call);
        enqueue(call);
        return true;
    }
    bool busy = response->status == 429 || response->status == 503;
    if (!busy || call->method != KUBE_GET || call->data != NULL || ++call->attempts >= READ_ATTEMPTS)
        return false;
    log_debug(client->log, "request will be sent again", "error", error_message(response->error), NULL);
    back_off(call, response->retry_after);
    return true;
}

static void on_done(void *arg, CURL *easy, CURLcode result)
{
    struct kube_call *call = arg;
    struct kube_client *client = call->client;
    /* Whatever made the answer stay away may be the connection. */
    if (result == CURLE_OPERATION_TIMEDOUT)
        retire_line(client, call->line);
    release_slot(call);
    if (call->aborted) {
        destroy(call);
        return;
    }
    struct kube_response response;
    struct error err = {0};
    call_answer(call, result, client->config, &response, &err);
    count_answer(client, call->method, response.status, easy);
    if (try_again(call, result, &response)) {
        cJSON_Delete(response.object);
        return;
    }
    finish(call, &response);
}

/* Takes the call out of wherever it is, without freeing it. */
static void withdraw(struct kube_call *call)
{
    if (call->state == CALL_WAITING) {
        take_out_of_lane(call);
    } else if (call->state == CALL_ACTIVE) {
        pool_remove(call->line->pool, call->easy);
        release_slot(call);
    }
}

static void fall_silent(struct kube_call *call)
{
    struct kube_client *client = call->client;
    if (call->aborted)
        return;
    struct error err = {0};
    error_set(&err, "%s: nothing came from %s for %.3g s", call->what, client->config->server,
              (double)call->silence / (double)SECONDS);
    count_answer(client, call->method, 0, call->easy);
    retire_line(client, call->line);
    withdraw(call);
    struct kube_response response = {.timed_out = true, .reason = "", .error = &err};
    finish(call, &response);
}

static void on_timer(void *arg)
{
    struct kube_call *call = arg;
    if (call->state == CALL_ACTIVE)
        fall_silent(call);
    else
        enqueue(call);
}

size_t kube_client_receive(char *data, size_t size, size_t count, void *arg)
{
    struct kube_call *call = arg;
    struct kube_client *client = call->client;
    if (call->aborted)
        return 0;
    if (call->silence > 0)
        loop_timer_set(&call->timer, call->silence);
    client->receiving++;
    size_t taken = call_receive(data, size * count, call);
    client->receiving--;
    return call->aborted ? 0 : taken;
}

static int send_call(struct kube_call *call, struct error *err)
{
    struct kube_client *client = call->client;
    if (is_gated(call) && !gate_is_open(client))
        return error_set(err, "%s: not sent, because this operator does not lead", call->what);
    struct line *line = current_line(client, call->lane, err);
    if (line == NULL || call_prepare(call, client->config, err) < 0)
        return -1;
    call->transfer = (struct transfer){.done = on_done, .arg = call};
    if (pool_start(line->pool, call->easy, &call->transfer, err) < 0)
        return -1;
    call->state = CALL_ACTIVE;
    call->credentials = client->credentials;
    call->line = line;
    line->calls++;
    line->writes += is_gated(call);
    client->lanes[call->lane].active++;
    if (call->silence > 0)
        loop_timer_set(&call->timer, call->silence);
    return 0;
}

static void remove_aborted(struct kube_client *client)
{
    client->aborted = false;
    for (struct kube_call *call = client->calls, *next; call != NULL; call = next) {
        next = call->next;
        if (!call->aborted)
            continue;
        pool_remove(call->line->pool, call->easy);
        release_slot(call);
        destroy(call);
    }
}

/* Sends what waits, as far as the lanes allow. */
static void pump(void *arg)
{
    struct kube_client *client = arg;
    if (client->aborted)
        remove_aborted(client);
    free_retired_lines(client);
    for (int i = 0; i < LANES; i++) {
        struct lane *lane = &client->lanes[i];
        while (lane->first_waiting != NULL && lane->active < lane_limits[i].calls) {
            if (instant_since(loop_now(client->loop), client->credentials_read) > credentials_age)
                read_credentials(client);
            struct kube_call *call = dequeue(lane);
            struct error err = {0};
            if (send_call(call, &err) < 0)
                finish_failed(call, &err, false);
        }
    }
}

static int take_on(struct kube_client *client, const struct kube_request *request, kube_data *data,
                   kube_handler *handler, void *arg, struct kube_call **out, struct error *err)
{
    if (client->closing)
        return error_set(err, "the connection to the API server is being closed");
    struct kube_call *call = call_new(request, err);
    if (call == NULL)
        return -1;
    call->data = data;
    call->handler = handler;
    call->arg = arg;
    link_call(client, call);
    loop_timer_init(&call->timer, client->loop, on_timer, call);
    enqueue(call);
    if (out != NULL)
        *out = call;
    return 0;
}

int kube_request(struct kube_client *client, const struct kube_request *request, kube_handler *handler, void *arg,
                 struct kube_call **call, struct error *err)
{
    return take_on(client, request, NULL, handler, arg, call, err);
}

int kube_stream(struct kube_client *client, const struct kube_request *request, kube_data *data, kube_handler *handler,
                void *arg, struct kube_call **call, struct error *err)
{
    return take_on(client, request, data, handler, arg, call, err);
}

void kube_call_cancel(struct kube_call *call)
{
    struct kube_client *client = call->client;
    /* libcurl lets nothing be removed while it is calling us. */
    if (call->state == CALL_ACTIVE && client->receiving > 0) {
        call->aborted = true;
        client->aborted = true;
        loop_timer_set(&client->pump, 0);
        return;
    }
    withdraw(call);
    destroy(call);
}

struct kube_client *kube_client_new(struct loop *loop, struct kube_config *config, const struct log *log,
                                    struct error *err)
{
    struct kube_client *client = calloc(1, sizeof *client);
    if (client == NULL || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        free(client);
        kube_config_free(config);
        error_set(err, "out of memory for the Kubernetes client");
        return NULL;
    }
    client->loop = loop;
    client->config = config;
    client->log = log;
    client->credentials_read = clock_now();
    loop_timer_init(&client->pump, loop, pump, client);
    for (int i = 0; i < LANES; i++)
        client->lanes[i].last_waiting = &client->lanes[i].first_waiting;
    return client;
}

void kube_client_free(struct kube_client *client)
{
    if (client == NULL)
        return;
    client->closing = true;
    const struct error closing = {.message = "the connection to the API server was closed"};
    while (client->calls != NULL) {
        struct kube_call *call = client->calls;
        withdraw(call);
        if (call->aborted)
            destroy(call);
        else
            finish_failed(call, &closing, true);
    }
    for (int i = 0; i < LANES; i++)
        if (client->lanes[i].line != NULL)
            free_line(client->lanes[i].line);
    free_retired_lines(client);
    loop_timer_cancel(&client->pump);
    kube_config_free(client->config);
    free(client);
    curl_global_cleanup();
}

void kube_client_set_gate(struct kube_client *client, kube_gate *gate, void *arg)
{
    client->gate = gate;
    client->gate_arg = arg;
}

unsigned kube_client_writes(const struct kube_client *client)
{
    unsigned writes = 0;
    for (const struct kube_call *call = client->calls; call != NULL; call = call->next)
        writes += is_gated(call);
    return writes;
}

const struct kube_config *kube_client_config(const struct kube_client *client)
{
    return client->config;
}
