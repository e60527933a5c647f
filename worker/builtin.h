/*
 * builtin.h - Celery's own tasks, and apium.chain, which every worker knows without a module. Those that only move messages, or ask
 * the store, are done by the loop and take no place in the pool; celery.map and celery.starmap call user code and go there.
 */
#ifndef APM_WORKER_BUILTIN_H
#define APM_WORKER_BUILTIN_H

#include "worker/inner.h"

typedef struct apm_builtin {
    apm_task_info info;
    void (*start)(apm_work *work); /* NULL: the pool runs it. Ends in a settlement. */
} apm_builtin;

/* NULL: no such task. A module's task of the same name goes before it. */
const apm_builtin *apm_builtin_find(apm_str task);
/* Do one that is done by the loop. */
void apm_builtin_start(apm_work *work);

/* unlock.c: celery.chord_unlock. */
void apm_unlock_start(apm_work *work);
/* pieces.c: apium.chain. */
void apm_chain_start(apm_work *work);

#endif
