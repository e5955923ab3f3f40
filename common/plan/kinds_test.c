/* Plans of every kind of model, data set, optimizer and sync type: what is written, what is read back, what is refused.
 */
#include "common/plan/plan.h"
#include "common/test/merge.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static const char base_job[] =
    "{\"metadata\":{\"namespace\":\"here\",\"name\":\"a\",\"uid\":\"1\"},\"spec\":{\"model\":{\"zoo\":\"mlp\"},"
    "\"training\":{\"epochs\":5,\"batchSize\":128,\"optimizer\":{\"learningRate\":0.05}}}}";
static const char base_dataset[] =
    "{\"metadata\":{\"name\":\"d\"},\"spec\":{\"format\":\"IDX\",\"source\":{\"hostPath\":{\"path\":\"/d\"}},"
    "\"train\":{\"features\":\"a\",\"labels\":\"b\"},\"test\":{\"features\":\"c\",\"labels\":\"d\"},"
    "\"shape\":[1,28,28],\"classes\":10}}";

/* The base with merge patches to both specs. */
static char *compile(const char *job_patch, const char *dataset_patch, struct error *err)
{
    const char *const texts[2] = {base_job, base_dataset};
    const char *const patches[2] = {job_patch, dataset_patch};
    cJSON *objects[2];
    for (int i = 0; i < 2; i++) {
        objects[i] = cJSON_Parse(texts[i]);
        cleanup_json cJSON *patch = cJSON_Parse(patches[i] != NULL ? patches[i] : "{}");
        if (patch == NULL)
            fail_msg("no JSON: %s", patches[i]);
        merge_into((cJSON *)json_at(objects[i], "spec"), patch);
    }
    char *text = plan_compile(objects[0], objects[1], err);
    cJSON_Delete(objects[0]);
    cJSON_Delete(objects[1]);
    return text;
}

static struct plan *plan_of(const char *job_patch, const char *dataset_patch)
{
    struct error err = {0};
    struct plan *plan = NULL;
    cleanup_free char *text = compile(job_patch, dataset_patch, &err);
    if (text == NULL || plan_parse(&plan, text, strlen(text), &err) < 0)
        fail_msg("%s", error_message(&err));
    return plan;
}

#define CSV(more)                                                                                                      \
    "{\"format\":\"CSV\",\"shape\":null,\"classes\":2,\"train\":{\"labels\":null},\"test\":{\"labels\":null},"         \
    "\"csv\":{\"labelColumn\":\"y\"" more "}}"
#define LIBSVM                                                                                                         \
    "{\"format\":\"LibSVM\",\"shape\":null,\"train\":{\"labels\":null},\"test\":{\"labels\":null},"                    \
    "\"libsvm\":{\"features\":123}}"
#define OPTIMIZER(more) "{\"training\":{\"optimizer\":{" more "}}}"

static void every_kind_has_its_text(void **state)
{
    (void)state;
    static const struct {
        const char *job, *dataset, *text; /* that the plan must hold */
    } cases[] = {
        /* models */
        {NULL, NULL, "\"model\":{\"zoo\":\"mlp\"}"},
        {"{\"model\":{\"zoo\":\"resnet20\"}}", NULL, "\"model\":{\"zoo\":\"resnet20\"}"},
        {"{\"model\":{\"zoo\":null,\"layers\":[{\"type\":\"Flatten\",\"name\":\"f\"},"
         "{\"name\":\"fc\",\"bias\":true,\"type\":\"Dense\"}]}}",
         NULL, "\"model\":{\"layers\":[{\"name\":\"f\",\"type\":\"Flatten\"},{\"name\":\"fc\",\"type\":\"Dense\"}]}"},
        {"{\"model\":{\"zoo\":null,\"trainJobRef\":{\"name\":\"first\"}}}", NULL,
         "\"model\":{\"start\":\"trainjob/first\"}"},
        {"{\"model\":{\"zoo\":null,\"file\":{\"volume\":{},\"path\":\"a/b.safetensors\"}}}", NULL,
         "\"model\":{\"start\":\"file/a/b.safetensors\"}"},

        /* data sets */
        {NULL, "{\"format\":\"NPY\"}", "\"format\":\"NPY\","},
        {NULL, "{\"format\":\"NPY\"}", "\"classes\":10,\"scale\":1,\"mean\":[0],\"std\":[1]},"},
        {NULL, NULL, "\"classes\":10,\"scale\":0.00392156862745098,\"mean\":[0],\"std\":[1]},"},
        {NULL, "{\"test\":null}", "\"train\":{\"features\":\"a\",\"labels\":\"b\"},\"shape\""},
        {NULL, "{\"test\":null}", "\"validateEveryEpochs\":1,\"validationSplit\":0.1},"},
        {"{\"training\":{\"validationSplit\":0.25}}", "{\"test\":null}", "\"validationSplit\":0.25},"},
        {"{\"training\":{\"validationSplit\":0.25}}", NULL, "\"validateEveryEpochs\":1},"},
        {NULL, "{\"classes\":null}", "\"shape\":[1,28,28],\"scale\""},
        {NULL, CSV(),
         "\"train\":{\"features\":\"a\"},\"test\":{\"features\":\"c\"},\"classes\":2,\"scale\":1,\"mean\":[0],\"std\":"
         "[1],\"csv\":{\"header\":true,\"labelColumn\":\"y\"}},"},
        {"{\"model\":{\"zoo\":\"widedeep\"}}",
         CSV(",\"missing\":\"NA\",\"header\":false,\"categorical\":[{\"name\":\"1\",\"vocabulary\":[\"x\",\"\"]},"
             "{\"name\":\"2\",\"buckets\":100}]"),
         "\"csv\":{\"header\":false,\"labelColumn\":\"y\",\"missing\":\"NA\",\"categorical\":[{\"name\":\"1\","
         "\"vocabulary\":[\"x\",\"\"]},{\"name\":\"2\",\"buckets\":100}]}},"},
        {NULL, LIBSVM, "\"classes\":10,\"scale\":1,\"mean\":[0],\"std\":[1],\"libsvm\":{\"features\":123}},"},

        /* training */
        {"{\"training\":{\"loss\":{\"type\":\"SoftmaxCrossEntropy\"}}}", NULL,
         "\"batchSize\":128,\"loss\":{\"type\":\"SoftmaxCrossEntropy\"},\"optimizer\""},
        {"{\"training\":{\"loss\":{\"type\":\"Huber\"}}}", "{\"classes\":null}",
         "\"loss\":{\"type\":\"Huber\",\"delta\":1},"},
        {"{\"training\":{\"loss\":{\"type\":\"Huber\",\"delta\":0.5}}}", "{\"classes\":null}",
         "\"loss\":{\"type\":\"Huber\",\"delta\":0.5},"},
        {"{\"training\":{\"augmentation\":{\"flipHorizontal\":true}}}", NULL,
         "\"augmentation\":{\"flipHorizontal\":true,\"cropPadding\":0}},"},
        {"{\"training\":{\"augmentation\":{\"cropPadding\":4}}}", NULL,
         "\"augmentation\":{\"flipHorizontal\":false,\"cropPadding\":4}},"},
        {"{\"training\":{\"augmentation\":{}}}", NULL, "\"validateEveryEpochs\":1},"},

        /* optimizers: PyTorch's defaults */
        {NULL, NULL, "\"optimizer\":{\"type\":\"SGD\",\"learningRate\":0.05,\"momentum\":0,\"weightDecay\":0},"},
        {OPTIMIZER("\"type\":\"SGD\",\"nesterov\":true,\"momentum\":0.9"), NULL,
         "{\"type\":\"SGD\",\"learningRate\":0.05,\"momentum\":0.9,\"weightDecay\":0,\"nesterov\":true},"},
        {OPTIMIZER("\"type\":\"Adagrad\""), NULL,
         "{\"type\":\"Adagrad\",\"learningRate\":0.05,\"weightDecay\":0,\"epsilon\":1e-10},"},
        {OPTIMIZER("\"type\":\"RMSProp\""), NULL,
         "{\"type\":\"RMSProp\",\"learningRate\":0.05,\"momentum\":0,\"weightDecay\":0,\"decay\":0.99,\"epsilon\":1e-"
         "08}"
         ","},
        {OPTIMIZER("\"type\":\"Adam\",\"momentum\":0"), NULL,
         "{\"type\":\"Adam\",\"learningRate\":0.05,\"weightDecay\":0,\"beta1\":0.9,\"beta2\":0.999,\"epsilon\":1e-08}"
         ","},
        {OPTIMIZER("\"type\":\"AdamW\""), NULL,
         "{\"type\":\"AdamW\",\"learningRate\":0.05,\"weightDecay\":0.01,\"beta1\":0.9,\"beta2\":0.999,"
         "\"epsilon\":1e-08},"},
        {OPTIMIZER("\"type\":\"AMSGrad\",\"beta2\":0.99"), NULL,
         "{\"type\":\"AMSGrad\",\"learningRate\":0.05,\"weightDecay\":0,\"beta1\":0.9,\"beta2\":0.99,\"epsilon\":1e-08}"
         ","},
        {OPTIMIZER("\"type\":\"LAMB\""), NULL,
         "{\"type\":\"LAMB\",\"learningRate\":0.05,\"weightDecay\":0,\"beta1\":0.9,\"beta2\":0.999,"
         "\"epsilon\":1e-06},"},
        {OPTIMIZER("\"clip\":{\"value\":2}"), NULL, "\"weightDecay\":0,\"clip\":{\"value\":2}},"},
        {OPTIMIZER("\"clip\":{\"norm\":1,\"value\":2}"), NULL, "\"clip\":{\"value\":2,\"norm\":1}},"},
        {OPTIMIZER("\"schedule\":{\"type\":\"Constant\"}"), NULL, "\"weightDecay\":0},"},
        {OPTIMIZER("\"schedule\":{\"warmupSteps\":10}"), NULL,
         "\"schedule\":{\"type\":\"Constant\",\"warmupSteps\":10}},"},
        {OPTIMIZER("\"schedule\":{\"type\":\"Step\",\"everyEpochs\":3}"), NULL,
         "\"schedule\":{\"type\":\"Step\",\"factor\":0.1,\"everyEpochs\":3,\"warmupSteps\":0}},"},
        {OPTIMIZER("\"schedule\":{\"type\":\"Cosine\"}"), NULL,
         "\"schedule\":{\"type\":\"Cosine\",\"finalFactor\":0,\"warmupSteps\":0}},"},
        {OPTIMIZER("\"schedule\":{\"type\":\"Polynomial\",\"finalFactor\":0.1,\"power\":2}"), NULL,
         "\"schedule\":{\"type\":\"Polynomial\",\"finalFactor\":0.1,\"power\":2,\"warmupSteps\":0}},"},

        /* sync types */
        {NULL, NULL, "\"sync\":{\"type\":\"Synchronous\",\"synchronous\":{\"blocks\":8}},"},
        {"{\"sync\":{\"synchronous\":{\"blocks\":4,\"wire\":\"BFloat16\"}}}", NULL,
         "\"sync\":{\"type\":\"Synchronous\",\"synchronous\":{\"blocks\":4,\"wire\":\"BFloat16\"}},"},
        {"{\"sync\":{\"type\":\"Asynchronous\"}}", NULL,
         "\"sync\":{\"type\":\"Asynchronous\",\"asynchronous\":{\"maxStaleness\":4}},"},
        {"{\"sync\":{\"type\":\"Hogwild\"}}", NULL, "\"sync\":{\"type\":\"Hogwild\"},"},
        {"{\"sync\":{\"type\":\"Hogwild\",\"hogwild\":{\"wire\":\"BFloat16\"}}}", NULL,
         "\"sync\":{\"type\":\"Hogwild\",\"hogwild\":{\"wire\":\"BFloat16\"}},"},
        {"{\"sync\":{\"type\":\"KAverage\"}}", NULL, "\"sync\":{\"type\":\"KAverage\"},"},
        {"{\"sync\":{\"type\":\"KAverage\",\"kAverage\":{\"localSteps\":16,\"wire\":\"Float32\"}}}", NULL,
         "\"sync\":{\"type\":\"KAverage\",\"kAverage\":{\"localSteps\":16}},"},
        {"{\"sync\":{\"type\":\"KAverage\"},\"workers\":{\"replicas\":9}}", NULL, "\"sync\":{\"type\":\"KAverage\"},"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct error err = {0};
        cleanup_free char *text = compile(cases[i].job, cases[i].dataset, &err);
        assert_string_equal(error_message(&err), "");
        if (strstr(text, cases[i].text) == NULL)
            fail_msg("case %zu: '%s' is not in\n%s", i, cases[i].text, text);

        /* What is read is what was written: the digest is of the plan written again. */
        cleanup_plan struct plan *plan = NULL;
        if (plan_parse(&plan, text, strlen(text), &err) < 0)
            fail_msg("case %zu: %s", i, error_message(&err));
        const char *job = strstr(text, "\"job\":{");
        const char *model = strstr(text, "\"model\":{");
        char identity[4096];
        snprintf(identity, sizeof identity, "%.*s%s", (int)(job - text), text, model);
        uint8_t digest[SHA256_SIZE];
        sha256(identity, strlen(identity), digest);
        assert_memory_equal(digest, plan->digest, SHA256_SIZE);
    }
}

static void plans_hold_what_was_said(void **state)
{
    (void)state;
    cleanup_plan struct plan *table =
        plan_of("{\"model\":{\"zoo\":\"widedeep\"}}",
                CSV(",\"categorical\":[{\"name\":\"a\",\"vocabulary\":[\"x\",\"z\"]},{\"name\":\"b\",\"buckets\":7}]"));
    const struct plan_csv *csv = &table->dataset.csv;
    assert_int_equal(table->dataset.format, PLAN_FORMAT_CSV);
    assert_true(csv->header && csv->missing == NULL && table->dataset.train.labels == NULL);
    assert_int_equal(csv->categorical_count, 2);
    assert_string_equal(csv->categorical[0].vocabulary[1], "z");
    assert_int_equal(plan_categorical_rows(&csv->categorical[0]), 3); /* one for all other words */
    assert_int_equal(plan_categorical_rows(&csv->categorical[1]), 7);
    assert_int_equal(plan_category_rows(table), 10);
    struct network_sample sample;
    assert_false(plan_sample(table, &sample));

    cleanup_plan struct plan *plan =
        plan_of("{\"training\":{\"optimizer\":{\"type\":\"AdamW\",\"clip\":{\"value\":3},\"schedule\":{\"type\":"
                "\"Cosine\",\"warmupSteps\":100}}},\"sync\":{\"type\":\"Asynchronous\",\"asynchronous\":{"
                "\"maxStaleness\":0,\"wire\":\"BFloat16\"}}}",
                "{\"test\":null}");
    const struct plan_optimizer *optimizer = &plan->training.optimizer;
    assert_int_equal(optimizer->type, PLAN_ADAMW);
    assert_true(optimizer->momentum == 0 && optimizer->weight_decay == 0.01 && optimizer->beta2 == 0.999 &&
                optimizer->epsilon == 1e-8 && optimizer->clip_value == 3 && optimizer->clip_norm == 0);
    assert_int_equal(optimizer->schedule.type, PLAN_SCHEDULE_COSINE);
    assert_int_equal(optimizer->schedule.warmup_steps, 100);
    assert_int_equal(plan->sync, PLAN_ASYNCHRONOUS);
    assert_int_equal(plan->wire, PLAN_BFLOAT16);
    assert_int_equal(plan->max_staleness, 0);
    assert_int_equal(plan->blocks, 1);
    assert_true(plan_sample(plan, &sample));
    assert_int_equal(sample.shape.w, 28);
}

static void plans_build_their_networks(void **state)
{
    (void)state;
    struct error err = {0};
    struct network_sample sample;
    static const struct {
        const char *job, *dataset, *name;
        uint64_t parameters;
        enum loss_type loss;
    } cases[] = {
        {NULL, NULL, "mlp", 235146, LOSS_SOFTMAX_CROSS_ENTROPY},
        {"{\"model\":{\"zoo\":\"linear\"},\"training\":{\"loss\":{\"type\":\"Huber\",\"delta\":2}}}",
         "{\"classes\":null}", "linear", 785, LOSS_HUBER},
        {"{\"model\":{\"zoo\":\"logistic\"}}", LIBSVM, "logistic", 1240, LOSS_SOFTMAX_CROSS_ENTROPY},
        {"{\"model\":{\"zoo\":null,\"layers\":[{\"type\":\"Flatten\",\"name\":\"f\"},{\"name\":\"fc\",\"type\":"
         "\"Dense\"}]}}",
         NULL, "layers", 7850, LOSS_SOFTMAX_CROSS_ENTROPY},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cleanup_plan struct plan *plan = plan_of(cases[i].job, cases[i].dataset);
        cleanup_network struct network *network = NULL;
        assert_true(plan_sample(plan, &sample));
        assert_int_equal(plan_network(&network, plan, &sample, &err), 0);
        assert_string_equal(network->name, cases[i].name);
        assert_string_equal(plan_model_name(plan), cases[i].name);
        assert_int_equal(network->parameters, cases[i].parameters);
        assert_int_equal(network->loss, cases[i].loss);
        assert_true(network->huber_delta == (cases[i].loss == LOSS_HUBER ? 2 : 0));
    }
    cleanup_plan struct plan *plan = plan_of("{\"model\":{\"zoo\":null,\"trainJobRef\":{\"name\":\"first\"}}}", NULL);
    assert_string_equal(plan_model_name(plan), "trainjob/first");
}

static void what_does_not_go_together_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *job, *dataset, *sentence;
    } cases[] = {
        {"{\"model\":{\"zoo\":null}}", NULL, "spec.model: set exactly one of zoo, layers, trainJobRef and file"},
        {"{\"model\":{\"layers\":[]}}", NULL, "spec.model: set exactly one of zoo, layers, trainJobRef and file"},
        {"{\"model\":{\"zoo\":null,\"layers\":[]}}", NULL, "spec.model.layers: must be a list of layers"},
        {"{\"model\":{\"zoo\":null,\"layers\":[{\"name\":\"fc\",\"type\":\"Dense\"}]}}", NULL,
         "layer fc (Dense): takes a vector and gives 10×1×1, but its input is 1×28×28 (the sample): put a Flatten "
         "before it"},
        {"{\"model\":{\"zoo\":null,\"layers\":[{\"name\":\"fc\",\"type\":\"Conv2D\",\"filters\":1}]}}", CSV(),
         "layer fc (Conv2D): kernel: is missing"},
        {"{\"model\":{\"zoo\":\"lenet\"}}", "{\"shape\":[1,8,8]}",
         "layer conv2 (Conv2D): its 5×5 kernel does not fit its input of 6×4×4 from layer relu1"},
        {"{\"model\":{\"zoo\":\"lenet\"}}", LIBSVM,
         "layer pool1 (MaxPool): its 2×2 window does not fit its input of 6×1×1 from layer conv1"},
        {"{\"model\":{\"zoo\":\"linear\"},\"parameterServers\":{\"shards\":4}}", "{\"shape\":[2,1,1],\"classes\":null}",
         "spec.parameterServers.shards: 4 is more than a model of 3 parameters can be cut into; make it smaller"},
        {"{\"model\":{\"zoo\":\"widedeep\"}}", NULL,
         "model widedeep: the samples have no categories: name them in spec.csv.categorical of the Dataset, or take "
         "model mlp"},
        {"{\"model\":{\"zoo\":null,\"file\":{\"path\":\"../x\"}}}", NULL,
         "spec.model.file.path: must be a relative path without '..'"},
        {"{\"model\":{\"zoo\":null,\"file\":{\"volume\":{}}}}", NULL, "spec.model.file.path: is missing"},
        {"{\"model\":{\"zoo\":null,\"trainJobRef\":{}}}", NULL, "spec.model.trainJobRef.name: is missing"},

        {NULL, "{\"format\":\"XLS\"}",
         "spec.format: Unsupported value: \"XLS\": supported values: \"IDX\", \"NPY\", \"CSV\", \"LibSVM\""},
        {NULL, "{\"train\":{\"labels\":null}}", "spec.train.labels: is missing"},
        {NULL, "{\"test\":{\"features\":null}}", "spec.test.features: is missing"},
        {NULL, "{\"csv\":{\"labelColumn\":\"y\"}}", "spec.csv: is only for format CSV, not for IDX; leave it out"},
        {NULL, "{\"libsvm\":{\"features\":3}}", "spec.libsvm: is only for format LibSVM, not for IDX; leave it out"},
        {NULL, "{\"format\":\"CSV\"}", "spec.train.labels: a CSV file holds its labels itself; leave it out"},
        {NULL, "{\"format\":\"CSV\",\"train\":{\"labels\":null},\"test\":{\"labels\":null}}",
         "spec.csv.labelColumn: is missing"},
        {NULL, CSV(",\"header\":1"), "spec.csv.header: must be true or false"},
        {NULL, CSV(",\"categorical\":[{}]"),
         "spec.csv.categorical[0].name: must be a column's name, or its number from 0 in quotes"},
        {NULL, CSV(",\"categorical\":[{\"name\":\"a\"}]"),
         "spec.csv.categorical[a]: set exactly one of vocabulary and buckets"},
        {NULL, CSV(",\"categorical\":[{\"name\":\"a\",\"buckets\":3,\"vocabulary\":[\"x\"]}]"),
         "spec.csv.categorical[a]: set exactly one of vocabulary and buckets"},
        {NULL, CSV(",\"categorical\":[{\"name\":\"a\",\"buckets\":3},{\"name\":\"a\",\"buckets\":3}]"),
         "spec.csv.categorical: column 'a' stands there twice"},
        {NULL, CSV(",\"categorical\":[{\"name\":\"y\",\"buckets\":3}]"),
         "spec.csv.categorical: column 'y' is spec.csv.labelColumn"},
        {NULL, CSV(",\"categorical\":[{\"name\":\"a\",\"buckets\":0}]"),
         "spec.csv.categorical[a].buckets: must be a whole number at least 1 and at most 16777216"},
        {NULL, CSV(",\"categorical\":[{\"name\":\"a\",\"vocabulary\":[]}]"),
         "spec.csv.categorical[a].vocabulary: must be a list of 1 to 1024 words"},
        {NULL, CSV(",\"categorical\":[{\"name\":\"a\",\"vocabulary\":[\"x\",\"x\"]}]"),
         "spec.csv.categorical[a].vocabulary: 'x' stands there twice"},
        {NULL, CSV(",\"categorical\":[{\"name\":\"a\",\"vocabulary\":[3]}]"),
         "spec.csv.categorical[a].vocabulary: word 0 must be text of at most 253 characters"},
        {NULL, CSV(",\"categorical\":[{\"name\":\"a\",\"buckets\":16777216},{\"name\":\"b\",\"buckets\":1}]"),
         "spec.csv.categorical: all columns together have more than 16777216 ids: lower their buckets"},
        {NULL, "{\"format\":\"LibSVM\",\"train\":{\"labels\":null},\"test\":{\"labels\":null}}",
         "spec.libsvm.features: is missing"},
        {NULL,
         "{\"format\":\"LibSVM\",\"train\":{\"labels\":null},\"test\":{\"labels\":null},\"libsvm\":{\"features\":9}}",
         "spec.shape: 1×28×28 is not what spec.libsvm.features says, 9"},

        {"{\"training\":{\"goalAccuracy\":90}}", "{\"classes\":null}",
         "spec.training.goalAccuracy: accuracy is of classes, and the Dataset names none; leave it out, or set "
         "spec.classes there"},
        {"{\"training\":{\"validationSplit\":0.5}}", "{\"test\":null}",
         "spec.training.validationSplit: must be a number above 0 and below 0.5"},
        {"{\"training\":{\"augmentation\":{\"cropPadding\":4}}}", LIBSVM,
         "spec.training.augmentation: is for images, and the Dataset's samples are vectors; leave it out"},
        {"{\"training\":{\"augmentation\":{\"flipHorizontal\":true}}}", "{\"shape\":[784,1,1]}",
         "spec.training.augmentation: is for images, and the Dataset's samples are vectors; leave it out"},
        {"{\"training\":{\"loss\":{\"type\":\"L1\"}}}", NULL,
         "spec.training.loss.type: Unsupported value: \"L1\": supported values: \"SoftmaxCrossEntropy\", "
         "\"BinaryCrossEntropy\", \"MSE\", \"Huber\""},
        {"{\"training\":{\"loss\":{\"type\":\"MSE\",\"delta\":1}}}", NULL,
         "spec.training.loss.delta: only Huber takes one; leave it out"},
        {"{\"training\":{\"loss\":{\"type\":\"MSE\"}}}", NULL,
         "loss MSE is of values, but the samples have 10 classes: take SoftmaxCrossEntropy"},

        {OPTIMIZER("\"type\":\"Lion\""), NULL,
         "spec.training.optimizer.type: Unsupported value: \"Lion\": supported values: \"SGD\", \"Adagrad\", "
         "\"RMSProp\", \"Adam\", \"AdamW\", \"AMSGrad\", \"LAMB\""},
        {OPTIMIZER("\"type\":\"Adam\",\"momentum\":0.9"), NULL,
         "spec.training.optimizer.momentum: type Adam takes none; leave it out"},
        {OPTIMIZER("\"beta1\":0.9"), NULL, "spec.training.optimizer.beta1: type SGD takes none; leave it out"},
        {OPTIMIZER("\"epsilon\":1"), NULL, "spec.training.optimizer.epsilon: type SGD takes none; leave it out"},
        {OPTIMIZER("\"type\":\"Adam\",\"nesterov\":true"), NULL,
         "spec.training.optimizer.nesterov: type Adam takes none; leave it out"},
        {OPTIMIZER("\"nesterov\":true"), NULL,
         "spec.training.optimizer.nesterov: needs spec.training.optimizer.momentum above 0"},
        {OPTIMIZER("\"type\":\"Adam\",\"beta2\":1"), NULL,
         "spec.training.optimizer.beta2: must be a number at least 0 and below 1"},
        {OPTIMIZER("\"clip\":{\"norm\":0}"), NULL,
         "spec.training.optimizer.clip.norm: must be a number above 0 and at most 1000000000"},
        {OPTIMIZER("\"schedule\":{\"type\":\"Step\"}"), NULL,
         "spec.training.optimizer.schedule.everyEpochs: is missing"},
        {OPTIMIZER("\"schedule\":{\"type\":\"Cosine\",\"power\":2}"), NULL,
         "spec.training.optimizer.schedule.power: type Cosine takes none; leave it out"},

        {"{\"sync\":{\"type\":\"Gossip\"}}", NULL,
         "spec.sync.type: Unsupported value: \"Gossip\": supported values: \"Synchronous\", \"Asynchronous\", "
         "\"Hogwild\", \"KAverage\""},
        {"{\"sync\":{\"synchronous\":{\"wire\":\"Float16\"}}}", NULL,
         "spec.sync.synchronous.wire: Unsupported value: \"Float16\": supported values: \"Float32\", \"BFloat16\""},
        {"{\"sync\":{\"type\":\"KAverage\",\"kAverage\":{\"localSteps\":0}}}", NULL,
         "spec.sync.kAverage.localSteps: must be a whole number at least 1 and at most 1000000"},
        {"{\"sync\":{\"type\":\"Asynchronous\"},\"training\":{\"optimizer\":{\"type\":\"LAMB\"}}}", NULL,
         "spec.training.optimizer.type: LAMB needs norms over all shards, which sync type Asynchronous applies one by "
         "one; take AdamW, or sync type Synchronous or KAverage"},
        {"{\"model\":{\"zoo\":null,\"layers\":[{\"name\":\"e\",\"type\":\"Embedding\",\"dim\":3},{\"name\":\"fc\","
         "\"type\":\"Dense\"}]},\"sync\":{\"type\":\"KAverage\"}}",
         NULL,
         "spec.sync.type: KAverage averages whole models, and of an Embedding a worker has only the rows of its own "
         "samples; take Synchronous, Asynchronous or Hogwild"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct error err = {0};
        cleanup_free char *text = compile(cases[i].job, cases[i].dataset, &err);
        assert_string_equal(error_message(&err), cases[i].sentence);
        assert_null(text);
    }
}

/* Vocabularies are the one thing that grows: words without end do not fit the Secret that holds the plan. */
static void plans_have_a_largest_size(void **state)
{
    (void)state;
    cleanup_json cJSON *patch = cJSON_Parse(CSV());
    cJSON *columns = cJSON_AddArrayToObject((cJSON *)json_at(patch, "csv"), "categorical");
    for (int i = 0; i < 16; i++) {
        char word[200];
        cJSON *column = cJSON_CreateObject();
        snprintf(word, sizeof word, "c%d", i);
        cJSON_AddStringToObject(column, "name", word);
        cJSON *words = cJSON_AddArrayToObject(column, "vocabulary");
        for (int j = 0; j < 200; j++) {
            snprintf(word, sizeof word, "%0190d", j);
            cJSON_AddItemToArray(words, cJSON_CreateString(word));
        }
        cJSON_AddItemToArray(columns, column);
    }
    struct error err = {0};
    cleanup_free char *dataset = cJSON_PrintUnformatted(patch);
    cleanup_free char *text = compile("{\"model\":{\"zoo\":\"widedeep\"}}", dataset, &err);
    assert_null(text);
    assert_non_null(strstr(error_message(&err), "at most 524288 fit: shorten spec.csv.categorical"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_has_its_text),    cmocka_unit_test(plans_hold_what_was_said),
        cmocka_unit_test(plans_build_their_networks), cmocka_unit_test(what_does_not_go_together_is_named),
        cmocka_unit_test(plans_have_a_largest_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
