#include "metrics.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

static void describe(struct buffer *out, const char *name, const char *type, const char *help)
{
    buffer_printf(out, NULL, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void print_one(struct buffer *out, const char *name, const char *type, const char *help, double value)
{
    describe(out, name, type, help);
    buffer_printf(out, NULL, "%s %.15g\n", name, value);
}

/* ---- this process, under the names that all exporters use ---- */

static double resident_bytes(void)
{
    cleanup_file FILE *file = fopen("/proc/self/statm", "re");
    char text[128];
    if (file == NULL || fgets(text, sizeof text, file) == NULL)
        return 0;
    char *end = NULL;
    strtoull(text, &end, 10);
    return (double)strtoull(end, NULL, 10) * (double)sysconf(_SC_PAGESIZE);
}

static double open_descriptors(void)
{
    DIR *directory = opendir("/proc/self/fd");
    double count = -3; /* ".", ".." and the directory itself */
    if (directory == NULL)
        return 0;
    while (readdir(directory) != NULL)
        count++;
    closedir(directory);
    return count;
}

static double cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void print_process(struct buffer *out)
{
    describe(out, "thole_build_info", "gauge", "The version of this operator.");
    buffer_printf(out, NULL, "thole_build_info{version=\"%s\"} 1\n", THOLE_VERSION);
    print_one(out, "process_resident_memory_bytes", "gauge", "Memory that is in use.", resident_bytes());
    print_one(out, "process_open_fds", "gauge", "Open descriptors.", open_descriptors());
    print_one(out, "process_cpu_seconds_total", "counter", "Time spent on processors.", cpu_seconds());
}

/* ---- the jobs ---- */

static void print_jobs(const struct trainjob_controller *trainjobs, struct buffer *out)
{
    uint64_t counts[TRAINJOB_PHASES];
    trainjob_count(trainjobs, counts);
    describe(out, "thole_trainjobs", "gauge", "TrainJobs by phase.");
    for (int i = 0; i < TRAINJOB_PHASES; i++)
        buffer_printf(out, NULL, "thole_trainjobs{phase=\"%s\"} %" PRIu64 "\n",
                      trainjob_phase_name((enum trainjob_phase)i), counts[i]);
    describe(out, "kubeml_job_running_total", "gauge", "Jobs that run now.");
    buffer_printf(out, NULL, "kubeml_job_running_total{type=\"train\"} %" PRIu64 "\n", counts[TRAINJOB_RUNNING]);
}

/* ---- the controllers, under controller-runtime's names ---- */

enum { CONTROLLERS_MOST = 2 };

struct controllers {
    struct controller_metrics items[CONTROLLERS_MOST];
    size_t count;
};

static void print_rows(struct buffer *out, const struct controllers *controllers, const char *name, const char *type,
                       const char *help, const char *label, size_t offset)
{
    describe(out, name, type, help);
    for (size_t i = 0; i < controllers->count; i++) {
        const struct controller_metrics *metrics = &controllers->items[i];
        const uint64_t *value = (const uint64_t *)((const char *)metrics + offset);
        buffer_printf(out, NULL, "%s{%s=\"%s\"} %" PRIu64 "\n", name, label, metrics->name, *value);
    }
}

static void print_results(struct buffer *out, const struct controllers *controllers)
{
    describe(out, "controller_runtime_reconcile_total", "counter", "Reconciles by how they ended.");
    for (size_t i = 0; i < controllers->count; i++) {
        const struct controller_metrics *metrics = &controllers->items[i];
        const struct {
            const char *result;
            uint64_t count;
        } rows[] = {
            {"success", metrics->succeeded}, {"requeue_after", metrics->requeued_after}, {"error", metrics->failed}};
        for (size_t row = 0; row < sizeof rows / sizeof rows[0]; row++)
            buffer_printf(out, NULL,
                          "controller_runtime_reconcile_total{controller=\"%s\",result=\"%s\"} %" PRIu64 "\n",
                          metrics->name, rows[row].result, rows[row].count);
    }
}

static void print_durations(struct buffer *out, const struct controllers *controllers)
{
    static const char name[] = "controller_runtime_reconcile_time_seconds";
    describe(out, name, "histogram", "How long reconciles take.");
    for (size_t i = 0; i < controllers->count; i++) {
        const struct controller_metrics *metrics = &controllers->items[i];
        const struct controller_histogram *histogram = &metrics->reconcile_seconds;
        uint64_t below = 0;
        for (int bucket = 0; bucket < CONTROLLER_BUCKETS; bucket++) {
            below += histogram->buckets[bucket];
            buffer_printf(out, NULL, "%s_bucket{controller=\"%s\",le=\"%g\"} %" PRIu64 "\n", name, metrics->name,
                          controller_metrics_bounds[bucket], below);
        }
        buffer_printf(out, NULL,
                      "%s_bucket{controller=\"%s\",le=\"+Inf\"} %" PRIu64 "\n%s_sum{controller=\"%s\"} %.9g\n"
                      "%s_count{controller=\"%s\"} %" PRIu64 "\n",
                      name, metrics->name, histogram->count, name, metrics->name, histogram->sum, name, metrics->name,
                      histogram->count);
    }
}

static void print_controllers(const struct controllers *controllers, struct buffer *out)
{
    static const struct {
        const char *name, *type, *help, *label;
        size_t offset;
    } rows[] = {
        {"workqueue_adds_total", "counter", "Keys added.", "name", offsetof(struct controller_metrics, adds)},
        {"workqueue_retries_total", "counter", "Keys that come again after a failure.", "name",
         offsetof(struct controller_metrics, retries)},
        {"workqueue_depth", "gauge", "Keys that wait for their turn.", "name",
         offsetof(struct controller_metrics, depth)},
        {"thole_workqueue_delayed", "gauge", "Keys that wait for time to pass.", "name",
         offsetof(struct controller_metrics, delayed)},
        {"controller_runtime_active_workers", "gauge", "Reconciles under way.", "controller",
         offsetof(struct controller_metrics, running)},
        {"controller_runtime_max_concurrent_reconciles", "gauge", "Most reconciles at once.", "controller",
         offsetof(struct controller_metrics, concurrency)},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        print_rows(out, controllers, rows[i].name, rows[i].type, rows[i].help, rows[i].label, rows[i].offset);
    print_results(out, controllers);
    print_durations(out, controllers);
}

/* ---- the API server's client ---- */

static void print_requests(const struct kube_client *client, struct buffer *out)
{
    struct kube_client_metrics metrics;
    kube_client_metrics(client, &metrics);
    describe(out, "rest_client_requests_total", "counter", "Requests to the API server by method and answer.");
    for (int method = 0; method <= KUBE_DELETE; method++)
        for (int code = 0; code < KUBE_CODES; code++)
            if (metrics.requests[method][code] > 0)
                buffer_printf(out, NULL, "rest_client_requests_total{method=\"%s\",code=\"%s\"} %" PRIu64 "\n",
                              kube_method_name((enum kube_method)method), kube_code_name(code),
                              metrics.requests[method][code]);
}

/* ---- the history ---- */

static void print_history(struct history *history, struct buffer *out)
{
    struct history_metrics metrics;
    history_metrics(history, &metrics);
    print_one(out, "thole_history_waiting", "gauge", "Jobs whose record is not yet in MongoDB.",
              (double)metrics.waiting);
    print_one(out, "thole_history_written_total", "counter", "Documents inserted or changed.", (double)metrics.written);
    print_one(out, "thole_history_settled_total", "counter", "Records that MongoDB held already.",
              (double)metrics.settled);
    print_one(out, "thole_history_failures_total", "counter", "Attempts that failed.", (double)metrics.failures);
}

void metrics_print(const struct metrics_sources *sources, struct buffer *out)
{
    struct controllers controllers = {.count = 0};
    print_process(out);
    if (sources->trainjobs != NULL) {
        print_jobs(sources->trainjobs, out);
        controller_metrics(trainjob_runtime(sources->trainjobs), &controllers.items[controllers.count++]);
    }
    if (sources->datasets != NULL)
        controller_metrics(dataset_runtime(sources->datasets), &controllers.items[controllers.count++]);
    print_controllers(&controllers, out);
    if (sources->client != NULL)
        print_requests(sources->client, out);
    if (sources->history != NULL)
        print_history(sources->history, out);
}
