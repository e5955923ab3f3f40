#include "coordinator/transport.h"

#include "common/clock.h"
#include "common/report/report.h"

#include <errno.h>
#include <inttypes.h>
#include <libwebsockets.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

enum {
    QUEUE_MOST = 64, /* messages waiting, each way */
    HOST_MOST = 256,
    PAUSE_LEAST = 300, /* milliseconds between dialling again */
    PAUSE_MOST = 5000,
};

enum event_type { EVENT_CONNECTED, EVENT_DISCONNECTED, EVENT_TEXT };

/* What the thread tells the net, and a text that goes the other way. */
struct item {
    enum event_type type;
    uint64_t connection; /* texts of a connection that is gone are dropped */
    size_t length;
    struct item *next;
    char text[]; /* LWS_PRE bytes first where it goes out */
};

struct queue {
    struct item *first, **last;
    size_t count;
};

/* Fields are the net's thread's, the client thread's, or guarded by `mutex`, as the comments say. */
struct websocket {
    struct transport transport;
    struct net *net;
    const struct log *log;
    const struct transport_handlers *handlers;
    void *arg;
    int wake;                /* eventfd: the net is to look at `incoming` */
    uint64_t net_connection; /* net's: what it sends goes to this one; 0: none */
    pthread_t thread;
    bool thread_runs; /* net's */

    pthread_mutex_t mutex;
    struct queue incoming, outgoing; /* mutex */
    uint64_t hang_up;                /* mutex: the connection that the net wants closed */
    atomic_bool stop;

    struct lws_context *context; /* client thread's; lws_cancel_service() may be called by others */
    char host[HOST_MOST];        /* constant */
    uint16_t port;               /* constant */
    struct lws *wsi;             /* the rest is the client thread's */
    lws_sorted_usec_list_t dial;
    uint32_t pause;
    uint64_t connection; /* number of the newest connection that was made */
    bool established;
    struct instant established_at;
    char *message;
    size_t message_length;
};

static void queue_init(struct queue *queue)
{
    *queue = (struct queue){.last = &queue->first};
}

static void queue_put(struct queue *queue, struct item *item)
{
    item->next = NULL;
    *queue->last = item;
    queue->last = &item->next;
    queue->count++;
}

static struct item *queue_take(struct queue *queue)
{
    struct item *item = queue->first;
    if (item == NULL)
        return NULL;
    queue->first = item->next;
    if (queue->first == NULL)
        queue->last = &queue->first;
    queue->count--;
    return item;
}

static void queue_clear(struct queue *queue)
{
    struct item *item;
    while ((item = queue_take(queue)) != NULL)
        free(item);
}

static struct item *item_new(enum event_type type, uint64_t connection, size_t before, const char *text, size_t length)
{
    struct item *item = malloc(sizeof *item + before + length + 1);
    if (item == NULL)
        return NULL;
    *item = (struct item){.type = type, .connection = connection, .length = length};
    if (length > 0)
        memcpy(item->text + before, text, length);
    item->text[before + length] = '\0';
    return item;
}

/* ---- the client's thread ---- */

/* False where the net has not kept up, or without memory: the connection is given up then, and all is said again. */
static bool tell_net(struct websocket *websocket, enum event_type type, const char *text, size_t length)
{
    struct item *item = item_new(type, websocket->connection, 0, text, length);
    if (item == NULL)
        return false;
    pthread_mutex_lock(&websocket->mutex);
    bool fits = type != EVENT_TEXT || websocket->incoming.count < QUEUE_MOST;
    if (fits)
        queue_put(&websocket->incoming, item);
    else
        free(item);
    pthread_mutex_unlock(&websocket->mutex);
    uint64_t one = 1;
    ssize_t written = write(websocket->wake, &one, sizeof one);
    (void)written; /* a full counter wakes as well */
    return fits;
}

static void dial_due(lws_sorted_usec_list_t *list);

static void dial_later(struct websocket *websocket)
{
    websocket->wsi = NULL;
    lws_usec_t pause = (lws_usec_t)websocket->pause * 1000 + (lws_usec_t)(random_u64() % 100000);
    websocket->pause = websocket->pause * 2 < PAUSE_MOST ? websocket->pause * 2 : PAUSE_MOST;
    lws_sul_schedule(websocket->context, 0, &websocket->dial, dial_due, pause);
}

static void ended(struct websocket *websocket, const char *reason)
{
    /* Only a connection that lasted earns a quick redial: an operator that refuses is not asked thrice a second. */
    if (websocket->established && instant_since(clock_now(), websocket->established_at) > PAUSE_MOST * MILLISECONDS)
        websocket->pause = PAUSE_LEAST;
    websocket->established = false;
    websocket->message_length = 0;
    /* The net must hear of it whatever is queued; without memory it finds out by the silence that follows. */
    tell_net(websocket, EVENT_DISCONNECTED, reason, strlen(reason));
    dial_later(websocket);
}

static int on_receive(struct websocket *websocket, struct lws *wsi, const void *bytes, size_t length)
{
    if (websocket->message_length + length > REPORT_MESSAGE_MOST || lws_frame_is_binary(wsi))
        return -1;
    memcpy(websocket->message + websocket->message_length, bytes, length);
    websocket->message_length += length;
    if (lws_remaining_packet_payload(wsi) > 0 || !lws_is_final_fragment(wsi))
        return 0;
    bool told = tell_net(websocket, EVENT_TEXT, websocket->message, websocket->message_length);
    websocket->message_length = 0;
    return told ? 0 : -1;
}

static int on_writable(struct websocket *websocket, struct lws *wsi)
{
    pthread_mutex_lock(&websocket->mutex);
    bool hang_up = websocket->hang_up == websocket->connection;
    struct item *item = NULL;
    while (!hang_up && (item = queue_take(&websocket->outgoing)) != NULL && item->connection != websocket->connection)
        free(item);
    bool more = websocket->outgoing.count > 0;
    pthread_mutex_unlock(&websocket->mutex);
    if (hang_up)
        return -1;
    if (item == NULL)
        return 0;
    int written = lws_write(wsi, (unsigned char *)item->text + LWS_PRE, item->length, LWS_WRITE_TEXT);
    bool failed = written < (int)item->length;
    free(item);
    if (more)
        lws_callback_on_writable(wsi);
    return failed ? -1 : 0;
}

static int on_event(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t length)
{
    (void)user;
    struct websocket *websocket = lws_context_user(lws_get_context(wsi));
    if (atomic_load(&websocket->stop))
        return 0;
    switch (reason) {
    case LWS_CALLBACK_CLIENT_ESTABLISHED:
        websocket->connection++;
        websocket->established = true;
        websocket->established_at = clock_now();
        return tell_net(websocket, EVENT_CONNECTED, NULL, 0) ? 0 : -1;
    case LWS_CALLBACK_CLIENT_CONNECTION_ERROR:
        ended(websocket, in != NULL ? (const char *)in : "no connection");
        return 0;
    case LWS_CALLBACK_CLIENT_CLOSED:
        ended(websocket, "it closed the connection");
        return 0;
    case LWS_CALLBACK_CLIENT_RECEIVE:
        return on_receive(websocket, wsi, in, length);
    case LWS_CALLBACK_CLIENT_WRITEABLE:
        return on_writable(websocket, wsi);
    case LWS_CALLBACK_EVENT_WAIT_CANCELLED:
        if (websocket->established)
            lws_callback_on_writable(websocket->wsi);
        return 0;
    default:
        return 0;
    }
}

static const struct lws_protocols protocols[] = {
    {.name = REPORT_SUBPROTOCOL, .callback = on_event, .rx_buffer_size = 4096},
    {.name = NULL},
};

/* A line that has died is noticed though nothing is sent over it. */
static const lws_retry_bo_t liveliness = {.secs_since_valid_ping = 5, .secs_since_valid_hangup = 15};

static void dial_due(lws_sorted_usec_list_t *list)
{
    struct websocket *websocket = lws_container_of(list, struct websocket, dial);
    struct lws_client_connect_info info = {
        .context = websocket->context,
        .address = websocket->host,
        .port = websocket->port,
        .path = REPORT_PATH,
        .host = websocket->host,
        .origin = websocket->host,
        .protocol = REPORT_SUBPROTOCOL,
        .local_protocol_name = REPORT_SUBPROTOCOL,
        .retry_and_idle_policy = &liveliness,
        .pwsi = &websocket->wsi,
    };
    if (lws_client_connect_via_info(&info) == NULL && websocket->wsi == NULL &&
        lws_dll2_is_detached(&websocket->dial.list))
        dial_later(websocket);
}

static void *client_main(void *arg)
{
    struct websocket *websocket = arg;
    lws_sul_schedule(websocket->context, 0, &websocket->dial, dial_due, 1);
    while (!atomic_load(&websocket->stop))
        if (lws_service(websocket->context, 0) < 0)
            break;
    return NULL;
}

/* ---- the net's thread ---- */

static struct item *take_incoming(struct websocket *websocket)
{
    pthread_mutex_lock(&websocket->mutex);
    struct item *item = queue_take(&websocket->incoming);
    pthread_mutex_unlock(&websocket->mutex);
    return item;
}

static void on_wake(void *arg)
{
    struct websocket *websocket = arg;
    uint64_t count;
    ssize_t got = read(websocket->wake, &count, sizeof count);
    (void)got;
    struct item *item;
    while ((item = take_incoming(websocket)) != NULL) {
        if (item->type == EVENT_CONNECTED) {
            websocket->net_connection = item->connection;
            websocket->handlers->connected(websocket->arg);
        } else if (item->type == EVENT_DISCONNECTED) {
            websocket->net_connection = 0;
            websocket->handlers->disconnected(websocket->arg, item->text);
        } else if (item->connection == websocket->net_connection) {
            websocket->handlers->received(websocket->arg, item->text, item->length);
        }
        free(item);
    }
}

static bool websocket_send(struct transport *transport, const char *text, size_t length)
{
    struct websocket *websocket = (struct websocket *)transport;
    if (websocket->net_connection == 0)
        return false;
    struct item *item = item_new(EVENT_TEXT, websocket->net_connection, LWS_PRE, text, length);
    if (item == NULL)
        return false;
    pthread_mutex_lock(&websocket->mutex);
    bool fits = websocket->outgoing.count < QUEUE_MOST;
    if (fits)
        queue_put(&websocket->outgoing, item);
    pthread_mutex_unlock(&websocket->mutex);
    if (!fits) {
        free(item);
        return false;
    }
    lws_cancel_service(websocket->context);
    return true;
}

static void websocket_disconnect(struct transport *transport)
{
    struct websocket *websocket = (struct websocket *)transport;
    pthread_mutex_lock(&websocket->mutex);
    websocket->hang_up = websocket->net_connection;
    pthread_mutex_unlock(&websocket->mutex);
    websocket->net_connection = 0;
    lws_cancel_service(websocket->context);
}

static void websocket_free(struct transport *transport)
{
    struct websocket *websocket = (struct websocket *)transport;
    if (websocket->thread_runs) {
        atomic_store(&websocket->stop, true);
        lws_cancel_service(websocket->context);
        pthread_join(websocket->thread, NULL);
    }
    if (websocket->context != NULL)
        lws_context_destroy(websocket->context);
    if (websocket->wake >= 0) {
        net_unwatch_fd(websocket->net, websocket->wake);
        close(websocket->wake);
    }
    queue_clear(&websocket->incoming);
    queue_clear(&websocket->outgoing);
    pthread_mutex_destroy(&websocket->mutex);
    free(websocket->message);
    free(websocket);
}

/* "host:port", "[v6]:port". */
static int split_address(struct websocket *websocket, const char *address, struct error *err)
{
    const char *colon = strrchr(address, ':');
    const char *begin = address, *end = colon;
    if (colon != NULL && address[0] == '[' && colon[-1] == ']') {
        begin++;
        end--;
    }
    char *rest = NULL;
    unsigned long port = colon != NULL ? strtoul(colon + 1, &rest, 10) : 0;
    if (colon == NULL || end <= begin || (size_t)(end - begin) >= sizeof websocket->host || *rest != '\0' ||
        port == 0 || port > UINT16_MAX)
        return error_set(err, "the operator's address '%s' is not host:port", address);
    memcpy(websocket->host, begin, (size_t)(end - begin));
    websocket->port = (uint16_t)port;
    return 0;
}

static int start(struct websocket *websocket, struct error *err)
{
    websocket->message = malloc(REPORT_MESSAGE_MOST);
    websocket->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (websocket->message == NULL || websocket->wake < 0)
        return error_errno(err, "start the report");
    lws_set_log_level(0, NULL);
    struct lws_context_creation_info info = {
        .port = CONTEXT_PORT_NO_LISTEN,
        .protocols = protocols,
        .user = websocket,
        .gid = -1,
        .uid = -1,
    };
    websocket->context = lws_create_context(&info);
    if (websocket->context == NULL)
        return error_set(err, "start the report: libwebsockets gives no context");
    if (net_watch_fd(websocket->net, websocket->wake, on_wake, websocket, err) < 0)
        return -1;
    /* Signals are main's, on its own thread. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&websocket->thread, NULL, client_main, websocket);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed != 0) {
        errno = failed;
        return error_errno(err, "start the report's thread");
    }
    websocket->thread_runs = true;
    return 0;
}

int transport_new_websocket(struct transport **out, struct net *net, const char *address, const struct log *log,
                            const struct transport_handlers *handlers, void *arg, struct error *err)
{
    struct websocket *websocket = calloc(1, sizeof *websocket);
    if (websocket == NULL)
        return error_set(err, "start the report: no memory");
    *websocket = (struct websocket){
        .transport = {.send = websocket_send, .disconnect = websocket_disconnect, .free = websocket_free},
        .net = net,
        .log = log,
        .handlers = handlers,
        .arg = arg,
        .wake = -1,
        .pause = PAUSE_LEAST,
    };
    pthread_mutex_init(&websocket->mutex, NULL);
    queue_init(&websocket->incoming);
    queue_init(&websocket->outgoing);
    if (split_address(websocket, address, err) < 0 || start(websocket, err) < 0) {
        websocket_free(&websocket->transport);
        return -1;
    }
    *out = &websocket->transport;
    return 0;
}
