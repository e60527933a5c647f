/* limits.c - time limits, signals to pool processes, and what a job is said to have ended with when
 * its process cannot say it */
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/run.h"
#include "core/base/clock.h"
#include "core/base/error.h"
#include "worker/pool_inner.h"

#define KILL_AFTER_NS (100 * INT64_C(1000000)) /* SIGKILL follows SIGTERM, as in Celery */

static int64_t
deadline(int64_t began_ns, double limit_s)
{
    return limit_s > 0 && limit_s < 1e9 ? began_ns + (int64_t)(limit_s * 1e9) : APM_NEVER;
}

int64_t
apm_limits_next(const apm_pool *pool)
{
    int64_t next = APM_NEVER;
    if (pool->limited == 0)
        return next;
    for (unsigned i = 0; i < pool->n_running; i++) {
        const apm_job *job = pool->jobs[pool->running[i]];
        int64_t soft = job->soft_sent ? APM_NEVER : deadline(job->began_ns, job->soft_time_limit_s);
        int64_t hard = job->hard_sent ? APM_NEVER : deadline(job->began_ns, job->time_limit_s);
        if (soft < next)
            next = soft;
        if (hard < next)
            next = hard;
    }
    return next;
}

static void
enforce_soft(apm_pool *pool, apm_job *job)
{
    int none = APM_STOP_NO;
    job->soft_sent = true;
    /* A process hears it from the signal alone, whose handler calls the task's function: were it
     * told from here, the task could see that first, and be over before the signal. */
    if (!pool->kind->processes ||
        !apm_process_signal(&pool->processes[job->process], SIGUSR1, job->seq))
        atomic_compare_exchange_strong(&pool->slots.slot[job->slot].stop, &none,
                                       APM_STOP_SOFT_LIMIT);
    pool->happened++;
    if (pool->events.on_limit)
        pool->events.on_limit(pool->events.arg, job, false, job->soft_time_limit_s);
}

static void
enforce_hard(apm_pool *pool, apm_job *job, int64_t now_ns)
{
    apm_process *process = &pool->processes[job->process];
    /* From here on it takes no other job, so the signals cannot hit one. Over by now: it is
     * delivered at the next look. */
    if (!apm_slots_hold(&pool->slots, process->seat, job->slot))
        return;
    job->hard_sent = true;
    process->doomed = true;
    (void)apm_process_signal(process, SIGTERM, 0);
    process->kill_ns = now_ns + KILL_AFTER_NS;
    pool->happened++;
    if (pool->events.on_limit)
        pool->events.on_limit(pool->events.arg, job, true, job->time_limit_s);
}

void
apm_limits_run(apm_pool *pool, int64_t now_ns)
{
    for (unsigned i = 0; i < pool->n_running && pool->limited > 0; i++) {
        apm_job *job = pool->jobs[pool->running[i]];
        if (!job->hard_sent && deadline(job->began_ns, job->time_limit_s) <= now_ns)
            enforce_hard(pool, job, now_ns);
        else if (!job->soft_sent && deadline(job->began_ns, job->soft_time_limit_s) <= now_ns)
            enforce_soft(pool, job);
    }
}

bool
apm_process_signal(const apm_process *process, int signum, uint32_t seq)
{
    siginfo_t info = { .si_signo = signum, .si_code = SI_QUEUE };
    if (!process->exit)
        return false;
    info.si_pid = getpid();
    info.si_uid = getuid();
    info.si_value.sival_int = (int)seq;
    return pidfd_send_signal(process->exit->fd, signum, &info, 0) == 0;
}

apium_status
apm_pool_terminate(apm_pool *pool, apm_job *job, int signum, apium_error *err)
{
    unsigned seat;
    if (!pool->kind->processes)
        return apm_fail(err, APIUM_E_UNSUPPORTED,
                        "cannot terminate a task in a pool of %s: only processes can be killed",
                        pool->kind->name);
    if ((job->state != APM_JOB_READY && job->state != APM_JOB_RUNNING) ||
        apm_slots_look(&pool->slots, job->slot, &seat) != APM_SLOT_RUNNING ||
        !apm_slots_hold(&pool->slots, seat, job->slot))
        return apm_fail(err, APIUM_E_NOTFOUND, "cannot terminate a task that is not running");
    /* Pool processes ignore what a terminal sends to all; whoever asks for it by name means it. */
    int sent = signum == SIGINT || signum == SIGHUP ? SIGTERM : signum;
    if (!apm_process_signal(&pool->processes[seat], sent, job->seq)) {
        int sys = errno;
        if (!job->terminated)
            apm_slots_unhold(&pool->slots, seat);
        if (sys == ESRCH)
            return apm_fail(err, APIUM_E_NOTFOUND, "cannot terminate a task that is not running");
        return apm_fail_sys(err, sys, "cannot send signal %d to process %d", signum,
                            pool->processes[seat].pid);
    }
    job->terminated = signum;
    return APIUM_OK;
}

/* ---- outcomes ---- */

apm_outcome
apm_outcome_lost(const apm_job *job, int status, apm_buf *buf)
{
    apm_buf_reset(buf);
    apm_buf_addz(buf, "[\"Worker exited prematurely: ");
    if (status == -1)
        apm_buf_addz(buf, "exitcode unknown");
    else if (WIFSIGNALED(status) && sigabbrev_np(WTERMSIG(status)))
        apm_buf_addf(buf, "signal %d (SIG%s)", WTERMSIG(status), sigabbrev_np(WTERMSIG(status)));
    else if (WIFSIGNALED(status))
        apm_buf_addf(buf, "signal %d", WTERMSIG(status));
    else
        apm_buf_addf(buf, "exitcode %d", WEXITSTATUS(status));
    apm_buf_addf(buf, " Job: %u.\"]", job->seq);
    return (apm_outcome){
        .kind = APM_DONE_LOST,
        .exc = { APM_STR("WorkerLostError"), APM_STR("billiard.exceptions"), apm_buf_str(buf) },
        .runtime_ns = apm_clock_ns() - job->began_ns,
    };
}

apm_outcome
apm_outcome_timeout(const apm_job *job, apm_buf *buf)
{
    apm_buf_reset(buf);
    apm_buf_addc(buf, '[');
    /* As given: time_limit=1 is shown as 1, 1.5 as 1.5. */
    if (job->time_limit_s == floor(job->time_limit_s) && job->time_limit_s < 1e9)
        apm_json_add_int(buf, (int64_t)job->time_limit_s);
    else
        apm_json_add_double(buf, job->time_limit_s);
    apm_buf_addc(buf, ']');
    return (apm_outcome){
        .kind = APM_DONE_TIMEOUT,
        .exc = { APM_STR("TimeLimitExceeded"), APM_STR("billiard.exceptions"), apm_buf_str(buf) },
        .runtime_ns = apm_clock_ns() - job->began_ns,
    };
}

apm_outcome
apm_outcome_terminated(void)
{
    return (apm_outcome){
        .kind = APM_DONE_REVOKED,
        .exc = { APM_STR("TaskRevokedError"), APM_STR("celery.exceptions"),
                 APM_STR("[\"terminated\"]") },
    };
}
