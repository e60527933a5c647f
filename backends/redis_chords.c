/*
 * redis_chords.c - chords in Redis, in Celery's keys, so that workers of both kinds count together: celery-taskset-meta-<group> with .j
 * (the parts: a sorted set by their place, or a list), .s (how many are expected) and .t (how many more), and without a suffix the tree
 * of a group's results. Counting is done by the link's script, which also keeps .i beside a list.
 */
#include <stdio.h>
#include <stdlib.h>

#include "backends/redis.h"
#include "core/base/error.h"
#include "core/base/json.h"
#include "redis_parts.lua.h"

static apm_redis_store *
redis_of(apm_backend *backend)
{
    return (apm_redis_store *)backend;
}

static char *
group_key(const apm_redis_store *backend, apm_str id, const char *suffix)
{
    char *key = NULL;
    int rc =
        asprintf(&key, "%scelery-taskset-meta-%.*s%s", backend->prefix, APM_STR_ARG(id), suffix);
    return rc < 0 ? NULL : key;
}

static apium_status
no_memory(apm_str group_id, apium_error *err)
{
    return apm_fail(err, APIUM_E_NOMEM, "cannot use the chord or group %.*s: out of memory",
                    APM_STR_ARG(group_id));
}

apium_status
apm_redis_expect(apm_backend *base, apm_unit *unit, apm_str group_id, int64_t size,
                 apium_error *err)
{
    apm_redis_store *backend = redis_of(base);
    char *key = group_key(backend, group_id, ".s"), text[24];

    if (!key)
        return no_memory(group_id, err);
    snprintf(text, sizeof(text), "%lld", (long long)size);
    apm_redis_unit_record(unit, backend->db, apm_strz(key), apm_redis_expires_s(base),
                          apm_strz(text));
    free(key);
    return APIUM_OK;
}

apium_status
apm_redis_extend(apm_backend *base, apm_unit *unit, apm_str group_id, int64_t by, apium_error *err)
{
    apm_redis_store *backend = redis_of(base);
    char *key = group_key(backend, group_id, "");

    if (!key)
        return no_memory(group_id, err);
    apm_redis_unit_extend(unit, backend->db, apm_strz(key), by, apm_redis_expires_s(base));
    free(key);
    return APIUM_OK;
}

apium_status
apm_redis_arrive(apm_backend *base, apm_unit *unit, const apm_part *part, apium_error *err)
{
    apm_redis_store *backend = redis_of(base);
    char *key = group_key(backend, part->group_id, ""), score[24];
    apm_buf head;

    snprintf(score, sizeof(score), "%lld", (long long)part->index);
    apm_buf_init(&head, APM_BUF_MAX);
    apm_buf_addz(&head, "[1, ");
    apm_json_add_string(&head, part->task_id);
    apm_buf_addc(&head, ',');
    bool ok = key && !head.failed;
    if (ok)
        apm_redis_unit_arrive(unit, backend->db, apm_strz(key),
                              base->settings->result_chord_ordered,
                              apm_strz(part->index < 0 ? "+inf" : score), apm_buf_str(&head),
                              part->member, apm_redis_expires_s(base));
    apm_buf_clear(&head);
    free(key);
    return ok ? APIUM_OK : no_memory(part->group_id, err);
}

apium_status
apm_redis_claim(apm_backend *base, apm_unit *unit, apm_str group_id, apium_error *err)
{
    apm_redis_store *backend = redis_of(base);
    char *key = group_key(backend, group_id, "");

    if (!key)
        return no_memory(group_id, err);
    apm_redis_unit_claim(unit, backend->db, apm_strz(key));
    free(key);
    return APIUM_OK;
}

/* ---- the parts of a complete header ---- */

typedef struct pages {
    apm_redis_store *backend;
    apm_parts_cb *done;
    void *arg;
    apm_buf last; /* the head of the last part given */
    int64_t at;
    char key[];
} pages;

static void
pages_free(pages *p)
{
    apm_buf_clear(&p->last);
    free(p);
}

/* What a member begins with, up to the end of its id. */
static apm_str
head_of(apm_str member)
{
    size_t i = 0, quotes = 0;
    while (i < member.len && quotes < 2) {
        if (member.p[i] == '"')
            quotes++;
        else if (member.p[i] == '\\' && quotes)
            i++;
        i++;
    }
    return (apm_str){ member.p, i < member.len ? i : member.len };
}

static void on_page(void *arg, const redisReply *reply, const apium_error *err);

static bool
ask_page(pages *p)
{
    apm_link *link = p->backend->base.link;
    apm_redis_req *req = apm_redis_begin_script(link, &redis_parts_script, p->backend->db,
                                                APM_REDIS_REPEAT, on_page, p);

    if (!req)
        return false;
    apm_redis_addz(req, p->key);
    apm_redis_addi(req, p->at);
    apm_redis_addi(req, APM_PARTS_MAX);
    apm_redis_addi(req, APM_PARTS_BYTES);
    apm_redis_send(link, req, p->backend);
    return true;
}

/* Those of the reply that are other parts: what Celery's workers have added twice stands together. False: without memory. */
static bool
take_members(pages *p, const redisReply *list, apm_str *members, size_t *n)
{
    apm_str last = apm_buf_str(&p->last);
    *n = 0;
    for (size_t i = 0; i < list->elements; i++) {
        if (list->element[i]->type != REDIS_REPLY_STRING)
            continue;
        const apm_str member = { list->element[i]->str, (size_t)list->element[i]->len };
        const apm_str head = head_of(member);
        if (apm_str_eq(head, last))
            continue;
        members[(*n)++] = member;
        last = head;
    }
    if (*n) {
        apm_buf_reset(&p->last);
        apm_buf_adds(&p->last, last);
    }
    return !p->last.failed;
}

static bool
makes_sense(const redisReply *reply)
{
    return reply->type == REDIS_REPLY_ARRAY && reply->elements == 4 &&
           reply->element[0]->type == REDIS_REPLY_INTEGER &&
           reply->element[1]->type == REDIS_REPLY_INTEGER &&
           reply->element[3]->type == REDIS_REPLY_ARRAY;
}

static void
on_page(void *arg, const redisReply *reply, const apium_error *err)
{
    pages *p = arg;
    apm_parts_cb *done = p->done;
    void *done_arg = p->arg;
    apium_error own;
    apm_parts parts = { .tree = APM_STR_NONE };
    apm_str *members = NULL;

    if (!err && (reply->type == REDIS_REPLY_NIL ||
                 (makes_sense(reply) && reply->element[0]->integer <= p->at))) {
        apm_fail(&own, APIUM_E_NOTFOUND, "the chord of %s is completed already", p->key);
        err = &own;
    } else if (!err && !makes_sense(reply)) {
        apm_fail(&own, APIUM_E_REFUSED, "Redis gave an answer that makes no sense");
        err = &own;
    }
    if (!err) {
        const redisReply *tree = reply->element[2];
        if (tree->type == REDIS_REPLY_STRING)
            parts.tree = (apm_str){ tree->str, (size_t)tree->len };
        members = calloc(reply->element[3]->elements + 1, sizeof(*members));
        parts.members = members;
        parts.more = reply->element[1]->integer < reply->element[0]->integer;
        p->at = reply->element[1]->integer;
        /* Asked before these are given: whoever takes them may close the backend. */
        if (!members || !take_members(p, reply->element[3], members, &parts.n) ||
            (parts.more && !ask_page(p))) {
            apm_fail(&own, APIUM_E_NOMEM, "cannot gather the parts of a chord: out of memory");
            err = &own;
        }
    }
    if (err || !parts.more)
        pages_free(p);
    done(done_arg, err ? NULL : &parts, err);
    free(members);
}

void
apm_redis_parts(apm_backend *base, const char *group_id, apm_parts_cb *done, void *arg)
{
    apm_redis_store *backend = redis_of(base);
    char *key = group_key(backend, apm_strz(group_id), "");
    pages *p = key ? calloc(1, sizeof(*p) + strlen(key) + 1) : NULL;

    if (p) {
        p->backend = backend;
        p->done = done;
        p->arg = arg;
        apm_buf_init(&p->last, APM_BUF_MAX);
        memcpy(p->key, key, strlen(key) + 1);
    }
    free(key);
    if (!p || !ask_page(p)) {
        apium_error err;
        (void)no_memory(apm_strz(group_id), &err);
        free(p);
        done(arg, NULL, &err);
    }
}

/* ---- saved groups ---- */

apium_status
apm_redis_save_group(apm_backend *base, apm_unit *unit, apm_str group_id, apm_str doc,
                     apium_error *err)
{
    apm_redis_store *backend = redis_of(base);
    char *key = group_key(backend, group_id, "");

    if (!key)
        return no_memory(group_id, err);
    apm_redis_unit_record(unit, backend->db, apm_strz(key), apm_redis_expires_s(base), doc);
    free(key);
    return APIUM_OK;
}

void
apm_redis_fetch_group(apm_backend *base, const char *group_id, apm_fetch_cb *done, void *arg)
{
    char *key = group_key(redis_of(base), apm_strz(group_id), "");

    apm_redis_fetch_key(redis_of(base), key, done, arg);
    free(key);
}

void
apm_redis_forget_group(apm_backend *base, const char *group_id, apm_backend_done *done, void *arg)
{
    char *key = group_key(redis_of(base), apm_strz(group_id), "");

    apm_redis_forget_key(redis_of(base), key, done, arg);
    free(key);
}
