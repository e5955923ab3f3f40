#include "model/model.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "parameters are written as they lie in memory");

static const char file_format[] = "thole.dev/model/v1";

/* ---- Writing ---- */

/* `value` (taken over) as compact JSON text in a string member. */
static bool add_as_text(cJSON *object, const char *name, cJSON *value)
{
    cleanup_json cJSON *owned = value;
    cleanup_free char *text = owned == NULL ? NULL : json_print(owned);
    return text != NULL && cJSON_AddStringToObject(object, name, text) != NULL;
}

static cJSON *normalize_json(const struct plan *plan)
{
    cleanup_json cJSON *json = cJSON_CreateObject();
    if (json == NULL ||
        !cJSON_AddItemToObject(json, "mean", json_exact_numbers(plan->dataset.mean, plan->dataset.channels)) ||
        !cJSON_AddItemToObject(json, "scale", json_exact_number(plan->dataset.scale)) ||
        !cJSON_AddItemToObject(json, "std", json_exact_numbers(plan->dataset.std, plan->dataset.channels)))
        return NULL;
    return move(json);
}

static bool add_metadata(cJSON *header, const struct network *network, const struct plan *plan, const char *kernel)
{
    char classes[16];
    char seed[24];
    snprintf(classes, sizeof classes, "%" PRIu32, network->sample.classes);
    snprintf(seed, sizeof seed, "%" PRIu64, plan->training.seed);
    const double shape[3] = {network->sample.shape.c, network->sample.shape.h, network->sample.shape.w};

    cJSON *metadata = cJSON_AddObjectToObject(header, "__metadata__");
    return metadata != NULL && cJSON_AddStringToObject(metadata, "classes", classes) != NULL &&
           cJSON_AddStringToObject(metadata, "format", file_format) != NULL &&
           cJSON_AddStringToObject(metadata, "kernel", kernel) != NULL &&
           cJSON_AddStringToObject(metadata, "model", network->name) != NULL &&
           add_as_text(metadata, "normalize", normalize_json(plan)) &&
           cJSON_AddStringToObject(metadata, "seed", seed) != NULL &&
           add_as_text(metadata, "shape", json_exact_numbers(shape, 3));
}

static bool add_tensor(cJSON *header, const struct network_tensor *tensor)
{
    const double offsets[2] = {(double)tensor->offset * sizeof(float),
                               (double)(tensor->offset + tensor->count) * sizeof(float)};
    double dims[4];
    for (uint32_t i = 0; i < tensor->rank; i++)
        dims[i] = tensor->dims[i];
    cJSON *item = cJSON_AddObjectToObject(header, tensor->name);
    return item != NULL && cJSON_AddItemToObject(item, "data_offsets", json_exact_numbers(offsets, 2)) &&
           cJSON_AddStringToObject(item, "dtype", "F32") != NULL &&
           cJSON_AddItemToObject(item, "shape", json_exact_numbers(dims, tensor->rank));
}

static int by_name(const void *a, const void *b)
{
    const struct network_tensor *const *left = a;
    const struct network_tensor *const *right = b;
    return strcmp((*left)->name, (*right)->name);
}

/* The header's text; "__metadata__" sorts before the tensors, whose names begin with small letters. */
static char *header_text(const struct network *network, const struct plan *plan, const char *kernel)
{
    cleanup_json cJSON *header = cJSON_CreateObject();
    if (header == NULL || !add_metadata(header, network, plan, kernel))
        return NULL;
    const struct network_tensor *sorted[NETWORK_TENSORS_MOST];
    for (uint32_t i = 0; i < network->tensor_count; i++)
        sorted[i] = &network->tensors[i];
    qsort(sorted, network->tensor_count, sizeof(const struct network_tensor *), by_name);
    for (uint32_t i = 0; i < network->tensor_count; i++)
        if (!add_tensor(header, sorted[i]))
            return NULL;
    return json_print(header);
}

struct output {
    FILE *file;
    struct sha256_stream *digest;
    uint64_t bytes;
};

static bool put(struct output *output, const void *data, size_t length)
{
    sha256_stream_add(output->digest, data, length);
    output->bytes += length;
    return fwrite(data, 1, length, output->file) == length;
}

static bool put_model(struct output *output, const char *header, const float *params, uint64_t count)
{
    size_t length = strlen(header);
    size_t padding = (8 - length % 8) % 8;
    uint64_t padded = length + padding;
    return put(output, &padded, sizeof padded) && put(output, header, length) && put(output, "        ", padding) &&
           put(output, params, count * sizeof *params) && fflush(output->file) == 0 && fsync(fileno(output->file)) == 0;
}

/* A rename is durable once its directory is. */
static int sync_parent(const char *path)
{
    const char *slash = strrchr(path, '/');
    cleanup_free char *parent = slash == NULL ? strdup(".") : strndup(path, slash == path ? 1 : (size_t)(slash - path));
    if (parent == NULL)
        return -1;
    cleanup_fd int fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -1 : fsync(fd);
}

int model_file_write(const struct model *model, const struct plan *plan, const char *kernel, const float *params,
                     const char *path, uint8_t sha256[SHA256_SIZE], uint64_t *bytes, struct error *err)
{
    cleanup_free char *header = header_text(model_network(model), plan, kernel);
    cleanup_free char *temporary = NULL;
    if (header == NULL || asprintf(&temporary, "%s.tmp.%ld", path, (long)getpid()) < 0)
        return error_set(err, "write model file '%s': out of memory", path);

    cleanup_fd int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return error_errno(err, "create model file '%s'", temporary);
    cleanup_file FILE *file = fdopen(fd, "w");
    if (file == NULL)
        return error_errno(err, "open model file '%s'", temporary);
    (void)move_fd(&fd);
    cleanup_sha256_stream struct sha256_stream *digest = sha256_stream_new();
    struct output output = {file, digest, 0};
    if (!put_model(&output, header, params, model_parameters(model)) || rename(temporary, path) < 0 ||
        sync_parent(path) < 0) {
        error_errno(err, "write model file '%s'", path);
        unlink(temporary);
        return -1;
    }
    sha256_stream_end(digest, sha256);
    *bytes = output.bytes;
    return 0;
}

/* ---- Reading ---- */

static int read_exactly(int fd, void *out, size_t length, uint64_t offset)
{
    char *to = out;
    while (length > 0) {
        ssize_t got = pread(fd, to, length, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return -1;
        to += got;
        offset += (uint64_t)got;
        length -= (size_t)got;
    }
    return 0;
}

/* Item i of a list as a whole number from 0 to 2^53; -1 where it is none. */
static int64_t whole_number(const cJSON *list, int i)
{
    const cJSON *item = cJSON_IsArray(list) ? cJSON_GetArrayItem(list, i) : NULL;
    if (item == NULL || !cJSON_IsNumber(item) || !(item->valuedouble >= 0) || item->valuedouble > 0x1p53 ||
        item->valuedouble != floor(item->valuedouble))
        return -1;
    return (int64_t)item->valuedouble;
}

static bool same_shape(const struct network_tensor *tensor, const cJSON *shape)
{
    if (!cJSON_IsArray(shape) || cJSON_GetArraySize(shape) != (int)tensor->rank)
        return false;
    for (uint32_t i = 0; i < tensor->rank; i++)
        if (whole_number(shape, (int)i) != (int64_t)tensor->dims[i])
            return false;
    return true;
}

struct span {
    uint64_t begin, end; /* bytes of the data */
};

/* Where the tensor's bytes are, once everything that its entry says is what the model has. */
static int tensor_span(const struct network_tensor *tensor, const cJSON *header, uint64_t data_bytes, const char *path,
                       struct span *out, struct error *err)
{
    const cJSON *entry = cJSON_GetObjectItemCaseSensitive(header, tensor->name);
    if (!cJSON_IsObject(entry))
        return error_set(err, "model file '%s' has no tensor %s", path, tensor->name);
    if (strcmp(json_string(entry, "dtype", ""), "F32") != 0)
        return error_set(err, "model file '%s': tensor %s must have dtype F32", path, tensor->name);
    if (!same_shape(tensor, json_at(entry, "shape")))
        return error_set(err, "model file '%s': tensor %s has another shape than the model's", path, tensor->name);
    const cJSON *offsets = json_at(entry, "data_offsets");
    int64_t begin = whole_number(offsets, 0);
    int64_t end = whole_number(offsets, 1);
    if (cJSON_GetArraySize(offsets) != 2 || begin < 0 || end < begin ||
        (uint64_t)(end - begin) != tensor->count * sizeof(float) || (uint64_t)end > data_bytes)
        return error_set(
            err, "model file '%s': tensor %s has data_offsets that are not its %" PRIu64 " bytes within the file", path,
            tensor->name, tensor->count * sizeof(float));
    *out = (struct span){(uint64_t)begin, (uint64_t)end};
    return 0;
}

/* Exactly the model's tensors, each once, side by side. */
static int check_spans(const struct network *network, const cJSON *header, uint64_t data_bytes, const char *path,
                       struct span *spans, struct error *err)
{
    const bool has_metadata = cJSON_GetObjectItemCaseSensitive(header, "__metadata__") != NULL;
    if (cJSON_GetArraySize(header) != (int)network->tensor_count + (has_metadata ? 1 : 0))
        return error_set(err, "model file '%s' does not hold the %u tensors of model %s, and only those", path,
                         network->tensor_count, network->name);
    if (data_bytes != network->parameters * sizeof(float))
        return error_set(err, "model file '%s' holds %" PRIu64 " bytes of data where model %s has %" PRIu64, path,
                         data_bytes, network->name, network->parameters * sizeof(float));
    for (uint32_t i = 0; i < network->tensor_count; i++) {
        if (tensor_span(&network->tensors[i], header, data_bytes, path, &spans[i], err) < 0)
            return -1;
        for (uint32_t j = 0; j < i; j++)
            if (spans[i].begin < spans[j].end && spans[j].begin < spans[i].end)
                return error_set(err, "model file '%s': tensors %s and %s overlap", path, network->tensors[j].name,
                                 network->tensors[i].name);
    }
    return 0;
}

static cJSON *read_header(int fd, const char *path, uint64_t *data_begin, uint64_t *data_bytes, struct error *err)
{
    struct stat status;
    uint64_t length;
    if (fstat(fd, &status) < 0) {
        error_errno(err, "look at model file '%s'", path);
        return NULL;
    }
    if (!S_ISREG(status.st_mode) || status.st_size < 8 || read_exactly(fd, &length, sizeof length, 0) < 0 ||
        length > MODEL_FILE_HEADER_MOST || length > (uint64_t)status.st_size - 8) {
        error_set(err, "model file '%s' is no safetensors file, or is cut off", path);
        return NULL;
    }
    cleanup_free char *text = malloc(length + 1);
    if (text == NULL || read_exactly(fd, text, length, 8) < 0) {
        error_set(err, "model file '%s': its header of %" PRIu64 " bytes cannot be read", path, length);
        return NULL;
    }
    *data_begin = 8 + length;
    *data_bytes = (uint64_t)status.st_size - *data_begin;
    cleanup_free char *what = NULL;
    if (asprintf(&what, "the header of model file '%s'", path) < 0)
        what = NULL;
    cleanup_json cJSON *header = json_parse(text, length, what == NULL ? path : what, err);
    if (header != NULL && !cJSON_IsObject(header)) {
        error_set(err, "model file '%s': its header is no JSON object", path);
        return NULL;
    }
    return move(header);
}

int model_file_read(const struct model *model, const char *path, float *params, cJSON **metadata, struct error *err)
{
    const struct network *network = model_network(model);
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_errno(err, "open model file '%s'", path);
    uint64_t data_begin;
    uint64_t data_bytes;
    cleanup_json cJSON *header = read_header(fd, path, &data_begin, &data_bytes, err);
    struct span spans[NETWORK_TENSORS_MOST] = {0};
    if (header == NULL || check_spans(network, header, data_bytes, path, spans, err) < 0)
        return -1;
    for (uint32_t i = 0; i < network->tensor_count; i++)
        if (read_exactly(fd, params + network->tensors[i].offset, spans[i].end - spans[i].begin,
                         data_begin + spans[i].begin) < 0)
            return error_set(err, "model file '%s': tensor %s cannot be read", path, network->tensors[i].name);
    if (metadata != NULL)
        *metadata = cJSON_DetachItemFromObjectCaseSensitive(header, "__metadata__");
    return 0;
}
