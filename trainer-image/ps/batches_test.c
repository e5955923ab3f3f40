/* Gradients of tasks against the definition: a list of what has been applied, and the optimizer over each chunk by
 * itself. Pushes come in any order, twice, half (from workers that die), and from parameters of long ago; none of them
 * allocates. */
#include "ps/batches.h"

#include "common/plan/tasks.h"
#include "common/test/dice.h"
#include "common/test/scarce.h"
#include "numerics/numerics.h"
#include "optimizer/optimizer.h"
#include "ps/test_bed.h"

enum { CHUNK = 8, CHUNKS = 3, FLOATS = CHUNK * CHUNKS, TASKS_MOST = 64, WORKERS = 5, WORLDS = 200, WARM = 100 };

/* Somebody with a task and the parameters that it has seen. */
struct worker {
    uint64_t task;
    uint32_t sequence;
    uint32_t versions[CHUNKS];
    bool todo[CHUNKS];
};

struct world {
    uint64_t seed;
    struct net *net;
    struct plan plan;
    struct tasks tasks;
    struct shard *shard;
    struct batches *batches;
    struct worker workers[WORKERS];
    uint64_t leased; /* tasks before it, somebody has had */
    uint64_t pushes;

    /* The definition's. */
    float theta[FLOATS], state[FLOATS];
    uint64_t versions[CHUNKS];
    bool applied[TASKS_MOST][TASK_STEPS_MOST][CHUNKS];
    uint64_t stale, duplicates, staleness[REPORT_STALENESS_BUCKETS];
    uint32_t tasks_done;
    bool done[TASKS_MOST];
};

static float gradient_of(uint64_t task, uint32_t sequence, uint32_t at)
{
    return (float)((task * 31 + UINT64_C(7) * sequence + at) % 23) - 11;
}

static double loss_of(uint64_t task, uint32_t sequence)
{
    return (double)(task * 100 + sequence);
}

static void on_task_done(void *arg, uint64_t task, double loss)
{
    struct world *world = arg;
    assert_false(world->done[task]);
    world->done[task] = true;
    world->tasks_done++;
    double sum = 0;
    for (uint32_t sequence = 0; sequence < tasks_steps(&world->tasks, task); sequence++) {
        sum += loss_of(task, sequence);
        for (uint32_t chunk = 0; chunk < CHUNKS; chunk++)
            assert_true(world->applied[task][sequence][chunk]);
    }
    assert_true(loss == sum);
}

static enum taken definition(struct world *world, const struct worker *worker, uint32_t chunk, const float *sum)
{
    bool *applied = &world->applied[worker->task][worker->sequence][chunk];
    if (world->done[worker->task] || *applied) {
        world->duplicates += chunk == 0;
        return world->done[worker->task] ? TAKEN_TASK_OVER : TAKEN_DUPLICATE;
    }
    uint64_t staleness = world->versions[chunk] - worker->versions[chunk];
    bool bounded = world->plan.sync == PLAN_ASYNCHRONOUS;
    if (bounded && staleness > world->plan.max_staleness) {
        world->stale += chunk == 0;
        return TAKEN_STALE;
    }
    *applied = true;
    world->staleness[report_staleness_bucket(staleness)] += chunk == 0;
    uint64_t version = world->versions[chunk]++;
    uint64_t number = tasks_step(&world->tasks, worker->task, worker->sequence);
    struct optimizer_step step = optimizer_step(&world->plan.training.optimizer, &world->tasks.schedule, version,
                                                version + 1, schedule_step(&world->tasks.schedule, number).count,
                                                bounded ? 1.0 / (1.0 + (double)staleness) : 1);
    float *theta = world->theta + (size_t)chunk * CHUNK;
    float *states[OPTIMIZER_STATES_MOST] = {world->state + (size_t)chunk * CHUNK};
    optimizer_apply_row(&world->plan.training.optimizer, &step, theta, states, sum, CHUNK);
    return TAKEN_APPLIED;
}

static void check_parameters(const struct world *world)
{
    for (uint32_t chunk = 0; chunk < CHUNKS; chunk++) {
        struct shard_chunk here = shard_chunk(world->shard, chunk);
        assert_int_equal(here.version, world->versions[chunk]);
        assert_memory_equal(here.params->data, world->theta + (size_t)chunk * CHUNK, CHUNK * sizeof(float));
    }
}

static enum taken push(struct world *world, const struct worker *worker, uint32_t chunk)
{
    struct frame frame = {.type = FRAME_PUSH_BATCH,
                          .step = worker->task,
                          .node = worker->sequence,
                          .count = worker->versions[chunk],
                          .offset = (uint64_t)chunk * CHUNK,
                          .value.loss = loss_of(worker->task, worker->sequence),
                          .length = CHUNK * sizeof(float)};
    struct error err = {0};
    assert_int_equal(batches_check(world->batches, &frame, &err), 0);
    struct payload *sum = payload_new(world->net, frame.length);
    assert_non_null(sum);
    float *values = (float *)(void *)sum->data;
    for (uint32_t i = 0; i < CHUNK; i++)
        values[i] = gradient_of(worker->task, worker->sequence, chunk * CHUNK + i);
    enum taken expected = definition(world, worker, chunk, values), taken = TAKEN_STALE;
    /* Somebody may be being sent the parameters: those must not change under him. */
    struct payload *held = below(&world->seed, 2) == 0 ? payload_ref(shard_chunk(world->shard, chunk).params) : NULL;
    float before[CHUNK];
    if (held != NULL)
        memcpy(before, held->data, sizeof before);
    scarce_begin(SCARCE_ONE, world->pushes++ < WARM ? SIZE_MAX : 0); /* from then on there are payloads to use again */
    int pushed = batches_push(world->batches, &frame, sum, &taken, &err);
    assert_false(scarce_end());
    assert_int_equal(pushed, 0);
    if (held != NULL)
        assert_memory_equal(held->data, before, sizeof before);
    payload_unref(world->net, held);
    payload_unref(world->net, sum);
    assert_int_equal(taken, expected);
    return taken;
}

/* A new life: any task that is open or next, from its beginning. */
static void lease(struct world *world, struct worker *worker)
{
    uint64_t oldest = 0;
    while (oldest < world->tasks.count && world->done[oldest])
        oldest++;
    uint64_t most = world->leased < world->tasks.count ? world->leased + 1 : world->leased;
    worker->task = oldest + below(&world->seed, (uint32_t)(most - oldest));
    if (worker->task == world->leased)
        world->leased++;
    worker->sequence = 0;
    memset(worker->todo, true, sizeof worker->todo);
}

static void see_parameters(struct world *world, struct worker *worker)
{
    for (uint32_t chunk = 0; chunk < CHUNKS; chunk++)
        worker->versions[chunk] = (uint32_t)world->versions[chunk];
}

static void worker_turn(struct world *world)
{
    struct worker *worker = &world->workers[below(&world->seed, WORKERS)];
    uint32_t chunk = below(&world->seed, CHUNKS);
    if (below(&world->seed, 64) == 0) { /* it dies, whatever is half done, and another comes */
        lease(world, worker);
        see_parameters(world, worker);
        return;
    }
    enum taken taken = push(world, worker, chunk);
    worker->todo[chunk] = taken == TAKEN_STALE;
    if (taken == TAKEN_STALE)
        see_parameters(world, worker);
    for (uint32_t i = 0; i < CHUNKS; i++)
        if (worker->todo[i])
            return;
    memset(worker->todo, true, sizeof worker->todo);
    see_parameters(world, worker);
    if (taken == TAKEN_TASK_OVER || ++worker->sequence == tasks_steps(&world->tasks, worker->task)) {
        if (world->tasks_done < world->tasks.count)
            lease(world, worker);
        else
            worker->sequence = 0;
    }
}

static void begin(struct world *world, uint64_t seed)
{
    *world = (struct world){.seed = seed};
    world->plan.sync = below(&world->seed, 2) == 0 ? PLAN_ASYNCHRONOUS : PLAN_HOGWILD;
    world->plan.max_staleness = below(&world->seed, 8);
    world->plan.shards = world->plan.blocks = 1;
    world->plan.training.epochs = 1;
    world->plan.training.batch_size = 1 + below(&world->seed, 9);
    world->plan.training.optimizer = (struct plan_optimizer){.type = PLAN_SGD, .learning_rate = 0.1, .momentum = 0.5};
    uint64_t samples = 1 + below(&world->seed, 300 * world->plan.training.batch_size);
    world->tasks = tasks_of(&world->plan, samples);
    while (world->tasks.count > TASKS_MOST)
        world->tasks = tasks_of(&world->plan, samples /= 2);
    struct error err = {0};
    world->net = new_net(1);
    const struct shard_hooks none = {0};
    const struct batches_hooks hooks = {.task_done = on_task_done, .arg = world};
    assert_int_equal(plain_shard(&world->shard, world->net, &world->plan, 0, FLOATS, CHUNK, samples, &none, &err), 0);
    assert_int_equal(batches_new(&world->batches, world->shard, &world->plan, samples, &hooks, &err), 0);
    for (uint32_t i = 0; i < WORKERS; i++)
        lease(world, &world->workers[i]);
}

static void end(struct world *world)
{
    batches_free(world->batches);
    shard_free(world->shard);
    net_free(world->net);
}

static void every_step_is_applied_once_whoever_brings_it(void **state)
{
    (void)state;
    uint64_t stale = 0, duplicates = 0;
    for (uint64_t seed = 1; seed <= WORLDS; seed++) {
        struct world *world = malloc(sizeof *world);
        assert_non_null(world);
        begin(world, seed);
        for (uint32_t i = 0; world->tasks_done < world->tasks.count; i++) {
            worker_turn(world);
            check_parameters(world);
            if (i == 2000000)
                fail_msg("world %llu came to no end", (unsigned long long)seed);
        }
        const struct report_sync *sync = batches_sync(world->batches);
        assert_int_equal(sync->steps, world->tasks.schedule.steps);
        assert_int_equal(sync->samples, world->tasks.schedule.samples);
        assert_int_equal(sync->stale, world->stale);
        assert_int_equal(sync->duplicates, world->duplicates);
        assert_memory_equal(sync->staleness, world->staleness, sizeof world->staleness);
        stale += world->stale;
        duplicates += world->duplicates;
        end(world);
        free(world);
    }
    assert_true(stale > WORLDS && duplicates > WORLDS); /* or nothing was tried */
}

static void pushes_that_cannot_be_are_refused(void **state)
{
    (void)state;
    static const struct {
        struct frame frame;
        const char *sentence;
    } cases[] = {
        {{.offset = 3, .length = 32}, "PUSH_BATCH names parameters from 3 on, where no chunk of this shard begins"},
        {{.offset = 8, .length = 28}, "PUSH_BATCH has 28 bytes for parameters from 8 on; they are 32"},
        {{.count = 1, .length = 32}, "PUSH_BATCH is of version 1 of parameters from 0 on, and the newest is 0"},
        {{.step = 1 << 20, .length = 32}, "PUSH_BATCH names step 0 of task 1048576, which cannot have been leased"},
        {{.node = 16, .length = 32}, "PUSH_BATCH names step 16 of task 0, which cannot have been leased"},
    };
    struct world *world = malloc(sizeof *world);
    assert_non_null(world);
    begin(world, 1);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct error err = {0};
        assert_int_equal(batches_check(world->batches, &cases[i].frame, &err), -1);
        assert_string_equal(error_message(&err), cases[i].sentence);
    }
    end(world);
    free(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_step_is_applied_once_whoever_brings_it),
        cmocka_unit_test(pushes_that_cannot_be_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
