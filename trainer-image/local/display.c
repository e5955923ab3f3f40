#include "local/display.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { BAR = 24 };

void display_init(struct display *display, const struct plan *plan, uint64_t train_samples)
{
    const char *term = getenv("TERM");
    bool terminal = isatty(STDOUT_FILENO) && term != NULL && strcmp(term, "dumb") != 0;
    *display = (struct display){
        .terminal = terminal,
        .colours = terminal && getenv("NO_COLOR") == NULL,
        .epochs = plan->training.epochs,
        .batch = plan->training.batch_size,
        .train_samples = train_samples,
    };
    setvbuf(stdout, NULL, _IOLBF, 0);
}

static const char *colour(const struct display *display, const char *code)
{
    return display->colours ? code : "";
}

#define BOLD   "\033[1m"
#define GREEN  "\033[32m"
#define RED    "\033[31m"
#define FAINT  "\033[2m"
#define NORMAL "\033[0m"

static void clear_line(struct display *display)
{
    if (display->line)
        fputs("\r\033[K", stdout);
    display->line = false;
}

/* 12345678 as "12,345,678"; `out` holds 32 bytes. */
static const char *grouped(uint64_t number, char out[32])
{
    char digits[24];
    int length = snprintf(digits, sizeof digits, "%" PRIu64, number);
    char *place = out;
    for (int i = 0; i < length; i++) {
        if (i > 0 && (length - i) % 3 == 0)
            *place++ = ',';
        *place++ = digits[i];
    }
    *place = '\0';
    return out;
}

void display_start(struct display *display, const struct plan *plan, uint32_t workers)
{
    char samples[32];
    printf("%s%s%s: %s on %s, %s samples, %u epoch%s, batch %u; %u worker%s, %u parameter server%s%s%s\n",
           colour(display, BOLD), plan->job_name, colour(display, NORMAL), plan_model_name(plan), plan->dataset.name,
           grouped(display->train_samples, samples), plan->training.epochs, plan->training.epochs == 1 ? "" : "s",
           plan->training.batch_size, workers, workers == 1 ? "" : "s", plan->shards, plan->shards == 1 ? "" : "s",
           plan->sync == PLAN_SYNCHRONOUS ? "" : "; ",
           plan->sync == PLAN_SYNCHRONOUS ? "" : plan_sync_name(plan->sync));
}

static void measure(struct display *display, const struct report_progress *progress, struct instant now)
{
    double seconds = (double)instant_since(now, display->before) / (double)SECONDS;
    if (progress->step > display->step_before && display->before.nanoseconds != 0 && seconds > 0)
        display->rate = (double)(progress->step - display->step_before) * display->batch / seconds;
    display->before = now;
    display->step_before = progress->step;
}

/* A line that wraps could not be taken back. */
static int columns(void)
{
    struct winsize size;
    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > BAR + 8 ? size.ws_col : 80;
}

void display_progress(struct display *display, const struct report_progress *progress, struct instant now)
{
    measure(display, progress, now);
    if (!display->terminal)
        return;
    char bar[BAR + 1];
    double part = progress->steps > 0 ? (double)progress->step / (double)progress->steps : 0;
    for (int i = 0; i < BAR; i++)
        bar[i] = (double)i < part * BAR ? '#' : '.';
    bar[BAR] = '\0';
    char rate[32], loss[32] = "";
    if (!isnan(progress->train_loss))
        snprintf(loss, sizeof loss, "  loss %.4f", progress->train_loss);
    char text[640];
    snprintf(text, sizeof text, " %3.0f %%%s  %s samples/s  %s", 100 * part, loss,
             grouped((uint64_t)display->rate, rate), progress->message);
    clear_line(display);
    printf("%s[%s]%s%.*s", colour(display, GREEN), bar, colour(display, NORMAL), columns() - BAR - 3, text);
    display->line = true;
    fflush(stdout);
}

void display_epoch(struct display *display, const struct report_epoch *epoch)
{
    clear_line(display);
    printf("epoch %u/%u  train loss %.4f", epoch->epoch, display->epochs, epoch->train_loss);
    if (epoch->validated)
        printf("  validation loss %.4f", epoch->validation_loss);
    if (epoch->validated && !isnan(epoch->accuracy))
        printf("  accuracy %s%.2f %%%s", colour(display, BOLD), epoch->accuracy, colour(display, NORMAL));
    char rate[32] = "0";
    if (epoch->duration_seconds > 0)
        grouped((uint64_t)((double)display->train_samples / epoch->duration_seconds), rate);
    printf("  %s%u worker%s  %.2f s  %s samples/s%s\n", colour(display, FAINT), epoch->parallelism,
           epoch->parallelism == 1 ? "" : "s", epoch->duration_seconds, rate, colour(display, NORMAL));
}

void display_note(struct display *display, const char *sentence)
{
    clear_line(display);
    fflush(stdout);
    fprintf(stderr, "%s\n", sentence);
}

void display_log(struct display *display, const char *bytes, size_t length)
{
    clear_line(display);
    fflush(stdout);
    fwrite(bytes, 1, length, stderr);
}

/* "0: 81.3 %, 1: 17.0 %, 8–15: 1.7 %": how many updates came between a gradient's parameters and its own. */
static void print_staleness(const struct report_sync *sync)
{
    uint64_t all = 0;
    for (uint32_t i = 0; i < REPORT_STALENESS_BUCKETS; i++)
        all += sync->staleness[i];
    if (all == 0)
        return;
    const char *before = "staleness ";
    for (uint32_t i = 0; i < REPORT_STALENESS_BUCKETS; i++) {
        if (sync->staleness[i] == 0)
            continue;
        char range[32];
        if (i < 8)
            snprintf(range, sizeof range, "%u", i);
        else if (i + 1 < REPORT_STALENESS_BUCKETS)
            snprintf(range, sizeof range, "%u–%u", 1U << (i - 5), (2U << (i - 5)) - 1);
        else
            snprintf(range, sizeof range, "%u and more", 1U << (i - 5));
        printf("%s%s: %.1f %%", before, range, 100.0 * (double)sync->staleness[i] / (double)all);
        before = ", ";
    }
    printf("\n");
}

void display_sync(const struct report_sync *sync)
{
    char steps[32], stale[32], duplicates[32];
    if (!sync->known)
        return;
    printf("steps     %s of workers, %s too stale and computed again, %s that had come before\n",
           grouped(sync->steps, steps), grouped(sync->stale, stale), grouped(sync->duplicates, duplicates));
    print_staleness(sync);
}

void display_end(struct display *display, bool succeeded, const char *sentence)
{
    clear_line(display);
    fflush(stdout);
    fprintf(succeeded ? stdout : stderr, "%s%s%s\n", colour(display, succeeded ? GREEN : RED), sentence,
            colour(display, NORMAL));
    fflush(stdout);
}
