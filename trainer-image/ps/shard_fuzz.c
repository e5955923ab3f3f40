/* A shard and whatever may come to it: honest pushes in any order and number, headers and gradients that nobody honest
 * sends, commits that are early, late or wrong. It keeps to the dialogue with its owner, and after honest pushes alone
 * it has the parameters that they come to.
 *
 * The first byte says what the job is like; then every three bytes are an event: what, and two choices. */
#include "common/test/fuzz.h"
#include "numerics/numerics.h"
#include "optimizer/optimizer.h"
#include "ps/shard.h"

#include <math.h>
#include <string.h>

enum { BEGIN = 8, FLOATS = 24, CHUNK = 8, CHUNKS = FLOATS / CHUNK, CANONICAL = 4, BLOCKS = 5, STEPS = 6, SAMPLES = 9 };

struct world {
    struct plan plan;
    struct shard *shard;
    struct net *net;
    uint64_t done, ready[CHUNKS];
    uint32_t measured; /* rounds of the step that is not done */
    bool commits_at_once;
    bool failed; /* somebody sent other bits than somebody else */
    bool honest; /* nobody has sent anything of his own */
};

/* ---- what the shard says ---- */

static void chunk_ready(void *arg, uint64_t version, uint64_t offset)
{
    struct world *world = arg;
    uint32_t chunk = shard_chunk_at(world->shard, offset);
    require(chunk < CHUNKS && version == world->ready[chunk] + 1 && version <= world->done + 1);
    world->ready[chunk] = version;
}

static void step_done(void *arg, uint64_t step, double loss)
{
    struct world *world = arg;
    (void)loss;
    require(step == world->done && world->measured == optimizer_rounds(&world->plan.training.optimizer));
    for (uint32_t chunk = 0; chunk < CHUNKS; chunk++)
        require(world->ready[chunk] == step + 1);
    world->done++;
    world->measured = 0;
}

static uint32_t scalars_of(const struct world *world, uint32_t round)
{
    return world->plan.training.optimizer.clip_norm > 0 && round == 0 ? 1 : 2;
}

static int commit(struct world *world, uint64_t step, uint32_t round, uint32_t count)
{
    const double scalars[3] = {0.5, 0.5, 0.5};
    struct error err = {0};
    int result = shard_commit(world->shard, step, round, scalars, count, &err);
    require((result < 0) == (err.message[0] != '\0'));
    return result;
}

static void measured(void *arg, uint64_t step, uint32_t round, const double *measures, uint32_t count)
{
    struct world *world = arg;
    require(step == world->done && round == world->measured);
    require(count == FLOATS / CANONICAL * (scalars_of(world, round) == 1 ? 1U : 2U));
    for (uint32_t i = 0; i < count && world->honest; i++)
        require(measures[i] >= 0 && isfinite(measures[i]));
    world->measured++;
    if (world->commits_at_once)
        require(commit(world, step, round, scalars_of(world, round)) == 0);
}

static void failed(void *arg, const char *sentence)
{
    struct world *world = arg;
    require(sentence[0] != '\0' && !world->honest);
    world->failed = true;
}

/* ---- what comes to it ---- */

/* Whole numbers, which all sums of them are exactly, rounded too. */
static float node_value(const struct world *world, uint64_t samples, uint32_t node)
{
    struct tree tree = tree_of(world->plan.blocks);
    uint32_t first, end;
    float value = 0;
    tree_node_blocks(tree, node, &first, &end);
    for (uint32_t block = first; block < end; block++) {
        struct block_range range = tree_block(tree, samples, block);
        value += range.end > range.begin ? (float)(block + 1) : 0;
    }
    return value;
}

static void push(struct world *world, const struct frame *frame, const uint8_t *odd)
{
    struct error err = {0};
    struct frame sent = *frame;
    if (shard_check_push(world->shard, &sent, &err) < 0) {
        require(err.message[0] != '\0');
        return;
    }
    struct payload *payload = payload_new(world->net, sent.length);
    if (payload == NULL)
        return;
    const struct schedule schedule = schedule_of(&world->plan, SAMPLES);
    float value = node_value(world, schedule_step(&schedule, sent.step).count, sent.node);
    for (uint32_t i = 0; i < CHUNK; i++) {
        if (world->plan.wire == PLAN_BFLOAT16)
            ((uint16_t *)payload->data)[i] = bfloat16_of(value);
        else
            ((float *)payload->data)[i] = value;
    }
    if (odd != NULL) {
        world->honest = false;
        memcpy(payload->data + odd[1] % (sent.length - 1), odd, 2);
    }
    enum push_result result = PUSH_ADDED;
    uint64_t before = world->done;
    int pushed = shard_push(world->shard, &sent, payload, &result, &err);
    require(pushed == 0 || world->failed || scarce_refused());
    require(pushed < 0 || (result == PUSH_TOO_EARLY) == (sent.step > before));
    payload_unref(world->net, payload);
}

static void event(struct world *world, const uint8_t bytes[3])
{
    const struct schedule schedule = schedule_of(&world->plan, SAMPLES);
    struct frame frame = {.type = FRAME_PUSH,
                          .step = world->done,
                          .node = 1 + bytes[1] % 15U,
                          .offset = BEGIN + (uint64_t)(bytes[2] % CHUNKS) * CHUNK,
                          .length = CHUNK * layout_value_bytes(world->plan.wire)};
    switch (bytes[0] % 8) {
    case 0: /* the step before, or the next one */
        frame.step += bytes[0] / 8U % 3 - 1U;
        break;
    case 1: /* any header */
        frame.step = bytes[1] / 4;
        frame.node = bytes[1];
        frame.offset = bytes[2];
        frame.length = bytes[0];
        break;
    case 2: /* other bits */
        push(world, &frame, bytes);
        return;
    case 3: /* what is expected, or has been */
        if (world->measured > 0) {
            uint32_t round = bytes[1] % world->measured;
            (void)commit(world, world->done, round, scalars_of(world, round));
        }
        return;
    case 4: /* any commit */
        (void)commit(world, bytes[1], bytes[2] % 4, bytes[2] / 4 % 4);
        return;
    case 5: { /* any question */
        struct payload *params = shard_params(world->shard, bytes[1], bytes[2]);
        require(params == NULL || params->length == CHUNK * layout_value_bytes(world->plan.wire));
        return;
    }
    default:
        break;
    }
    if (frame.step < schedule.steps || bytes[0] % 8 == 1)
        push(world, &frame, NULL);
}

/* ---- the job ---- */

static void make_plan(struct plan *plan, uint8_t kind)
{
    *plan = (struct plan){
        .blocks = BLOCKS,
        .shards = 1,
        .wire = kind % 2 == 0 ? PLAN_FLOAT32 : PLAN_BFLOAT16,
        .training = {.epochs = STEPS / 3,
                     .batch_size = 4,
                     .optimizer = {.type = kind / 2 % 2 == 0 ? PLAN_SGD : PLAN_LAMB,
                                   .learning_rate = 0.5,
                                   .momentum = kind / 2 % 2 == 0 ? 0.5 : 0,
                                   .clip_norm = kind / 4 % 2 == 0 ? 0 : 1,
                                   .beta1 = 0.9,
                                   .beta2 = 0.99,
                                   .epsilon = 1e-6}},
    };
}

/* One tensor that is another shard's, two here, and a statistic. */
static const struct network_tensor tensors[2] = {
    {.count = BEGIN + 16},
    {.offset = BEGIN + 16, .count = 8, .kind = TENSOR_STATISTIC, .momentum = 0.5F},
};

static void check_parameters(const struct world *world)
{
    struct optimizer *optimizer = NULL;
    struct error err = {0};
    const struct plan_optimizer *plan = &world->plan.training.optimizer;
    const struct schedule schedule = schedule_of(&world->plan, SAMPLES);
    if (optimizer_new(&optimizer, plan, tensors, 2, CANONICAL, &err) < 0)
        return;
    float theta[FLOATS] = {0}, memory[OPTIMIZER_STATES_MOST][FLOATS] = {{0}}, sum[FLOATS];
    float *const states[OPTIMIZER_STATES_MOST] = {memory[0], memory[1], memory[2]};
    double measures[2 * FLOATS / CANONICAL];
    const double scalars[2] = {0.5, 0.5};
    for (uint64_t step = 0; step < world->done; step++) {
        uint32_t samples = schedule_step(&schedule, step).count;
        struct optimizer_step of = optimizer_step(plan, &schedule, step, step + 1, samples, 1);
        for (uint32_t i = 0; i < FLOATS; i++)
            sum[i] = node_value(world, samples, TREE_ROOT);
        for (uint32_t round = 0; round < optimizer_rounds(plan); round++) {
            optimizer_measure(optimizer, &of, round, BEGIN, BEGIN + FLOATS, theta, states, sum, measures);
            optimizer_commit(optimizer, round, scalars, &of);
        }
        optimizer_apply(optimizer, &of, BEGIN, BEGIN + FLOATS, theta, theta, states, sum);
    }
    optimizer_free(optimizer);
    for (uint32_t i = 0; i < FLOATS; i++) {
        struct payload *params = shard_params(world->shard, world->done, BEGIN + (uint64_t)(i / CHUNK) * CHUNK);
        if (params == NULL)
            continue; /* this chunk is a step ahead, and its parameters are of the next version, too */
        if (world->plan.wire == PLAN_BFLOAT16)
            require(((uint16_t *)params->data)[i % CHUNK] == bfloat16_of(theta[i]));
        else
            require(((float *)params->data)[i % CHUNK] == theta[i]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = {0};
    struct net_options options = {.boot_id = 1};
    static struct world world;
    world = (struct world){.honest = true};
    if (size < 1 || net_new(&world.net, &options, &err) < 0)
        return 0;
    make_plan(&world.plan, data[0]);
    world.commits_at_once = data[0] / 8 % 2 == 0;
    struct chunk chunks[CHUNKS];
    for (uint32_t i = 0; i < CHUNKS; i++)
        chunks[i] = (struct chunk){.offset = BEGIN + (uint64_t)i * CHUNK, .count = CHUNK};
    const struct shard_cut cut = {chunks, CHUNKS, tensors, 2, CANONICAL};
    const struct shard_hooks hooks = {
        .chunk_ready = chunk_ready, .step_done = step_done, .measured = measured, .failed = failed, .arg = &world};
    if (shard_make(&world.shard, world.net, &world.plan, &cut, SAMPLES, &hooks, &err) < 0) {
        require(scarce_refused());
    } else {
        for (size_t at = 1; at + 3 <= size && !world.failed; at += 3)
            event(&world, data + at);
        require(world.failed || shard_version(world.shard) == world.done);
        if (world.honest)
            check_parameters(&world);
    }
    shard_free(world.shard);
    net_free(world.net);
    return 0;
}
