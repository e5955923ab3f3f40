/* columns — what each column of a CSV file is: the label, a number, or a category. Private to data.
 *
 * In a sample the numbers come first, in the file's order, then the ids of categories, in the plan's.
 */
#ifndef THOLE_DATA_COLUMNS_H
#define THOLE_DATA_COLUMNS_H

#include "data/content.h"
#include "data/text.h"

struct word {
    const char *text; /* the plan's */
    uint32_t id;
};

struct columns {
    const struct plan *plan;
    uint32_t count;   /* of the file */
    uint32_t label;   /* which of them */
    uint32_t numeric; /* how many */
    uint32_t *places; /* [count]: in the sample; the label's means nothing */
    char **names;     /* [count]; NULL without a header */
    struct {
        uint32_t base;      /* the first id */
        struct word *words; /* sorted by text; NULL: hashed */
    } categories[PLAN_CATEGORICAL_MOST];
};

/* From the file's first record. */
int columns_of(struct columns *out, const struct plan *plan, const struct record *first, const char *name,
               struct error *err);
void columns_free(struct columns *columns);
#define cleanup_columns CLEANUP(columns_free)

/* For sentences: "'price'", or "3" (from 0). */
struct shown columns_name(const struct columns *columns, uint32_t column);

/* The id of a text in the `index`th column of categories: rows are below plan_category_rows(). */
uint32_t columns_id(const struct columns *columns, uint32_t index, struct span text);

/* Is it empty, or what the plan has for it? */
bool columns_is_missing(const struct plan *plan, struct span text);

#endif
