/* test_bed — the server over real sockets: its loop runs in a thread, the other side plays a script in the test, as a
 * libwebsockets client or with plain bytes. */
#ifndef THOLE_OPERATOR_SERVER_TEST_BED_H
#define THOLE_OPERATOR_SERVER_TEST_BED_H

#include "common/crypto.h"
#include "loop/mailbox.h"
#include "server/server.h"

#include <libwebsockets.h>
#include <pthread.h>
#include <string.h>

// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
// clang-format on

/* ---- the operator's side ---- */

struct scene {
    struct loop *loop;
    struct server *server;
    struct mailbox *done; /* the script tells its end */
    /* Of the loop's thread, until the script has ended. */
    unsigned hellos, progress, epochs, finished;
    bool refuses, in_order, debugs;
    pthread_mutex_t gate; /* whoever holds it keeps reports from being handled */
};

struct server_options usual(void);
/* Starts a server, plays the script against it to its end, and stops it; `scene` says then what came. */
void play(void (*script)(struct scene *scene), struct scene *scene, struct server_options options);

/* ---- the coordinator's side ---- */

enum { HEARD_MOST = 64 };

struct client {
    struct lws_context *context;
    struct lws *wsi;
    bool established, closed;
    struct report_message heard[HEARD_MOST];
    unsigned heard_first, heard_count;
    /* What is being sent: whole, or in pieces. */
    const char *outgoing;
    size_t outgoing_length, piece, sent;
    bool binary;
};

/* All of these wait for what they need, or for the end of the connection. */
void client_open(struct client *client, struct scene *scene);
/* It may be refused: then `closed` and not `established`. `protocol` NULL: none. */
void client_open_at(struct client *client, struct scene *scene, const char *path, const char *protocol);
void client_close(struct client *client);

void say(struct client *client, const struct report_message *message);
void say_text(struct client *client, const char *text);
void say_in_pieces(struct client *client, const char *text, size_t length, size_t piece);
/* The next message, which must be of this type. */
struct report_message hear(struct client *client, enum report_type type);
/* Refused with this sentence, then closed. */
void hear_the_end(struct client *client, const char *sentence);

#define BOOT_A "000000000000000a"
#define BOOT_B "000000000000000b"

/* What answers `challenge` rightly. */
struct report_message hello_of(const char *uid, const char *boot, const struct report_message *challenge);
/* Opens a connection, says hello, and is welcome. */
void join(struct client *client, struct scene *scene, const char *uid, const char *boot);

/* ---- plain HTTP ---- */

int connect_to(struct scene *scene);
/* Sends `request` and reads everything up to the end of the connection. */
void exchange_bytes(struct scene *scene, const void *request, size_t length, char *answer, size_t size);
/* The answer begins with `status` and holds `part`. */
void ask(struct scene *scene, const char *method, const char *path, const char *status, const char *part);

#endif
