/* A shard against the definition: a tree summed recursively, and the optimizer over the whole vector at once. Whatever
 * order, overlap, repetition or loss the pushes come with, and however late, early or often the commits, the bits are
 * the same. */
#include "ps/test_bed.h"

#include "common/plan/schedule.h"
#include "common/test/dice.h"
#include "numerics/numerics.h"
#include "optimizer/optimizer.h"

#include <stdio.h>

enum {
    CHUNK = 16,
    CANONICAL = 4,
    FLOATS_MOST = 4 * CHUNK,
    BEGIN_MOST = 40,
    TENSORS_MOST = BEGIN_MOST + FLOATS_MOST,
    PUSHES_MOST = 2000,
    KEPT_MOST = 8
};

/* Linked in place of the C library's (see CMakeLists.txt), so that memory can run out when a test wants it to. */
static _Thread_local bool memory_is_out;
void *__real_aligned_alloc(size_t alignment, size_t size); /* NOLINT(bugprone-reserved-identifier) */
void *__wrap_aligned_alloc(size_t alignment, size_t size); /* NOLINT(bugprone-reserved-identifier) */
void *__wrap_aligned_alloc(size_t alignment, size_t size)  /* NOLINT(bugprone-reserved-identifier) */
{
    return memory_is_out ? NULL : __real_aligned_alloc(alignment, size);
}

struct world {
    uint64_t seed;
    struct net *net;
    struct plan plan;
    struct shard *shard;
    struct tree tree;
    struct schedule schedule;
    uint32_t begin, floats; /* the shard's; what is before is another's */
    uint32_t chunks;
    struct chunk cut[FLOATS_MOST];
    struct network_tensor tensors[TENSORS_MOST];
    uint32_t tensor_count;
    bool only_leaves; /* every sum is made here */
    bool hungry;      /* memory is out now and then */
    uint32_t starved; /* how often that was noticed */

    /* The definition's, of the whole vector: with what the other shard has. */
    struct optimizer *optimizer;
    float all[BEGIN_MOST + FLOATS_MOST], states[OPTIMIZER_STATES_MOST][BEGIN_MOST + FLOATS_MOST];
    double measures[OPTIMIZER_ROUNDS_MOST][2 * TENSORS_MOST], scalars[OPTIMIZER_ROUNDS_MOST][TENSORS_MOST];
    float theta[FLOATS_MOST], before[FLOATS_MOST]; /* as handed out */

    /* What the hooks said. */
    uint64_t done, ready[FLOATS_MOST];
    uint32_t measured; /* rounds of the step that is not done */
    bool commits_late; /* else from within the hook */
    double loss;
    int failures;
    char sentence[1000];

    /* Gradients that somebody else holds too: they must stay as they are. */
    struct payload *kept[KEPT_MOST];
    uint32_t kept_crc[KEPT_MOST];
};

/* ---- The definition ---- */

/* Gradients of very different sizes, so that another order of additions gives other bits. */
static float gradient_of(uint64_t step, uint32_t block, uint32_t at)
{
    uint64_t seed = step * 1000003 + UINT64_C(1009) * block + at;
    float mantissa = (float)(random_next(&seed) >> 40) * 0x1p-24F - 0.5F;
    return mantissa * (float)(1U << random_next(&seed) % 20);
}

static double loss_of(uint64_t step, uint32_t block)
{
    uint64_t seed = ~(step * 1000003 + UINT64_C(1009) * block);
    return (double)(random_next(&seed) >> 11) * 0x1p-53 * (double)(1U << random_next(&seed) % 20);
}

static bool is_rounded(const struct world *world)
{
    return world->plan.wire == PLAN_BFLOAT16;
}

static float handed_out(const struct world *world, float x)
{
    return is_rounded(world) ? bfloat16_value(bfloat16_of(x)) : x;
}

/* False where the node is empty. */
static bool node_value(const struct world *world, uint64_t step, uint64_t samples, uint32_t node, uint32_t first,
                       uint32_t count, float *out, double *loss)
{
    if (node >= world->tree.leaves) {
        uint32_t block = node - world->tree.leaves;
        uint64_t blocks = world->plan.blocks;
        if (block >= blocks || block * samples / blocks == (block + 1) * samples / blocks)
            return false;
        for (uint32_t i = 0; i < count; i++)
            out[i] = handed_out(world, gradient_of(step, block, first + i));
        *loss = loss_of(step, block);
        return true;
    }
    float right[CHUNK];
    double right_loss;
    bool has_left = node_value(world, step, samples, 2 * node, first, count, out, loss);
    bool has_right = node_value(world, step, samples, 2 * node + 1, first, count, right, &right_loss);
    for (uint32_t i = 0; has_right && i < count; i++)
        out[i] = has_left ? handed_out(world, out[i] + right[i]) : right[i];
    if (has_right)
        *loss = has_left ? *loss + right_loss : right_loss;
    return has_left || has_right;
}

/* Chunk by chunk, as a node of the test has room for one. */
static double reference_sum(struct world *world, uint64_t step, float *sum)
{
    uint32_t samples = schedule_step(&world->schedule, step).count;
    double first_loss = 0;
    for (uint32_t at = 0; at < world->begin; at++)
        sum[at] = gradient_of(step, 0, at + 1000);
    for (uint32_t i = 0; i < world->chunks; i++) {
        double loss;
        assert_true(node_value(world, step, samples, TREE_ROOT, (uint32_t)world->cut[i].offset - world->begin,
                               world->cut[i].count, sum + world->cut[i].offset, &loss));
        first_loss = i == 0 ? loss : first_loss;
    }
    return first_loss;
}

static double reference_step(struct world *world, uint64_t step)
{
    const struct plan_optimizer *plan = &world->plan.training.optimizer;
    float sum[BEGIN_MOST + FLOATS_MOST];
    double loss = reference_sum(world, step, sum);
    float *const states[OPTIMIZER_STATES_MOST] = {world->states[0], world->states[1], world->states[2]};
    uint32_t end = world->begin + world->floats;
    struct optimizer_step of =
        optimizer_step(plan, &world->schedule, step, step + 1, schedule_step(&world->schedule, step).count, 1);
    for (uint32_t round = 0; round < optimizer_rounds(plan); round++) {
        optimizer_measure(world->optimizer, &of, round, 0, end, world->all, states, sum, world->measures[round]);
        optimizer_fold(world->optimizer, round, world->measures[round], 0, world->scalars[round]);
        optimizer_commit(world->optimizer, round, world->scalars[round], &of);
    }
    optimizer_apply(world->optimizer, &of, 0, end, world->all, world->all, states, sum);
    memcpy(world->before, world->theta, sizeof world->theta);
    for (uint32_t i = 0; i < world->floats; i++)
        world->theta[i] = handed_out(world, world->all[world->begin + i]);
    return loss;
}

/* ---- The world ---- */

static void commit(struct world *world, uint64_t step, uint32_t round)
{
    struct error err = {0};
    if (shard_commit(world->shard, step, round, world->scalars[round], optimizer_scalars(world->optimizer, round),
                     &err) < 0)
        fail_msg("%s", error_message(&err));
}

static void measured(void *arg, uint64_t step, uint32_t round, const double *measures, uint32_t count)
{
    struct world *world = arg;
    assert_int_equal(step, world->done);
    assert_int_equal(round, world->measured);
    uint64_t width = optimizer_measures(world->optimizer, round);
    uint64_t first = optimizer_chunks(world->optimizer, world->begin) * width;
    uint64_t end = optimizer_chunks(world->optimizer, world->begin + world->floats) * width;
    assert_int_equal(count, end - first);
    assert_memory_equal(measures, world->measures[round] + first, count * sizeof *measures);
    world->measured++;
    if (!world->commits_late)
        commit(world, step, round);
}

/* The coordinator's answers come some time, in order, and perhaps again. */
static void commit_late(struct world *world)
{
    if (!world->commits_late || world->measured == 0)
        return;
    uint64_t step = world->done;
    for (uint32_t round = below(&world->seed, world->measured); round < world->measured && world->done == step; round++)
        commit(world, step, round);
    if (below(&world->seed, 3) == 0)
        commit(world, step, 0);
}

static void chunk_ready(void *arg, uint64_t version, uint64_t offset)
{
    struct world *world = arg;
    uint32_t chunk = shard_chunk_at(world->shard, offset);
    assert_true(chunk < world->chunks);
    assert_int_equal(version, world->ready[chunk] + 1);
    world->ready[chunk] = version;
    assert_non_null(shard_params(world->shard, version, offset));
}

static void step_done(void *arg, uint64_t step, double loss)
{
    struct world *world = arg;
    assert_int_equal(step, world->done);
    assert_int_equal(world->measured, optimizer_rounds(&world->plan.training.optimizer));
    world->done++;
    world->measured = 0;
    world->loss = loss;
}

static void failed(void *arg, const char *sentence)
{
    struct world *world = arg;
    world->failures++;
    snprintf(world->sentence, sizeof world->sentence, "%s", sentence);
}

static void choose_optimizer(struct world *world)
{
    uint64_t *r = &world->seed;
    struct plan_optimizer *plan = &world->plan.training.optimizer;
    *plan = (struct plan_optimizer){
        .type = (enum plan_optimizer_type)below(r, PLAN_LAMB + 1),
        .learning_rate = 0.05,
        .momentum = below(r, 3) == 0 ? 0 : 0.9,
        .nesterov = below(r, 2) == 0,
        .weight_decay = below(r, 2) == 0 ? 0 : 1e-4,
        .decay = 0.99,
        .beta1 = 0.9,
        .beta2 = 0.999,
        .epsilon = 1e-6,
        .clip_value = below(r, 3) == 0 ? 2 : 0,
        .clip_norm = below(r, 2) == 0 ? 10 : 0,
        .schedule = {.type = below(r, 2) == 0 ? PLAN_SCHEDULE_COSINE : PLAN_SCHEDULE_CONSTANT, .warmup_steps = 2},
    };
}

/* Tensors of all sizes, statistics among them; the shard begins at a canonical chunk of one. */
static void choose_tensors(struct world *world)
{
    uint64_t *r = &world->seed;
    uint64_t end = world->begin + world->floats, at = 0;
    for (world->tensor_count = 0; at < end; world->tensor_count++) {
        uint64_t count = 1 + below(r, 30), left = end - at;
        if (at + count > world->begin && at < world->begin && (world->begin - at) % CANONICAL != 0)
            count = world->begin - at;
        world->tensors[world->tensor_count] = (struct network_tensor){
            .offset = at,
            .count = count < left ? count : left,
            .kind = below(r, 5) == 0 ? TENSOR_STATISTIC : TENSOR_WEIGHT,
            .momentum = 0.25F,
        };
        at += world->tensors[world->tensor_count].count;
    }
}

static void cut_chunks(struct world *world)
{
    const struct network network = {.tensors = world->tensors, .tensor_count = world->tensor_count};
    uint64_t end = world->begin + world->floats;
    for (uint64_t at = world->begin; at < end; world->chunks++) {
        uint64_t until = layout_cut(&network, CANONICAL, at, end, CHUNK);
        world->cut[world->chunks] = (struct chunk){.offset = at, .count = (uint32_t)(until - at)};
        at = until;
    }
}

static void world_start(struct world *world, struct net *net, uint64_t seed)
{
    *world = (struct world){.seed = seed, .net = net};
    uint64_t *r = &world->seed;
    world->plan.blocks = 1 + below(r, PLAN_BLOCKS_MOST);
    world->plan.shards = 1;
    world->plan.wire = below(r, 2) == 0 ? PLAN_FLOAT32 : PLAN_BFLOAT16;
    world->plan.training.batch_size = 1 + below(r, below(r, 3) == 0 ? 8 : 150);
    world->plan.training.epochs = 1 + below(r, 2);
    choose_optimizer(world);
    uint64_t samples = 1 + below(r, 2 * world->plan.training.batch_size);
    world->schedule = schedule_of(&world->plan, samples);
    world->tree = tree_of(world->plan.blocks);
    world->only_leaves = below(r, 4) == 0;
    world->commits_late = below(r, 2) == 0;
    world->begin = below(r, BEGIN_MOST);
    world->floats = 1 + below(r, FLOATS_MOST);
    choose_tensors(world);
    cut_chunks(world);
    struct shard_hooks hooks = {
        .chunk_ready = chunk_ready, .step_done = step_done, .measured = measured, .failed = failed, .arg = world};
    const struct shard_cut cut = {.chunks = world->cut,
                                  .chunk_count = world->chunks,
                                  .tensors = world->tensors,
                                  .tensor_count = world->tensor_count,
                                  .canonical = CANONICAL};
    struct error err = {0};
    if (optimizer_new(&world->optimizer, &world->plan.training.optimizer, world->tensors, world->tensor_count,
                      CANONICAL, &err) < 0 ||
        shard_make(&world->shard, net, &world->plan, &cut, samples, &hooks, &err) < 0)
        fail_msg("%s", error_message(&err));
    for (uint32_t i = 0; i < world->begin + world->floats; i++)
        world->all[i] = (float)i * 0.2501F - 3;
    shard_start_from(world->shard, world->all + world->begin);
    for (uint32_t i = 0; i < world->floats; i++)
        world->theta[i] = handed_out(world, world->all[world->begin + i]);
    for (uint32_t i = 0; i < world->chunks; i++)
        assert_int_equal(shard_chunk(world->shard, i).offset, world->cut[i].offset);
}

static void world_stop(struct world *world)
{
    for (int i = 0; i < KEPT_MOST; i++) {
        if (world->kept[i] != NULL)
            assert_int_equal(crc32c(0, world->kept[i]->data, world->kept[i]->length), world->kept_crc[i]);
        payload_unref(world->net, world->kept[i]);
    }
    shard_free(world->shard);
    optimizer_free(world->optimizer);
}

static struct payload *gradient_payload(struct world *world, uint64_t step, uint32_t node, uint32_t chunk,
                                        struct frame *frame)
{
    const struct chunk *of = &world->cut[chunk];
    uint32_t samples = schedule_step(&world->schedule, step).count;
    float values[CHUNK];
    struct payload *payload = payload_new(world->net, (size_t)of->count * layout_value_bytes(world->plan.wire));
    *frame = (struct frame){.type = FRAME_PUSH, .node = node, .step = step, .offset = of->offset};
    frame->length = payload->length;
    bool any = node_value(world, step, samples, node, (uint32_t)of->offset - world->begin, of->count, values,
                          &frame->value.loss);
    assert_true(any);
    if (is_rounded(world))
        vector_bfloat16_pack((uint16_t *)payload->data, values, of->count);
    else
        memcpy(payload->data, values, payload->length);
    if (chunk > 0)
        frame->value.loss = 77; /* counts in the first chunk only */
    return payload;
}

static enum push_result push(struct world *world, uint64_t step, uint32_t node, uint32_t chunk)
{
    struct frame frame;
    struct payload *payload = gradient_payload(world, step, node, chunk, &frame);
    struct error err = {0};
    enum push_result result = PUSH_TOO_EARLY;
    if (shard_check_push(world->shard, &frame, &err) < 0)
        fail_msg("%s", error_message(&err));
    memory_is_out = world->hungry && below(&world->seed, 2) == 0;
    if (shard_push(world->shard, &frame, payload, &result, &err) < 0) {
        if (!memory_is_out || strstr(error_message(&err), "no memory") == NULL)
            fail_msg("%s", error_message(&err));
        world->starved++;
        result = PUSH_DUPLICATE; /* it counts, or will with the next that comes to the same place */
    }
    memory_is_out = false;
    uint32_t keep = below(&world->seed, 20);
    if (keep < KEPT_MOST && world->kept[keep] == NULL) {
        world->kept_crc[keep] = crc32c(0, payload->data, payload->length);
        world->kept[keep] = payload_ref(payload);
    }
    payload_unref(world->net, payload);
    return result;
}

static void check_chunks(const struct world *world, uint64_t version, const float *theta)
{
    for (uint32_t i = 0; i < world->chunks; i++) {
        const struct chunk *chunk = &world->cut[i];
        struct payload *params = shard_params(world->shard, version, chunk->offset);
        float values[CHUNK];
        assert_non_null(params);
        assert_int_equal(params->length, chunk->count * layout_value_bytes(world->plan.wire));
        if (is_rounded(world))
            vector_bfloat16_unpack(values, (const uint16_t *)params->data, chunk->count);
        else
            memcpy(values, params->data, params->length);
        assert_memory_equal(values, theta + (chunk->offset - world->begin), chunk->count * sizeof *values);
    }
}

static void check_params(struct world *world, uint64_t version, const float *theta)
{
    check_chunks(world, version, theta);
    assert_null(shard_params(world->shard, version + 1, world->begin));
    if (version >= 2)
        assert_null(shard_params(world->shard, version - 2, world->begin));
}

/* Nodes that a worker with random blocks would push, each for some of the chunks (it dies between two), or a node that
 * nobody would: anything goes as long as it has samples. */
static void push_something(struct world *world, uint64_t step, uint32_t samples)
{
    uint64_t *r = &world->seed;
    uint32_t nodes[TREE_COVER_MOST], count;
    if (world->only_leaves) {
        nodes[0] = world->tree.leaves + below(r, world->plan.blocks);
        count = !tree_node_empty(world->tree, samples, nodes[0]);
    } else if (below(r, 4) == 0) {
        nodes[0] = 1 + below(r, 2 * world->tree.leaves - 1);
        count = !tree_node_empty(world->tree, samples, nodes[0]);
    } else {
        uint32_t first = below(r, world->plan.blocks);
        count = tree_cover(world->tree, samples, first, 1 + below(r, world->plan.blocks - first), nodes);
    }
    uint32_t until = below(r, 3) == 0 ? below(r, world->chunks + 1) : world->chunks;
    bool backwards = below(r, 2) == 0;
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t k = 0; k < until; k++) {
            uint32_t chunk = backwards ? world->chunks - 1 - k : k;
            uint64_t ready = world->ready[chunk], done = world->done;
            enum push_result result = push(world, step, nodes[i], chunk);
            assert_true(result != PUSH_TOO_EARLY);
            if (ready > step || done > step)
                assert_int_equal(result, PUSH_DUPLICATE);
            if (below(r, 8) == 0)
                assert_int_equal(push(world, step, nodes[i], chunk), PUSH_DUPLICATE);
            if (below(r, 32) == 0)
                commit_late(world);
        }
    }
    if (below(r, 16) == 0 && world->done == step && step + 1 < world->schedule.steps)
        assert_int_equal(push(world, step + 1, TREE_ROOT, below(r, world->chunks)), PUSH_TOO_EARLY);
}

static uint32_t run_world(struct net *net, uint64_t seed, bool hungry)
{
    static struct world world;
    world_start(&world, net, seed);
    world.hungry = hungry;
    check_params(&world, 0, world.theta);
    for (uint64_t step = 0; step < world.schedule.steps; step++) {
        double loss = reference_step(&world, step);
        uint32_t samples = schedule_step(&world.schedule, step).count;
        for (int i = 0; world.done == step; i++) {
            assert_true(i < PUSHES_MOST);
            push_something(&world, step, samples);
            if (below(&world.seed, 3) == 0)
                commit_late(&world);
        }
        assert_int_equal(world.done, step + 1);
        assert_int_equal(shard_version(world.shard), step + 1);
        assert_memory_equal(&world.loss, &loss, sizeof loss);
        check_params(&world, step + 1, world.theta);
        check_chunks(&world, step, world.before);
        push_something(&world, step, samples); /* late ones change nothing */
        check_params(&world, step + 1, world.theta);
    }
    assert_int_equal(world.failures, 0);
    world_stop(&world);
    return world.starved;
}

static void bits_do_not_depend_on_how_they_come(void **state)
{
    (void)state;
    cleanup_net struct net *net = new_net(1);
    for (uint64_t seed = 1; seed <= 4000; seed++)
        run_world(net, seed * 7919, false);
}

static void bits_do_not_depend_on_memory(void **state)
{
    (void)state;
    uint32_t starved = 0;
    for (uint64_t seed = 1; seed <= 300; seed++) {
        cleanup_net struct net *net = new_net(1); /* with nothing in its pool */
        starved += run_world(net, seed * 104729, true);
    }
    assert_true(starved > 300);
}

/* ---- Mistakes ---- */

static void other_bits_for_the_same_node_fail_the_job(void **state)
{
    (void)state;
    cleanup_net struct net *net = new_net(1);
    /* How the node came to be complete, and which copy has other bits. */
    for (int which = 0; which < 4; which++) {
        struct world world;
        uint64_t seed = 1;
        do {
            if (seed > 1)
                world_stop(&world);
            world_start(&world, net, seed++);
        } while (world.plan.blocks < 8 || schedule_step(&world.schedule, 0).count < 64);
        uint32_t node = TREE_ROOT * 4, leaf = world.tree.leaves;
        if (which == 0) { /* it came itself, and waits */
            assert_int_equal(push(&world, 0, node, 0), PUSH_ADDED);
        } else if (which == 1) { /* it came itself, and was added to its sibling */
            assert_int_equal(push(&world, 0, node, 0), PUSH_ADDED);
            assert_int_equal(push(&world, 0, node + 1, 0), PUSH_ADDED);
        } else if (which == 2) { /* it is a sum of leaves */
            for (uint32_t i = leaf; i < leaf + leaf / 4; i++)
                if (!tree_node_empty(world.tree, schedule_step(&world.schedule, 0).count, i))
                    push(&world, 0, i, 0);
        } else { /* it is inside of what came, and came twice after */
            assert_int_equal(push(&world, 0, node / 2, 0), PUSH_ADDED);
            assert_int_equal(push(&world, 0, node, 0), PUSH_DUPLICATE);
        }
        assert_int_equal(push(&world, 0, node, 0), PUSH_DUPLICATE);
        struct frame frame;
        struct payload *payload = gradient_payload(&world, 0, node, 0, &frame);
        payload->data[3] ^= 1;
        enum push_result result;
        struct error err = {0};
        assert_int_equal(shard_push(world.shard, &frame, payload, &result, &err), -1);
        payload_unref(net, payload);
        assert_int_equal(world.failures, 1);
        assert_string_equal(world.sentence, error_message(&err));
        assert_non_null(strstr(world.sentence, "two members computed different gradients for node 4 of step 0"));
        world_stop(&world);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bits_do_not_depend_on_how_they_come),
        cmocka_unit_test(bits_do_not_depend_on_memory),
        cmocka_unit_test(other_bits_for_the_same_node_fail_the_job),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
