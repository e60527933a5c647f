/*
 * run.c - one run of one request: what surrounds the handler, and the outcome that follows from its
 * verdict.
 *
 *   before_task ─▶ handler ─▶ verdict ─▶ outcome ─▶ the definition's hook, the app's hook ─▶ after_task
 */
#include "client/run.h"

#include "client/app.h"
#include "client/except.h"
#include "client/task.h"
#include "core/base/clock.h"

/* The innermost run of this thread: an eager call runs inside another. Read by a signal handler. */
static _Thread_local apium_task *volatile current;

apium_task *
apm_task_current(void)
{
    return current;
}

void
apm_run_soft_limit(void)
{
    apium_task *task = current;
    if (task && !task->finished && task->def->on_soft_limit)
        task->def->on_soft_limit(task);
}

/* The first limit that is given: the message's, the definition's, the settings'. */
static double
first_limit(double message, double def, double setting)
{
    return message > 0 ? message : def > 0 ? def : setting > 0 ? setting : 0;
}

/* FAILURE without an exception of the handler's own. */
static void
name_the_failure(apium_task *task)
{
    if (apium_should_stop(task) == APIUM_STOP_SOFT_LIMIT)
        apm_task_raise(task, NULL, APM_STR("billiard.exceptions"), APM_STR("SoftTimeLimitExceeded"),
                       APM_STR("[]"));
    else
        apm_task_raisef(task, NULL, "RuntimeError", "%s failed without saying why",
                        task->def->name);
}

/* Bring the outcome in line with the verdict, whatever the handler decided before; answers the
 * verdict that holds. */
static apium_verdict
settle_verdict(apium_task *task, apium_verdict verdict)
{
    apm_outcome *out = task->out;

    switch (verdict) {
    case APIUM_SUCCESS:
        if (out->kind == APM_DONE_FAILURE && apm_str_eqz(out->exc.type, "EncodeError") &&
            apm_str_eqz(out->exc.module, "kombu.exceptions"))
            return APIUM_FAILURE; /* apium_return() refused the value, its answer was dropped */
        if (out->kind != APM_DONE_SUCCESS || !apm_str_is(out->result))
            out->result = APM_STR("null");
        out->kind = APM_DONE_SUCCESS;
        out->exc = (apm_exception){ 0 };
        out->traceback = APM_STR_NONE;
        return verdict;
    case APIUM_FAILURE:
        if (out->kind == APM_DONE_RETRY && apm_str_is(out->exc.type))
            out->kind =
                APM_DONE_FAILURE; /* it thought better of trying again: the cause is what remains */
        else if (out->kind != APM_DONE_FAILURE)
            name_the_failure(task);
        return verdict;
    case APIUM_RETRY:
        return out->kind == APM_DONE_RETRY ? verdict : apium_retry(task, APIUM_DEFAULT_DELAY, NULL);
    case APIUM_REJECT:
        return out->kind == APM_DONE_REJECT ? verdict : apium_reject(task, false, NULL);
    case APIUM_IGNORE:
        return apium_ignore(task);
    case APIUM_REPLACED:
        if (out->kind == APM_DONE_REPLACED)
            return verdict;
        apm_task_raisef(task, NULL, "RuntimeError", "%s was replaced by nothing", task->def->name);
        return APIUM_FAILURE;
    }
    apm_task_raisef(task, NULL, "RuntimeError", "%s returned %d, which is no verdict",
                    task->def->name, (int)verdict);
    return APIUM_FAILURE;
}

static void
call_hook(void (*hook)(apium_task *task), apium_task *task)
{
    if (hook)
        hook(task);
}

/* What the task sent, and a retry the task itself, as Celery records it. */
static void
finish_children(apium_task *task)
{
    if (task->out->kind == APM_DONE_RETRY)
        apm_task_add_child(task, task->req->id);
    if (task->children.len) {
        apm_buf_addc(&task->children, ']');
        if (!task->children.failed)
            task->out->children = apm_arena_str(task->arena, apm_buf_str(&task->children), NULL);
    }
    apm_buf_clear(&task->children);
}

void
apm_run_direct(apium_task *outer, const apium_task_def *def, apm_str args, apm_outcome *out)
{
    const char *texts[APM_TEXTS] = { 0 };
    apm_request req = *outer->req;
    req.task = apm_strz(def->name);
    req.args = args;
    req.kwargs = APM_STR("{}");
    req.chord = req.chain = req.callbacks = req.errbacks = APM_STR_NONE;
    *out = (apm_outcome){ 0 };
    apium_task task = {
        .env = outer->env,
        .def = def,
        .req = &req,
        .arena = outer->arena,
        .out = out,
        .soft_s = outer->soft_s,
        .hard_s = outer->hard_s,
        .began_ms = outer->began_ms,
        .texts = texts,
        .outer = current,
    };
    apm_buf_init(&task.children, APM_BUF_MAX);
    current = &task;
    (void)settle_verdict(&task, def->run(&task));
    current = task.outer;
    if (task.children.len) {
        apm_buf_addz(&outer->children, outer->children.len ? ", " : "[");
        apm_buf_add(&outer->children, task.children.p + 1, task.children.len - 1);
    }
    apm_buf_clear(&task.children);
}

void
apm_run(const apm_run_env *env, const apium_task_def *def, const apm_request *req, apm_arena *arena,
        apm_outcome *out)
{
    static const apium_hooks no_hooks;
    const apium_hooks *hooks = env->app ? apm_app_hooks(env->app) : &no_hooks;
    const apm_settings *settings = env->app ? apm_app_settings(env->app) : NULL;
    const char *texts[APM_TEXTS] = { 0 };

    *out = (apm_outcome){ 0 };
    apium_task task = {
        .env = env,
        .def = def,
        .req = req,
        .arena = arena,
        .out = out,
        .soft_s = first_limit(req->soft_time_limit_s, def->soft_time_limit,
                              settings ? settings->task_soft_time_limit : 0),
        .hard_s = first_limit(req->time_limit_s, def->time_limit,
                              settings ? settings->task_time_limit : 0),
        .began_ms = apm_clock_ms(),
        .texts = texts,
        .outer = current,
    };
    apm_buf_init(&task.children, APM_BUF_MAX);
    int64_t began = apm_clock_ns();
    current = &task;

    call_hook(hooks->before_task, &task);
    apium_verdict verdict = settle_verdict(&task, def->run(&task));
    if (verdict == APIUM_FAILURE && apm_exception_in(&out->exc, def->autoretry_for))
        verdict = apm_task_autoretry(&task);
    out->runtime_ns = apm_clock_ns() - began;
    out->expected = verdict == APIUM_FAILURE && apm_exception_in(&out->exc, def->throws);
    task.finished = true;

    if (verdict == APIUM_SUCCESS) {
        call_hook(def->on_success, &task);
    } else if (verdict == APIUM_FAILURE) {
        call_hook(def->on_failure, &task);
        call_hook(hooks->on_failure, &task);
    } else if (verdict == APIUM_RETRY) {
        call_hook(def->on_retry, &task);
        call_hook(hooks->on_retry, &task);
    }
    if (hooks->after_task)
        hooks->after_task(&task, verdict);
    finish_children(&task);
    current = task.outer;
}
