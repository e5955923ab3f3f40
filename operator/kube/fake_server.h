/* fake_server — an API server that plays a script, on the loop of the test that uses it. Only tests link it.
 *
 * It speaks HTTP/2 over TLS, as the real one does, or HTTP/1.1; the script is the same for both. Faults that only
 * HTTP/2 knows are resets in HTTP/1.1.
 */
#ifndef THOLE_OPERATOR_KUBE_FAKE_SERVER_H
#define THOLE_OPERATOR_KUBE_FAKE_SERVER_H

#include "kube/client.h"

enum fake_protocol { FAKE_HTTP1, FAKE_HTTP1_TLS, FAKE_HTTP2 };
enum { FAKE_PROTOCOLS = FAKE_HTTP2 + 1 };

/* What happens to one request, in the order in which requests come. */
struct exchange {
    const char *request; /* must be somewhere in the request: "GET /api/v1/pods?limit=500 ", "Bearer x", a body */
    int status;          /* 0: the request is never answered */
    const char *headers; /* each with "\r\n" behind it; NULL: none */
    const char *body;    /* NULL: empty */
    bool cut;            /* the connection ends before the answer does: reset, or with TLS closed without a word */
    bool open;           /* the answer's body goes on: the connection stays as it is */
};

/* How else an answer may end. */
enum fault {
    NO_FAULT,
    RESET,        /* the connection is reset (TCP's RST) */
    TRUNCATION,   /* the connection is closed (TCP's FIN) without a word from TLS or HTTP */
    SILENCE,      /* nothing more comes, and the connection stays */
    STREAM_RESET, /* HTTP/2: RST_STREAM, and the connection stays */
    GOAWAY,       /* HTTP/2: GOAWAY, and the connection is closed */
    DRAIN,        /* HTTP/2: GOAWAY before the answer, which is complete: no request may follow on this connection */
    REFUSAL,      /* HTTP/2: GOAWAY instead of an answer: the request was not looked at; the connection is closed */
};

struct fake_server;

/* Stops the loop when the last exchange was begun. `script` ends with {0} and is borrowed. Fails the test where it
 * cannot listen. */
struct fake_server *fake_server_start(struct loop *loop, const struct exchange *script); /* HTTP/1.1 without TLS */
struct fake_server *fake_server_start_as(struct loop *loop, enum fake_protocol protocol, const struct exchange *script);
void fake_server_stop(struct fake_server *server);

/* Instead of a script: what to answer to `request` (as HTTP/1.1 writes it; a client's certificate adds the line
 * "Client-Certificate: NAME"). What is returned must live until the server is stopped. */
typedef const struct exchange *fake_responder(void *arg, const char *request);
void fake_server_respond(struct fake_server *server, fake_responder *responder, void *arg);

/* From now on, the first `bytes` of each body go out by themselves, and there the fault strikes. */
void fake_server_fault(struct fake_server *server, enum fault fault, size_t bytes);
/* Once, after so many more bytes on the wire, whatever they are: RESET or TRUNCATION. */
void fake_server_cut(struct fake_server *server, enum fault fault, size_t bytes);

/* A client of this server, which trusts its certificate, with the token file (may be NULL) as its credentials. */
struct kube_client *fake_server_client(struct fake_server *server, const char *token_file);
/* The same for tests that change it: to be given to kube_client_new(). */
struct kube_config *fake_server_config(const struct fake_server *server);
/* A new certificate, which nobody trusts yet: PEM. Connections that exist stay. */
const char *fake_server_renew(struct fake_server *server);

/* The number of exchanges that were begun. A request that the script does not expect fails the test here. */
int fake_server_played(const struct fake_server *server);
int fake_server_accepted(const struct fake_server *server); /* connections, over all */

#endif
