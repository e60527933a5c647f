/* httpd.c - the daemon on the loop; see httpd.h and inside.h */
#include "core/httpd/inside.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/base/log.h"

#define SWEEP_MS 1000
#define PEM_MAX  65536 /* bytes of a certificate with its chain, and of a key */
#define OVERHEAD                                                                                   \
    (6 << 10) /* what libmicrohttpd needs of a connection's memory besides the headers */

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

void
apm_httpd_run_soon(apm_httpd *httpd)
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

/* Only when something is amiss, which is for who is asked why. */
__attribute__((format(printf, 2, 0))) static void
on_said(void *arg, const char *fmt, va_list ap)
{
    apm_httpd *httpd = arg;
    vsnprintf(httpd->said, sizeof(httpd->said), fmt, ap);
    httpd->said[strcspn(httpd->said, "\n")] = '\0';
    apm_log(APM_LOG_DEBUG, "httpd.said", "%s", httpd->said);
}

static apium_status
read_pem(const char *path, const char *what, char text[PEM_MAX], apium_error *err)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return apm_fail(err, APIUM_E_CONFIG, "cannot read the %s %s: %s", what, path,
                        strerror(errno));
    size_t n = fread(text, 1, PEM_MAX - 1, file);
    bool whole = !ferror(file) && feof(file);
    fclose(file);
    text[n] = '\0';
    if (!whole || strlen(text) != n || !strstr(text, "-----BEGIN "))
        return apm_fail(err, APIUM_E_CONFIG, "cannot use the %s %s: it is not in PEM", what, path);
    return APIUM_OK;
}

/* Certificate, key: MHD's options for them, none without TLS. pem is for their text. */
static apium_status
read_tls(const apm_httpd_opts *opts, char pem[2][PEM_MAX], struct MHD_OptionItem items[3],
         apium_error *err)
{
    items[0] = (struct MHD_OptionItem){ MHD_OPTION_END, 0, NULL };
    if (!opts->certificate && !opts->key)
        return APIUM_OK;
    if (!opts->certificate || !opts->key)
        return apm_fail(err, APIUM_E_CONFIG,
                        "a certificate needs its key, and a key its certificate");
    if (MHD_is_feature_supported(MHD_FEATURE_TLS) != MHD_YES)
        return apm_fail(err, APIUM_E_UNSUPPORTED,
                        "cannot serve TLS: libmicrohttpd was built without");
    apium_status st = read_pem(opts->certificate, "certificate", pem[0], err);
    if (st == APIUM_OK)
        st = read_pem(opts->key, "key", pem[1], err);
    if (st != APIUM_OK)
        return st;
    items[0] = (struct MHD_OptionItem){ MHD_OPTION_HTTPS_MEM_CERT, 0, pem[0] };
    items[1] = (struct MHD_OptionItem){ MHD_OPTION_HTTPS_MEM_KEY, 0, pem[1] };
    items[2] = (struct MHD_OptionItem){ MHD_OPTION_END, 0, NULL };
    return APIUM_OK;
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
    char(*pem)[PEM_MAX] = calloc(2, sizeof(*pem));
    struct MHD_OptionItem tls[3];
    st = pem ? read_tls(opts, pem, tls, err)
             : apm_fail(err, APIUM_E_NOMEM, "cannot start an HTTP server: out of memory");
    if (st == APIUM_OK)
        st = listen_on(opts, &fd, &httpd->port, err);
    if (st != APIUM_OK) {
        free(pem);
        free(httpd);
        return st;
    }
    httpd->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG |
            (opts->certificate ? MHD_USE_TLS : 0),
        0, NULL, NULL, apm_httpd_on_access, httpd, MHD_OPTION_EXTERNAL_LOGGER, on_said, httpd,
        MHD_OPTION_ARRAY, tls, MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT,
        o->max_connections, MHD_OPTION_CONNECTION_MEMORY_LIMIT, o->max_header_bytes + OVERHEAD,
        MHD_OPTION_NOTIFY_CONNECTION, apm_httpd_on_connection, httpd, MHD_OPTION_NOTIFY_COMPLETED,
        apm_httpd_on_completed, NULL, MHD_OPTION_URI_LOG_CALLBACK, apm_httpd_on_uri, httpd,
        MHD_OPTION_UNESCAPE_CALLBACK, keep_target, NULL, MHD_OPTION_END);
    const union MHD_DaemonInfo *info =
        httpd->daemon ? MHD_get_daemon_info(httpd->daemon, MHD_DAEMON_INFO_EPOLL_FD) : NULL;
    if (!info || uv_poll_init(loop, &httpd->poll, info->epoll_fd) < 0) {
        if (httpd->daemon)
            MHD_stop_daemon(httpd->daemon);
        else
            close(fd);
        st = apm_fail(err, opts->certificate ? APIUM_E_CONFIG : APIUM_E_SYSTEM,
                      "cannot start an HTTP server: %s",
                      *httpd->said ? httpd->said : "libmicrohttpd refuses");
        explicit_bzero(pem, 2 * sizeof(*pem));
        free(pem);
        free(httpd);
        return st;
    }
    explicit_bzero(pem, 2 * sizeof(*pem));
    free(pem);
    uv_timer_init(loop, &httpd->next);
    uv_timer_init(loop, &httpd->sweep);
    uv_idle_init(loop, &httpd->idle);
    httpd->handles = 4;
    httpd->poll.data = httpd->next.data = httpd->sweep.data = httpd->idle.data = httpd;
    uv_poll_start(&httpd->poll, UV_READABLE, on_poll);
    uv_timer_start(&httpd->sweep, apm_httpd_on_sweep, SWEEP_MS, SWEEP_MS);
    apm_httpd_run_soon(httpd);
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
    for (apm_http_conn *c = httpd->conns, *next; c; c = next) {
        next = c->next;
        if (c->phase == APM_HTTP_WAITING && c->req)
            apm_httpd_tell_gone(c->req);
        else if (c->phase == APM_HTTP_STREAMING && c->stream)
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
