/* A shard against the definition: a tree summed recursively and SGD written out, element by element. Whatever order,
 * overlap, repetition or loss the pushes come with, the bits are the same. */
#include "ps/shard.h"

#include "common/plan/schedule.h"
#include "numerics/numerics.h"
#include "ps/reduction.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK = 16, FLOATS_MOST = 4 * CHUNK, PUSHES_MOST = 2000, KEPT_MOST = 8 };

static uint64_t random_next(uint64_t *state) /* splitmix64 */
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static uint32_t below(uint64_t *state, uint32_t most)
{
    return most == 0 ? 0 : (uint32_t)(random_next(state) % most);
}

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
    uint32_t begin, floats, chunks;
    bool only_leaves; /* every sum is made here */
    bool hungry;      /* memory is out now and then */
    uint32_t starved; /* how often that was noticed */

    /* The definition's. */
    float theta[FLOATS_MOST], before[FLOATS_MOST], velocity[FLOATS_MOST];

    /* What the hooks said. */
    uint64_t done, ready[4];
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
            out[i] = gradient_of(step, block, first + i);
        *loss = loss_of(step, block);
        return true;
    }
    float right[CHUNK];
    double right_loss;
    bool has_left = node_value(world, step, samples, 2 * node, first, count, out, loss);
    bool has_right = node_value(world, step, samples, 2 * node + 1, first, count, right, &right_loss);
    for (uint32_t i = 0; has_right && i < count; i++)
        out[i] = has_left ? out[i] + right[i] : right[i];
    if (has_right)
        *loss = has_left ? *loss + right_loss : right_loss;
    return has_left || has_right;
}

static double reference_step(struct world *world, uint64_t step)
{
    uint32_t samples = schedule_step(&world->schedule, step).count;
    float scale = (float)(1.0 / samples), rate = (float)world->plan.training.optimizer.learning_rate;
    float momentum = (float)world->plan.training.optimizer.momentum,
          decay = (float)world->plan.training.optimizer.weight_decay;
    double first_loss = 0;
    memcpy(world->before, world->theta, sizeof world->theta);
    for (uint32_t at = 0; at < world->floats; at += CHUNK) {
        uint32_t count = world->floats - at < CHUNK ? world->floats - at : CHUNK;
        float sum[CHUNK];
        double loss;
        assert_true(node_value(world, step, samples, TREE_ROOT, at, count, sum, &loss));
        first_loss = at == 0 ? loss : first_loss;
        for (uint32_t i = 0; i < count; i++) {
            float g = sum[i] * scale + decay * world->theta[at + i];
            world->velocity[at + i] = momentum * world->velocity[at + i] + g;
            world->theta[at + i] = world->theta[at + i] - rate * world->velocity[at + i];
        }
    }
    return first_loss;
}

/* ---- The world ---- */

static void chunk_ready(void *arg, uint64_t version, uint64_t offset)
{
    struct world *world = arg;
    uint64_t chunk = (offset - world->begin) / CHUNK;
    assert_true(chunk < world->chunks);
    assert_int_equal(version, world->ready[chunk] + 1);
    world->ready[chunk] = version;
    assert_non_null(shard_params(world->shard, version, offset));
}

static void step_done(void *arg, uint64_t step, double loss)
{
    struct world *world = arg;
    assert_int_equal(step, world->done);
    world->done++;
    world->loss = loss;
}

static void failed(void *arg, const char *sentence)
{
    struct world *world = arg;
    world->failures++;
    snprintf(world->sentence, sizeof world->sentence, "%s", sentence);
}

static void world_start(struct world *world, struct net *net, uint64_t seed)
{
    *world = (struct world){.seed = seed, .net = net};
    uint64_t *r = &world->seed;
    world->plan.blocks = 1 + below(r, PLAN_BLOCKS_MOST);
    world->plan.shards = 1;
    world->plan.training.batch_size = 1 + below(r, below(r, 3) == 0 ? 8 : 150);
    world->plan.training.epochs = 1 + below(r, 2);
    world->plan.training.optimizer.learning_rate = 0.05;
    world->plan.training.optimizer.momentum = below(r, 3) == 0 ? 0 : 0.9;
    world->plan.training.optimizer.weight_decay = below(r, 2) == 0 ? 0 : 1e-4;
    uint64_t samples = 1 + below(r, 2 * world->plan.training.batch_size);
    world->schedule = schedule_of(&world->plan, samples);
    world->tree = tree_of(world->plan.blocks);
    world->only_leaves = below(r, 4) == 0;
    world->begin = 16 * below(r, 100);
    world->floats = 1 + below(r, FLOATS_MOST);
    world->chunks = (world->floats + CHUNK - 1) / CHUNK;
    struct shard_hooks hooks = {chunk_ready, step_done, failed, world};
    struct error err = {0};
    if (shard_make(&world->shard, net, &world->plan, world->begin, world->begin + world->floats, CHUNK, samples, &hooks,
                   &err) < 0)
        fail_msg("%s", error_message(&err));
    for (uint32_t i = 0; i < world->floats; i++)
        world->theta[i] = (float)i * 0.25F - 3;
    for (uint32_t i = 0; i < world->chunks; i++) {
        struct shard_chunk chunk = shard_chunk(world->shard, i);
        assert_int_equal(chunk.offset, world->begin + i * CHUNK);
        memcpy(chunk.params->data, world->theta + (size_t)i * CHUNK, chunk.params->length);
    }
}

static void world_stop(struct world *world)
{
    for (int i = 0; i < KEPT_MOST; i++) {
        if (world->kept[i] != NULL)
            assert_int_equal(crc32c(0, world->kept[i]->data, world->kept[i]->length), world->kept_crc[i]);
        payload_unref(world->net, world->kept[i]);
    }
    shard_free(world->shard);
}

static struct payload *gradient_payload(struct world *world, uint64_t step, uint32_t node, uint32_t chunk,
                                        struct frame *frame)
{
    uint32_t at = chunk * CHUNK, count = world->floats - at < CHUNK ? world->floats - at : CHUNK;
    uint32_t samples = schedule_step(&world->schedule, step).count;
    struct payload *payload = payload_new(world->net, count * sizeof(float));
    *frame = (struct frame){.type = FRAME_PUSH, .node = node, .step = step, .offset = world->begin + at};
    frame->length = payload->length;
    bool any = node_value(world, step, samples, node, at, count, (float *)payload->data, &frame->value.loss);
    assert_true(any);
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

static void check_params(struct world *world, uint64_t version, const float *theta)
{
    for (uint32_t i = 0; i < world->chunks; i++) {
        struct payload *params = shard_params(world->shard, version, world->begin + (uint64_t)i * CHUNK);
        assert_non_null(params);
        assert_memory_equal(params->data, theta + (size_t)i * CHUNK, params->length);
    }
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
        }
    }
    if (below(r, 16) == 0 && world->done == step && step + 1 < world->schedule.steps)
        assert_int_equal(push(world, step + 1, TREE_ROOT, below(r, world->chunks)), PUSH_TOO_EARLY);
}

static uint32_t run_world(struct net *net, uint64_t seed, bool hungry)
{
    struct world world;
    world_start(&world, net, seed);
    world.hungry = hungry;
    check_params(&world, 0, world.theta);
    for (uint64_t step = 0; step < world.schedule.steps; step++) {
        double loss = reference_step(&world, step);
        uint32_t samples = schedule_step(&world.schedule, step).count;
        for (int i = 0; world.done == step; i++) {
            assert_true(i < PUSHES_MOST);
            push_something(&world, step, samples);
        }
        assert_int_equal(world.done, step + 1);
        assert_int_equal(shard_version(world.shard), step + 1);
        assert_memory_equal(&world.loss, &loss, sizeof loss);
        check_params(&world, step + 1, world.theta);
        for (uint32_t i = 0; i < world.chunks; i++) {
            struct payload *params = shard_params(world.shard, step, world.begin + (uint64_t)i * CHUNK);
            assert_memory_equal(params->data, world.before + (size_t)i * CHUNK, params->length);
        }
        push_something(&world, step, samples); /* late ones change nothing */
        check_params(&world, step + 1, world.theta);
    }
    assert_int_equal(world.failures, 0);
    world_stop(&world);
    return world.starved;
}

static struct net *new_net(void)
{
    struct net *net = NULL;
    struct error err = {0};
    struct net_options options = {.boot_id = 1};
    if (net_new(&net, &options, &err) < 0)
        fail_msg("%s", error_message(&err));
    return net;
}

static void bits_do_not_depend_on_how_they_come(void **state)
{
    (void)state;
    cleanup_net struct net *net = new_net();
    for (uint64_t seed = 1; seed <= 4000; seed++)
        run_world(net, seed * 7919, false);
}

static void bits_do_not_depend_on_memory(void **state)
{
    (void)state;
    uint32_t starved = 0;
    for (uint64_t seed = 1; seed <= 300; seed++) {
        cleanup_net struct net *net = new_net(); /* with nothing in its pool */
        starved += run_world(net, seed * 104729, true);
    }
    assert_true(starved > 300);
}

static void an_ancestor_frees_what_it_replaces(void **state)
{
    (void)state;
    cleanup_net struct net *net = new_net();
    struct reduction *reduction = calloc(1, sizeof *reduction);
    reduction_begin(reduction, net, tree_of(8), 80);
    struct payload *values[3];
    static const uint32_t nodes[3] = {8, 5, 2};
    for (int i = 0; i < 3; i++) {
        values[i] = payload_new(net, 64);
        memset(values[i]->data, 0, 64);
        values[i]->crc_known = true;
        assert_int_equal(reduction_add(reduction, net, nodes[i], values[i], 0), REDUCTION_ADDED);
        assert_int_equal(values[i]->references, 2);
    }
    assert_int_equal(values[0]->references, 1);
    assert_int_equal(values[1]->references, 1);
    reduction_begin(reduction, net, tree_of(8), 80);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(values[i]->references, 1);
        payload_unref(net, values[i]);
    }
    free(reduction);
}

/* ---- Mistakes ---- */

static void other_bits_for_the_same_node_fail_the_job(void **state)
{
    (void)state;
    cleanup_net struct net *net = new_net();
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

static void headers_are_checked_against_the_plan(void **state)
{
    (void)state;
    cleanup_net struct net *net = new_net();
    struct plan plan = {
        .blocks = 6,
        .shards = 1,
        .training = {.epochs = 1, .batch_size = 4, .optimizer = {.learning_rate = 0.1, .momentum = 0.9}}};
    struct shard *shard;
    struct shard_hooks hooks = {0};
    struct error err = {0};
    assert_int_equal(shard_make(&shard, net, &plan, 32, 32 + 40, CHUNK, 9, &hooks, &err), 0);
    /* 6 blocks of 4 samples: blocks 1, 2, 4 and 5 have one each; the last step has one, in block 5. */
    static const struct {
        uint64_t step, offset;
        uint32_t node, length;
        const char *sentence; /* NULL: right */
    } cases[] = {
        {0, 32, 1, 64, NULL},
        {0, 64, 13, 32, NULL},
        {2, 32, 13, 64, NULL},
        {2, 32, 3, 64, NULL},
        {0, 31, 1, 64, "PUSH names parameters from 31 on, where no chunk of this shard begins"},
        {0, 33, 1, 64, "from 33 on"},
        {0, 16, 1, 64, "from 16 on"},
        {0, 80, 1, 64, "from 80 on"},
        {0, UINT64_MAX - 15, 1, 64, "no chunk of this shard begins"},
        {3, 32, 1, 64, "PUSH names step 3; the job has 3, from 0"},
        {UINT64_MAX, 32, 1, 64, "PUSH names step 18446744073709551615"},
        {0, 32, 1, 60, "PUSH has 60 bytes for parameters from 32 on; they are 64"},
        {0, 64, 1, 64, "PUSH has 64 bytes for parameters from 64 on; they are 32"},
        {0, 32, 0, 64, "PUSH names node 0, which has no samples in step 0 with 6 blocks"},
        {0, 32, 16, 64, "PUSH names node 16"},
        {0, 32, UINT32_MAX, 64, "PUSH names node 4294967295"},
        {0, 32, 8, 64, "PUSH names node 8"},
        {0, 32, 14, 64, "PUSH names node 14"},
        {2, 32, 2, 64, "PUSH names node 2, which has no samples in step 2"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct frame frame = {.type = FRAME_PUSH,
                              .step = cases[i].step,
                              .offset = cases[i].offset,
                              .node = cases[i].node,
                              .length = cases[i].length};
        err.message[0] = '\0';
        assert_int_equal(shard_check_push(shard, &frame, &err), cases[i].sentence == NULL ? 0 : -1);
        if (cases[i].sentence != NULL && strstr(error_message(&err), cases[i].sentence) == NULL)
            fail_msg("'%s' does not say '%s'", error_message(&err), cases[i].sentence);
    }
    assert_null(shard_params(shard, 0, 33));
    assert_null(shard_params(shard, 1, 32));
    assert_null(shard_params(shard, UINT64_MAX, 32));
    shard_free(shard);
}

static void ranges_fill_the_vector(void **state)
{
    (void)state;
    uint64_t seed = 1;
    for (int i = 0; i < 2000; i++) {
        uint64_t parameters = 1 + random_next(&seed) % (i % 2 == 0 ? 1000 : NETWORK_PARAMETERS_MOST), at = 0;
        uint32_t shards = 1 + below(&seed, PLAN_SHARDS_MOST);
        for (uint32_t shard = 0; shard < shards; shard++) {
            uint64_t begin, end;
            shard_range(parameters, shards, shard, &begin, &end);
            assert_int_equal(begin, at);
            assert_true(begin % 16 == 0 && end >= begin);
            at = end;
        }
        assert_int_equal(at, parameters);
    }
}

static void a_shard_begins_with_the_models_values(void **state)
{
    (void)state;
    cleanup_net struct net *net = new_net();
    struct plan plan = {.blocks = 8, .shards = 2, .training = {.epochs = 1, .batch_size = 4, .seed = 5}};
    cleanup_model struct model *model = NULL;
    struct error err = {0};
    const struct network_spec spec = {.zoo = "mlp"};
    const struct network_sample sample = {.shape = {1, 28, 28}, .classes = 10};
    assert_int_equal(model_make(&model, &spec, &sample, &err), 0);
    uint64_t parameters = model_parameters(model);
    cleanup_free float *all = malloc(parameters * sizeof *all);
    model_init_range(model, 5, 0, parameters, all);
    struct shard_hooks hooks = {0};
    for (uint32_t index = 0; index < 2; index++) {
        cleanup_shard struct shard *shard = NULL;
        assert_int_equal(shard_new(&shard, net, &plan, model, index, 100, &hooks, &err), 0);
        uint64_t begin, end;
        shard_range(parameters, 2, index, &begin, &end);
        assert_int_equal(shard_chunks(shard), 2);
        for (uint64_t at = begin; at < end; at += WIRE_CHUNK_FLOATS) {
            struct payload *params = shard_params(shard, 0, at);
            assert_int_equal(params->length / 4, end - at < WIRE_CHUNK_FLOATS ? end - at : WIRE_CHUNK_FLOATS);
            assert_memory_equal(params->data, all + at, params->length);
        }
    }
    struct shard *none = NULL;
    assert_int_equal(shard_new(&none, net, &plan, model, 0, 0, &hooks, &err), -1);
    assert_null(none);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bits_do_not_depend_on_how_they_come),
        cmocka_unit_test(bits_do_not_depend_on_memory),
        cmocka_unit_test(an_ancestor_frees_what_it_replaces),
        cmocka_unit_test(other_bits_for_the_same_node_fail_the_job),
        cmocka_unit_test(headers_are_checked_against_the_plan),
        cmocka_unit_test(ranges_fill_the_vector),
        cmocka_unit_test(a_shard_begins_with_the_models_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
