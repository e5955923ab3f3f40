/* idx — one IDX file, checked. Private to data.
 *
 * The format (LeCun, Cortes, Burges: "The MNIST database"): two zero bytes, the element's type (0x08: unsigned byte),
 * the rank, then one big-endian 32-bit size a dimension, then the elements row by row.
 */
#ifndef THOLE_DATA_IDX_H
#define THOLE_DATA_IDX_H

#include "common/error.h"

#include <stddef.h>
#include <stdint.h>

enum { IDX_RANK_MOST = 4 };

struct idx {
    uint32_t rank;
    uint32_t dims[IDX_RANK_MOST];
    uint64_t size; /* product of the dims: bytes of data */
    uint8_t *data; /* owned */
};

/* Reads IDX, plain or gzip, from `fd` (borrowed), which must hold exactly what its header says; its rank must be from
 * rank_least to rank_most. `name` is the file's, as the user knows it, for sentences. `bytes_most` caps the size. */
int idx_read(struct idx *out, int fd, const char *name, uint32_t rank_least, uint32_t rank_most, uint64_t bytes_most,
             struct error *err);
/* The header alone: `data` stays NULL, and what follows the header is neither read nor checked. */
int idx_read_header(struct idx *out, int fd, const char *name, uint32_t rank_least, uint32_t rank_most,
                    uint64_t bytes_most, struct error *err);
void idx_free(struct idx *idx);

#endif
