/* test_json_repr.c - core/base/json_repr: Celery's saferepr() */
#include "core/base/json.h"
#include "tests/support/suite.h"

static apium_error error, *err = &error;

static apm_json
parse(const char *text)
{
    apm_json val;

    ck_ok(apm_json_parse(apm_strz(text), &val, err));
    return val;
}

START_TEST(a_value_is_shown_as_celery_shows_it)
{
    /* What saferepr(json.loads(text), max) of Celery 5.2.6 gives; as a tuple where it says so. */
    static const struct {
        const char *text;
        bool tuple;
        size_t max;
        const char *repr;
        size_t len;
    } known[] = {
        { "[2, 3]", true, 1024, "(2, 3)", 6 },
        { "[2]", true, 1024, "(2,)", 4 },
        { "[]", true, 1024, "()", 2 },
        { "[2, 3]", false, 1024, "[2, 3]", 6 },
        { "{\"y\": 3}", false, 1024, "{'y': 3}", 8 },
        { "{}", false, 1024, "{}", 2 },
        { "null", false, 0, "None", 4 },
        { "[true, false, null]", false, 0, "[True, False, None]", 19 },
        { "[1.0, -0.0, 1e22, 1E-7, NaN, -Infinity, 1e999]", false, 0,
          "[1.0, -0.0, 1e+22, 1e-07, nan, -inf, inf]", 41 },
        { "[-0, 1208925819614629174706176]", false, 0, "[0, 1208925819614629174706176]", 30 },
        { "\"it's \\\"quoted\\\" \\\\ \\n\"", false, 0, "'it\\'s \"quoted\" \\ \012'", 20 },
        { "[\"\\u00e9\\u20ac\", \"\\ud83d\\ude00\", \"\\ud800\"]", true, 1024,
          "('\303\251\342\202\254', '\360\237\230\200', '\355\240\200')", 24 },
        { "[[[[1]]]]", false, 0, "[[[[...]]]]", 11 },
        { "[[[[]]]]", true, 0, "([[[...]]],)", 12 },
        { "{\"a\": {\"b\": {\"c\": {\"d\": 1}, \"e\": [2]}}}", false, 0,
          "{'a': {'b': {'c': {...}, 'e': [...]}}}", 38 },
        { "[[[1, \"x\", [2], {\"k\": 3}]]]", true, 1024, "([[1, 'x', [...], {...}]],)", 27 },
        { "[\"one two three four\"]", true, 10, "('one two...', ...", 18 },
        { "[\"onetwothreefour\"]", true, 10, "('onetwothr...', ...", 20 },
        { "[\" leading\"]", true, 4, "('...', ...", 11 },
        { "[\"exactly10c\", 2]", true, 11, "('exactly10c...', ...)", 22 },
        { "[\"exactly10c\", 2]", true, 12, "('exactly10c', ...)", 19 },
        { "[123456789, 2]", true, 5, "(1234..., ...)", 14 },
        { "[1, 2, 3, 4, 5]", true, 6, "(1, 2, , ...)", 13 },
        { "[1, 2, 3, 4, 5]", true, 7, "(1, 2, , ...)", 13 },
        { "[1, 2, 3, 4, 5]", true, 8, "(1, 2, 3..., ...)", 17 },
        { "[1]", true, 2, "(1..., ...", 10 },
        { "[1]", true, 1, "(, ...,)", 8 },
        { "[[1, 2], [3, 4]]", true, 3, "([1..., ...])", 13 },
        { "[[1, 2], [3, 4]]", true, 8, "([1, 2], , ...])", 16 },
        { "{\"key\": \"value\", \"other\": [1, 2]}", false, 6, "{'key', ...}", 12 },
        { "{\"key\": \"value\", \"other\": [1, 2]}", false, 8, "{'key': , ...}", 14 },
        { "{\"key\": \"value\", \"other\": [1, 2]}", false, 9, "{'key': 'v...', ...}", 20 },
        { "{\"key\": \"value\", \"other\": [1, 2]}", false, 21, "{'key': 'value', 'othe...', ...}",
          32 },
        { "{\"key\": \"value\", \"other\": [1, 2]}", false, 26, "{'key': 'value', 'other': , ...]}",
          33 },
        { "{\"it's\": \"a 'b' c d\"}", false, 14, "{'it\\'s': 'a...', ...", 21 },
        { "[[[[1]]], \"x\"]", false, 6, "[[[[....., ...]]", 16 },
        { "[{\"a\": [{\"b\": 1}]}]", true, 9, "({'a': [{..., ...},)", 20 },
        { "\"\\u00e9\\u00e9\\u00e9\\u00e9\"", false, 3, "'\303\251\303\251\303\251...'", 11 },
        { "\"\\u00e9\\u00e9\\u00e9\\u00e9\"", false, 4, "'\303\251\303\251\303\251\303\251...'",
          13 },
        { "\"\\u00e9\\u00e9\\u00e9\\u00e9\"", false, 5, "'\303\251\303\251\303\251\303\251'", 10 },
        { "true", false, 2, "Tr...", 5 },
        { "[[]]", false, 1, "[, ...]]", 8 },
        { "[\"a\\u0000b\"]", false, 0, "['a\000b']", 7 },
    };

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        apm_buf buf = { 0 };
        apm_json_repr(&buf, parse(known[i].text), known[i].tuple, known[i].max);
        ck_assert_msg(buf.len == known[i].len && memcmp(buf.p, known[i].repr, buf.len) == 0,
                      "%s, %zu: %s instead of %s", known[i].text, known[i].max, buf.p,
                      known[i].repr);
        apm_buf_clear(&buf);
    }
}
END_TEST

START_TEST(a_value_is_shown_as_python_shows_it)
{
    /* What repr(json.loads(text)) of Python 3.11 gives. */
    static const struct {
        const char *text, *repr;
    } known[] = {
        { "\"it's\"", "\"it's\"" },
        { "\"it's \\\"quoted\\\" \\\\ \\n\"", "'it\\'s \"quoted\" \\\\ \\n'" },
        { "\"\\\"\"", "'\"'" },
        { "\"\\u0000\\u001f\\u007f\\u00a0\\u00ad\\t\\r\"", "'\\x00\\x1f\\x7f\\xa0\\xad\\t\\r'" },
        { "\"\\u00e9\\ud83d\\ude00\\ud800\\u200b\\ue000\"",
          "'\303\251\360\237\230\200\\ud800\\u200b\\ue000'" },
        { "[[[[[1, -0, 1.0, 1e22, NaN, -Infinity]]]], {\"a'b\": {}}, true, null]",
          "[[[[[1, 0, 1.0, 1e+22, nan, -inf]]]], {\"a'b\": {}}, True, None]" },
    };

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        apm_buf buf = { 0 };
        apm_json_python(&buf, parse(known[i].text));
        ck_assert_str_eq(buf.p, known[i].repr);
        apm_buf_clear(&buf);
    }
}
END_TEST

START_TEST(a_huge_value_is_cut_and_closed)
{
    apm_buf text = { 0 }, repr = { 0 };

    apm_buf_addc(&text, '[');
    for (int i = 0; i < 100000; i++)
        apm_buf_addf(&text, "%s{\"key%d\": [[[\"]\"]]]}", i ? "," : "", i);
    apm_buf_addc(&text, ']');
    apm_json_repr(&repr, parse(text.p), true, 1024);
    ck_assert_uint_gt(repr.len, 1024);
    ck_assert_uint_lt(repr.len, 1100);
    ck_assert_mem_eq(repr.p, "({'key0': [[...]]}, {'key1'", 27);
    ck_assert_int_eq(repr.p[repr.len - 1], ')');
    apm_buf_clear(&text);
    apm_buf_clear(&repr);
}
END_TEST

START_TEST(the_deepest_value_is_abbreviated)
{
    char text[2 * APM_JSON_DEPTH + 1] = { 0 };
    apm_buf buf = { 0 };

    memset(text, '[', APM_JSON_DEPTH);
    memset(text + APM_JSON_DEPTH, ']', APM_JSON_DEPTH);
    apm_json_repr(&buf, parse(text), false, 0);
    ck_assert_str_eq(buf.p, "[[[[...]]]]");
    apm_buf_clear(&buf);
}
END_TEST

START_TEST(a_full_buffer_fails_quietly)
{
    apm_buf buf;

    apm_buf_init(&buf, 10);
    apm_json_repr(&buf, parse("[\"a string that does not fit\", {\"a\": 1}]"), true, 1024);
    ck_assert(buf.failed);
    apm_buf_clear(&buf);
}
END_TEST

int
main(void)
{
    const TTest *const tests[] = {
        a_value_is_shown_as_celery_shows_it, a_value_is_shown_as_python_shows_it,
        a_huge_value_is_cut_and_closed,      the_deepest_value_is_abbreviated,
        a_full_buffer_fails_quietly,         NULL,
    };
    return suite_run("json_repr", tests, 10);
}
