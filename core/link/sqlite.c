/*
 * sqlite.c - a link to one SQLite file, the loop's side: units on their way to the thread and
 * back, and listening to the files that other processes touch. See sqlite.h for the picture,
 * sqlite_store.c for the thread.
 */
#include "core/link/sqlite_store.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/error.h"

#define POLL_MS    20   /* where inotify is not to be had */
#define PARTING_MS 5000 /* for the thread to end when the link closes */

typedef struct topic {
    apm_sqlite_listener *listeners;
    uv_fs_event_t event;
    char *path;
    bool watching;
} topic;

typedef struct sqlite_link {
    apm_link base;
    char *path; /* absolute */
    store *store;
    units pending; /* committed, not handed over yet */
    uv_async_t async;
    uv_idle_t
        idle; /* active while something is pending: idle callbacks come before the loop sleeps */
    uv_timer_t poll, parting;
    topic topics[APM_SQLITE_TOPICS];
    int handles; /* still open */
    bool closing, sending;
} sqlite_link;

/* ---- Units ---- */

static apm_unit *
link_unit_new(apm_link *base)
{
    (void)base;
    unit *u = calloc(1, sizeof(*u));
    return u ? &u->base : NULL;
}

static void
unit_free(unit *u)
{
    for (apm_sqlite_op *op = u->first, *next; op; op = next) {
        next = op->next;
        if (op->release)
            op->release(op);
        else
            free(op);
    }
    free(u);
}

static void
link_unit_drop(apm_unit *base)
{
    unit_free((unit *)base);
}

void
apm_sqlite_add(apm_unit *base, apm_sqlite_op *op)
{
    unit *u = (unit *)base;

    op->next = NULL;
    if (u->last)
        u->last->next = op;
    else
        u->first = op;
    u->last = op;
}

void
apm_sqlite_read_only(apm_unit *base)
{
    ((unit *)base)->read_only = true;
}

static void
answer_unit(unit *u)
{
    const apium_error *err = u->status == APIUM_OK ? NULL : &u->err;

    for (apm_sqlite_op *op = u->first; op; op = op->next)
        if (op->finish)
            op->finish(op, u->status, err);
    if (u->base.done)
        u->base.done(u->base.arg, u->status, err);
    unit_free(u);
}

void
apm_sqlite_submit(apm_link *link, apm_sqlite_op *op, bool read_only)
{
    apm_unit *u = apm_unit_new(link);

    if (!u) {
        apium_error err;
        apm_fail(&err, APIUM_E_NOMEM, "cannot use \"%s\": out of memory", link->shown);
        if (op->finish)
            op->finish(op, APIUM_E_NOMEM, &err);
        if (op->release)
            op->release(op);
        else
            free(op);
        return;
    }
    apm_sqlite_add(u, op);
    ((unit *)u)->read_only = read_only;
    apm_unit_commit(u, NULL, NULL);
}

/* ---- Listening ---- */

static void
tell_listeners(sqlite_link *link, apm_sqlite_topic which)
{
    for (apm_sqlite_listener *at = link->topics[which].listeners, *next; at; at = next) {
        next = at->next;
        at->on_event(at->arg);
    }
}

static void on_poll(uv_timer_t *timer);

static void
on_touch(uv_fs_event_t *event, const char *name, int events, int status)
{
    sqlite_link *link = event->data;
    apm_sqlite_topic which =
        event == &link->topics[APM_SQLITE_WAKE].event ? APM_SQLITE_WAKE : APM_SQLITE_DONE;

    (void)name;
    if (status < 0 || events & UV_RENAME) {
        /* Deleted, perhaps made again: the watch is on the old one. The poll sets it up again. */
        uv_fs_event_stop(event);
        link->topics[which].watching = false;
        uv_timer_start(&link->poll, on_poll, POLL_MS, POLL_MS);
    }
    tell_listeners(link, which);
}

/* Watch what is listened to, and only that. False: some file cannot be watched. */
static bool
update_watches(sqlite_link *link)
{
    bool all = true;

    for (int i = 0; i <= APM_SQLITE_DONE; i++) {
        topic *t = &link->topics[i];
        if (!t->listeners && t->watching) {
            uv_fs_event_stop(&t->event);
            t->watching = false;
        } else if (t->listeners && !t->watching) {
            t->watching = uv_fs_event_start(&t->event, on_touch, t->path, 0) == 0;
            all = all && t->watching;
        }
    }
    return all;
}

static void
drop_watches(sqlite_link *link)
{
    for (int i = 0; i <= APM_SQLITE_DONE; i++) {
        uv_fs_event_stop(&link->topics[i].event);
        link->topics[i].watching = false;
    }
}

/* What cannot be watched is taken for touched all the time. */
static void
on_poll(uv_timer_t *timer)
{
    sqlite_link *link = timer->data;

    if (update_watches(link))
        uv_timer_stop(timer);
    for (int i = 0; i <= APM_SQLITE_DONE; i++)
        if (!link->topics[i].watching || !uv_is_active((uv_handle_t *)timer))
            tell_listeners(link, (apm_sqlite_topic)i);
}

void
apm_sqlite_listen(apm_link *base, apm_sqlite_topic which, apm_sqlite_listener *listener)
{
    sqlite_link *link = (sqlite_link *)base;

    listener->next = link->topics[which].listeners;
    link->topics[which].listeners = listener;
    if (which != APM_SQLITE_SEND && base->up && !link->closing && !update_watches(link))
        uv_timer_start(&link->poll, on_poll, POLL_MS, POLL_MS);
}

void
apm_sqlite_unlisten(apm_link *base, apm_sqlite_topic which, apm_sqlite_listener *listener)
{
    sqlite_link *link = (sqlite_link *)base;

    for (apm_sqlite_listener **at = &link->topics[which].listeners; *at; at = &(*at)->next) {
        if (*at == listener) {
            *at = listener->next;
            break;
        }
    }
    if (which != APM_SQLITE_SEND && !link->closing)
        (void)update_watches(link);
}

/* ---- To the thread and back ---- */

static void
hand_over(sqlite_link *link)
{
    if (link->sending)
        return;
    link->sending = true;
    tell_listeners(link, APM_SQLITE_SEND);
    link->sending = false;
    uv_idle_stop(&link->idle);
    if (link->pending.first)
        apm_sqlite_store_give(link->store, &link->pending);
}

static void
on_idle(uv_idle_t *idle)
{
    hand_over(idle->data);
}

static void
link_flush(apm_link *base)
{
    sqlite_link *link = (sqlite_link *)base;

    if (!link->closing && uv_is_active((uv_handle_t *)&link->idle))
        hand_over(link);
}

void
apm_sqlite_stir(apm_link *base)
{
    sqlite_link *link = (sqlite_link *)base;

    if (!link->closing && !link->sending)
        uv_idle_start(&link->idle, on_idle);
}

static void
link_commit(apm_unit *base)
{
    sqlite_link *link = (sqlite_link *)base->link;

    apm_sqlite_units_add(&link->pending, (unit *)base);
    apm_sqlite_stir(&link->base);
}

void
apm_sqlite_schema(apm_link *base, const char *sql)
{
    apm_sqlite_store_add_schema(((sqlite_link *)base)->store, sql);
}

static void part(sqlite_link *link);

static void
on_async(uv_async_t *async)
{
    sqlite_link *link = async->data;
    units answered;
    bool up, ended;
    char why[512];

    if (apm_sqlite_store_look(link->store, &answered, &up, why, &ended)) {
        drop_watches(link); /* there may be other files now */
        if (!up)
            uv_timer_stop(&link->poll);
        else if (!link->closing && !update_watches(link))
            uv_timer_start(&link->poll, on_poll, POLL_MS, POLL_MS);
        char line[sizeof(link->base.shown) + sizeof(why) + 16];
        if (up)
            snprintf(line, sizeof(line), "Connected to %s%s", link->base.shown, why);
        else
            snprintf(line, sizeof(line), "%c%s", toupper((unsigned char)why[0]), why + 1);
        apm_link_changed(&link->base, up, line);
    }
    for (unit *u; (u = apm_sqlite_units_take(&answered));)
        answer_unit(u);
    if (ended)
        part(link);
}

/* Called by the thread. */
static void
wake_loop(void *arg)
{
    uv_async_send(arg);
}

/* ---- Opening and closing ---- */

/* The file's absolute name, with the directory's links resolved where there is one. */
static char *
absolute_path(const char *path)
{
    char dir[PATH_MAX], real[PATH_MAX], *out;
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;

    if (slash)
        snprintf(dir, sizeof(dir), "%.*s", slash == path ? 1 : (int)(slash - path), path);
    else
        snprintf(dir, sizeof(dir), ".");
    if (!realpath(dir, real)) {
        if (*path == '/')
            return strdup(path);
        if (!getcwd(real, sizeof(real)))
            return NULL;
        name = path;
    }
    return asprintf(&out, "%s/%s", strcmp(real, "/") == 0 ? "" : real, name) < 0 ? NULL : out;
}

static bool
link_same(const apm_link *base, const apm_urls *urls)
{
    const sqlite_link *link = (const sqlite_link *)base;
    const char *path = urls->items[0].path;
    struct stat mine, theirs;

    if (link->closing || !path)
        return false;
    if (stat(link->path, &mine) == 0 && stat(path, &theirs) == 0)
        return mine.st_dev == theirs.st_dev && mine.st_ino == theirs.st_ino;
    char *absolute = absolute_path(path);
    bool same = absolute && strcmp(absolute, link->path) == 0;
    free(absolute);
    return same;
}

static apium_status
choose_synchronous(apm_link *link, const char **out, apium_error *err)
{
    static const char *const known[] = { "OFF", "NORMAL", "FULL", "EXTRA" };
    apm_settings *settings = apm_links_settings(link->set);
    const char *word = apm_url_param(&link->urls, &link->urls.items[0], "synchronous");

    if (!word && settings)
        word = settings->sqlite_synchronous;
    if (!word)
        word = "FULL";
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (strcasecmp(word, known[i]) == 0) {
            *out = known[i];
            return APIUM_OK;
        }
    }
    return apm_fail(err, APIUM_E_CONFIG,
                    "cannot open \"%s\": synchronous is \"%s\", not OFF, NORMAL, FULL or EXTRA",
                    link->shown, word);
}

static void
link_clear(sqlite_link *link)
{
    free(link->path);
    for (int i = 0; i < APM_SQLITE_TOPICS; i++)
        free(link->topics[i].path);
}

static apium_status
link_open(apm_link *base, apium_error *err)
{
    sqlite_link *link = (sqlite_link *)base;
    const apm_url *url = &base->urls.items[0];
    const char *synchronous = NULL;
    uv_loop_t *loop = apm_links_loop(base->set);

    if (base->urls.n > 1 || *url->host || url->port)
        return apm_fail(err, APIUM_E_CONFIG,
                        "cannot open \"%s\": a SQLite URL is sqlite:///relative/path or "
                        "sqlite:////absolute/path",
                        base->shown);
    if (!url->path || !*url->path || strcmp(url->path, ":memory:") == 0)
        return apm_fail(err, APIUM_E_CONFIG,
                        "cannot open \"%s\": no file is named; memory:// is for that", base->shown);
    apium_status st = choose_synchronous(base, &synchronous, err);
    if (st != APIUM_OK)
        return st;
    link->path = absolute_path(url->path);
    if (!link->path || asprintf(&link->topics[APM_SQLITE_WAKE].path, "%s-wake", link->path) < 0 ||
        asprintf(&link->topics[APM_SQLITE_DONE].path, "%s-done", link->path) < 0) {
        link_clear(link);
        return apm_fail(err, APIUM_E_NOMEM, "cannot open \"%s\": out of memory", base->shown);
    }
    link->store =
        apm_sqlite_store_start(link->path, synchronous, apm_links_patience_ms(base->set), err);
    if (!link->store) {
        link_clear(link);
        return APIUM_E_SYSTEM;
    }
    int rc = uv_async_init(loop, &link->async, on_async);
    if (rc < 0) {
        apm_sqlite_store_stop(link->store);
        apm_sqlite_store_free(link->store);
        link_clear(link);
        return apm_fail_sys(err, -rc, "cannot open \"%s\"", base->shown);
    }
    uv_idle_init(loop, &link->idle);
    uv_timer_init(loop, &link->poll);
    uv_timer_init(loop, &link->parting);
    uv_fs_event_init(loop, &link->topics[APM_SQLITE_WAKE].event);
    uv_fs_event_init(loop, &link->topics[APM_SQLITE_DONE].event);
    link->async.data = link->idle.data = link->poll.data = link->parting.data = link;
    link->topics[APM_SQLITE_WAKE].event.data = link->topics[APM_SQLITE_DONE].event.data = link;
    apm_sqlite_store_attach(link->store, wake_loop, &link->async);
    return APIUM_OK;
}

static void
on_closed(uv_handle_t *handle)
{
    sqlite_link *link = handle->data;

    if (--link->handles)
        return;
    apium_error err;
    apm_fail(&err, APIUM_E_CLOSED, "cannot use \"%s\": it was closed", link->base.shown);
    for (unit *u; (u = apm_sqlite_units_take(&link->pending));) {
        u->status = APIUM_E_CLOSED;
        u->err = err;
        answer_unit(u);
    }
    link_clear(link);
    apm_link_closed(&link->base);
}

static void
close_handles(sqlite_link *link)
{
    uv_handle_t *all[] = {
        (uv_handle_t *)&link->async,
        (uv_handle_t *)&link->idle,
        (uv_handle_t *)&link->poll,
        (uv_handle_t *)&link->parting,
        (uv_handle_t *)&link->topics[APM_SQLITE_WAKE].event,
        (uv_handle_t *)&link->topics[APM_SQLITE_DONE].event,
    };

    link->handles = sizeof(all) / sizeof(all[0]);
    for (int i = 0; i < link->handles; i++)
        uv_close(all[i], on_closed);
}

/* The thread has said its last. */
static void
part(sqlite_link *link)
{
    apm_sqlite_store_free(link->store);
    link->store = NULL;
    close_handles(link);
}

/* It hangs in the kernel, waiting for a process that was stopped while it wrote. The answers of
 * what it has are lost with it. */
static void
on_parting_late(uv_timer_t *timer)
{
    sqlite_link *link = timer->data;

    apm_sqlite_store_abandon(link->store);
    link->store = NULL;
    close_handles(link);
}

static void
link_close(apm_link *base)
{
    sqlite_link *link = (sqlite_link *)base;

    if (link->closing)
        return;
    if (link->pending.first)
        hand_over(link);
    link->closing = true;
    uv_idle_stop(&link->idle);
    uv_timer_stop(&link->poll);
    uv_timer_start(&link->parting, on_parting_late, PARTING_MS, 0);
    apm_sqlite_store_stop(link->store);
}

static const char *const schemes[] = { "sqlite", NULL };

const apm_link_ops apm_sqlite_kind = {
    .kind = "sqlite",
    .schemes = schemes,
    .size = sizeof(sqlite_link),
    .same = link_same,
    .open = link_open,
    .close = link_close,
    .unit_new = link_unit_new,
    .unit_drop = link_unit_drop,
    .commit = link_commit,
    .flush = link_flush,
};
