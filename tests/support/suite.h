/*
 * suite.h - what every test file needs from Check: running a list of tests, and asserting that a
 * call went well.
 *     int main(void) {
 *         const TTest *const tests[] = { one_thing_is_so, another_is_not, NULL };
 *         return suite_run("buf", tests, 4);
 *     }
 */
#ifndef APM_TESTS_SUITE_H
#define APM_TESTS_SUITE_H

#include <check.h>

#include <apium/status.h>

/* Run each test, NULL ends the list, with a time limit in seconds for each; setup before and
 * teardown after each, which may be NULL; the exit code for main(). */
static inline int
suite_run_with(const char *name, const TTest *const *tests, double timeout_s, SFun setup,
               SFun teardown)
{
    Suite *suite = suite_create(name);
    TCase *tc = tcase_create(name);

    tcase_add_checked_fixture(tc, setup, teardown);
    for (; *tests; tests++)
        tcase_add_test(tc, *tests);
    tcase_set_timeout(tc, timeout_s);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}

static inline int
suite_run(const char *name, const TTest *const *tests, double timeout_s)
{
    return suite_run_with(name, tests, timeout_s, NULL, NULL);
}

/* The call, given `apium_error *err` last, succeeds; otherwise the test prints the call and
 * err->text. */
#define ck_ok(call)                                                                                \
    do {                                                                                           \
        apium_status ck_status_ = (call);                                                          \
        ck_assert_msg(ck_status_ == APIUM_OK, "%s: %s: %s", #call, apium_status_text(ck_status_),  \
                      err->text);                                                                  \
    } while (0)

/* The call, given `apium_error *err` last, fails with that status and says so in *err. */
#define ck_fails(call, expected)                                                                   \
    do {                                                                                           \
        apium_status ck_status_ = (call);                                                          \
        ck_assert_msg(ck_status_ == (expected), "%s: %s instead of %s (%s)", #call,                \
                      apium_status_text(ck_status_), apium_status_text(expected),                  \
                      ck_status_ ? err->text : "");                                                \
        ck_assert_int_eq(err->status, (expected));                                                 \
    } while (0)

#endif
