#include "model/file.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "parameters are written as they lie in memory");

/* ---- Entries ---- */

void file_table_name(const struct network_table *table, const char *part, char out[FILE_NAME_SIZE])
{
    snprintf(out, FILE_NAME_SIZE, "%s.%s", table->name, part);
}

static struct file_entry *add_entry(struct file_entry *entries, uint32_t *count, const char *dtype, uint32_t rank)
{
    struct file_entry *entry = &entries[(*count)++];
    *entry = (struct file_entry){.dtype = dtype, .rank = rank};
    return entry;
}

uint32_t file_entries(const struct network *network, const uint32_t *rows, struct file_entry *out)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < network->tensor_count; i++) {
        const struct network_tensor *tensor = &network->tensors[i];
        struct file_entry *entry = add_entry(out, &count, "F32", tensor->rank);
        snprintf(entry->name, sizeof entry->name, "%s", tensor->name);
        for (uint32_t j = 0; j < tensor->rank; j++)
            entry->dims[j] = tensor->dims[j];
    }
    for (uint32_t i = 0; i < network->table_count; i++) {
        struct file_entry *ids = add_entry(out, &count, "I32", 1);
        file_table_name(&network->tables[i], "ids", ids->name);
        ids->dims[0] = rows[i];
        struct file_entry *values = add_entry(out, &count, "F32", 2);
        file_table_name(&network->tables[i], "rows", values->name);
        values->dims[0] = rows[i];
        values->dims[1] = network->tables[i].dim;
    }
    uint64_t at = 0;
    for (uint32_t i = 0; i < count; i++) {
        out[i].begin = at;
        out[i].bytes = 4;
        for (uint32_t j = 0; j < out[i].rank; j++)
            out[i].bytes *= out[i].dims[j];
        at += out[i].bytes;
    }
    return count;
}

/* ---- The header ---- */

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

static bool add_number(cJSON *metadata, const char *name, uint64_t number)
{
    char text[24];
    snprintf(text, sizeof text, "%" PRIu64, number);
    return cJSON_AddStringToObject(metadata, name, text) != NULL;
}

/* Is the loss another than samples with such targets have where nothing is said? */
static bool has_own_loss(const struct network *network)
{
    return network->loss != (network->sample.classes > 0 ? LOSS_SOFTMAX_CROSS_ENTROPY : LOSS_MSE);
}

/* Sorted by name. */
static bool add_metadata(cJSON *header, const struct network *network, const struct plan *plan, const char *kernel)
{
    const struct network_sample *sample = &network->sample;
    const uint64_t rows_seed = model_rows_seed(network, plan);
    const double shape[3] = {sample->shape.c, sample->shape.h, sample->shape.w};
    cJSON *metadata = cJSON_AddObjectToObject(header, "__metadata__");
    return metadata != NULL && (sample->categories == 0 || add_number(metadata, "categories", sample->categories)) &&
           add_number(metadata, "classes", sample->classes) &&
           (network->loss != LOSS_HUBER || add_as_text(metadata, "delta", json_exact_number(network->huber_delta))) &&
           cJSON_AddStringToObject(metadata, "format", model_file_format) != NULL &&
           cJSON_AddStringToObject(metadata, "kernel", kernel) != NULL &&
           (!has_own_loss(network) ||
            cJSON_AddStringToObject(metadata, "loss", loss_type_name(network->loss)) != NULL) &&
           cJSON_AddStringToObject(metadata, "model", network->list != NULL ? network->list : network->name) != NULL &&
           add_as_text(metadata, "normalize", normalize_json(plan)) &&
           (sample->categories == 0 || add_number(metadata, "rows", sample->rows)) &&
           (network->table_count == 0 || rows_seed == plan->training.seed ||
            add_number(metadata, "rowsSeed", rows_seed)) &&
           add_number(metadata, "seed", plan->training.seed) &&
           add_as_text(metadata, "shape", json_exact_numbers(shape, 3));
}

static bool add_entry_json(cJSON *header, const struct file_entry *entry)
{
    const double offsets[2] = {(double)entry->begin, (double)(entry->begin + entry->bytes)};
    double dims[4];
    for (uint32_t i = 0; i < entry->rank; i++)
        dims[i] = (double)entry->dims[i];
    cJSON *item = cJSON_AddObjectToObject(header, entry->name);
    return item != NULL && cJSON_AddItemToObject(item, "data_offsets", json_exact_numbers(offsets, 2)) &&
           cJSON_AddStringToObject(item, "dtype", entry->dtype) != NULL &&
           cJSON_AddItemToObject(item, "shape", json_exact_numbers(dims, entry->rank));
}

static int by_name(const void *a, const void *b)
{
    const struct file_entry *left = a;
    const struct file_entry *right = b;
    return strcmp(left->name, right->name);
}

/* The header's text; "__metadata__" sorts before names that begin with small letters, and comes before all others. */
static char *header_text(const struct network *network, const struct model_table *tables, const struct plan *plan,
                         const char *kernel)
{
    cleanup_json cJSON *header = cJSON_CreateObject();
    cleanup_free struct file_entry *entries = calloc(FILE_ENTRIES_MOST, sizeof *entries);
    if (header == NULL || entries == NULL || !add_metadata(header, network, plan, kernel))
        return NULL;
    uint32_t rows[NETWORK_TABLES_MOST] = {0};
    for (uint32_t i = 0; i < network->table_count; i++)
        rows[i] = tables[i].count;
    const uint32_t count = file_entries(network, rows, entries);
    qsort(entries, count, sizeof *entries, by_name);
    for (uint32_t i = 0; i < count; i++)
        if (!add_entry_json(header, &entries[i]))
            return NULL;
    return json_print(header);
}

/* ---- Writing ---- */

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

static bool put_tables(struct output *output, const struct network *network, const struct model_table *tables)
{
    for (uint32_t i = 0; i < network->table_count; i++)
        if (!put(output, tables[i].ids, tables[i].count * sizeof *tables[i].ids) ||
            !put(output, tables[i].values, (size_t)tables[i].count * network->tables[i].dim * sizeof(float)))
            return false;
    return true;
}

static bool put_model(struct output *output, const char *header, const struct network *network, const float *params,
                      const struct model_table *tables)
{
    size_t length = strlen(header);
    size_t padding = (8 - length % 8) % 8;
    uint64_t padded = length + padding;
    return put(output, &padded, sizeof padded) && put(output, header, length) && put(output, "        ", padding) &&
           put(output, params, network->parameters * sizeof *params) && put_tables(output, network, tables) &&
           fflush(output->file) == 0 && fsync(fileno(output->file)) == 0;
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
                     const struct model_table *tables, const char *path, uint8_t sha256[SHA256_SIZE], uint64_t *bytes,
                     struct error *err)
{
    const struct network *network = model_network(model);
    cleanup_free char *header = header_text(network, tables, plan, kernel);
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
    if (!put_model(&output, header, network, params, tables) || rename(temporary, path) < 0 || sync_parent(path) < 0) {
        error_errno(err, "write model file '%s'", path);
        unlink(temporary);
        return -1;
    }
    sha256_stream_end(digest, sha256);
    *bytes = output.bytes;
    return 0;
}
