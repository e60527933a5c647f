/* http_ask.c - requests of a link over HTTP, waiting, under way and away; see http.h */
#include "core/link/http_dialect.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/base/clock.h"
#include "core/base/error.h"

#define ACTIVE_MAX     32
#define RETRY_AFTER_MS 60000 /* at most */

typedef struct watched_socket {
    uv_poll_t poll;
    http_link *link;
    curl_socket_t fd;
} watched_socket;

static void pump(http_link *link);

/* ---- lists ---- */

static void
put_waiting(http_link *link, http_ask *ask, bool front)
{
    ask->prev = ask->next = NULL;
    if (!link->waiting) {
        link->waiting = link->last_waiting = ask;
    } else if (front) {
        ask->next = link->waiting;
        link->waiting->prev = ask;
        link->waiting = ask;
    } else {
        ask->prev = link->last_waiting;
        link->last_waiting->next = ask;
        link->last_waiting = ask;
    }
}

static void
take_waiting(http_link *link, http_ask *ask)
{
    *(ask->prev ? &ask->prev->next : &link->waiting) = ask->next;
    *(ask->next ? &ask->next->prev : &link->last_waiting) = ask->prev;
    ask->prev = ask->next = NULL;
}

static void
put_active(http_link *link, http_ask *ask)
{
    ask->prev = NULL;
    ask->next = link->active;
    if (ask->next)
        ask->next->prev = ask;
    link->active = ask;
    link->n_active++;
}

static void
take_active(http_link *link, http_ask *ask)
{
    *(ask->prev ? &ask->prev->next : &link->active) = ask->next;
    if (ask->next)
        ask->next->prev = ask->prev;
    ask->prev = ask->next = NULL;
    link->n_active--;
}

static void
ask_free(http_ask *ask)
{
    apm_buf_clear(&ask->answer);
    free(ask->body);
    free(ask->path);
    free(ask);
}

static void
answer(http_ask *ask, int status, const apium_error *err)
{
    ask->asked.done(ask->asked.arg, status, apm_buf_str(&ask->answer), err);
    ask_free(ask);
}

/* ---- when the server is away ---- */

static void on_retry(uv_timer_t *timer);

void
apm_http_arm(http_link *link)
{
    int64_t now = apm_clock_ms(), at = link->away ? link->again_ms : INT64_MAX;
    const http_ask *ask = link->waiting; /* the oldest come first */
    while (ask && ask->until_ms < 0)
        ask = ask->next;
    if (ask && ask->until_ms < at)
        at = ask->until_ms;
    if (apm_http_units_until_ms(link) < at)
        at = apm_http_units_until_ms(link);
    if (!link->known && !link->discovering && link->discover_ms < at)
        at = link->discover_ms;
    if (link->waiting && !link->away && link->n_active < ACTIVE_MAX)
        at = now; /* something can be sent */
    if (at == INT64_MAX || link->closing) {
        uv_timer_stop(&link->retry);
    } else if (at > now) {
        uv_timer_start(&link->retry, on_retry, (uint64_t)(at - now), 0);
    } else {
        uv_timer_stop(&link->retry);
        link->retry_due = true;
        uv_async_send(&link->async);
    }
}

void
apm_http_away(http_link *link, const char *why, int64_t after_ms)
{
    if (link->away)
        return; /* those that were under way with it fail too: that is one failure */
    int64_t pause_ms = apm_link_backoff_ms(link->attempt++);
    char text[640];
    if (after_ms > pause_ms)
        pause_ms = after_ms;
    link->away = true;
    snprintf(link->why, sizeof(link->why), "%s", why);
    link->again_ms = apm_clock_ms() + pause_ms;
    snprintf(text, sizeof(text), "Cannot use %s: %s. Trying again in %.2f seconds...",
             link->base.shown, why, (double)pause_ms / 1000);
    apm_link_changed(&link->base, false, text);
}

static const char *
why_away(const http_link *link)
{
    return *link->why ? link->why : "it does not answer in time";
}

/* Those whose patience is over. */
static void
give_up_some(http_link *link)
{
    int64_t now = apm_clock_ms();
    for (http_ask *ask = link->waiting, *next; ask; ask = next) {
        apium_error err;
        next = ask->next;
        if (ask->until_ms < 0 || ask->until_ms > now)
            continue;
        take_waiting(link, ask);
        (void)apm_fail(&err, APIUM_E_CLOSED, "cannot use %s: %s", link->base.shown,
                       *ask->why ? ask->why : why_away(link));
        answer(ask, 0, &err);
        next = link->waiting; /* whoever got the answer may have done anything */
    }
}

static void
on_retry(uv_timer_t *timer)
{
    http_link *link = timer->data;
    link->retry_due = true;
    uv_async_send(&link->async);
}

static void
retry(http_link *link)
{
    apium_error err;
    if (link->away && apm_clock_ms() >= link->again_ms)
        link->away = false;
    give_up_some(link);
    (void)apm_fail(&err, APIUM_E_CLOSED, "cannot use %s: %s", link->base.shown, why_away(link));
    apm_http_units_fail(link, false, &err);
    if (!link->known && !link->discovering && apm_clock_ms() >= link->discover_ms)
        apm_http_discover(link);
    pump(link);
    apm_http_arm(link);
}

static bool
goes_away(int status)
{
    return status == 429 || status == 408 || (status >= 500 && status != 501 && status != 505);
}

/* The server lets us in no more, or sends us elsewhere: somebody has to look at the settings, and until then a worker keeps what
 * it has. */
static bool
shuts_out(int status)
{
    return status == 401 || status == 403 || status == 407 ||
           (status >= 300 && status < 400 && status != 304);
}

/* The server did not do what it was asked. Keep the question, or give up. */
static void
failed(http_link *link, http_ask *ask, int status, int64_t after_ms)
{
    const bool patient = ask->until_ms < 0, out = shuts_out(status);
    apium_error err;
    if (status) {
        char words[100];
        apm_http_why(apm_buf_str(&ask->answer), words, sizeof(words));
        snprintf(ask->why, sizeof(ask->why), "%s it answers %d%s%s",
                 status >= 300 && status < 400 ? "redirections are not followed;" : "", status,
                 *words ? ": " : "", words);
    }
    const char *why = *ask->why == ' ' ? ask->why + 1 : ask->why;
    if (out && !patient) {
        (void)apm_fail(&err, APIUM_E_REFUSED, "cannot use %s: %s", link->base.shown, why);
        answer(ask, 0, &err);
        return;
    }
    apm_http_away(link, why, after_ms);
    put_waiting(link, ask, true);
}

static void
completed(http_link *link, http_ask *ask, CURLcode code)
{
    long status = 0;
    curl_off_t after_s = 0;
    curl_easy_getinfo(ask->easy, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(ask->easy, CURLINFO_RETRY_AFTER, &after_s);
    apm_http_spare(link, ask);
    take_active(link, ask);
    int64_t after_ms = after_s > 0 && after_s < RETRY_AFTER_MS / 1000 ? (int64_t)after_s * 1000
                       : after_s > 0                                  ? RETRY_AFTER_MS
                                                                      : 0;
    if (code == CURLE_WRITE_ERROR && ask->answer.failed) {
        apium_error err;
        (void)apm_fail(&err, APIUM_E_TOOBIG, "cannot use %s: its answer is bigger than %zu bytes",
                       link->base.shown, (size_t)APM_BUF_MAX);
        answer(ask, 0, &err);
    } else if (code != CURLE_OK) {
        if (!*ask->why)
            snprintf(ask->why, sizeof(ask->why), "%s", curl_easy_strerror(code));
        failed(link, ask, 0, 0);
    } else if ((goes_away((int)status) || shuts_out((int)status)) &&
               !(ask->asked.is_fate &&
                 ask->asked.is_fate((int)status, apm_buf_str(&ask->answer)))) {
        failed(link, ask, (int)status, after_ms);
    } else {
        link->attempt = 0;
        *link->why = '\0';
        /* Until it is known what the server can do the link is not up. */
        if (!link->base.up && link->known) {
            char text[320];
            snprintf(text, sizeof(text), "Connected to %s", link->base.shown);
            apm_link_changed(&link->base, true, text);
        }
        answer(ask, (int)status, NULL);
    }
}

/* ---- libcurl on the loop ---- */

static void
look(http_link *link)
{
    CURLMsg *msg;
    int left;
    while (!link->closing && (msg = curl_multi_info_read(link->multi, &left))) {
        http_ask *ask = NULL;
        CURLcode code = msg->data.result;
        if (msg->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, (char **)&ask);
        completed(link, ask, code);
    }
    if (!link->closing) {
        pump(link);
        apm_http_arm(link);
    }
}

static void
on_timer(uv_timer_t *timer)
{
    http_link *link = timer->data;
    link->timer_due = true;
    uv_async_send(&link->async);
}

/* A loop that runs once for an answer would sleep after one that came from a timer; not so after one from here. */
static void
on_async(uv_async_t *async)
{
    http_link *link = async->data;
    int running;
    if (link->retry_due && !link->closing) {
        link->retry_due = false;
        retry(link);
    }
    if (link->timer_due && !link->closing) {
        link->timer_due = false;
        curl_multi_socket_action(link->multi, CURL_SOCKET_TIMEOUT, 0, &running);
        look(link);
    }
}

static int
want_timer(CURLM *multi, long ms, void *arg)
{
    http_link *link = arg;
    (void)multi;
    if (link->closing)
        return 0;
    if (ms <= 0)
        uv_timer_stop(&link->timer);
    if (ms == 0)
        on_timer(&link->timer);
    else if (ms > 0)
        uv_timer_start(&link->timer, on_timer, (uint64_t)ms, 0);
    return 0;
}

static void
on_poll(uv_poll_t *poll, int status, int events)
{
    watched_socket *sock = poll->data;
    http_link *link = sock->link;
    int flags = (events & UV_READABLE ? CURL_CSELECT_IN : 0) |
                (events & UV_WRITABLE ? CURL_CSELECT_OUT : 0) | (status < 0 ? CURL_CSELECT_ERR : 0);
    int running;
    curl_multi_socket_action(link->multi, sock->fd, flags, &running);
    look(link);
}

static void
on_socket_closed(uv_handle_t *handle)
{
    watched_socket *sock = handle->data;
    http_link *link = sock->link;
    free(sock);
    apm_http_handle_closed(link);
}

static int
want_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *own)
{
    http_link *link = arg;
    watched_socket *sock = own;
    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        if (sock) {
            uv_poll_stop(&sock->poll);
            uv_close((uv_handle_t *)&sock->poll, on_socket_closed);
            curl_multi_assign(link->multi, fd, NULL);
        }
        return 0;
    }
    if (!sock) {
        sock = calloc(1, sizeof(*sock));
        if (!sock || uv_poll_init(apm_links_loop(link->base.set), &sock->poll, fd) < 0) {
            free(sock);
            return -1;
        }
        sock->link = link;
        sock->fd = fd;
        sock->poll.data = sock;
        link->handles++;
        curl_multi_assign(link->multi, fd, sock);
    }
    uv_poll_start(&sock->poll,
                  (what & CURL_POLL_IN ? UV_READABLE : 0) |
                      (what & CURL_POLL_OUT ? UV_WRITABLE : 0),
                  on_poll);
    return 0;
}

static void
pump(http_link *link)
{
    while (link->waiting && !link->away && !link->closing && link->n_active < ACTIVE_MAX) {
        http_ask *ask = link->waiting;
        take_waiting(link, ask);
        if (apm_http_start(link, ask)) {
            put_active(link, ask);
        } else {
            snprintf(ask->why, sizeof(ask->why), "out of memory");
            put_waiting(link, ask, true);
            apm_http_away(link, ask->why, 0);
        }
    }
}

void
apm_http_push(http_link *link)
{
    int running;
    if (!link->waiting || link->away || link->closing)
        return;
    pump(link);
    curl_multi_socket_action(link->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    link->timer_due = true; /* whatever came of it */
    uv_async_send(&link->async);
}

/* ---- asking ---- */

static void
refuse(const apm_http_asked *asked, apium_status status, const char *why)
{
    apium_error err;
    (void)apm_fail(&err, status, "cannot ask for %.100s: %s", asked->path, why);
    asked->done(asked->arg, 0, APM_STR_NONE, &err);
}

void
apm_http_ask(apm_link *base, const apm_http_asked *asked)
{
    http_link *link = (http_link *)base;
    int64_t patience_ms = apm_links_patience_ms(base->set);
    /* Not later: it would be tried again and again, and all behind it would wait. */
    if (strlen(link->root) + strlen(asked->path) > HTTP_URL_MAX) {
        refuse(asked, APIUM_E_TOOBIG, "the path is too long");
        return;
    }
    http_ask *ask = calloc(1, sizeof(*ask));
    if (!ask || !(ask->path = strdup(asked->path)) ||
        (asked->body && !(ask->body = apm_buf_take(asked->body, &ask->body_len)))) {
        if (ask)
            ask_free(ask);
        refuse(asked, APIUM_E_NOMEM, "out of memory");
        return;
    }
    ask->link = link;
    ask->asked = *asked;
    ask->asked.path = NULL;
    ask->asked.body = NULL;
    ask->until_ms = patience_ms < 0 || asked->for_ever ? -1 : apm_clock_ms() + patience_ms;
    put_waiting(link, ask, false);
    /* Not from here: libcurl must not be entered from its own callbacks, and the caller not from ours. */
    apm_http_arm(link);
}

static void
leave(http_ask *ask)
{
    if (ask->asked.release)
        ask->asked.release(ask->asked.arg);
    ask_free(ask);
}

void
apm_http_leave(apm_link *base, const void *owner)
{
    http_link *link = (http_link *)base;
    for (http_ask *ask = link->waiting, *next; ask; ask = next) {
        next = ask->next;
        if (ask->asked.owner != owner)
            continue;
        take_waiting(link, ask);
        leave(ask);
    }
    for (http_ask *ask = link->active, *next; ask; ask = next) {
        next = ask->next;
        if (ask->asked.owner != owner)
            continue;
        apm_http_spare(link, ask);
        take_active(link, ask);
        leave(ask);
    }
}

/* ---- opening and closing ---- */

static void
init_curl(void)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

apium_status
apm_http_open_multi(http_link *link, apium_error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    apium_status st = apm_curl_load(err);
    if (st != APIUM_OK)
        return st;
    pthread_once(&once, init_curl);
    link->multi = curl_multi_init();
    if (!link->multi)
        return apm_fail(err, APIUM_E_NOMEM, "cannot open \"%s\": out of memory", link->base.shown);
    int rc = uv_async_init(apm_links_loop(link->base.set), &link->async, on_async);
    if (rc < 0) {
        curl_multi_cleanup(link->multi);
        return apm_fail_sys(err, -rc, "cannot open \"%s\"", link->base.shown);
    }
    curl_multi_setopt(link->multi, CURLMOPT_SOCKETFUNCTION, want_socket);
    curl_multi_setopt(link->multi, CURLMOPT_SOCKETDATA, link);
    curl_multi_setopt(link->multi, CURLMOPT_TIMERFUNCTION, want_timer);
    curl_multi_setopt(link->multi, CURLMOPT_TIMERDATA, link);
    uv_timer_init(apm_links_loop(link->base.set), &link->timer);
    uv_timer_init(apm_links_loop(link->base.set), &link->retry);
    link->async.data = link->timer.data = link->retry.data = link;
    link->handles = 3;
    return APIUM_OK;
}

static void
on_timer_closed(uv_handle_t *handle)
{
    apm_http_handle_closed(handle->data);
}

void
apm_http_close_multi(http_link *link)
{
    apium_error err;
    (void)apm_fail(&err, APIUM_E_CLOSED, "cannot use %s: it was closed", link->base.shown);
    while (link->active) {
        http_ask *ask = link->active;
        apm_http_spare(link, ask);
        take_active(link, ask);
        answer(ask, 0, &err);
    }
    while (link->waiting) {
        http_ask *ask = link->waiting;
        take_waiting(link, ask);
        answer(ask, 0, &err);
    }
    while (link->n_spare)
        curl_easy_cleanup(link->spare[--link->n_spare]);
    curl_multi_cleanup(link->multi);
    uv_close((uv_handle_t *)&link->async, on_timer_closed);
    uv_close((uv_handle_t *)&link->timer, on_timer_closed);
    uv_close((uv_handle_t *)&link->retry, on_timer_closed);
}
