/* transport — whole messages to and from the operator, by one of two ways; private to this folder.
 *
 * Handlers run on the net's thread, inside net_wait(). A transport dials and dials again by itself.
 */
#ifndef THOLE_COORDINATOR_TRANSPORT_H
#define THOLE_COORDINATOR_TRANSPORT_H

#include "common/error.h"
#include "common/log.h"
#include "wire/wire.h"

#include <stdbool.h>
#include <stddef.h>

struct transport;

struct transport_handlers {
    void (*connected)(void *arg);
    void (*disconnected)(void *arg, const char *reason);
    void (*received)(void *arg, const char *text, size_t length);
};

/* Lines over a connected stream socket, which is taken over. Connected from the start: `connected` is not called. */
int transport_new_pipe(struct transport **out, struct net *net, int fd, const struct transport_handlers *handlers,
                       void *arg, struct error *err);
/* A WebSocket client on a thread of its own. */
int transport_new_websocket(struct transport **out, struct net *net, const char *address, const struct log *log,
                            const struct transport_handlers *handlers, void *arg, struct error *err);
/* The beginning of either. */
struct transport {
    bool (*send)(struct transport *transport, const char *text, size_t length);
    void (*disconnect)(struct transport *transport);
    void (*free)(struct transport *transport);
};

/* False where there is no connection or no room now. The text is copied. */
static inline bool transport_send(struct transport *transport, const char *text, size_t length)
{
    return transport->send(transport, text, length);
}

/* Closes this connection; a new one is dialled later where there is a way to. `disconnected` may follow. */
static inline void transport_disconnect(struct transport *transport)
{
    transport->disconnect(transport);
}

static inline void transport_free(struct transport *transport) /* NULL is fine */
{
    if (transport != NULL)
        transport->free(transport);
}

#endif
