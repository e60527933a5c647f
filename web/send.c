/*
 * send.c - sending tasks and workflows. The client turns a loop of its own until the broker has taken what is sent, so it does that in
 * threads of libuv's pool, each with a connection of its own; the server's loop goes on meanwhile.
 */
#include "web/flower.h"

#include <apium/canvas.h>
#include <apium/run.h>
#include <stdlib.h>

#include "core/base/error.h"

#define SENDING_MAX 256  /* requests at once, that wait for a thread or have one */
#define MANY_MAX    1000 /* signatures in one request */

typedef enum reply_form {
    REST_ONE,
    REST_MANY,
    FLOWER,
    FLOWER_WAIT,
    REVOKE,
    FLOWER_REVOKE
} reply_form;

typedef struct item {
    char *json; /* a signature */
    char *id;   /* what it was sent as */
    apium_error err;
} item;

typedef struct sending {
    uv_work_t work;
    apm_web_call *call;
    reply_form form;
    const char *signal; /* of revoking, in the call's arena; NULL: only what has not begun */
    item *items;
    size_t n;
    int64_t wait_ms; /* FLOWER_WAIT: for the result */
} sending;

static void
sending_free(sending *s)
{
    for (size_t i = 0; i < s->n; i++) {
        free(s->items[i].json);
        free(s->items[i].id);
    }
    free(s->items);
    free(s);
}

/* In a thread: the item's `json` is the id of the task. */
static void
revoke_one(sending *s)
{
    item *it = &s->items[0];
    apium_run *run = NULL;
    apium_status st = apium_run_of(s->call->web->app, it->json, &run, &it->err);
    if (st == APIUM_OK)
        st = apium_revoke(run, s->signal, &it->err);
    if (st == APIUM_OK && !(it->id = strdup(it->json)))
        (void)apm_fail(&it->err, APIUM_E_NOMEM, "out of memory");
    apium_run_free(run);
}

/* In a thread: an item's `json` is a signature. */
static void
send_one(apium_app *app, item *it)
{
    apium_sig *sig = NULL;
    apium_run *run = NULL;
    apium_status st = apium_sig_parse(it->json, &sig, &it->err);
    if (st == APIUM_OK)
        st = apium_send(app, sig, NULL, &run, &it->err);
    if (st == APIUM_OK && !(it->id = strdup(apium_run_id(run))))
        st = apm_fail(&it->err, APIUM_E_NOMEM, "out of memory");
    if (st == APIUM_OK)
        it->err.status = APIUM_OK;
    apium_run_free(run);
}

/* In a thread. A broker that is away for one item is so for those behind it: each would wait as long for it. */
static void
on_work(uv_work_t *work)
{
    sending *s = work->data;
    apium_error away = { 0 };
    if (__atomic_load_n(&s->call->web->stopping, __ATOMIC_RELAXED))
        (void)apm_fail(&away, APIUM_E_CLOSED, "the server is stopping");
    for (size_t i = 0; i < s->n; i++) {
        item *it = &s->items[i];
        if (away.status != APIUM_OK)
            it->err = away;
        else if (s->form == REVOKE || s->form == FLOWER_REVOKE)
            revoke_one(s);
        else
            send_one(s->call->web->app, it);
        if (it->err.status == APIUM_E_CLOSED || it->err.status == APIUM_E_TIMEOUT)
            away = it->err;
    }
}

static void
add_sent(apm_buf *body, const item *it)
{
    if (it->id) {
        apm_buf_addz(body, "{\"id\": ");
        apm_json_add_stringz(body, it->id);
        apm_buf_addc(body, '}');
    } else {
        apm_buf_addf(body, "{\"error\": {\"status\": %d, \"message\": ", apm_web_status(&it->err));
        apm_json_add_stringz(body, it->err.text);
        apm_buf_addz(body, "}}");
    }
}

/* Flower says the state as it is by then. */
static void
on_state(void *arg, apm_str doc, const apium_error *err)
{
    apm_web_call *call = arg;
    apm_arena arena = { 0 };
    apm_result_doc read = { .status = APM_STR(APM_STATE_PENDING) };
    apm_buf body;
    (void)err; /* it was sent: that is the answer */
    if (apm_str_is(doc))
        (void)apm_result_read(doc, &arena, &read, NULL);
    apm_buf_init(&body, APM_BUF_MAX);
    apm_buf_addz(&body, "{\"task-id\": ");
    apm_json_add_string(&body, call->args[0]);
    apm_buf_addz(&body, ", \"state\": ");
    apm_json_add_string(&body, read.status);
    apm_buf_addc(&body, '}');
    apm_arena_clear(&arena);
    apm_web_answer(call, 200, &body);
}

/* Back on the loop. */
static void
on_worked(uv_work_t *work, int status)
{
    sending *s = work->data;
    apm_web_call *call = s->call;
    const item *first = &s->items[0];
    apm_buf body;
    bool ok = true;
    (void)status; /* nothing cancels it */
    call->web->sending--;
    if (s->form != REST_MANY && !first->id) {
        apm_web_fail(call, &first->err);
        sending_free(s);
        return;
    }
    if (s->form == REVOKE || s->form == FLOWER_REVOKE) {
        apm_buf text;
        bool rest = s->form == REVOKE;
        sending_free(s);
        if (rest) {
            apm_web_answer(call, 202, NULL);
            return;
        }
        apm_buf_init(&text, 4096);
        apm_buf_init(&body, 8192);
        apm_buf_addf(&text, "Revoked '%s'", call->args[0].p);
        apm_buf_addz(&body, "{\"message\": ");
        apm_json_add_string(&body, apm_buf_str(&text));
        apm_buf_addc(&body, '}');
        apm_buf_clear(&text);
        apm_web_answer(call, 200, &body);
        return;
    }
    if (s->form == FLOWER || s->form == FLOWER_WAIT) {
        bool waits = s->form == FLOWER_WAIT;
        int64_t wait_ms = s->wait_ms;
        call->args[0] = apm_arena_str(&call->arena, apm_strz(first->id), &ok);
        sending_free(s);
        if (!ok)
            apm_web_error(call, 503, "out of memory");
        else if (waits)
            apm_web_wait(call, wait_ms, apm_task_ready, apm_flower_answer_result);
        else
            call->web->backend->ops->fetch(call->web->backend, call->args[0].p, on_state, call);
        return;
    }
    apm_buf_init(&body, APM_BUF_MAX);
    if (s->form == REST_ONE) {
        add_sent(&body, first);
    } else {
        apm_buf_addc(&body, '[');
        for (size_t i = 0; i < s->n; i++) {
            apm_buf_addz(&body, i ? ", " : "");
            add_sent(&body, &s->items[i]);
        }
        apm_buf_addc(&body, ']');
    }
    int answer = s->form == REST_ONE ? 201 : 200;
    sending_free(s);
    apm_web_answer(call, answer, &body);
}

static sending *
sending_new(apm_web_call *call, reply_form form, size_t n)
{
    sending *s = call->web->sending < SENDING_MAX ? calloc(1, sizeof(*s)) : NULL;
    if (s && !(s->items = calloc(n + 1, sizeof(*s->items)))) {
        free(s);
        s = NULL;
    }
    if (!s) {
        apm_web_error(call, 503, "too many tasks are being sent already");
        return NULL;
    }
    s->call = call;
    s->form = form;
    s->work.data = s;
    return s;
}

static void
go(sending *s)
{
    s->call->web->sending++;
    if (uv_queue_work(&s->call->web->loop, &s->work, on_work, on_worked) == 0)
        return;
    s->call->web->sending--;
    apm_web_error(s->call, 503, "there is no thread to send it");
    sending_free(s);
}

static char *
text_of(apm_str s)
{
    return strndup(s.p, s.len);
}

/* One signature, or a list of them, in Celery's JSON form: {"task": "tasks.add", "args": [2, 3]}. */
void
apm_tasks_post(apm_web_call *call)
{
    apm_json body, sig;
    apm_json_iter it;
    apm_str key;
    apium_error err;
    if (apm_json_parse(apm_http_body(call->req), &body, &err) != APIUM_OK ||
        (body.type != APM_JSON_OBJECT && body.type != APM_JSON_ARRAY)) {
        apm_web_error(call, 400, "the body is a signature, or a list of them, in JSON");
        return;
    }
    bool many = body.type == APM_JSON_ARRAY;
    size_t n = many ? apm_json_count(body) : 1;
    if (n > MANY_MAX) {
        apm_web_error(call, 413, "at most %d signatures at once", MANY_MAX);
        return;
    }
    sending *s = sending_new(call, many ? REST_MANY : REST_ONE, n);
    if (!s)
        return;
    bool ok = true;
    if (!many) {
        ok = (s->items[s->n++].json = text_of(body.text)) != NULL;
    } else {
        (void)apm_json_open(&it, body.text, NULL);
        while (ok && apm_json_next(&it, &key, &sig, NULL) > 0)
            ok = (s->items[s->n++].json = text_of(sig.text)) != NULL;
    }
    if (!ok) {
        sending_free(s);
        apm_web_error(call, 503, "out of memory");
        return;
    }
    go(s);
}

/* ---- as Flower takes it: {"args": [], "kwargs": {}, and options of apply_async} ---- */

static void
flower(apm_web_call *call, reply_form form)
{
    apm_json body = { APM_JSON_OBJECT, APM_STR("{}") };
    apm_buf sig, options;
    if (apm_http_body(call->req).len && !apm_web_json(call, APM_JSON_OBJECT, &body))
        return;
    apm_json args = apm_json_get(body, "args"), kwargs = apm_json_get(body, "kwargs");
    if (args.type != APM_JSON_NONE && args.type != APM_JSON_ARRAY) {
        apm_web_error(call, 400, "args must be an array");
        return;
    }
    if (kwargs.type != APM_JSON_NONE && kwargs.type != APM_JSON_OBJECT) {
        apm_web_error(call, 400, "kwargs must be an object");
        return;
    }
    sending *s = sending_new(call, form, 1);
    if (!s)
        return;
    apm_buf_init(&options, APM_BUF_MAX);
    s->wait_ms = (int64_t)APM_WEB_WAIT_MAX_S * 1000;
    if (!apm_flower_options(call, body, &options, &s->wait_ms)) {
        apm_buf_clear(&options);
        sending_free(s);
        return;
    }
    apm_buf_init(&sig, APM_BUF_MAX);
    apm_buf_addz(&sig, "{\"task\": ");
    apm_json_add_string(&sig, call->args[0]);
    apm_buf_addz(&sig, ", \"args\": ");
    apm_buf_adds(&sig, args.type == APM_JSON_NONE ? APM_STR("[]") : args.text);
    apm_buf_addz(&sig, ", \"kwargs\": ");
    apm_buf_adds(&sig, kwargs.type == APM_JSON_NONE ? APM_STR("{}") : kwargs.text);
    apm_buf_addz(&sig, ", \"options\": {");
    apm_buf_adds(&sig, apm_buf_str(&options));
    apm_buf_addz(&sig, "}, \"subtask_type\": null, \"immutable\": false}");
    sig.failed = sig.failed || options.failed;
    apm_buf_clear(&options);
    s->n = 1;
    s->items[0].json = apm_buf_take(&sig, NULL);
    if (!s->items[0].json) {
        sending_free(s);
        apm_web_error(call, 413, "the arguments are too big");
        return;
    }
    go(s);
}

/* Flower knows tasks by its app: so does the server when it was started with -A. */
static bool
is_known(apm_web_call *call)
{
    if (!apm_app_task_at(call->web->app, 0) || apm_app_task(call->web->app, call->args[0]))
        return true;
    apm_web_error(call, 404, "Unknown task '%s'", call->args[0].p);
    return false;
}

void
apm_flower_apply(apm_web_call *call)
{
    if (is_known(call))
        flower(call, FLOWER_WAIT);
}

void
apm_flower_async_apply(apm_web_call *call)
{
    if (is_known(call))
        flower(call, FLOWER);
}

void
apm_flower_send_task(apm_web_call *call)
{
    flower(call, FLOWER);
}

/* ---- revoking ---- */

static void
revoke_task(apm_web_call *call, reply_form form, const char *signal)
{
    sending *s = sending_new(call, form, 1);
    if (!s)
        return;
    s->n = 1;
    s->signal = signal;
    s->items[0].json = text_of(call->args[0]);
    if (!s->items[0].json) {
        sending_free(s);
        apm_web_error(call, 503, "out of memory");
        return;
    }
    go(s);
}

/* "?terminate=SIGTERM": one that runs is ended by that signal. */
void
apm_task_revoke(apm_web_call *call)
{
    apm_str signal = APM_STR_NONE;
    (void)apm_web_param(call, "terminate", &signal);
    revoke_task(call, REVOKE, signal.p);
}

/* "?terminate=true&signal=SIGKILL", as Flower has it. */
void
apm_flower_revoke(apm_web_call *call)
{
    apm_str terminate = APM_STR_NONE, signal = APM_STR("SIGTERM");
    (void)apm_web_param(call, "terminate", &terminate);
    (void)apm_web_param(call, "signal", &signal);
    bool ends = apm_str_eqz(terminate, "true") || apm_str_eqz(terminate, "True") ||
                apm_str_eqz(terminate, "1");
    revoke_task(call, FLOWER_REVOKE, ends ? signal.p : NULL);
}
