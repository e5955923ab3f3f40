/* What a plan says of training: epochs, loss, optimizer, and how gradients come together. */
#include "common/plan/rows.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- the optimizer ---- */

static const char *const optimizers[] = {
    [PLAN_SGD] = "SGD",     [PLAN_ADAGRAD] = "Adagrad", [PLAN_RMSPROP] = "RMSProp", [PLAN_ADAM] = "Adam",
    [PLAN_ADAMW] = "AdamW", [PLAN_AMSGRAD] = "AMSGrad", [PLAN_LAMB] = "LAMB",
};
static const char *const schedules[] = {
    [PLAN_SCHEDULE_CONSTANT] = "Constant",
    [PLAN_SCHEDULE_STEP] = "Step",
    [PLAN_SCHEDULE_COSINE] = "Cosine",
    [PLAN_SCHEDULE_POLYNOMIAL] = "Polynomial",
};
enum { OPTIMIZERS = sizeof optimizers / sizeof optimizers[0], SCHEDULES = sizeof schedules / sizeof schedules[0] };

/* A number that some types have, and its default there. A name may have several rows, of different types. */
struct typed_row {
    uint32_t types;
    struct number_row number;
};
#define OF(type)     (1U << PLAN_##type)
#define ADAMS        (OF(ADAM) | OF(ADAMW) | OF(AMSGRAD) | OF(LAMB))
#define EVERY        ((1U << OPTIMIZERS) - 1)
#define MEMBER(name) offsetof(struct plan_optimizer, name)
#define OPTIMIZER    "spec.training.optimizer."

#define FRACTION .least = 0, .most = 1, .type = F64, .optional = true

/* Defaults are PyTorch's; of LAMB, which it lacks, those of its authors. In the order of plan.json. */
static const struct typed_row optimizer_rows[] = {
    {EVERY, {{.path = OPTIMIZER "learningRate"}, MEMBER(learning_rate), 0, 1000, .type = F64, .above = true}},
    {OF(SGD) | OF(RMSPROP), {{.path = OPTIMIZER "momentum"}, MEMBER(momentum), FRACTION, .below = true}},
    {EVERY & ~OF(ADAMW), {{.path = OPTIMIZER "weightDecay"}, MEMBER(weight_decay), FRACTION}},
    {OF(ADAMW), {{.path = OPTIMIZER "weightDecay"}, MEMBER(weight_decay), FRACTION, .fallback = 0.01}},
    {OF(RMSPROP), {{.path = OPTIMIZER "decay"}, MEMBER(decay), FRACTION, .below = true, .fallback = 0.99}},
    {ADAMS, {{.path = OPTIMIZER "beta1"}, MEMBER(beta1), FRACTION, .below = true, .fallback = 0.9}},
    {ADAMS, {{.path = OPTIMIZER "beta2"}, MEMBER(beta2), FRACTION, .below = true, .fallback = 0.999}},
    {OF(ADAGRAD), {{.path = OPTIMIZER "epsilon"}, MEMBER(epsilon), FRACTION, .above = true, .fallback = 1e-10}},
    {OF(RMSPROP) | OF(ADAM) | OF(ADAMW) | OF(AMSGRAD),
     {{.path = OPTIMIZER "epsilon"}, MEMBER(epsilon), FRACTION, .above = true, .fallback = 1e-8}},
    {OF(LAMB), {{.path = OPTIMIZER "epsilon"}, MEMBER(epsilon), FRACTION, .above = true, .fallback = 1e-6}},
};
enum { OPTIMIZER_ROWS = sizeof optimizer_rows / sizeof optimizer_rows[0] };

static const struct number_row clip_rows[] = {
    {{.path = OPTIMIZER "clip.value"}, MEMBER(clip_value), 0, 1e9, .type = F64, .above = true, .optional = true},
    {{.path = OPTIMIZER "clip.norm"}, MEMBER(clip_norm), 0, 1e9, .type = F64, .above = true, .optional = true},
};
enum { CLIP_ROWS = sizeof clip_rows / sizeof clip_rows[0] };

#define SCHEDULED(type) (1U << PLAN_SCHEDULE_##type)
#define SCHEDULE        "spec.training.optimizer.schedule."
static const struct typed_row schedule_rows[] = {
    {SCHEDULED(STEP), {{.path = SCHEDULE "factor"}, MEMBER(schedule.factor), FRACTION, .above = true, .fallback = 0.1}},
    {SCHEDULED(STEP), {{.path = SCHEDULE "everyEpochs"}, MEMBER(schedule.every_epochs), 1, 10000, .type = U32}},
    {SCHEDULED(COSINE) | SCHEDULED(POLYNOMIAL),
     {{.path = SCHEDULE "finalFactor"}, MEMBER(schedule.final_factor), FRACTION}},
    {SCHEDULED(POLYNOMIAL),
     {{.path = SCHEDULE "power"}, MEMBER(schedule.power), 0, 100, F64, .above = true, .optional = true, .fallback = 1}},
    {(1U << SCHEDULES) - 1,
     {{.path = SCHEDULE "warmupSteps"}, MEMBER(schedule.warmup_steps), 0, 1e9, .type = U64, .optional = true}},
};
enum { SCHEDULE_ROWS = sizeof schedule_rows / sizeof schedule_rows[0] };

/* Reads the rows of `type` and refuses what others have, but for zeros. */
static int read_typed(struct plan_optimizer *optimizer, const struct source *source, const struct typed_row *rows,
                      size_t count, uint32_t type, const char *type_name, struct error *err)
{
    for (size_t i = 0; i < count; i++) {
        const struct number_row *row = &rows[i].number;
        if ((rows[i].types >> type & 1) != 0) {
            if (read_number(optimizer, source, row, err) < 0)
                return -1;
            continue;
        }
        bool elsewhere = false;
        for (size_t j = 0; j < count; j++)
            elsewhere = elsewhere || (rows[j].number.offset == row->offset && (rows[j].types >> type & 1) != 0);
        const cJSON *item = place_value(source, &row->place);
        if (!elsewhere && item != NULL && !(cJSON_IsNumber(item) && item->valuedouble == 0))
            return error_set(err, "%s: type %s takes none; leave it out", row->place.path, type_name);
    }
    return 0;
}

static int read_optimizer(struct plan_optimizer *optimizer, const struct source *source, struct error *err)
{
    static const struct place type_place = {.path = OPTIMIZER "type"};
    static const struct place nesterov = {.path = OPTIMIZER "nesterov"};
    static const struct place schedule_place = {.path = SCHEDULE "type"};
    uint32_t type = 0;
    uint32_t schedule = 0;
    if (read_choice(source, &type_place, optimizers, OPTIMIZERS, PLAN_SGD, &type, err) < 0 ||
        read_choice(source, &schedule_place, schedules, SCHEDULES, PLAN_SCHEDULE_CONSTANT, &schedule, err) < 0 ||
        read_flag(source, &nesterov, false, &optimizer->nesterov, err) < 0)
        return -1;
    optimizer->type = (enum plan_optimizer_type)type;
    optimizer->schedule.type = (enum plan_schedule_type)schedule;
    if (read_typed(optimizer, source, optimizer_rows, OPTIMIZER_ROWS, type, optimizers[type], err) < 0 ||
        read_numbers(optimizer, source, clip_rows, CLIP_ROWS, err) < 0 ||
        read_typed(optimizer, source, schedule_rows, SCHEDULE_ROWS, schedule, schedules[schedule], err) < 0)
        return -1;
    if (optimizer->nesterov && type != PLAN_SGD)
        return error_set(err, "%s: type %s takes none; leave it out", nesterov.path, optimizers[type]);
    if (optimizer->nesterov && optimizer->momentum == 0)
        return error_set(err, "%s: needs spec.training.optimizer.momentum above 0", nesterov.path);
    return 0;
}

/* The last part of a row's path. */
static const char *row_name(const struct number_row *row)
{
    return strrchr(row->place.path, '.') + 1;
}

static void add_row(cJSON *json, const void *from, const struct number_row *row, bool *whole)
{
    json_add(json, row_name(row), json_exact_number(row_value(from, row)), whole);
}

/* Where a plan says nothing of the schedule, there is none. */
static void add_schedule(cJSON *json, const struct plan_optimizer *optimizer, bool *whole)
{
    if (optimizer->schedule.type == PLAN_SCHEDULE_CONSTANT && optimizer->schedule.warmup_steps == 0)
        return;
    cJSON *schedule = json_add_object(json, "schedule", whole);
    json_add_text(schedule, "type", schedules[optimizer->schedule.type], whole);
    for (size_t i = 0; i < SCHEDULE_ROWS; i++)
        if ((schedule_rows[i].types >> optimizer->schedule.type & 1) != 0)
            add_row(schedule, optimizer, &schedule_rows[i].number, whole);
}

static void add_optimizer(cJSON *json, const struct plan_optimizer *optimizer, bool *whole)
{
    json_add_text(json, "type", optimizers[optimizer->type], whole);
    for (size_t i = 0; i < OPTIMIZER_ROWS; i++)
        if ((optimizer_rows[i].types >> optimizer->type & 1) != 0)
            add_row(json, optimizer, &optimizer_rows[i].number, whole);
    if (optimizer->nesterov)
        json_add(json, "nesterov", cJSON_CreateTrue(), whole);
    if (optimizer->clip_value > 0 || optimizer->clip_norm > 0) {
        cJSON *clip = json_add_object(json, "clip", whole);
        for (size_t i = 0; i < CLIP_ROWS; i++)
            if (row_value(optimizer, &clip_rows[i]) > 0)
                add_row(clip, optimizer, &clip_rows[i], whole);
    }
    add_schedule(json, optimizer, whole);
}

/* ---- training ---- */

#define PLAN_MEMBER(name) offsetof(struct plan, name)
static const struct number_row training_rows[] = {
    {{.path = "spec.training.epochs"}, PLAN_MEMBER(training.epochs), 1, 10000, .type = U32},
    {{.path = "spec.training.batchSize"}, PLAN_MEMBER(training.batch_size), 1, 65536, .type = U32},
    {{.path = "spec.training.seed"},
     PLAN_MEMBER(training.seed),
     0,
     9007199254740991.0,
     .type = U64,
     .optional = true,
     .fallback = 1},
    {{.path = "spec.training.validateEveryEpochs"},
     PLAN_MEMBER(training.validate_every_epochs),
     0,
     10000,
     .type = U32,
     .optional = true,
     .fallback = 1},
    {{.path = "spec.training.goalAccuracy"},
     PLAN_MEMBER(training.goal_accuracy),
     0,
     100,
     .type = F64,
     .above = true,
     .optional = true},
    {{.path = "spec.training.validationSplit"},
     PLAN_MEMBER(training.validation_split),
     0,
     0.5,
     .type = F64,
     .above = true,
     .below = true,
     .optional = true,
     .fallback = 0.1},
    {{.path = "spec.training.augmentation.cropPadding"},
     PLAN_MEMBER(training.crop_padding),
     0,
     64,
     .type = U32,
     .optional = true},
};

static int read_loss(struct plan *plan, const struct source *source, struct error *err)
{
    static const struct place loss = {.path = "spec.training.loss"};
    static const struct place type = {.path = "spec.training.loss.type"};
    static const struct number_row delta = {{.path = "spec.training.loss.delta"},
                                            PLAN_MEMBER(training.huber_delta),
                                            0,
                                            1e6,
                                            .type = F64,
                                            .above = true,
                                            .optional = true,
                                            .fallback = 1};
    if (place_value(source, &loss) == NULL)
        return 0;
    const char *names[LOSS_TYPES];
    for (uint32_t i = 0; i < LOSS_TYPES; i++)
        names[i] = loss_type_name((enum loss_type)i);
    uint32_t chosen = 0;
    if (read_choice(source, &type, names, LOSS_TYPES, -1, &chosen, err) < 0)
        return -1;
    plan->training.has_loss = true;
    plan->training.loss = (enum loss_type)chosen;
    if (chosen == LOSS_HUBER)
        return read_number(plan, source, &delta, err);
    if (place_value(source, &delta.place) != NULL)
        return error_set(err, "%s: only Huber takes one; leave it out", delta.place.path);
    return 0;
}

/* Comes after the data set. */
int read_training(struct plan *plan, const struct source *source, struct error *err)
{
    static const struct place flip = {.path = "spec.training.augmentation.flipHorizontal"};
    if (read_numbers(plan, source, training_rows, sizeof training_rows / sizeof training_rows[0], err) < 0 ||
        read_loss(plan, source, err) < 0 || read_flag(source, &flip, false, &plan->training.flip_horizontal, err) < 0 ||
        read_optimizer(&plan->training.optimizer, source, err) < 0)
        return -1;
    if (plan->dataset.test.features != NULL)
        plan->training.validation_split = 0;
    if (plan->training.goal_accuracy > 0 && plan->dataset.classes == 0)
        return error_set(err,
                         "spec.training.goalAccuracy: accuracy is of classes, and the Dataset names none; leave it "
                         "out, or set spec.classes there");
    bool augments = plan->training.flip_horizontal || plan->training.crop_padding > 0;
    bool images =
        plan->dataset.format == PLAN_FORMAT_IDX || plan->dataset.format == PLAN_FORMAT_NPY || plan->dataset.has_shape;
    bool flat = plan->dataset.has_shape && plan->dataset.shape[1] == 1 && plan->dataset.shape[2] == 1;
    if (augments && (!images || flat))
        return error_set(err, "spec.training.augmentation: is for images, and the Dataset's samples are vectors; leave "
                              "it out");
    return 0;
}

void add_training(cJSON *json, const struct plan *plan, bool *whole)
{
    cJSON *training = json_add_object(json, "training", whole);
    json_add_number(training, "epochs", plan->training.epochs, whole);
    json_add_number(training, "batchSize", plan->training.batch_size, whole);
    if (plan->training.has_loss) {
        cJSON *loss = json_add_object(training, "loss", whole);
        json_add_text(loss, "type", loss_type_name(plan->training.loss), whole);
        if (plan->training.loss == LOSS_HUBER)
            json_add(loss, "delta", json_exact_number(plan->training.huber_delta), whole);
    }
    add_optimizer(json_add_object(training, "optimizer", whole), &plan->training.optimizer, whole);
    char seed[24];
    snprintf(seed, sizeof seed, "%" PRIu64, plan->training.seed);
    json_add(training, "seed", cJSON_CreateRaw(seed), whole);
    json_add_number(training, "validateEveryEpochs", plan->training.validate_every_epochs, whole);
    if (plan->training.goal_accuracy > 0)
        json_add(training, "goalAccuracy", json_exact_number(plan->training.goal_accuracy), whole);
    if (plan->training.validation_split > 0)
        json_add(training, "validationSplit", json_exact_number(plan->training.validation_split), whole);
    if (plan->training.flip_horizontal || plan->training.crop_padding > 0) {
        cJSON *augmentation = json_add_object(training, "augmentation", whole);
        json_add(augmentation, "flipHorizontal", cJSON_CreateBool(plan->training.flip_horizontal), whole);
        json_add_number(augmentation, "cropPadding", plan->training.crop_padding, whole);
    }
}

/* ---- how gradients come together ---- */

enum { SYNCS = PLAN_KAVERAGE + 1 };
static const char *const wires[] = {[PLAN_FLOAT32] = "Float32", [PLAN_BFLOAT16] = "BFloat16"};

/* A type, its member of spec.sync, and the number that it has there. */
static const struct sync_row {
    const char *type, *member;
    struct place wire;
    struct number_row number; /* offset 0: none */
} sync_rows[SYNCS] = {
    [PLAN_SYNCHRONOUS] = {"Synchronous",
                          "synchronous",
                          {.path = "spec.sync.synchronous.wire"},
                          {{.path = "spec.sync.synchronous.blocks"},
                           PLAN_MEMBER(blocks),
                           1,
                           PLAN_BLOCKS_MOST,
                           .type = U32,
                           .optional = true,
                           .fallback = 8}},
    [PLAN_ASYNCHRONOUS] = {"Asynchronous",
                           "asynchronous",
                           {.path = "spec.sync.asynchronous.wire"},
                           {{.path = "spec.sync.asynchronous.maxStaleness"},
                            PLAN_MEMBER(max_staleness),
                            0,
                            1000,
                            .type = U32,
                            .optional = true,
                            .fallback = 4}},
    [PLAN_HOGWILD] = {"Hogwild", "hogwild", {.path = "spec.sync.hogwild.wire"}, {.optional = true}},
    [PLAN_KAVERAGE] =
        {"KAverage",
         "kAverage",
         {.path = "spec.sync.kAverage.wire"},
         {{.path = "spec.sync.kAverage.localSteps"}, PLAN_MEMBER(local_steps), 1, 1e6, .type = U32, .optional = true}},
};

const char *plan_sync_name(enum plan_sync sync)
{
    return sync_rows[sync].type;
}

/* Comes after training. */
int read_sync(struct plan *plan, const struct source *source, struct error *err)
{
    static const struct place type = {.path = "spec.sync.type"};
    const char *names[SYNCS];
    for (uint32_t i = 0; i < SYNCS; i++)
        names[i] = sync_rows[i].type;
    uint32_t chosen = 0;
    uint32_t wire = 0;
    if (read_choice(source, &type, names, SYNCS, PLAN_SYNCHRONOUS, &chosen, err) < 0)
        return -1;
    plan->sync = (enum plan_sync)chosen;
    plan->blocks = 1;
    const struct sync_row *row = &sync_rows[chosen];
    if (row->number.place.path != NULL && read_number(plan, source, &row->number, err) < 0)
        return -1;
    if (read_choice(source, &row->wire, wires, 2, PLAN_FLOAT32, &wire, err) < 0)
        return -1;
    plan->wire = (enum plan_wire)wire;
    bool at_once = plan->sync == PLAN_ASYNCHRONOUS || plan->sync == PLAN_HOGWILD;
    if (at_once && plan->training.optimizer.type == PLAN_LAMB)
        return error_set(err,
                         OPTIMIZER "type: LAMB needs norms over all shards, which sync type %s applies one by one; "
                                   "take AdamW, or sync type Synchronous or KAverage",
                         row->type);
    return 0;
}

void add_sync(cJSON *json, const struct plan *plan, bool *whole)
{
    const struct sync_row *row = &sync_rows[plan->sync];
    cJSON *sync = json_add_object(json, "sync", whole);
    json_add_text(sync, "type", row->type, whole);
    bool has_number = row->number.place.path != NULL && !(plan->sync == PLAN_KAVERAGE && plan->local_steps == 0);
    if (!has_number && plan->wire == PLAN_FLOAT32)
        return;
    cJSON *member = json_add_object(sync, row->member, whole);
    if (has_number)
        add_row(member, plan, &row->number, whole);
    if (plan->wire != PLAN_FLOAT32)
        json_add_text(member, "wire", wires[plan->wire], whole);
}
