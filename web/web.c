/*
 * web.c - the server's life: open the store, listen, answer until TERM or INT, then let every call end. One libuv loop does it all.
 */
#include "web/inner.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/base/clock.h"
#include "core/base/error.h"
#include "core/base/log.h"
#include "core/link/ssl_lib.h"

#define PATIENCE_MS 4000 /* how long a call waits for a store that is away */
#define STOP_MS     100  /* between looks whether all calls have ended */

static void
on_prepare(uv_prepare_t *prepare)
{
    apm_web *web = prepare->data;
    apm_links_flush(web->links);
    apm_log_flush();
}

static void
on_handle_closed(uv_handle_t *handle)
{
    (void)handle;
}

static void
close_all(apm_web *web)
{
    apm_httpd_close(web->httpd);
    web->httpd = NULL;
    if (web->sessions)
        apm_sessions_close(web);
    if (web->hub)
        apm_hub_close(web);
    if (web->units)
        apm_units_close(web);
    apm_broker_close(web->broker);
    web->broker = NULL;
    apm_web_forget_queues(web);
    apm_backend_close(web->backend);
    web->backend = NULL;
    apm_links_free(web->links);
    web->links = NULL;
    uv_prepare_stop(&web->prepare);
    uv_close((uv_handle_t *)&web->prepare, on_handle_closed);
    uv_close((uv_handle_t *)&web->term, on_handle_closed);
    uv_close((uv_handle_t *)&web->intr, on_handle_closed);
    uv_close((uv_handle_t *)&web->stop_timer, on_handle_closed);
}

/* Whoever waits is told to go; whoever asks the store gets its answer first. */
static void
on_stop_timer(uv_timer_t *timer)
{
    apm_web *web = timer->data;
    apm_httpd_dismiss(web->httpd);
    if (web->calls || web->sending)
        return;
    uv_timer_stop(timer);
    close_all(web);
}

static void
on_signal(uv_signal_t *signal, int number)
{
    apm_web *web = signal->data;
    (void)number;
    if (web->stopping)
        return;
    __atomic_store_n(&web->stopping, true, __ATOMIC_RELAXED);
    apm_log(APM_LOG_INFO, "web.stopping", "The web server stops");
    uv_timer_start(&web->stop_timer, on_stop_timer, 0, STOP_MS);
}

static void
on_link(void *arg, apm_link *link, bool up, const char *why)
{
    (void)arg;
    if (up)
        apm_log(APM_LOG_INFO, "link.up", "%s", why ? why : link->shown);
    else
        apm_log(APM_LOG_ERROR, "link.down", "%s", why ? why : "connection lost");
}

static bool
is_address(const char *addr)
{
    unsigned char bytes[sizeof(struct in6_addr)];
    return uv_inet_pton(AF_INET, addr, bytes) == 0 || uv_inet_pton(AF_INET6, addr, bytes) == 0;
}

static bool
is_loopback(const char *addr)
{
    return strncmp(addr, "127.", 4) == 0 || strcmp(addr, "::1") == 0;
}

static apium_status
open_all(apm_web *web, apium_error *err)
{
    const apm_web_opts *opts = web->opts;
    const char *addr = opts->addr ? opts->addr : "127.0.0.1";
    const char *url = web->settings->result_backend;
    apium_status st = apm_ssl_load(err); /* its digests */
    if (st == APIUM_OK && opts->access)
        st = apm_access_load(opts->access, &web->access, err);
    else if (st == APIUM_OK && !is_address(addr))
        st = apm_fail(err, APIUM_E_INVALID, "cannot listen on \"%s\": not an IP address", addr);
    else if (st == APIUM_OK && !is_loopback(addr))
        st = apm_fail(err, APIUM_E_CONFIG,
                      "cannot listen on %s for everybody: say by --access who may do what", addr);
    if (st == APIUM_OK)
        st = apm_backend_open(web->links, url, web->settings->broker_url, &web->backend, err);
    if (st == APIUM_OK && web->backend->features & (APM_BACKEND_NONE | APM_BACKEND_REPLY))
        st = apm_fail(err, APIUM_E_CONFIG,
                      "cannot keep results in %s: choose another result_backend",
                      web->backend->ops->name);
    if (st == APIUM_OK) {
        web->watch = (apm_link_watch){ .on_event = on_link, .arg = web };
        apm_link_watch_add(web->backend->link, &web->watch);
        st = apm_hub_open(web, err);
    }
    if (st == APIUM_OK)
        st = apm_sessions_open(web, err);
    if (st == APIUM_OK)
        st = apm_units_open(web, err);
    if (st == APIUM_OK)
        st = apm_httpd_open(&web->loop,
                            &(apm_httpd_opts){ .addr = addr,
                                               .port = opts->port,
                                               .certificate = opts->certificate,
                                               .key = opts->key,
                                               .max_body_bytes = opts->max_body_bytes,
                                               .max_connections = opts->max_connections,
                                               .on_request = apm_web_on_request,
                                               .arg = web },
                            &web->httpd, err);
    if (st == APIUM_OK && opts->on_ready)
        opts->on_ready(opts->arg, addr, apm_httpd_port(web->httpd));
    return st;
}

apium_status
apm_web_run(apium_app *app, const apm_web_opts *opts, apium_error *err)
{
    apm_web *web = calloc(1, sizeof(*web));
    int rc;
    if (!web)
        return apm_fail(err, APIUM_E_NOMEM, "cannot start the web server: out of memory");
    *web = (apm_web){ .app = app, .settings = apm_app_settings(app), .opts = opts };
    if ((rc = uv_loop_init(&web->loop)) < 0) {
        free(web);
        return apm_fail_sys(err, -rc, "cannot make an event loop");
    }
    signal(SIGPIPE, SIG_IGN);
    uv_prepare_init(&web->loop, &web->prepare);
    uv_signal_init(&web->loop, &web->term);
    uv_signal_init(&web->loop, &web->intr);
    uv_timer_init(&web->loop, &web->stop_timer);
    web->prepare.data = web->term.data = web->intr.data = web->stop_timer.data = web;
    uv_prepare_start(&web->prepare, on_prepare);
    uv_signal_start(&web->term, on_signal, SIGTERM);
    uv_signal_start(&web->intr, on_signal, SIGINT);
    web->store_settings = *web->settings;
    web->since_ms = apm_clock_ms();
    web->links = apm_links_new(&web->loop, &web->store_settings, PATIENCE_MS);
    apium_status st = web->links ? open_all(web, err)
                                 : apm_fail(err, APIUM_E_NOMEM, "cannot start: out of memory");
    if (st != APIUM_OK)
        close_all(web);
    uv_run(&web->loop, UV_RUN_DEFAULT);
    uv_loop_close(&web->loop);
    apm_access_free(web->access);
    free(web);
    return st;
}
