/* test_json.c - core/base/json*: scanning, walking and reading */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/base/ids.h"
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

static void
ck_str(apm_str s, const char *expected)
{
    ck_assert_msg(apm_str_eqz(s, expected), "\"%.*s\" instead of \"%s\"", APM_STR_ARG(s), expected);
}

START_TEST(every_kind_of_value_is_recognised_and_sliced)
{
    static const struct {
        const char *text;
        apm_json_type type;
        const char *slice;
    } known[] = {
        { "null", APM_JSON_NULL, "null" },
        { " \t\r\ntrue \n", APM_JSON_BOOL, "true" },
        { "false", APM_JSON_BOOL, "false" },
        { "0", APM_JSON_INT, "0" },
        { "-0", APM_JSON_INT, "-0" },
        { "1208925819614629174706176", APM_JSON_INT, "1208925819614629174706176" },
        { "1.0", APM_JSON_FLOAT, "1.0" },
        { "1e5", APM_JSON_FLOAT, "1e5" },
        { "-1.5E+10", APM_JSON_FLOAT, "-1.5E+10" },
        { "0e-1", APM_JSON_FLOAT, "0e-1" },
        { "NaN", APM_JSON_FLOAT, "NaN" },
        { "Infinity", APM_JSON_FLOAT, "Infinity" },
        { "-Infinity", APM_JSON_FLOAT, "-Infinity" },
        { "\"\"", APM_JSON_STRING, "\"\"" },
        { " \"a\\u0000\\ud800\\\"\\\\\\/\\b\\f\\n\\r\\t\" ", APM_JSON_STRING,
          "\"a\\u0000\\ud800\\\"\\\\\\/\\b\\f\\n\\r\\t\"" },
        { "\"\x7f \xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80\"", APM_JSON_STRING,
          "\"\x7f \xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80\"" },
        { "[]", APM_JSON_ARRAY, "[]" },
        { "[ ]", APM_JSON_ARRAY, "[ ]" },
        { "{ }", APM_JSON_OBJECT, "{ }" },
        { " [1 , [ ] ,{ } , [ [ ] ], { \"a\" : 1 , \"a\":[2]}] ", APM_JSON_ARRAY,
          "[1 , [ ] ,{ } , [ [ ] ], { \"a\" : 1 , \"a\":[2]}]" },
    };

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        apm_json val = parse(known[i].text);
        ck_assert_int_eq(val.type, known[i].type);
        ck_str(val.text, known[i].slice);
    }
}
END_TEST

START_TEST(malformed_text_is_refused_with_its_place)
{
    static const struct {
        const char *text, *why;
    } known[] = {
        { "", "expected a value at byte 0" },
        { "  ", "expected a value at byte 2" },
        { "nul", "expected a value at byte 0" },
        { "nulL", "expected a value at byte 0" },
        { "True", "expected a value at byte 0" },
        { "nan", "expected a value at byte 0" },
        { "-NaN", "expected a value at byte 0" },
        { "+1", "expected a value at byte 0" },
        { "-", "expected a value at byte 0" },
        { "-Inf", "expected a value at byte 1" },
        { ".5", "expected a value at byte 0" },
        { "1.", "expected a digit at byte 2" },
        { "1.e5", "expected a digit at byte 2" },
        { "1e", "expected a digit at byte 2" },
        { "1e+", "expected a digit at byte 3" },
        { "01", "extra data at byte 1" },
        { "0x1", "extra data at byte 1" },
        { "1 2", "extra data at byte 2" },
        { "nullx", "extra data at byte 4" },
        { "\"", "unterminated string at byte 0" },
        { " \"abc", "unterminated string at byte 1" },
        { "\"abc\\", "unterminated string at byte 0" },
        { "\"abc\\\"", "unterminated string at byte 0" },
        { "'a'", "expected a value at byte 0" },
        { "\"\\x\"", "bad escape at byte 1" },
        { "\"\\u12\"", "bad \\u escape at byte 1" },
        { "\"\\u12g4\"", "bad \\u escape at byte 1" },
        { "\"\\u", "bad \\u escape at byte 1" },
        { "\"a\nb\"", "control character in a string at byte 2" },
        { "\"0123456789abcdef\x01\"", "control character in a string at byte 17" },
        { "\"\x80\"", "invalid UTF-8 at byte 1" },
        { "\"\xc3\"", "invalid UTF-8 at byte 1" },
        { "\"\xc0\x80\"", "invalid UTF-8 at byte 1" },
        { "\"\xe0\x80\x80\"", "invalid UTF-8 at byte 1" },
        { "\"\xed\xa0\x80\"", "invalid UTF-8 at byte 1" },
        { "\"\xf0\x80\x80\x80\"", "invalid UTF-8 at byte 1" },
        { "\"\xf4\x90\x80\x80\"", "invalid UTF-8 at byte 1" },
        { "\"\xf5\x80\x80\x80\"", "invalid UTF-8 at byte 1" },
        { "\"\xff\"", "invalid UTF-8 at byte 1" },
        { "\xef\xbb\xbf[]", "expected a value at byte 0" },
        { "[", "expected a value at byte 1" },
        { "[1", "expected ',' or ']' at byte 2" },
        { "[1,", "expected a value at byte 3" },
        { "[1,]", "expected a value at byte 3" },
        { "[,1]", "expected a value at byte 1" },
        { "[1 2]", "expected ',' or ']' at byte 3" },
        { "[1}", "expected ',' or ']' at byte 2" },
        { "]", "expected a value at byte 0" },
        { "{", "expected a string as key at byte 1" },
        { "{1:2}", "expected a string as key at byte 1" },
        { "{\"a\"}", "expected ':' at byte 4" },
        { "{\"a\":}", "expected a value at byte 5" },
        { "{\"a\":1,}", "expected a string as key at byte 7" },
        { "{\"a\":1 \"b\":2}", "expected ',' or '}' at byte 7" },
        { "{\"a\":1]", "expected ',' or '}' at byte 6" },
        { "{\"a\":[1,{\"b\":[}]}]}", "expected a value at byte 14" },
        { "[]]", "extra data at byte 2" },
        { "[/* no */]", "expected a value at byte 1" },
    };

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        apm_json val;
        char expected[300];
        snprintf(expected, sizeof(expected), "cannot parse JSON: %s", known[i].why);
        ck_fails(apm_json_parse(apm_strz(known[i].text), &val, err), APIUM_E_DECODE);
        ck_assert_str_eq(err->text, expected);
    }
}
END_TEST

START_TEST(a_nul_byte_is_not_the_end_of_the_text)
{
    apm_json val;

    ck_fails(apm_json_parse((apm_str){ "1\0", 2 }, &val, err), APIUM_E_DECODE);
    ck_fails(apm_json_parse((apm_str){ "\"a\0b\"", 5 }, &val, err), APIUM_E_DECODE);
    ck_fails(apm_json_parse(APM_STR_NONE, &val, err), APIUM_E_DECODE);
}
END_TEST

START_TEST(nesting_is_accepted_to_the_bound_and_refused_beyond)
{
    char text[2 * APM_JSON_DEPTH + 8];
    apm_json val;

    memset(text, '[', APM_JSON_DEPTH);
    memset(text + APM_JSON_DEPTH, ']', APM_JSON_DEPTH);
    ck_ok(apm_json_parse((apm_str){ text, 2 * APM_JSON_DEPTH }, &val, err));
    memset(text, '[', APM_JSON_DEPTH + 1);
    memset(text + APM_JSON_DEPTH + 1, ']', APM_JSON_DEPTH + 1);
    ck_fails(apm_json_parse((apm_str){ text, 2 * APM_JSON_DEPTH + 2 }, &val, err), APIUM_E_TOOBIG);
    ck_assert_str_eq(err->text, "cannot parse JSON: nested too deep at byte 512");

    /* Walking sees the same bound. */
    apm_json_iter it;
    ck_ok(apm_json_open(&it, (apm_str){ text, 2 * APM_JSON_DEPTH + 2 }, err));
    ck_assert_int_eq(apm_json_next(&it, NULL, &val, err), -1);
    ck_assert_int_eq(err->status, APIUM_E_TOOBIG);
}
END_TEST

START_TEST(ten_thousand_levels_of_objects_are_refused)
{
    apm_buf buf = { 0 };
    apm_json val;

    for (int i = 0; i < 10000; i++)
        apm_buf_addz(&buf, "{\"a\":");
    ck_fails(apm_json_parse(apm_buf_str(&buf), &val, err), APIUM_E_TOOBIG);
    apm_buf_clear(&buf);
}
END_TEST

START_TEST(walking_an_object_yields_each_member_in_order)
{
    apm_json_iter it;
    apm_str key;
    apm_json val;

    ck_ok(apm_json_open(&it, APM_STR(" { \"a\" : 1 , \"b\\n\":[2, {}],\"a\":null } "), err));
    ck_assert_int_eq(apm_json_next(&it, &key, &val, err), 1);
    ck_str(key, "\"a\"");
    ck_str(val.text, "1");
    ck_assert_int_eq(val.type, APM_JSON_INT);
    ck_assert_int_eq(apm_json_next(&it, &key, &val, err), 1);
    ck_str(key, "\"b\\n\"");
    ck_str(val.text, "[2, {}]");
    ck_assert_int_eq(val.type, APM_JSON_ARRAY);
    ck_assert_int_eq(apm_json_next(&it, &key, &val, err), 1);
    ck_str(key, "\"a\"");
    ck_assert_int_eq(val.type, APM_JSON_NULL);
    ck_assert_int_eq(apm_json_next(&it, &key, &val, err), 0);
    ck_assert_int_eq(apm_json_next(&it, &key, &val, err), 0);
}
END_TEST

START_TEST(walking_an_array_yields_items_without_keys)
{
    apm_json_iter it;
    apm_str key;
    apm_json val;

    ck_ok(apm_json_open(&it, APM_STR("[true,\"x\"]"), err));
    ck_assert_int_eq(apm_json_next(&it, &key, &val, err), 1);
    ck_assert(!apm_str_is(key));
    ck_assert_int_eq(apm_json_next(&it, NULL, &val, err), 1);
    ck_str(val.text, "\"x\"");
    ck_assert_int_eq(apm_json_next(&it, &key, &val, err), 0);
    ck_ok(apm_json_open(&it, APM_STR("[ ]"), err));
    ck_assert_int_eq(apm_json_next(&it, &key, &val, err), 0);
}
END_TEST

START_TEST(walking_refuses_what_parsing_refuses)
{
    static const char *const bad[] = {
        "[",           "{",       "[1",    "[1,",         "[1,]",        "[,]",
        "[1}",         "{\"a\"}", "{,}",   "{\"a\":}",    "{\"a\":1,}",  "{\"a\":1]",
        "[] x",        "[1] []",  "[[}]",  "{\"\\x\":1}", "[1 2]",       "[\"a]",
        "[1,2] trail", "{} {}",   "[nul]", "[tru",        "{\"a\":1:2}", "[01]",
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        apm_json_iter it;
        apm_json val;
        int more;
        ck_ok(apm_json_open(&it, apm_strz(bad[i]), err));
        while ((more = apm_json_next(&it, NULL, &val, err)) > 0)
            ;
        ck_assert_msg(more == -1, "%s", bad[i]);
        ck_assert_int_eq(err->status, APIUM_E_DECODE);
    }
}
END_TEST

START_TEST(only_containers_can_be_walked)
{
    static const char *const bad[] = { "", " ", "1", "\"[]\"", "null", "x", "]" };

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        apm_json_iter it;
        ck_fails(apm_json_open(&it, apm_strz(bad[i]), err), APIUM_E_DECODE);
        ck_assert_ptr_nonnull(strstr(err->text, "expected an array or object"));
    }
}
END_TEST

START_TEST(keys_are_compared_by_what_they_mean)
{
    ck_assert(apm_json_key_is(APM_STR("\"abc\""), "abc"));
    ck_assert(apm_json_key_is(APM_STR("\"\""), ""));
    ck_assert(!apm_json_key_is(APM_STR("\"abc\""), "ab"));
    ck_assert(!apm_json_key_is(APM_STR("\"abc\""), "abcd"));
    ck_assert(!apm_json_key_is(APM_STR("\"abc\""), "Abc"));
    ck_assert(apm_json_key_is(APM_STR("\"a\\u0062c\""), "abc"));
    ck_assert(apm_json_key_is(APM_STR("\"\\u00e9\\ud83d\\ude00\""), "\xc3\xa9\xf0\x9f\x98\x80"));
    ck_assert(apm_json_key_is(APM_STR("\"a\\\\n\""), "a\\n"));
    ck_assert(!apm_json_key_is(APM_STR("\"a\\n\""), "a\\n"));
    ck_assert(apm_json_key_is(APM_STR("\"a\\n\""), "a\n"));
    ck_assert(!apm_json_key_is(APM_STR("\"a\\u0000\""), "a"));
    ck_assert(!apm_json_key_is(APM_STR("\"a\\u0000b\""), "a"));
}
END_TEST

START_TEST(the_last_member_of_a_name_is_the_one)
{
    apm_json obj =
        parse("{\"x\": 1, \"y\": {\"x\": [\"}\"]}, \"\\u0078\" : \"\\\\\\\"\" , \"z\":2.5}");

    ck_str(apm_json_get(obj, "x").text, "\"\\\\\\\"\"");
    ck_assert_int_eq(apm_json_get(obj, "y").type, APM_JSON_OBJECT);
    ck_str(apm_json_get(obj, "y").text, "{\"x\": [\"}\"]}");
    ck_assert_int_eq(apm_json_get(obj, "z").type, APM_JSON_FLOAT);
    ck_assert_int_eq(apm_json_get(obj, "w").type, APM_JSON_NONE);
    ck_assert_int_eq(apm_json_get(parse("[1]"), "x").type, APM_JSON_NONE);
    ck_assert_int_eq(apm_json_get((apm_json){ 0 }, "x").type, APM_JSON_NONE);
}
END_TEST

START_TEST(items_are_found_and_counted)
{
    apm_json arr = parse("[1, [2, 3], \"a,b]\", {\"k\": [4,5]}, -Infinity, null, true, NaN]");
    static const apm_json_type types[] = { APM_JSON_INT,    APM_JSON_ARRAY, APM_JSON_STRING,
                                           APM_JSON_OBJECT, APM_JSON_FLOAT, APM_JSON_NULL,
                                           APM_JSON_BOOL,   APM_JSON_FLOAT };

    ck_assert_uint_eq(apm_json_count(arr), 8);
    for (size_t i = 0; i < 8; i++)
        ck_assert_int_eq(apm_json_at(arr, i).type, types[i]);
    ck_str(apm_json_at(arr, 3).text, "{\"k\": [4,5]}");
    ck_str(apm_json_at(arr, 4).text, "-Infinity");
    ck_assert_int_eq(apm_json_at(arr, 8).type, APM_JSON_NONE);
    ck_assert_int_eq(apm_json_at(parse("{\"a\":1}"), 0).type, APM_JSON_NONE);
    ck_assert_uint_eq(apm_json_count(parse("{\"a\":1,\"a\":2}")), 2);
    ck_assert_uint_eq(apm_json_count(parse("[ ]")), 0);
    size_t n;
    ck_assert(apm_str_eqz(apm_json_last(parse("[1, [2], \"x,]\" ]"), &n).text, "\"x,]\""));
    ck_assert_uint_eq(n, 3);
    ck_assert_int_eq(apm_json_last(parse("[ ]"), &n).type, APM_JSON_NONE);
    ck_assert_uint_eq(n, 0);
    ck_assert(apm_json_empty(parse("[ \n ]")) && apm_json_empty(parse("{}")));
    ck_assert(!apm_json_empty(parse("[[]]")) && !apm_json_empty(parse("{ \"a\": 1}")));
    ck_assert_uint_eq(apm_json_count(parse("{}")), 0);
    ck_assert_uint_eq(apm_json_count(parse("7")), 0);
}
END_TEST

START_TEST(integers_are_read_to_the_last_bit)
{
    static const struct {
        const char *text;
        int64_t value;
    } known[] = {
        { "0", 0 },
        { "-0", 0 },
        { "9007199254740993", 9007199254740993 },
        { "9223372036854775807", INT64_MAX },
        { "-9223372036854775808", INT64_MIN },
        { "-9223372036854775807", -INT64_MAX },
    };
    static const char *const too_big[] = {
        "9223372036854775808",        "-9223372036854775809",        "18446744073709551616",
        "99999999999999999999999999", "-99999999999999999999999999",
    };
    int64_t v = 42;

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        ck_ok(apm_json_int64(parse(known[i].text), "n", &v, err));
        ck_assert_int_eq(v, known[i].value);
    }
    v = 42;
    for (size_t i = 0; i < sizeof(too_big) / sizeof(too_big[0]); i++)
        ck_fails(apm_json_int64(parse(too_big[i]), "timelimit[0]", &v, err), APIUM_E_TOOBIG);
    ck_assert_str_eq(err->text,
                     "timelimit[0] does not fit into 64 bits: -99999999999999999999999999");
    ck_fails(apm_json_int64(parse("1.0"), "retries", &v, err), APIUM_E_INVALID);
    ck_assert_str_eq(err->text, "retries must be an integer, but is a float");
    ck_fails(apm_json_int64(parse("true"), "retries", &v, err), APIUM_E_INVALID);
    ck_fails(apm_json_int64((apm_json){ 0 }, "retries", &v, err), APIUM_E_INVALID);
    ck_assert_str_eq(err->text, "retries must be an integer, but is missing");
    ck_assert_int_eq(v, 42);
}
END_TEST

START_TEST(floats_are_read_correctly_rounded)
{
    double v;

    ck_ok(apm_json_double(parse("0.1"), "x", &v, err));
    ck_assert(v == 0.1);
    ck_ok(apm_json_double(parse("-0.0"), "x", &v, err));
    ck_assert(v == 0 && signbit(v));
    ck_ok(apm_json_double(parse("9007199254740993"), "x", &v, err));
    ck_assert(v == 9007199254740992.0);
    ck_ok(apm_json_double(parse("1e999"), "x", &v, err));
    ck_assert(isinf(v) && v > 0);
    ck_ok(apm_json_double(parse("-Infinity"), "x", &v, err));
    ck_assert(isinf(v) && v < 0);
    ck_ok(apm_json_double(parse("NaN"), "x", &v, err));
    ck_assert(isnan(v));
    ck_ok(apm_json_double(
        parse("0.1000000000000000055511151231257827021181583404541015625000000000000000000"), "x",
        &v, err));
    ck_assert(v == 0.1);
    char huge[400];
    memset(huge, '9', 399);
    huge[399] = '\0';
    ck_fails(apm_json_double(parse(huge), "countdown", &v, err), APIUM_E_TOOBIG);
    ck_assert_str_eq(err->text, "countdown is an integer too large for a float");
    ck_fails(apm_json_double(parse("\"1\""), "countdown", &v, err), APIUM_E_INVALID);
}
END_TEST

START_TEST(booleans_are_nothing_else)
{
    bool v;

    ck_ok(apm_json_bool(parse("true"), "x", &v, err));
    ck_assert(v);
    ck_ok(apm_json_bool(parse("false"), "x", &v, err));
    ck_assert(!v);
    ck_fails(apm_json_bool(parse("1"), "ignore_result", &v, err), APIUM_E_INVALID);
    ck_assert_str_eq(err->text, "ignore_result must be a boolean, but is an integer");
}
END_TEST

START_TEST(strings_are_unescaped)
{
    static const struct {
        const char *text, *value;
        size_t len;
    } known[] = {
        { "\"\"", "", 0 },
        { "\"plain\"", "plain", 5 },
        { "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t", 8 },
        { "\"a\\u0000b\"", "a\0b", 3 },
        { "\"\\u00e9\\u20AC\\uFFFF\"", "\xc3\xa9\xe2\x82\xac\xef\xbf\xbf", 8 },
        { "\"\\ud83d\\ude00\"", "\xf0\x9f\x98\x80", 4 },
        { "\"\\uDBFF\\uDFFF\"", "\xf4\x8f\xbf\xbf", 4 },
        { "\"\\ud83d\"", "\xed\xa0\xbd", 3 },
        { "\"\\ude00\\ud83d\"", "\xed\xb8\x80\xed\xa0\xbd", 6 },
        { "\"\\ud83d\\ud83d\\ude00\"", "\xed\xa0\xbd\xf0\x9f\x98\x80", 7 },
        { "\"\\ud83dx\\ude00\"", "\xed\xa0\xbdx\xed\xb8\x80", 7 },
        { "\"\\ud83d\\n\"", "\xed\xa0\xbd\n", 4 },
        { "\"\\ud83d\\u0041\"",
          "\xed\xa0\xbd"
          "A",
          4 },
        { "\"x\xf0\x9f\x98\x80\\\\\"", "x\xf0\x9f\x98\x80\\", 6 },
    };
    apm_arena arena = { 0 };

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        apm_str s;
        ck_ok(apm_json_string(parse(known[i].text), "s", &arena, &s, err));
        ck_assert_uint_eq(s.len, known[i].len);
        ck_assert_mem_eq(s.p, known[i].value, s.len);
    }
    apm_arena_clear(&arena);
}
END_TEST

START_TEST(a_string_without_escapes_is_borrowed)
{
    apm_json val = parse("\"plain\"");
    apm_arena arena = { 0 };
    apm_str s;

    ck_ok(apm_json_string(val, "s", &arena, &s, err));
    ck_assert_ptr_eq(s.p, val.text.p + 1);
    ck_assert_ptr_null(arena.blocks);
    ck_fails(apm_json_string(parse("null"), "id", &arena, &s, err), APIUM_E_INVALID);
    ck_assert_str_eq(err->text, "id must be a string, but is null");
}
END_TEST

START_TEST(a_c_string_refuses_a_nul)
{
    apm_arena arena = { 0 };
    const char *z;

    ck_ok(apm_json_cstr(parse("\"plain\""), "s", &arena, &z, err));
    ck_assert_str_eq(z, "plain");
    ck_fails(apm_json_cstr(parse("\"a\\u0000b\""), "queue", &arena, &z, err), APIUM_E_INVALID);
    ck_assert_str_eq(err->text, "queue holds a NUL character");
    ck_fails(apm_json_cstr(parse("[]"), "queue", &arena, &z, err), APIUM_E_INVALID);
    apm_arena_clear(&arena);
}
END_TEST

START_TEST(utf8_is_judged_exactly)
{
    static const struct {
        const char *text;
        bool strict, loose;
    } known[] = {
        { "", true, true },
        { "plain ascii, long enough for a stride", true, true },
        { "\xc2\x80\xdf\xbf\xe0\xa0\x80\xef\xbf\xbf\xf0\x90\x80\x80\xf4\x8f\xbf\xbf", true, true },
        { "\xed\x9f\xbf\xee\x80\x80", true, true },
        { "\xed\xa0\x80", false, true },
        { "\xed\xbf\xbf", false, true },
        { "12345678\x80", false, false },
        { "\xc1\xbf", false, false },
        { "\xe0\x9f\xbf", false, false },
        { "\xf0\x8f\xbf\xbf", false, false },
        { "\xf4\x90\x80\x80", false, false },
        { "\xe2\x82", false, false },
        { "\xf0\x9f\x98", false, false },
        { "\xc3(", false, false },
    };

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        ck_assert_msg(apm_utf8_valid(apm_strz(known[i].text), false) == known[i].strict, "case %zu",
                      i);
        ck_assert_msg(apm_utf8_valid(apm_strz(known[i].text), true) == known[i].loose, "case %zu",
                      i);
    }
}
END_TEST

static const char sample[] = "{\"body\": \"W1syLCAzXV0=\", \"n\": [0, -1, 2.5e-3, NaN, -Infinity, "
                             "123456789012345678901234567890], "
                             "\"t\": {\"a\": true, \"b\": [false, null, [[], {}, {\"\": "
                             "\"\\ud83d\\ude00 \\u00e9 \\\\ \\\" \xc3\xa9\xf0\x9f\x98\x80\"}]]}}";

START_TEST(every_cut_of_a_document_is_refused)
{
    size_t full = sizeof(sample) - 1;

    for (size_t len = 0; len < full; len++) {
        char *copy = malloc(len); /* exactly as long, so that ASan sees a byte too far */
        apm_json val;
        memcpy(copy, sample, len);
        ck_assert_int_eq(apm_json_parse((apm_str){ copy, len }, &val, err), APIUM_E_DECODE);
        free(copy);
    }
}
END_TEST

START_TEST(mutated_documents_are_read_the_same_by_both_ways_and_never_out_of_bounds)
{
    static const char bytes[] = "\"\\{}[],: u0e.-INtfn\x80\xc3\xed\xf0\x9f\x01 d8";
    int accepted = 0;

    for (int round = 0; round < 60000; round++) {
        size_t len = sizeof(sample) - 1;
        char *text = malloc(len);
        memcpy(text, sample, len);
        for (uint64_t n = apm_random64() % 4 + 1; n > 0; n--)
            text[apm_random64() % len] = bytes[apm_random64() % (sizeof(bytes) - 1)];
        if (round % 3 == 0)
            len -= apm_random64() % len;
        apm_json val, member;
        apm_json_iter it;
        apm_str key, s;
        apm_arena arena = { 0 };
        bool parsed = apm_json_parse((apm_str){ text, len }, &val, err) == APIUM_OK;
        int more = -1;
        if (apm_json_open(&it, (apm_str){ text, len }, err) == APIUM_OK)
            while ((more = apm_json_next(&it, &key, &member, err)) > 0)
                ;
        ck_assert_int_eq(parsed && val.type >= APM_JSON_ARRAY, more == 0);
        if (more == 0) {
            size_t n = 0;
            accepted++;
            ck_ok(apm_json_open(&it, val.text, err));
            while (apm_json_next(&it, &key, &member, err) > 0) {
                n++;
                if (apm_json_string((apm_json){ APM_JSON_STRING, key }, "key", &arena, &s, err) ==
                    APIUM_OK)
                    ck_assert(apm_utf8_valid(s, true));
                if (member.type == APM_JSON_STRING) {
                    ck_ok(apm_json_string(member, "member", &arena, &s, err));
                    ck_assert(apm_utf8_valid(s, true));
                }
            }
            ck_assert_uint_eq(apm_json_count(val), n);
        }
        apm_arena_clear(&arena);
        free(text);
    }
    ck_assert_int_gt(accepted, 1000);
}
END_TEST

int
main(void)
{
    const TTest *const tests[] = {
        every_kind_of_value_is_recognised_and_sliced,
        malformed_text_is_refused_with_its_place,
        a_nul_byte_is_not_the_end_of_the_text,
        nesting_is_accepted_to_the_bound_and_refused_beyond,
        ten_thousand_levels_of_objects_are_refused,
        walking_an_object_yields_each_member_in_order,
        walking_an_array_yields_items_without_keys,
        walking_refuses_what_parsing_refuses,
        only_containers_can_be_walked,
        keys_are_compared_by_what_they_mean,
        the_last_member_of_a_name_is_the_one,
        items_are_found_and_counted,
        integers_are_read_to_the_last_bit,
        floats_are_read_correctly_rounded,
        booleans_are_nothing_else,
        strings_are_unescaped,
        a_string_without_escapes_is_borrowed,
        a_c_string_refuses_a_nul,
        utf8_is_judged_exactly,
        every_cut_of_a_document_is_refused,
        mutated_documents_are_read_the_same_by_both_ways_and_never_out_of_bounds,
        NULL,
    };
    return suite_run("json", tests, 10);
}
