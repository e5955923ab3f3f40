/* pool — libcurl transfers on a loop, sharing one pool of connections.
 *
 * Transfers of different pools never share a connection: what must not wait for another's bytes gets its own pool.
 */
#ifndef THOLE_OPERATOR_POOL_H
#define THOLE_OPERATOR_POOL_H

#include "loop/loop.h"

#include <curl/curl.h>

struct pool; /* opaque */

struct pool *pool_new(struct loop *loop, long most_connections, struct error *err);
void pool_free(struct pool *pool); /* all transfers must have ended or been removed. NULL is fine */

/* Asked each time before libcurl is run for this pool: false, and what it holds ready to be sent stays unsent. */
typedef bool pool_guard(void *arg);
void pool_set_guard(struct pool *pool, pool_guard *guard, void *arg);

/* Starts `easy` (borrowed; CURLOPT_PRIVATE is taken). `done` is called once, with the transfer already removed from
 * the pool, so that it may be cleaned up or started again. */
typedef void pool_done(void *arg, CURL *easy, CURLcode result);
struct transfer {
    pool_done *done;
    void *arg;
};
int pool_start(struct pool *pool, CURL *easy, struct transfer *transfer, struct error *err);

/* Ends it without calling `done`. Not from inside one of its own libcurl callbacks. */
void pool_remove(struct pool *pool, CURL *easy);

#endif
