/* amqp_header.c - basic properties: a content header to an apm_message and back; see amqp.h. */
#include "core/base/error.h"
#include "core/link/amqp.h"
#include "core/link/amqp_table.h"
#include "core/model/request_fields.h"

#define SHORT_MAX 255

/* ---- writing ---- */

static apium_status
put_short(apm_buf *buf, const char *name, apm_str text, apium_error *err)
{
    if (text.len > SHORT_MAX)
        return apm_fail(err, APIUM_E_ENCODE,
                        "cannot encode the property %s: it is longer than 255 bytes", name);
    apm_buf_addc(buf, (char)text.len);
    apm_buf_adds(buf, text);
    return APIUM_OK;
}

/* RabbitMQ closes the whole channel for an expiration that is no number. */
static bool
is_decimal(apm_str text)
{
    for (size_t i = 0; i < text.len; i++)
        if (text.p[i] < '0' || text.p[i] > '9')
            return false;
    return text.len > 0 && text.len <= 18;
}

apium_status
apm_amqp_header_write(apm_buf *buf, const apm_message *msg, apium_error *err)
{
    unsigned flags =
        AMQP_BASIC_HEADERS_FLAG | AMQP_BASIC_DELIVERY_MODE_FLAG | AMQP_BASIC_PRIORITY_FLAG;
    int priority = msg->priority < 0 ? 0 : msg->priority > 255 ? 255 : msg->priority;
    apium_status st = APIUM_OK;

    if (apm_str_is(msg->content_type))
        flags |= AMQP_BASIC_CONTENT_TYPE_FLAG;
    if (apm_str_is(msg->content_encoding))
        flags |= AMQP_BASIC_CONTENT_ENCODING_FLAG;
    if (apm_str_is(msg->correlation_id))
        flags |= AMQP_BASIC_CORRELATION_ID_FLAG;
    if (apm_str_is(msg->reply_to))
        flags |= AMQP_BASIC_REPLY_TO_FLAG;
    if (apm_str_is(msg->expiration))
        flags |= AMQP_BASIC_EXPIRATION_FLAG;
    apm_buf_addc(buf, (char)(flags >> 8));
    apm_buf_addc(buf, (char)flags);
    if (flags & AMQP_BASIC_CONTENT_TYPE_FLAG)
        st = put_short(buf, "content_type", msg->content_type, err);
    if (st == APIUM_OK && (flags & AMQP_BASIC_CONTENT_ENCODING_FLAG))
        st = put_short(buf, "content_encoding", msg->content_encoding, err);
    if (st == APIUM_OK)
        st = apm_amqp_table_write(buf, msg->headers, err);
    apm_buf_addc(buf, msg->delivery_mode == AMQP_DELIVERY_NONPERSISTENT
                          ? AMQP_DELIVERY_NONPERSISTENT
                          : AMQP_DELIVERY_PERSISTENT);
    apm_buf_addc(buf, (char)priority);
    if (st == APIUM_OK && (flags & AMQP_BASIC_CORRELATION_ID_FLAG))
        st = put_short(buf, "correlation_id", msg->correlation_id, err);
    if (st == APIUM_OK && (flags & AMQP_BASIC_REPLY_TO_FLAG))
        st = put_short(buf, "reply_to", msg->reply_to, err);
    if (st == APIUM_OK && (flags & AMQP_BASIC_EXPIRATION_FLAG)) {
        if (!is_decimal(msg->expiration))
            return apm_fail(
                err, APIUM_E_ENCODE,
                "cannot encode the property expiration: \"%.*s\" is not a number of milliseconds",
                (int)(msg->expiration.len < 40 ? msg->expiration.len : 40), msg->expiration.p);
        st = put_short(buf, "expiration", msg->expiration, err);
    }
    if (st == APIUM_OK && buf->failed)
        st = apm_fail(err, APIUM_E_NOMEM, "cannot encode a message: out of memory");
    return st;
}

/* ---- reading ---- */

struct cursor {
    const unsigned char *at, *end;
    apm_arena *arena;
    apm_buf *scratch;
    bool ok, memory;
};

static apm_str
get_short(struct cursor *c, bool present)
{
    if (!present || !c->ok)
        return APM_STR_NONE;
    if (c->at == c->end || (size_t)(c->end - c->at) < 1 + (size_t)c->at[0]) {
        c->ok = false;
        return APM_STR_NONE;
    }
    apm_str text = { (const char *)c->at + 1, c->at[0] };
    c->at += 1 + text.len;
    return apm_arena_str(c->arena, text, &c->memory);
}

static int
get_octet(struct cursor *c, bool present, int absent)
{
    if (!present || !c->ok)
        return absent;
    if (c->at == c->end) {
        c->ok = false;
        return absent;
    }
    return *c->at++;
}

/* What the headers have, while their text is still being written. */
struct found {
    struct {
        apm_json_type type;
        size_t at, len;
    } field[APM_F_HEADERS];
    int hint;
};

static void
on_member(void *arg, apm_str name, apm_json_type type, size_t at, size_t len)
{
    struct found *found = arg;
    int field = apm_field_named(name, APM_F_HEADERS, &found->hint);

    if (field >= 0) {
        found->field[field].type = type;
        found->field[field].at = at;
        found->field[field].len = len;
    }
}

static apium_status
read_headers(struct cursor *c, apm_message *msg, apium_error *err)
{
    struct found found = { 0 };
    size_t used = 0;

    apm_buf_reset(c->scratch);
    apium_status st =
        apm_amqp_table_read(c->scratch, (apm_str){ (const char *)c->at, (size_t)(c->end - c->at) },
                            on_member, &found, &used, err);
    if (st != APIUM_OK)
        return st;
    c->at += used;
    struct apm_header_fields *fields = apm_arena_alloc(c->arena, sizeof(*fields));
    if (c->scratch->failed || !fields) {
        c->memory = false;
        return APIUM_OK;
    }
    msg->headers = apm_arena_str(c->arena, apm_buf_str(c->scratch), &c->memory);
    fields->of = msg->headers.p;
    for (int i = 0; c->memory && i < APM_F_HEADERS; i++)
        if (found.field[i].type != APM_JSON_NONE)
            fields->field[i] =
                (apm_json){ found.field[i].type,
                            { msg->headers.p + found.field[i].at, found.field[i].len } };
    msg->fields = fields;
    return APIUM_OK;
}

apium_status
apm_amqp_header_read(apm_str header, apm_arena *arena, apm_buf *scratch, apm_message *msg,
                     apium_error *err)
{
    const unsigned char *p = (const unsigned char *)header.p;
    struct cursor c = { .at = p + 2,
                        .end = p + header.len,
                        .arena = arena,
                        .scratch = scratch,
                        .ok = true,
                        .memory = true };
    apium_status st;

    /* The last bit announces more flags, which no version of the protocol has. */
    if (header.len < 2 || (p[1] & 1))
        return apm_fail(err, APIUM_E_DECODE, "the properties are malformed");
    unsigned flags = (unsigned)p[0] << 8 | p[1];
    *msg = (apm_message){ .headers = APM_STR("{}") };
    msg->content_type = get_short(&c, flags & AMQP_BASIC_CONTENT_TYPE_FLAG);
    msg->content_encoding = get_short(&c, flags & AMQP_BASIC_CONTENT_ENCODING_FLAG);
    if (c.ok && (flags & AMQP_BASIC_HEADERS_FLAG) && (st = read_headers(&c, msg, err)) != APIUM_OK)
        return st;
    msg->delivery_mode = get_octet(&c, flags & AMQP_BASIC_DELIVERY_MODE_FLAG, 0);
    msg->priority = get_octet(&c, flags & AMQP_BASIC_PRIORITY_FLAG, APM_PRIORITY_NONE);
    msg->correlation_id = get_short(&c, flags & AMQP_BASIC_CORRELATION_ID_FLAG);
    msg->reply_to = get_short(&c, flags & AMQP_BASIC_REPLY_TO_FLAG);
    msg->expiration = get_short(&c, flags & AMQP_BASIC_EXPIRATION_FLAG);
    if (!c.ok)
        return apm_fail(err, APIUM_E_DECODE, "the properties are cut short");
    if (!c.memory)
        return apm_fail(err, APIUM_E_NOMEM, "cannot read a message: out of memory");
    return APIUM_OK;
}
