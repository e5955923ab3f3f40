/* Gradients of large weights made piece by piece: the bits of those made at once, and nothing else is missing. */
#include "model/model.h"

#include "numerics/numerics.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SIDE = 28, CLASSES = 10 };

struct bed {
    struct model *model;
    struct workspace *workspace;
    uint64_t parameters;
    float *params, *at_once, *later, *kept, *x;
    float targets[MODEL_PIECE_SAMPLES_MOST];
    uint8_t *ready; /* of each parameter: how often it became final */
};

static void note_ready(void *arg, uint64_t begin, uint64_t end)
{
    struct bed *bed = arg;
    for (uint64_t i = begin; i < end; i++)
        bed->ready[i]++;
}

static void make(struct bed *bed, const char *zoo)
{
    struct error err = {0};
    const struct network_spec spec = {.zoo = zoo};
    const struct network_sample sample = {.shape = {1, SIDE, SIDE}, .classes = CLASSES};
    if (model_make(&bed->model, &spec, &sample, &err) < 0 ||
        workspace_new(&bed->workspace, bed->model, MODEL_PIECE_SAMPLES_MOST, &err) < 0)
        fail_msg("%s", error_message(&err));
    const size_t values = (size_t)MODEL_PIECE_SAMPLES_MOST * SIDE * SIDE;
    bed->parameters = model_parameters(bed->model);
    bed->params = calloc(bed->parameters, sizeof(float));
    bed->at_once = calloc(bed->parameters, sizeof(float));
    bed->later = calloc(bed->parameters, sizeof(float));
    bed->kept = calloc(model_kept_floats(bed->model, MODEL_PIECE_SAMPLES_MOST) + 1, sizeof(float));
    bed->x = calloc(values, sizeof(float));
    bed->ready = calloc(bed->parameters, 1);
    if (bed->params == NULL || bed->at_once == NULL || bed->later == NULL || bed->kept == NULL || bed->x == NULL ||
        bed->ready == NULL)
        abort();
    model_init_range(bed->model, 5, 0, bed->parameters, bed->params);
    random_uniform_range(random_stream(5, RANDOM_CANARY, 1, 0, 0), 0, values, -1, 2, bed->x);
    for (uint32_t i = 0; i < MODEL_PIECE_SAMPLES_MOST; i++)
        bed->targets[i] = (float)(i * 7 % CLASSES);
}

static void unmake(struct bed *bed)
{
    workspace_free(bed->workspace);
    model_free(bed->model);
    free(bed->params);
    free(bed->at_once);
    free(bed->later);
    free(bed->kept);
    free(bed->x);
    free(bed->ready);
}

static void check_equal(struct bed *bed, uint32_t n)
{
    struct model_batch batch = {.n = n, .x = bed->x, .targets = bed->targets};
    const double loss = model_gradient(bed->model, bed->params, &batch, bed->at_once, bed->workspace);

    memset(bed->later, 0xff, bed->parameters * sizeof *bed->later); /* NaN */
    memset(bed->ready, 0, bed->parameters);
    batch.kept = bed->kept;
    batch.ready = note_ready;
    batch.ready_arg = bed;
    assert_true(model_gradient(bed->model, bed->params, &batch, bed->later, bed->workspace) == loss);
    for (uint32_t i = model_pieces(bed->model); i-- > 0;) {
        const struct model_piece piece = model_piece(bed->model, i);
        model_piece_gradient(bed->model, &piece, (struct model_kept){bed->kept, n}, bed->later + piece.begin);
        note_ready(bed, piece.begin, piece.end);
    }
    for (uint64_t i = 0; i < bed->parameters; i++)
        assert_int_equal(bed->ready[i], 1);
    assert_memory_equal(bed->later, bed->at_once, bed->parameters * sizeof *bed->later);
}

static void pieces_have_the_bits_of_the_whole(void **state)
{
    (void)state;
    struct bed bed;
    make(&bed, "mlp");
    assert_true(model_pieces(bed.model) > 2); /* of two weights, the last of one with fewer rows */
    static const uint32_t sizes[] = {1, 3, 16, MODEL_PIECE_SAMPLES_MOST};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        check_equal(&bed, sizes[i]);
    unmake(&bed);
}

static void a_model_without_large_weights_has_no_pieces(void **state)
{
    (void)state;
    struct bed bed;
    make(&bed, "logistic");
    assert_int_equal(model_pieces(bed.model), 0);
    assert_int_equal(model_kept_floats(bed.model, 100), 0);
    check_equal(&bed, 4);
    unmake(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_have_the_bits_of_the_whole),
        cmocka_unit_test(a_model_without_large_weights_has_no_pieces),
    };
    numerics_setup();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
