/* test_bed — networks of the zoo, and samples for them: what the tests of networks share. */
#ifndef THOLE_COMMON_NETWORK_TEST_BED_H
#define THOLE_COMMON_NETWORK_TEST_BED_H

#include "common/network/network.h"

// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
// clang-format on

static inline struct network *build_zoo(const char *zoo, struct network_sample sample)
{
    struct error err = {0};
    struct network *network = NULL;
    if (network_build(&network, &(struct network_spec){.zoo = zoo}, &sample, &err) < 0)
        fail_msg("%s", error_message(&err));
    return network;
}

static inline struct network_sample image(uint32_t c, uint32_t h, uint32_t w, uint32_t classes)
{
    return (struct network_sample){.shape = {c, h, w}, .classes = classes};
}

/* `numbers` numeric columns, then `categories` of ids below `rows`. */
static inline struct network_sample table(uint32_t numbers, uint32_t categories, uint32_t rows, uint32_t classes)
{
    return (struct network_sample){
        .shape = {numbers + categories, 1, 1}, .categories = categories, .rows = rows, .classes = classes};
}

#endif
