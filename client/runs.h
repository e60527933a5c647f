/* runs.h - the inside of a run: a task, or a group of them, that somebody may wait for, and what it hangs together with. */
#ifndef APM_CLIENT_RUNS_H
#define APM_CLIENT_RUNS_H

#include <apium/run.h>

#include "client/conn.h"
#include "workflows/canvas.h"

/* A group that is waited for: its tasks, those of nested groups too, and in which order they finished. */
typedef struct apm_gathering {
    apium_run **tasks;
    size_t n;
    apium_run **order;
    size_t n_order, told; /* told: by apium_run_next() */
    size_t n_failed;
    apm_gather gather;
    bool *seen;               /* by the place in tasks */
    const apm_conn *watching; /* all of them are watched for by this one */
} apm_gathering;

/*
 * Made by what sends, by eager calls, and by opening an id or a tuple. A run owns its parent, members and children, so a
 * tree of runs is released with the one that was given out.
 */
struct apium_run {
    apium_app *app;
    char *id;
    apm_conn *watching; /* watches for it since it was sent; NULL: when somebody waits */
    apm_waiter waiter;
    bool unlooked; /* it has been watched for since before it was sent, but never looked for */
    bool ignored;  /* nothing will ever be stored */
    bool eager;    /* it has run here already; waiter.doc is its outcome */
    bool is_group;
    apium_run *parent;
    apium_run **members; /* of a group */
    size_t n_members;
    apium_run **children; /* of a task, as they were last asked for */
    size_t n_children;
    apm_gathering *gathering; /* of a group */
    apium_run *top;           /* the run that was given out */
    apm_gathering *active;    /* of the top: whose waiters the tree's are */
    char *tuple;
};

/* runs.c: making and releasing. */
apium_status apm_run_new(apium_app *app, apm_str id, apium_run **out, apium_error *err);
apium_status
apm_run_of_handle(apium_app *app, const apm_handle *handle, apium_run **out, apium_error *err);
/* Call fn for every single task of the tree: parents, members. */
typedef apium_status apm_run_fn(void *arg, apium_run *run, apium_error *err);
apium_status apm_run_each(apium_run *run, apm_run_fn *fn, void *arg, apium_error *err);

/* wait.c */
/* This thread's conn with its backend open, for a run whose result can be somewhere. */
apium_status
apm_run_backend(apium_run *run, apm_conn **conn, apm_backend **backend, apium_error *err);
/* Is it this conn that has watched since the task was sent? */
bool apm_run_watched(const apium_run *run, const apm_conn *conn);
/* Watch for it from now on. */
apium_status apm_run_watch(apium_run *run, apm_conn *conn, apium_error *err);
/* The same for one that is sent next, where apm_conn_watches(). */
apium_status apm_run_watch_sent(apium_run *run, apm_conn *conn, apium_error *err);
void apm_run_unwatch(apium_run *run);
/* Bring a task's document up to date without waiting for anything to happen. */
apium_status apm_run_look(apium_run *run, apm_conn *conn, apm_backend *backend, apium_error *err);
/* Say what could not be done, keeping the rest of the error. */
apium_status
apm_run_words(apium_error *err, const char *what, const apium_run *run, const apium_error *why);
/* One turn of a wait that ends at deadline_ms (INT64_MAX never) or when *done. E_TIMEOUT, E_CLOSED. */
apium_status apm_run_turn(apm_conn *conn, const bool *done, int64_t deadline_ms, apium_error *err);
int64_t apm_run_deadline(int64_t timeout_ms);
/* The timeout that is left of a deadline: -1 for ever. */
int64_t apm_run_left(int64_t deadline_ms);
/* Has a task finished, and not well? */
bool apm_run_failed(const apium_run *run);
bool apm_run_done(const apium_run *run);

/* group.c */
/* Wait until all of its tasks have finished, or with `failing` until one has failed. */
apium_status apm_group_wait(apium_run *run, int64_t timeout_ms, bool failing, apium_error *err);
/* Bring them all up to date. */
apium_status apm_group_look(apium_run *run, apium_error *err);
/* What is known of it, as a document. */
apium_status apm_group_result(apium_run *run, apium_result **out, apium_error *err);
void apm_gathering_free(apm_gathering *gathering);

/* result.c: a result from a document; absent is PENDING. */
apium_status apm_result_new(const char *id, apm_str text, apium_result **out, apium_error *err);

#endif
