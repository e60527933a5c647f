/*
 * units.c - units: operations that the store commits together, many units in one request, each answered by itself.
 *
 *   parse all ──▶ which were applied before? ──▶ commit, in order ──▶ checks, claims ──▶ answer
 *
 * A unit may be sent again, for its sender cannot know whether a lost answer meant a lost request. Most operations may simply be
 * applied again; "extend" and "take" may not. A unit that has one of them has a token, and leaves a mark under it that is committed
 * together with it: who finds the mark leaves those operations out. Two requests with one token at the same time are one too many:
 * the second is asked to come back.
 */
#include "web/op.h"

#include <stdio.h>
#include <stdlib.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "core/base/error.h"

#define UNITS_MAX    2000
#define ARRIVALS_MAX 32
#define TOKEN_MAX    128

/* Tokens under way in this process. */
typedef struct token {
    UT_hash_handle hh;
    char text[];
} token;

struct apm_units_store {
    token *tokens;
};

typedef struct unit {
    struct batch *batch;
    apm_json ops;
    double expires_s; /* negative: the settings' */
    token *token;     /* NULL: nothing in it is once */
    bool once, done_before, asked_again;
    uint32_t completed;
    unsigned checks, arrivals, others; /* checks: claims among them */
    apium_status status;
    apium_error err;
} unit;

typedef struct batch {
    apm_web_call *call;
    void (*answer)(struct batch *batch);
    size_t n, left;
    unit *units;
} batch;

/* The head of a take's or an extension's mark among the documents. */
static char *
mark_id(const token *t)
{
    char *id = NULL;
    return asprintf(&id, "apium-once/%s", t->text) < 0 ? NULL : id;
}

/* ---- reading ---- */

/* Read every operation of a unit once, so that nothing is applied of a batch that makes no sense. */
static apium_status
survey(batch *b, unit *u, apm_arena *scratch, apium_error *err)
{
    apm_json_iter it;
    apm_json val;
    apm_str key;
    apm_op o;
    if (u->ops.type != APM_JSON_ARRAY)
        return apm_fail(err, APIUM_E_INVALID, "a unit has \"ops\", an array");
    (void)apm_json_open(&it, u->ops.text, NULL);
    while (apm_json_next(&it, &key, &val, NULL) > 0) {
        apium_status st = apm_op_read(b->call->web, val, scratch, &o, err);
        if (st != APIUM_OK)
            return st;
        const bool asks = o.kind == APM_OP_CHECK || o.kind == APM_OP_CLAIM;
        u->once = u->once || o.kind == APM_OP_EXTEND || o.kind == APM_OP_TAKE;
        u->checks += asks;
        u->arrivals += o.kind == APM_OP_ARRIVE;
        u->others += !asks;
    }
    if (u->arrivals > ARRIVALS_MAX)
        return apm_fail(err, APIUM_E_INVALID, "at most %d arrivals in a unit", ARRIVALS_MAX);
    if (u->checks && (u->others || u->checks > 1))
        return apm_fail(err, APIUM_E_INVALID, "a check or a claim is a unit of its own");
    return APIUM_OK;
}

/* Two requests of one token at a time: E_BUSY. */
static apium_status
take_token(batch *b, unit *u, apm_str text, apium_error *err)
{
    apm_units_store *store = b->call->web->units;
    token *t;
    if (!u->once || !apm_str_is(text))
        return APIUM_OK;
    if (text.len == 0 || text.len > TOKEN_MAX || memchr(text.p, '\0', text.len))
        return apm_fail(err, APIUM_E_INVALID, "a unit's id has 1 to %d bytes", TOKEN_MAX);
    HASH_FIND(hh, store->tokens, text.p, text.len, t);
    if (t)
        return apm_fail(err, APIUM_E_BUSY, "that unit is under way already");
    t = calloc(1, sizeof(*t) + text.len + 1);
    if (!t)
        return apm_fail(err, APIUM_E_NOMEM, "out of memory");
    memcpy(t->text, text.p, text.len);
    HASH_ADD_KEYPTR(hh, store->tokens, t->text, text.len, t);
    if (!t->hh.tbl) {
        free(t);
        return apm_fail(err, APIUM_E_NOMEM, "out of memory");
    }
    u->token = t;
    return APIUM_OK;
}

static apium_status
read_unit(batch *b, unit *u, apm_json val, apm_arena *scratch, apium_error *err)
{
    apm_json id = apm_json_get(val, "id"), expires = apm_json_get(val, "expires");
    apm_str text = APM_STR_NONE;
    apium_status st = APIUM_OK;
    *u = (unit){ .batch = b, .ops = apm_json_get(val, "ops"), .expires_s = -1 };
    if (expires.type != APM_JSON_NONE && expires.type != APM_JSON_NULL)
        st = apm_json_double(expires, "expires", &u->expires_s, err);
    if (st == APIUM_OK && !(u->expires_s >= -1 && u->expires_s < 1e10))
        st = apm_fail(err, APIUM_E_INVALID, "expires is a number of seconds");
    if (st == APIUM_OK && id.type != APM_JSON_NONE && id.type != APM_JSON_NULL)
        st = apm_json_string(id, "id", scratch, &text, err);
    if (st == APIUM_OK)
        st = survey(b, u, scratch, err);
    if (st == APIUM_OK)
        st = take_token(b, u, text, err);
    return st;
}

static void
release_tokens(batch *b)
{
    apm_units_store *store = b->call->web->units;
    for (size_t i = 0; i < b->n; i++) {
        token *t = b->units[i].token;
        if (!t)
            continue;
        HASH_DEL(store->tokens, t);
        free(t);
        b->units[i].token = NULL;
    }
}

/* The request as a whole has failed, and is to come again. */
static void
fail_all(batch *b, const apium_error *err)
{
    apm_web_call *call = b->call;
    const apium_error why = *err;
    release_tokens(b);
    apm_web_fail(call, &why);
}

/* ---- applying ---- */

static void finish(batch *b);

static void
unit_known(unit *u, apium_status status, const apium_error *err)
{
    u->status = status;
    if (status != APIUM_OK && err)
        u->err = *err;
    if (--u->batch->left == 0)
        finish(u->batch);
}

static apium_status
append_ops(apm_web *web, unit *u, apm_unit *to, apium_error *err)
{
    apm_arena scratch = { 0 };
    apm_json_iter it;
    apm_json val;
    apm_str key;
    apium_status st = APIUM_OK;
    (void)apm_json_open(&it, u->ops.text, NULL);
    while (st == APIUM_OK && apm_json_next(&it, &key, &val, NULL) > 0) {
        apm_op o;
        st = apm_op_read(web, val, &scratch, &o, err);
        if (st == APIUM_OK)
            st = apm_op_append(web, to, &o, u->done_before, err);
    }
    char *mark = st == APIUM_OK && u->token && !u->done_before ? mark_id(u->token) : NULL;
    if (web->store_settings.result_expires == 0) /* for ever: not the marks */
        web->store_settings.result_expires = 86400;
    if (mark)
        st = web->backend->ops->record(web->backend, to,
                                       &(apm_record){ .task_id = apm_strz(mark),
                                                      .state = APM_STR("ONCE"),
                                                      .doc = APM_STR("{\"status\": \"ONCE\"}") },
                                       err);
    else if (st == APIUM_OK && u->token && !u->done_before)
        st = apm_fail(err, APIUM_E_NOMEM, "out of memory");
    free(mark);
    apm_arena_clear(&scratch);
    return st;
}

static void commit(unit *u);

/* Refused, but perhaps only because another server of this store had applied it already. */
static void
on_refused_mark(void *arg, apm_str doc, const apium_error *err)
{
    unit *u = arg;
    if (!err && apm_str_is(doc)) {
        u->done_before = true;
        commit(u);
        return;
    }
    unit_known(u, APIUM_E_NOTFOUND, &u->err);
}

static void
on_committed(void *arg, apium_status status, const apium_error *err)
{
    unit *u = arg;
    char *mark;
    if (status == APIUM_E_NOTFOUND && u->token && !u->asked_again && (mark = mark_id(u->token))) {
        u->asked_again = true;
        u->err = *err;
        u->batch->call->web->backend->ops->fetch(u->batch->call->web->backend, mark,
                                                 on_refused_mark, u);
        free(mark);
        return;
    }
    unit_known(u, status, err);
}

static void
commit(unit *u)
{
    apm_web *web = u->batch->call->web;
    apium_error err;
    double kept = web->store_settings.result_expires;
    apm_unit *to = apm_unit_new(web->backend->link);
    apium_status st = APIUM_OK;
    u->completed = 0;
    if (!to) {
        unit_known(u, apm_fail(&err, APIUM_E_NOMEM, "out of memory"), &err);
        return;
    }
    to->completed = &u->completed;
    /* Adapters read the setting when an operation is appended. */
    if (u->expires_s >= 0)
        web->store_settings.result_expires = u->expires_s;
    st = append_ops(web, u, to, &err);
    web->store_settings.result_expires = kept;
    if (st != APIUM_OK) {
        apm_unit_drop(to);
        unit_known(u, st, &err);
        return;
    }
    apm_unit_commit(to, on_committed, u);
}

static void
commit_all(batch *b)
{
    /* One more than there are, so that it does not end in the midst of this. */
    b->left = 1;
    for (size_t i = 0; i < b->n; i++)
        b->left += b->units[i].checks == 0;
    for (size_t i = 0; i < b->n; i++)
        if (b->units[i].checks == 0)
            commit(&b->units[i]);
    if (--b->left == 0)
        finish(b);
}

static void
on_mark(void *arg, apm_str doc, const apium_error *err)
{
    unit *u = arg;
    batch *b = u->batch;
    if (err) {
        u->status = err->status;
        u->err = *err;
    }
    u->done_before = !err && apm_str_is(doc);
    if (--b->left)
        return;
    for (size_t i = 0; i < b->n; i++)
        if (b->units[i].status != APIUM_OK) {
            fail_all(b, &b->units[i].err);
            return;
        }
    commit_all(b);
}

static void
ask_marks(batch *b)
{
    apm_web *web = b->call->web;
    size_t asked = 0;
    for (size_t i = 0; i < b->n; i++)
        asked += b->units[i].token != NULL;
    if (!asked) {
        commit_all(b);
        return;
    }
    b->left = asked;
    for (size_t i = 0; asked && i < b->n; i++) {
        if (!b->units[i].token)
            continue;
        char *mark = mark_id(b->units[i].token);
        asked--;
        if (mark) {
            web->backend->ops->fetch(web->backend, mark, on_mark, &b->units[i]);
        } else {
            apium_error err;
            (void)apm_fail(&err, APIUM_E_NOMEM, "out of memory");
            on_mark(&b->units[i], APM_STR_NONE, &err);
        }
        free(mark);
    }
}

/* ---- checks and claims: what comes after all that was committed ---- */

static void next_check(batch *b);

static void
on_checked(void *arg, apium_status status, const apium_error *err)
{
    unit *u = arg;
    u->checks = 0;
    u->status = status;
    if (status != APIUM_OK)
        u->err = *err;
    next_check(u->batch);
}

static void
next_check(batch *b)
{
    apm_web *web = b->call->web;
    for (size_t i = 0; i < b->n; i++) {
        unit *u = &b->units[i];
        apm_op o;
        if (!u->checks)
            continue;
        if (apm_op_read(web, apm_json_at(u->ops, 0), &b->call->arena, &o, &u->err) != APIUM_OK) {
            u->checks = 0;
            u->status = apm_fail(&u->err, APIUM_E_NOMEM, "out of memory");
            continue;
        }
        if (o.kind == APM_OP_CLAIM)
            apm_header_claim(web, o.text[0].p, o.text[1], u->expires_s, on_checked, u);
        else
            apm_header_look(web, o.text[0].p, on_checked, u);
        return;
    }
    b->answer(b);
}

static void
finish(batch *b)
{
    next_check(b);
}

/* ---- answering ---- */

/* The first unit whose fate is the store's being away, or NULL: then the whole batch has to come again. */
static const unit *
undecided(const batch *b)
{
    for (size_t i = 0; i < b->n; i++) {
        apium_status st = b->units[i].status;
        if (st == APIUM_E_CLOSED || st == APIUM_E_TIMEOUT || st == APIUM_E_BUSY ||
            st == APIUM_E_NOMEM)
            return &b->units[i];
    }
    return NULL;
}

static void
answer_many(batch *b)
{
    apm_web_call *call = b->call;
    const unit *amiss = undecided(b);
    apm_buf body;
    if (amiss) {
        fail_all(b, &amiss->err);
        return;
    }
    release_tokens(b);
    apm_buf_init(&body, APM_BUF_MAX);
    apm_buf_addc(&body, '[');
    for (size_t i = 0; i < b->n; i++) {
        const unit *u = &b->units[i];
        apm_buf_addz(&body, i ? ", " : "");
        if (u->status == APIUM_OK) {
            apm_buf_addf(&body, "{\"completed\": %lu}", (unsigned long)u->completed);
            continue;
        }
        apm_buf_addf(&body, "{\"error\": {\"status\": %d, \"message\": ",
                     u->status == APIUM_E_NOTFOUND ? 409 : 500);
        apm_json_add_stringz(&body, u->err.text);
        apm_buf_addz(&body, "}}");
    }
    apm_buf_addc(&body, ']');
    apm_web_answer(call, 200, &body);
}

static void
answer_one(batch *b)
{
    apm_web_call *call = b->call;
    const unit u = b->units[0];
    release_tokens(b);
    if (u.status == APIUM_E_NOTFOUND) {
        const bool gone = strcmp(apm_http_method(call->req), "DELETE") == 0;
        apm_web_error(call, gone ? 404 : 409, "%s", u.err.text);
    } else if (u.status != APIUM_OK) {
        apm_web_fail(call, &u.err);
    } else if (u.arrivals) {
        apm_chord_answer_arrival(call, u.completed != 0);
    } else {
        apm_web_answer(call, 204, NULL);
    }
}

/* ---- the calls ---- */

static batch *
batch_new(apm_web_call *call, size_t n, void (*answer)(batch *))
{
    batch *b = apm_arena_alloc(&call->arena, sizeof(*b));
    if (b && !(b->units = apm_arena_alloc(&call->arena, (n + 1) * sizeof(unit))))
        b = NULL;
    if (!b) {
        apm_web_error(call, 503, "out of memory");
        return NULL;
    }
    b->call = call;
    b->answer = answer;
    return b;
}

static void
run(batch *b, apm_json array)
{
    apm_arena scratch = { 0 };
    apm_json_iter it;
    apm_json val;
    apm_str key;
    apium_error err;
    apium_status st = APIUM_OK;
    (void)apm_json_open(&it, array.text, NULL);
    while (st == APIUM_OK && apm_json_next(&it, &key, &val, NULL) > 0)
        st = read_unit(b, &b->units[b->n++], val, &scratch, &err);
    apm_arena_clear(&scratch);
    if (st == APIUM_OK)
        ask_marks(b);
    else
        fail_all(b, &err);
}

void
apm_units_post(apm_web_call *call)
{
    apm_json body;
    if (!apm_web_json(call, APM_JSON_ARRAY, &body))
        return;
    size_t n = apm_json_count(body);
    if (n > UNITS_MAX) {
        apm_web_error(call, 413, "at most %d units at once", UNITS_MAX);
        return;
    }
    batch *b = batch_new(call, n, answer_many);
    if (b)
        run(b, body);
}

void
apm_units_one(apm_web_call *call, apm_str token_, apm_buf *op_)
{
    apm_buf text;
    apm_json array;
    apm_str expires;
    apium_error err;
    apm_buf_init(&text, APM_BUF_MAX);
    apm_buf_addz(&text, "[{\"ops\": [");
    apm_buf_adds(&text, apm_buf_str(op_));
    if (op_->failed)
        text.failed = true;
    apm_buf_clear(op_);
    apm_buf_addz(&text, "]");
    if (apm_str_is(token_)) {
        apm_buf_addz(&text, ", \"id\": ");
        apm_json_add_string(&text, token_);
    }
    if (apm_web_param(call, "expires", &expires)) {
        apm_buf_addz(&text, ", \"expires\": ");
        apm_buf_adds(&text, expires);
    }
    apm_buf_addz(&text, "}]");
    bool ok = !text.failed;
    apm_str kept = ok ? apm_arena_str(&call->arena, apm_buf_str(&text), &ok) : APM_STR_NONE;
    apm_buf_clear(&text);
    batch *b;
    if (!ok)
        apm_web_error(call, 413, "the document is too big");
    else if (apm_json_parse(kept, &array, &err) != APIUM_OK)
        apm_web_error(call, 400, "that makes no sense: %s", err.text);
    else if ((b = batch_new(call, 1, answer_one)))
        run(b, array);
}

apium_status
apm_units_open(apm_web *web, apium_error *err)
{
    web->units = calloc(1, sizeof(*web->units));
    return web->units ? APIUM_OK : apm_fail(err, APIUM_E_NOMEM, "cannot start: out of memory");
}

void
apm_units_close(apm_web *web)
{
    free(web->units); /* no call is left, so no token is */
    web->units = NULL;
}
