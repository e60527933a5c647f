/* fuzz_json.c - whatever the bytes are, the ways of reading JSON agree with each other. */
#include "core/base/doc.h"
#include "core/base/json.h"
#include "tests/fuzz/fuzz.h"

const char *const fuzz_seeds[] = {
    "[[2, 3], {\"a\": 1.5}, {\"callbacks\": null, \"errbacks\": null, \"chain\": [], \"chord\": "
    "null}]",
    "{\"body\": \"W1syLCAzXV0=\", \"n\": [0, -1, 2.5e-3, NaN, -Infinity, "
    "123456789012345678901234567890], \"t\": true}",
    "[\"\\ud83d\\ude00 \\u00e9\\u0000 \\\\ \\\" \xc3\xa9\xf0\x9f\x98\x80 it's\", \"\\ud800\", "
    "{\"\": {\"\": [[], {}, [{}]]}}]",
    "[[[[[[[[[[[[[[[[[[[[0]]]]]]]]]]]]]]]]]]]]",
    " {\"a\":1 , \"a\":2,\"\\u0061\":3 } ",
    NULL,
};

/* A string survives being read and written again. */
static void
check_string(apm_json val)
{
    apm_arena arena = { 0 };
    apm_buf buf = { 0 };
    apm_json again;
    apm_str text;

    fuzz_check(apm_json_string(val, "it", &arena, &text, NULL) == APIUM_OK);
    fuzz_check(apm_utf8_valid(text, true));
    apm_json_add_string(&buf, text);
    fuzz_check(!buf.failed);
    fuzz_check(apm_json_parse(apm_buf_str(&buf), &again, NULL) == APIUM_OK);
    fuzz_check(apm_json_equal(val, again));
    apm_buf_clear(&buf);
    apm_arena_clear(&arena);
}

static void
check_double(apm_json val)
{
    apm_buf buf = { 0 };
    apm_json again;
    double v;

    fuzz_check(apm_json_double(val, "it", &v, NULL) == APIUM_OK);
    apm_json_add_double(&buf, v);
    fuzz_check(apm_json_parse(apm_buf_str(&buf), &again, NULL) == APIUM_OK);
    fuzz_check(apm_json_equal(val, again));
    apm_buf_clear(&buf);
}

static void
check_members(apm_json whole)
{
    apm_json_iter it;
    apm_str key;
    apm_json val;
    size_t n = 0;

    fuzz_check(apm_json_open(&it, whole.text, NULL) == APIUM_OK);
    for (; apm_json_next(&it, &key, &val, NULL) > 0; n++) {
        if (whole.type == APM_JSON_ARRAY) {
            apm_json at = apm_json_at(whole, n);
            fuzz_check(at.type == val.type && at.text.p == val.text.p &&
                       at.text.len == val.text.len);
        } else {
            check_string((apm_json){ APM_JSON_STRING, key });
        }
        if (val.type == APM_JSON_STRING)
            check_string(val);
        else if (val.type == APM_JSON_FLOAT)
            check_double(val);
    }
    fuzz_check(apm_json_count(whole) == n);
    fuzz_check(apm_json_at(whole, n).type == APM_JSON_NONE);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    apm_str text = { (const char *)data, size };
    apm_json whole, val;
    apm_json_iter it;
    apm_doc *doc = NULL;
    int more = -1;

    bool valid = apm_json_parse(text, &whole, NULL) == APIUM_OK;
    if (apm_json_open(&it, text, NULL) == APIUM_OK)
        while ((more = apm_json_next(&it, NULL, &val, NULL)) > 0)
            ;
    bool container = valid && (whole.type == APM_JSON_ARRAY || whole.type == APM_JSON_OBJECT);
    fuzz_check(container == (more == 0));
    if (apm_doc_parse(text, &doc, NULL) == APIUM_OK)
        fuzz_check(valid);
    apm_doc_free(doc);
    if (!valid)
        return 0;

    fuzz_check(apm_json_equal(whole, whole));
    for (size_t max = 0; max < 40; max += 13) {
        apm_buf buf = { 0 };
        apm_json_repr(&buf, whole, true, max);
        fuzz_check(!buf.failed && buf.len > 0);
        fuzz_check(apm_utf8_valid(apm_buf_str(&buf), true));
        apm_buf_clear(&buf);
    }
    apm_buf python = { 0 };
    apm_json_python(&python, whole);
    fuzz_check(!python.failed && python.len > 0 && apm_utf8_valid(apm_buf_str(&python), false));
    apm_buf_clear(&python);
    if (container)
        check_members(whole);
    else if (whole.type == APM_JSON_STRING)
        check_string(whole);
    return 0;
}
