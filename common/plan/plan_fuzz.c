/* Any JSON as plan.json or, where it has the member "trainjob", as a TrainJob and its Dataset to be compiled: what
 * compiles can be read, compiles to the same bytes again, and is within its bounds. */
#include "common/plan/plan.h"
#include "common/test/fuzz.h"

#include <math.h>
#include <string.h>

static void check_bounds(const struct plan *plan)
{
    require(plan->job_uid != NULL && plan->job_name != NULL && plan->dataset.train.features != NULL);
    require(plan->blocks >= 1 && plan->blocks <= PLAN_BLOCKS_MOST);
    require(plan->shards >= 1 && plan->shards <= PLAN_SHARDS_MOST);
    require(plan->training.epochs >= 1 && plan->training.batch_size >= 1);
    require(plan->dataset.channels >= 1 && plan->dataset.channels <= PLAN_CHANNELS_MOST);
    require(isfinite(plan->training.optimizer.learning_rate) && isfinite(plan->dataset.scale));
    for (uint32_t i = 0; i < plan->dataset.channels; i++)
        require(isfinite(plan->dataset.mean[i]) && plan->dataset.std[i] > 0);
    for (int i = 0; i < 3; i++)
        require(!plan->dataset.has_shape || plan->dataset.shape[i] > 0);
    require((plan->model.zoo != NULL) + (plan->model.layers != NULL) + (plan->model.start != NULL) == 1);
    require(plan_model_name(plan) != NULL && plan_sync_name(plan->sync) != NULL);
    const struct plan_optimizer *optimizer = &plan->training.optimizer;
    require(optimizer->momentum >= 0 && optimizer->momentum < 1 && optimizer->beta1 < 1 && optimizer->beta2 < 1);
    require(optimizer->clip_norm >= 0 && optimizer->clip_value >= 0 && isfinite(optimizer->schedule.power));
    require((optimizer->type == PLAN_SGD) == (optimizer->epsilon == 0));
    require((plan->dataset.test.features != NULL) == (plan->training.validation_split == 0));
    require((plan->dataset.format == PLAN_FORMAT_CSV) == (plan->dataset.csv.label_column != NULL));
    require((plan->dataset.format == PLAN_FORMAT_LIBSVM) == (plan->dataset.features > 0));
    require(plan_category_rows(plan) <= NETWORK_ROWS_MOST);
    const char *const paths[] = {plan->dataset.train.features, plan->dataset.train.labels};
    for (int i = 0; i < 2; i++)
        require(paths[i] == NULL || (paths[i][0] != '/' && paths[i][0] != '\0' && strncmp(paths[i], "../", 3) != 0));
}

static bool read_plan(const char *text, size_t length)
{
    struct error err = {0};
    cleanup_plan struct plan *plan = NULL;
    int result = plan_parse(&plan, text, length, &err);
    require((result < 0) == (error_message(&err)[0] != '\0') && (result < 0) == (plan == NULL));
    if (plan != NULL)
        check_bounds(plan);
    return result == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cleanup_json cJSON *json = cJSON_ParseWithLength((const char *)data, size);
    const cJSON *trainjob = json_at(json, "trainjob");
    if (trainjob == NULL) {
        read_plan((const char *)data, size);
        return 0;
    }
    struct error err = {0};
    cleanup_free char *text = plan_compile(trainjob, json_at(json, "dataset"), &err);
    require((text == NULL) == (error_message(&err)[0] != '\0'));
    if (text == NULL)
        return 0;
    require_with_memory(read_plan(text, strlen(text)));
    cleanup_free char *again = plan_compile(trainjob, json_at(json, "dataset"), &err);
    require_with_memory(again != NULL);
    require(again == NULL || strcmp(text, again) == 0);
    return 0;
}
