/* numerics — arithmetic that gives the same bits on every machine, for every number of workers, shards and threads.
 *
 * Randomness that is a function of its place, orders that are computed and not stored, the fixed tree in which a
 * step's gradients are added, vector arithmetic whose result does not depend on the vector unit, exp and log of our
 * own (the C library picks its own by CPU), and control of the one library whose bits depend on the CPU: OpenBLAS.
 * Built with -ffp-contract=off and without any fast-math option; all else rests on that.
 * May call common. Everything here is safe to call from any thread, except where OpenBLAS is set up.
 */
#ifndef THOLE_NUMERICS_NUMERICS_H
#define THOLE_NUMERICS_NUMERICS_H

#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- Randomness: Philox4x32-10, counter-based (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as
 * 1, 2, 3", SC 2011). A value depends on (seed, purpose, layer, epoch, step, position) and on nothing else. ---- */

/* The bijection itself: out = Philox4x32-10(counter, key). */
void philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/* What a value is for; numbers are part of what a seed means and never change. */
enum random_purpose {
    RANDOM_INIT = 1,    /* initial parameters; layer: the tensor's index */
    RANDOM_ORDER = 2,   /* an epoch's order of samples */
    RANDOM_CANARY = 3,  /* inputs of the canary */
    RANDOM_TABLE = 4,   /* initial rows of embedding tables; layer: the table's index; position: row·dim + place */
    RANDOM_DROPOUT = 5, /* layer: the layer's index; position: (the sample's in the order)·size + element */
    RANDOM_AUGMENT = 6, /* moved and mirrored images; position: 4·sample + which; seed: the order's key */
};

/* One place's sequence of values, addressed by position; 8 bytes, copied freely. Its key is the first half of
 * Philox(seed; epoch, step, purpose, layer). */
struct random_stream {
    uint32_t key[2];
};

struct random_stream random_stream(uint64_t seed, enum random_purpose purpose, uint32_t layer, uint32_t epoch,
                                   uint64_t step);

/* The value at `position`: word position % 4 of Philox(key; position / 4). */
uint32_t random_u32_at(struct random_stream stream, uint64_t position);

/* Values at [begin, end) as floats low + u·(high − low), u in [0, 1) in steps of 2^-24. */
void random_uniform_range(struct random_stream stream, uint64_t begin, uint64_t end, float low, float high, float *out);

/* ---- Orders ---- */

/* A keyed bijection of [0, n), n ≥ 1; 32 bytes, copied freely. */
struct permutation {
    uint64_t n;
    uint64_t left, right; /* sides of the Feistel network: left·right ≥ n */
    struct random_stream stream;
};

/* The order of an epoch's samples (epoch from 0). */
struct permutation permutation_of_epoch(uint64_t n, uint64_t seed, uint32_t epoch);

/* Where `index` < n goes; O(1), no memory. A generalised Feistel network over left·right, walked until the value is
 * below n (Black and Rogaway: "Ciphers with arbitrary finite domains", CT-RSA 2002). */
uint64_t permutation_at(const struct permutation *permutation, uint64_t index);

/* ---- The fixed tree over a step's blocks ----
 *
 * B blocks, P the next power of two: nodes are numbered like a heap, root 1, children 2i and 2i+1, leaves P … 2P−1;
 * block b is leaf P+b. A node is empty where no block below it has samples: leaves from P+B on, and blocks without
 * samples when a step has fewer than B. A node's value is the sum of its children's, left + right; with one empty child
 * it is the other's, unchanged; an empty node has none. In these functions `samples` is the number in this step. */

struct tree {
    uint32_t blocks; /* B ≥ 1 */
    uint32_t leaves; /* P */
};

enum {
    TREE_ROOT = 1,
    TREE_BLOCKS_MOST = 1 << 16,
    TREE_COVER_MOST = 32, /* nodes that cover a contiguous range: at most 2·log2(P) */
    TREE_DEPTH_MOST = 16,
};

struct tree tree_of(uint32_t blocks); /* 1 ≤ blocks ≤ TREE_BLOCKS_MOST */

/* Samples [begin, end) of the step that are block b's: [⌊b·n/B⌋, ⌊(b+1)·n/B⌋). */
struct block_range {
    uint64_t begin, end;
};
struct block_range tree_block(struct tree tree, uint64_t samples, uint32_t block);

static inline bool tree_is_node(struct tree tree, uint32_t node)
{
    return node >= TREE_ROOT && node < 2 * tree.leaves;
}
static inline bool tree_is_leaf(struct tree tree, uint32_t node)
{
    return node >= tree.leaves;
}
static inline uint32_t tree_leaf(struct tree tree, uint32_t block)
{
    return tree.leaves + block;
}

/* Blocks [first, end) below a node; cut to those that exist, so first == end where none does. */
void tree_node_blocks(struct tree tree, uint32_t node, uint32_t *first, uint32_t *end);

/* No block below the node has samples. O(1). */
bool tree_node_empty(struct tree tree, uint64_t samples, uint32_t node);

/* The fewest nodes whose non-empty blocks are exactly those of [first, first + count), from left to right: the largest
 * nodes without a non-empty block outside the range. Writes to `nodes` and returns how many; 0 where all are empty. */
uint32_t tree_cover(struct tree tree, uint64_t samples, uint32_t first, uint32_t count,
                    uint32_t nodes[TREE_COVER_MOST]);

/* Computes one block: its gradient into out[n] (overwritten), its sum of losses. -1 stops the walk. */
typedef int tree_leaf_function(void *arg, uint32_t block, struct block_range range, float *out, double *loss);

/* Makes left + right of left, both [n]. */
typedef void tree_add_function(void *arg, float *left, const float *right, size_t n);

/* The value of a non-empty `node`: gradients (n floats) into `out` (overwritten) and losses into *loss, by calling
 * `leaf` for each non-empty block below it from left to right and adding by `add` as the tree says; both get `arg`.
 * `scratch` holds tree_scratch_rows(tree, node)·n floats. Returns 0, or -1 where `leaf` did. */
int tree_reduce(struct tree tree, uint64_t samples, uint32_t node, size_t n, tree_leaf_function *leaf, void *arg,
                tree_add_function *add, float *scratch, float *out, double *loss);
uint32_t tree_scratch_rows(struct tree tree, uint32_t node);

/* Before a function: one version for each vector unit, chosen when the program is loaded. For loops whose result does
 * not depend on the vector width: no sums over elements, except in a fixed number of lanes. The sanitizers cannot
 * instrument the choice. */
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__clang__) && !defined(THOLE_SANITIZE)
#define VECTOR_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define VECTOR_CLONES
#endif

/* Before a loop whose elements only ever meet others of their own place, also where one array is another: the compiler
 * then need not fear that they overlap otherwise. */
#if defined(__clang__)
#define VECTOR_EACH_ALONE /* it only builds the fuzz targets */
#else
#define VECTOR_EACH_ALONE _Pragma("GCC ivdep")
#endif

/* ---- Vectors. Each element is computed by itself, so any vector width gives the same bits. Arrays of one call do not
 * overlap unless said otherwise; no alignment is asked for. ---- */

/* Room for n floats, not set, from the start of a cache line on: products that read it touch one line at a time instead
 * of two. To be given back with free(); NULL where there is no memory. */
float *vector_new(size_t n);

void vector_add(float *y, const float *x, size_t n);                   /* y += x */
void vector_sum(float *out, const float *a, const float *b, size_t n); /* out = a + b; out may be a or b */
void vector_relu(float *y, const float *x, size_t n); /* y = x < 0 ? 0 : x, so that NaN stays seen; y may be x */
void vector_relu_backward(float *dx, const float *y, const float *dy, size_t n); /* dx = y > 0 ? dy : 0; dx may be dy */

/* Within 0.51 units in the last place, over all arguments; slopes of GELU, which pass through zero, within that or
 * 2^-40. y may be x, slope overlaps nothing. */
void vector_tanh(float *y, const float *x, size_t n);
void vector_sigmoid(float *y, const float *x, size_t n); /* y = 1/(1 + exp(−x)) */
void vector_gelu(float *y, const float *x, size_t n);    /* y = x·Φ(x), Φ(x) = (1 + erf(x/√2))/2 */
void vector_gelu_slope(float *y, float *slope, const float *x, size_t n); /* and Φ(x) + x·exp(−x²/2)/√(2π) */

/* Σ x, in 16 lanes (element i goes to lane i mod 16) that are then added in a tree. */
float vector_total(const float *x, size_t n);

/* bfloat16: a float32's upper half, rounded to nearest, ties to even; every NaN becomes 0x7fc0, so that equal sums have
 * equal bits whichever operand's NaN a processor keeps. r() rounds to it; r(r(x)) = r(x), so that a sum may round what
 * has been rounded before. */
uint16_t bfloat16_of(float x);
float bfloat16_value(uint16_t bits);
void vector_bfloat16_pack(uint16_t *out, const float *x, size_t n);   /* out = r(x) */
void vector_bfloat16_unpack(float *out, const uint16_t *x, size_t n); /* exact */
void vector_bfloat16_add(float *y, const float *x, size_t n);         /* y = r(r(y) + r(x)) */
/* out = r(r(a) + r(b)), packed or not, of what is packed or not; out may be a or b where they are of one type. */
void vector_bfloat16_sum(float *out, const float *a, const float *b, size_t n);
void vector_bfloat16_sum_pack(uint16_t *out, const float *a, const float *b, size_t n);
void vector_bfloat16_sum_packed(uint16_t *out, const uint16_t *a, const uint16_t *b, size_t n);

/* ---- Elementary functions. Errors in units in the last place, over all arguments; infinities, zeros and NaN as in C,
 * subnormal results rounded correctly to within the same error. ---- */

double numerics_exp(double x); /* < 0.85 ulp */
double numerics_log(double x); /* < 0.8 ulp */

/* ---- OpenBLAS. Its bits depend on its version, on its kernel family (picked by CPU) and on its number of threads.
 * It reads OPENBLAS_CORETYPE and OPENBLAS_NUM_THREADS when it is loaded, before main. Processes that know what they
 * will be should be started with OPENBLAS_NUM_THREADS=1: OpenBLAS then never makes its threads. ---- */

/* One thread from now on. To be called once, first thing in main, before other threads exist. */
void numerics_setup(void);

/* The kernel family that runs here, such as "SkylakeX" or "Haswell". */
const char *numerics_kernel(void);

/* Does that family sum products by fused multiply-adds with AVX2? Code of ours that does so, too, may then run beside
 * it: every CPU that can run the family can run that. */
bool numerics_kernel_fuses(void);

/* Makes `family` the one that runs: returns 0 where it does already; else starts this program again (/proc/self/exe,
 * with `argv`, OPENBLAS_CORETYPE=family and OPENBLAS_NUM_THREADS=1) and does not return. -1 with *err where this CPU
 * cannot run it or a restart did not bring it. To be called before anything that a restart would lose. */
int numerics_pin_kernel(const char *family, char *const argv[], struct error *err);

#endif
