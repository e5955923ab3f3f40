/* CSV, LibSVM, and which part of a data set is the test part. */
#include "data/data.h"

#include "data/test_bed.h"
#include "data/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void put_text(const struct bed *bed, const char *name, const char *text)
{
    put_file(bed, name, text, strlen(text));
}

static char *const cities[] = {(char *)"Oslo", (char *)"Bergen", (char *)"\xC3\x85lesund"};

/* Label "price"; categories "city" by vocabulary, ids 0 to 3, and "street" in 5 buckets, ids 4 to 8. */
static void csv_bed(struct bed *bed, const char *text)
{
    static const struct plan_categorical categories[] = {
        {.name = (char *)"city", .vocabulary = (char **)cities, .words = 3},
        {.name = (char *)"street", .buckets = 5},
    };
    bed_make(bed);
    bed->plan.dataset.format = PLAN_FORMAT_CSV;
    bed->plan.dataset.train = bed->plan.dataset.test = (struct plan_split){.features = (char *)"x.csv"};
    bed->plan.dataset.csv = (struct plan_csv){
        .header = true,
        .label_column = (char *)"price",
        .categorical = (struct plan_categorical *)categories,
        .categorical_count = 2,
    };
    bed->plan.dataset.classes = 0;
    bed->plan.dataset.scale = 1;
    bed->plan.dataset.mean[0] = 0;
    bed->plan.dataset.std[0] = 1;
    put_text(bed, "x.csv", text);
}

static void csv_of_numbers(struct bed *bed, const char *text)
{
    csv_bed(bed, text);
    bed->plan.dataset.csv.categorical_count = 0;
}

enum { VALUES_MOST = 64 };

static void expect_samples(const struct bed *bed, const uint32_t shape[3], uint32_t n, const float *x,
                           const float *targets)
{
    cleanup_dataset struct dataset *dataset = open_part(bed, DATASET_TRAIN);
    float fetched[VALUES_MOST];
    float labels[VALUES_MOST];
    assert_int_equal(dataset_samples(dataset), n);
    assert_memory_equal(dataset_shape(dataset), shape, 3 * sizeof *shape);
    const uint32_t size = shape[0] * shape[1] * shape[2];
    assert_true(n * size <= VALUES_MOST);
    dataset_fetch(dataset, NULL, 0, n, fetched, labels);
    for (uint32_t i = 0; i < n * size; i++)
        if (fetched[i] != x[i])
            fail_msg("element %u is %.9g where %.9g was expected", i, fetched[i], x[i]);
    for (uint32_t i = 0; i < n; i++)
        if (labels[i] != targets[i])
            fail_msg("target %u is %.9g where %.9g was expected", i, labels[i], targets[i]);
}

/* ---- CSV ---- */

static void numbers_come_first_and_then_categories(void **state)
{
    (void)state;
    struct bed bed;
    csv_bed(&bed, "street,age,city,price,rooms\n"
                  "a,1.5,Bergen,10,-2\n"
                  "\"a\",2,\"\xC3\x85lesund\",-1e-2,3\r\n"
                  "\n"
                  "b, 3 ,Nowhere,+.5,\t4.\n"
                  ",,,7,");
    bed.plan.dataset.scale = 2;
    bed.plan.dataset.mean[0] = 1;
    bed.plan.dataset.std[0] = 4;
    float a, b, none;
    {
        cleanup_dataset struct dataset *dataset = open_part(&bed, DATASET_TRAIN);
        float x[16], targets[4];
        dataset_fetch(dataset, NULL, 0, 4, x, targets);
        a = x[3];
        b = x[11];
        none = x[15];
        const float streets[] = {a, b, none};
        for (int i = 0; i < 3; i++)
            assert_true(streets[i] >= 4 && streets[i] <= 8 && streets[i] == (float)(int)streets[i]);
    }
    const float x[] = {
        .5F,   -1.25F, 2, a,    /* */
        .75F,  1.25F,  3, a,    /* */
        1.25F, 1.75F,  0, b,    /* */
        0,     0,      0, none, /* missing numbers are as the mean would be */
    };
    expect_samples(&bed, (const uint32_t[]){4, 1, 1}, 4, x, (const float[]){10, -.01F, .5F, 7});
    bed_free(&bed);
}

/* Which row of a table a word has is part of trained models. */
static void hashes_never_change(void **state)
{
    (void)state;
    struct bed bed;
    csv_bed(&bed, "price,city,street\n0,Oslo,\n0,Oslo,a\n0,Oslo,street-17\n0,Oslo,\xC3\x85lesund\n");
    static const struct plan_categorical categories[] = {
        {.name = (char *)"city", .vocabulary = (char **)cities, .words = 3},
        {.name = (char *)"street", .buckets = 1000000},
    };
    bed.plan.dataset.csv.categorical = (struct plan_categorical *)categories;
    const float x[] = {1, 936773, 1, 510298, 1, 578344, 1, 239354};
    expect_samples(&bed, (const uint32_t[]){2, 1, 1}, 4, x, (const float[]){0, 0, 0, 0});
    bed_free(&bed);
}

static void quoting_is_that_of_rfc_4180(void **state)
{
    (void)state;
    static char *words[] = {(char *)"a,b", (char *)"say \"so\"", (char *)"two\nlines", (char *)" spaces ",
                            (char *)"\""};
    static const struct plan_categorical categories[] = {{.name = (char *)"w", .vocabulary = words, .words = 5}};
    struct bed bed;
    csv_bed(&bed, "\xEF\xBB\xBF\"price\",\"w\"\r\n"
                  "1,\"a,b\"\r\n"
                  "\"2\",\"say \"\"so\"\"\"\r\n"
                  "3,\"two\nlines\"\r\n"
                  "4, spaces \r\n"
                  "5,\"\"\"\"\r\n"
                  "6,a\r\n");
    bed.plan.dataset.csv.categorical = (struct plan_categorical *)categories;
    bed.plan.dataset.csv.categorical_count = 1;
    expect_samples(&bed, (const uint32_t[]){1, 1, 1}, 6, (const float[]){1, 2, 3, 4, 5, 0},
                   (const float[]){1, 2, 3, 4, 5, 6});
    bed_free(&bed);
}

static void columns_have_numbers_without_a_header(void **state)
{
    (void)state;
    struct bed bed;
    csv_of_numbers(&bed, "1,2,0\n3,4,1\n");
    bed.plan.dataset.csv.header = false;
    bed.plan.dataset.csv.label_column = (char *)"2";
    bed.plan.dataset.classes = 2;
    expect_samples(&bed, (const uint32_t[]){2, 1, 1}, 2, (const float[]){1, 2, 3, 4}, (const float[]){0, 1});
    /* With one they may be used too, where no column has that name. */
    put_text(&bed, "x.csv", "a,b,c\n1,2,0\n3,4,1\n");
    bed.plan.dataset.csv.header = true;
    expect_samples(&bed, (const uint32_t[]){2, 1, 1}, 2, (const float[]){1, 2, 3, 4}, (const float[]){0, 1});
    put_text(&bed, "x.csv", "2,b,c\n0,2,1\n1,4,3\n");
    expect_samples(&bed, (const uint32_t[]){2, 1, 1}, 2, (const float[]){2, 1, 4, 3}, (const float[]){0, 1});
    bed_free(&bed);
}

static void a_word_may_stand_for_a_missing_value(void **state)
{
    (void)state;
    struct bed bed;
    csv_of_numbers(&bed, "price,a\n1,NA\n2, NA \n3,8\n4,\n");
    bed.plan.dataset.csv.missing = (char *)"NA";
    bed.plan.dataset.mean[0] = 4;
    expect_samples(&bed, (const uint32_t[]){1, 1, 1}, 4, (const float[]){0, 0, 4, 0}, (const float[]){1, 2, 3, 4});
    bed_free(&bed);

    /* Of words it is the empty one. */
    static const struct plan_categorical categories[] = {
        {.name = (char *)"city", .vocabulary = (char **)cities, .words = 3},
        {.name = (char *)"street", .buckets = 1000000},
    };
    csv_bed(&bed, "price,city,street\n0,NA,NA\n0,,\n0,Oslo,a\n");
    bed.plan.dataset.csv.categorical = (struct plan_categorical *)categories;
    bed.plan.dataset.csv.missing = (char *)"NA";
    cleanup_dataset struct dataset *dataset = open_part(&bed, DATASET_TRAIN);
    float x[6], targets[3];
    dataset_fetch(dataset, NULL, 0, 3, x, targets);
    assert_true(x[0] == 0 && x[2] == 0 && x[4] == 1 && x[1] == x[3] && x[3] != x[5]);
    bed_free(&bed);
}

static void every_numeric_column_may_have_its_own_mean(void **state)
{
    (void)state;
    struct bed bed;
    csv_of_numbers(&bed, "a,price,b\n1,0,10\n2,0,20\n");
    bed.plan.dataset.channels = 2;
    bed.plan.dataset.mean[0] = 1;
    bed.plan.dataset.mean[1] = 10;
    bed.plan.dataset.std[0] = 1;
    bed.plan.dataset.std[1] = 5;
    expect_samples(&bed, (const uint32_t[]){2, 1, 1}, 2, (const float[]){0, 0, 1, 2}, (const float[]){0, 0});
    /* Categories behind them have none. */
    csv_bed(&bed, "a,price,b,city,street\n1,0,10,Oslo,x\n2,0,20,Oslo,x\n");
    bed.plan.dataset.channels = 2;
    bed.plan.dataset.mean[1] = 10;
    bed.plan.dataset.std[1] = 5;
    cleanup_dataset struct dataset *dataset = open_part(&bed, DATASET_TRAIN);
    float x[8], targets[2];
    dataset_fetch(dataset, NULL, 0, 2, x, targets);
    assert_true(x[0] == 1 && x[1] == 0 && x[4] == 2 && x[5] == 2 && x[6] == 1);
    bed_free(&bed);
}

static void tables_may_be_images(void **state)
{
    (void)state;
    struct bed bed;
    csv_of_numbers(&bed, "price,a,b,c,d\n3,1,2,3,4\n");
    bed.plan.dataset.has_shape = true;
    memcpy(bed.plan.dataset.shape, (const uint32_t[]){1, 2, 2}, sizeof bed.plan.dataset.shape);
    expect_samples(&bed, (const uint32_t[]){1, 2, 2}, 1, (const float[]){1, 2, 3, 4}, (const float[]){3});
    bed.plan.dataset.shape[0] = 2;
    expect_refusal(&bed, "has samples of shape 4×1×1, but the Dataset's spec.shape says 2×2×2");
    bed_free(&bed);
}

static void numbers_are_rounded_once(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "0.1",
        "123456789012345678",
        "1.7976931348623157e38",
        "9007199254740993e-10",
        "0.000000000000000000000000000000000000000012345678901234567890",
        "8.5e-10",
        "-0",
        "0000000000000000000000000000000000001.25",
        "1e-400",
        "4.35e22",
        "123456789012345e-30",
    };
    struct bed bed;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        char text[128];
        snprintf(text, sizeof text, "price,a\n0,%s\n", texts[i]);
        csv_of_numbers(&bed, text);
        const float expected = (float)strtod(texts[i], NULL);
        expect_samples(&bed, (const uint32_t[]){1, 1, 1}, 1, &expected, (const float[]){0});
        bed_free(&bed);
    }
}

/* The double itself, of digits and exponents around those that are read without strtod(). */
static void numbers_are_what_strtod_says(void **state)
{
    (void)state;
    const struct random_stream stream = random_stream(5, RANDOM_INIT, 0, 0, 0);
    for (uint64_t i = 0; i < 4000; i++) {
        char text[64];
        int length = snprintf(text, sizeof text, "%s%llu", i % 2 == 0 ? "-" : "",
                              (unsigned long long)random_u32_at(stream, 4 * i) * random_u32_at(stream, 4 * i + 1));
        const uint32_t cut = random_u32_at(stream, 4 * i + 2) % 19;
        length = length > (int)cut + 2 ? length - (int)cut : length;
        const int exponent = (int)(random_u32_at(stream, 4 * i + 3) % 60) - 30;
        length += snprintf(text + length, sizeof text - (size_t)length, "%se%d", i % 3 == 0 ? ".5" : "", exponent);
        double number;
        assert_true(span_number((struct span){text, (size_t)length}, &number));
        if (number != strtod(text, NULL))
            fail_msg("%s is read as %a", text, number);
    }
}

static void wrong_tables_get_a_sentence(void **state)
{
    (void)state;
    static const struct {
        const char *text, *sentence;
    } cases[] = {
        {"", "data set file 'x.csv' is empty"},
        {"\n\r\n\n", "data set file 'x.csv' is empty"},
        {"price,a,city,street\n", "data set file 'x.csv' has a header and no samples"},
        {"price\n1\n", "data set file 'x.csv' has 1 columns, and its Dataset has a label and 2 categories: commas must "
                       "stand between columns"},
        {"cost,a,city,street\n",
         "data set file 'x.csv' has no column 'price', spec.csv.labelColumn of its Dataset: its "
         "first line has 4 columns, and they are named there, or numbered from 0"},
        {"price,a,town,street\n", "data set file 'x.csv' has no column 'city', in spec.csv.categorical of its Dataset"},
        {"price,price,city,street\n", "data set file 'x.csv' has 2 columns named 'price'"},
        {"price,a,city,street\n1,2,b,c\n\n1,2,b\n", "data set file 'x.csv', line 4 has 3 columns, and the first has 4"},
        {"price,a,city,street\n1,two,b,c\n", "data set file 'x.csv', line 2, column 'a': 'two' is no number: leave a "
                                             "missing value empty or say in spec.csv.missing what stands for it, and "
                                             "name a column of words in spec.csv.categorical"},
        {"price,a,city,street\n1,nan,b,c\n", "line 2, column 'a': 'nan' is no number"},
        {"price,a,city,street\n1,0x10,b,c\n", "line 2, column 'a': '0x10' is no number"},
        {"price,a,city,street\n1,1e,b,c\n", "line 2, column 'a': '1e' is no number"},
        {"price,a,city,street\n1,.,b,c\n", "line 2, column 'a': '.' is no number"},
        {"price,a,city,street\n1,1 2,b,c\n", "line 2, column 'a': '1 2' is no number"},
        {"price,a,city,street\n1,1e39,b,c\n", "line 2, column 'a': '1e39' is too large for a 32-bit float"},
        {"price,a,city,street\n1,1e400,b,c\n", "line 2, column 'a': '1e400' is no number"},
        {"price,a,city,street\n,1,b,c\n", "line 2, column 'price': '' is no number, and a label must be one"},
        {"price,a,city,street\n1e99,1,b,c\n", "line 2, column 'price': '1e99' is no finite 32-bit float"},
        {"price,a,city,street\n1,2,\"b\n\nc,d\n", "line 2: a quote is opened and never closed"},
        {"price,a,city,street\n1,2,\"b\nb\",c\n1,2,b\"c,d\n", "line 4, column 2: a quote stands inside a field"},
        {"price,a,city,street\n1,2,\"b\"c,d\n", "line 2, column 2: a quote stands inside a field"},
        {"price,a,city,street\n1,\"words that go on and on, too long for a sentence\",b,c\n",
         "'words that go on and on, too long for a ...' is no number"},
    };
    struct bed bed;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        csv_bed(&bed, cases[i].text);
        expect_refusal(&bed, cases[i].sentence);
        bed_free(&bed);
    }
}

static void class_labels_are_whole_numbers(void **state)
{
    (void)state;
    struct bed bed;
    csv_of_numbers(&bed, "price,a\n1.5,1\n");
    bed.plan.dataset.classes = 3;
    expect_refusal(&bed, "line 2, column 'price': '1.5' is no class: with spec.classes 3 labels are whole numbers from "
                         "0 to 2");
    put_text(&bed, "x.csv", "price,a\n-1,1\n");
    expect_refusal(&bed, "'-1' is no class");
    put_text(&bed, "x.csv", "price,a\n3,1\n");
    expect_refusal(&bed, "'3' is not below the Dataset's spec.classes, 3");
    put_text(&bed, "x.csv", "price,a\n2.0,1\n");
    expect_samples(&bed, (const uint32_t[]){1, 1, 1}, 1, (const float[]){1}, (const float[]){2});
    bed_free(&bed);
}

static void parts_have_the_same_columns(void **state)
{
    (void)state;
    struct bed bed;
    struct error err = {0};
    csv_of_numbers(&bed, "price,a,b\n1,2,3\n");
    bed.plan.dataset.test.features = (char *)"t.csv";
    struct dataset_description description;
    static const struct {
        const char *text, *sentence;
    } cases[] = {
        {"price,b,a\n1,2,3\n",
         "data set file 't.csv' has a column 'b' where 'x.csv' has 'a': both need the same columns "
         "in the same order"},
        {"price,a\n1,2\n", "data set file 't.csv' has 2 columns, and 'x.csv' has 3"},
        {"price,a,b,c\n1,2,3,4\n", "data set file 't.csv' has 4 columns, and 'x.csv' has 3"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        put_text(&bed, "t.csv", cases[i].text);
        assert_int_equal(dataset_describe(&description, bed.folder, &bed.plan, DATASET_TEST, &err), -1);
        assert_string_equal(error_message(&err), cases[i].sentence);
    }
    put_text(&bed, "t.csv", "price, a ,b\n1,2,3\n4,5,6\n");
    dataset_free(open_part(&bed, DATASET_TEST));
    bed_free(&bed);
}

/* Longer than what is read at once, with records across its borders; gzip too. */
static void long_files_are_read_whole(void **state)
{
    (void)state;
    enum { ROWS = 30000 };
    struct bed bed;
    csv_bed(&bed, "");
    cleanup_buffer struct buffer text;
    cleanup_buffer struct buffer packed;
    buffer_init(&text, 4 << 20);
    append(&text, "a,price,city,street\n", 20);
    for (int i = 0; i < ROWS; i++) {
        char line[64];
        int length =
            snprintf(line, sizeof line, "%d,%d,\"Ber%s\",s%d\n", i, ROWS - i, i % 3 == 0 ? "\n" : "gen", i % 7);
        append(&text, line, (size_t)length);
    }
    make_gzip(&packed, text.data, text.length);
    for (int gzip = 0; gzip < 2; gzip++) {
        put_file(&bed, "x.csv", gzip ? packed.data : text.data, gzip ? packed.length : text.length);
        cleanup_dataset struct dataset *dataset = open_part(&bed, DATASET_TRAIN);
        assert_int_equal(dataset_samples(dataset), ROWS);
        const struct permutation order = permutation_of_epoch(ROWS, 1, 0);
        for (uint32_t i = 0; i < ROWS; i += 7) {
            float x[3], target;
            dataset_fetch(dataset, &order, i, 1, x, &target);
            const uint64_t sample = permutation_at(&order, i);
            assert_true(x[0] == (float)sample && target == (float)(ROWS - sample));
            assert_true(x[1] == (sample % 3 == 0 ? 0 : 2));
        }
    }
    /* A part keeps no pages but its own, and all of those. */
    bed.plan.dataset.test = (struct plan_split){0};
    bed.plan.training.validation_split = .4;
    for (enum dataset_part part = DATASET_TRAIN; part <= DATASET_TEST; part++) {
        cleanup_dataset struct dataset *dataset = open_part(&bed, part);
        const uint32_t first = part == DATASET_TEST ? ROWS * 6 / 10 : 0;
        assert_int_equal(dataset_samples(dataset), part == DATASET_TEST ? ROWS * 4 / 10 : ROWS * 6 / 10);
        for (uint32_t i = 0; i < dataset_samples(dataset); i++) {
            float x[3], target;
            dataset_fetch(dataset, NULL, i, 1, x, &target);
            assert_true(x[0] == (float)(first + i) && target == (float)(ROWS - first - i));
        }
    }
    bed_free(&bed);
}

/* ---- LibSVM ---- */

static void libsvm_bed(struct bed *bed, const char *text)
{
    csv_of_numbers(bed, "");
    bed->plan.dataset.format = PLAN_FORMAT_LIBSVM;
    bed->plan.dataset.train = bed->plan.dataset.test = (struct plan_split){.features = (char *)"x.svm"};
    bed->plan.dataset.features = 4;
    put_text(bed, "x.svm", text);
}

static void absent_entries_are_zero(void **state)
{
    (void)state;
    struct bed bed;
    libsvm_bed(&bed, "# from somewhere\n1 1:2 4:-.5e1\r\n\n0.5\t2:1 # the second\n 2 \n-3 1:1 2:2  3:3 4:4");
    const float x[] = {2, 0, 0, -5, 0, 1, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4};
    const float targets[] = {1, .5F, 2, -3};
    expect_samples(&bed, (const uint32_t[]){4, 1, 1}, 4, x, targets);
    /* Normalised, as channels of an image. */
    bed.plan.dataset.has_shape = true;
    memcpy(bed.plan.dataset.shape, (const uint32_t[]){2, 1, 2}, sizeof bed.plan.dataset.shape);
    bed.plan.dataset.channels = 2;
    bed.plan.dataset.mean[0] = 1;
    bed.plan.dataset.mean[1] = 2;
    bed.plan.dataset.std[1] = 2;
    const float y[] = {1, -1, -1, -3.5F, -1, 0, -1, -1, -1, -1, -1, -1, 0, 1, .5F, 1};
    expect_samples(&bed, (const uint32_t[]){2, 1, 2}, 4, y, targets);
    bed_free(&bed);
}

static void two_classes_may_be_minus_one_and_one(void **state)
{
    (void)state;
    struct bed bed;
    libsvm_bed(&bed, "-1 1:1\n+1 2:1\n0\n");
    bed.plan.dataset.classes = 2;
    expect_samples(&bed, (const uint32_t[]){4, 1, 1}, 3, (const float[]){1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0},
                   (const float[]){0, 1, 0});
    bed.plan.dataset.classes = 3;
    expect_refusal(&bed, "data set file 'x.svm', line 1: '-1' is no class");
    bed_free(&bed);
}

static void wrong_lines_get_a_sentence(void **state)
{
    (void)state;
    static const struct {
        const char *text, *sentence;
    } cases[] = {
        {"", "data set file 'x.svm' has no samples"},
        {"# nothing\n", "data set file 'x.svm' has no samples"},
        {"1 1:1\n\nx 1:1\n", "data set file 'x.svm', line 3: 'x' is no number, and a line must begin with its label"},
        {"1 5:1\n", "line 1: '5:1' has an index above the Dataset's spec.libsvm.features"},
        {"1 99999999999999999999999:1\n", "has an index above the Dataset's spec.libsvm.features"},
        {"1 0:1\n", "line 1: '0:1' has the index 0: indices begin at 1"},
        {"1 2:1 2:2\n", "line 1: '2:2' has an index that is not above the one before: they must ascend"},
        {"1 2:1 1:2\n", "line 1: '1:2' has an index that is not above the one before: they must ascend"},
        {"1 qid:3 1:2\n", "line 1: 'qid:3' is no index:value"},
        {"1 1:\n", "line 1: '1:' is no index:value"},
        {"1 1\n", "line 1: '1' is no index:value"},
        {"1 1:inf\n", "line 1: '1:inf' is no index:value"},
        {"1 1:1e39\n", "line 1: '1:1e39' has a value too large for a 32-bit float"},
    };
    struct bed bed;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        libsvm_bed(&bed, cases[i].text);
        expect_refusal(&bed, cases[i].sentence);
        bed_free(&bed);
    }
}

/* ---- Parts ---- */

static void the_last_samples_validate_where_no_file_does(void **state)
{
    (void)state;
    static const struct {
        double split;
        uint64_t train, test;
    } cases[] = {{.1, 18, 2}, {.26, 15, 5}, {.49, 11, 9}, {.01, 19, 1}};
    struct bed idx, svm;
    bed_make(&idx);
    libsvm_bed(&svm, "");
    cleanup_buffer struct buffer lines;
    buffer_init(&lines, 4096);
    for (int i = 0; i < 20; i++) {
        struct error err = {0};
        assert_int_equal(buffer_printf(&lines, &err, "%d %d:%d\n", i, i % 4 + 1, i), 0);
    }
    put_file(&svm, "x.svm", lines.data, lines.length);
    for (size_t i = 0; i < 2 * sizeof cases / sizeof cases[0]; i++) {
        struct bed *bed = i % 2 == 0 ? &idx : &svm;
        const uint32_t size = i % 2 == 0 ? 12 : 4;
        bed->plan.dataset.test = (struct plan_split){0};
        bed->plan.training.validation_split = cases[i / 2].split;
        cleanup_dataset struct dataset *train = open_part(bed, DATASET_TRAIN);
        cleanup_dataset struct dataset *test = open_part(bed, DATASET_TEST);
        assert_int_equal(dataset_samples(train), cases[i / 2].train);
        assert_int_equal(dataset_samples(test), cases[i / 2].test);
        float x[20 * 12], targets[20], whole[20 * 12], all[20];
        bed->plan.dataset.test = bed->plan.dataset.train;
        cleanup_dataset struct dataset *both = open_part(bed, DATASET_TRAIN);
        dataset_fetch(both, NULL, 0, 20, whole, all);
        dataset_fetch(train, NULL, 0, (uint32_t)cases[i / 2].train, x, targets);
        dataset_fetch(test, NULL, 0, (uint32_t)cases[i / 2].test, x + cases[i / 2].train * size,
                      targets + cases[i / 2].train);
        assert_memory_equal(x, whole, 20UL * size * sizeof *x);
        assert_memory_equal(targets, all, sizeof all);
    }
    bed_free(&idx);
    bed_free(&svm);
}

static void a_part_needs_samples(void **state)
{
    (void)state;
    struct bed bed;
    struct error err = {0};
    struct dataset *dataset = NULL;
    csv_of_numbers(&bed, "price,a\n1,2\n");
    bed.plan.dataset.test = (struct plan_split){0};
    assert_int_equal(dataset_open(&dataset, bed.folder, &bed.plan, DATASET_TEST, &err), -1);
    assert_string_equal(error_message(&err),
                        "the Dataset has no test files, and spec.training.validationSplit is 0: set one of them");
    bed.plan.training.validation_split = .1;
    expect_refusal(&bed,
                   "data set file 'x.csv' has one sample, and spec.training.validationSplit needs one to train and "
                   "one to validate");
    bed_free(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_come_first_and_then_categories),
        cmocka_unit_test(hashes_never_change),
        cmocka_unit_test(quoting_is_that_of_rfc_4180),
        cmocka_unit_test(columns_have_numbers_without_a_header),
        cmocka_unit_test(a_word_may_stand_for_a_missing_value),
        cmocka_unit_test(every_numeric_column_may_have_its_own_mean),
        cmocka_unit_test(tables_may_be_images),
        cmocka_unit_test(numbers_are_rounded_once),
        cmocka_unit_test(numbers_are_what_strtod_says),
        cmocka_unit_test(wrong_tables_get_a_sentence),
        cmocka_unit_test(class_labels_are_whole_numbers),
        cmocka_unit_test(parts_have_the_same_columns),
        cmocka_unit_test(long_files_are_read_whole),
        cmocka_unit_test(absent_entries_are_zero),
        cmocka_unit_test(two_classes_may_be_minus_one_and_one),
        cmocka_unit_test(wrong_lines_get_a_sentence),
        cmocka_unit_test(the_last_samples_validate_where_no_file_does),
        cmocka_unit_test(a_part_needs_samples),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
