/* saver — collects the finished model from all shards and writes its file; private to this folder. */
#ifndef THOLE_COORDINATOR_SAVER_H
#define THOLE_COORDINATOR_SAVER_H

#include "common/report/report.h"
#include "model/model.h"
#include "ps/ps.h"
#include "wire/wire.h"

struct saver;

struct saver_options {
    struct net *net;
    const struct log *log;
    const struct plan *plan;
    const struct model *model;
    const struct shard *shard;    /* shard 0, asked directly */
    const char *const *addresses; /* of all shards; borrowed until `done` */
    uint32_t term;
    uint64_t version;
    const char *kernel, *path, *name; /* the file, and how it is reported */
    /* Once, not inside saver_start: the model, or NULL with the sentence why not. */
    void (*done)(void *arg, const struct report_model *model, const char *failure);
    void *arg;
};

/* Makes the directories of the model's file and tries whether it can be written there: what cannot be is better known
 * before the training than after it. */
int saver_try(const char *path, struct error *err);
int saver_start(struct saver **out, const struct saver_options *options, struct error *err);
void saver_free(struct saver *saver);

#endif
