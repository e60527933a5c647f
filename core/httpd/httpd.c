/* httpd.c - see httpd.h */
#include "core/httpd/httpd.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/httpd/mhd_lib.h"

#define SWEEP_MS 1000
#define OVERHEAD                                                                                   \
    (6 << 10) /* what libmicrohttpd needs of a connection's memory besides the headers */
#define SWALLOW_BYTES                                                                              \
    (1 << 20) /* so much of a body that is too big is read, that the answer may be */

typedef enum phase { IDLE, READING, WAITING, ANSWERING, STREAMING } phase;

typedef struct conn {
    int fd;
    phase phase;
    int64_t since_ms;
    apm_http_req *req;       /* while WAITING */
    apm_http_stream *stream; /* while STREAMING */
    struct conn *prev, *next;
} conn;

struct apm_http_req {
    apm_httpd *httpd;
    struct MHD_Connection *mhd;
    conn *conn;
    char *method, *target;
    apm_buf body;
    bool began, given, suspended;
    size_t swallowed;              /* of a body that is too big */
    struct MHD_Response *response; /* the answer */
    int status;
    void (*on_gone)(void *arg);
    void *gone_arg;
};

/* Released with its response, which is when its connection is done with it. */
struct apm_http_stream {
    apm_httpd *httpd;
    struct MHD_Connection *mhd;
    conn *conn;
    apm_buf pending;
    size_t sent;        /* of pending */
    int64_t written_ms; /* when something was added to an empty one */
    bool suspended, ended;
    void (*on_gone)(void *arg);
    void *arg;
};

struct apm_httpd {
    apm_httpd_opts opts;
    struct MHD_Daemon *daemon;
    uv_poll_t poll;
    uv_timer_t next, sweep;
    uv_idle_t idle; /* runs the daemon once more before the loop sleeps */
    int handles, port;
    bool running, closing;
    conn *conns;
    size_t n_conns;
};

/* ---- connections ---- */

static void
set_phase(conn *c, phase next)
{
    if (!c)
        return;
    c->phase = next;
    c->since_ms = apm_clock_ms();
}

static conn *
conn_of(struct MHD_Connection *mhd)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info ? info->socket_context : NULL;
}

static void
on_connection(void *arg, struct MHD_Connection *mhd, void **context,
              enum MHD_ConnectionNotificationCode code)
{
    apm_httpd *httpd = arg;
    conn *c = *context;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *info =
            MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
        *context = c = info ? calloc(1, sizeof(*c)) : NULL;
        if (!c)
            return;
        c->fd = info->connect_fd;
        set_phase(c, IDLE);
        c->next = httpd->conns;
        if (c->next)
            c->next->prev = c;
        httpd->conns = c;
        httpd->n_conns++;
    } else if (c) {
        *(c->prev ? &c->prev->next : &httpd->conns) = c->next;
        if (c->next)
            c->next->prev = c->prev;
        httpd->n_conns--;
        free(c);
        *context = NULL;
    }
}

static int64_t
patience_ms(const apm_httpd *httpd, phase of)
{
    switch (of) {
    case IDLE:
        return httpd->opts.idle_ms;
    case READING:
        return httpd->opts.request_ms;
    case ANSWERING:
        return httpd->opts.answer_ms;
    case WAITING:
    case STREAMING:
        break;
    }
    return INT64_MAX;
}

static void
tell_gone(apm_http_req *req)
{
    void (*on_gone)(void *) = req->on_gone;
    req->on_gone = NULL;
    if (on_gone)
        on_gone(req->gone_arg);
}

/* In the midst of a request, of which no more is to come: libmicrohttpd may have heard of that too early to see it. */
static bool
has_left(const conn *c)
{
    char byte;
    return (c->phase == IDLE || c->phase == READING) &&
           recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

/* A stream whose peer has left, or does not take what was written. */
static void
sweep_stream(const apm_httpd *httpd, conn *c, int64_t now)
{
    char byte;
    apm_http_stream *s = c->stream;
    bool stuck = s->pending.len > s->sent && now - s->written_ms > httpd->opts.answer_ms;
    if (!stuck && recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) != 0)
        return;
    apm_http_cut(s);
}

/* Cut what takes too long; tell whoever keeps a request whose peer has left. */
static void
on_sweep(uv_timer_t *timer)
{
    apm_httpd *httpd = timer->data;
    int64_t now = apm_clock_ms();
    struct pollfd *fds = calloc(httpd->n_conns + 1, sizeof(*fds));
    apm_http_req **reqs = calloc(httpd->n_conns + 1, sizeof(*reqs));
    size_t n = 0;
    for (conn *c = httpd->conns; c; c = c->next) {
        if (c->phase == WAITING && fds && reqs && c->req && c->req->on_gone) {
            fds[n] = (struct pollfd){ .fd = c->fd, .events = POLLRDHUP };
            reqs[n++] = c->req;
        } else if (c->phase == STREAMING) {
            sweep_stream(httpd, c, now);
        } else if (now - c->since_ms > patience_ms(httpd, c->phase) || has_left(c)) {
            shutdown(c->fd, SHUT_RDWR); /* libmicrohttpd finds it closed */
        }
    }
    /* Telling one may answer another: those that follow are looked up by what is left of them, so collect first. */
    if (n && poll(fds, n, 0) > 0)
        for (size_t i = 0; i < n; i++)
            if (fds[i].revents) {
                conn *c = httpd->conns;
                while (c && c->req != reqs[i])
                    c = c->next;
                if (c && c->phase == WAITING)
                    tell_gone(c->req);
            }
    free(fds);
    free(reqs);
}

/* ---- requests ---- */

static void *
on_uri(void *arg, const char *uri, struct MHD_Connection *mhd)
{
    apm_httpd *httpd = arg;
    apm_http_req *req = calloc(1, sizeof(*req));
    conn *c = conn_of(mhd);
    if (!req || !c || !(req->target = strdup(uri))) {
        free(req);
        return NULL;
    }
    req->httpd = httpd;
    req->mhd = mhd;
    req->conn = c;
    apm_buf_init(&req->body, httpd->opts.max_body_bytes);
    set_phase(c, READING);
    return req;
}

/* Its connection is done with it; libmicrohttpd releases it with the response, perhaps after the connection. */
static void
leave_stream(apm_http_stream *stream)
{
    stream->conn->stream = NULL;
    stream->conn = NULL;
    stream->on_gone(stream->arg);
}

static void
on_completed(void *arg, struct MHD_Connection *mhd, void **context,
             enum MHD_RequestTerminationCode code)
{
    apm_http_req *req = *context;
    (void)arg;
    (void)mhd;
    (void)code;
    if (!req)
        return;
    *context = NULL;
    if (req->conn->stream)
        leave_stream(req->conn->stream);
    set_phase(req->conn, IDLE);
    if (req->response)
        MHD_destroy_response(req->response);
    apm_buf_clear(&req->body);
    free(req->method);
    free(req->target);
    free(req);
}

static enum MHD_Result
send_answer(apm_http_req *req)
{
    set_phase(req->conn, req->conn->stream ? STREAMING : ANSWERING);
    apm_buf_clear(&req->body);
    return MHD_queue_response(req->mhd, (unsigned)req->status, req->response);
}

static void
refuse_size(apm_http_req *req)
{
    char text[128];
    int len = snprintf(
        text, sizeof(text),
        "{\"error\": {\"status\": 413, \"message\": \"the body is bigger than %zu bytes\"}}",
        req->httpd->opts.max_body_bytes);
    apm_http_answer(req, &(apm_http_reply){ .status = 413, .body = { text, (size_t)len } });
}

/* Of a body that is too big so much is read all the same: an answer in the midst of it may be lost with a reset connection. */
static size_t
swallow_bytes(const apm_httpd *httpd)
{
    return httpd->opts.max_body_bytes > SWALLOW_BYTES ? httpd->opts.max_body_bytes : SWALLOW_BYTES;
}

/* The first call of a request: its headers are here. */
static enum MHD_Result
begin(apm_http_req *req, const char *method)
{
    const char *length = apm_http_header_of(req, MHD_HTTP_HEADER_CONTENT_LENGTH);
    req->began = true;
    if (!(req->method = strdup(method)))
        return MHD_NO;
    unsigned long long bytes = length ? strtoull(length, NULL, 10) : 0;
    bool expects = apm_http_header_of(req, MHD_HTTP_HEADER_EXPECT) !=
                   NULL; /* it has not begun with the body */
    if (bytes > req->httpd->opts.max_body_bytes &&
        (expects || bytes - req->httpd->opts.max_body_bytes > swallow_bytes(req->httpd))) {
        req->given = true;
        refuse_size(req);
        return req->response ? send_answer(req) : MHD_NO;
    }
    return MHD_YES;
}

static enum MHD_Result
take_body(apm_http_req *req, const char *data, size_t size)
{
    if (req->given)
        return MHD_YES;
    if (!req->body.failed)
        apm_buf_add(&req->body, data, size);
    if (req->body.failed) {
        free(req->body.p); /* nobody will read what came of it */
        req->body.p = NULL;
        req->body.len = req->body.cap = 0;
        req->swallowed += size;
    }
    return req->swallowed <= swallow_bytes(req->httpd) + SWALLOW_BYTES ? MHD_YES : MHD_NO;
}

static enum MHD_Result
on_access(void *arg, struct MHD_Connection *mhd, const char *url, const char *method,
          const char *version, const char *data, size_t *size, void **context)
{
    apm_httpd *httpd = arg;
    apm_http_req *req = *context;
    (void)mhd;
    (void)url;
    (void)version;
    if (!req)
        return MHD_NO;
    if (!req->began)
        return begin(req, method);
    if (*size) {
        enum MHD_Result rc = take_body(req, data, *size);
        *size = 0;
        return rc;
    }
    if (!req->given) {
        req->given = true;
        set_phase(req->conn, WAITING);
        req->conn->req = req;
        if (req->body.failed)
            refuse_size(req);
        else
            httpd->opts.on_request(httpd->opts.arg, req);
    }
    if (req->response)
        return send_answer(req);
    if (req->status < 0)
        return MHD_NO;
    req->suspended = true;
    MHD_suspend_connection(mhd);
    return MHD_YES;
}

const char *
apm_http_method(const apm_http_req *req)
{
    return req->method;
}

const char *
apm_http_target(const apm_http_req *req)
{
    return req->target;
}

apm_str
apm_http_body(const apm_http_req *req)
{
    return apm_buf_str(&req->body);
}

const char *
apm_http_header_of(const apm_http_req *req, const char *name)
{
    return MHD_lookup_connection_value(req->mhd, MHD_HEADER_KIND, name);
}

void
apm_http_on_gone(apm_http_req *req, void (*on_gone)(void *arg), void *arg)
{
    req->on_gone = on_gone;
    req->gone_arg = arg;
}

static void run_soon(apm_httpd *httpd);

static struct MHD_Response *
make_response(const apm_http_reply *reply)
{
    struct MHD_Response *response;
    if (reply->take) {
        size_t len = 0;
        char *text = apm_buf_take(reply->take, &len);
        response = text ? MHD_create_response_from_buffer(len, text, MHD_RESPMEM_MUST_FREE) : NULL;
        if (!response)
            free(text);
    } else {
        response = MHD_create_response_from_buffer(
            reply->body.len, (void *)(uintptr_t)reply->body.p, MHD_RESPMEM_MUST_COPY);
    }
    if (!response)
        return NULL;
    if (reply->status != 204 && reply->status != 304)
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE,
                                reply->type ? reply->type : "application/json");
    for (size_t i = 0; i < reply->n_headers; i++)
        if (reply->headers[i].value)
            MHD_add_response_header(response, reply->headers[i].name, reply->headers[i].value);
    return response;
}

static void
give(apm_http_req *req, struct MHD_Response *response, int status)
{
    req->on_gone = NULL;
    req->conn->req = NULL;
    req->status = status;
    req->response = response;
    if (!req->response) { /* without memory the connection ends */
        req->status = -1;
        shutdown(req->conn->fd, SHUT_RDWR);
    }
    if (!req->suspended)
        return;
    req->suspended = false;
    set_phase(req->conn, req->conn->stream ? STREAMING : ANSWERING);
    MHD_resume_connection(req->mhd);
    run_soon(req->httpd);
}

void
apm_http_answer(apm_http_req *req, const apm_http_reply *reply)
{
    give(req, make_response(reply), reply->status);
}

/* ---- streams ---- */

static void
resume_stream(apm_http_stream *stream)
{
    if (!stream->suspended)
        return;
    stream->suspended = false;
    MHD_resume_connection(stream->mhd);
    run_soon(stream->httpd);
}

static ssize_t
read_stream(void *arg, uint64_t at, char *to, size_t max)
{
    apm_http_stream *s = arg;
    size_t n = s->pending.len - s->sent;
    (void)at;
    if (n == 0 && s->ended)
        return MHD_CONTENT_READER_END_OF_STREAM;
    if (n == 0) {
        s->suspended = true;
        MHD_suspend_connection(s->mhd);
        return 0;
    }
    n = n < max ? n : max;
    memcpy(to, s->pending.p + s->sent, n);
    s->sent += n;
    s->written_ms = apm_clock_ms();
    if (s->sent == s->pending.len) {
        apm_buf_reset(&s->pending);
        s->sent = 0;
    }
    return (ssize_t)n;
}

static void
free_stream(void *arg)
{
    apm_http_stream *s = arg;
    apm_buf_clear(&s->pending);
    free(s);
}

apm_http_stream *
apm_http_begin(apm_http_req *req, const apm_http_reply *reply, void (*on_gone)(void *arg),
               void *arg)
{
    apm_http_stream *s = calloc(1, sizeof(*s));
    struct MHD_Response *response =
        s ? MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 4096, read_stream, s, free_stream)
          : NULL;
    if (!response) {
        free(s);
        return NULL;
    }
    *s = (apm_http_stream){ .httpd = req->httpd,
                            .mhd = req->mhd,
                            .conn = req->conn,
                            .written_ms = apm_clock_ms(),
                            .on_gone = on_gone,
                            .arg = arg };
    apm_buf_init(&s->pending, APM_BUF_MAX);
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, reply->type);
    for (size_t i = 0; i < reply->n_headers; i++)
        MHD_add_response_header(response, reply->headers[i].name, reply->headers[i].value);
    req->conn->stream = s;
    give(req, response, reply->status);
    return s;
}

size_t
apm_http_write(apm_http_stream *stream, apm_str text)
{
    if (stream->ended)
        return 0;
    if (stream->pending.len == 0)
        stream->written_ms = apm_clock_ms();
    apm_buf_adds(&stream->pending, text);
    resume_stream(stream);
    return stream->pending.len - stream->sent;
}

void
apm_http_end(apm_http_stream *stream)
{
    stream->ended = true;
    resume_stream(stream);
}

void
apm_http_cut(apm_http_stream *stream)
{
    stream->ended = true;
    apm_buf_clear(&stream->pending);
    stream->sent = 0;
    shutdown(stream->conn->fd, SHUT_RDWR);
    resume_stream(stream);
}

/* ---- the daemon on the loop ---- */

static void on_timer(uv_timer_t *timer);
static void on_idle(uv_idle_t *idle);

static void
run(apm_httpd *httpd)
{
    MHD_UNSIGNED_LONG_LONG timeout;
    if (httpd->running || httpd->closing)
        return;
    httpd->running = true;
    MHD_run(httpd->daemon);
    httpd->running = false;
    if (httpd->closing)
        return;
    if (MHD_get_timeout(httpd->daemon, &timeout) == MHD_YES)
        uv_timer_start(&httpd->next, on_timer, timeout < 60000 ? timeout : 60000, 0);
    else
        uv_timer_stop(&httpd->next);
}

static void
run_soon(apm_httpd *httpd)
{
    if (!httpd->closing)
        uv_idle_start(&httpd->idle, on_idle);
}

static void
on_idle(uv_idle_t *idle)
{
    uv_idle_stop(idle);
    run(idle->data);
}

static void
on_timer(uv_timer_t *timer)
{
    run(timer->data);
}

static void
on_poll(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    run(poll->data);
}

static apium_status
listen_on(const apm_httpd_opts *opts, int *fd, int *port, apium_error *err)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } addr;
    socklen_t len = sizeof(addr.v4);
    memset(&addr, 0, sizeof(addr));
    if (uv_ip4_addr(opts->addr, opts->port, &addr.v4) != 0) {
        len = sizeof(addr.v6);
        if (uv_ip6_addr(opts->addr, opts->port, &addr.v6) != 0)
            return apm_fail(err, APIUM_E_INVALID, "cannot listen on \"%s\": not an IP address",
                            opts->addr);
    }
    int sock = socket(addr.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int on = 1;
    if (sock < 0)
        return apm_fail_sys(err, errno, "cannot open a socket");
    setsockopt(sock, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(sock, &addr.any, len) < 0 || listen(sock, 1024) < 0 ||
        getsockname(sock, &addr.any, &(socklen_t){ sizeof(addr) }) < 0) {
        apium_status st =
            apm_fail_sys(err, errno, "cannot listen on %s port %d", opts->addr, opts->port);
        close(sock);
        return st;
    }
    *port = ntohs(addr.any.sa_family == AF_INET6 ? addr.v6.sin6_port : addr.v4.sin_port);
    *fd = sock;
    return APIUM_OK;
}

static size_t
keep_target(void *arg, struct MHD_Connection *mhd, char *text)
{
    (void)arg;
    (void)mhd;
    return strlen(text); /* escapes are read later, where a NUL is told from an end */
}

apium_status
apm_httpd_open(uv_loop_t *loop, const apm_httpd_opts *opts, apm_httpd **out, apium_error *err)
{
    apium_status st = apm_mhd_load(err);
    apm_httpd *httpd = st == APIUM_OK ? calloc(1, sizeof(*httpd)) : NULL;
    int fd = -1;
    if (st != APIUM_OK)
        return st;
    if (!httpd)
        return apm_fail(err, APIUM_E_NOMEM, "cannot start an HTTP server: out of memory");
    httpd->opts = *opts;
    apm_httpd_opts *o = &httpd->opts;
    o->max_connections = o->max_connections ? o->max_connections : 4096;
    o->max_body_bytes = o->max_body_bytes ? o->max_body_bytes : (size_t)64 << 20;
    o->max_header_bytes = o->max_header_bytes ? o->max_header_bytes : 8 << 10;
    o->idle_ms = o->idle_ms ? o->idle_ms : 75000;
    o->request_ms = o->request_ms ? o->request_ms : 30000;
    o->answer_ms = o->answer_ms ? o->answer_ms : 60000;
    st = listen_on(opts, &fd, &httpd->port, err);
    if (st != APIUM_OK) {
        free(httpd);
        return st;
    }
    httpd->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, on_access, httpd,
        MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, o->max_connections,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, o->max_header_bytes + OVERHEAD,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, httpd, MHD_OPTION_NOTIFY_COMPLETED,
        on_completed, NULL, MHD_OPTION_URI_LOG_CALLBACK, on_uri, httpd,
        MHD_OPTION_UNESCAPE_CALLBACK, keep_target, NULL, MHD_OPTION_END);
    const union MHD_DaemonInfo *info =
        httpd->daemon ? MHD_get_daemon_info(httpd->daemon, MHD_DAEMON_INFO_EPOLL_FD) : NULL;
    if (!info || uv_poll_init(loop, &httpd->poll, info->epoll_fd) < 0) {
        if (httpd->daemon)
            MHD_stop_daemon(httpd->daemon);
        else
            close(fd);
        free(httpd);
        return apm_fail(err, APIUM_E_SYSTEM, "cannot start an HTTP server: libmicrohttpd refuses");
    }
    uv_timer_init(loop, &httpd->next);
    uv_timer_init(loop, &httpd->sweep);
    uv_idle_init(loop, &httpd->idle);
    httpd->handles = 4;
    httpd->poll.data = httpd->next.data = httpd->sweep.data = httpd->idle.data = httpd;
    uv_poll_start(&httpd->poll, UV_READABLE, on_poll);
    uv_timer_start(&httpd->sweep, on_sweep, SWEEP_MS, SWEEP_MS);
    run_soon(httpd);
    *out = httpd;
    return APIUM_OK;
}

int
apm_httpd_port(const apm_httpd *httpd)
{
    return httpd->port;
}

size_t
apm_httpd_connections(const apm_httpd *httpd)
{
    return httpd->n_conns;
}

static void
on_closed(uv_handle_t *handle)
{
    apm_httpd *httpd = handle->data;
    if (--httpd->handles == 0)
        free(httpd);
}

void
apm_httpd_dismiss(apm_httpd *httpd)
{
    for (conn *c = httpd->conns, *next; c; c = next) {
        next = c->next;
        if (c->phase == WAITING && c->req)
            tell_gone(c->req);
        else if (c->phase == STREAMING && c->stream)
            apm_http_end(c->stream);
    }
}

void
apm_httpd_close(apm_httpd *httpd)
{
    if (!httpd)
        return;
    apm_httpd_dismiss(httpd);
    MHD_run(httpd->daemon); /* send what was said at last */
    httpd->closing = true;
    uv_poll_stop(&httpd->poll);
    MHD_stop_daemon(httpd->daemon);
    uv_close((uv_handle_t *)&httpd->poll, on_closed);
    uv_close((uv_handle_t *)&httpd->next, on_closed);
    uv_close((uv_handle_t *)&httpd->sweep, on_closed);
    uv_close((uv_handle_t *)&httpd->idle, on_closed);
}
