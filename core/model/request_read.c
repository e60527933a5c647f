/*
 * request_read.c - from a message to a request.
 *
 *     headers have `task`?  -- yes -->  protocol 2: body is [args, kwargs, embed]
 *            |                          or a mapping with `args` (hybrid): its members, headers overriding
 *            no ------------------->    protocol 1: body is a mapping with `task`
 *
 * Headers and body are walked once each; everything kept is a slice.
 */
#include "core/model/request_fields.h"

#include "core/base/error.h"
#include "core/model/serializer.h"

struct reading {
    const apm_message *msg;
    const apm_decode_opts *opts;
    apm_arena *arena;
    apm_request *req;
    apm_json fields[APM_FIELDS];
    bool named; /* the headers name the task */
    apm_malformed how;
    apium_error *err;
};

/* Fail as a class of its own. */
#define MALFORMED(r, class, ...)                                                                   \
    ((r)->how = (class), apm_fail((r)->err, APIUM_E_DECODE, __VA_ARGS__))

/*
 * The body as JSON text: checked against accept, unpacked, converted. Celery acks what it cannot
 * decode and rejects what it may not; without a task in the headers it must decode before it can
 * tell, and acks both.
 */
static apium_status
body_text(struct reading *r, apm_str *out)
{
    const apm_message *msg = r->msg;
    apm_json compression = r->fields[APM_F_COMPRESSION];
    apm_str body = msg->body;
    apium_status st;

    if (msg->content_type.len == 0 || apm_str_eqz(msg->content_type, "application/data"))
        return MALFORMED(r, r->named ? APM_MAL_INVALID : APM_MAL_UNKNOWN,
                         "the message has no content type");
    const apm_serializer *format = apm_serializer_find(msg->content_type);
    if (!format || !(format->accept_bit & r->opts->accept))
        return MALFORMED(r, r->named ? APM_MAL_INVALID : APM_MAL_BODY,
                         "Refusing to deserialize untrusted content of type %.*s (%s)",
                         APM_STR_ARG(msg->content_type), format ? format->name : "unknown");
    r->req->serializer = apm_strz(format->name);
    r->how = APM_MAL_BODY;
    if (apm_json_true(compression)) {
        apm_str name;
        if ((st = apm_json_string(compression, "compression", r->arena, &name, r->err)) !=
                APIUM_OK ||
            (st = apm_decompress(name, body, APM_BUF_MAX, r->arena, &body, r->err)) != APIUM_OK)
            return st;
    }
    if (body.len == 0)
        return MALFORMED(r, r->named ? APM_MAL_INVALID : APM_MAL_UNKNOWN,
                         "the message body is empty");
    if (format->to_json && (st = format->to_json(body, r->arena, &body, r->err)) != APIUM_OK) {
        if (st == APIUM_E_UNSUPPORTED &&
            r->named) /* pickle, though configured: refused, not undecodable */
            r->how = APM_MAL_INVALID;
        return st;
    }
    *out = body;
    return APIUM_OK;
}

/* The characters of a string, or the keys of an object, as an array: what Python's f(*args) makes
 * of them. */
static apium_status
spread_args(struct reading *r, apm_json args, apm_str *out)
{
    apm_buf buf;
    apm_json_iter it;
    apm_json val;
    apm_str text;
    apium_status st = APIUM_OK;

    apm_buf_init(&buf, APM_BUF_MAX);
    apm_buf_addc(&buf, '[');
    if (args.type == APM_JSON_STRING) {
        if ((st = apm_json_string(args, "args", r->arena, &text, r->err)) != APIUM_OK)
            goto out;
        for (size_t at = 0, len; at < text.len; at += len) {
            for (len = 1; at + len < text.len && ((unsigned char)text.p[at + len] & 0xc0) == 0x80;
                 len++)
                ;
            apm_buf_addz(&buf, at ? ", " : "");
            apm_json_add_string(&buf, (apm_str){ text.p + at, len });
        }
    } else {
        if ((st = apm_json_open(&it, args.text, r->err)) != APIUM_OK)
            goto out;
        while (apm_json_next(&it, &text, &val, r->err) > 0) {
            apm_buf_addz(&buf, buf.len > 1 ? ", " : "");
            apm_buf_adds(&buf, text);
        }
    }
    apm_buf_addc(&buf, ']');
    bool ok = !buf.failed;
    *out = apm_arena_str(r->arena, apm_buf_str(&buf), &ok);
    if (!ok)
        st = apm_fail(r->err, APIUM_E_NOMEM, "cannot read args: out of memory");
out:
    apm_buf_clear(&buf);
    return st;
}

/* Empty is none, as Celery asks only whether there are any. */
static apm_str
follow_up(apm_json val)
{
    return apm_json_true(val) ? val.text : APM_STR_NONE;
}

static apium_status
set_arguments(struct reading *r, apm_json args, apm_json kwargs)
{
    if (kwargs.type != APM_JSON_OBJECT)
        return MALFORMED(r, r->req->protocol == 1 ? APM_MAL_INVALID : APM_MAL_BODY,
                         "Task keyword arguments is not a mapping");
    r->req->kwargs = kwargs.text;
    if (args.type == APM_JSON_STRING || args.type == APM_JSON_OBJECT)
        return spread_args(r, args, &r->req->args);
    r->req->args =
        args.text; /* no sequence: the runner answers with a TypeError, as Python would */
    return APIUM_OK;
}

static apium_status
read_embed(struct reading *r, apm_json embed)
{
    apm_request *req = r->req;
    apm_json_iter it;
    apm_json val;
    apm_str key;

    req->embed = embed.text;
    if (!apm_json_true(embed))
        return APIUM_OK;
    if (embed.type != APM_JSON_OBJECT)
        return MALFORMED(r, APM_MAL_BODY, "the third element of the body is not a mapping");
    if (apm_json_open(&it, embed.text, r->err) != APIUM_OK)
        return APIUM_E_DECODE;
    while (apm_json_next(&it, &key, &val, r->err) > 0) {
        if (apm_json_key_is(key, "callbacks"))
            req->callbacks = follow_up(val);
        else if (apm_json_key_is(key, "errbacks"))
            req->errbacks = follow_up(val);
        else if (apm_json_key_is(key, "chain"))
            req->chain = follow_up(val);
        else if (apm_json_key_is(key, "chord"))
            req->chord = follow_up(val);
    }
    return APIUM_OK;
}

/* [args, kwargs, embed] */
static apium_status
read_sequence(struct reading *r, apm_json_iter *it)
{
    apm_json items[3], val;
    apm_str key;
    size_t n = 0;
    int more;
    apium_status st;

    while ((more = apm_json_next(it, &key, &val, r->err)) > 0)
        if (n++ < 3)
            items[n - 1] = val;
    if (more < 0) {
        r->how = APM_MAL_BODY;
        return APIUM_E_DECODE;
    }
    if (!r->named)
        return MALFORMED(r, APM_MAL_UNKNOWN, "neither headers nor body name a task");
    if (n != 3)
        return MALFORMED(r, APM_MAL_INVALID,
                         "the body is not [args, kwargs, embed]: it has %zu elements", n);
    if ((st = set_arguments(r, items[0], items[1])) != APIUM_OK)
        return st;
    return read_embed(r, items[2]);
}

static apium_status
read_mapping(struct reading *r, apm_str text)
{
    apm_json *fields = r->fields, args, kwargs;
    apm_request *req = r->req;

    if (apm_fields_read(text, APM_FIELDS, fields, r->err) != APIUM_OK) {
        r->how = APM_MAL_BODY;
        return APIUM_E_DECODE;
    }
    if (fields[APM_F_TASK].type == APM_JSON_NONE)
        return MALFORMED(r, APM_MAL_UNKNOWN, "neither headers nor body name a task");
    args = fields[APM_F_ARGS];
    kwargs = fields[APM_F_KWARGS];
    if (r->named && args.type == APM_JSON_NONE)
        return MALFORMED(r, APM_MAL_INVALID,
                         "the body is not [args, kwargs, embed]: it is a mapping");
    req->protocol = r->named ? 2 : 1;
    if (apm_json_true(fields[APM_F_TASKSET]))
        fields[APM_F_GROUP] = fields[APM_F_TASKSET];
    req->callbacks = follow_up(fields[APM_F_CALLBACKS]);
    req->errbacks = follow_up(fields[APM_F_ERRBACKS]);
    req->chord = follow_up(fields[APM_F_CHORD]);
    if (args.type == APM_JSON_NONE)
        args = (apm_json){ APM_JSON_ARRAY, APM_STR("[]") };
    if (kwargs.type == APM_JSON_NONE)
        kwargs = (apm_json){ APM_JSON_OBJECT, APM_STR("{}") };
    /* Celery calls kwargs.items() of either kind before it has looked at anything else, and
     * rejects. */
    if (kwargs.type != APM_JSON_OBJECT)
        return MALFORMED(r, APM_MAL_INVALID, "Task keyword arguments must be a mapping");
    return set_arguments(r, args, kwargs);
}

/* Neither an array nor an object. A string of three characters can be unpacked like a sequence of
 * three, so Celery accepts and acks it, and it fails later. */
static apium_status
refuse_scalar(struct reading *r, apm_str text)
{
    apm_json val;
    apm_str s;
    size_t chars = 0;

    if (apm_json_parse(text, &val, r->err) != APIUM_OK) {
        r->how = APM_MAL_BODY;
        return APIUM_E_DECODE;
    }
    if (!r->named)
        return MALFORMED(r, APM_MAL_UNKNOWN, "neither headers nor body name a task");
    if (val.type == APM_JSON_STRING && apm_json_string(val, "body", r->arena, &s, NULL) == APIUM_OK)
        for (size_t i = 0; i < s.len && chars < 4; i++)
            chars += ((unsigned char)s.p[i] & 0xc0) != 0x80;
    return MALFORMED(r, chars == 3 ? APM_MAL_BODY : APM_MAL_INVALID,
                     "the body is not [args, kwargs, embed]: it is %.*s",
                     text.len < 40 ? (int)text.len : 40, text.p);
}

static apium_status
read_body(struct reading *r, apm_str text)
{
    apm_json_iter it;
    size_t at = 0;

    while (at < text.len && strchr(" \t\r\n", text.p[at]) && text.p[at])
        at++;
    if (at == text.len || (text.p[at] != '[' && text.p[at] != '{'))
        return refuse_scalar(r, text);
    if (text.p[at] == '{')
        return read_mapping(r, text);
    if (apm_json_open(&it, text, r->err) != APIUM_OK) {
        r->how = APM_MAL_BODY;
        return APIUM_E_DECODE;
    }
    return read_sequence(r, &it);
}

/* Name and id alone, for who logs a message that fails later. */
static void
name_it(struct reading *r)
{
    apm_request known;

    apm_request_init(&known);
    (void)apm_fields_interpret(r->fields, 0, r->arena, &known, NULL);
    r->req->task = known.task;
    r->req->id = known.id;
}

static apium_status
check_id(struct reading *r)
{
    switch (r->fields[APM_F_ID].type) {
    case APM_JSON_STRING:
    case APM_JSON_INT:
    case APM_JSON_FLOAT:
        return APIUM_OK;
    case APM_JSON_NONE:
        if (r->named)
            return MALFORMED(r, APM_MAL_INVALID, "the message has no id");
        /* fall through */
    case APM_JSON_NULL: /* runs in Celery, and cannot be stored: acked all the same */
        return MALFORMED(r, APM_MAL_BODY, "the message has no id");
    default:
        return MALFORMED(r, APM_MAL_INVALID, "the message's id is neither a string nor a number");
    }
}

static apium_status
read_request(struct reading *r)
{
    apm_request *req = r->req;
    const apm_message *msg = r->msg;
    apm_str text = APM_STR_NONE;
    apium_status st;

    r->how = APM_MAL_UNKNOWN;
    if (msg->fields && msg->fields->of == msg->headers.p)
        memcpy(r->fields, msg->fields->field, sizeof(msg->fields->field));
    else if (msg->headers.len &&
             (st = apm_fields_read(msg->headers, APM_F_HEADERS, r->fields, r->err)) != APIUM_OK)
        return st;
    r->named = r->fields[APM_F_TASK].type != APM_JSON_NONE;
    req->headers = msg->headers.len ? msg->headers : APM_STR("{}");
    req->reply_to = msg->reply_to;
    req->correlation_id = msg->correlation_id;
    req->exchange = msg->exchange;
    req->routing_key = msg->routing_key;
    req->priority = msg->priority;
    req->delivery_mode = msg->delivery_mode;
    req->redelivered = msg->redelivered;
    if ((st = body_text(r, &text)) != APIUM_OK || (st = read_body(r, text)) != APIUM_OK)
        return st;
    if ((st = check_id(r)) != APIUM_OK)
        return st;
    apm_json utc = r->fields[APM_F_UTC];
    bool naive_is_utc = utc.type == APM_JSON_NONE || apm_json_true(utc);
    r->how = APM_MAL_INVALID;
    return apm_fields_interpret(r->fields, naive_is_utc ? 0 : r->opts->naive_offset_s, r->arena,
                                req, r->err);
}

apium_status
apm_request_read(const apm_message *msg, const apm_decode_opts *opts, apm_arena *arena,
                 apm_request *req, apm_malformed *how, apium_error *err)
{
    struct reading r = { .msg = msg, .opts = opts, .arena = arena, .req = req, .err = err };
    apium_status st;

    apm_request_init(req);
    st = read_request(&r);
    if (st != APIUM_OK)
        name_it(&r);
    *how = st == APIUM_OK ? APM_MAL_NONE : r.how;
    return st;
}
