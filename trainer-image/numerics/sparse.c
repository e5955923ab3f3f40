#include "numerics/sparse.h"

#include <stdlib.h>
#include <string.h>

int sparse_reserve(struct sparse *sparse, uint32_t count)
{
    if (count <= sparse->capacity)
        return 0;
    uint32_t capacity = sparse->capacity < UINT32_MAX / 2 ? 2 * sparse->capacity : UINT32_MAX;
    capacity = capacity < count ? count : capacity;
    /* One after the other: where only the first succeeds, it is merely larger than it had to be. */
    uint32_t *ids = realloc(sparse->ids, capacity * sizeof *ids);
    if (ids == NULL)
        return -1;
    sparse->ids = ids;
    float *rows = realloc(sparse->rows, (size_t)capacity * sparse->dim * sizeof *rows);
    if (rows == NULL)
        return -1;
    sparse->rows = rows;
    sparse->capacity = capacity;
    return 0;
}

void sparse_free(struct sparse *sparse)
{
    free(sparse->ids);
    free(sparse->rows);
    *sparse = (struct sparse){.dim = sparse->dim, .bfloat16 = sparse->bfloat16};
}

uint32_t sparse_lower_bound(const uint32_t *ids, uint32_t count, uint32_t id)
{
    uint32_t low = 0;
    uint32_t high = count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (ids[middle] < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

uint32_t sparse_find(const uint32_t *ids, uint32_t count, uint32_t id)
{
    uint32_t at = sparse_lower_bound(ids, count, id);
    return at < count && ids[at] == id ? at : count;
}

enum { DIGIT_BITS = 8, DIGITS = 1 << DIGIT_BITS };

/* One pass of a stable radix sort, by the digit that begins at bit `shift`. */
static void sort_by_digit(const uint32_t *in, uint32_t *out, uint32_t count, unsigned shift)
{
    uint32_t begins[DIGITS + 1] = {0};
    for (uint32_t i = 0; i < count; i++)
        begins[(in[i] >> shift) % DIGITS + 1]++;
    for (uint32_t digit = 0; digit < DIGITS; digit++)
        begins[digit + 1] += begins[digit];
    for (uint32_t i = 0; i < count; i++)
        out[begins[(in[i] >> shift) % DIGITS]++] = in[i];
}

uint32_t sparse_unique(uint32_t *ids, uint32_t count, uint32_t *scratch)
{
    for (unsigned shift = 0; shift < 32; shift += 2 * DIGIT_BITS) {
        sort_by_digit(ids, scratch, count, shift);
        sort_by_digit(scratch, ids, count, shift + DIGIT_BITS);
    }
    uint32_t kept = 0;
    for (uint32_t i = 0; i < count; i++)
        if (kept == 0 || ids[i] != ids[kept - 1])
            ids[kept++] = ids[i];
    return kept;
}

/* How many ids both have. */
static uint32_t common_ids(const struct sparse *left, const struct sparse *right)
{
    uint32_t common = 0;
    for (uint32_t l = 0, r = 0; l < left->count && r < right->count;) {
        uint32_t a = left->ids[l];
        uint32_t b = right->ids[r];
        common += a == b;
        l += a <= b;
        r += b <= a;
    }
    return common;
}

/* Rows [at, at + rows) of `from` behind what is in `out` already. */
static void append(struct sparse *out, const struct sparse *from, uint32_t at, uint32_t rows)
{
    if (rows == 0)
        return;
    const size_t dim = out->dim;
    memcpy(out->ids + out->count, from->ids + at, rows * sizeof *out->ids);
    memcpy(out->rows + out->count * dim, from->rows + at * dim, rows * dim * sizeof *out->rows);
    out->count += rows;
}

int sparse_sum(struct sparse *out, const struct sparse *left, const struct sparse *right)
{
    if (sparse_reserve(out, left->count + right->count - common_ids(left, right)) < 0)
        return -1;
    const size_t dim = out->dim;
    out->count = 0;
    uint32_t l = 0;
    uint32_t r = 0;
    while (l < left->count && r < right->count) {
        uint32_t a = left->ids[l];
        uint32_t b = right->ids[r];
        if (a != b) {
            append(out, a < b ? left : right, a < b ? l++ : r++, 1);
            continue;
        }
        float *row = out->rows + out->count * dim;
        out->ids[out->count++] = a;
        const float *const a_row = left->rows + l++ * dim;
        const float *const b_row = right->rows + r++ * dim;
        if (out->bfloat16)
            vector_bfloat16_sum(row, a_row, b_row, dim);
        else
            vector_sum(row, a_row, b_row, dim);
    }
    append(out, left, l, left->count - l);
    append(out, right, r, right->count - r);
    return 0;
}

/* ---- The tree ---- */

bool sparse_tree_complete(struct tree tree, uint64_t samples, uint32_t node, struct sparse *const *values)
{
    if (values[node] != NULL || tree_node_empty(tree, samples, node))
        return true;
    return !tree_is_leaf(tree, node) && sparse_tree_complete(tree, samples, 2 * node, values) &&
           sparse_tree_complete(tree, samples, 2 * node + 1, values);
}

/* What is made goes into `scratch[side]` of the node's level; levels below use what follows. */
static const struct sparse *value_of(struct tree tree, uint64_t samples, uint32_t node, struct sparse *const *values,
                                     struct sparse *scratch, uint32_t side)
{
    if (values[node] != NULL)
        return values[node];
    if (tree_node_empty(tree, samples, 2 * node + 1))
        return value_of(tree, samples, 2 * node, values, scratch, side);
    if (tree_node_empty(tree, samples, 2 * node))
        return value_of(tree, samples, 2 * node + 1, values, scratch, side);
    const struct sparse *left = value_of(tree, samples, 2 * node, values, scratch + 2, 0);
    const struct sparse *right = left == NULL ? NULL : value_of(tree, samples, 2 * node + 1, values, scratch + 2, 1);
    if (right == NULL || sparse_sum(&scratch[side], left, right) < 0)
        return NULL;
    return &scratch[side];
}

const struct sparse *sparse_tree_value(struct tree tree, uint64_t samples, uint32_t node, struct sparse *const *values,
                                       struct sparse scratch[SPARSE_SCRATCH])
{
    return value_of(tree, samples, node, values, scratch, 0);
}
