#include "model/model.h"

#include "common/buffer.h"
#include "numerics/numerics.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

/* A folder, a small model with values, and its plan; for one test each. */
struct bed {
    char folder[64], path[96];
    struct model *model;
    struct plan plan;
    float *params;
};

static void bed_make(struct bed *bed)
{
    struct error err = {0};
    *bed = (struct bed){.folder = "/tmp/thole-model-XXXXXX"};
    assert_non_null(mkdtemp(bed->folder));
    snprintf(bed->path, sizeof bed->path, "%s/model.safetensors", bed->folder);
    const struct network_spec spec = {.zoo = "mlp"};
    const struct network_sample sample = {.shape = {1, 2, 3}, .classes = 2};
    assert_int_equal(model_make(&bed->model, &spec, &sample, &err), 0);
    bed->params = calloc(model_parameters(bed->model), sizeof(float));
    assert_non_null(bed->params);
    model_init_range(bed->model, 5, 0, model_parameters(bed->model), bed->params);
    bed->plan.training.seed = UINT64_MAX;
    bed->plan.dataset.scale = 0.00392156862;
    bed->plan.dataset.channels = 1;
    bed->plan.dataset.mean[0] = 0.286;
    bed->plan.dataset.std[0] = 0.353;
}

static void bed_free(struct bed *bed)
{
    unlink(bed->path);
    assert_int_equal(rmdir(bed->folder), 0); /* nothing else may be left in it */
    model_free(bed->model);
    free(bed->params);
}

static void write_model(struct bed *bed, uint8_t sha[SHA256_SIZE], uint64_t *bytes)
{
    struct error err = {0};
    assert_int_equal(
        model_file_write(bed->model, &bed->plan, "Haswell", bed->params, NULL, bed->path, sha, bytes, &err), 0);
}

static void read_bytes(const char *path, struct buffer *buffer)
{
    struct error err = {0};
    buffer_init(buffer, 1 << 24);
    assert_int_equal(buffer_read_file(buffer, path, &err), 0);
}

static const char golden_header[] =
    "{\"__metadata__\":{\"classes\":\"2\",\"format\":\"thole.dev/model/v1\",\"kernel\":\"Haswell\",\"model\":\"mlp\","
    "\"normalize\":\"{\\\"mean\\\":[0.286],\\\"scale\\\":0.00392156862,\\\"std\\\":[0.353]}\","
    "\"seed\":\"18446744073709551615\",\"shape\":\"[1,2,3]\"},"
    "\"fc1.bias\":{\"data_offsets\":[6144,7168],\"dtype\":\"F32\",\"shape\":[256]},"
    "\"fc1.weight\":{\"data_offsets\":[0,6144],\"dtype\":\"F32\",\"shape\":[256,6]},"
    "\"fc2.bias\":{\"data_offsets\":[138240,138752],\"dtype\":\"F32\",\"shape\":[128]},"
    "\"fc2.weight\":{\"data_offsets\":[7168,138240],\"dtype\":\"F32\",\"shape\":[128,256]},"
    "\"fc3.bias\":{\"data_offsets\":[139776,139784],\"dtype\":\"F32\",\"shape\":[2]},"
    "\"fc3.weight\":{\"data_offsets\":[138752,139776],\"dtype\":\"F32\",\"shape\":[2,128]}}";

static void the_file_is_canonical(void **state)
{
    (void)state;
    struct bed bed;
    bed_make(&bed);
    uint8_t sha[SHA256_SIZE];
    uint8_t expected_sha[SHA256_SIZE];
    uint64_t bytes;
    write_model(&bed, sha, &bytes);
    cleanup_buffer struct buffer content;
    read_bytes(bed.path, &content);

    assert_int_equal(content.length, bytes);
    sha256(content.data, content.length, expected_sha);
    assert_memory_equal(sha, expected_sha, sizeof sha);

    uint64_t header;
    memcpy(&header, content.data, sizeof header);
    assert_int_equal(header % 8, 0);
    const size_t length = sizeof golden_header - 1;
    assert_in_range(header, length, length + 7);
    content.data[8 + length] = '\0';
    assert_string_equal(content.data + 8, golden_header);
    for (size_t i = length + 1; i < header; i++)
        assert_int_equal(content.data[8 + i], ' ');
    assert_memory_equal(content.data + 8 + header, bed.params, model_parameters(bed.model) * sizeof(float));
    assert_int_equal(bytes, 8 + header + model_parameters(bed.model) * sizeof(float));

    /* Equal models are equal bytes, also over an older file. */
    uint8_t again[SHA256_SIZE];
    write_model(&bed, again, &bytes);
    assert_memory_equal(sha, again, sizeof sha);
    bed_free(&bed);
}

static void what_is_written_is_read(void **state)
{
    (void)state;
    struct bed bed;
    bed_make(&bed);
    uint8_t sha[SHA256_SIZE];
    uint64_t bytes;
    struct error err = {0};
    write_model(&bed, sha, &bytes);
    const uint64_t n = model_parameters(bed.model);
    cleanup_free float *params = calloc(n, sizeof *params);
    cleanup_json cJSON *metadata = NULL;
    assert_int_equal(model_file_read(bed.model, bed.path, params, NULL, &metadata, &err), 0);
    assert_memory_equal(params, bed.params, n * sizeof *params);
    assert_string_equal(json_string(metadata, "kernel", ""), "Haswell");
    assert_int_equal(model_file_read(bed.model, bed.path, params, NULL, NULL, &err), 0);
    bed_free(&bed);
}

static void a_folder_that_is_not_there_is_said(void **state)
{
    (void)state;
    struct bed bed;
    bed_make(&bed);
    char path[128];
    uint8_t sha[SHA256_SIZE];
    uint64_t bytes;
    struct error err = {0};
    snprintf(path, sizeof path, "%s/none/model.safetensors", bed.folder);
    assert_int_equal(model_file_write(bed.model, &bed.plan, "Haswell", bed.params, NULL, path, sha, &bytes, &err), -1);
    assert_non_null(strstr(error_message(&err), "/none/model.safetensors"));
    assert_non_null(strstr(error_message(&err), "No such file or directory"));
    assert_int_equal(model_file_read(bed.model, path, bed.params, NULL, NULL, &err), -1);
    bed_free(&bed);
}

/* A full disk, tried on the device that always is. */
static void a_failed_write_leaves_nothing(void **state)
{
    (void)state;
    struct bed bed;
    bed_make(&bed);
    char temporary[128];
    uint8_t sha[SHA256_SIZE];
    uint64_t bytes;
    struct error err = {0};
    snprintf(temporary, sizeof temporary, "%s.tmp.%ld", bed.path, (long)getpid());
    assert_int_equal(symlink("/dev/full", temporary), 0);
    assert_int_equal(model_file_write(bed.model, &bed.plan, "Haswell", bed.params, NULL, bed.path, sha, &bytes, &err),
                     -1);
    assert_non_null(strstr(error_message(&err), "No space left on device"));
    struct stat status;
    assert_int_equal(lstat(temporary, &status), -1);
    assert_int_equal(lstat(bed.path, &status), -1);
    bed_free(&bed);
}

/* Writes a file with this header text and `data` bytes of data, and expects the reader's sentence to contain `part`. */
static void expect_refusal(const struct bed *bed, const char *header, size_t data, const char *part)
{
    struct error err = {0};
    cleanup_buffer struct buffer content;
    buffer_init(&content, 1 << 24);
    uint64_t length = strlen(header);
    cleanup_free char *zeros = calloc(data + 1, 1);
    assert_int_equal(buffer_append(&content, &length, sizeof length, &err), 0);
    assert_int_equal(buffer_append(&content, header, length, &err), 0);
    assert_int_equal(buffer_append(&content, zeros, data, &err), 0);
    assert_int_equal(file_write_atomically(bed->path, content.data, content.length, &err), 0);
    cleanup_free float *params = calloc(model_parameters(bed->model), sizeof *params);
    assert_int_equal(model_file_read(bed->model, bed->path, params, NULL, NULL, &err), -1);
    if (strstr(error_message(&err), part) == NULL)
        fail_msg("'%s' does not say '%s'", error_message(&err), part);
}

/* The golden header with one place changed. */
static char *changed(const char *from, const char *to)
{
    const char *at = strstr(golden_header, from);
    assert_non_null(at);
    char *text = NULL;
    assert_true(asprintf(&text, "%.*s%s%s", (int)(at - golden_header), golden_header, to, at + strlen(from)) > 0);
    return text;
}

static void wrong_files_are_refused(void **state)
{
    (void)state;
    struct bed bed;
    bed_make(&bed);
    const size_t data = 139784;
    expect_refusal(&bed, "", 0, "is not JSON");
    expect_refusal(&bed, "[]", data, "no JSON object");
    expect_refusal(&bed, "{}", data, "does not hold the 6 tensors of model mlp");
    expect_refusal(&bed, golden_header, data - 1, "holds 139783 bytes of data where model mlp has 139784");
    expect_refusal(&bed, golden_header, data + 4, "holds 139788 bytes of data");
    static const struct {
        const char *from, *to, *part;
    } cases[] = {
        {"fc3.bias", "fc4.bias", "has no tensor fc3.bias"},
        {"F32", "F16", "tensor fc1.bias must have dtype F32"},
        {"\"F32\"", "32", "tensor fc1.bias must have dtype F32"},
        {"[256,6]", "[6,256]", "tensor fc1.weight has another shape"},
        {"[256,6]", "[256,6,1]", "tensor fc1.weight has another shape"},
        {"[256,6]", "{}", "tensor fc1.weight has another shape"},
        {"[0,6144]", "[-1,6143]", "tensor fc1.weight has data_offsets"},
        {"[0,6144]", "[0,6148]", "tensor fc1.weight has data_offsets"},
        {"[0,6144]", "[0.5,6144.5]", "tensor fc1.weight has data_offsets"},
        {"[0,6144]", "[133641,139785]", "tensor fc1.weight has data_offsets"},
        {"[0,6144]", "[1e300,2e300]", "tensor fc1.weight has data_offsets"},
        {"[0,6144]", "[0,6144,7]", "tensor fc1.weight has data_offsets"},
        {"[0,6144]", "7", "tensor fc1.weight has data_offsets"},
        {"[0,6144]", "[7168,13312]", "overlap"},
        {"{\"data_offsets\":[0,6144],\"dtype\":\"F32\",\"shape\":[256,6]}", "null", "has no tensor fc1.weight"},
        {"}}", "}}}", "is not JSON"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cleanup_free char *header = changed(cases[i].from, cases[i].to);
        expect_refusal(&bed, header, data, cases[i].part);
    }
    bed_free(&bed);
}

static void cut_files_are_refused(void **state)
{
    (void)state;
    struct bed bed;
    bed_make(&bed);
    uint8_t sha[SHA256_SIZE];
    uint64_t bytes;
    write_model(&bed, sha, &bytes);
    cleanup_buffer struct buffer content;
    read_bytes(bed.path, &content);
    cleanup_free float *params = calloc(model_parameters(bed.model), sizeof *params);
    for (uint64_t length = bytes; length-- > 0; length -= length > 1200 ? 997 : 0) {
        struct error err = {0};
        assert_int_equal(truncate(bed.path, (off_t)length), 0);
        assert_int_equal(model_file_read(bed.model, bed.path, params, NULL, NULL, &err), -1);
        assert_non_null(strstr(error_message(&err), bed.path));
    }
    /* A header length that no file has. */
    struct error err = {0};
    memset(content.data, 0xFF, 8);
    assert_int_equal(file_write_atomically(bed.path, content.data, content.length, &err), 0);
    assert_int_equal(model_file_read(bed.model, bed.path, params, NULL, NULL, &err), -1);
    assert_non_null(strstr(error_message(&err), "is no safetensors file"));
    assert_int_equal(model_file_read(bed.model, bed.folder, params, NULL, NULL, &err), -1);
    bed_free(&bed);
}

/* ---- Tables, and what a file says of its network ---- */

static const char table_layers[] =
    "[{\"name\":\"e\",\"type\":\"Embedding\",\"dim\":2},{\"name\":\"fc\",\"type\":\"Dense\"}]";

/* Instead of the bed's model: two columns of categories, a table, a regression by Huber's loss. */
static void make_tables(struct bed *bed)
{
    struct error err = {0};
    bed_make(bed);
    model_free(bed->model);
    free(bed->params);
    cleanup_json cJSON *json = json_parse(table_layers, sizeof table_layers - 1, "layers", &err);
    const struct network_spec spec = {.layers = json, .has_loss = true, .loss = LOSS_HUBER, .huber_delta = 0.75};
    const struct network_sample sample = {.shape = {2, 1, 1}, .categories = 2, .rows = 9};
    if (model_make(&bed->model, &spec, &sample, &err) < 0)
        fail_msg("%s", error_message(&err));
    bed->params = calloc(model_parameters(bed->model), sizeof(float));
    model_init_range(bed->model, 5, 0, model_parameters(bed->model), bed->params);
}

static uint32_t some_ids[] = {1, 4, 8};
static float some_values[] = {1, 2, 3, 4, 5, 6};

static void write_tables(struct bed *bed, uint32_t count)
{
    struct error err = {0};
    uint8_t sha[SHA256_SIZE];
    uint64_t bytes;
    const struct model_table table = {count, some_ids, some_values};
    assert_int_equal(
        model_file_write(bed->model, &bed->plan, "Haswell", bed->params, &table, bed->path, sha, &bytes, &err), 0);
}

static const char golden_tables[] =
    "{\"__metadata__\":{\"categories\":\"2\",\"classes\":\"0\",\"delta\":\"0.75\","
    "\"format\":\"thole.dev/model/v1\",\"kernel\":\"Haswell\",\"loss\":\"Huber\","
    "\"model\":\"[{\\\"name\\\":\\\"e\\\",\\\"type\\\":\\\"Embedding\\\",\\\"dim\\\":2},"
    "{\\\"name\\\":\\\"fc\\\",\\\"type\\\":\\\"Dense\\\"}]\","
    "\"normalize\":\"{\\\"mean\\\":[0.286],\\\"scale\\\":0.00392156862,\\\"std\\\":[0.353]}\",\"rows\":\"9\","
    "\"seed\":\"18446744073709551615\",\"shape\":\"[2,1,1]\"},"
    "\"e.weight.ids\":{\"data_offsets\":[20,32],\"dtype\":\"I32\",\"shape\":[3]},"
    "\"e.weight.rows\":{\"data_offsets\":[32,56],\"dtype\":\"F32\",\"shape\":[3,2]},"
    "\"fc.bias\":{\"data_offsets\":[16,20],\"dtype\":\"F32\",\"shape\":[1]},"
    "\"fc.weight\":{\"data_offsets\":[0,16],\"dtype\":\"F32\",\"shape\":[1,4]}}";

static void tables_are_ids_and_rows(void **state)
{
    (void)state;
    struct bed bed;
    struct error err = {0};
    make_tables(&bed);
    write_tables(&bed, 3);
    cleanup_buffer struct buffer content;
    read_bytes(bed.path, &content);
    const size_t length = sizeof golden_tables - 1;
    content.data[8 + length] = '\0';
    assert_string_equal(content.data + 8, golden_tables);

    float params[5];
    struct model_table table;
    assert_int_equal(model_file_read(bed.model, bed.path, params, &table, NULL, &err), 0);
    assert_memory_equal(params, bed.params, sizeof params);
    assert_int_equal(table.count, 3);
    assert_memory_equal(table.ids, some_ids, sizeof some_ids);
    assert_memory_equal(table.values, some_values, sizeof some_values);
    model_table_free(&table);

    /* none at all */
    write_tables(&bed, 0);
    assert_int_equal(model_file_read(bed.model, bed.path, params, &table, NULL, &err), 0);
    assert_int_equal(table.count, 0);
    model_table_free(&table);
    bed_free(&bed);
}

static void wrong_ids_are_refused(void **state)
{
    (void)state;
    struct bed bed;
    make_tables(&bed);
    static uint32_t wrong[][3] = {{1, 1, 4}, {4, 1, 8}, {1, 4, 9}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct error err = {0};
        uint8_t sha[SHA256_SIZE];
        uint64_t bytes;
        float params[5];
        const struct model_table table = {3, wrong[i], some_values};
        struct model_table read;
        assert_int_equal(
            model_file_write(bed.model, &bed.plan, "Haswell", bed.params, &table, bed.path, sha, &bytes, &err), 0);
        assert_int_equal(model_file_read(bed.model, bed.path, params, &read, NULL, &err), -1);
        assert_non_null(strstr(error_message(&err), "tensor e.weight.ids must hold ascending ids below 9"));
    }
    bed_free(&bed);
}

static void a_file_says_its_network(void **state)
{
    (void)state;
    struct bed bed;
    struct error err = {0};
    make_tables(&bed);
    write_tables(&bed, 3);
    cleanup_network struct network *network = NULL;
    assert_int_equal(model_file_network(&network, bed.path, &err), 0);
    assert_string_equal(network->list, model_network(bed.model)->list);
    assert_int_equal(network->loss, LOSS_HUBER);
    assert_true(network->huber_delta == 0.75);
    assert_int_equal(network->sample.categories, 2);
    assert_int_equal(network->tables[0].rows, 9);
    assert_true(network->has_rows_seed);
    assert_true(network->rows_seed == bed.plan.training.seed);
    bed_free(&bed);

    uint8_t sha[SHA256_SIZE];
    uint64_t bytes;
    bed_make(&bed);
    write_model(&bed, sha, &bytes);
    cleanup_network struct network *zoo = NULL;
    assert_int_equal(model_file_network(&zoo, bed.path, &err), 0);
    assert_string_equal(zoo->name, "mlp");
    assert_null(zoo->list);
    assert_int_equal(zoo->parameters, model_parameters(bed.model));
    bed_free(&bed);
}

/* A job that goes on, and one that goes on from there: rows that nobody has touched are by the first one's seed. */
static void a_file_says_whose_the_other_rows_are(void **state)
{
    (void)state;
    struct bed bed;
    struct error err = {0};
    make_tables(&bed);
    bed.plan.training.seed = 5;
    write_tables(&bed, 3);
    for (uint64_t seed = 6; seed <= 7; seed++) {
        struct network *network = NULL;
        assert_int_equal(model_file_network(&network, bed.path, &err), 0);
        assert_int_equal(network->rows_seed, 5);
        model_free(bed.model);
        assert_int_equal(model_build(&bed.model, network, &err), 0);
        bed.plan.training.seed = seed;
        assert_int_equal(model_rows_seed(model_network(bed.model), &bed.plan), 5);
        write_tables(&bed, 3);
        cleanup_buffer struct buffer content;
        read_bytes(bed.path, &content);
        assert_non_null(strstr(content.data + 8, "\"rows\":\"9\",\"rowsSeed\":\"5\",\"seed\":"));
    }
    bed_free(&bed);
}

/* A header with this metadata, and the sentence about it. */
static void expect_no_network(const struct bed *bed, const char *metadata, const char *part)
{
    struct error err = {0};
    cleanup_free char *header = NULL;
    assert_true(asprintf(&header, "{\"__metadata__\":{%s}}", metadata) > 0);
    cleanup_buffer struct buffer content;
    buffer_init(&content, 1 << 16);
    uint64_t length = strlen(header);
    assert_int_equal(buffer_append(&content, &length, sizeof length, &err), 0);
    assert_int_equal(buffer_append(&content, header, length, &err), 0);
    assert_int_equal(file_write_atomically(bed->path, content.data, content.length, &err), 0);
    struct network *network = NULL;
    assert_int_equal(model_file_network(&network, bed->path, &err), -1);
    if (strstr(error_message(&err), part) == NULL)
        fail_msg("'%s' does not say '%s'", error_message(&err), part);
}

#define FORMAT "\"format\":\"thole.dev/model/v1\","

static void wrong_metadata_is_refused(void **state)
{
    (void)state;
    struct bed bed;
    bed_make(&bed);
    static const struct {
        const char *metadata, *part;
    } cases[] = {
        {"", "does not say of which model it is"},
        {"\"format\":\"thole.dev/model/v2\",\"model\":\"mlp\"", "does not say of which model it is"},
        {FORMAT "\"model\":7", "does not say of which model it is"},
        {FORMAT "\"model\":\"mlp\",\"classes\":\"10\"", "no shape of three numbers"},
        {FORMAT "\"model\":\"mlp\",\"classes\":\"10\",\"shape\":\"[1,2]\"", "no shape of three numbers"},
        {FORMAT "\"model\":\"mlp\",\"classes\":\"10\",\"shape\":\"[1,2,-3]\"", "no shape of three numbers"},
        {FORMAT "\"model\":\"mlp\",\"classes\":\"10\",\"shape\":\"[1,2,1e30]\"", "no shape of three numbers"},
        {FORMAT "\"model\":\"mlp\",\"classes\":\"ten\",\"shape\":\"[1,2,3]\"", "metadata's classes is no number"},
        {FORMAT "\"model\":\"mlp\",\"classes\":\"-1\",\"shape\":\"[1,2,3]\"", "metadata's classes is no number"},
        {FORMAT "\"model\":\"mlp\",\"classes\":\"10\",\"rows\":\"9999999999\",\"shape\":\"[1,2,3]\"",
         "metadata's rows is no number"},
        {FORMAT "\"model\":\"mlp\",\"classes\":\"10\",\"shape\":\"[1,2,3]\",\"loss\":\"Hinge\"", "a loss 'Hinge'"},
        {FORMAT "\"model\":\"mlp\",\"classes\":\"0\",\"shape\":\"[1,2,3]\",\"loss\":\"Huber\",\"delta\":\"x\"",
         "delta is no number"},
        {FORMAT "\"model\":\"widedeep\",\"classes\":\"2\",\"categories\":\"1\",\"rows\":\"9\",\"shape\":\"[3,1,1]\","
                "\"rowsSeed\":\"18446744073709551616\"",
         "metadata's rowsSeed is no number"},
        {FORMAT "\"model\":\"vgg\",\"classes\":\"10\",\"shape\":\"[1,2,3]\"", "there is no model 'vgg'"},
        {FORMAT "\"model\":\"[\",\"classes\":\"10\",\"shape\":\"[1,2,3]\"", "is not JSON"},
        {FORMAT "\"model\":\"[{}]\",\"classes\":\"10\",\"shape\":\"[1,2,3]\"", "layer 1 of the list"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        expect_no_network(&bed, cases[i].metadata, cases[i].part);
    bed_free(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_file_is_canonical),
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(a_folder_that_is_not_there_is_said),
        cmocka_unit_test(a_failed_write_leaves_nothing),
        cmocka_unit_test(wrong_files_are_refused),
        cmocka_unit_test(cut_files_are_refused),
        cmocka_unit_test(tables_are_ids_and_rows),
        cmocka_unit_test(wrong_ids_are_refused),
        cmocka_unit_test(a_file_says_its_network),
        cmocka_unit_test(a_file_says_whose_the_other_rows_are),
        cmocka_unit_test(wrong_metadata_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
