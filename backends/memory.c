/* memory.c - the result backend for memory://name: documents in a table of this process, shared by
 * all its loops. */
#include <stdlib.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "backends/groups.h"
#include "backends/memory_chords.h"
#include "core/base/clock.h"
#include "core/base/error.h"

#define CLEAN_EVERY_MS 60000

typedef struct result {
    char *task_id;
    bool success;
    int64_t expires_us; /* 0 never */
    apm_str doc;        /* allocated */
    UT_hash_handle hh;
} result;

/* A document on its way to a watcher. */
typedef struct news {
    struct news *next;
    apm_str doc;
    char *task_id;
} news;

typedef struct watched {
    char *task_id;
    apm_change_cb *on_change;
    void *arg;
    UT_hash_handle hh;
} watched;

/* Outlives a backend that is closed by one of its own callbacks. */
typedef struct life {
    bool calling, closed;
} life;

typedef struct memory_backend {
    apm_backend base;
    apm_memory_listener on_done;
    struct one_op *asked; /* fetches and forgets under way */
    apm_page *pages;      /* of parts, under way */
    /* Guarded by the store's mutex: others add news and look up what is watched. */
    watched *watched;
    news *first, *last;
    struct life *life;
    struct memory_backend *neighbour;
} memory_backend;

/* The store's part of it. */
typedef struct results {
    result *table;
    memory_backend *backends;
    int64_t cleaned_ms;
} results;

static apm_memory_store *
store_of(const memory_backend *b)
{
    return apm_memory_store_of(b->base.link);
}

static void
result_free(results *all, result *r)
{
    HASH_DEL(all->table, r);
    free((char *)(uintptr_t)r->doc.p);
    free(r->task_id);
    free(r);
}

static bool
is_expired(const result *r)
{
    return r->expires_us && r->expires_us <= apm_clock_wall_us();
}

static void
delete_expired(results *all)
{
    for (result *r = all->table, *next; r; r = next) {
        next = r->hh.next;
        if (is_expired(r))
            result_free(all, r);
    }
}

/* The unexpired result of a task, or NULL. */
static result *
find_result(results *all, const char *task_id, size_t len)
{
    result *r;

    HASH_FIND(hh, all->table, task_id, len, r);
    return r && !is_expired(r) ? r : NULL;
}

apm_str
apm_memory_doc(apm_memory_store *store, const char *task_id)
{
    result *r = find_result(store->results, task_id, strlen(task_id));
    return r ? r->doc : APM_STR_NONE;
}

/* Queue a document for one watcher; without memory it is not told, and its own fetch finds the
 * document. */
static void
add_news(memory_backend *b, apm_str task_id, apm_str doc)
{
    news *n = malloc(sizeof(*n) + task_id.len + doc.len + 2);

    if (!n)
        return;
    char *text = (char *)(n + 1);
    memcpy(text, doc.p, doc.len);
    text[doc.len] = '\0';
    n->doc = (apm_str){ text, doc.len };
    n->task_id = text + doc.len + 1;
    memcpy(n->task_id, task_id.p, task_id.len);
    n->task_id[task_id.len] = '\0';
    n->next = NULL;
    if (b->last)
        b->last->next = n;
    else
        b->first = n;
    b->last = n;
}

/* ---- Storing ---- */

typedef struct record_op {
    apm_memory_op op;
    result *fresh; /* taken over by apply */
} record_op;

static void
apply_record(apm_memory_store *store, apm_memory_op *base)
{
    record_op *op = (record_op *)base;
    results *all = store->results;
    result *fresh = op->fresh, *old;
    size_t len = strlen(fresh->task_id);
    int64_t now_ms = apm_clock_ms();

    HASH_FIND(hh, all->table, fresh->task_id, len, old);
    if (old && old->success && !is_expired(old))
        return;
    if (old)
        result_free(all, old);
    HASH_ADD_KEYPTR(hh, all->table, fresh->task_id, len, fresh);
    if (!fresh->hh.tbl)
        return; /* no memory for the table: as if it had expired at once */
    op->fresh = NULL;
    for (memory_backend *b = all->backends; b; b = b->neighbour) {
        watched *w;
        HASH_FIND(hh, b->watched, fresh->task_id, len, w);
        if (w)
            add_news(b, apm_strz(fresh->task_id), fresh->doc);
    }
    apm_memory_touch(store, APM_MEMORY_DONE);
    if (now_ms - all->cleaned_ms >= CLEAN_EVERY_MS) {
        all->cleaned_ms = now_ms;
        delete_expired(all);
        apm_memory_chords_clean(store);
    }
}

static void
release_record(apm_memory_op *base)
{
    record_op *op = (record_op *)base;

    if (op->fresh) {
        free((char *)(uintptr_t)op->fresh->doc.p);
        free(op->fresh->task_id);
        free(op->fresh);
    }
    free(op);
}

static apium_status
backend_record(apm_backend *base, apm_unit *unit, const apm_record *record, apium_error *err)
{
    record_op *op = calloc(1, sizeof(*op));
    double keep_s = base->settings ? base->settings->result_expires : 0;
    bool ok = op && (op->fresh = calloc(1, sizeof(*op->fresh)));

    if (ok) {
        op->op = (apm_memory_op){ .apply = apply_record, .release = release_record };
        char *doc = malloc(record->doc.len + 1);
        op->fresh->task_id = strndup(record->task_id.p, record->task_id.len);
        ok = doc && op->fresh->task_id;
        if (doc) {
            memcpy(doc, record->doc.p, record->doc.len);
            op->fresh->doc = (apm_str){ doc, record->doc.len };
        }
        op->fresh->success = apm_str_eqz(record->state, APM_STATE_SUCCESS);
        op->fresh->expires_us = keep_s > 0 ? apm_clock_wall_us() + (int64_t)(keep_s * 1e6) : 0;
    }
    if (!ok) {
        if (op)
            release_record(&op->op);
        return apm_fail(err, APIUM_E_NOMEM, "cannot store the result of %.*s: out of memory",
                        APM_STR_ARG(record->task_id));
    }
    apm_memory_add(unit, &op->op);
    return APIUM_OK;
}

/* ---- Fetching and forgetting: units of one operation, answered with the unit ---- */

typedef struct one_op {
    apm_memory_op op;
    memory_backend *owner; /* NULL once it is closed */
    struct one_op *prev, *next;
    apm_fetch_cb *fetched;
    apm_backend_done *done;
    void *arg;
    char *doc;
    size_t len;
    enum { FETCH, FORGET, CLEANUP, LIST } what;
    /* LIST */
    apm_ids_cb *listed;
    apm_arena arena;
    apm_str *ids;
    size_t n, max;
    bool more, failed;
    char task_id[];
} one_op;

/* The table has them in the order of their storing. */
static void
list_results(const results *all, one_op *op)
{
    const result *r =
        all->table ? ELMT_FROM_HH(all->table->hh.tbl, all->table->hh.tbl->tail) : NULL;
    bool ok = true;

    op->ids = apm_arena_alloc(&op->arena, (op->max + 1) * sizeof(*op->ids));
    for (; r && op->ids && ok; r = r->hh.prev) {
        if (is_expired(r) || strncmp(r->task_id, "group/", 6) == 0 ||
            strncmp(r->task_id, "apium-once/", 11) == 0)
            continue;
        if ((op->more = op->n == op->max))
            break;
        op->ids[op->n++] = apm_arena_str(&op->arena, apm_strz(r->task_id), &ok);
    }
    op->failed = !op->ids || !ok;
}

static void
apply_one(apm_memory_store *store, apm_memory_op *base)
{
    one_op *op = (one_op *)base;
    results *all = store->results;

    if (op->what == CLEANUP) {
        delete_expired(all);
        apm_memory_chords_clean(store);
        return;
    }
    if (op->what == LIST) {
        list_results(all, op);
        return;
    }
    result *r = find_result(all, op->task_id, strlen(op->task_id));
    if (!r)
        return;
    if (op->what == FORGET) {
        result_free(all, r);
    } else if ((op->doc = malloc(r->doc.len + 1))) {
        memcpy(op->doc, r->doc.p, r->doc.len);
        op->doc[r->doc.len] = '\0';
        op->len = r->doc.len;
    }
}

static void
release_one(apm_memory_op *base)
{
    one_op *op = (one_op *)base;

    apm_arena_clear(&op->arena);
    free(op->doc);
    free(op);
}

static void
tell_ids(const one_op *op, const apium_error *err)
{
    apium_error failed;

    if (!err && op->failed) {
        (void)apm_fail(&failed, APIUM_E_NOMEM, "cannot list results: out of memory");
        err = &failed;
    }
    op->listed(op->arg, op->ids, err ? 0 : op->n, op->more, err);
}

static void
one_answered(void *arg, apium_status status, const apium_error *err)
{
    one_op *op = arg;

    if (op->owner) {
        if (op->prev)
            op->prev->next = op->next;
        else
            op->owner->asked = op->next;
        if (op->next)
            op->next->prev = op->prev;
    }
    if (!op->owner)
        ; /* nobody is there to hear it */
    else if (op->listed)
        tell_ids(op, err);
    else if (op->fetched)
        op->fetched(op->arg, op->doc ? (apm_str){ op->doc, op->len } : APM_STR_NONE, err);
    else if (op->done)
        op->done(op->arg, status, err);
}

static void
ask(apm_backend *base, const char *task_id, one_op with)
{
    one_op *op = calloc(1, sizeof(*op) + strlen(task_id) + 1);
    apm_unit *unit = op ? apm_unit_new(base->link) : NULL;

    if (!unit) {
        /* Answered from inside the call: there is nothing to keep the question in. */
        apium_error err;
        apium_status st = apm_fail(&err, APIUM_E_NOMEM,
                                   "cannot ask for the result of %s: out of memory", task_id);
        free(op);
        if (with.listed)
            with.listed(with.arg, NULL, 0, false, &err);
        else if (with.fetched)
            with.fetched(with.arg, APM_STR_NONE, &err);
        else if (with.done)
            with.done(with.arg, st, &err);
        return;
    }
    *op = with;
    memcpy(op->task_id, task_id, strlen(task_id) + 1);
    op->op = (apm_memory_op){ .apply = apply_one, .release = release_one };
    op->owner = (memory_backend *)base;
    op->next = op->owner->asked;
    if (op->next)
        op->next->prev = op;
    op->owner->asked = op;
    apm_memory_add(unit, &op->op);
    apm_unit_commit(unit, one_answered, op);
}

static void
backend_fetch(apm_backend *base, const char *task_id, apm_fetch_cb *done, void *arg)
{
    ask(base, task_id, (one_op){ .fetched = done, .arg = arg, .what = FETCH });
}

static void
backend_forget(apm_backend *base, const char *task_id, apm_backend_done *done, void *arg)
{
    ask(base, task_id, (one_op){ .done = done, .arg = arg, .what = FORGET });
}

static void
backend_list(apm_backend *base, size_t max, apm_ids_cb *done, void *arg)
{
    ask(base, "", (one_op){ .listed = done, .max = max, .arg = arg, .what = LIST });
}

static void
backend_cleanup(apm_backend *base, apm_backend_done *done, void *arg)
{
    ask(base, "", (one_op){ .done = done, .arg = arg, .what = CLEANUP });
}

static void
backend_parts(apm_backend *base, const char *group_id, apm_parts_cb *done, void *arg)
{
    apm_memory_parts(&(apm_pages_of){ .link = base->link,
                                      .under_way = &((memory_backend *)base)->pages,
                                      .done = done,
                                      .arg = arg },
                     group_id);
}

/* ---- Watching ---- */

static news *
take_news(memory_backend *b)
{
    pthread_mutex_lock(&store_of(b)->mutex);
    news *n = b->first;
    if (n && !(b->first = n->next))
        b->last = NULL;
    pthread_mutex_unlock(&store_of(b)->mutex);
    return n;
}

static void
on_done(void *arg)
{
    memory_backend *b = arg;
    life *l = b->life;

    l->calling = true;
    for (news *n; !l->closed && (n = take_news(b)); free(n)) {
        watched *w;
        HASH_FIND_STR(b->watched, n->task_id, w); /* only this loop changes the table */
        if (w)
            w->on_change(w->arg, apm_strz(n->task_id), n->doc);
    }
    l->calling = false;
    if (l->closed)
        free(l);
}

static apium_status
backend_watch(apm_backend *base, const char *task_id, apm_change_cb *on_change, void *arg,
              apium_error *err)
{
    memory_backend *b = (memory_backend *)base;
    apm_memory_store *store = store_of(b);
    watched *w;

    HASH_FIND_STR(b->watched, task_id, w);
    if (w)
        return apm_fail(err, APIUM_E_INVALID, "cannot watch %s: it is watched already", task_id);
    w = calloc(1, sizeof(*w));
    if (!w || !(w->task_id = strdup(task_id)))
        goto no_memory;
    w->on_change = on_change;
    w->arg = arg;
    pthread_mutex_lock(&store->mutex);
    HASH_ADD_KEYPTR(hh, b->watched, w->task_id, strlen(w->task_id), w);
    bool added = w->hh.tbl != NULL;
    result *present = added ? find_result(store->results, task_id, strlen(task_id)) : NULL;
    if (present) {
        add_news(b, apm_strz(task_id), present->doc);
        apm_memory_touch(store, APM_MEMORY_DONE);
    }
    pthread_mutex_unlock(&store->mutex);
    if (added)
        return APIUM_OK;
no_memory:
    if (w)
        free(w->task_id);
    free(w);
    return apm_fail(err, APIUM_E_NOMEM, "cannot watch %s: out of memory", task_id);
}

static void
unwatch(memory_backend *b, watched *w)
{
    pthread_mutex_lock(&store_of(b)->mutex);
    HASH_DEL(b->watched, w);
    pthread_mutex_unlock(&store_of(b)->mutex);
    free(w->task_id);
    free(w);
}

static void
backend_unwatch(apm_backend *base, const char *task_id)
{
    memory_backend *b = (memory_backend *)base;
    watched *w;

    HASH_FIND_STR(b->watched, task_id, w);
    if (w)
        unwatch(b, w);
}

/* ---- Its life ---- */

static apium_status
backend_open(apm_backend *base, apium_error *err)
{
    memory_backend *b = (memory_backend *)base;
    apm_memory_store *store = store_of(b);

    b->life = calloc(1, sizeof(*b->life));
    pthread_mutex_lock(&store->mutex);
    if (!store->results)
        store->results = calloc(1, sizeof(results));
    results *all = store->results;
    if (all && b->life) {
        b->neighbour = all->backends;
        all->backends = b;
    }
    pthread_mutex_unlock(&store->mutex);
    if (!all || !b->life) {
        free(b->life);
        return apm_fail(err, APIUM_E_NOMEM, "cannot open \"%s\": out of memory", base->link->shown);
    }
    b->on_done = (apm_memory_listener){ .on_event = on_done, .arg = b };
    apm_memory_listen(base->link, APM_MEMORY_DONE, &b->on_done);
    return APIUM_OK;
}

static void
backend_close(apm_backend *base)
{
    memory_backend *b = (memory_backend *)base;
    apm_memory_store *store = store_of(b);
    results *all = store->results;

    apm_memory_unlisten(base->link, APM_MEMORY_DONE, &b->on_done);
    b->life->closed = true;
    if (!b->life->calling)
        free(b->life);
    for (one_op *op = b->asked; op; op = op->next)
        op->owner = NULL;
    apm_pages_leave(&b->pages);
    while (b->watched)
        unwatch(b, b->watched);
    for (news *n; (n = take_news(b));)
        free(n);
    pthread_mutex_lock(&store->mutex);
    for (memory_backend **at = &all->backends; *at; at = &(*at)->neighbour) {
        if (*at == b) {
            *at = b->neighbour;
            break;
        }
    }
    pthread_mutex_unlock(&store->mutex);
}

static const char *const schemes[] = { "memory", NULL };

const apm_backend_ops apm_memory_backend = {
    .name = "memory",
    .schemes = schemes,
    .size = sizeof(memory_backend),
    .features = APM_BACKEND_LOCAL | APM_BACKEND_BARRIER,
    .open = backend_open,
    .close = backend_close,
    .record = backend_record,
    .expect = apm_memory_expect,
    .extend = apm_memory_extend,
    .arrive = apm_memory_arrive,
    .claim = apm_memory_claim,
    .parts = backend_parts,
    .save_group = apm_group_save,
    .fetch_group = apm_group_fetch,
    .forget_group = apm_group_forget,
    .fetch = backend_fetch,
    .watch = backend_watch,
    .unwatch = backend_unwatch,
    .forget = backend_forget,
    .list = backend_list,
    .cleanup = backend_cleanup,
};
