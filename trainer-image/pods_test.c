/* The roles as pods run them, each started by itself: what they do when connections break, when others start again, and
 * when the job is over. */
#include "common/buffer.h"
#include "local/job.h"
#include "local/test_bed.h"
#include "wire/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { ARGUMENTS_MOST = 40, LISTEN_FD = 200 };

/* ---- pods ---- */

struct pod {
    pid_t pid;
    FILE *log;
    struct buffer text;
};

struct cluster {
    struct bed bed;
    char plan[128], token[128], model[160];
    int listeners[2];
    uint16_t ports[2];
};

/* `model`: spec.model, and what more of the spec there is to say. */
static void cluster_make_job(struct cluster *cluster, uint32_t shards, uint32_t epochs, const char *model,
                             const char *rate)
{
    struct error err = {0};
    bed_make(&cluster->bed);
    bed_put_model_job(&cluster->bed, model, epochs, 37, rate);
    struct options options = {
        .files = {cluster->bed.dataset, cluster->bed.job}, .file_count = 2, .shards = shards, .workers = 1};
    cleanup_job struct job job;
    if (job_load(&job, &options, &err) < 0)
        fail_msg("%s", error_message(&err));
    bed_put(&cluster->bed, "plan.json", job.plan_text, strlen(job.plan_text));
    bed_put(&cluster->bed, "token", "thirty-two bytes that are secret", 32);
    snprintf(cluster->plan, sizeof cluster->plan, "%s/plan.json", cluster->bed.folder);
    snprintf(cluster->token, sizeof cluster->token, "%s/token", cluster->bed.folder);
    snprintf(cluster->model, sizeof cluster->model, "%s/model.safetensors", cluster->bed.output);
    for (int i = 0; i < 2; i++) {
        cluster->listeners[i] = wire_listen_socket("127.0.0.1:0", &cluster->ports[i], &err);
        assert_true(cluster->listeners[i] >= 0);
    }
}

static void cluster_make(struct cluster *cluster, uint32_t shards, uint32_t epochs)
{
    cluster_make_job(cluster, shards, epochs, "{zoo: mlp}", "0.05");
}

static void cluster_free(struct cluster *cluster)
{
    close(cluster->listeners[0]);
    close(cluster->listeners[1]);
    bed_free(&cluster->bed);
}

static void spawn(struct pod *pod, char *const argv[], int listener, const char *environment)
{
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
    if (listener >= 0)
        posix_spawn_file_actions_adddup2(&actions, listener, LISTEN_FD);
    size_t count = 0;
    while (environ[count] != NULL)
        count++;
    char **list = calloc(count + 2, sizeof *list);
    memcpy(list, environ, count * sizeof *list);
    list[count] = (char *)environment;
    *pod = (struct pod){0};
    assert_int_equal(posix_spawn(&pod->pid, THOLE_TRAINER, &actions, NULL, argv, list), 0);
    posix_spawn_file_actions_destroy(&actions);
    free(list);
    close(ends[1]);
    pod->log = fdopen(ends[0], "r");
    buffer_init(&pod->text, 1 << 20);
}

/* `advertised` NULL: its own port. */
static void start_ps(struct pod *pod, const struct cluster *cluster, uint32_t shard, const char *advertised, bool stays,
                     const char *environment)
{
    char index[8], coordinator[32], address[32];
    snprintf(index, sizeof index, "%u", shard);
    snprintf(coordinator, sizeof coordinator, "127.0.0.1:%u", cluster->ports[0]);
    snprintf(address, sizeof address, "127.0.0.1:%u", cluster->ports[shard]);
    const char *argv[ARGUMENTS_MOST] = {"thole-trainer",
                                        "ps",
                                        "--shard",
                                        index,
                                        "--plan",
                                        cluster->plan,
                                        "--token",
                                        cluster->token,
                                        "--data",
                                        cluster->bed.folder,
                                        "--coordinator",
                                        coordinator,
                                        "--listen-fd",
                                        "200",
                                        "--advertise",
                                        advertised != NULL ? advertised : address,
                                        "--model-file",
                                        cluster->model,
                                        stays ? NULL : "--exit-when-done"};
    spawn(pod, (char *const *)argv, cluster->listeners[shard], environment);
}

static void start_worker(struct pod *pod, const struct cluster *cluster, const char *data, bool stays,
                         const char *environment)
{
    char coordinator[32];
    snprintf(coordinator, sizeof coordinator, "127.0.0.1:%u", cluster->ports[0]);
    const char *argv[ARGUMENTS_MOST] = {"thole-trainer",
                                        "worker",
                                        "--plan",
                                        cluster->plan,
                                        "--token",
                                        cluster->token,
                                        "--data",
                                        data != NULL ? data : cluster->bed.folder,
                                        "--coordinator",
                                        coordinator,
                                        stays ? NULL : "--exit-when-done"};
    spawn(pod, (char *const *)argv, -1, environment);
}

/* Reads its log until a line says so. */
static void wait_for(struct pod *pod, const char *words)
{
    char line[2048];
    while (fgets(line, sizeof line, pod->log) != NULL) {
        assert_int_equal(buffer_append_text(&pod->text, line, NULL), 0);
        if (strstr(line, words) != NULL)
            return;
    }
    fail_msg("it never said '%s':\n%s", words, buffer_text(&pod->text));
}

/* Its end: status, or minus the signal. */
static int end_of(struct pod *pod)
{
    char line[2048];
    int status = 0;
    while (fgets(line, sizeof line, pod->log) != NULL)
        assert_int_equal(buffer_append_text(&pod->text, line, NULL), 0);
    assert_int_equal(waitpid(pod->pid, &status, 0), pod->pid);
    fclose(pod->log);
    if (strstr(buffer_text(&pod->text), "Sanitizer") != NULL)
        fail_msg("%s", buffer_text(&pod->text));
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void expect_end(struct pod *pod, int status)
{
    int ended = end_of(pod);
    if (ended != status)
        fail_msg("ended with %d and not with %d:\n%s", ended, status, buffer_text(&pod->text));
    buffer_free(&pod->text);
}

/* What one undisturbed worker makes of it. */
static void train_quietly(const struct cluster *cluster, uint32_t shards, char digest[SHA256_HEX_SIZE])
{
    struct pod ps[2], worker;
    for (uint32_t shard = 0; shard < shards; shard++)
        start_ps(&ps[shard], cluster, shard, NULL, false, NULL);
    start_worker(&worker, cluster, NULL, false, NULL);
    expect_end(&worker, 0);
    for (uint32_t shard = 0; shard < shards; shard++)
        expect_end(&ps[shard], 0);
    bed_digest(&cluster->bed, digest);
}

/* ---- a bad line: passes bytes on, and cuts connections after some ---- */

enum { PAIRS_MOST = 32 };

struct bad_line {
    pthread_t thread;
    int listener;
    uint16_t port, to;
    atomic_bool stop;
    atomic_uint cuts; /* still to be made */
    atomic_uint made;
    uint32_t random;
    struct {
        int fds[2];
        size_t left; /* bytes until the cut */
    } pairs[PAIRS_MOST];
    uint32_t count;
};

static void line_accept(struct bad_line *line)
{
    int fd = accept4(line->listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return;
    int to = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(line->to), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(connect(to, (struct sockaddr *)&address, sizeof address), 0);
    line->random = line->random * 1664525 + 1013904223;
    assert_true(line->count < PAIRS_MOST);
    line->pairs[line->count].fds[0] = fd;
    line->pairs[line->count].fds[1] = to;
    line->pairs[line->count].left = 100000 + (line->random >> 8) % 2000000;
    line->count++;
}

static void line_close(struct bad_line *line, uint32_t index)
{
    close(line->pairs[index].fds[0]);
    close(line->pairs[index].fds[1]);
    line->pairs[index] = line->pairs[--line->count];
}

/* False where the pair is to go. */
static bool line_pass(struct bad_line *line, uint32_t index, int from)
{
    char bytes[65536];
    ssize_t count = recv(line->pairs[index].fds[from], bytes, sizeof bytes, 0);
    if (count <= 0)
        return false;
    if ((size_t)count >= line->pairs[index].left && atomic_load(&line->cuts) > 0) {
        atomic_fetch_sub(&line->cuts, 1);
        atomic_fetch_add(&line->made, 1);
        count = (ssize_t)line->pairs[index].left; /* in the middle of a frame */
        (void)send(line->pairs[index].fds[1 - from], bytes, (size_t)count, MSG_NOSIGNAL);
        return false;
    }
    if ((size_t)count < line->pairs[index].left)
        line->pairs[index].left -= (size_t)count;
    return send(line->pairs[index].fds[1 - from], bytes, (size_t)count, MSG_NOSIGNAL) == count;
}

static void *line_main(void *arg)
{
    struct bad_line *line = arg;
    while (!atomic_load(&line->stop)) {
        struct pollfd ready[1 + 2 * PAIRS_MOST] = {{.fd = line->listener, .events = POLLIN}};
        uint32_t count = line->count;
        for (uint32_t i = 0; i < 2 * count; i++)
            ready[1 + i] = (struct pollfd){.fd = line->pairs[i / 2].fds[i % 2], .events = POLLIN};
        if (poll(ready, 1 + 2 * count, 20) <= 0)
            continue;
        for (uint32_t i = count; i-- > 0;)
            for (int from = 0; from < 2; from++)
                if (ready[1 + 2 * i + (uint32_t)from].revents != 0 && !line_pass(line, i, from)) {
                    line_close(line, i);
                    break;
                }
        if (ready[0].revents != 0)
            line_accept(line);
    }
    while (line->count > 0)
        line_close(line, 0);
    return NULL;
}

static void line_start(struct bad_line *line, uint16_t to, uint32_t cuts)
{
    struct error err = {0};
    memset(line, 0, sizeof *line);
    line->to = to;
    line->random = 3;
    atomic_store(&line->cuts, cuts);
    line->listener = wire_listen_socket("127.0.0.1:0", &line->port, &err);
    assert_true(line->listener >= 0);
    assert_int_equal(pthread_create(&line->thread, NULL, line_main, line), 0);
}

static void line_stop(struct bad_line *line)
{
    atomic_store(&line->stop, true);
    pthread_join(line->thread, NULL);
    close(line->listener);
}

/* ---- tests ---- */

static void test_cut_connections_change_nothing(void **state)
{
    (void)state;
    enum { CUTS = 6 };
    struct cluster cluster;
    cluster_make(&cluster, 1, 8);
    char quiet[SHA256_HEX_SIZE], cut[SHA256_HEX_SIZE], address[32];
    train_quietly(&cluster, 1, quiet);
    struct bad_line line;
    line_start(&line, cluster.ports[0], CUTS);
    snprintf(address, sizeof address, "127.0.0.1:%u", line.port);
    struct pod ps, workers[2];
    start_ps(&ps, &cluster, 0, address, false, NULL);
    for (int i = 0; i < 2; i++)
        start_worker(&workers[i], &cluster, NULL, false, NULL);
    for (int i = 0; i < 2; i++)
        expect_end(&workers[i], 0);
    expect_end(&ps, 0);
    line_stop(&line);
    bed_digest(&cluster.bed, cut);
    assert_int_equal(atomic_load(&line.made), CUTS);
    assert_string_equal(quiet, cut);
    cluster_free(&cluster);
}

/* Types in which the bits depend on who is fast: but every step of every epoch counts, and counts once, though one of
 * three workers is killed and connections are cut. */
static void train_with_accidents(const char *model, const char *rate)
{
    enum { CUTS = 3, EPOCHS = 8, STEPS = (BED_TRAIN + 36) / 37 };
    struct cluster cluster;
    cluster_make_job(&cluster, 2, EPOCHS, model, rate);
    struct bad_line line;
    line_start(&line, cluster.ports[1], CUTS);
    char address[32], applied[64];
    snprintf(address, sizeof address, "127.0.0.1:%u", line.port);
    struct pod ps[2], workers[3];
    start_ps(&ps[0], &cluster, 0, NULL, false, NULL);
    start_ps(&ps[1], &cluster, 1, address, false, NULL);
    for (int i = 0; i < 3; i++)
        start_worker(&workers[i], &cluster, NULL, false, NULL);
    wait_for(&ps[0], "epoch done");
    kill(workers[1].pid, SIGKILL);
    expect_end(&workers[1], -SIGKILL);
    snprintf(applied, sizeof applied, "applied steps=%d samples=%d ", EPOCHS * STEPS, EPOCHS * BED_TRAIN);
    wait_for(&ps[0], applied);
    wait_for(&ps[0], "Trained all 8 epochs; accuracy ");
    const char *accuracy = strstr(buffer_text(&ps[0].text), "; accuracy ");
    if (strtod(accuracy + strlen("; accuracy "), NULL) < 60) /* of four classes */
        fail_msg("%s learned too little:\n%s", model, buffer_text(&ps[0].text));
    expect_end(&workers[0], 0);
    expect_end(&workers[2], 0);
    expect_end(&ps[0], 0);
    expect_end(&ps[1], 0);
    line_stop(&line);
    assert_int_equal(atomic_load(&line.made), CUTS);
    cluster_free(&cluster);
}

static void test_accidents_cost_no_step_of_any_type(void **state)
{
    (void)state;
    train_with_accidents("{zoo: mlp}\n  sync: {type: Asynchronous, asynchronous: {maxStaleness: 2}}", "0.01");
    train_with_accidents("{zoo: mlp}\n  sync: {type: Hogwild, hogwild: {wire: BFloat16}}", "0.01");
    train_with_accidents("{zoo: mlp}\n  sync: {type: KAverage, kAverage: {localSteps: 2}}", "0.1");
}

/* Whoever computes a share comes to the same: where there is one a round, so does the whole job. */
static void test_cut_connections_change_no_average(void **state)
{
    (void)state;
    enum { CUTS = 4 };
    struct cluster cluster;
    cluster_make_job(&cluster, 1, 8, "{zoo: mlp}\n  sync: {type: KAverage, kAverage: {localSteps: 2}}", "0.05");
    char quiet[SHA256_HEX_SIZE], cut[SHA256_HEX_SIZE], address[32];
    train_quietly(&cluster, 1, quiet);
    struct bad_line line;
    line_start(&line, cluster.ports[0], CUTS);
    snprintf(address, sizeof address, "127.0.0.1:%u", line.port);
    struct pod ps, worker;
    start_ps(&ps, &cluster, 0, address, false, NULL);
    start_worker(&worker, &cluster, NULL, false, NULL);
    expect_end(&worker, 0);
    expect_end(&ps, 0);
    line_stop(&line);
    bed_digest(&cluster.bed, cut);
    assert_int_equal(atomic_load(&line.made), CUTS);
    assert_string_equal(quiet, cut);
    cluster_free(&cluster);
}

static void test_a_worker_takes_the_jobs_kernels(void **state)
{
    (void)state;
    struct cluster cluster;
    cluster_make(&cluster, 1, 1);
    struct pod ps, worker;
    start_ps(&ps, &cluster, 0, NULL, false, "OPENBLAS_CORETYPE=Nehalem");
    start_worker(&worker, &cluster, NULL, false, NULL);
    wait_for(&worker, "starting again with the job's kernels kernel=Nehalem");
    wait_for(&worker, "joined");
    expect_end(&worker, 0);
    expect_end(&ps, 0);
    cluster_free(&cluster);
}

static void test_a_worker_with_other_data_is_refused(void **state)
{
    (void)state;
    struct cluster cluster;
    struct bed other;
    cluster_make(&cluster, 1, 1);
    bed_make(&other);
    bed_put_samples(&other, "x", "y", 300);
    struct pod ps, worker, stranger;
    start_ps(&ps, &cluster, 0, NULL, false, NULL);
    start_worker(&stranger, &cluster, other.folder, false, NULL);
    wait_for(&stranger,
             "found 300 training and 120 test samples in the data set, and the coordinator 301 and 120: give "
             "every node the same files");
    expect_end(&stranger, 1);
    start_worker(&worker, &cluster, NULL, false, NULL);
    expect_end(&worker, 0);
    expect_end(&ps, 0);
    bed_free(&other);
    cluster_free(&cluster);
}

static void test_a_shard_may_start_again_before_the_job_does(void **state)
{
    (void)state;
    struct cluster cluster;
    cluster_make(&cluster, 2, 1);
    char quiet[SHA256_HEX_SIZE], again[SHA256_HEX_SIZE];
    train_quietly(&cluster, 2, quiet);
    struct pod ps[2], first, worker;
    start_ps(&ps[0], &cluster, 0, NULL, false, NULL);
    start_ps(&first, &cluster, 1, NULL, false, NULL);
    wait_for(&ps[0], "parameter server registered");
    kill(first.pid, SIGKILL);
    expect_end(&first, -SIGKILL);
    start_ps(&ps[1], &cluster, 1, NULL, false, NULL);
    wait_for(&ps[0], "parameter server registered");
    start_worker(&worker, &cluster, NULL, false, NULL);
    expect_end(&worker, 0);
    expect_end(&ps[0], 0);
    expect_end(&ps[1], 0);
    bed_digest(&cluster.bed, again);
    assert_string_equal(quiet, again);
    cluster_free(&cluster);
}

static void test_workers_forget_a_coordinator_that_starts_anew(void **state)
{
    (void)state;
    struct cluster cluster;
    cluster_make(&cluster, 1, 6);
    char quiet[SHA256_HEX_SIZE], again[SHA256_HEX_SIZE];
    train_quietly(&cluster, 1, quiet);
    struct pod first, ps, worker;
    start_ps(&first, &cluster, 0, NULL, false, NULL);
    start_worker(&worker, &cluster, NULL, false, NULL);
    wait_for(&first, "epoch done epoch=2");
    kill(first.pid, SIGKILL);
    expect_end(&first, -SIGKILL);
    start_ps(&ps, &cluster, 0, NULL, false, NULL);
    expect_end(&worker, 0);
    expect_end(&ps, 0);
    bed_digest(&cluster.bed, again);
    assert_string_equal(quiet, again);
    cluster_free(&cluster);
}

static void test_after_the_end_they_stay_until_told_to_go(void **state)
{
    (void)state;
    struct cluster cluster;
    cluster_make(&cluster, 2, 1);
    struct pod ps[2], worker, late;
    start_ps(&ps[0], &cluster, 0, NULL, true, NULL);
    start_ps(&ps[1], &cluster, 1, NULL, true, NULL);
    start_worker(&worker, &cluster, NULL, true, NULL);
    wait_for(&ps[0], "Trained all 1 epochs");
    wait_for(&worker, "the job is over");
    wait_for(&ps[1], "the job is over");
    start_worker(&late, &cluster, NULL, true, NULL);
    wait_for(&late, "the job is over");
    struct pod *const all[] = {&ps[0], &ps[1], &worker, &late};
    for (size_t i = 0; i < 4; i++) {
        kill(all[i]->pid, SIGTERM);
        expect_end(all[i], 0);
    }
    cluster_free(&cluster);
}

static void test_a_worker_leaves_when_it_is_told_to(void **state)
{
    (void)state;
    struct cluster cluster;
    cluster_make(&cluster, 1, 1000);
    struct pod ps, workers[2];
    start_ps(&ps, &cluster, 0, NULL, true, NULL);
    for (int i = 0; i < 2; i++)
        start_worker(&workers[i], &cluster, NULL, true, NULL);
    wait_for(&ps, "parallelism=2");
    kill(workers[0].pid, SIGTERM);
    wait_for(&ps, "reason=\"it leaves\"");
    wait_for(&ps, "parallelism=1");
    expect_end(&workers[0], 0);
    kill(ps.pid, SIGTERM);
    expect_end(&ps, 0);
    kill(workers[1].pid, SIGTERM);
    expect_end(&workers[1], 0);
    cluster_free(&cluster);
}

static void test_strangers_do_not_disturb(void **state)
{
    (void)state;
    struct cluster cluster;
    cluster_make(&cluster, 1, 3);
    struct pod ps, worker;
    start_ps(&ps, &cluster, 0, NULL, false, NULL);
    wait_for(&ps, "listens");
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(cluster.ports[0]), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    cleanup_fd int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    static const char request[] =
        "GET / HTTP/1.1\r\nHost: somebody\r\nAccept: something else altogether, please\r\n\r\n";
    assert_int_equal(send(fd, request, sizeof request, MSG_NOSIGNAL), sizeof request);
    start_worker(&worker, &cluster, NULL, false, NULL);
    expect_end(&worker, 0);
    expect_end(&ps, 0);
    cluster_free(&cluster);
}

/* The operator froze what the file to start from holds: neither another nor none may be in its place. */
static void test_a_file_in_the_place_of_the_start_is_refused(void **state)
{
    (void)state;
    struct cluster cluster;
    cluster_make(&cluster, 1, 1);
    struct pod pod;
    char start[128];
    snprintf(start, sizeof start, "%s/start", cluster.bed.folder);
    const char *argv[ARGUMENTS_MOST] = {
        "thole-trainer",  "worker",
        "--plan",         cluster.plan,
        "--token",        cluster.token,
        "--data",         cluster.bed.folder,
        "--coordinator",  "127.0.0.1:1",
        "--start",        start,
        "--start-sha256", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"};
    spawn(&pod, (char *const *)argv, -1, NULL);
    wait_for(&pod, "start': No such file or directory");
    expect_end(&pod, 1);
    bed_put(&cluster.bed, "start", "abd", 3);
    spawn(&pod, (char *const *)argv, -1, NULL);
    wait_for(&pod, "is not the one that the job was started with: its SHA-256 is a52d159f");
    expect_end(&pod, 1);
    bed_put(&cluster.bed, "start", "abc", 3);
    spawn(&pod, (char *const *)argv, -1, NULL);
    wait_for(&pod, "cannot reach the coordinator yet"); /* a zoo's model has no other use for the file */
    kill(pod.pid, SIGTERM);
    expect_end(&pod, 0);
    cluster_free(&cluster);
}

static void test_what_cannot_start_says_why(void **state)
{
    (void)state;
    struct cluster cluster;
    cluster_make(&cluster, 1, 1);
    struct pod pod;
    bed_put(&cluster.bed, "token", "short", 5);
    start_worker(&pod, &cluster, NULL, false, NULL);
    wait_for(&pod, "holds 5 bytes and no token of 32");
    expect_end(&pod, 1);
    bed_put(&cluster.bed, "token", "another secret of thirty-two byt", 32);
    struct pod ps;
    start_ps(&ps, &cluster, 0, NULL, true, NULL);
    wait_for(&ps, "listens");
    bed_put(&cluster.bed, "token", "thirty-two bytes that are secret", 32);
    start_worker(&pod, &cluster, NULL, false, NULL);
    wait_for(&pod, "cannot reach the coordinator yet");
    kill(pod.pid, SIGTERM);
    expect_end(&pod, 0);
    kill(ps.pid, SIGTERM);
    expect_end(&ps, 0);
    snprintf(cluster.model, sizeof cluster.model, "%s/x/model", cluster.bed.folder);
    start_ps(&ps, &cluster, 0, NULL, true, NULL);
    wait_for(&ps, "cannot be written: Not a directory");
    expect_end(&ps, 1);
    cluster_free(&cluster);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cut_connections_change_nothing),
        cmocka_unit_test(test_accidents_cost_no_step_of_any_type),
        cmocka_unit_test(test_cut_connections_change_no_average),
        cmocka_unit_test(test_a_worker_takes_the_jobs_kernels),
        cmocka_unit_test(test_a_worker_with_other_data_is_refused),
        cmocka_unit_test(test_a_shard_may_start_again_before_the_job_does),
        cmocka_unit_test(test_workers_forget_a_coordinator_that_starts_anew),
        cmocka_unit_test(test_after_the_end_they_stay_until_told_to_go),
        cmocka_unit_test(test_a_worker_leaves_when_it_is_told_to),
        cmocka_unit_test(test_strangers_do_not_disturb),
        cmocka_unit_test(test_a_file_in_the_place_of_the_start_is_refused),
        cmocka_unit_test(test_what_cannot_start_says_why),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
