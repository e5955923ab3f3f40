/* The client, watches and writes against a real API server that hack/control-plane.sh has started. Skipped without it.
 */
#include "kube/live_world.h"

static const struct kube_resource event_resource = {"events.k8s.io", "v1", "events", "Event", true};

static void writes_have_their_preconditions(void **state)
{
    struct world *world = *state;
    const char *namespace = world->namespace;
    succeeds(world, create(world, "a", "one"));
    char uid[64];
    char version[64];
    snprintf(uid, sizeof uid, "%s", answered(world, "metadata.uid"));
    snprintf(version, sizeof version, "%s", answered(world, "metadata.resourceVersion"));
    fails(world, create(world, "a", "one"), 409, "AlreadyExists", "already exists");
    assert_non_null(strstr(world->error, "create ConfigMap "));
    assert_false(world->conflict);
    fails(world, create(world, "No_Name", "one"), 422, "Invalid", "Invalid value");

    cleanup_json cJSON *patch = cJSON_Parse("{\"data\":{\"text\":\"two\"}}");
    struct kube_precondition same = {.uid = uid, .resource_version = version};
    succeeds(world,
             kube_merge_patch(world->client, &config_maps, namespace, "a", NULL, patch, same, on_answer, world, NULL));
    assert_string_equal(answered(world, "data.text"), "two");
    conflicts(world,
              kube_merge_patch(world->client, &config_maps, namespace, "a", NULL, patch, same, on_answer, world, NULL));
    struct kube_precondition other = {.uid = "00000000-0000-0000-0000-000000000000"};
    conflicts(world, kube_merge_patch(world->client, &config_maps, namespace, "a", NULL, patch, other, on_answer, world,
                                      NULL));
    fails(world,
          kube_merge_patch(world->client, &config_maps, namespace, "b", NULL, patch, same, on_answer, world, NULL), 404,
          "NotFound", "not found");

    cleanup_json cJSON *applied = config_map(world, "a", "three");
    struct kube_precondition by_uid = {.uid = uid};
    succeeds(world, kube_apply(world->client, &config_maps, applied, by_uid, on_answer, world, NULL));
    assert_string_equal(answered(world, "data.text"), "three");
    conflicts(world, kube_apply(world->client, &config_maps, applied, other, on_answer, world, NULL));
    cleanup_json cJSON *absent = config_map(world, "gone", "three");
    conflicts(world, kube_apply(world->client, &config_maps, absent, by_uid, on_answer, world, NULL));

    conflicts(world, kube_delete(world->client, &config_maps, namespace, "a", other, NULL, on_answer, world, NULL));
    conflicts(world, kube_delete(world->client, &config_maps, namespace, "a", same, NULL, on_answer, world, NULL));
    succeeds(world,
             kube_delete(world->client, &config_maps, namespace, "a", by_uid, "Background", on_answer, world, NULL));
    fails(world, kube_delete(world->client, &config_maps, namespace, "a", by_uid, NULL, on_answer, world, NULL), 404,
          "NotFound", "not found");
    fails(world, kube_get(world->client, &config_maps, namespace, "a", on_answer, world, NULL), 404, "NotFound",
          "get ConfigMap ");
}

static bool saw_change(struct world *world)
{
    return world->changed > 0;
}

static bool saw_vanishing(struct world *world)
{
    return world->vanished > 0;
}

/* The whole life of objects, seen by way of `page_size` and `paged`. */
static void follow(struct world *world, size_t page_size, bool paged)
{
    char name[32];
    for (int i = 0; i < 25; i++) {
        snprintf(name, sizeof name, "before-%d", i);
        succeeds(world, create(world, name, "x"));
    }
    watch_config_maps(world, page_size, paged);
    assert_int_equal(count_of(world), 25);
    assert_int_equal(world->appeared, 25);

    succeeds(world, create(world, "later", "x"));
    kube_informer_wrote(world->informer, world->object);
    assert_int_equal(count_of(world), 26); /* at once, whatever the watch knows */
    struct kube_key key;
    key_of(world, "later", &key);
    cleanup_json cJSON *read = kube_cache_get(kube_informer_cache(world->informer), key.text);
    assert_string_equal(json_string(read, "kind", ""), "ConfigMap");
    assert_null(json_at(read, "metadata.managedFields"));

    cleanup_json cJSON *patch = cJSON_Parse("{\"data\":{\"text\":\"y\"}}");
    succeeds(world, kube_merge_patch(world->client, &config_maps, world->namespace, "later", NULL, patch,
                                     (struct kube_precondition){0}, on_answer, world, NULL));
    until(world, saw_change);
    cleanup_json cJSON *listed = kube_cache_get(kube_informer_cache(world->informer), "nothing/here");
    assert_null(listed);
    succeeds(world, kube_delete(world->client, &config_maps, world->namespace, "before-3",
                                (struct kube_precondition){0}, NULL, on_answer, world, NULL));
    until(world, saw_vanishing);
    assert_int_equal(count_of(world), 25);
    assert_int_equal(world->appeared, 26);
    assert_int_equal(world->synced, 1);
    cleanup_json cJSON *by_label = kube_cache_labelled(kube_informer_cache(world->informer), world->namespace, "yes");
    assert_int_equal(cJSON_GetArraySize(by_label), 25);
}

static void a_streaming_list_and_its_watch(void **state)
{
    follow(*state, 0, false);
}

static void a_paged_list_and_its_watch(void **state)
{
    follow(*state, 7, true);
}

static void a_server_without_streaming_lists(void **state)
{
    struct world *world = *state;
    control("kill-api", NULL);
    control("start-api", "--feature-gates=WatchList=false");
    follow(world, 4, false);
    control("kill-api", NULL);
    control("start-api", NULL);
}

static void large_objects_arrive_whole(void **state)
{
    struct world *world = *state;
    enum { LARGE = 1040000 }; /* a MiB is what a ConfigMap may hold; with its escapes 1.5 MB on the wire */
    cleanup_free char *text = malloc(LARGE + 1);
    assert_non_null(text);
    for (int i = 0; i < LARGE; i++)
        text[i] = "\"\\\n\t\"{}[]a"[i % 10];
    text[LARGE] = '\0';
    watch_config_maps(world, 0, false);
    succeeds(world, create(world, "large", text));
    kube_informer_stop(world->informer);
    world->informer = NULL;
    world->synced = 0;
    watch_config_maps(world, 0, false);
    struct kube_key key;
    key_of(world, "large", &key);
    cleanup_json cJSON *read = kube_cache_get(kube_informer_cache(world->informer), key.text);
    assert_string_equal(json_string(read, "data.text", ""), text);
}

static void delete_in_etcd(const struct world *world, const char *name)
{
    char key[400];
    snprintf(key, sizeof key, "/registry/configmaps/%s/%s", world->namespace, name);
    control("delete-key", key);
}

static bool saw_two_vanish(struct world *world)
{
    return world->vanished == 2 && *kube_informer_last_error(world->informer) == '\0';
}

static bool saw_another(struct world *world)
{
    return count_of(world) == 9;
}

static bool is_interrupted(struct world *world)
{
    return *kube_informer_last_error(world->informer) != '\0';
}

/* While the API server is away, objects go and the history that would tell so is compacted: what is gone must be
 * reported all the same. */
static void a_killed_server_and_what_vanished_meanwhile(void **state)
{
    struct world *world = *state;
    char name[32];
    for (int i = 0; i < 10; i++) {
        snprintf(name, sizeof name, "c-%d", i);
        succeeds(world, create(world, name, "x"));
    }
    watch_config_maps(world, 0, false);
    assert_int_equal(count_of(world), 10);
    control("kill-api", NULL);
    until(world, is_interrupted);
    delete_in_etcd(world, "c-3");
    delete_in_etcd(world, "c-7");
    control("compact", NULL);
    assert_int_equal(count_of(world), 10);
    control("start-api", NULL);
    until(world, saw_two_vanish);
    assert_int_equal(count_of(world), 8);
    assert_int_equal(world->synced, 1);
    assert_int_equal(world->appeared, 10);
    struct kube_key key;
    key_of(world, "c-7", &key);
    assert_null(kube_cache_get(kube_informer_cache(world->informer), key.text));
    succeeds(world, create(world, "after", "x"));
    until(world, saw_another);
}

static void a_frozen_server_times_out_and_its_connection_is_left(void **state)
{
    struct world *world = *state;
    succeeds(world, create(world, "before", "one"));
    struct kube_client_metrics before;
    struct kube_client_metrics after;
    kube_client_metrics(world->client, &before);
    assert_int_equal(before.connections, 1);
    control("freeze-api", NULL);
    const struct kube_request request = {.method = KUBE_GET, .path = "/version", .timeout = 300 * MILLISECONDS};
    answer(world, kube_request(world->client, &request, on_answer, world, NULL, NULL));
    assert_int_equal(world->status, 0);
    assert_non_null(strstr(world->error, "get /version: no answer from https://127.0.0.1"));
    assert_non_null(strstr(world->error, "imed out"));
    control("thaw-api", NULL);
    succeeds(world, create(world, "a", "one"));
    kube_client_metrics(world->client, &after);
    assert_int_equal(after.connections, 2);
}

static void a_rotated_token_is_read_again(void **state)
{
    struct world *world = *state;
    char path[256];
    snprintf(path, sizeof path, "%s/token", getenv("THOLE_TEST_DIRECTORY"));
    assert_int_equal(file_write_atomically(path, "stale-token", 11, NULL), 0);
    struct kube_client *client = client_of(world, "token");
    const struct kube_request request = {.method = KUBE_GET, .resource = &namespaces, .name = "default"};
    fails(world, kube_request(client, &request, on_answer, world, NULL, NULL), 401, "Unauthorized",
          "get Namespace default");
    assert_int_equal(file_write_atomically(path, "good-token\n", 11, NULL), 0);
    succeeds(world, kube_request(client, &request, on_answer, world, NULL, NULL));
    struct kube_client_metrics metrics;
    kube_client_metrics(client, &metrics);
    uint64_t unauthorized = 0;
    for (int i = 0; i < KUBE_CODES; i++)
        if (strcmp(kube_code_name(i), "401") == 0)
            unauthorized = metrics.requests[KUBE_GET][i];
    assert_int_equal(unauthorized, 2);
    kube_client_free(client);
}

struct burst {
    struct world *world;
    int answers, cancelled;
};

static void on_burst(void *arg, struct kube_response *response)
{
    struct burst *burst = arg;
    burst->answers++;
    burst->cancelled += response->cancelled;
    if (response->error != NULL && !response->cancelled)
        fail_msg("%s", error_message(response->error));
    if (burst->answers == 500)
        loop_stop(burst->world->loop);
}

/* Far more than a lane takes at once; then the same, given up half-way. */
static void many_requests_at_once(void **state)
{
    struct world *world = *state;
    struct burst burst = {.world = world};
    const struct kube_request request = {.method = KUBE_GET, .resource = &namespaces, .name = "default"};
    struct kube_call *calls[500];
    for (int i = 0; i < 500; i++)
        assert_int_equal(kube_request(world->client, &request, on_burst, &burst, &calls[i], NULL), 0);
    assert_int_equal(loop_run(world->loop, NULL), 0);
    assert_int_equal(burst.answers, 500);

    burst.answers = 300;
    for (int i = 0; i < 500; i++)
        assert_int_equal(kube_request(world->client, &request, on_burst, &burst, &calls[i], NULL), 0);
    for (int i = 0; i < 500; i += 5)
        kube_call_cancel(calls[i]);
    assert_int_equal(loop_run(world->loop, NULL), 0);
    assert_int_equal(burst.cancelled, 0);
    kube_client_free(world->client);
    world->client = NULL;
    assert_int_equal(burst.answers, 700);
    assert_true(burst.cancelled > 0);
}

static bool has_one_event(struct world *world)
{
    return world->answered && cJSON_GetArraySize(json_at(world->object, "items")) == 1;
}

static int list_events(struct world *world)
{
    const struct kube_request request = {
        .method = KUBE_GET, .resource = &event_resource, .namespace = world->namespace};
    world->answered = false;
    return kube_request(world->client, &request, on_answer, world, NULL, NULL);
}

static void events_are_said_once(void **state)
{
    struct world *world = *state;
    succeeds(world, create(world, "a", "one"));
    cleanup_json cJSON *regarding = move(world->object);
    struct kube_events *events = kube_events_new(world->loop, world->client, &log_to_stderr, "me", NULL);
    assert_non_null(events);
    cleanup_free char *note = malloc(3001);
    assert_non_null(note);
    for (int i = 0; i < 1500; i++)
        memcpy(note + (size_t)i * 2, "\xc3\xbc", 2);
    note[0] = 'x'; /* so that the cut falls into a character */
    note[1] = 'x';
    memmove(note + 1, note + 2, 2998);
    note[2999] = '\0';
    kube_event(events, regarding, KUBE_EVENT_WARNING, "TestFailed", "Testing", note);
    kube_event(events, regarding, KUBE_EVENT_WARNING, "TestFailed", "Testing", note);
    do {
        assert_int_equal(list_events(world), 0);
        until(world, is_answered);
    } while (!has_one_event(world));
    const cJSON *event = cJSON_GetArrayItem(json_at(world->object, "items"), 0);
    assert_string_equal(json_string(event, "reason", ""), "TestFailed");
    assert_string_equal(json_string(event, "regarding.name", ""), "a");
    assert_string_equal(json_string(event, "reportingController", ""), "thole.dev/thole-operator");
    assert_int_equal(strlen(json_string(event, "note", "")), 1023);
    kube_events_free(events);
}

static const struct kube_resource unknown = {"example.com", "v1", "unknowns", "Unknown", true};

static void unknown_kinds_and_absent_servers_are_said_clearly(void **state)
{
    struct world *world = *state;
    fails(world, kube_get(world->client, &unknown, "n", "a", on_answer, world, NULL), 404, "",
          "get Unknown n/a: the API server answered 404");
    const struct kube_request request = {.method = KUBE_GET, .path = "/api/v1/nodes", .most_bytes = 10};
    answer(world, kube_request(world->client, &request, on_answer, world, NULL, NULL));
    assert_string_equal(world->error, "get /api/v1/nodes: the answer is larger than 10 bytes");
}

int main(void)
{
    if (!is_there())
        return 77;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(writes_have_their_preconditions, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_streaming_list_and_its_watch, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_paged_list_and_its_watch, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_server_without_streaming_lists, set_up, tear_down),
        cmocka_unit_test_setup_teardown(large_objects_arrive_whole, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_killed_server_and_what_vanished_meanwhile, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_frozen_server_times_out_and_its_connection_is_left, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_rotated_token_is_read_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(many_requests_at_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(events_are_said_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(unknown_kinds_and_absent_servers_are_said_clearly, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
