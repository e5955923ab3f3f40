/* The role `ps`: a shard behind one port, and with shard 0 the coordinator. */
#include "pod.h"

#include "canary.h"
#include "common/plan/tasks.h"
#include "coordinator/registrant.h"
#include "coordinator/server.h"
#include "numerics/numerics.h"
#include "ps/ps.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

enum { PATH_MOST = 4096, ADDRESS_MOST = 300 };

static const int64_t FAREWELL = 10 * MILLISECONDS;
static const int64_t FAREWELL_MOST = 1 * SECONDS;

struct ps {
    const struct pod *pod;
    struct net *net;
    struct shard *shard;
    struct batches *batches; /* Asynchronous, Hogwild */
    struct average *average; /* KAverage */
    struct shard_server *server;
    struct coordinator_server *coordinator; /* shard 0 */
    struct registrant *registrant;          /* the others */
    struct timer *farewell;
    char address[ADDRESS_MOST]; /* where others reach this process */
    char model_file[PATH_MOST], model_name[PATH_MOST];
    struct instant over_since;
    bool ended, failed;
    struct error failure;
};

static void end(struct ps *ps, const char *failure)
{
    ps->ended = true;
    if (failure == NULL || ps->failed)
        return;
    ps->failed = true;
    error_set(&ps->failure, "%s", failure);
}

/* ---- the shard ---- */

static void on_chunk_ready(void *arg, uint64_t version, uint64_t offset)
{
    struct ps *ps = arg;
    if (ps->server != NULL)
        shard_server_chunk_ready(ps->server, version, offset);
}

static void on_rows_ready(void *arg, uint32_t table, uint64_t version)
{
    struct ps *ps = arg;
    if (ps->server != NULL)
        shard_server_rows_ready(ps->server, table, version);
}

static void on_step_done(void *arg, uint64_t step, double loss)
{
    struct ps *ps = arg;
    if (ps->coordinator != NULL)
        coordinator_server_step_done(ps->coordinator, step, loss);
    else
        registrant_done(ps->registrant, step);
}

static void on_task_done(void *arg, uint64_t task, double loss)
{
    struct ps *ps = arg;
    if (ps->coordinator != NULL)
        coordinator_server_task_done(ps->coordinator, task, loss);
    else
        registrant_task_done(ps->registrant, task);
}

static void on_measured(void *arg, uint64_t step, uint32_t round, const double *measures, uint32_t count)
{
    struct ps *ps = arg;
    if (ps->coordinator != NULL)
        coordinator_server_measured(ps->coordinator, step, round, measures, count);
    else
        registrant_measured(ps->registrant, step, round, measures, count);
}

static int on_committed(void *arg, uint64_t step, uint32_t round, const double *scalars, uint32_t count,
                        struct error *err)
{
    const struct ps *ps = arg;
    return shard_commit(ps->shard, step, round, scalars, count, err);
}

static void on_shard_failed(void *arg, const char *sentence)
{
    struct ps *ps = arg;
    if (ps->coordinator != NULL) {
        coordinator_server_fail(ps->coordinator, "WorkersDisagree", sentence);
        return;
    }
    registrant_fail(ps->registrant, sentence);
    end(ps, sentence);
}

/* ---- who comes ---- */

static void on_connection(void *arg, struct conn *conn, enum dialogue dialogue, uint64_t peer_boot)
{
    struct ps *ps = arg;
    if (dialogue == DIALOGUE_DATA)
        shard_server_accept(ps->server, conn);
    else if (ps->coordinator != NULL)
        coordinator_server_accept(ps->coordinator, conn, dialogue, peer_boot);
    else
        conn_close(conn, "this shard is not the coordinator: dial shard 0");
}

/* Nothing comes before `ready`, and afterwards a connection is somebody else's. */
static void *no_place(void *arg, struct conn *conn, const struct frame *frame, struct error *err)
{
    (void)arg;
    (void)conn;
    error_set(err, "a frame of type %u comes too early", frame->type);
    return NULL;
}

static int not_received(void *arg, struct conn *conn, const struct frame *frame, const void *payload, struct error *err)
{
    (void)arg;
    (void)conn;
    (void)payload;
    return error_set(err, "a frame of type %u comes too early", frame->type);
}

static void on_closed(void *arg, struct conn *conn, const char *reason)
{
    (void)arg;
    (void)conn;
    (void)reason;
}

static const struct conn_handlers dispatcher = {
    .ready = on_connection,
    .place = no_place,
    .received = not_received,
    .closed = on_closed,
};

/* ---- the end ---- */

/* Everybody has been told; whoever leaves first might take the news with it, unread, or, to a worker that has not heard
 * them yet, look like a loss. */
static void on_farewell(void *arg)
{
    struct ps *ps = arg;
    const bool alone = ps->coordinator != NULL ? !coordinator_server_has_peers(ps->coordinator)
                                               : !shard_server_has_clients(ps->server);
    if (alone || instant_since(clock_now(), ps->over_since) > FAREWELL_MOST)
        end(ps, NULL);
    else
        net_timer_set(ps->farewell, FAREWELL);
}

static void say_farewell(struct ps *ps)
{
    ps->over_since = clock_now();
    if (ps->pod->exit_when_done)
        net_timer_set(ps->farewell, 0);
}

static void on_over(void *arg, bool succeeded)
{
    (void)succeeded; /* the report says it: an exit status would only make somebody start this process again */
    say_farewell(arg);
}

static void on_finished(void *arg)
{
    struct ps *ps = arg;
    log_info(&ps->pod->log, "the job is over", NULL);
    say_farewell(ps);
}

static void on_accepted(void *arg, uint32_t term)
{
    struct ps *ps = arg;
    shard_server_set_term(ps->server, term);
    log_info(&ps->pod->log, "registered", "coordinator", ps->pod->coordinator, NULL);
}

static void on_lost(void *arg, const char *reason)
{
    struct ps *ps = arg;
    char sentence[sizeof ps->failure.message];
    snprintf(sentence, sizeof sentence, "lost the coordinator at %s: %s", ps->pod->coordinator, reason);
    end(ps, sentence);
}

static void on_signal(void *arg)
{
    end(arg, NULL);
}

/* ---- addresses and paths ---- */

static int listen_socket(const struct pod *pod, uint16_t *port, struct error *err)
{
    if (pod->listen_fd < 0)
        return wire_listen_socket(pod->listen, port, err);
    struct sockaddr_storage address = {0};
    socklen_t size = sizeof address;
    int file_flags = fcntl(pod->listen_fd, F_GETFL);
    if (file_flags < 0 || fcntl(pod->listen_fd, F_SETFL, file_flags | O_NONBLOCK) < 0)
        return error_errno(err, "--listen-fd %d", pod->listen_fd);
    if (getsockname(pod->listen_fd, (struct sockaddr *)&address, &size) < 0)
        return error_errno(err, "--listen-fd %d", pod->listen_fd);
    if (address.ss_family == AF_INET)
        *port = ntohs(((struct sockaddr_in *)&address)->sin_port);
    else if (address.ss_family == AF_INET6)
        *port = ntohs(((struct sockaddr_in6 *)&address)->sin6_port);
    else
        return error_set(err, "--listen-fd %d is no TCP socket", pod->listen_fd);
    return pod->listen_fd;
}

static void own_address(const struct pod *pod, uint16_t port, char out[ADDRESS_MOST])
{
    const char *ip = getenv("POD_IP");
    if (pod->advertise != NULL)
        snprintf(out, ADDRESS_MOST, "%s", pod->advertise);
    else if (ip != NULL && strchr(ip, ':') != NULL)
        snprintf(out, ADDRESS_MOST, "[%s]:%u", ip, port);
    else
        snprintf(out, ADDRESS_MOST, "%s:%u", ip != NULL && ip[0] != '\0' ? ip : "127.0.0.1", port);
}

/* Names come from the API server, and a path made of them must not lead elsewhere. */
static bool is_plain(const char *name)
{
    return name[0] != '\0' && name[0] != '.' && strchr(name, '/') == NULL;
}

static int model_paths(const struct pod *pod, char file[PATH_MOST], char name[PATH_MOST], struct error *err)
{
    const struct plan *plan = pod->plan;
    struct stat status;
    file[0] = '\0';
    if (pod->model_file != NULL) {
        snprintf(file, PATH_MOST, "%s", pod->model_file);
        snprintf(name, PATH_MOST, "%s", pod->model_file);
        return 0;
    }
    if (stat(pod->output, &status) < 0 || !S_ISDIR(status.st_mode))
        return 0;
    if (!is_plain(plan->job_namespace) || !is_plain(plan->job_name) || !is_plain(plan->job_uid))
        return error_set(err, "the job's namespace, name and UID '%s', '%s', '%s' make no directory's name",
                         plan->job_namespace, plan->job_name, plan->job_uid);
    snprintf(name, PATH_MOST, "%s/%s/%s/model.safetensors", plan->job_namespace, plan->job_name, plan->job_uid);
    if (snprintf(file, PATH_MOST, "%s/%s", pod->output, name) >= PATH_MOST)
        return error_set(err, "--output %s: is too long", pod->output);
    return 0;
}

/* ---- life ---- */

static int start_coordinator(struct ps *ps, const struct model *model, const struct dataset_description *train,
                             const struct dataset_description *test, struct error *err)
{
    const struct pod *pod = ps->pod;
    if (model_paths(pod, ps->model_file, ps->model_name, err) < 0)
        return -1;
    if (ps->model_file[0] == '\0')
        log_warn(&pod->log, "there is no output directory: the model will not be kept", "output", pod->output, NULL);
    struct coordinator_server_options options = {
        .net = ps->net,
        .log = &pod->log,
        .plan = pod->plan,
        .model = model,
        .shard = ps->shard,
        .sync = ps->batches != NULL   ? batches_sync(ps->batches)
                : ps->average != NULL ? average_sync(ps->average)
                                      : NULL,
        .train_samples = train->samples,
        .test_samples = test->samples,
        .boot_id = pod->boot_id,
        .kernel = numerics_kernel(),
        .address = ps->address,
        .model_path = ps->model_file[0] != '\0' ? ps->model_file : NULL,
        .model_name = ps->model_name,
        .pod = pod->name,
        .pod_uid = pod->uid,
        .operator_address = pod->operator_address,
        .report_fd = pod->report_fd,
        .committed = on_committed,
        .over = on_over,
        .arg = ps,
    };
    memcpy(options.token, pod->token, sizeof options.token);
    if (canary_of_worker(pod->plan, model, train->samples, options.canary, err) < 0 ||
        canary_of_shard(pod->plan, model, train->samples, options.shard_canary, err) < 0)
        return -1;
    if (coordinator_server_new(&ps->coordinator, &options, err) < 0)
        return -1;
    shard_server_set_term(ps->server, COORDINATOR_FIRST_TERM);
    return 0;
}

static int start_registrant(struct ps *ps, const struct model *model, uint64_t train_samples, struct error *err)
{
    if (ps->pod->coordinator == NULL)
        return error_set(err, "shard %u needs --coordinator or THOLE_COORDINATOR, the host:port of shard 0",
                         ps->pod->shard);
    struct registrant_options options = {
        .net = ps->net,
        .log = &ps->pod->log,
        .coordinator = ps->pod->coordinator,
        .address = ps->address,
        .shard = ps->pod->shard,
        .accepted = on_accepted,
        .committed = on_committed,
        .finished = on_finished,
        .lost = on_lost,
        .arg = ps,
    };
    if (canary_of_shard(ps->pod->plan, model, train_samples, options.canary, err) < 0)
        return -1;
    return registrant_new(&ps->registrant, &options, err);
}

/* Of the model file that the plan starts from, what is this shard's. */
static int start_from(struct ps *ps, const struct model *model, struct error *err)
{
    const struct network *network = model_network(model);
    struct model_table tables[NETWORK_TABLES_MOST] = {0};
    cleanup_free float *params = calloc(network->parameters, sizeof *params);
    if (params == NULL)
        return error_set(err, "read model file '%s': no memory for its %llu parameters", ps->pod->start,
                         (unsigned long long)network->parameters);
    if (model_file_read(model, ps->pod->start, params, tables, NULL, err) < 0)
        return -1;
    uint64_t begin;
    uint64_t end;
    network_shard_range(network, ps->pod->plan->shards, ps->pod->shard, &begin, &end);
    shard_start_from(ps->shard, params + begin);
    int result = 0;
    for (uint32_t i = 0; i < network->table_count; i++) {
        if (result == 0)
            result = shard_start_rows(ps->shard, i, tables[i].ids, tables[i].values, tables[i].count, err);
        model_table_free(&tables[i]);
    }
    return result;
}

/* What shards of the other types than Synchronous do with what is pushed. */
static int take_pushes(struct ps *ps, uint64_t train_samples, struct error *err)
{
    const struct plan *plan = ps->pod->plan;
    const struct batches_hooks hooks = {.task_done = on_task_done, .arg = ps};
    if (tasks_are_leased(plan) && batches_new(&ps->batches, ps->shard, plan, train_samples, &hooks, err) < 0)
        return -1;
    if (plan->sync == PLAN_KAVERAGE && average_new(&ps->average, ps->net, ps->shard, plan, train_samples, err) < 0)
        return -1;
    if (ps->batches != NULL)
        shard_server_set_batches(ps->server, ps->batches);
    if (ps->average != NULL)
        shard_server_set_average(ps->server, ps->average);
    return 0;
}

static int start(struct ps *ps, const struct model *model, const struct dataset_description *train,
                 const struct dataset_description *test, int signals, struct error *err)
{
    struct shard_hooks hooks = {.chunk_ready = on_chunk_ready,
                                .rows_ready = on_rows_ready,
                                .step_done = on_step_done,
                                .measured = on_measured,
                                .failed = on_shard_failed,
                                .arg = ps};
    if (shard_new(&ps->shard, ps->net, ps->pod->plan, model, ps->pod->shard, train->samples, &hooks, err) < 0 ||
        shard_server_new(&ps->server, ps->net, ps->shard, &ps->pod->log, err) < 0 ||
        take_pushes(ps, train->samples, err) < 0)
        return -1;
    if (ps->pod->plan->model.start != NULL && start_from(ps, model, err) < 0)
        return -1;
    ps->farewell = net_timer_new(ps->net, on_farewell, ps);
    if (ps->farewell == NULL)
        return error_set(err, "start the parameter server: no memory");
    uint16_t port = 0;
    cleanup_fd int listener = listen_socket(ps->pod, &port, err);
    if (listener < 0)
        return -1;
    own_address(ps->pod, port, ps->address);
    int started = ps->pod->shard == 0 ? start_coordinator(ps, model, train, test, err)
                                      : start_registrant(ps, model, train->samples, err);
    if (started < 0 || net_watch_fd(ps->net, signals, on_signal, ps, err) < 0 ||
        net_listen(ps->net, move_fd(&listener), &dispatcher, ps, err) < 0)
        return -1;
    log_info(&ps->pod->log, "parameter server listens", "address", ps->address, NULL);
    return 0;
}

static int run(struct ps *ps, struct error *err)
{
    while (!ps->ended)
        if (net_wait(ps->net, -1, err) < 0)
            return -1;
    (void)net_wait(ps->net, 0, err); /* last words */
    return ps->failed ? error_set(err, "%s", error_message(&ps->failure)) : 0;
}

int ps_main(const struct pod *pod, struct error *err)
{
    if (pod->shard >= pod->plan->shards)
        return error_set(err, "--shard %u: the plan has shards 0 to %u", pod->shard, pod->plan->shards - 1);
    cleanup_fd int signals = pod_signals(err);
    if (signals < 0)
        return -1;
    struct dataset_description train, test;
    cleanup_model struct model *model = NULL;
    if (pod_model(pod, &model, &train, &test, err) < 0)
        return -1;
    struct ps ps = {.pod = pod};
    if (pod_net(pod, &ps.net, err) < 0)
        return -1;
    int result = start(&ps, model, &train, &test, signals, err);
    if (result == 0)
        result = run(&ps, err);
    coordinator_server_free(ps.coordinator);
    registrant_free(ps.registrant);
    shard_server_free(ps.server);
    batches_free(ps.batches);
    average_free(ps.average);
    shard_free(ps.shard);
    net_timer_free(ps.farewell);
    net_free(ps.net);
    return result;
}
