/* Running statistics over the wire BFloat16: what is handed out has eight bits, and a statistic that moves by a tenth
 * of what is missing soon moves by less than those can tell. The shard's own copy is float32, so it arrives all the
 * same. */
#include "ps/shard.h"

#include "numerics/numerics.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on

#include <string.h>

enum { STATISTICS = 4, SAMPLES = 8, STEPS = 100 };

static const float momentum = 0.1F;
/* All of them within eight bits. From each beginning a tenth of the way is less than half a unit in the last place. */
static const float begins[STATISTICS] = {98.5F, 1, -0.5F, 0x1.02p-10F};
static const float aims[STATISTICS] = {100, 1.03125F, -0.5078125F, 0x1p-10F};

static struct shard *new_shard(struct net *net, const struct plan *plan)
{
    const struct network_tensor tensor = {
        .name = "bn.running_var", .kind = TENSOR_STATISTIC, .count = STATISTICS, .momentum = momentum};
    const struct chunk chunk = {.count = STATISTICS};
    const struct shard_cut cut = {
        .chunks = &chunk, .chunk_count = 1, .tensors = &tensor, .tensor_count = 1, .canonical = STATISTICS};
    const struct shard_hooks hooks = {0};
    struct shard *shard = NULL;
    struct error err = {0};
    if (shard_make(&shard, net, plan, &cut, SAMPLES, &hooks, &err) < 0)
        fail_msg("%s", error_message(&err));
    shard_start_from(shard, begins);
    return shard;
}

static struct payload *sum_payload(struct net *net)
{
    struct payload *payload = payload_new(net, STATISTICS * sizeof(uint16_t));
    float sums[STATISTICS];
    assert_non_null(payload);
    for (int i = 0; i < STATISTICS; i++)
        sums[i] = SAMPLES * aims[i];
    vector_bfloat16_pack((uint16_t *)payload->data, sums, STATISTICS);
    return payload;
}

static void push_step(struct shard *shard, struct net *net, uint64_t step)
{
    struct payload *sum = sum_payload(net);
    const struct frame frame = {.type = FRAME_PUSH, .node = TREE_ROOT, .step = step, .length = sum->length};
    enum push_result result = PUSH_TOO_EARLY;
    struct error err = {0};
    if (shard_check_push(shard, &frame, &err) < 0 || shard_push(shard, &frame, sum, &result, &err) < 0)
        fail_msg("%s", error_message(&err));
    assert_int_equal(result, PUSH_ADDED);
    payload_unref(net, sum);
}

static void steps_too_small_for_the_wire_are_taken(void **state)
{
    (void)state;
    const struct net_options options = {.boot_id = 1};
    const struct plan plan = {.blocks = 2,
                              .shards = 1,
                              .wire = PLAN_BFLOAT16,
                              .training = {.epochs = STEPS, .batch_size = SAMPLES, .optimizer = {.learning_rate = 1}}};
    struct error err = {0};
    cleanup_net struct net *net = NULL;
    assert_int_equal(net_new(&net, &options, &err), 0);
    cleanup_shard struct shard *shard = new_shard(net, &plan);
    float expected[STATISTICS];
    memcpy(expected, begins, sizeof begins);
    for (uint64_t step = 0; step < STEPS; step++) {
        push_step(shard, net, step);
        const uint16_t *out = (const uint16_t *)shard_params(shard, step + 1, 0)->data;
        for (int i = 0; i < STATISTICS; i++) {
            expected[i] = expected[i] + momentum * (aims[i] - expected[i]);
            assert_int_equal(out[i], bfloat16_of(expected[i]));
            if (step == 0) /* the wire alone would stay where it is for ever */
                assert_int_equal(out[i], bfloat16_of(begins[i]));
            if (step == STEPS - 1)
                assert_int_equal(out[i], bfloat16_of(aims[i]));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_too_small_for_the_wire_are_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
