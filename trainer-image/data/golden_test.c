/* Files as other programs write them, and the samples that these see in them. */
#include "data/data.h"

#include "data/test_bed.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

struct golden_file {
    const char *name;
    enum plan_format format;
    size_t size;
    const char *bytes;
    uint32_t values;
    float x[36];
};
#include "testdata/golden.h"

static void files_of_others_are_read_as_they_mean_them(void **state)
{
    (void)state;
    struct bed bed;
    bed_make(&bed);
    put_file(&bed, "zeros.npy", "\x93NUMPY\1\0\x37\0{'descr':'|u1','fortran_order':False,'shape':(3,)}    \n\0\0\0",
             68);
    put_file(&bed, "zeros.idx", "\0\0\x08\1\0\0\0\3\0\0\0", 11);
    bed.plan.dataset.scale = GOLDEN_SCALE;
    bed.plan.dataset.mean[0] = GOLDEN_MEAN;
    bed.plan.dataset.std[0] = GOLDEN_STD;
    bed.plan.dataset.csv.label_column = (char *)"0";
    for (size_t i = 0; i < sizeof golden_files / sizeof golden_files[0]; i++) {
        const struct golden_file *golden = &golden_files[i];
        static const char *const labels[] = {"zeros.idx", "zeros.npy", NULL};
        bed.plan.dataset.format = golden->format;
        bed.plan.dataset.train = (struct plan_split){(char *)"x", (char *)labels[golden->format]};
        put_file(&bed, "x", golden->bytes, golden->size);
        cleanup_dataset struct dataset *dataset = open_part(&bed, DATASET_TRAIN);
        float x[36], targets[3];
        assert_int_equal(dataset_samples(dataset), 3);
        dataset_fetch(dataset, NULL, 0, 3, x, targets);
        for (uint32_t j = 0; j < golden->values; j++)
            if (x[j] != golden->x[j])
                fail_msg("%s: element %u is %a where %a was expected", golden->name, j, x[j], golden->x[j]);
    }
    bed_free(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(files_of_others_are_read_as_they_mean_them)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
