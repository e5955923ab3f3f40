/* trim — gives memory back to the system that was needed only for a while.
 *
 * After a burst the C library keeps what was freed, for the next one. And of fifty shared libraries, most pages that
 * are resident after the start were read once, by the dynamic linker. Both go, some seconds after the last change: an
 * operator with nothing to do is as small as what it remembers.
 * Calls the loop for time.
 */
#ifndef THOLE_OPERATOR_TRIM_H
#define THOLE_OPERATOR_TRIM_H

#include "loop/loop.h"

struct trim; /* opaque */

struct trim *trim_start(struct loop *loop, struct error *err);
void trim_stop(struct trim *trim); /* NULL is fine */

/* What it does when things have become quiet; returns the bytes of code and constants that are let go. They come back
 * from the page cache as they are needed. */
size_t trim_now(void);

#endif
