#include "worker/work.h"

void work_clear(struct work *work)
{
    work->count = 0;
    work->next_step = 0;
    work->settled = 0;
}

int work_add(struct work *work, const struct deal *deal, struct error *err)
{
    if (work->count == WORK_MOST)
        return error_set(err, "the coordinator has dealt more than %d ranges of blocks that are not over", WORK_MOST);
    work->deals[work->count++] = *deal;
    /* A validation is with the parameters of the next step, which may be another's to compute. */
    uint64_t next_step = deal->validate ? deal->step : deal->step + 1;
    if (next_step > work->next_step)
        work->next_step = next_step;
    return 0;
}

static void settle(struct work *work, struct deal *deal)
{
    if (!deal->settled)
        work->settled += deal->count;
    deal->settled = true;
}

/* A validation has ended once a step is dealt with its parameters; of steps, at most two are open at a time. */
static bool is_over(const struct work *work, const struct deal *deal, const struct parameters *parameters)
{
    if (deal->validate)
        return deal->computed || deal->step < work->next_step;
    return deal->step + 2 < work->next_step || parameters_over(parameters, deal->step);
}

void work_drop_over(struct work *work, const struct parameters *parameters)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < work->count; i++) {
        struct deal *deal = &work->deals[i];
        if (is_over(work, deal, parameters))
            settle(work, deal);
        else
            work->deals[kept++] = *deal;
    }
    work->count = kept;
}

const struct deal *work_next(const struct work *work)
{
    const struct deal *next = NULL;
    for (uint32_t i = 0; i < work->count; i++) {
        const struct deal *deal = &work->deals[i];
        if (!deal->computed && (next == NULL || deal->step < next->step))
            next = deal;
    }
    return next;
}

void work_computed(struct work *work, const struct deal *deal)
{
    for (uint32_t i = 0; i < work->count; i++) {
        struct deal *own = &work->deals[i];
        if (own->computed || own->validate != deal->validate || own->step != deal->step || own->first != deal->first ||
            own->count != deal->count)
            continue;
        own->computed = true;
        settle(work, own);
        return;
    }
}

void work_again(struct work *work)
{
    for (uint32_t i = 0; i < work->count; i++)
        if (!work->deals[i].validate)
            work->deals[i].computed = false;
}
