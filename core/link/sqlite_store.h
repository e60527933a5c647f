/* sqlite_store.h - what the loop's side (sqlite.c), the thread (sqlite_store.c) and the file
 * (sqlite_db.c) of a SQLite link share. Private to them. */
#ifndef APM_LINK_SQLITE_STORE_H
#define APM_LINK_SQLITE_STORE_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/link/sqlite.h"

#define MAX_SCHEMAS 8
#define MAX_HOLDS   16

typedef struct unit {
    apm_unit base;
    apm_sqlite_op *first, *last;
    bool read_only, idle; /* idle: every operation's probe said no */
    int64_t since_ms;     /* handed over */
    apium_status status;
    apium_error err;
    struct unit *next;
} unit;

typedef struct units {
    unit *first, *last;
} units;

void apm_sqlite_units_add(units *list, unit *u);
void apm_sqlite_units_append(units *list, units *more); /* empties more */
unit *apm_sqlite_units_take(units *list);               /* NULL when empty */

/* ---- sqlite_db.c: the open file. One thread uses it. ---- */

struct apm_sqlite_db {
    const char *path;        /* borrowed from the store */
    const char *synchronous; /* "FULL" ... */
    sqlite3 *handle;
    int lock_fd, touch_fd[2];
    int64_t lock_inode;
    bool locked;
    bool replaced;    /* the file was another one before; for whoever looks to clear */
    unsigned touched; /* bit: 1 << topic */
    unsigned applied; /* schemas */
    int64_t holds[MAX_HOLDS];
    size_t n_holds;
    struct {
        const char *sql;
        sqlite3_stmt *stmt;
    } cache[256];
    int fault; /* SQLite's code when the file, not one unit, is at fault; 0 */
};

void apm_sqlite_db_init(apm_sqlite_db *db, const char *path, const char *synchronous);
/* Open what is not open yet and run the schemas. On failure everything is closed and db->fault is
 * set. */
apium_status
apm_sqlite_db_open(apm_sqlite_db *db, const char *const *schemas, unsigned n, apium_error *err);
/* Close the database; with `all` the lock file too, which gives up our runs' signs of life. */
void apm_sqlite_db_close(apm_sqlite_db *db, bool all);
apium_status apm_sqlite_db_begin(apm_sqlite_db *db, bool write, apium_error *err);
apium_status apm_sqlite_db_commit(apm_sqlite_db *db, apium_error *err);
void apm_sqlite_db_rollback(apm_sqlite_db *db);
apium_status apm_sqlite_db_savepoint(apm_sqlite_db *db, apium_error *err);
apium_status apm_sqlite_db_release(apm_sqlite_db *db, apium_error *err);
/* Undo to the savepoint and end it. */
apium_status apm_sqlite_db_undo(apm_sqlite_db *db, apium_error *err);

/* ---- sqlite_store.c: the thread. ---- */

typedef struct store {
    char *path, *synchronous;
    int64_t patience_ms;
    void (*wake)(
        void *arg); /* called under `mutex`: there is something to look at; NULL: nobody looks */
    void *wake_arg;

    pthread_mutex_t mutex;
    pthread_cond_t more;
    pthread_t thread;
    units inbox, outbox;
    const char *schemas[MAX_SCHEMAS];
    unsigned n_schemas;
    bool stop, ended, abandoned;
    bool pause, paused;      /* asked to close the file for a fork; done */
    apm_sqlite_db *db;       /* the thread's */
    struct store *neighbour; /* in the list of sqlite_fork.c, under its mutex */
    bool news, up;           /* news: `up` and `why` have changed since the loop looked */
    char why[512];
} store;

store *apm_sqlite_store_start(const char *path, const char *synchronous, int64_t patience_ms,
                              apium_error *err);
/* From now on call wake when there is something to look at. */
void apm_sqlite_store_attach(store *s, void (*wake)(void *), void *arg);
/* Hand units over; empties the list. */
void apm_sqlite_store_give(store *s, units *list);
/* What is new: answered units and, when true, a change of state. *ended: the thread is about to
 * return. */
bool apm_sqlite_store_look(store *s, units *answered, bool *up, char why[512], bool *ended);
void apm_sqlite_store_add_schema(store *s, const char *sql);
/* Ask the thread to try once what it has, and end. */
void apm_sqlite_store_stop(store *s);
/* The thread has ended: release. */
void apm_sqlite_store_free(store *s);
/* The thread does not come back (it waits for a lock whose holder is stopped): leave everything to
 * it. */
void apm_sqlite_store_abandon(store *s);

/* ---- sqlite_fork.c: open files and fork(). ---- */

/* Called by the thread when it begins, and when it has closed its file for good. */
void apm_sqlite_fork_add(store *s);
void apm_sqlite_fork_remove(store *s);
/* With the store's mutex, when `pause` is set: close the file and wait until the fork is over. */
void apm_sqlite_store_pause(store *s);
/* Was this file open when the process was forked? */
bool apm_sqlite_fork_tainted(const char *path);

#endif
