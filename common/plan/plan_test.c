#include "common/plan/plan.h"

#include "common/manifest/manifest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static const char dataset_yaml[] = "apiVersion: thole.dev/v1alpha1\n"
                                   "kind: Dataset\n"
                                   "metadata: {name: fashion}\n"
                                   "spec:\n"
                                   "  format: IDX\n"
                                   "  source: {hostPath: {path: /data}}\n"
                                   "  train: {features: a.gz, labels: sub/b.gz}\n"
                                   "  test: {features: c.gz, labels: d.gz}\n"
                                   "  shape: [1, 28, 28]\n"
                                   "  classes: 10\n"
                                   "  normalize: {mean: [0.286], std: [0.353]}\n";

static const char job_yaml[] = "apiVersion: thole.dev/v1alpha1\n"
                               "kind: TrainJob\n"
                               "metadata: {name: lenet, namespace: here, uid: 1-2-3}\n"
                               "spec:\n"
                               "  datasetRef: {name: fashion}\n"
                               "  model: {zoo: lenet}\n"
                               "  training:\n"
                               "    epochs: 5\n"
                               "    batchSize: 128\n"
                               "    optimizer: {learningRate: 0.05, momentum: 0.9}\n"
                               "  parameterServers: {shards: 2}\n";

static const char golden[] =
    "{\"version\":1,\"job\":{\"namespace\":\"here\",\"name\":\"lenet\",\"uid\":\"1-2-3\"},\"model\":{\"zoo\":\"lenet\"}"
    ","
    "\"dataset\":{\"name\":\"fashion\",\"format\":\"IDX\",\"train\":{\"features\":\"a.gz\",\"labels\":\"sub/b.gz\"},"
    "\"test\":{\"features\":\"c.gz\",\"labels\":\"d.gz\"},\"shape\":[1,28,28],\"classes\":10,"
    "\"scale\":0.00392156862745098,\"mean\":[0.286],\"std\":[0.353]},"
    "\"training\":{\"epochs\":5,\"batchSize\":128,\"optimizer\":{\"type\":\"SGD\",\"learningRate\":0.05,"
    "\"momentum\":0.9,\"weightDecay\":0},\"seed\":1,\"validateEveryEpochs\":1},"
    "\"sync\":{\"type\":\"Synchronous\",\"synchronous\":{\"blocks\":8}},\"parameterServers\":{\"shards\":2}}";

/* The two objects with defaults filled in and, where `path` is not NULL, one member replaced by `json` ("": removed).
 */
static char *compile(const char *path, bool in_dataset, const char *json, struct error *err)
{
    cleanup_json cJSON *jobs = manifest_parse(job_yaml, strlen(job_yaml), "job", err);
    cleanup_json cJSON *datasets = manifest_parse(dataset_yaml, strlen(dataset_yaml), "dataset", err);
    assert_non_null(jobs);
    assert_non_null(datasets);
    cJSON *job = jobs->child;
    cJSON *dataset = datasets->child;
    if (path != NULL) {
        cJSON *value = json[0] == '\0' ? cJSON_CreateNull() : cJSON_Parse(json);
        assert_non_null(value);
        cJSON *root = in_dataset ? dataset : job;
        assert_int_equal(json_put(root, path, value, err), 0);
        if (json[0] == '\0') {
            char parent[128];
            snprintf(parent, sizeof parent, "%s", path);
            char *dot = strrchr(parent, '.');
            *dot = '\0';
            cJSON_DeleteItemFromObjectCaseSensitive((cJSON *)json_at(root, parent), dot + 1);
        }
    }
    return plan_compile(job, dataset, err);
}

static void equal_objects_give_equal_bytes(void **state)
{
    (void)state;
    struct error err = {0};
    cleanup_free char *text = compile(NULL, false, "", &err);
    assert_string_equal(error_message(&err), "");
    assert_string_equal(text, golden);
}

static void a_plan_reads_back(void **state)
{
    (void)state;
    struct error err = {0};
    cleanup_plan struct plan *plan = NULL;
    assert_int_equal(plan_parse(&plan, golden, strlen(golden), &err), 0);
    assert_string_equal(plan->job_namespace, "here");
    assert_string_equal(plan->job_name, "lenet");
    assert_string_equal(plan->job_uid, "1-2-3");
    assert_string_equal(plan->model.zoo, "lenet");
    assert_string_equal(plan->dataset.train.labels, "sub/b.gz");
    assert_true(plan->dataset.has_shape);
    assert_int_equal(plan->dataset.shape[2], 28);
    assert_int_equal(plan->dataset.channels, 1);
    assert_true(plan->dataset.mean[0] == 0.286 && plan->dataset.scale == 0.00392156862745098);
    assert_int_equal(plan->training.batch_size, 128);
    assert_true(plan->training.optimizer.momentum == 0.9 && plan->training.goal_accuracy == 0);
    assert_int_equal(plan->training.seed, 1);
    assert_int_equal(plan->blocks, 8);
    assert_int_equal(plan->shards, 2);
}

static void digest_of(const char *text, char hex[SHA256_HEX_SIZE])
{
    struct error err = {0};
    cleanup_plan struct plan *plan = NULL;
    assert_int_equal(plan_parse(&plan, text, strlen(text), &err), 0);
    hex_encode(plan->digest, SHA256_SIZE, hex);
}

static void the_digest_is_the_computation(void **state)
{
    (void)state;
    struct error err = {0};
    char base[SHA256_HEX_SIZE];
    char other[SHA256_HEX_SIZE];
    digest_of(golden, base);
    assert_string_equal(base, "0757c92cfbed7ca78d9a960aa3eaa40ad5bff5c0548ddff7743d106aca0ac523");

    cleanup_free char *renamed = compile("metadata.name", false, "\"other\"", &err);
    digest_of(renamed, other);
    assert_string_equal(base, other);
    cleanup_free char *scaled = compile("spec.workers.replicas", false, "7", &err);
    digest_of(scaled, other);
    assert_string_equal(base, other);

    static const struct {
        const char *path, *json;
        bool in_dataset;
    } changes[] = {
        {"spec.training.seed", "2", false},
        {"spec.training.optimizer.learningRate", "0.050000000000000003", false},
        {"spec.training.optimizer.learningRate", "0.05000000000000001", false},
        {"spec.sync.synchronous.blocks", "4", false},
        {"spec.model.zoo", "\"mlp\"", false},
        {"spec.normalize.mean", "[0.3]", true},
        {"spec.test.labels", "\"e.gz\"", true},
    };
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        cleanup_free char *text = compile(changes[i].path, changes[i].in_dataset, changes[i].json, &err);
        assert_non_null(text);
        digest_of(text, other);
        if (i == 1) /* the same double */
            assert_string_equal(base, other);
        else
            assert_string_not_equal(base, other);
    }
}

/* Where a job begins from a file, what that holds is part of the computation, and where it was found is none. */
static void a_start_is_what_the_file_holds(void **state)
{
    (void)state;
    static const struct {
        const char *model, *file;
        int like; /* which one before has the same digest; −1: none */
    } cases[] = {
        {"{\"trainJobRef\":{\"name\":\"teacher\"}}", NULL, -1},
        {"{\"trainJobRef\":{\"name\":\"other\"}}", NULL, -1},
        {"{\"trainJobRef\":{\"name\":\"teacher\"}}", "one", -1},
        {"{\"trainJobRef\":{\"name\":\"other\"}}", "one", 2},
        {"{\"file\":{\"path\":\"a/b\",\"volume\":{\"persistentVolumeClaim\":{\"claimName\":\"c\"}}}}", "one", 2},
        {"{\"trainJobRef\":{\"name\":\"teacher\"}}", "another", -1},
    };
    enum { CASES = sizeof cases / sizeof cases[0] };
    uint8_t digests[CASES][SHA256_SIZE];
    for (int i = 0; i < CASES; i++) {
        struct error err = {0};
        cleanup_free char *text = compile("spec.model", false, cases[i].model, &err);
        assert_string_equal(error_message(&err), "");
        cleanup_plan struct plan *plan = NULL;
        assert_int_equal(plan_parse(&plan, text, strlen(text), &err), 0);
        cleanup_free char *place = strdup(plan->model.start);
        uint8_t file[SHA256_SIZE];
        if (cases[i].file != NULL) {
            sha256(cases[i].file, strlen(cases[i].file), file);
            assert_int_equal(plan_begin_from(plan, file, &err), 0);
        }
        assert_string_equal(plan->model.start, place);
        memcpy(digests[i], plan->digest, SHA256_SIZE);
        for (int j = 0; j < i; j++)
            assert_int_equal(memcmp(digests[i], digests[j], SHA256_SIZE) == 0,
                             j == cases[i].like || (cases[i].like >= 0 && cases[j].like == cases[i].like));
    }
}

static void what_does_not_fit_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *path, *json;
        bool in_dataset;
        const char *sentence;
    } cases[] = {
        {"spec.model.zoo", "\"resnet\"", false,
         "spec.model.zoo: Unsupported value: \"resnet\": supported values: \"linear\", \"logistic\", \"mlp\", "
         "\"lenet\", \"resnet8\", \"resnet20\", \"widedeep\""},
        {"spec.training.epochs", "", false, "spec.training.epochs: is missing"},
        {"spec.training.epochs", "0", false,
         "spec.training.epochs: must be a whole number at least 1 and at most 10000"},
        {"spec.training.epochs", "1.5", false,
         "spec.training.epochs: must be a whole number at least 1 and at most 10000"},
        {"spec.training.epochs", "\"5\"", false,
         "spec.training.epochs: must be a whole number at least 1 and at most 10000"},
        {"spec.training.optimizer.learningRate", "0", false,
         "spec.training.optimizer.learningRate: must be a number above 0 and at most 1000"},
        {"spec.training.optimizer.momentum", "1", false,
         "spec.training.optimizer.momentum: must be a number at least 0 and below 1"},
        {"spec.training.goalAccuracy", "101", false,
         "spec.training.goalAccuracy: must be a number above 0 and at most 100"},
        {"spec.parameterServers.shards", "17", false,
         "spec.parameterServers.shards: must be a whole number at least 1 and at most 16"},
        {"metadata.name", "\"1st\"", false,
         "metadata.name: must be at most 48 characters of a-z, 0-9 and '-', begin with a letter and not end with '-', "
         "because Services and pods are named after the job"},
        {"spec.workers.replicas", "9", false,
         "spec.workers.replicas: must not be more than spec.sync.synchronous.blocks (default 8), because a step is "
         "dealt out in that many blocks; lower the workers or raise the blocks"},
        {"spec.output", "{\"volume\":{}}", false,
         "spec.output.volume: set exactly one of hostPath and persistentVolumeClaim"},
        {"spec.source", "{}", true, "spec.source: set exactly one of hostPath and persistentVolumeClaim"},
        {"spec.train.features", "\"/etc/passwd\"", true, "spec.train.features: must be a relative path without '..'"},
        {"spec.train.features", "\"a/../../b\"", true, "spec.train.features: must be a relative path without '..'"},
        {"spec.shape", "[28, 28]", true, "spec.shape: must be three whole numbers from 1 to 1048576"},
        {"spec.shape", "[1, 28, 28, 1]", true, "spec.shape: must be three whole numbers from 1 to 1048576"},
        {"spec.normalize.std", "[0]", true, "spec.normalize.std: must be at most 64 numbers from 1e-06 to 1000000"},
        {"spec.normalize.std", "[1, 1]", true, "spec.normalize: mean and std need the same number of entries"},
        {"spec.normalize", "{\"scale\":1,\"mean\":[0,0],\"std\":[1,1]}", true,
         "spec.normalize: mean and std need one entry, or one per channel of spec.shape"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct error err = {0};
        cleanup_free char *text = compile(cases[i].path, cases[i].in_dataset, cases[i].json, &err);
        assert_null(text);
        assert_string_equal(error_message(&err), cases[i].sentence);
    }
}

static void other_versions_are_refused(void **state)
{
    (void)state;
    struct error err = {0};
    struct plan *plan = NULL;
    assert_int_equal(plan_parse(&plan, "{\"version\":2}", 13, &err), -1);
    assert_string_equal(error_message(&err), "the plan has version 2, this program reads version 1; use one trainer "
                                             "image for operator and job");
    assert_int_equal(plan_parse(&plan, "{", 1, &err), -1);
    assert_int_equal(plan_parse(&plan, "{\"version\":1}", 13, &err), -1);
    assert_string_equal(error_message(&err), "the plan does not hold: metadata.namespace: is missing");
    assert_null(plan);
}

/* Any one byte changed: a plan or a sentence, never a crash. */
static void mutated_plans_never_break_it(void **state)
{
    (void)state;
    static const char spice[] = "{}[]\",:-0.9e\\ \xff";
    for (size_t i = 0; i < sizeof golden - 1; i++) {
        for (size_t s = 0; s < sizeof spice - 1; s++) {
            char text[sizeof golden];
            memcpy(text, golden, sizeof golden);
            text[i] = spice[s];
            struct error err = {0};
            cleanup_plan struct plan *plan = NULL;
            int result = plan_parse(&plan, text, sizeof golden - 1, &err);
            assert_true((result == 0) == (plan != NULL) && (result == 0) == (error_message(&err)[0] == '\0'));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_objects_give_equal_bytes), cmocka_unit_test(a_plan_reads_back),
        cmocka_unit_test(the_digest_is_the_computation),  cmocka_unit_test(a_start_is_what_the_file_holds),
        cmocka_unit_test(what_does_not_fit_is_named),     cmocka_unit_test(other_versions_are_refused),
        cmocka_unit_test(mutated_plans_never_break_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
