/* What NPY files hold, labels of every type, images that are augmented, memory that runs out, files that are cut. */
#include "data/data.h"

#include "common/test/scarce.h"
#include "data/test_bed.h"

#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

/* An NPY file of version `version` with this header and these bytes. */
static void put_npy(const struct bed *bed, const char *name, int version, const char *header, const void *data,
                    size_t length)
{
    cleanup_buffer struct buffer content;
    buffer_init(&content, 1 << 16);
    const size_t size = strlen(header);
    const uint8_t start[12] = {0x93, 'N', 'U', 'M', 'P', 'Y', (uint8_t)version, 0, (uint8_t)size, (uint8_t)(size >> 8)};
    append(&content, start, version == 1 ? 10 : 12);
    append(&content, header, size);
    append(&content, data, length);
    put_file(bed, name, content.data, content.length);
}

static void npy_bed(struct bed *bed)
{
    bed_make(bed);
    bed->plan.dataset.format = PLAN_FORMAT_NPY;
    bed->plan.dataset.train = bed->plan.dataset.test = (struct plan_split){(char *)"x.npy", (char *)"y.npy"};
    bed->plan.dataset.scale = 1;
    bed->plan.dataset.mean[0] = 0;
    bed->plan.dataset.std[0] = 1;
    put_npy(bed, "x.npy", 1, "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3), }\n", "\1\2\3\4\5\6", 6);
    put_npy(bed, "y.npy", 1, "{'descr': '|u1', 'fortran_order': False, 'shape': (2,), }\n", "\7\0", 2);
}

static void expect_floats(const struct bed *bed, uint32_t n, uint32_t values, const float *x, const float *targets)
{
    cleanup_dataset struct dataset *dataset = open_part(bed, DATASET_TRAIN);
    float fetched[64], labels[8];
    assert_int_equal(dataset_samples(dataset), n);
    dataset_fetch(dataset, NULL, 0, n, fetched, labels);
    for (uint32_t i = 0; i < values; i++)
        assert_true(fetched[i] == x[i]);
    for (uint32_t i = 0; i < n; i++)
        assert_true(labels[i] == targets[i]);
}

static void headers_are_python_dictionaries(void **state)
{
    (void)state;
    static const char *const headers[] = {
        "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3), }",
        "{'shape':(2,3),'descr':'|u1','fortran_order':False}",
        " { \"fortran_order\" : False , \"shape\" : ( 2L , 3L , ) , \"descr\" : \"<u1\" }  \n\n",
        "{'descr': '>u1', 'fortran_order': False, 'shape': (2, 3), }",
        "{'descr': '=u1', 'fortran_order': False, 'shape': (2, 1, 1, 3), }",
    };
    struct bed bed;
    npy_bed(&bed);
    for (int version = 1; version <= 3; version++)
        for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) {
            put_npy(&bed, "x.npy", version, headers[i], "\1\2\3\4\5\6", 6);
            expect_floats(&bed, 2, 6, (const float[]){1, 2, 3, 4, 5, 6}, (const float[]){7, 0});
        }
    bed_free(&bed);
}

static void wrong_npy_files_get_a_sentence(void **state)
{
    (void)state;
    static const struct {
        int version;
        const char *header, *sentence;
    } cases[] = {
        {4, "{}", "data set file 'x.npy' has version 4 of the NPY format; 1 to 3 are read"},
        {1, "", "has an NPY header that is not understood at its byte 0: save one plain array of numbers in it"},
        {1, "{'descr': '|u1', 'fortran_order': False}", "not understood"},
        {1, "{'descr': '|u1', 'fortran_order': Maybe, 'shape': (2, 3)}", "not understood at its byte 34"},
        {1, "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3), 'more': 1}", "not understood at its byte 58"},
        {1, "{'descr': '|u1', 'fortran_order': False, 'shape': (2, -3)}", "not understood"},
        {1, "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3)} 1", "not understood"},
        {1, "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 9999999999999)}", "not understood"},
        {1, "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2, 3)}", "not understood"},
        {1, "{'descr': '<c8', 'fortran_order': False, 'shape': (2, 3)}",
         "data set file 'x.npy' holds elements of type '<c8'; NPY files of u1, u2, u4, u8, i1, i2, i4, i8, f2, f4, f8 "
         "and b1 are read: convert them with astype"},
        {1, "{'descr': '\033[2J', 'fortran_order': False, 'shape': (2, 3)}", "not understood at its byte 11"},
        {1, "{'descr': '|O', 'fortran_order': False, 'shape': (2, 3)}", "holds elements of type '|O'"},
        {1, "{'descr': '', 'fortran_order': False, 'shape': (2, 3)}", "holds elements of type ''"},
        {1, "{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3)}",
         "holds its array column by column (fortran_order): save numpy.ascontiguousarray of it"},
        {1, "{'descr': '|u1', 'fortran_order': False, 'shape': ()}", "has rank 0; only 1 to 4 are read"},
        {1, "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3, 1, 1, 1)}", "has rank 5; only 1 to 4 are read"},
        {1, "{'descr': '|u1', 'fortran_order': False, 'shape': (2,)}",
         "has rank 1 where 2 to 4 is expected: are features and labels swapped?"},
        {1, "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 0)}", "says in its header that it is empty"},
        {1, "{'descr': '<f8', 'fortran_order': False, 'shape': (999999999999, 999999999999)}",
         "says in its header that it holds more than 17179869184 bytes"},
        {1, "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 33554432)}",
         "has samples of more than 16777216 elements"},
        {1, "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 2)}",
         "goes on behind the 4 bytes of data that its header promises"},
        {1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)}",
         "is cut off: its header promises 24 bytes of data, and there are 6: copy it again"},
    };
    struct bed bed;
    npy_bed(&bed);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        put_npy(&bed, "x.npy", cases[i].version, cases[i].header, "\1\2\3\4\5\6", 6);
        expect_refusal(&bed, cases[i].sentence);
    }
    put_file(&bed, "x.npy", "", 0);
    expect_refusal(&bed, "data set file 'x.npy' is empty: copy it again");
    put_file(&bed, "x.npy", "PK\3\4", 4);
    expect_refusal(&bed, "data set file 'x.npy' is no NPY file: it must begin as numpy.save writes it");
    put_file(&bed, "x.npy", "\x93NUMPY\1\0\xff", 9);
    expect_refusal(&bed, "data set file 'x.npy' is cut off inside its header: copy it again");
    put_file(&bed, "x.npy", "\x93NUMPY\1\0\xff\0{'descr'", 18);
    expect_refusal(&bed, "data set file 'x.npy' is cut off inside its header: copy it again");
    put_file(&bed, "x.npy", "\x93NUMPY\2\0\1\0\1\0", 12);
    expect_refusal(&bed, "data set file 'x.npy' has an NPY header of 65537 bytes; at most 65536 are read");
    bed_free(&bed);
}

static void labels_are_classes_or_values(void **state)
{
    (void)state;
    const struct {
        const char *header;
        const void *data;
        size_t length;
        uint32_t classes;
        const char *sentence; /* NULL: they are 1 and 2.5, or 1 and 2 with classes */
    } cases[] = {
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", (const float[]){1, 2.5F}, 8, 0, NULL},
        {"{'descr': '<f8', 'fortran_order': False, 'shape': (2, 1)}", (const double[]){1, 2.5}, 16, 0, NULL},
        {"{'descr': '<f8', 'fortran_order': False, 'shape': (2,)}", (const double[]){1, 2}, 16, 3, NULL},
        {"{'descr': '<i8', 'fortran_order': False, 'shape': (2,)}", (const int64_t[]){1, 2}, 16, 3, NULL},
        {"{'descr': '>i2', 'fortran_order': False, 'shape': (2,)}", "\0\1\0\2", 4, 3, NULL},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", (const float[]){1, 2.5F}, 8, 3,
         "data set file 'y.npy': label 2.5 of sample 1 is no class: with spec.classes 3 labels are whole numbers from "
         "0 to 2"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", (const float[]){-1, 2.5F}, 8, 3,
         "label -1 of sample 0 is no class"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", (const float[]){NAN, 2.5F}, 8, 3, "is no class"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", (const float[]){INFINITY, 2.5F}, 8, 0,
         "label inf of sample 0 is no finite 32-bit float"},
        {"{'descr': '<f8', 'fortran_order': False, 'shape': (2,)}", (const double[]){1, 1e39}, 16, 0,
         "label 1e+39 of sample 1 is no finite 32-bit float"},
        {"{'descr': '<i8', 'fortran_order': False, 'shape': (2,)}", (const int64_t[]){1, INT64_MAX}, 16, 3,
         "is not below the Dataset's spec.classes, 3"},
        {"{'descr': '|u1', 'fortran_order': False, 'shape': (2, 2)}", "\1\1\1\1", 4, 3,
         "has rank 2 where 1 is expected: are features and labels swapped?"},
    };
    struct bed bed;
    npy_bed(&bed);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        bed.plan.dataset.classes = cases[i].classes;
        put_npy(&bed, "y.npy", 1, cases[i].header, cases[i].data, cases[i].length);
        if (cases[i].sentence != NULL)
            expect_refusal(&bed, cases[i].sentence);
        else
            expect_floats(&bed, 2, 6, (const float[]){1, 2, 3, 4, 5, 6},
                          (const float[]){1, cases[i].classes == 0 ? 2.5F : 2});
    }
    bed_free(&bed);
}

static void vectors_take_the_shape_of_the_plan(void **state)
{
    (void)state;
    struct bed bed;
    npy_bed(&bed);
    bed.plan.dataset.has_shape = true;
    memcpy(bed.plan.dataset.shape, (const uint32_t[]){3, 1, 1}, sizeof bed.plan.dataset.shape);
    cleanup_dataset struct dataset *dataset = open_part(&bed, DATASET_TRAIN);
    assert_memory_equal(dataset_shape(dataset), bed.plan.dataset.shape, sizeof bed.plan.dataset.shape);
    put_npy(&bed, "x.npy", 1, "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 1, 3), }\n", "\1\2\3\4\5\6", 6);
    expect_refusal(&bed, "has samples of shape 1×1×3, but the Dataset's spec.shape says 3×1×1");
    bed_free(&bed);
}

/* ---- Augmentation ---- */

enum { SIDE = 5, SAMPLES = 200, SIZE = 2 * SIDE * SIDE };

/* Two channels of different bytes; what comes in at the edges, −1000, is less than most. */
static struct dataset *images(struct bed *bed, bool flip, uint32_t padding)
{
    bed_make(bed);
    put_idx(bed, "x.idx", 4, (const uint32_t[]){SAMPLES, 2, SIDE, SIDE}, 251);
    put_idx(bed, "y.idx", 1, (const uint32_t[]){SAMPLES}, 10);
    bed->plan.dataset.test = bed->plan.dataset.train;
    bed->plan.dataset.scale = 1;
    bed->plan.dataset.mean[0] = 1000;
    bed->plan.dataset.std[0] = 1;
    bed->plan.training.flip_horizontal = flip;
    bed->plan.training.crop_padding = padding;
    return open_part(bed, DATASET_TRAIN);
}

/* Which move made `moved` of `image`: found by trying all. */
static bool is_moved(const float *image, const float *moved, int down, int right, bool flip)
{
    for (int c = 0; c < 2; c++)
        for (int y = 0; y < SIDE; y++)
            for (int x = 0; x < SIDE; x++) {
                const int from_y = y - down, from_x = (flip ? SIDE - 1 - x : x) - right;
                const bool inside = from_y >= 0 && from_y < SIDE && from_x >= 0 && from_x < SIDE;
                const float expected = inside ? image[c * SIDE * SIDE + from_y * SIDE + from_x] : -1000;
                if (moved[c * SIDE * SIDE + y * SIDE + x] != expected)
                    return false;
            }
    return true;
}

static void images_are_moved_and_mirrored(void **state)
{
    (void)state;
    struct bed bed;
    cleanup_dataset struct dataset *dataset = images(&bed, true, 2);
    static float plain[SAMPLES * SIZE], moved[SAMPLES * SIZE], again[SIZE];
    float targets[SAMPLES];
    const struct permutation order = permutation_of_epoch(SAMPLES, 7, 3);
    dataset_fetch(dataset, NULL, 0, SAMPLES, plain, targets);
    dataset_fetch(dataset, &order, 0, SAMPLES, moved, targets);
    uint32_t times[5][5][2] = {0};
    for (uint32_t i = 0; i < SAMPLES; i++) {
        const float *image = plain + permutation_at(&order, i) * SIZE;
        int found = 0;
        for (int down = -2; down <= 2; down++)
            for (int right = -2; right <= 2; right++)
                for (int flip = 0; flip < 2; flip++)
                    if (is_moved(image, moved + (size_t)i * SIZE, down, right, flip)) {
                        found++;
                        times[down + 2][right + 2][flip]++;
                    }
        assert_int_equal(found, 1);
        /* Whoever fetches it alone sees the same. */
        dataset_fetch(dataset, &order, i, 1, again, targets);
        assert_memory_equal(again, moved + (size_t)i * SIZE, sizeof again);
    }
    /* Every row, column and side has its share: 40 ± 5 σ, 100 ± 5 σ. */
    for (int place = 0; place < 5; place++) {
        uint32_t rows = 0, columns = 0;
        for (int other = 0; other < 5; other++)
            for (int flip = 0; flip < 2; flip++) {
                rows += times[place][other][flip];
                columns += times[other][place][flip];
            }
        assert_in_range(rows, 12, 68);
        assert_in_range(columns, 12, 68);
    }
    uint32_t mirrored = 0;
    for (int i = 0; i < 25; i++)
        mirrored += times[i / 5][i % 5][1];
    assert_in_range(mirrored, 65, 135);
    bed_free(&bed);
}

static bool are_equal(const float *a, const float *b)
{
    for (int i = 0; i < SIZE; i++)
        if (a[i] != b[i])
            return false;
    return true;
}

static void epochs_and_seeds_move_images_differently(void **state)
{
    (void)state;
    struct bed bed;
    cleanup_dataset struct dataset *dataset = images(&bed, true, 2);
    static float x[3][SAMPLES * SIZE], by_sample[3][SAMPLES * SIZE];
    float targets[SAMPLES];
    const struct permutation orders[] = {permutation_of_epoch(SAMPLES, 7, 3), permutation_of_epoch(SAMPLES, 7, 4),
                                         permutation_of_epoch(SAMPLES, 8, 3)};
    for (int k = 0; k < 3; k++) {
        dataset_fetch(dataset, &orders[k], 0, SAMPLES, x[k], targets);
        for (uint32_t i = 0; i < SAMPLES; i++)
            memcpy(by_sample[k] + permutation_at(&orders[k], i) * SIZE, x[k] + (size_t)i * SIZE, SIZE * sizeof(float));
    }
    for (int k = 0; k < 3; k++) {
        uint32_t equal = 0;
        for (uint32_t i = 0; i < SAMPLES; i++)
            equal += are_equal(by_sample[k] + (size_t)i * SIZE, by_sample[(k + 1) % 3] + (size_t)i * SIZE);
        assert_in_range(equal, 0, 15); /* 4 of 200 by chance */
    }
    bed_free(&bed);
}

static void only_images_of_the_training_part_are_augmented(void **state)
{
    (void)state;
    struct bed bed;
    cleanup_dataset struct dataset *dataset = images(&bed, true, 2);
    cleanup_dataset struct dataset *test = open_part(&bed, DATASET_TEST);
    static float plain[SAMPLES * SIZE], x[SIZE];
    float targets[SAMPLES];
    const struct permutation order = permutation_of_epoch(SAMPLES, 7, 3);
    dataset_fetch(dataset, NULL, 0, SAMPLES, plain, targets);
    for (uint32_t i = 0; i < SAMPLES; i++) {
        dataset_fetch(test, &order, i, 1, x, targets);
        assert_memory_equal(x, plain + permutation_at(&order, i) * SIZE, sizeof x);
    }
    put_idx(&bed, "x.idx", 2, (const uint32_t[]){SAMPLES, 9}, 251);
    expect_refusal(&bed, "spec.training.augmentation is for images, and data set file 'x.idx' has samples of shape "
                         "1×1×9: leave it out");
    bed_free(&bed);
}

/* ---- Trouble ---- */

static void memory_may_run_out(void **state)
{
    (void)state;
    struct bed bed;
    npy_bed(&bed);
    static char *words[] = {(char *)"a", (char *)"b"};
    static const struct plan_categorical categories[] = {{.name = (char *)"c", .vocabulary = words, .words = 2}};
    put_file(&bed, "x.csv", "y,a,b,c\n1,2,3,a\n", 16);
    put_file(&bed, "x.svm", "1 1:2\n", 6);
    for (enum plan_format format = PLAN_FORMAT_IDX; format <= PLAN_FORMAT_LIBSVM; format++) {
        static char *const names[][2] = {{(char *)"x.idx", (char *)"y.idx"},
                                         {(char *)"x.npy", (char *)"y.npy"},
                                         {(char *)"x.csv", NULL},
                                         {(char *)"x.svm", NULL}};
        bed.plan.dataset.format = format;
        bed.plan.dataset.features = 2;
        bed.plan.dataset.train = (struct plan_split){names[format][0], names[format][1]};
        bed.plan.dataset.csv = (struct plan_csv){.header = true, .label_column = (char *)"y"};
        if (format == PLAN_FORMAT_CSV) {
            bed.plan.dataset.csv.categorical = (struct plan_categorical *)categories;
            bed.plan.dataset.csv.categorical_count = 1;
        }
        for (enum scarce_kind kind = SCARCE_ONE; kind <= SCARCE_ALL; kind++) {
            bool refused = true;
            for (size_t allowed = 0; refused; allowed++) {
                struct error err = {0};
                struct dataset *dataset = NULL;
                scarce_begin(kind, allowed);
                int opened = dataset_open(&dataset, bed.folder, &bed.plan, DATASET_TRAIN, &err);
                refused = scarce_end();
                if (opened < 0)
                    assert_non_null(strstr(error_message(&err), "out of memory"));
                assert_true(refused ? opened < 0 : opened == 0);
                dataset_free(dataset);
            }
        }
    }
    bed_free(&bed);
}

/* A mapped file that becomes shorter ends the process with a sentence. */
static void a_file_that_is_cut_while_mapped_is_told(void **state)
{
    (void)state;
    struct bed bed;
    bed_make(&bed);
    put_idx(&bed, "x.idx", 4, (const uint32_t[]){20, 1, 300, 400}, 251);
    int pipe_fds[2];
    assert_int_equal(pipe(pipe_fds), 0);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct error err = {0};
        struct dataset *dataset = NULL;
        char path[128];
        static float x[300 * 400];
        float target;
        snprintf(path, sizeof path, "%s/x.idx", bed.folder);
        if (dup2(pipe_fds[1], STDERR_FILENO) < 0 || dataset_guard(&err) < 0 ||
            dataset_open(&dataset, bed.folder, &bed.plan, DATASET_TRAIN, &err) < 0 || truncate(path, 16) < 0)
            _exit(100);
        dataset_fetch(dataset, NULL, 19, 1, x, &target);
        _exit(101);
    }
    close(pipe_fds[1]);
    char said[256] = "";
    assert_true(read(pipe_fds[0], said, sizeof said - 1) > 0);
    close(pipe_fds[0]);
    assert_non_null(strstr(said, "a data set file was cut short, or its storage failed, while it was in use"));
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 1);
    expect_refusal(&bed, "data set file 'x.idx' is cut off");
    bed_free(&bed);
}

/* More than is read ahead as a whole, of which next to nothing is on the disk. */
static void large_mappings_are_asked_for_in_pieces(void **state)
{
    (void)state;
    enum { N = 300, WIDTH = 1 << 20 };
    struct bed bed;
    bed_make(&bed);
    char path[128];
    snprintf(path, sizeof path, "%s/x.idx", bed.folder);
    cleanup_fd int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
    const uint8_t header[12] = {0, 0, 8, 2, 0, 0, N >> 8, (uint8_t)N, 0, WIDTH >> 16, 0, 0};
    assert_int_equal(write(fd, header, sizeof header), sizeof header);
    assert_int_equal(ftruncate(fd, sizeof header + (off_t)N * WIDTH), 0);
    assert_int_equal(pwrite(fd, "\5", 1, sizeof header + 17L * WIDTH + 3), 1);
    put_idx(&bed, "y.idx", 1, (const uint32_t[]){N}, 10);
    cleanup_dataset struct dataset *dataset = open_part(&bed, DATASET_TRAIN);
    const struct permutation order = permutation_of_epoch(N, 1, 0);
    dataset_prefetch(dataset, &order, 0, N);
    dataset_prefetch(dataset, NULL, N - 1, 1);
    dataset_prefetch(dataset, NULL, 0, 0);
    cleanup_free float *x = calloc(WIDTH, sizeof *x);
    float target;
    assert_non_null(x);
    dataset_fetch(dataset, NULL, 17, 1, x, &target);
    assert_true(x[3] == (float)((5 * (1 / 255.0) - 0.286) / 0.353) && x[4] == (float)(-0.286 / 0.353));
    bed_free(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(headers_are_python_dictionaries),
        cmocka_unit_test(wrong_npy_files_get_a_sentence),
        cmocka_unit_test(labels_are_classes_or_values),
        cmocka_unit_test(vectors_take_the_shape_of_the_plan),
        cmocka_unit_test(images_are_moved_and_mirrored),
        cmocka_unit_test(epochs_and_seeds_move_images_differently),
        cmocka_unit_test(only_images_of_the_training_part_are_augmented),
        cmocka_unit_test(memory_may_run_out),
        cmocka_unit_test(a_file_that_is_cut_while_mapped_is_told),
        cmocka_unit_test(large_mappings_are_asked_for_in_pieces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
