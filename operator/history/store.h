/* store — one record into MongoDB, blocking. */
#ifndef THOLE_OPERATOR_HISTORY_STORE_H
#define THOLE_OPERATOR_HISTORY_STORE_H

#include "history/record.h"

struct store; /* opaque; of one thread, after store_open */

/* Checks the URI; connects only when something is written. Times that the URI does not set are short, so that an
 * absent MongoDB is noticed within seconds. */
struct store *store_open(const char *uri, struct error *err);
void store_close(struct store *store);

enum store_outcome {
    STORE_WRITTEN,
    STORE_SETTLED, /* it was there already */
    STORE_REFUSED, /* MongoDB answered, and does not take this record */
    STORE_AWAY,    /* MongoDB did not answer: nothing else would be written now either */
};

/* Merges `record` with what is stored, and writes what is new. */
enum store_outcome store_write(struct store *store, const struct record *record, struct error *err);

#endif
