/* What a reduction keeps, and for how long. What it adds up is shard_test.c's. */
#include "ps/reduction.h"
#include "ps/test_bed.h"

static void an_ancestor_frees_what_it_replaces(void **state)
{
    (void)state;
    cleanup_net struct net *net = new_net(1);
    struct reduction *reduction = calloc(1, sizeof *reduction);
    reduction_begin(reduction, net, tree_of(8), PLAN_FLOAT32, 80);
    struct payload *values[3];
    static const uint32_t nodes[3] = {8, 5, 2};
    for (int i = 0; i < 3; i++) {
        values[i] = payload_new(net, 64);
        memset(values[i]->data, 0, 64);
        values[i]->crc_known = true;
        assert_int_equal(reduction_add(reduction, net, nodes[i], values[i], 0), REDUCTION_ADDED);
        assert_int_equal(values[i]->references, 2);
    }
    assert_int_equal(values[0]->references, 1);
    assert_int_equal(values[1]->references, 1);
    reduction_begin(reduction, net, tree_of(8), PLAN_FLOAT32, 80);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(values[i]->references, 1);
        payload_unref(net, values[i]);
    }
    free(reduction);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_ancestor_frees_what_it_replaces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
