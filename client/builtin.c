/* builtin.c - celery.map, celery.starmap and celery.accumulate as handlers; see builtin.h */
#include "client/builtin.h"

#include "client/task.h"
#include "workflows/builtin.h"

/* The task that is called for each item; NULL: an exception is recorded. */
static const apium_task_def *
mapped(apium_task *task)
{
    apium_error err;
    apm_json sig = apm_builtin_arg(task->req, 0, "task");
    apm_json name = sig.type == APM_JSON_STRING ? sig : apm_json_get(sig, "task");
    apm_str text;
    if (name.type != APM_JSON_STRING) {
        apm_task_raisef(task, NULL, "TypeError",
                        "%s() takes a signature and a list: 'task' and 'it'", task->def->name);
        return NULL;
    }
    if (apm_json_string(name, "task", task->arena, &text, &err) != APIUM_OK) {
        apm_task_raisef(task, NULL, "ValueError", "%s", err.text);
        return NULL;
    }
    const apium_task_def *def = apm_app_task(task->env->app, text);
    if (!def)
        apm_task_raisef(task, NULL, "celery.exceptions.NotRegistered", "%.*s", APM_STR_ARG(text));
    return def;
}

/* One item did not succeed, so the whole has not. */
static apium_verdict
give_up(apium_task *task, const apm_outcome *one)
{
    switch (one->kind) {
    case APM_DONE_IGNORE:
        return apium_ignore(task);
    case APM_DONE_REJECT:
        task->out->kind = APM_DONE_REJECT;
        task->out->exc = one->exc;
        task->out->requeue = one->requeue;
        return APIUM_REJECT;
    case APM_DONE_RETRY: /* who is called directly cannot be sent again: Celery raises the cause */
        if (!apm_str_is(one->exc.type))
            return apm_task_raisef(task, NULL, "celery.exceptions.Retry", "Task can be retried");
        break;
    case APM_DONE_REPLACED:
        return apm_task_raisef(task, NULL, "RuntimeError",
                               "a task that is mapped over a list cannot be replaced");
    default:
        break;
    }
    task->out->kind = APM_DONE_FAILURE;
    task->out->exc = one->exc;
    task->out->traceback = one->traceback;
    return APIUM_FAILURE;
}

static apium_verdict
call_each(apium_task *task, bool star)
{
    apium_error err = { 0 };
    const apium_task_def *def = mapped(task);
    apm_json it = apm_builtin_arg(task->req, 1, "it"), val;
    apm_json_iter at;
    apm_str key;
    apm_buf results;
    apium_verdict verdict = APIUM_SUCCESS;
    int more = 0;
    if (!def)
        return APIUM_FAILURE;
    if (it.type != APM_JSON_ARRAY || apm_json_open(&at, it.text, &err) != APIUM_OK)
        return apm_task_raisef(task, NULL, "TypeError", "%s() takes a list as 'it'",
                               task->def->name);
    apm_buf_init(&results, APM_BUF_MAX);
    apm_buf_addc(&results, '[');
    while (verdict == APIUM_SUCCESS && (more = apm_json_next(&at, &key, &val, &err)) > 0) {
        apm_outcome one;
        if (star && val.type != APM_JSON_ARRAY) {
            verdict = apm_task_raisef(task, NULL, "TypeError",
                                      "%s argument after * must be an iterable", def->name);
            break;
        }
        const char *args =
            star ? NULL : apm_arena_printf(task->arena, "[%.*s]", APM_STR_ARG(val.text));
        if (!star && !args) {
            verdict = apm_task_raisef(task, NULL, "MemoryError", "out of memory");
            break;
        }
        apm_run_direct(task, def, star ? val.text : apm_strz(args), &one);
        if (one.kind != APM_DONE_SUCCESS) {
            verdict = give_up(task, &one);
            break;
        }
        apm_buf_addz(&results, results.len > 1 ? ", " : "");
        apm_buf_adds(&results, one.result);
    }
    apm_buf_addc(&results, ']');
    if (verdict == APIUM_SUCCESS && more < 0)
        verdict = apm_task_raisef(task, NULL, "ValueError", "%s", err.text);
    if (verdict == APIUM_SUCCESS)
        verdict = results.failed ? apm_task_raisef(task, NULL, "MemoryError",
                                                   "the results are too big together")
                                 : apium_return(task, apium_jsonn(results.p, results.len));
    apm_buf_clear(&results);
    return verdict;
}

static apium_verdict
run_map(apium_task *task)
{
    return call_each(task, false);
}

static apium_verdict
run_starmap(apium_task *task)
{
    return call_each(task, true);
}

static apium_verdict
run_accumulate(apium_task *task)
{
    apm_builtin_accumulate(task->req, task->arena, task->out);
    return task->out->kind == APM_DONE_SUCCESS ? APIUM_SUCCESS : APIUM_FAILURE;
}

static const apium_task_def builtins[] = {
    { .name = "celery.accumulate", .run = run_accumulate },
    { .name = "celery.map", .run = run_map },
    { .name = "celery.starmap", .run = run_starmap },
};

const apium_task_def *
apm_app_runnable(const apium_app *app, apm_str name)
{
    const apium_task_def *def = apm_app_task(app, name);
    for (size_t i = 0; !def && i < sizeof(builtins) / sizeof(builtins[0]); i++)
        if (apm_str_eqz(name, builtins[i].name))
            def = &builtins[i];
    return def;
}
