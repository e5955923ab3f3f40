/* thole-operator — turns TrainJobs into parameter servers and workers, and keeps their status and history. */
#include "common/buffer.h"
#include "common/error.h"
#include "common/log.h"
#include "dataset/dataset.h"
#include "flags.h"
#include "gauges.h"
#include "history/history.h"
#include "kube/kube.h"
#include "leader/leader.h"
#include "loop/loop.h"
#include "loop/trim.h"
#include "metrics.h"
#include "server/server.h"
#include "trainjob/trainjob.h"

#include <malloc.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

enum { EXIT_BAD_FLAGS = 2, KEY_LEAST = 16, URI_MOST = 64 * 1024, DESCRIPTORS = 20000, ARENAS_MOST = 2 };

static const int64_t READY_CHECK = 100 * MILLISECONDS;
static const char SERVICE[] = "thole-operator"; /* the coordinators' */

static const int64_t FINISH_CHECK = 20 * MILLISECONDS;
static const int64_t FINISH_MOST = 5 * SECONDS; /* for what is under way at the end */
static const int64_t RESIGN_MOST = 2 * SECONDS; /* for the Lease to be given back */
static const int64_t FLUSH_MOST = 5 * SECONDS;  /* for what MongoDB is still owed */

/* Everything that runs, in the order of its making. */
struct thole {
    struct log log;
    struct buffer key;
    struct host_paths allowed_host_paths;
    char advertise_address[512];
    struct loop *loop;
    struct trim *trim;
    struct gauges *gauges;
    struct kube_client *client;
    struct leader *leader;
    const char *lease; /* its name; NULL: no election */
    struct kube_events *events;
    struct history *history; /* NULL: no MongoDB */
    struct server *server;
    struct dataset_controller *datasets;
    struct trainjob_controller *trainjobs;
    struct loop_timer ready_check, finish;
    bool ready, ending, resigned;
    int64_t started; /* seconds since 1970 */
    struct instant finish_by;
};

/* ---- from the server and the history to the jobs ---- */

static void on_hello(void *arg, const struct report_hello *hello)
{
    struct thole *thole = arg;
    const char *other = leader_other(thole->leader);
    char sentence[ELECTION_IDENTITY_SIZE + 100];
    if (thole->ending)
        snprintf(sentence, sizeof sentence, "the operator is ending: another takes its place");
    else if (!thole->ready)
        snprintf(sentence, sizeof sentence, "the operator is only starting: come back later");
    else if (*other != '\0')
        snprintf(sentence, sizeof sentence, "this operator stands by, '%s' leads: come back later", other);
    else
        snprintf(sentence, sizeof sentence, "this operator does not lead yet: come back later");
    if (thole->ready && !thole->ending && leader_leads(thole->leader))
        trainjob_hello(thole->trainjobs, hello);
    else
        server_refuse(thole->server, hello->job_uid, hello->boot, sentence);
}

static void on_report(void *arg, const char *job_uid, const char *boot, const struct report_message *message)
{
    struct thole *thole = arg;
    gauges_report(thole->gauges, job_uid, message, loop_now(thole->loop));
    trainjob_report(thole->trainjobs, job_uid, boot, message);
}

static void on_metrics(void *arg, struct buffer *out)
{
    const struct thole *thole = arg;
    const struct metrics_sources sources = {.client = thole->client,
                                            .events = thole->events,
                                            .trainjobs = thole->trainjobs,
                                            .datasets = thole->datasets,
                                            .history = thole->history,
                                            .lease = thole->lease,
                                            .leads = leader_leads(thole->leader),
                                            .started = thole->started};
    metrics_print(&sources, out);
    gauges_print(thole->gauges, loop_now(thole->loop), out);
}

static unsigned on_debug(void *arg, const char *what, const char *key, struct buffer *out)
{
    const struct thole *thole = arg;
    if (strcmp(what, "trainjob") != 0 || *key == '\0') {
        buffer_append_text(out, "{\"error\":\"ask for /debug/trainjob?key=NAMESPACE/NAME\"}\n", NULL);
        return 404;
    }
    cleanup_json cJSON *json = trainjob_debug(thole->trainjobs, key);
    cleanup_free char *text = json == NULL ? NULL : json_print(json);
    if (text == NULL)
        return 503;
    buffer_append_text(out, text, NULL);
    buffer_append_text(out, "\n", NULL);
    return 200;
}

static void on_synced(void *arg, const char *job_uid, uint32_t epoch, bool final)
{
    const struct thole *thole = arg;
    trainjob_history_synced(thole->trainjobs, job_uid, epoch, final);
}

static void on_history_failed(void *arg, const char *job_uid, const char *sentence)
{
    const struct thole *thole = arg;
    trainjob_history_failed(thole->trainjobs, job_uid, sentence);
}

/* ---- and back ---- */

static void welcome(void *arg, const char *job_uid, const char *boot, struct report_ack ack)
{
    server_welcome(((struct thole *)arg)->server, job_uid, boot, ack);
}

static void refuse(void *arg, const char *job_uid, const char *boot, const char *sentence)
{
    server_refuse(((struct thole *)arg)->server, job_uid, boot, sentence);
}

static void ack(void *arg, const char *job_uid, const char *boot, struct report_ack ack)
{
    server_ack(((struct thole *)arg)->server, job_uid, boot, ack);
}

static void ack_finished(void *arg, const char *job_uid, const char *boot)
{
    server_ack_finished(((struct thole *)arg)->server, job_uid, boot);
}

static void put_history(void *arg, const cJSON *trainjob, const struct report_epoch *epochs, size_t count, bool final)
{
    history_put(((struct thole *)arg)->history, trainjob, epochs, count, final);
}

/* ---- readiness and the end ---- */

static void check_ready(void *arg)
{
    struct thole *thole = arg;
    const char *waiting_for = trainjob_waiting_for(thole->trainjobs);
    if (waiting_for == NULL && !dataset_synced(thole->datasets))
        waiting_for = "datasets";
    thole->ready = waiting_for == NULL;
    server_set_ready(thole->server, thole->ready, thole->ready ? "" : waiting_for);
    if (!thole->ready) {
        loop_timer_set(&thole->ready_check, READY_CHECK);
        return;
    }
    log_info(&thole->log, "ready", NULL);
    leader_stand(thole->leader);
}

static void on_leading(void *arg)
{
    const struct thole *thole = arg;
    dataset_begin(thole->datasets);
    trainjob_begin(thole->trainjobs);
}

/* Bytes that wait in the sockets are not sent any more: at its end they are reset. */
static void abandon_connections(void)
{
    const struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    for (int fd = STDERR_FILENO + 1; fd < DESCRIPTORS; fd++)
        (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
}

/* Another operator may act already. To end in good order would be to flush buffers, so this is the end. */
static void on_lost(void *arg, const char *sentence)
{
    const struct thole *thole = arg;
    abandon_connections();
    log_error(&thole->log, "the lead is lost, and with it this process ends", "reason", sentence, NULL);
    _exit(EXIT_FAILURE);
}

static void on_resigned(void *arg)
{
    struct thole *thole = arg;
    loop_stop(thole->loop);
}

/* Gives the lead back once nothing is under way, or ends after a while in any case: whatever was begun is
 * level-triggered, and the next operator looks at all of it again. While a write may still be under way, the Lease is
 * kept: its time is what the next one waits for then. */
static void finish(void *arg)
{
    struct thole *thole = arg;
    bool late = loop_now(thole->loop).nanoseconds >= thole->finish_by.nanoseconds;
    bool idle = controller_running(trainjob_runtime(thole->trainjobs)) == 0 &&
                controller_running(dataset_runtime(thole->datasets)) == 0 && kube_client_writes(thole->client) == 0;
    if (idle && !thole->resigned) {
        thole->resigned = true;
        leader_resign(thole->leader);
        loop_timer_set(&thole->finish, RESIGN_MOST);
    } else if (thole->resigned || late) {
        log_warn(&thole->log,
                 thole->resigned ? "ending, though the API server did not answer that the Lease is free"
                                 : "ending with requests under way: the next operator waits for the Lease to run out",
                 NULL);
        loop_stop(thole->loop);
    } else {
        loop_timer_set(&thole->finish, FINISH_CHECK);
    }
}

static void on_signal(void *arg, int signal)
{
    struct thole *thole = arg;
    log_info(&thole->log, "ending", "signal", strsignal(signal), NULL);
    if (thole->ending) {
        loop_stop(thole->loop);
        return;
    }
    thole->ending = true;
    loop_timer_cancel(&thole->ready_check);
    server_set_ready(thole->server, false, "its end");
    controller_stop(trainjob_runtime(thole->trainjobs));
    controller_stop(dataset_runtime(thole->datasets));
    thole->finish_by = (struct instant){loop_now(thole->loop).nanoseconds + FINISH_MOST};
    loop_timer_set(&thole->finish, 0);
}

/* ---- beginning ---- */

static int read_key(struct thole *thole, const struct flags *flags, struct error *err)
{
    buffer_init(&thole->key, TRAINJOB_KEY_MOST);
    if (buffer_read_file(&thole->key, flags->key_file, err) < 0)
        return -1;
    if (thole->key.length < KEY_LEAST)
        return error_set(err, "the key file '%s' holds fewer than %d bytes: fill it with random ones", flags->key_file,
                         KEY_LEAST);
    return 0;
}

/* Descriptors for as many coordinators as the server takes, but no more: libraries make tables of the limit's size. */
static void limit_descriptors(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    limit.rlim_cur = limit.rlim_max < DESCRIPTORS ? limit.rlim_max : DESCRIPTORS;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}

/* As controllers are run: several in a cluster, one at a time from a shell. */
static bool elects(const struct flags *flags)
{
    const struct kube_config_source source = kube_config_source_environment();
    bool has_kubeconfig =
        flags->kubeconfig != NULL || (source.kubeconfig_variable != NULL && *source.kubeconfig_variable != '\0');
    bool in_a_pod = source.service_host != NULL && *source.service_host != '\0' && !has_kubeconfig;
    return flags->leader_elect == ELECT_ALWAYS || (flags->leader_elect == ELECT_IN_A_POD && in_a_pod);
}

/* The pod's name, or else the machine's. */
static void name_instance(char *out, size_t size)
{
    const char *pod = getenv("POD_NAME");
    snprintf(out, size, "%s", pod == NULL || *pod == '\0' ? SERVICE : pod);
    if (pod == NULL || *pod == '\0')
        (void)gethostname(out, size - 1);
}

static int connect_cluster(struct thole *thole, const struct flags *flags, struct error *err)
{
    struct kube_config_source source = kube_config_source_environment();
    source.kubeconfig = flags->kubeconfig;
    source.context = flags->context;
    struct kube_config *config = NULL;
    if (kube_config_load(&config, &source, err) < 0)
        return -1;
    log_info(&thole->log, "starting", "version", THOLE_VERSION, "cluster", config->server, "from", config->origin,
             NULL);
    thole->client = kube_client_new(thole->loop, config, &thole->log, err);
    if (thole->client == NULL)
        return -1;
    char instance[256];
    name_instance(instance, sizeof instance);
    thole->events = kube_events_new(thole->loop, thole->client, &thole->log, instance, err);
    return thole->events == NULL ? -1 : 0;
}

static int start_history(struct thole *thole, const struct flags *flags, struct error *err)
{
    cleanup_buffer struct buffer file;
    buffer_init(&file, URI_MOST);
    const char *uri = flags->mongodb_uri;
    if (flags->mongodb_uri_file != NULL) {
        if (buffer_read_file(&file, flags->mongodb_uri_file, err) < 0)
            return -1;
        while (file.length > 0 && strchr(" \t\r\n", file.data[file.length - 1]) != NULL)
            file.data[--file.length] = '\0';
        uri = buffer_text(&file);
    }
    if (uri == NULL)
        return 0;
    const struct history_options options = {
        .uri = uri,
        .log = &thole->log,
        .loop = thole->loop,
        .hooks = {.arg = thole, .synced = on_synced, .failed = on_history_failed},
    };
    return history_start(&thole->history, &options, err);
}

static int start_server(struct thole *thole, const struct flags *flags, struct error *err)
{
    const struct server_options options = {
        .listen = flags->listen,
        .key = thole->key.data,
        .key_length = thole->key.length,
        .log = &thole->log,
        .loop = thole->loop,
        .hooks = {.arg = thole,
                  .hello = on_hello,
                  .report = on_report,
                  .metrics = on_metrics,
                  .debug = flags->debug ? on_debug : NULL},
    };
    if (server_start(&thole->server, &options, err) < 0)
        return -1;
    if (flags->advertise_address != NULL)
        snprintf(thole->advertise_address, sizeof thole->advertise_address, "%s", flags->advertise_address);
    else
        snprintf(thole->advertise_address, sizeof thole->advertise_address, "%s.%s.svc:%u", SERVICE,
                 kube_client_config(thole->client)->namespace, server_port(thole->server));
    log_info(&thole->log, "serving", "address", flags->listen, "advertised", thole->advertise_address, NULL);
    return 0;
}

static int start_leader(struct thole *thole, const struct flags *flags, struct error *err)
{
    char instance[256];
    name_instance(instance, sizeof instance);
    const char *own = kube_client_config(thole->client)->namespace;
    const struct leader_options options = {
        .loop = thole->loop,
        .client = thole->client,
        .log = &thole->log,
        .elects = elects(flags),
        .namespace = flags->lease_namespace == NULL ? own : flags->lease_namespace,
        .name = flags->lease_name,
        .instance = instance,
        .service_namespace = own,
        .service = SERVICE,
        .address = getenv("POD_IP"),
        .port = server_port(thole->server),
        .timing = {.lease = flags->lease_duration, .renew = flags->renew_deadline, .retry = flags->retry_period},
        .hooks = {.arg = thole, .leading = on_leading, .lost = on_lost, .resigned = on_resigned},
    };
    thole->lease = options.elects ? flags->lease_name : NULL;
    return leader_start(&thole->leader, &options, err);
}

static int start_controllers(struct thole *thole, const struct flags *flags, struct error *err)
{
    const struct dataset_options datasets = {
        .loop = thole->loop,
        .client = thole->client,
        .log = &thole->log,
        .namespace = flags->namespace,
        .allowed = &thole->allowed_host_paths,
        .resync = flags->resync_period,
    };
    if (dataset_start(&thole->datasets, &datasets, err) < 0)
        return -1;
    const struct trainjob_options trainjobs = {
        .loop = thole->loop,
        .client = thole->client,
        .events = thole->events,
        .log = &thole->log,
        .datasets = thole->datasets,
        .hooks = {.arg = thole,
                  .welcome = welcome,
                  .refuse = refuse,
                  .ack = ack,
                  .ack_finished = ack_finished,
                  .history_put = thole->history == NULL ? NULL : put_history},
        .namespace = flags->namespace,
        .trainer_image = flags->trainer_image,
        .advertise_address = thole->advertise_address,
        .allowed_host_paths = &thole->allowed_host_paths,
        .key = thole->key.data,
        .key_length = thole->key.length,
        .resync = flags->resync_period,
    };
    if (trainjob_start(&thole->trainjobs, &trainjobs, err) < 0)
        return -1;
    loop_timer_init(&thole->ready_check, thole->loop, check_ready, thole);
    loop_timer_init(&thole->finish, thole->loop, finish, thole);
    loop_timer_set(&thole->ready_check, 0);
    return 0;
}

static int start(struct thole *thole, const struct flags *flags, struct error *err)
{
    if (read_key(thole, flags, err) < 0 ||
        host_paths_parse(&thole->allowed_host_paths, flags->allowed_host_paths, err) < 0)
        return -1;
    thole->loop = loop_new(err);
    thole->trim = thole->loop == NULL ? NULL : trim_start(thole->loop, err);
    thole->gauges = gauges_new(err);
    /* Signals before threads: these inherit what is blocked. */
    if (thole->trim == NULL || thole->gauges == NULL || loop_handle_signals(thole->loop, on_signal, thole, err) < 0 ||
        connect_cluster(thole, flags, err) < 0 || start_history(thole, flags, err) < 0 ||
        start_server(thole, flags, err) < 0 || start_leader(thole, flags, err) < 0)
        return -1;
    return start_controllers(thole, flags, err);
}

/* ---- end ---- */

static void stop(struct thole *thole)
{
    if (thole->trainjobs != NULL) {
        loop_timer_cancel(&thole->ready_check);
        loop_timer_cancel(&thole->finish);
    }
    server_stop(thole->server);
    trainjob_stop(thole->trainjobs);
    dataset_stop(thole->datasets);
    leader_stop(thole->leader);
    kube_events_free(thole->events);
    kube_client_free(thole->client);
    size_t owed = history_stop(thole->history, FLUSH_MOST);
    if (owed > 0) {
        char count[24];
        snprintf(count, sizeof count, "%zu", owed);
        log_warn(&thole->log, "MongoDB is still owed the history of some jobs; the next operator writes it", "jobs",
                 count, NULL);
    }
    trim_stop(thole->trim);
    loop_free(thole->loop);
    gauges_free(thole->gauges);
    host_paths_free(&thole->allowed_host_paths);
    if (thole->key.data != NULL)
        explicit_bzero(thole->key.data, thole->key.length);
    buffer_free(&thole->key);
}

static int run(const struct flags *flags)
{
    struct error err = {0};
    struct thole thole = {.log = {.fd = STDERR_FILENO, .level = flags->log_level, .format = flags->log_format},
                          .started = clock_wall_seconds()};
    /* Little memory counts for more here than allocating without waiting for other threads. */
    mallopt(M_ARENA_MAX, ARENAS_MOST);
    limit_descriptors();
    int result = start(&thole, flags, &err);
    if (result == 0)
        result = loop_run(thole.loop, &err);
    if (result < 0)
        log_error(&thole.log, error_message(&err), NULL);
    stop(&thole);
    return result < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int count, char **arguments)
{
    struct error err = {0};
    struct flags flags;
    if (flags_parse(&flags, count, arguments, &err) < 0) {
        fprintf(stderr, "thole-operator: %s\n", error_message(&err));
        return EXIT_BAD_FLAGS;
    }
    if (flags.help) {
        fputs(flags_help, stdout);
        return EXIT_SUCCESS;
    }
    if (flags.version) {
        puts("thole-operator " THOLE_VERSION);
        return EXIT_SUCCESS;
    }
    return run(&flags);
}
