/* result.c - the result document: written as Celery 5.6 writes it, read from any version. */
#include "core/model/result.h"

#include "core/base/clock.h"
#include "core/base/error.h"
#include "core/model/request_fields.h"

bool
apm_state_ready(apm_str state)
{
    return apm_str_eqz(state, APM_STATE_SUCCESS) || apm_str_eqz(state, APM_STATE_FAILURE) ||
           apm_str_eqz(state, APM_STATE_REVOKED);
}

bool
apm_state_exception(apm_str state)
{
    return apm_str_eqz(state, APM_STATE_FAILURE) || apm_str_eqz(state, APM_STATE_RETRY) ||
           apm_str_eqz(state, APM_STATE_REVOKED);
}

static void
add_text(apm_buf *buf, const char *name, apm_str text)
{
    apm_json_add_key(buf, name);
    if (apm_str_is(text))
        apm_json_add_string(buf, text);
    else
        apm_buf_addz(buf, "null");
}

/* The names in the header stamped_headers, and each stamp as a member of its own. */
static void
add_stamps(apm_buf *buf, const apm_request *req)
{
    apm_json fields[APM_FIELDS] = { 0 };

    if (!req->headers.len || apm_fields_read(req->headers, APM_F_WRITTEN, fields, NULL) != APIUM_OK)
        return;
    apm_json names = fields[APM_F_STAMPED_HEADERS], stamps = fields[APM_F_STAMPS];
    if (names.type != APM_JSON_ARRAY || !apm_json_true(names))
        return;
    apm_json_add_key(buf, "stamped_headers");
    apm_buf_adds(buf, names.text);
    apm_json_iter wanted, it;
    apm_json name, stamp;
    apm_str key;
    if (stamps.type != APM_JSON_OBJECT || apm_json_open(&wanted, names.text, NULL) != APIUM_OK)
        return;
    while (apm_json_next(&wanted, &key, &name, NULL) > 0) {
        if (apm_json_open(&it, stamps.text, NULL) != APIUM_OK)
            return;
        while (apm_json_next(&it, &key, &stamp, NULL) > 0)
            if (apm_str_eq(key, name.text)) {
                apm_buf_addz(buf, ", ");
                apm_buf_adds(buf, key);
                apm_buf_addz(buf, ": ");
                apm_buf_adds(buf, stamp.text);
                break;
            }
    }
}

/* What follows "result" in every document. */
static void
add_rest(apm_buf *buf, const apm_request *req, apm_str state, apm_str traceback, apm_str children,
         const apm_result_opts *opts)
{
    char date[APM_DATE_MAX];

    add_text(buf, "traceback", traceback);
    apm_json_add_key(buf, "children");
    apm_buf_adds(buf, apm_str_is(children) ? children : APM_STR("[]"));
    apm_json_add_key(buf, "date_done");
    if (apm_state_ready(state)) {
        apm_date_print(opts->now_us, opts->zone_offset_s, date);
        apm_json_add_stringz(buf, date);
    } else {
        apm_buf_addz(buf, "null");
    }
    if (req->group.len)
        add_text(buf, "group_id", req->group);
    if (req->parent_id.len)
        add_text(buf, "parent_id", req->parent_id);
    if (opts->extended) {
        add_text(buf, "name", req->task);
        apm_json_add_key(buf, "args");
        apm_buf_adds(buf, apm_str_is(req->args) ? req->args : APM_STR("null"));
        apm_json_add_key(buf, "kwargs");
        apm_buf_adds(buf, apm_str_is(req->kwargs) ? req->kwargs : APM_STR("null"));
        add_text(buf, "worker", apm_strz(opts->worker));
        apm_json_add_key(buf, "retries");
        apm_json_add_int(buf, req->retries);
        add_text(buf, "queue", req->routing_key);
        add_stamps(buf, req);
    }
    add_text(buf, "task_id", req->id);
    apm_buf_addc(buf, '}');
}

void
apm_result_write(apm_buf *buf, const apm_request *req, const apm_outcome *outcome,
                 const apm_result_opts *opts)
{
    const char *state = outcome->kind == APM_DONE_SUCCESS   ? APM_STATE_SUCCESS
                        : outcome->kind == APM_DONE_RETRY   ? APM_STATE_RETRY
                        : outcome->kind == APM_DONE_REVOKED ? APM_STATE_REVOKED
                                                            : APM_STATE_FAILURE;

    apm_buf_addz(buf, "{\"status\": \"");
    apm_buf_addz(buf, state);
    apm_buf_addz(buf, "\", \"result\": ");
    if (outcome->kind == APM_DONE_SUCCESS)
        apm_buf_adds(buf, apm_str_is(outcome->result) ? outcome->result : APM_STR("null"));
    else if (outcome->kind == APM_DONE_RETRY && !apm_str_is(outcome->exc.type))
        apm_buf_addz(buf, "null");
    else
        apm_exception_json(buf, &outcome->exc);
    add_rest(buf, req, apm_strz(state), outcome->traceback, outcome->children, opts);
}

void
apm_result_write_state(apm_buf *buf, const apm_request *req, apm_str state, apm_str meta,
                       const apm_result_opts *opts)
{
    apm_buf_addz(buf, "{\"status\": ");
    apm_json_add_string(buf, state);
    apm_json_add_key(buf, "result");
    apm_buf_adds(buf, apm_str_is(meta) ? meta : APM_STR("null"));
    add_rest(buf, req, state, APM_STR_NONE, APM_STR_NONE, opts);
}

/* A string member; null and other types are absent. */
static apium_status
text_of(apm_json val, const char *what, apm_arena *arena, apm_str *out, apium_error *err)
{
    *out = APM_STR_NONE;
    return val.type == APM_JSON_STRING ? apm_json_string(val, what, arena, out, err) : APIUM_OK;
}

/* exc_message is a list of arguments; old and foreign writers leave a string, which is the only
 * argument then. */
static apium_status
read_exception(apm_json val, apm_arena *arena, apm_exception *exc, apium_error *err)
{
    apm_json message = apm_json_get(val, "exc_message");
    apium_status st;

    if ((st = text_of(apm_json_get(val, "exc_type"), "exc_type", arena, &exc->type, err)) !=
            APIUM_OK ||
        (st = text_of(apm_json_get(val, "exc_module"), "exc_module", arena, &exc->module, err)) !=
            APIUM_OK)
        return st;
    if (message.type == APM_JSON_ARRAY) {
        exc->args = message.text;
    } else if (message.type == APM_JSON_NONE || message.type == APM_JSON_NULL) {
        exc->args = APM_STR("[]");
    } else {
        char *args = apm_arena_bytes(arena, message.text.len + 3);
        if (!args)
            return apm_fail(err, APIUM_E_NOMEM, "cannot read a result: out of memory");
        args[0] = '[';
        memcpy(args + 1, message.text.p, message.text.len);
        memcpy(args + 1 + message.text.len, "]", 2);
        exc->args = (apm_str){ args, message.text.len + 2 };
    }
    return APIUM_OK;
}

apium_status
apm_result_read(apm_str text, apm_arena *arena, apm_result_doc *out, apium_error *err)
{
    apm_result_doc doc = { .date_done_us = APM_TIME_NONE };
    apm_json_iter it;
    apm_json val, retries = { 0 };
    apm_str key, date = APM_STR_NONE;
    apium_status st;
    int more;

    if ((st = apm_json_open(&it, text, err)) != APIUM_OK)
        return st;
    if (!it.object)
        return apm_fail(err, APIUM_E_DECODE, "no result document: it is an array");
    while ((more = apm_json_next(&it, &key, &val, err)) > 0) {
        if (apm_json_key_is(key, "status"))
            st = text_of(val, "status", arena, &doc.status, err);
        else if (apm_json_key_is(key, "result"))
            doc.result = val;
        else if (apm_json_key_is(key, "traceback"))
            st = text_of(val, "traceback", arena, &doc.traceback, err);
        else if (apm_json_key_is(key, "children"))
            doc.children = val;
        else if (apm_json_key_is(key, "date_done"))
            st = text_of(val, "date_done", arena, &date, err);
        else if (apm_json_key_is(key, "task_id"))
            st = text_of(val, "task_id", arena, &doc.task_id, err);
        else if (apm_json_key_is(key, "group_id"))
            st = text_of(val, "group_id", arena, &doc.group_id, err);
        else if (apm_json_key_is(key, "parent_id"))
            st = text_of(val, "parent_id", arena, &doc.parent_id, err);
        else if (apm_json_key_is(key, "name"))
            st = text_of(val, "name", arena, &doc.name, err);
        else if (apm_json_key_is(key, "worker"))
            st = text_of(val, "worker", arena, &doc.worker, err);
        else if (apm_json_key_is(key, "queue"))
            st = text_of(val, "queue", arena, &doc.queue, err);
        else if (apm_json_key_is(key, "args"))
            doc.args = val;
        else if (apm_json_key_is(key, "kwargs"))
            doc.kwargs = val;
        else if (apm_json_key_is(key, "retries"))
            retries = val;
        if (st != APIUM_OK)
            return st;
    }
    if (more < 0)
        return APIUM_E_DECODE;
    if (!apm_str_is(doc.status))
        return apm_fail(err, APIUM_E_DECODE, "no result document: it has no status");
    /* Neither of these two is worth losing a result for. */
    if (apm_json_int64(retries, "retries", &doc.retries, NULL) != APIUM_OK)
        doc.retries = 0;
    if (!date.len || apm_date_parse(date, 0, &doc.date_done_us, NULL) != APIUM_OK)
        doc.date_done_us = APM_TIME_NONE;
    if (apm_state_exception(doc.status) && doc.result.type == APM_JSON_OBJECT &&
        (st = read_exception(doc.result, arena, &doc.exc, err)) != APIUM_OK)
        return st;
    *out = doc;
    return APIUM_OK;
}
