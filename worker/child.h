/*
 * child.h - what runs in a pool process or pool thread: take a slot, run it, leave the outcome,
 * again.
 */
#ifndef APM_WORKER_CHILD_H
#define APM_WORKER_CHILD_H

#include "client/app.h"
#include "worker/slots.h"

/* Exit codes of a pool process (Celery's). */
enum {
    APM_CHILD_LEFT = 0,       /* told to go, or its parent went */
    APM_CHILD_NO_START = 1,   /* the hook process_start failed */
    APM_CHILD_RECYCLED = 155, /* max_tasks_per_child or max_memory_per_child */
};

typedef struct apm_child {
    apm_slots *slots;
    unsigned seat;
    int sock;    /* custom states go out here */
    int wake_fd; /* the main process's eventfd */
    apium_app *app;
    const char *hostname;
    int64_t max_tasks, max_memory_kib; /* 0 none */
} apm_child;

/* Work until told to leave or it is time to be recycled; returns an exit code. */
int apm_child_run(const apm_child *child);

/*
 * The life of a freshly forked pool process: bind it to the main process's life (`life_fd`: the
 * read end of the pipe whose only write end the main process has), wait for the go-ahead on the
 * socket, work, leave.
 */
_Noreturn void apm_child_process(const apm_child *child, int life_fd);

/* "ForkPoolWorker-3" */
#define APM_CHILD_NAME_MAX 32
void apm_child_name(unsigned seat, char name[APM_CHILD_NAME_MAX]);

#endif
