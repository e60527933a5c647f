/* test_doc.c - core/base/doc */
#include <stdio.h>

#include "core/base/doc.h"
#include "tests/support/suite.h"

static apium_error error, *err = &error;
static apm_doc *doc;

static const apm_doc *
parse(const char *text)
{
    apm_doc_free(doc);
    doc = NULL;
    ck_ok(apm_doc_parse(apm_strz(text), &doc, err));
    return doc;
}

START_TEST(values_are_found_by_path)
{
    const apm_doc *root = parse(" {\"pool\": {\"max-concurrency\": 4, \"processes\": [[], "
                                "{\"pid\": 42}]}, \"on\": true, \"name\": \"a\\u00e9\", "
                                "\"x\": -2.5, \"\": {\"\": 1}} ");
    const char *s;
    int64_t n;
    double d;
    bool b;

    ck_ok(apm_doc_int64(root, "pool.max-concurrency", &n, err));
    ck_assert_int_eq(n, 4);
    ck_ok(apm_doc_int64(root, "pool.processes[1].pid", &n, err));
    ck_assert_int_eq(n, 42);
    ck_ok(apm_doc_bool(root, "on", &b, err));
    ck_assert(b);
    ck_ok(apm_doc_string(root, "name", &s, err));
    ck_assert_str_eq(s, "a\xc3\xa9");
    ck_ok(apm_doc_double(root, "x", &d, err));
    ck_assert(d == -2.5);
    ck_ok(apm_doc_double(root, "pool.max-concurrency", &d, err));
    ck_assert_ptr_eq(apm_doc_at(root, ""), root);
    ck_ok(apm_doc_int64(apm_doc_at(root, "pool"), "max-concurrency", &n, err));
    apm_doc_free(doc);
    doc = NULL;
}
END_TEST

START_TEST(what_is_missing_is_named_by_its_path)
{
    static const char *const missing[] = { "b",      "A",         "a.b",
                                           "a[0]",   "list[3]",   "list[99999999999999999999999]",
                                           "list.a", "list[0].x", "s[0]",
                                           "aa" };
    const apm_doc *root = parse("{\"a\": 1, \"list\": [0, 1, 2], \"s\": \"text\"}");
    int64_t n = 42;

    for (size_t i = 0; i < sizeof(missing) / sizeof(missing[0]); i++) {
        char expected[100];
        snprintf(expected, sizeof(expected), "%s is missing", missing[i]);
        ck_fails(apm_doc_int64(root, missing[i], &n, err), APIUM_E_NOTFOUND);
        ck_assert_str_eq(err->text, expected);
        ck_assert_ptr_null(apm_doc_at(root, missing[i]));
    }
    ck_assert_int_eq(n, 42);
    apm_doc_free(doc);
    doc = NULL;
}
END_TEST

START_TEST(another_type_is_named)
{
    const apm_doc *root = parse("{\"s\": \"x\", \"i\": 1, \"f\": 1.5, \"t\": true, \"n\": null, "
                                "\"a\": [], \"o\": {}, \"big\": "
                                "9007199254740992, \"near\": -9007199254740991}");
    const char *s;
    int64_t n;
    double d;
    bool b;

    ck_fails(apm_doc_int64(root, "s", &n, err), APIUM_E_INVALID);
    ck_assert_str_eq(err->text, "s must be an integer, but is a string");
    ck_fails(apm_doc_int64(root, "f", &n, err), APIUM_E_INVALID);
    ck_assert_str_eq(err->text, "f must be an integer, but is a fraction");
    ck_fails(apm_doc_bool(root, "i", &b, err), APIUM_E_INVALID);
    ck_assert_str_eq(err->text, "i must be a boolean, but is an integer");
    ck_fails(apm_doc_double(root, "t", &d, err), APIUM_E_INVALID);
    ck_assert_str_eq(err->text, "t must be a number, but is a boolean");
    ck_fails(apm_doc_string(root, "n", &s, err), APIUM_E_INVALID);
    ck_assert_str_eq(err->text, "n must be a string, but is null");
    ck_fails(apm_doc_string(root, "a", &s, err), APIUM_E_INVALID);
    ck_assert_str_eq(err->text, "a must be a string, but is an array");
    ck_fails(apm_doc_string(root, "", &s, err), APIUM_E_INVALID);
    ck_assert_str_eq(err->text, "the document must be a string, but is an object");
    ck_fails(apm_doc_int64(root, "big", &n, err), APIUM_E_TOOBIG);
    ck_assert_str_eq(err->text, "big is too large an integer: 9007199254740992");
    ck_ok(apm_doc_int64(root, "near", &n, err));
    ck_assert_int_eq(n, -9007199254740991);
    apm_doc_free(doc);
    doc = NULL;
}
END_TEST

START_TEST(keys_keep_their_case_and_the_last_counts)
{
    const apm_doc *root = parse("{\"a\": 1, \"A\": 2, \"a\": 3}");
    int64_t n;

    ck_ok(apm_doc_int64(root, "a", &n, err));
    ck_assert_int_eq(n, 3);
    ck_ok(apm_doc_int64(root, "A", &n, err));
    ck_assert_int_eq(n, 2);
    apm_doc_free(doc);
    doc = NULL;
}
END_TEST

START_TEST(members_are_walked_in_order)
{
    const apm_doc *m = apm_doc_first(parse("{\"a\": [7, 8], \"b.c\": {}}"));

    ck_assert_str_eq(apm_doc_key(m), "a");
    const apm_doc *item = apm_doc_first(m);
    ck_assert_ptr_null(apm_doc_key(item));
    ck_assert_ptr_nonnull(apm_doc_next(item));
    ck_assert_ptr_null(apm_doc_next(apm_doc_next(item)));
    ck_assert_ptr_null(apm_doc_first(item));
    m = apm_doc_next(m);
    ck_assert_str_eq(apm_doc_key(m), "b.c");
    ck_assert_ptr_null(apm_doc_first(m));
    ck_assert_ptr_null(apm_doc_next(m));
    apm_doc_free(doc);
    doc = NULL;
}
END_TEST

START_TEST(what_a_tree_cannot_hold_is_refused_with_its_place)
{
    static const char *const bad[][2] = {
        { "", "expected a value at byte 0" },
        { "{\"a\": }", "expected a value at byte 6" },
        { "[1] x", "extra data at byte 4" },
        { "  [NaN]", "unsupported value at byte 3" },
        { "[-Infinity]", "unsupported value at byte 1" },
        { "[\"a\\u0000b\"]", "NUL character at byte 3" },
        { "{\"\\\\\\u0000\": 1}", "NUL character at byte 4" },
    };
    apm_doc *out = NULL;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char expected[100];
        snprintf(expected, sizeof(expected), "cannot parse JSON: %s", bad[i][1]);
        ck_fails(apm_doc_parse(apm_strz(bad[i][0]), &out, err), APIUM_E_DECODE);
        ck_assert_str_eq(err->text, expected);
    }
    ck_fails(apm_doc_parse(APM_STR("[\"\\ud800\"]"), &out, err), APIUM_E_DECODE);
    ck_assert_ptr_null(out);
    parse("[\"\\\\u0000\"]"); /* a backslash and letters, no NUL */
    apm_doc_free(doc);
    apm_doc_free(NULL);
    doc = NULL;
}
END_TEST

int
main(void)
{
    const TTest *const tests[] = {
        values_are_found_by_path,
        what_is_missing_is_named_by_its_path,
        another_type_is_named,
        keys_keep_their_case_and_the_last_counts,
        members_are_walked_in_order,
        what_a_tree_cannot_hold_is_refused_with_its_place,
        NULL,
    };
    return suite_run("doc", tests, 4);
}
