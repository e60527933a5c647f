/* test_buf.c - core/base/buf */
#include <stdlib.h>

#include "core/base/buf.h"
#include "tests/support/suite.h"

START_TEST(what_is_appended_is_there_and_terminated)
{
    apm_buf buf;

    apm_buf_init(&buf, 1000);
    apm_buf_addz(&buf, "one ");
    apm_buf_add(&buf, "two\0", 4);
    apm_buf_addc(&buf, ' ');
    apm_buf_addf(&buf, "%d", 3);
    apm_buf_adds(&buf, APM_STR_NONE);
    ck_assert_uint_eq(buf.len, 10);
    ck_assert_mem_eq(buf.p, "one two\0 3", 11);
    apm_buf_clear(&buf);
}
END_TEST

START_TEST(it_grows_over_many_appends)
{
    apm_buf buf;

    apm_buf_init(&buf, 1 << 20);
    for (int i = 0; i < 100000; i++)
        apm_buf_addc(&buf, (char)('a' + i % 26));
    ck_assert(!buf.failed);
    ck_assert_uint_eq(buf.len, 100000);
    for (int i = 0; i < 100000; i++)
        if (buf.p[i] != 'a' + i % 26)
            ck_abort_msg("byte %d was lost", i);
    apm_buf_clear(&buf);
}
END_TEST

START_TEST(a_formatted_text_longer_than_the_room_is_whole)
{
    apm_buf buf;
    char long_text[3000];

    memset(long_text, 'x', sizeof(long_text) - 1);
    long_text[sizeof(long_text) - 1] = '\0';
    apm_buf_init(&buf, 10000);
    apm_buf_addf(&buf, "<%s>", long_text);
    ck_assert_uint_eq(buf.len, sizeof(long_text) + 1);
    ck_assert_int_eq(buf.p[buf.len - 1], '>');
    ck_assert_int_eq(buf.p[buf.len], '\0');
    apm_buf_clear(&buf);
}
END_TEST

START_TEST(the_limit_can_be_filled_and_not_passed)
{
    apm_buf buf;

    apm_buf_init(&buf, 8);
    apm_buf_add(&buf, "12345678", 8);
    ck_assert(!buf.failed);
    apm_buf_addc(&buf, '9');
    ck_assert(buf.failed);
    ck_assert_str_eq(buf.p, "12345678");
    apm_buf_clear(&buf);
}
END_TEST

START_TEST(a_failure_is_remembered_until_reset)
{
    apm_buf buf;
    size_t len = 77;

    apm_buf_init(&buf, 8);
    apm_buf_addz(&buf, "too long for it");
    apm_buf_addz(&buf, "ok");
    apm_buf_addf(&buf, "ok");
    ck_assert(buf.failed);
    ck_assert_uint_eq(buf.len, 0);
    ck_assert_ptr_null(apm_buf_reserve(&buf, 1));
    apm_buf_reset(&buf);
    apm_buf_addz(&buf, "ok");
    ck_assert_str_eq(buf.p, "ok");
    apm_buf_addz(&buf, "too long for it");
    ck_assert_ptr_null(apm_buf_take(&buf, &len));
    ck_assert_uint_eq(len, 77);
    ck_assert_ptr_null(buf.p);
}
END_TEST

START_TEST(a_formatted_text_over_the_limit_leaves_what_was_there)
{
    apm_buf buf;

    apm_buf_init(&buf, 300);
    apm_buf_addz(&buf, "kept");
    apm_buf_addf(&buf, "%400d", 1);
    ck_assert(buf.failed);
    ck_assert_str_eq(buf.p, "kept");
    apm_buf_clear(&buf);
}
END_TEST

START_TEST(a_length_that_would_wrap_around_fails)
{
    apm_buf buf;

    apm_buf_init(&buf, SIZE_MAX);
    apm_buf_addz(&buf, "x");
    ck_assert_ptr_null(apm_buf_reserve(&buf, SIZE_MAX));
    ck_assert(buf.failed);
    apm_buf_clear(&buf);
}
END_TEST

START_TEST(taking_moves_the_storage_out)
{
    apm_buf buf;
    size_t len;

    apm_buf_init(&buf, 100);
    apm_buf_addz(&buf, "mine");
    char *p = apm_buf_take(&buf, &len);
    ck_assert_str_eq(p, "mine");
    ck_assert_uint_eq(len, 4);
    ck_assert_ptr_null(buf.p);
    apm_buf_addz(&buf, "again");
    ck_assert_str_eq(buf.p, "again");
    free(p);
    apm_buf_clear(&buf);
}
END_TEST

START_TEST(taking_from_an_empty_buffer_gives_an_empty_string)
{
    apm_buf buf = { 0 };
    size_t len = 1;

    char *p = apm_buf_take(&buf, &len);
    ck_assert_str_eq(p, "");
    ck_assert_uint_eq(len, 0);
    free(p);
}
END_TEST

START_TEST(reserved_room_is_used_by_moving_the_length)
{
    apm_buf buf;

    apm_buf_init(&buf, 100);
    char *room = apm_buf_reserve(&buf, 5);
    memcpy(room, "hello", 5);
    buf.len += 5;
    apm_buf_addc(&buf, '!');
    ck_assert_str_eq(buf.p, "hello!");
    apm_buf_clear(&buf);
}
END_TEST

START_TEST(a_zeroed_buffer_works_and_may_be_cleared)
{
    apm_buf buf = { 0 };

    apm_buf_clear(&buf);
    ck_assert_str_eq(apm_buf_str(&buf).p, "");
    apm_buf_addz(&buf, "x");
    ck_assert_str_eq(buf.p, "x");
    apm_buf_clear(&buf);
}
END_TEST

int
main(void)
{
    const TTest *const tests[] = {
        what_is_appended_is_there_and_terminated,
        it_grows_over_many_appends,
        a_formatted_text_longer_than_the_room_is_whole,
        the_limit_can_be_filled_and_not_passed,
        a_failure_is_remembered_until_reset,
        a_formatted_text_over_the_limit_leaves_what_was_there,
        a_length_that_would_wrap_around_fails,
        taking_moves_the_storage_out,
        taking_from_an_empty_buffer_gives_an_empty_string,
        reserved_room_is_used_by_moving_the_length,
        a_zeroed_buffer_works_and_may_be_cleared,
        NULL,
    };
    return suite_run("buf", tests, 4);
}
