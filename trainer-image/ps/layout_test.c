/* How the flat vector is cut into chunks and shards. */
#include "ps/layout.h"

#include "common/test/dice.h"
#include "ps/test_bed.h"

static void chunks_fill_the_vector(void **state)
{
    (void)state;
    uint64_t seed = 1;
    for (int i = 0; i < 500; i++) {
        static struct network_tensor tensors[20];
        struct network network = {.tensors = tensors, .tensor_count = 1 + below(&seed, 20)};
        uint32_t most = below(&seed, 3) == 0 ? 5000000 : below(&seed, 2) == 0 ? 100000 : 1000;
        for (uint32_t k = 0; k < network.tensor_count; k++) {
            tensors[k] = (struct network_tensor){.offset = network.parameters, .count = 1 + below(&seed, most)};
            network.parameters += tensors[k].count;
        }
        uint32_t shards = 1 + below(&seed, PLAN_SHARDS_MOST);
        cleanup_layout struct layout *layout = NULL;
        struct error err = {0};
        assert_int_equal(layout_new(&layout, &network, shards, &err), 0);
        uint64_t at = 0;
        uint32_t shard = 0;
        for (uint32_t k = 0; k < layout_chunks(layout); k++) {
            const struct chunk *chunk = &layout->chunks[k];
            assert_int_equal(chunk->offset, at);
            assert_true(chunk->count > 0 && chunk->count <= WIRE_CHUNK_FLOATS &&
                        (at == 0 || network_chunk_end(&network, at - 1) == at));
            assert_true(chunk->shard >= shard && chunk->shard < shards);
            shard = chunk->shard;
            assert_true(k >= layout->first[shard] && k < layout->first[shard + 1]);
            assert_ptr_equal(layout_find(layout, at), chunk);
            if (chunk->count > 1)
                assert_null(layout_find(layout, at + 1));
            at += chunk->count;
        }
        assert_int_equal(at, network.parameters);
        assert_null(layout_find(layout, at));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunks_fill_the_vector),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
