/* Any bytes as a LibSVM file. */
#include "data/table_fuzz.h"

static void check_entries(const struct plan *plan, const struct content *content)
{
    const uint64_t *offsets = (const uint64_t *)(const void *)content->offsets.base;
    const struct sparse_entry *entries = (const struct sparse_entry *)(const void *)content->entries.base;
    require(offsets[0] == 0);
    for (uint64_t i = 0; i < content->samples; i++) {
        require(offsets[i] <= offsets[i + 1]);
        for (uint64_t j = offsets[i]; j < offsets[i + 1]; j++) {
            require(entries[j].place < plan->dataset.features && isfinite(entries[j].value));
            require(j == offsets[i] || entries[j - 1].place < entries[j].place);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct plan plan = {
        .dataset = {.format = PLAN_FORMAT_LIBSVM, .features = 9, .scale = 2, .channels = 1, .std = {3}}};
    table_fuzz(data, size, &plan, libsvm_content, check_entries);
    plan.dataset.classes = 2;
    table_fuzz(data, size, &plan, libsvm_content, check_entries);
    return 0;
}
