/* sqlite_admin.c - declaring, counting, emptying and listing the queues of a SQLite file. The
 * run_* functions run in the link's thread. */
#include <stdlib.h>

#include "brokers/sqlite_tables.h"
#include "core/base/error.h"

/* The next item of a growing array in an arena, zeroed; the array doubles, what it had before is
 * copied. */
static void *
grow(apm_arena *arena, void **items, size_t *n, size_t size)
{
    if ((*n & (*n - 1)) == 0) { /* 0, 1, 2, 4 ... are full */
        char *bigger = apm_arena_alloc(arena, (*n ? *n * 2 : 1) * size);
        if (!bigger)
            return NULL;
        if (*n)
            memcpy(bigger, *items, *n * size);
        *items = bigger;
    }
    return (char *)*items + (*n)++ * size;
}

static apium_status
out_of_memory(apium_error *err)
{
    return apm_fail(err, APIUM_E_NOMEM, "cannot list queues: out of memory");
}

static apium_status
run_declare(apm_sqlite_db *db, apm_sqlite_op *base, apium_error *err)
{
    apm_sqlite_admin *op = (apm_sqlite_admin *)base;
    int64_t id;

    return apm_sqlite_ensure_queue(db, op->declare, &id, err);
}

/* ---- Counting ---- */

static apium_status
count(apm_sqlite_db *db, const char *sql, apm_sqlite_val of, int64_t *out, apium_error *err)
{
    sqlite3_stmt *stmt = apm_sqlite_query(db, err, sql, &of, 1);

    if (!stmt || apm_sqlite_step(db, stmt, err) <= 0)
        return APIUM_E_SYSTEM;
    *out = sqlite3_column_int64(stmt, 0);
    sqlite3_reset(stmt);
    return APIUM_OK;
}

static apium_status
count_all(apm_sqlite_db *db, int64_t queue, apm_queue_info *info, apium_error *err)
{
    apm_sqlite_val id = apm_sqlite_int(queue);
    apium_status st =
        count(db, "SELECT count(*) FROM apium_ready WHERE queue = ?1", id, &info->ready, err);

    if (st == APIUM_OK)
        st = count(db, "SELECT count(*) FROM apium_held WHERE queue = ?1", id, &info->unacked, err);
    if (st == APIUM_OK)
        st =
            count(db, "SELECT count(*) FROM apium_parked WHERE queue = ?1", id, &info->parked, err);
    if (st == APIUM_OK)
        st = count(db, "SELECT count(*) FROM apium_dead WHERE queue = ?1",
                   apm_sqlite_text(apm_strz(info->name)), &info->dead, err);
    return st;
}

static apium_status
list_queues(apm_sqlite_db *db, apm_sqlite_admin *op, apium_error *err)
{
    sqlite3_stmt *stmt =
        apm_sqlite_query(db, err, "SELECT name FROM apium_queues ORDER BY name", NULL, 0);
    int row = stmt ? 1 : -1;

    while (row > 0 && (row = apm_sqlite_step(db, stmt, err)) > 0) {
        bool ok = true;
        apm_queue_info *info = grow(&op->arena, (void **)&op->infos, &op->n, sizeof(*info));
        if (info)
            info->name = apm_arena_str(&op->arena, apm_sqlite_column(stmt, 0), &ok).p;
        if (!info || !ok)
            return out_of_memory(err);
    }
    return row < 0 ? APIUM_E_SYSTEM : APIUM_OK;
}

static apium_status
run_inspect(apm_sqlite_db *db, apm_sqlite_op *base, apium_error *err)
{
    apm_sqlite_admin *op = (apm_sqlite_admin *)base;
    apium_status st = APIUM_OK;

    op->n = 0;
    if (!op->queues)
        st = list_queues(db, op, err);
    for (size_t i = 0; op->queues && i < op->n_queues; i++) {
        apm_queue_info *info = grow(&op->arena, (void **)&op->infos, &op->n, sizeof(*info));
        if (!info)
            return out_of_memory(err);
        *info = (apm_queue_info){ .name = op->queues[i] };
    }
    for (size_t i = 0; i < op->n && st == APIUM_OK; i++) {
        int64_t queue;
        op->infos[i].consumers = -1;
        st = apm_sqlite_find_queue(db, apm_strz(op->infos[i].name), &queue, err);
        if (st == APIUM_OK)
            st = count_all(db, queue, &op->infos[i], err);
    }
    return st;
}

/* ---- Emptying ---- */

static apium_status
run_purge(apm_sqlite_db *db, apm_sqlite_op *base, apium_error *err)
{
    apm_sqlite_admin *op = (apm_sqlite_admin *)base;
    static const char *const statements[] = {
        "DELETE FROM apium_messages WHERE id IN (SELECT id FROM apium_ready WHERE queue = ?1)",
        "DELETE FROM apium_messages WHERE id IN (SELECT id FROM apium_parked WHERE queue = ?1)",
        "DELETE FROM apium_ready WHERE queue = ?1",
        "DELETE FROM apium_parked WHERE queue = ?1",
    };
    int64_t id;
    apium_status st = apm_sqlite_find_queue(db, apm_strz(op->queues[0]), &id, err);
    apm_sqlite_val queue = apm_sqlite_int(id);

    op->count = 0;
    for (size_t i = 0; i < sizeof(statements) / sizeof(statements[0]) && st == APIUM_OK; i++) {
        st = apm_sqlite_exec(db, err, statements[i], &queue, 1);
        if (i < 2)
            op->count += apm_sqlite_changes(db);
    }
    return st;
}

/* ---- Listing ---- */

static apium_status
run_bindings(apm_sqlite_db *db, apm_sqlite_op *base, apium_error *err)
{
    apm_sqlite_admin *op = (apm_sqlite_admin *)base;
    sqlite3_stmt *stmt = apm_sqlite_query(
        db, err,
        "SELECT name, exchange, key FROM apium_bindings JOIN apium_queues USING(queue)"
        " ORDER BY name, exchange, key",
        NULL, 0);
    int row = stmt ? 1 : -1;

    op->n = 0;
    while (row > 0 && (row = apm_sqlite_step(db, stmt, err)) > 0) {
        bool ok = true;
        apm_binding *binding = grow(&op->arena, (void **)&op->bindings, &op->n, sizeof(*binding));
        if (binding)
            *binding = (apm_binding){
                .queue = apm_arena_str(&op->arena, apm_sqlite_column(stmt, 0), &ok).p,
                .exchange = apm_arena_str(&op->arena, apm_sqlite_column(stmt, 1), &ok).p,
                .routing_key = apm_arena_str(&op->arena, apm_sqlite_column(stmt, 2), &ok).p,
            };
        if (!binding || !ok)
            return out_of_memory(err);
    }
    return row < 0 ? APIUM_E_SYSTEM : APIUM_OK;
}

/* A dead letter as the envelope that Redis would carry. */
static apium_status
print_dead(apm_sqlite_admin *op, sqlite3_stmt *stmt, apm_dead *dead, apium_error *err)
{
    apm_message msg = {
        .content_type = apm_sqlite_column(stmt, 3),
        .content_encoding = apm_sqlite_column(stmt, 4),
        .headers = apm_sqlite_column(stmt, 5),
        .correlation_id = apm_sqlite_column(stmt, 6),
        .reply_to = apm_sqlite_column(stmt, 7),
        .expiration = apm_sqlite_column(stmt, 8),
        .priority = sqlite3_column_int(stmt, 9),
        .delivery_mode = sqlite3_column_int(stmt, 10),
        .exchange = apm_sqlite_column(stmt, 11),
        .routing_key = apm_sqlite_column(stmt, 12),
        .body = apm_sqlite_column(stmt, 13),
    };
    apm_buf buf;
    bool ok = true;

    apm_buf_init(&buf, APM_BUF_MAX);
    apm_envelope_write(&buf, &msg, "dead");
    *dead = (apm_dead){
        .queue = apm_arena_str(&op->arena, apm_sqlite_column(stmt, 0), &ok).p,
        .reason = apm_arena_str(&op->arena, apm_sqlite_column(stmt, 1), &ok).p,
        .at_us = sqlite3_column_int64(stmt, 2),
        /* What cannot be an envelope (headers that are no JSON text) is shown as it is. */
        .message = apm_arena_str(&op->arena, buf.failed ? msg.body : apm_buf_str(&buf), &ok),
    };
    apm_buf_clear(&buf);
    return ok ? APIUM_OK : out_of_memory(err);
}

static apium_status
run_dead(apm_sqlite_db *db, apm_sqlite_op *base, apium_error *err)
{
    apm_sqlite_admin *op = (apm_sqlite_admin *)base;
    sqlite3_stmt *stmt =
        apm_sqlite_query(db, err,
                         "SELECT queue, reason, at_us, content_type, content_encoding, headers, "
                         "correlation_id, reply_to, expiration,"
                         " priority, delivery_mode, exchange, routing_key, body FROM apium_dead "
                         "JOIN apium_messages USING(id)"
                         " ORDER BY n DESC LIMIT ?1",
                         APM_SQL(apm_sqlite_int((int64_t)op->limit)));
    int row = stmt ? 1 : -1;

    op->n = 0;
    while (row > 0 && (row = apm_sqlite_step(db, stmt, err)) > 0) {
        apm_dead *dead = grow(&op->arena, (void **)&op->dead, &op->n, sizeof(*dead));
        apium_status st = dead ? print_dead(op, stmt, dead, err) : out_of_memory(err);
        if (st != APIUM_OK)
            return st;
    }
    return row < 0 ? APIUM_E_SYSTEM : APIUM_OK;
}

/* ---- On the loop ---- */

static void
release_admin(apm_sqlite_op *base)
{
    apm_sqlite_admin *op = (apm_sqlite_admin *)base;

    apm_arena_clear(&op->arena);
    free(op);
}

static apm_sqlite_admin *
admin_new(apium_status (*run)(apm_sqlite_db *, apm_sqlite_op *, apium_error *), void *arg)
{
    apm_sqlite_admin *op = calloc(1, sizeof(*op));

    if (op) {
        op->op = (apm_sqlite_op){ .run = run, .release = release_admin };
        op->arg = arg;
    }
    return op;
}

apm_sqlite_admin *
apm_sqlite_declare_new(const apm_queue *queue, apm_done_cb *done, void *arg)
{
    apm_sqlite_admin *op = admin_new(run_declare, arg);

    if (!op)
        return NULL;
    op->answer.done = done;
    if ((op->declare = apm_sqlite_queue_copy(&op->arena, queue)))
        return op;
    release_admin(&op->op);
    return NULL;
}

static bool
copy_names(apm_sqlite_admin *op, const char *const *names, size_t n)
{
    bool ok = true;

    op->queues = apm_arena_alloc(&op->arena, (n ? n : 1) * sizeof(*op->queues));
    op->n_queues = n;
    for (size_t i = 0; op->queues && i < n; i++)
        op->queues[i] = apm_arena_str(&op->arena, apm_strz(names[i]), &ok).p;
    return op->queues && ok;
}

apm_sqlite_admin *
apm_sqlite_inspect_new(const char *const *queues, size_t n, apm_infos_cb *done, void *arg)
{
    apm_sqlite_admin *op = admin_new(run_inspect, arg);

    if (!op)
        return NULL;
    op->answer.infos = done;
    if (!queues || copy_names(op, queues, n))
        return op;
    release_admin(&op->op);
    return NULL;
}

apm_sqlite_admin *
apm_sqlite_purge_new(const char *queue, apm_count_cb *done, void *arg)
{
    apm_sqlite_admin *op = admin_new(run_purge, arg);

    if (!op)
        return NULL;
    op->answer.count = done;
    if (copy_names(op, &queue, 1))
        return op;
    release_admin(&op->op);
    return NULL;
}

apm_sqlite_admin *
apm_sqlite_bindings_new(apm_bindings_cb *done, void *arg)
{
    apm_sqlite_admin *op = admin_new(run_bindings, arg);

    if (op)
        op->answer.bindings = done;
    return op;
}

apm_sqlite_admin *
apm_sqlite_dead_new(size_t limit, apm_dead_cb *done, void *arg)
{
    apm_sqlite_admin *op = admin_new(run_dead, arg);

    if (op) {
        op->answer.dead = done;
        op->limit = limit;
    }
    return op;
}

void
apm_sqlite_admin_answer(const apm_sqlite_admin *op, apium_status status, const apium_error *err)
{
    size_t n = status == APIUM_OK ? op->n : 0;

    if (op->op.run == run_declare) {
        if (op->answer.done)
            op->answer.done(op->arg, status, err);
    } else if (op->op.run == run_inspect) {
        op->answer.infos(op->arg, op->infos, n, err);
    } else if (op->op.run == run_purge) {
        op->answer.count(op->arg, status, status == APIUM_OK ? op->count : 0, err);
    } else if (op->op.run == run_bindings) {
        op->answer.bindings(op->arg, op->bindings, n, err);
    } else {
        op->answer.dead(op->arg, op->dead, n, err);
    }
}
