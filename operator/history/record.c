#include "history/record.h"

#include "common/clock.h"
#include "history/history.h"

#include <math.h>
#include <string.h>

static const double NO_NUMBER = (double)NAN; /* of what is null */

/* Members of the document that `about` does not hold. */
static bool is_apart(const char *name)
{
    static const char *const names[] = {"_id", "data", "epochs", "updated", "revision"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

/* In `about` times are RFC 3339 texts, as in the TrainJob; in BSON they are dates. */
static bool is_time(const char *name)
{
    return strcmp(name, "created") == 0 || strcmp(name, "started") == 0 || strcmp(name, "completed") == 0 ||
           strcmp(name, "deleted") == 0;
}

/* JSON has one kind of number: these stay doubles when they happen to be whole. */
static bool is_real(const char *name)
{
    return strcmp(name, "lr") == 0 || strcmp(name, "goal_accuracy") == 0;
}

/* ---- from a TrainJob ---- */

/* Copies the value at `from`, if there is one. */
static int copy_value(cJSON *about, const char *to, const cJSON *trainjob, const char *from, struct error *err)
{
    const cJSON *value = json_at(trainjob, from);
    if (value == NULL || cJSON_IsNull(value))
        return 0;
    return json_put(about, to, cJSON_Duplicate(value, true), err);
}

static const char *model_type(const cJSON *trainjob)
{
    const cJSON *model = json_at(trainjob, "spec.model");
    const char *kind = model == NULL || model->child == NULL ? "" : model->child->string;
    return json_string(model, "zoo", kind);
}

/* KubeML's k: steps on a worker between two averages, -1 for one average an epoch. A synchronous step is an average
 * of every step. */
static int64_t steps_between_averages(const cJSON *trainjob)
{
    if (strcmp(json_string(trainjob, "spec.sync.type", ""), "KAverage") != 0)
        return 1;
    return json_int(trainjob, "spec.sync.kAverage.localSteps", -1);
}

static int describe_task(cJSON *about, const cJSON *trainjob, struct error *err)
{
    bool adjusts = strcmp(json_string(trainjob, "spec.workers.autoscale.type", "None"), "None") != 0;
    if (json_put(about, "task.model_type", cJSON_CreateString(model_type(trainjob)), err) < 0 ||
        copy_value(about, "task.batch_size", trainjob, "spec.training.batchSize", err) < 0 ||
        copy_value(about, "task.epochs", trainjob, "spec.training.epochs", err) < 0 ||
        copy_value(about, "task.dataset", trainjob, "spec.datasetRef.name", err) < 0 ||
        copy_value(about, "task.lr", trainjob, "spec.training.optimizer.learningRate", err) < 0 ||
        json_put(about, "task.function_name", cJSON_CreateString(model_type(trainjob)), err) < 0 ||
        copy_value(about, "task.options.default_parallelism", trainjob, "spec.workers.replicas", err) < 0 ||
        json_put(about, "task.options.static_parallelism", cJSON_CreateBool(!adjusts), err) < 0 ||
        copy_value(about, "task.options.validate_every", trainjob, "spec.training.validateEveryEpochs", err) < 0 ||
        json_put(about, "task.options.k", cJSON_CreateNumber((double)steps_between_averages(trainjob)), err) < 0)
        return -1;
    double goal = json_number(trainjob, "spec.training.goalAccuracy", 0);
    return json_put(about, "task.options.goal_accuracy", cJSON_CreateNumber(goal), err);
}

static const char *state_of(const cJSON *trainjob)
{
    const char *phase = json_string(trainjob, "status.phase", "Pending");
    bool ended = strcmp(phase, "Succeeded") == 0 || strcmp(phase, "Failed") == 0;
    return !ended && json_at(trainjob, "metadata.deletionTimestamp") != NULL ? "Deleted" : phase;
}

/* Why it ended, from the condition of that name. */
static int describe_reason(cJSON *about, const cJSON *trainjob, const char *state, struct error *err)
{
    const cJSON *condition = NULL;
    cJSON_ArrayForEach(condition, json_at(trainjob, "status.conditions"))
    {
        if (strcmp(json_string(condition, "type", ""), state) == 0 &&
            strcmp(json_string(condition, "status", ""), "True") == 0)
            return copy_value(about, "reason", condition, "reason", err);
    }
    return 0;
}

static int describe_job(struct record *record, const cJSON *trainjob, struct error *err)
{
    static const char *const copied[][2] = {
        {"namespace", "metadata.namespace"},       {"name", "metadata.name"},
        {"created", "metadata.creationTimestamp"}, {"started", "status.startTime"},
        {"completed", "status.completionTime"},    {"deleted", "metadata.deletionTimestamp"},
        {"model.path", "status.model.path"},       {"model.sha256", "status.model.sha256"},
        {"model.bytes", "status.model.bytes"},     {"model.step", "status.model.step"},
    };
    cJSON *about = record->about;
    for (size_t i = 0; i < sizeof copied / sizeof copied[0]; i++)
        if (copy_value(about, copied[i][0], trainjob, copied[i][1], err) < 0)
            return -1;
    if (describe_task(about, trainjob, err) < 0)
        return -1;
    const char *state = state_of(trainjob);
    if (json_put(about, "state", cJSON_CreateString(state), err) < 0 ||
        json_put(about, "term", cJSON_CreateNumber(record->term), err) < 0 ||
        json_put(about, "final", cJSON_CreateBool(record->final), err) < 0 ||
        describe_reason(about, trainjob, state, err) < 0)
        return -1;
    /* Before the end the message tells of progress: the document would change without anything new in it. */
    return record->final ? copy_value(about, "message", trainjob, "status.message", err) : 0;
}

static char *job_name(const cJSON *trainjob)
{
    char *name = NULL;
    int length = asprintf(&name, "%s/%s", json_string(trainjob, "metadata.namespace", ""),
                          json_string(trainjob, "metadata.name", ""));
    return length < 0 ? NULL : name;
}

static int by_epoch_and_term(const void *a, const void *b)
{
    const struct report_epoch *one = a, *other = b;
    if (one->epoch != other->epoch)
        return one->epoch < other->epoch ? -1 : 1;
    return one->term < other->term ? -1 : one->term > other->term;
}

/* Sorts, and keeps of each epoch the one of the highest term. */
static void put_in_order(struct record *record)
{
    if (record->count == 0)
        return;
    qsort(record->epochs, record->count, sizeof record->epochs[0], by_epoch_and_term);
    size_t kept = 0;
    for (size_t i = 1; i < record->count; i++) {
        if (record->epochs[i].epoch != record->epochs[kept].epoch)
            kept++;
        record->epochs[kept] = record->epochs[i];
    }
    record->count = kept + 1;
}

struct record *record_new(const cJSON *trainjob, const struct report_epoch *epochs, size_t count, bool final,
                          struct error *err)
{
    cleanup_free char *job = job_name(trainjob);
    const char *uid = json_string(trainjob, "metadata.uid", "");
    if (*uid == '\0' || count > HISTORY_EPOCHS_MOST) {
        error_set(err, "TrainJob '%s' has no UID, or more than %d epochs", job == NULL ? "" : job, HISTORY_EPOCHS_MOST);
        return NULL;
    }
    cleanup_record struct record *record = calloc(1, sizeof *record);
    if (record == NULL || job == NULL) {
        error_set(err, "out of memory for a history record");
        return NULL;
    }
    *record = (struct record){.job_uid = strdup(uid),
                              .job = move(job),
                              .about = cJSON_CreateObject(),
                              .final = final,
                              .epochs = calloc(count + 1, sizeof *epochs)};
    if (record->job_uid == NULL || record->about == NULL || record->epochs == NULL) {
        error_set(err, "out of memory for a history record");
        return NULL;
    }
    record->term = (uint32_t)json_int(trainjob, "status.term", 0);
    for (size_t i = 0; i < count; i++) {
        record->epochs[i] = epochs[i];
        if (epochs[i].term > record->term)
            record->term = epochs[i].term;
    }
    record->count = count;
    put_in_order(record);
    return describe_job(record, trainjob, err) < 0 ? NULL : move(record);
}

struct record *record_copy(const struct record *record, struct error *err)
{
    cleanup_record struct record *copy = calloc(1, sizeof *copy);
    if (copy == NULL) {
        error_set(err, "out of memory for a history record");
        return NULL;
    }
    *copy = (struct record){.job_uid = strdup(record->job_uid),
                            .job = strdup(record->job),
                            .about = cJSON_Duplicate(record->about, true),
                            .term = record->term,
                            .final = record->final,
                            .epochs = calloc(record->count + 1, sizeof *copy->epochs),
                            .count = record->count};
    if (copy->job_uid == NULL || copy->job == NULL || copy->about == NULL || copy->epochs == NULL) {
        error_set(err, "out of memory for a history record");
        return NULL;
    }
    for (size_t i = 0; i < record->count; i++)
        copy->epochs[i] = record->epochs[i];
    return move(copy);
}

void record_free(struct record *record)
{
    if (record == NULL)
        return;
    free(record->job_uid);
    free(record->job);
    cJSON_Delete(record->about);
    free(record->epochs);
    free(record);
}

/* ---- merging ---- */

static int merge_epochs(struct record *record, const struct record *older, struct error *err)
{
    size_t most = record->count + older->count, a = 0, b = 0, count = 0;
    cleanup_free struct report_epoch *merged = calloc(most + 1, sizeof *merged);
    if (merged == NULL)
        return error_set(err, "out of memory for a history record");
    while (a < record->count && b < older->count) {
        const struct report_epoch *new = &record->epochs[a], *old = &older->epochs[b];
        a += new->epoch <= old->epoch;
        b += old->epoch <= new->epoch;
        bool take_new = new->epoch < old->epoch || (new->epoch == old->epoch &&new->term > old->term);
        merged[count++] = take_new ? *new : *old;
    }
    while (a < record->count)
        merged[count++] = record->epochs[a++];
    while (b < older->count)
        merged[count++] = older->epochs[b++];
    if (count > HISTORY_EPOCHS_MOST)
        return error_set(err, "the history of '%s' would hold more than %d epochs", record->job, HISTORY_EPOCHS_MOST);
    free(record->epochs);
    record->epochs = move(merged);
    record->count = count;
    return 0;
}

int record_merge(struct record *record, const struct record *older, struct error *err)
{
    bool older_knows_better = older->final != record->final ? older->final : older->term > record->term;
    cleanup_json cJSON *about = cJSON_Duplicate(older_knows_better ? older->about : record->about, true);
    uint32_t term = older->term > record->term ? older->term : record->term;
    if (about == NULL)
        return error_set(err, "out of memory for a history record");
    if (json_put(about, "term", cJSON_CreateNumber(term), err) < 0 || merge_epochs(record, older, err) < 0)
        return -1;
    cJSON_Delete(record->about);
    record->about = move(about);
    record->term = term;
    record->final = record->final || older->final;
    return 0;
}

uint32_t record_newest_epoch(const struct record *record)
{
    return record->count == 0 ? 0 : record->epochs[record->count - 1].epoch;
}

static bool same_number(double a, double b)
{
    return a == b || (isnan(a) && isnan(b));
}

static bool same_epoch(const struct report_epoch *a, const struct report_epoch *b)
{
    return a->epoch == b->epoch && a->term == b->term && a->validated == b->validated &&
           a->parallelism == b->parallelism && same_number(a->train_loss, b->train_loss) &&
           same_number(a->duration_seconds, b->duration_seconds) &&
           (!a->validated ||
            (same_number(a->validation_loss, b->validation_loss) && same_number(a->accuracy, b->accuracy)));
}

bool record_equal(const struct record *a, const struct record *b)
{
    if (a->count != b->count || !json_equal(a->about, b->about))
        return false;
    for (size_t i = 0; i < a->count; i++)
        if (!same_epoch(&a->epochs[i], &b->epochs[i]))
            return false;
    return true;
}

/* ---- to BSON ---- */

static void append_number(bson_t *out, const char *name, double value)
{
    if (isfinite(value))
        BSON_APPEND_DOUBLE(out, name, value);
    else
        BSON_APPEND_NULL(out, name);
}

static void append_text(bson_t *out, const char *name, const char *text)
{
    int64_t seconds = 0;
    if (is_time(name) && time_parse_rfc3339(text, &seconds) == 0)
        BSON_APPEND_DATE_TIME(out, name, seconds * 1000);
    else
        BSON_APPEND_UTF8(out, name, text);
}

/* `about` is at most three deep: it was made here, or read by about_from_bson(). */
static void append_members(bson_t *out, const cJSON *object)
{
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, object)
    {
        if (cJSON_IsObject(item)) {
            bson_t inner;
            BSON_APPEND_DOCUMENT_BEGIN(out, item->string, &inner);
            append_members(&inner, item); // NOLINT(misc-no-recursion)
            bson_append_document_end(out, &inner);
        } else if (cJSON_IsString(item)) {
            append_text(out, item->string, item->valuestring);
        } else if (cJSON_IsBool(item)) {
            BSON_APPEND_BOOL(out, item->string, cJSON_IsTrue(item));
        } else if (is_real(item->string)) {
            append_number(out, item->string, item->valuedouble);
        } else {
            BSON_APPEND_INT64(out, item->string, (int64_t)item->valuedouble);
        }
    }
}

static double validation_loss_of(const struct report_epoch *epoch)
{
    return epoch->validation_loss;
}

static double accuracy_of(const struct report_epoch *epoch)
{
    return epoch->accuracy;
}

static double train_loss_of(const struct report_epoch *epoch)
{
    return epoch->train_loss;
}

static double parallelism_of(const struct report_epoch *epoch)
{
    return epoch->parallelism;
}

static double duration_of(const struct report_epoch *epoch)
{
    return epoch->duration_seconds;
}

static void append_series(bson_t *data, const char *name, const struct record *record, bool only_validated,
                          double (*value_of)(const struct report_epoch *epoch))
{
    bson_t list;
    BSON_APPEND_ARRAY_BEGIN(data, name, &list);
    uint32_t entries = 0;
    for (size_t i = 0; i < record->count; i++) {
        if (only_validated && !record->epochs[i].validated)
            continue;
        char space[16];
        const char *index = NULL;
        bson_uint32_to_string(entries++, &index, space, sizeof space);
        append_number(&list, index, value_of(&record->epochs[i]));
    }
    bson_append_array_end(data, &list);
}

static void append_data(bson_t *out, const struct record *record)
{
    bson_t data;
    BSON_APPEND_DOCUMENT_BEGIN(out, "data", &data);
    append_series(&data, "validation_loss", record, true, validation_loss_of);
    append_series(&data, "accuracy", record, true, accuracy_of);
    append_series(&data, "train_loss", record, false, train_loss_of);
    append_series(&data, "parallelism", record, false, parallelism_of);
    append_series(&data, "epoch_duration", record, false, duration_of);
    bson_append_document_end(out, &data);
}

static void append_epochs(bson_t *out, const struct record *record)
{
    bson_t list, entry;
    BSON_APPEND_ARRAY_BEGIN(out, "epochs", &list);
    for (size_t i = 0; i < record->count; i++) {
        const struct report_epoch *epoch = &record->epochs[i];
        char space[16];
        const char *index = NULL;
        bson_uint32_to_string((uint32_t)i, &index, space, sizeof space);
        BSON_APPEND_DOCUMENT_BEGIN(&list, index, &entry);
        BSON_APPEND_INT64(&entry, "epoch", epoch->epoch);
        BSON_APPEND_INT64(&entry, "term", epoch->term);
        append_number(&entry, "train_loss", epoch->train_loss);
        if (epoch->validated) {
            append_number(&entry, "validation_loss", epoch->validation_loss);
            append_number(&entry, "accuracy", epoch->accuracy);
        }
        BSON_APPEND_INT64(&entry, "parallelism", epoch->parallelism);
        append_number(&entry, "duration_seconds", epoch->duration_seconds);
        bson_append_document_end(&list, &entry);
    }
    bson_append_array_end(out, &list);
}

void record_to_bson(const struct record *record, int64_t revision, int64_t updated_seconds, bson_t *out)
{
    bson_init(out);
    BSON_APPEND_UTF8(out, "_id", record->job_uid);
    append_members(out, record->about);
    append_data(out, record);
    append_epochs(out, record);
    BSON_APPEND_DATE_TIME(out, "updated", updated_seconds * 1000);
    BSON_APPEND_INT64(out, "revision", revision);
}

/* ---- from BSON ---- */

enum { ABOUT_DEPTH_MOST = 4 };

static cJSON *value_from_bson(const bson_iter_t *at, int depth);

/* NULL where there is a kind of value that we do not write, or no memory. */
static cJSON *object_from_bson(bson_iter_t *members, int depth)
{
    cleanup_json cJSON *object = cJSON_CreateObject();
    while (object != NULL && bson_iter_next(members)) {
        const char *name = bson_iter_key(members);
        if (depth == 0 && is_apart(name))
            continue;
        cJSON *value = value_from_bson(members, depth + 1);
        if (value == NULL || !cJSON_AddItemToObject(object, name, value)) {
            cJSON_Delete(value);
            return NULL;
        }
    }
    return move(object);
}

static cJSON *value_from_bson(const bson_iter_t *at, int depth) // NOLINT(misc-no-recursion)
{
    char text[RFC3339_SIZE];
    bson_iter_t inner;
    switch (bson_iter_type(at)) {
    case BSON_TYPE_UTF8:
        return cJSON_CreateString(bson_iter_utf8(at, NULL));
    case BSON_TYPE_BOOL:
        return cJSON_CreateBool(bson_iter_bool(at));
    case BSON_TYPE_DOUBLE:
    case BSON_TYPE_INT32:
    case BSON_TYPE_INT64:
        return cJSON_CreateNumber(bson_iter_as_double(at));
    case BSON_TYPE_NULL:
        return cJSON_CreateNumber(NO_NUMBER);
    case BSON_TYPE_DATE_TIME:
        time_format_rfc3339(bson_iter_date_time(at) / 1000, text);
        return cJSON_CreateString(text);
    case BSON_TYPE_DOCUMENT:
        if (depth < ABOUT_DEPTH_MOST && bson_iter_recurse(at, &inner))
            return object_from_bson(&inner, depth);
        return NULL;
    default:
        return NULL;
    }
}

static double find_number(const bson_t *document, const char *name, bool *found)
{
    bson_iter_t at;
    *found = bson_iter_init_find(&at, document, name);
    return *found && (BSON_ITER_HOLDS_NUMBER(&at)) ? bson_iter_as_double(&at) : NO_NUMBER;
}

static int read_whole(const bson_t *document, const char *name, double least, double most, uint32_t *out)
{
    bool found = false;
    double value = find_number(document, name, &found);
    if (!(value >= least && value <= most))
        return -1;
    *out = (uint32_t)value;
    return 0;
}

static int epoch_from_bson(struct report_epoch *out, const bson_t *document)
{
    bool found = false;
    if (read_whole(document, "epoch", 1, REPORT_EPOCHS_MOST, &out->epoch) < 0 ||
        read_whole(document, "term", 0, UINT32_MAX, &out->term) < 0 ||
        read_whole(document, "parallelism", 0, REPORT_WORKERS_MOST, &out->parallelism) < 0)
        return -1;
    out->train_loss = find_number(document, "train_loss", &found);
    out->duration_seconds = find_number(document, "duration_seconds", &found);
    bool has_accuracy = false;
    out->accuracy = find_number(document, "accuracy", &has_accuracy);
    out->validation_loss = find_number(document, "validation_loss", &found);
    out->validated = has_accuracy || found;
    if (!out->validated)
        out->accuracy = out->validation_loss = 0;
    return 0;
}

static int epochs_from_bson(struct record *record, const bson_t *document)
{
    bson_iter_t list, at;
    if (!bson_iter_init_find(&list, document, "epochs") || !BSON_ITER_HOLDS_ARRAY(&list) ||
        !bson_iter_recurse(&list, &at))
        return -1;
    size_t room = 0;
    while (bson_iter_next(&at)) {
        if (record->count == room) {
            room = room == 0 ? 16 : 2 * room;
            struct report_epoch *more = realloc(record->epochs, room * sizeof *more);
            if (more == NULL)
                return -1;
            record->epochs = more;
        }
        bson_t entry;
        const uint8_t *bytes = NULL;
        uint32_t length = 0;
        if (record->count >= HISTORY_EPOCHS_MOST || !BSON_ITER_HOLDS_DOCUMENT(&at))
            return -1;
        bson_iter_document(&at, &length, &bytes);
        record->epochs[record->count] = (struct report_epoch){0};
        if (!bson_init_static(&entry, bytes, length) || epoch_from_bson(&record->epochs[record->count], &entry) < 0)
            return -1;
        record->count++;
    }
    put_in_order(record);
    return 0;
}

int record_from_bson(struct record **out, int64_t *revision, const bson_t *document, struct error *err)
{
    bson_iter_t id, at, members;
    if (!bson_iter_init_find(&id, document, "_id") || !BSON_ITER_HOLDS_UTF8(&id))
        return error_set(err, "a document of 'thole.history' has an _id that is no job's UID");
    const char *uid = bson_iter_utf8(&id, NULL);
    cleanup_record struct record *record = calloc(1, sizeof *record);
    if (record == NULL)
        return error_set(err, "out of memory for a history record");
    record->job_uid = strdup(uid);
    record->job = strdup(uid);
    if (bson_iter_init(&members, document))
        record->about = object_from_bson(&members, 0);
    if (record->job_uid == NULL || record->job == NULL || record->about == NULL ||
        epochs_from_bson(record, document) < 0 || !bson_iter_init_find(&at, document, "revision") ||
        !BSON_ITER_HOLDS_INT(&at))
        return error_set(err,
                         "the document '%s' of 'thole.history' was changed by hand into something that cannot be "
                         "read: remove it, and it will be written again",
                         uid);
    *revision = bson_iter_as_int64(&at);
    record->term = (uint32_t)json_int(record->about, "term", 0);
    record->final = json_bool(record->about, "final", false);
    *out = move(record);
    return 0;
}
