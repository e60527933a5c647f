/*
 * http_watch.c - being told of changes over HTTP. A server with that ability keeps a session (docs/http-result-protocol.md,
 * "Watching"): one long poll brings what has changed. A plain server is looked at again and again, each task for itself.
 *
 * A poll under way is overtaken by the next one, which says what else is to be watched; so there are two at most. One that takes ids
 * off waits for nothing, and while it is under way nothing else is said: an id that is taken off and watched again must not be seen in
 * the wrong order. A server that has lost the session says so, and is told everything anew under another name.
 */
#include "backends/http.h"

#include <stdio.h>
#include <stdlib.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>
#include <utlist.h>

#include "core/base/clock.h"
#include "core/base/error.h"
#include "core/base/hash.h"
#include "core/base/ids.h"
#include "core/base/json.h"

#define WAIT_MS     25000
#define TICK_MS     20
#define LOOK_MIN_MS 50 /* between looks at a plain server, growing */
#define LOOK_MAX_MS 1000
#define LOOKS_MAX   16
#define AGAIN_MS    1000 /* after a poll that failed for good */

struct apm_http_watched {
    apm_change_cb *on_change;
    void *arg;
    uint64_t last; /* hash of the last document; 0 none */
    bool said;     /* the session has it */
    int64_t look_ms, every_ms;
    bool looking;
    apm_http_watched *prev, *next; /* in store->turns */
    UT_hash_handle hh;
    char id[];
};

typedef apm_http_watched watched;

struct apm_http_ticker {
    uv_timer_t timer;
    apm_http_store *store;
};

static watched *
find(const apm_http_store *store, const char *id, size_t len)
{
    watched *w;
    HASH_FIND(hh, store->watched, id, len, w);
    return w;
}

static void
tell(apm_http_store *store, const char *id, size_t len, apm_str doc)
{
    watched *w = find(store, id, len);
    uint64_t hash = apm_hash(doc);
    if (!w || w->last == hash)
        return; /* the present document, once more */
    w->last = hash;
    w->on_change(w->arg, (apm_str){ id, len }, doc);
}

/* ---- sessions ---- */

typedef struct poll {
    apm_http_store *store;
    unsigned generation;
    bool removes;
} poll;

static void
forget_removed(apm_http_store *store)
{
    while (store->n_removed)
        free(store->removed[--store->n_removed]);
}

static void
new_session(apm_http_store *store)
{
    apm_uuid4(store->session);
    store->generation++;
    store->began = false;
    store->seen = 0;
    store->polls = 0;
    store->removing = false;
    forget_removed(store);
    for (watched *w = store->watched; w; w = w->hh.next)
        w->said = false;
    store->due = store->watched != NULL;
}

/* A change, and whether the store is still there. */
static bool
take_change(apm_http_store *store, apm_json change, apm_arena *arena)
{
    apm_json number = apm_json_at(change, 0), doc = apm_json_at(change, 2);
    apm_http_ticker *ticker = store->ticker;
    int64_t n;
    apm_str id;
    if (apm_json_int64(number, "number", &n, NULL) != APIUM_OK || n <= store->seen ||
        apm_json_string(apm_json_at(change, 1), "id", arena, &id, NULL) != APIUM_OK)
        return true;
    store->seen = n;
    tell(store, id.p, id.len, doc.text);
    return ticker->store != NULL;
}

static void on_tick(uv_timer_t *timer);

static void
on_poll(void *arg, int status, apm_str body, const apium_error *err)
{
    poll p = *(poll *)arg;
    apm_http_store *store = p.store;
    apm_json doc, change;
    apm_json_iter it;
    apm_str key;
    (void)err;
    free(arg);
    if (p.generation != store->generation)
        return;
    store->polls--;
    if (p.removes)
        store->removing = false;
    if (status != 200 || apm_json_parse(body, &doc, NULL) != APIUM_OK) {
        new_session(store);
        store->due = false; /* not at once */
        uv_timer_start(&store->ticker->timer, on_tick, AGAIN_MS, 0);
        return;
    }
    bool fresh = apm_str_eqz(apm_json_get(doc, "fresh").text, "true");
    if (fresh && store->began) {
        new_session(store);
        return;
    }
    store->began = true;
    apm_arena arena = { 0 };
    apm_json changes = apm_json_get(doc, "changes");
    bool there = true;
    if (changes.type == APM_JSON_ARRAY) {
        (void)apm_json_open(&it, changes.text, NULL);
        while (there && apm_json_next(&it, &key, &change, NULL) > 0)
            there = take_change(store, change, &arena);
    }
    apm_arena_clear(&arena);
    if (there && store->polls == 0)
        store->due = store->watched || store->n_removed;
}

static void
release_poll(void *arg)
{
    free(arg);
}

static void
write_news(apm_http_store *store, apm_buf *body)
{
    size_t n = 0;
    apm_buf_addf(body, "{\"seen\": %lld, \"remove\": [", (long long)store->seen);
    for (size_t i = 0; i < store->n_removed; i++) {
        apm_buf_addz(body, i ? ", " : "");
        apm_json_add_stringz(body, store->removed[i]);
    }
    apm_buf_addz(body, "], \"add\": [");
    for (watched *w = store->watched; w; w = w->hh.next) {
        if (w->said)
            continue;
        w->said = true;
        apm_buf_addz(body, n++ ? ", " : "");
        apm_json_add_stringz(body, w->id);
    }
    apm_buf_addz(body, "]}");
}

static void
say(apm_http_store *store)
{
    poll *p = malloc(sizeof(*p));
    apm_buf body;
    char path[128];
    if (!p)
        return; /* the next flush tries again */
    *p = (poll){ .store = store, .generation = store->generation, .removes = store->n_removed > 0 };
    int64_t wait_ms = p->removes ? 0 : WAIT_MS;
    snprintf(path, sizeof(path), "watches/%s?wait=%lld", store->session,
             (long long)(wait_ms / 1000));
    apm_buf_init(&body, APM_BUF_MAX);
    write_news(store, &body);
    forget_removed(store);
    store->due = false;
    store->polls++;
    store->removing = store->removing || p->removes;
    apm_http_ask(store->base.link, &(apm_http_asked){ .method = "POST",
                                                      .path = path,
                                                      .body = &body,
                                                      .type = "application/json",
                                                      .wait_ms = wait_ms,
                                                      .for_ever = true,
                                                      .owner = store,
                                                      .done = on_poll,
                                                      .arg = p,
                                                      .release = release_poll });
    apm_buf_clear(&body);
}

/* ---- looking at a plain server: in turns, so that a slow one is not asked for the same few for ever ---- */

typedef struct look {
    apm_http_store *store;
    char id[];
} look;

static void
on_looked(void *arg, apm_str doc, const apium_error *err)
{
    look *l = arg;
    apm_http_store *store = l->store;
    watched *w = find(store, l->id, strlen(l->id));
    (void)err;
    store->polls--;
    if (w) {
        w->looking = false;
        w->every_ms = w->every_ms * 3 / 2 < LOOK_MAX_MS ? w->every_ms * 3 / 2 : LOOK_MAX_MS;
        w->look_ms = apm_clock_ms() + w->every_ms;
        if (apm_str_is(doc))
            tell(store, l->id, strlen(l->id), doc);
    }
    free(l);
}

static void
look_at(apm_http_store *store, watched *w)
{
    look *l = malloc(sizeof(*l) + strlen(w->id) + 1);
    apm_buf key;
    if (!l)
        return;
    l->store = store;
    memcpy(l->id, w->id, strlen(w->id) + 1);
    apm_buf_init(&key, 65536);
    apm_http_task_key(&key, apm_strz(w->id));
    w->looking = true;
    store->polls++;
    apm_http_do(store->base.link, &(apm_http_task){ .verb = APM_HTTP_READ,
                                                    .key = apm_buf_str(&key),
                                                    .for_ever = true,
                                                    .owner = store,
                                                    .done = on_looked,
                                                    .arg = l,
                                                    .release = free });
    apm_buf_clear(&key);
}

static void
look_around(apm_http_store *store)
{
    int64_t now = apm_clock_ms();
    for (watched *w = store->turns, *next; w && store->polls < LOOKS_MAX; w = next) {
        next = w->next;
        if (w->looking || w->look_ms > now)
            continue;
        look_at(store, w);
        DL_DELETE(store->turns, w);
        DL_APPEND(store->turns, w);
    }
}

static void
on_tick(uv_timer_t *timer)
{
    apm_http_store *store = ((apm_http_ticker *)timer->data)->store;
    if (!store)
        return;
    if (store->abilities & APM_HTTP_UNITS)
        store->due = store->watched != NULL;
    else
        look_around(store);
    if (!store->watched)
        uv_timer_stop(timer);
}

void
apm_http_watch_flush(apm_http_store *store)
{
    if (store->abilities & APM_HTTP_UNITS) {
        if (store->due && !store->removing && store->polls < 2)
            say(store);
    } else if (store->watched && !uv_is_active((uv_handle_t *)&store->ticker->timer)) {
        uv_timer_start(&store->ticker->timer, on_tick, 0, TICK_MS);
    }
}

/* ---- watching ---- */

apium_status
apm_http_watch(apm_backend *backend, const char *task_id, apm_change_cb *on_change, void *arg,
               apium_error *err)
{
    apm_http_store *store = (apm_http_store *)backend;
    size_t len = strlen(task_id);
    if (find(store, task_id, len))
        return apm_fail(err, APIUM_E_INVALID, "cannot watch %s: it is watched already", task_id);
    watched *w = calloc(1, sizeof(*w) + len + 1);
    if (w) {
        memcpy(w->id, task_id, len + 1);
        w->on_change = on_change;
        w->arg = arg;
        w->every_ms = LOOK_MIN_MS;
        HASH_ADD_KEYPTR(hh, store->watched, w->id, len, w);
    }
    if (!w || !w->hh.tbl) {
        free(w);
        return apm_fail(err, APIUM_E_NOMEM, "cannot watch %s: out of memory", task_id);
    }
    DL_APPEND(store->turns, w);
    store->due = true;
    return APIUM_OK;
}

void
apm_http_unwatch(apm_backend *backend, const char *task_id)
{
    apm_http_store *store = (apm_http_store *)backend;
    watched *w = find(store, task_id, strlen(task_id));
    if (!w)
        return;
    HASH_DEL(store->watched, w);
    DL_DELETE(store->turns, w);
    /* It is said with the next thing there is to say; what comes of it meanwhile is nobody's. */
    if (w->said && store->n_removed == store->cap_removed) {
        size_t cap = store->cap_removed ? 2 * store->cap_removed : 16;
        char **longer = realloc(store->removed, cap * sizeof(*longer));
        if (longer) {
            store->removed = longer;
            store->cap_removed = cap;
        }
    }
    if (w->said && store->n_removed < store->cap_removed) {
        char *id = strdup(task_id);
        if (id)
            store->removed[store->n_removed++] = id;
    }
    free(w);
}

apium_status
apm_http_watch_open(apm_http_store *store, apium_error *err)
{
    store->ticker = calloc(1, sizeof(*store->ticker));
    if (!store->ticker)
        return apm_fail(err, APIUM_E_NOMEM, "cannot open \"%s\": out of memory",
                        store->base.link->shown);
    store->ticker->store = store;
    uv_timer_init(apm_links_loop(store->base.link->set), &store->ticker->timer);
    store->ticker->timer.data = store->ticker;
    new_session(store);
    return APIUM_OK;
}

static void
on_ticker_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void
apm_http_watch_close(apm_http_store *store)
{
    watched *w, *next;
    HASH_ITER(hh, store->watched, w, next)
    {
        HASH_DEL(store->watched, w);
        free(w);
    }
    forget_removed(store);
    free(store->removed);
    store->ticker->store = NULL;
    uv_close((uv_handle_t *)&store->ticker->timer, on_ticker_closed);
}
