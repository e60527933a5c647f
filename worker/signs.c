/*
 * signs.c - signs of life: every process of the pool, and the fork server, is asked for one now and then, and who is silent for
 * too long is named. A process answers between two jobs; while it runs one it may be silent, but not stopped.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "worker/pool_inner.h"

#define START_NS (60 * INT64_C(1000000000)) /* the hook process_start may take so long */

static bool
is_open(const apm_pool *pool, const apm_process *process)
{
    return process->asked && !apm_slots_answered(&pool->slots, process->seat, process->asked);
}

void
apm_pool_ask(apm_pool *pool)
{
    int64_t now_ns = apm_clock_ns();

    if (pool->n_up > 0 || pool->manned_ns == 0)
        pool->manned_ns = now_ns;
    for (unsigned i = 0; i < pool->slots.seated; i++) {
        apm_process *process = &pool->processes[i];
        if (process->life != APM_UP || is_open(pool, process))
            continue;
        process->heard = process->heard || process->asked;
        process->asked_ns = now_ns;
        if (++process->asked == 0)
            process->asked = 1;
        apm_slots_ask(&pool->slots, process->seat, process->asked);
    }
    if (pool->kind->ask)
        pool->kind->ask(pool);
}

/* Stopped by a signal or by a debugger. */
static bool
is_stopped(int pid)
{
    char path[32], text[512];
    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    FILE *file = fopen(path, "re");
    size_t n = file ? fread(text, 1, sizeof(text) - 1, file) : 0;
    if (file)
        fclose(file);
    text[n] = '\0';
    const char *state = strrchr(text, ')'); /* the name before it may be anything */
    return state && state[1] == ' ' && (state[2] == 'T' || state[2] == 't');
}

bool
apm_pool_silent(const apm_pool *pool, int64_t patience_ms, char *who, size_t size)
{
    int64_t now_ns = apm_clock_ns(), patience_ns = patience_ms * 1000000;

    if (pool->manned_ns && now_ns - pool->manned_ns > patience_ns) {
        snprintf(who, size, "the pool has no process");
        return true;
    }
    for (unsigned i = 0; i < pool->slots.seated; i++) {
        const apm_process *process = &pool->processes[i];
        char name[APM_CHILD_NAME_MAX];
        if (process->life != APM_UP || !is_open(pool, process) ||
            now_ns - process->asked_ns <= patience_ns)
            continue;
        apm_child_name(process->seat, name);
        if (pool->kind->processes && is_stopped(process->pid))
            snprintf(who, size, "%s (pid %d) is stopped", name, process->pid);
        else if (!apm_pool_works(pool, process) &&
                 (process->heard || now_ns - process->up_ns > START_NS))
            snprintf(who, size, "%s (pid %d) does not answer", name, process->pid);
        else
            continue;
        return true;
    }
    if (pool->kind->silent_ms && pool->kind->silent_ms(pool) > patience_ms) {
        snprintf(who, size, "the fork server does not answer");
        return true;
    }
    return false;
}
