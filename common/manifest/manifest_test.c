#include "common/manifest/manifest.h"

#include "common/buffer.h"
#include "common/manifest/embedded.h"
#include "common/manifest/schema.h"
#include "common/plan/plan.h"
#include "common/test/merge.h"
#include "common/yaml.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void samples_are_read_with_their_defaults(void **state)
{
    (void)state;
    struct error err = {0};
    cleanup_json cJSON *jobs = manifest_read_file("../../config/samples/trainjob.yaml", &err);
    assert_string_equal(error_message(&err), "");
    const cJSON *job = manifest_find(jobs, "TrainJob", "default", "lenet");
    assert_non_null(job);
    assert_int_equal(json_int(job, "spec.workers.replicas", -1), 2);
    assert_string_equal(json_string(job, "spec.sync.type", "?"), "Synchronous");
    assert_int_equal(json_int(job, "spec.runPolicy.backoffLimit", -1), 6);
    const cJSON *container = cJSON_GetArrayItem(json_at(job, "spec.template.spec.containers"), 0);
    assert_string_equal(json_string(container, "resources.requests.cpu", "?"), "250m");

    cleanup_json cJSON *datasets = manifest_read_file("../../config/samples/dataset.yaml", &err);
    const cJSON *dataset = manifest_find(datasets, "Dataset", NULL, NULL);
    assert_non_null(dataset);
    assert_true(cJSON_GetArraySize(json_at(dataset, "spec.normalize.mean")) == 1);
    assert_null(manifest_find(datasets, "Dataset", NULL, "other"));
    assert_null(manifest_find(datasets, "TrainJob", NULL, NULL));
}

/* Every sample is one: its fields are known, and its jobs can be planned with the Datasets that they name. */
static void all_samples_can_be_planned(void **state)
{
    (void)state;
    static const char *const files[] = {"dataset", "trainjob", "table", "layers", "sync-types", "start"};
    struct error err = {0};
    cleanup_json cJSON *objects = cJSON_CreateArray();
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char path[64];
        snprintf(path, sizeof path, "../../config/samples/%s.yaml", files[i]);
        cleanup_json cJSON *file = manifest_read_file(path, &err);
        assert_string_equal(error_message(&err), "");
        while (file->child != NULL)
            cJSON_AddItemToArray(objects, cJSON_DetachItemFromArray(file, 0));
    }
    assert_true(cJSON_GetArraySize(objects) >= 8);
    cJSON *object = NULL;
    cJSON_ArrayForEach(object, objects)
    {
        if (strcmp(json_string(object, "kind", ""), "TrainJob") != 0)
            continue;
        json_put(object, "metadata.uid", cJSON_CreateString("uid"), NULL);
        const cJSON *dataset =
            manifest_find(objects, "Dataset", NULL, json_string(object, "spec.datasetRef.name", "?"));
        cleanup_free char *plan = plan_compile(object, dataset, &err);
        assert_string_equal(error_message(&err), "");
    }
}

static void schemas_hold_only_what_is_understood(void **state)
{
    (void)state;
    size_t count = 0;
    for (const struct embedded_file *file = embedded_crds; file->name != NULL; file++, count++) {
        struct error err = {0};
        cleanup_json cJSON *documents = yaml_parse((const char *)file->bytes, file->length, file->name, &err);
        assert_non_null(documents);
        const cJSON *version = cJSON_GetArrayItem(json_at(documents->child, "spec.versions"), 0);
        const cJSON *schema = json_at(version, "schema.openAPIV3Schema");
        assert_non_null(schema);
        assert_int_equal(schema_understood(schema, &err), 0);
    }
    assert_int_equal(count, 2);
}

#define HEAD "apiVersion: thole.dev/v1alpha1\nkind: TrainJob\nmetadata: {name: a}\n"
#define JOB  HEAD "spec:\n  datasetRef: {name: d}\n  model: {zoo: mlp}\n"

static void what_does_not_fit_is_named_with_its_path(void **state)
{
    (void)state;
    static const struct {
        const char *text, *sentence;
    } cases[] = {
        {JOB "  training: {epochs: 1, batchSize: 2, optimizer: {learningRate: 1}}\n  modle: {}\n",
         "f.yaml: TrainJob \"a\": spec.modle: unknown field"},
        {JOB "  training: {epochs: 1, batchSize: 2, optimizer: {learningRate: 1, beta: 2}}\n",
         "f.yaml: TrainJob \"a\": spec.training.optimizer.beta: unknown field"},
        {HEAD "spec: {datasetRef: {name: d}, model: {zoo: resnet}, training: {epochs: 1, batchSize: 2, "
              "optimizer: {learningRate: 1}}}\n",
         "f.yaml: TrainJob \"a\": spec.model.zoo: Unsupported value: \"resnet\": supported values: \"linear\", "
         "\"logistic\", \"mlp\", \"lenet\", \"resnet8\", \"resnet20\", \"widedeep\""},
        {JOB, "f.yaml: TrainJob \"a\": spec.training: Required value"},
        {HEAD, "f.yaml: TrainJob \"a\": spec: Required value"},
        {HEAD "spec: {datasetRef: {name: null}, model: {zoo: mlp}}\n",
         "f.yaml: TrainJob \"a\": spec.training: Required value"},
        {JOB "  training: {epochs: null, batchSize: 2, optimizer: {learningRate: 1}}\n",
         "f.yaml: TrainJob \"a\": spec.training.epochs: Required value"},
        {JOB "  training: {epochs: many, batchSize: 2, optimizer: {learningRate: 1}}\n",
         "f.yaml: TrainJob \"a\": spec.training.epochs: Invalid value: \"many\": must be of type integer"},
        {JOB "  training: {epochs: 1.5, batchSize: 2, optimizer: {learningRate: 1}}\n",
         "f.yaml: TrainJob \"a\": spec.training.epochs: Invalid value: 1.5: must be of type integer"},
        {JOB "  training: {epochs: 0, batchSize: 2, optimizer: {learningRate: 1}}\n",
         "f.yaml: TrainJob \"a\": spec.training.epochs: Invalid value: 0: should be greater than or equal to 1"},
        {JOB "  training: {epochs: 1, batchSize: 2, optimizer: {learningRate: 0}}\n",
         "f.yaml: TrainJob \"a\": spec.training.optimizer.learningRate: Invalid value: 0: should be greater than 0"},
        {JOB "  training: {epochs: 1, batchSize: 2, optimizer: {learningRate: 1, momentum: 1}}\n",
         "f.yaml: TrainJob \"a\": spec.training.optimizer.momentum: Invalid value: 1: should be less than 1"},
        {JOB "  training: {epochs: 1, batchSize: 2, optimizer: {learningRate: 1}}\n"
             "  template: {spec: {containers: [{name: trainer, env: [{name: A}, {name: A}]}]}}\n",
         "f.yaml: TrainJob \"a\": spec.template.spec.containers[0].env[1]: Duplicate value: {\"name\":\"A\"}"},
        {JOB "  training: {epochs: 1, batchSize: 2, optimizer: {learningRate: 1}}\n"
             "  template: {spec: {containers: []}}\n",
         "f.yaml: TrainJob \"a\": spec.template.spec.containers: Invalid value: 0: should have at least 1 items"},
        {"apiVersion: thole.dev/v1\nkind: TrainJob\nmetadata: {name: a}\n",
         "f.yaml: TrainJob \"a\": apiVersion: must be thole.dev/v1alpha1"},
        {"apiVersion: thole.dev/v1alpha1\nkind: Trainjob\nmetadata: {name: a}\n",
         "f.yaml: Trainjob \"a\": kind: \"Trainjob\" is not one of Dataset, TrainJob"},
        {"apiVersion: thole.dev/v1alpha1\nkind: TrainJob\n", "f.yaml: TrainJob \"\": metadata: Required value"},
        {"apiVersion: thole.dev/v1alpha1\nkind: TrainJob\nmetadata: {name: A_b}\n",
         "f.yaml: TrainJob \"A_b\": metadata.name: must be lower-case letters, digits, '-' and '.', and begin and end "
         "with a letter or digit"},
        {"- a\n", "f.yaml: a document is not an object with apiVersion, kind and metadata"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct error err = {0};
        cJSON *objects = manifest_parse(cases[i].text, strlen(cases[i].text), "f.yaml", &err);
        assert_null(objects);
        assert_string_equal(error_message(&err), cases[i].sentence);
    }
}

static cJSON *read_sample(const char *path)
{
    struct error err = {0};
    cleanup_json cJSON *documents = yaml_read_file(path, &err);
    assert_string_equal(error_message(&err), "");
    return cJSON_DetachItemFromArray(documents, 0);
}

/* What the CRDs refuse in a cluster is refused here too, and in the same words. */
static void the_same_is_refused_as_in_a_cluster(void **state)
{
    (void)state;
    struct error err = {0};
    cleanup_json cJSON *cases = yaml_read_file("../../crds/cases.yaml", &err);
    assert_string_equal(error_message(&err), "");
    assert_true(cJSON_GetArraySize(cases) > 200);
    cleanup_json cJSON *sample_job = read_sample("../../config/samples/trainjob.yaml");
    cleanup_json cJSON *sample_dataset = read_sample("../../config/samples/dataset.yaml");
    json_put(sample_job, "metadata.uid", cJSON_CreateString("uid"), NULL);
    const cJSON *test = NULL;
    cJSON_ArrayForEach(test, cases)
    {
        bool of_job = strcmp(json_string(test, "kind", ""), "TrainJob") == 0;
        cleanup_json cJSON *changed = cJSON_Duplicate(of_job ? sample_job : sample_dataset, true);
        merge_into(changed, json_at(test, "change"));
        struct error why = {0};
        if (manifest_check(changed, &why) == 0) {
            cleanup_free char *plan =
                plan_compile(of_job ? changed : sample_job, of_job ? sample_dataset : changed, &why);
            if (plan != NULL)
                fail_msg("%s: it is not refused", json_string(test, "name", ""));
        }
        const cJSON *text = NULL;
        cJSON_ArrayForEach(text, json_at(test, "says"))
        {
            if (strstr(error_message(&why), text->valuestring) == NULL)
                fail_msg("%s: '%s' is not said: %s", json_string(test, "name", ""), text->valuestring,
                         error_message(&why));
        }
    }
}

static void a_null_is_as_nothing(void **state)
{
    (void)state;
    struct error err = {0};
    static const char text[] = JOB "  training: {epochs: 1, batchSize: 2, optimizer: {learningRate: 1}, seed: null, "
                                   "goalAccuracy: null}\n"
                                   "  workers:\n"
                                   "  output:\n"
                                   "---\n"
                                   "apiVersion: v1\nkind: Namespace\nmetadata: {name: x}\n";
    cleanup_json cJSON *objects = manifest_parse(text, strlen(text), "f.yaml", &err);
    assert_string_equal(error_message(&err), "");
    assert_int_equal(cJSON_GetArraySize(objects), 1);
    assert_int_equal(json_int(objects->child, "spec.training.seed", -1), 1);
    assert_int_equal(json_int(objects->child, "spec.workers.replicas", -1), 1);
    assert_null(json_at(objects->child, "spec.training.goalAccuracy"));
    assert_null(json_at(objects->child, "spec.output"));
    assert_string_equal(json_string(objects->child, "metadata.namespace", "?"), "default");
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Whatever a file holds, the answer is objects or a sentence. */
static void mutated_manifests_never_break_it(void **state)
{
    (void)state;
    static const char spice[] = "{}[]:,-&*!|>'\"#~\n\t 0x.e\xff";
    struct error err = {0};
    cleanup_buffer struct buffer sample;
    buffer_init(&sample, 1 << 16);
    assert_int_equal(buffer_read_file(&sample, "../../config/samples/trainjob.yaml", &err), 0);
    assert_int_equal(buffer_append_text(&sample, "\n---\n", &err), 0);
    assert_int_equal(buffer_read_file(&sample, "../../config/samples/dataset.yaml", &err), 0);
    uint64_t random = 0x9E3779B97F4A7C15u;
    for (int round = 0; round < 150; round++) {
        cleanup_free char *text = malloc(sample.length + 1);
        assert_non_null(text);
        memcpy(text, sample.data, sample.length + 1);
        for (uint64_t changes = 1 + next_random(&random) % 4; changes > 0; changes--)
            text[next_random(&random) % sample.length] = spice[next_random(&random) % (sizeof spice - 1)];
        struct error why = {0};
        cleanup_json cJSON *objects = manifest_parse(text, sample.length, "f.yaml", &why);
        assert_true((objects == NULL) == (error_message(&why)[0] != '\0'));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(samples_are_read_with_their_defaults),
        cmocka_unit_test(all_samples_can_be_planned),
        cmocka_unit_test(schemas_hold_only_what_is_understood),
        cmocka_unit_test(what_does_not_fit_is_named_with_its_path),
        cmocka_unit_test(the_same_is_refused_as_in_a_cluster),
        cmocka_unit_test(a_null_is_as_nothing),
        cmocka_unit_test(mutated_manifests_never_break_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
