/*
 * watch.c - sessions of those who watch many tasks: one long poll brings the changes of all of them, in order and each of them.
 *
 * A session is a name that its client made up, the ids it watches, and the changes that it has not confirmed. The client asks again
 * and again, with what is to be watched and no more, and with the number of the last change it has seen. A session is memory: it
 * ends when nobody asks for SESSION_MS, when too much waits for it, and with the server; its client is then told that the session
 * is fresh, and says again what it watches.
 */
#include "web/inner.h"

#include <stdlib.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "core/base/error.h"

#define SESSION_MS   90000
#define SESSIONS_MAX 10000
#define IDS_MAX      100000 /* of one session */
#define QUEUE_BYTES  ((size_t)32 << 20)
#define ANSWER_BYTES ((size_t)4 << 20)

typedef struct change {
    struct change *next;
    int64_t number;
    apm_str id, doc;
    char text[];
} change;

typedef struct session session;

typedef struct watched {
    session *session;
    apm_listener listener;
    UT_hash_handle hh;
    size_t len;
    char id[];
} watched;

struct session {
    apm_web *web;
    uv_timer_t timer; /* the end of a poll, or of the session */
    watched *watched;
    change *first, *last;
    size_t bytes;
    int64_t number;
    apm_web_call *call; /* the poll that waits */
    bool fresh, full;
    UT_hash_handle hh;
    char name[];
};

struct apm_sessions {
    session *table;
};

apium_status
apm_sessions_open(apm_web *web, apium_error *err)
{
    web->sessions = calloc(1, sizeof(*web->sessions));
    return web->sessions ? APIUM_OK : apm_fail(err, APIUM_E_NOMEM, "cannot start: out of memory");
}

/* ---- the life of a session ---- */

static void
on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void
forget(session *s, watched *w)
{
    HASH_DEL(s->watched, w);
    apm_hub_leave(s->web, &w->listener);
    free(w);
}

static void
confirm(session *s, int64_t seen)
{
    while (s->first && s->first->number <= seen) {
        change *c = s->first;
        s->first = c->next;
        if (!s->first)
            s->last = NULL;
        s->bytes -= c->id.len + c->doc.len;
        free(c);
    }
}

static void
session_end(session *s)
{
    watched *w, *next;
    HASH_DEL(s->web->sessions->table, s);
    HASH_ITER(hh, s->watched, w, next)
    forget(s, w);
    confirm(s, INT64_MAX);
    uv_close((uv_handle_t *)&s->timer, on_closed);
}

/* Give what there is to the poll that waits. */
static void
answer(session *s)
{
    apm_web_call *call = s->call;
    apm_buf body;
    size_t given = 0;
    s->call = NULL;
    s->web->waits--;
    apm_buf_init(&body, APM_BUF_MAX);
    apm_buf_addf(&body, "{\"fresh\": %s, \"changes\": [", s->fresh ? "true" : "false");
    for (const change *c = s->first; c && body.len < ANSWER_BYTES; c = c->next) {
        apm_buf_addf(&body, "%s[%lld, ", given++ ? ", " : "", (long long)c->number);
        apm_json_add_string(&body, c->id);
        apm_buf_addz(&body, ", ");
        apm_buf_adds(&body, c->doc);
        apm_buf_addc(&body, ']');
    }
    apm_buf_addz(&body, "]}");
    s->fresh = false;
    apm_web_answer(call, 200, &body);
}

static void
on_timer(uv_timer_t *timer)
{
    session *s = timer->data;
    if (!s->call) {
        session_end(s);
        return;
    }
    answer(s);
    if (s->full)
        session_end(s);
    else
        uv_timer_start(&s->timer, on_timer, SESSION_MS, 0);
}

/* The poll is over soon: what else this turn of the loop brings goes with it. */
static void
answer_soon(session *s)
{
    if (s->call)
        uv_timer_start(&s->timer, on_timer, 0, 0);
}

static void
on_gone(void *arg)
{
    session *s = arg;
    apm_web_call *call = s->call;
    s->call = NULL;
    s->web->waits--;
    uv_timer_start(&s->timer, on_timer, SESSION_MS, 0);
    apm_web_error(call, 503, "the wait is over");
}

static void
on_change(void *arg, apm_str id, apm_str doc)
{
    session *s = ((watched *)arg)->session;
    change *c = s->full ? NULL : calloc(1, sizeof(*c) + id.len + doc.len);
    if (!c || s->bytes + id.len + doc.len > QUEUE_BYTES) {
        free(c);
        s->full = true; /* what it misses now it would miss for ever: it has to begin again */
        confirm(s, INT64_MAX);
        answer_soon(s);
        return;
    }
    memcpy(c->text, id.p, id.len);
    memcpy(c->text + id.len, doc.p, doc.len);
    c->id = (apm_str){ c->text, id.len };
    c->doc = (apm_str){ c->text + id.len, doc.len };
    c->number = ++s->number;
    s->bytes += id.len + doc.len;
    if (s->last)
        s->last->next = c;
    else
        s->first = c;
    s->last = c;
    answer_soon(s);
}

/* ---- asking ---- */

static apium_status
watch(session *s, apm_str id, apium_error *err)
{
    watched *w;
    HASH_FIND(hh, s->watched, id.p, id.len, w);
    if (w)
        return APIUM_OK;
    if (HASH_COUNT(s->watched) >= IDS_MAX)
        return apm_fail(err, APIUM_E_TOOBIG, "at most %d ids are watched at once", IDS_MAX);
    w = calloc(1, sizeof(*w) + id.len + 1);
    if (!w)
        return apm_fail(err, APIUM_E_NOMEM, "out of memory");
    memcpy(w->id, id.p, id.len);
    w->len = id.len;
    w->session = s;
    w->listener = (apm_listener){ .on_change = on_change, .arg = w };
    HASH_ADD_KEYPTR(hh, s->watched, w->id, w->len, w);
    if (!w->hh.tbl) {
        free(w);
        return apm_fail(err, APIUM_E_NOMEM, "out of memory");
    }
    apium_status st = apm_hub_listen(s->web, id, &w->listener, err);
    if (st != APIUM_OK)
        forget(s, w);
    return st;
}

static apium_status
each_id(session *s, apm_json list, apm_arena *arena, bool add, apium_error *err)
{
    apm_json_iter it;
    apm_json val;
    apm_str key;
    if (list.type == APM_JSON_NONE)
        return APIUM_OK;
    if (list.type != APM_JSON_ARRAY)
        return apm_fail(err, APIUM_E_INVALID, "\"add\" and \"remove\" are lists of ids");
    (void)apm_json_open(&it, list.text, NULL);
    while (apm_json_next(&it, &key, &val, NULL) > 0) {
        const char *id;
        apium_status st = apm_json_cstr(val, "an id", arena, &id, err);
        if (st != APIUM_OK)
            return st;
        if (!apm_web_id_ok(apm_strz(id)))
            return apm_fail(err, APIUM_E_INVALID, "an id has 1 to %d bytes of UTF-8 without NUL",
                            APM_WEB_ID_MAX);
        watched *w;
        HASH_FIND(hh, s->watched, id, strlen(id), w);
        if (add)
            st = watch(s, apm_strz(id), err);
        else if (w)
            forget(s, w);
        if (st != APIUM_OK)
            return st;
    }
    return APIUM_OK;
}

static session *
session_of(apm_web *web, apm_str name)
{
    session *s;
    HASH_FIND(hh, web->sessions->table, name.p, name.len, s);
    if (s && !s->full)
        return s;
    if (s && s->call) /* not answered yet: the timer would have, in the next turn of the loop */
        answer(s);
    if (s)
        session_end(s);
    if (HASH_COUNT(web->sessions->table) >= SESSIONS_MAX ||
        !(s = calloc(1, sizeof(*s) + name.len + 1)))
        return NULL;
    memcpy(s->name, name.p, name.len);
    HASH_ADD_KEYPTR(hh, web->sessions->table, s->name, name.len, s);
    if (!s->hh.tbl) {
        free(s);
        return NULL;
    }
    s->web = web;
    s->fresh = true;
    uv_timer_init(&web->loop, &s->timer);
    s->timer.data = s;
    uv_timer_start(&s->timer, on_timer, SESSION_MS, 0);
    return s;
}

void
apm_watch_post(apm_web_call *call)
{
    apm_web *web = call->web;
    apm_json body;
    apium_error err;
    int64_t seen = 0, wait_ms = apm_web_wait_ms(call, "wait");
    if (wait_ms < 0 || !apm_web_json(call, APM_JSON_OBJECT, &body))
        return;
    session *s = web->waits < APM_WEB_WAITS_MAX ? session_of(web, call->args[0]) : NULL;
    if (!s) {
        apm_web_error(call, 503, "too many wait already");
        return;
    }
    if (s->call) /* one poll at a time: the newer one takes over */
        answer(s);
    apm_json number = apm_json_get(body, "seen");
    apium_status st =
        number.type == APM_JSON_NONE ? APIUM_OK : apm_json_int64(number, "seen", &seen, &err);
    if (st == APIUM_OK) {
        confirm(s, seen);
        st = each_id(s, apm_json_get(body, "remove"), &call->arena, false, &err);
    }
    if (st == APIUM_OK)
        st = each_id(s, apm_json_get(body, "add"), &call->arena, true, &err);
    if (st != APIUM_OK) {
        apm_web_fail(call, &err);
        return;
    }
    s->call = call;
    web->waits++;
    apm_http_on_gone(call->req, on_gone, s);
    uv_timer_start(&s->timer, on_timer, s->first || s->fresh ? 0 : (uint64_t)wait_ms, 0);
}

void
apm_sessions_close(apm_web *web)
{
    session *s, *next;
    if (!web->sessions)
        return;
    HASH_ITER(hh, web->sessions->table, s, next)
    session_end(s);
    free(web->sessions);
    web->sessions = NULL;
}
