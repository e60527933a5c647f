/* amqp_conn.c - frames in and out, the handshake, channels and their calls; see amqp_conn.h. */
#include "core/link/amqp_conn.h"

#include <stdlib.h>
#include <unistd.h>

#include "config.h"
#include "core/base/clock.h"
#include "core/link/amqp_table.h"

#define FRAME_HEAD       7
#define FRAME_END        0xce
#define FRAME_MAX        131072 /* proposed; RabbitMQ's own default */
#define CHANNEL_MAX      2047
#define HANDSHAKE_MIN_MS 10000 /* a server that is busy starting takes its time to answer */
#define METHOD_ROOM      2048 /* the methods without tables fit: a few short strings of 255 bytes */
#define CONTENT_HEAD     12   /* class, weight, body size */
#define METHOD_CLASS(m)  ((m) >> 16)
#define BASIC_CLASS      60

static void conn_lost(apm_amqp_conn *conn, apium_status status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void send_calls(apm_amqp_channel *channel);

static uint16_t
get16(const unsigned char *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t
get32(const unsigned char *p)
{
    return (uint32_t)get16(p) << 16 | get16(p + 2);
}

static uint64_t
get64(const unsigned char *p)
{
    return (uint64_t)get32(p) << 32 | get32(p + 4);
}

static void
put_frame_head(unsigned char *p, int type, uint16_t channel, uint32_t size)
{
    p[0] = (unsigned char)type;
    p[1] = (unsigned char)(channel >> 8);
    p[2] = (unsigned char)channel;
    for (int i = 0; i < 4; i++)
        p[3 + i] = (unsigned char)(size >> (24 - 8 * i));
}

/* ---- frames out ---- */

/* Encode a method with its id, growing the room until it fits. */
static apium_status
encode_method(apm_buf *buf, amqp_method_number_t method, void *args, apium_error *err)
{
    for (size_t room = METHOD_ROOM; room <= FRAME_MAX; room *= 8) {
        unsigned char *p = (unsigned char *)apm_buf_reserve(buf, room + 4);
        if (!p)
            return apm_fail(err, APIUM_E_NOMEM, "out of memory");
        for (int i = 0; i < 4; i++)
            p[i] = (unsigned char)(method >> (24 - 8 * i));
        int n = amqp_encode_method(method, args, (amqp_bytes_t){ room, p + 4 });
        if (n >= 0) {
            buf->len += (size_t)n + 4;
            return APIUM_OK;
        }
    }
    return apm_fail(err, APIUM_E_TOOBIG, "%s does not fit into a frame", amqp_method_name(method));
}

static void
send_frame(apm_amqp_conn *conn, int type, uint16_t channel, const void *payload, size_t len)
{
    apm_buf *out = apm_stream_out(conn->stream);
    unsigned char head[FRAME_HEAD];

    put_frame_head(head, type, channel, (uint32_t)len);
    apm_buf_add(out, head, sizeof(head));
    apm_buf_add(out, payload, len);
    apm_buf_addc(out, (char)FRAME_END);
}

static void
send_method(apm_amqp_conn *conn, uint16_t channel, amqp_method_number_t method, void *args)
{
    apm_buf *out = apm_stream_out(conn->stream);
    size_t at = out->len;
    apium_error err;

    apm_buf_add(out, "\0\0\0\0\0\0", FRAME_HEAD);
    if (encode_method(out, method, args, &err) != APIUM_OK) {
        out->failed = true; /* flushing it ends the connection */
        return;
    }
    if (!out->failed)
        put_frame_head((unsigned char *)out->p + at, AMQP_FRAME_METHOD, channel,
                       (uint32_t)(out->len - at - FRAME_HEAD));
    apm_buf_addc(out, (char)FRAME_END);
}

void
apm_amqp_send_method(apm_amqp_channel *channel, amqp_method_number_t method, void *args)
{
    send_method(channel->conn, channel->id, method, args);
}

void
apm_amqp_send_content(apm_amqp_channel *channel, apm_str header, apm_str body)
{
    apm_amqp_conn *conn = channel->conn;
    apm_buf *out = apm_stream_out(conn->stream);
    size_t part_max = conn->frame_max - FRAME_HEAD - 1;
    unsigned char head[FRAME_HEAD + CONTENT_HEAD] = { 0 };

    put_frame_head(head, AMQP_FRAME_HEADER, channel->id, (uint32_t)(CONTENT_HEAD + header.len));
    head[FRAME_HEAD + 1] = BASIC_CLASS;
    for (int i = 0; i < 8; i++)
        head[FRAME_HEAD + 4 + i] = (unsigned char)((uint64_t)body.len >> (56 - 8 * i));
    apm_buf_add(out, head, sizeof(head));
    apm_buf_adds(out, header);
    apm_buf_addc(out, (char)FRAME_END);
    for (size_t at = 0; at < body.len; at += part_max) {
        size_t part = body.len - at < part_max ? body.len - at : part_max;
        send_frame(conn, AMQP_FRAME_BODY, channel->id, body.p + at, part);
    }
}

void
apm_amqp_conn_flush(apm_amqp_conn *conn)
{
    if (!conn->stream)
        return;
    if (apm_stream_out(conn->stream)->len > 0)
        conn->sent_ms = apm_clock_ms();
    apm_stream_flush(conn->stream);
}

/* ---- calls ---- */

apm_amqp_call *
apm_amqp_call_new(apm_amqp_call_done *done, void *arg)
{
    apm_amqp_call *call = calloc(1, sizeof(*call));

    if (!call)
        return NULL;
    call->done = done;
    call->arg = arg;
    call->asked_ms = apm_clock_ms();
    apm_buf_init(&call->encoded, APM_BUF_MAX);
    return call;
}

void
apm_amqp_call_add(apm_amqp_call *call, amqp_method_number_t method, void *args)
{
    size_t at = call->encoded.len;
    apium_error err;

    if (call->n_steps == APM_AMQP_CALL_STEPS ||
        encode_method(&call->encoded, method, args, &err) != APIUM_OK) {
        call->encoded.failed = true;
        return;
    }
    call->steps[call->n_steps++] =
        (struct apm_amqp_step){ .method = method, .at = at, .len = call->encoded.len - at };
}

void
apm_amqp_call_free(apm_amqp_call *call)
{
    if (!call)
        return;
    apm_buf_clear(&call->encoded);
    free(call);
}

static void
end_call(apm_amqp_call *call, apium_status status, const amqp_method_t *reply,
         const apm_amqp_content *content, const apium_error *err)
{
    if (call->done)
        call->done(call->arg, status, reply, content, err);
    apm_amqp_call_free(call);
}

static apm_amqp_call *
pop_call(apm_amqp_channel *channel)
{
    apm_amqp_call *call = channel->calls;

    channel->calls = call->next;
    if (!channel->calls)
        channel->calls_tail = &channel->calls;
    return call;
}

/* Everything that waits is asked from its start on the next open. */
static void
rewind_calls(apm_amqp_channel *channel)
{
    for (apm_amqp_call *call = channel->calls; call; call = call->next)
        call->n_sent = call->n_answered = 0;
}

/* One call at a time: RabbitMQ does not answer in the order of questions where a quorum queue is consumed. */
static void
send_calls(apm_amqp_channel *channel)
{
    apm_amqp_call *call = channel->calls;

    if (channel->state != APM_AMQP_CHANNEL_OPEN || !call)
        return;
    for (; call->n_sent < call->n_steps; call->n_sent++) {
        const struct apm_amqp_step *step = &call->steps[call->n_sent];
        send_frame(channel->conn, AMQP_FRAME_METHOD, channel->id, call->encoded.p + step->at,
                   step->len);
    }
}

void
apm_amqp_channel_ask(apm_amqp_channel *channel, apm_amqp_call *call)
{
    if (call->encoded.failed) {
        apium_error err;
        apm_fail(&err, APIUM_E_NOMEM, "out of memory, or arguments too big for a frame");
        end_call(call, err.status, NULL, NULL, &err);
        return;
    }
    *channel->calls_tail = call;
    channel->calls_tail = &call->next;
    send_calls(channel);
    if (channel->conn->opts.on_gathered)
        channel->conn->opts.on_gathered(channel->conn->opts.arg);
}

void
apm_amqp_channel_disown(apm_amqp_channel *channel, const void *arg)
{
    for (apm_amqp_call *call = channel->calls; call; call = call->next)
        if (call->arg == arg)
            call->done = NULL;
}

void
apm_amqp_channel_forget(apm_amqp_channel *channel)
{
    apium_error err;

    apm_fail(&err, APIUM_E_CLOSED, "the connection was lost");
    while (channel->calls)
        end_call(pop_call(channel), APIUM_E_CLOSED, NULL, NULL, &err);
}

void
apm_amqp_channel_expire(apm_amqp_channel *channel, int64_t before_ms, apium_status status,
                        const char *why)
{
    /* Those that have been sent are still answered, if not in time; only a connection that is down has none such. */
    apm_amqp_call *rest = channel->calls;

    channel->calls = NULL;
    channel->calls_tail = &channel->calls;
    for (apm_amqp_call *call = rest, *next; call; call = next) {
        next = call->next;
        call->next = NULL;
        if (call->n_sent > 0 || call->asked_ms > before_ms) {
            *channel->calls_tail = call;
            channel->calls_tail = &call->next;
            continue;
        }
        apium_error err;
        apm_fail(&err, status, "%s", why);
        end_call(call, status, NULL, NULL, &err);
    }
}

/* The server's reply to the oldest call. False: it answers nothing we asked. */
static bool
answer_call(apm_amqp_channel *channel, const amqp_method_t *reply, const apm_amqp_content *content)
{
    apm_amqp_call *call = channel->calls;

    if (!call || call->n_answered >= call->n_sent)
        return false;
    amqp_method_number_t asked = call->steps[call->n_answered].method;
    if (reply->id != asked + 1 &&
        !(asked == AMQP_BASIC_GET_METHOD && reply->id == AMQP_BASIC_GET_EMPTY_METHOD))
        return false;
    if (++call->n_answered == call->n_steps) {
        pop_call(channel);
        send_calls(channel);
        end_call(call, APIUM_OK, reply, content, NULL);
    }
    return true;
}

/* ---- channels ---- */

apium_status
apm_amqp_channel_init(apm_amqp_channel *channel, apm_amqp_conn *conn,
                      const apm_amqp_channel_ops *ops, void *arg, apium_error *err)
{
    uint16_t id = 1;

    while (id <= APM_AMQP_CHANNELS_MAX && (conn->channels[id - 1] || conn->closing[id - 1]))
        id++;
    if (id > APM_AMQP_CHANNELS_MAX)
        return apm_fail(err, APIUM_E_BUSY, "cannot open more than %d channels on one connection",
                        APM_AMQP_CHANNELS_MAX);
    *channel = (apm_amqp_channel){ .conn = conn, .id = id, .ops = ops, .arg = arg };
    channel->calls_tail = &channel->calls;
    apm_buf_init(&channel->gather, 2 * APM_BUF_MAX);
    conn->channels[id - 1] = channel;
    return APIUM_OK;
}

void
apm_amqp_channel_clear(apm_amqp_channel *channel)
{
    apm_amqp_conn *conn = channel->conn;
    apium_error err;

    if (!conn)
        return;
    if (channel->state != APM_AMQP_CHANNEL_CLOSED && conn->state == APM_AMQP_CONN_OPEN) {
        send_method(conn, channel->id, AMQP_CHANNEL_CLOSE_METHOD,
                    &(amqp_channel_close_t){ .reply_code = AMQP_REPLY_SUCCESS,
                                             .reply_text = apm_amqp_bytesz("bye") });
        conn->closing[channel->id - 1] = true;
    }
    conn->channels[channel->id - 1] = NULL;
    channel->state = APM_AMQP_CHANNEL_CLOSED;
    apm_fail(&err, APIUM_E_CLOSED, "the connection was closed");
    while (channel->calls)
        end_call(pop_call(channel), APIUM_E_CLOSED, NULL, NULL, &err);
    apm_buf_clear(&channel->gather);
}

void
apm_amqp_channel_open(apm_amqp_channel *channel)
{
    if (channel->conn->state != APM_AMQP_CONN_OPEN || channel->state != APM_AMQP_CHANNEL_CLOSED)
        return;
    channel->state = APM_AMQP_CHANNEL_OPENING;
    send_method(channel->conn, channel->id, AMQP_CHANNEL_OPEN_METHOD,
                &(amqp_channel_open_t){ amqp_empty_bytes });
}

/* 404 NOT_FOUND and so on, as our statuses. */
static apium_status
status_of(int code)
{
    switch (code) {
    case AMQP_NOT_FOUND:
        return APIUM_E_NOTFOUND;
    case AMQP_CONTENT_TOO_LARGE:
        return APIUM_E_TOOBIG;
    default:
        return APIUM_E_REFUSED;
    }
}

static void
on_channel_close(apm_amqp_channel *channel, const amqp_channel_close_t *close)
{
    apm_amqp_call *call = channel->calls;
    bool by_call = call && call->n_sent > call->n_answered &&
                   call->steps[call->n_answered].method ==
                       ((uint32_t)close->class_id << 16 | close->method_id);

    send_method(channel->conn, channel->id, AMQP_CHANNEL_CLOSE_OK_METHOD,
                &(amqp_channel_close_ok_t){ 0 });
    channel->state = APM_AMQP_CHANNEL_CLOSED;
    channel->content_method = 0;
    if (by_call)
        pop_call(channel);
    rewind_calls(channel);
    if (by_call) {
        apium_error err;
        apm_str text = apm_amqp_str(close->reply_text);
        apm_fail(&err, status_of(close->reply_code), "(%d) %.*s", close->reply_code,
                 APM_STR_ARG(text));
        end_call(call, err.status, NULL, NULL, &err);
    }
    channel->ops->on_closed(channel, close, by_call);
    apm_amqp_channel_open(channel);
}

static void
on_channel_method(apm_amqp_channel *channel, const amqp_method_t *method)
{
    switch (method->id) {
    case AMQP_CHANNEL_OPEN_OK_METHOD:
        channel->state = APM_AMQP_CHANNEL_OPEN;
        channel->ops->on_open(channel);
        send_calls(channel);
        break;
    case AMQP_CHANNEL_CLOSE_METHOD:
        on_channel_close(channel, method->decoded);
        break;
    case AMQP_CHANNEL_FLOW_METHOD: {
        amqp_channel_flow_t *flow = method->decoded;
        send_method(channel->conn, channel->id, AMQP_CHANNEL_FLOW_OK_METHOD,
                    &(amqp_channel_flow_ok_t){ flow->active });
        break;
    }
    default:
        if (!answer_call(channel, method, NULL))
            channel->ops->on_method(channel, method);
    }
}

/* ---- frames in ---- */

static bool
decode_method(apm_amqp_conn *conn, amqp_method_number_t id, apm_str args, amqp_method_t *out)
{
    recycle_amqp_pool(&conn->pool);
    out->id = id;
    if (amqp_decode_method(id, &conn->pool, apm_amqp_bytes(args), &out->decoded) == 0)
        return true;
    conn_lost(conn, APIUM_E_DECODE, "the server sent a method that cannot be decoded (0x%08x)",
              (unsigned)id);
    return false;
}

/* A content is complete: hand it over. */
static void
finish_content(apm_amqp_channel *channel, apm_str body)
{
    amqp_method_t method;
    const char *p = channel->gather.p;
    apm_str args = { p, channel->content_header };

    if (!decode_method(channel->conn, channel->content_method, args, &method))
        return;
    apm_amqp_content content = {
        .method = method.id,
        .decoded = method.decoded,
        .header = { p + channel->content_header, channel->content_body - channel->content_header },
        .body = body,
    };
    channel->content_method = 0;
    if (method.id != AMQP_BASIC_GET_OK_METHOD || !answer_call(channel, &method, &content))
        channel->ops->on_content(channel, &content);
}

static void
on_header_frame(apm_amqp_channel *channel, const unsigned char *p, size_t len)
{
    apm_amqp_conn *conn = channel->conn;

    if (!channel->content_method || len < CONTENT_HEAD + 2 || get16(p) != BASIC_CLASS) {
        conn_lost(conn, APIUM_E_DECODE, "the server sent a content header where none is due");
        return;
    }
    channel->content_size = get64(p + 4);
    channel->content_have = 0;
    if (channel->content_size > conn->opts.message_max) {
        conn_lost(conn, APIUM_E_TOOBIG,
                  "the server sent a message of %llu bytes: more than we can hold",
                  (unsigned long long)channel->content_size);
        return;
    }
    channel->content_header = channel->gather.len;
    apm_buf_add(&channel->gather, p + CONTENT_HEAD, len - CONTENT_HEAD);
    channel->content_body = channel->gather.len;
    if (channel->gather.failed)
        conn_lost(conn, APIUM_E_NOMEM, "out of memory for a message");
    else if (channel->content_size == 0)
        finish_content(channel, APM_STR(""));
}

static void
on_body_frame(apm_amqp_channel *channel, const unsigned char *p, size_t len)
{
    apm_buf *gather = &channel->gather;

    if (!channel->content_method || len == 0 ||
        len > channel->content_size - channel->content_have) {
        conn_lost(channel->conn, APIUM_E_DECODE, "the server sent a body where none is due");
        return;
    }
    /* A body of one frame, which most are, is used where it lies. */
    if (len == channel->content_size) {
        finish_content(channel, (apm_str){ (const char *)p, len });
        return;
    }
    if (channel->content_have == 0 && !apm_buf_reserve(gather, channel->content_size)) {
        conn_lost(channel->conn, APIUM_E_NOMEM, "out of memory for a message of %llu bytes",
                  (unsigned long long)channel->content_size);
        return;
    }
    apm_buf_add(gather, p, len);
    channel->content_have += len;
    if (channel->content_have == channel->content_size) {
        finish_content(channel,
                       (apm_str){ gather->p + channel->content_body, channel->content_size });
        if (gather->cap > (4u << 20)) {
            apm_buf_clear(gather);
            apm_buf_init(gather, 2 * APM_BUF_MAX);
        }
    }
}

static void on_connection_method(apm_amqp_conn *conn, const amqp_method_t *method);

/* For a channel that we have closed and the server not yet. */
static void
ignore_frame(apm_amqp_conn *conn, int type, uint16_t id, const unsigned char *p, size_t len)
{
    if (type != AMQP_FRAME_METHOD || len < 4)
        return;
    if (get32(p) == AMQP_CHANNEL_CLOSE_METHOD)
        send_method(conn, id, AMQP_CHANNEL_CLOSE_OK_METHOD, &(amqp_channel_close_ok_t){ 0 });
    if (get32(p) == AMQP_CHANNEL_CLOSE_OK_METHOD)
        conn->closing[id - 1] = false;
}

static void
on_frame(apm_amqp_conn *conn, int type, uint16_t id, const unsigned char *p, size_t len)
{
    if (type == AMQP_FRAME_HEARTBEAT)
        return;
    if (id > 0 && id <= APM_AMQP_CHANNELS_MAX && conn->closing[id - 1]) {
        ignore_frame(conn, type, id, p, len);
        return;
    }
    apm_amqp_channel *channel =
        id > 0 && id <= APM_AMQP_CHANNELS_MAX ? conn->channels[id - 1] : NULL;
    if ((id > 0 && !channel) || (type == AMQP_FRAME_METHOD ? len < 4 : !channel)) {
        conn_lost(conn, APIUM_E_DECODE,
                  "the server sent a frame for channel %d, which we have not opened", id);
        return;
    }
    if (type == AMQP_FRAME_HEADER) {
        on_header_frame(channel, p, len);
        return;
    }
    if (type == AMQP_FRAME_BODY) {
        on_body_frame(channel, p, len);
        return;
    }
    if (type != AMQP_FRAME_METHOD) {
        conn_lost(conn, APIUM_E_DECODE, "the server sent a frame of the unknown type %d", type);
        return;
    }
    amqp_method_t method = { .id = get32(p) };
    apm_str args = { (const char *)p + 4, len - 4 };
    if (channel && amqp_method_has_content(method.id)) {
        /* Its header and body follow in frames of their own, perhaps in another read. */
        channel->content_method = method.id;
        apm_buf_reset(&channel->gather);
        apm_buf_adds(&channel->gather, args);
        return;
    }
    if (!decode_method(conn, method.id, args, &method))
        return;
    if (channel)
        on_channel_method(channel, &method);
    else
        on_connection_method(conn, &method);
}

/* Take whole frames off the front of p; the number of bytes used. */
static size_t
take_frames(apm_amqp_conn *conn, const unsigned char *p, size_t len)
{
    const unsigned char *start = p;
    apm_stream *stream = conn->stream;

    while (len >= FRAME_HEAD) {
        uint32_t size = get32(p + 3);
        if (p[0] == 'A') {
            conn_lost(conn, APIUM_E_UNSUPPORTED, "the server does not speak AMQP 0-9-1");
            break;
        }
        if (size > conn->frame_max) {
            conn_lost(conn, APIUM_E_DECODE, "the server sent a frame of %u bytes: this is no AMQP",
                      size);
            break;
        }
        if (len < FRAME_HEAD + (size_t)size + 1)
            break;
        if (p[FRAME_HEAD + size] != FRAME_END) {
            conn_lost(conn, APIUM_E_DECODE, "the server sent a frame without an end mark");
            break;
        }
        on_frame(conn, p[0], get16(p + 1), p + FRAME_HEAD, size);
        if (conn->stream != stream) /* lost or closed meanwhile */
            break;
        p += FRAME_HEAD + size + 1;
        len -= FRAME_HEAD + size + 1;
    }
    return (size_t)(p - start);
}

static void
on_data(void *arg, const char *p, size_t len)
{
    apm_amqp_conn *conn = arg;
    apm_stream *stream = conn->stream;
    apm_buf *in = &conn->in;

    conn->received_ms = apm_clock_ms();
    if (in->len == 0) {
        size_t used = take_frames(conn, (const unsigned char *)p, len);
        if (conn->stream == stream && used < len)
            apm_buf_add(in, p + used, len - used);
    } else {
        apm_buf_add(in, p, len);
        size_t used = in->failed ? 0 : take_frames(conn, (const unsigned char *)in->p, in->len);
        if (conn->stream == stream && used > 0) {
            memmove(in->p, in->p + used, in->len - used);
            in->len -= used;
        }
    }
    if (conn->stream == stream && in->failed)
        conn_lost(conn, APIUM_E_NOMEM, "out of memory for a frame");
    if (conn->opts.on_batch_end)
        conn->opts.on_batch_end(conn->opts.arg);
}

/* ---- the connection ---- */

/* A table of librabbitmq's from JSON, in the connection's pool. */
static apium_status
make_table(apm_amqp_conn *conn, const char *json, amqp_table_t *table, apium_error *err)
{
    size_t offset = 0;

    apm_buf_reset(&conn->scratch);
    apium_status st = apm_amqp_table_write(&conn->scratch, apm_strz(json), err);
    if (st != APIUM_OK)
        return st;
    if (amqp_decode_table(apm_amqp_bytes(apm_buf_str(&conn->scratch)), &conn->pool, table,
                          &offset) != 0)
        return apm_fail(err, APIUM_E_NOMEM, "out of memory");
    return APIUM_OK;
}

static void
on_start(apm_amqp_conn *conn, const amqp_connection_start_t *start)
{
    const apm_url *url = conn->opts.url;
    const char *method = apm_url_param(conn->opts.urls, url, "login_method");
    const char *user = url->user ? url->user : "guest",
               *password = url->password ? url->password : "guest";
    bool external = method && strcmp(method, "EXTERNAL") == 0;
    const char *wanted = external ? "EXTERNAL" : "PLAIN";
    apm_str offered = apm_amqp_str(start->mechanisms);
    amqp_table_t properties;
    apium_error err;

    if (!memmem(offered.p, offered.len, wanted, strlen(wanted))) {
        conn_lost(conn, APIUM_E_REFUSED,
                  "the server does not offer the login method %s (only %.*s)", wanted,
                  (int)(offered.len < 80 ? offered.len : 80), offered.p);
        return;
    }
    for (int i = 0; i < start->server_properties.num_entries; i++) {
        const amqp_table_entry_t *entry = &start->server_properties.entries[i];
        if (apm_str_eqz(apm_amqp_str(entry->key), "version") &&
            entry->value.kind == AMQP_FIELD_KIND_UTF8)
            conn->server_major = atoi(apm_amqp_str(entry->value.value.bytes).p);
    }
    apm_buf json, response;
    apm_buf_init(&json, 4096);
    apm_buf_init(&response, 4096);
    apm_buf_addz(&json, "{\"product\": \"apium\", \"product_version\": \"" APIUM_VERSION
                        "\", \"connection_name\": ");
    apm_json_add_stringz(&json, conn->opts.name);
    apm_buf_addz(
        &json,
        ", \"capabilities\": {\"consumer_cancel_notify\": true, \"connection.blocked\": true, "
        "\"basic.nack\": true, \"publisher_confirms\": true, \"authentication_failure_close\": "
        "true}}");
    if (!external) {
        apm_buf_addc(&response, '\0');
        apm_buf_addz(&response, user);
        apm_buf_addc(&response, '\0');
        apm_buf_addz(&response, password);
    }
    apium_status st = json.failed || response.failed
                          ? apm_fail(&err, APIUM_E_NOMEM, "out of memory")
                          : make_table(conn, json.p, &properties, &err);
    if (st != APIUM_OK)
        conn_lost(conn, st, "%s", err.text);
    else
        send_method(conn, 0, AMQP_CONNECTION_START_OK_METHOD,
                    &(amqp_connection_start_ok_t){
                        .client_properties = properties,
                        .mechanism = apm_amqp_bytesz(wanted),
                        .response = apm_amqp_bytes(apm_buf_str(&response)),
                        .locale = apm_amqp_bytesz("en_US"),
                    });
    apm_buf_clear(&json);
    apm_buf_clear(&response);
}

/* The smaller of both sides' wishes, where 0 wishes nothing. */
static int
agree(int ours, int theirs)
{
    return ours == 0 ? theirs : theirs == 0 ? ours : ours < theirs ? ours : theirs;
}

static void
on_tune(apm_amqp_conn *conn, const amqp_connection_tune_t *tune)
{
    const char *path = conn->opts.url->path;
    int wish = (int)conn->opts.heartbeat_s;

    conn->frame_max =
        (uint32_t)agree(FRAME_MAX, (int)(tune->frame_max > INT32_MAX ? 0 : tune->frame_max));
    conn->heartbeat_s = wish > 0 ? agree(wish, tune->heartbeat) : 0;
    send_method(conn, 0, AMQP_CONNECTION_TUNE_OK_METHOD,
                &(amqp_connection_tune_ok_t){
                    .channel_max = (uint16_t)agree(CHANNEL_MAX, tune->channel_max),
                    .frame_max = conn->frame_max,
                    .heartbeat = (uint16_t)conn->heartbeat_s,
                });
    send_method(conn, 0, AMQP_CONNECTION_OPEN_METHOD,
                &(amqp_connection_open_t){
                    .virtual_host = apm_amqp_bytesz(path && *path ? path : "/"),
                    .capabilities = amqp_empty_bytes,
                });
}

static void
on_connection_close(apm_amqp_conn *conn, const amqp_connection_close_t *close)
{
    apm_str text = apm_amqp_str(close->reply_text);
    bool early = conn->state != APM_AMQP_CONN_OPEN;

    send_method(conn, 0, AMQP_CONNECTION_CLOSE_OK_METHOD, &(amqp_connection_close_ok_t){ 0 });
    apm_amqp_conn_flush(conn);
    conn_lost(conn,
              early && close->reply_code != AMQP_CONNECTION_FORCED ? APIUM_E_REFUSED
                                                                   : APIUM_E_CLOSED,
              "(%d) %.*s", close->reply_code, (int)(text.len < 200 ? text.len : 200), text.p);
}

static void
on_connection_method(apm_amqp_conn *conn, const amqp_method_t *method)
{
    switch (method->id) {
    case AMQP_CONNECTION_START_METHOD:
        on_start(conn, method->decoded);
        break;
    case AMQP_CONNECTION_TUNE_METHOD:
        on_tune(conn, method->decoded);
        break;
    case AMQP_CONNECTION_OPEN_OK_METHOD:
        conn->state = APM_AMQP_CONN_OPEN;
        conn->opts.on_open(conn->opts.arg);
        break;
    case AMQP_CONNECTION_CLOSE_METHOD:
        on_connection_close(conn, method->decoded);
        return;
    case AMQP_CONNECTION_BLOCKED_METHOD: {
        amqp_connection_blocked_t *blocked = method->decoded;
        char why[128];
        snprintf(why, sizeof(why), "%.*s",
                 (int)(blocked->reason.len < 100 ? blocked->reason.len : 100),
                 apm_amqp_str(blocked->reason).p);
        conn->blocked = true;
        conn->opts.on_blocked(conn->opts.arg, true, why);
        break;
    }
    case AMQP_CONNECTION_UNBLOCKED_METHOD:
        conn->blocked = false;
        conn->opts.on_blocked(conn->opts.arg, false, "");
        break;
    default:
        conn_lost(conn, APIUM_E_UNSUPPORTED, "the server asked for %s, which we cannot answer",
                  amqp_method_name(method->id) ? amqp_method_name(method->id)
                                               : "something unknown");
        return;
    }
    if (conn->state == APM_AMQP_CONN_HANDSHAKE)
        apm_amqp_conn_flush(conn);
}

static void
reset(apm_amqp_conn *conn)
{
    apm_stream_close(conn->stream);
    conn->stream = NULL;
    conn->state = APM_AMQP_CONN_DOWN;
    conn->blocked = false;
    apm_buf_clear(&conn->in);
    apm_buf_init(&conn->in, APM_BUF_MAX);
    for (int i = 0; i < APM_AMQP_CHANNELS_MAX; i++) {
        apm_amqp_channel *channel = conn->channels[i];
        conn->closing[i] = false;
        if (!channel)
            continue;
        channel->state = APM_AMQP_CHANNEL_CLOSED;
        channel->content_method = 0;
        rewind_calls(channel);
    }
}

static void
conn_lost(apm_amqp_conn *conn, apium_status status, const char *fmt, ...)
{
    char why[256];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(why, sizeof(why), fmt, ap);
    va_end(ap);
    if (!conn->stream)
        return;
    reset(conn);
    conn->opts.on_lost(conn->opts.arg, status, why);
}

static void
on_stream_open(void *arg)
{
    apm_amqp_conn *conn = arg;

    conn->state = APM_AMQP_CONN_HANDSHAKE;
    conn->deadline_ms = apm_clock_ms() + (conn->opts.connect_timeout_ms > HANDSHAKE_MIN_MS
                                              ? conn->opts.connect_timeout_ms
                                              : HANDSHAKE_MIN_MS);
    apm_buf_add(apm_stream_out(conn->stream), "AMQP\0\0\x09\x01", 8);
    apm_amqp_conn_flush(conn);
}

static void
on_stream_lost(void *arg, apium_status status, const char *why)
{
    apm_amqp_conn *conn = arg;

    /* Old servers answer bad credentials by hanging up. */
    if (conn->state == APM_AMQP_CONN_HANDSHAKE && status == APIUM_E_CLOSED)
        conn_lost(conn, status, "%s during the login (are user, password and virtual host right?)",
                  why);
    else
        conn_lost(conn, status, "%s", why);
}

void
apm_amqp_conn_init(apm_amqp_conn *conn)
{
    *conn = (apm_amqp_conn){ .frame_max = FRAME_MAX };
    init_amqp_pool(&conn->pool, 4096);
    apm_buf_init(&conn->in, APM_BUF_MAX);
    apm_buf_init(&conn->scratch, 65536);
}

void
apm_amqp_conn_clear(apm_amqp_conn *conn)
{
    apm_amqp_conn_close(conn);
    empty_amqp_pool(&conn->pool);
    apm_buf_clear(&conn->in);
    apm_buf_clear(&conn->scratch);
}

apium_status
apm_amqp_conn_start(apm_amqp_conn *conn, const apm_amqp_conn_opts *opts, apium_error *err)
{
    const apm_url *url = opts->url;
    const char *ssl = apm_url_param(opts->urls, url, "ssl");
    bool secure = strcmp(url->scheme, "amqps") == 0 ||
                  (ssl && (strcasecmp(ssl, "true") == 0 || strcmp(ssl, "1") == 0));
    apm_tls_opts tls;
    apium_status st;

    if (secure && (st = apm_tls_from_url(&tls, opts->urls, url, err)) != APIUM_OK)
        return st;
    conn->opts = *opts;
    conn->frame_max = FRAME_MAX;
    conn->heartbeat_s = 0;
    conn->server_major = 0;
    conn->generation++;
    conn->received_ms = conn->sent_ms = apm_clock_ms();
    st = apm_stream_open(&conn->stream, opts->loop,
                         &(apm_stream_opts){
                             .host = *url->host ? url->host : "localhost",
                             .port = url->port ? url->port
                                     : secure  ? 5671
                                               : 5672,
                             .tls = secure ? &tls : NULL,
                             .connect_timeout_ms = opts->connect_timeout_ms,
                             .on_open = on_stream_open,
                             .on_data = on_data,
                             .on_lost = on_stream_lost,
                             .arg = conn,
                         },
                         err);
    if (st == APIUM_OK)
        conn->state = APM_AMQP_CONN_CONNECTING;
    return st;
}

void
apm_amqp_conn_close(apm_amqp_conn *conn)
{
    if (!conn->stream)
        return;
    if (conn->state == APM_AMQP_CONN_OPEN) {
        send_method(conn, 0, AMQP_CONNECTION_CLOSE_METHOD,
                    &(amqp_connection_close_t){ .reply_code = AMQP_REPLY_SUCCESS,
                                                .reply_text = apm_amqp_bytesz("bye") });
        /* Whatever comes of that, nobody is to be told: without its stream the connection hears nothing. */
        apm_stream *stream = conn->stream;
        conn->stream = NULL;
        apm_stream_flush(stream);
        conn->stream = stream;
    }
    reset(conn);
}

void
apm_amqp_conn_tick(apm_amqp_conn *conn, int64_t now_ms)
{
    if (conn->state == APM_AMQP_CONN_HANDSHAKE && now_ms > conn->deadline_ms) {
        conn_lost(conn, APIUM_E_TIMEOUT, "the server did not answer the login in time");
        return;
    }
    if (conn->state != APM_AMQP_CONN_OPEN || conn->heartbeat_s == 0)
        return;
    int64_t interval_ms = (int64_t)conn->heartbeat_s * 1000;
    if (now_ms - conn->received_ms > 2 * interval_ms) {
        conn_lost(conn, APIUM_E_CLOSED, "too many heartbeats missed: nothing heard for %d s",
                  2 * conn->heartbeat_s);
        return;
    }
    if (now_ms - conn->sent_ms >= interval_ms / 2) {
        send_frame(conn, AMQP_FRAME_HEARTBEAT, 0, "", 0);
        apm_amqp_conn_flush(conn);
    }
}
