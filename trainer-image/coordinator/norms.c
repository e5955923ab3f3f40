#include "coordinator/norms.h"

#include "numerics/exact_sum.h"
#include "optimizer/optimizer.h"

#include <stdlib.h>
#include <string.h>

struct norms {
    struct optimizer *optimizer;
    uint32_t rounds, shards;
    bool has_rows;
    uint64_t first[PLAN_SHARDS_MOST + 1]; /* canonical chunks before each shard's */
    uint64_t step;
    uint32_t round;
    uint64_t arrived[PLAN_SHARDS_MOST]; /* doubles of this round */
    uint32_t waits;                     /* shards whose measures are not all here */
    double *measures;                   /* of all canonical chunks, in order */
    double rows[PLAN_SHARDS_MOST][EXACT_SUM_DOUBLES];
    struct exact_sum row_squares; /* of the shards whose measures are all here */
    double *scalars;
    uint32_t scalar_count;
};

static void begin_round(struct norms *norms)
{
    norms->row_squares = (struct exact_sum){0};
    memset(norms->arrived, 0, sizeof norms->arrived);
    norms->waits = norms->shards;
}

int norms_new(struct norms **out, const struct plan *plan, const struct network *network, struct error *err)
{
    const struct plan_optimizer *of = &plan->training.optimizer;
    cleanup_norms struct norms *norms = calloc(1, sizeof *norms);
    if (norms == NULL)
        return error_set(err, "make room for norms: no memory");
    if (optimizer_new(&norms->optimizer, of, network->tensors, network->tensor_count, network_chunk(network), err) < 0)
        return -1;
    norms->rounds = optimizer_rounds(of);
    norms->shards = plan->shards;
    norms->has_rows = network->table_count > 0;
    uint64_t begin;
    uint64_t end = 0;
    for (uint32_t shard = 0; shard < plan->shards; shard++) {
        network_shard_range(network, plan->shards, shard, &begin, &end);
        norms->first[shard] = optimizer_chunks(norms->optimizer, begin);
    }
    norms->first[plan->shards] = optimizer_chunks(norms->optimizer, end);
    norms->measures = calloc(norms->first[plan->shards], OPTIMIZER_MEASURES_MOST * sizeof *norms->measures);
    norms->scalars = calloc((size_t)network->tensor_count + 1, sizeof *norms->scalars);
    if (norms->measures == NULL || norms->scalars == NULL)
        return error_set(err, "make room for norms: no memory");
    begin_round(norms);
    *out = move(norms);
    return 0;
}

void norms_free(struct norms *norms)
{
    if (norms == NULL)
        return;
    optimizer_free(norms->optimizer);
    free(norms->measures);
    free(norms->scalars);
    free(norms);
}

static int complete(struct norms *norms)
{
    optimizer_fold(norms->optimizer, norms->round, norms->measures, exact_sum_value(&norms->row_squares),
                   norms->scalars);
    norms->scalar_count = optimizer_scalars(norms->optimizer, norms->round);
    if (++norms->round == norms->rounds) {
        norms->round = 0;
        norms->step++;
    }
    begin_round(norms);
    return 1;
}

/* A shard's measures from `first` on: of its chunks, of its rows, or the end of the former and the beginning of the
 * latter. */
static void keep(struct norms *norms, uint32_t shard, uint64_t first, const double *measures, uint64_t count)
{
    const uint64_t width = optimizer_measures(norms->optimizer, norms->round);
    const uint64_t of_chunks = (norms->first[shard + 1] - norms->first[shard]) * width;
    uint64_t kept = 0;
    if (first < of_chunks) {
        kept = count < of_chunks - first ? count : of_chunks - first;
        memcpy(norms->measures + norms->first[shard] * width + first, measures, kept * sizeof *measures);
    }
    if (kept < count)
        memcpy(norms->rows[shard] + (first + kept - of_chunks), measures + kept, (count - kept) * sizeof *measures);
}

int norms_add(struct norms *norms, uint32_t shard, uint64_t step, uint32_t round, uint64_t first, const void *measures,
              size_t bytes, struct error *err)
{
    if (step < norms->step || (step == norms->step && round < norms->round))
        return 0;
    if (norms->rounds == 0 || step > norms->step || round > norms->round)
        return error_set(err, "shard %u has measured round %u of step %llu before it could", shard, round,
                         (unsigned long long)step);
    const uint64_t of_rows = norms->has_rows ? optimizer_row_measures(norms->optimizer, round) : 0;
    const uint64_t of_chunk = optimizer_measures(norms->optimizer, round);
    const uint64_t all = (norms->first[shard + 1] - norms->first[shard]) * of_chunk + of_rows;
    const uint64_t count = bytes / sizeof(double);
    if (bytes % sizeof(double) != 0 || count == 0 || first > norms->arrived[shard] || count > all ||
        first > all - count)
        return error_set(
            err, "shard %u sent %zu bytes of measures from %llu on, and has %llu measures, of which %llu came", shard,
            bytes, (unsigned long long)first, (unsigned long long)all, (unsigned long long)norms->arrived[shard]);
    if (first + count <= norms->arrived[shard])
        return 0;
    keep(norms, shard, first, measures, count);
    if (first + count == all && of_rows > 0 && exact_sum_read(&norms->row_squares, norms->rows[shard], err) < 0)
        return -1;
    norms->arrived[shard] = first + count;
    if (norms->arrived[shard] < all || --norms->waits > 0)
        return 0;
    return complete(norms);
}

const double *norms_scalars(const struct norms *norms, uint32_t *count)
{
    *count = norms->scalar_count;
    return norms->scalars;
}
