/* look — one look at one job under way, shared by reconcile.c and stuck.c. */
#ifndef THOLE_OPERATOR_TRAINJOB_LOOK_H
#define THOLE_OPERATOR_TRAINJOB_LOOK_H

#include "trainjob/controller.h"

/* A look under way. Kept until its last request is answered. */
struct look {
    struct trainjob_controller *controller;
    struct reconcile *run;
    char key[KUBE_KEY_SIZE];
    char namespace[KUBE_NAMESPACE_SIZE];
    char uid[64], resource_version[64];
    struct intents intents;
    size_t outstanding;
    int64_t after;                     /* nanoseconds; 0: none */
    struct trainjob_attempts attempts; /* of this round */
    struct error failure;              /* the look is to be repeated with back-off */
    bool failed;
    cJSON *before, *now; /* the status that is being replaced, and its replacement */
};

/* Another look after so many nanoseconds; the earliest counts. */
void look_again(struct look *look, int64_t after);
struct job_memory *look_memory(const struct look *look); /* NULL where the job has gone meanwhile */
/* Ends the run, and frees the look. */
void look_end(struct look *look);
/* Is the answer one that nobody waits for any longer? Then the last one frees the look. */
bool look_was_cancelled(struct look *look, const struct kube_response *response);

/* stuck.c: reads the Events of pods whose containers are not made; each read counts in look->outstanding. */
void look_at_stuck_pods(struct look *look, const struct observation *observed, struct job_memory *memory);

#endif
