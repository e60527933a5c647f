/*
 * hub.c - many may listen to the changes of one task: a backend has one watcher an id. Who comes first makes it watch; who comes
 * later asks for the present document.
 */
#include "web/inner.h"

#include <stdlib.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "core/base/hash.h"

typedef struct apm_topic {
    apm_listener *listeners, *cursor; /* cursor: the next one to be told */
    bool telling;
    UT_hash_handle hh;
    size_t len;
    char id[];
} topic;

typedef struct apm_hub_ask {
    apm_web *web;
    apm_listener *listener; /* NULL: it has left */
} hub_ask;

struct apm_hub {
    topic *topics;
};

apium_status
apm_hub_open(apm_web *web, apium_error *err)
{
    web->hub = calloc(1, sizeof(*web->hub));
    return web->hub ? APIUM_OK : apm_fail(err, APIUM_E_NOMEM, "cannot start: out of memory");
}

static void
drop_topic(apm_web *web, topic *t)
{
    HASH_DEL(web->hub->topics, t);
    web->backend->ops->unwatch(web->backend, t->id);
    free(t);
}

static void
tell(apm_listener *listener, apm_str id, apm_str doc)
{
    uint64_t hash = apm_hash(doc);
    if (listener->last == hash)
        return; /* the present document came both ways */
    listener->last = hash;
    listener->on_change(listener->arg, id, doc);
}

static void
on_change(void *arg, apm_str id, apm_str doc)
{
    apm_web *web = arg;
    topic *t;
    HASH_FIND(hh, web->hub->topics, id.p, id.len, t);
    if (!t)
        return;
    t->telling = true;
    t->cursor = t->listeners;
    while (t->cursor) {
        apm_listener *listener = t->cursor;
        t->cursor = listener->next;
        tell(listener, (apm_str){ t->id, t->len }, doc);
    }
    t->telling = false;
    if (!t->listeners)
        drop_topic(web, t);
}

static void
on_present(void *arg, apm_str doc, const apium_error *err)
{
    hub_ask *ask = arg;
    apm_listener *listener = ask->listener;
    free(ask);
    if (!listener)
        return;
    listener->ask = NULL;
    /* What it was told meanwhile is newer. */
    if (!err && apm_str_is(doc) && !listener->last)
        tell(listener, (apm_str){ listener->topic->id, listener->topic->len }, doc);
}

static apium_status
no_memory(apium_error *err)
{
    return apm_fail(err, APIUM_E_NOMEM, "cannot wait for a task: out of memory");
}

static apium_status
open_topic(apm_web *web, apm_str id, topic **out, apium_error *err)
{
    topic *t = calloc(1, sizeof(*t) + id.len + 1);
    if (!t)
        return no_memory(err);
    memcpy(t->id, id.p, id.len);
    t->len = id.len;
    HASH_ADD_KEYPTR(hh, web->hub->topics, t->id, t->len, t);
    if (!t->hh.tbl) {
        free(t);
        return no_memory(err);
    }
    apium_status st = web->backend->ops->watch(web->backend, t->id, on_change, web, err);
    if (st != APIUM_OK) {
        HASH_DEL(web->hub->topics, t);
        free(t);
        return st;
    }
    *out = t;
    return APIUM_OK;
}

apium_status
apm_hub_listen(apm_web *web, apm_str id, apm_listener *listener, apium_error *err)
{
    topic *t;
    hub_ask *ask = NULL;
    HASH_FIND(hh, web->hub->topics, id.p, id.len, t);
    if (t && !(ask = calloc(1, sizeof(*ask))))
        return no_memory(err);
    if (!t) {
        apium_status st = open_topic(web, id, &t, err);
        if (st != APIUM_OK)
            return st;
    }
    listener->topic = t;
    listener->last = 0;
    listener->next = t->listeners;
    t->listeners = listener;
    listener->ask = ask;
    if (ask) {
        *ask = (hub_ask){ .web = web, .listener = listener };
        web->backend->ops->fetch(web->backend, t->id, on_present, ask);
    }
    return APIUM_OK;
}

void
apm_hub_leave(apm_web *web, apm_listener *listener)
{
    topic *t = listener->topic;
    if (!t)
        return;
    if (listener->ask)
        listener->ask->listener = NULL;
    listener->ask = NULL;
    listener->topic = NULL;
    if (t->cursor == listener)
        t->cursor = listener->next;
    for (apm_listener **at = &t->listeners; *at; at = &(*at)->next)
        if (*at == listener) {
            *at = listener->next;
            break;
        }
    if (!t->listeners && !t->telling)
        drop_topic(web, t);
}

void
apm_hub_close(apm_web *web)
{
    topic *t, *next;
    if (!web->hub)
        return;
    HASH_ITER(hh, web->hub->topics, t, next)
    {
        for (apm_listener *l = t->listeners; l; l = l->next) {
            if (l->ask)
                l->ask->listener = NULL;
            l->ask = NULL;
            l->topic = NULL;
        }
        drop_topic(web, t);
    }
    free(web->hub);
    web->hub = NULL;
}
