/* array — a file's array of numbers of one type, in the file's own bytes. Private to data.
 *
 * Plain files of some size are mapped and not copied: processes of one machine share the pages, and what nobody reads
 * is never read. Small ones and gzip are read into memory.
 */
#ifndef THOLE_DATA_ARRAY_H
#define THOLE_DATA_ARRAY_H

#include "data/region.h"
#include "data/source.h"

enum {
    ARRAY_RANK_MOST = 4,
    ARRAY_MAP_LEAST = 1 << 20, /* bytes of a file that is mapped */
};

enum element {
    ELEMENT_U8,
    ELEMENT_I8,
    ELEMENT_U16,
    ELEMENT_I16,
    ELEMENT_U32,
    ELEMENT_I32,
    ELEMENT_U64,
    ELEMENT_I64,
    ELEMENT_F16,
    ELEMENT_F32,
    ELEMENT_F64,
    ELEMENTS,
};
size_t element_size(enum element element);

struct array {
    enum element element;
    bool swapped; /* bytes of an element are in the other order than this machine's */
    uint32_t rank;
    uint64_t dims[ARRAY_RANK_MOST];
    uint64_t size; /* bytes of data */
    bool mapped;
    const uint8_t *data; /* in `region` */
    struct region region;
};

/* Sets size. Refuses an array without elements, and one of more than `most` bytes. */
int array_measure(struct array *array, const char *name, uint64_t most, struct error *err);

/* Reads the data, which begins where `source` stands; the file must end behind it. */
int array_load(struct array *array, struct source *source, struct error *err);
void array_free(struct array *array);
#define cleanup_array CLEANUP(array_free)

/* out[i] = (element[at + i] · scale − mean) / std in double, rounded once. */
void array_normalise(const struct array *array, uint64_t at, size_t n, double scale, double mean, double std,
                     float *out);

double array_value(const struct array *array, uint64_t at);

#endif
