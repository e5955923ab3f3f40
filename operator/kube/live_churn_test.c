/* A watch by way of a proxy that delays, cuts, resets and holds back what passes, of an API server that is killed,
 * frozen and compacted, while objects come, change and go: in the end the cache is what a fresh list says. */
#include "common/crypto.h"
#include "kube/live_world.h"

enum { OBJECTS = 40, AT_ONCE = 8 };

struct churn {
    struct world *world;
    struct kube_client *toxiproxy;
    struct kube_informer *watched[2]; /* one by streaming lists, one by pages */
    int told[2];                      /* objects that are there, by what the handlers heard */
    int writes, under_way, most;
};

static void on_change(void *arg, enum kube_change change, const char *key, const cJSON *object)
{
    (void)key;
    assert_non_null(object);
    *(int *)arg += change == KUBE_APPEARED ? 1 : change == KUBE_VANISHED ? -1 : 0;
}

/* ---- the writer, straight to the API server ---------------------------------------------------------------------- */

static void write_more(struct churn *churn);

static void on_written(void *arg, struct kube_response *response)
{
    struct churn *churn = arg;
    if (response->cancelled)
        return;
    churn->under_way--;
    write_more(churn);
}

/* One write of one of the objects, whether it exists or not: what fails, fails. */
static int write_one(struct churn *churn)
{
    const struct world *world = churn->world;
    char name[32];
    char text[32];
    snprintf(name, sizeof name, "c-%d", (int)(random_u64() % OBJECTS));
    snprintf(text, sizeof text, "%d", churn->writes);
    cleanup_json cJSON *object = config_map(world, name, text);
    if (random_u64() % 3 == 0)
        return kube_delete(world->client, &config_maps, world->namespace, name, (struct kube_precondition){0}, NULL,
                           on_written, churn, NULL);
    return kube_apply(world->client, &config_maps, object, (struct kube_precondition){0}, on_written, churn, NULL);
}

static void write_more(struct churn *churn)
{
    while (churn->under_way < AT_ONCE && churn->writes < churn->most) {
        churn->writes++;
        churn->under_way++;
        assert_int_equal(write_one(churn), 0);
    }
    if (churn->under_way == 0)
        loop_stop(churn->world->loop);
}

static void write_some(struct churn *churn, int count)
{
    churn->most = churn->writes + count;
    write_more(churn);
    assert_int_equal(loop_run(churn->world->loop, NULL), 0);
    assert_int_equal(churn->writes, churn->most);
}

/* ---- the proxy --------------------------------------------------------------------------------------------------- */

static void tell_proxy(struct churn *churn, enum kube_method method, const char *path, const char *body)
{
    const struct kube_request request = {
        .method = method, .path = path, .body = body, .body_length = body == NULL ? 0 : strlen(body)};
    succeeds(churn->world, kube_request(churn->toxiproxy, &request, on_answer, churn->world, NULL, NULL));
}

static struct kube_client *client_of_proxy(struct world *world)
{
    const char *url = getenv("THOLE_TEST_TOXIPROXY");
    struct kube_config *config = calloc(1, sizeof *config);
    assert_non_null(config);
    config->server = strdup(url == NULL ? "" : url);
    struct kube_client *client = kube_client_new(world->loop, config, NULL, NULL);
    assert_non_null(client);
    return client;
}

/* ---- the end ----------------------------------------------------------------------------------------------------- */

/* What the last answer listed is what both caches hold. */
static bool is_same(struct world *world)
{
    const struct churn *churn = world->arg;
    const cJSON *items = json_at(world->object, "items");
    for (int i = 0; i < 2; i++) {
        const struct kube_cache *cache = kube_informer_cache(churn->watched[i]);
        if ((int)kube_cache_count(cache) != cJSON_GetArraySize(items))
            return false;
        const cJSON *item = NULL;
        cJSON_ArrayForEach(item, items)
        {
            struct kube_key key;
            key_of(world, json_string(item, "metadata.name", ""), &key);
            cleanup_json cJSON *kept = kube_cache_get(cache, key.text);
            if (strcmp(json_string(kept, "metadata.resourceVersion", "none"),
                       json_string(item, "metadata.resourceVersion", "")) != 0 ||
                strcmp(json_string(kept, "data.text", "none"), json_string(item, "data.text", "")) != 0)
                return false;
        }
    }
    return true;
}

/* Lists afresh, straight from the API server. */
static void compare(struct churn *churn, const char *what)
{
    struct world *world = churn->world;
    const struct kube_request list = {.method = KUBE_GET,
                                      .resource = &config_maps,
                                      .namespace = world->namespace,
                                      .query = "labelSelector=test%3Dyes"};
    succeeds(world, kube_request(world->client, &list, on_answer, world, NULL, NULL));
    if (!try_until(world, is_same))
        fail_msg(
            "after %s there are %d objects, but by streams %d (%s) and by pages %d (%s)", what,
            cJSON_GetArraySize(json_at(world->object, "items")),
            (int)kube_cache_count(kube_informer_cache(churn->watched[0])), kube_informer_last_error(churn->watched[0]),
            (int)kube_cache_count(kube_informer_cache(churn->watched[1])), kube_informer_last_error(churn->watched[1]));
    for (int i = 0; i < 2; i++)
        assert_int_equal(churn->told[i], kube_cache_count(kube_informer_cache(churn->watched[i])));
}

/* ---- the story --------------------------------------------------------------------------------------------------- */

static void watch_by_proxy(struct churn *churn, struct kube_client *client)
{
    struct world *world = churn->world;
    for (int i = 0; i < 2; i++) {
        const struct kube_informer_options options = {.watch = {.resource = &config_maps,
                                                                .namespace = world->namespace,
                                                                .label_selector = "test=yes",
                                                                .page_size = 7,
                                                                .no_streaming_list = i == 1,
                                                                .silence = 2 * SECONDS}};
        assert_int_equal(kube_informer_start(&churn->watched[i], world->loop, client, &log_to_stderr, &options,
                                             on_change, NULL, &churn->told[i], NULL),
                         0);
    }
}

static void suffer_the_proxy(struct churn *churn)
{
    static const char *const toxics[] = {
        "{\"name\":\"it\",\"type\":\"latency\",\"attributes\":{\"latency\":100,\"jitter\":100}}",
        "{\"name\":\"it\",\"type\":\"slicer\",\"attributes\":{\"average_size\":20,\"size_variation\":19,\"delay\":10}}",
        "{\"name\":\"it\",\"type\":\"reset_peer\",\"attributes\":{\"timeout\":100}}",
        "{\"name\":\"it\",\"type\":\"limit_data\",\"attributes\":{\"bytes\":6000}}",
        "{\"name\":\"it\",\"type\":\"bandwidth\",\"attributes\":{\"rate\":20}}",
        "{\"name\":\"it\",\"type\":\"timeout\",\"attributes\":{\"timeout\":0}}",
        "{\"name\":\"it\",\"type\":\"timeout\",\"stream\":\"upstream\",\"attributes\":{\"timeout\":0}}",
    };
    for (size_t i = 0; i < sizeof toxics / sizeof toxics[0]; i++) {
        tell_proxy(churn, KUBE_POST, "/proxies/api/toxics", toxics[i]);
        write_some(churn, 150);
        tell_proxy(churn, KUBE_DELETE, "/proxies/api/toxics/it", NULL);
        write_some(churn, 20);
        compare(churn, toxics[i]);
    }
    tell_proxy(churn, KUBE_POST, "/proxies/api", "{\"enabled\":false}");
    write_some(churn, 60);
    control("compact", NULL);
    tell_proxy(churn, KUBE_POST, "/proxies/api", "{\"enabled\":true}");
    compare(churn, "an absent proxy, and history that was compacted meanwhile");
}

static void suffer_the_server(struct churn *churn)
{
    char key[400];
    for (int i = 0; i < 2; i++) {
        write_some(churn, 60);
        control("kill-api", NULL);
        for (int name = 0; name < OBJECTS; name += 5) {
            snprintf(key, sizeof key, "/registry/configmaps/%s/c-%d", churn->world->namespace, name + i);
            control("delete-key", key);
        }
        if (i == 0)
            control("compact", NULL);
        control("start-api", NULL);
        write_some(churn, 60);
        compare(churn, i == 0 ? "a killed API server and a compaction" : "a killed API server");
    }
    control("freeze-api", NULL);
    const struct kube_request request = {.method = KUBE_GET, .path = "/version", .timeout = 3 * SECONDS};
    answer(churn->world, kube_request(churn->world->client, &request, on_answer, churn->world, NULL, NULL));
    control("thaw-api", NULL);
    write_some(churn, 60);
    compare(churn, "a frozen API server");
}

static void caches_are_right_after_every_fault(void **state)
{
    struct churn churn = {.world = *state};
    churn.world->arg = &churn;
    struct kube_client *client = client_of(churn.world, "toxic");
    churn.toxiproxy = client_of_proxy(churn.world);
    write_some(&churn, 100);
    watch_by_proxy(&churn, client);
    compare(&churn, "the first lists");
    suffer_the_proxy(&churn);
    suffer_the_server(&churn);
    for (int i = 0; i < 2; i++)
        kube_informer_stop(churn.watched[i]);
    kube_client_free(client);
    kube_client_free(churn.toxiproxy);
}

int main(void)
{
    if (!is_there() || getenv("THOLE_TEST_TOXIPROXY") == NULL)
        return 77;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(caches_are_right_after_every_fault, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
