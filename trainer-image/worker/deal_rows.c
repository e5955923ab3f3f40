/* Rows of embedding tables for what is dealt: wanted as soon as it is known, pushed with its nodes. */
#include "worker/state.h"

static void send_rows(void *arg, uint32_t shard, const struct frame *frame, struct payload *payload)
{
    struct worker *worker = arg;
    struct frame termed = *frame;
    termed.term = worker->term;
    if (worker->links[shard].ready)
        conn_send(worker->links[shard].conn, &termed, payload);
}

int deal_rows_init(struct worker *worker, struct error *err)
{
    const struct worker_options *options = &worker->options;
    struct rows_hooks hooks = {.send = send_rows, .arg = worker};
    return rows_new(&worker->rows, options->net, options->plan, options->model, &hooks, err);
}

static uint64_t samples_of(const struct worker *worker, uint64_t step)
{
    const struct schedule schedule = schedule_of(worker->options.plan, dataset_samples(worker->options.train));
    return schedule_step(&schedule, step).count;
}

/* Samples [begin, end) of a step. */
static int want_samples(struct worker *worker, uint64_t step, uint64_t begin, uint64_t end, uint64_t version,
                        uint64_t attempt, struct error *err)
{
    const struct plan *plan = worker->options.plan;
    const struct schedule schedule = schedule_of(plan, dataset_samples(worker->options.train));
    const struct schedule_step of = schedule_step(&schedule, step);
    const struct permutation order = permutation_of_epoch(schedule.samples, plan->training.seed, (uint32_t)of.epoch);
    const struct rows_range range = {.dataset = worker->options.train,
                                     .order = &order,
                                     .epoch = of.epoch,
                                     .first = of.first + begin,
                                     .count = end - begin,
                                     .version = version,
                                     .attempt = attempt};
    return rows_want(worker->rows, &range, err);
}

static int want_blocks(struct worker *worker, const struct deal *deal, struct error *err)
{
    const struct tree tree = tree_of(worker->options.plan->blocks);
    const uint64_t samples = samples_of(worker, deal->step);
    return want_samples(worker, deal->step, tree_block(tree, samples, deal->first).begin,
                        tree_block(tree, samples, deal->first + deal->count - 1).end, deal->step, 0, err);
}

static int want_validation(struct worker *worker, const struct deal *deal, struct error *err)
{
    const uint64_t samples = dataset_samples(worker->options.test);
    const uint64_t first = (uint64_t)deal->first * VALIDATION_BLOCK;
    const uint64_t end = first + (uint64_t)deal->count * VALIDATION_BLOCK;
    const struct rows_range range = {.dataset = worker->options.test,
                                     .first = first,
                                     .count = (end < samples ? end : samples) - first,
                                     .version = deal->step};
    return rows_want(worker->rows, &range, err);
}

bool deal_rows_here(struct worker *worker, const struct deal *deal)
{
    struct error err = {0};
    if (worker->rows == NULL)
        return true;
    if ((deal->validate ? want_validation(worker, deal, &err) : want_blocks(worker, deal, &err)) < 0) {
        worker_fail(worker, "%s", error_message(&err));
        return false;
    }
    return rows_here(worker->rows);
}

bool deal_rows_step_here(struct worker *worker, uint64_t step, uint64_t attempt)
{
    struct error err = {0};
    if (worker->rows == NULL)
        return true;
    if (want_samples(worker, step, 0, samples_of(worker, step), WIRE_NEWEST, attempt, &err) < 0) {
        worker_fail(worker, "%s", error_message(&err));
        return false;
    }
    return rows_here(worker->rows);
}

const struct model_rows *deal_rows_next_block(struct worker *worker, const float *x, uint32_t n)
{
    const struct model_rows *rows = rows_next_block(worker->rows, x, n);
    if (rows == NULL)
        worker_fail(worker, "gather the rows of a block: no memory");
    return rows;
}

bool deal_rows_push_part(struct worker *worker, const struct frame *frame, uint32_t table, uint32_t shard)
{
    bool pushed = rows_push_part(worker->rows, frame, table, shard) == 0;
    if (!pushed)
        worker_fail(worker, "push gradients of rows: no memory");
    return pushed;
}

const struct model_rows *deal_rows_block(struct worker *worker, uint32_t block, const float *x, uint32_t n)
{
    const struct model_rows *rows = rows_block(worker->rows, block, x, n);
    if (rows == NULL)
        worker_fail(worker, "gather the rows of a block: no memory");
    return rows;
}

void deal_rows_push(struct worker *worker, uint64_t step, uint32_t node)
{
    const struct frame frame = {.step = step, .node = node};
    struct error err = {0};
    if (rows_push(worker->rows, &frame, samples_of(worker, step), &err) < 0)
        worker_fail(worker, "%s", error_message(&err));
}

void *deal_rows_place(struct link *link, struct conn *conn, const struct frame *frame, struct error *err)
{
    if (link->worker->rows == NULL) {
        error_set(err, "shard %u sent rows of a table, and the model has none", link->shard);
        return NULL;
    }
    bool wanted;
    if (rows_check(link->worker->rows, link->shard, frame, &wanted, err) < 0)
        return NULL;
    void *place = conn_scratch(conn, frame->length);
    if (place == NULL)
        error_set(err, "receive rows of a table: no memory");
    return place;
}

int deal_rows_received(struct link *link, const struct frame *frame, const void *payload, struct error *err)
{
    /* Looked at once more: what is wanted may have changed while the payload came. */
    bool wanted = false;
    if (link->worker->rows == NULL)
        return error_set(err, "shard %u sent rows of a table, and the model has none", link->shard);
    if (rows_check(link->worker->rows, link->shard, frame, &wanted, err) < 0)
        return -1;
    if (wanted)
        rows_received(link->worker->rows, link->shard, frame, payload);
    return 0;
}
