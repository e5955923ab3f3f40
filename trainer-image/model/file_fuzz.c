/* Any bytes as a model file: refused with a sentence, or a network and all that it holds. */
#include "common/test/fuzz.h"
#include "model/model.h"

#include <sys/mman.h>
#include <unistd.h>

enum { PARAMETERS_MOST = 1 << 16 };

static void read_model(const struct model *model, const char *path)
{
    const struct network *network = model_network(model);
    struct error err = {0};
    struct model_table tables[NETWORK_TABLES_MOST];
    cleanup_json cJSON *metadata = NULL;
    cleanup_free float *params = malloc(network->parameters * sizeof *params);
    if (params == NULL || model_file_read(model, path, params, tables, &metadata, &err) < 0) {
        require_with_memory(error_message(&err)[0] != '\0');
        return;
    }
    for (uint32_t i = 0; i < network->table_count; i++) {
        for (uint32_t j = 0; j < tables[i].count; j++)
            require(tables[i].ids[j] < network->tables[i].rows && (j == 0 || tables[i].ids[j - 1] < tables[i].ids[j]));
        model_table_free(&tables[i]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cleanup_fd int fd = memfd_create("model", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        return 0;
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    struct error err = {0};
    struct network *network = NULL;
    if (model_file_network(&network, path, &err) < 0) {
        require(network == NULL && error_message(&err)[0] != '\0');
        return 0;
    }
    if (network->parameters > PARAMETERS_MOST) {
        network_free(network);
        return 0;
    }
    cleanup_model struct model *model = NULL;
    if (model_build(&model, network, &err) == 0)
        read_model(model, path);
    return 0;
}
