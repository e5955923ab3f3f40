#include "model/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>

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

static bool same_shape(const struct file_entry *entry, const cJSON *shape)
{
    if (!cJSON_IsArray(shape) || cJSON_GetArraySize(shape) != (int)entry->rank)
        return false;
    for (uint32_t i = 0; i < entry->rank; i++)
        if (whole_number(shape, (int)i) != (int64_t)entry->dims[i])
            return false;
    return true;
}

/* Moves the entry to where its bytes are in this file, once everything that the header says of it is what the model
 * has. */
static int find_entry(struct file_entry *entry, const cJSON *header, uint64_t data_bytes, const char *path,
                      struct error *err)
{
    const cJSON *json = cJSON_GetObjectItemCaseSensitive(header, entry->name);
    if (!cJSON_IsObject(json))
        return error_set(err, "model file '%s' has no tensor %s", path, entry->name);
    if (strcmp(json_string(json, "dtype", ""), entry->dtype) != 0)
        return error_set(err, "model file '%s': tensor %s must have dtype %s", path, entry->name, entry->dtype);
    if (!same_shape(entry, json_at(json, "shape")))
        return error_set(err, "model file '%s': tensor %s has another shape than the model's", path, entry->name);
    const cJSON *offsets = json_at(json, "data_offsets");
    int64_t begin = whole_number(offsets, 0);
    int64_t end = whole_number(offsets, 1);
    if (cJSON_GetArraySize(offsets) != 2 || begin < 0 || end < begin || (uint64_t)(end - begin) != entry->bytes ||
        (uint64_t)end > data_bytes)
        return error_set(
            err, "model file '%s': tensor %s has data_offsets that are not its %" PRIu64 " bytes within the file", path,
            entry->name, entry->bytes);
    entry->begin = (uint64_t)begin;
    return 0;
}

/* How many rows each table has in the file: the length of its ids. */
static int find_rows(const struct network *network, const cJSON *header, const char *path, uint32_t *rows,
                     struct error *err)
{
    for (uint32_t i = 0; i < network->table_count; i++) {
        char name[FILE_NAME_SIZE];
        file_table_name(&network->tables[i], "ids", name);
        const cJSON *entry = cJSON_GetObjectItemCaseSensitive(header, name);
        const int64_t count = entry == NULL ? 0 : whole_number(json_at(entry, "shape"), 0);
        if (count < 0 || count > network->tables[i].rows)
            return error_set(err, "model file '%s': tensor %s is no list of at most %u ids", path, name,
                             network->tables[i].rows);
        rows[i] = (uint32_t)count;
    }
    return 0;
}

/* Exactly the model's entries, each once, side by side. */
static int find_entries(const struct network *network, const cJSON *header, uint64_t data_bytes, const char *path,
                        struct file_entry *entries, uint32_t count, struct error *err)
{
    const bool has_metadata = cJSON_GetObjectItemCaseSensitive(header, "__metadata__") != NULL;
    if (cJSON_GetArraySize(header) != (int)count + (has_metadata ? 1 : 0))
        return error_set(err, "model file '%s' does not hold the %u tensors of model %s, and only those", path, count,
                         network->name);
    const uint64_t bytes = entries[count - 1].begin + entries[count - 1].bytes;
    if (data_bytes != bytes)
        return error_set(err, "model file '%s' holds %" PRIu64 " bytes of data where model %s has %" PRIu64, path,
                         data_bytes, network->name, bytes);
    for (uint32_t i = 0; i < count; i++) {
        if (find_entry(&entries[i], header, data_bytes, path, err) < 0)
            return -1;
        for (uint32_t j = 0; j < i; j++)
            if (entries[i].begin < entries[j].begin + entries[j].bytes &&
                entries[j].begin < entries[i].begin + entries[i].bytes)
                return error_set(err, "model file '%s': tensors %s and %s overlap", path, entries[j].name,
                                 entries[i].name);
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

void model_table_free(struct model_table *table)
{
    free(table->ids);
    free(table->values);
    *table = (struct model_table){0};
}

/* A file that is open, with its header checked against the network. */
struct input {
    int fd;
    const char *path;
    uint64_t data_begin;
    const struct file_entry *entries;
};

static int read_entry(const struct input *input, uint32_t entry, void *out, struct error *err)
{
    const struct file_entry *e = &input->entries[entry];
    if (read_exactly(input->fd, out, e->bytes, input->data_begin + e->begin) < 0)
        return error_set(err, "model file '%s': tensor %s cannot be read", input->path, e->name);
    return 0;
}

static int read_table(const struct input *input, uint32_t entry, const struct network_table *network_table,
                      struct model_table *table, struct error *err)
{
    table->count = (uint32_t)input->entries[entry].dims[0];
    table->ids = malloc(input->entries[entry].bytes + 1);
    table->values = malloc(input->entries[entry + 1].bytes + 1);
    if (table->ids == NULL || table->values == NULL)
        return error_set(err, "model file '%s': out of memory for the %u rows of table %s", input->path, table->count,
                         network_table->name);
    if (read_entry(input, entry, table->ids, err) < 0 || read_entry(input, entry + 1, table->values, err) < 0)
        return -1;
    for (uint32_t i = 0; i < table->count; i++)
        if (table->ids[i] >= network_table->rows || (i > 0 && table->ids[i] <= table->ids[i - 1]))
            return error_set(err, "model file '%s': tensor %s must hold ascending ids below %u", input->path,
                             input->entries[entry].name, network_table->rows);
    return 0;
}

static int read_data(const struct input *input, const struct network *network, float *params,
                     struct model_table *tables, struct error *err)
{
    for (uint32_t i = 0; i < network->tensor_count; i++)
        if (read_entry(input, i, params + network->tensors[i].offset, err) < 0)
            return -1;
    for (uint32_t i = 0; i < network->table_count; i++)
        if (read_table(input, network->tensor_count + 2 * i, &network->tables[i], &tables[i], err) < 0) {
            for (uint32_t j = 0; j <= i; j++)
                model_table_free(&tables[j]);
            return -1;
        }
    return 0;
}

int model_file_read(const struct model *model, const char *path, float *params, struct model_table *tables,
                    cJSON **metadata, struct error *err)
{
    const struct network *network = model_network(model);
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_errno(err, "open model file '%s'", path);
    uint64_t data_begin;
    uint64_t data_bytes;
    uint32_t rows[NETWORK_TABLES_MOST] = {0};
    cleanup_json cJSON *header = read_header(fd, path, &data_begin, &data_bytes, err);
    if (header == NULL || find_rows(network, header, path, rows, err) < 0)
        return -1;
    cleanup_free struct file_entry *entries = calloc(FILE_ENTRIES_MOST, sizeof *entries);
    if (entries == NULL)
        return error_set(err, "read model file '%s': out of memory", path);
    const uint32_t count = file_entries(network, rows, entries);
    if (find_entries(network, header, data_bytes, path, entries, count, err) < 0 ||
        read_data(&(struct input){fd, path, data_begin, entries}, network, params, tables, err) < 0)
        return -1;
    if (metadata != NULL)
        *metadata = cJSON_DetachItemFromObjectCaseSensitive(header, "__metadata__");
    return 0;
}

/* ---- What a file says of its network ---- */

/* A whole number up to `most` that is written as a string; absent: 0. */
static int metadata_whole(const cJSON *metadata, const char *name, const char *path, uint64_t most, uint64_t *out,
                          struct error *err)
{
    const char *text = json_string(metadata, name, "0");
    char *end = NULL;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || text[0] < '0' || text[0] > '9' || number > most)
        return error_set(err, "model file '%s': its metadata's %s is no number", path, name);
    *out = number;
    return 0;
}

static int metadata_number(const cJSON *metadata, const char *name, const char *path, uint32_t *out, struct error *err)
{
    uint64_t number = 0;
    if (metadata_whole(metadata, name, path, UINT32_MAX, &number, err) < 0)
        return -1;
    *out = (uint32_t)number;
    return 0;
}

static int metadata_sample(const cJSON *metadata, const char *path, struct network_sample *sample, struct error *err)
{
    const char *text = json_string(metadata, "shape", "");
    cleanup_json cJSON *shape = cJSON_Parse(text);
    const int64_t dims[3] = {whole_number(shape, 0), whole_number(shape, 1), whole_number(shape, 2)};
    if (cJSON_GetArraySize(shape) != 3)
        return error_set(err, "model file '%s': its metadata has no shape of three numbers", path);
    for (int i = 0; i < 3; i++)
        if (dims[i] < 1 || dims[i] > NETWORK_ELEMENTS_MOST)
            return error_set(err, "model file '%s': its metadata has no shape of three numbers", path);
    sample->shape = (struct shape){(uint32_t)dims[0], (uint32_t)dims[1], (uint32_t)dims[2]};
    return metadata_number(metadata, "categories", path, &sample->categories, err) < 0 ||
                   metadata_number(metadata, "rows", path, &sample->rows, err) < 0 ||
                   metadata_number(metadata, "classes", path, &sample->classes, err) < 0
               ? -1
               : 0;
}

static int metadata_loss(const cJSON *metadata, const char *path, struct network_spec *spec, struct error *err)
{
    const char *name = json_string(metadata, "loss", NULL);
    if (name == NULL)
        return 0;
    uint32_t type = 0;
    while (type < LOSS_TYPES && strcmp(name, loss_type_name((enum loss_type)type)) != 0)
        type++;
    if (type == LOSS_TYPES)
        return error_set(err, "model file '%s': its metadata names a loss '%.40s' that there is not", path, name);
    spec->has_loss = true;
    spec->loss = (enum loss_type)type;
    char *end = NULL;
    const char *delta = json_string(metadata, "delta", "0");
    spec->huber_delta = strtod(delta, &end);
    if (end == delta || *end != '\0' || !(spec->huber_delta >= 0) || isinf(spec->huber_delta))
        return error_set(err, "model file '%s': its metadata's delta is no number", path);
    return 0;
}

/* The seed of rows that are not in the file: its own, or that of an earlier job on which it rests. */
static int metadata_rows_seed(const cJSON *metadata, const char *path, struct network *network, struct error *err)
{
    const char *name = json_string(metadata, "rowsSeed", NULL) != NULL ? "rowsSeed" : "seed";
    network->has_rows_seed = network->table_count > 0 && json_string(metadata, name, NULL) != NULL;
    return network->has_rows_seed ? metadata_whole(metadata, name, path, UINT64_MAX, &network->rows_seed, err) : 0;
}

int model_file_network(struct network **out, const char *path, struct error *err)
{
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_errno(err, "open model file '%s'", path);
    uint64_t data_begin;
    uint64_t data_bytes;
    cleanup_json cJSON *header = read_header(fd, path, &data_begin, &data_bytes, err);
    if (header == NULL)
        return -1;
    const cJSON *metadata = cJSON_GetObjectItemCaseSensitive(header, "__metadata__");
    const char *model = json_string(metadata, "model", NULL);
    if (strcmp(json_string(metadata, "format", ""), model_file_format) != 0 || model == NULL)
        return error_set(err, "model file '%s' does not say of which model it is: its metadata has no format %s", path,
                         model_file_format);
    struct network_spec spec = {.zoo = model};
    struct network_sample sample = {0};
    cleanup_json cJSON *layers = NULL;
    if (model[0] == '[') {
        layers = json_parse(model, strlen(model), "the layers in its metadata", err);
        if (layers == NULL)
            return -1;
        spec = (struct network_spec){.layers = layers};
    }
    cleanup_network struct network *network = NULL;
    if (metadata_sample(metadata, path, &sample, err) < 0 || metadata_loss(metadata, path, &spec, err) < 0 ||
        network_build(&network, &spec, &sample, err) < 0 || metadata_rows_seed(metadata, path, network, err) < 0)
        return -1;
    *out = move(network);
    return 0;
}
