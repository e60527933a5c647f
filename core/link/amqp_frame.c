/* amqp_frame.c - frames out and in, and the messages that come in several of them; see amqp_conn.h. */
#include "core/base/clock.h"
#include "core/link/amqp_wire.h"

#define FRAME_HEAD   7
#define FRAME_END    0xce
#define METHOD_ROOM  2048 /* the methods without tables fit: a few short strings of 255 bytes */
#define CONTENT_HEAD 12   /* class, weight, body size */
#define BASIC_CLASS  60

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
apium_status
apm_amqp_encode_method(apm_buf *buf, amqp_method_number_t method, void *args, apium_error *err)
{
    for (size_t room = METHOD_ROOM; room <= APM_AMQP_FRAME_MAX; room *= 8) {
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

void
apm_amqp_send_frame(apm_amqp_conn *conn, int type, uint16_t channel, const void *payload,
                    size_t len)
{
    apm_buf *out = apm_stream_out(conn->stream);
    unsigned char head[FRAME_HEAD];

    put_frame_head(head, type, channel, (uint32_t)len);
    apm_buf_add(out, head, sizeof(head));
    apm_buf_add(out, payload, len);
    apm_buf_addc(out, (char)FRAME_END);
}

void
apm_amqp_send_on(apm_amqp_conn *conn, uint16_t channel, amqp_method_number_t method, void *args)
{
    apm_buf *out = apm_stream_out(conn->stream);
    size_t at = out->len;
    apium_error err;

    apm_buf_add(out, "\0\0\0\0\0\0", FRAME_HEAD);
    if (apm_amqp_encode_method(out, method, args, &err) != APIUM_OK) {
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
    apm_amqp_send_on(channel->conn, channel->id, method, args);
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
        apm_amqp_send_frame(conn, AMQP_FRAME_BODY, channel->id, body.p + at, part);
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
/* ---- frames in ---- */

static bool
decode_method(apm_amqp_conn *conn, amqp_method_number_t id, apm_str args, amqp_method_t *out)
{
    recycle_amqp_pool(&conn->pool);
    out->id = id;
    if (amqp_decode_method(id, &conn->pool, apm_amqp_bytes(args), &out->decoded) == 0)
        return true;
    apm_amqp_conn_lost(conn, APIUM_E_DECODE,
                       "the server sent a method that cannot be decoded (0x%08x)", (unsigned)id);
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
    if (method.id != AMQP_BASIC_GET_OK_METHOD ||
        !apm_amqp_channel_answer(channel, &method, &content))
        channel->ops->on_content(channel, &content);
}

static void
on_header_frame(apm_amqp_channel *channel, const unsigned char *p, size_t len)
{
    apm_amqp_conn *conn = channel->conn;

    if (!channel->content_method || len < CONTENT_HEAD + 2 || get16(p) != BASIC_CLASS) {
        apm_amqp_conn_lost(conn, APIUM_E_DECODE,
                           "the server sent a content header where none is due");
        return;
    }
    channel->content_size = get64(p + 4);
    channel->content_have = 0;
    if (channel->content_size > conn->opts.message_max) {
        apm_amqp_conn_lost(conn, APIUM_E_TOOBIG,
                           "the server sent a message of %llu bytes: more than we can hold",
                           (unsigned long long)channel->content_size);
        return;
    }
    channel->content_header = channel->gather.len;
    apm_buf_add(&channel->gather, p + CONTENT_HEAD, len - CONTENT_HEAD);
    channel->content_body = channel->gather.len;
    if (channel->gather.failed)
        apm_amqp_conn_lost(conn, APIUM_E_NOMEM, "out of memory for a message");
    else if (channel->content_size == 0)
        finish_content(channel, APM_STR(""));
}

static void
on_body_frame(apm_amqp_channel *channel, const unsigned char *p, size_t len)
{
    apm_buf *gather = &channel->gather;

    if (!channel->content_method || len == 0 ||
        len > channel->content_size - channel->content_have) {
        apm_amqp_conn_lost(channel->conn, APIUM_E_DECODE,
                           "the server sent a body where none is due");
        return;
    }
    /* A body of one frame, which most are, is used where it lies. */
    if (len == channel->content_size) {
        finish_content(channel, (apm_str){ (const char *)p, len });
        return;
    }
    if (channel->content_have == 0 && !apm_buf_reserve(gather, channel->content_size)) {
        apm_amqp_conn_lost(channel->conn, APIUM_E_NOMEM,
                           "out of memory for a message of %llu bytes",
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

/* For a channel that we have closed and the server not yet. */
static void
ignore_frame(apm_amqp_conn *conn, int type, uint16_t id, const unsigned char *p, size_t len)
{
    if (type != AMQP_FRAME_METHOD || len < 4)
        return;
    if (get32(p) == AMQP_CHANNEL_CLOSE_METHOD)
        apm_amqp_send_on(conn, id, AMQP_CHANNEL_CLOSE_OK_METHOD, &(amqp_channel_close_ok_t){ 0 });
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
        apm_amqp_conn_lost(conn, APIUM_E_DECODE,
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
        apm_amqp_conn_lost(conn, APIUM_E_DECODE, "the server sent a frame of the unknown type %d",
                           type);
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
        apm_amqp_channel_method(channel, &method);
    else
        apm_amqp_conn_method(conn, &method);
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
            apm_amqp_conn_lost(conn, APIUM_E_UNSUPPORTED, "the server does not speak AMQP 0-9-1");
            break;
        }
        if (size > conn->frame_max) {
            apm_amqp_conn_lost(conn, APIUM_E_DECODE,
                               "the server sent a frame of %u bytes: this is no AMQP", size);
            break;
        }
        if (len < FRAME_HEAD + (size_t)size + 1)
            break;
        if (p[FRAME_HEAD + size] != FRAME_END) {
            apm_amqp_conn_lost(conn, APIUM_E_DECODE, "the server sent a frame without an end mark");
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

void
apm_amqp_conn_data(void *arg, const char *p, size_t len)
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
        apm_amqp_conn_lost(conn, APIUM_E_NOMEM, "out of memory for a frame");
    if (conn->opts.on_batch_end)
        conn->opts.on_batch_end(conn->opts.arg);
}
