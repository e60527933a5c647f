/* fixture.c - reading tests/fixtures. The formats are described in the README there. */
#include "tests/support/fixture.h"

#include <check.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/base/b64.h"

#define BODY_MARK "$BASE64_OF_BODY_TEXT"

static apm_arena arena;

static apm_str
text_of(apm_json val)
{
    apm_str out = APM_STR_NONE;

    if (val.type == APM_JSON_STRING)
        ck_assert_int_eq(apm_json_string(val, "text", &arena, &out, NULL), APIUM_OK);
    return out;
}

static apm_str
keep(apm_buf *buf)
{
    bool ok = !buf->failed;
    apm_str out = apm_arena_str(&arena, apm_buf_str(buf), &ok);

    ck_assert(ok);
    apm_buf_clear(buf);
    return out;
}

static apm_str
unhex(apm_str hex)
{
    char *bytes = apm_arena_bytes(&arena, hex.len / 2 + 1), pair[3] = { 0 };

    for (size_t i = 0; i < hex.len / 2; i++) {
        memcpy(pair, hex.p + 2 * i, 2);
        bytes[i] = (char)strtol(pair, NULL, 16);
    }
    return (apm_str){ bytes, hex.len / 2 };
}

/* The list element, with the body put back in where it was left out. */
static apm_str
element(apm_json message)
{
    apm_str raw = text_of(apm_json_get(message, "raw")),
            body = text_of(apm_json_get(message, "body_text"));
    const char *mark = memmem(raw.p, raw.len, BODY_MARK, strlen(BODY_MARK));
    apm_buf buf;

    if (!mark)
        return raw;
    apm_buf_init(&buf, APM_BUF_MAX);
    apm_buf_add(&buf, raw.p, (size_t)(mark - raw.p));
    apm_b64_add(&buf, body.p, body.len);
    mark += strlen(BODY_MARK);
    apm_buf_add(&buf, mark, (size_t)(raw.p + raw.len - mark));
    return keep(&buf);
}

/* [type tag, value] of an AMQP field as the JSON that it stands for. */
static void
add_field(apm_buf *buf, apm_json typed)
{
    apm_str tag = text_of(apm_json_at(typed, 0));
    apm_json val = apm_json_at(typed, 1), item;
    apm_json_iter it;
    apm_str key;
    size_t n = 0;

    if (tag.len != 1 || (tag.p[0] != 'A' && tag.p[0] != 'F')) {
        apm_buf_adds(buf, val.text);
        return;
    }
    ck_assert_int_eq(apm_json_open(&it, val.text, NULL), APIUM_OK);
    apm_buf_addc(buf, it.object ? '{' : '[');
    while (apm_json_next(&it, &key, &item, NULL) > 0) {
        apm_buf_addz(buf, n++ ? ", " : "");
        apm_buf_adds(buf, key);
        apm_buf_addz(buf, it.object ? ": " : "");
        add_field(buf, item);
    }
    apm_buf_addc(buf, it.object ? '}' : ']');
}

static apm_str
field_table(apm_json table)
{
    apm_json_iter it;
    apm_json item;
    apm_str key;
    apm_buf buf;
    size_t n = 0;

    apm_buf_init(&buf, APM_BUF_MAX);
    apm_buf_addc(&buf, '{');
    if (table.type == APM_JSON_OBJECT && apm_json_open(&it, table.text, NULL) == APIUM_OK)
        while (apm_json_next(&it, &key, &item, NULL) > 0) {
            apm_buf_addz(&buf, n++ ? ", " : "");
            apm_buf_adds(&buf, key);
            apm_buf_addz(&buf, ": ");
            add_field(&buf, item);
        }
    apm_buf_addc(&buf, '}');
    return keep(&buf);
}

static void
visit_frames(fixture one, apm_json frames, fixture_visit *visit)
{
    apm_json_iter it;
    apm_json frame, header = { 0 };
    apm_str key;

    one.kind = FIXTURE_FRAMES;
    if (frames.type != APM_JSON_ARRAY)
        return;
    ck_assert_int_eq(apm_json_open(&it, frames.text, NULL), APIUM_OK);
    while (apm_json_next(&it, &key, &frame, NULL) > 0) {
        apm_json text = apm_json_get(frame, "body_text"), hex = apm_json_get(frame, "body_hex");
        if (apm_json_get(frame, "header").type == APM_JSON_OBJECT)
            header = apm_json_get(frame, "header");
        if (text.type == APM_JSON_NONE && hex.type == APM_JSON_NONE)
            continue;
        one.number++;
        one.props = apm_json_get(header, "properties");
        one.headers = field_table(apm_json_get(one.props, "headers"));
        one.text = text.type != APM_JSON_NONE ? text_of(text) : unhex(text_of(hex));
        visit(&one);
    }
}

static void
visit_cases(fixture one, apm_json cases, fixture_visit *visit)
{
    apm_json_iter it;
    apm_json item;
    apm_str key;

    one.kind = FIXTURE_CASE;
    if (cases.type != APM_JSON_OBJECT)
        return;
    ck_assert_int_eq(apm_json_open(&it, cases.text, NULL), APIUM_OK);
    while (apm_json_next(&it, &key, &item, NULL) > 0) {
        apm_json headers = apm_json_get(item, "headers"), body = apm_json_get(item, "body");
        one.label = apm_arena_str(&arena, text_of((apm_json){ APM_JSON_STRING, key }), NULL).p;
        one.props = apm_json_get(item, "properties");
        one.headers = headers.type == APM_JSON_OBJECT ? headers.text : APM_STR("{}");
        one.outcome = apm_json_get(item, "outcome");
        one.text = body.type == APM_JSON_STRING ? text_of(body)
                                                : unhex(text_of(apm_json_get(body, "$hex")));
        visit(&one);
    }
}

static void
visit_messages(fixture one, apm_json messages, fixture_visit *visit)
{
    apm_json_iter it;
    apm_json message;
    apm_str key;

    one.kind = FIXTURE_ENVELOPE;
    if (messages.type != APM_JSON_ARRAY)
        return;
    ck_assert_int_eq(apm_json_open(&it, messages.text, NULL), APIUM_OK);
    while (apm_json_next(&it, &key, &message, NULL) > 0) {
        one.number++;
        one.text = element(message);
        visit(&one);
    }
}

/* The values of SET and SETEX under celery-task-meta-<id>. */
static void
visit_results(fixture one, apm_json trace, fixture_visit *visit)
{
    apm_json_iter it;
    apm_json step;
    apm_str key;

    one.kind = FIXTURE_RESULT;
    if (trace.type != APM_JSON_ARRAY)
        return;
    ck_assert_int_eq(apm_json_open(&it, trace.text, NULL), APIUM_OK);
    while (apm_json_next(&it, &key, &step, NULL) > 0) {
        apm_json cmd = apm_json_get(step, "cmd");
        apm_str name = text_of(apm_json_at(cmd, 0)), target = text_of(apm_json_at(cmd, 1));
        if ((!apm_str_eqz(name, "SETEX") && !apm_str_eqz(name, "SET")) ||
            !memmem(target.p, target.len, "celery-task-meta-", 17))
            continue;
        apm_json value = apm_json_at(cmd, apm_str_eqz(name, "SET") ? 2 : 3),
                 hex = apm_json_get(value, "$hex");
        one.binary = hex.type == APM_JSON_STRING;
        if (!one.binary && value.type != APM_JSON_STRING)
            continue;
        one.number++;
        one.text = one.binary ? unhex(text_of(hex)) : text_of(value);
        visit(&one);
    }
}

static void
visit_file(const char *path, fixture_visit *visit)
{
    FILE *file = fopen(path, "re");
    fixture one = { .file = path + strlen(APM_TEST_FIXTURES) + 1 };
    apm_buf buf;
    apm_json whole;
    char *room;

    ck_assert_msg(file != NULL, "cannot open %s", path);
    apm_buf_init(&buf, APM_BUF_MAX);
    size_t n;
    do {
        room = apm_buf_reserve(&buf, 65536);
        ck_assert_ptr_nonnull(room);
        n = fread(room, 1, 65536, file);
        buf.len += n;
    } while (n > 0);
    fclose(file);
    apium_error err = { 0 };
    ck_assert_msg(apm_json_parse(apm_buf_str(&buf), &whole, &err) == APIUM_OK, "%s: %s", path,
                  err.text);
    const char *base = strrchr(path, '/') + 1;
    one.name = apm_arena_printf(&arena, "%.*s", (int)(strlen(base) - strlen(".json")), base);
    visit_messages(one, apm_json_get(whole, "messages"), visit);
    visit_frames(one, apm_json_get(whole, "frames"), visit);
    visit_cases(one, apm_json_get(whole, "cases"), visit);
    visit_results(one, apm_json_get(whole, "trace"), visit);
    apm_buf_clear(&buf);
    apm_arena_clear(&arena);
}

size_t
fixtures_each(fixture_visit *visit)
{
    glob_t found;
    size_t n;

    ck_assert_int_eq(glob(APM_TEST_FIXTURES "/*/*.json", 0, NULL, &found), 0);
    for (size_t i = 0; i < found.gl_pathc; i++)
        visit_file(found.gl_pathv[i], visit);
    n = found.gl_pathc;
    globfree(&found);
    return n;
}
