/* Whatever a job's arithmetic is made of, the canary has heard it: where one function's last bit differs, the digests
 * of all plans that use it do, and those of the others do not. */
#include "canary.h"

#include "model/gemm.h"
#include "numerics/numerics.h"
#include "numerics/sparse.h"
#include "optimizer/kernels.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

/* ---- Functions that stand in the place of the real ones (see CMakeLists.txt), and spoil a bit where they are told to.
 * ---- */

enum function {
    NOTHING,
    SGD,
    MOMENTUM,
    NESTEROV,
    ADAGRAD,
    RMSPROP,
    RMSPROP_MOMENTUM,
    ADAM,
    AMSGRAD,
    LAMB_UPDATE,
    LAMB_APPLY,
    STATISTIC,
    SQUARES,
    GRADIENT_SQUARES,
    CLIP,
    SUM,
    ADD,
    PACK,
    UNPACK,
    ROUNDED_SUM,
    ROUNDED_SUM_PACK,
    ROUNDED_SUM_PACKED,
    ROUNDED_ADD,
    SPARSE_SUM,
    MODEL_GRADIENT,
    SPARSE_NN,
    SPARSE_NN_SUM,
    SPARSE_TN,
    SPARSE_TN_LONG,
    SPARSE_TN_SUM,
    FUNCTIONS,
};
static const char *const names[FUNCTIONS] = {
    [NOTHING] = "nothing",
    [SGD] = "SGD",
    [MOMENTUM] = "momentum",
    [NESTEROV] = "Nesterov",
    [ADAGRAD] = "Adagrad",
    [RMSPROP] = "RMSProp",
    [RMSPROP_MOMENTUM] = "RMSProp with momentum",
    [ADAM] = "Adam",
    [AMSGRAD] = "AMSGrad",
    [LAMB_UPDATE] = "LAMB's u",
    [LAMB_APPLY] = "LAMB's step",
    [STATISTIC] = "statistics",
    [SQUARES] = "squares",
    [GRADIENT_SQUARES] = "squares of gradients",
    [CLIP] = "clipping",
    [SUM] = "sums",
    [ADD] = "additions",
    [PACK] = "rounding",
    [UNPACK] = "unpacking",
    [ROUNDED_SUM] = "rounded sums",
    [ROUNDED_SUM_PACK] = "rounded sums, packed then",
    [ROUNDED_SUM_PACKED] = "rounded sums of what is packed",
    [ROUNDED_ADD] = "rounded additions",
    [SPARSE_SUM] = "sums of rows",
    [MODEL_GRADIENT] = "the model's gradient",
    [SPARSE_NN] = "products over what is not zero",
    [SPARSE_NN_SUM] = "sums of those",
    [SPARSE_TN] = "products, the left transposed, over what is not zero",
    [SPARSE_TN_LONG] = "those of many samples",
    [SPARSE_TN_SUM] = "sums of products, the left transposed",
};

static enum function spoilt;

static void spoil(enum function function, void *values, size_t size, size_t count)
{
    if (function == spoilt)
        ((unsigned char *)values)[count / 2 * size] ^= 1; /* the last bit of one in the middle */
}

/* NOLINTBEGIN(bugprone-reserved-identifier,readability-non-const-parameter) */
#define KERNEL(name, function)                                                                                         \
    optimizer_kernel __real_##name, __wrap_##name;                                                                     \
    void __wrap_##name(const struct optimizer_step *step, float *next, const float *theta, float *const states[],      \
                       const float *sum, size_t n)                                                                     \
    {                                                                                                                  \
        __real_##name(step, next, theta, states, sum, n);                                                              \
        spoil(function, next, sizeof *next, n);                                                                        \
    }
KERNEL(kernel_sgd, SGD)
KERNEL(kernel_momentum, MOMENTUM)
KERNEL(kernel_nesterov, NESTEROV)
KERNEL(kernel_adagrad, ADAGRAD)
KERNEL(kernel_rmsprop, RMSPROP)
KERNEL(kernel_rmsprop_momentum, RMSPROP_MOMENTUM)
KERNEL(kernel_adam, ADAM)
KERNEL(kernel_amsgrad, AMSGRAD)

#define WRAP(result, name, parameters, call, function, values, size, count)                                            \
    result __real_##name parameters;                                                                                   \
    result __wrap_##name parameters;                                                                                   \
    result __wrap_##name parameters                                                                                    \
    {                                                                                                                  \
        call;                                                                                                          \
        spoil(function, values, size, count);                                                                          \
    }
WRAP(void, kernel_lamb_update,
     (const struct optimizer_step *step, const float *theta, float *const states[], const float *sum, size_t n),
     __real_kernel_lamb_update(step, theta, states, sum, n), LAMB_UPDATE, states[2], sizeof(float), n)
WRAP(void, kernel_lamb_apply, (float rate, float *next, const float *theta, const float *update, size_t n),
     __real_kernel_lamb_apply(rate, next, theta, update, n), LAMB_APPLY, next, sizeof(float), n)
WRAP(void, kernel_statistic, (float scale, float momentum, float *next, const float *theta, const float *sum, size_t n),
     __real_kernel_statistic(scale, momentum, next, theta, sum, n), STATISTIC, next, sizeof(float), n)
WRAP(void, kernel_clip, (const struct optimizer_step *step, float *sum, size_t n), __real_kernel_clip(step, sum, n),
     CLIP, sum, sizeof(float), n)
WRAP(void, vector_sum, (float *out, const float *a, const float *b, size_t n), __real_vector_sum(out, a, b, n), SUM,
     out, sizeof(float), n)
WRAP(void, vector_add, (float *y, const float *x, size_t n), __real_vector_add(y, x, n), ADD, y, sizeof(float), n)
WRAP(void, vector_bfloat16_pack, (uint16_t * out, const float *x, size_t n), __real_vector_bfloat16_pack(out, x, n),
     PACK, out, sizeof(uint16_t), n)
WRAP(void, vector_bfloat16_unpack, (float *out, const uint16_t *x, size_t n), __real_vector_bfloat16_unpack(out, x, n),
     UNPACK, out, sizeof(float), n)
WRAP(void, vector_bfloat16_sum, (float *out, const float *a, const float *b, size_t n),
     __real_vector_bfloat16_sum(out, a, b, n), ROUNDED_SUM, out, sizeof(float), n)
WRAP(void, vector_bfloat16_sum_pack, (uint16_t * out, const float *a, const float *b, size_t n),
     __real_vector_bfloat16_sum_pack(out, a, b, n), ROUNDED_SUM_PACK, out, sizeof(uint16_t), n)
WRAP(void, vector_bfloat16_sum_packed, (uint16_t * out, const uint16_t *a, const uint16_t *b, size_t n),
     __real_vector_bfloat16_sum_packed(out, a, b, n), ROUNDED_SUM_PACKED, out, sizeof(uint16_t), n)
WRAP(void, vector_bfloat16_add, (float *y, const float *x, size_t n), __real_vector_bfloat16_add(y, x, n), ROUNDED_ADD,
     y, sizeof(float), n)

double __real_kernel_squares(const float *x, size_t n);
double __wrap_kernel_squares(const float *x, size_t n);
double __wrap_kernel_squares(const float *x, size_t n)
{
    double squares = __real_kernel_squares(x, n);
    spoil(SQUARES, &squares, sizeof squares, 1);
    return squares;
}

double __real_kernel_gradient_squares(const struct optimizer_step *step, const float *sum, size_t n);
double __wrap_kernel_gradient_squares(const struct optimizer_step *step, const float *sum, size_t n);
double __wrap_kernel_gradient_squares(const struct optimizer_step *step, const float *sum, size_t n)
{
    double squares = __real_kernel_gradient_squares(step, sum, n);
    spoil(GRADIENT_SQUARES, &squares, sizeof squares, 1);
    return squares;
}

int __real_sparse_sum(struct sparse *out, const struct sparse *left, const struct sparse *right);
int __wrap_sparse_sum(struct sparse *out, const struct sparse *left, const struct sparse *right);
int __wrap_sparse_sum(struct sparse *out, const struct sparse *left, const struct sparse *right)
{
    int result = __real_sparse_sum(out, left, right);
    spoil(SPARSE_SUM, out->rows, sizeof(float), (size_t)out->count * out->dim);
    return result;
}

double __real_model_gradient(const struct model *model, const float *params, const struct model_batch *batch,
                             float *grad, struct workspace *workspace);
double __wrap_model_gradient(const struct model *model, const float *params, const struct model_batch *batch,
                             float *grad, struct workspace *workspace);
double __wrap_model_gradient(const struct model *model, const float *params, const struct model_batch *batch,
                             float *grad, struct workspace *workspace)
{
    double loss = __real_model_gradient(model, params, batch, grad, workspace);
    spoil(MODEL_GRADIENT, grad, sizeof(float), model_parameters(model));
    return loss;
}

bool __real_gemm_sparse(enum gemm_unit unit, enum gemm_form form, size_t m, size_t n,
                        const struct gemm_factors *factors, uint32_t count, bool rounded, float *c, size_t ldc);
bool __wrap_gemm_sparse(enum gemm_unit unit, enum gemm_form form, size_t m, size_t n,
                        const struct gemm_factors *factors, uint32_t count, bool rounded, float *c, size_t ldc);
bool __wrap_gemm_sparse(enum gemm_unit unit, enum gemm_form form, size_t m, size_t n,
                        const struct gemm_factors *factors, uint32_t count, bool rounded, float *c, size_t ldc)
{
    const bool made = __real_gemm_sparse(unit, form, m, n, factors, count, rounded, c, ldc);
    const bool of_one = count == 1;
    if (made && form == GEMM_NN)
        spoil(of_one ? SPARSE_NN : SPARSE_NN_SUM, c, sizeof *c, n);
    else if (made)
        spoil(!of_one ? SPARSE_TN_SUM : factors->k > 64 ? SPARSE_TN_LONG : SPARSE_TN, c, sizeof *c, n);
    return made;
}
/* NOLINTEND(bugprone-reserved-identifier,readability-non-const-parameter) */

/* ---- Plans, and what they use ---- */

#define USES(function) (1U << (function))
#define PLAIN_SUMS     (USES(SUM) | USES(ADD))
#define ROUNDED_SUMS                                                                                                   \
    (USES(PACK) | USES(UNPACK) | USES(ROUNDED_SUM) | USES(ROUNDED_SUM_PACK) | USES(ROUNDED_SUM_PACKED) |               \
     USES(ROUNDED_ADD))

static const struct plan_case {
    struct plan_optimizer optimizer;
    enum plan_wire wire;
    bool table;
    enum plan_sync sync;
    unsigned uses; /* beside statistics and the model */
} cases[] = {
    {{.type = PLAN_SGD}, .uses = USES(SGD) | PLAIN_SUMS},
    {{.type = PLAN_SGD, .momentum = 0.9}, .wire = PLAN_BFLOAT16, .uses = USES(MOMENTUM) | ROUNDED_SUMS},
    {{.type = PLAN_SGD, .momentum = 0.9, .nesterov = true}, .uses = USES(NESTEROV) | PLAIN_SUMS},
    {{.type = PLAN_ADAGRAD, .epsilon = 1e-10}, .table = true, .uses = USES(ADAGRAD) | PLAIN_SUMS | USES(SPARSE_SUM)},
    {{.type = PLAN_RMSPROP, .decay = 0.99, .epsilon = 1e-8}, .uses = USES(RMSPROP) | PLAIN_SUMS},
    {{.type = PLAN_RMSPROP, .decay = 0.99, .momentum = 0.5, .epsilon = 1e-8},
     .wire = PLAN_BFLOAT16,
     .table = true,
     .uses = USES(RMSPROP_MOMENTUM) | ROUNDED_SUMS | USES(SPARSE_SUM)},
    {{.type = PLAN_ADAM, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8}, .uses = USES(ADAM) | PLAIN_SUMS},
    {{.type = PLAN_ADAMW, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8, .clip_norm = 1},
     .table = true,
     .uses = USES(ADAM) | USES(GRADIENT_SQUARES) | PLAIN_SUMS | USES(SPARSE_SUM)},
    {{.type = PLAN_SGD, .clip_norm = 1},
     .sync = PLAN_HOGWILD,
     .uses = USES(SGD) | USES(GRADIENT_SQUARES) | USES(CLIP) | PLAIN_SUMS},
    {{.type = PLAN_AMSGRAD, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8},
     .wire = PLAN_BFLOAT16,
     .uses = USES(AMSGRAD) | ROUNDED_SUMS},
    {{.type = PLAN_LAMB, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-6, .weight_decay = 0.01},
     .uses = USES(LAMB_UPDATE) | USES(LAMB_APPLY) | USES(SQUARES) | PLAIN_SUMS},
    {{.type = PLAN_LAMB, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-6},
     .table = true,
     .uses = USES(LAMB_UPDATE) | USES(LAMB_APPLY) | USES(SQUARES) | PLAIN_SUMS | USES(SPARSE_SUM)},
};
enum { CASES = sizeof cases / sizeof cases[0], SAMPLES = 100 };

static struct plan plan_of(const struct plan_case *of)
{
    struct plan plan = {.wire = of->wire,
                        .sync = of->sync,
                        .blocks = 4,
                        .shards = 1,
                        .training = {.epochs = 3, .batch_size = 32, .optimizer = of->optimizer}};
    plan.training.optimizer.learning_rate = 0.01;
    return plan;
}

static struct model *model_of(const struct plan_case *of)
{
    const struct network_sample image = {.shape = {1, 4, 4}, .classes = 3};
    const struct network_sample row = {.shape = {4, 1, 1}, .classes = 3, .categories = 2, .rows = 40};
    const struct network_spec spec = {.zoo = of->table ? "widedeep" : "mlp"};
    struct model *model = NULL;
    struct error err = {0};
    if (model_make(&model, &spec, of->table ? &row : &image, &err) < 0)
        fail_msg("%s", error_message(&err));
    return model;
}

struct digests {
    uint8_t shard[SHA256_SIZE], worker[SHA256_SIZE];
};

static struct digests sing(const struct plan *plan, const struct model *model, enum function function)
{
    struct digests out;
    struct error err = {0};
    spoilt = function;
    assert_int_equal(canary_of_shard(plan, model, SAMPLES, out.shard, &err), 0);
    assert_int_equal(canary_of_worker(plan, model, SAMPLES, out.worker, &err), 0);
    spoilt = NOTHING;
    return out;
}

static bool is_of_models(enum function function)
{
    return function == MODEL_GRADIENT || (function > MODEL_GRADIENT && numerics_kernel_fuses());
}

static void expect(bool heard, const uint8_t *digest, const uint8_t *right, const char *who, size_t number,
                   enum function function)
{
    if ((memcmp(digest, right, SHA256_SIZE) != 0) != heard)
        fail_msg("plan %zu: other bits of %s are %s by a %s's canary", number, names[function],
                 heard ? "not heard" : "heard without need", who);
}

static void other_bits_are_heard_where_they_count(void **state)
{
    (void)state;
    for (size_t i = 0; i < CASES; i++) {
        const struct plan plan = plan_of(&cases[i]);
        cleanup_model struct model *model = model_of(&cases[i]);
        const struct digests right = sing(&plan, model, NOTHING);
        for (enum function function = NOTHING; function < FUNCTIONS; function++) {
            const struct digests digests = sing(&plan, model, function);
            const bool used = function == STATISTIC || (cases[i].uses >> function & 1) != 0;
            expect(used, digests.shard, right.shard, "shard", i, function);
            const bool of_layers = function == SUM || function == ADD; /* they add vectors, too */
            if (used || !of_layers)
                expect(used || is_of_models(function), digests.worker, right.worker, "worker", i, function);
        }
    }
}

static void canaries_tell_plans_apart(void **state)
{
    (void)state;
    struct digests digests[CASES + 3];
    for (size_t i = 0; i < CASES + 3; i++) {
        const struct plan_case *of = &cases[i < CASES ? i : 6];
        struct plan plan = plan_of(of);
        cleanup_model struct model *model = model_of(of);
        plan.training.batch_size += i == CASES;
        plan.training.optimizer.schedule.type = i == CASES + 1 ? PLAN_SCHEDULE_COSINE : PLAN_SCHEDULE_CONSTANT;
        plan.training.optimizer.clip_value = i == CASES + 2 ? 0.1 : 0;
        digests[i] = sing(&plan, model, NOTHING);
        for (size_t j = 0; j < i; j++)
            assert_memory_not_equal(digests[i].shard, digests[j].shard, SHA256_SIZE);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(other_bits_are_heard_where_they_count),
        cmocka_unit_test(canaries_tell_plans_apart),
    };
    numerics_setup();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
