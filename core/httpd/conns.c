/* conns.c - connections, what each is doing and how long it may; see inside.h */
#include "core/httpd/inside.h"

#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "core/base/clock.h"

void
apm_httpd_phase_set(apm_http_conn *c, apm_http_phase next)
{
    if (!c)
        return;
    c->phase = next;
    c->since_ms = apm_clock_ms();
}

apm_http_conn *
apm_httpd_conn_of(struct MHD_Connection *mhd)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info ? info->socket_context : NULL;
}

void
apm_httpd_on_connection(void *arg, struct MHD_Connection *mhd, void **context,
                        enum MHD_ConnectionNotificationCode code)
{
    apm_httpd *httpd = arg;
    apm_http_conn *c = *context;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *info =
            MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
        *context = c = info ? calloc(1, sizeof(*c)) : NULL;
        if (!c)
            return;
        c->fd = info->connect_fd;
        apm_httpd_phase_set(c, APM_HTTP_IDLE);
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
        /* At its bound libmicrohttpd stops listening, and begins again only when it turns the next time. */
        apm_httpd_run_soon(httpd);
    }
}

static int64_t
patience_ms(const apm_httpd *httpd, apm_http_phase of)
{
    switch (of) {
    case APM_HTTP_IDLE:
        return httpd->opts.idle_ms;
    case APM_HTTP_READING:
        return httpd->opts.request_ms;
    case APM_HTTP_ANSWERING:
        return httpd->opts.answer_ms;
    case APM_HTTP_WAITING:
    case APM_HTTP_STREAMING:
        break;
    }
    return INT64_MAX;
}

void
apm_httpd_tell_gone(apm_http_req *req)
{
    void (*on_gone)(void *) = req->on_gone;
    req->on_gone = NULL;
    if (on_gone)
        on_gone(req->gone_arg);
}

/* In the midst of a request, of which no more is to come: libmicrohttpd may have heard of that too early to see it. */
static bool
has_left(const apm_http_conn *c)
{
    char byte;
    return (c->phase == APM_HTTP_IDLE || c->phase == APM_HTTP_READING) &&
           recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

/* A stream whose peer has left, or does not take what was written. */
static void
sweep_stream(const apm_httpd *httpd, apm_http_conn *c, int64_t now)
{
    char byte;
    apm_http_stream *s = c->stream;
    bool stuck = s->pending.len > s->sent && now - s->written_ms > httpd->opts.answer_ms;
    if (!stuck && recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) != 0)
        return;
    apm_http_cut(s);
}

/* Cut what takes too long; tell whoever keeps a request whose peer has left. */
void
apm_httpd_on_sweep(uv_timer_t *timer)
{
    apm_httpd *httpd = timer->data;
    int64_t now = apm_clock_ms();
    struct pollfd *fds = calloc(httpd->n_conns + 1, sizeof(*fds));
    apm_http_req **reqs = calloc(httpd->n_conns + 1, sizeof(*reqs));
    size_t n = 0;
    for (apm_http_conn *c = httpd->conns; c; c = c->next) {
        if (c->phase == APM_HTTP_WAITING && fds && reqs && c->req && c->req->on_gone) {
            fds[n] = (struct pollfd){ .fd = c->fd, .events = POLLRDHUP };
            reqs[n++] = c->req;
        } else if (c->phase == APM_HTTP_STREAMING) {
            sweep_stream(httpd, c, now);
        } else if (now - c->since_ms > patience_ms(httpd, c->phase) || has_left(c)) {
            shutdown(c->fd, SHUT_RDWR); /* libmicrohttpd finds it closed */
        }
    }
    /* Telling one may answer another: those that follow are looked up by what is left of them, so collect first. */
    if (n && poll(fds, n, 0) > 0)
        for (size_t i = 0; i < n; i++)
            if (fds[i].revents) {
                apm_http_conn *c = httpd->conns;
                while (c && c->req != reqs[i])
                    c = c->next;
                if (c && c->phase == APM_HTTP_WAITING)
                    apm_httpd_tell_gone(c->req);
            }
    free(fds);
    free(reqs);
}
