#include "metrics.h"

#include <dirent.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <string.h>
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

static void read_memory(double *virtual_bytes, double *resident_bytes)
{
    cleanup_file FILE *file = fopen("/proc/self/statm", "re");
    char text[128];
    if (file == NULL || fgets(text, sizeof text, file) == NULL)
        return;
    double page = (double)sysconf(_SC_PAGESIZE);
    char *end = NULL;
    *virtual_bytes = (double)strtoull(text, &end, 10) * page;
    *resident_bytes = (double)strtoull(end, NULL, 10) * page;
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

static double limit_of(__rlimit_resource_t resource)
{
    struct rlimit limit;
    return getrlimit(resource, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY ? -1 : (double)limit.rlim_cur;
}

static double cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void print_process(int64_t started, struct buffer *out)
{
    double virtual_bytes = 0;
    double resident_bytes = 0;
    read_memory(&virtual_bytes, &resident_bytes);
    describe(out, "thole_build_info", "gauge", "The version of this operator.");
    buffer_printf(out, NULL, "thole_build_info{version=\"%s\"} 1\n", THOLE_VERSION);
    print_one(out, "process_start_time_seconds", "gauge", "When it started, in seconds since 1970.", (double)started);
    print_one(out, "process_cpu_seconds_total", "counter", "Time spent on processors.", cpu_seconds());
    print_one(out, "process_resident_memory_bytes", "gauge", "Memory that is in use.", resident_bytes);
    print_one(out, "process_virtual_memory_bytes", "gauge", "Memory that has addresses.", virtual_bytes);
    print_one(out, "process_virtual_memory_max_bytes", "gauge", "The most of it, -1: no limit.", limit_of(RLIMIT_AS));
    print_one(out, "thole_heap_bytes", "gauge", "Memory that is allocated.", (double)mallinfo2().uordblks);
    print_one(out, "process_open_fds", "gauge", "Open descriptors.", open_descriptors());
    print_one(out, "process_max_fds", "gauge", "The most of them.", limit_of(RLIMIT_NOFILE));
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

/* ---- asynchronous trainings ---- */

/* The sum takes each gradient for the middle of its bucket: more is not reported. */
static void print_staleness(const struct report_sync *sync, struct buffer *out)
{
    uint64_t below = 0, sum = 0;
    describe(out, "thole_sync_staleness", "histogram",
             "Updates between the parameters that a gradient comes from and those it was applied to.");
    for (uint32_t i = 0; i + 1 < REPORT_STALENESS_BUCKETS; i++) {
        uint64_t least = i < 8 ? i : UINT64_C(1) << (i - 5);
        uint64_t most = i < 8 ? i : 2 * least - 1;
        below += sync->staleness[i];
        sum += sync->staleness[i] * ((least + most) / 2);
        buffer_printf(out, NULL, "thole_sync_staleness_bucket{le=\"%" PRIu64 "\"} %" PRIu64 "\n", most, below);
    }
    uint64_t above = sync->staleness[REPORT_STALENESS_BUCKETS - 1];
    sum += above << (REPORT_STALENESS_BUCKETS - 6);
    buffer_printf(out, NULL,
                  "thole_sync_staleness_bucket{le=\"+Inf\"} %" PRIu64 "\nthole_sync_staleness_sum %" PRIu64
                  "\nthole_sync_staleness_count %" PRIu64 "\n",
                  below + above, sum, below + above);
}

static void print_sync(const struct report_sync *sync, struct buffer *out)
{
    print_one(out, "thole_sync_steps_total", "counter", "Updates by jobs of asynchronous types.", (double)sync->steps);
    print_one(out, "thole_sync_duplicates_total", "counter",
              "Their pushes that were passed over because another had brought the same.", (double)sync->duplicates);
    print_one(out, "thole_sync_stale_total", "counter",
              "Their pushes that were computed again because they were too stale.", (double)sync->stale);
    print_staleness(sync, out);
}

/* ---- what is kept of the API server's objects ---- */

enum { INFORMERS_MOST = 16 };

static void print_caches(const struct metrics_sources *sources, struct buffer *out)
{
    const struct kube_informer *informers[INFORMERS_MOST];
    size_t count = 0;
    if (sources->trainjobs != NULL)
        count = trainjob_informers(sources->trainjobs, informers, INFORMERS_MOST - 1);
    if (sources->datasets != NULL)
        informers[count++] = dataset_informer(sources->datasets);
    describe(out, "thole_cache_objects", "gauge", "Objects that are kept of what is watched.");
    for (size_t i = 0; i < count; i++)
        buffer_printf(out, NULL, "thole_cache_objects{resource=\"%s\"} %zu\n",
                      kube_informer_resource(informers[i])->plural,
                      kube_cache_count(kube_informer_cache(informers[i])));
    describe(out, "thole_cache_bytes", "gauge", "Their size as they are kept.");
    for (size_t i = 0; i < count; i++)
        buffer_printf(out, NULL, "thole_cache_bytes{resource=\"%s\"} %zu\n",
                      kube_informer_resource(informers[i])->plural,
                      kube_cache_bytes(kube_informer_cache(informers[i])));
}

/* ---- the controllers, under controller-runtime's names ---- */

/* One line a controller: `name{labels} value`. */
#define LABELS_WORKQUEUE "controller=\"%s\",name=\"%s\""

struct row {
    const char *name, *type, *help;
    bool is_workqueue; /* labelled with its name too */
    double (*value)(const struct controller_metrics *metrics);
};

static double adds(const struct controller_metrics *metrics)
{
    return (double)metrics->queue.adds;
}

static double retries(const struct controller_metrics *metrics)
{
    return (double)metrics->queue.retries;
}

static double unfinished(const struct controller_metrics *metrics)
{
    return metrics->unfinished;
}

static double longest(const struct controller_metrics *metrics)
{
    return metrics->longest;
}

static double delayed(const struct controller_metrics *metrics)
{
    return (double)metrics->queue.delayed;
}

static double keys(const struct controller_metrics *metrics)
{
    return (double)metrics->queue.keys;
}

static double running(const struct controller_metrics *metrics)
{
    return (double)metrics->queue.running;
}

static double concurrency(const struct controller_metrics *metrics)
{
    return (double)metrics->concurrency;
}

static double failed(const struct controller_metrics *metrics)
{
    return (double)metrics->failed;
}

static double resynced(const struct controller_metrics *metrics)
{
    return (double)metrics->resynced;
}

static const struct row rows[] = {
    {"workqueue_adds_total", "counter", "Keys added.", true, adds},
    {"workqueue_retries_total", "counter", "Keys that come again after a failure.", true, retries},
    {"workqueue_unfinished_work_seconds", "gauge", "Seconds of the reconciles under way, all together.", true,
     unfinished},
    {"workqueue_longest_running_processor_seconds", "gauge", "Seconds of the longest of them.", true, longest},
    {"thole_workqueue_delayed", "gauge", "Keys that wait for time to pass.", true, delayed},
    {"thole_workqueue_keys", "gauge", "Keys in the queue, whatever they wait for.", true, keys},
    {"controller_runtime_active_workers", "gauge", "Reconciles under way.", false, running},
    {"controller_runtime_max_concurrent_reconciles", "gauge", "Most reconciles at once.", false, concurrency},
    {"controller_runtime_reconcile_errors_total", "counter", "Reconciles that failed.", false, failed},
    {"thole_resynced_total", "counter", "Keys looked at because it was time, not because of an event.", false,
     resynced},
};

static void print_row(struct buffer *out, const struct row *row, const struct controller_metrics *controllers,
                      size_t count)
{
    describe(out, row->name, row->type, row->help);
    for (size_t i = 0; i < count; i++) {
        const char *name = controllers[i].name;
        if (row->is_workqueue)
            buffer_printf(out, NULL, "%s{" LABELS_WORKQUEUE "} %.15g\n", row->name, name, name,
                          row->value(&controllers[i]));
        else
            buffer_printf(out, NULL, "%s{controller=\"%s\"} %.15g\n", row->name, name, row->value(&controllers[i]));
    }
}

/* controller-runtime's numbers of the two priorities. */
static void print_depths(struct buffer *out, const struct controller_metrics *controllers, size_t count)
{
    static const char *const priorities[QUEUE_PRIORITIES] = {[QUEUE_HIGH] = "0", [QUEUE_LOW] = "-100"};
    describe(out, "workqueue_depth", "gauge", "Keys that wait for their turn.");
    for (size_t i = 0; i < count; i++)
        for (int priority = 0; priority < QUEUE_PRIORITIES; priority++)
            buffer_printf(out, NULL, "workqueue_depth{" LABELS_WORKQUEUE ",priority=\"%s\"} %zu\n", controllers[i].name,
                          controllers[i].name, priorities[priority], controllers[i].queue.depth[priority]);
}

static void print_results(struct buffer *out, const struct controller_metrics *controllers, size_t count)
{
    describe(out, "controller_runtime_reconcile_total", "counter", "Reconciles by how they ended.");
    for (size_t i = 0; i < count; i++) {
        const struct controller_metrics *metrics = &controllers[i];
        const struct {
            const char *result;
            uint64_t count;
        } results[] = {
            {"success", metrics->succeeded}, {"requeue_after", metrics->requeued_after}, {"error", metrics->failed}};
        for (size_t row = 0; row < sizeof results / sizeof results[0]; row++)
            buffer_printf(out, NULL,
                          "controller_runtime_reconcile_total{controller=\"%s\",result=\"%s\"} %" PRIu64 "\n",
                          metrics->name, results[row].result, results[row].count);
    }
}

static void print_histogram(struct buffer *out, const char *name, const char *labels, const struct histogram *histogram)
{
    uint64_t below = 0;
    for (int bucket = 0; bucket < HISTOGRAM_BUCKETS; bucket++) {
        below += histogram->buckets[bucket];
        buffer_printf(out, NULL, "%s_bucket{%s,le=\"%g\"} %" PRIu64 "\n", name, labels, histogram_bounds[bucket],
                      below);
    }
    buffer_printf(out, NULL, "%s_bucket{%s,le=\"+Inf\"} %" PRIu64 "\n%s_sum{%s} %.9g\n%s_count{%s} %" PRIu64 "\n", name,
                  labels, histogram->count, name, labels, histogram->sum, name, labels, histogram->count);
}

static void print_durations(struct buffer *out, const struct controller_metrics *controllers, size_t count)
{
    static const struct {
        const char *name, *help;
        bool is_workqueue, is_wait;
    } histograms[] = {
        {"workqueue_queue_duration_seconds", "How long keys wait for their turn.", true, true},
        {"workqueue_work_duration_seconds", "How long a key's turn takes.", true, false},
        {"controller_runtime_reconcile_time_seconds", "How long reconciles take.", false, false},
    };
    for (size_t h = 0; h < sizeof histograms / sizeof histograms[0]; h++) {
        describe(out, histograms[h].name, "histogram", histograms[h].help);
        for (size_t i = 0; i < count; i++) {
            const struct controller_metrics *metrics = &controllers[i];
            char labels[200];
            if (histograms[h].is_workqueue)
                snprintf(labels, sizeof labels, LABELS_WORKQUEUE, metrics->name, metrics->name);
            else
                snprintf(labels, sizeof labels, "controller=\"%s\"", metrics->name);
            print_histogram(out, histograms[h].name, labels,
                            histograms[h].is_wait ? &metrics->queue.waited : &metrics->reconcile_seconds);
        }
    }
}

static void print_controllers(const struct controller_metrics *controllers, size_t count, struct buffer *out)
{
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        print_row(out, &rows[i], controllers, count);
    print_depths(out, controllers, count);
    print_results(out, controllers, count);
    print_durations(out, controllers, count);
}

/* ---- the API server's client ---- */

/* Host and port of "https://host:6443/path". */
static void host_of(const char *server, char *out, size_t size)
{
    const char *begin = strstr(server, "://");
    begin = begin == NULL ? server : begin + 3;
    snprintf(out, size, "%.*s", (int)strcspn(begin, "/\"\\\n"), begin);
}

static void print_requests(const struct kube_client *client, struct buffer *out)
{
    struct kube_client_metrics metrics;
    kube_client_metrics(client, &metrics);
    char host[300];
    host_of(kube_client_config(client)->server, host, sizeof host);
    describe(out, "rest_client_requests_total", "counter", "Requests to the API server by method and answer.");
    for (int method = 0; method <= KUBE_DELETE; method++)
        for (int code = 0; code < KUBE_CODES; code++)
            if (metrics.requests[method][code] > 0)
                buffer_printf(out, NULL,
                              "rest_client_requests_total{code=\"%s\",host=\"%s\",method=\"%s\"} %" PRIu64 "\n",
                              kube_code_name(code), host, kube_method_name((enum kube_method)method),
                              metrics.requests[method][code]);
    print_one(out, "thole_client_connections_total", "counter", "Connections to the API server that were opened.",
              (double)metrics.connections);
}

static void print_events(const struct kube_events *events, struct buffer *out)
{
    struct kube_events_metrics metrics;
    kube_events_metrics(events, &metrics);
    print_one(out, "thole_events_written_total", "counter", "Events sent to the API server.", (double)metrics.written);
    print_one(out, "thole_events_counted_total", "counter", "Repetitions that were counted instead.",
              (double)metrics.counted);
    print_one(out, "thole_events_dropped_total", "counter", "Events that could not be written, or were too many.",
              (double)metrics.dropped);
    print_one(out, "thole_events_remembered", "gauge", "Events that a repetition would be counted with.",
              (double)metrics.remembered);
    print_one(out, "thole_events_waiting", "gauge", "Events that wait to be sent.", (double)metrics.waiting);
}

static void print_election(const char *lease, bool leads, struct buffer *out)
{
    describe(out, "leader_election_master_status", "gauge", "1: this operator leads; 0: it stands by.");
    buffer_printf(out, NULL, "leader_election_master_status{name=\"%s\"} %d\n", lease, leads ? 1 : 0);
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
    struct controller_metrics controllers[2];
    size_t count = 0;
    print_process(sources->started, out);
    if (sources->trainjobs != NULL) {
        print_jobs(sources->trainjobs, out);
        print_sync(trainjob_sync(sources->trainjobs), out);
        controller_metrics(trainjob_runtime(sources->trainjobs), &controllers[count++]);
    }
    if (sources->datasets != NULL)
        controller_metrics(dataset_runtime(sources->datasets), &controllers[count++]);
    print_controllers(controllers, count, out);
    print_caches(sources, out);
    if (sources->client != NULL)
        print_requests(sources->client, out);
    if (sources->events != NULL)
        print_events(sources->events, out);
    if (sources->lease != NULL)
        print_election(sources->lease, sources->leads, out);
    if (sources->history != NULL)
        print_history(sources->history, out);
}
