/* test_rate - rate limits are read as Celery reads them, and give out turns without bursts. */
#include "tests/support/suite.h"
#include "worker/rate.h"

static apium_error err[1];

START_TEST(limits_are_read_per_second_minute_and_hour)
{
    static const struct {
        const char *text;
        double per_second;
    } cases[] = { { "10", 10 },     { "10/s", 10 }, { "30/m", 0.5 }, { "36/h", 0.01 },
                  { "0.5/s", 0.5 }, { "0", 0 },     { "", 0 } };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        double per_second = -1;
        ck_ok(apm_rate_parse(apm_strz(cases[i].text), &per_second, err));
        ck_assert_double_eq_tol(per_second, cases[i].per_second, 1e-12);
    }
}
END_TEST

START_TEST(nonsense_is_refused_by_name)
{
    static const char *const texts[] = {
        "x", "10/d", "10/mm", "-1/s", "10 /s", "nan", "inf", "/s"
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        double per_second;
        ck_fails(apm_rate_parse(apm_strz(texts[i]), &per_second, err), APIUM_E_CONFIG);
        ck_assert_ptr_nonnull(strstr(err->text, texts[i]));
    }
}
END_TEST

START_TEST(turns_follow_one_another_without_bursts)
{
    const apm_task_info task = { .name = "a" }, other = { .name = "b" };
    apm_rate *rates = NULL;
    ck_assert_int_eq(apm_rate_take(&rates, &task, "2/s", 1000), 1000);
    ck_assert_int_eq(apm_rate_take(&rates, &task, "2/s", 1000), 501000);
    ck_assert_int_eq(apm_rate_take(&rates, &task, "2/s", 1000), 1001000);
    ck_assert_int_eq(apm_rate_take(&rates, &other, "2/s", 1000), 1000);
    /* After a pause one token is there, not the whole pause's. */
    ck_assert_int_eq(apm_rate_take(&rates, &task, "2/s", 99000000), 99000000);
    ck_assert_int_eq(apm_rate_take(&rates, &task, "2/s", 99000000), 99500000);
    apm_rate_free(rates);
}
END_TEST

int
main(void)
{
    const TTest *const tests[] = { limits_are_read_per_second_minute_and_hour,
                                   nonsense_is_refused_by_name,
                                   turns_follow_one_another_without_bursts, NULL };
    return suite_run("rate", tests, 4);
}
