#include "kube/live_world.h"
#include "common/crypto.h"

#include <spawn.h>
#include <sys/wait.h>

const struct kube_resource config_maps = {"", "v1", "configmaps", "ConfigMap", true};
const struct kube_resource namespaces = {"", "v1", "namespaces", "Namespace", false};

const struct log log_to_stderr = {.fd = 2, .level = LOG_INFO};

/* ---- running the loop until something is so --------------------------------------------------------------------- */

static void poll(void *arg)
{
    struct world *world = arg;
    if (world->reached(world))
        loop_stop(world->loop);
    else
        loop_timer_set(&world->poll, 2 * MILLISECONDS);
}

static void give_up(void *arg)
{
    struct world *world = arg;
    world->late = true;
    loop_stop(world->loop);
}

bool try_until(struct world *world, bool (*reached)(struct world *world))
{
    world->reached = reached;
    world->late = false;
    loop_timer_set(&world->poll, 0);
    loop_timer_set(&world->deadline, 60 * SECONDS);
    struct error err = {0};
    assert_int_equal(loop_run(world->loop, &err), 0);
    loop_timer_cancel(&world->poll);
    loop_timer_cancel(&world->deadline);
    return !world->late;
}

bool is_answered(struct world *world)
{
    return world->answered;
}

void on_answer(void *arg, struct kube_response *response)
{
    struct world *world = arg;
    world->answered = true;
    world->status = response->status;
    world->conflict = response->conflict;
    snprintf(world->reason, sizeof world->reason, "%s", response->reason);
    snprintf(world->error, sizeof world->error, "%s", response->error == NULL ? "" : error_message(response->error));
    cJSON_Delete(world->object);
    world->object = move(response->object);
}

void answer(struct world *world, int result)
{
    assert_int_equal(result, 0);
    world->answered = false;
    until(world, is_answered);
}

void succeeds(struct world *world, int result)
{
    answer(world, result);
    if (world->status / 100 != 2)
        fail_msg("%s", world->error);
}

void fails(struct world *world, int result, int status, const char *reason, const char *sentence)
{
    answer(world, result);
    if (world->status != status || strcmp(world->reason, reason) != 0 || strstr(world->error, sentence) == NULL)
        fail_msg("%d %s: %s (expected %d %s: …%s…)", world->status, world->reason, world->error, status, reason,
                 sentence);
}

void conflicts(struct world *world, int result)
{
    answer(world, result);
    if (!world->conflict)
        fail_msg("%d %s is no conflict: %s", world->status, world->reason, world->error);
}

const char *answered(struct world *world, const char *path)
{
    return json_string(world->object, path, "");
}

/* ---- the API server's fate -------------------------------------------------------------------------------------- */

void control(const char *verb, const char *flag)
{
    char *script = getenv("THOLE_TEST_CONTROL");
    char *arguments[] = {script, (char *)"control", (char *)verb, (char *)flag, NULL};
    pid_t pid = 0;
    if (script == NULL || posix_spawn(&pid, script, NULL, NULL, arguments, environ) != 0)
        fail_msg("cannot run the script that THOLE_TEST_CONTROL names");
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

/* ---- set-up ----------------------------------------------------------------------------------------------------- */

struct kube_client *client_of(struct world *world, const char *context)
{
    const struct kube_config_source source = {.kubeconfig = getenv("THOLE_TEST_KUBECONFIG"), .context = context};
    struct kube_config *config = NULL;
    struct error err = {0};
    if (kube_config_load(&config, &source, &err) < 0)
        fail_msg("%s", error_message(&err));
    struct kube_client *client = kube_client_new(world->loop, config, &log_to_stderr, &err);
    assert_non_null(client);
    return client;
}

int set_up(void **state)
{
    struct world *world = calloc(1, sizeof *world);
    assert_non_null(world);
    *state = world;
    world->loop = loop_new(NULL);
    assert_non_null(world->loop);
    loop_timer_init(&world->poll, world->loop, poll, world);
    loop_timer_init(&world->deadline, world->loop, give_up, world);
    world->client = client_of(world, NULL);
    snprintf(world->namespace, sizeof world->namespace, "test-%016llx", (unsigned long long)random_u64());
    cleanup_json cJSON *namespace = cJSON_CreateObject();
    json_put(namespace, "metadata.name", cJSON_CreateString(world->namespace), NULL);
    succeeds(world, kube_create(world->client, &namespaces, namespace, on_answer, world, NULL));
    return 0;
}

bool is_there(void)
{
    return getenv("THOLE_TEST_KUBECONFIG") != NULL && getenv("THOLE_TEST_CONTROL") != NULL;
}

int tear_down(void **state)
{
    struct world *world = *state;
    kube_informer_stop(world->informer);
    kube_client_free(world->client);
    loop_free(world->loop);
    cJSON_Delete(world->object);
    free(world);
    return 0;
}

static void on_change(void *arg, enum kube_change change, const char *key, const cJSON *object)
{
    struct world *world = arg;
    assert_true(strncmp(key, world->namespace, strlen(world->namespace)) == 0);
    assert_non_null(object);
    int *const counters[] = {&world->appeared, &world->changed, &world->vanished};
    ++*counters[change];
}

static void on_synced(void *arg)
{
    ((struct world *)arg)->synced++;
}

static bool is_synced(struct world *world)
{
    return world->synced > 0;
}

void watch_config_maps(struct world *world, size_t page_size, bool paged)
{
    const struct kube_informer_options options = {
        .watch = {.resource = &config_maps,
                  .namespace = world->namespace,
                  .label_selector = "test=yes",
                  .page_size = page_size,
                  .no_streaming_list = paged},
        .index_label = "test",
    };
    struct error err = {0};
    assert_int_equal(kube_informer_start(&world->informer, world->loop, world->client, &log_to_stderr, &options,
                                         on_change, on_synced, world, &err),
                     0);
    until(world, is_synced);
}

cJSON *config_map(const struct world *world, const char *name, const char *text)
{
    cJSON *object = cJSON_CreateObject();
    json_put(object, "metadata.name", cJSON_CreateString(name), NULL);
    json_put(object, "metadata.namespace", cJSON_CreateString(world->namespace), NULL);
    json_put(object, "metadata.labels.test", cJSON_CreateString("yes"), NULL);
    json_put(object, "data.text", cJSON_CreateString(text), NULL);
    return object;
}

int create(struct world *world, const char *name, const char *text)
{
    cleanup_json cJSON *object = config_map(world, name, text);
    return kube_create(world->client, &config_maps, object, on_answer, world, NULL);
}

int count_of(const struct world *world)
{
    return (int)kube_cache_count(kube_informer_cache(world->informer));
}

void key_of(const struct world *world, const char *name, struct kube_key *key)
{
    assert_int_equal(kube_key_make(key, world->namespace, name), 0);
}
