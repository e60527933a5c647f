/*
 * request_write.c - from a request to a message: headers in Celery 5.6's order, body, properties.
 *
 * A request that was read, and is sent on, keeps the very text of each header whose meaning has not
 * changed (the offset of a date, 20 or 20.0) and every header we do not know.
 */
#include "core/model/request_fields.h"

#include "core/base/clock.h"
#include "core/base/error.h"
#include "core/model/serializer.h"

/* Celery cuts argsrepr and kwargsrepr here. */
#define REPR_MAX 1024

/* apm_field_names of the headers that every message has, as they stand there: looking at each for what needs an escape cost a quarter of
 * a call. */
#define KEY(name)                                                                                  \
    {                                                                                              \
        ", \"" name "\": ", sizeof(", \"" name "\": ") - 1                                         \
    }
static const apm_str written_keys[APM_F_WRITTEN] = {
    [APM_F_LANG] = KEY("lang"),
    [APM_F_TASK] = KEY("task"),
    [APM_F_ID] = KEY("id"),
    [APM_F_SHADOW] = KEY("shadow"),
    [APM_F_ETA] = KEY("eta"),
    [APM_F_EXPIRES] = KEY("expires"),
    [APM_F_GROUP] = KEY("group"),
    [APM_F_GROUP_INDEX] = KEY("group_index"),
    [APM_F_RETRIES] = KEY("retries"),
    [APM_F_TIMELIMIT] = KEY("timelimit"),
    [APM_F_ROOT_ID] = KEY("root_id"),
    [APM_F_PARENT_ID] = KEY("parent_id"),
    [APM_F_ARGSREPR] = KEY("argsrepr"),
    [APM_F_KWARGSREPR] = KEY("kwargsrepr"),
    [APM_F_ORIGIN] = KEY("origin"),
    [APM_F_IGNORE_RESULT] = KEY("ignore_result"),
    [APM_F_NESTING] = KEY("replaced_task_nesting"),
    [APM_F_STAMPED_HEADERS] = KEY("stamped_headers"),
    [APM_F_STAMPS] = KEY("stamps"),
};
#undef KEY

struct writing {
    const apm_request *req;
    const apm_encode_opts *opts;
    apm_json was[APM_FIELDS];   /* the headers the request was read with... */
    apm_request meant;          /* ...and what they meant; nothing where they were not understood */
    apm_json given[APM_FIELDS]; /* the caller's extra headers */
    apm_buf *buf;
};

static void
write_text(apm_buf *buf, apm_str text)
{
    if (apm_str_is(text))
        apm_json_add_string(buf, text);
    else
        apm_buf_addz(buf, "null");
}

static void
write_date(apm_buf *buf, int64_t wall_us)
{
    char date[APM_DATE_MAX];

    if (wall_us == APM_TIME_NONE) {
        apm_buf_addz(buf, "null");
        return;
    }
    apm_date_print(wall_us, 0, date);
    apm_json_add_stringz(buf, date);
}

static void
write_seconds(apm_buf *buf, double seconds)
{
    if (seconds <= 0)
        apm_buf_addz(buf, "null");
    else if (seconds < 1e15 && (double)(int64_t)seconds == seconds)
        apm_json_add_int(buf, (int64_t)seconds);
    else
        apm_json_add_double(buf, seconds);
}

/* Python's repr of a value, cut, as a JSON string. */
static void
write_repr(apm_buf *buf, apm_str text, bool tuple)
{
    apm_buf repr;
    apm_json val;

    if (apm_str_eqz(text, tuple ? "[]" : "{}")) { /* so frequent that it is worth a line */
        apm_buf_addz(buf, tuple ? "\"()\"" : "\"{}\"");
        return;
    }
    apm_buf_init(&repr, APM_BUF_MAX);
    if (apm_json_parse(text, &val, NULL) == APIUM_OK)
        apm_json_repr(&repr, val, tuple, REPR_MAX);
    apm_json_add_string(buf, apm_buf_str(&repr));
    apm_buf_clear(&repr);
}

/* Does the header that was read still say what the request says? */
static bool
unchanged(const struct writing *w, apm_field field)
{
    const apm_request *req = w->req, *was = &w->meant;

    if (w->was[field].type == APM_JSON_NONE)
        return false;
    switch (field) {
    case APM_F_TASK:
        return apm_str_eq(req->task, was->task);
    case APM_F_ID:
        return apm_str_eq(req->id, was->id);
    case APM_F_SHADOW:
        return apm_str_eq(req->shadow, was->shadow);
    case APM_F_ETA:
        return req->eta_us == was->eta_us;
    case APM_F_EXPIRES:
        return req->expires_us == was->expires_us;
    case APM_F_GROUP:
        return apm_str_eq(req->group, was->group);
    case APM_F_GROUP_INDEX:
        return req->group_index == was->group_index;
    case APM_F_RETRIES:
        return req->retries == was->retries;
    case APM_F_TIMELIMIT:
        return req->time_limit_s == was->time_limit_s &&
               req->soft_time_limit_s == was->soft_time_limit_s;
    case APM_F_ROOT_ID:
        return apm_str_eq(req->root_id, was->root_id);
    case APM_F_PARENT_ID:
        return apm_str_eq(req->parent_id, was->parent_id);
    case APM_F_ARGSREPR:
        return apm_str_is(req->argsrepr) && apm_str_eq(req->argsrepr, was->argsrepr);
    case APM_F_KWARGSREPR:
        return apm_str_is(req->kwargsrepr) && apm_str_eq(req->kwargsrepr, was->kwargsrepr);
    case APM_F_ORIGIN:
        return apm_str_eq(req->origin, was->origin);
    case APM_F_IGNORE_RESULT:
        return req->ignore_result == was->ignore_result;
    case APM_F_NESTING:
        return req->replaced_task_nesting == was->replaced_task_nesting;
    default: /* lang and the stamps are only ever passed on */
        return true;
    }
}

static void
write_field(const struct writing *w, apm_field field)
{
    const apm_request *req = w->req;
    apm_buf *buf = w->buf;

    switch (field) {
    case APM_F_LANG:
        apm_buf_addz(buf, "\"c\"");
        break;
    case APM_F_TASK:
        write_text(buf, req->task);
        break;
    case APM_F_ID:
        write_text(buf, req->id);
        break;
    case APM_F_SHADOW:
        write_text(buf, req->shadow);
        break;
    case APM_F_ETA:
        write_date(buf, req->eta_us);
        break;
    case APM_F_EXPIRES:
        write_date(buf, req->expires_us);
        break;
    case APM_F_GROUP:
        write_text(buf, req->group);
        break;
    case APM_F_GROUP_INDEX:
        if (req->group_index < 0)
            apm_buf_addz(buf, "null");
        else
            apm_json_add_int(buf, req->group_index);
        break;
    case APM_F_RETRIES:
        apm_json_add_int(buf, req->retries);
        break;
    case APM_F_TIMELIMIT:
        apm_buf_addc(buf, '[');
        write_seconds(buf, req->time_limit_s);
        apm_buf_addz(buf, ", ");
        write_seconds(buf, req->soft_time_limit_s);
        apm_buf_addc(buf, ']');
        break;
    case APM_F_ROOT_ID: /* a task that nobody else sent is its own root */
        write_text(buf, apm_str_is(req->root_id) ? req->root_id : req->id);
        break;
    case APM_F_PARENT_ID:
        write_text(buf, req->parent_id);
        break;
    case APM_F_ARGSREPR:
        if (apm_str_is(req->argsrepr))
            write_text(buf, req->argsrepr);
        else
            write_repr(buf, apm_str_is(req->args) ? req->args : APM_STR("[]"), true);
        break;
    case APM_F_KWARGSREPR:
        if (apm_str_is(req->kwargsrepr))
            write_text(buf, req->kwargsrepr);
        else
            write_repr(buf, apm_str_is(req->kwargs) ? req->kwargs : APM_STR("{}"), false);
        break;
    case APM_F_ORIGIN:
        write_text(buf, apm_str_is(req->origin) ? req->origin : apm_strz(w->opts->origin));
        break;
    case APM_F_IGNORE_RESULT:
        apm_buf_addz(buf, req->ignore_result == APM_UNSET ? "null"
                          : req->ignore_result            ? "true"
                                                          : "false");
        break;
    case APM_F_NESTING:
        apm_json_add_int(buf, req->replaced_task_nesting);
        break;
    case APM_F_STAMPS:
        apm_buf_addz(buf, "{}");
        break;
    default:
        apm_buf_addz(buf, "null");
    }
}

/* Made by brokers on the way (a dead-letter history, the mark of a redelivery): not for the next
 * message. */
static bool
made_by_broker(apm_str raw_key)
{
    static const char *const prefixes[] = { "x-death", "x-first-death-", "x-last-death-",
                                            "x-delivery-count", "x-acquired-count" };

    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        size_t len = strlen(prefixes[i]);
        if (raw_key.len > len + 1 && memcmp(raw_key.p + 1, prefixes[i], len) == 0)
            return true;
    }
    return false;
}

static bool
has_key(apm_str object, apm_str raw_key)
{
    apm_json_iter it;
    apm_json val;
    apm_str key;

    if (!object.len || apm_json_open(&it, object, NULL) != APIUM_OK)
        return false;
    while (apm_json_next(&it, &key, &val, NULL) > 0)
        if (apm_str_eq(key, raw_key))
            return true;
    return false;
}

/* The members of `object` that are no known header, but for those that `over` replaces. */
static apium_status
write_unknown(const struct writing *w, apm_str object, apm_str over, apium_error *err)
{
    apm_json_iter it;
    apm_json val;
    apm_str key;
    apium_status st;
    int more, hint = 0;

    if (!object.len)
        return APIUM_OK;
    if ((st = apm_json_open(&it, object, err)) != APIUM_OK)
        return st;
    while ((more = apm_json_next(&it, &key, &val, err)) > 0) {
        if (apm_field_find(key, APM_F_HEADERS, &hint) >= 0 || made_by_broker(key) ||
            has_key(over, key))
            continue;
        apm_buf_addz(w->buf, w->buf->p && w->buf->len > 1 ? ", " : "");
        apm_buf_adds(w->buf, key);
        apm_buf_addz(w->buf, ": ");
        apm_buf_adds(w->buf, val.text);
    }
    return more < 0 ? APIUM_E_DECODE : APIUM_OK;
}

/* Into the arena; the buffer is cleared. */
static apium_status
keep(apm_buf *buf, apm_arena *arena, apm_str *out, apium_error *err)
{
    bool ok = !buf->failed;

    if (ok)
        *out = apm_arena_str(arena, apm_buf_str(buf), &ok);
    apm_buf_clear(buf);
    return ok ? APIUM_OK
              : apm_fail(err, APIUM_E_ENCODE,
                         "cannot encode a message: too big, or text in it is not UTF-8");
}

static apium_status
write_headers(struct writing *w, const char *compression, apm_arena *arena, apm_str *out,
              apium_error *err)
{
    const apm_request *req = w->req;
    apm_str extra = w->opts->extra_headers;
    apm_buf buf;
    apium_status st;

    apm_buf_init(&buf, APM_BUF_MAX);
    w->buf = &buf;
    apm_request_init(&w->meant);
    if (extra.len && (st = apm_fields_read(extra, APM_F_HEADERS, w->given, err)) != APIUM_OK)
        return st;
    if (req->headers.len &&
        (apm_fields_read(req->headers, APM_F_HEADERS, w->was, NULL) != APIUM_OK ||
         apm_fields_interpret(w->was, 0, arena, &w->meant, NULL) != APIUM_OK))
        memset(w->was, 0, sizeof w->was);
    (void)apm_buf_reserve(&buf, 1000); /* what headers nearly always need */
    apm_buf_addc(&buf, '{');
    for (apm_field field = 0; w->opts->protocol != 1 && field < APM_F_WRITTEN; field++) {
        const apm_str key = written_keys[field];
        apm_buf_add(&buf, field ? key.p : key.p + 2, field ? key.len : key.len - 2);
        if (w->given[field].type != APM_JSON_NONE)
            apm_buf_adds(&buf, w->given[field].text);
        else if (unchanged(w, field))
            apm_buf_adds(&buf, w->was[field].text);
        else
            write_field(w, field);
    }
    if ((st = write_unknown(w, req->headers, extra, err)) != APIUM_OK ||
        (st = write_unknown(w, extra, APM_STR_NONE, err)) != APIUM_OK) {
        apm_buf_clear(&buf);
        return st;
    }
    if (compression) {
        apm_json_add_key(&buf, "compression");
        apm_json_add_stringz(&buf, compression);
    }
    apm_buf_addc(&buf, '}');
    return keep(&buf, arena, out, err);
}

/* Is the embed that was read still what the request says? */
static bool
embed_unchanged(const apm_request *req)
{
    static const struct {
        const char *name;
        size_t offset;
    } parts[] = {
        { "callbacks", offsetof(apm_request, callbacks) },
        { "errbacks", offsetof(apm_request, errbacks) },
        { "chain", offsetof(apm_request, chain) },
        { "chord", offsetof(apm_request, chord) },
    };
    apm_json embed;

    if (!apm_str_is(req->embed) || apm_json_parse(req->embed, &embed, NULL) != APIUM_OK)
        return false;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        apm_str now = *(const apm_str *)((const char *)req + parts[i].offset);
        apm_json was = apm_json_get(embed, parts[i].name);
        if (!apm_str_eq(now, apm_json_true(was) ? was.text : APM_STR_NONE))
            return false;
    }
    return true;
}

static void
write_follow_up(apm_buf *buf, const char *name, apm_str text)
{
    apm_json_add_key(buf, name);
    apm_buf_adds(buf, apm_str_is(text) ? text : APM_STR("null"));
}

static void
write_embed(apm_buf *buf, const apm_request *req)
{
    apm_json_iter it;
    apm_json val;
    apm_str key;

    if (!apm_str_is(req->embed) && !apm_str_is(req->callbacks) && !apm_str_is(req->errbacks) &&
        !apm_str_is(req->chain) && !apm_str_is(req->chord)) {
        apm_buf_addz(buf,
                     "{\"callbacks\": null, \"errbacks\": null, \"chain\": null, \"chord\": null}");
        return;
    }
    if (embed_unchanged(req)) {
        apm_buf_adds(buf, req->embed);
        return;
    }
    apm_buf_addc(buf, '{');
    write_follow_up(buf, "callbacks", req->callbacks);
    write_follow_up(buf, "errbacks", req->errbacks);
    write_follow_up(buf, "chain", req->chain);
    write_follow_up(buf, "chord", req->chord);
    if (apm_str_is(req->embed) && apm_json_open(&it, req->embed, NULL) == APIUM_OK && it.object)
        while (apm_json_next(&it, &key, &val, NULL) > 0)
            if (!apm_json_key_is(key, "callbacks") && !apm_json_key_is(key, "errbacks") &&
                !apm_json_key_is(key, "chain") && !apm_json_key_is(key, "chord")) {
                apm_buf_addz(buf, ", ");
                apm_buf_adds(buf, key);
                apm_buf_addz(buf, ": ");
                apm_buf_adds(buf, val.text);
            }
    apm_buf_addc(buf, '}');
}

static void
write_body_2(apm_buf *buf, const apm_request *req)
{
    apm_buf_addc(buf, '[');
    apm_buf_adds(buf, apm_str_is(req->args) ? req->args : APM_STR("[]"));
    apm_buf_addz(buf, ", ");
    apm_buf_adds(buf, apm_str_is(req->kwargs) ? req->kwargs : APM_STR("{}"));
    apm_buf_addz(buf, ", ");
    write_embed(buf, req);
    apm_buf_addc(buf, ']');
}

static void
write_body_1(const struct writing *w)
{
    static const apm_field order[] = { APM_F_TASK,      APM_F_ID,        APM_F_ARGS,
                                       APM_F_KWARGS,    APM_F_GROUP,     APM_F_GROUP_INDEX,
                                       APM_F_RETRIES,   APM_F_ETA,       APM_F_EXPIRES,
                                       APM_F_UTC,       APM_F_CALLBACKS, APM_F_ERRBACKS,
                                       APM_F_TIMELIMIT, APM_F_TASKSET,   APM_F_CHORD };
    const apm_request *req = w->req;
    apm_buf *buf = w->buf;

    apm_buf_addc(buf, '{');
    for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
        apm_json_add_key(buf, apm_field_names[order[i]]);
        switch (order[i]) {
        case APM_F_ARGS:
            apm_buf_adds(buf, apm_str_is(req->args) ? req->args : APM_STR("[]"));
            break;
        case APM_F_KWARGS:
            apm_buf_adds(buf, apm_str_is(req->kwargs) ? req->kwargs : APM_STR("{}"));
            break;
        case APM_F_UTC:
            apm_buf_addz(buf, "true");
            break;
        case APM_F_CALLBACKS:
            apm_buf_adds(buf, apm_str_is(req->callbacks) ? req->callbacks : APM_STR("null"));
            break;
        case APM_F_ERRBACKS:
            apm_buf_adds(buf, apm_str_is(req->errbacks) ? req->errbacks : APM_STR("null"));
            break;
        case APM_F_CHORD:
            apm_buf_adds(buf, apm_str_is(req->chord) ? req->chord : APM_STR("null"));
            break;
        case APM_F_TASKSET:
            write_text(buf, req->group);
            break;
        default:
            write_field(w, order[i]);
        }
    }
    apm_buf_addc(buf, '}');
}

static apium_status
write_body(struct writing *w, const apm_serializer *format, const char **mime, apm_arena *arena,
           apm_str *out, apium_error *err)
{
    apm_buf buf;
    apm_str body;
    apium_status st;

    apm_buf_init(&buf, APM_BUF_MAX);
    w->buf = &buf;
    if (w->opts->protocol == 1)
        write_body_1(w);
    else
        write_body_2(&buf, w->req);
    if ((st = keep(&buf, arena, &body, err)) != APIUM_OK)
        return st;
    if (format->from_json && (st = format->from_json(body, arena, &body, err)) != APIUM_OK)
        return st;
    if (w->opts->compression && (st = apm_compress(apm_strz(w->opts->compression), body, arena,
                                                   &body, mime, err)) != APIUM_OK)
        return st;
    *out = body;
    return APIUM_OK;
}

apium_status
apm_request_write(const apm_request *req, const apm_encode_opts *opts, apm_arena *arena,
                  apm_message *out, apium_error *err)
{
    const char *name = opts->serializer ? opts->serializer : "json", *mime = NULL;
    const apm_serializer *format = apm_serializer_find(apm_strz(name));
    struct writing w = { .req = req, .opts = opts };
    apium_status st;

    if (!format || format->accept_bit == APM_ACCEPT_PICKLE)
        return apm_fail(err, APIUM_E_UNSUPPORTED,
                        "cannot encode a message: serializer %s is not supported", name);
    if (opts->protocol == 1 && apm_str_is(req->chain))
        return apm_fail(err, APIUM_E_UNSUPPORTED,
                        "cannot encode a message: protocol 1 has no chain");
    apm_message msg = {
        .content_type = apm_strz(format->content_type),
        .content_encoding = apm_strz(format->content_encoding),
        .correlation_id = apm_str_is(req->correlation_id) ? req->correlation_id : req->id,
        .reply_to = req->reply_to,
        .priority = req->priority,
        .delivery_mode = req->delivery_mode ? req->delivery_mode : 2,
        .exchange = req->exchange,
        .routing_key = req->routing_key,
    };
    if ((st = write_body(&w, format, &mime, arena, &msg.body, err)) != APIUM_OK ||
        (st = write_headers(&w, mime, arena, &msg.headers, err)) != APIUM_OK)
        return st;
    if (req->expires_us != APM_TIME_NONE) {
        int64_t left_us = req->expires_us - apm_clock_wall_us();
        /* Rounded up: the moments since the sender named the time are not to be seen in it. */
        char *text =
            apm_arena_printf(arena, "%lld", (long long)(left_us > 0 ? (left_us + 999) / 1000 : 0));
        if (!text)
            return apm_fail(err, APIUM_E_NOMEM, "cannot encode a message: out of memory");
        msg.expiration = apm_strz(text);
    }
    *out = msg;
    return APIUM_OK;
}
