/*
 * sqlite_chords.c - chords in a SQLite file: a row for each header under way with its counts, and a row for each part that has
 * returned, once for its id. Counting is one look at the header's row, however many parts it has.
 *
 * A header expires as a whole, result_expires after it was last counted in; then it is not there, and whoever comes upon it or cleans
 * up deletes it. The id of a header's row is never used again, so a page of parts is known to be of the same header as the last one.
 */
#include "backends/sqlite_chords.h"

#include <stdlib.h>

#include "backends/groups.h"
#include "core/base/arena.h"
#include "core/base/clock.h"
#include "core/base/error.h"

const char apm_sqlite_chords_schema[] =
    "CREATE TABLE IF NOT EXISTS apium_chords(chord INTEGER PRIMARY KEY AUTOINCREMENT, group_id "
    "TEXT NOT NULL UNIQUE,"
    " size INTEGER, extra INTEGER NOT NULL DEFAULT 0, arrived INTEGER NOT NULL DEFAULT 0, "
    "expires_us INTEGER);"
    "CREATE INDEX IF NOT EXISTS apium_chords_expiry ON apium_chords(expires_us) WHERE expires_us "
    "IS NOT NULL;"
    "CREATE TABLE IF NOT EXISTS apium_parts(part INTEGER PRIMARY KEY, chord INTEGER NOT NULL, "
    "task_id TEXT NOT NULL,"
    " place INTEGER NOT NULL, member TEXT NOT NULL, UNIQUE(chord, task_id));"
    "CREATE INDEX IF NOT EXISTS apium_parts_order ON apium_parts(chord, place, task_id);";

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

typedef apium_status chord_run(apm_sqlite_db *db, apm_sqlite_op *op, apium_error *err);

static apm_str
put(char **at, apm_str s)
{
    apm_str copy = { *at, s.len };
    if (s.len)
        memcpy(*at, s.p, s.len);
    *at += s.len;
    return copy;
}

static chord_op *
append(apm_backend *backend, apm_unit *unit, const apm_part *part, int64_t n, chord_run *run,
       apium_error *err)
{
    chord_op *op = malloc(sizeof(*op) + part->group_id.len + part->task_id.len + part->member.len);
    double keep_s = backend->settings ? backend->settings->result_expires : 0;
    if (!op) {
        apm_fail(err, APIUM_E_NOMEM, "cannot count the parts of chord %.*s: out of memory",
                 APM_STR_ARG(part->group_id));
        return NULL;
    }
    char *at = op->text;
    *op =
        (chord_op){ .op = { .run = run },
                    .n = n,
                    .expires_us = keep_s > 0 ? apm_clock_wall_us() + (int64_t)(keep_s * 1e6) : 0 };
    /* Only now: assigning the whole struct also writes its padding, in which `text` begins. */
    op->group_id = put(&at, part->group_id);
    op->task_id = put(&at, part->task_id);
    op->member = put(&at, part->member);
    apm_sqlite_add(unit, &op->op);
    return op;
}

/* ---- rows; in the thread ---- */

static apium_status
delete_chord(apm_sqlite_db *db, int64_t chord, apium_error *err)
{
    apium_status st = apm_sqlite_exec(db, err, "DELETE FROM apium_parts WHERE chord = ?1",
                                      APM_SQL(apm_sqlite_int(chord)));
    return st == APIUM_OK ? apm_sqlite_exec(db, err, "DELETE FROM apium_chords WHERE chord = ?1",
                                            APM_SQL(apm_sqlite_int(chord)))
                          : st;
}

apium_status
apm_sqlite_chords_clean(apm_sqlite_db *db, int64_t rows, apium_error *err)
{
    const int64_t now = apm_clock_wall_us();
    apium_status st = apm_sqlite_exec(
        db, err,
        "DELETE FROM apium_parts WHERE part IN (SELECT part FROM apium_chords JOIN apium_parts"
        " USING(chord) WHERE expires_us IS NOT NULL AND expires_us <= ?1 LIMIT ?2)",
        APM_SQL(apm_sqlite_int(now), apm_sqlite_int(rows)));
    return st == APIUM_OK ? apm_sqlite_exec(db, err,
                                            "DELETE FROM apium_chords WHERE expires_us IS NOT NULL "
                                            "AND expires_us <= ?1 AND NOT"
                                            " EXISTS(SELECT 1 FROM apium_parts WHERE "
                                            "apium_parts.chord = apium_chords.chord)",
                                            APM_SQL(apm_sqlite_int(now)))
                          : st;
}

typedef struct header {
    int64_t chord; /* 0: none that has not expired */
    bool expected; /* its size is known */
    int64_t missing;
} header;

static apium_status
find(apm_sqlite_db *db, apm_str group_id, header *out, int64_t *expired, apium_error *err)
{
    *out = (header){ 0 };
    *expired = 0;
    sqlite3_stmt *stmt = apm_sqlite_query(
        db, err,
        "SELECT chord, size IS NOT NULL, ifnull(size, 0) + extra - arrived, expires_us"
        " FROM apium_chords WHERE group_id = ?1",
        APM_SQL(apm_sqlite_text(group_id)));
    int there = stmt ? apm_sqlite_step(db, stmt, err) : -1;
    if (there < 0)
        return APIUM_E_SYSTEM;
    if (!there)
        return APIUM_OK;
    int64_t expires_us = sqlite3_column_int64(stmt, 3), chord = sqlite3_column_int64(stmt, 0);
    if (expires_us && expires_us <= apm_clock_wall_us())
        *expired = chord;
    else
        *out = (header){ chord, sqlite3_column_int(stmt, 1) != 0, sqlite3_column_int64(stmt, 2) };
    sqlite3_reset(stmt);
    return APIUM_OK;
}

/* The header's row, made when there is none, and kept for as long as `op` says. */
static apium_status
open_header(apm_sqlite_db *db, const chord_op *op, header *out, apium_error *err)
{
    const apm_sqlite_val expires =
        op->expires_us ? apm_sqlite_int(op->expires_us) : apm_sqlite_text(APM_STR_NONE);
    int64_t expired;
    apium_status st = find(db, op->group_id, out, &expired, err);
    if (st == APIUM_OK && expired)
        st = delete_chord(db, expired, err);
    if (st != APIUM_OK)
        return st;
    if (out->chord)
        return apm_sqlite_exec(db, err, "UPDATE apium_chords SET expires_us = ?2 WHERE chord = ?1",
                               APM_SQL(apm_sqlite_int(out->chord), expires));
    st = apm_sqlite_exec(db, err, "INSERT INTO apium_chords(group_id, expires_us) VALUES(?1, ?2)",
                         APM_SQL(apm_sqlite_text(op->group_id), expires));
    out->chord = apm_sqlite_last_id(db);
    return st;
}

/* ---- operations ---- */

static apium_status
run_expect(apm_sqlite_db *db, apm_sqlite_op *base, apium_error *err)
{
    const chord_op *op = (const chord_op *)base;
    header head;
    apium_status st = open_header(db, op, &head, err);
    return st == APIUM_OK
               ? apm_sqlite_exec(db, err, "UPDATE apium_chords SET size = ?2 WHERE chord = ?1",
                                 APM_SQL(apm_sqlite_int(head.chord), apm_sqlite_int(op->n)))
               : st;
}

static apium_status
run_extend(apm_sqlite_db *db, apm_sqlite_op *base, apium_error *err)
{
    const chord_op *op = (const chord_op *)base;
    header head;
    apium_status st = open_header(db, op, &head, err);
    return st == APIUM_OK
               ? apm_sqlite_exec(db, err,
                                 "UPDATE apium_chords SET extra = extra + ?2 WHERE chord = ?1",
                                 APM_SQL(apm_sqlite_int(head.chord), apm_sqlite_int(op->n)))
               : st;
}

static apium_status
run_arrive(apm_sqlite_db *db, apm_sqlite_op *base, apium_error *err)
{
    chord_op *op = (chord_op *)base;
    header head;
    apium_status st = open_header(db, op, &head, err);
    if (st == APIUM_OK)
        st = apm_sqlite_exec(db, err,
                             "INSERT INTO apium_parts(chord, task_id, place, member) VALUES(?1, "
                             "?2, ?3, ?4) ON CONFLICT DO NOTHING",
                             APM_SQL(apm_sqlite_int(head.chord), apm_sqlite_text(op->task_id),
                                     apm_sqlite_int(op->n), apm_sqlite_text(op->member)));
    if (st == APIUM_OK && apm_sqlite_changes(db) > 0) {
        head.missing--;
        st = apm_sqlite_exec(db, err,
                             "UPDATE apium_chords SET arrived = arrived + 1 WHERE chord = ?1",
                             APM_SQL(apm_sqlite_int(head.chord)));
    }
    op->complete = head.expected && head.missing <= 0;
    return st;
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
    header head;
    int64_t expired;
    apium_status st = find(db, op->group_id, &head, &expired, err);
    if (st != APIUM_OK)
        return st;
    if (!head.expected)
        return apm_fail(err, APIUM_E_NOTFOUND, "the chord %.*s is completed already",
                        APM_STR_ARG(op->group_id));
    return delete_chord(db, head.chord, err);
}

apium_status
apm_sqlite_expect(apm_backend *backend, apm_unit *unit, apm_str group_id, int64_t size,
                  apium_error *err)
{
    const apm_part none = { .group_id = group_id };
    return append(backend, unit, &none, size, run_expect, err) ? APIUM_OK : APIUM_E_NOMEM;
}

apium_status
apm_sqlite_extend(apm_backend *backend, apm_unit *unit, apm_str group_id, int64_t by,
                  apium_error *err)
{
    const apm_part none = { .group_id = group_id };
    return append(backend, unit, &none, by, run_extend, err) ? APIUM_OK : APIUM_E_NOMEM;
}

apium_status
apm_sqlite_arrive(apm_backend *backend, apm_unit *unit, const apm_part *part, apium_error *err)
{
    chord_op *op =
        append(backend, unit, part, part->index < 0 ? INT64_MAX : part->index, run_arrive, err);
    if (!op)
        return APIUM_E_NOMEM;
    op->op.finish = arrived;
    op->completed = unit->completed;
    op->bit = (uint32_t)1 << (unit->arrivals++ & 31);
    return APIUM_OK;
}

apium_status
apm_sqlite_claim(apm_backend *backend, apm_unit *unit, apm_str group_id, apium_error *err)
{
    const apm_part none = { .group_id = group_id };
    return append(backend, unit, &none, 0, run_claim, err) ? APIUM_OK : APIUM_E_NOMEM;
}

/* ---- the parts of a complete header ---- */

/* One page: an operation of its own, so that no long transaction keeps the log of the file from being taken in. */
typedef struct parts_op {
    apm_sqlite_op op;
    apm_page page; /* its arena has what leads to the next one, too */
    int64_t chord; /* 0 before the first page */
    int64_t after; /* place and id of the last part before this page */
    apm_str after_id;
    int64_t first_chord, place; /* what was found */
    apm_str id;
    char group_id[];
} parts_op;

static apium_status
read_tree(apm_sqlite_db *db, parts_op *op, apium_error *err)
{
    char *id = apm_group_doc_id(apm_strz(op->group_id));
    bool ok = id != NULL;
    if (!ok)
        return apm_page_no_memory(op->group_id, err);
    sqlite3_stmt *stmt = apm_sqlite_query(db, err,
                                          "SELECT doc, expires_us FROM apium_results WHERE task_id "
                                          "= ?1 ORDER BY version DESC LIMIT 1",
                                          APM_SQL(apm_sqlite_text(apm_strz(id))));
    int there = stmt ? apm_sqlite_step(db, stmt, err) : -1;
    if (there > 0) {
        int64_t expires_us = sqlite3_column_int64(stmt, 1);
        if (!expires_us || expires_us > apm_clock_wall_us())
            op->page.tree = apm_arena_str(&op->page.arena, apm_sqlite_column(stmt, 0), &ok);
        sqlite3_reset(stmt);
    }
    free(id);
    return there < 0 ? APIUM_E_SYSTEM : ok ? APIUM_OK : apm_page_no_memory(op->group_id, err);
}

static apium_status
read_page(apm_sqlite_db *db, parts_op *op, apium_error *err)
{
    size_t bytes = 0;
    int row = 1;
    bool ok = true;
    sqlite3_stmt *stmt =
        apm_sqlite_query(db, err,
                         "SELECT member, place, task_id FROM apium_parts WHERE chord = ?1"
                         " AND (place, task_id) > (?2, ?3) ORDER BY place, task_id",
                         APM_SQL(apm_sqlite_int(op->first_chord), apm_sqlite_int(op->after),
                                 apm_sqlite_text(op->after_id)));
    if (!stmt)
        return APIUM_E_SYSTEM;
    while (ok && (row = apm_sqlite_step(db, stmt, err)) > 0) {
        if (op->page.n == APM_PARTS_MAX || bytes >= APM_PARTS_BYTES) {
            op->page.more = true;
            break;
        }
        op->page.members[op->page.n] =
            apm_arena_str(&op->page.arena, apm_sqlite_column(stmt, 0), &ok);
        op->place = sqlite3_column_int64(stmt, 1);
        op->id = apm_arena_str(&op->page.arena, apm_sqlite_column(stmt, 2), &ok);
        bytes += op->page.members[op->page.n++].len;
    }
    if (row > 0)
        sqlite3_reset(stmt);
    return row < 0 ? APIUM_E_SYSTEM : ok ? APIUM_OK : apm_page_no_memory(op->group_id, err);
}

static apium_status
run_parts(apm_sqlite_db *db, apm_sqlite_op *base, apium_error *err)
{
    parts_op *op = (parts_op *)base;
    header head;
    int64_t expired;
    apm_arena_clear(&op->page.arena);
    op->page.n = 0;
    op->page.more = false;
    op->page.tree = APM_STR_NONE;
    apium_status st = find(db, apm_strz(op->group_id), &head, &expired, err);
    if (st == APIUM_OK && (!head.expected || (op->chord && head.chord != op->chord)))
        return apm_page_gone(op->group_id, err);
    op->first_chord = head.chord;
    if (st == APIUM_OK && !op->chord)
        st = read_tree(db, op, err);
    return st == APIUM_OK ? read_page(db, op, err) : st;
}

static void
release_parts(apm_sqlite_op *base)
{
    parts_op *op = (parts_op *)base;
    apm_arena_clear(&op->page.arena);
    free(op);
}

static apm_page_ask ask_page;

static void
page_answered(apm_sqlite_op *base, apium_status status, const apium_error *err)
{
    parts_op *op = (parts_op *)base;
    apm_page_give(&op->page, op->group_id, ask_page, op, status, err);
}

static bool
ask_page(const apm_pages_of *of, const char *group_id, const void *last_)
{
    const parts_op *last = last_;
    const size_t len = strlen(group_id), id_len = last ? last->id.len : 0;
    parts_op *op = calloc(1, sizeof(*op) + len + 1 + id_len);
    apm_unit *unit = op ? apm_unit_new(of->link) : NULL;
    if (!unit) {
        free(op);
        return false;
    }
    op->op = (apm_sqlite_op){ .run = run_parts, .finish = page_answered, .release = release_parts };
    memcpy(op->group_id, group_id, len + 1);
    op->after = -1;
    op->after_id = (apm_str){ op->group_id + len + 1, id_len };
    if (last) {
        op->chord = last->first_chord;
        op->after = last->place;
        memcpy(op->group_id + len + 1, last->id.p, id_len);
    }
    apm_page_enter(&op->page, of);
    apm_sqlite_add(unit, &op->op);
    apm_sqlite_read_only(unit);
    apm_unit_commit(unit, NULL, NULL);
    return true;
}

void
apm_sqlite_parts(const apm_pages_of *of, const char *group_id)
{
    apm_pages_start(of, group_id, ask_page);
}
