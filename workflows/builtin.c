/* builtin.c - the built-in tasks that only move messages; see builtin.h */
#include "workflows/builtin.h"

#include <stdarg.h>

#include "core/base/error.h"
#include "workflows/canvas_inner.h"

void
apm_builtin_raise(apm_arena *arena, apm_outcome *out, const char *type, const char *fmt, ...)
{
    apm_buf text, args;
    va_list ap;
    apm_buf_init(&text, 64 << 10);
    va_start(ap, fmt);
    apm_buf_addv(&text, fmt, ap);
    va_end(ap);
    apm_buf_init(&args, 512 << 10);
    apm_buf_addc(&args, '[');
    apm_json_add_string(&args, apm_buf_str(&text));
    apm_buf_addc(&args, ']');
    apm_str list = args.failed ? APM_STR_NONE : apm_arena_str(arena, apm_buf_str(&args), NULL);
    *out = (apm_outcome){
        .kind = APM_DONE_FAILURE,
        .exc = { apm_strz(type), APM_STR("builtins"), apm_str_is(list) ? list : APM_STR("[]") },
    };
    apm_buf_clear(&text);
    apm_buf_clear(&args);
}

apm_json
apm_builtin_arg(const apm_request *req, size_t position, const char *name)
{
    apm_json args = { APM_JSON_ARRAY, req->args }, kwargs = { APM_JSON_OBJECT, req->kwargs };
    apm_json val = { 0 };
    if (apm_str_is(req->args) && req->args.p[0] == '[')
        val = apm_json_at(args, position);
    if (val.type == APM_JSON_NONE && apm_str_is(req->kwargs))
        val = apm_json_get(kwargs, name);
    return val;
}

static bool
given(apm_json val)
{
    return val.type != APM_JSON_NONE && val.type != APM_JSON_NULL;
}

/* ---- celery.accumulate ---- */

void
apm_builtin_accumulate(const apm_request *req, apm_arena *arena, apm_outcome *out)
{
    apm_json args = { APM_JSON_ARRAY, req->args },
             index = apm_json_get((apm_json){ APM_JSON_OBJECT, req->kwargs }, "index");
    int64_t at = 0;
    *out = (apm_outcome){ .kind = APM_DONE_SUCCESS, .result = req->args };
    if (!given(index))
        return;
    int64_t n = (int64_t)apm_json_count(args);
    apium_status st = apm_json_int64(index, "index", &at, NULL);
    if (st == APIUM_E_INVALID) {
        apm_builtin_raise(arena, out, "TypeError", "tuple indices must be integers or slices");
        return;
    }
    if (at < 0)
        at += n;
    if (st != APIUM_OK || at < 0 || at >= n) {
        apm_builtin_raise(arena, out, "IndexError", "tuple index out of range");
        return;
    }
    out->result = apm_json_at(args, (size_t)at).text;
}

/* ---- what sends ---- */

/* The state of one built-in that sends a workflow. */
struct step {
    apm_sending *how;
    const apm_request *req;
    apm_outcome *out;
    apm_buf children;
};

static void wrong(struct step *step, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void
wrong(struct step *step, const char *fmt, ...)
{
    apm_buf text;
    va_list ap;
    apm_buf_init(&text, 4096);
    va_start(ap, fmt);
    apm_buf_addv(&text, fmt, ap);
    va_end(ap);
    apm_builtin_raise(step->how->arena, step->out, "TypeError", "%.*s() %.*s",
                      APM_STR_ARG(step->req->task), APM_STR_ARG(apm_buf_str(&text)));
    apm_buf_clear(&text);
}

/* A workflow that cannot be read or sent is the task's failure. */
static apium_status
unsendable(struct step *step, apium_status st, const apium_error *err)
{
    if (st == APIUM_E_NOMEM)
        return st;
    apm_builtin_raise(step->how->arena, step->out,
                      st == APIUM_E_UNSUPPORTED ? "NotImplementedError" : "ValueError", "%s",
                      err->text);
    return APIUM_OK;
}

static apium_status
succeed(struct step *step, const apm_handle *handle, apium_error *err)
{
    apm_buf buf;
    apm_arena *arena = step->how->arena;
    apm_buf_init(&buf, APM_BUF_MAX);
    apm_handle_write(&buf, handle);
    step->out->kind = APM_DONE_SUCCESS;
    step->out->result = buf.failed ? APM_STR_NONE : apm_arena_str(arena, apm_buf_str(&buf), NULL);
    apm_buf_clear(&buf);
    if (!apm_str_is(step->out->result))
        return apm_fail(err, APIUM_E_NOMEM, "cannot store what was sent: out of memory");
    return APIUM_OK;
}

/* Read a list of signatures, or a group whose members they are, as the tasks of `to`. */
static apium_status
read_members(struct step *step, apm_json list, apm_canvas *to, apium_error *err)
{
    apm_json group = list;
    if (list.type == APM_JSON_OBJECT)
        list = apm_json_get(apm_json_get(group, "kwargs"), "tasks");
    if (list.type != APM_JSON_ARRAY)
        return apm_fail(err, APIUM_E_DECODE, "its tasks are no list");
    to->tasks = apm_arena_alloc(step->how->arena, (apm_json_count(list) + 1) * sizeof(*to->tasks));
    if (!to->tasks)
        return apm_fail(err, APIUM_E_NOMEM, "cannot read a workflow: out of memory");
    apm_json_iter it;
    apm_str key;
    apm_json val;
    int more = 0;
    apium_status st = apm_json_open(&it, list.text, err);
    while (st == APIUM_OK && (more = apm_json_next(&it, &key, &val, err)) > 0)
        st = apm_canvas_read(val, step->how->arena, &to->tasks[to->n_tasks++], err);
    return more < 0 ? APIUM_E_DECODE : st;
}

static apm_str
array_arg(apm_json val)
{
    return val.type == APM_JSON_ARRAY ? val.text : APM_STR_NONE;
}

/* group(tasks, result, group_id, partial_args, add_to_parent=True) */
static apium_status
step_group(struct step *step, apium_error *err)
{
    const apm_request *req = step->req;
    apm_arena *arena = step->how->arena;
    apm_json tasks = apm_builtin_arg(req, 0, "tasks"), result = apm_builtin_arg(req, 1, "result"),
             group_id = apm_builtin_arg(req, 2, "group_id"),
             silent = apm_builtin_arg(req, 4, "add_to_parent");
    apm_str partial = array_arg(apm_builtin_arg(req, 3, "partial_args"));
    if (!given(tasks) || group_id.type != APM_JSON_STRING) {
        wrong(step, "missing required arguments: 'tasks' and 'group_id'");
        return APIUM_OK;
    }
    apm_canvas *group = apm_canvas_new(arena, APM_SIG_GROUP, "celery.group");
    apm_options options = { 0 };
    apm_handle *handle;
    apium_error why;
    if (!group || !apm_canvas_set(arena, &group->options, APM_OPT_TASK_ID, group_id.text) ||
        (apm_str_eqz(silent.text, "false") &&
         !apm_canvas_set(arena, &options, APM_OPT_ADD_TO_PARENT, APM_STR("false"))))
        return apm_fail(err, APIUM_E_NOMEM, "cannot send a group: out of memory");
    apium_status st = read_members(step, tasks, group, &why);
    if (st == APIUM_OK)
        st = apm_canvas_apply(step->how, group, partial, &options, &handle, &why);
    if (st != APIUM_OK)
        return unsendable(step, st, &why);
    if (given(result)) {
        *step->out = (apm_outcome){ .kind = APM_DONE_SUCCESS, .result = result.text };
        return APIUM_OK;
    }
    return succeed(step, handle, err);
}

/* chord(header, body, partial_args=(), interval=None, countdown=1, max_retries=None, eager=False, **kwargs) */
static apium_status
step_chord(struct step *step, apium_error *err)
{
    const apm_request *req = step->req;
    apm_arena *arena = step->how->arena;
    apm_json header = apm_builtin_arg(req, 0, "header"), body = apm_builtin_arg(req, 1, "body");
    apm_str partial = array_arg(apm_builtin_arg(req, 2, "partial_args"));
    if (!given(header) || !given(body)) {
        wrong(step, "missing required arguments: 'header' and 'body'");
        return APIUM_OK;
    }
    apm_canvas *chord = apm_canvas_new(arena, APM_SIG_CHORD, "celery.chord");
    apm_handle *handle;
    apium_error why;
    if (!chord)
        return apm_fail(err, APIUM_E_NOMEM, "cannot send a chord: out of memory");
    apium_status st = read_members(step, header, chord, &why);
    if (st == APIUM_OK)
        st = apm_canvas_read(body, arena, &chord->body, &why);
    if (st == APIUM_OK)
        st = apm_canvas_apply(step->how, chord, partial, NULL, &handle, &why);
    return st == APIUM_OK ? succeed(step, handle, err) : unsendable(step, st, &why);
}

/* chunks(task, it, n) */
static apium_status
step_chunks(struct step *step, apium_error *err)
{
    const apm_request *req = step->req;
    apm_json task = apm_builtin_arg(req, 0, "task"), it = apm_builtin_arg(req, 1, "it"),
             n = apm_builtin_arg(req, 2, "n");
    int64_t size;
    apium_error why;
    if (task.type != APM_JSON_OBJECT || it.type != APM_JSON_ARRAY ||
        apm_json_int64(n, "n", &size, &why) != APIUM_OK) {
        wrong(step, "takes a signature, a list and a number: 'task', 'it' and 'n'");
        return APIUM_OK;
    }
    apm_canvas *group;
    apm_handle *handle;
    apium_status st = apm_canvas_chunks(step->how->arena, task.text, it, size, &group, &why);
    if (st == APIUM_OK)
        st = apm_canvas_apply(step->how, group, APM_STR_NONE, NULL, &handle, &why);
    return st == APIUM_OK ? succeed(step, handle, err) : unsendable(step, st, &why);
}

static apium_status
step_chain(struct step *step, apium_error *err)
{
    (void)err;
    apm_builtin_raise(step->how->arena, step->out, "NotImplementedError",
                      "chain is not a real task");
    return APIUM_OK;
}

static apium_status
step_accumulate(struct step *step, apium_error *err)
{
    (void)err;
    apm_builtin_accumulate(step->req, step->how->arena, step->out);
    return APIUM_OK;
}

static const struct {
    const char *task;
    apium_status (*run)(struct step *step, apium_error *err);
} steps[] = {
    { "celery.accumulate", step_accumulate }, { "celery.group", step_group },
    { "celery.chord", step_chord },           { "celery.chunks", step_chunks },
    { "celery.chain", step_chain },
};
#define STEPS (sizeof(steps) / sizeof(steps[0]))

bool
apm_builtin_is_step(apm_str task)
{
    for (size_t i = 0; i < STEPS; i++)
        if (apm_str_eqz(task, steps[i].task))
            return true;
    return false;
}

apium_status
apm_builtin_step(apm_sending *how, const apm_request *req, apm_outcome *out, apium_error *err)
{
    struct step step = { .how = how, .req = req, .out = out };
    apium_status st = APIUM_E_NOTFOUND;
    *out = (apm_outcome){ 0 };
    apm_buf_init(&step.children, APM_BUF_MAX);
    how->root_id = apm_str_is(req->root_id) ? req->root_id : req->id;
    how->parent_id = req->id;
    how->children = &step.children;
    for (size_t i = 0; i < STEPS; i++)
        if (apm_str_eqz(req->task, steps[i].task))
            st = steps[i].run(&step, err);
    how->children = NULL;
    if (st == APIUM_OK && out->kind == APM_DONE_SUCCESS && step.children.len) {
        out->children = apm_strz(
            apm_arena_printf(how->arena, "[%.*s]", APM_STR_ARG(apm_buf_str(&step.children))));
        if (step.children.failed || !apm_str_is(out->children))
            st = apm_fail(err, APIUM_E_NOMEM, "cannot store what was sent: out of memory");
    }
    apm_buf_clear(&step.children);
    return st;
}
