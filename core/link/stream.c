/* stream.c - one connection to a server, by libuv; see stream.h. */
#include "core/link/stream.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>

#define OUT_MAX   ((size_t)2 << 30) /* several of the largest messages */
#define READ_SIZE 65536
#define KEEP_BYTES                                                                                 \
    ((size_t)1 << 20) /* a buffer that grew beyond that is given back when it is empty */
#define LINGER_MS    1000
#define PART_MS      3000
#define PEER_DEAD_MS 30000 /* sent bytes that long unacknowledged mean that the peer is gone */

/* A socket of ours; a new one for each address that is tried. Its memory goes when libuv has closed it. */
struct sock {
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } u;
    uv_connect_t connect;
    apm_stream *stream; /* NULL once given up */
};

struct apm_stream {
    uv_loop_t *loop;
    apm_stream_opts opts;
    struct sock *sock;
    uv_getaddrinfo_t resolve;
    struct addrinfo *addresses, *address; /* all, and the one being tried */
    uv_timer_t timer; /* connect timeout, then rests, then the linger of a close */
    uv_write_t write;
    apm_tls *tls;
    apm_buf out;     /* plain, gathered */
    apm_buf raw;     /* encrypted, to be written; unused without TLS */
    apm_buf plain;   /* decrypted, for on_data */
    apm_buf writing; /* in libuv's hands */
    bool local;      /* a Unix socket */
    bool resolving, open, busy /* writing */, closing, timer_closed, told;
    bool parting;                /* closing, and the peer has not ended its side */
    bool more;                   /* the last read filled its room: there is more to read */
    apm_stream_last last, heard; /* how the peer ends; as many of its latest bytes */
    char why[200];               /* of the last address that failed */
    char read[READ_SIZE];
};

static void try_next(apm_stream *stream);
static void end_linger(apm_stream *stream);
static void flush_raw(apm_stream *stream);

/* The memory goes when nothing of libuv's refers to it any more. */
static void
release_if_idle(apm_stream *stream)
{
    if (!stream->closing || stream->resolving || stream->busy || !stream->timer_closed)
        return;
    if (stream->addresses)
        uv_freeaddrinfo(stream->addresses);
    apm_tls_free(stream->tls);
    apm_buf_clear(&stream->out);
    apm_buf_clear(&stream->raw);
    apm_buf_clear(&stream->plain);
    apm_buf_clear(&stream->writing);
    free(stream);
}

static void
on_sock_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void
drop_sock(apm_stream *stream)
{
    struct sock *sock = stream->sock;

    if (!sock)
        return;
    stream->sock = NULL;
    sock->stream = NULL;
    uv_close(&sock->u.handle, on_sock_closed);
}

static void
lost(apm_stream *stream, apium_status status, const char *why)
{
    if (stream->closing || stream->told)
        return;
    stream->told = true;
    stream->open = false;
    uv_timer_stop(&stream->timer);
    drop_sock(stream);
    stream->opts.on_lost(stream->opts.arg, status, why);
}

static void
on_connect_timeout(uv_timer_t *timer)
{
    lost(timer->data, APIUM_E_TIMEOUT, "connecting timed out");
}

static void
opened(apm_stream *stream)
{
    stream->open = true;
    uv_timer_stop(&stream->timer);
    stream->opts.on_open(stream->opts.arg);
    if (!stream->closing)
        apm_stream_flush(stream);
}

static void
on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct sock *sock = handle->data;

    (void)suggested;
    *buf = uv_buf_init(sock->stream->read, READ_SIZE);
}

/* Of what the peer still sends only its last words matter. */
static void
hear(apm_stream *stream, const char *p, size_t len)
{
    apm_stream_last *heard = &stream->heard;
    size_t new = len < stream->last.len ? len : stream->last.len;
    size_t old = heard->len < stream->last.len - new ? heard->len : stream->last.len - new;

    memmove(heard->bytes, heard->bytes + heard->len - old, old);
    memcpy(heard->bytes + old, p + len - new, new);
    heard->len = old + new;
    if (heard->len == stream->last.len && memcmp(heard->bytes, stream->last.bytes, heard->len) == 0)
        end_linger(stream);
}

static void
take(apm_stream *stream, const char *p, size_t len)
{
    if (stream->parting)
        hear(stream, p, len);
    else if (!stream->closing && !stream->told)
        stream->opts.on_data(stream->opts.arg, p, len);
}

static void
read_tls(apm_stream *stream, const char *p, size_t len)
{
    apium_error err;
    bool ready = false;
    apium_status st = apm_tls_feed(stream->tls, p, len, &stream->plain, &ready, &err);

    apm_tls_drain(stream->tls, &stream->raw); /* handshake, alerts */
    flush_raw(stream);
    if (ready && !stream->open && !stream->closing && !stream->told)
        opened(stream);
    if (stream->plain.len > 0)
        take(stream, stream->plain.p, stream->plain.len);
    apm_buf_reset(&stream->plain);
    if (st != APIUM_OK)
        lost(stream, st, err.text);
}

static void
on_read(uv_stream_t *handle, ssize_t n, const uv_buf_t *buf)
{
    struct sock *sock = handle->data;
    apm_stream *stream = sock->stream;

    if (!stream)
        return;
    stream->more = n == READ_SIZE;
    if (n < 0 && stream->parting)
        end_linger(stream);
    else if (n < 0)
        lost(stream, APIUM_E_CLOSED,
             n == UV_EOF ? "the server closed the connection" : uv_strerror((int)n));
    else if (n > 0 && stream->tls)
        read_tls(stream, buf->base, (size_t)n);
    else if (n > 0)
        take(stream, buf->base, (size_t)n);
}

static void
read_on(apm_stream *stream)
{
    if (stream->sock)
        (void)uv_read_start(&stream->sock->u.stream, on_alloc, on_read);
}

static void
on_rested(uv_timer_t *timer)
{
    read_on(timer->data);
}

void
apm_stream_rest(apm_stream *stream, unsigned ms)
{
    if (!stream->open || stream->closing || !stream->sock || stream->more)
        return;
    uv_read_stop(&stream->sock->u.stream);
    uv_timer_start(&stream->timer, on_rested, ms, 0);
}

static void
tune_socket(struct sock *sock)
{
    uv_os_fd_t fd;
    int dead_ms = PEER_DEAD_MS;

    uv_tcp_nodelay(&sock->u.tcp, 1);
    uv_tcp_keepalive(&sock->u.tcp, 1, 30);
    /* Without this a peer that vanished is noticed only after the system's quarter of an hour of retransmissions. */
    if (uv_fileno(&sock->u.handle, &fd) == 0)
        (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &dead_ms, sizeof(dead_ms));
}

static void
on_connected(uv_connect_t *req, int status)
{
    struct sock *sock = req->data;
    apm_stream *stream = sock->stream;

    if (!stream)
        return;
    if (status < 0) {
        snprintf(stream->why, sizeof(stream->why), "%s", uv_strerror(status));
        drop_sock(stream);
        if (stream->address)
            stream->address = stream->address->ai_next;
        try_next(stream);
        return;
    }
    if (!stream->local)
        tune_socket(sock);
    int rc = uv_read_start(&sock->u.stream, on_alloc, on_read);
    if (rc < 0) {
        lost(stream, APIUM_E_SYSTEM, uv_strerror(rc));
        return;
    }
    if (stream->tls) {
        apm_tls_drain(stream->tls, &stream->raw);
        flush_raw(stream);
    } else {
        opened(stream);
    }
}

static struct sock *
new_sock(apm_stream *stream)
{
    struct sock *sock = calloc(1, sizeof(*sock));

    if (!sock)
        return NULL;
    sock->stream = stream;
    if (stream->local)
        uv_pipe_init(stream->loop, &sock->u.pipe, 0);
    else
        uv_tcp_init(stream->loop, &sock->u.tcp);
    sock->u.handle.data = sock;
    sock->connect.data = sock;
    return sock;
}

/* Try the present address; when there is none left the last reason is what we say. */
static void
try_next(apm_stream *stream)
{
    for (; stream->address; stream->address = stream->address->ai_next) {
        stream->sock = new_sock(stream);
        if (!stream->sock) {
            lost(stream, APIUM_E_NOMEM, "out of memory");
            return;
        }
        int rc = uv_tcp_connect(&stream->sock->connect, &stream->sock->u.tcp,
                                stream->address->ai_addr, on_connected);
        if (rc == 0)
            return;
        snprintf(stream->why, sizeof(stream->why), "%s", uv_strerror(rc));
        drop_sock(stream);
    }
    lost(stream, APIUM_E_CLOSED, stream->why);
}

static void
on_resolved(uv_getaddrinfo_t *req, int status, struct addrinfo *addresses)
{
    apm_stream *stream = req->data;

    stream->resolving = false;
    stream->addresses = stream->address = addresses;
    if (stream->closing) {
        release_if_idle(stream);
        return;
    }
    if (stream->told)
        return;
    if (status < 0) {
        lost(stream, APIUM_E_CLOSED, uv_strerror(status));
        return;
    }
    try_next(stream);
}

static int
start(apm_stream *stream)
{
    if (stream->opts.path) {
        if (!(stream->sock = new_sock(stream)))
            return UV_ENOMEM;
        uv_pipe_connect(&stream->sock->connect, &stream->sock->u.pipe, stream->opts.path,
                        on_connected);
        return 0;
    }
    char port[16];
    struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
    snprintf(port, sizeof(port), "%d", stream->opts.port);
    /* An address needs no look-up, which would be the only reason for libuv to start its threads. */
    struct addrinfo numeric = { .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
                                .ai_socktype = SOCK_STREAM };
    if (getaddrinfo(stream->opts.host, port, &numeric, &stream->addresses) == 0) {
        if (!(stream->sock = new_sock(stream)))
            return UV_ENOMEM;
        return uv_tcp_connect(&stream->sock->connect, &stream->sock->u.tcp,
                              stream->addresses->ai_addr, on_connected);
    }
    stream->addresses = NULL;
    stream->resolve.data = stream;
    int rc = uv_getaddrinfo(stream->loop, &stream->resolve, on_resolved, stream->opts.host, port,
                            &hints);
    stream->resolving = rc == 0;
    return rc;
}

apium_status
apm_stream_open(apm_stream **out, uv_loop_t *loop, const apm_stream_opts *opts, apium_error *err)
{
    apm_stream *stream = calloc(1, sizeof(*stream));
    apium_status st = APIUM_OK;

    if (!stream)
        return apm_fail(err, APIUM_E_NOMEM, "cannot connect: out of memory");
    if (opts->tls && (st = apm_tls_new(&stream->tls, opts->tls, opts->host, err)) != APIUM_OK) {
        free(stream);
        return st;
    }
    stream->loop = loop;
    stream->opts = *opts;
    stream->local = opts->path != NULL;
    snprintf(stream->why, sizeof(stream->why), "no address");
    apm_buf_init(&stream->out, OUT_MAX);
    apm_buf_init(&stream->raw, OUT_MAX);
    apm_buf_init(&stream->plain, OUT_MAX);
    apm_buf_init(&stream->writing, OUT_MAX);
    uv_timer_init(loop, &stream->timer);
    stream->timer.data = stream;
    stream->write.data = stream;
    int rc = start(stream);
    if (rc < 0) {
        apm_stream_close(stream);
        return apm_fail(err, rc == UV_ENOMEM ? APIUM_E_NOMEM : APIUM_E_CLOSED, "cannot connect: %s",
                        uv_strerror(rc));
    }
    uv_timer_start(&stream->timer, on_connect_timeout, (uint64_t)opts->connect_timeout_ms, 0);
    stream->opts.host = stream->opts.path = NULL; /* not ours; nothing looks at them from here on */
    stream->opts.tls = NULL;
    *out = stream;
    return APIUM_OK;
}

apm_buf *
apm_stream_out(apm_stream *stream)
{
    return &stream->out;
}

static void
empty(apm_buf *buf)
{
    if (buf->cap > KEEP_BYTES) {
        size_t max = buf->max;
        apm_buf_clear(buf);
        apm_buf_init(buf, max);
    } else {
        apm_buf_reset(buf);
    }
}

static void
on_timer_closed(uv_handle_t *handle)
{
    apm_stream *stream = handle->data;

    stream->timer_closed = true;
    release_if_idle(stream);
}

/* The last bytes are out, or nobody takes them. */
static void
end_linger(apm_stream *stream)
{
    drop_sock(stream);
    if (!uv_is_closing((uv_handle_t *)&stream->timer))
        uv_close((uv_handle_t *)&stream->timer, on_timer_closed);
}

static void
on_linger_timeout(uv_timer_t *timer)
{
    end_linger(timer->data);
}

static void
on_written(uv_write_t *req, int status)
{
    apm_stream *stream = req->data;

    stream->busy = false;
    empty(&stream->writing);
    if (stream->closing && (status < 0 || !stream->parting))
        end_linger(stream);
    else if (status < 0)
        lost(stream, APIUM_E_CLOSED, uv_strerror(status));
    else
        apm_stream_flush(stream);
    release_if_idle(stream);
}

/* Write `buf` out: what the system does not take at once is left in libuv's hands. */
static void
write_buf(apm_stream *stream, apm_buf *buf)
{
    size_t done = 0;

    if (buf->failed) {
        lost(stream, APIUM_E_NOMEM, "out of memory for what is to be sent");
        return;
    }
    if (buf->len == 0 || stream->busy || !stream->sock)
        return;
    uv_buf_t all = uv_buf_init(buf->p, (unsigned)buf->len);
    int rc = uv_try_write(&stream->sock->u.stream, &all, 1);
    if (rc < 0 && rc != UV_EAGAIN) {
        lost(stream, APIUM_E_CLOSED, uv_strerror(rc));
        return;
    }
    if (rc > 0)
        done = (size_t)rc;
    if (done == buf->len) {
        empty(buf);
        return;
    }
    apm_buf taken = *buf;
    *buf = stream->writing; /* empty: not busy */
    stream->writing = taken;
    uv_buf_t rest = uv_buf_init(taken.p + done, (unsigned)(taken.len - done));
    rc = uv_write(&stream->write, &stream->sock->u.stream, &rest, 1, on_written);
    if (rc < 0)
        lost(stream, APIUM_E_CLOSED, uv_strerror(rc));
    else
        stream->busy = true;
}

static void
flush_raw(apm_stream *stream)
{
    if (!stream->told)
        write_buf(stream, &stream->raw);
}

void
apm_stream_flush(apm_stream *stream)
{
    if (!stream->open || stream->told)
        return;
    if (!stream->tls) {
        write_buf(stream, &stream->out);
        return;
    }
    if (stream->out.len > 0 && !stream->out.failed && !stream->busy) {
        apium_error err;
        apium_status st = apm_tls_write(stream->tls, stream->out.p, stream->out.len, &err);
        if (st != APIUM_OK) {
            lost(stream, st, err.text);
            return;
        }
        empty(&stream->out);
        apm_tls_drain(stream->tls, &stream->raw);
    }
    if (stream->out.failed)
        lost(stream, APIUM_E_NOMEM, "out of memory for what is to be sent");
    else
        write_buf(stream, &stream->raw);
}

size_t
apm_stream_unsent(const apm_stream *stream)
{
    return stream->out.len + stream->raw.len + stream->writing.len;
}

void
apm_stream_close(apm_stream *stream)
{
    if (!stream || stream->closing)
        return;
    stream->closing = true;
    if (stream->resolving)
        uv_cancel((uv_req_t *)&stream->resolve);
    uv_timer_stop(&stream->timer);
    if (stream->busy && stream->sock) {
        uv_read_stop(&stream->sock->u.stream);
        uv_timer_start(&stream->timer, on_linger_timeout, LINGER_MS, 0);
    } else {
        end_linger(stream);
    }
}

void
apm_stream_part(apm_stream *stream, const apm_stream_last *last)
{
    if (!stream || stream->closing)
        return;
    if (!stream->open || stream->told || !stream->sock) {
        apm_stream_close(stream);
        return;
    }
    stream->closing = stream->parting = true;
    stream->last = *last;
    read_on(stream); /* it may be resting */
    uv_timer_start(&stream->timer, on_linger_timeout, PART_MS, 0);
}
