/* test_json_equal.c - core/base/json_equal */
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

START_TEST(what_python_decodes_alike_is_equal)
{
    static const char *const same[][2] = {
        { "1", "1" },
        { "-0", "0" },
        { "1.0", "10e-1" },
        { "1e999", "Infinity" },
        { "NaN", "NaN" },
        { "0.1", "0.1000000000000000055511151231257827" },
        { "\"\\u00e9\\ud83d\\ude00\\/\"", "\"\xc3\xa9\xf0\x9f\x98\x80/\"" },
        { "[ 1,2 , [] ]", "[1,2,[]]" },
        { "{\"a\": 1, \"b\": {\"c\": [2], \"d\": null}}",
          "{\"b\":{\"d\":null,\"c\":[2]},\"a\":1}" },
        { "{\"a\": 0, \"\\u0061\": 1}", "{\"a\": 1}" },
        { "{\"a\": [1, 2, 3], \"a\": {}}", "{\"a\": {}}" },
        { "[]", "[ ]" },
        { "{}", "{ }" },
        { "[{\"a\":\"]\"},\"}\"]", "[ { \"a\" : \"]\" } , \"}\" ]" },
    };

    for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++) {
        ck_assert_msg(apm_json_equal(parse(same[i][0]), parse(same[i][1])), "%s, %s", same[i][0],
                      same[i][1]);
        ck_assert(apm_json_equal(parse(same[i][1]), parse(same[i][0])));
    }
    ck_assert(apm_json_equal((apm_json){ 0 }, (apm_json){ 0 }));
}
END_TEST

START_TEST(what_python_decodes_differently_is_not_equal)
{
    static const char *const different[][2] = {
        { "1", "1.0" },
        { "0.0", "-0.0" },
        { "NaN", "Infinity" },
        { "9007199254740993", "9007199254740992" },
        { "1", "\"1\"" },
        { "null", "false" },
        { "true", "false" },
        { "\"a\"", "\"A\"" },
        { "\"a\"", "\"a\\u0000\"" },
        { "\"\\ud800\"", "\"\\udc00\"" },
        { "[]", "{}" },
        { "[1]", "[]" },
        { "[1, 2]", "[2, 1]" },
        { "[[1], 2]", "[[1, 2]]" },
        { "[[], []]", "[[[]]]" },
        { "{\"a\": 1}", "{\"b\": 1}" },
        { "{\"a\": 1}", "{\"a\": 1, \"b\": 2}" },
        { "{\"a\": 1, \"a\": 2}", "{\"a\": 2, \"a\": 1}" },
        { "{\"a\": {\"b\": [1, {\"c\": 2}]}}", "{\"a\": {\"b\": [1, {\"c\": 3}]}}" },
    };

    for (size_t i = 0; i < sizeof(different) / sizeof(different[0]); i++) {
        ck_assert_msg(!apm_json_equal(parse(different[i][0]), parse(different[i][1])), "%s, %s",
                      different[i][0], different[i][1]);
        ck_assert(!apm_json_equal(parse(different[i][1]), parse(different[i][0])));
    }
    ck_assert(!apm_json_equal((apm_json){ 0 }, parse("null")));
}
END_TEST

START_TEST(many_keys_in_another_order_are_compared_quickly)
{
    apm_buf up = { 0 }, down = { 0 };
    enum { N = 100000 };

    apm_buf_addc(&up, '{');
    apm_buf_addc(&down, '{');
    for (int i = 0; i < N; i++) {
        apm_buf_addf(&up, "%s\"key%d\": %d", i ? ", " : "", i, i);
        apm_buf_addf(&down, "%s\"key%d\": %d", i ? ", " : "", N - 1 - i, N - 1 - i);
    }
    apm_buf_addc(&up, '}');
    apm_buf_addc(&down, '}');
    ck_assert(apm_json_equal(parse(up.p), parse(down.p)));
    apm_buf_clear(&up);
    apm_buf_clear(&down);
}
END_TEST

START_TEST(the_deepest_values_are_compared)
{
    char a[2 * APM_JSON_DEPTH + 8] = { 0 }, b[2 * APM_JSON_DEPTH + 8] = { 0 };

    memset(a, '[', APM_JSON_DEPTH);
    a[APM_JSON_DEPTH] = '1';
    memset(a + APM_JSON_DEPTH + 1, ']', APM_JSON_DEPTH);
    memcpy(b, a, sizeof(b));
    ck_assert(apm_json_equal(parse(a), parse(b)));
    b[APM_JSON_DEPTH] = '2';
    ck_assert(!apm_json_equal(parse(a), parse(b)));
}
END_TEST

int
main(void)
{
    const TTest *const tests[] = {
        what_python_decodes_alike_is_equal,
        what_python_decodes_differently_is_not_equal,
        many_keys_in_another_order_are_compared_quickly,
        the_deepest_values_are_compared,
        NULL,
    };
    return suite_run("json_equal", tests, 10);
}
