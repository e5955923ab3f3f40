#include "gauges.h"

#include <math.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

static const int64_t SILENCE_MOST = 600 * SECONDS;

struct gauge {
    struct gauge *next, *previous;
    struct instant heard;
    bool has_epoch, validated;
    struct report_epoch epoch; /* the newest; of validation, the newest that was validated */
    char job_uid[];
};

struct gauges {
    void *tree; /* by job UID */
    struct gauge *first;
    size_t count;
};

/* The UID is the last member, and of no fixed length: what is compared are the texts. */
static int compare(const void *a, const void *b)
{
    return strcmp(((const struct gauge *)a)->job_uid, ((const struct gauge *)b)->job_uid);
}

static struct gauge *gauge_new(const char *job_uid)
{
    size_t length = strlen(job_uid) + 1;
    struct gauge *gauge = calloc(1, sizeof *gauge + length);
    if (gauge != NULL)
        memcpy(gauge->job_uid, job_uid, length);
    return gauge;
}

struct gauges *gauges_new(struct error *err)
{
    struct gauges *gauges = calloc(1, sizeof *gauges);
    if (gauges == NULL)
        error_set(err, "out of memory for the jobs' gauges");
    return gauges;
}

static void drop(struct gauges *gauges, struct gauge *gauge)
{
    tdelete(gauge, &gauges->tree, compare);
    if (gauge->previous == NULL)
        gauges->first = gauge->next;
    else
        gauge->previous->next = gauge->next;
    if (gauge->next != NULL)
        gauge->next->previous = gauge->previous;
    gauges->count--;
    free(gauge);
}

void gauges_free(struct gauges *gauges)
{
    if (gauges == NULL)
        return;
    while (gauges->first != NULL)
        drop(gauges, gauges->first);
    free(gauges);
}

/* The job's, made where it is not there yet; NULL where there are too many. */
static struct gauge *gauge_of(struct gauges *gauges, const char *job_uid)
{
    struct gauge *gauge = gauge_new(job_uid);
    if (gauge == NULL)
        return NULL;
    struct gauge **found = (struct gauge **)tfind(gauge, &gauges->tree, compare);
    if (found != NULL || gauges->count >= GAUGES_MOST || tsearch(gauge, &gauges->tree, compare) == NULL) {
        free(gauge);
        return found == NULL ? NULL : *found;
    }
    gauge->next = gauges->first;
    if (gauge->next != NULL)
        gauge->next->previous = gauge;
    gauges->first = gauge;
    gauges->count++;
    return gauge;
}

static void take_epoch(struct gauge *gauge, const struct report_epoch *epoch)
{
    /* Epochs come again after a reconnect. */
    if (gauge->has_epoch &&
        (epoch->term < gauge->epoch.term || (epoch->term == gauge->epoch.term && epoch->epoch < gauge->epoch.epoch)))
        return;
    struct report_epoch last = gauge->epoch;
    gauge->epoch = *epoch;
    gauge->has_epoch = true;
    gauge->validated = gauge->validated || epoch->validated;
    if (!epoch->validated) {
        gauge->epoch.validation_loss = last.validation_loss;
        gauge->epoch.accuracy = last.accuracy;
    }
}

void gauges_report(struct gauges *gauges, const char *job_uid, const struct report_message *message, struct instant now)
{
    struct gauge *gauge = gauge_of(gauges, job_uid);
    if (gauge == NULL)
        return;
    gauge->heard = now;
    if (message->type == REPORT_EPOCH)
        take_epoch(gauge, &message->epoch);
    else if (message->type == REPORT_FINISHED)
        drop(gauges, gauge);
}

static void drop_silent(struct gauges *gauges, struct instant now)
{
    for (struct gauge *gauge = gauges->first, *next; gauge != NULL; gauge = next) {
        next = gauge->next;
        if (instant_since(now, gauge->heard) > SILENCE_MOST)
            drop(gauges, gauge);
    }
}

static double validation_loss(const struct gauge *gauge)
{
    return gauge->validated ? gauge->epoch.validation_loss : (double)NAN;
}

static double accuracy(const struct gauge *gauge)
{
    return gauge->validated ? gauge->epoch.accuracy : (double)NAN;
}

static double train_loss(const struct gauge *gauge)
{
    return gauge->epoch.train_loss;
}

static double parallelism(const struct gauge *gauge)
{
    return gauge->epoch.parallelism;
}

static double duration(const struct gauge *gauge)
{
    return gauge->epoch.duration_seconds;
}

void gauges_print(struct gauges *gauges, struct instant now, struct buffer *out)
{
    static const struct {
        const char *name, *help;
        double (*value)(const struct gauge *gauge);
    } series[] = {
        {"kubeml_job_validation_loss", "Loss of the newest validation.", validation_loss},
        {"kubeml_job_validation_accuracy", "Accuracy of the newest validation, in percent.", accuracy},
        {"kubeml_job_train_loss", "Loss of the newest epoch.", train_loss},
        {"kubeml_job_parallelism", "Workers of the newest epoch.", parallelism},
        {"kubeml_job_epoch_duration_seconds", "Seconds that the newest epoch took.", duration},
    };
    drop_silent(gauges, now);
    for (size_t i = 0; i < sizeof series / sizeof series[0]; i++) {
        buffer_printf(out, NULL, "# HELP %s %s\n# TYPE %s gauge\n", series[i].name, series[i].help, series[i].name);
        for (const struct gauge *gauge = gauges->first; gauge != NULL; gauge = gauge->next)
            if (gauge->has_epoch && isfinite(series[i].value(gauge)))
                buffer_printf(out, NULL, "%s{jobid=\"%s\"} %.9g\n", series[i].name, gauge->job_uid,
                              series[i].value(gauge));
    }
}
