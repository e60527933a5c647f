/*
 * http.c - the result backend for http:// and https://, and for couchdb://, consul://, elasticsearch:// and s3://: Celery's documents under
 * Celery's keys (docs/http-result-protocol.md). What commits, what is sent again and what form it has there is the link's business.
 */
#include "backends/http.h"

#include <stdlib.h>

#include "core/base/error.h"
#include "core/base/json.h"

static apm_http_store *
store_of(apm_backend *backend)
{
    return (apm_http_store *)backend;
}

void
apm_http_task_key(apm_buf *buf, apm_str task_id)
{
    apm_buf_addz(buf, "celery-task-meta-");
    apm_buf_adds(buf, task_id);
}

static void
group_key(apm_buf *buf, apm_str group_id)
{
    apm_buf_addz(buf, "celery-taskset-meta-");
    apm_buf_adds(buf, group_id);
}

/* ---- what units do ---- */

static apium_status
add(apm_backend *backend, apm_unit *unit, apm_buf *head, const apm_buf *key, apm_http_op op,
    apium_error *err)
{
    double expires_s = backend->settings ? backend->settings->result_expires : 0;
    apium_status st = head->failed || (key && key->failed)
                          ? apm_fail(err, APIUM_E_INVALID,
                                     "cannot store a result: its id is too long, or no UTF-8")
                          : APIUM_OK;
    op.head = apm_buf_str(head);
    op.key = key ? key->p : NULL;
    if (st == APIUM_OK)
        st = apm_http_add(unit, &op, expires_s > 0 ? expires_s : 0, err);
    apm_buf_clear(head);
    return st;
}

static void
begin(apm_buf *head, const char *name, apm_str id)
{
    apm_buf_init(head, 65536);
    apm_buf_addf(head, "[\"%s\", ", name);
    apm_json_add_string(head, id);
}

/* A document is JSON inside of the request, and is looked at by whoever serves it. */
static apium_status
check_json(apm_str doc, apium_error *err)
{
    apm_json json;
    return apm_json_parse(doc, &json, err);
}

static apium_status
backend_record(apm_backend *base, apm_unit *unit, const apm_record *record, apium_error *err)
{
    apm_buf head, key;
    apium_status st = check_json(record->doc, err);
    if (st != APIUM_OK)
        return st;
    begin(&head, "record", record->task_id);
    apm_buf_addz(&head, ", ");
    apm_json_add_string(&head, record->state);
    apm_buf_addz(&head, ", ");
    apm_buf_init(&key, 65536);
    apm_http_task_key(&key, record->task_id);
    st = add(base, unit, &head, &key, (apm_http_op){ .doc = record->doc, .unless_success = true },
             err);
    apm_buf_clear(&key);
    return st;
}

static apium_status
backend_save_group(apm_backend *base, apm_unit *unit, apm_str group_id, apm_str doc,
                   apium_error *err)
{
    apm_buf head, key;
    apium_status st = check_json(doc, err);
    if (st != APIUM_OK)
        return st;
    begin(&head, "group", group_id);
    apm_buf_addz(&head, ", ");
    apm_buf_init(&key, 65536);
    group_key(&key, group_id);
    st = add(base, unit, &head, &key, (apm_http_op){ .doc = doc }, err);
    apm_buf_clear(&key);
    return st;
}

static apium_status
backend_expect(apm_backend *base, apm_unit *unit, apm_str group_id, int64_t size, apium_error *err)
{
    apm_buf head;
    begin(&head, "expect", group_id);
    apm_buf_addf(&head, ", %lld", (long long)size);
    return add(base, unit, &head, NULL, (apm_http_op){ 0 }, err);
}

static apium_status
backend_extend(apm_backend *base, apm_unit *unit, apm_str group_id, int64_t by, apium_error *err)
{
    apm_buf head;
    begin(&head, "extend", group_id);
    apm_buf_addf(&head, ", %lld", (long long)by);
    return add(base, unit, &head, NULL, (apm_http_op){ .once = true }, err);
}

static apium_status
backend_arrive(apm_backend *base, apm_unit *unit, const apm_part *part, apium_error *err)
{
    apm_buf head;
    apium_status st = check_json(part->member, err);
    if (st != APIUM_OK)
        return st;
    begin(&head, "arrive", part->group_id);
    apm_buf_addz(&head, ", ");
    apm_json_add_string(&head, part->task_id);
    apm_buf_addf(&head, ", %lld, ", (long long)part->index);
    st = add(base, unit, &head, NULL, (apm_http_op){ .doc = part->member }, err);
    if (st == APIUM_OK)
        unit->arrivals++;
    return st;
}

static apium_status
backend_claim(apm_backend *base, apm_unit *unit, apm_str group_id, apium_error *err)
{
    apm_buf head;
    begin(&head, "take", group_id);
    return add(base, unit, &head, NULL, (apm_http_op){ .once = true }, err);
}

static apium_status
backend_reserve(apm_backend *base, apm_unit *unit, apm_str group_id, apm_str claimant,
                apium_error *err)
{
    apm_buf head;
    begin(&head, "claim", group_id);
    apm_buf_addz(&head, ", ");
    apm_json_add_string(&head, claimant);
    return add(base, unit, &head, NULL, (apm_http_op){ 0 }, err);
}

/* ---- fetching and forgetting ---- */

typedef struct one {
    apm_fetch_cb *fetched;
    apm_backend_done *done;
    void *arg;
} one;

static void
on_fetched(void *arg, apm_str doc, const apium_error *err)
{
    one o = *(one *)arg;
    free(arg);
    o.fetched(o.arg, doc, err);
}

static void
on_forgotten(void *arg, apm_str doc, const apium_error *err)
{
    one o = *(one *)arg;
    (void)doc;
    free(arg);
    if (o.done)
        o.done(o.arg, err ? err->status : APIUM_OK, err);
}

/* What was asked is owned by itself: it is answered even when the backend closes, for its memory's sake only. */
static void
ask(apm_backend *base, apm_buf *key, one with)
{
    one *o = key->failed ? NULL : malloc(sizeof(*o));
    if (!o) {
        apium_error err;
        apium_status st = apm_fail(&err, APIUM_E_NOMEM, "cannot ask for a result: out of memory");
        if (with.fetched)
            with.fetched(with.arg, APM_STR_NONE, &err);
        else if (with.done)
            with.done(with.arg, st, &err);
        return;
    }
    *o = with;
    apm_http_do(base->link,
                &(apm_http_task){ .verb = with.fetched ? APM_HTTP_READ : APM_HTTP_DELETE,
                                  .key = apm_buf_str(key),
                                  .owner = base,
                                  .done = with.fetched ? on_fetched : on_forgotten,
                                  .arg = o,
                                  .release = free });
}

static void
ask_task(apm_backend *base, const char *task_id, one with)
{
    apm_buf key;
    apm_buf_init(&key, 65536);
    apm_http_task_key(&key, apm_strz(task_id));
    ask(base, &key, with);
    apm_buf_clear(&key);
}

static void
ask_group(apm_backend *base, const char *group_id, one with)
{
    apm_buf key;
    apm_buf_init(&key, 65536);
    group_key(&key, apm_strz(group_id));
    ask(base, &key, with);
    apm_buf_clear(&key);
}

static void
backend_fetch(apm_backend *base, const char *task_id, apm_fetch_cb *done, void *arg)
{
    ask_task(base, task_id, (one){ .fetched = done, .arg = arg });
}

static void
backend_forget(apm_backend *base, const char *task_id, apm_backend_done *done, void *arg)
{
    ask_task(base, task_id, (one){ .done = done, .arg = arg });
}

static void
backend_fetch_group(apm_backend *base, const char *group_id, apm_fetch_cb *done, void *arg)
{
    ask_group(base, group_id, (one){ .fetched = done, .arg = arg });
}

static void
backend_forget_group(apm_backend *base, const char *group_id, apm_backend_done *done, void *arg)
{
    ask_group(base, group_id, (one){ .done = done, .arg = arg });
}

/* ---- the parts of a complete header: all of them come at once, and are given a page at a time ---- */

struct apm_http_parts {
    apm_http_store *store; /* NULL: nobody is there to hear it */
    apm_http_parts *prev, *next;
    apm_parts_cb *done;
    void *arg;
    char *text; /* the answer */
    apm_arena arena;
    apm_str *members;
    apm_str tree;
    size_t n, at;
    char group_id[];
};

static void
parts_free(apm_http_parts *p)
{
    if (p->store) {
        *(p->prev ? &p->prev->next : &p->store->parts) = p->next;
        if (p->next)
            p->next->prev = p->prev;
    }
    apm_arena_clear(&p->arena);
    free(p->text);
    free(p);
}

static void
parts_fail(apm_http_parts *p, const apium_error *err)
{
    apm_parts_cb *done = p->store ? p->done : NULL;
    void *arg = p->arg;
    apium_error kept = *err;
    parts_free(p);
    if (done)
        done(arg, NULL, &kept);
}

static void on_checked(void *arg, apium_status status, const apium_error *err);

/* The next page; behind the first one only when the header is still there. */
static void
give_page(apm_http_parts *p)
{
    size_t n = 0, bytes = 0;
    while (p->at + n < p->n && n < APM_PARTS_MAX && bytes < APM_PARTS_BYTES)
        bytes += p->members[p->at + n++].len;
    const apm_parts page = { .members = p->members + p->at,
                             .n = n,
                             .tree = p->at ? APM_STR_NONE : p->tree,
                             .more = p->at + n < p->n };
    p->at += n;
    p->done(p->arg, &page, NULL); /* may close the backend */
    if (!page.more) {
        parts_free(p);
        return;
    }
    apium_error err;
    apm_buf head;
    if (!p->store) {
        parts_free(p);
        return;
    }
    apm_unit *unit = apm_unit_new(p->store->base.link);
    begin(&head, "check", apm_strz(p->group_id));
    apium_status st =
        unit ? add(&p->store->base, unit, &head, NULL, (apm_http_op){ 0 }, &err)
             : apm_fail(&err, APIUM_E_NOMEM, "cannot gather the parts of a chord: out of memory");
    if (st != APIUM_OK) {
        apm_buf_clear(&head);
        apm_unit_drop(unit);
        parts_fail(p, &err);
        return;
    }
    apm_unit_commit(unit, on_checked, p);
}

static void
on_checked(void *arg, apium_status status, const apium_error *err)
{
    apm_http_parts *p = arg;
    if (!p->store)
        parts_free(p);
    else if (status != APIUM_OK)
        parts_fail(p, err);
    else
        give_page(p);
}

static apium_status
read_parts(apm_http_parts *p, apm_str body, apium_error *err)
{
    apm_json doc, list, val;
    apm_json_iter it;
    apm_str key;
    if (!(p->text = malloc(body.len + 1)))
        return apm_fail(err, APIUM_E_NOMEM, "cannot gather the parts of a chord: out of memory");
    memcpy(p->text, body.p, body.len);
    if (apm_json_parse((apm_str){ p->text, body.len }, &doc, NULL) != APIUM_OK ||
        (list = apm_json_get(doc, "parts")).type != APM_JSON_ARRAY)
        return apm_fail(err, APIUM_E_REFUSED,
                        "cannot gather the parts of a chord: %s gave an answer that makes no sense",
                        p->store->base.link->shown);
    p->members = apm_arena_alloc(&p->arena, (apm_json_count(list) + 1) * sizeof(apm_str));
    if (!p->members)
        return apm_fail(err, APIUM_E_NOMEM, "cannot gather the parts of a chord: out of memory");
    apm_json tree = apm_json_get(doc, "tree");
    p->tree = tree.type == APM_JSON_OBJECT ? tree.text : APM_STR_NONE;
    (void)apm_json_open(&it, list.text, NULL);
    while (apm_json_next(&it, &key, &val, NULL) > 0)
        p->members[p->n++] = val.text;
    return APIUM_OK;
}

static void
on_parts(void *arg, int status, apm_str body, const apium_error *err)
{
    apm_http_parts *p = arg;
    apium_error own;
    apium_status st;
    if (!status)
        st = err->status;
    else if (status == 404)
        st = apm_fail(&own, APIUM_E_NOTFOUND, "the chord %s is completed already", p->group_id);
    else if (status != 200)
        st = apm_fail(&own, APIUM_E_REFUSED, "cannot gather the parts of chord %s: %s answers %d",
                      p->group_id, p->store->base.link->shown, status);
    else
        st = read_parts(p, body, &own);
    if (st != APIUM_OK)
        parts_fail(p, status ? &own : err);
    else
        give_page(p);
}

static void
release_parts(void *arg)
{
    parts_free(arg);
}

static void
backend_parts(apm_backend *base, const char *group_id, apm_parts_cb *done, void *arg)
{
    apm_http_store *store = store_of(base);
    apm_http_parts *p = calloc(1, sizeof(*p) + strlen(group_id) + 1);
    apm_buf path;
    apm_buf_init(&path, 65536);
    apm_buf_addz(&path, "celery-taskset-meta-");
    apm_http_escape(&path, apm_strz(group_id));
    apm_buf_addz(&path, "/parts");
    if (!p || path.failed) {
        apium_error err;
        (void)apm_fail(&err, APIUM_E_NOMEM, "cannot gather the parts of a chord: out of memory");
        apm_buf_clear(&path);
        free(p);
        done(arg, NULL, &err);
        return;
    }
    p->store = store;
    p->done = done;
    p->arg = arg;
    memcpy(p->group_id, group_id, strlen(group_id) + 1);
    p->next = store->parts;
    if (p->next)
        p->next->prev = p;
    store->parts = p;
    apm_http_ask(base->link, &(apm_http_asked){ .method = "GET",
                                                .path = path.p,
                                                .owner = base,
                                                .done = on_parts,
                                                .arg = p,
                                                .release = release_parts });
    apm_buf_clear(&path);
}

/* ---- its life ---- */

static void
on_known(void *arg, unsigned abilities)
{
    apm_http_store *store = arg;
    store->known = true;
    store->abilities = abilities;
    store->base.features &= ~(uint32_t)APM_BACKEND_UNKNOWN;
    if (abilities & APM_HTTP_CHORDS)
        store->base.features |= APM_BACKEND_BARRIER;
}

static void
on_flush(void *arg)
{
    apm_http_store *store = arg;
    if (store->known)
        apm_http_watch_flush(store);
}

static apium_status
backend_open(apm_backend *base, apium_error *err)
{
    apm_http_store *store = store_of(base);
    apium_status st = apm_http_watch_open(store, err);
    if (st != APIUM_OK)
        return st;
    store->listener =
        (apm_http_listener){ .on_known = on_known, .on_flush = on_flush, .arg = store };
    apm_http_listen(base->link, &store->listener);
    return APIUM_OK;
}

static void
backend_close(apm_backend *base)
{
    apm_http_store *store = store_of(base);
    apm_http_unlisten(base->link, &store->listener);
    apm_http_leave(base->link, base);
    for (apm_http_parts *p = store->parts, *next; p; p = next) {
        next = p->next;
        p->prev = p->next = NULL;
        p->store = NULL; /* its check is under way, or its page is being given */
    }
    store->parts = NULL;
    apm_http_watch_close(store);
}

static const char *const schemes[] = { "http", "https", APM_HTTP_PRESETS, NULL };

const apm_backend_ops apm_http_backend = {
    .name = "http",
    .schemes = schemes,
    .size = sizeof(apm_http_store),
    .features = APM_BACKEND_UNKNOWN,
    .open = backend_open,
    .close = backend_close,
    .record = backend_record,
    .expect = backend_expect,
    .extend = backend_extend,
    .arrive = backend_arrive,
    .reserve = backend_reserve,
    .claim = backend_claim,
    .parts = backend_parts,
    .save_group = backend_save_group,
    .fetch_group = backend_fetch_group,
    .forget_group = backend_forget_group,
    .fetch = backend_fetch,
    .watch = apm_http_watch,
    .unwatch = apm_http_unwatch,
    .forget = backend_forget,
};
