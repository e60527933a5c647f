/* test_json_write.c - core/base/json_write: Python's json.dumps */
#include <math.h>

#include "core/base/json.h"
#include "tests/support/suite.h"

static const char *
string_of(const char *p, size_t len)
{
    static apm_buf buf;

    apm_buf_reset(&buf);
    apm_json_add_string(&buf, (apm_str){ p, len });
    return buf.failed ? NULL : buf.p;
}

START_TEST(strings_are_ascii_with_pythons_escapes)
{
    ck_assert_str_eq(string_of("", 0), "\"\"");
    ck_assert_str_eq(string_of("plain, with / and ' and ~", 25), "\"plain, with / and ' and ~\"");
    ck_assert_str_eq(string_of("\"\\\n\r\t\b\f", 7), "\"\\\"\\\\\\n\\r\\t\\b\\f\"");
    ck_assert_str_eq(string_of("a\0\x01\x1f\x7f", 5), "\"a\\u0000\\u0001\\u001f\\u007f\"");
    ck_assert_str_eq(string_of("a long run of plain text, DEL \x7f and on", 38),
                     "\"a long run of plain text, DEL \\u007f and on\"");
    ck_assert_str_eq(string_of("\xc3\xa9\xe2\x82\xac", 5), "\"\\u00e9\\u20ac\"");
    ck_assert_str_eq(string_of("\xf0\x9f\x98\x80\xf4\x8f\xbf\xbf", 8),
                     "\"\\ud83d\\ude00\\udbff\\udfff\"");
    ck_assert_str_eq(string_of("\xed\xa0\xbd", 3), "\"\\ud83d\"");
    ck_assert_str_eq(string_of("x\xed\xb8\x80y", 5), "\"x\\ude00y\"");
}
END_TEST

START_TEST(bytes_that_are_not_text_fail_the_buffer)
{
    ck_assert_ptr_null(string_of("\xff", 1));
    ck_assert_ptr_null(string_of("abc\xc3", 4));
    ck_assert_ptr_null(string_of("\xc0\x80", 2));
    ck_assert_ptr_null(string_of("abc\x80", 4));
}
END_TEST

START_TEST(integers_are_printed_whole)
{
    apm_buf buf = { 0 };

    apm_json_add_int(&buf, 0);
    apm_buf_addc(&buf, ' ');
    apm_json_add_int(&buf, -7);
    apm_buf_addc(&buf, ' ');
    apm_json_add_int(&buf, INT64_MAX);
    apm_buf_addc(&buf, ' ');
    apm_json_add_int(&buf, INT64_MIN);
    ck_assert_str_eq(buf.p, "0 -7 9223372036854775807 -9223372036854775808");
    apm_buf_clear(&buf);
}
END_TEST

START_TEST(doubles_are_printed_as_python_prints_them)
{
    static const struct {
        double value;
        const char *text;
    } known[] = {
        { 0.0, "0.0" },
        { -0.0, "-0.0" },
        { 1.0, "1.0" },
        { -1.5, "-1.5" },
        { 0.1, "0.1" },
        { 0.1 + 0.2, "0.30000000000000004" },
        { 1e22, "1e+22" },
        { 1e-7, "1e-07" },
        { 1e16, "1e+16" },
        { 9999999999999998.0, "9999999999999998.0" },
        { 1e15, "1000000000000000.0" },
        { 123456789012345680.0, "1.2345678901234568e+17" },
        { 0.0001, "0.0001" },
        { 0.00001, "1e-05" },
        { 0.00012345, "0.00012345" },
        { 1234.5678, "1234.5678" },
        { 100.0, "100.0" },
        { 1.7976931348623157e308, "1.7976931348623157e+308" },
        { -1.7976931348623157e308, "-1.7976931348623157e+308" },
        { 2.2250738585072014e-308, "2.2250738585072014e-308" },
        { 5e-324, "5e-324" },
        { 1.5e-323, "1.5e-323" },
        { 2.225073858507201e-308, "2.225073858507201e-308" },
        { 9007199254740993.0, "9007199254740992.0" },
        { 0x1p-1017, "7.120236347223045e-307" }, /* the nearest 16 digits end in ...4 */
        { 0x1p-44, "5.684341886080802e-14" },
        { 0x1p+996, "6.696928794914171e+299" },
        { 1.0 / 3, "0.3333333333333333" },
        { 2.0 / 3, "0.6666666666666666" },
        { NAN, "NaN" },
        { INFINITY, "Infinity" },
        { -INFINITY, "-Infinity" },
    };

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        apm_buf buf = { 0 };
        apm_json_add_double(&buf, known[i].value);
        ck_assert_str_eq(buf.p, known[i].text);
        apm_buf_clear(&buf);
    }
}
END_TEST

START_TEST(keys_bring_the_comma_that_is_due)
{
    apm_buf buf = { 0 };

    apm_buf_addc(&buf, '{');
    apm_json_add_key(&buf, "a{");
    apm_json_add_stringz(&buf, "{");
    apm_json_add_key(&buf, "b");
    apm_buf_addc(&buf, '{');
    apm_json_add_key(&buf, "c\"");
    apm_json_add_stringz(&buf, NULL);
    apm_buf_addz(&buf, "}}");
    ck_assert_str_eq(buf.p, "{\"a{\": \"{\", \"b\": {\"c\\\"\": null}}");
    apm_buf_clear(&buf);
}
END_TEST

int
main(void)
{
    const TTest *const tests[] = {
        strings_are_ascii_with_pythons_escapes,
        bytes_that_are_not_text_fail_the_buffer,
        integers_are_printed_whole,
        doubles_are_printed_as_python_prints_them,
        keys_bring_the_comma_that_is_due,
        NULL,
    };
    return suite_run("json_write", tests, 10);
}
