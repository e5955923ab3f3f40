/* fake_server — an HTTP/1.1 server that plays a script, on the loop of the test that uses it. Only tests link it. */
#ifndef THOLE_OPERATOR_KUBE_FAKE_SERVER_H
#define THOLE_OPERATOR_KUBE_FAKE_SERVER_H

#include "kube/client.h"

/* What happens to one request, in the order in which requests come. */
struct exchange {
    const char *request; /* must be somewhere in the request: "GET /api/v1/pods?limit=500 ", "Bearer x", a body */
    int status;          /* 0: the request is never answered */
    const char *headers; /* each with "\r\n" behind it; NULL: none */
    const char *body;    /* NULL: empty */
    bool cut;            /* the connection is reset before the answer is complete */
    bool open;           /* the answer's body goes on: the connection stays as it is */
};

struct fake_server;

/* Stops the loop when the last exchange was begun. `script` ends with {0} and is borrowed. Fails the test where it
 * cannot listen. */
struct fake_server *fake_server_start(struct loop *loop, const struct exchange *script);
void fake_server_stop(struct fake_server *server);

/* A client of this server, with the token file (may be NULL) as its credentials. */
struct kube_client *fake_server_client(struct fake_server *server, const char *token_file);

/* The number of exchanges that were begun. A request that the script does not expect fails the test here. */
int fake_server_played(const struct fake_server *server);
int fake_server_accepted(const struct fake_server *server); /* connections, over all */

#endif
