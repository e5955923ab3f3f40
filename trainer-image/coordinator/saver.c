#include "coordinator/saver.h"

#include "coordinator/saver_rows.h"

#include "numerics/numerics.h"
#include "ps/layout.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static const int64_t RETRY = 300 * MILLISECONDS;
enum { WINDOW = 4 }; /* chunks asked for and not yet here */

struct source {
    struct saver *saver;
    uint32_t shard;
    uint32_t end;            /* its chunks are those before this one … */
    uint32_t asked, arrived; /* … and all before these are asked for, and here */
    struct conn *conn;
    struct timer *retry;
};

struct saver {
    struct saver_options options;
    struct layout *layout;
    float *params;
    struct saver_rows *rows;
    struct source sources[PLAN_SHARDS_MOST];
    struct timer *finish;
    bool finished;
};

static const struct chunk *chunk_of(const struct source *source, uint32_t index)
{
    return &source->saver->layout->chunks[index];
}

/* What was rounded to travel is rounded in the model's file: it is what was validated. */
static void take(const struct source *source, const struct chunk *chunk, const void *values)
{
    float *out = source->saver->params + chunk->offset;
    if (source->saver->options.plan->wire == PLAN_BFLOAT16)
        vector_bfloat16_unpack(out, values, chunk->count);
    else if (values != out)
        memcpy(out, values, chunk->count * sizeof *out);
}

/* Is all of the shard here? */
static bool is_whole(const struct source *source)
{
    struct frame next;
    return source->arrived == source->end && !saver_rows_ask(source->saver->rows, source->shard, &next);
}

/* Asks for what the window has room for; a new connection starts again at what has not come. */
static void ask(struct source *source)
{
    while (source->asked < source->end && source->asked < source->arrived + WINDOW) {
        conn_send(source->conn,
                  &(struct frame){.type = FRAME_GET,
                                  .term = source->saver->options.term,
                                  .step = source->saver->options.version,
                                  .offset = chunk_of(source, source->asked)->offset},
                  NULL);
        source->asked++;
    }
    /* Of embedding tables, when all else is here: one list after the other. */
    struct frame list;
    if (source->arrived == source->end && saver_rows_ask(source->saver->rows, source->shard, &list)) {
        list.term = source->saver->options.term;
        conn_send(source->conn, &list, NULL);
    }
}

static void source_ready(void *arg, struct conn *conn, enum dialogue dialogue, uint64_t peer_boot)
{
    struct source *source = arg;
    (void)conn;
    (void)dialogue;
    (void)peer_boot;
    source->asked = source->arrived;
    ask(source);
}

static void *source_place(void *arg, struct conn *conn, const struct frame *frame, struct error *err)
{
    const struct source *source = arg;
    const struct saver *saver = source->saver;
    const enum plan_wire wire = saver->options.plan->wire;
    if (frame->type == FRAME_LISTED && source->arrived == source->end) {
        if (saver_rows_check(saver->rows, source->shard, frame, err) < 0)
            return NULL;
        void *place = conn_scratch(conn, frame->length);
        if (place == NULL)
            error_set(err, "fetch the model: no memory");
        return place;
    }
    if (frame->type != FRAME_PARAMS || frame->step != saver->options.version || source->arrived == source->end ||
        frame->offset != chunk_of(source, source->arrived)->offset ||
        frame->length != chunk_of(source, source->arrived)->count * layout_value_bytes(wire)) {
        error_set(err, "shard %u sent something else than the parameters that it was asked for", source->shard);
        return NULL;
    }
    if (wire == PLAN_FLOAT32)
        return saver->params + frame->offset;
    void *scratch = conn_scratch(conn, frame->length);
    if (scratch == NULL)
        error_set(err, "fetch the model: no memory");
    return scratch;
}

static int source_received(void *arg, struct conn *conn, const struct frame *frame, const void *payload,
                           struct error *err)
{
    struct source *source = arg;
    if (frame->type == FRAME_LISTED && source->arrived == source->end) {
        if (saver_rows_check(source->saver->rows, source->shard, frame, err) < 0 ||
            saver_rows_take(source->saver->rows, source->shard, frame, payload, err) < 0)
            return -1;
    } else if (frame->length == 0) {
        return error_set(err, "shard %u sent a frame of type %u instead of parameters", source->shard, frame->type);
    } else {
        take(source, chunk_of(source, source->arrived), payload);
        source->arrived++;
    }
    if (!is_whole(source)) {
        ask(source);
        return 0;
    }
    conn_close(conn, NULL);
    net_timer_set(source->saver->finish, 0);
    return 0;
}

static void source_closed(void *arg, struct conn *conn, const char *reason)
{
    struct source *source = arg;
    (void)conn;
    source->conn = NULL;
    if (is_whole(source))
        return;
    log_warn(source->saver->options.log, "lost a parameter server while fetching the model", "reason", reason, NULL);
    net_timer_set(source->retry, RETRY);
}

static const struct conn_handlers source_handlers = {
    .ready = source_ready,
    .place = source_place,
    .received = source_received,
    .closed = source_closed,
};

/* Should the shard be gone for good, its REGISTER connection says so, and the job ends without a model. */
static void dial(void *arg)
{
    struct source *source = arg;
    const struct saver_options *options = &source->saver->options;
    source->conn = conn_dial(options->net, options->addresses[source->shard], DIALOGUE_DATA, &source_handlers, source);
    if (source->conn == NULL)
        net_timer_set(source->retry, RETRY);
}

static void take_own(struct saver *saver, struct source *source)
{
    for (; source->arrived < source->end; source->arrived++) {
        const struct chunk *chunk = chunk_of(source, source->arrived);
        const struct payload *payload = shard_params(saver->options.shard, saver->options.version, chunk->offset);
        if (payload == NULL)
            return; /* never: all shards have reported the version's step */
        take(source, chunk, payload->data);
    }
}

static int make_directories(const char *file, struct error *err)
{
    cleanup_free char *path = strdup(file);
    if (path == NULL)
        return error_set(err, "write '%s': no memory", file);
    for (char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(path, 0777) < 0 && errno != EEXIST)
            return error_errno(err, "make the directory '%s' for the model", path);
        *slash = '/';
    }
    return 0;
}

int saver_try(const char *path, struct error *err)
{
    if (make_directories(path, err) < 0)
        return -1;
    cleanup_free char *directory = strdup(path);
    if (directory == NULL)
        return error_set(err, "try to write '%s': no memory", path);
    char *slash = strrchr(directory, '/');
    if (slash != NULL)
        *slash = '\0';
    cleanup_fd int fd = open(slash != NULL ? directory : ".", O_WRONLY | O_TMPFILE | O_CLOEXEC, 0600);
    if (fd >= 0 || errno == EOPNOTSUPP || errno == EISDIR)
        return 0;
    return error_errno(err, "the model is to go to '%s', which cannot be written", directory);
}

static void finish(void *arg)
{
    struct saver *saver = arg;
    const struct saver_options *options = &saver->options;
    for (uint32_t shard = 0; shard < options->plan->shards; shard++)
        if (!is_whole(&saver->sources[shard]))
            return;
    if (saver->finished)
        return;
    saver->finished = true;
    struct error err = {0};
    uint8_t digest[SHA256_SIZE];
    struct report_model model = {.step = options->version};
    const struct model_table *tables = saver_rows_tables(saver->rows);
    if (tables == NULL)
        error_set(&err, "write the model's tables: no memory");
    if (tables == NULL || make_directories(options->path, &err) < 0 ||
        model_file_write(options->model, options->plan, options->kernel, saver->params, tables, options->path, digest,
                         &model.bytes, &err) < 0) {
        options->done(options->arg, NULL, error_message(&err));
        return;
    }
    hex_encode(digest, sizeof digest, model.sha256);
    snprintf(model.path, sizeof model.path, "%s", options->name);
    options->done(options->arg, &model, NULL);
}

int saver_start(struct saver **out, const struct saver_options *options, struct error *err)
{
    struct saver *saver = calloc(1, sizeof *saver);
    if (saver == NULL)
        return error_set(err, "fetch the model: no memory");
    saver->options = *options;
    uint64_t parameters = model_parameters(options->model);
    saver->params = malloc(parameters * sizeof(float));
    saver->finish = net_timer_new(options->net, finish, saver);
    if (layout_new(&saver->layout, model_network(options->model), options->plan->shards, err) < 0 ||
        saver_rows_new(&saver->rows, model_network(options->model), options->plan, options->version, err) < 0) {
        saver_free(saver);
        return -1;
    }
    if (saver->params == NULL || saver->finish == NULL) {
        saver_free(saver);
        return error_set(err, "fetch the model of %llu parameters: no memory", (unsigned long long)parameters);
    }
    for (uint32_t shard = 0; shard < options->plan->shards; shard++) {
        struct source *source = &saver->sources[shard];
        *source = (struct source){.saver = saver, .shard = shard};
        source->asked = source->arrived = saver->layout->first[shard];
        source->end = saver->layout->first[shard + 1];
        source->retry = net_timer_new(options->net, dial, source);
        if (source->retry == NULL) {
            saver_free(saver);
            return error_set(err, "fetch the model: no memory");
        }
        if (shard > 0 && !is_whole(source))
            net_timer_set(source->retry, 0);
    }
    take_own(saver, &saver->sources[0]);
    if (saver_rows_take_own(saver->rows, 0, options->shard, err) < 0) {
        saver_free(saver);
        return -1;
    }
    net_timer_set(saver->finish, 0);
    *out = saver;
    return 0;
}

void saver_free(struct saver *saver)
{
    if (saver == NULL)
        return;
    for (uint32_t shard = 0; shard < PLAN_SHARDS_MOST; shard++)
        net_timer_free(saver->sources[shard].retry);
    net_timer_free(saver->finish);
    layout_free(saver->layout);
    saver_rows_free(saver->rows);
    free(saver->params);
    free(saver);
}
