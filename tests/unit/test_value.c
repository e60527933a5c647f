/* test_value.c - client/value: values and JSON templates becoming JSON text. */
#include "client/value.h"

#include <math.h>
#include <stdlib.h>

#include "tests/support/suite.h"

static apium_error error, *err = &error;

static apm_arena arena;

/* Out of the compiler's sight, which would warn of it. */
static const char *volatile volatile_null = NULL;

/* The value's JSON. */
static const char *
json(apium_value value)
{
    apm_json out;
    ck_ok(apm_value_take(value, &arena, &out, err));
    return out.type == APM_JSON_NONE ? "(none)" : out.text.p;
}

/* Why the value is refused. */
static const char *
refusal(apium_value value, apium_status status)
{
    apm_json out;
    ck_fails(apm_value_take(value, &arena, &out, err), status);
    return err->text;
}

START_TEST(plain_values_are_written_as_python_writes_them)
{
    ck_assert_str_eq(json(apium_null()), "null");
    ck_assert_str_eq(json(apium_bool(true)), "true");
    ck_assert_str_eq(json(apium_int(INT64_MIN)), "-9223372036854775808");
    ck_assert_str_eq(json(apium_double(1)), "1.0");
    ck_assert_str_eq(json(apium_double(0.1)), "0.1");
    ck_assert_str_eq(json(apium_double(-0.0)), "-0.0");
    ck_assert_str_eq(json(apium_double(INFINITY)), "Infinity");
    ck_assert_str_eq(json(apium_string("a \"b\" \n\xc3\xa9")), "\"a \\\"b\\\" \\n\\u00e9\"");
    ck_assert_str_eq(json(apium_stringn("a\0b", 3)), "\"a\\u0000b\"");
    ck_assert_str_eq(json(apium_string(NULL)), "null");
    ck_assert_str_eq(json((apium_value){ 0 }), "(none)");
}
END_TEST

START_TEST(json_passes_byte_for_byte)
{
    const char *text =
        "[1180591620717411303424, 1, 1.0, -0.0, 1e308, NaN, {\"b\": 1, \"a\": \"\\ud800\"}]";
    ck_assert_str_eq(json(apium_json(text)), text);
    ck_assert_str_eq(json(apium_json("  [1]\n")), "[1]");
    ck_assert_str_eq(json(apium_jsonn("[1]garbage", 3)), "[1]");
    ck_assert_str_eq(json(apium_json_take(strdup("{}"))), "{}");
}
END_TEST

START_TEST(what_is_no_json_is_refused_when_it_is_used)
{
    ck_assert_str_ne(refusal(apium_json("[1"), APIUM_E_ENCODE), "");
    ck_assert_str_ne(refusal(apium_json(""), APIUM_E_ENCODE), "");
    refusal(apium_json(NULL), APIUM_E_ENCODE);
    refusal(apium_json_take(NULL), APIUM_E_ENCODE);
    refusal(apium_string("\xff"), APIUM_E_ENCODE);
    refusal(apium_jsonf("[%d", 1), APIUM_E_ENCODE);
}
END_TEST

START_TEST(a_value_may_be_nested_as_deep_as_readers_follow)
{
    char deep[2 * 600 + 1], *p = deep;
    apm_json out;
    for (size_t depth = 509; depth <= 512; depth++) {
        memset(deep, '[', depth);
        memset(deep + depth, ']', depth);
        deep[2 * depth] = '\0';
        if (depth <= 510)
            ck_assert_str_eq(json(apium_json(deep)), deep);
        else
            ck_fails(apm_value_take(apium_json(deep), &arena, &out, err), APIUM_E_TOOBIG);
    }
    /* Brackets in strings are text. */
    *p++ = '"';
    memset(p, '[', 1100);
    memcpy(p + 550, "\\\"\\\\", 4);
    strcpy(p + 1100, "\"");
    ck_assert_str_eq(json(apium_json(deep)), deep);
}
END_TEST

START_TEST(a_template_takes_every_length_of_integer)
{
    ck_assert_str_eq(
        json(apium_jsonf("[%hhd, %hd, %d, %ld, %lld, %jd, %zd, %td]", (signed char)-1, (short)-2,
                         -3, -4L, -5LL, (intmax_t)-6, (ssize_t)-7, (ptrdiff_t)-8)),
        "[-1, -2, -3, -4, -5, -6, -7, -8]");
    ck_assert_str_eq(json(apium_jsonf("[%hhu, %hu, %u, %lu, %llu, %ju, %zu]", (unsigned char)255,
                                      (unsigned short)65535, 4294967295u, 7ul,
                                      18446744073709551615ull, (uintmax_t)9, (size_t)10)),
                     "[255, 65535, 4294967295, 7, 18446744073709551615, 9, 10]");
    ck_assert_str_eq(json(apium_jsonf("%i", 12)), "12");
}
END_TEST

START_TEST(a_template_escapes_strings)
{
    ck_assert_str_eq(json(apium_jsonf("[%s, %d]", "a\"b\\c", 128)), "[\"a\\\"b\\\\c\", 128]");
    ck_assert_str_eq(json(apium_jsonf("[%.3s, %.*s]", "abcdef", 2, "xyz")), "[\"abc\", \"xy\"]");
    ck_assert_str_eq(json(apium_jsonf("[%s]", volatile_null)), "[null]");
    ck_assert_str_eq(json(apium_jsonf("{\"k-%s\": \"v-%d-%s\"}", "a\"b", 7, "\t")),
                     "{\"k-a\\\"b\": \"v-7-\\t\"}");
    ck_assert_str_eq(json(apium_jsonf("[\"100%%\", %c]", 'x')), "[\"100%\", \"x\"]");
    /* An escaped quote of the template does not end its string. */
    ck_assert_str_eq(json(apium_jsonf("[\"a\\\"%s\"]", "b")), "[\"a\\\"b\"]");
}
END_TEST

START_TEST(a_template_keeps_floats_floats)
{
    ck_assert_str_eq(json(apium_jsonf("[%f, %g, %e]", 1.0, 0.1, 1e22)), "[1.0, 0.1, 1e+22]");
    ck_assert_str_eq(json(apium_jsonf("[%f]", NAN)), "[NaN]");
}
END_TEST

START_TEST(a_template_refuses_what_it_cannot_write)
{
    int n = 0;
    /* The formats come from variables: the compiler would refuse to let some of them pass. */
    const char *const bad[] = { "[%p]", "[%5d]", "[%-d]", "[%.2f]", "[%x]",
                                "[%n]", "[%",    "[%ls]", "[%Lf]" };
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        refusal(apium_jsonf(bad[i], &n), APIUM_E_ENCODE);
#pragma GCC diagnostic pop
    }
    ck_assert_int_eq(n, 0);
    refusal(apium_jsonf("[%s]", "\xff\xfe"), APIUM_E_ENCODE);
}
END_TEST

int
main(void)
{
    const TTest *const tests[] = {
        plain_values_are_written_as_python_writes_them,
        json_passes_byte_for_byte,
        what_is_no_json_is_refused_when_it_is_used,
        a_template_takes_every_length_of_integer,
        a_value_may_be_nested_as_deep_as_readers_follow,
        a_template_escapes_strings,
        a_template_keeps_floats_floats,
        a_template_refuses_what_it_cannot_write,
        NULL,
    };
    return suite_run("value", tests, 4);
}
