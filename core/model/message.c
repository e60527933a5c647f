/*
 * message.c - the envelope: a message as one JSON text, the form that Redis and SQLite keep.
 *
 *     {"body": "<base64>", "content-encoding": ..., "content-type": ..., "headers": {...},
 *      "properties": {..., "delivery_info": {...}, "body_encoding": "base64", "delivery_tag": ...}}
 *
 * What is read is sliced; only a base64 body is decoded. What is written has kombu's keys in
 * kombu's order.
 */
#include "core/model/message.h"

#include "core/base/b64.h"
#include "core/base/clock.h"
#include "core/base/error.h"
#include "core/base/ids.h"

int64_t
apm_message_waits_since(int64_t sent_us, apm_str eta)
{
    int64_t due_us;

    if (sent_us && apm_str_is(eta) && apm_date_parse(eta, 0, &due_us, NULL) == APIUM_OK &&
        due_us > sent_us)
        return due_us;
    return sent_us;
}

/* A property that should be text: null is absent, anything else that is no string keeps its JSON
 * text, because such a message works between Python programs too. */
static apium_status
loose_text(apm_json val, const char *what, apm_arena *arena, apm_str *out, apium_error *err)
{
    if (val.type == APM_JSON_STRING)
        return apm_json_string(val, what, arena, out, err);
    *out = val.type == APM_JSON_NULL ? APM_STR_NONE : val.text;
    return APIUM_OK;
}

/* An integer that fits, or the default: kombu takes any other priority for none as well. */
static int
loose_int(apm_json val, int otherwise)
{
    int64_t n;

    if (val.type != APM_JSON_INT || apm_json_int64(val, "", &n, NULL) != APIUM_OK)
        return otherwise;
    return n < INT_MIN || n > INT_MAX ? otherwise : (int)n;
}

static bool
is_true(apm_json val)
{
    return val.type == APM_JSON_BOOL && val.text.p[0] == 't';
}

static apium_status
read_delivery_info(apm_json info, apm_arena *arena, apm_message *msg, apium_error *err)
{
    apm_json_iter it;
    apm_str key;
    apm_json val;
    int more;
    apium_status st = APIUM_OK;

    if (info.type != APM_JSON_OBJECT)
        return apm_fail(err, APIUM_E_DECODE, "no envelope: properties.delivery_info is %s",
                        info.type == APM_JSON_NONE ? "missing" : "no object");
    if ((st = apm_json_open(&it, info.text, err)) != APIUM_OK)
        return st;
    while ((more = apm_json_next(&it, &key, &val, err)) > 0) {
        if (apm_json_key_is(key, "exchange"))
            st = loose_text(val, "delivery_info.exchange", arena, &msg->exchange, err);
        else if (apm_json_key_is(key, "routing_key"))
            st = loose_text(val, "delivery_info.routing_key", arena, &msg->routing_key, err);
        else if (apm_json_key_is(key, "redelivered"))
            msg->redelivered = is_true(val);
        if (st != APIUM_OK)
            return st;
    }
    return more < 0 ? APIUM_E_DECODE : APIUM_OK;
}

struct properties {
    apm_json delivery_info, body_encoding, delivery_tag;
};

static bool
known_property(apm_str key)
{
    static const char *const names[] = { "correlation_id", "reply_to",    "expiration",
                                         "delivery_mode",  "priority",    "delivery_info",
                                         "body_encoding",  "delivery_tag" };

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (apm_json_key_is(key, names[i]))
            return true;
    return false;
}

static apium_status
read_properties(apm_json props, apm_arena *arena, apm_message *msg, struct properties *out,
                apium_error *err)
{
    apm_json_iter it;
    apm_str key;
    apm_json val;
    int more;
    apium_status st = APIUM_OK;

    if (props.type != APM_JSON_OBJECT)
        return apm_fail(err, APIUM_E_DECODE, "no envelope: properties %s",
                        props.type == APM_JSON_NONE ? "are missing" : "is no object");
    if ((st = apm_json_open(&it, props.text, err)) != APIUM_OK)
        return st;
    while ((more = apm_json_next(&it, &key, &val, err)) > 0) {
        if (apm_json_key_is(key, "correlation_id"))
            st = loose_text(val, "correlation_id", arena, &msg->correlation_id, err);
        else if (apm_json_key_is(key, "reply_to"))
            st = loose_text(val, "reply_to", arena, &msg->reply_to, err);
        else if (apm_json_key_is(key, "expiration"))
            st = loose_text(val, "expiration", arena, &msg->expiration, err);
        else if (apm_json_key_is(key, "delivery_mode"))
            msg->delivery_mode = loose_int(val, 0);
        else if (apm_json_key_is(key, "priority"))
            msg->priority = loose_int(val, APM_PRIORITY_NONE);
        else if (apm_json_key_is(key, "delivery_info"))
            out->delivery_info = val;
        else if (apm_json_key_is(key, "body_encoding"))
            out->body_encoding = val;
        else if (apm_json_key_is(key, "delivery_tag"))
            out->delivery_tag = val;
        if (st != APIUM_OK)
            return st;
    }
    return more < 0 ? APIUM_E_DECODE : read_delivery_info(out->delivery_info, arena, msg, err);
}

static apium_status
read_body(apm_json body, apm_json encoding, apm_arena *arena, apm_message *msg, apium_error *err)
{
    apm_str text, name = APM_STR_NONE;
    apium_status st;

    if (body.type != APM_JSON_STRING)
        return apm_fail(err, APIUM_E_DECODE, "no envelope: body is %s",
                        body.type == APM_JSON_NONE ? "missing" : "no string");
    if (encoding.type != APM_JSON_NONE &&
        (st = loose_text(encoding, "body_encoding", arena, &name, err)) != APIUM_OK)
        return st;
    if ((st = apm_json_string(body, "body", arena, &text, err)) != APIUM_OK)
        return st;
    if (name.len == 0 || apm_str_eqz(name, "utf-8")) {
        msg->body = text;
        return APIUM_OK;
    }
    if (!apm_str_eqz(name, "base64"))
        return apm_fail(err, APIUM_E_DECODE,
                        "cannot decode the envelope's body: unknown body_encoding %.*s",
                        APM_STR_ARG(name));
    size_t len;
    char *bytes = apm_arena_bytes(arena, text.len / 4 * 3 + 4);
    if (!bytes)
        return apm_fail(err, APIUM_E_NOMEM, "cannot decode the envelope's body: out of memory");
    if ((st = apm_b64_decode(text, bytes, &len, err)) != APIUM_OK)
        return st;
    bytes[len] = '\0';
    msg->body = (apm_str){ bytes, len };
    return APIUM_OK;
}

apium_status
apm_envelope_read(apm_str text, apm_arena *arena, apm_message *out, apm_str *tag, apium_error *err)
{
    apm_message msg = { .headers = APM_STR("{}"), .priority = APM_PRIORITY_NONE };
    struct properties props = { 0 };
    apm_json body = { 0 }, headers = { 0 }, properties = { 0 }, val;
    apm_str key, own_tag = APM_STR_NONE;
    apm_json_iter it;
    apium_status st;
    int more;

    if ((st = apm_json_open(&it, text, err)) != APIUM_OK)
        return st;
    if (!it.object)
        return apm_fail(err, APIUM_E_DECODE, "no envelope: the message is an array");
    while ((more = apm_json_next(&it, &key, &val, err)) > 0) {
        if (apm_json_key_is(key, "body"))
            body = val;
        else if (apm_json_key_is(key, "headers"))
            headers = val;
        else if (apm_json_key_is(key, "properties"))
            properties = val;
        else if (apm_json_key_is(key, "content-type"))
            st = loose_text(val, "content-type", arena, &msg.content_type, err);
        else if (apm_json_key_is(key, "content-encoding"))
            st = loose_text(val, "content-encoding", arena, &msg.content_encoding, err);
        if (st != APIUM_OK)
            return st;
    }
    if (more < 0)
        return APIUM_E_DECODE;
    if (headers.type == APM_JSON_OBJECT)
        msg.headers = headers.text;
    else if (headers.type != APM_JSON_NONE && headers.type != APM_JSON_NULL)
        return apm_fail(err, APIUM_E_DECODE, "no envelope: headers is no object");
    if ((st = read_properties(properties, arena, &msg, &props, err)) != APIUM_OK ||
        (st = read_body(body, props.body_encoding, arena, &msg, err)) != APIUM_OK)
        return st;
    if (props.delivery_tag.type != APM_JSON_NONE &&
        (st = loose_text(props.delivery_tag, "delivery_tag", arena, &own_tag, err)) != APIUM_OK)
        return st;
    if (apm_str_is(own_tag))
        msg.sent_us = apm_uuid7_time_us(own_tag.p, own_tag.len);
    msg.properties = properties.text;
    *out = msg;
    *tag = own_tag;
    return APIUM_OK;
}

static void
add_member(apm_buf *buf, const char *name, apm_str value)
{
    if (!apm_str_is(value))
        return;
    apm_json_add_key(buf, name);
    apm_json_add_string(buf, value);
}

static void
add_unknown(apm_buf *buf, apm_str properties)
{
    apm_json_iter it;
    apm_json val;
    apm_str key;

    if (!properties.len || apm_json_open(&it, properties, NULL) != APIUM_OK)
        return;
    while (apm_json_next(&it, &key, &val, NULL) > 0)
        if (!known_property(key)) {
            apm_buf_addz(buf, ", ");
            apm_buf_adds(buf, key);
            apm_buf_addz(buf, ": ");
            apm_buf_adds(buf, val.text);
        }
}

void
apm_envelope_write(apm_buf *buf, const apm_message *msg, const char *tag)
{
    apm_buf_addz(buf, "{\"body\": \"");
    apm_b64_add(buf, msg->body.p, msg->body.len);
    apm_buf_addc(buf, '"');
    add_member(buf, "content-encoding", msg->content_encoding);
    add_member(buf, "content-type", msg->content_type);
    apm_buf_addz(buf, ", \"headers\": ");
    apm_buf_adds(buf, apm_str_is(msg->headers) ? msg->headers : APM_STR("{}"));
    apm_buf_addz(buf, ", \"properties\": {");
    add_member(buf, "correlation_id", msg->correlation_id);
    add_member(buf, "reply_to", msg->reply_to);
    add_member(buf, "expiration", msg->expiration);
    apm_json_add_key(buf, "delivery_mode");
    apm_json_add_int(buf, msg->delivery_mode ? msg->delivery_mode : 2);
    /* Python dies of a message whose delivery_info lacks one of the two. */
    apm_buf_addz(buf, ", \"delivery_info\": {\"exchange\": ");
    apm_json_add_string(buf, apm_str_is(msg->exchange) ? msg->exchange : APM_STR(""));
    apm_buf_addz(buf, ", \"routing_key\": ");
    apm_json_add_string(buf, apm_str_is(msg->routing_key) ? msg->routing_key : APM_STR(""));
    apm_buf_addz(buf, msg->redelivered ? ", \"redelivered\": true}" : "}");
    apm_buf_addz(buf, ", \"priority\": ");
    apm_json_add_int(buf, msg->priority == APM_PRIORITY_NONE ? 0 : msg->priority);
    apm_buf_addz(buf, ", \"body_encoding\": \"base64\", \"delivery_tag\": ");
    apm_json_add_stringz(buf, tag ? tag : "");
    add_unknown(buf, msg->properties);
    apm_buf_addz(buf, "}}");
}

/* A change to a text: at `at`, `cut` bytes give way to `put`. */
struct edit {
    size_t at, cut;
    const char *put;
};

/* The edit that makes `object`'s member "redelivered" true. */
static apium_status
edit_flag(apm_str text, apm_json object, struct edit *edit, apium_error *err)
{
    apm_json_iter it;
    apm_json val, flag = { 0 };
    apm_str key;
    size_t members = 0;
    apium_status st;
    int more;

    if ((st = apm_json_open(&it, object.text, err)) != APIUM_OK)
        return st;
    for (; (more = apm_json_next(&it, &key, &val, err)) > 0; members++)
        if (apm_json_key_is(key, "redelivered"))
            flag = val;
    if (more < 0)
        return APIUM_E_DECODE;
    if (flag.type != APM_JSON_NONE)
        *edit = (struct edit){ (size_t)(flag.text.p - text.p), flag.text.len, "true" };
    else
        *edit = (struct edit){ (size_t)(object.text.p - text.p) + object.text.len - 1, 0,
                               members ? ", \"redelivered\": true" : "\"redelivered\": true" };
    return APIUM_OK;
}

apium_status
apm_envelope_redelivered(apm_buf *buf, apm_str text, apium_error *err)
{
    struct edit edits[2];
    apm_json whole, headers, info;
    apium_status st;

    if ((st = apm_json_parse(text, &whole, err)) != APIUM_OK)
        return st;
    headers = apm_json_get(whole, "headers");
    info = apm_json_get(apm_json_get(whole, "properties"), "delivery_info");
    if (whole.type != APM_JSON_OBJECT || info.type != APM_JSON_OBJECT)
        return apm_fail(err, APIUM_E_DECODE,
                        "no envelope: properties.delivery_info is missing or no object");
    if (headers.type == APM_JSON_NONE)
        edits[0] = (struct edit){ (size_t)(whole.text.p - text.p) + whole.text.len - 1, 0,
                                  ", \"headers\": {\"redelivered\": true}" };
    else if (headers.type == APM_JSON_NULL)
        edits[0] = (struct edit){ (size_t)(headers.text.p - text.p), headers.text.len,
                                  "{\"redelivered\": true}" };
    else if (headers.type != APM_JSON_OBJECT)
        return apm_fail(err, APIUM_E_DECODE, "no envelope: headers is no object");
    else if ((st = edit_flag(text, headers, &edits[0], err)) != APIUM_OK)
        return st;
    if ((st = edit_flag(text, info, &edits[1], err)) != APIUM_OK)
        return st;
    if (edits[0].at > edits[1].at) {
        struct edit first = edits[1];
        edits[1] = edits[0];
        edits[0] = first;
    }
    size_t at = 0;
    for (int i = 0; i < 2; i++) {
        apm_buf_add(buf, text.p + at, edits[i].at - at);
        apm_buf_addz(buf, edits[i].put);
        at = edits[i].at + edits[i].cut;
    }
    apm_buf_add(buf, text.p + at, text.len - at);
    return APIUM_OK;
}
