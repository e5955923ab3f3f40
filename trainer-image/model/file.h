/* file — what both sides of a model file (file_write.c, file_read.c) know of it. Private to model. */
#ifndef THOLE_MODEL_FILE_H
#define THOLE_MODEL_FILE_H

#include "model/model.h"

static const char model_file_format[] = "thole.dev/model/v1";

enum {
    FILE_NAME_SIZE = NETWORK_TENSOR_NAME_SIZE + 8,
    FILE_ENTRIES_MOST = NETWORK_TENSORS_MOST + 2 * NETWORK_TABLES_MOST,
};

/* An entry of the header, and where its bytes are in a file that we write. */
struct file_entry {
    char name[FILE_NAME_SIZE];
    const char *dtype;
    uint32_t rank;
    uint64_t dims[4];
    uint64_t begin, bytes;
};

/* All entries of a network whose tables have rows[table_count] rows, in the order of the data. Returns how many. */
uint32_t file_entries(const struct network *network, const uint32_t *rows, struct file_entry *out);

/* The name of a table's ids or rows. */
void file_table_name(const struct network_table *table, const char *part, char out[FILE_NAME_SIZE]);

#endif
