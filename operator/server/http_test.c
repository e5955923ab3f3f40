/* Health, metrics and questions over plain HTTP. */
#include "server/test_bed.h"

static void ask_around(struct scene *scene)
{
    ask(scene, "GET", "/healthz", "HTTP/1.1 200", "ok");
    ask(scene, "GET", "/readyz", "HTTP/1.1 503", "waiting for the start");
    server_set_ready(scene->server, false, "pods");
    ask(scene, "GET", "/readyz", "HTTP/1.1 503", "waiting for pods");
    server_set_ready(scene->server, true, NULL);
    ask(scene, "GET", "/readyz", "HTTP/1.1 200", "ok");
    ask(scene, "GET", "/metrics", "HTTP/1.1 200", "test_hellos 0\n# HELP thole_server_connections");
    ask(scene, "GET", "/metrics", "HTTP/1.1 200", "\nthole_server_connections 1\n");
    ask(scene, "GET", "/metrics", "HTTP/1.1 200", "\nthole_coordinator_connections 0\n");
    ask(scene, "GET", "/", "HTTP/1.1 404", "there is /healthz");
    ask(scene, "GET", "/v1/coordinator", "HTTP/1.1 400", "this is a WebSocket");
    ask(scene, "POST", "/metrics", "HTTP/1.1 405", "only GET");
}

static void health_readiness_and_metrics_are_served(void **state)
{
    (void)state;
    struct scene scene = {0};
    play(ask_around, &scene, usual());
}

static void ask_for_debug(struct scene *scene)
{
    ask(scene, "GET", "/debug/thing?key=team/lenet", "HTTP/1.1 200", "{\"what\":\"thing\",\"key\":\"team/lenet\"}");
    ask(scene, "GET", "/debug/thing?other=1&key=team%2Flenet", "HTTP/1.1 200", "\"key\":\"team/lenet\"}");
    ask(scene, "GET", "/debug/thing", "HTTP/1.1 200", "\"key\":\"\"}");
    ask(scene, "GET", "/debug/", "HTTP/1.1 404", "{\"what\":\"\",");
    ask(scene, "GET", "/debug/other?key=x", "HTTP/1.1 404", "{\"what\":\"other\",\"key\":\"x\"}");
    ask(scene, "GET", "/debug", "HTTP/1.1 404", "there is /healthz");
}

static void the_loop_answers_questions(void **state)
{
    (void)state;
    struct scene scene = {.debugs = true};
    play(ask_for_debug, &scene, usual());
}

static void ask_for_debug_in_vain(struct scene *scene)
{
    ask(scene, "GET", "/debug/thing?key=team/lenet", "HTTP/1.1 404", "there is /healthz");
}

static void nothing_is_told_without_a_hook(void **state)
{
    (void)state;
    struct scene scene = {0};
    play(ask_for_debug_in_vain, &scene, usual());
}

static void wait_for_health(struct scene *scene, const char *status, const char *part)
{
    static const char request[] = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    char answer[1024];
    do
        exchange_bytes(scene, request, sizeof request - 1, answer, sizeof answer);
    while (strncmp(answer, status, strlen(status)) != 0);
    assert_non_null(strstr(answer, part));
}

/* The loop stands still in the handling of a report; the server's thread goes on and says so. */
static void stick(struct scene *scene)
{
    struct client client;
    join(&client, scene, "u-1", BOOT_A);
    wait_for_health(scene, "HTTP/1.1 200", "ok");
    pthread_mutex_lock(&scene->gate);
    const struct report_message message = {.type = REPORT_PROGRESS, .progress = {.term = 1, .epoch = 1, .steps = 1}};
    say(&client, &message);
    wait_for_health(scene, "HTTP/1.1 503", "the event loop has been stuck for");
    ask(scene, "GET", "/metrics", "HTTP/1.1 503", "the event loop does not answer");
    ask(scene, "GET", "/debug/thing?key=x", "HTTP/1.1 503", "the event loop does not answer");
    ask(scene, "GET", "/readyz", "HTTP/1.1 503", "waiting for the start");
    pthread_mutex_unlock(&scene->gate);
    wait_for_health(scene, "HTTP/1.1 200", "ok");
    ask(scene, "GET", "/metrics", "HTTP/1.1 200", "test_hellos 1\n");
    client_close(&client);
}

static void a_stuck_loop_is_not_healthy(void **state)
{
    (void)state;
    struct scene scene = {.debugs = true};
    struct server_options options = usual();
    options.stuck_after = 1500 * MILLISECONDS; /* it turns once a second at least */
    play(stick, &scene, options);
}

int main(void)
{
    lws_set_log_level(0, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(health_readiness_and_metrics_are_served),
        cmocka_unit_test(the_loop_answers_questions),
        cmocka_unit_test(nothing_is_told_without_a_hook),
        cmocka_unit_test(a_stuck_loop_is_not_healthy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
