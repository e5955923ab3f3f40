/* election — who leads, decided from what is seen of a Lease and from our own clock; pure.
 *
 * As client-go's leader election, and safe with its rules: times in the Lease are never compared with ours, because
 * clocks differ. Another holder's time runs from when we first saw its newest renewal. Our own runs from before that
 * renewal was sent, and ends sooner (`renew` is less than `lease`): whoever takes the Lease finds that we have stopped
 * by ourselves. Every write of the Lease names the version that was seen, so that of two who want it one gets it.
 *
 * The caller does what election_next() says and tells what came of it.
 */
#ifndef THOLE_OPERATOR_KUBE_ELECTION_H
#define THOLE_OPERATOR_KUBE_ELECTION_H

#include "common/clock.h"
#include "common/json.h"

#include <stdbool.h>

enum { ELECTION_IDENTITY_SIZE = 256 };

struct election_timing {
    int64_t lease; /* a holder that has not renewed for so long is gone; whole seconds */
    int64_t renew; /* so long after its last renewal a holder stops */
    int64_t retry; /* between renewals, and between attempts */
};

/* The Lease as last seen; its holder also after it was deleted, for its time runs on. */
struct election_record {
    char holder[ELECTION_IDENTITY_SIZE]; /* "": free */
    char uid[64], version[64];
    char renewed[40], acquired[40];
    int64_t transitions, seconds;
};

struct election {
    struct election_timing timing;
    char identity[ELECTION_IDENTITY_SIZE];
    bool candidate; /* takes the Lease where it is free */
    bool releasing;

    bool seen;   /* `record` and `exists` are believed to be current */
    bool exists; /* there is a Lease */
    struct election_record record;
    struct instant changed; /* when its holder's part was first seen as it is */
    struct instant looked;  /* when it was last asked for */

    bool leading;
    struct instant ours_until; /* while leading */
    struct instant not_before; /* of the next attempt */
};

enum election_step {
    ELECTION_WAIT,    /* until `at`, or until the Lease changes */
    ELECTION_LOOK,    /* ask for the Lease: election_observe(), or election_failed() */
    ELECTION_CREATE,  /* create or change it to say election_claim(): election_granted(), … */
    ELECTION_TAKE,    /* … election_contested() where another was faster, or election_failed() */
    ELECTION_RELEASE, /* change it to say election_free(): then the same */
    ELECTION_LOST,    /* others may take it: nothing may be written any more; final */
    ELECTION_OVER,    /* released, or there was nothing to release; final */
};

void election_init(struct election *election, const struct election_timing *timing, const char *identity);

/* `at` is set for ELECTION_WAIT: INT64_MAX where only the Lease can change anything. */
enum election_step election_next(const struct election *election, struct instant now, struct instant *at);

/* What the API server says that the Lease is; NULL: there is none. `asked`: it is the answer of a request, and not
 * what a watch brought, which may be late. */
void election_observe(struct election *election, const cJSON *lease, bool asked, struct instant now);

/* The write that was sent at `sent` was done, with this answer. */
void election_granted(struct election *election, const cJSON *lease, struct instant sent, struct instant now);
void election_contested(struct election *election);
void election_failed(struct election *election, struct instant now);

/* From now on, no claim is made any more, and what is held is given back. */
void election_release(struct election *election);

/* The `spec` to write; NULL without memory. */
cJSON *election_claim(const struct election *election);
cJSON *election_free(const struct election *election);

#endif
