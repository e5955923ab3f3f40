#include "data/data.h"

#include "data/test_bed.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- Reading ---- */

static void samples_are_normalised_by_the_formula(void **state)
{
    (void)state;
    struct bed bed;
    bed_make(&bed);
    cleanup_dataset struct dataset *dataset = open_part(&bed, DATASET_TRAIN);
    assert_int_equal(dataset_samples(dataset), 20);
    assert_memory_equal(dataset_shape(dataset), ((const uint32_t[]){1, 3, 4}), 3 * sizeof(uint32_t));
    float x[20 * 12];
    float labels[20];
    dataset_fetch(dataset, NULL, 0, 20, x, labels);
    for (int i = 0; i < 20 * 12; i++) {
        double byte = i * 7 % 251;
        assert_true(x[i] == (float)((byte * (1 / 255.0) - 0.286) / 0.353));
    }
    for (int i = 0; i < 20; i++)
        assert_int_equal(labels[i], i * 7 % 10);
    bed_free(&bed);
}

static void any_range_is_fetched(void **state)
{
    (void)state;
    struct bed bed;
    bed_make(&bed);
    cleanup_dataset struct dataset *dataset = open_part(&bed, DATASET_TRAIN);
    float whole[20 * 12];
    float whole_labels[20];
    dataset_fetch(dataset, NULL, 0, 20, whole, whole_labels);
    const struct permutation order = permutation_of_epoch(20, 1, 3);
    for (uint64_t first = 0; first < 20; first += 3)
        for (uint32_t n = 0; first + n <= 20; n++) {
            float x[20 * 12];
            float labels[20];
            dataset_fetch(dataset, &order, first, n, x, labels);
            for (uint32_t i = 0; i < n; i++) {
                uint64_t sample = permutation_at(&order, first + i);
                assert_memory_equal(x + i * 12UL, whole + sample * 12, 12 * sizeof *x);
                assert_int_equal(labels[i], whole_labels[sample]);
            }
        }
    bed_free(&bed);
}

static void gzip_reads_as_plain_does(void **state)
{
    (void)state;
    struct bed bed;
    bed_make(&bed);
    char path[128];
    snprintf(path, sizeof path, "%s/deep", bed.folder);
    assert_int_equal(mkdir(path, 0755), 0);
    snprintf(path, sizeof path, "%s/deep/er", bed.folder);
    assert_int_equal(mkdir(path, 0755), 0);
    cleanup_buffer struct buffer features;
    cleanup_buffer struct buffer labels;
    cleanup_buffer struct buffer packed;
    cleanup_buffer struct buffer first_half;
    cleanup_buffer struct buffer second_half;
    make_idx(&features, 3, (const uint32_t[]){20, 3, 4}, 251);
    make_idx(&labels, 1, (const uint32_t[]){20}, 10);
    make_gzip(&packed, features.data, features.length);
    put_file(&bed, "deep/er/tx.gz", packed.data, packed.length);
    /* Two members in one file are one content (RFC 1952). */
    make_gzip(&first_half, labels.data, 13);
    make_gzip(&second_half, labels.data + 13, labels.length - 13);
    append(&first_half, second_half.data, second_half.length);
    put_file(&bed, "deep/er/ty.gz", first_half.data, first_half.length);

    cleanup_dataset struct dataset *plain = open_part(&bed, DATASET_TRAIN);
    cleanup_dataset struct dataset *gzip = open_part(&bed, DATASET_TEST);
    float x[2][20 * 12];
    float y[2][20];
    dataset_fetch(plain, NULL, 0, 20, x[0], y[0]);
    dataset_fetch(gzip, NULL, 0, 20, x[1], y[1]);
    assert_memory_equal(x[0], x[1], sizeof x[0]);
    assert_memory_equal(y[0], y[1], sizeof y[0]);
    bed_free(&bed);
}

static void shapes_come_from_the_files(void **state)
{
    (void)state;
    static const struct {
        uint32_t rank, dims[4], shape[3];
    } cases[] = {
        {2, {20, 9}, {1, 1, 9}},
        {3, {20, 5, 6}, {1, 5, 6}},
        {4, {20, 3, 5, 6}, {3, 5, 6}},
    };
    struct bed bed;
    bed_make(&bed);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        put_idx(&bed, "x.idx", cases[i].rank, cases[i].dims, 251);
        cleanup_dataset struct dataset *dataset = open_part(&bed, DATASET_TRAIN);
        assert_memory_equal(dataset_shape(dataset), cases[i].shape, sizeof cases[i].shape);
    }
    bed_free(&bed);
}

static void headers_alone_are_described(void **state)
{
    (void)state;
    struct bed bed;
    bed_make(&bed);
    cleanup_buffer struct buffer content;
    make_idx(&content, 3, (const uint32_t[]){20, 3, 4}, 251);
    put_file(&bed, "x.idx", content.data, 16);
    struct error err = {0};
    struct dataset_description description;
    assert_int_equal(dataset_describe(&description, bed.folder, &bed.plan, DATASET_TRAIN, &err), 0);
    assert_int_equal(description.samples, 20);
    put_file(&bed, "x.idx", content.data, 15);
    assert_int_equal(dataset_describe(&description, bed.folder, &bed.plan, DATASET_TRAIN, &err), -1);
    assert_non_null(strstr(error_message(&err), "cut off inside its header"));
    put_idx(&bed, "x.idx", 3, (const uint32_t[]){19, 3, 4}, 251);
    assert_int_equal(dataset_describe(&description, bed.folder, &bed.plan, DATASET_TRAIN, &err), -1);
    assert_non_null(strstr(error_message(&err), "do not belong together"));
    bed_free(&bed);
}

static void channels_have_their_own_mean_and_deviation(void **state)
{
    (void)state;
    struct bed bed;
    bed_make(&bed);
    put_idx(&bed, "x.idx", 4, (const uint32_t[]){20, 2, 1, 3}, 251);
    bed.plan.dataset.channels = 2;
    bed.plan.dataset.scale = 1;
    bed.plan.dataset.mean[0] = 3;
    bed.plan.dataset.mean[1] = -1;
    bed.plan.dataset.std[0] = 2;
    bed.plan.dataset.std[1] = 4;
    cleanup_dataset struct dataset *dataset = open_part(&bed, DATASET_TRAIN);
    float x[6];
    float label;
    dataset_fetch(dataset, NULL, 0, 1, x, &label);
    /* bytes 0 7 14 | 21 28 35 */
    const float expected[6] = {-1.5F, 2, 5.5F, 5.5F, 7.25F, 9};
    assert_memory_equal(x, expected, sizeof x);
    bed_free(&bed);
}

/* So large that they are mapped. */
static void large_files_are_read_whole(void **state)
{
    (void)state;
    struct bed bed;
    bed_make(&bed);
    const uint32_t dims[4] = {20, 1, 300, 400};
    const uint32_t size = 300 * 400;
    cleanup_buffer struct buffer content;
    make_idx(&content, 4, dims, 251);
    put_file(&bed, "x.idx", content.data, content.length);
    {
        cleanup_dataset struct dataset *dataset = open_part(&bed, DATASET_TRAIN);
        cleanup_free float *x = calloc(20UL * size, sizeof *x);
        float labels[20];
        assert_non_null(x);
        dataset_prefetch(dataset, NULL, 0, 20);
        dataset_fetch(dataset, NULL, 0, 20, x, labels);
        for (uint32_t i = 0; i < 20 * size; i++)
            assert_true(x[i] == (float)((i * 7 % 251 * (1 / 255.0) - 0.286) / 0.353));
    }
    put_file(&bed, "x.idx", content.data, content.length - 1);
    expect_refusal(&bed, "data set file 'x.idx' is cut off: its header promises 2400000 bytes of data, and there are "
                         "2399999: copy it again");
    append(&content, "x", 1);
    put_file(&bed, "x.idx", content.data, content.length);
    expect_refusal(&bed, "data set file 'x.idx' goes on behind the 2400000 bytes of data that its header promises");
    bed_free(&bed);
}

/* ---- Refusing ---- */

static void wrong_files_get_a_sentence(void **state)
{
    (void)state;
    struct bed bed;
    bed_make(&bed);
    cleanup_buffer struct buffer good;
    cleanup_buffer struct buffer packed;
    make_idx(&good, 3, (const uint32_t[]){20, 3, 4}, 251);
    make_gzip(&packed, good.data, good.length);

    put_file(&bed, "x.idx", "", 0);
    expect_refusal(&bed, "data set file 'x.idx' is empty: copy it again");
    put_file(&bed, "x.idx", "\0", 1);
    expect_refusal(&bed, "data set file 'x.idx' is no IDX file: it must begin with two zero bytes, the type of its "
                         "elements and the rank (gzip around that is fine)");
    put_file(&bed, "x.idx", "<html>404</html>", 16);
    expect_refusal(&bed, "data set file 'x.idx' is no IDX file");
    put_file(&bed, "x.idx", "\0\0\x0a\3\0\0\0\1", 8);
    expect_refusal(&bed, "data set file 'x.idx' is no IDX file");
    put_file(&bed, "x.idx", "\0\0\x0d\3\0\0\0\1", 8);
    expect_refusal(&bed, "data set file 'x.idx' is cut off inside its header: copy it again");
    put_file(&bed, "x.idx", "\0\0\x08\5\0\0\0\1", 8);
    expect_refusal(&bed, "data set file 'x.idx' has rank 5; at most 4 is read");
    put_file(&bed, "x.idx", "\0\0\x08\3\0\0\0\0\0\0\0\1\0\0\0\1", 16);
    expect_refusal(&bed, "data set file 'x.idx' says in its header that it is empty");
    put_file(&bed, "x.idx", "\0\0\x08\3\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 16);
    expect_refusal(&bed, "says in its header that it holds more than 17179869184 bytes");
    put_file(&bed, "x.idx", "\0\0\x08\3\0\0\xff\xff\0\0\1\0\0\0\1\0", 16);
    expect_refusal(&bed, "data set file 'x.idx' is cut off: its header promises 4294901760 bytes of data, and there "
                         "are 0: copy it again");
    put_file(&bed, "x.idx", good.data, good.length - 1);
    expect_refusal(&bed, "data set file 'x.idx' is cut off: its header promises 240 bytes of data, and there are 239: "
                         "copy it again");
    append(&good, "x", 1);
    put_file(&bed, "x.idx", good.data, good.length);
    expect_refusal(&bed, "data set file 'x.idx' goes on behind the 240 bytes of data that its header promises");

    put_file(&bed, "x.idx", packed.data, packed.length / 2);
    expect_refusal(&bed, "data set file 'x.idx' is cut off inside its gzip stream: copy it again");
    put_file(&bed, "x.idx", packed.data, packed.length - 1); /* within the trailer, behind all data */
    expect_refusal(&bed, "data set file 'x.idx' is cut off inside its gzip stream: copy it again");
    packed.data[packed.length - 6] ^= 1;
    put_file(&bed, "x.idx", packed.data, packed.length);
    expect_refusal(&bed, "data set file 'x.idx' has a damaged gzip stream (incorrect data check): copy it again");
    packed.data[packed.length - 6] ^= 1;
    append(&packed, "rest", 4);
    put_file(&bed, "x.idx", packed.data, packed.length);
    expect_refusal(&bed, "data set file 'x.idx' goes on behind the end of its gzip stream: copy it again");
    bed_free(&bed);
}

static void files_that_do_not_fit_get_a_sentence(void **state)
{
    (void)state;
    struct bed bed;
    bed_make(&bed);
    bed.plan.dataset.has_shape = true;
    memcpy(bed.plan.dataset.shape, ((const uint32_t[]){1, 28, 28}), sizeof bed.plan.dataset.shape);
    expect_refusal(&bed, "data set file 'x.idx' has samples of shape 1×3×4, but the Dataset's spec.shape says 1×28×28");
    bed.plan.dataset.has_shape = false;
    bed.plan.dataset.channels = 3;
    expect_refusal(&bed, "the Dataset's spec.normalize has mean and std for 3 channels, and data set file 'x.idx' has "
                         "samples of 1");
    bed.plan.dataset.channels = 1;
    bed.plan.dataset.classes = 9;
    expect_refusal(&bed, "data set file 'y.idx': label 9 of sample 7 is not below the Dataset's spec.classes, 9");
    bed.plan.dataset.classes = 10;
    put_idx(&bed, "y.idx", 1, (const uint32_t[]){19}, 10);
    expect_refusal(&bed,
                   "data set file 'y.idx' has 19 labels, and 'x.idx' has 20 samples: they do not belong together");
    bed.plan.dataset.train = (struct plan_split){(char *)"y.idx", (char *)"x.idx"};
    expect_refusal(&bed, "data set file 'y.idx' has rank 1 where 2 to 4 is expected: are features and labels swapped?");
    bed.plan.dataset.train = (struct plan_split){(char *)"x.idx", (char *)"x.idx"};
    expect_refusal(&bed, "data set file 'x.idx' has rank 3 where 1 is expected: are features and labels swapped?");
    bed_free(&bed);
}

static void no_path_leaves_the_root(void **state)
{
    (void)state;
    struct bed bed;
    bed_make(&bed);
    char path[128];
    static const char *const outside[] = {"/etc/passwd", "../x.idx", "link/passwd", "a/../../x.idx", "absolute"};
    snprintf(path, sizeof path, "%s/link", bed.folder);
    assert_int_equal(symlink("/etc", path), 0);
    snprintf(path, sizeof path, "%s/absolute", bed.folder);
    assert_int_equal(symlink("/etc/passwd", path), 0);
    snprintf(path, sizeof path, "%s/a", bed.folder);
    assert_int_equal(mkdir(path, 0755), 0);
    for (size_t i = 0; i < sizeof outside / sizeof outside[0]; i++) {
        bed.plan.dataset.train.features = (char *)outside[i];
        expect_refusal(&bed, "the root of the data set's source");
        char sentence[128];
        snprintf(sentence, sizeof sentence, "data set file '%s' lies outside '/tmp/thole-data-", outside[i]);
        expect_refusal(&bed, sentence);
    }

    bed.plan.dataset.train.features = (char *)"none.idx";
    expect_refusal(&bed, "data set file 'none.idx' does not exist below '/tmp/thole-data-");
    bed.plan.dataset.train.features = (char *)"a";
    expect_refusal(&bed, "is no regular file");
    snprintf(path, sizeof path, "%s/fifo", bed.folder);
    assert_int_equal(mkfifo(path, 0644), 0);
    bed.plan.dataset.train.features = (char *)"fifo";
    expect_refusal(&bed, "is no regular file");

    /* A link that stays inside is a file like another. */
    snprintf(path, sizeof path, "%s/a/inside", bed.folder);
    assert_int_equal(symlink("../x.idx", path), 0);
    bed.plan.dataset.train.features = (char *)"a/inside";
    dataset_free(open_part(&bed, DATASET_TRAIN));
    bed_free(&bed);

    struct error err = {0};
    struct dataset *dataset = NULL;
    assert_int_equal(dataset_open(&dataset, bed.folder, &bed.plan, DATASET_TRAIN, &err), -1);
    assert_non_null(strstr(error_message(&err), "the root of the data set's source: No such file or directory"));
}

/* The same where the kernel or a sandbox has no openat2, in a process of its own. */
static void no_path_leaves_the_root_without_openat2(void **state)
{
    (void)state;
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat2, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof filter[0], filter};
    struct bed bed;
    bed_make(&bed);
    char path[128];
    snprintf(path, sizeof path, "%s/a", bed.folder);
    assert_int_equal(mkdir(path, 0755), 0);
    snprintf(path, sizeof path, "%s/a/b.idx", bed.folder);
    assert_int_equal(symlink("../x.idx", path), 0);
    put_idx(&bed, "a/x.idx", 2, (const uint32_t[]){20, 5}, 251);
    static const struct {
        const char *path, *sentence; /* NULL: it opens */
    } cases[] = {
        {"x.idx", NULL},
        {"a/x.idx", NULL},
        {"a//./x.idx", NULL},
        {"../x.idx", "lies outside"},
        {"a/../x.idx", "lies outside"},
        {"/etc/passwd", "lies outside"},
        {"a/b.idx", "Too many levels of symbolic links"},
        {"none", "does not exist"},
        {"x.idx/none", "Not a directory"},
        {"a", "is no regular file"},
    };
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
            _exit(100);
        for (int i = 0; i < (int)(sizeof cases / sizeof cases[0]); i++) {
            struct error err = {0};
            struct dataset *dataset = NULL;
            bed.plan.dataset.train.features = (char *)cases[i].path;
            int opened = dataset_open(&dataset, bed.folder, &bed.plan, DATASET_TRAIN, &err);
            dataset_free(dataset);
            bool right = cases[i].sentence == NULL
                             ? opened == 0
                             : opened < 0 && strstr(error_message(&err), cases[i].sentence) != NULL;
            if (!right)
                _exit(i + 1);
        }
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    bed_free(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(samples_are_normalised_by_the_formula),
        cmocka_unit_test(any_range_is_fetched),
        cmocka_unit_test(gzip_reads_as_plain_does),
        cmocka_unit_test(shapes_come_from_the_files),
        cmocka_unit_test(headers_alone_are_described),
        cmocka_unit_test(channels_have_their_own_mean_and_deviation),
        cmocka_unit_test(large_files_are_read_whole),
        cmocka_unit_test(wrong_files_get_a_sentence),
        cmocka_unit_test(files_that_do_not_fit_get_a_sentence),
        cmocka_unit_test(no_path_leaves_the_root),
        cmocka_unit_test(no_path_leaves_the_root_without_openat2),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
