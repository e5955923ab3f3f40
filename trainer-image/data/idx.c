/* IDX, MNIST's format (LeCun, Cortes, Burges: "The MNIST database"): two zero bytes, the elements' type, the rank, then
 * one big-endian 32-bit size a dimension, then the elements row by row, big-endian too. */
#include "data/headers.h"

#include <inttypes.h>

enum { MAGIC_SIZE = 4 };

static int idx_element(uint8_t type, enum element *out)
{
    static const struct {
        uint8_t type;
        enum element element;
    } types[] = {{0x08, ELEMENT_U8},  {0x09, ELEMENT_I8},  {0x0B, ELEMENT_I16},
                 {0x0C, ELEMENT_I32}, {0x0D, ELEMENT_F32}, {0x0E, ELEMENT_F64}};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (types[i].type == type) {
            *out = types[i].element;
            return 0;
        }
    return -1;
}

int idx_header(struct array *out, struct source *source, struct error *err)
{
    uint8_t header[MAGIC_SIZE + 4 * ARRAY_RANK_MOST];
    size_t got;
    if (source_read(source, header, MAGIC_SIZE, &got, err) < 0)
        return -1;
    if (got == 0)
        return error_set(err, "data set file '%s' is empty: copy it again", source->name);
    if (got < MAGIC_SIZE || header[0] != 0 || header[1] != 0 || idx_element(header[2], &out->element) < 0)
        return error_set(err,
                         "data set file '%s' is no IDX file: it must begin with two zero bytes, the type of its "
                         "elements and the rank (gzip around that is fine)",
                         source->name);
    out->swapped = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ && element_size(out->element) > 1;
    out->rank = header[3];
    if (out->rank == 0 || out->rank > ARRAY_RANK_MOST)
        return error_set(err, "data set file '%s' has rank %" PRIu32 "; at most %d is read", source->name, out->rank,
                         ARRAY_RANK_MOST);
    const size_t dims = 4 * (size_t)out->rank;
    if (source_read(source, header + MAGIC_SIZE, dims, &got, err) < 0)
        return -1;
    if (got < dims)
        return error_set(err, "data set file '%s' is cut off inside its header: copy it again", source->name);
    for (uint32_t i = 0; i < out->rank; i++) {
        const uint8_t *at = header + MAGIC_SIZE + (size_t)4 * i;
        out->dims[i] = (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
    }
    return 0;
}

int idx_content(struct content *out, const struct content_files *files, enum content_depth depth, struct error *err)
{
    return content_of_arrays(out, files, depth, idx_header, err);
}
