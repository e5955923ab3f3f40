/* live_world — a test's world in a real API server that hack/control-plane.sh has started. Only tests link it.
 *
 * A namespace of its own, a client, one informer of its ConfigMaps, and the API server's fate.
 */
#ifndef THOLE_OPERATOR_KUBE_LIVE_WORLD_H
#define THOLE_OPERATOR_KUBE_LIVE_WORLD_H

#include "kube/kube.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

extern const struct kube_resource config_maps, namespaces;
extern const struct log log_to_stderr;

struct world {
    struct loop *loop;
    struct kube_client *client;
    struct kube_informer *informer;
    char namespace[32]; /* of this test */
    int appeared, changed, vanished;
    int synced;
    void *arg; /* the test's own */

    /* The last answer. */
    bool answered;
    int status;
    bool conflict;
    char reason[64];
    char error[1000];
    cJSON *object;

    struct loop_timer poll, deadline;
    bool (*reached)(struct world *world);
    bool late;
};

/* For cmocka. A program without an API server ends with 77: skipped. */
int set_up(void **state);
int tear_down(void **state);
bool is_there(void);

/* Runs the loop until something is so; fails the test where it does not come true in a minute. */
bool try_until(struct world *world, bool (*reached)(struct world *world));
#define until(world, reached)                                                                                          \
    do {                                                                                                               \
        if (!try_until((world), (reached)))                                                                            \
            fail_msg("%s did not come true; last error: %s / %s", #reached, (world)->error,                            \
                     (world)->informer == NULL ? "" : kube_informer_last_error((world)->informer));                    \
    } while (0)

bool is_answered(struct world *world);
void on_answer(void *arg, struct kube_response *response);

/* Wait for the answer to a request, `result` being what sending it returned, and judge it. */
void answer(struct world *world, int result);
void succeeds(struct world *world, int result);
void fails(struct world *world, int result, int status, const char *reason, const char *sentence);
void conflicts(struct world *world, int result); /* the view was stale: to look again is all there is to do */
const char *answered(struct world *world, const char *path); /* a string in it */

void control(const char *verb, const char *flag); /* see hack/control-plane.sh */
struct kube_client *client_of(struct world *world, const char *context);

void watch_config_maps(struct world *world, size_t page_size, bool paged);
cJSON *config_map(const struct world *world, const char *name, const char *text);
int create(struct world *world, const char *name, const char *text);
int count_of(const struct world *world);
void key_of(const struct world *world, const char *name, struct kube_key *key);

#endif
