/* model_bench — samples a core computes in a second: gradients and updates, without servers or sockets.
 *
 *   model_bench [MODEL [BATCH [BLOCKS [SECONDS]]]]       e.g. model_bench lenet 128 8 2
 *
 * Prints one line a model: name, batch, blocks, samples/s (the median of repeated stretches), loss. What is timed is
 * a whole training step: copying the samples, gradients of all blocks, the tree, the optimizer.
 */
#include "model/model.h"
#include "numerics/numerics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { STRETCHES = 9, SET = 4096 };

struct bench {
    struct model *model;
    struct workspace *workspace;
    struct tree tree;
    uint32_t batch;
    float *params, *velocity, *sum, *scratch, *x, *batch_x;
    int32_t *labels;
    uint64_t step;
};

static int leaf(void *arg, uint32_t block, struct block_range range, float *out, double *loss)
{
    (void)block;
    struct bench *bench = arg;
    const size_t size = model_sample_size(bench->model);
    const uint32_t n = (uint32_t)(range.end - range.begin);
    const uint64_t first = (bench->step * bench->batch + range.begin) % (SET - n);
    memcpy(bench->batch_x, bench->x + first * size, n * size * sizeof *bench->x);
    *loss =
        model_gradient(bench->model, bench->params, bench->batch_x, bench->labels + first, n, out, bench->workspace);
    return 0;
}

static double train(struct bench *bench)
{
    const uint64_t parameters = model_parameters(bench->model);
    const struct sgd sgd = sgd_of(0.01, 0.9, 0, bench->batch);
    double loss = 0;
    tree_reduce(bench->tree, bench->batch, TREE_ROOT, parameters, leaf, bench, bench->scratch, bench->sum, &loss);
    vector_sgd(&sgd, bench->params, bench->params, bench->velocity, bench->sum, parameters);
    bench->step++;
    return loss / bench->batch;
}

/* Time that this thread has had a core for, so that other programs on the machine count little. */
static double core_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static int ascending(const void *a, const void *b)
{
    const double *left = a;
    const double *right = b;
    return (*left > *right) - (*left < *right);
}

static int run(enum plan_model zoo, uint32_t batch, uint32_t blocks, double seconds, struct error *err)
{
    cleanup_model struct model *model = NULL;
    cleanup_workspace struct workspace *workspace = NULL;
    if (model_build(&model, zoo, (const uint32_t[]){1, 28, 28}, 10, err) < 0 ||
        workspace_new(&workspace, model, batch / blocks + 1, err) < 0)
        return -1;
    const uint64_t parameters = model_parameters(model);
    const size_t size = model_sample_size(model);
    struct bench bench = {.model = model, .workspace = workspace, .tree = tree_of(blocks), .batch = batch};
    const size_t rows = tree_scratch_rows(bench.tree, TREE_ROOT);
    cleanup_free float *memory = calloc(parameters * (3 + rows) + (SET + batch / blocks + 1) * size, sizeof *memory);
    cleanup_free int32_t *labels = malloc(SET * sizeof *labels);
    if (memory == NULL || labels == NULL)
        return error_set(err, "out of memory");
    bench.params = memory;
    bench.velocity = bench.params + parameters;
    bench.sum = bench.velocity + parameters;
    bench.scratch = bench.sum + parameters;
    bench.x = bench.scratch + rows * parameters;
    bench.batch_x = bench.x + SET * size;
    bench.labels = labels;
    model_init_range(model, 1, 0, parameters, bench.params);
    random_uniform_range(random_stream(1, RANDOM_CANARY, 9, 0, 0), 0, SET * size, -1, 2, bench.x);
    for (uint32_t i = 0; i < SET; i++)
        labels[i] = (int32_t)(random_u32_at(random_stream(1, RANDOM_CANARY, 10, 0, 0), i) % 10);

    double rates[STRETCHES];
    double loss = 0;
    for (int stretch = -1; stretch < STRETCHES; stretch++) { /* the first warms up */
        double begin = core_seconds();
        uint64_t first = bench.step;
        while (core_seconds() - begin < seconds / STRETCHES)
            for (int i = 0; i < 8; i++)
                loss = train(&bench);
        if (stretch >= 0)
            rates[stretch] = (double)((bench.step - first) * batch) / (core_seconds() - begin);
    }
    qsort(rates, STRETCHES, sizeof rates[0], ascending);
    printf("%-6s batch %4u blocks %2u kernel %-10s %9.0f samples/s (%.0f to %.0f) loss %.4f\n", model_name(model),
           batch, blocks, numerics_kernel(), rates[STRETCHES / 2], rates[0], rates[STRETCHES - 1], loss);
    return 0;
}

int main(int argc, char *argv[])
{
    struct error err = {0};
    numerics_setup();
    uint32_t batch = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 128;
    uint32_t blocks = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 8;
    double seconds = argc > 4 ? strtod(argv[4], NULL) : 2;
    if (batch < 1 || batch > SET / 2 || blocks < 1 || blocks > batch) {
        fprintf(stderr, "usage: model_bench [mlp|lenet [BATCH [BLOCKS [SECONDS]]]]\n");
        return 2;
    }
    for (enum plan_model zoo = PLAN_MODEL_MLP; zoo <= PLAN_MODEL_LENET; zoo++) {
        if (argc > 1 && strcmp(argv[1], plan_model_name(zoo)) != 0)
            continue;
        if (run(zoo, batch, blocks, seconds, &err) < 0) {
            fprintf(stderr, "model_bench: %s\n", error_message(&err));
            return 1;
        }
    }
    return 0;
}
