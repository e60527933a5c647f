/* listing.c - see listing.h: ids first, then their documents, a window of them at a time. */
#include "web/listing.h"

#include <stdlib.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "core/base/error.h"

#define WINDOW 128 /* documents asked for at once */

typedef struct item {
    struct listing *listing;
    apm_str id;
    UT_hash_handle hh;
} item;

typedef struct listing {
    apm_web *web;
    apm_listing how;
    apm_arena arena;
    item *ids, *next; /* a store may name one twice */
    size_t open;
    bool more;
    apium_error err;
} listing;

static void
finish(listing *l)
{
    HASH_CLEAR(hh, l->ids);
    l->how.on_end(l->how.arg, l->more, l->err.status == APIUM_OK ? NULL : &l->err);
    apm_arena_clear(&l->arena);
    free(l);
}

static void fetch_some(listing *l);

static void
on_doc(void *arg, apm_str doc, const apium_error *err)
{
    item *it = arg;
    listing *l = it->listing;
    if (err && l->err.status == APIUM_OK)
        l->err = *err;
    if (apm_str_is(doc))
        l->how.on_task(l->how.arg, it->id, doc);
    l->open--;
    fetch_some(l);
}

static void
fetch_some(listing *l)
{
    l->open++; /* one that is answered from inside the call does not end it */
    while (l->next && l->open <= WINDOW && l->err.status == APIUM_OK) {
        item *it = l->next;
        l->next = it->hh.next;
        l->open++;
        l->web->backend->ops->fetch(l->web->backend, it->id.p, on_doc, it);
    }
    if (--l->open == 0)
        finish(l);
}

static void
on_ids(void *arg, const apm_str *ids, size_t n, bool more, const apium_error *err)
{
    listing *l = arg;
    l->more = more;
    if (err)
        l->err = *err;
    for (size_t i = 0; i < n && !err; i++) {
        item *it = NULL;
        bool ok = true;
        if (!apm_web_id_ok(ids[i]))
            continue;
        HASH_FIND(hh, l->ids, ids[i].p, ids[i].len, it);
        if (it)
            continue;
        it = apm_arena_alloc(&l->arena, sizeof(*it));
        if (it) {
            it->listing = l;
            it->id = apm_arena_str(&l->arena, ids[i], &ok);
        }
        if (it && ok)
            HASH_ADD_KEYPTR(hh, l->ids, it->id.p, it->id.len, it);
        if (!it || !ok || !it->hh.tbl) {
            l->err.status = apm_fail(&l->err, APIUM_E_NOMEM, "cannot list tasks: out of memory");
            break;
        }
    }
    l->next = l->ids;
    fetch_some(l);
}

void
apm_listing_run(apm_web *web, const apm_listing *how)
{
    apium_error err;
    listing *l = NULL;
    if (!web->backend->ops->list)
        (void)apm_fail(&err, APIUM_E_UNSUPPORTED, "cannot list tasks: %s has no list of them",
                       web->backend->ops->name);
    else if (!(l = calloc(1, sizeof(*l))))
        (void)apm_fail(&err, APIUM_E_NOMEM, "cannot list tasks: out of memory");
    if (!l) {
        how->on_end(how->arg, false, &err);
        return;
    }
    *l = (listing){ .web = web, .how = *how };
    web->backend->ops->list(web->backend, APM_LISTING_MAX, on_ids, l);
}
