/*
 * Every captured message and result of real Celery programs: it decodes, and what we write of it
 * again is an equal document.
 */
#include <stdio.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/model/request_fields.h"
#include "core/model/result.h"
#include "core/model/serializer.h"
#include "tests/support/fixture.h"
#include "tests/support/suite.h"

#define ACCEPT_ALL (APM_ACCEPT_JSON | APM_ACCEPT_YAML | APM_ACCEPT_MSGPACK | APM_ACCEPT_PICKLE)

static apm_arena arena;
static apium_error the_error, *err = &the_error;
static size_t seen;

#define FAIL(one, ...)                                                                             \
    do {                                                                                           \
        char why_[400];                                                                            \
        snprintf(why_, sizeof why_, __VA_ARGS__);                                                  \
        ck_abort_msg("%s, message %zu %s: %s", (one)->file, (one)->number,                         \
                     (one)->label ? (one)->label : "", why_);                                      \
    } while (0)

static apm_json
parsed(const fixture *one, apm_str text)
{
    apm_json val;

    if (apm_json_parse(text, &val, err) != APIUM_OK)
        FAIL(one, "%s", err->text);
    return val;
}

/* What becomes of the fixtures that are no good, by their names; the rest decode. */
static const struct {
    const char *name;
    apm_malformed how;
} malformed[] = {
    { "mal_bad_json", APM_MAL_BODY },
    { "mal_bad_utf8", APM_MAL_BODY },
    { "mal_body_four_items", APM_MAL_INVALID },
    { "mal_body_two_items", APM_MAL_INVALID },
    { "mal_content_type_missing", APM_MAL_INVALID },
    { "mal_content_type_not_accepted", APM_MAL_INVALID }, /* pickle */
    { "mal_content_type_unknown", APM_MAL_INVALID },
    { "mal_corrupt_compression", APM_MAL_BODY },
    { "mal_empty_body", APM_MAL_INVALID },
    { "mal_eta_invalid", APM_MAL_INVALID },
    { "mal_eta_number", APM_MAL_INVALID },
    { "mal_expires_invalid", APM_MAL_INVALID },
    { "mal_expires_number", APM_MAL_INVALID },
    { "mal_headers_missing", APM_MAL_UNKNOWN },
    { "mal_kwargs_list", APM_MAL_BODY },
    { "mal_kwargs_null", APM_MAL_BODY },
    { "mal_no_headers_dict_body_no_task", APM_MAL_UNKNOWN },
    { "mal_no_headers_list_body", APM_MAL_UNKNOWN },
    { "mal_no_id", APM_MAL_INVALID },
    { "mal_timelimit_bad", APM_MAL_INVALID },
    { "mal_unknown_compression", APM_MAL_BODY },
    { "msg_pickle", APM_MAL_INVALID },
    { "v1_in_kwargs_list", APM_MAL_INVALID },
    { "v1_in_no_id", APM_MAL_BODY },
};

static apm_malformed
expected_of(const fixture *one)
{
    for (size_t i = 0; i < sizeof malformed / sizeof *malformed; i++)
        if (strcmp(malformed[i].name, one->name) == 0)
            return malformed[i].how;
    return APM_MAL_NONE;
}

/* Every member of `was` is in `now`, equal; what `now` has besides is a header that Celery 5.6
 * always writes. */
static void
same_headers(const fixture *one, apm_str was_text, apm_str now_text)
{
    apm_json was = parsed(one, was_text), now = parsed(one, now_text), val;
    apm_json_iter it;
    apm_str key;
    int hint = 0, field;

    ck_assert_int_eq(apm_json_open(&it, was_text, err), APIUM_OK);
    while (apm_json_next(&it, &key, &val, err) > 0) {
        char name[200];
        snprintf(name, sizeof name, "%.*s", (int)key.len - 2, key.p + 1);
        if (strcmp(name, "redelivered") == 0)
            continue; /* a mark of the delivery, not of the message */
        if (!apm_json_equal(apm_json_get(was, name), apm_json_get(now, name)))
            FAIL(one, "header %s was %.*s and is %.*s", name,
                 APM_STR_ARG(apm_json_get(was, name).text),
                 APM_STR_ARG(apm_json_get(now, name).text));
    }
    ck_assert_int_eq(apm_json_open(&it, now_text, err), APIUM_OK);
    while (apm_json_next(&it, &key, &val, err) > 0)
        if ((field = apm_field_find(key, APM_F_WRITTEN, &hint)) < 0) {
            char name[200];
            snprintf(name, sizeof name, "%.*s", (int)key.len - 2, key.p + 1);
            if (apm_json_get(was, name).type == APM_JSON_NONE)
                FAIL(one, "header %s was added", name);
        }
    if (apm_json_get(was, "stamps").type != APM_JSON_NONE &&
        apm_json_get(was, "lang").type != APM_JSON_NONE)
        ck_assert_uint_eq(apm_json_count(was) -
                              (apm_json_get(was, "redelivered").type != APM_JSON_NONE),
                          apm_json_count(now));
}

static apm_json
plain_body(const fixture *one, const apm_message *msg)
{
    apm_json compression = apm_json_get(parsed(one, msg->headers), "compression");
    const apm_serializer *format = apm_serializer_find(msg->content_type);
    apm_str name, body = msg->body;

    if (apm_json_true(compression)) {
        ck_ok(apm_json_string(compression, "compression", &arena, &name, err));
        ck_ok(apm_decompress(name, body, APM_BUF_MAX, &arena, &body, err));
    }
    if (format->to_json)
        ck_ok(format->to_json(body, &arena, &body, err));
    return parsed(one, body);
}

/* A body that lost what Celery allows to be missing is no equal document; those are named here. */
static bool
body_is_changed(const fixture *one)
{
    static const char *const names[] = {
        "hybrid_in", "mal_body_dict_with_v2_headers", /* mappings become [args, kwargs, embed] */
        "mal_args_string",                            /* "ab" becomes ["a", "b"] */
    };

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i], one->name) == 0)
            return true;
    return false;
}

static void
same_v1_body(const fixture *one, apm_json was, apm_json now)
{
    apm_json_iter it;
    apm_json val;
    apm_str key;

    ck_assert_int_eq(apm_json_open(&it, was.text, err), APIUM_OK);
    while (apm_json_next(&it, &key, &val, err) > 0) {
        char name[200];
        snprintf(name, sizeof name, "%.*s", (int)key.len - 2, key.p + 1);
        if (strcmp(name, "utc") == 0 || strcmp(one->name, "v1_in_eta_utc_false") == 0)
            continue; /* a naive date has got its offset */
        if (!apm_json_equal(val, apm_json_get(now, name)))
            FAIL(one, "member %s was %.*s and is %.*s", name, APM_STR_ARG(val.text),
                 APM_STR_ARG(apm_json_get(now, name).text));
    }
}

static void
write_again(const fixture *one, const apm_message *msg, const apm_request *req)
{
    char serializer[20], compression[40];
    apm_encode_opts opts = { .serializer = serializer, .protocol = req->protocol };
    apm_message out;

    snprintf(serializer, sizeof serializer, "%.*s", APM_STR_ARG(req->serializer));
    snprintf(compression, sizeof compression, "%.*s", APM_STR_ARG(req->compression));
    if (apm_str_is(req->compression))
        opts.compression = compression;
    if (apm_request_write(req, &opts, &arena, &out, err) != APIUM_OK)
        FAIL(one, "%s", err->text);
    same_headers(one, msg->headers, out.headers);
    apm_json was = plain_body(one, msg), now = plain_body(one, &out);
    if (req->protocol == 1)
        same_v1_body(one, was, now);
    else if (!body_is_changed(one) && !apm_json_equal(was, now))
        FAIL(one, "body was %.*s and is %.*s", APM_STR_ARG(was.text), APM_STR_ARG(now.text));
    ck_assert(apm_str_eq(msg->content_type, out.content_type));
    if (apm_str_is(msg->correlation_id))
        ck_assert(apm_str_eq(msg->correlation_id, out.correlation_id));
    ck_assert(apm_str_eq(msg->reply_to, out.reply_to));
    ck_assert(apm_str_eq(msg->exchange, out.exchange));
    ck_assert(apm_str_eq(msg->routing_key, out.routing_key));
    ck_assert_int_eq(msg->priority, out.priority);
    if (strncmp(one->name, "mal_", 4) != 0) /* hand-made ones set the header alone */
        ck_assert_int_eq(apm_str_is(msg->expiration), apm_str_is(out.expiration));
}

static void
pack_and_unpack(const fixture *one, const apm_request *req)
{
    apm_request back;
    apm_buf first, second;

    apm_buf_init(&first, APM_BUF_MAX);
    apm_buf_init(&second, APM_BUF_MAX);
    apm_request_pack(req, &first, NULL);
    if (apm_request_unpack(apm_buf_str(&first), &back, err) != APIUM_OK)
        FAIL(one, "%s", err->text);
    apm_request_pack(&back, &second, NULL);
    ck_assert(apm_str_eq(apm_buf_str(&first), apm_buf_str(&second)));
    ck_assert(apm_str_eq(req->id, back.id) && apm_str_eq(req->chain, back.chain));
    apm_buf_clear(&first);
    apm_buf_clear(&second);
}

static void
decode(const fixture *one, const apm_message *msg, apm_malformed expected)
{
    const apm_decode_opts opts = { .accept = ACCEPT_ALL };
    apm_request req;
    apm_malformed how;

    apm_request_read(msg, &opts, &arena, &req, &how, err);
    if (how != expected)
        FAIL(one, "class %d instead of %d: %s", (int)how, (int)expected,
             how ? err->text : "decoded");
    seen++;
    if (how != APM_MAL_NONE)
        return;
    write_again(one, msg, &req);
    pack_and_unpack(one, &req);
}

static void
envelope(const fixture *one)
{
    apm_message msg;
    apm_str tag;
    apm_buf buf;

    if (one->kind != FIXTURE_ENVELOPE)
        return;
    bool bad = strcmp(one->name, "mal_bad_base64") == 0;
    if ((apm_envelope_read(one->text, &arena, &msg, &tag, err) != APIUM_OK) != bad)
        FAIL(one, "%s", bad ? "decoded" : err->text);
    if (!bad) {
        char own_tag[64];
        snprintf(own_tag, sizeof own_tag, "%.*s", APM_STR_ARG(tag));
        apm_buf_init(&buf, APM_BUF_MAX);
        apm_envelope_write(&buf, &msg, own_tag);
        apm_json was = parsed(one, one->text), now = parsed(one, apm_buf_str(&buf));
        /* What hand-made envelopes leave out is filled in; Celery's own come out equal. */
        bool plain =
            apm_json_get(apm_json_get(was, "properties"), "body_encoding").type != APM_JSON_STRING;
        if (strncmp(one->name, "mal_", 4) != 0 && !plain && !apm_json_equal(was, now))
            FAIL(one, "the envelope became %.300s", buf.p);
        apm_message again;
        ck_ok(apm_envelope_read(apm_buf_str(&buf), &arena, &again, &tag, err));
        ck_assert(apm_str_eq(msg.body, again.body));
        apm_buf_clear(&buf);
        decode(one, &msg, expected_of(one));
    }
    apm_arena_clear(&arena);
}

static apm_str
property(apm_json props, const char *name)
{
    apm_str out = APM_STR_NONE;
    apm_json val = apm_json_get(props, name);

    if (val.type == APM_JSON_STRING)
        ck_ok(apm_json_string(val, name, &arena, &out, err));
    return out;
}

static apm_message
message_of(const fixture *one)
{
    int64_t priority = APM_PRIORITY_NONE;
    apm_message msg = {
        .content_type = property(one->props, "content_type"),
        .content_encoding = property(one->props, "content_encoding"),
        .correlation_id = property(one->props, "correlation_id"),
        .reply_to = property(one->props, "reply_to"),
        .expiration = property(one->props, "expiration"),
        .headers = one->headers,
        .body = one->text,
    };

    if (apm_json_get(one->props, "priority").type == APM_JSON_INT)
        ck_ok(apm_json_int64(apm_json_get(one->props, "priority"), "priority", &priority, err));
    msg.priority = (int)priority;
    return msg;
}

static apm_outcome outcome_of(const apm_result_doc *doc);
static void result_again(const fixture *one, apm_str text);

static void
frames(const fixture *one)
{
    if (one->kind != FIXTURE_FRAMES)
        return;
    apm_message msg = message_of(one);
    bool result = apm_json_get(parsed(one, one->headers), "task").type == APM_JSON_NONE &&
                  apm_json_get(parsed(one, one->text), "status").type == APM_JSON_STRING;
    bool event = strstr(one->name, "event") &&
                 apm_json_get(parsed(one, one->text), "type").type == APM_JSON_STRING;
    if (result)
        result_again(one, one->text);
    else if (!event)
        decode(one, &msg, APM_MAL_NONE);
    apm_arena_clear(&arena);
}

/* A worker's fate with a message, as messages are classed here. */
static bool
right_class(const fixture *one, apm_malformed how)
{
    apm_json survives = apm_json_get(one->outcome, "worker_survives"),
             lettered = apm_json_get(one->outcome, "dead_lettered"),
             returned = apm_json_get(one->outcome, "returned_to_queue"),
             result = apm_json_get(one->outcome, "result");
    bool ran = apm_json_true(result) || apm_json_true(returned) || strstr(one->label, "Reject") ||
               strstr(one->label, "Ignore");

    if (!apm_json_true(survives) || (apm_json_true(lettered) && !ran))
        return how == APM_MAL_INVALID ||
               how == APM_MAL_UNKNOWN; /* rejected; apium does not die of any */
    return how == (ran ? APM_MAL_NONE : APM_MAL_BODY);
}

static void
matrix(const fixture *one)
{
    const apm_decode_opts opts = { .accept = APM_ACCEPT_JSON };
    apm_malformed how;
    apm_request req;

    if (one->kind != FIXTURE_CASE)
        return;
    apm_message msg = message_of(one);
    apm_request_read(&msg, &opts, &arena, &req, &how, err);
    if (!right_class(one, how))
        FAIL(one, "class %d, but the worker did %.*s", (int)how, APM_STR_ARG(one->outcome.text));
    seen++;
    apm_arena_clear(&arena);
}

static apm_outcome
outcome_of(const apm_result_doc *doc)
{
    apm_outcome outcome = { .kind = APM_DONE_SUCCESS,
                            .result = doc->result.text,
                            .traceback = doc->traceback,
                            .exc = doc->exc,
                            .children = doc->children.text };

    if (apm_str_eqz(doc->status, "FAILURE"))
        outcome.kind = APM_DONE_FAILURE;
    else if (apm_str_eqz(doc->status, "RETRY"))
        outcome.kind = APM_DONE_RETRY;
    else if (apm_str_eqz(doc->status, "REVOKED"))
        outcome.kind = APM_DONE_REVOKED;
    return outcome;
}

/* Headers that stand for the stamps in a document. */
static apm_str
stamp_headers(apm_json doc)
{
    apm_json names = apm_json_get(doc, "stamped_headers");
    apm_buf buf;
    bool ok = true;

    if (names.type != APM_JSON_ARRAY)
        return APM_STR("{}");
    apm_buf_init(&buf, APM_BUF_MAX);
    apm_buf_addf(&buf, "{\"stamped_headers\": %.*s, \"stamps\": {", APM_STR_ARG(names.text));
    for (size_t i = 0; i < apm_json_count(names); i++) {
        const char *name;
        ck_ok(apm_json_cstr(apm_json_at(names, i), "stamp", &arena, &name, err));
        apm_buf_addf(&buf, "%s\"%s\": %.*s", i ? ", " : "", name,
                     APM_STR_ARG(apm_json_get(doc, name).text));
    }
    apm_buf_addz(&buf, "}}");
    apm_str out = apm_arena_str(&arena, apm_buf_str(&buf), &ok);
    apm_buf_clear(&buf);
    return out;
}

/* The offset that a date says, for writing it as it was; 5.2's dates say none, and are UTC. */
static int
zone_of(apm_json date)
{
    return date.type == APM_JSON_STRING && memmem(date.text.p, date.text.len, "+01:00", 6) ? 3600
                                                                                           : 0;
}

static void
result_again(const fixture *one, apm_str text)
{
    apm_json was = parsed(one, text), now;
    apm_result_doc doc;
    apm_json_iter it;
    apm_json val;
    apm_str key;
    apm_buf buf;

    if (apm_result_read(text, &arena, &doc, err) != APIUM_OK)
        FAIL(one, "%s", err->text);
    apm_request req;
    apm_request_init(&req);
    req.id = doc.task_id;
    req.group = doc.group_id;
    req.parent_id = doc.parent_id;
    req.task = doc.name;
    req.args = doc.args.text;
    req.kwargs = doc.kwargs.text;
    req.retries = doc.retries;
    req.routing_key = doc.queue;
    req.headers = stamp_headers(was);
    char worker[80];
    snprintf(worker, sizeof worker, "%.*s", APM_STR_ARG(doc.worker));
    apm_result_opts opts = { .extended = apm_json_get(was, "name").type != APM_JSON_NONE,
                             .worker = apm_str_is(doc.worker) ? worker : NULL,
                             .zone_offset_s = zone_of(apm_json_get(was, "date_done")),
                             .now_us = doc.date_done_us };
    apm_buf_init(&buf, APM_BUF_MAX);
    if (apm_state_ready(doc.status) || apm_state_exception(doc.status)) {
        apm_outcome outcome = outcome_of(&doc), back;
        apm_buf packed;
        apm_buf_init(&packed, APM_BUF_MAX);
        apm_outcome_pack(&outcome, &packed, NULL);
        ck_ok(apm_outcome_unpack(apm_buf_str(&packed), &back, err));
        apm_result_write(&buf, &req, &back, &opts);
        apm_buf_clear(&packed);
    } else {
        apm_result_write_state(&buf, &req, doc.status, doc.result.text, &opts);
    }
    now = parsed(one, apm_buf_str(&buf));
    ck_assert_int_eq(apm_json_open(&it, text, err), APIUM_OK);
    while (apm_json_next(&it, &key, &val, err) > 0) {
        char name[200];
        snprintf(name, sizeof name, "%.*s", (int)key.len - 2, key.p + 1);
        apm_json again = apm_json_get(now, name);
        /* 5.2's dates lack the offset: compare what they mean. */
        if (strcmp(name, "date_done") == 0 && val.type == APM_JSON_STRING) {
            int64_t us;
            apm_str date;
            ck_ok(apm_json_string(again, name, &arena, &date, err));
            ck_ok(apm_date_parse(date, 0, &us, err));
            ck_assert_int_eq(us, doc.date_done_us);
            if (memchr(val.text.p, '+', val.text.len))
                ck_assert(apm_json_equal(val, again));
        } else if (!apm_json_equal(val, again)) {
            FAIL(one, "%s was %.*s and is %.*s", name, APM_STR_ARG(val.text),
                 APM_STR_ARG(again.text));
        }
    }
    /* rpc:// of 5.2 leaves out what later versions send. */
    if (apm_json_get(was, "date_done").type != APM_JSON_NONE)
        ck_assert_uint_eq(apm_json_count(was), apm_json_count(now));
    apm_buf_clear(&buf);
    seen++;
}

static void
result(const fixture *one)
{
    apm_str text = one->text;

    if (one->kind != FIXTURE_RESULT || strncmp(one->name, "pickle_", 7) == 0)
        return;
    /* What programs of the tests wrote themselves is no document of Celery's. */
    if (strcmp(one->name, "foreign_error_meta_read") == 0)
        return;
    if (one->binary)
        ck_ok(apm_serializer_find(APM_STR("msgpack"))->to_json(text, &arena, &text, err));
    result_again(one, text);
    apm_arena_clear(&arena);
}

START_TEST(every_message_pushed_to_redis_is_read_and_written_equal)
{
    fixtures_each(envelope);
    ck_assert_uint_ge(seen, 600);
}
END_TEST

START_TEST(every_message_published_to_rabbitmq_is_read_and_written_equal)
{
    fixtures_each(frames);
    ck_assert_uint_ge(seen, 50);
}
END_TEST

START_TEST(every_malformed_message_meets_the_fate_that_celery_gives_it)
{
    fixtures_each(matrix);
    ck_assert_uint_ge(seen, 100);
}
END_TEST

START_TEST(every_stored_result_is_read_and_written_equal)
{
    fixtures_each(result);
    ck_assert_uint_ge(seen, 400);
}
END_TEST

int
main(void)
{
    const TTest *const tests[] = { every_message_pushed_to_redis_is_read_and_written_equal,
                                   every_message_published_to_rabbitmq_is_read_and_written_equal,
                                   every_malformed_message_meets_the_fate_that_celery_gives_it,
                                   every_stored_result_is_read_and_written_equal, NULL };

    return suite_run("fixtures", tests, 30);
}
