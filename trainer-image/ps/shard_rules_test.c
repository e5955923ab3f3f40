/* What a shard begins with, and which pushes and commits it takes. */
#include "ps/test_bed.h"

enum { CHUNK = 16 };

static void a_shard_begins_with_the_models_values(void **state)
{
    (void)state;
    cleanup_net struct net *net = new_net(1);
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
    cleanup_layout struct layout *layout = NULL;
    assert_int_equal(layout_new(&layout, model_network(model), 2, &err), 0);
    assert_true(layout_chunks(layout) >= 4);
    for (uint32_t index = 0; index < 2; index++) {
        cleanup_shard struct shard *shard = NULL;
        assert_int_equal(shard_new(&shard, net, &plan, model, index, 100, &hooks, &err), 0);
        for (uint32_t i = layout->first[index]; i < layout->first[index + 1]; i++) {
            const struct chunk *chunk = &layout->chunks[i];
            struct payload *params = shard_params(shard, 0, chunk->offset);
            assert_int_equal(params->length, chunk->count * sizeof(float));
            assert_memory_equal(params->data, all + chunk->offset, params->length);
        }
    }
    struct shard *none = NULL;
    assert_int_equal(shard_new(&none, net, &plan, model, 0, 0, &hooks, &err), -1);
    assert_null(none);
}

static void headers_are_checked_against_the_plan(void **state)
{
    (void)state;
    cleanup_net struct net *net = new_net(1);
    struct plan plan = {
        .blocks = 6,
        .shards = 1,
        .training = {.epochs = 1, .batch_size = 4, .optimizer = {.learning_rate = 0.1, .momentum = 0.9}}};
    struct shard *shard = NULL;
    struct shard_hooks hooks = {0};
    struct error err = {0};
    assert_int_equal(plain_shard(&shard, net, &plan, 32, 32 + 40, CHUNK, 9, &hooks, &err), 0);
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

static void count_measured(void *arg, uint64_t step, uint32_t round, const double *measures, uint32_t count)
{
    (void)step;
    (void)measures;
    assert_int_equal(count, round == 0 ? 4 : 8);
    ++*(uint32_t *)arg;
}

static void commits_come_for_what_was_measured(void **state)
{
    (void)state;
    cleanup_net struct net *net = new_net(1);
    struct plan plan = {.blocks = 1,
                        .shards = 1,
                        .training = {.epochs = 1,
                                     .batch_size = 4,
                                     .optimizer = {.type = PLAN_LAMB,
                                                   .learning_rate = 0.1,
                                                   .beta1 = 0.9,
                                                   .beta2 = 0.99,
                                                   .epsilon = 1e-6,
                                                   .clip_norm = 1}}};
    struct shard *shard = NULL;
    uint32_t measures = 0;
    struct shard_hooks hooks = {.measured = count_measured, .arg = &measures};
    struct error err = {0};
    const double scalar = 1;
    assert_int_equal(plain_shard(&shard, net, &plan, 0, 64, CHUNK, 9, &hooks, &err), 0);
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(shard_commit(shard, 0, 0, &scalar, 1, &err), -1);
        assert_string_equal(error_message(&err),
                            "COMMIT names round 0 of step 0, which this shard has not measured yet");
        struct payload *payload = payload_new(net, CHUNK * sizeof(float));
        memset(payload->data, 0, payload->length);
        struct frame frame = {.type = FRAME_PUSH, .node = 1, .offset = (uint64_t)CHUNK * i, .length = payload->length};
        enum push_result result;
        for (int again = 0; again < 2; again++)
            assert_int_equal(shard_push(shard, &frame, payload, &result, &err), 0);
        payload_unref(net, payload);
    }
    assert_int_equal(measures, 1);
    static const struct {
        uint64_t step;
        uint32_t round, count;
        const char *sentence; /* NULL: right */
    } cases[] = {
        {1, 0, 1, "round 0 of step 1, which this shard has not measured yet"},
        {0, 1, 1, "round 1 of step 0, which this shard has not measured yet"},
        {UINT64_MAX, 0, 1, "not measured yet"},
        {0, UINT32_MAX, 1, "not measured yet"},
        {0, 0, 0, "COMMIT has 0 numbers for round 0; they are 1"},
        {0, 0, 2, "COMMIT has 2 numbers for round 0"},
        {0, 0, 1, NULL},
        {0, 0, 1, NULL}, /* again */
        {0, 0, 7, NULL}, /* who looks? */
        {0, 1, 4, "COMMIT has 4 numbers for round 1; they are 1"},
        {0, 1, 1, NULL},
        {0, 1, 1, NULL},
        {0, 0, 1, NULL},
        {1, 0, 1, "not measured yet"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const double scalars[4] = {1, 1, 1, 1};
        err.message[0] = '\0';
        assert_int_equal(shard_commit(shard, cases[i].step, cases[i].round, scalars, cases[i].count, &err),
                         cases[i].sentence == NULL ? 0 : -1);
        if (cases[i].sentence != NULL && strstr(error_message(&err), cases[i].sentence) == NULL)
            fail_msg("%zu: '%s' does not say '%s'", i, error_message(&err), cases[i].sentence);
    }
    assert_int_equal(measures, 2);
    assert_int_equal(shard_version(shard), 1);
    shard_free(shard);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_shard_begins_with_the_models_values),
        cmocka_unit_test(headers_are_checked_against_the_plan),
        cmocka_unit_test(commits_come_for_what_was_measured),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
