#include "local/job.h"

#include "common/manifest/manifest.h"
#include "setup.h"

#include <stdio.h>
#include <string.h>

static cJSON *read_files(const struct options *options, struct error *err)
{
    cleanup_json cJSON *all = cJSON_CreateArray();
    for (uint32_t i = 0; i < options->file_count; i++) {
        cleanup_json cJSON *objects = manifest_read_file(options->files[i], err);
        if (objects == NULL)
            return NULL;
        cJSON *object;
        while ((object = cJSON_DetachItemFromArray(objects, 0)) != NULL)
            cJSON_AddItemToArray(all, object);
    }
    return move(all);
}

static const char *name_of(const cJSON *object)
{
    return json_string(object, "metadata.name", "");
}

static cJSON *find_trainjob(cJSON *objects, const char *name, struct error *err)
{
    cJSON *found = NULL, *object;
    cJSON_ArrayForEach(object, objects)
    {
        if (strcmp(json_string(object, "kind", ""), "TrainJob") != 0 ||
            (name != NULL && strcmp(name_of(object), name) != 0))
            continue;
        if (found != NULL && name == NULL) {
            error_set(err, "there are several TrainJobs, among them '%s' and '%s': choose one by --job NAME",
                      name_of(found), name_of(object));
            return NULL;
        }
        found = object;
    }
    if (found == NULL && name != NULL)
        error_set(err, "there is no TrainJob '%s' in the files", name);
    else if (found == NULL)
        error_set(err, "there is no TrainJob in the files: give its file by -f too");
    return found;
}

/* What --data says about the Dataset, or its own hostPath. */
static int find_data(struct job *job, const struct options *options, const cJSON *dataset, struct error *err)
{
    const char *name = name_of(dataset);
    const char *directory = json_string(dataset, "spec.source.hostPath.path", NULL);
    size_t length = strlen(name);
    for (uint32_t i = 0; i < options->data_count; i++)
        if (strncmp(options->data[i], name, length) == 0 && options->data[i][length] == '=')
            directory = options->data[i] + length + 1;
    if (directory == NULL)
        return error_set(err, "the source of Dataset '%s' is not on this machine: give its files by --data %s=DIR",
                         name, name);
    if (strlen(directory) >= sizeof job->data)
        return error_set(err, "the path of Dataset '%s' is too long", name);
    snprintf(job->data, sizeof job->data, "%s", directory);
    return 0;
}

static int check_data_flags(const struct options *options, const cJSON *objects, struct error *err)
{
    for (uint32_t i = 0; i < options->data_count; i++) {
        cleanup_free char *name = strndup(options->data[i], strcspn(options->data[i], "="));
        if (name == NULL || manifest_find(objects, "Dataset", NULL, name) == NULL)
            return error_set(err, "--data %s: there is no Dataset '%s' in the files", options->data[i],
                             name != NULL ? name : "");
    }
    return 0;
}

static int compile(struct job *job, const struct options *options, cJSON *trainjob, const cJSON *dataset,
                   struct error *err)
{
    if (json_put(trainjob, "metadata.uid", cJSON_CreateString("local"), err) < 0)
        return -1;
    if (options->shards != 0 &&
        json_put(trainjob, "spec.parameterServers.shards", cJSON_CreateNumber(options->shards), err) < 0)
        return -1;
    if (options->workers != 0 &&
        json_put(trainjob, "spec.workers.replicas", cJSON_CreateNumber(options->workers), err) < 0)
        return -1;
    job->workers = (uint32_t)json_int(trainjob, "spec.workers.replicas", 1);
    if (job->workers == 0 || job->workers > OPTIONS_WORKERS_MOST)
        return error_set(err,
                         "spec.workers.replicas: %u workers cannot run on one machine, only 1 to %d: give --workers N",
                         job->workers, OPTIONS_WORKERS_MOST);
    job->backoff_limit = (uint32_t)json_int(trainjob, "spec.runPolicy.backoffLimit", 6);
    job->plan_text = plan_compile(trainjob, dataset, err);
    if (job->plan_text == NULL)
        return -1;
    return plan_parse(&job->plan, job->plan_text, strlen(job->plan_text), err);
}

/* What --start says, or the TrainJob's own file where that is on this machine. */
static int find_start(struct job *job, const struct options *options, const cJSON *trainjob, struct error *err)
{
    if (job->plan->model.start == NULL)
        return options->start == NULL ? 0
                                      : error_set(err,
                                                  "--start %s: the TrainJob starts from no model file: set "
                                                  "spec.model.file or trainJobRef in place of its model",
                                                  options->start);
    const char *volume = json_string(trainjob, "spec.model.file.volume.hostPath.path", NULL);
    const char *path = json_string(trainjob, "spec.model.file.path", "");
    int length = 0;
    if (options->start != NULL)
        length = snprintf(job->start, sizeof job->start, "%s", options->start);
    else if (volume != NULL)
        length = snprintf(job->start, sizeof job->start, "%s/%s", volume, path);
    else
        return error_set(err,
                         "the model that the TrainJob starts from (%s) is not on this machine: give its file by "
                         "--start FILE",
                         job->plan->model.start);
    return length < (int)sizeof job->start ? 0 : error_set(err, "the path of the model to start from is too long");
}

/* Of two of one name, the one that trains would be a matter of the order of the files. */
static int check_names(const cJSON *objects, struct error *err)
{
    const cJSON *object;
    cJSON_ArrayForEach(object, objects)
    {
        const char *kind = json_string(object, "kind", ""), *name = name_of(object);
        if (manifest_find(objects, kind, json_string(object, "metadata.namespace", ""), name) != object)
            return error_set(err, "there are two objects of kind %s and name '%s' in the files: take one of them out",
                             kind, name);
    }
    return 0;
}

int job_load(struct job *job, const struct options *options, struct error *err)
{
    *job = (struct job){0};
    cleanup_json cJSON *objects = read_files(options, err);
    if (objects == NULL || check_names(objects, err) < 0 || check_data_flags(options, objects, err) < 0)
        return -1;
    cJSON *trainjob = find_trainjob(objects, options->job, err);
    if (trainjob == NULL)
        return -1;
    const char *reference = json_string(trainjob, "spec.datasetRef.name", "");
    const cJSON *dataset =
        manifest_find(objects, "Dataset", json_string(trainjob, "metadata.namespace", ""), reference);
    if (dataset == NULL)
        return error_set(err,
                         "TrainJob '%s' trains on Dataset '%s', which is not in the files: give its file by -f too",
                         name_of(trainjob), reference);
    if (find_data(job, options, dataset, err) < 0 || compile(job, options, trainjob, dataset, err) < 0)
        return -1;
    /* What does not fit is better said now, once, than by every process. */
    cleanup_setup struct setup setup = {0};
    if (find_start(job, options, trainjob, err) < 0 ||
        setup_read(&setup, job->plan, job->data, job->start[0] != '\0' ? job->start : NULL, err) < 0)
        return -1;
    job->train_samples = setup.train.samples;
    return 0;
}

void job_free(struct job *job)
{
    free(job->plan_text);
    plan_free(job->plan);
}
