/* The roles as pods run them, each started by itself: what they do when connections break, when others start again, and
 * when the job is over. */
#include "test/bad_line.h"
#include "test/pods.h"

#include "common/cleanup.h"

#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

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
    struct process ps, workers[2];
    start_ps(&ps, &cluster, 0, address, false, NULL);
    for (int i = 0; i < 2; i++)
        start_worker(&workers[i], &cluster, NULL, false, NULL);
    for (int i = 0; i < 2; i++)
        process_expect_end(&workers[i], 0, NULL);
    process_expect_end(&ps, 0, NULL);
    line_stop(&line);
    bed_digest(&cluster.bed, cut);
    assert_int_equal(atomic_load(&line.made), CUTS);
    assert_string_equal(quiet, cut);
    cluster_free(&cluster);
}

/* What the histogram that it logged counts in all. */
static uint64_t sum_of_staleness(const struct process *ps)
{
    const char *at = strstr(buffer_text(&ps->text), " staleness=");
    assert_non_null(at);
    at += strcspn(at, "0123456789");
    char *end = NULL;
    uint64_t sum = strtoull(at, &end, 10);
    while (*end == ',')
        sum += strtoull(end + 1, &end, 10);
    return sum;
}

/* Types in which the bits depend on who is fast: but every step of every epoch counts, and counts once, though one of
 * three workers is killed and connections are cut. */
static void train_with_accidents(const char *model, const char *rate, bool is_stale)
{
    enum { CUTS = 3, EPOCHS = 8, STEPS = (BED_TRAIN + 36) / 37 };
    struct cluster cluster;
    cluster_make_job(&cluster, 2, EPOCHS, model, rate);
    struct bad_line line;
    line_start(&line, cluster.ports[1], CUTS);
    char address[32], applied[64];
    snprintf(address, sizeof address, "127.0.0.1:%u", line.port);
    struct process ps[2], workers[3];
    start_ps(&ps[0], &cluster, 0, NULL, false, NULL);
    start_ps(&ps[1], &cluster, 1, address, false, NULL);
    for (int i = 0; i < 3; i++)
        start_worker(&workers[i], &cluster, NULL, false, NULL);
    process_wait_for(&ps[0], "epoch done");
    kill(workers[1].pid, SIGKILL);
    process_expect_end(&workers[1], -SIGKILL, NULL);
    snprintf(applied, sizeof applied, "applied steps=%d samples=%d ", EPOCHS * STEPS, EPOCHS * BED_TRAIN);
    process_wait_for(&ps[0], applied);
    assert_int_equal(sum_of_staleness(&ps[0]), is_stale ? EPOCHS * STEPS : 0);
    process_wait_for(&ps[0], "Trained all 8 epochs; accuracy ");
    const char *accuracy = strstr(buffer_text(&ps[0].text), "; accuracy ");
    if (strtod(accuracy + strlen("; accuracy "), NULL) < 60) /* of four classes */
        fail_msg("%s learned too little:\n%s", model, buffer_text(&ps[0].text));
    process_expect_end(&workers[0], 0, NULL);
    process_expect_end(&workers[2], 0, NULL);
    process_expect_end(&ps[0], 0, NULL);
    process_expect_end(&ps[1], 0, NULL);
    line_stop(&line);
    assert_int_equal(atomic_load(&line.made), CUTS);
    cluster_free(&cluster);
}

static void test_accidents_cost_no_step_of_any_type(void **state)
{
    (void)state;
    train_with_accidents("{zoo: mlp}\n  sync: {type: Asynchronous, asynchronous: {maxStaleness: 2}}", "0.01", true);
    train_with_accidents("{zoo: mlp}\n  sync: {type: Hogwild, hogwild: {wire: BFloat16}}", "0.01", true);
    train_with_accidents("{zoo: mlp}\n  sync: {type: KAverage, kAverage: {localSteps: 2}}", "0.1", false);
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
    struct process ps, worker;
    start_ps(&ps, &cluster, 0, address, false, NULL);
    start_worker(&worker, &cluster, NULL, false, NULL);
    process_expect_end(&worker, 0, NULL);
    process_expect_end(&ps, 0, NULL);
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
    struct process ps, worker;
    start_ps(&ps, &cluster, 0, NULL, false, "OPENBLAS_CORETYPE=Nehalem");
    start_worker(&worker, &cluster, NULL, false, NULL);
    process_wait_for(&worker, "starting again with the job's kernels kernel=Nehalem");
    process_wait_for(&worker, "joined");
    process_expect_end(&worker, 0, NULL);
    process_expect_end(&ps, 0, NULL);
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
    struct process ps, worker, stranger;
    start_ps(&ps, &cluster, 0, NULL, false, NULL);
    start_worker(&stranger, &cluster, other.folder, false, NULL);
    process_wait_for(&stranger,
                     "found 300 training and 120 test samples in the data set, and the coordinator 301 and 120: give "
                     "every node the same files");
    process_expect_end(&stranger, 1, NULL);
    start_worker(&worker, &cluster, NULL, false, NULL);
    process_expect_end(&worker, 0, NULL);
    process_expect_end(&ps, 0, NULL);
    bed_free(&other);
    cluster_free(&cluster);
}

/* Members whose results have another last bit. Were one of them taken, the job would go on with it to its end. */
static void test_members_with_other_numerics_are_refused(void **state)
{
    (void)state;
    struct cluster cluster;
    cluster_make(&cluster, 2, 1);
    struct cluster other = cluster;
    other.program = THOLE_TRAINER_OTHER;
    struct process ps[2], worker, stranger;
    start_ps(&ps[0], &cluster, 0, NULL, false, NULL);
    start_worker(&worker, &cluster, NULL, false, NULL);
    start_ps(&stranger, &other, 1, NULL, false, NULL);
    process_expect_end(&stranger, 1,
                       " computes other bits than the coordinator: run one trainer image everywhere, and choose "
                       "nodes with like CPUs (spec.template.spec.nodeSelector)");
    start_ps(&ps[1], &cluster, 1, NULL, false, NULL);
    process_expect_end(&worker, 0, NULL);
    process_expect_end(&ps[0], 0, NULL);
    process_expect_end(&ps[1], 0, NULL);

    start_ps(&ps[0], &cluster, 0, NULL, false, NULL);
    start_ps(&ps[1], &cluster, 1, NULL, false, NULL);
    start_worker(&stranger, &other, NULL, false, NULL);
    process_expect_end(&stranger, 1, "computes other bits than the coordinator, though both use OpenBLAS's ");
    start_worker(&worker, &cluster, NULL, false, NULL);
    process_expect_end(&worker, 0, NULL);
    process_expect_end(&ps[0], 0, NULL);
    process_expect_end(&ps[1], 0, NULL);
    cluster_free(&cluster);
}

static void test_a_shard_may_start_again_before_the_job_does(void **state)
{
    (void)state;
    struct cluster cluster;
    cluster_make(&cluster, 2, 1);
    char quiet[SHA256_HEX_SIZE], again[SHA256_HEX_SIZE];
    train_quietly(&cluster, 2, quiet);
    struct process ps[2], first, worker;
    start_ps(&ps[0], &cluster, 0, NULL, false, NULL);
    start_ps(&first, &cluster, 1, NULL, false, NULL);
    process_wait_for(&ps[0], "parameter server registered");
    kill(first.pid, SIGKILL);
    process_expect_end(&first, -SIGKILL, NULL);
    start_ps(&ps[1], &cluster, 1, NULL, false, NULL);
    process_wait_for(&ps[0], "parameter server registered");
    start_worker(&worker, &cluster, NULL, false, NULL);
    process_expect_end(&worker, 0, NULL);
    process_expect_end(&ps[0], 0, NULL);
    process_expect_end(&ps[1], 0, NULL);
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
    struct process first, ps, worker;
    start_ps(&first, &cluster, 0, NULL, false, NULL);
    start_worker(&worker, &cluster, NULL, false, NULL);
    process_wait_for(&first, "epoch done epoch=2");
    kill(first.pid, SIGKILL);
    process_expect_end(&first, -SIGKILL, NULL);
    start_ps(&ps, &cluster, 0, NULL, false, NULL);
    process_expect_end(&worker, 0, NULL);
    process_expect_end(&ps, 0, NULL);
    bed_digest(&cluster.bed, again);
    assert_string_equal(quiet, again);
    cluster_free(&cluster);
}

static void test_after_the_end_they_stay_until_told_to_go(void **state)
{
    (void)state;
    struct cluster cluster;
    cluster_make(&cluster, 2, 1);
    struct process ps[2], worker, late;
    start_ps(&ps[0], &cluster, 0, NULL, true, NULL);
    start_ps(&ps[1], &cluster, 1, NULL, true, NULL);
    start_worker(&worker, &cluster, NULL, true, NULL);
    process_wait_for(&ps[0], "Trained all 1 epochs");
    process_wait_for(&worker, "the job is over");
    process_wait_for(&ps[1], "the job is over");
    start_worker(&late, &cluster, NULL, true, NULL);
    process_wait_for(&late, "the job is over");
    struct process *const all[] = {&ps[0], &ps[1], &worker, &late};
    for (size_t i = 0; i < 4; i++) {
        kill(all[i]->pid, SIGTERM);
        process_expect_end(all[i], 0, NULL);
    }
    cluster_free(&cluster);
}

static void test_a_worker_leaves_when_it_is_told_to(void **state)
{
    (void)state;
    struct cluster cluster;
    cluster_make(&cluster, 1, 1000);
    struct process ps, workers[2];
    start_ps(&ps, &cluster, 0, NULL, true, NULL);
    for (int i = 0; i < 2; i++)
        start_worker(&workers[i], &cluster, NULL, true, NULL);
    process_wait_for(&ps, "parallelism=2");
    kill(workers[0].pid, SIGTERM);
    process_wait_for(&ps, "reason=\"it leaves\"");
    process_wait_for(&ps, "parallelism=1");
    process_expect_end(&workers[0], 0, NULL);
    kill(ps.pid, SIGTERM);
    process_expect_end(&ps, 0, NULL);
    kill(workers[1].pid, SIGTERM);
    process_expect_end(&workers[1], 0, NULL);
    cluster_free(&cluster);
}

static void test_strangers_do_not_disturb(void **state)
{
    (void)state;
    struct cluster cluster;
    cluster_make(&cluster, 1, 3);
    struct process ps, worker;
    start_ps(&ps, &cluster, 0, NULL, false, NULL);
    process_wait_for(&ps, "listens");
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(cluster.ports[0]), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    cleanup_fd int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    static const char request[] =
        "GET / HTTP/1.1\r\nHost: somebody\r\nAccept: something else altogether, please\r\n\r\n";
    assert_int_equal(send(fd, request, sizeof request, MSG_NOSIGNAL), sizeof request);
    start_worker(&worker, &cluster, NULL, false, NULL);
    process_expect_end(&worker, 0, NULL);
    process_expect_end(&ps, 0, NULL);
    cluster_free(&cluster);
}

/* The operator froze what the file to start from holds: neither another nor none may be in its place. */
static void test_a_file_in_the_place_of_the_start_is_refused(void **state)
{
    (void)state;
    struct cluster cluster;
    cluster_make(&cluster, 1, 1);
    struct process pod;
    char start[128];
    snprintf(start, sizeof start, "%s/start", cluster.bed.folder);
    const char *argv[] = {"thole-trainer",
                          "worker",
                          "--plan",
                          cluster.plan,
                          "--token",
                          cluster.token,
                          "--data",
                          cluster.bed.folder,
                          "--coordinator",
                          "127.0.0.1:1",
                          "--start",
                          start,
                          "--start-sha256",
                          "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
                          NULL};
    process_start(&pod, argv, -1, NULL);
    process_wait_for(&pod, "start': No such file or directory");
    process_expect_end(&pod, 1, NULL);
    bed_put(&cluster.bed, "start", "abd", 3);
    process_start(&pod, argv, -1, NULL);
    process_wait_for(&pod, "is not the one that the job was started with: its SHA-256 is a52d159f");
    process_expect_end(&pod, 1, NULL);
    bed_put(&cluster.bed, "start", "abc", 3);
    process_start(&pod, argv, -1, NULL);
    process_wait_for(&pod, "cannot reach the coordinator yet"); /* a zoo's model has no other use for the file */
    kill(pod.pid, SIGTERM);
    process_expect_end(&pod, 0, NULL);
    cluster_free(&cluster);
}

/* The plan again, of a job that begins from a file; and two such files, which differ in a bit. */
static void put_start(const struct cluster *cluster, char one[160], char two[160])
{
    static const char zoo[] = "\"model\":{\"zoo\":\"mlp\"}";
    struct error err = {0};
    cleanup_buffer struct buffer plan;
    cleanup_buffer struct buffer model;
    buffer_init(&plan, 1 << 20);
    buffer_init(&model, 1 << 24);
    assert_int_equal(buffer_read_file(&plan, cluster->plan, &err), 0);
    assert_int_equal(buffer_read_file(&model, cluster->model, &err), 0);
    const char *at = strstr(buffer_text(&plan), zoo);
    assert_non_null(at);
    cleanup_free char *text = NULL;
    assert_true(asprintf(&text, "%.*s\"model\":{\"start\":\"file/model\"}%s", (int)(at - buffer_text(&plan)),
                         buffer_text(&plan), at + sizeof zoo - 1) > 0);
    bed_put(&cluster->bed, "plan.json", text, strlen(text));
    bed_put(&cluster->bed, "one", model.data, model.length);
    model.data[model.length - 4] ^= 1;
    bed_put(&cluster->bed, "two", model.data, model.length);
    snprintf(one, 160, "%s/one", cluster->bed.folder);
    snprintf(two, 160, "%s/two", cluster->bed.folder);
}

/* Nobody knew what the file holds: but all processes must have found the same. */
static void test_all_begin_from_one_file(void **state)
{
    (void)state;
    struct cluster cluster;
    struct process ps, worker;
    char digest[SHA256_HEX_SIZE], one[160], two[160], coordinator[32];
    cluster_make(&cluster, 1, 1);
    train_quietly(&cluster, 1, digest);
    put_start(&cluster, one, two);
    snprintf(coordinator, sizeof coordinator, "127.0.0.1:%u", cluster.ports[0]);
    const char *shard[] = {"thole-trainer", "ps",          "--plan",           cluster.plan,
                           "--token",       cluster.token, "--data",           cluster.bed.folder,
                           "--listen-fd",   "200",         "--model-file",     cluster.model,
                           "--start",       one,           "--exit-when-done", NULL};
    const char *other[] = {
        "thole-trainer",    "worker",        "--plan",    cluster.plan, "--token", cluster.token,      "--data",
        cluster.bed.folder, "--coordinator", coordinator, "--start",    two,       "--exit-when-done", NULL};
    process_start(&ps, shard, cluster.listeners[0], NULL);
    process_start(&worker, other, -1, NULL);
    process_expect_end(&worker, 1, "the same model file where the job begins from one");
    other[11] = one;
    process_start(&worker, other, -1, NULL);
    process_expect_end(&worker, 0, NULL);
    process_expect_end(&ps, 0, NULL);
    cluster_free(&cluster);
}

static void test_what_cannot_start_says_why(void **state)
{
    (void)state;
    struct cluster cluster;
    cluster_make(&cluster, 1, 1);
    struct process pod;
    bed_put(&cluster.bed, "token", "short", 5);
    start_worker(&pod, &cluster, NULL, false, NULL);
    process_wait_for(&pod, "holds 5 bytes and no token of 32");
    process_expect_end(&pod, 1, NULL);
    bed_put(&cluster.bed, "token", "another secret of thirty-two byt", 32);
    struct process ps;
    start_ps(&ps, &cluster, 0, NULL, true, NULL);
    process_wait_for(&ps, "listens");
    bed_put(&cluster.bed, "token", "thirty-two bytes that are secret", 32);
    start_worker(&pod, &cluster, NULL, false, NULL);
    process_wait_for(&pod, "cannot reach the coordinator yet");
    kill(pod.pid, SIGTERM);
    process_expect_end(&pod, 0, NULL);
    kill(ps.pid, SIGTERM);
    process_expect_end(&ps, 0, NULL);
    snprintf(cluster.model, sizeof cluster.model, "%s/x/model", cluster.bed.folder);
    start_ps(&ps, &cluster, 0, NULL, true, NULL);
    process_wait_for(&ps, "cannot be written: Not a directory");
    process_expect_end(&ps, 1, NULL);
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
        cmocka_unit_test(test_members_with_other_numerics_are_refused),
        cmocka_unit_test(test_a_shard_may_start_again_before_the_job_does),
        cmocka_unit_test(test_workers_forget_a_coordinator_that_starts_anew),
        cmocka_unit_test(test_after_the_end_they_stay_until_told_to_go),
        cmocka_unit_test(test_a_worker_leaves_when_it_is_told_to),
        cmocka_unit_test(test_strangers_do_not_disturb),
        cmocka_unit_test(test_a_file_in_the_place_of_the_start_is_refused),
        cmocka_unit_test(test_all_begin_from_one_file),
        cmocka_unit_test(test_what_cannot_start_says_why),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
