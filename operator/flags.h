/* flags — the operator's command line. */
#ifndef THOLE_OPERATOR_FLAGS_H
#define THOLE_OPERATOR_FLAGS_H

#include "common/error.h"
#include "common/log.h"

#include <stdbool.h>
#include <stdint.h>

struct flags {
    const char *kubeconfig, *context; /* NULL: not given */
    const char *namespace;            /* NULL: all */
    const char *trainer_image;
    const char *allowed_host_paths; /* "" : none */
    const char *key_file;
    const char *advertise_address; /* NULL: made from the namespace and the port */
    const char *listen;
    const char *mongodb_uri, *mongodb_uri_file;
    int64_t resync_period; /* nanoseconds; 0: never */
    enum { ELECT_IN_A_POD, ELECT_NEVER, ELECT_ALWAYS } leader_elect;
    const char *lease_namespace; /* NULL: the operator's own */
    const char *lease_name;
    int64_t lease_duration, renew_deadline, retry_period; /* nanoseconds */
    enum log_level log_level;
    enum log_format log_format;
    bool debug, help, version;
};

extern const char flags_help[];

/* Values point into `arguments`. -1 with one sentence naming the flag and the mend. */
int flags_parse(struct flags *out, int count, char **arguments, struct error *err);

#endif
