/* report — what a job's coordinator and its operator say to each other.
 *
 * One JSON object a message, over a WebSocket (`GET /v1/coordinator`, subprotocol "thole-report.v1") in a cluster and
 * line by line over a socket pair in `thole-trainer local`. The dialogue:
 *
 *   operator     {"type":"challenge","nonce":"<64 hex>"}
 *   coordinator  {"type":"hello","namespace":…,"name":…,"uid":…,"pod":"<pod name>","podUID":…,"boot":"<16 hex>",
 *                 "term":1,"kernel":"SkylakeX","nonce":"<64 hex>","mac":"<64 hex>"}
 *                 mac = HMAC-SHA-256(token, "coordinator" | operator's nonce | own nonce | uid | podUID | boot),
 *                 where nonces are their 32 bytes and each text is followed by a NUL, so that no two hellos read alike
 *   operator     {"type":"welcome","mac":"<64 hex>","status":2,"history":2}
 *                 mac = HMAC-SHA-256(token, "operator" | coordinator's nonce | operator's nonce)
 *   then, from the coordinator, as things happen:
 *                {"type":"progress","term":1,"epoch":3,"step":1406,"steps":2345,"trainLoss":0.31,
 *                 "workers":2,"idleWorkers":0,"message":"…","sync":{…}}      at most one a second
 *                {"type":"epoch","term":1,"epoch":3,"trainLoss":…,"validationLoss":…,"accuracy":…,
 *                 "parallelism":2,"durationSeconds":2.9}                     validationLoss or accuracy is there if it
 *                                                                            was validated, and accuracy only with
 *                                                                            classes; a loss that is not finite is
 * absent
 *                {"type":"finished","term":1,"result":"Succeeded"|"Failed","reason":"CamelCase","message":"…",
 *                 "model":{"path":"…","sha256":"<64 hex>","bytes":…,"step":…},     model absent without an output
 *                 "sync":{"steps":4690,"samples":600000,"duplicates":3,"stale":12,"staleness":[4000,600,90]}}
 *                                                                            absent with the type Synchronous
 *   and from the operator:
 *                {"type":"ack","status":3,"history":2}    epochs up to these are durable: in the object's status,
 *                                                         in MongoDB (equal to status where none is configured)
 *                {"type":"ack-finished"}                  the end is in the status: shard 0 may go
 *                {"type":"refused","message":"…"}         then the connection closes
 *
 * Members that a reader does not know are passed over. Names, UIDs, kernel and reason are made of letters, digits, '.',
 * '_' and '-'; other texts are UTF-8 without control characters.
 * Epochs and the end are sent again after every reconnect until they are acknowledged; receivers keep them by
 * (term, epoch): a higher term replaces, an equal one changes nothing.
 * The token is HMAC-SHA-256(operator key, job UID) in binary; in local mode 32 random bytes.
 */
#ifndef THOLE_COMMON_REPORT_REPORT_H
#define THOLE_COMMON_REPORT_REPORT_H

#include "common/crypto.h"
#include "common/error.h"
#include "common/json.h"

#include <stdbool.h>
#include <stdint.h>

#define REPORT_SUBPROTOCOL "thole-report.v1"
#define REPORT_PATH        "/v1/coordinator"

enum {
    REPORT_MESSAGE_MOST = 16 * 1024, /* bytes of one message, either way */
    REPORT_EPOCHS_MOST = 1000 * 1000,
    REPORT_WORKERS_MOST = 100 * 1000,
    REPORT_NONCE_SIZE = 32,
    REPORT_TOKEN_SIZE = SHA256_SIZE,
};

enum report_type {
    REPORT_CHALLENGE,
    REPORT_HELLO,
    REPORT_WELCOME,
    REPORT_PROGRESS,
    REPORT_EPOCH,
    REPORT_FINISHED,
    REPORT_ACK,
    REPORT_ACK_FINISHED,
    REPORT_REFUSED,
};

struct report_hello {
    char job_namespace[64], job_name[64], job_uid[64], pod[256], pod_uid[64], boot[17], kernel[32];
    uint32_t term;
    uint8_t nonce[REPORT_NONCE_SIZE], mac[SHA256_SIZE];
};

enum { REPORT_STALENESS_BUCKETS = 16 };

/* What an asynchronous training has done so far: steps, and the samples in them. A batch's gradient counts once, as
 * shard 0's first parameters took it; with KAverage steps are those of the workers, and a duplicate is a worker's
 * result that another had brought before. `staleness` counts applied gradients by how many updates were made between
 * the parameters that they come from and their own: bucket i < 8 is of staleness i, bucket 8 of 8 to 15, 9 of 16 to 31
 * and so on, the last of all above. */
struct report_sync {
    bool known; /* else the rest is zero: Synchronous */
    uint64_t steps, duplicates, stale;
    uint64_t staleness[REPORT_STALENESS_BUCKETS]; /* in JSON without the zeros at its end */
    uint64_t samples;                             /* in those steps */
};

static inline uint32_t report_staleness_bucket(uint64_t staleness)
{
    if (staleness < 8)
        return (uint32_t)staleness;
    uint32_t bucket = 5 + (63 - (uint32_t)__builtin_clzll(staleness));
    return bucket < REPORT_STALENESS_BUCKETS ? bucket : REPORT_STALENESS_BUCKETS - 1;
}

struct report_progress {
    uint32_t term, epoch; /* the epoch that runs, from 1 */
    uint64_t step, steps; /* done, and in all */
    double train_loss;    /* of the running epoch so far; NaN: none yet (absent in JSON) */
    uint32_t workers, idle_workers;
    char message[512]; /* "" : absent */
    struct report_sync sync;
};

struct report_epoch {
    uint32_t term, epoch; /* from 1 */
    double train_loss;    /* NaN: it was not finite */
    bool validated;
    double validation_loss, accuracy; /* loss NaN: it was not finite; percent, NaN: there are no classes; both 0 where
                                         not validated */
    uint32_t parallelism;
    double duration_seconds;
};

struct report_model {
    char path[512]; /* inside the output volume */
    char sha256[SHA256_HEX_SIZE];
    uint64_t bytes, step;
};

struct report_finished {
    uint32_t term;
    bool succeeded;
    char reason[64], message[512];
    bool has_model;
    struct report_model model;
    struct report_sync sync;
};

struct report_ack {
    uint32_t status, history; /* newest epoch that is durable, with all before it */
};

struct report_message {
    enum report_type type;
    union {
        struct {
            uint8_t nonce[REPORT_NONCE_SIZE];
        } challenge;
        struct report_hello hello;
        struct {
            uint8_t mac[SHA256_SIZE];
            struct report_ack ack;
        } welcome;
        struct report_progress progress;
        struct report_epoch epoch;
        struct report_finished finished;
        struct report_ack ack;
        struct {
            char message[512];
        } refused;
    };
};

/* Checks type, presence, bounds and lengths of everything; -1 with a sentence naming the member. `text` need not end
 * with a NUL; members of *out that the message lacks are zero. */
int report_decode(struct report_message *out, const char *text, size_t length, struct error *err);

/* Compact JSON of at most REPORT_MESSAGE_MOST bytes, to be freed; NULL without memory. In free texts, what a reader
 * would refuse (control characters, UTF-8 cut in the middle) becomes spaces and question marks. */
char *report_encode(const struct report_message *message);

void report_hello_mac(const struct report_hello *hello, const uint8_t token[REPORT_TOKEN_SIZE],
                      const uint8_t operator_nonce[REPORT_NONCE_SIZE], uint8_t out[SHA256_SIZE]);
void report_welcome_mac(const uint8_t token[REPORT_TOKEN_SIZE], const uint8_t coordinator_nonce[REPORT_NONCE_SIZE],
                        const uint8_t operator_nonce[REPORT_NONCE_SIZE], uint8_t out[SHA256_SIZE]);

#endif
