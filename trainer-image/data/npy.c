/* NPY, numpy's format (numpy.lib.format, versions 1 to 3): "\x93NUMPY", the version's two bytes, the header's length
 * (16 bits in version 1, 32 in others, little-endian), the header, a Python dictionary
 * {'descr': '<f4', 'fortran_order': False, 'shape': (60000, 28, 28), }, then the elements row by row. */
#include "data/headers.h"

#include <string.h>

enum {
    MAGIC_SIZE = 8,
    HEADER_MOST = 64 * 1024,
    DESCR_SIZE = 16,
    DIGITS_MOST = 12, /* of a dimension */
};

/* ---- The dictionary ---- */

struct scan {
    const char *at, *end;
};

static void skip_space(struct scan *scan)
{
    while (scan->at < scan->end && (*scan->at == ' ' || *scan->at == '\n' || *scan->at == '\t' || *scan->at == '\r'))
        scan->at++;
}

static bool take(struct scan *scan, char c)
{
    skip_space(scan);
    bool there = scan->at < scan->end && *scan->at == c;
    if (there)
        scan->at++;
    return there;
}

static bool take_word(struct scan *scan, const char *word)
{
    const size_t length = strlen(word);
    skip_space(scan);
    bool there = (size_t)(scan->end - scan->at) >= length && memcmp(scan->at, word, length) == 0;
    if (there)
        scan->at += length;
    return there;
}

/* A string without escapes, fit for a sentence. */
static bool take_string(struct scan *scan, char out[DESCR_SIZE])
{
    skip_space(scan);
    if (scan->at == scan->end || (*scan->at != '\'' && *scan->at != '"'))
        return false;
    const char quote = *scan->at++;
    size_t length = 0;
    for (; scan->at < scan->end && *scan->at != quote; scan->at++) {
        if (length == DESCR_SIZE - 1 || *scan->at == '\\' || *scan->at < ' ' || *scan->at > '~')
            return false;
        out[length++] = *scan->at;
    }
    out[length] = '\0';
    return take(scan, quote);
}

/* "60000", also with Python 2's L. */
static bool take_size(struct scan *scan, uint64_t *out)
{
    size_t digits = 0;
    skip_space(scan);
    for (*out = 0; scan->at < scan->end && *scan->at >= '0' && *scan->at <= '9'; scan->at++) {
        if (++digits > DIGITS_MOST)
            return false;
        *out = *out * 10 + (uint64_t)(*scan->at - '0');
    }
    take(scan, 'L');
    return digits > 0;
}

/* "(60000, 28, 28)"; a rank that is too high is counted on. */
static bool take_shape(struct scan *scan, struct array *out)
{
    if (!take(scan, '('))
        return false;
    out->rank = 0;
    while (!take(scan, ')')) {
        uint64_t size;
        if (!take_size(scan, &size))
            return false;
        if (out->rank < ARRAY_RANK_MOST)
            out->dims[out->rank] = size;
        out->rank++;
        if (!take(scan, ','))
            return take(scan, ')');
    }
    return true;
}

struct dictionary {
    char descr[DESCR_SIZE];
    bool fortran_order;
    bool has_descr, has_order, has_shape;
};

/* One "key: value". False where it is not understood. */
static bool take_member(struct scan *scan, struct dictionary *dictionary, struct array *out)
{
    if (take_word(scan, "'descr'") || take_word(scan, "\"descr\""))
        return dictionary->has_descr = take(scan, ':') && take_string(scan, dictionary->descr);
    if (take_word(scan, "'fortran_order'") || take_word(scan, "\"fortran_order\"")) {
        if (!take(scan, ':'))
            return false;
        dictionary->fortran_order = take_word(scan, "True");
        return dictionary->has_order = dictionary->fortran_order || take_word(scan, "False");
    }
    if (take_word(scan, "'shape'") || take_word(scan, "\"shape\""))
        return dictionary->has_shape = take(scan, ':') && take_shape(scan, out);
    return false;
}

static bool take_dictionary(struct scan *scan, struct dictionary *dictionary, struct array *out)
{
    if (!take(scan, '{'))
        return false;
    while (!take(scan, '}')) {
        if (!take_member(scan, dictionary, out))
            return false;
        if (!take(scan, ',')) {
            if (!take(scan, '}'))
                return false;
            break;
        }
    }
    skip_space(scan);
    return scan->at == scan->end && dictionary->has_descr && dictionary->has_order && dictionary->has_shape;
}

/* ---- Types ---- */

/* "<f4": byte order, kind, bytes. */
static bool is_element(const char *descr, struct array *out)
{
    static const struct {
        const char *name;
        enum element element;
    } types[] = {{"u1", ELEMENT_U8},  {"b1", ELEMENT_U8},  {"i1", ELEMENT_I8},  {"u2", ELEMENT_U16},
                 {"i2", ELEMENT_I16}, {"u4", ELEMENT_U32}, {"i4", ELEMENT_I32}, {"u8", ELEMENT_U64},
                 {"i8", ELEMENT_I64}, {"f2", ELEMENT_F16}, {"f4", ELEMENT_F32}, {"f8", ELEMENT_F64}};
    if (descr[0] == '\0' || strchr("<>=|", descr[0]) == NULL)
        return false;
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (strcmp(types[i].name, descr + 1) == 0) {
            const char other = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? '>' : '<';
            out->element = types[i].element;
            out->swapped = descr[0] == other && element_size(out->element) > 1;
            return true;
        }
    return false;
}

static int take_header(struct array *out, const char *text, size_t length, const char *name, struct error *err)
{
    struct dictionary dictionary = {0};
    struct scan scan = {text, text + length};
    if (!take_dictionary(&scan, &dictionary, out))
        return error_set(err,
                         "data set file '%s' has an NPY header that is not understood at its byte %td: save one plain "
                         "array of numbers in it, with numpy.save",
                         name, scan.at - text);
    if (!is_element(dictionary.descr, out))
        return error_set(err,
                         "data set file '%s' holds elements of type '%s'; NPY files of u1, u2, u4, u8, i1, i2, i4, "
                         "i8, f2, f4, f8 and b1 are read: convert them with astype",
                         name, dictionary.descr);
    if (dictionary.fortran_order && out->rank > 1)
        return error_set(err,
                         "data set file '%s' holds its array column by column (fortran_order): save "
                         "numpy.ascontiguousarray of it",
                         name);
    if (out->rank == 0 || out->rank > ARRAY_RANK_MOST)
        return error_set(err, "data set file '%s' has rank %u; only 1 to %d are read", name, out->rank,
                         ARRAY_RANK_MOST);
    return 0;
}

static int cut_off(const char *name, struct error *err)
{
    return error_set(err, "data set file '%s' is cut off inside its header: copy it again", name);
}

int npy_header(struct array *out, struct source *source, struct error *err)
{
    uint8_t magic[MAGIC_SIZE];
    uint8_t size[4] = {0};
    size_t got;
    if (source_read(source, magic, sizeof magic, &got, err) < 0)
        return -1;
    if (got == 0)
        return error_set(err, "data set file '%s' is empty: copy it again", source->name);
    if (got < sizeof magic || memcmp(magic, "\x93NUMPY", 6) != 0)
        return error_set(err,
                         "data set file '%s' is no NPY file: it must begin as numpy.save writes it (gzip around that "
                         "is fine)",
                         source->name);
    if (magic[6] < 1 || magic[6] > 3)
        return error_set(err, "data set file '%s' has version %u of the NPY format; 1 to 3 are read", source->name,
                         magic[6]);
    const size_t wide = magic[6] == 1 ? 2 : 4;
    if (source_read(source, size, wide, &got, err) < 0)
        return -1;
    const uint32_t length = (uint32_t)size[3] << 24 | (uint32_t)size[2] << 16 | (uint32_t)size[1] << 8 | size[0];
    if (got < wide)
        return cut_off(source->name, err);
    if (length > HEADER_MOST)
        return error_set(err, "data set file '%s' has an NPY header of %u bytes; at most %d are read", source->name,
                         length, HEADER_MOST);
    cleanup_free char *text = malloc(length + 1);
    if (text == NULL)
        return error_set(err, "out of memory for the header of data set file '%s'", source->name);
    if (source_read(source, text, length, &got, err) < 0)
        return -1;
    return got < length ? cut_off(source->name, err) : take_header(out, text, length, source->name, err);
}

int npy_content(struct content *out, const struct content_files *files, enum content_depth depth, struct error *err)
{
    return content_of_arrays(out, files, depth, npy_header, err);
}
