#include "test/pods.h"

#include "local/job.h"
#include "wire/wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

void cluster_make_job(struct cluster *cluster, uint32_t shards, uint32_t epochs, const char *model, const char *rate)
{
    struct error err = {0};
    cluster->program = "thole-trainer";
    bed_make(&cluster->bed);
    bed_put_model_job(&cluster->bed, model, epochs, 37, rate);
    struct options options = {
        .files = {cluster->bed.dataset, cluster->bed.job}, .file_count = 2, .shards = shards, .workers = 1};
    cleanup_job struct job job;
    if (job_load(&job, &options, &err) < 0)
        fail_msg("%s", error_message(&err));
    bed_put(&cluster->bed, "plan.json", job.plan_text, strlen(job.plan_text));
    bed_put(&cluster->bed, "token", "thirty-two bytes that are secret", 32);
    snprintf(cluster->plan, sizeof cluster->plan, "%s/plan.json", cluster->bed.folder);
    snprintf(cluster->token, sizeof cluster->token, "%s/token", cluster->bed.folder);
    snprintf(cluster->model, sizeof cluster->model, "%s/model.safetensors", cluster->bed.output);
    for (int i = 0; i < 2; i++) {
        cluster->listeners[i] = wire_listen_socket("127.0.0.1:0", &cluster->ports[i], &err);
        assert_true(cluster->listeners[i] >= 0);
    }
}

void cluster_make(struct cluster *cluster, uint32_t shards, uint32_t epochs)
{
    cluster_make_job(cluster, shards, epochs, "{zoo: mlp}", "0.05");
}

void cluster_free(struct cluster *cluster)
{
    close(cluster->listeners[0]);
    close(cluster->listeners[1]);
    bed_free(&cluster->bed);
}

void start_ps(struct process *pod, const struct cluster *cluster, uint32_t shard, const char *advertised, bool stays,
              const char *environment)
{
    char index[8], coordinator[32], address[32];
    snprintf(index, sizeof index, "%u", shard);
    snprintf(coordinator, sizeof coordinator, "127.0.0.1:%u", cluster->ports[0]);
    snprintf(address, sizeof address, "127.0.0.1:%u", cluster->ports[shard]);
    const char *argv[] = {cluster->program,
                          "ps",
                          "--shard",
                          index,
                          "--plan",
                          cluster->plan,
                          "--token",
                          cluster->token,
                          "--data",
                          cluster->bed.folder,
                          "--coordinator",
                          coordinator,
                          "--listen-fd",
                          "200",
                          "--advertise",
                          advertised != NULL ? advertised : address,
                          "--model-file",
                          cluster->model,
                          stays ? NULL : "--exit-when-done",
                          NULL};
    process_start(pod, argv, cluster->listeners[shard], environment);
}

void start_worker(struct process *pod, const struct cluster *cluster, const char *data, bool stays,
                  const char *environment)
{
    char coordinator[32];
    snprintf(coordinator, sizeof coordinator, "127.0.0.1:%u", cluster->ports[0]);
    const char *argv[] = {cluster->program,
                          "worker",
                          "--plan",
                          cluster->plan,
                          "--token",
                          cluster->token,
                          "--data",
                          data != NULL ? data : cluster->bed.folder,
                          "--coordinator",
                          coordinator,
                          stays ? NULL : "--exit-when-done",
                          NULL};
    process_start(pod, argv, -1, environment);
}

void train_quietly(const struct cluster *cluster, uint32_t shards, char digest[SHA256_HEX_SIZE])
{
    struct process ps[2], worker;
    for (uint32_t shard = 0; shard < shards; shard++)
        start_ps(&ps[shard], cluster, shard, NULL, false, NULL);
    start_worker(&worker, cluster, NULL, false, NULL);
    process_expect_end(&worker, 0, NULL);
    for (uint32_t shard = 0; shard < shards; shard++)
        process_expect_end(&ps[shard], 0, NULL);
    bed_digest(&cluster->bed, digest);
}
