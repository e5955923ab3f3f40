/* yaml — YAML text as cJSON trees.
 *
 * Takes what people write for Kubernetes: several documents in one text, plain scalars by YAML 1.2's core schema
 * (null, booleans, numbers; everything quoted is a string). Refuses what JSON cannot say or what only hides things:
 * anchors, aliases, tags, duplicate keys, infinities and whole numbers that a double cannot hold. Every mistake is
 * placed by line and column.
 */
#ifndef THOLE_COMMON_YAML_H
#define THOLE_COMMON_YAML_H

#include "common/error.h"

#include <cjson/cJSON.h>
#include <stddef.h>

enum {
    YAML_BYTES_MOST = 4 * 1024 * 1024,
    YAML_DEPTH_MOST = 64,
    YAML_NODES_MOST = 64 * 1024,
    YAML_MEMBERS_MOST = 2048, /* of one mapping: looking for duplicates is quadratic */
};

/* The documents of `text` as one array, empty documents left out. NULL with *err naming `what`, line and column. */
cJSON *yaml_parse(const char *text, size_t length, const char *what, struct error *err);
cJSON *yaml_read_file(const char *path, struct error *err);

#endif
