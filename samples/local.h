/*
 * local.h - what the samples that are whole programs share: somewhere to send tasks to, and workers
 * for them. Unless a broker is named it is a SQLite file in a temporary folder; the workers are
 * this same program, started again. All of it is gone when the sample ends.
 */
#ifndef SAMPLES_LOCAL_H
#define SAMPLES_LOCAL_H

#include <apium/apium.h>

#include <sys/types.h>

#define LOCAL_WORKERS     2 /* nodes, each with LOCAL_PROCESSES */
#define LOCAL_PROCESSES   2
#define LOCAL_WORKERS_MAX 16
#define LOCAL_PATH_MAX    256

typedef struct local {
    const char *name; /* of the program */
    const char *broker,
        *backend;   /* URLs; without a broker it is a file of ours, without a backend the broker */
    int workers;    /* to start; 0 when some run already */
    apium_app *app; /* to send with */

    /* local.c's own */
    char folder[LOCAL_PATH_MAX], url[LOCAL_PATH_MAX + 32];
    pid_t nodes[LOCAL_WORKERS_MAX];
    int n_nodes;
} local;

/* Is this apium's command line (`wordcount worker ...`)? Then main() returns apium_main(). */
bool local_is_command(int argc, char **argv);

/* A new folder below $TMPDIR, or /tmp; false: why is said. */
bool local_folder_make(const char *name, char folder[LOCAL_PATH_MAX]);
void local_folder_remove(const char *folder);

/* Make the app, the folder, start the workers. False: the reason is said; close it all the same. */
bool local_open(local *here, const apium_task_def *tasks);
/* Does waiting make sense? False when we are interrupted, or a worker has ended by itself, which
 * is said. */
bool local_goes_on(local *here);
/* The value of a run; NULL when there is none, and why is said. */
apium_result *local_get(local *here, apium_run *run);
/* Stop the workers, remove what was made. */
void local_close(local *here);

#endif
