/*
 * sqlite.h - a link to one SQLite file: units of operations that run in the link's thread, one
 * transaction for many.
 *
 *        loop                              thread, one a link
 *   unit: op op op ──▶ inbox ──▶ lock file ▸ BEGIN IMMEDIATE ▸ every unit in a savepoint ▸ COMMIT ▸ touch
 *   finish, done   ◀── outbox ◀── fates
 *
 * The link knows no tables: adapters bring a schema and operations. Beside the database `x` live
 *   x-lock  byte 0: writers queue on it before BEGIN IMMEDIATE, for SQLite's own busy handler starves;
 *           byte 2^62 + run: held by the process of that run as long as it lives
 *   x-wake  touched after messages became ready; idle consumers watch it
 *   x-done  touched after results were stored; whoever waits for results watches it
 *
 * A fault of the file (disk full, locked by others, not a database, directory missing ...) keeps
 * every unit: the link is down, says why, and tries again with back-off; see sqlite_store.c for
 * what it gives up on and when. A link is not carried over fork(): the child opens its own, and
 * sqlite_fork.c sees to it that it can.
 */
#ifndef APM_LINK_SQLITE_H
#define APM_LINK_SQLITE_H

#include <sqlite3.h>

#include "core/link/link.h"

extern const apm_link_ops apm_sqlite_kind;

typedef struct apm_sqlite_db apm_sqlite_db;
typedef struct apm_sqlite_op apm_sqlite_op;

/* One operation of a unit, the head of an adapter's own struct. */
struct apm_sqlite_op {
    /* In the thread, inside the transaction. Runs again when a commit failed, so it must start
     * afresh each time. A status other than OK undoes the whole unit and becomes its answer. */
    apium_status (*run)(apm_sqlite_db *db, apm_sqlite_op *op, apium_error *err);
    /* May be NULL. In the thread, before any lock is taken: is there anything to do? A unit all of
     * whose operations say no is answered OK without having run. */
    bool (*probe)(apm_sqlite_db *db, apm_sqlite_op *op);
    /* On the loop, with the fate of the unit and before its done; not called for a unit that was
     * dropped. May be NULL. */
    void (*finish)(apm_sqlite_op *op, apium_status status, const apium_error *err);
    /* On the loop, last. NULL is free(). */
    void (*release)(apm_sqlite_op *op);
    apm_sqlite_op *next;
};

/* Append op to a unit of a SQLite link, which owns it from then on. */
void apm_sqlite_add(apm_unit *unit, apm_sqlite_op *op);
/* The unit only reads: it runs without waiting for writers, in a snapshot. */
void apm_sqlite_read_only(apm_unit *unit);
/* A unit of one operation, committed at once; what there is to say goes to op->finish. Without
 * memory for the unit op is finished with E_NOMEM from inside the call. */
void apm_sqlite_submit(apm_link *link, apm_sqlite_op *op, bool read_only);

/* Statements (CREATE ... IF NOT EXISTS) that must have run on the file before any operation;
 * static text. */
void apm_sqlite_schema(apm_link *link, const char *sql);

typedef enum apm_sqlite_topic {
    APM_SQLITE_WAKE, /* x-wake was touched, by whatever process */
    APM_SQLITE_DONE, /* x-done was */
    /* units are about to be handed to the thread: the last moment to append one to this
     * gathering */
    APM_SQLITE_SEND,
    APM_SQLITE_TOPICS,
} apm_sqlite_topic;

typedef struct apm_sqlite_listener {
    void (*on_event)(void *arg);
    void *arg;
    struct apm_sqlite_listener *next;
} apm_sqlite_listener;

/* Touches before listen may be missed: look once after it. */
void apm_sqlite_listen(apm_link *link, apm_sqlite_topic topic, apm_sqlite_listener *listener);
void apm_sqlite_unlisten(apm_link *link, apm_sqlite_topic topic, apm_sqlite_listener *listener);
/* Call the SEND listeners soon, before the loop sleeps. */
void apm_sqlite_stir(apm_link *link);

/* ---- In the thread, for `run` and `probe`. ---- */

typedef struct apm_sqlite_val {
    enum { APM_SQLITE_INT, APM_SQLITE_TEXT, APM_SQLITE_BLOB } kind;
    int64_t i;
    apm_str s;
} apm_sqlite_val;

static inline apm_sqlite_val
apm_sqlite_int(int64_t i)
{
    return (apm_sqlite_val){ APM_SQLITE_INT, i, APM_STR_NONE };
}
static inline apm_sqlite_val
apm_sqlite_text(apm_str s) /* absent is NULL */
{
    return (apm_sqlite_val){ APM_SQLITE_TEXT, 0, s };
}
static inline apm_sqlite_val
apm_sqlite_blob(apm_str s)
{
    return (apm_sqlite_val){ APM_SQLITE_BLOB, 0, s };
}

/* The values of ?1, ?2 ...: APM_SQL(apm_sqlite_int(id), apm_sqlite_text(name)) stands for two
 * arguments. Borrowed until the statement has ended. */
#define APM_SQL(...)                                                                               \
    (const apm_sqlite_val[]){ __VA_ARGS__ },                                                       \
        sizeof((const apm_sqlite_val[]){ __VA_ARGS__ }) / sizeof(apm_sqlite_val)

/* Start a query. sql is static text: statements are kept by its address. NULL on failure. */
sqlite3_stmt *apm_sqlite_query(apm_sqlite_db *db, apium_error *err, const char *sql,
                               const apm_sqlite_val *vals, size_t n);
/* 1: a row is there; 0: the end; -1: failed. After 0 and -1 the statement is reset; leave earlier
 * by sqlite3_reset(). */
int apm_sqlite_step(apm_sqlite_db *db, sqlite3_stmt *stmt, apium_error *err);
/* Run a statement to its end. */
apium_status apm_sqlite_exec(apm_sqlite_db *db, apium_error *err, const char *sql,
                             const apm_sqlite_val *vals, size_t n);
/* Rows that the last statement changed; the id of the last row inserted. */
int64_t apm_sqlite_changes(const apm_sqlite_db *db);
int64_t apm_sqlite_last_id(const apm_sqlite_db *db);
/* The text or blob of a column, borrowed until the next step; absent when NULL. */
apm_str apm_sqlite_column(sqlite3_stmt *stmt, int column);
/* Touch x-wake or x-done after the commit. */
void apm_sqlite_touch(apm_sqlite_db *db, apm_sqlite_topic topic);

/* Show that this process is alive under the name `run` (a random positive number below 2^62),
 * until it drops the name or dies. */
apium_status apm_sqlite_hold(apm_sqlite_db *db, int64_t run, apium_error *err);
void apm_sqlite_unhold(apm_sqlite_db *db, int64_t run);
/* Is the process of that run alive? `place` is what apm_sqlite_place() gave it: a lock file that
 * was deleted and made again says nothing about runs of the old one. */
typedef enum apm_sqlite_life {
    APM_SQLITE_DEAD,
    APM_SQLITE_ALIVE,
    APM_SQLITE_UNKNOWN
} apm_sqlite_life;
apm_sqlite_life apm_sqlite_alive(apm_sqlite_db *db, int64_t run, int64_t place);
int64_t apm_sqlite_place(const apm_sqlite_db *db);

#endif
