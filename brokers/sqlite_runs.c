/*
 * sqlite_runs.c - who holds messages in a SQLite file, who of them is alive, and what is due.
 *
 * A run is dead when the kernel says so: nobody locks its byte. A process that hangs still has its
 * lock; its beat, which it should raise every 15 s, must have stood still for a minute before
 * another takes its messages. Nobody compares clocks: the minute is what one node saw itself, and
 * it counts only while that node's own beats get through, for when the disk was full nobody's did.
 */
#include <stdlib.h>
#include <unistd.h>

#include "brokers/sqlite_tables.h"
#include "core/base/clock.h"
#include "core/base/error.h"

#define LEASE_MS 60000
#define WAKE_MAX 1000 /* parked messages made ready in one step */

apium_status
apm_sqlite_next_due(apm_sqlite_db *db, int64_t *due_us, apium_error *err)
{
    sqlite3_stmt *stmt = apm_sqlite_query(
        db, err, "SELECT due_us FROM apium_parked ORDER BY due_us LIMIT 1", NULL, 0);
    int row = stmt ? apm_sqlite_step(db, stmt, err) : -1;

    if (row < 0)
        return APIUM_E_SYSTEM;
    *due_us = row ? sqlite3_column_int64(stmt, 0) : 0;
    sqlite3_reset(stmt);
    return APIUM_OK;
}

apium_status
apm_sqlite_wake_due(apm_sqlite_db *db, apium_error *err)
{
    int64_t due;
    apium_status st = apm_sqlite_next_due(db, &due, err);
    int64_t now = apm_clock_wall_us();

    if (st != APIUM_OK || !due || due > now)
        return st;
    /* Up to the due time of the WAKE_MAX-th row, so that both statements mean the same rows. */
    sqlite3_stmt *stmt = apm_sqlite_query(
        db, err,
        "SELECT due_us FROM apium_parked WHERE due_us <= ?1 ORDER BY due_us LIMIT 1 OFFSET ?2",
        APM_SQL(apm_sqlite_int(now), apm_sqlite_int(WAKE_MAX)));
    int row = stmt ? apm_sqlite_step(db, stmt, err) : -1;
    if (row < 0)
        return APIUM_E_SYSTEM;
    if (row)
        now = sqlite3_column_int64(stmt, 0);
    sqlite3_reset(stmt);
    apm_sqlite_val until = apm_sqlite_int(now);
    st = apm_sqlite_exec(
        db, err,
        "INSERT INTO apium_ready(queue, rank, pos, id, redelivered)"
        " SELECT queue, rank, pos, id, redelivered FROM apium_parked WHERE due_us <= ?1",
        &until, 1);
    if (st == APIUM_OK)
        st = apm_sqlite_exec(db, err, "DELETE FROM apium_parked WHERE due_us <= ?1", &until, 1);
    apm_sqlite_touch(db, APM_SQLITE_WAKE);
    return st;
}

/* ---- Our own run ---- */

apium_status
apm_sqlite_enter_run(apm_sqlite_db *db, const apm_sqlite_run *run, bool *lost, apium_error *err)
{
    *lost = false;
    if (run->registered) {
        sqlite3_stmt *stmt = apm_sqlite_query(db, err, "SELECT 1 FROM apium_runs WHERE run = ?1",
                                              APM_SQL(apm_sqlite_int(run->run)));
        int row = stmt ? apm_sqlite_step(db, stmt, err) : -1;
        if (row < 0)
            return APIUM_E_SYSTEM;
        sqlite3_reset(stmt);
        *lost = row == 0;
        return APIUM_OK;
    }
    /* The lock first: a row without it would be a dead run's. */
    apium_status st = apm_sqlite_hold(db, run->run, err);
    if (st == APIUM_OK)
        st = apm_sqlite_exec(db, err,
                             "INSERT OR REPLACE INTO apium_runs(run, node, pid, place, beat) "
                             "VALUES(?1, ?2, ?3, ?4, 0)",
                             APM_SQL(apm_sqlite_int(run->run), apm_sqlite_text(apm_strz(run->node)),
                                     apm_sqlite_int(getpid()),
                                     apm_sqlite_int(apm_sqlite_place(db))));
    return st;
}

/* Everything a run holds goes back to its queue, then the run goes. */
static apium_status
end_run(apm_sqlite_db *db, int64_t run, int64_t *restored, apium_error *err)
{
    apm_sqlite_val who = apm_sqlite_int(run);
    apium_status st =
        apm_sqlite_exec(db, err,
                        "INSERT INTO apium_ready(queue, rank, pos, id, redelivered)"
                        " SELECT queue, rank, pos, id, 1 FROM apium_held WHERE run = ?1",
                        &who, 1);
    int64_t n = apm_sqlite_changes(db);

    if (st == APIUM_OK && n) {
        apm_sqlite_touch(db, APM_SQLITE_WAKE);
        st = apm_sqlite_exec(db, err, "DELETE FROM apium_held WHERE run = ?1", &who, 1);
    }
    if (st == APIUM_OK)
        st = apm_sqlite_exec(db, err, "DELETE FROM apium_runs WHERE run = ?1", &who, 1);
    *restored += n;
    return st;
}

typedef struct retire_op {
    apm_sqlite_op op;
    int64_t run;
} retire_op;

static apium_status
run_retire(apm_sqlite_db *db, apm_sqlite_op *base, apium_error *err)
{
    retire_op *op = (retire_op *)base;
    int64_t restored = 0;
    apium_status st = end_run(db, op->run, &restored, err);

    /* Should the commit fail, the run is dead and others see to it. */
    if (st == APIUM_OK)
        apm_sqlite_unhold(db, op->run);
    return st;
}

apm_sqlite_op *
apm_sqlite_retire_op(int64_t run)
{
    retire_op *op = calloc(1, sizeof(*op));

    if (!op)
        return NULL;
    op->op.run = run_retire;
    op->run = run;
    return &op->op;
}

/* ---- Tending ---- */

/* What we know of another run's beat: since when it has not moved. */
static apm_sqlite_seen *
remember(apm_sqlite_tend *op, int64_t run, int64_t beat)
{
    int64_t now = apm_clock_ms();
    apm_sqlite_seen *seen = op->seen;

    while (seen < op->seen + op->n_seen && seen->run != run)
        seen++;
    if (seen == op->seen + op->n_seen) {
        if (op->n_seen == APM_SQLITE_SEEN_MAX)
            return NULL;
        op->n_seen++;
        *seen = (apm_sqlite_seen){ run, beat, now };
    } else if (seen->beat != beat) {
        seen->beat = beat;
        seen->since_ms = now;
    }
    return seen;
}

static bool
is_dead(apm_sqlite_db *db, apm_sqlite_tend *op, int64_t run, int64_t beat, int64_t place)
{
    apm_sqlite_life life = apm_sqlite_alive(db, run, place);

    if (run == op->run.run)
        return false;
    if (life == APM_SQLITE_DEAD)
        return true;
    apm_sqlite_seen *seen = remember(op, run, beat);
    return seen && apm_clock_ms() - seen->since_ms >= LEASE_MS;
}

/* The first dead run, 0 for none, -1 when the question failed. */
static int64_t
find_dead(apm_sqlite_db *db, apm_sqlite_tend *op, apium_error *err)
{
    sqlite3_stmt *stmt =
        apm_sqlite_query(db, err, "SELECT run, beat, place FROM apium_runs", NULL, 0);
    int64_t dead = 0;
    int row = stmt ? 1 : -1;

    while (!dead && row > 0 && (row = apm_sqlite_step(db, stmt, err)) > 0)
        if (is_dead(db, op, sqlite3_column_int64(stmt, 0), sqlite3_column_int64(stmt, 1),
                    sqlite3_column_int64(stmt, 2)))
            dead = sqlite3_column_int64(stmt, 0);
    if (stmt)
        sqlite3_reset(stmt);
    return row < 0 ? -1 : dead;
}

static bool
probe_tend(apm_sqlite_db *db, apm_sqlite_op *base)
{
    apm_sqlite_tend *op = (apm_sqlite_tend *)base;

    op->lost = false;
    op->restored = 0;
    if (apm_sqlite_next_due(db, &op->next_due_us, NULL) != APIUM_OK)
        return true;
    if (op->renew || (op->next_due_us && op->next_due_us <= apm_clock_wall_us()))
        return true;
    return op->sweep && find_dead(db, op, NULL) != 0;
}

static apium_status
run_tend(apm_sqlite_db *db, apm_sqlite_op *base, apium_error *err)
{
    apm_sqlite_tend *op = (apm_sqlite_tend *)base;
    apium_status st = APIUM_OK;

    op->lost = false;
    op->restored = 0;
    if (op->renew && op->run.registered) {
        st = apm_sqlite_exec(db, err, "UPDATE apium_runs SET beat = beat + 1 WHERE run = ?1",
                             APM_SQL(apm_sqlite_int(op->run.run)));
        op->lost = st == APIUM_OK && apm_sqlite_changes(db) == 0;
    }
    for (int64_t dead; st == APIUM_OK && op->sweep && (dead = find_dead(db, op, err)) != 0;)
        st = dead < 0 ? APIUM_E_SYSTEM : end_run(db, dead, &op->restored, err);
    if (st == APIUM_OK)
        st = apm_sqlite_wake_due(db, err);
    if (st == APIUM_OK)
        st = apm_sqlite_next_due(db, &op->next_due_us, err);
    return st;
}

apm_sqlite_tend *
apm_sqlite_tend_new(const apm_sqlite_run *run)
{
    apm_sqlite_tend *op = calloc(1, sizeof(*op));

    if (!op)
        return NULL;
    op->op = (apm_sqlite_op){ .run = run_tend, .probe = probe_tend };
    op->run = *run;
    return op;
}
