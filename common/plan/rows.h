/* rows — where every value of a plan stands, and which values are fit. Private to plan.
 *
 * A plan is read from two shapes: the objects that users write, and plan.json. Each row says where a value is in both;
 * a sentence names the field as users know it.
 */
#ifndef THOLE_COMMON_PLAN_ROWS_H
#define THOLE_COMMON_PLAN_ROWS_H

#include "common/plan/plan.h"

#include <stddef.h>

struct source {
    const cJSON *trainjob, *dataset; /* the objects, or … */
    const cJSON *plan;               /* … plan.json */
};

enum { PLAN_PATH_MOST = 255, PLAN_TEXT_MOST = 253 };

/* Where a value is. In plan.json it has the same path, below "dataset" for a Dataset's and without "spec"; or this. */
struct place {
    const char *path; /* "spec.training.epochs" */
    bool of_dataset;
    const char *plan_path; /* NULL: as above */
};
const cJSON *place_value(const struct source *source, const struct place *place);

enum number_type { U32, U64, F64 };

struct number_row {
    struct place place;
    size_t offset; /* in what is filled */
    double least, most;
    enum number_type type;
    bool above, below; /* the bound itself is not fit */
    bool optional;     /* `fallback` where absent */
    double fallback;
};
int read_number(void *into, const struct source *source, const struct number_row *row, struct error *err);
int read_numbers(void *into, const struct source *source, const struct number_row *rows, size_t count,
                 struct error *err);
double row_value(const void *from, const struct number_row *row);

int read_flag(const struct source *source, const struct place *place, bool fallback, bool *out, struct error *err);

/* Allocated; NULL where absent and optional. */
int read_text(const struct source *source, const struct place *place, size_t most, bool optional, char **out,
              struct error *err);
/* The same, and a relative path without "..". */
int read_path(const struct source *source, const struct place *place, bool optional, char **out, struct error *err);

/* *out is the index of the choice; `fallback` where absent, −1: needed. */
int read_choice(const struct source *source, const struct place *place, const char *const *choices, size_t count,
                int fallback, uint32_t *out, struct error *err);

/* The parts of a plan: what reads them, from either shape, and what writes them. */
int read_dataset(struct plan *plan, const struct source *source, struct error *err);
void add_dataset(cJSON *json, const struct plan *plan, bool *whole);
void free_dataset(struct plan *plan);

int read_training(struct plan *plan, const struct source *source, struct error *err);
void add_training(cJSON *json, const struct plan *plan, bool *whole);

int read_sync(struct plan *plan, const struct source *source, struct error *err);
void add_sync(cJSON *json, const struct plan *plan, bool *whole);

#endif
