/* errback.c - errbacks that are called here; see errback.h */
#include "worker/errback.h"

#include <stdlib.h>

#include "core/base/ids.h"

struct apm_errbacks {
    apm_errback_call *calls;
    size_t n;
};

bool
apm_errback_is_ours(const apm_worker *w, apm_str task)
{
    const apm_task_info *info = apm_pool_task(w->pool, task);
    return info && info->errback;
}

static void
lost(const apm_errback_call *call)
{
    apm_log(APM_LOG_CRITICAL, "errback.no_memory",
            "Out of memory: the errback %.*s of task %.*s is not called", APM_STR_ARG(call->task),
            APM_STR_ARG(call->failed_id));
}

void
apm_errback_add(apm_work *work, const apm_follow *follow)
{
    apm_arena *arena = &work->delivery->arena;
    if (!follow->n_calls)
        return;
    if (!work->errbacks)
        work->errbacks = apm_arena_alloc(arena, sizeof(*work->errbacks));
    size_t had = work->errbacks ? work->errbacks->n : 0, n = had + follow->n_calls;
    apm_errback_call *calls = work->errbacks ? apm_arena_alloc(arena, n * sizeof(*calls)) : NULL;
    if (!calls) {
        for (size_t i = 0; i < follow->n_calls; i++)
            lost(&follow->calls[i]);
        return;
    }
    if (had)
        memcpy(calls, work->errbacks->calls, had * sizeof(*calls));
    memcpy(calls + had, follow->calls, follow->n_calls * sizeof(*calls));
    *work->errbacks = (struct apm_errbacks){ calls, n };
}

static bool
copy(apm_arena *arena, apm_str *to, apm_str from)
{
    bool ok = true;
    *to = apm_arena_str(arena, from, &ok);
    return ok;
}

static bool
fill_in(apm_request *req, apm_arena *arena, const apm_errback_call *call, const apm_request *failed)
{
    char id[APM_UUID_LEN + 1];
    apm_uuid4(id);
    *req = (apm_request){
        .group_index = -1,
        .eta_us = APM_TIME_NONE,
        .expires_us = APM_TIME_NONE,
        .ignore_result = APM_YES,
        .priority = APM_PRIORITY_NONE,
        .protocol = 2,
    };
    return copy(arena, &req->id, apm_strz(id)) && copy(arena, &req->task, call->task) &&
           copy(arena, &req->args, call->args) && copy(arena, &req->kwargs, call->kwargs) &&
           copy(arena, &req->parent_id, call->failed_id) &&
           copy(arena, &req->root_id, apm_str_is(failed->root_id) ? failed->root_id : failed->id);
}

static void
call_one(apm_worker *w, const apm_errback_call *call, const apm_request *failed)
{
    const apm_task_info *task = apm_pool_task(w->pool, call->task);
    apm_delivery *delivery = task ? calloc(1, sizeof(*delivery)) : NULL;
    apm_work *work = delivery ? apm_work_new(w, delivery) : NULL;
    if (!work) {
        free(delivery);
        lost(call);
        return;
    }
    work->internal = true;
    work->acked = true;
    work->task = task;
    if (!fill_in(&work->req, &delivery->arena, call, failed)) {
        lost(call);
        apm_work_free(work);
        return;
    }
    apm_intake_options(work);
    apm_work_move(work, APM_AT_READY);
    apm_worker_wake(w);
}

void
apm_errback_go(apm_work *work)
{
    struct apm_errbacks *errbacks = work->errbacks;
    work->errbacks = NULL;
    if (work->worker->life > APM_WARM || !work->worker->pool)
        return; /* no process will take them any more */
    for (size_t i = 0; errbacks && i < errbacks->n; i++)
        call_one(work->worker, &errbacks->calls[i], &work->req);
}

void
apm_errback_done(apm_work *call, const apm_outcome *outcome)
{
    apm_worker *w = call->worker;
    if (outcome->kind != APM_DONE_SUCCESS && outcome->kind != APM_DONE_IGNORE) {
        apm_buf text;
        apm_buf_init(&text, 16384);
        apm_exception_repr(&text, &outcome->exc);
        apm_log(APM_LOG_ERROR, "errback.failed", "The errback %.*s of task %.*s raised %.*s%s%.*s",
                APM_STR_ARG(call->req.task), APM_STR_ARG(call->req.parent_id),
                APM_STR_ARG(apm_buf_str(&text)), outcome->traceback.len ? "\n" : "",
                APM_STR_ARG(outcome->traceback));
        apm_buf_clear(&text);
    }
    apm_work_free(call);
    apm_worker_progress(w);
}
