/* keys.c - documents under Celery's keys: what any HTTP store can do, and waiting for them. */
#include "web/inner.h"

#include <stdlib.h>

#define KEYS_MAX 1000 /* in one request */

void
apm_key_discover(apm_web_call *call)
{
    apm_buf body;
    apm_buf_init(&body, 1024);
    apm_buf_addz(&body,
                 "{\"apium\": 1, \"abilities\": [\"conditional\", \"keys\", \"units\", \"wait\", "
                 "\"watches\"");
    if (apm_backend_can(call->web->backend, APM_BACKEND_BARRIER))
        apm_buf_addz(&body, ", \"chords\"");
    apm_buf_addz(&body, "]}");
    apm_web_answer(call, 200, &body);
}

static void
on_done(void *arg, apium_status status, const apium_error *err)
{
    apm_web_call *call = arg;
    if (status == APIUM_OK)
        apm_web_answer(call, 204, NULL);
    else
        apm_web_fail(call, err);
}

static void
answer_document(apm_web_call *call, apm_str doc)
{
    char etag[APM_ETAG_MAX];
    apm_etag(doc, etag);
    if (apm_web_has(call, etag)) {
        const apm_http_header header = { "ETag", etag };
        apm_web_reply(call,
                      &(apm_http_reply){
                          .status = 304, .body = APM_STR(""), .headers = &header, .n_headers = 1 });
    } else {
        apm_web_document(call, doc, etag);
    }
}

static void
on_fetched(void *arg, apm_str doc, const apium_error *err)
{
    apm_web_call *call = arg;
    if (err)
        apm_web_fail(call, err);
    else if (!apm_str_is(doc))
        apm_web_error(call, 404, "there is no such key");
    else
        answer_document(call, doc);
}

/* ---- waiting for a document that the asker does not have ---- */

static bool
is_other(const apm_web_call *call, apm_str doc)
{
    char etag[APM_ETAG_MAX];
    apm_etag(doc, etag);
    return !apm_web_has(call, etag);
}

static void
answer_wait(apm_web_call *call, apm_str doc)
{
    on_fetched(call, doc, NULL);
}

/* ---- tasks ---- */

void
apm_task_key_get(apm_web_call *call)
{
    int64_t wait_ms = apm_web_wait_ms(call, "wait");
    if (wait_ms > 0)
        apm_web_wait(call, wait_ms, is_other, answer_wait);
    else if (wait_ms == 0)
        call->web->backend->ops->fetch(call->web->backend, call->args[0].p, on_fetched, call);
}

/* `op` so far, then the body, which is JSON. */
static void
put_body(apm_web_call *call, apm_buf *op, const apm_json *body)
{
    apm_buf_adds(op, body->text);
    apm_buf_addc(op, ']');
    apm_units_one(call, APM_STR_NONE, op);
}

void
apm_task_key_put(apm_web_call *call)
{
    apm_json doc, status;
    apm_buf op;
    if (!apm_web_json(call, APM_JSON_OBJECT, &doc))
        return;
    status = apm_json_get(doc, "status");
    if (status.type != APM_JSON_STRING) {
        apm_web_error(call, 400, "a result document has a \"status\"");
        return;
    }
    apm_buf_init(&op, APM_BUF_MAX);
    apm_buf_addz(&op, "[\"record\", ");
    apm_json_add_string(&op, call->args[0]);
    apm_buf_addz(&op, ", ");
    apm_buf_adds(&op, status.text);
    apm_buf_addz(&op, ", ");
    put_body(call, &op, &doc);
}

void
apm_task_key_delete(apm_web_call *call)
{
    call->web->backend->ops->forget(call->web->backend, call->args[0].p, on_done, call);
}

/* ---- groups ---- */

static bool
groups(apm_web_call *call)
{
    if (call->web->backend->ops->fetch_group)
        return true;
    apm_web_error(call, 501, "this store keeps no groups");
    return false;
}

void
apm_group_key_get(apm_web_call *call)
{
    if (groups(call))
        call->web->backend->ops->fetch_group(call->web->backend, call->args[0].p, on_fetched, call);
}

void
apm_group_key_put(apm_web_call *call)
{
    apm_json doc;
    apm_buf op;
    if (!groups(call) || !apm_web_json(call, APM_JSON_OBJECT, &doc))
        return;
    apm_buf_init(&op, APM_BUF_MAX);
    apm_buf_addz(&op, "[\"group\", ");
    apm_json_add_string(&op, call->args[0]);
    apm_buf_addz(&op, ", ");
    put_body(call, &op, &doc);
}

void
apm_group_key_delete(apm_web_call *call)
{
    if (groups(call))
        call->web->backend->ops->forget_group(call->web->backend, call->args[0].p, on_done, call);
}

/* ---- many at once ---- */

typedef struct many {
    apm_web_call *call;
    size_t left, n;
    apium_error err; /* of one that cannot be read */
    struct one {
        struct many *many;
        apm_str id, doc;
    } ones[];
} many;

static void
many_end(many *m)
{
    apm_buf body;
    apm_buf_init(&body, APM_BUF_MAX);
    apm_buf_addc(&body, '{');
    for (size_t i = 0, given = 0; i < m->n; i++) {
        if (!apm_str_is(m->ones[i].doc))
            continue;
        apm_buf_addz(&body, given++ ? ", " : "");
        apm_json_add_string(&body, m->ones[i].id);
        apm_buf_addz(&body, ": ");
        apm_buf_adds(&body, m->ones[i].doc);
    }
    apm_buf_addc(&body, '}');
    apm_web_call *call = m->call; /* what was asked dies with it, m included */
    if (m->err.status != APIUM_OK) {
        apm_buf_clear(&body);
        apm_web_fail(call, &m->err);
        return;
    }
    apm_web_answer(call, 200, &body);
}

static void
on_one(void *arg, apm_str doc, const apium_error *err)
{
    struct one *one = arg;
    many *m = one->many;
    bool ok = true;
    if (err)
        m->err = *err;
    one->doc = apm_arena_str(&m->call->arena, doc, &ok);
    if (!ok)
        (void)apm_fail(&m->err, APIUM_E_NOMEM, "cannot read many results: out of memory");
    if (--m->left == 0)
        many_end(m);
}

void
apm_keys_post(apm_web_call *call)
{
    apm_json body, id;
    apm_json_iter it;
    apm_str key;
    if (!apm_web_json(call, APM_JSON_ARRAY, &body))
        return;
    size_t n = apm_json_count(body);
    many *m =
        n <= KEYS_MAX ? apm_arena_alloc(&call->arena, sizeof(*m) + n * sizeof(m->ones[0])) : NULL;
    if (!m) {
        apm_web_error(call, 413, "at most %d ids at once", KEYS_MAX);
        return;
    }
    m->call = call;
    (void)apm_json_open(&it, body.text, NULL);
    while (apm_json_next(&it, &key, &id, NULL) > 0) {
        struct one *one = &m->ones[m->n++];
        const char *text;
        one->many = m;
        if (apm_json_cstr(id, "an id", &call->arena, &text, NULL) != APIUM_OK ||
            !apm_web_id_ok(apm_strz(text))) {
            apm_web_error(call, 400, "item %zu is not an id", m->n - 1);
            return;
        }
        one->id = apm_strz(text);
    }
    m->left =
        n + 1; /* one that is answered from inside the call, without memory, does not end it */
    for (size_t i = 0; i < n; i++)
        call->web->backend->ops->fetch(call->web->backend, m->ones[i].id.p, on_one, &m->ones[i]);
    if (--m->left == 0)
        many_end(m);
}
