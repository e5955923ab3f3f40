/* files — a data set's files, which lie below its root and nowhere else. Private to data. */
#ifndef THOLE_DATA_FILES_H
#define THOLE_DATA_FILES_H

#include "common/cleanup.h"
#include "common/error.h"

int files_open_root(const char *root, struct error *err);

/* Opens a regular file below the directory `root`; neither ".." nor a symbolic link leads out of it. */
int files_open_below(int root, const char *root_path, const char *path, struct error *err);

#endif
