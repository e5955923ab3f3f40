#include "model/gemm.h"
#include "model/graph.h"
#include "model/model.h"

#include "numerics/numerics.h"

#include <stdlib.h>

enum { SIZES_MOST = 4, ELEMENTARY_VALUES = 64 };

static const uint64_t canary_seed = UINT64_C(0x54686f6c65); /* "Thole" */

/* The sizes that blocks of a step of `samples` have: one, or two that follow each other. */
static uint32_t add_sizes(uint64_t samples, uint32_t blocks, uint32_t *sizes, uint32_t count)
{
    const uint64_t candidates[2] = {samples / blocks, samples % blocks == 0 ? 0 : samples / blocks + 1};
    for (int i = 0; i < 2; i++) {
        bool known = candidates[i] == 0;
        for (uint32_t j = 0; j < count; j++)
            known = known || sizes[j] == candidates[i];
        if (!known)
            sizes[count++] = (uint32_t)candidates[i];
    }
    return count;
}

enum { TABLE_ROWS = 16 };

struct canary {
    const struct model *model;
    struct workspace *workspace;
    float *params, *grad, *x;
    float *targets;
    uint32_t ids[TABLE_ROWS];
    struct model_rows rows[NETWORK_TABLES_MOST]; /* the first few of each table */
    float *row_values, *row_grads;
    struct sha256_stream *digest;
};

static uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* How many ids samples are made of, so that every table has them. */
static uint32_t ids_of(const struct network *network)
{
    uint32_t count = smaller(TABLE_ROWS, network->sample.rows);
    for (uint32_t i = 0; i < network->table_count; i++)
        count = smaller(count, network->tables[i].rows);
    return count;
}

static size_t row_floats(const struct network *network)
{
    size_t floats = 0;
    for (uint32_t i = 0; i < network->table_count; i++)
        floats += (size_t)ids_of(network) * network->tables[i].dim;
    return floats;
}

static void make_rows(struct canary *canary)
{
    const struct network *network = model_network(canary->model);
    const uint32_t count = ids_of(network);
    size_t at = 0;
    for (uint32_t i = 0; i < count; i++)
        canary->ids[i] = i;
    for (uint32_t i = 0; i < network->table_count; i++) {
        const struct network_table *table = &network->tables[i];
        const size_t floats = (size_t)count * table->dim;
        random_uniform_range(random_stream(canary_seed, RANDOM_CANARY, 3, i, 0), 0, floats, -table->bound, table->bound,
                             canary->row_values + at);
        canary->rows[i] = (struct model_rows){count, canary->ids, canary->row_values + at, canary->row_grads + at};
        at += floats;
    }
}

static void make_samples(struct canary *canary, uint32_t n)
{
    const struct network_sample *sample = &model_network(canary->model)->sample;
    const uint64_t size = model_sample_size(canary->model);
    random_uniform_range(random_stream(canary_seed, RANDOM_CANARY, 1, 0, n), 0, n * size, -1, 2, canary->x);
    struct random_stream ids = random_stream(canary_seed, RANDOM_CANARY, 4, 0, n);
    struct random_stream targets = random_stream(canary_seed, RANDOM_CANARY, 2, 0, n);
    const uint32_t rows = ids_of(model_network(canary->model));
    for (uint32_t i = 0; i < n; i++) {
        for (uint64_t j = size - sample->categories; j < size; j++)
            canary->x[i * size + j] = (float)(random_u32_at(ids, i * size + j) % rows);
        const uint32_t target = random_u32_at(targets, i);
        canary->targets[i] = sample->classes > 0 ? (float)(target % sample->classes) : (float)target * 0x1p-32F;
    }
}

/* One block's numbers, for n samples. */
static void sing(struct canary *canary, uint32_t n)
{
    const struct network *network = model_network(canary->model);
    const uint64_t parameters = model_parameters(canary->model);
    make_samples(canary, n);
    const struct model_batch batch = {
        .n = n, .x = canary->x, .targets = canary->targets, .place = {canary_seed, 0, n}, .rows = canary->rows};
    double loss = model_gradient(canary->model, canary->params, &batch, canary->grad, canary->workspace);
    struct evaluation evaluation = model_evaluate(canary->model, canary->params, &batch, canary->workspace);
    sha256_stream_add(canary->digest, &loss, sizeof loss);
    sha256_stream_add(canary->digest, &evaluation.loss_sum, sizeof evaluation.loss_sum);
    sha256_stream_add(canary->digest, &evaluation.correct, sizeof evaluation.correct);
    sha256_stream_add(canary->digest, canary->grad, parameters * sizeof *canary->grad);
    sha256_stream_add(canary->digest, canary->row_grads, row_floats(network) * sizeof(float));
}

/* Products that step over zeros, in all their forms: which of them a model's own come to depends on where its zeros
 * are. The stripes are of each number of registers. */
static void sing_sparse(const struct model *model, struct sha256_stream *digest)
{
    enum { M = 5, K = 80, N_MOST = 144, FEW_K = 16 };
    float a[GEMM_SUM_MOST][M * K], b[K * N_MOST], c[M * N_MOST];
    struct gemm_factors factors[GEMM_SUM_MOST];
    random_uniform_range(random_stream(canary_seed, RANDOM_CANARY, 6, 0, 0), 0, (uint64_t)K * N_MOST, -1, 1, b);
    for (uint32_t i = 0; i < GEMM_SUM_MOST; i++) {
        random_uniform_range(random_stream(canary_seed, RANDOM_CANARY, 5, i, 0), 0, (uint64_t)M * K, -1, 1, a[i]);
        for (uint32_t j = 0; j < M * K; j++)
            a[i][j] = j % 4 == i ? a[i][j] : 0;
    }
    for (enum gemm_form form = GEMM_NN; form <= GEMM_TN; form++)
        for (uint32_t n = 16; n <= N_MOST; n += 16)
            for (uint32_t count = 1; count <= GEMM_SUM_MOST; count *= 2) {
                const uint32_t k = n % 32 == 0 ? FEW_K : K;
                for (uint32_t i = 0; i < count; i++)
                    factors[i] = (struct gemm_factors){k, a[i], form == GEMM_TN ? M : k, b, n};
                for (uint32_t rounded = 0; rounded < 2; rounded++)
                    if (gemm_sparse(model->unit, form, M, n, factors, count, rounded > 0, c, n))
                        sha256_stream_add(digest, c, (size_t)M * n * sizeof c[0]);
            }
}

static void sing_elementary(struct sha256_stream *digest)
{
    struct random_stream stream = random_stream(canary_seed, RANDOM_CANARY, 0, 0, 0);
    for (uint64_t i = 0; i < ELEMENTARY_VALUES; i++) {
        double x = (double)random_u32_at(stream, i) * 0x1p-24;
        const double values[2] = {numerics_exp(100 - x), numerics_log(x)};
        sha256_stream_add(digest, values, sizeof values);
    }
}

int model_canary(const struct model *model, uint32_t batch, uint32_t blocks, uint64_t train_samples,
                 uint8_t out[SHA256_SIZE], struct error *err)
{
    uint32_t sizes[SIZES_MOST];
    uint32_t count = add_sizes(train_samples < batch ? train_samples : batch, blocks, sizes, 0);
    count = add_sizes(train_samples % batch, blocks, sizes, count);
    uint32_t most = 1;
    for (uint32_t i = 0; i < count; i++)
        most = sizes[i] > most ? sizes[i] : most;

    const uint64_t parameters = model_parameters(model);
    cleanup_workspace struct workspace *workspace = NULL;
    if (workspace_new(&workspace, model, most, err) < 0)
        return -1;
    cleanup_free float *vectors = calloc(2 * parameters, sizeof *vectors);
    cleanup_free float *x = malloc(most * model_sample_size(model) * sizeof *x);
    cleanup_free float *targets = malloc(most * sizeof *targets);
    const size_t floats = row_floats(model_network(model));
    cleanup_free float *rows = calloc(2 * floats + 1, sizeof *rows);
    if (vectors == NULL || x == NULL || targets == NULL || rows == NULL)
        return error_set(err, "out of memory for checking this machine's arithmetic");
    cleanup_sha256_stream struct sha256_stream *digest = sha256_stream_new();
    struct canary canary = {
        .model = model,
        .workspace = workspace,
        .params = vectors,
        .grad = vectors + parameters,
        .x = x,
        .targets = targets,
        .row_values = rows,
        .row_grads = rows + floats,
        .digest = digest,
    };
    sing_elementary(digest);
    sing_sparse(model, digest);
    make_rows(&canary);
    model_init_range(model, canary_seed, 0, parameters, canary.params);
    for (uint32_t i = 0; i < count; i++)
        sing(&canary, sizes[i]);
    sha256_stream_end(digest, out);
    return 0;
}
