/*
 * task.h - the inside of apium_task: one run of one request in this thread. Made by run.c, decided
 * by the handler through the functions of task.c, retry.c and args.c.
 */
#ifndef APM_CLIENT_TASK_H
#define APM_CLIENT_TASK_H

#include "client/run.h"
#include "client/value.h"

/* Text that a getter has handed out, terminated, by field. */
enum {
    APM_TEXT_ID,
    APM_TEXT_NAME,
    APM_TEXT_ROOT,
    APM_TEXT_PARENT,
    APM_TEXT_GROUP,
    APM_TEXT_EXCHANGE,
    APM_TEXT_ROUTING_KEY,
    APM_TEXT_ORIGIN,
    APM_TEXT_REPLY_TO,
    APM_TEXT_CORRELATION_ID,
    APM_TEXT_ARGS,
    APM_TEXT_KWARGS,
    APM_TEXT_HEADERS,
    APM_TEXTS
};

/*
 * What the handler has decided so far is in `out`, whose kind says which of apium_return (SUCCESS),
 * apium_raise (FAILURE), apium_retry, apium_reject and apium_ignore was called last; 0 when none
 * was. An exception stays recorded while others are called: it is a retry's cause.
 */
struct apium_task {
    const apm_run_env *env;
    const apium_task_def *def;
    const apm_request *req;
    apm_arena *arena;
    apm_outcome *out;
    apm_buf children;      /* JSON array text without its end, empty at first */
    double soft_s, hard_s; /* limits in force; 0 none */
    int64_t began_ms;
    bool finished;            /* the handler has returned; only hooks look now */
    const char **texts;       /* APM_TEXTS of them */
    struct apium_task *outer; /* the task that runs this one eagerly */
};

/* Where in the source something was raised. */
typedef struct apm_site {
    const char *file, *func;
    int line;
} apm_site;

/* Record an exception; args is a validated JSON array in the task's arena. */
apium_verdict
apm_task_raise(apium_task *task, const apm_site *site, apm_str module, apm_str type, apm_str args);
/* The same for a builtin one (or "module.Type") with a message; site may be NULL. */
apium_verdict apm_task_raisef(apium_task *task, const apm_site *site, const char *type,
                              const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/* Retry because of the exception that was recorded, as autoretry_for and the back-off of the
 * definition say. */
apium_verdict apm_task_autoretry(apium_task *task);

/* Call another task's handler inside this one, with these positional arguments (JSON array), as Python does by calling it: no hooks, no
 * message; what it sends are children of `outer`. Text of the outcome lives in outer's arena. */
void apm_run_direct(apium_task *outer, const apium_task_def *def, apm_str args, apm_outcome *out);

/* The task that this thread is running, NULL outside of one. */
apium_task *apm_task_current(void);
/* A run that the current task sent: it becomes a child. */
void apm_task_add_child(apium_task *task, apm_str id);
/* The same for a workflow: result tuples, with commas. */
void apm_task_add_children(apium_task *task, apm_str tuples);

#endif
