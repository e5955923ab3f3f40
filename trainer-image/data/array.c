#include "data/array.h"

#include "numerics/numerics.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>

size_t element_size(enum element element)
{
    static const uint8_t sizes[ELEMENTS] = {1, 1, 2, 2, 4, 4, 8, 8, 2, 4, 8};
    return sizes[element];
}

int array_measure(struct array *array, const char *name, uint64_t most, struct error *err)
{
    array->size = element_size(array->element);
    for (uint32_t i = 0; i < array->rank; i++) {
        if (array->dims[i] == 0)
            return error_set(err, "data set file '%s' says in its header that it is empty", name);
        if (array->dims[i] > most / array->size)
            return error_set(err, "data set file '%s' says in its header that it holds more than %" PRIu64 " bytes",
                             name, most);
        array->size *= array->dims[i];
    }
    return 0;
}

void array_free(struct array *array)
{
    region_free(&array->region);
    array->data = NULL;
}

static int cut_off(const struct array *array, const char *name, uint64_t have, struct error *err)
{
    return error_set(err,
                     "data set file '%s' is cut off: its header promises %" PRIu64 " bytes of data, and there are "
                     "%" PRIu64 ": copy it again",
                     name, array->size, have);
}

static int too_long(const struct array *array, const char *name, struct error *err)
{
    return error_set(err, "data set file '%s' goes on behind the %" PRIu64 " bytes of data that its header promises",
                     name, array->size);
}

static int read_data(struct array *array, struct source *source, struct error *err)
{
    uint8_t more;
    size_t got;
    if (region_make(&array->region, array->size, source->name, err) < 0 ||
        source_read(source, array->region.base, array->size, &got, err) < 0)
        return -1;
    if (got < array->size)
        return cut_off(array, source->name, got, err);
    if (source_read(source, &more, 1, &got, err) < 0)
        return -1;
    if (got > 0)
        return too_long(array, source->name, err);
    array->data = array->region.base;
    return 0;
}

static int map_data(struct array *array, const struct source *source, uint64_t file_size, struct error *err)
{
    const uint64_t have = file_size - source->consumed;
    if (have < array->size)
        return cut_off(array, source->name, have, err);
    if (have > array->size)
        return too_long(array, source->name, err);
    if (region_map(&array->region, source->fd, file_size, source->name, err) < 0)
        return -1;
    array->data = array->region.base + source->consumed;
    array->mapped = true;
    return 0;
}

int array_load(struct array *array, struct source *source, struct error *err)
{
    struct stat status;
    bool map = !source->gzip && array->size >= ARRAY_MAP_LEAST && fstat(source->fd, &status) == 0 &&
               (uint64_t)status.st_size >= source->consumed;
    int loaded = map ? map_data(array, source, (uint64_t)status.st_size, err) : read_data(array, source, err);
    if (loaded < 0)
        array_free(array);
    return loaded;
}

/* ---- Numbers ---- */

struct linear {
    double scale, mean, std;
};

/* A half-precision float (IEEE 754 binary16), exact in a double. */
static double half_value(uint16_t bits)
{
    const int exponent = bits >> 10 & 31;
    const double fraction = bits & 1023;
    double value;
    if (exponent == 31)
        value = fraction == 0 ? (double)INFINITY : (double)NAN;
    else if (exponent == 0)
        value = fraction * 0x1p-24;
    else
        value = (double)((uint64_t)1 << exponent) * (1024 + fraction) * 0x1p-25;
    return bits >> 15 ? -value : value;
}

#define NORMALISE(name, type, value_of)                                                                                \
    static VECTOR_CLONES void name(const uint8_t *in, size_t n, struct linear linear, float *out)                      \
    {                                                                                                                  \
        for (size_t i = 0; i < n; i++) {                                                                               \
            type element;                                                                                              \
            memcpy(&element, in + i * sizeof element, sizeof element);                                                 \
            out[i] = (float)((value_of(element) * linear.scale - linear.mean) / linear.std);                           \
        }                                                                                                              \
    }
NORMALISE(normalise_u8, uint8_t, (double))
NORMALISE(normalise_i8, int8_t, (double))
NORMALISE(normalise_u16, uint16_t, (double))
NORMALISE(normalise_i16, int16_t, (double))
NORMALISE(normalise_u32, uint32_t, (double))
NORMALISE(normalise_i32, int32_t, (double))
NORMALISE(normalise_u64, uint64_t, (double))
NORMALISE(normalise_i64, int64_t, (double))
NORMALISE(normalise_f16, uint16_t, half_value)
NORMALISE(normalise_f32, float, (double))
NORMALISE(normalise_f64, double, (double))

typedef void normalise_function(const uint8_t *in, size_t n, struct linear linear, float *out);
static normalise_function *const normalisers[ELEMENTS] = {
    normalise_u8,  normalise_i8,  normalise_u16, normalise_i16, normalise_u32, normalise_i32,
    normalise_u64, normalise_i64, normalise_f16, normalise_f32, normalise_f64,
};

static void swap_bytes(const uint8_t *in, size_t size, size_t n, uint8_t *out)
{
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < size; j++)
            out[i * size + j] = in[i * size + size - 1 - j];
}

void array_normalise(const struct array *array, uint64_t at, size_t n, double scale, double mean, double std,
                     float *out)
{
    enum { PIECE = 256 };
    const size_t size = element_size(array->element);
    const uint8_t *in = array->data + at * size;
    const struct linear linear = {scale, mean, std};
    if (!array->swapped) {
        normalisers[array->element](in, n, linear, out);
        return;
    }
    uint8_t native[PIECE * sizeof(double)];
    for (size_t done = 0; done < n; done += PIECE) {
        size_t some = n - done < PIECE ? n - done : PIECE;
        swap_bytes(in + done * size, size, some, native);
        normalisers[array->element](native, some, linear, out + done);
    }
}

#define VALUE(type, value_of)                                                                                          \
    {                                                                                                                  \
        type element;                                                                                                  \
        memcpy(&element, native, sizeof element);                                                                      \
        return value_of(element);                                                                                      \
    }

double array_value(const struct array *array, uint64_t at)
{
    const size_t size = element_size(array->element);
    uint8_t native[sizeof(double)];
    if (array->swapped)
        swap_bytes(array->data + at * size, size, 1, native);
    else
        memcpy(native, array->data + at * size, size);
    switch (array->element) {
    case ELEMENT_U8:
        VALUE(uint8_t, (double))
    case ELEMENT_I8:
        VALUE(int8_t, (double))
    case ELEMENT_U16:
        VALUE(uint16_t, (double))
    case ELEMENT_I16:
        VALUE(int16_t, (double))
    case ELEMENT_U32:
        VALUE(uint32_t, (double))
    case ELEMENT_I32:
        VALUE(int32_t, (double))
    case ELEMENT_U64:
        VALUE(uint64_t, (double))
    case ELEMENT_I64:
        VALUE(int64_t, (double))
    case ELEMENT_F16:
        VALUE(uint16_t, half_value)
    case ELEMENT_F32:
        VALUE(float, (double))
    default:
        VALUE(double, (double))
    }
}
