#include "kube/resource.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static const struct kube_resource pods = {"", "v1", "pods", "Pod", true};
static const struct kube_resource deployments = {"apps", "v1", "deployments", "Deployment", true};
static const struct kube_resource nodes = {"", "v1", "nodes", "Node", false};

static void paths_are_built_and_escaped(void **state)
{
    (void)state;
    static const struct {
        const struct kube_resource *resource;
        const char *namespace, *name, *subresource, *path;
    } cases[] = {
        {&pods, "default", "a", NULL, "/api/v1/namespaces/default/pods/a"},
        {&pods, NULL, NULL, NULL, "/api/v1/pods"},
        {&deployments, "n", "d", "status", "/apis/apps/v1/namespaces/n/deployments/d/status"},
        {&deployments, "n", NULL, NULL, "/apis/apps/v1/namespaces/n/deployments"},
        {&nodes, "ignored", "node-1.example", NULL, "/api/v1/nodes/node-1.example"},
        {&pods, "a/../b", "x?y#z", NULL, "/api/v1/namespaces/a%2F..%2Fb/pods/x%3Fy%23z"},
        {&pods, "n", "a b%\xc3\xbc~_", NULL, "/api/v1/namespaces/n/pods/a%20b%25%C3%BC~_"},
        {&pods, "n", "..", NULL, NULL},
        {&pods, ".", "a", NULL, NULL},
        {&pods, "n", "", NULL, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cleanup_buffer struct buffer path;
        buffer_init(&path, 1000);
        struct error err = {0};
        int result = kube_path(&path, cases[i].resource, cases[i].namespace, cases[i].name, cases[i].subresource, &err);
        if (cases[i].path == NULL) {
            assert_int_equal(result, -1);
            assert_non_null(strstr(error_message(&err), "cannot name anything"));
        } else {
            assert_int_equal(result, 0);
            assert_string_equal(buffer_text(&path), cases[i].path);
        }
    }
}

static void queries_are_joined_and_escaped(void **state)
{
    (void)state;
    cleanup_buffer struct buffer query;
    buffer_init(&query, 1000);
    assert_int_equal(kube_query_add(&query, "labelSelector", "thole.dev/job=a,b in (c)", NULL), 0);
    assert_int_equal(kube_query_add(&query, "limit", "5", NULL), 0);
    assert_string_equal(buffer_text(&query), "labelSelector=thole.dev%2Fjob%3Da%2Cb%20in%20%28c%29&limit=5");
}

static void keys_are_made_and_split(void **state)
{
    (void)state;
    char long_namespace[80];
    char long_name[300];
    memset(long_namespace, 'n', sizeof long_namespace);
    memset(long_name, 'm', sizeof long_name);
    long_namespace[64] = '\0';
    long_name[254] = '\0';

    struct kube_key key;
    assert_int_equal(kube_key_make(&key, "a", "b"), 0);
    assert_string_equal(key.text, "a/b");
    assert_int_equal(kube_key_make(&key, NULL, "b"), 0);
    assert_string_equal(key.text, "b");
    assert_int_equal(kube_key_make(&key, "a", NULL), -1);
    assert_int_equal(kube_key_make(&key, "a", ""), -1);
    assert_int_equal(kube_key_make(&key, "a/c", "b"), -1);
    assert_int_equal(kube_key_make(&key, "a", "b/c"), -1);
    assert_int_equal(kube_key_make(&key, long_namespace, "b"), -1);
    assert_int_equal(kube_key_make(&key, "a", long_name), -1);

    char namespace[KUBE_NAMESPACE_SIZE];
    char name[KUBE_NAME_SIZE];
    assert_int_equal(kube_key_split("a/b", namespace, name), 0);
    assert_string_equal(namespace, "a");
    assert_string_equal(name, "b");
    assert_int_equal(kube_key_split("b", namespace, name), 0);
    assert_string_equal(namespace, "");
    long_namespace[63] = '\0';
    long_name[253] = '\0';
    assert_int_equal(kube_key_make(&key, long_namespace, long_name), 0);
    assert_int_equal(kube_key_split(key.text, namespace, name), 0);
    assert_string_equal(namespace, long_namespace);
    assert_string_equal(name, long_name);
    static const char *const wrong[] = {"", "/b", "a/", "a/b/c", "/"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_int_equal(kube_key_split(wrong[i], namespace, name), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths_are_built_and_escaped),
        cmocka_unit_test(queries_are_joined_and_escaped),
        cmocka_unit_test(keys_are_made_and_split),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
