/* scarce — memory that runs out when a test wants it to.
 *
 * Counts the allocations of this repository's code (the linker puts scarce.c before malloc and its like: thole_test
 * with SCARCE, and thole_fuzz) and of cJSON (by its hooks); other libraries' own never fail. Only on the calling
 * thread.
 *
 *     for (bool refused = true, size_t allowed = 0; refused; allowed++) {
 *         scarce_begin(SCARCE_ONE, allowed);
 *         int result = decode(…, &err);
 *         refused = scarce_end();
 *     }
 */
#ifndef THOLE_COMMON_TEST_SCARCE_H
#define THOLE_COMMON_TEST_SCARCE_H

#include <stdbool.h>
#include <stddef.h>

enum scarce_kind {
    SCARCE_ONE, /* one allocation fails, those after it succeed: a missing check is found by what is missing then */
    SCARCE_ALL, /* all that follow fail too: so does cleaning up */
};

/* The next `allowed` allocations succeed. */
void scarce_begin(enum scarce_kind kind, size_t allowed);
bool scarce_refused(void); /* has any been refused since? */
bool scarce_end(void);     /* the same; memory is there again */

#endif
