/* conn.c - see conn.h. */
#include "client/conn.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>
#include <uthash.h>

#include "client/app.h"
#include "core/base/clock.h"
#include "core/model/result.h"

#define CLOSING_MS 5000 /* how long links may take to close before their loop is left behind */

/* The waiters of one id. */
typedef struct watched {
    char *id;
    apm_waiter *waiters;
    UT_hash_handle hh;
} watched;

struct apm_conn {
    apium_app *app;
    pthread_t thread;
    uv_loop_t loop;
    uv_timer_t timer; /* the deadline of the present wait */
    int handles;      /* of ours that are not closed yet */
    bool expired;
    apm_links *links;
    apm_broker *broker;
    apm_backend *backend;
    apm_link_watch backend_watch;
    int64_t down_since_ms; /* the backend's link; 0 while it is up */
    char down_why[256];
    bool waits; /* somebody has waited for a result here */
    watched *watches;
    apm_conn *next;
};

struct apm_conns {
    apium_app *app;
    pid_t pid;
    pthread_mutex_t lock;
    apm_conn *first;
};

/* --- one conn --- */

/*
 * How long a client tries to reach a server: one attempt to connect for each retry of the
 * publishing policy would be Celery's reading, but minutes for a host that does not answer; ours is
 * one attempt and all the pauses.
 */
static int64_t
patience_ms(const apm_settings *settings)
{
    double s = settings->broker_connection_timeout > 0 ? settings->broker_connection_timeout : 4;
    if (settings->task_publish_retry) {
        double pause = settings->publish_interval_start;
        int64_t retries =
            settings->publish_max_retries < 1000 ? settings->publish_max_retries : 1000;
        for (int64_t i = 0; i < retries; i++) {
            s += pause < settings->publish_interval_max ? pause : settings->publish_interval_max;
            pause += settings->publish_interval_step;
        }
    }
    return s > 3600 ? 3600000 : (int64_t)(s * 1000);
}

static void
on_timer(uv_timer_t *timer)
{
    ((apm_conn *)timer->data)->expired = true;
}

static apium_status
conn_new(apium_app *app, apm_conn **out, apium_error *err)
{
    apm_conn *conn = calloc(1, sizeof(*conn));
    if (!conn)
        return apm_fail(err, APIUM_E_NOMEM, "cannot open a connection: out of memory");
    conn->app = app;
    conn->thread = pthread_self();
    int uv = uv_loop_init(&conn->loop);
    if (uv != 0) {
        free(conn);
        return apm_fail_sys(err, -uv, "cannot make a loop");
    }
    uv_timer_init(&conn->loop, &conn->timer);
    conn->timer.data = conn;
    conn->handles = 1;
    apm_settings *settings = apm_app_settings(app);
    conn->links = apm_links_new(&conn->loop, settings, patience_ms(settings));
    if (!conn->links) {
        uv_close((uv_handle_t *)&conn->timer, NULL);
        uv_run(&conn->loop, UV_RUN_DEFAULT);
        uv_loop_close(&conn->loop);
        free(conn);
        return apm_fail(err, APIUM_E_NOMEM, "cannot open a connection: out of memory");
    }
    *out = conn;
    return APIUM_OK;
}

/*
 * A server that went away must not kill a program with SIGPIPE, and how the program handles that
 * signal is its own business: the signal is blocked in this thread while the loop turns, and what
 * came meanwhile is taken away.
 */
static bool
hold_sigpipe(sigset_t *before)
{
    sigset_t pipe;
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    return pthread_sigmask(SIG_BLOCK, &pipe, before) == 0 && !sigismember(before, SIGPIPE);
}

static void
release_sigpipe(const sigset_t *before)
{
    sigset_t pipe;
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    while (sigtimedwait(&pipe, NULL, &(struct timespec){ 0 }) == SIGPIPE)
        ;
    pthread_sigmask(SIG_SETMASK, before, NULL);
}

static void
on_closed(uv_handle_t *handle)
{
    ((apm_conn *)handle->data)->handles--;
}

static void
conn_free(apm_conn *conn)
{
    watched *w, *next;
    sigset_t before;
    bool held = hold_sigpipe(&before);
    HASH_ITER(hh, conn->watches, w, next)
    {
        HASH_DEL(conn->watches, w);
        if (conn->backend)
            conn->backend->ops->unwatch(conn->backend, w->id);
        free(w->id);
        free(w);
    }
    if (conn->backend && conn->backend->link)
        apm_link_watch_remove(conn->backend->link, &conn->backend_watch);
    apm_broker_close(conn->broker);
    apm_backend_close(conn->backend);
    apm_links_free(conn->links);

    /* Links say goodbye on the loop. The timer bounds that, and does not keep the loop alive by
     * itself. */
    uv_update_time(&conn->loop);
    conn->expired = false;
    uv_timer_start(&conn->timer, on_timer, CLOSING_MS, 0);
    uv_unref((uv_handle_t *)&conn->timer);
    while (!conn->expired && uv_run(&conn->loop, UV_RUN_ONCE) != 0)
        ;
    bool clean = !conn->expired;
    uv_close((uv_handle_t *)&conn->timer, on_closed);
    while (conn->handles > 0)
        uv_run(&conn->loop, UV_RUN_NOWAIT);
    if (clean && uv_loop_close(&conn->loop) == 0)
        free(conn); /* otherwise a handle still points into it */
    if (held)
        release_sigpipe(&before);
}

apium_app *
apm_conn_app(const apm_conn *conn)
{
    return conn->app;
}

uv_loop_t *
apm_conn_loop(apm_conn *conn)
{
    return &conn->loop;
}

apm_links *
apm_conn_links(apm_conn *conn)
{
    return conn->links;
}

int64_t
apm_conn_patience_ms(const apm_conn *conn)
{
    return apm_links_patience_ms(conn->links);
}

apium_status
apm_conn_broker(apm_conn *conn, apm_broker **out, apium_error *err)
{
    if (!conn->broker) {
        apm_settings *settings = apm_app_settings(conn->app);
        const char *url =
            settings->broker_write_url ? settings->broker_write_url : settings->broker_url;
        if (!url || !*url)
            return apm_fail(err, APIUM_E_CONFIG, "no broker is configured (broker_url)");
        const apm_broker_opts opts = { .settings = settings, .node = apm_app_name(conn->app) };
        apium_status st = apm_broker_open(conn->links, url, &opts, &conn->broker, err);
        if (st != APIUM_OK)
            return st;
    }
    *out = conn->broker;
    return APIUM_OK;
}

static void
on_backend_event(void *arg, apm_link *link, bool up, const char *why)
{
    apm_conn *conn = arg;
    (void)link;
    if (up)
        conn->down_since_ms = 0;
    else if (!conn->down_since_ms)
        conn->down_since_ms = apm_clock_ms();
    if (!up && why) { /* what is to come next is for logs: for us it ends here */
        const char *next = strstr(why, ". Trying again");
        snprintf(conn->down_why, sizeof(conn->down_why), "%.*s",
                 next ? (int)(next - why) : (int)strlen(why), why);
    }
}

apium_status
apm_conn_backend(apm_conn *conn, apm_backend **out, apium_error *err)
{
    if (!conn->backend) {
        apm_settings *settings = apm_app_settings(conn->app);
        apium_status st = apm_backend_open(conn->links, settings->result_backend,
                                           settings->broker_url, &conn->backend, err);
        if (st != APIUM_OK)
            return st;
        if (conn->backend->link) {
            conn->backend_watch = (apm_link_watch){ .on_event = on_backend_event, .arg = conn };
            apm_link_watch_add(conn->backend->link, &conn->backend_watch);
            conn->down_since_ms = conn->backend->link->up ? 0 : apm_clock_ms();
        }
    }
    *out = conn->backend;
    return APIUM_OK;
}

apium_status
apm_conn_backend_known(apm_conn *conn, apm_backend **out, apium_error *err)
{
    apium_status st = apm_conn_backend(conn, out, err);
    if (st != APIUM_OK || !apm_backend_can(*out, APM_BACKEND_UNKNOWN))
        return st;
    bool up = apm_conn_turn(conn, &(*out)->link->up, apm_conn_patience_ms(conn));
    if (up && !apm_backend_can(*out, APM_BACKEND_UNKNOWN))
        return APIUM_OK;
    return apm_fail(err, APIUM_E_CLOSED, "cannot reach the result backend: %s",
                    *conn->down_why ? conn->down_why : "no answer");
}

int64_t
apm_conn_backend_down_ms(const apm_conn *conn, const char **why)
{
    *why = conn->down_why;
    return conn->down_since_ms ? apm_clock_ms() - conn->down_since_ms : 0;
}

void
apm_conn_waits(apm_conn *conn)
{
    conn->waits = true;
}

bool
apm_conn_watches(const apm_conn *conn)
{
    return conn->waits && conn->backend && conn->backend->ops->watch_sent;
}

bool
apm_conn_turn(apm_conn *conn, const bool *done, int64_t timeout_ms)
{
    sigset_t before;
    bool held = hold_sigpipe(&before);

    conn->expired = false;
    uv_update_time(&conn->loop);
    if (timeout_ms > 0)
        uv_timer_start(&conn->timer, on_timer, (uint64_t)timeout_ms, 0);
    for (;;) {
        apm_links_flush(conn->links);
        if (*done || conn->expired)
            break;
        uv_run(&conn->loop, timeout_ms == 0 ? UV_RUN_NOWAIT : UV_RUN_ONCE);
        if (timeout_ms == 0)
            break;
    }
    uv_timer_stop(&conn->timer);
    if (held)
        release_sigpipe(&before);
    return *done;
}

/* --- answers --- */

apm_answer *
apm_answer_new(void)
{
    return calloc(1, sizeof(apm_answer));
}

void
apm_answer_free(apm_answer *answer)
{
    if (!answer)
        return;
    free(answer->doc);
    free(answer);
}

void
apm_answer_done(void *arg, apium_status status, const apium_error *err)
{
    apm_answer *answer = arg;
    if (answer->abandoned) {
        apm_answer_free(answer);
        return;
    }
    answer->done = true;
    answer->status = status;
    if (status != APIUM_OK && err)
        answer->err = *err;
    else if (status != APIUM_OK)
        apm_fail(&answer->err, status, "%s", apium_status_text(status));
}

void
apm_answer_doc(void *arg, apm_str doc, const apium_error *err)
{
    apm_answer *answer = arg;
    apium_status status = err ? err->status : APIUM_OK;
    if (!answer->abandoned && !err && apm_str_is(doc)) {
        answer->doc = malloc(doc.len + 1);
        if (answer->doc) {
            memcpy(answer->doc, doc.p, doc.len);
            answer->doc[doc.len] = '\0';
            answer->doc_len = doc.len;
        } else {
            status = APIUM_E_NOMEM;
        }
    }
    apm_answer_done(answer, status, err);
}

apium_status
apm_answer_wait(apm_conn *conn, apm_answer **answer, apium_error *err)
{
    apm_answer *a = *answer;
    if (!apm_conn_turn(conn, &a->done, 2 * apm_conn_patience_ms(conn))) {
        a->abandoned = true;
        *answer = NULL;
        return apm_fail(err, APIUM_E_TIMEOUT, "no answer within %lld ms",
                        (long long)(2 * apm_conn_patience_ms(conn)));
    }
    if (a->status != APIUM_OK && err)
        *err = a->err;
    return a->status;
}

/* --- waiters --- */

void
apm_waiter_set(apm_waiter *waiter, apm_str doc)
{
    char *copy = malloc(doc.len + 1);
    if (!copy)
        return;
    memcpy(copy, doc.p, doc.len);
    copy[doc.len] = '\0';
    free(waiter->doc);
    waiter->doc = copy;
    waiter->doc_len = doc.len;
    apm_json parsed, status = { 0 };
    bool was = waiter->ready;
    if (apm_json_parse(doc, &parsed, NULL) == APIUM_OK)
        status = apm_json_get(parsed, "status");
    /* A document that cannot be read ends the wait too: reading it will say what is wrong. */
    waiter->ready = status.type != APM_JSON_STRING ||
                    apm_state_ready((apm_str){ status.text.p + 1, status.text.len - 2 });
    apm_gather *gather = waiter->gather;
    if (!gather || was || !waiter->ready)
        return;
    waiter->next_ready = NULL;
    if (gather->any)
        gather->last->next_ready = waiter;
    else
        gather->first = waiter;
    gather->last = waiter;
    gather->any = true;
}

static void
on_change(void *arg, apm_str task_id, apm_str doc)
{
    apm_conn *conn = arg;
    watched *w;
    HASH_FIND(hh, conn->watches, task_id.p, task_id.len, w);
    for (apm_waiter *waiter = w ? w->waiters : NULL; waiter; waiter = waiter->next)
        apm_waiter_set(waiter, doc);
}

apium_status
apm_conn_watch(apm_conn *conn, const char *task_id, bool unsent, apm_waiter *waiter,
               apium_error *err)
{
    const apm_backend_ops *ops = conn->backend->ops;
    watched *w;
    HASH_FIND_STR(conn->watches, task_id, w);
    if (!w) {
        w = calloc(1, sizeof(*w));
        if (w)
            w->id = strdup(task_id);
        if (!w || !w->id) {
            free(w);
            return apm_fail(err, APIUM_E_NOMEM, "out of memory");
        }
        apium_status st =
            (unsent ? ops->watch_sent : ops->watch)(conn->backend, task_id, on_change, conn, err);
        if (st != APIUM_OK) {
            free(w->id);
            free(w);
            return st;
        }
        HASH_ADD_KEYPTR(hh, conn->watches, w->id, strlen(w->id), w);
    } else if (w->waiters->doc) {
        apm_waiter_set(waiter, (apm_str){ w->waiters->doc, w->waiters->doc_len });
    }
    waiter->next = w->waiters;
    w->waiters = waiter;
    return APIUM_OK;
}

void
apm_conn_unwatch(apm_conn *conn, const char *task_id, apm_waiter *waiter)
{
    watched *w;
    HASH_FIND_STR(conn->watches, task_id, w);
    if (!w)
        return;
    for (apm_waiter **at = &w->waiters; *at; at = &(*at)->next)
        if (*at == waiter) {
            *at = waiter->next;
            break;
        }
    if (w->waiters)
        return;
    HASH_DEL(conn->watches, w);
    conn->backend->ops->unwatch(conn->backend, w->id);
    free(w->id);
    free(w);
}

/* --- an app's --- */

apium_status
apm_conns_new(apium_app *app, apm_conns **out, apium_error *err)
{
    apm_conns *conns = calloc(1, sizeof(*conns));
    if (!conns)
        return apm_fail(err, APIUM_E_NOMEM, "cannot make an app: out of memory");
    conns->app = app;
    conns->pid = getpid();
    pthread_mutex_init(&conns->lock, NULL);
    *out = conns;
    return APIUM_OK;
}

void
apm_conns_free(apm_conns *conns)
{
    if (!conns)
        return;
    if (conns->pid != getpid())
        conns->first = NULL;
    while (conns->first) {
        apm_conn *conn = conns->first;
        conns->first = conn->next;
        conn_free(conn);
    }
    pthread_mutex_destroy(&conns->lock);
    free(conns);
}

void
apm_conns_forked(apm_conns *conns)
{
    /* Their sockets and threads are the parent's: closing them here would say goodbye in its name.
     * The memory is left behind, like everything else of the parent's that a forked process has no
     * use for. */
    pthread_mutex_init(&conns->lock, NULL);
    conns->first = NULL;
    conns->pid = getpid();
}

apium_status
apm_conn_get(apium_app *app, apm_conn **out, apium_error *err)
{
    apm_conns *conns = apm_app_conns(app);
    if (conns->pid != getpid())
        apm_app_forked(app);
    pthread_mutex_lock(&conns->lock);
    apm_conn *conn = conns->first;
    while (conn && !pthread_equal(conn->thread, pthread_self()))
        conn = conn->next;
    pthread_mutex_unlock(&conns->lock);
    if (!conn) {
        apium_status st = conn_new(app, &conn, err);
        if (st != APIUM_OK)
            return st;
        pthread_mutex_lock(&conns->lock);
        conn->next = conns->first;
        conns->first = conn;
        pthread_mutex_unlock(&conns->lock);
    }
    *out = conn;
    return APIUM_OK;
}

void
apm_conn_end(apium_app *app)
{
    apm_conns *conns = apm_app_conns(app);
    apm_conn *conn = NULL;
    if (conns->pid != getpid())
        return;
    pthread_mutex_lock(&conns->lock);
    for (apm_conn **at = &conns->first; *at; at = &(*at)->next)
        if (pthread_equal((*at)->thread, pthread_self())) {
            conn = *at;
            *at = conn->next;
            break;
        }
    pthread_mutex_unlock(&conns->lock);
    if (conn)
        conn_free(conn);
}
