#include "common/plan/rows.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { NAME_MOST = 48 };

void plan_free(struct plan *plan)
{
    if (plan == NULL)
        return;
    free(plan->job_namespace);
    free(plan->job_name);
    free(plan->job_uid);
    free(plan->model.zoo);
    free(plan->model.layers);
    free(plan->model.start);
    free_dataset(plan);
    free(plan);
}

/* ---- the job ---- */

/* A DNS-1035 label. */
static bool is_job_name(const char *text)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz";
    static const char all[] = "abcdefghijklmnopqrstuvwxyz0123456789-";
    size_t length = strlen(text);
    return length >= 1 && length <= NAME_MOST && strchr(letters, text[0]) != NULL && strspn(text, all) == length &&
           text[length - 1] != '-';
}

static int read_identity(struct plan *plan, const struct source *source, struct error *err)
{
    static const struct place name_space = {.path = "metadata.namespace", .plan_path = "job.namespace"};
    static const struct place name = {.path = "metadata.name", .plan_path = "job.name"};
    static const struct place uid = {.path = "metadata.uid", .plan_path = "job.uid"};
    if (read_text(source, &name_space, 63, false, &plan->job_namespace, err) < 0 ||
        read_text(source, &name, PLAN_TEXT_MOST, false, &plan->job_name, err) < 0 ||
        read_text(source, &uid, 63, false, &plan->job_uid, err) < 0)
        return -1;
    if (!is_job_name(plan->job_name))
        return error_set(err, "metadata.name: must be at most 48 characters of a-z, 0-9 and '-', begin with a letter "
                              "and not end with '-', because Services and pods are named after the job");
    return 0;
}

/* ---- the model ---- */

static int read_zoo(struct plan *plan, const struct source *source, const struct place *place, struct error *err)
{
    const char *names[32];
    size_t count = 0;
    while (network_zoo_name((uint32_t)count) != NULL && count < sizeof names / sizeof names[0]) {
        names[count] = network_zoo_name((uint32_t)count);
        count++;
    }
    uint32_t chosen = 0;
    if (read_choice(source, place, names, count, -1, &chosen, err) < 0)
        return -1;
    plan->model.zoo = strdup(names[chosen]);
    return plan->model.zoo == NULL ? error_set(err, "out of memory") : 0;
}

/* What the objects say of where a model starts becomes one text: "file/PATH" or "trainjob/NAME". */
static int read_start(struct plan *plan, const struct source *source, const struct place *place, const char *kind,
                      struct error *err)
{
    cleanup_free char *text = NULL;
    if (kind == NULL)
        return read_text(source, place, PLAN_PATH_MOST + 16, false, &plan->model.start, err);
    if (read_path(source, place, false, &text, err) < 0)
        return -1;
    size_t size = strlen(kind) + strlen(text) + 2;
    plan->model.start = malloc(size);
    if (plan->model.start == NULL)
        return error_set(err, "out of memory");
    snprintf(plan->model.start, size, "%s/%s", kind, text);
    return 0;
}

static int read_model(struct plan *plan, const struct source *source, struct error *err)
{
    static const struct place zoo = {.path = "spec.model.zoo"};
    static const struct place layers = {.path = "spec.model.layers"};
    static const struct place start = {.path = "model.start", .plan_path = "model.start"};
    static const struct place trainjob = {.path = "spec.model.trainJobRef.name", .plan_path = "-"};
    static const struct place file = {.path = "spec.model.file.path", .plan_path = "-"};
    const bool given[] = {
        place_value(source, &zoo) != NULL,
        place_value(source, &layers) != NULL,
        source->plan != NULL && place_value(source, &start) != NULL,
        source->plan == NULL && json_at(source->trainjob, "spec.model.trainJobRef") != NULL,
        source->plan == NULL && json_at(source->trainjob, "spec.model.file") != NULL,
    };
    if (given[0] + given[1] + given[2] + given[3] + given[4] != 1)
        return error_set(err, "spec.model: set exactly one of zoo, layers, trainJobRef and file");
    if (given[0])
        return read_zoo(plan, source, &zoo, err);
    if (given[1]) {
        plan->model.layers = network_layers_text(place_value(source, &layers), err);
        return plan->model.layers == NULL ? -1 : 0;
    }
    if (given[2])
        return read_start(plan, source, &start, NULL, err);
    return given[3] ? read_start(plan, source, &trainjob, "trainjob", err)
                    : read_start(plan, source, &file, "file", err);
}

static void add_model(cJSON *json, const struct plan *plan, bool *whole)
{
    cJSON *model = json_add_object(json, "model", whole);
    if (plan->model.zoo != NULL)
        json_add_text(model, "zoo", plan->model.zoo, whole);
    else if (plan->model.layers != NULL)
        json_add(model, "layers", cJSON_CreateRaw(plan->model.layers), whole);
    else
        json_add_text(model, "start", plan->model.start, whole);
}

const char *plan_model_name(const struct plan *plan)
{
    if (plan->model.zoo != NULL)
        return plan->model.zoo;
    return plan->model.layers != NULL ? "layers" : plan->model.start;
}

bool plan_sample(const struct plan *plan, struct network_sample *out)
{
    *out = (struct network_sample){.classes = plan->dataset.classes,
                                   .categories = plan->dataset.csv.categorical_count,
                                   .rows = plan_category_rows(plan)};
    if (plan->dataset.has_shape)
        out->shape = (struct shape){plan->dataset.shape[0], plan->dataset.shape[1], plan->dataset.shape[2]};
    else if (plan->dataset.format == PLAN_FORMAT_LIBSVM)
        out->shape = (struct shape){plan->dataset.features, 1, 1};
    return out->shape.c > 0;
}

int plan_network(struct network **out, const struct plan *plan, const struct network_sample *sample, struct error *err)
{
    cleanup_json cJSON *layers = NULL;
    if (plan->model.layers != NULL) {
        layers = json_parse(plan->model.layers, strlen(plan->model.layers), "spec.model.layers", err);
        if (layers == NULL)
            return -1;
    }
    const struct network_spec spec = {.zoo = plan->model.zoo,
                                      .layers = layers,
                                      .has_loss = plan->training.has_loss,
                                      .loss = plan->training.loss,
                                      .huber_delta = plan->training.huber_delta};
    return network_build(out, &spec, sample, err);
}

int plan_check_tables(const struct plan *plan, struct error *err)
{
    if (plan->sync == PLAN_KAVERAGE)
        return error_set(err, "spec.sync.type: KAverage averages whole models, and of an Embedding a worker has only "
                              "the rows of its own samples; take Synchronous, Asynchronous or Hogwild");
    return 0;
}

int plan_check_network(const struct plan *plan, const struct network *network, struct error *err)
{
    if (network->parameters < plan->shards)
        return error_set(err,
                         "spec.parameterServers.shards: %u is more than a model of %" PRIu64
                         " parameters can be cut into; make it smaller",
                         plan->shards, network->parameters);
    return network->table_count == 0 ? 0 : plan_check_tables(plan, err);
}

static bool has_tables(const struct plan *plan)
{
    if (plan->model.zoo != NULL) /* one that cannot take categories is refused for that */
        return plan->dataset.csv.categorical_count > 0 || strcmp(plan->model.zoo, "widedeep") == 0;
    return plan->model.layers != NULL && strstr(plan->model.layers, "\"type\":\"Embedding\"") != NULL;
}

/* What cannot be built is said before anything starts, where the plan alone can tell. */
static int check_network(const struct plan *plan, struct error *err)
{
    struct network_sample sample;
    cleanup_network struct network *network = NULL;
    if (has_tables(plan) && plan_check_tables(plan, err) < 0)
        return -1;
    if (plan->model.start != NULL || !plan_sample(plan, &sample))
        return 0;
    return plan_network(&network, plan, &sample, err) < 0 ? -1 : plan_check_network(plan, network, err);
}

/* ---- the whole ---- */

static struct plan *read_plan(const struct source *source, struct error *err)
{
    cleanup_plan struct plan *plan = calloc(1, sizeof *plan);
    static const struct number_row shards = {{.path = "spec.parameterServers.shards"},
                                             offsetof(struct plan, shards),
                                             1,
                                             PLAN_SHARDS_MOST,
                                             .type = U32,
                                             .optional = true,
                                             .fallback = 1};
    if (plan == NULL) {
        error_set(err, "out of memory");
        return NULL;
    }
    if (read_identity(plan, source, err) < 0 || read_model(plan, source, err) < 0 ||
        read_dataset(plan, source, err) < 0 || read_training(plan, source, err) < 0 ||
        read_sync(plan, source, err) < 0 || read_number(plan, source, &shards, err) < 0)
        return NULL;
    return move(plan);
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
    add_model(json, plan, &whole);
    add_dataset(json, plan, &whole);
    add_training(json, plan, &whole);
    add_sync(json, plan, &whole);
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
    bool synchronous = strcmp(json_string(trainjob, "spec.sync.type", "Synchronous"), "Synchronous") == 0;
    if (synchronous &&
        json_int(trainjob, "spec.workers.replicas", 1) > json_int(trainjob, "spec.sync.synchronous.blocks", 8))
        return error_set(err, "spec.workers.replicas: must not be more than spec.sync.synchronous.blocks (default 8), "
                              "because a step is dealt out in that many blocks; lower the workers or raise the blocks");
    return 0;
}

char *plan_compile(const cJSON *trainjob, const cJSON *dataset, struct error *err)
{
    struct source source = {.trainjob = trainjob, .dataset = dataset};
    cleanup_plan struct plan *plan = read_plan(&source, err);
    if (plan == NULL || check_objects(trainjob, dataset, err) < 0 || check_network(plan, err) < 0)
        return NULL;
    cleanup_free char *text = plan_text(plan, true);
    if (text == NULL)
        error_set(err, "out of memory");
    else if (strlen(text) > PLAN_BYTES_MOST)
        error_set(err, "the job's plan has %zu bytes, and at most %d fit: shorten spec.csv.categorical", strlen(text),
                  PLAN_BYTES_MOST);
    else
        return move(text);
    return NULL;
}

static int set_digest(struct plan *plan, struct error *err)
{
    cleanup_free char *identity = plan_text(plan, false);
    if (identity == NULL)
        return error_set(err, "out of memory");
    sha256(identity, strlen(identity), plan->digest);
    return 0;
}

int plan_begin_from(struct plan *plan, const uint8_t file_sha256[SHA256_SIZE], struct error *err)
{
    char content[sizeof "sha256/" + SHA256_HEX_SIZE] = "sha256/";
    hex_encode(file_sha256, SHA256_SIZE, content + strlen(content));
    char *place = plan->model.start;
    plan->model.start = content;
    int result = set_digest(plan, err);
    plan->model.start = place;
    return result;
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
    if (set_digest(plan, err) < 0)
        return -1;
    *out = move(plan);
    return 0;
}
