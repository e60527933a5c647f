/* test_ids.c - core/base/ids */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/ids.h"
#include "tests/support/suite.h"

START_TEST(a_uuid_has_the_form_of_version_4)
{
    for (int i = 0; i < 2000; i++) {
        char id[APM_UUID_LEN + 1];
        apm_uuid4(id);
        ck_assert_uint_eq(strlen(id), APM_UUID_LEN);
        for (int k = 0; k < APM_UUID_LEN; k++) {
            if (k == 8 || k == 13 || k == 18 || k == 23)
                ck_assert_int_eq(id[k], '-');
            else
                ck_assert_msg(strchr("0123456789abcdef", id[k]), "%s", id);
        }
        ck_assert_int_eq(id[14], '4');
        ck_assert_msg(strchr("89ab", id[19]), "%s", id);
    }
}
END_TEST

static int
compare(const void *a, const void *b)
{
    return memcmp(a, b, APM_UUID_LEN + 1);
}

START_TEST(a_uuid_of_version_7_tells_its_time)
{
    char id[APM_UUID_LEN + 1], four[APM_UUID_LEN + 1];

    apm_uuid7(INT64_C(1795910400123456), id);
    ck_assert_int_eq(strlen(id), APM_UUID_LEN);
    ck_assert_int_eq(id[14], '7');
    ck_assert_ptr_nonnull(strchr("89ab", id[19]));
    ck_assert_int_eq(apm_uuid7_time_us(id, APM_UUID_LEN), INT64_C(1795910400123000));
    apm_uuid4(four);
    ck_assert_int_eq(apm_uuid7_time_us(four, APM_UUID_LEN), 0);
    ck_assert_int_eq(apm_uuid7_time_us(id, APM_UUID_LEN - 1), 0);
    id[3] = 'x';
    ck_assert_int_eq(apm_uuid7_time_us(id, APM_UUID_LEN), 0);
    ck_assert_int_eq(apm_uuid7_time_us("", 0), 0);
}
END_TEST

START_TEST(uuids_do_not_repeat)
{
    enum { N = 50000 };
    char(*ids)[APM_UUID_LEN + 1] = calloc(N, sizeof(*ids));

    for (int i = 0; i < N; i++)
        apm_uuid4(ids[i]);
    qsort(ids, N, sizeof(*ids), compare);
    for (int i = 1; i < N; i++)
        ck_assert_str_ne(ids[i - 1], ids[i]);
    free(ids);
}
END_TEST

START_TEST(a_forked_child_makes_other_ids_than_its_parent)
{
    char ours[APM_UUID_LEN + 1], theirs[APM_UUID_LEN + 1];
    int fd[2], status;

    apm_uuid4(ours); /* so that there is something to inherit */
    ck_assert_int_eq(pipe(fd), 0);
    pid_t pid = fork();
    if (pid == 0) {
        apm_uuid4(theirs);
        _exit(write(fd[1], theirs, sizeof(theirs)) == (ssize_t)sizeof(theirs) ? 0 : 1);
    }
    apm_uuid4(ours);
    ck_assert_int_eq(read(fd[0], theirs, sizeof(theirs)), (ssize_t)sizeof(theirs));
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    ck_assert_str_ne(ours, theirs);
    close(fd[0]);
    close(fd[1]);
}
END_TEST

static void *
make_id(void *arg)
{
    apm_uuid4(arg);
    return NULL;
}

START_TEST(threads_make_different_ids)
{
    char a[APM_UUID_LEN + 1], b[APM_UUID_LEN + 1];
    pthread_t ta, tb;

    ck_assert_int_eq(pthread_create(&ta, NULL, make_id, a), 0);
    ck_assert_int_eq(pthread_create(&tb, NULL, make_id, b), 0);
    pthread_join(ta, NULL);
    pthread_join(tb, NULL);
    ck_assert_str_ne(a, b);
}
END_TEST

START_TEST(random_units_lie_between_0_and_1_and_fill_it)
{
    double low = 1, high = 0, sum = 0;

    for (int i = 0; i < 10000; i++) {
        double v = apm_random_unit();
        ck_assert(v >= 0 && v < 1);
        low = v < low ? v : low;
        high = v > high ? v : high;
        sum += v;
    }
    ck_assert(low < 0.01 && high > 0.99);
    ck_assert(sum > 4700 && sum < 5300); /* ten standard deviations */
}
END_TEST

int
main(void)
{
    const TTest *const tests[] = {
        a_uuid_has_the_form_of_version_4,
        a_uuid_of_version_7_tells_its_time,
        uuids_do_not_repeat,
        a_forked_child_makes_other_ids_than_its_parent,
        threads_make_different_ids,
        random_units_lie_between_0_and_1_and_fill_it,
        NULL,
    };
    return suite_run("ids", tests, 10);
}
