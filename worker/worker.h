/*
 * worker.h - the worker: consumes, schedules, has tasks run by a pool, settles. Started by the command; runs until it
 * is told to stop.
 *
 *   broker ──▶ intake ──▶ gate ──▶ pool ──▶ settle ──▶ backend + broker
 *
 * Signals (as Celery's): TERM and the first INT stop warm (finish what runs, give back what waits); QUIT, a second TERM or
 * INT stop cold (kill, give back what may be run again); HUP stops warm and starts the same command line again; USR1 logs
 * what the worker holds.
 */
#ifndef APM_WORKER_WORKER_H
#define APM_WORKER_WORKER_H

#include "client/app.h"

typedef struct apm_worker_opts {
    const char *node;    /* template: "w1@%h"; NULL is celery@%h */
    const char *queues;  /* -Q: "a,b"; NULL: task_queues, or the default queue */
    const char *exclude; /* -X; NULL none */
    bool purge;          /* --purge: empty the queues before the first task */
    bool quiet;          /* no banner */
    const char *http;    /* --http ADDR:PORT: metrics and health; NULL none */
    char *const *argv;   /* of this process, for the fork server and for HUP */
    /* Called once when the worker is ready to take tasks (pidfile, readiness); may be NULL. */
    void (*on_ready)(void *arg);
    void *arg;
} apm_worker_opts;

/* Exit codes. */
enum { APM_EXIT_OK = 0, APM_EXIT_FAILURE = 1, APM_EXIT_USAGE = 2, APM_EXIT_RESTART = 250 };

/*
 * Run until stopped. Gives the exit code to leave with: 0 after a warm stop by TERM, 1 after INT or a cold stop or when it gave up.
 * APM_EXIT_RESTART asks the caller to execute argv again (HUP). An error before the worker is up is E_CONFIG, E_REFUSED...
 * with the exit code 1.
 */
int apm_worker_run(apium_app *app, const apm_worker_opts *opts, apium_error *err);

/* Expand a node name template (%h %n %d %p %i %I %%; docs/configuration.md "Node names"): "w1" becomes celery@w1. process: 0 main. */
apium_status apm_node_name(const char *template_, char *out, size_t size, apium_error *err);
/* The same expansions for files, for a known node name: "%n%I.log". */
apium_status apm_node_path(const char *template_, const char *node, int process, char *out,
                           size_t size, apium_error *err);

#endif
