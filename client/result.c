/* result.c - what is known of a task at one moment; see apium/result.h. */
#include <apium/result.h>

#include <stdlib.h>

#include "client/except.h"
#include "client/runs.h"
#include "core/model/result.h"

/* The getters that copy a slice of the document, the first time they are asked. */
enum {
    TEXT_ID,
    TEXT_STATE,
    TEXT_JSON,
    TEXT_EXCEPTION,
    TEXT_MODULE,
    TEXT_EXC_ARGS,
    TEXT_TRACEBACK,
    TEXT_CHILDREN,
    TEXT_PARENT,
    TEXT_GROUP,
    TEXT_NAME,
    TEXT_ARGS,
    TEXT_KWARGS,
    TEXT_WORKER,
    TEXT_QUEUE,
    TEXTS
};

/* What getters make lives apart, because they take a const result. */
typedef struct made {
    apm_arena arena;
    const char *texts[TEXTS];
    const char *message;
} made;

struct apium_result {
    apm_arena arena;
    apm_str text; /* the document; absent for PENDING */
    apm_result_doc doc;
    made *made;
};

/* --- results --- */

apium_status
apm_result_new(const char *id, apm_str text, apium_result **out, apium_error *err)
{
    apium_result *res = calloc(1, sizeof(*res));
    made *mine = calloc(1, sizeof(*mine));
    bool ok = res && mine;
    apium_status st = APIUM_OK;

    if (ok) {
        res->made = mine;
        res->doc = (apm_result_doc){ .status = APM_STR(APM_STATE_PENDING),
                                     .date_done_us = APM_TIME_NONE,
                                     .retries = -1 };
        res->text = apm_arena_str(&res->arena, text, &ok);
    }
    if (ok && apm_str_is(text))
        st = apm_result_read(res->text, &res->arena, &res->doc, err);
    if (ok && st == APIUM_OK && !apm_str_is(res->doc.task_id))
        res->doc.task_id = apm_arena_str(&res->arena, apm_strz(id), &ok);
    if (!ok)
        st = apm_fail(err, APIUM_E_NOMEM, "out of memory");
    if (st != APIUM_OK) {
        if (!res)
            free(mine);
        else
            apium_result_free(res);
        return st;
    }
    *out = res;
    return APIUM_OK;
}

void
apium_result_free(apium_result *res)
{
    if (!res)
        return;
    if (res->made)
        apm_arena_clear(&res->made->arena);
    free(res->made);
    apm_arena_clear(&res->arena);
    free(res);
}

static const char *
text_of(const apium_result *res, int which, apm_str text)
{
    made *mine = res->made;
    if (!mine->texts[which] && apm_str_is(text))
        mine->texts[which] = apm_arena_str(&mine->arena, text, NULL).p;
    return mine->texts[which];
}

const char *
apium_result_id(const apium_result *res)
{
    return text_of(res, TEXT_ID, res->doc.task_id);
}

const char *
apium_result_state(const apium_result *res)
{
    return text_of(res, TEXT_STATE, res->doc.status);
}

bool
apium_result_ready(const apium_result *res)
{
    return apm_state_ready(res->doc.status);
}

bool
apium_result_ok(const apium_result *res)
{
    return apm_str_eqz(res->doc.status, APM_STATE_SUCCESS);
}

const char *
apium_result_json(const apium_result *res)
{
    return apm_state_exception(res->doc.status) ? NULL
                                                : text_of(res, TEXT_JSON, res->doc.result.text);
}

/* Is there an exception? */
static bool
raised(const apium_result *res)
{
    return apm_state_exception(res->doc.status) && apm_str_is(res->doc.exc.type);
}

const char *
apium_result_exception(const apium_result *res)
{
    return raised(res) ? text_of(res, TEXT_EXCEPTION, res->doc.exc.type) : NULL;
}

const char *
apium_result_exception_module(const apium_result *res)
{
    return raised(res) ? text_of(res, TEXT_MODULE, res->doc.exc.module) : NULL;
}

const char *
apium_result_exception_args(const apium_result *res)
{
    apm_str args = res->doc.exc.args;
    return raised(res) ? text_of(res, TEXT_EXC_ARGS, apm_str_is(args) ? args : APM_STR("[]"))
                       : NULL;
}

const char *
apium_result_message(const apium_result *res)
{
    if (raised(res) && !res->made->message) {
        apm_buf buf;
        apm_buf_init(&buf, APM_BUF_MAX);
        apm_exception_line(&buf, &res->doc.exc);
        res->made->message = apm_arena_str(&res->made->arena, apm_buf_str(&buf), NULL).p;
        apm_buf_clear(&buf);
    }
    return res->made->message;
}

const char *
apium_result_traceback(const apium_result *res)
{
    return text_of(res, TEXT_TRACEBACK, res->doc.traceback);
}

const char *
apium_result_children(const apium_result *res)
{
    return res->doc.children.type == APM_JSON_ARRAY
               ? text_of(res, TEXT_CHILDREN, res->doc.children.text)
               : NULL;
}

int64_t
apium_result_date_done_us(const apium_result *res)
{
    return res->doc.date_done_us == APM_TIME_NONE ? -1 : res->doc.date_done_us;
}

const char *
apium_result_parent_id(const apium_result *res)
{
    return text_of(res, TEXT_PARENT, res->doc.parent_id);
}

const char *
apium_result_group_id(const apium_result *res)
{
    return text_of(res, TEXT_GROUP, res->doc.group_id);
}

const char *
apium_result_name(const apium_result *res)
{
    return text_of(res, TEXT_NAME, res->doc.name);
}

const char *
apium_result_args(const apium_result *res)
{
    return text_of(res, TEXT_ARGS, res->doc.args.text);
}

const char *
apium_result_kwargs(const apium_result *res)
{
    return text_of(res, TEXT_KWARGS, res->doc.kwargs.text);
}

const char *
apium_result_worker(const apium_result *res)
{
    return text_of(res, TEXT_WORKER, res->doc.worker);
}

const char *
apium_result_queue(const apium_result *res)
{
    return text_of(res, TEXT_QUEUE, res->doc.queue);
}

int64_t
apium_result_retries(const apium_result *res)
{
    return res->doc.retries;
}

const char *
apium_result_document(const apium_result *res)
{
    return res->text.p;
}
