/* sqlite_tables.h - steps in the tables of a SQLite broker that its operations share. All run in
 * the link's thread. */
#ifndef APM_BROKERS_SQLITE_TABLES_H
#define APM_BROKERS_SQLITE_TABLES_H

#include "brokers/sqlite_queues.h"

#define APM_SQLITE_DEAD_MAX 10000 /* dead letters kept */

/* The columns that ready, held and parked rows have in common. */
typedef struct apm_sqlite_place_row {
    int64_t id, queue, rank, pos, redelivered;
} apm_sqlite_place_row;

/* *queue is 0 when there is none of that name. */
apium_status
apm_sqlite_find_queue(apm_sqlite_db *db, apm_str name, int64_t *queue, apium_error *err);
/* Find or declare, with its binding. */
apium_status
apm_sqlite_ensure_queue(apm_sqlite_db *db, const apm_queue *queue, int64_t *id, apium_error *err);
/* Keep a message that is in no table of places any more as a dead letter; the oldest beyond
 * APM_SQLITE_DEAD_MAX go. */
apium_status
apm_sqlite_bury(apm_sqlite_db *db, int64_t id, apm_str queue, apm_str reason, apium_error *err);

/* sqlite_runs.c: make sure the run has its row. *lost: it had one, and it is gone. */
apium_status
apm_sqlite_enter_run(apm_sqlite_db *db, const apm_sqlite_run *run, bool *lost, apium_error *err);
/* Move what is due from parked to ready. */
apium_status apm_sqlite_wake_due(apm_sqlite_db *db, apium_error *err);
/* 0: nothing is parked. */
apium_status apm_sqlite_next_due(apm_sqlite_db *db, int64_t *due_us, apium_error *err);

#endif
