/*
 * sqlite_chords.c - chords in a SQLite file: a row for each header under way with its counts, and a row for each part that has
 * returned, once for its id. Counting is one look at the header's row, however many parts it has.
 */
#include "backends/sqlite_chords.h"

#include <stdio.h>
#include <stdlib.h>

#include "core/base/clock.h"
#include "core/base/error.h"
#include "core/link/sqlite.h"

const char apm_sqlite_chords_schema[] =
    "CREATE TABLE IF NOT EXISTS apium_chords(group_id TEXT PRIMARY KEY, size INTEGER, extra INTEGER NOT NULL DEFAULT 0,"
    " arrived INTEGER NOT NULL DEFAULT 0, expires_us INTEGER) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS apium_parts(group_id TEXT NOT NULL, task_id TEXT NOT NULL, place INTEGER,"
    " member TEXT NOT NULL, expires_us INTEGER, PRIMARY KEY(group_id, task_id)) WITHOUT ROWID;";

const char apm_sqlite_chords_expired[] = "DELETE FROM apium_chords WHERE expires_us IS NOT NULL AND expires_us <= ?1";
const char apm_sqlite_parts_expired[] = "DELETE FROM apium_parts WHERE expires_us IS NOT NULL AND expires_us <= ?1";

typedef struct chord_op {
    apm_sqlite_op op;
    apm_str group_id, task_id, member;
    int64_t n;          /* size, how many more, or the part's place */
    int64_t expires_us; /* 0 never */
    bool complete;
    uint32_t *completed; /* the unit's, and this arrival's bit in it */
    uint32_t bit;
    char text[];
} chord_op;

static apm_str
put(char **at, apm_str s)
{
    apm_str copy = { *at, s.len };
    if (s.len)
        memcpy(*at, s.p, s.len);
    *at += s.len;
    return copy;
}

static apium_status
append(apm_backend *backend, apm_unit *unit, const apm_part *part, int64_t n,
       apium_status (*run)(apm_sqlite_db *, apm_sqlite_op *, apium_error *),
       void (*finish)(apm_sqlite_op *, apium_status, const apium_error *), apium_error *err)
{
    chord_op *op = malloc(sizeof(*op) + part->group_id.len + part->task_id.len + part->member.len);
    double keep_s = backend->settings ? backend->settings->result_expires : 0;
    if (!op)
        return apm_fail(err, APIUM_E_NOMEM, "cannot count the parts of chord %.*s: out of memory",
                        APM_STR_ARG(part->group_id));
    char *at = op->text;
    *op = (chord_op){ .op = { .run = run, .finish = finish },
                      .n = n,
                      .expires_us = keep_s > 0 ? apm_clock_wall_us() + (int64_t)(keep_s * 1e6) : 0 };
    /* Only now: assigning the whole struct also writes its padding, in which `text` begins. */
    op->group_id = put(&at, part->group_id);
    op->task_id = put(&at, part->task_id);
    op->member = put(&at, part->member);
    if (finish) {
        op->completed = unit->completed;
        op->bit = (uint32_t)1 << (unit->arrivals++ & 31);
    }
    apm_sqlite_add(unit, &op->op);
    return APIUM_OK;
}

static apm_sqlite_val
expiry(const chord_op *op)
{
    return op->expires_us ? apm_sqlite_int(op->expires_us) : apm_sqlite_text(APM_STR_NONE);
}

static apium_status
run_expect(apm_sqlite_db *db, apm_sqlite_op *base, apium_error *err)
{
    const chord_op *op = (const chord_op *)base;
    return apm_sqlite_exec(db, err,
                           "INSERT INTO apium_chords(group_id, size, expires_us) VALUES(?1, ?2, ?3)"
                           " ON CONFLICT(group_id) DO UPDATE SET size = ?2, expires_us = ?3",
                           APM_SQL(apm_sqlite_text(op->group_id), apm_sqlite_int(op->n), expiry(op)));
}

static apium_status
run_extend(apm_sqlite_db *db, apm_sqlite_op *base, apium_error *err)
{
    const chord_op *op = (const chord_op *)base;
    return apm_sqlite_exec(db, err,
                           "INSERT INTO apium_chords(group_id, extra, expires_us) VALUES(?1, ?2, ?3)"
                           " ON CONFLICT(group_id) DO UPDATE SET extra = extra + ?2, expires_us = ?3",
                           APM_SQL(apm_sqlite_text(op->group_id), apm_sqlite_int(op->n), expiry(op)));
}

static apium_status
run_arrive(apm_sqlite_db *db, apm_sqlite_op *base, apium_error *err)
{
    chord_op *op = (chord_op *)base;
    op->complete = false;
    apium_status st = apm_sqlite_exec(
        db, err,
        "INSERT OR IGNORE INTO apium_parts(group_id, task_id, place, member, expires_us) VALUES(?1, ?2, ?3, ?4, ?5)",
        APM_SQL(apm_sqlite_text(op->group_id), apm_sqlite_text(op->task_id), apm_sqlite_int(op->n),
                apm_sqlite_text(op->member), expiry(op)));
    if (st == APIUM_OK && apm_sqlite_changes(db) > 0)
        st = apm_sqlite_exec(db, err,
                             "INSERT INTO apium_chords(group_id, arrived, expires_us) VALUES(?1, 1, ?2)"
                             " ON CONFLICT(group_id) DO UPDATE SET arrived = arrived + 1, expires_us = ?2",
                             APM_SQL(apm_sqlite_text(op->group_id), expiry(op)));
    if (st != APIUM_OK)
        return st;
    sqlite3_stmt *stmt = apm_sqlite_query(
        db, err, "SELECT 1 FROM apium_chords WHERE group_id = ?1 AND size IS NOT NULL AND arrived >= size + extra",
        APM_SQL(apm_sqlite_text(op->group_id)));
    int there = stmt ? apm_sqlite_step(db, stmt, err) : -1;
    if (there > 0)
        sqlite3_reset(stmt);
    op->complete = there > 0;
    return there < 0 ? APIUM_E_SYSTEM : APIUM_OK;
}

static void
arrived(apm_sqlite_op *base, apium_status status, const apium_error *err)
{
    const chord_op *op = (const chord_op *)base;
    (void)err;
    if (status == APIUM_OK && op->complete && op->completed)
        *op->completed |= op->bit;
}

static apium_status
run_claim(apm_sqlite_db *db, apm_sqlite_op *base, apium_error *err)
{
    const chord_op *op = (const chord_op *)base;
    apium_status st =
        apm_sqlite_exec(db, err, "DELETE FROM apium_chords WHERE group_id = ?1 AND size IS NOT NULL",
                        APM_SQL(apm_sqlite_text(op->group_id)));
    if (st == APIUM_OK && apm_sqlite_changes(db) == 0)
        return apm_fail(err, APIUM_E_NOTFOUND, "the chord %.*s is completed already", APM_STR_ARG(op->group_id));
    return st == APIUM_OK ? apm_sqlite_exec(db, err, "DELETE FROM apium_parts WHERE group_id = ?1",
                                            APM_SQL(apm_sqlite_text(op->group_id)))
                          : st;
}

apium_status
apm_sqlite_expect(apm_backend *backend, apm_unit *unit, apm_str group_id, int64_t size, apium_error *err)
{
    return append(backend, unit, &(apm_part){ .group_id = group_id }, size, run_expect, NULL, err);
}

apium_status
apm_sqlite_extend(apm_backend *backend, apm_unit *unit, apm_str group_id, int64_t by, apium_error *err)
{
    return append(backend, unit, &(apm_part){ .group_id = group_id }, by, run_extend, NULL, err);
}

apium_status
apm_sqlite_arrive(apm_backend *backend, apm_unit *unit, const apm_part *part, apium_error *err)
{
    return append(backend, unit, part, part->index < 0 ? INT64_MAX : part->index, run_arrive, arrived, err);
}

apium_status
apm_sqlite_claim(apm_backend *backend, apm_unit *unit, apm_str group_id, apium_error *err)
{
    return append(backend, unit, &(apm_part){ .group_id = group_id }, 0, run_claim, NULL, err);
}

/* ---- the parts of a complete header ---- */

typedef struct parts_op {
    apm_sqlite_op op;
    apm_parts_cb *done;
    void *arg;
    apm_arena arena;
    apm_str *members, tree;
    size_t n, cap;
    char group_id[];
} parts_op;

static apium_status
no_memory(const parts_op *op, apium_error *err)
{
    return apm_fail(err, APIUM_E_NOMEM, "cannot gather the parts of chord %s: out of memory", op->group_id);
}

static apium_status
read_tree(apm_sqlite_db *db, parts_op *op, apium_error *err)
{
    char id[512];
    bool ok = true;
    snprintf(id, sizeof(id), "group/%s", op->group_id);
    sqlite3_stmt *stmt = apm_sqlite_query(
        db, err, "SELECT doc FROM apium_results WHERE task_id = ?1 ORDER BY version DESC LIMIT 1",
        APM_SQL(apm_sqlite_text(apm_strz(id))));
    int there = stmt ? apm_sqlite_step(db, stmt, err) : -1;
    if (there < 0)
        return APIUM_E_SYSTEM;
    if (there) {
        op->tree = apm_arena_str(&op->arena, apm_sqlite_column(stmt, 0), &ok);
        sqlite3_reset(stmt);
    }
    return ok ? APIUM_OK : no_memory(op, err);
}

static apium_status
run_parts(apm_sqlite_db *db, apm_sqlite_op *base, apium_error *err)
{
    parts_op *op = (parts_op *)base;
    apm_arena_clear(&op->arena);
    op->n = 0;
    op->tree = APM_STR_NONE;
    apium_status st = read_tree(db, op, err);
    if (st != APIUM_OK)
        return st;
    sqlite3_stmt *stmt =
        apm_sqlite_query(db, err, "SELECT member FROM apium_parts WHERE group_id = ?1 ORDER BY place, member",
                         APM_SQL(apm_sqlite_text(apm_strz(op->group_id))));
    int row = stmt ? 1 : -1;
    while (row > 0 && (row = apm_sqlite_step(db, stmt, err)) > 0) {
        bool ok = true;
        if (op->n == op->cap) {
            size_t cap = op->cap ? 2 * op->cap : 64;
            apm_str *members = realloc(op->members, cap * sizeof(*members));
            if (members) {
                op->members = members;
                op->cap = cap;
            }
        }
        if (op->n < op->cap)
            op->members[op->n++] = apm_arena_str(&op->arena, apm_sqlite_column(stmt, 0), &ok);
        else
            ok = false;
        if (!ok) {
            sqlite3_reset(stmt);
            return no_memory(op, err);
        }
    }
    return row < 0 ? APIUM_E_SYSTEM : APIUM_OK;
}

static void
parts_answered(apm_sqlite_op *base, apium_status status, const apium_error *err)
{
    parts_op *op = (parts_op *)base;
    bool ok = status == APIUM_OK;
    op->done(op->arg, op->members, ok ? op->n : 0, ok ? op->tree : APM_STR_NONE, ok ? NULL : err);
}

static void
release_parts(apm_sqlite_op *base)
{
    parts_op *op = (parts_op *)base;
    apm_arena_clear(&op->arena);
    free(op->members);
    free(op);
}

void
apm_sqlite_parts(apm_backend *backend, const char *group_id, apm_parts_cb *done, void *arg)
{
    size_t len = strlen(group_id);
    parts_op *op = calloc(1, sizeof(*op) + len + 1);
    if (!op) {
        apium_error err;
        apm_fail(&err, APIUM_E_NOMEM, "cannot gather the parts of chord %s: out of memory", group_id);
        done(arg, NULL, 0, APM_STR_NONE, &err);
        return;
    }
    op->op = (apm_sqlite_op){ .run = run_parts, .finish = parts_answered, .release = release_parts };
    op->done = done;
    op->arg = arg;
    memcpy(op->group_id, group_id, len + 1);
    apm_sqlite_submit(backend->link, &op->op, true);
}

/* ---- saved groups: documents under ids that no task has ---- */

apium_status
apm_sqlite_save_group(apm_backend *backend, apm_unit *unit, apm_str group_id, apm_str doc, apium_error *err)
{
    char *id = NULL;
    if (asprintf(&id, "group/%.*s", APM_STR_ARG(group_id)) < 0)
        return apm_fail(err, APIUM_E_NOMEM, "cannot save group %.*s: out of memory", APM_STR_ARG(group_id));
    const apm_record record = { .task_id = apm_strz(id), .state = APM_STR("GROUP"), .doc = doc };
    apium_status st = backend->ops->record(backend, unit, &record, err);
    free(id);
    return st;
}

void
apm_sqlite_fetch_group(apm_backend *backend, const char *group_id, apm_fetch_cb *done, void *arg)
{
    char *id = NULL;
    if (asprintf(&id, "group/%s", group_id) < 0) {
        apium_error err;
        apm_fail(&err, APIUM_E_NOMEM, "cannot fetch group %s: out of memory", group_id);
        done(arg, APM_STR_NONE, &err);
        return;
    }
    backend->ops->fetch(backend, id, done, arg);
    free(id);
}
