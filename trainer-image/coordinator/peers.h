/* peers — who is connected to the coordinator, and the dialogues with them: workers (CONTROL, in workers.c) and the
 * other shards (REGISTER, in shards.c). server.c is what they are connected to; private to this folder.
 */
#ifndef THOLE_COORDINATOR_PEERS_H
#define THOLE_COORDINATOR_PEERS_H

#include "coordinator/coordinator.h"
#include "coordinator/norms.h"
#include "coordinator/reporter.h"
#include "coordinator/saver.h"
#include "coordinator/server.h"

enum { FIRST_TERM = COORDINATOR_FIRST_TERM, JOIN_MOST = 4096, ADDRESS_MOST = 300 };

/* One connection, of a worker or of another shard. */
struct peer {
    struct coordinator_server *server;
    struct conn *conn;
    enum dialogue dialogue;
    uint64_t boot;
    bool known;    /* a worker has joined, a shard has registered */
    uint32_t rank; /* of a worker that has joined */
    uint32_t shard;
    char name[64];
    struct peer *next, **place;
};

struct shard_place {
    struct peer *peer; /* NULL: shard 0, or not registered */
    uint64_t boot;
    char address[ADDRESS_MOST + 1];
};

struct coordinator_server {
    struct coordinator_server_options options;
    struct coordinator *coordinator;
    struct norms *norms;
    struct reporter *reporter; /* NULL: nobody to report to */
    struct saver *saver;
    struct timer *tick;
    struct instant reported;
    struct peer *peers;
    struct peer *ranks[COORDINATOR_MEMBERS_MOST];
    struct shard_place shards[PLAN_SHARDS_MOST];
    const char *addresses[PLAN_SHARDS_MOST];
    bool over_told;
    bool silence_logged[COORDINATOR_MEMBERS_MOST];
};

/* server.c: does what the coordinator has decided; to be called after each event that it is told. */
void coordinator_server_act(struct coordinator_server *server);
void peer_send_empty(struct peer *peer, enum frame_type type);
/* Is its canary the one that is expected? */
bool peer_computes(const char *canary, const uint8_t expected[SHA256_SIZE]);

/* workers.c. What a worker says; -1 closes its connection with the sentence. */
int workers_receive(struct peer *peer, const struct frame *frame, const void *payload, struct error *err);
void workers_lose(struct peer *peer, const char *why);
/* WELCOME, DEAL, SHARE, LEASE or VALIDATE, to the worker of its rank. */
void workers_send(struct coordinator_server *server, const struct coordinator_action *action);
void workers_log_silence(struct coordinator_server *server);

/* shards.c. The same of the other shards. */
int shards_receive(struct peer *peer, const struct frame *frame, const void *payload, struct error *err);
void shards_lose(struct peer *peer, const char *why);
/* All shards have measured a round: what it came to goes to all of them. */
int shards_commit(struct coordinator_server *server, uint64_t step, uint32_t round, struct error *err);

#endif
