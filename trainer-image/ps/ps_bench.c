/* What a step costs without any computing: one shard's process and W workers' processes on this machine, over loopback.
 * Each worker waits for the whole next version and pushes its node of every chunk.
 *
 *   ps_bench [workers=2 [floats=235146 [steps=2000]]]
 */
#include "ps/plain_shard.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WORKERS_MOST = 64 };

struct bench {
    uint32_t workers, leaves, floats, steps;
    uint16_t port;
    struct net *net;
    struct shard_server *server;
    bool finished;
};

static void die(const char *what, const struct error *err)
{
    fprintf(stderr, "ps_bench: %s: %s\n", what, err == NULL ? "failed" : error_message(err));
    exit(1);
}

static struct net *new_net(uint64_t boot)
{
    struct net *net = NULL;
    struct error err = {0};
    struct net_options options = {.boot_id = boot};
    if (net_new(&net, &options, &err) < 0)
        die("loop", &err);
    return net;
}

static double seconds_of(struct timeval time)
{
    return (double)time.tv_sec + (double)time.tv_usec * 1e-6;
}

static void print_usage(const char *who, const struct bench *bench, const struct rusage *usage)
{
    double user = seconds_of(usage->ru_utime), kernel = seconds_of(usage->ru_stime);
    printf("  %-8s %7.1f µs a step (%.1f user, %.1f kernel), %.1f switches a step\n", who,
           (user + kernel) / bench->steps * 1e6, user / bench->steps * 1e6, kernel / bench->steps * 1e6,
           (double)(usage->ru_nvcsw + usage->ru_nivcsw) / bench->steps);
}

/* ---- The shard ---- */

static void chunk_ready(void *arg, uint64_t version, uint64_t offset)
{
    struct bench *bench = arg;
    shard_server_chunk_ready(bench->server, version, offset);
}

static void step_done(void *arg, uint64_t step, double loss)
{
    (void)loss;
    struct bench *bench = arg;
    bench->finished = step + 1 == bench->steps;
}

static void dispatch(void *arg, struct conn *conn, enum dialogue dialogue, uint64_t peer_boot)
{
    (void)dialogue;
    (void)peer_boot;
    shard_server_accept(((struct bench *)arg)->server, conn);
}

static const struct conn_handlers dispatcher = {.ready = dispatch};

static void serve(struct bench *bench, int fd)
{
    struct plan plan = {
        .blocks = bench->leaves,
        .shards = 1,
        .training = {.batch_size = bench->leaves, .epochs = 1, .optimizer = {.learning_rate = 1e-9, .momentum = 0.9}}};
    bench->net = new_net(1);
    struct shard_hooks hooks = {.chunk_ready = chunk_ready, .step_done = step_done, .arg = bench};
    struct shard *shard = NULL;
    struct error err = {0};
    if (plain_shard(&shard, bench->net, &plan, 0, bench->floats, WIRE_CHUNK_FLOATS,
                    (uint64_t)bench->steps * bench->leaves, &hooks, &err) < 0 ||
        shard_server_new(&bench->server, bench->net, shard, NULL, &err) < 0 ||
        net_listen(bench->net, fd, &dispatcher, bench, &err) < 0)
        die("shard", &err);
    while (!bench->finished || shard_server_queued_most(bench->server) > 0)
        if (net_wait(bench->net, -1, &err) < 0)
            die("wait", &err);
    shard_server_free(bench->server);
    shard_free(shard);
    net_free(bench->net);
}

/* ---- A worker ---- */

struct worker {
    struct bench *bench;
    struct net *net;
    struct conn *conn;
    uint32_t node, chunks, arrived;
    uint64_t version;
    float *params;
    struct payload **gradient;
    bool finished;
};

static uint32_t chunk_floats(const struct bench *bench, uint32_t chunk)
{
    uint32_t left = bench->floats - chunk * WIRE_CHUNK_FLOATS;
    return left < WIRE_CHUNK_FLOATS ? left : WIRE_CHUNK_FLOATS;
}

static void worker_push(struct worker *worker)
{
    for (uint32_t i = 0; i < worker->chunks; i++) {
        struct frame frame = {.type = FRAME_PUSH, .node = worker->node, .step = worker->version};
        frame.offset = (uint64_t)i * WIRE_CHUNK_FLOATS;
        worker->gradient[i]->crc_known = false; /* as if just computed */
        conn_send(worker->conn, &frame, worker->gradient[i]);
    }
}

static void worker_ready(void *arg, struct conn *conn, enum dialogue dialogue, uint64_t peer_boot)
{
    (void)arg;
    (void)dialogue;
    (void)peer_boot;
    conn_send(conn, &(struct frame){.type = FRAME_SUBSCRIBE}, NULL);
}

static void *worker_place(void *arg, struct conn *conn, const struct frame *frame, struct error *err)
{
    (void)conn;
    (void)err;
    return ((struct worker *)arg)->params + frame->offset;
}

static int worker_received(void *arg, struct conn *conn, const struct frame *frame, const void *payload,
                           struct error *err)
{
    (void)conn;
    (void)payload;
    struct worker *worker = arg;
    if (frame->step != worker->version)
        return error_set(err, "version %llu came instead of %llu", (unsigned long long)frame->step,
                         (unsigned long long)worker->version);
    if (++worker->arrived < worker->chunks)
        return 0;
    worker->arrived = 0;
    if (worker->version < worker->bench->steps)
        worker_push(worker);
    worker->finished = worker->version++ == worker->bench->steps;
    return 0;
}

static void worker_closed(void *arg, struct conn *conn, const char *reason)
{
    (void)conn;
    if (!((struct worker *)arg)->finished) {
        fprintf(stderr, "ps_bench: worker: %s\n", reason);
        exit(1);
    }
}

static const struct conn_handlers worker_handlers = {
    .ready = worker_ready, .place = worker_place, .received = worker_received, .closed = worker_closed};

static void work(struct bench *bench, uint32_t rank)
{
    struct worker worker = {.bench = bench, .net = new_net(100 + rank)};
    worker.chunks = (bench->floats + WIRE_CHUNK_FLOATS - 1) / WIRE_CHUNK_FLOATS;
    worker.node = bench->leaves + rank;
    worker.params = calloc(bench->floats, sizeof(float));
    worker.gradient = calloc(worker.chunks, sizeof(struct payload *));
    if (worker.params == NULL || worker.gradient == NULL)
        die("memory", NULL);
    for (uint32_t i = 0; i < worker.chunks; i++) {
        worker.gradient[i] = payload_new(worker.net, chunk_floats(bench, i) * sizeof(float));
        if (worker.gradient[i] == NULL)
            die("memory", NULL);
        memset(worker.gradient[i]->data, 0x11, worker.gradient[i]->length);
    }
    char address[32];
    snprintf(address, sizeof address, "127.0.0.1:%u", bench->port);
    worker.conn = conn_dial(worker.net, address, DIALOGUE_DATA, &worker_handlers, &worker);
    struct error err = {0};
    while (!worker.finished)
        if (net_wait(worker.net, -1, &err) < 0)
            die("wait", &err);
    for (uint32_t i = 0; i < worker.chunks; i++)
        free(worker.gradient[i]);
    net_free(worker.net);
    free(worker.gradient);
    free(worker.params);
}

/* ---- All together ---- */

static void bench_crc(void)
{
    struct net *net = new_net(1);
    struct payload *payload = payload_new(net, WIRE_PAYLOAD_MOST);
    memset(payload->data, 0x37, payload->length);
    enum { ROUNDS = 4000 };
    uint32_t crc = 0;
    int64_t start = clock_now().nanoseconds;
    for (int i = 0; i < ROUNDS; i++)
        crc = crc32c(crc, payload->data, payload->length);
    double seconds = (double)(clock_now().nanoseconds - start) * 1e-9;
    printf("crc32c: %.1f GB/s (%08x)\n", (double)ROUNDS * WIRE_PAYLOAD_MOST / seconds * 1e-9, crc);
    payload_unref(net, payload);
    net_free(net);
}

int main(int argc, char **argv)
{
    struct bench bench = {.workers = 2, .floats = 235146, .steps = 2000};
    if (argc > 1)
        bench.workers = (uint32_t)strtoul(argv[1], NULL, 10);
    if (argc > 2)
        bench.floats = (uint32_t)strtoul(argv[2], NULL, 10);
    if (argc > 3)
        bench.steps = (uint32_t)strtoul(argv[3], NULL, 10);
    if (bench.workers < 1 || bench.workers > WORKERS_MOST || bench.floats < 1 || bench.steps < 1) {
        fprintf(stderr, "usage: ps_bench [workers [floats [steps]]]\n");
        return 2;
    }
    bench_crc();
    bench.leaves = 1;
    while (bench.leaves < bench.workers)
        bench.leaves *= 2;
    bench.workers = bench.leaves; /* a block each */

    struct error err = {0};
    int fd = wire_listen_socket("127.0.0.1:0", &bench.port, &err);
    if (fd < 0)
        die("listen", &err);
    fflush(stdout);
    int64_t start = clock_now().nanoseconds;
    for (uint32_t rank = 0; rank < bench.workers; rank++) {
        if (fork() == 0) {
            close(fd);
            work(&bench, rank);
            _exit(0);
        }
    }
    serve(&bench, fd);
    int failures = 0;
    for (int status; wait(&status) > 0;)
        failures += status != 0;
    double seconds = (double)(clock_now().nanoseconds - start) * 1e-9;

    struct rusage server, workers;
    getrusage(RUSAGE_SELF, &server);
    getrusage(RUSAGE_CHILDREN, &workers);
    double bytes = 2.0 * bench.workers * bench.floats * sizeof(float) * bench.steps;
    printf("%u workers, %u floats, %u steps: %.1f µs a step, %.2f GB/s through loopback\n", bench.workers, bench.floats,
           bench.steps, seconds / bench.steps * 1e6, bytes / seconds * 1e-9);
    print_usage("shard", &bench, &server);
    print_usage("workers", &bench, &workers);
    return failures > 0;
}
