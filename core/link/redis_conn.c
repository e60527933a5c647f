/*
 * redis_conn.c - see redis_conn.h.
 *
 *   NAME ──▶ SOCKET ──▶ TLS ──▶ GREETING ──▶ READY ──▶ OVER
 *
 * From any state OVER follows at the first error. What is written is gathered in `out` and leaves with
 * one system call at the flush; at most one uv_write is under way, for what the socket did not take at once.
 */
#include "core/link/redis_conn.h"

#include <stdlib.h>
#include <strings.h>

#include "core/base/clock.h"
#include "core/base/error.h"

#define BUFFER_MAX ((size_t)2 << 30) /* several of the largest units at once */

#define KEEP_BYTES (1 << 20) /* a buffer may stay that large */

typedef enum phase { NAME, SOCKET, TLS, GREETING, READY, OVER } phase;

typedef struct awaited {
    apm_redis_reply_cb *cb;
    void *arg;
    int64_t sent_ms, silence_ms;
} awaited;

struct apm_redis_conn {
    apm_redis_conn_opts opts;
    phase phase;
    int64_t deadline_ms, heard_ms;
    long long id;
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } io;
    bool io_open;   /* io is initialised and not yet closed */
    unsigned holds; /* libuv still has: the name look-up, the connect, the write, the handle */
    uv_getaddrinfo_t name;
    uv_connect_t connect;
    uv_write_t write;
    bool writing;
    struct addrinfo *addrs, *next_addr;
    apm_tls *tls;
    bool tls_ready;
    redisReader *reader;
    char *in;     /* opts.read_bytes */
    apm_buf out;  /* plain text to be sent */
    apm_buf sent; /* what the running uv_write holds */
    apm_buf plain, cipher;
    awaited *queue; /* a ring */
    size_t head, count, cap;
    unsigned greeting;           /* answers of the greeting still to come */
    apium_error ended;           /* why, for on_ended */
    apm_redis_conn *prev, *next; /* on opts.list */
};

static void connect_next(apm_redis_conn *conn, int last_error);

/* ---- words ---- */

void
apm_resp_open(apm_buf *buf, size_t words)
{
    char head[24];
    int n = snprintf(head, sizeof(head), "*%zu\r\n", words);
    apm_buf_add(buf, head, (size_t)n);
}

/* Digits of a number before `end`; where they begin. */
static char *
digits(char *end, uint64_t n)
{
    do
        *--end = (char)('0' + n % 10);
    while (n /= 10);
    return end;
}

void
apm_resp_add(apm_buf *buf, apm_str word)
{
    char head[24], *end = head + sizeof(head), *at = digits(end - 2, word.len);
    char *room;

    end[-2] = '\r';
    end[-1] = '\n';
    *--at = '$';
    const size_t n = (size_t)(end - at);
    if (word.len > SIZE_MAX - 32 || !(room = apm_buf_reserve(buf, n + word.len + 2))) {
        buf->failed = true;
        return;
    }
    memcpy(room, at, n);
    if (word.len)
        memcpy(room + n, word.p, word.len);
    memcpy(room + n + word.len, "\r\n", 3);
    buf->len += n + word.len + 2;
}

void
apm_resp_addz(apm_buf *buf, const char *word)
{
    apm_resp_add(buf, apm_strz(word));
}

void
apm_resp_int(apm_buf *buf, int64_t word)
{
    char text[24], *end = text + sizeof(text);
    char *at = digits(end, word < 0 ? -(uint64_t)word : (uint64_t)word);
    if (word < 0)
        *--at = '-';
    apm_resp_add(buf, (apm_str){ at, (size_t)(end - at) });
}

/* ---- the end ---- */

static void
release(apm_redis_conn *conn)
{
    if (--conn->holds)
        return;
    if (conn->addrs)
        uv_freeaddrinfo(conn->addrs);
    apm_tls_free(conn->tls);
    redisReaderFree(conn->reader);
    apm_buf_clear(&conn->out);
    apm_buf_clear(&conn->sent);
    apm_buf_clear(&conn->plain);
    apm_buf_clear(&conn->cipher);
    free(conn->in);
    free(conn->queue);
    void (*on_freed)(void *) = conn->opts.on_freed;
    void *arg = conn->opts.freed_arg;
    free(conn);
    if (on_freed)
        on_freed(arg);
}

static void
on_io_closed(uv_handle_t *handle)
{
    apm_redis_conn *conn = handle->data;
    conn->io_open = false;
    if (conn->phase != OVER) /* this address did not answer: the next one */
        connect_next(conn, 0);
    release(conn);
}

static bool
pop_awaited(apm_redis_conn *conn, awaited *out)
{
    if (!conn->count)
        return false;
    *out = conn->queue[conn->head];
    conn->head = (conn->head + 1) % conn->cap;
    conn->count--;
    return true;
}

static void
finish(apm_redis_conn *conn, const apium_error *why)
{
    awaited one;

    if (conn->phase == OVER)
        return;
    conn->phase = OVER;
    if (conn->opts.list) {
        *(conn->prev ? &conn->prev->next : conn->opts.list) = conn->next;
        if (conn->next)
            conn->next->prev = conn->prev;
    }
    conn->holds++; /* the callbacks below may do anything */
    if (conn->io_open && !uv_is_closing(&conn->io.handle))
        uv_close(&conn->io.handle, on_io_closed);
    if (!conn->io_open && !conn->addrs) /* still looking up the name */
        uv_cancel((uv_req_t *)&conn->name);
    while (pop_awaited(conn, &one))
        if (one.cb)
            one.cb(one.arg, NULL);
    if (why && conn->opts.on_ended)
        conn->opts.on_ended(conn->opts.arg, conn, why);
    release(conn);
    release(conn); /* the opener's own */
}

void
apm_redis_conn_close(apm_redis_conn *conn)
{
    if (conn)
        finish(conn, NULL);
}

void
apm_redis_conn_fail(apm_redis_conn *conn, apium_status status, const char *why)
{
    apium_error err;
    apm_fail(&err, status, "%s", why);
    finish(conn, &err);
}

/* ---- writing ---- */

/* Ready for the next content; what a giant left is given back. */
static void
emptied(apm_buf *buf)
{
    if (buf->cap > KEEP_BYTES)
        apm_buf_clear(buf);
    else
        apm_buf_reset(buf);
}

static void write_out(apm_redis_conn *conn);

static void
on_written(uv_write_t *req, int status)
{
    apm_redis_conn *conn = req->data;
    conn->writing = false;
    emptied(&conn->sent);
    if (conn->phase != OVER) {
        if (status < 0)
            apm_redis_conn_fail(conn, APIUM_E_CLOSED, uv_strerror(status));
        else
            write_out(conn);
    }
    release(conn);
}

/* Hand `buf` to the socket; what it does not take at once is copied and follows by itself. */
static void
write_bytes(apm_redis_conn *conn, apm_buf *buf)
{
    uv_buf_t whole = uv_buf_init(buf->p, (unsigned)buf->len);
    int n = uv_try_write(&conn->io.stream, &whole, 1);
    if (n < 0 && n != UV_EAGAIN) {
        apm_redis_conn_fail(conn, APIUM_E_CLOSED, uv_strerror(n));
        return;
    }
    size_t done = n > 0 ? (size_t)n : 0;
    if (done == buf->len) {
        emptied(buf);
        return;
    }
    apm_buf rest = conn->sent;
    conn->sent = *buf;
    *buf = rest;
    apm_buf_reset(buf);
    uv_buf_t left = uv_buf_init(conn->sent.p + done, (unsigned)(conn->sent.len - done));
    conn->write.data = conn;
    conn->writing = true;
    conn->holds++;
    if (uv_write(&conn->write, &conn->io.stream, &left, 1, on_written) < 0) {
        conn->writing = false;
        conn->holds--;
        apm_redis_conn_fail(conn, APIUM_E_CLOSED, "cannot write");
    }
}

static void
write_out(apm_redis_conn *conn)
{
    if (conn->writing)
        return;
    if (!conn->tls) {
        if (conn->out.len && conn->phase > SOCKET)
            write_bytes(conn, &conn->out);
        return;
    }
    if (conn->out.len && conn->tls_ready) {
        apium_error err;
        if (apm_tls_write(conn->tls, conn->out.p, conn->out.len, &err) != APIUM_OK) {
            finish(conn, &err);
            return;
        }
        emptied(&conn->out);
    }
    apm_tls_drain(conn->tls, &conn->cipher);
    if (conn->cipher.len)
        write_bytes(conn, &conn->cipher);
}

void
apm_redis_conn_flush(apm_redis_conn *conn)
{
    if (conn->phase != OVER && conn->phase >= GREETING)
        write_out(conn);
}

static bool
push_awaited(apm_redis_conn *conn, awaited one)
{
    if (conn->count == conn->cap) {
        size_t cap = conn->cap ? conn->cap * 2 : 16;
        awaited *queue = malloc(cap * sizeof(*queue));
        if (!queue)
            return false;
        for (size_t i = 0; i < conn->count; i++)
            queue[i] = conn->queue[(conn->head + i) % conn->cap];
        free(conn->queue);
        conn->queue = queue;
        conn->cap = cap;
        conn->head = 0;
    }
    conn->queue[(conn->head + conn->count++) % conn->cap] = one;
    return true;
}

void
apm_redis_conn_send(apm_redis_conn *conn, apm_str bytes, int64_t silence_ms, apm_redis_reply_cb *cb,
                    void *arg)
{
    awaited one = { .cb = cb,
                    .arg = arg,
                    .sent_ms = apm_clock_ms(),
                    .silence_ms = silence_ms ? silence_ms : APM_REDIS_SILENCE_MS };

    if (conn->phase != OVER && !push_awaited(conn, one))
        apm_redis_conn_fail(conn, APIUM_E_NOMEM, "cannot send: out of memory");
    if (conn->phase != OVER)
        apm_redis_conn_push(conn, bytes);
    else if (cb)
        cb(arg, NULL);
}

void
apm_redis_conn_push(apm_redis_conn *conn, apm_str bytes)
{
    if (conn->phase == OVER)
        return;
    apm_buf_adds(&conn->out, bytes);
    if (conn->out.failed) /* half a command must never leave */
        apm_redis_conn_fail(conn, APIUM_E_NOMEM, "cannot send: out of memory");
}

/* ---- reading ---- */

static void
answer(apm_redis_conn *conn, redisReply *reply)
{
    awaited one;
    bool push = conn->opts.on_push && reply->type == REDIS_REPLY_ARRAY && reply->elements >= 2 &&
                reply->element[0]->type == REDIS_REPLY_STRING &&
                strcmp(reply->element[0]->str, "pong") != 0;

    if (push && conn->phase == READY)
        conn->opts.on_push(conn->opts.arg, reply);
    else if (!pop_awaited(conn, &one))
        apm_redis_conn_fail(conn, APIUM_E_CLOSED,
                            reply->type == REDIS_REPLY_ERROR ? reply->str
                                                             : "an answer to no question");
    else if (one.cb)
        one.cb(one.arg, reply);
}

static void
read_plain(apm_redis_conn *conn, const char *p, size_t len)
{
    void *reply;

    if (redisReaderFeed(conn->reader, p, len) != REDIS_OK) {
        apm_redis_conn_fail(conn, APIUM_E_CLOSED, conn->reader->errstr);
        return;
    }
    while (conn->phase != OVER) {
        if (redisReaderGetReply(conn->reader, &reply) != REDIS_OK) {
            apm_redis_conn_fail(conn, APIUM_E_CLOSED, conn->reader->errstr);
            return;
        }
        if (!reply)
            return;
        answer(conn, reply);
        freeReplyObject(reply);
    }
}

static void greet(apm_redis_conn *conn);

static void
read_cipher(apm_redis_conn *conn, const char *p, size_t len)
{
    apium_error err;
    apium_status st = apm_tls_feed(conn->tls, p, len, &conn->plain, &conn->tls_ready, &err);

    if (conn->phase == TLS && st == APIUM_OK && conn->tls_ready)
        greet(conn);
    if (conn->plain.len && conn->phase != OVER)
        read_plain(conn, conn->plain.p, conn->plain.len);
    emptied(&conn->plain);
    if (conn->phase == OVER)
        return;
    if (st != APIUM_OK)
        finish(conn, &err);
    else
        write_out(conn);
}

static void
on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    apm_redis_conn *conn = handle->data;
    (void)suggested;
    *buf = uv_buf_init(conn->in, (unsigned)conn->opts.read_bytes);
}

static void
on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    apm_redis_conn *conn = stream->data;

    if (conn->phase == OVER || n == 0)
        return;
    if (n < 0) {
        apm_redis_conn_fail(conn, APIUM_E_CLOSED,
                            n == UV_EOF ? "the server closed the connection" : uv_strerror((int)n));
        return;
    }
    conn->heard_ms = apm_clock_ms();
    conn->holds++; /* a callback may end the connection */
    if (conn->tls)
        read_cipher(conn, buf->base, (size_t)n);
    else
        read_plain(conn, buf->base, (size_t)n);
    release(conn);
}

/* ---- the greeting ---- */

static void
greeted(apm_redis_conn *conn)
{
    if (conn->phase != GREETING || --conn->greeting)
        return;
    conn->phase = READY;
    conn->opts.on_ready(conn->opts.arg, conn);
}

static void
on_auth(void *arg, const redisReply *reply)
{
    apm_redis_conn *conn = arg;
    if (reply && reply->type == REDIS_REPLY_ERROR) {
        bool loading = strncmp(reply->str, "LOADING", 7) == 0;
        apm_redis_conn_fail(conn, loading ? APIUM_E_CLOSED : APIUM_E_REFUSED, reply->str);
    } else if (reply) {
        greeted(conn);
    }
}

static void
on_select(void *arg, const redisReply *reply)
{
    on_auth(arg,
            reply); /* "ERR DB index is out of range", NOAUTH: the user's mistake in the same way */
}

/* Not knowing or not allowing the question is no harm; any other refusal is one: no password, too many clients. */
static void
on_id(void *arg, const redisReply *reply)
{
    apm_redis_conn *conn = arg;

    if (!reply)
        return;
    if (reply->type == REDIS_REPLY_INTEGER)
        conn->id = reply->integer;
    if (reply->type != REDIS_REPLY_ERROR || strncmp(reply->str, "NOPERM", 6) == 0 ||
        strncasecmp(reply->str, "ERR unknown", 11) == 0 ||
        strncasecmp(reply->str, "ERR syntax", 10) == 0)
        greeted(conn);
    else
        apm_redis_conn_fail(
            conn, strncmp(reply->str, "NOAUTH", 6) == 0 ? APIUM_E_REFUSED : APIUM_E_CLOSED,
            reply->str);
}

static void
greet(apm_redis_conn *conn)
{
    const apm_redis_addr *addr = conn->opts.addr;
    apm_buf cmd;

    conn->phase = GREETING;
    apm_buf_init(&cmd, 65536);
    conn->greeting = 1;
    if (addr->password) {
        conn->greeting++;
        apm_resp_open(&cmd, addr->user ? 3 : 2);
        apm_resp_addz(&cmd, "AUTH");
        if (addr->user)
            apm_resp_addz(&cmd, addr->user);
        apm_resp_addz(&cmd, addr->password);
        apm_redis_conn_send(conn, apm_buf_str(&cmd), 0, on_auth, conn);
        apm_buf_reset(&cmd);
    }
    if (!conn->opts.plain && addr->db) {
        conn->greeting++;
        apm_resp_open(&cmd, 2);
        apm_resp_addz(&cmd, "SELECT");
        apm_resp_int(&cmd, addr->db);
        apm_redis_conn_send(conn, apm_buf_str(&cmd), 0, on_select, conn);
        apm_buf_reset(&cmd);
    }
    apm_resp_open(&cmd, 2);
    apm_resp_addz(&cmd, "CLIENT");
    apm_resp_addz(&cmd, "ID");
    apm_redis_conn_send(conn, apm_buf_str(&cmd), 0, on_id, conn);
    apm_buf_clear(&cmd);
    if (conn->phase != OVER)
        write_out(conn);
}

/* ---- connecting ---- */

static void
on_connected(uv_connect_t *req, int status)
{
    apm_redis_conn *conn = req->data;
    apium_error err;

    if (conn->phase == OVER)
        goto out;
    if (status < 0) {
        apm_fail(&conn->ended, APIUM_E_CLOSED, "%s", uv_strerror(status));
        uv_close(&conn->io.handle, on_io_closed); /* which goes to the next address */
        goto out;
    }
    conn->heard_ms = apm_clock_ms();
    if (!conn->opts.addr->path[0]) {
        uv_tcp_nodelay(&conn->io.tcp, 1);
        uv_tcp_keepalive(&conn->io.tcp, 1, 15);
    }
    if (uv_read_start(&conn->io.stream, on_alloc, on_read) < 0) {
        apm_redis_conn_fail(conn, APIUM_E_CLOSED, "cannot read from the socket");
        goto out;
    }
    if (!conn->opts.addr->tls) {
        greet(conn);
        goto out;
    }
    conn->phase = TLS;
    if (apm_tls_new(&conn->tls, &conn->opts.addr->tls_opts, conn->opts.addr->host, &err) !=
        APIUM_OK)
        finish(conn, &err);
    else
        write_out(conn); /* the first flight of the handshake */
out:
    release(conn);
}

static void
connect_next(apm_redis_conn *conn, int last_error)
{
    const apm_redis_addr *addr = conn->opts.addr;
    int rc;

    conn->phase = SOCKET;
    if (last_error)
        apm_fail(&conn->ended, APIUM_E_CLOSED, "%s", uv_strerror(last_error));
    if (addr->path[0]) {
        if (conn->ended.status) { /* one path, one try */
            finish(conn, &conn->ended);
            return;
        }
        rc = uv_pipe_init(conn->opts.loop, &conn->io.pipe, 0);
        if (rc == 0) {
            conn->io_open = true;
            conn->holds += 2;
            conn->io.handle.data = conn;
            conn->connect.data = conn;
            uv_pipe_connect(&conn->connect, &conn->io.pipe, addr->path, on_connected);
            return;
        }
    } else {
        struct addrinfo *ai = conn->next_addr;
        if (!ai) {
            finish(conn, &conn->ended);
            return;
        }
        conn->next_addr = ai->ai_next;
        rc = uv_tcp_init(conn->opts.loop, &conn->io.tcp);
        if (rc == 0) {
            conn->io_open = true;
            conn->holds++;
            conn->io.handle.data = conn;
            conn->connect.data = conn;
            rc = uv_tcp_connect(&conn->connect, &conn->io.tcp, ai->ai_addr, on_connected);
            if (rc == 0) {
                conn->holds++;
                return;
            }
            apm_fail(&conn->ended, APIUM_E_CLOSED, "%s", uv_strerror(rc));
            uv_close(&conn->io.handle, on_io_closed);
            return;
        }
    }
    apm_redis_conn_fail(conn, APIUM_E_CLOSED, uv_strerror(rc));
}

static void
on_name(uv_getaddrinfo_t *req, int status, struct addrinfo *addrs)
{
    apm_redis_conn *conn = req->data;

    conn->addrs = conn->next_addr = addrs;
    if (conn->phase == OVER)
        ;
    else if (status < 0)
        apm_redis_conn_fail(conn, APIUM_E_CLOSED, uv_strerror(status));
    else
        connect_next(conn, 0);
    release(conn);
}

static void
enlist(apm_redis_conn *conn)
{
    if (!conn->opts.list)
        return;
    conn->next = *conn->opts.list;
    if (conn->next)
        conn->next->prev = conn;
    *conn->opts.list = conn;
}

apm_redis_conn *
apm_redis_conn_open(const apm_redis_conn_opts *opts)
{
    apm_redis_conn *conn = calloc(1, sizeof(*conn));
    if (!conn)
        return NULL;
    *conn = (apm_redis_conn){ .opts = *opts, .holds = 1, .phase = NAME };
    conn->in = malloc(opts->read_bytes);
    conn->reader = redisReaderCreate();
    if (!conn->in || !conn->reader) {
        free(conn->in);
        if (conn->reader)
            redisReaderFree(conn->reader);
        free(conn);
        return NULL;
    }
    conn->reader->maxbuf =
        1 << 20; /* hiredis frees a read buffer at 16 KiB otherwise, again and again */
    apm_buf_init(&conn->out, BUFFER_MAX);
    apm_buf_init(&conn->sent, BUFFER_MAX);
    apm_buf_init(&conn->plain, BUFFER_MAX);
    apm_buf_init(&conn->cipher, BUFFER_MAX);
    conn->heard_ms = apm_clock_ms();
    conn->deadline_ms = conn->heard_ms + opts->connect_ms;
    conn->name.data = conn;
    if (opts->addr->path[0]) {
        enlist(conn);
        connect_next(conn, 0);
        return conn;
    }
    char port[16];
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV };
    snprintf(port, sizeof(port), "%d", opts->addr->port);
    conn->holds++;
    if (uv_getaddrinfo(opts->loop, &conn->name, on_name, opts->addr->host, port, &hints) < 0) {
        conn->holds--;
        conn->phase = OVER;
        conn->opts.on_freed = NULL;
        release(conn);
        return NULL;
    }
    enlist(conn);
    return conn;
}

/* ---- watching ---- */

void
apm_redis_conn_tick(apm_redis_conn *conn)
{
    int64_t now = apm_clock_ms();
    char why[96];

    if (conn->phase == OVER)
        return;
    if (conn->phase != READY) {
        if (now >= conn->deadline_ms)
            apm_redis_conn_fail(conn, APIUM_E_CLOSED,
                                conn->phase == NAME ? "the name server does not answer"
                                : conn->phase == SOCKET
                                    ? "connection timed out"
                                    : "the server does not answer the greeting");
        return;
    }
    if (conn->count) {
        const awaited *first = &conn->queue[conn->head];
        int64_t since = first->sent_ms > conn->heard_ms ? first->sent_ms : conn->heard_ms;
        if (now - since > first->silence_ms) {
            snprintf(why, sizeof(why), "no answer for %lld seconds",
                     (long long)((now - since) / 1000));
            apm_redis_conn_fail(conn, APIUM_E_CLOSED, why);
        }
    } else if (now - conn->heard_ms > APM_REDIS_IDLE_MS) {
        apm_redis_conn_send(conn, APM_STR("*1\r\n$4\r\nPING\r\n"), 0, NULL, NULL);
        apm_redis_conn_flush(conn);
    }
}

bool
apm_redis_conn_ready(const apm_redis_conn *conn)
{
    return conn->phase == READY;
}

long long
apm_redis_conn_id(const apm_redis_conn *conn)
{
    return conn->id;
}

apm_redis_conn *
apm_redis_conn_next(const apm_redis_conn *conn)
{
    return conn->next;
}
