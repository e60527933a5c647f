/* Requests: read from messages of both protocols, written to them, packed for a pool's slots; and
 * outcomes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/model/outcome.h"
#include "core/model/pack.h"
#include "core/model/request_fields.h"
#include "core/model/serializer.h"
#include "tests/support/suite.h"

static apm_arena arena;
static apium_error the_error, *err = &the_error;
static apm_request req;
static apm_message msg;
static apm_buf buf;

static void
setup(void)
{
    apm_buf_init(&buf, APM_BUF_MAX);
}

static void
teardown(void)
{
    apm_buf_clear(&buf);
    apm_arena_clear(&arena);
}

static apm_malformed
read_any(const char *headers, const char *body)
{
    const apm_decode_opts opts = { .accept = APM_ACCEPT_JSON, .naive_offset_s = 3600 };
    apm_malformed how;

    msg = (apm_message){ .content_type = APM_STR("application/json"),
                         .headers = apm_strz(headers),
                         .body = apm_strz(body),
                         .priority = APM_PRIORITY_NONE };
    apm_request_read(&msg, &opts, &arena, &req, &how, err);
    return how;
}

static void
read_it(const char *headers, const char *body)
{
    apm_malformed how = read_any(headers, body);

    ck_assert_msg(how == APM_MAL_NONE, "%s", err->text);
}

static const char *
text(apm_str s)
{
    return apm_str_is(s) ? apm_arena_str(&arena, s, NULL).p : "absent";
}

START_TEST(the_minimum_of_protocol_2_is_enough)
{
    read_it("{\"task\": \"t.add\", \"id\": \"i\"}", "[[2, 3], {}, {}]");
    ck_assert_str_eq(text(req.task), "t.add");
    ck_assert_str_eq(text(req.id), "i");
    ck_assert_str_eq(text(req.args), "[2, 3]");
    ck_assert_str_eq(text(req.kwargs), "{}");
    ck_assert_str_eq(text(req.root_id), "absent");
    ck_assert_int_eq(req.group_index, -1);
    ck_assert_int_eq(req.eta_us, APM_TIME_NONE);
    ck_assert_int_eq(req.ignore_result, APM_UNSET);
    ck_assert_int_eq(req.protocol, 2);
    ck_assert_str_eq(text(req.serializer), "json");
}
END_TEST

START_TEST(every_header_is_read)
{
    read_it("{\"lang\": \"py\", \"task\": \"t\", \"id\": \"i\", \"shadow\": \"s\", \"eta\": "
            "\"2030-01-02T03:04:05.5+02:00\", "
            "\"expires\": \"2030-01-02T03:04:05\", \"group\": \"g\", \"group_index\": 4, "
            "\"retries\": 2, \"timelimit\": [30, 20.5], "
            "\"root_id\": \"r\", \"parent_id\": \"p\", \"argsrepr\": \"(2,)\", \"kwargsrepr\": "
            "\"{}\", \"origin\": \"o\", "
            "\"ignore_result\": true, \"replaced_task_nesting\": 1, \"custom\": [1.0]}",
            "[[], {\"k\": 1}, {\"callbacks\": [1], \"errbacks\": [], \"chain\": null, \"chord\": "
            "{\"task\": \"b\"}, \"x\": 1}]");
    ck_assert_str_eq(text(req.shadow), "s");
    ck_assert_int_eq(req.eta_us, INT64_C(1893546245500000));
    ck_assert_int_eq(req.expires_us, INT64_C(1893553445000000));
    ck_assert_str_eq(text(req.group), "g");
    ck_assert_int_eq(req.group_index, 4);
    ck_assert_int_eq(req.retries, 2);
    ck_assert_double_eq(req.time_limit_s, 30);
    ck_assert_double_eq(req.soft_time_limit_s, 20.5);
    ck_assert_str_eq(text(req.parent_id), "p");
    ck_assert_int_eq(req.ignore_result, APM_YES);
    ck_assert_int_eq(req.replaced_task_nesting, 1);
    ck_assert_str_eq(text(req.callbacks), "[1]");
    ck_assert_str_eq(text(req.errbacks), "absent");
    ck_assert_str_eq(text(req.chain), "absent");
    ck_assert_str_eq(text(req.chord), "{\"task\": \"b\"}");
}
END_TEST

START_TEST(values_are_passed_through_to_the_byte)
{
    const char *body =
        "[[1.0, 1,  9007199254740993, -0.0, \"\\ud800\", NaN, {\"a\":[]}], {\"k\": 1E400}, null]";

    read_it("{\"task\": \"t\", \"id\": \"i\"}", body);
    ck_assert_str_eq(text(req.args),
                     "[1.0, 1,  9007199254740993, -0.0, \"\\ud800\", NaN, {\"a\":[]}]");
    ck_assert_str_eq(text(req.kwargs), "{\"k\": 1E400}");
}
END_TEST

START_TEST(protocol_1_is_read_from_the_body)
{
    read_it("{\"custom\": 1}", "{\"task\": \"t\", \"id\": \"i\", \"args\": [1], \"retries\": 3, "
                               "\"eta\": \"2030-01-02T03:04:05\", \"utc\": false, "
                               "\"taskset\": \"ts\", \"group\": \"g\", \"group_index\": 2, "
                               "\"callbacks\": [{}], \"timelimit\": [1, null]}");
    ck_assert_int_eq(req.protocol, 1);
    ck_assert_str_eq(text(req.kwargs), "{}");
    ck_assert_int_eq(req.retries, 3);
    ck_assert_int_eq(req.eta_us, INT64_C(1893549845000000)); /* an hour less: the app's zone */
    ck_assert_str_eq(text(req.group), "ts");
    ck_assert_int_eq(req.group_index, 2);
    ck_assert_str_eq(text(req.callbacks), "[{}]");
    ck_assert_str_eq(text(req.embed), "absent");
    ck_assert_double_eq(req.time_limit_s, 1);
    read_it("{}", "{\"task\": \"t\", \"id\": \"i\"}");
    ck_assert_str_eq(text(req.args), "[]");
}
END_TEST

START_TEST(in_a_hybrid_the_headers_override_the_body)
{
    read_it("{\"task\": \"t\", \"id\": \"i\", \"retries\": 2, \"group\": null}",
            "{\"args\": [1], \"kwargs\": {\"a\": 1}, \"retries\": 5, \"group\": \"g\", \"shadow\": "
            "\"s\"}");
    ck_assert_int_eq(req.protocol, 2);
    ck_assert_int_eq(req.retries, 2);
    ck_assert_str_eq(text(req.group), "absent");
    ck_assert_str_eq(text(req.shadow), "s");
    ck_assert_str_eq(text(req.kwargs), "{\"a\": 1}");
}
END_TEST

START_TEST(args_become_what_a_call_of_python_makes_of_them)
{
    read_it("{\"task\": \"t\", \"id\": \"i\"}", "[\"a\\u00e9\\n\", {}, {}]");
    ck_assert_str_eq(text(req.args), "[\"a\", \"\\u00e9\", \"\\n\"]");
    read_it("{\"task\": \"t\", \"id\": \"i\"}", "[{\"x\": 1, \"y\": 2}, {}, {}]");
    ck_assert_str_eq(text(req.args), "[\"x\", \"y\"]");
    read_it("{\"task\": \"t\", \"id\": \"i\"}", "[null, {}, {}]");
    ck_assert_str_eq(text(req.args), "null");
    read_it("{\"task\": \"t\", \"id\": \"i\"}", "[5, {}, {}]");
    ck_assert_str_eq(text(req.args), "5");
}
END_TEST

START_TEST(name_and_id_are_known_of_a_message_that_is_no_good)
{
    ck_assert_int_eq(
        read_any("{\"task\": \"t\", \"id\": \"i\", \"eta\": \"never\"}", "[[], {}, {}]"),
        APM_MAL_INVALID);
    ck_assert_str_eq(text(req.task), "t");
    ck_assert_str_eq(text(req.id), "i");
    ck_assert_ptr_nonnull(strstr(err->text, "invalid ETA value \"never\""));
    ck_assert_int_eq(read_any("{\"task\": \"t\", \"id\": \"i\"}", "{not json"), APM_MAL_BODY);
    ck_assert_str_eq(text(req.id), "i");
    ck_assert_int_eq(read_any("{}", "{\"task\": \"t\", \"id\": \"i\", \"kwargs\": []}"),
                     APM_MAL_INVALID);
    ck_assert_str_eq(text(req.id), "i");
}
END_TEST

/* What the fixtures do not have. */
START_TEST(hostile_messages_have_their_class)
{
    static const struct {
        const char *headers, *body;
        apm_malformed how;
    } cases[] = {
        { "[]", "[[], {}, {}]", APM_MAL_UNKNOWN },
        { "{\"task\": \"t\", \"id\": \"i\"", "[[], {}, {}]", APM_MAL_UNKNOWN },
        { "{\"task\": \"t\", \"id\": \"i\"}", "  ", APM_MAL_BODY },
        { "{\"task\": \"t\", \"id\": \"i\"}", "[[], {}, {}] x", APM_MAL_BODY },
        { "{\"task\": \"t\", \"id\": \"i\"}", "[]", APM_MAL_INVALID },
        { "{\"task\": \"t\", \"id\": \"i\"}", "[[], {}, \"x\"]", APM_MAL_BODY },
        { "{\"task\": \"t\", \"id\": \"i\"}", "[[], {}, \"\"]", APM_MAL_NONE },
        { "{\"task\": \"t\", \"id\": \"i\"}", "\"ab\"", APM_MAL_INVALID },
        { "{\"task\": \"t\", \"id\": []}", "[[], {}, {}]", APM_MAL_INVALID },
        { "{\"task\": \"t\", \"id\": 5}", "[[], {}, {}]", APM_MAL_NONE },
        { "{\"task\": 5, \"id\": \"i\"}", "[[], {}, {}]", APM_MAL_NONE },
        { "{\"task\": \"t\", \"id\": \"i\", \"timelimit\": [1, \"x\"]}", "[[], {}, {}]",
          APM_MAL_INVALID },
        { "{\"task\": \"t\", \"id\": \"i\", \"timelimit\": [-1, null]}", "[[], {}, {}]",
          APM_MAL_INVALID },
        { "{\"task\": \"t\", \"id\": \"i\", \"timelimit\": [NaN, null]}", "[[], {}, {}]",
          APM_MAL_INVALID },
        { "{\"task\": \"t\", \"id\": \"i\", \"timelimit\": [Infinity, 1e999]}", "[[], {}, {}]",
          APM_MAL_NONE },
        { "{\"task\": \"t\", \"id\": \"i\", \"timelimit\": []}", "[[], {}, {}]", APM_MAL_NONE },
        { "{\"task\": \"t\", \"id\": \"i\", \"eta\": \"\"}", "[[], {}, {}]", APM_MAL_NONE },
        { "{\"task\": \"t\", \"id\": \"i\", \"eta\": \"99999-01-01T00:00:00\"}", "[[], {}, {}]",
          APM_MAL_INVALID },
        { "{\"task\": \"t\", \"id\": \"i\", \"eta\": [1]}", "[[], {}, {}]", APM_MAL_INVALID },
        { "{\"task\": \"t\", \"id\": \"i\", \"retries\": 99999999999999999999999}", "[[], {}, {}]",
          APM_MAL_NONE },
        { "{\"task\": \"t\", \"id\": \"i\", \"retries\": -5, \"group_index\": 1e300}",
          "[[], {}, {}]", APM_MAL_NONE },
        { "{\"task\": \"t\", \"id\": \"i\", \"compression\": 5}", "[[], {}, {}]", APM_MAL_BODY },
        { "{\"task\": \"t\", \"id\": \"i\", \"compression\": \"\"}", "[[], {}, {}]", APM_MAL_NONE },
        { "{\"task\": \"t\", \"id\": \"i\"}", "{\"x\": 1}", APM_MAL_INVALID },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        apm_malformed how = read_any(cases[i].headers, cases[i].body);
        ck_assert_msg(how == cases[i].how, "%s %s: %d instead of %d", cases[i].headers,
                      cases[i].body, (int)how, (int)cases[i].how);
        ck_assert_int_ge(req.retries, 0);
    }
}
END_TEST

START_TEST(a_body_nested_too_deep_is_refused)
{
    size_t n = 10000;
    char *deep = malloc(2 * n + 20);

    memset(deep, '[', n);
    memset(deep + n, ']', n);
    deep[2 * n] = '\0';
    ck_assert_int_eq(read_any("{\"task\": \"t\", \"id\": \"i\"}", deep), APM_MAL_BODY);
    free(deep);
}
END_TEST

START_TEST(content_that_is_not_accepted_is_refused_by_name)
{
    const apm_decode_opts opts = { .accept = APM_ACCEPT_JSON };
    apm_malformed how;

    read_any("{\"task\": \"t\", \"id\": \"i\"}", "[[], {}, {}]");
    msg.content_type = APM_STR("application/x-yaml");
    ck_fails(apm_request_read(&msg, &opts, &arena, &req, &how, err), APIUM_E_DECODE);
    ck_assert_int_eq(how, APM_MAL_INVALID);
    ck_assert_str_eq(err->text,
                     "Refusing to deserialize untrusted content of type application/x-yaml (yaml)");
    msg.headers = APM_STR("{}");
    ck_fails(apm_request_read(&msg, &opts, &arena, &req, &how, err), APIUM_E_DECODE);
    ck_assert_int_eq(how, APM_MAL_BODY);
}
END_TEST

static apm_message
written(const apm_encode_opts *opts)
{
    apm_message out;

    ck_ok(apm_request_write(&req, opts, &arena, &out, err));
    return out;
}

START_TEST(a_new_call_has_all_headers_of_celery_in_its_order)
{
    apm_request_init(&req);
    req.id = APM_STR("i-1");
    req.task = APM_STR("t.add");
    req.args = APM_STR("[2, 3]");
    req.kwargs = APM_STR("{}");
    req.ignore_result = APM_NO;
    req.routing_key = APM_STR("celery");
    apm_message out = written(&(apm_encode_opts){ .origin = "gen1@host" });
    ck_assert_str_eq(text(out.headers), "{\"lang\": \"c\", \"task\": \"t.add\", \"id\": \"i-1\", "
                                        "\"shadow\": null, \"eta\": null, \"expires\": null, "
                                        "\"group\": null, \"group_index\": null, \"retries\": 0, "
                                        "\"timelimit\": [null, null], \"root_id\": \"i-1\", "
                                        "\"parent_id\": null, \"argsrepr\": \"(2, 3)\", "
                                        "\"kwargsrepr\": \"{}\", \"origin\": \"gen1@host\", "
                                        "\"ignore_result\": false, \"replaced_task_nesting\": 0, "
                                        "\"stamped_headers\": null, \"stamps\": {}}");
    ck_assert_str_eq(text(out.body), "[[2, 3], {}, {\"callbacks\": null, \"errbacks\": null, "
                                     "\"chain\": null, \"chord\": null}]");
    ck_assert_str_eq(text(out.correlation_id), "i-1");
    ck_assert_str_eq(text(out.content_type), "application/json");
    ck_assert_str_eq(text(out.expiration), "absent");
    ck_assert_int_eq(out.delivery_mode, 2);
}
END_TEST

START_TEST(dates_and_limits_are_written_as_celery_writes_them)
{
    apm_request_init(&req);
    req.id = req.task = APM_STR("x");
    req.eta_us = INT64_C(1893546245500000);
    req.expires_us = apm_clock_wall_us() + 120500000;
    req.time_limit_s = 30;
    req.soft_time_limit_s = 0.25;
    apm_message out = written(&(apm_encode_opts){ 0 });
    ck_assert_ptr_nonnull(
        strstr(text(out.headers), "\"eta\": \"2030-01-02T01:04:05.500000+00:00\""));
    ck_assert_ptr_nonnull(strstr(text(out.headers), "\"timelimit\": [30, 0.25]"));
    long ttl = strtol(text(out.expiration), NULL, 10);
    ck_assert(ttl > 119000 && ttl <= 120500);
    req.expires_us = 5;
    out = written(&(apm_encode_opts){ 0 });
    ck_assert_str_eq(text(out.expiration), "0");
}
END_TEST

START_TEST(a_request_sent_on_keeps_the_text_of_what_has_not_changed)
{
    read_it("{\"task\": \"t\", \"id\": \"i\", \"lang\": \"py\", \"eta\": "
            "\"2030-01-02T03:04:05+02:00\", \"timelimit\": [20.0, null], "
            "\"retries\": 0, \"custom\": {\"n\": 1.0}, \"x-death\": [], \"redelivered\": true, "
            "\"stamps\": {\"a\": 1}}",
            "[[1.0], {}, {\"callbacks\": null, \"extra\": 9007199254740993}]");
    req.retries = 1;
    apm_message out = written(&(apm_encode_opts){ 0 });
    const char *headers = text(out.headers);
    ck_assert_ptr_nonnull(strstr(headers, "\"lang\": \"py\""));
    ck_assert_ptr_nonnull(strstr(headers, "\"eta\": \"2030-01-02T03:04:05+02:00\""));
    ck_assert_ptr_nonnull(strstr(headers, "\"timelimit\": [20.0, null]"));
    ck_assert_ptr_nonnull(strstr(headers, "\"retries\": 1"));
    ck_assert_ptr_nonnull(strstr(headers, "\"custom\": {\"n\": 1.0}"));
    ck_assert_ptr_nonnull(strstr(headers, "\"stamps\": {\"a\": 1}"));
    ck_assert_ptr_null(strstr(headers, "x-death"));
    ck_assert_ptr_null(strstr(headers, "redelivered"));
    ck_assert_str_eq(text(out.body),
                     "[[1.0], {}, {\"callbacks\": null, \"extra\": 9007199254740993}]");
    req.chain = APM_STR("[{}]");
    out = written(&(apm_encode_opts){ 0 });
    ck_assert_str_eq(
        text(out.body),
        "[[1.0], {}, {\"callbacks\": null, \"errbacks\": null, \"chain\": [{}], \"chord\": null, "
        "\"extra\": 9007199254740993}]");
}
END_TEST

START_TEST(a_callers_headers_override_at_the_same_level)
{
    read_it("{\"task\": \"t\", \"id\": \"i\", \"mine\": 1, \"kept\": 2}", "[[], {}, {}]");
    apm_message out = written(&(apm_encode_opts){
        .extra_headers = APM_STR("{\"mine\": 3, \"new\": 4, \"shadow\": \"s\"}") });
    const char *headers = text(out.headers);
    ck_assert_ptr_nonnull(strstr(headers, "\"mine\": 3"));
    ck_assert_ptr_null(strstr(headers, "\"mine\": 1"));
    ck_assert_ptr_nonnull(strstr(headers, "\"kept\": 2"));
    ck_assert_ptr_nonnull(strstr(headers, "\"new\": 4"));
    ck_assert_ptr_nonnull(strstr(headers, "\"shadow\": \"s\""));
    ck_assert_ptr_null(strstr(headers, "\"shadow\": null"));
    apm_message bad;
    ck_fails(apm_request_write(&req, &(apm_encode_opts){ .extra_headers = APM_STR("[]") }, &arena,
                               &bad, err),
             APIUM_E_DECODE);
}
END_TEST

START_TEST(protocol_1_has_everything_in_the_body)
{
    apm_request_init(&req);
    req.id = APM_STR("i");
    req.task = APM_STR("t");
    req.args = APM_STR("[1]");
    req.group = APM_STR("g");
    apm_message out =
        written(&(apm_encode_opts){ .protocol = 1, .extra_headers = APM_STR("{\"mine\": 1}") });
    ck_assert_str_eq(text(out.headers), "{\"mine\": 1}");
    ck_assert_str_eq(text(out.body),
                     "{\"task\": \"t\", \"id\": \"i\", \"args\": [1], \"kwargs\": {}, \"group\": "
                     "\"g\", \"group_index\": null, "
                     "\"retries\": 0, \"eta\": null, \"expires\": null, \"utc\": true, "
                     "\"callbacks\": null, \"errbacks\": null, "
                     "\"timelimit\": [null, null], \"taskset\": \"g\", \"chord\": null}");
    req.chain = APM_STR("[{}]");
    ck_fails(apm_request_write(&req, &(apm_encode_opts){ .protocol = 1 }, &arena, &out, err),
             APIUM_E_UNSUPPORTED);
}
END_TEST

START_TEST(bodies_in_every_format_and_compression_come_back)
{
    static const char *const formats[] = { "json", "yaml", "msgpack" };
    static const char *const compressions[] = { NULL, "zlib", "bzip2", "lzma", "brotli", "zstd" };
    const apm_decode_opts opts = { .accept =
                                       APM_ACCEPT_JSON | APM_ACCEPT_YAML | APM_ACCEPT_MSGPACK };
    apm_malformed how;

    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 6; j++) {
            apm_request_init(&req);
            req.id = req.task = APM_STR("x");
            req.args = APM_STR("[1, 1.0, \"a\"]");
            apm_message out = written(
                &(apm_encode_opts){ .serializer = formats[i], .compression = compressions[j] });
            ck_ok(apm_request_read(&out, &opts, &arena, &req, &how, err));
            ck_assert_str_eq(text(req.args), "[1, 1.0, \"a\"]");
            ck_assert_str_eq(text(req.serializer), formats[i]);
            ck_assert_int_eq(apm_str_is(req.compression), j > 0);
        }
    ck_fails(
        apm_request_write(&req, &(apm_encode_opts){ .serializer = "pickle" }, &arena, &msg, err),
        APIUM_E_UNSUPPORTED);
    ck_fails(apm_request_write(&req, &(apm_encode_opts){ .compression = "rar" }, &arena, &msg, err),
             APIUM_E_UNSUPPORTED);
}
END_TEST

START_TEST(a_packed_request_comes_back_whole)
{
    apm_request back;

    read_it("{\"task\": \"t\", \"id\": \"i\", \"shadow\": \"es\\u00e9\", \"timelimit\": [5, null], "
            "\"ignore_result\": false}",
            "[[1, 2], {\"k\": 1}, {\"callbacks\": [{}], \"chain\": [1]}]");
    req.priority = -1;
    req.redelivered = true;
    apm_request_pack(&req, &buf, NULL);
    ck_ok(apm_request_unpack(apm_buf_str(&buf), &back, err));
    ck_assert_str_eq(text(back.task), "t");
    ck_assert_str_eq(text(back.shadow), "es\xc3\xa9");
    ck_assert_str_eq(text(back.args), "[1, 2]");
    ck_assert_str_eq(text(back.callbacks), "[{}]");
    ck_assert_str_eq(text(back.root_id), "absent");
    ck_assert_double_eq(back.time_limit_s, 5);
    ck_assert_int_eq(back.ignore_result, APM_NO);
    ck_assert_int_eq(back.priority, -1);
    ck_assert(back.redelivered);
}
END_TEST

/* Packed, with what belongs behind it. */
static apm_str
whole(apm_buf *out, apm_str behind)
{
    apm_buf_adds(out, behind);
    return apm_buf_str(out);
}

START_TEST(a_long_text_travels_behind_the_others)
{
    apm_request back;
    apm_outcome out, outcome = { .kind = APM_DONE_SUCCESS, .children = APM_STR("[1]") };
    apm_str behind;
    char *args = malloc(APM_PACK_BEHIND + 1);

    memset(args, ' ', APM_PACK_BEHIND);
    memcpy(args, "[7", 2);
    args[APM_PACK_BEHIND - 1] = ']';
    args[APM_PACK_BEHIND] = '\0';
    read_it("{\"task\": \"t\", \"id\": \"i\"}", "[[1, 2], {\"k\": 1}, {}]");
    apm_request_pack(&req, &buf, &behind);
    ck_assert(!apm_str_is(behind));
    for (int i = 0; i < 2; i++) { /* the second long text is one of the others */
        apm_buf_reset(&buf);
        req.args = outcome.result = (apm_str){ args, APM_PACK_BEHIND };
        if (i)
            req.correlation_id = req.args;
        apm_request_pack(&req, &buf, &behind);
        ck_assert_ptr_eq(behind.p, args);
        ck_assert_int_eq(buf.len > APM_PACK_BEHIND, i);
        ck_ok(apm_request_unpack(whole(&buf, behind), &back, err));
        ck_assert(apm_str_eq(back.args, req.args));
        ck_assert_str_eq(text(back.kwargs), "{\"k\": 1}");
        ck_assert(apm_str_eq(back.correlation_id, req.correlation_id));
    }
    for (size_t len = buf.len - APM_PACK_BEHIND; len < buf.len; len += 1000)
        ck_fails(apm_request_unpack((apm_str){ buf.p, len }, &back, err), APIUM_E_DECODE);
    apm_buf_reset(&buf);
    apm_outcome_pack(&outcome, &buf, &behind);
    ck_assert_ptr_eq(behind.p, args);
    ck_ok(apm_outcome_unpack(whole(&buf, behind), &out, err));
    ck_assert(apm_str_eq(out.result, outcome.result));
    ck_assert_str_eq(text(out.children), "[1]");
    for (size_t len = buf.len - APM_PACK_BEHIND; len < buf.len; len += 1000)
        ck_fails(apm_outcome_unpack((apm_str){ buf.p, len }, &out, err), APIUM_E_DECODE);
    free(args);
}
END_TEST

/* Whatever user code may have scribbled over a slot. */
START_TEST(a_damaged_slot_is_an_error_and_never_read_beyond)
{
    apm_request back;
    apm_outcome out, outcome = { .kind = APM_DONE_SUCCESS, .result = APM_STR("[1]") };
    apm_buf other, scratch;

    read_it("{\"task\": \"t\", \"id\": \"i\"}", "[[1, 2], {}, {\"chain\": [1]}]");
    apm_request_pack(&req, &buf, NULL);
    apm_buf_init(&other, APM_BUF_MAX);
    apm_buf_init(&scratch, APM_BUF_MAX);
    apm_outcome_pack(&outcome, &other, NULL);
    for (size_t len = 0; len < buf.len; len++) {
        char *copy = malloc(len + 1);
        memcpy(copy, buf.p, len);
        ck_fails(apm_request_unpack((apm_str){ copy, len }, &back, err), APIUM_E_DECODE);
        free(copy);
    }
    for (size_t len = 0; len < other.len; len++) {
        char *copy = malloc(len + 1);
        memcpy(copy, other.p, len);
        ck_fails(apm_outcome_unpack((apm_str){ copy, len }, &out, err), APIUM_E_DECODE);
        free(copy);
    }
    srandom(7);
    for (int i = 0; i < 20000; i++) {
        bool request = i % 2;
        apm_str from = apm_buf_str(request ? &buf : &other);
        char *copy = malloc(from.len);
        memcpy(copy, from.p, from.len);
        for (int n = 0; n < 3; n++)
            copy[(size_t)random() % from.len] = (char)random();
        apm_str damaged = { copy, from.len };
        if (request && apm_request_unpack(damaged, &back, NULL) == APIUM_OK)
            apm_request_pack(&back, &scratch, NULL); /* reads every byte */
        if (!request && apm_outcome_unpack(damaged, &out, NULL) == APIUM_OK)
            apm_outcome_pack(&out, &scratch, NULL);
        apm_buf_reset(&scratch);
        free(copy);
    }
    apm_buf_clear(&other);
    apm_buf_clear(&scratch);
}
END_TEST

START_TEST(an_outcome_comes_back_whole)
{
    apm_outcome back, outcome = {
        .kind = APM_DONE_RETRY,
        .exc = { APM_STR("ValueError"), APM_STR("builtins"), APM_STR("[\"x\"]") },
        .traceback = APM_STR("Traceback"),
        .retry_eta_us = 123,
        .retries = 2,
        .retry_request = APM_STR("{\"queue\": \"q\"}"),
        .runtime_ns = 5,
        .expected = true,
        .states = 3,
    };

    apm_outcome_pack(&outcome, &buf, NULL);
    ck_ok(apm_outcome_unpack(apm_buf_str(&buf), &back, err));
    ck_assert_int_eq(back.kind, APM_DONE_RETRY);
    ck_assert_str_eq(text(back.exc.type), "ValueError");
    ck_assert_str_eq(text(back.retry_request), "{\"queue\": \"q\"}");
    ck_assert_str_eq(text(back.children), "absent");
    ck_assert_int_eq(back.retry_eta_us, 123);
    ck_assert(back.expected && !back.requeue);
    ck_assert_uint_eq(back.states, 3);
}
END_TEST

START_TEST(an_outcome_that_would_break_a_document_is_refused)
{
    static const apm_outcome bad[] = {
        { .kind = APM_DONE_SUCCESS, .result = { "{\"a\": ", 6 } },
        { .kind = APM_DONE_FAILURE, .exc = { .args = { "5", 1 } } },
        { .kind = APM_DONE_FAILURE, .exc = { .type = { "\xff", 1 } } },
        { .kind = APM_DONE_FAILURE, .traceback = { "\xff", 1 } },
        { .kind = APM_DONE_RETRY, .retry_request = { "[]", 2 } },
        { .kind = APM_DONE_SUCCESS, .children = { "[", 1 } },
    };
    apm_outcome out;

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        apm_buf_reset(&buf);
        apm_outcome_pack(&bad[i], &buf, NULL);
        ck_fails(apm_outcome_unpack(apm_buf_str(&buf), &out, err), APIUM_E_DECODE);
    }
}
END_TEST

START_TEST(an_exception_looks_like_pythons)
{
    apm_exception_repr(&buf, &(apm_exception){ APM_STR("ValueError"), APM_STR("builtins"),
                                               APM_STR("[\"boom\", 42]") });
    ck_assert_str_eq(buf.p, "ValueError('boom', 42)");
    apm_buf_reset(&buf);
    apm_exception_repr(&buf, &(apm_exception){ .type = APM_STR("KeyError") });
    ck_assert_str_eq(buf.p, "KeyError()");
    apm_buf_reset(&buf);
    apm_exception_repr(
        &buf, &(apm_exception){ .type = APM_STR("E"),
                                .args = APM_STR("[\"it's\", \"'\\\"\", {\"k\": [null]}]") });
    ck_assert_str_eq(buf.p, "E(\"it's\", '\\'\"', {'k': [None]})");
    apm_buf_reset(&buf);
    apm_exception_json(&buf, &(apm_exception){ APM_STR("E\"x"), APM_STR("m"), APM_STR("[1.0]") });
    ck_assert_str_eq(buf.p,
                     "{\"exc_type\": \"E\\\"x\", \"exc_message\": [1.0], \"exc_module\": \"m\"}");
}
END_TEST

int
main(void)
{
    const TTest *const tests[] = {
        the_minimum_of_protocol_2_is_enough,
        every_header_is_read,
        values_are_passed_through_to_the_byte,
        protocol_1_is_read_from_the_body,
        in_a_hybrid_the_headers_override_the_body,
        args_become_what_a_call_of_python_makes_of_them,
        name_and_id_are_known_of_a_message_that_is_no_good,
        hostile_messages_have_their_class,
        a_body_nested_too_deep_is_refused,
        content_that_is_not_accepted_is_refused_by_name,
        a_new_call_has_all_headers_of_celery_in_its_order,
        dates_and_limits_are_written_as_celery_writes_them,
        a_request_sent_on_keeps_the_text_of_what_has_not_changed,
        a_callers_headers_override_at_the_same_level,
        protocol_1_has_everything_in_the_body,
        bodies_in_every_format_and_compression_come_back,
        a_packed_request_comes_back_whole,
        a_long_text_travels_behind_the_others,
        a_damaged_slot_is_an_error_and_never_read_beyond,
        an_outcome_comes_back_whole,
        an_outcome_that_would_break_a_document_is_refused,
        an_exception_looks_like_pythons,
        NULL,
    };

    return suite_run_with("request", tests, 10, setup, teardown);
}
