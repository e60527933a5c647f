/*
 * redis_look.c - looking after queues: counting, purging, bindings. Nothing here is in a hurry; what may be
 * long (keys, the index, the dead letters) is walked in pages, so that the server serves others between.
 */
#include "brokers/redis.h"

#include <stdlib.h>

#include "core/base/error.h"
#include "core/base/ids.h"
#include "redis_count.lua.h"
#include "redis_dead.lua.h"
#include "redis_purge.lua.h"
#include "redis_length.lua.h"

#define PAGE "1000"

/* ---- a walk: what is found out step by step for one caller ---- */

typedef struct found {
    struct found *next;
    apm_queue_info info;
} found;

typedef struct walk {
    redis_broker *broker;
    apm_arena arena;
    found *queues, **tail;
    size_t n;
    bool brief;      /* lengths alone */
    bool all;        /* names are looked for too */
    bool lists;      /* ... in the lists themselves; before that in the bindings */
    long long from;  /* rank of the page */
    found *counting; /* whose lists are being counted */
    apm_binding *bindings;
    size_t n_bindings, cap_bindings;
    apm_buf keys;
    size_t keys_at;
    apm_infos_cb *on_infos;
    apm_bindings_cb *on_bindings;
    void *arg;
} walk;

static void
walk_end(walk *w, const apium_error *err)
{
    if (w->on_infos) {
        apm_queue_info *infos = calloc(w->n ? w->n : 1, sizeof(*infos));
        apium_error oom;
        size_t i = 0;
        if (!infos && !err) {
            apm_fail(&oom, APIUM_E_NOMEM, "cannot list queues: out of memory");
            err = &oom;
        }
        for (found *f = w->queues; f && infos; f = f->next)
            infos[i++] = f->info;
        w->on_infos(w->arg, infos, err ? 0 : w->n, err);
        free(infos);
    } else {
        w->on_bindings(w->arg, w->bindings, err ? 0 : w->n_bindings, err);
    }
    free(w->bindings);
    apm_buf_clear(&w->keys);
    apm_arena_clear(&w->arena);
    free(w);
}

static apm_redis_req *
ask(walk *w, const apm_redis_script *script, const char *command, apm_redis_answer *done)
{
    apm_link *link = w->broker->base.link;
    apm_redis_req *req =
        script ? apm_redis_begin_script(link, script, w->broker->db, APM_REDIS_REPEAT, done, w)
               : apm_redis_begin(link, w->broker->db, APM_REDIS_REPEAT, done, w);
    if (!req) {
        apium_error err;
        apm_fail(&err, APIUM_E_NOMEM, "cannot look at the queues: out of memory");
        walk_end(w, &err);
    } else if (command) {
        apm_redis_addz(req, command);
    }
    return req;
}

static walk *
walk_new(redis_broker *broker, void *arg)
{
    walk *w = calloc(1, sizeof(*w));
    if (!w)
        return NULL;
    *w = (walk){ .broker = broker, .arg = arg };
    w->tail = &w->queues;
    apm_buf_init(&w->keys, 64 << 20);
    return w;
}

/* The queue of that name among the found ones; added when all are wanted. */
static found *
find(walk *w, apm_str name)
{
    for (found *f = w->queues; f; f = f->next)
        if (apm_str_eqz(name, f->info.name))
            return f;
    if (!w->all || !name.len)
        return NULL;
    found *f = apm_arena_alloc(&w->arena, sizeof(*f));
    const char *copy = f ? apm_arena_printf(&w->arena, "%.*s", APM_STR_ARG(name)) : NULL;
    if (!copy)
        return NULL;
    f->info = (apm_queue_info){ .name = copy, .consumers = -1 };
    *w->tail = f;
    w->tail = &f->next;
    w->n++;
    return f;
}

/* ---- inspect: names, then list lengths, then the index, then the dead ---- */

static void
on_dead_page(void *arg, const redisReply *reply, const apium_error *err)
{
    walk *w = arg;

    if (err || reply->type != REDIS_REPLY_ARRAY || !reply->elements) {
        walk_end(w, err);
        return;
    }
    for (size_t i = 1; i + 1 < reply->elements; i += 2) {
        found *f = find(w, (apm_str){ reply->element[i]->str, (size_t)reply->element[i]->len });
        if (f)
            f->info.dead += reply->element[i + 1]->integer;
    }
    if (!reply->element[0]->integer) {
        walk_end(w, NULL);
        return;
    }
    w->from += reply->element[0]->integer;
    apm_redis_req *req = ask(w, &redis_dead_script, NULL, on_dead_page);
    if (!req)
        return;
    apm_redis_addz(req, w->broker->dead);
    apm_redis_addi(req, w->from);
    apm_redis_addi(req, w->from + 99);
    apm_redis_send(w->broker->base.link, req, w->broker);
}

static void count_page(walk *w);

static void
on_count_page(void *arg, const redisReply *reply, const apium_error *err)
{
    walk *w = arg;

    if (err || reply->type != REDIS_REPLY_ARRAY || !reply->elements) {
        walk_end(w, err);
        return;
    }
    for (size_t i = 1; i + 1 < reply->elements; i += 2) {
        const redisReply *name = reply->element[i];
        found *f = name->len ? find(w, (apm_str){ name->str + 1, (size_t)name->len - 1 }) : NULL;
        if (f)
            *(name->str[0] == 'p' ? &f->info.parked : &f->info.unacked) +=
                reply->element[i + 1]->integer;
    }
    w->from += reply->element[0]->integer;
    if (reply->element[0]->integer) {
        count_page(w);
        return;
    }
    w->from = 0;
    apm_redis_req *req = ask(w, &redis_dead_script, NULL, on_dead_page);
    if (!req)
        return;
    apm_redis_addz(req, w->broker->dead);
    apm_redis_addi(req, 0);
    apm_redis_addi(req, 99);
    apm_redis_send(w->broker->base.link, req, w->broker);
}

static void
count_page(walk *w)
{
    apm_redis_req *req = ask(w, &redis_count_script, NULL, on_count_page);
    if (!req)
        return;
    apm_redis_addz(req, w->broker->unacked);
    apm_redis_addz(req, w->broker->index);
    apm_redis_addz(req, PARKED_MARK);
    apm_redis_addi(req, w->from);
    apm_redis_addi(req, w->from + 499);
    apm_redis_send(w->broker->base.link, req, w->broker);
}

static void measure(walk *w);

/* Of the messages that are served next the one that waits longest; 0 when one of them does not say. */
static int64_t
oldest(const redisReply *reply)
{
    int64_t found_us = 0;

    for (size_t i = 1; i + 1 < reply->elements; i += 2) {
        const redisReply *tag = reply->element[i], *eta = reply->element[i + 1];
        int64_t since_us = apm_message_waits_since(
            apm_uuid7_time_us(tag->str, tag->len),
            eta->len ? (apm_str){ eta->str, (size_t)eta->len } : APM_STR_NONE);
        if (!since_us)
            return 0;
        found_us = found_us && found_us < since_us ? found_us : since_us;
    }
    return found_us;
}

static void
on_length(void *arg, const redisReply *reply, const apium_error *err)
{
    walk *w = arg;

    if (err || reply->type != REDIS_REPLY_ARRAY || !reply->elements) {
        walk_end(w, err);
        return;
    }
    w->counting->info.ready = reply->element[0]->integer;
    w->counting->info.oldest_us = oldest(reply);
    w->counting = w->counting->next;
    measure(w);
}

static void
measure(walk *w)
{
    if (!w->counting) {
        if (w->brief)
            walk_end(w, NULL);
        else
            count_page(w);
        return;
    }
    apm_redis_req *req = ask(w, &redis_length_script, NULL, on_length);
    if (!req)
        return;
    /* Not redis_queue_get(): that remembers a name for ever, and here anybody may ask for any. */
    apm_buf list;
    apm_buf_init(&list, 1 << 20);
    for (int s = 0; s < w->broker->n_steps; s++) {
        apm_buf_reset(&list);
        apm_buf_addf(&list, "%s%s", w->broker->prefix, w->counting->info.name);
        if (w->broker->steps[s] != 0)
            apm_buf_addf(&list, "%s%d", w->broker->sep, w->broker->steps[s]);
        apm_redis_add(req, apm_buf_str(&list));
    }
    apm_buf_clear(&list);
    apm_redis_send(w->broker->base.link, req, w->broker);
}

/* ---- names: from the bindings, and (for inspect) from the lists ---- */

static void scan(walk *w, const char *cursor);
static void read_bindings(walk *w);

/* A list's key as the name of a queue: without prefix, up to the last separator. */
static void
note_list(walk *w, apm_str key)
{
    const redis_broker *broker = w->broker;
    size_t prefix = strlen(broker->prefix), sep = strlen(broker->sep);

    if (apm_str_eqz(key, broker->dead) || key.len <= prefix ||
        strncmp(key.p, broker->prefix, prefix) != 0)
        return;
    apm_str name = { key.p + prefix, key.len - prefix };
    for (size_t at = name.len > sep ? name.len - sep : 0; at > 0; at--) {
        if (memcmp(name.p + at, broker->sep, sep) == 0) {
            name.len = at;
            break;
        }
    }
    (void)find(w, name);
}

static void
on_scan(void *arg, const redisReply *reply, const apium_error *err)
{
    walk *w = arg;

    if (err || reply->type != REDIS_REPLY_ARRAY || reply->elements != 2) {
        walk_end(w, err);
        return;
    }
    const redisReply *keys = reply->element[1];
    for (size_t i = 0; i < keys->elements; i++) {
        apm_str key = { keys->element[i]->str, (size_t)keys->element[i]->len };
        if (w->lists)
            note_list(w, key);
        else
            apm_buf_add(&w->keys, key.p, key.len + 1);
    }
    if (strcmp(reply->element[0]->str, "0") != 0) {
        scan(w, reply->element[0]->str);
    } else if (!w->lists) {
        read_bindings(w);
    } else {
        w->counting = w->queues;
        measure(w);
    }
}

static void
scan(walk *w, const char *cursor)
{
    apm_redis_req *req = ask(w, NULL, "SCAN", on_scan);
    apm_buf pattern;

    if (!req)
        return;
    apm_buf_init(&pattern, 1 << 20);
    for (const char *at = w->broker->prefix; *at; at++) {
        if (strchr("*?[]\\", *at))
            apm_buf_addc(&pattern, '\\');
        apm_buf_addc(&pattern, *at);
    }
    apm_buf_addz(&pattern, w->lists ? "*" : "_kombu.binding.*");
    apm_redis_addz(req, cursor);
    apm_redis_addz(req, "MATCH");
    apm_redis_add(req, apm_buf_str(&pattern));
    apm_redis_addz(req, "COUNT");
    apm_redis_addz(req, PAGE);
    apm_redis_addz(req, "TYPE");
    apm_redis_addz(req, w->lists ? "list" : "set");
    apm_redis_send(w->broker->base.link, req, w->broker);
    apm_buf_clear(&pattern);
}

static void
note_binding(walk *w, const char *exchange, apm_str member)
{
    const char *sep = w->broker->sep;
    size_t len = strlen(sep);
    const char *a = memmem(member.p, member.len, sep, len);
    const char *b = a ? memmem(a + len, member.len - (size_t)(a + len - member.p), sep, len) : NULL;

    if (!b)
        return;
    apm_str queue = { b + len, member.len - (size_t)(b + len - member.p) };
    if (w->on_infos) {
        (void)find(w, queue);
        return;
    }
    if (w->n_bindings == w->cap_bindings) {
        size_t cap = w->cap_bindings ? w->cap_bindings * 2 : 32;
        apm_binding *more = realloc(w->bindings, cap * sizeof(*more));
        if (!more)
            return;
        w->bindings = more;
        w->cap_bindings = cap;
    }
    apm_binding one = {
        .queue = apm_arena_printf(&w->arena, "%.*s", APM_STR_ARG(queue)),
        .exchange = exchange,
        .routing_key = apm_arena_printf(&w->arena, "%.*s", (int)(a - member.p), member.p),
    };
    if (one.queue && one.routing_key)
        w->bindings[w->n_bindings++] = one;
}

static void
on_members(void *arg, const redisReply *reply, const apium_error *err)
{
    walk *w = arg;

    if (err || reply->type != REDIS_REPLY_ARRAY) {
        walk_end(w, err);
        return;
    }
    const char *key = w->keys.p + w->keys_at;
    const char *exchange = apm_arena_printf(&w->arena, "%s", strstr(key, "_kombu.binding.") + 15);
    for (size_t i = 0; i < reply->elements && exchange; i++)
        note_binding(w, exchange,
                     (apm_str){ reply->element[i]->str, (size_t)reply->element[i]->len });
    w->keys_at += strlen(key) + 1;
    read_bindings(w);
}

static void
read_bindings(walk *w)
{
    if (w->keys_at >= w->keys.len) {
        if (w->on_infos) {
            w->lists = true;
            scan(w, "0");
        } else {
            walk_end(w, NULL);
        }
        return;
    }
    apm_redis_req *req = ask(w, NULL, "SMEMBERS", on_members);
    if (!req)
        return;
    apm_redis_addz(req, w->keys.p + w->keys_at);
    apm_redis_send(w->broker->base.link, req, w->broker);
}

void
redis_inspect(apm_broker *base, const char *const *queues, size_t n, apm_infos_cb *done, void *arg)
{
    walk *w = walk_new(redis_of(base), arg);

    if (!w)
        return;
    w->on_infos = done;
    w->all = true;
    for (size_t i = 0; queues && i < n; i++)
        (void)find(w, apm_strz(queues[i]));
    if (queues) {
        w->all = false;
        w->counting = w->queues;
        measure(w);
    } else {
        scan(w, "0");
    }
}

void
redis_look(apm_broker *base, const char *const *queues, size_t n, apm_infos_cb *done, void *arg)
{
    walk *w = walk_new(redis_of(base), arg);

    if (!w)
        return;
    w->on_infos = done;
    w->all = w->brief = true;
    for (size_t i = 0; i < n; i++)
        (void)find(w, apm_strz(queues[i]));
    for (found *f = w->queues; f; f = f->next)
        f->info.unacked = f->info.parked = f->info.dead = -1;
    w->counting = w->queues;
    measure(w);
}

void
redis_bindings(apm_broker *base, apm_bindings_cb *done, void *arg)
{
    walk *w = walk_new(redis_of(base), arg);

    if (!w)
        return;
    w->on_bindings = done;
    scan(w, "0");
}

/* ---- purge ---- */

typedef struct purge {
    redis_broker *broker;
    redis_queue *queue;
    int64_t count;
    apm_count_cb *done;
    void *arg;
} purge;

static void purge_page(purge *p);

static void
on_purged(void *arg, const redisReply *reply, const apium_error *err)
{
    purge *p = arg;

    if (!err && reply->type == REDIS_REPLY_ARRAY && reply->elements == 2) {
        p->count += reply->element[0]->integer;
        if (reply->element[1]->integer) {
            purge_page(p);
            return;
        }
    }
    if (p->done)
        p->done(p->arg, err ? err->status : APIUM_OK, p->count, err);
    free(p);
}

static void
purge_page(purge *p)
{
    redis_broker *broker = p->broker;
    apm_redis_req *req = apm_redis_begin_script(broker->base.link, &redis_purge_script, broker->db,
                                                APM_REDIS_UNACKED, on_purged, p);

    if (!req) {
        apium_error err;
        apm_fail(&err, APIUM_E_NOMEM, "cannot purge \"%s\": out of memory", p->queue->name);
        on_purged(p, NULL, &err);
        return;
    }
    apm_redis_addz(req, broker->index);
    apm_redis_addz(req, broker->unacked);
    apm_redis_addz(req, PARKED_MARK);
    apm_redis_addz(req, p->queue->name);
    apm_redis_addz(req, PAGE);
    for (int s = 0; s < broker->n_steps; s++)
        apm_redis_addz(req, p->queue->list[s]);
    apm_redis_send(broker->base.link, req, broker);
}

void
redis_purge(apm_broker *base, const char *queue, apm_count_cb *done, void *arg)
{
    redis_broker *broker = redis_of(base);
    purge *p = calloc(1, sizeof(*p));
    redis_queue *known = p ? redis_queue_get(broker, queue) : NULL;

    if (!known) {
        free(p);
        return;
    }
    *p = (purge){ .broker = broker, .queue = known, .done = done, .arg = arg };
    purge_page(p);
}
