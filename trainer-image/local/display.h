/* display — what the user of `thole-trainer local` sees; private to this folder.
 *
 * On a terminal one line is kept up to date under what is there for good; elsewhere there are plain lines, one an
 * epoch.
 */
#ifndef THOLE_LOCAL_DISPLAY_H
#define THOLE_LOCAL_DISPLAY_H

#include "common/clock.h"
#include "common/plan/plan.h"
#include "common/report/report.h"

struct display {
    bool terminal, colours;
    bool line; /* one that changes is on the screen */
    uint32_t epochs, batch;
    uint64_t train_samples;
    struct instant before; /* of the last progress, and its step: for samples/s */
    uint64_t step_before;
    double rate;
};

void display_init(struct display *display, const struct plan *plan, uint64_t train_samples);
void display_start(struct display *display, const struct plan *plan, uint32_t workers);
void display_progress(struct display *display, const struct report_progress *progress, struct instant now);
void display_epoch(struct display *display, const struct report_epoch *epoch);
/* For good, above the changing line: what goes wrong, what is going on. */
void display_note(struct display *display, const char *sentence);
/* Lines of the processes' logs, as they come. */
void display_log(struct display *display, const char *bytes, size_t length);
/* What an asynchronous training did; nothing where it is not known. */
void display_sync(const struct report_sync *sync);
void display_end(struct display *display, bool succeeded, const char *sentence);

#endif
