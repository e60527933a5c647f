/* flower.c - what Flower answers under the same paths, as far as results tell it. */
#include "web/flower.h"

#include "core/base/clock.h"

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

static void
write_result(apm_buf *buf, apm_str id, apm_str doc)
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

void
apm_flower_answer_result(apm_web_call *call, apm_str doc)
{
    apm_buf body;
    apm_buf_init(&body, APM_BUF_MAX);
    write_result(&body, call->args[0], doc);
    apm_web_answer(call, 200, &body);
}

static void
on_result(void *arg, apm_str doc, const apium_error *err)
{
    if (err)
        apm_web_fail(arg, err);
    else
        apm_flower_answer_result(arg, doc);
}

/* "?timeout=SECONDS" waits. */
void
apm_flower_result(apm_web_call *call)
{
    int64_t wait_ms = apm_web_wait_ms(call, "timeout");
    if (wait_ms < 0)
        return;
    if (wait_ms)
        apm_web_wait(call, wait_ms, apm_task_ready, apm_flower_answer_result);
    else
        call->web->backend->ops->fetch(call->web->backend, call->args[0].p, on_result, call);
}

/* A value's or an exception's repr, as events carry it: Celery cuts it there (resultrepr_maxsize). */
#define REPR_MAX 1024

static void
add_repr(apm_buf *buf, const char *name, apm_json val, bool arguments)
{
    apm_buf repr;
    apm_buf_addf(buf, ", \"%s\": ", name);
    if (val.type == APM_JSON_NONE || (arguments && val.type == APM_JSON_NULL)) {
        apm_buf_addz(buf, "null");
        return;
    }
    apm_buf_init(&repr, 65536);
    if (arguments && val.type == APM_JSON_ARRAY && apm_json_count(val) == 0)
        apm_buf_addz(&repr, "()"); /* no arguments are an empty tuple there */
    else
        apm_json_repr(&repr, val, false, REPR_MAX);
    apm_json_add_string(buf, apm_buf_str(&repr));
    apm_buf_clear(&repr);
}

static void
add_time(apm_buf *buf, const char *name, bool known, int64_t at_us)
{
    apm_buf_addf(buf, ", \"%s\": ", name);
    if (known && at_us != APM_TIME_NONE)
        apm_json_add_double(buf, (double)at_us / 1e6);
    else
        apm_buf_addz(buf, "null");
}

/* The ids among result tuples: [[id, parent], null | [tuple, ...]]. */
static void
add_children(apm_buf *buf, apm_json children)
{
    apm_json_iter it;
    apm_json child;
    apm_str key;
    size_t n = 0;
    apm_buf_addz(buf, ", \"children\": [");
    if (children.type == APM_JSON_ARRAY && apm_json_open(&it, children.text, NULL) == APIUM_OK)
        while (apm_json_next(&it, &key, &child, NULL) > 0) {
            apm_json id = apm_json_at(apm_json_at(child, 0), 0);
            if (id.type != APM_JSON_STRING)
                continue;
            apm_buf_addz(buf, n++ ? ", " : "");
            apm_buf_adds(buf, id.text);
        }
    apm_buf_addc(buf, ']');
}

void
apm_flower_write_task(apm_buf *buf, apm_str id, const apm_result_doc *doc)
{
    bool success = apm_str_eqz(doc->status, APM_STATE_SUCCESS);
    bool excepted = apm_state_exception(doc->status) && apm_str_is(doc->exc.type);
    apm_str root = apm_str_is(doc->parent_id) ? APM_STR_NONE : id;
    apm_buf_addz(buf, "{\"uuid\": ");
    apm_json_add_string(buf, id);
    add_nullable(buf, "name", doc->name);
    add_nullable(buf, "state", doc->status);
    apm_buf_addz(buf, ", \"received\": null, \"sent\": null");
    add_time(buf, "started", apm_str_eqz(doc->status, APM_STATE_STARTED), doc->date_done_us);
    apm_buf_addz(buf, ", \"rejected\": null");
    add_time(buf, "succeeded", success, doc->date_done_us);
    add_time(buf, "failed", apm_str_eqz(doc->status, APM_STATE_FAILURE), doc->date_done_us);
    add_time(buf, "retried", apm_str_eqz(doc->status, APM_STATE_RETRY), doc->date_done_us);
    add_time(buf, "revoked", apm_str_eqz(doc->status, APM_STATE_REVOKED), doc->date_done_us);
    add_repr(buf, "args", doc->args, true);
    add_repr(buf, "kwargs", doc->kwargs, true);
    apm_buf_addz(buf, ", \"eta\": null, \"expires\": null, \"retries\": ");
    if (apm_str_is(doc->name)) /* result_extended */
        apm_json_add_int(buf, doc->retries);
    else
        apm_buf_addz(buf, "null");
    add_nullable(buf, "worker", doc->worker);
    add_repr(buf, "result", success ? doc->result : (apm_json){ 0 }, false);
    apm_buf_addz(buf, ", \"exception\": ");
    if (excepted)
        add_result(buf, doc);
    else
        apm_buf_addz(buf, "null");
    add_time(buf, "timestamp", true, doc->date_done_us);
    apm_buf_addz(buf, ", \"runtime\": null");
    add_nullable(buf, "traceback", doc->traceback);
    apm_buf_addz(buf, ", \"exchange\": null");
    add_nullable(buf, "routing_key", doc->queue);
    apm_buf_addz(buf, ", \"clock\": null, \"client\": null");
    add_nullable(buf, "root", root);
    add_nullable(buf, "root_id", root);
    add_nullable(buf, "parent", doc->parent_id);
    add_nullable(buf, "parent_id", doc->parent_id);
    add_children(buf, doc->children);
    apm_buf_addc(buf, '}');
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
    apm_flower_write_task(&body, call->args[0], &read);
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

/* What Flower asks workers for, or tells them. */
void
apm_flower_later(apm_web_call *call)
{
    apm_web_error(call, 501,
                  "workers cannot be asked or told that: they have no remote control yet");
}

void
apm_flower_healthcheck(apm_web_call *call)
{
    apm_web_reply(call, &(apm_http_reply){ .status = 200,
                                           .type = "text/plain; charset=utf-8",
                                           .body = APM_STR("OK") });
}
