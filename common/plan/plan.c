#include "common/plan/plan.h"

#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

enum { NAME_MOST = 48, PATH_MOST = 255, TEXT_MOST = 253, SHAPE_MOST = 4096 };

static const char *const model_names[] = {[PLAN_MODEL_MLP] = "mlp", [PLAN_MODEL_LENET] = "lenet"};
enum { MODELS = sizeof model_names / sizeof model_names[0] };

const char *plan_model_name(enum plan_model model)
{
    return model_names[model];
}

void plan_free(struct plan *plan)
{
    if (plan == NULL)
        return;
    free(plan->job_namespace);
    free(plan->job_name);
    free(plan->job_uid);
    free(plan->dataset.name);
    free(plan->dataset.train.features);
    free(plan->dataset.train.labels);
    free(plan->dataset.test.features);
    free(plan->dataset.test.labels);
    free(plan);
}

/* ---- where every value stands ----
 * A plan is read from two shapes: the objects that users write, and plan.json. Each row says where a value is in
 * both and which values are fit; a sentence names the field as users know it. */

struct source {
    const cJSON *trainjob, *dataset; /* the objects, or … */
    const cJSON *plan;               /* … plan.json */
};

/* `object_path` begins with "spec.", or "metadata." for names. */
static const cJSON *find(const struct source *source, bool of_dataset, const char *object_path, const char *plan_path)
{
    if (source->plan != NULL)
        return json_at(source->plan, plan_path);
    return json_at(of_dataset ? source->dataset : source->trainjob, object_path);
}

enum number_type { U32, U64, F64 };

struct number_row {
    const char *object_path, *plan_path;
    size_t offset;
    double least, most;
    enum number_type type;
    bool of_dataset;
    bool above, below; /* the bound itself is not fit */
    bool optional;     /* 0 where absent */
};

#define MEMBER(name) offsetof(struct plan, name)
static const struct number_row number_rows[] = {
    {"spec.classes", "dataset.classes", MEMBER(dataset.classes), 2, 1000, .type = U32, .of_dataset = true},
    {"spec.normalize.scale", "dataset.scale", MEMBER(dataset.scale), 0, 1e6, .type = F64, .of_dataset = true,
     .above = true},
    {"spec.training.epochs", "training.epochs", MEMBER(training.epochs), 1, 10000, .type = U32},
    {"spec.training.batchSize", "training.batchSize", MEMBER(training.batch_size), 1, 65536, .type = U32},
    {"spec.training.optimizer.learningRate", "training.optimizer.learningRate",
     MEMBER(training.optimizer.learning_rate), 0, 1000, .type = F64, .above = true},
    {"spec.training.optimizer.momentum", "training.optimizer.momentum", MEMBER(training.optimizer.momentum), 0, 1,
     .type = F64, .below = true},
    {"spec.training.optimizer.weightDecay", "training.optimizer.weightDecay", MEMBER(training.optimizer.weight_decay),
     0, 1, .type = F64},
    {"spec.training.seed", "training.seed", MEMBER(training.seed), 0, 9007199254740991.0, .type = U64},
    {"spec.training.validateEveryEpochs", "training.validateEveryEpochs", MEMBER(training.validate_every_epochs), 0,
     10000, .type = U32},
    {"spec.training.goalAccuracy", "training.goalAccuracy", MEMBER(training.goal_accuracy), 0, 100, .type = F64,
     .above = true, .optional = true},
    {"spec.sync.synchronous.blocks", "sync.synchronous.blocks", MEMBER(blocks), 1, PLAN_BLOCKS_MOST, .type = U32},
    {"spec.parameterServers.shards", "parameterServers.shards", MEMBER(shards), 1, PLAN_SHARDS_MOST, .type = U32},
};

static int number_refused(const struct number_row *row, struct error *err)
{
    return error_set(err, "%s: must be a %snumber %s %.15g and %s %.15g", row->object_path,
                     row->type == F64 ? "" : "whole ", row->above ? "above" : "at least", row->least,
                     row->below ? "below" : "at most", row->most);
}

static int read_number(struct plan *plan, const struct source *source, const struct number_row *row, struct error *err)
{
    const cJSON *item = find(source, row->of_dataset, row->object_path, row->plan_path);
    double value = 0;
    if (item == NULL && !row->optional)
        return error_set(err, "%s: is missing", row->object_path);
    if (item != NULL) {
        value = cJSON_IsNumber(item) ? item->valuedouble : NAN;
        bool fits = (row->above ? value > row->least : value >= row->least) &&
                    (row->below ? value < row->most : value <= row->most) &&
                    (row->type == F64 || trunc(value) == value);
        if (!fits)
            return number_refused(row, err);
    }
    void *member = (char *)plan + row->offset;
    if (row->type == U32)
        *(uint32_t *)member = (uint32_t)value;
    else if (row->type == U64)
        *(uint64_t *)member = (uint64_t)value;
    else
        *(double *)member = value;
    return 0;
}

/* No leading '/', no ".." as a part. */
static bool is_inside(const char *path)
{
    if (path[0] == '/')
        return false;
    while (*path != '\0') {
        size_t length = strcspn(path, "/");
        if (length == 2 && strncmp(path, "..", 2) == 0)
            return false;
        path += length;
        path += *path == '/';
    }
    return true;
}

/* A DNS-1035 label. */
static bool is_job_name(const char *text)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz";
    static const char all[] = "abcdefghijklmnopqrstuvwxyz0123456789-";
    size_t length = strlen(text);
    return length >= 1 && length <= NAME_MOST && strchr(letters, text[0]) != NULL && strspn(text, all) == length &&
           text[length - 1] != '-';
}

enum text_kind { TEXT_ANY, TEXT_JOB_NAME, TEXT_PATH };

struct text_row {
    const char *object_path, *plan_path;
    bool of_dataset;
    enum text_kind kind;
    size_t offset, most;
};

static const struct text_row text_rows[] = {
    {"metadata.namespace", "job.namespace", false, TEXT_ANY, MEMBER(job_namespace), 63},
    {"metadata.name", "job.name", false, TEXT_JOB_NAME, MEMBER(job_name), TEXT_MOST},
    {"metadata.uid", "job.uid", false, TEXT_ANY, MEMBER(job_uid), 63},
    {"metadata.name", "dataset.name", true, TEXT_ANY, MEMBER(dataset.name), TEXT_MOST},
    {"spec.train.features", "dataset.train.features", true, TEXT_PATH, MEMBER(dataset.train.features), PATH_MOST},
    {"spec.train.labels", "dataset.train.labels", true, TEXT_PATH, MEMBER(dataset.train.labels), PATH_MOST},
    {"spec.test.features", "dataset.test.features", true, TEXT_PATH, MEMBER(dataset.test.features), PATH_MOST},
    {"spec.test.labels", "dataset.test.labels", true, TEXT_PATH, MEMBER(dataset.test.labels), PATH_MOST},
};

static int read_text(struct plan *plan, const struct source *source, const struct text_row *row, struct error *err)
{
    const cJSON *item = find(source, row->of_dataset, row->object_path, row->plan_path);
    if (!cJSON_IsString(item) || item->valuestring[0] == '\0')
        return error_set(err, "%s: is missing", row->object_path);
    if (strlen(item->valuestring) > row->most)
        return error_set(err, "%s: is longer than %zu characters", row->object_path, row->most);
    if (row->kind == TEXT_PATH && !is_inside(item->valuestring))
        return error_set(err, "%s: must be a relative path without '..'", row->object_path);
    if (row->kind == TEXT_JOB_NAME && !is_job_name(item->valuestring))
        return error_set(err, "metadata.name: must be at most 48 characters of a-z, 0-9 and '-', begin with a letter "
                              "and not end with '-', because Services and pods are named after the job");
    char **member = (char **)(void *)((char *)plan + row->offset);
    *member = strdup(item->valuestring);
    return *member == NULL ? error_set(err, "out of memory") : 0;
}

static int read_choice(const struct source *source, bool of_dataset, const char *object_path, const char *plan_path,
                       const char *const *choices, size_t count, size_t *out, struct error *err)
{
    const cJSON *item = find(source, of_dataset, object_path, plan_path);
    char list[128] = "";
    for (size_t i = 0, length = 0; i < count; i++) {
        if (cJSON_IsString(item) && strcmp(item->valuestring, choices[i]) == 0) {
            *out = i;
            return 0;
        }
        if (length < sizeof list)
            length += (size_t)snprintf(list + length, sizeof list - length, "%s\"%s\"", i == 0 ? "" : ", ", choices[i]);
    }
    return error_set(err, "%s: Unsupported value: \"%.60s\": supported values: %s", object_path,
                     cJSON_IsString(item) ? item->valuestring : "", list);
}

static int read_choices(struct plan *plan, const struct source *source, struct error *err)
{
    static const char *const formats[] = {"IDX"};
    static const char *const optimizers[] = {"SGD"};
    static const char *const syncs[] = {"Synchronous"};
    size_t model = 0;
    size_t only = 0;
    if (read_choice(source, false, "spec.model.zoo", "model.zoo", model_names, MODELS, &model, err) < 0 ||
        read_choice(source, false, "spec.training.optimizer.type", "training.optimizer.type", optimizers, 1, &only,
                    err) < 0 ||
        read_choice(source, false, "spec.sync.type", "sync.type", syncs, 1, &only, err) < 0 ||
        read_choice(source, true, "spec.format", "dataset.format", formats, 1, &only, err) < 0)
        return -1;
    plan->model = (enum plan_model)model;
    return 0;
}

static int read_shape(struct plan *plan, const struct source *source, struct error *err)
{
    const cJSON *shape = find(source, true, "spec.shape", "dataset.shape");
    if (shape == NULL)
        return 0;
    plan->dataset.has_shape = true;
    size_t count = 0;
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, shape)
    {
        double value = cJSON_IsNumber(item) ? item->valuedouble : NAN;
        if (count == 3 || !(value >= 1 && value <= SHAPE_MOST) || trunc(value) != value)
            return error_set(err, "spec.shape: must be three whole numbers from 1 to %d", SHAPE_MOST);
        plan->dataset.shape[count++] = (uint32_t)value;
    }
    return count == 3 ? 0 : error_set(err, "spec.shape: must be three whole numbers from 1 to %d", SHAPE_MOST);
}

/* mean or std; *count entries. */
static int read_channels(const struct source *source, const char *object_path, const char *plan_path, double least,
                         double out[PLAN_CHANNELS_MOST], uint32_t *count, struct error *err)
{
    const cJSON *list = find(source, true, object_path, plan_path);
    const cJSON *item = NULL;
    *count = 0;
    cJSON_ArrayForEach(item, list)
    {
        double value = cJSON_IsNumber(item) ? item->valuedouble : NAN;
        if (*count == PLAN_CHANNELS_MOST || !(value >= least && value <= 1e6))
            return error_set(err, "%s: must be at most %d numbers from %.15g to 1000000", object_path,
                             PLAN_CHANNELS_MOST, least);
        out[(*count)++] = value;
    }
    return *count > 0 ? 0 : error_set(err, "%s: is missing", object_path);
}

static int read_normalization(struct plan *plan, const struct source *source, struct error *err)
{
    uint32_t deviations = 0;
    if (read_channels(source, "spec.normalize.mean", "dataset.mean", -1e6, plan->dataset.mean, &plan->dataset.channels,
                      err) < 0 ||
        read_channels(source, "spec.normalize.std", "dataset.std", 1e-6, plan->dataset.std, &deviations, err) < 0)
        return -1;
    if (deviations != plan->dataset.channels)
        return error_set(err, "spec.normalize: mean and std need the same number of entries");
    if (deviations != 1 && !(plan->dataset.has_shape && plan->dataset.shape[0] == deviations))
        return error_set(err, "spec.normalize: mean and std need one entry, or one per channel of spec.shape");
    return 0;
}

static struct plan *read_plan(const struct source *source, struct error *err)
{
    cleanup_plan struct plan *plan = calloc(1, sizeof *plan);
    if (plan == NULL) {
        error_set(err, "out of memory");
        return NULL;
    }
    for (size_t i = 0; i < sizeof text_rows / sizeof text_rows[0]; i++)
        if (read_text(plan, source, &text_rows[i], err) < 0)
            return NULL;
    for (size_t i = 0; i < sizeof number_rows / sizeof number_rows[0]; i++)
        if (read_number(plan, source, &number_rows[i], err) < 0)
            return NULL;
    if (read_choices(plan, source, err) < 0 || read_shape(plan, source, err) < 0 ||
        read_normalization(plan, source, err) < 0)
        return NULL;
    return move(plan);
}

/* ---- writing ---- */

static void add_split(cJSON *dataset, const char *name, const struct plan_split *split, bool *whole)
{
    cJSON *json = json_add_object(dataset, name, whole);
    json_add_text(json, "features", split->features, whole);
    json_add_text(json, "labels", split->labels, whole);
}

static void add_dataset(cJSON *json, const struct plan *plan, bool *whole)
{
    cJSON *dataset = json_add_object(json, "dataset", whole);
    json_add_text(dataset, "name", plan->dataset.name, whole);
    json_add_text(dataset, "format", "IDX", whole);
    add_split(dataset, "train", &plan->dataset.train, whole);
    add_split(dataset, "test", &plan->dataset.test, whole);
    if (plan->dataset.has_shape) {
        cJSON *shape = json_add_list(dataset, "shape", whole);
        for (size_t i = 0; i < 3; i++)
            json_add(shape, NULL, cJSON_CreateNumber(plan->dataset.shape[i]), whole);
    }
    json_add_number(dataset, "classes", plan->dataset.classes, whole);
    json_add(dataset, "scale", json_exact_number(plan->dataset.scale), whole);
    json_add(dataset, "mean", json_exact_numbers(plan->dataset.mean, plan->dataset.channels), whole);
    json_add(dataset, "std", json_exact_numbers(plan->dataset.std, plan->dataset.channels), whole);
}

static void add_training(cJSON *json, const struct plan *plan, bool *whole)
{
    cJSON *training = json_add_object(json, "training", whole);
    json_add_number(training, "epochs", plan->training.epochs, whole);
    json_add_number(training, "batchSize", plan->training.batch_size, whole);
    cJSON *optimizer = json_add_object(training, "optimizer", whole);
    json_add_text(optimizer, "type", "SGD", whole);
    json_add(optimizer, "learningRate", json_exact_number(plan->training.optimizer.learning_rate), whole);
    json_add(optimizer, "momentum", json_exact_number(plan->training.optimizer.momentum), whole);
    json_add(optimizer, "weightDecay", json_exact_number(plan->training.optimizer.weight_decay), whole);
    char seed[24];
    snprintf(seed, sizeof seed, "%" PRIu64, plan->training.seed);
    json_add(training, "seed", cJSON_CreateRaw(seed), whole);
    json_add_number(training, "validateEveryEpochs", plan->training.validate_every_epochs, whole);
    if (plan->training.goal_accuracy > 0)
        json_add(training, "goalAccuracy", json_exact_number(plan->training.goal_accuracy), whole);
}

/* The canonical text: compact, members in this order. NULL without memory. */
static char *plan_text(const struct plan *plan, bool with_job)
{
    bool whole = true;
    cleanup_json cJSON *json = cJSON_CreateObject();
    json_add_number(json, "version", PLAN_VERSION, &whole);
    if (with_job) {
        cJSON *job = json_add_object(json, "job", &whole);
        json_add_text(job, "namespace", plan->job_namespace, &whole);
        json_add_text(job, "name", plan->job_name, &whole);
        json_add_text(job, "uid", plan->job_uid, &whole);
    }
    json_add_text(json_add_object(json, "model", &whole), "zoo", plan_model_name(plan->model), &whole);
    add_dataset(json, plan, &whole);
    add_training(json, plan, &whole);
    cJSON *sync = json_add_object(json, "sync", &whole);
    json_add_text(sync, "type", "Synchronous", &whole);
    json_add_number(json_add_object(sync, "synchronous", &whole), "blocks", plan->blocks, &whole);
    json_add_number(json_add_object(json, "parameterServers", &whole), "shards", plan->shards, &whole);
    return whole ? json_print(json) : NULL;
}

/* ---- the two verbs ---- */

/* What the CRDs' rules say of objects and a plan does not hold. */
static int check_objects(const cJSON *trainjob, const cJSON *dataset, struct error *err)
{
    const cJSON *source = json_at(dataset, "spec.source");
    if ((json_at(source, "hostPath") != NULL) == (json_at(source, "persistentVolumeClaim") != NULL))
        return error_set(err, "spec.source: set exactly one of hostPath and persistentVolumeClaim");
    const cJSON *volume = json_at(trainjob, "spec.output.volume");
    if (volume != NULL && (json_at(volume, "hostPath") != NULL) == (json_at(volume, "persistentVolumeClaim") != NULL))
        return error_set(err, "spec.output.volume: set exactly one of hostPath and persistentVolumeClaim");
    if (json_int(trainjob, "spec.workers.replicas", 1) > json_int(trainjob, "spec.sync.synchronous.blocks", 8))
        return error_set(err, "spec.workers.replicas: must not be more than spec.sync.synchronous.blocks (default 8), "
                              "because a step is dealt out in that many blocks; lower the workers or raise the blocks");
    return 0;
}

char *plan_compile(const cJSON *trainjob, const cJSON *dataset, struct error *err)
{
    struct source source = {.trainjob = trainjob, .dataset = dataset};
    cleanup_plan struct plan *plan = read_plan(&source, err);
    if (plan == NULL || check_objects(trainjob, dataset, err) < 0)
        return NULL;
    char *text = plan_text(plan, true);
    if (text == NULL)
        error_set(err, "out of memory");
    return text;
}

int plan_parse(struct plan **out, const char *text, size_t length, struct error *err)
{
    if (length > PLAN_BYTES_MOST)
        return error_set(err, "the plan is larger than %d bytes", PLAN_BYTES_MOST);
    cleanup_json cJSON *json = json_parse(text, length, "the plan", err);
    if (json == NULL)
        return -1;
    int64_t version = json_int(json, "version", -1);
    if (version != PLAN_VERSION)
        return error_set(err,
                         "the plan has version %" PRId64 ", this program reads version %d; use one trainer image "
                         "for operator and job",
                         version, PLAN_VERSION);
    struct source source = {.plan = json};
    struct error why = {0};
    cleanup_plan struct plan *plan = read_plan(&source, &why);
    if (plan == NULL)
        return error_set(err, "the plan does not hold: %s", error_message(&why));
    cleanup_free char *identity = plan_text(plan, false);
    if (identity == NULL)
        return error_set(err, "out of memory");
    sha256(identity, strlen(identity), plan->digest);
    *out = move(plan);
    return 0;
}
