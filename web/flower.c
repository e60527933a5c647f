/* flower.c - what Flower answers under the same paths, as far as results tell it. */
#include "web/inner.h"

#include "core/base/clock.h"
#include "core/model/result.h"

/* Flower's "result": the value; of an exception its repr. */
static void
add_result(apm_buf *buf, const apm_result_doc *read)
{
    if (apm_state_exception(read->status) && apm_str_is(read->exc.type)) {
        apm_buf repr;
        apm_buf_init(&repr, 65536);
        apm_exception_repr(&repr, &read->exc);
        apm_json_add_string(buf, apm_buf_str(&repr));
        apm_buf_clear(&repr);
    } else if (read->result.type != APM_JSON_NONE) {
        apm_buf_adds(buf, read->result.text);
    } else {
        apm_buf_addz(buf, "null");
    }
}

static void
add_nullable(apm_buf *buf, const char *name, apm_str text)
{
    apm_buf_addf(buf, ", \"%s\": ", name);
    if (apm_str_is(text))
        apm_json_add_string(buf, text);
    else
        apm_buf_addz(buf, "null");
}

void
apm_flower_write_result(apm_buf *buf, apm_str id, apm_str doc)
{
    apm_arena arena = { 0 };
    apm_result_doc read = { .status = APM_STR(APM_STATE_PENDING) };
    if (apm_str_is(doc))
        (void)apm_result_read(doc, &arena, &read, NULL);
    apm_buf_addz(buf, "{\"task-id\": ");
    apm_json_add_string(buf, id);
    apm_buf_addz(buf, ", \"state\": ");
    apm_json_add_string(buf, read.status);
    if (apm_state_ready(read.status)) {
        apm_buf_addz(buf, ", \"result\": ");
        add_result(buf, &read);
    }
    if (apm_str_eqz(read.status, APM_STATE_FAILURE))
        add_nullable(buf, "traceback", read.traceback);
    apm_buf_addc(buf, '}');
    apm_arena_clear(&arena);
}

static void
answer_result(apm_web_call *call, apm_str doc)
{
    apm_buf body;
    apm_buf_init(&body, APM_BUF_MAX);
    apm_flower_write_result(&body, call->args[0], doc);
    apm_web_answer(call, 200, &body);
}

static void
on_result(void *arg, apm_str doc, const apium_error *err)
{
    if (err)
        apm_web_fail(arg, err);
    else
        answer_result(arg, doc);
}

static bool
is_ready(const apm_web_call *call, apm_str doc)
{
    (void)call;
    return apm_task_ready(doc);
}

/* "?timeout=SECONDS" waits. */
void
apm_flower_result(apm_web_call *call)
{
    apm_str text;
    int64_t wait_ms = 0;
    if (apm_web_param(call, "timeout", &text)) {
        call->query = apm_strz(apm_arena_printf(&call->arena, "wait=%s", text.p));
        if ((wait_ms = apm_web_wait_ms(call)) < 0)
            return;
    }
    if (wait_ms)
        apm_web_wait(call, wait_ms, is_ready, answer_result);
    else
        call->web->backend->ops->fetch(call->web->backend, call->args[0].p, on_result, call);
}

static void
on_info(void *arg, apm_str doc, const apium_error *err)
{
    apm_web_call *call = arg;
    apm_result_doc read;
    apm_buf body;
    if (err) {
        apm_web_fail(call, err);
        return;
    }
    if (!apm_str_is(doc)) {
        apm_web_error(call, 404, "Unknown task '%s'", call->args[0].p);
        return;
    }
    if (apm_result_read(doc, &call->arena, &read, NULL) != APIUM_OK) {
        apm_web_error(call, 500, "the result cannot be read");
        return;
    }
    apm_buf_init(&body, APM_BUF_MAX);
    apm_buf_addz(&body, "{\"uuid\": ");
    apm_json_add_string(&body, call->args[0]);
    add_nullable(&body, "state", read.status);
    add_nullable(&body, "name", read.name);
    apm_buf_addz(&body, ", \"result\": ");
    add_result(&body, &read);
    add_nullable(&body, "traceback", read.traceback);
    apm_buf_addz(&body, ", \"exception\": ");
    if (apm_state_exception(read.status))
        add_result(&body, &read);
    else
        apm_buf_addz(&body, "null");
    apm_buf_addz(&body, ", \"timestamp\": ");
    if (read.date_done_us != APM_TIME_NONE)
        apm_json_add_double(&body, (double)read.date_done_us / 1e6);
    else
        apm_buf_addz(&body, "null");
    apm_buf_addf(&body, ", \"retries\": %lld", (long long)read.retries);
    add_nullable(&body, "args", read.args.type == APM_JSON_NONE ? APM_STR_NONE : read.args.text);
    add_nullable(&body, "kwargs",
                 read.kwargs.type == APM_JSON_NONE ? APM_STR_NONE : read.kwargs.text);
    add_nullable(&body, "worker", read.worker);
    add_nullable(&body, "routing_key", read.queue);
    add_nullable(&body, "parent_id", read.parent_id);
    apm_buf_addc(&body, '}');
    apm_web_answer(call, 200, &body);
}

void
apm_flower_info(apm_web_call *call)
{
    call->web->backend->ops->fetch(call->web->backend, call->args[0].p, on_info, call);
}

static void
on_aborted(void *arg, apium_status status, const apium_error *err)
{
    apm_web_call *call = arg;
    apm_buf body;
    if (status != APIUM_OK) {
        apm_web_fail(call, err);
        return;
    }
    apm_buf_init(&body, 4096);
    apm_buf text;
    apm_buf_init(&text, 4096);
    apm_buf_addf(&text, "Aborted '%s'", call->args[0].p);
    apm_buf_addz(&body, "{\"message\": ");
    apm_json_add_string(&body, apm_buf_str(&text));
    apm_buf_addc(&body, '}');
    apm_buf_clear(&text);
    apm_web_answer(call, 200, &body);
}

/* As Celery's abortable tasks have it: a state ABORTED, which the task looks for itself. */
void
apm_flower_abort(apm_web_call *call)
{
    apm_web *web = call->web;
    apium_error err;
    apm_buf doc;
    apm_unit *unit = apm_unit_new(web->backend->link);
    apm_buf_init(&doc, 8192);
    apm_buf_addz(
        &doc, "{\"status\": \"ABORTED\", \"result\": null, \"traceback\": null, \"children\": [], "
              "\"date_done\": null, \"task_id\": ");
    apm_json_add_string(&doc, call->args[0]);
    apm_buf_addc(&doc, '}');
    apium_status st = unit ? web->backend->ops->record(web->backend, unit,
                                                       &(apm_record){ .task_id = call->args[0],
                                                                      .state = APM_STR("ABORTED"),
                                                                      .doc = apm_buf_str(&doc) },
                                                       &err)
                           : apm_fail(&err, APIUM_E_NOMEM, "out of memory");
    apm_buf_clear(&doc);
    if (st != APIUM_OK) {
        apm_unit_drop(unit);
        apm_web_fail(call, &err);
        return;
    }
    apm_unit_commit(unit, on_aborted, call);
}

/* The tasks of -A: Flower names those it has seen. */
void
apm_flower_types(apm_web_call *call)
{
    apm_buf body;
    apm_buf_init(&body, APM_BUF_MAX);
    apm_buf_addz(&body, "{\"task-types\": [");
    for (size_t i = 0; apm_app_task_at(call->web->app, i); i++) {
        apm_buf_addz(&body, i ? ", " : "");
        apm_json_add_stringz(&body, apm_app_task_at(call->web->app, i)->name);
    }
    apm_buf_addz(&body, "]}");
    apm_web_answer(call, 200, &body);
}

void
apm_flower_healthcheck(apm_web_call *call)
{
    apm_web_reply(call, &(apm_http_reply){ .status = 200,
                                           .type = "text/plain; charset=utf-8",
                                           .body = APM_STR("OK") });
}
