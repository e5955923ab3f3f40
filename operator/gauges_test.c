#include "gauges.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void report(struct gauges *gauges, const char *uid, struct report_epoch epoch, int64_t seconds)
{
    const struct report_message message = {.type = REPORT_EPOCH, .epoch = epoch};
    gauges_report(gauges, uid, &message, (struct instant){seconds * SECONDS});
}

static void assert_prints(struct gauges *gauges, int64_t seconds, const char *line, bool there)
{
    cleanup_buffer struct buffer text;
    buffer_init(&text, 1 << 20);
    gauges_print(gauges, (struct instant){seconds * SECONDS}, &text);
    bool found = strstr(buffer_text(&text), line) != NULL;
    if (found != there)
        fail_msg("'%s' is %s in:\n%s", line, found ? "" : "not", buffer_text(&text));
}

static void the_newest_epoch_is_shown(void **state)
{
    (void)state;
    struct error err = {0};
    cleanup_gauges struct gauges *gauges = gauges_new(&err);
    report(gauges, "a", (struct report_epoch){.term = 1, .epoch = 1, .train_loss = 0.5, .parallelism = 2}, 1);
    assert_prints(gauges, 1, "kubeml_job_train_loss{jobid=\"a\"} 0.5\n", true);
    assert_prints(gauges, 1, "kubeml_job_parallelism{jobid=\"a\"} 2\n", true);
    assert_prints(gauges, 1, "kubeml_job_validation_accuracy{", false);
    report(gauges, "a",
           (struct report_epoch){.term = 1,
                                 .epoch = 2,
                                 .train_loss = 0.25,
                                 .validated = true,
                                 .validation_loss = 0.75,
                                 .accuracy = 80,
                                 .duration_seconds = 2.5},
           2);
    report(gauges, "a", (struct report_epoch){.term = 1, .epoch = 3, .train_loss = 0.125}, 3);
    report(gauges, "a", (struct report_epoch){.term = 1, .epoch = 1, .train_loss = 9}, 3); /* again */
    assert_prints(gauges, 3, "kubeml_job_train_loss{jobid=\"a\"} 0.125\n", true);
    assert_prints(gauges, 3, "kubeml_job_validation_accuracy{jobid=\"a\"} 80\n", true);
    assert_prints(gauges, 3, "kubeml_job_validation_loss{jobid=\"a\"} 0.75\n", true);
    report(gauges, "a", (struct report_epoch){.term = 2, .epoch = 2, .train_loss = 0.0625}, 3);
    assert_prints(gauges, 3, "kubeml_job_train_loss{jobid=\"a\"} 0.0625\n", true);
}

static void ended_and_silent_jobs_are_dropped(void **state)
{
    (void)state;
    struct error err = {0};
    cleanup_gauges struct gauges *gauges = gauges_new(&err);
    report(gauges, "a", (struct report_epoch){.term = 1, .epoch = 1}, 1);
    report(gauges, "b", (struct report_epoch){.term = 1, .epoch = 1}, 1);
    report(gauges, "c", (struct report_epoch){.term = 1, .epoch = 1}, 300);
    const struct report_message finished = {.type = REPORT_FINISHED};
    gauges_report(gauges, "b", &finished, (struct instant){2 * SECONDS});
    assert_prints(gauges, 601, "{jobid=\"a\"}", true);
    assert_prints(gauges, 601, "{jobid=\"b\"}", false);
    assert_prints(gauges, 602, "{jobid=\"a\"}", false);
    assert_prints(gauges, 602, "{jobid=\"c\"}", true);
}

static void there_are_never_too_many(void **state)
{
    (void)state;
    struct error err = {0};
    cleanup_gauges struct gauges *gauges = gauges_new(&err);
    for (int i = 0; i <= GAUGES_MOST; i++) {
        char uid[32];
        snprintf(uid, sizeof uid, "%d", i);
        report(gauges, uid, (struct report_epoch){.term = 1, .epoch = 1}, 1);
    }
    assert_prints(gauges, 1, "{jobid=\"9999\"}", true);
    assert_prints(gauges, 1, "{jobid=\"10000\"}", false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_newest_epoch_is_shown),
        cmocka_unit_test(ended_and_silent_jobs_are_dropped),
        cmocka_unit_test(there_are_never_too_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
