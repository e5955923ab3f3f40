/* rows_client — what one DATA dialogue has to do with embedding tables: pushes that come in several frames, and
 * requests that wait for a version; private to ps.
 */
#ifndef THOLE_PS_ROWS_CLIENT_H
#define THOLE_PS_ROWS_CLIENT_H

#include "ps/batches.h"

struct rows_request {
    struct frame frame;
    struct payload *ids;
};

struct rows_client {
    struct net *net;
    struct conn *conn;
    struct shard *shard;
    struct batches *batches;  /* NULL, where gradients come by the step's tree */
    uint32_t term;            /* that answers carry */
    struct payload *incoming; /* of the frame under way */

    struct sparse *part; /* of a node, or of a task's step, as far as it has come; NULL: none is under way */
    struct frame first;  /* its first frame */

    struct rows_request *waiting; /* as they came */
    uint32_t waiting_count, waiting_capacity;
    uint64_t waiting_ids;
};

void rows_client_init(struct rows_client *client, struct net *net, struct conn *conn, struct shard *shard);
void rows_client_end(struct rows_client *client);

/* Is it one of those frames? */
bool rows_client_takes(const struct frame *frame);

/* As in conn_handlers; the frame is one of those, and of the right term. */
void *rows_client_place(struct rows_client *client, const struct frame *frame, struct error *err);
int rows_client_received(struct rows_client *client, const struct frame *frame, struct error *err);

/* The table has got a new version: who waited for it is answered. */
void rows_client_ready(struct rows_client *client, uint32_t table, uint64_t version);

#endif
