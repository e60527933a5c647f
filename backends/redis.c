/*
 * backends/redis.c - results in Redis, in Celery's keys: celery-task-meta-<id>, expiring, announced on a channel of the
 * key's name. Storing is an operation of the link's unit, so a result and the acknowledgement of its task commit together.
 */
#include <stdio.h>
#include <stdlib.h>
#include <uthash.h>

#include "backends/redis.h"
#include "core/base/error.h"

#define META "celery-task-meta-"

typedef apm_redis_store redis_backend;

typedef struct apm_redis_watched {
    redis_backend *backend;
    apm_change_cb *on_change;
    void *arg;
    apm_redis_sub *sub;
    bool unsent; /* when it was subscribed to: nothing was stored */
    UT_hash_handle hh;
    char *key;
    char id[];
} watched;

static redis_backend *
redis_of(apm_backend *backend)
{
    return (redis_backend *)backend;
}

int64_t
apm_redis_expires_s(const apm_backend *backend)
{
    double seconds = backend->settings->result_expires;
    return seconds <= 0 ? 0 : seconds < 1 ? 1 : (int64_t)seconds;
}

static char *
meta_key(const redis_backend *backend, apm_str id)
{
    const size_t prefix = strlen(backend->prefix);
    char *key = malloc(prefix + sizeof(META) + id.len);
    if (key) {
        memcpy(key, backend->prefix, prefix);
        memcpy(key + prefix, META, sizeof(META));
        memcpy(key + prefix + strlen(META), id.p, id.len);
        key[prefix + strlen(META) + id.len] = '\0';
    }
    return key;
}

static apium_status
redis_record(apm_backend *base, apm_unit *unit, const apm_record *record, apium_error *err)
{
    redis_backend *backend = redis_of(base);
    char *key = meta_key(backend, record->task_id);

    if (!key)
        return apm_fail(err, APIUM_E_NOMEM, "cannot store the result of %.*s: out of memory",
                        APM_STR_ARG(record->task_id));
    apm_redis_unit_record(unit, backend->db, apm_strz(key), apm_redis_expires_s(base), record->doc);
    free(key);
    return APIUM_OK;
}

/* ---- asking ---- */

typedef struct question {
    apm_fetch_cb *on_doc;
    apm_backend_done *on_done;
    void *arg;
    char *id; /* of what is watched: looked up again when the answer comes, it may be gone */
    redis_backend *backend;
} question;

static void
on_got(void *arg, const redisReply *reply, const apium_error *err)
{
    question *q = arg;
    apm_str doc = APM_STR_NONE;

    if (reply && reply->type == REDIS_REPLY_STRING)
        doc = (apm_str){ reply->str, (size_t)reply->len };
    if (q->on_doc) {
        q->on_doc(q->arg, doc, err);
    } else if (apm_str_is(doc)) {
        watched *w = NULL;
        HASH_FIND_STR(q->backend->watched, q->id, w);
        if (w)
            w->on_change(w->arg, apm_strz(w->id), doc);
    }
    free(q->id);
    free(q);
}

static void
ask(redis_backend *backend, const char *key, question *q)
{
    apm_redis_req *req =
        q && key ? apm_redis_begin(backend->base.link, backend->db, APM_REDIS_REPEAT, on_got, q)
                 : NULL;

    if (!req) {
        if (q)
            free(q->id);
        free(q);
        return;
    }
    apm_redis_addz(req, "GET");
    apm_redis_addz(req, key);
    apm_redis_send(backend->base.link, req, backend);
}

void
apm_redis_fetch_key(apm_redis_store *backend, const char *key, apm_fetch_cb *done, void *arg)
{
    question *q = calloc(1, sizeof(*q));

    if (q)
        *q = (question){ .on_doc = done, .arg = arg, .backend = backend };
    ask(backend, key, q);
}

static void
redis_fetch(apm_backend *base, const char *task_id, apm_fetch_cb *done, void *arg)
{
    redis_backend *backend = redis_of(base);
    char *key = meta_key(backend, apm_strz(task_id));

    apm_redis_fetch_key(backend, key, done, arg);
    free(key);
}

/* ---- watching ---- */

static void
on_message(void *arg, apm_str channel, const apm_str *payload)
{
    watched *w = arg;

    (void)channel;
    if (payload) {
        w->on_change(w->arg, apm_strz(w->id), *payload);
        return;
    }
    if (w->unsent) {
        w->unsent = false;
        return;
    }
    /* Subscribed, now or again: only from here on nothing is missed, so only now look at what is stored. */
    question *q = calloc(1, sizeof(*q));
    if (q)
        *q = (question){ .backend = w->backend, .id = strdup(w->id) };
    if (q && !q->id) {
        free(q);
        q = NULL;
    }
    ask(w->backend, w->key, q);
}

static apium_status
watch(apm_backend *base, const char *task_id, bool unsent, apm_change_cb *on_change, void *arg,
      apium_error *err)
{
    redis_backend *backend = redis_of(base);
    size_t len = strlen(task_id);
    watched *w = NULL;

    HASH_FIND_STR(backend->watched, task_id, w);
    if (w)
        return apm_fail(err, APIUM_E_INVALID, "the result of %s is watched already", task_id);
    w = calloc(1, sizeof(*w) + len + 1);
    if (!w)
        goto no_memory;
    *w = (watched){ .backend = backend, .on_change = on_change, .arg = arg, .unsent = unsent };
    memcpy(w->id, task_id, len);
    w->key = meta_key(backend, apm_strz(task_id));
    w->sub = w->key ? apm_redis_subscribe(base->link, w->key, on_message, w) : NULL;
    if (!w->sub) {
        free(w->key);
        free(w);
        goto no_memory;
    }
    HASH_ADD_STR(backend->watched, id, w);
    return APIUM_OK;
no_memory:
    return apm_fail(err, APIUM_E_NOMEM, "cannot watch the result of %s: out of memory", task_id);
}

static apium_status
redis_watch(apm_backend *base, const char *task_id, apm_change_cb *on_change, void *arg,
            apium_error *err)
{
    return watch(base, task_id, false, on_change, arg, err);
}

static apium_status
redis_watch_sent(apm_backend *base, const char *task_id, apm_change_cb *on_change, void *arg,
                 apium_error *err)
{
    return watch(base, task_id, true, on_change, arg, err);
}

static void
unwatch(redis_backend *backend, watched *w)
{
    HASH_DEL(backend->watched, w);
    apm_redis_unsubscribe(backend->base.link, w->sub);
    free(w->key);
    free(w);
}

static void
redis_unwatch(apm_backend *base, const char *task_id)
{
    redis_backend *backend = redis_of(base);
    watched *w = NULL;

    HASH_FIND_STR(backend->watched, task_id, w);
    if (w)
        unwatch(backend, w);
}

/* ---- forgetting ---- */

static void
on_forgotten(void *arg, const redisReply *reply, const apium_error *err)
{
    question *q = arg;

    (void)reply;
    if (q->on_done)
        q->on_done(q->arg, err ? err->status : APIUM_OK, err);
    free(q);
}

void
apm_redis_forget_key(apm_redis_store *backend, const char *key, apm_backend_done *done, void *arg)
{
    question *q = calloc(1, sizeof(*q));
    apm_redis_req *req = key && q ? apm_redis_begin(backend->base.link, backend->db,
                                                    APM_REDIS_REPEAT, on_forgotten, q)
                                  : NULL;

    if (req) {
        *q = (question){ .on_done = done, .arg = arg };
        apm_redis_addz(req, "DEL");
        apm_redis_addz(req, key);
        apm_redis_send(backend->base.link, req, backend);
    } else {
        free(q);
    }
}

static void
redis_forget(apm_backend *base, const char *task_id, apm_backend_done *done, void *arg)
{
    redis_backend *backend = redis_of(base);
    char *key = meta_key(backend, apm_strz(task_id));

    apm_redis_forget_key(backend, key, done, arg);
    free(key);
}

/* ---- listing: the server is walked through, in steps ---- */

#define LIST_STEPS 2000 /* of about 1,000 keys each */

typedef struct list {
    redis_backend *backend;
    apm_ids_cb *done;
    void *arg;
    apm_arena arena;
    apm_str *ids;
    size_t n, max;
    unsigned steps;
    bool more;
} list;

static void
list_end(list *l, const apium_error *err)
{
    l->done(l->arg, l->ids, err ? 0 : l->n, l->more, err);
    apm_arena_clear(&l->arena);
    free(l->ids);
    free(l);
}

static void on_listed(void *arg, const redisReply *reply, const apium_error *err);

static void
list_step(list *l, const char *cursor)
{
    redis_backend *backend = l->backend;
    apm_redis_req *req =
        apm_redis_begin(backend->base.link, backend->db, APM_REDIS_REPEAT, on_listed, l);
    apm_buf pattern;

    if (!req) {
        apium_error err;
        (void)apm_fail(&err, APIUM_E_NOMEM, "cannot list results: out of memory");
        list_end(l, &err);
        return;
    }
    apm_buf_init(&pattern, 1 << 16);
    for (const char *at = backend->prefix; *at; at++) {
        if (strchr("*?[]\\", *at))
            apm_buf_addc(&pattern, '\\');
        apm_buf_addc(&pattern, *at);
    }
    apm_buf_addz(&pattern, META "*");
    apm_redis_addz(req, "SCAN");
    apm_redis_addz(req, cursor);
    apm_redis_addz(req, "MATCH");
    apm_redis_add(req, apm_buf_str(&pattern));
    apm_redis_addz(req, "COUNT");
    apm_redis_addz(req, "1000");
    apm_redis_send(backend->base.link, req, backend);
    apm_buf_clear(&pattern);
}

static void
on_listed(void *arg, const redisReply *reply, const apium_error *err)
{
    list *l = arg;
    size_t head = strlen(l->backend->prefix) + strlen(META);

    if (err || reply->type != REDIS_REPLY_ARRAY || reply->elements != 2) {
        list_end(l, err);
        return;
    }
    const redisReply *keys = reply->element[1];
    bool ok = true, last = strcmp(reply->element[0]->str, "0") == 0;
    for (size_t i = 0; i < keys->elements && ok; i++) {
        const redisReply *key = keys->element[i];
        if (l->n == l->max) {
            l->more = true;
            break;
        }
        if ((size_t)key->len > head)
            l->ids[l->n++] = apm_arena_str(
                &l->arena, (apm_str){ key->str + head, (size_t)key->len - head }, &ok);
    }
    if (!ok) {
        apium_error oom;
        (void)apm_fail(&oom, APIUM_E_NOMEM, "cannot list results: out of memory");
        list_end(l, &oom);
        return;
    }
    l->more = l->more || (!last && (l->n == l->max || ++l->steps == LIST_STEPS));
    if (last || l->more)
        list_end(l, NULL);
    else
        list_step(l, reply->element[0]->str);
}

static void
redis_list(apm_backend *base, size_t max, apm_ids_cb *done, void *arg)
{
    list *l = calloc(1, sizeof(*l));
    apium_error err;

    if (!l || !(l->ids = calloc(max + 1, sizeof(*l->ids)))) {
        free(l);
        (void)apm_fail(&err, APIUM_E_NOMEM, "cannot list results: out of memory");
        done(arg, NULL, 0, false, &err);
        return;
    }
    l->backend = redis_of(base);
    l->done = done;
    l->arg = arg;
    l->max = max;
    list_step(l, "0");
}

/* ---- opening and closing ---- */

static apium_status
redis_open(apm_backend *base, apium_error *err)
{
    redis_backend *backend = redis_of(base);
    const char *prefix = base->settings->result_keyprefix;
    apium_status st = apm_redis_db(base->url, &backend->db, err);

    if (st != APIUM_OK)
        return st;
    size_t len = prefix ? strlen(prefix) : 0;
    bool joined = len && strchr(":_-.", prefix[len - 1]);
    if (asprintf(&backend->prefix, "%s%s", len ? prefix : "", len && !joined ? "_" : "") < 0)
        return apm_fail(err, APIUM_E_NOMEM, "cannot open the Redis backend: out of memory");
    return APIUM_OK;
}

static void
redis_close(apm_backend *base)
{
    redis_backend *backend = redis_of(base);
    watched *w, *next;

    HASH_ITER(hh, backend->watched, w, next)
    unwatch(backend, w);
    apm_redis_disown(base->link, backend);
    free(backend->prefix);
}

const apm_backend_ops apm_redis_backend = {
    .name = "redis",
    .schemes = (const char *const[]){ "redis", "rediss", "redis+socket", "sentinel", NULL },
    .size = sizeof(redis_backend),
    .features = APM_BACKEND_BARRIER,
    .open = redis_open,
    .close = redis_close,
    .record = redis_record,
    .expect = apm_redis_expect,
    .extend = apm_redis_extend,
    .arrive = apm_redis_arrive,
    .claim = apm_redis_claim,
    .parts = apm_redis_parts,
    .save_group = apm_redis_save_group,
    .fetch_group = apm_redis_fetch_group,
    .forget_group = apm_redis_forget_group,
    .fetch = redis_fetch,
    .watch = redis_watch,
    .watch_sent = redis_watch_sent,
    .unwatch = redis_unwatch,
    .forget = redis_forget,
    .list = redis_list,
};
