/* memory.c - links to stores in this process's memory; see memory.h. */
#include "core/link/memory.h"

#include <stdio.h>
#include <stdlib.h>

#include "core/base/error.h"

typedef struct unit {
    apm_unit base;
    apm_memory_op *first, *last;
    apium_status status;
    apium_error err;
    struct unit *next;
} unit;

typedef struct apm_memory_link {
    apm_link base;
    apm_memory_store *store;
    unsigned touched; /* guarded by the store's mutex, as is the list of links */
    struct apm_memory_link *neighbour;
    uv_async_t async;
    uv_idle_t idle;
    apm_memory_listener *listeners[APM_MEMORY_TOPICS];
    unit *answered, *last_answered; /* committed: their fates are to be told */
    int handles;
    bool announced, closing;
} memory_link;

/* The stores of this process; they are never released. */
static apm_memory_store *stores;
static pthread_mutex_t stores_mutex = PTHREAD_MUTEX_INITIALIZER;

static apm_memory_store *
find_store(const char *name)
{
    pthread_mutex_lock(&stores_mutex);
    apm_memory_store *store = stores;
    while (store && strcmp(store->name, name) != 0)
        store = store->next;
    if (!store && (store = calloc(1, sizeof(*store)))) {
        if ((store->name = strdup(name))) {
            pthread_mutex_init(&store->mutex, NULL);
            store->next = stores;
            stores = store;
        } else {
            free(store);
            store = NULL;
        }
    }
    pthread_mutex_unlock(&stores_mutex);
    return store;
}

apm_memory_store *
apm_memory_store_of(apm_link *link)
{
    return ((memory_link *)link)->store;
}

/* ---- Units ---- */

static apm_unit *
link_unit_new(apm_link *base)
{
    (void)base;
    unit *u = calloc(1, sizeof(*u));
    return u ? &u->base : NULL;
}

static void
link_unit_drop(apm_unit *base)
{
    unit *u = (unit *)base;

    for (apm_memory_op *op = u->first, *next; op; op = next) {
        next = op->next;
        if (op->release)
            op->release(op);
        else
            free(op);
    }
    free(u);
}

void
apm_memory_add(apm_unit *base, apm_memory_op *op)
{
    unit *u = (unit *)base;

    op->next = NULL;
    if (u->last)
        u->last->next = op;
    else
        u->first = op;
    u->last = op;
}

static void on_idle(uv_idle_t *idle);

void
apm_memory_stir(apm_link *base)
{
    memory_link *link = (memory_link *)base;

    if (!link->closing)
        uv_idle_start(&link->idle, on_idle);
}

static void
link_commit(apm_unit *base)
{
    memory_link *link = (memory_link *)base->link;
    unit *u = (unit *)base;

    u->status = APIUM_OK;
    if (link->closing) {
        u->status =
            apm_fail(&u->err, APIUM_E_CLOSED, "cannot use \"%s\": it was closed", link->base.shown);
    } else {
        pthread_mutex_lock(&link->store->mutex);
        for (apm_memory_op *op = u->first; op && u->status == APIUM_OK; op = op->next)
            if (op->check)
                u->status = op->check(link->store, op, &u->err);
        for (apm_memory_op *op = u->first; op && u->status == APIUM_OK; op = op->next)
            op->apply(link->store, op);
        pthread_mutex_unlock(&link->store->mutex);
    }
    u->next = NULL;
    if (link->last_answered)
        link->last_answered->next = u;
    else
        link->answered = u;
    link->last_answered = u;
    apm_memory_stir(&link->base);
}

static void
answer_all(memory_link *link)
{
    while (link->answered) {
        unit *u = link->answered;
        link->answered = u->next;
        if (!link->answered)
            link->last_answered = NULL;
        if (u->base.done)
            u->base.done(u->base.arg, u->status, u->status == APIUM_OK ? NULL : &u->err);
        link_unit_drop(&u->base);
    }
}

/* ---- Listening ---- */

static void
tell_listeners(memory_link *link, apm_memory_topic topic)
{
    for (apm_memory_listener *at = link->listeners[topic], *next; at; at = next) {
        next = at->next;
        at->on_event(at->arg);
    }
}

static void
on_idle(uv_idle_t *idle)
{
    memory_link *link = idle->data;

    uv_idle_stop(idle); /* what happens below may start it again */
    answer_all(link);
    tell_listeners(link, APM_MEMORY_SEND);
}

static void
on_async(uv_async_t *async)
{
    memory_link *link = async->data;

    if (link->closing)
        return;
    if (!link->announced) {
        link->announced = true;
        char line[sizeof(link->base.shown) + 16];
        snprintf(line, sizeof(line), "Connected to %s", link->base.shown);
        apm_link_changed(&link->base, true, line);
    }
    pthread_mutex_lock(&link->store->mutex);
    unsigned touched = link->touched;
    link->touched = 0;
    pthread_mutex_unlock(&link->store->mutex);
    for (int i = 0; i < APM_MEMORY_SEND; i++)
        if (touched & (1u << i))
            tell_listeners(link, (apm_memory_topic)i);
}

void
apm_memory_touch(apm_memory_store *store, apm_memory_topic topic)
{
    for (memory_link *link = store->links; link; link = link->neighbour) {
        link->touched |= 1u << topic;
        uv_async_send(&link->async);
    }
}

void
apm_memory_listen(apm_link *base, apm_memory_topic topic, apm_memory_listener *listener)
{
    memory_link *link = (memory_link *)base;

    listener->next = link->listeners[topic];
    link->listeners[topic] = listener;
}

void
apm_memory_unlisten(apm_link *base, apm_memory_topic topic, apm_memory_listener *listener)
{
    memory_link *link = (memory_link *)base;

    for (apm_memory_listener **at = &link->listeners[topic]; *at; at = &(*at)->next) {
        if (*at == listener) {
            *at = listener->next;
            return;
        }
    }
}

/* ---- Opening and closing ---- */

/* "memory://name", and "memory://" for the one without a name; a path is part of the name. */
static void
store_name(const apm_url *url, char *out, size_t size)
{
    snprintf(out, size, "%s%s%s", url->host, url->path && *url->path ? "/" : "",
             url->path ? url->path : "");
}

static bool
link_same(const apm_link *base, const apm_urls *urls)
{
    const memory_link *link = (const memory_link *)base;
    char name[256];

    store_name(&urls->items[0], name, sizeof(name));
    return !link->closing && strcmp(name, link->store->name) == 0;
}

static apium_status
link_open(apm_link *base, apium_error *err)
{
    memory_link *link = (memory_link *)base;
    char name[256];

    store_name(&base->urls.items[0], name, sizeof(name));
    link->store = find_store(name);
    if (!link->store)
        return apm_fail(err, APIUM_E_NOMEM, "cannot open \"%s\": out of memory", base->shown);
    int rc = uv_async_init(apm_links_loop(base->set), &link->async, on_async);
    if (rc < 0)
        return apm_fail_sys(err, -rc, "cannot open \"%s\"", base->shown);
    uv_idle_init(apm_links_loop(base->set), &link->idle);
    link->async.data = link->idle.data = link;
    pthread_mutex_lock(&link->store->mutex);
    link->neighbour = link->store->links;
    link->store->links = link;
    uv_async_send(&link->async); /* says "up" */
    pthread_mutex_unlock(&link->store->mutex);
    return APIUM_OK;
}

static void
on_closed(uv_handle_t *handle)
{
    memory_link *link = handle->data;

    if (--link->handles)
        return;
    answer_all(link);
    apm_link_closed(&link->base);
}

static void
link_close(apm_link *base)
{
    memory_link *link = (memory_link *)base;

    if (link->closing)
        return;
    link->closing = true;
    pthread_mutex_lock(&link->store->mutex);
    for (memory_link **at = &link->store->links; *at; at = &(*at)->neighbour) {
        if (*at == link) {
            *at = link->neighbour;
            break;
        }
    }
    pthread_mutex_unlock(&link->store->mutex);
    link->handles = 2;
    uv_close((uv_handle_t *)&link->async, on_closed);
    uv_close((uv_handle_t *)&link->idle, on_closed);
}

static const char *const schemes[] = { "memory", NULL };

const apm_link_ops apm_memory_kind = {
    .kind = "memory",
    .schemes = schemes,
    .size = sizeof(memory_link),
    .same = link_same,
    .open = link_open,
    .close = link_close,
    .unit_new = link_unit_new,
    .unit_drop = link_unit_drop,
    .commit = link_commit,
};
