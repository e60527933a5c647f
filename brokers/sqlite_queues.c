/*
 * sqlite_queues.c - publishing, receiving and settling in a SQLite file; see sqlite_queues.h for
 * the picture. Beware of which side one is on: the *_op and *_new functions run on the loop,
 * everything called run_* in the link's thread.
 */
#include "brokers/sqlite_queues.h"

#include <stdio.h>
#include <stdlib.h>

#include "brokers/sqlite_tables.h"
#include "brokers/topic.h"
#include "core/base/clock.h"
#include "core/base/error.h"

#define TAKE_BYTES ((size_t)16 << 20) /* of bodies in one receive: a transaction must not last */

const char apm_sqlite_queues_schema[] =
    "CREATE TABLE IF NOT EXISTS apium_queues(queue INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);"
    "CREATE TABLE IF NOT EXISTS apium_bindings(exchange TEXT NOT NULL, type INTEGER NOT NULL, key "
    "TEXT NOT NULL,"
    " queue INTEGER NOT NULL, PRIMARY KEY(exchange, key, queue)) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS apium_messages(id INTEGER PRIMARY KEY AUTOINCREMENT, content_type "
    "TEXT,"
    " content_encoding TEXT, headers TEXT, correlation_id TEXT, reply_to TEXT, expiration TEXT, "
    "priority INTEGER,"
    " delivery_mode INTEGER, exchange TEXT, routing_key TEXT, body BLOB);"
    /* rank is 9 - priority; pos is the id, or a later number after a requeue. */
    "CREATE TABLE IF NOT EXISTS apium_ready(queue INTEGER NOT NULL, rank INTEGER NOT NULL, pos "
    "INTEGER NOT NULL,"
    " id INTEGER NOT NULL, redelivered INTEGER NOT NULL, PRIMARY KEY(queue, rank, pos, id)) "
    "WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS apium_held(id INTEGER PRIMARY KEY, run INTEGER NOT NULL, seq "
    "INTEGER NOT NULL,"
    " queue INTEGER NOT NULL, rank INTEGER NOT NULL, pos INTEGER NOT NULL, redelivered INTEGER NOT "
    "NULL);"
    "CREATE TABLE IF NOT EXISTS apium_parked(due_us INTEGER NOT NULL, id INTEGER NOT NULL, queue "
    "INTEGER NOT NULL,"
    " rank INTEGER NOT NULL, pos INTEGER NOT NULL, redelivered INTEGER NOT NULL, PRIMARY "
    "KEY(due_us, id)) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS apium_dead(n INTEGER PRIMARY KEY AUTOINCREMENT, id INTEGER NOT "
    "NULL, queue TEXT NOT NULL,"
    " reason TEXT, at_us INTEGER NOT NULL);"
    "CREATE TABLE IF NOT EXISTS apium_runs(run INTEGER PRIMARY KEY, node TEXT, pid INTEGER, place "
    "INTEGER NOT NULL,"
    " beat INTEGER NOT NULL);";

/* When a message was stored (wall, microseconds); NULL with those of older versions of the file. */
const char apm_sqlite_queues_sent[] = "ALTER TABLE apium_messages ADD COLUMN sent_us INTEGER";

/* ---- What the operations have in common ---- */

/* The head of the small operations: text in an arena of its own. */
typedef struct small_op {
    apm_sqlite_op op;
    apm_arena arena;
} small_op;

static void
release_small(apm_sqlite_op *op)
{
    small_op *small = (small_op *)op;

    apm_arena_clear(&small->arena);
    free(small);
}

static void *
small_new(size_t size, apium_status (*run)(apm_sqlite_db *, apm_sqlite_op *, apium_error *))
{
    small_op *small = calloc(1, size);

    if (small)
        small->op = (apm_sqlite_op){ .run = run, .release = release_small };
    return small;
}

static int
rank_of(int priority)
{
    if (priority < 0)
        priority = 0; /* none given */
    return 9 - (priority > 9 ? 9 : priority);
}

apium_status
apm_sqlite_find_queue(apm_sqlite_db *db, apm_str name, int64_t *queue, apium_error *err)
{
    sqlite3_stmt *stmt = apm_sqlite_query(db, err, "SELECT queue FROM apium_queues WHERE name = ?1",
                                          APM_SQL(apm_sqlite_text(name)));
    int row = stmt ? apm_sqlite_step(db, stmt, err) : -1;

    if (row < 0)
        return APIUM_E_SYSTEM;
    *queue = row ? sqlite3_column_int64(stmt, 0) : 0;
    sqlite3_reset(stmt);
    return APIUM_OK;
}

apium_status
apm_sqlite_ensure_queue(apm_sqlite_db *db, const apm_queue *queue, int64_t *id, apium_error *err)
{
    apium_status st = apm_sqlite_find_queue(db, apm_strz(queue->name), id, err);

    if (st == APIUM_OK && *id == 0) {
        st = apm_sqlite_exec(db, err, "INSERT INTO apium_queues(name) VALUES(?1)",
                             APM_SQL(apm_sqlite_text(apm_strz(queue->name))));
        *id = apm_sqlite_last_id(db);
    }
    if (st == APIUM_OK && queue->exchange && *queue->exchange)
        st = apm_sqlite_exec(
            db, err,
            "INSERT INTO apium_bindings(exchange, type, key, queue) VALUES(?1, ?2, ?3, ?4)"
            " ON CONFLICT DO UPDATE SET type = ?2 WHERE type <> ?2",
            APM_SQL(apm_sqlite_text(apm_strz(queue->exchange)),
                    apm_sqlite_int(queue->exchange_type),
                    apm_sqlite_text(apm_strz(queue->routing_key ? queue->routing_key : "")),
                    apm_sqlite_int(*id)));
    return st;
}

apium_status
apm_sqlite_bury(apm_sqlite_db *db, int64_t id, apm_str queue, apm_str reason, apium_error *err)
{
    apium_status st = apm_sqlite_exec(
        db, err, "INSERT INTO apium_dead(id, queue, reason, at_us) VALUES(?1, ?2, ?3, ?4)",
        APM_SQL(apm_sqlite_int(id), apm_sqlite_text(queue), apm_sqlite_text(reason),
                apm_sqlite_int(apm_clock_wall_us())));
    apm_sqlite_val oldest = apm_sqlite_int(apm_sqlite_last_id(db) - APM_SQLITE_DEAD_MAX);

    if (st == APIUM_OK)
        st = apm_sqlite_exec(
            db, err,
            "DELETE FROM apium_messages WHERE id IN (SELECT id FROM apium_dead WHERE n <= ?1)",
            &oldest, 1);
    if (st == APIUM_OK)
        st = apm_sqlite_exec(db, err, "DELETE FROM apium_dead WHERE n <= ?1", &oldest, 1);
    return st;
}

/* Messages back into (or first into) their queue. */
static apium_status
make_ready(apm_sqlite_db *db, const apm_sqlite_place_row *row, apium_error *err)
{
    apm_sqlite_touch(db, APM_SQLITE_WAKE);
    return apm_sqlite_exec(
        db, err,
        "INSERT INTO apium_ready(queue, rank, pos, id, redelivered) VALUES(?1, ?2, ?3, ?4, ?5)",
        APM_SQL(apm_sqlite_int(row->queue), apm_sqlite_int(row->rank), apm_sqlite_int(row->pos),
                apm_sqlite_int(row->id), apm_sqlite_int(row->redelivered)));
}

/* ---- Publishing ---- */

typedef struct publish_op {
    small_op small;
    const apm_queue *queue; /* NULL: not ours to declare */
    apm_exchange_type type;
    const char *exchange, *routing_key;
    bool mandatory;
    apm_message msg;
} publish_op;

static apium_status
insert_message(apm_sqlite_db *db, const publish_op *op, int64_t queue, apium_error *err)
{
    const apm_message *msg = &op->msg;
    apium_status st = apm_sqlite_exec(
        db, err,
        "INSERT INTO apium_messages(content_type, content_encoding, headers, correlation_id, "
        "reply_to, expiration,"
        " priority, delivery_mode, exchange, routing_key, body, sent_us) VALUES(?1, ?2, ?3, ?4, "
        "?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        APM_SQL(apm_sqlite_text(msg->content_type), apm_sqlite_text(msg->content_encoding),
                apm_sqlite_text(msg->headers), apm_sqlite_text(msg->correlation_id),
                apm_sqlite_text(msg->reply_to), apm_sqlite_text(msg->expiration),
                apm_sqlite_int(msg->priority), apm_sqlite_int(msg->delivery_mode),
                apm_sqlite_text(apm_strz(op->exchange)), apm_sqlite_text(apm_strz(op->routing_key)),
                apm_sqlite_blob(msg->body), apm_sqlite_int(msg->sent_us)));
    if (st != APIUM_OK)
        return st;
    int64_t id = apm_sqlite_last_id(db);
    return make_ready(db,
                      &(apm_sqlite_place_row){ .id = id,
                                               .queue = queue,
                                               .rank = rank_of(msg->priority),
                                               .pos = id,
                                               .redelivered = msg->redelivered },
                      err);
}

/* The queues that the exchange gives the routing key to; at most max. */
static apium_status
find_bound(apm_sqlite_db *db, const publish_op *op, int64_t *queues, size_t max, size_t *n,
           apium_error *err)
{
    sqlite3_stmt *stmt =
        apm_sqlite_query(db, err, "SELECT type, key, queue FROM apium_bindings WHERE exchange = ?1",
                         APM_SQL(apm_sqlite_text(apm_strz(op->exchange))));
    int row = stmt ? 1 : -1;

    *n = 0;
    while (row > 0 && (row = apm_sqlite_step(db, stmt, err)) > 0) {
        const char *key = (const char *)sqlite3_column_text(stmt, 1);
        int64_t queue = sqlite3_column_int64(stmt, 2);
        if (!key || !apm_binding_match((apm_exchange_type)sqlite3_column_int(stmt, 0), key,
                                       op->routing_key))
            continue;
        size_t i = 0;
        while (i < *n && queues[i] != queue)
            i++;
        if (i == *n && *n < max) /* a queue bound twice gets one copy */
            queues[(*n)++] = queue;
    }
    return row < 0 ? APIUM_E_SYSTEM : APIUM_OK;
}

static apium_status
run_publish(apm_sqlite_db *db, apm_sqlite_op *base, apium_error *err)
{
    const publish_op *op = (const publish_op *)base;
    int64_t queues[64], own = 0;
    size_t n = 0;
    apium_status st = APIUM_OK;

    if (!*op->exchange && (!op->queue || strcmp(op->queue->name, op->routing_key) == 0)) {
        /* The usual way: straight to a queue, which is declared by the first message. */
        st = apm_sqlite_find_queue(db, apm_strz(op->routing_key), &own, err);
        if (st == APIUM_OK && !own && op->queue)
            st = apm_sqlite_ensure_queue(db, op->queue, &own, err);
        queues[0] = own;
        n = own ? 1 : 0;
    } else {
        if (op->queue)
            st = apm_sqlite_ensure_queue(db, op->queue, &own, err);
        if (st == APIUM_OK && *op->exchange) {
            st = find_bound(db, op, queues, sizeof(queues) / sizeof(queues[0]), &n, err);
        } else if (st == APIUM_OK) {
            st = apm_sqlite_find_queue(db, apm_strz(op->routing_key), &queues[0], err);
            n = queues[0] ? 1 : 0;
        }
    }
    if (st == APIUM_OK && n == 0 && op->mandatory)
        return *op->exchange
                   ? apm_fail(
                         err, APIUM_E_UNROUTABLE,
                         "cannot publish: exchange \"%s\" has no queue for the routing key \"%s\"",
                         op->exchange, op->routing_key)
                   : apm_fail(err, APIUM_E_UNROUTABLE, "cannot publish: there is no queue \"%s\"",
                              op->routing_key);
    for (size_t i = 0; i < n && st == APIUM_OK; i++)
        st = insert_message(db, op, queues[i], err);
    return st;
}

static const char *
copy_z(apm_arena *arena, const char *z, bool *ok)
{
    return z ? apm_arena_str(arena, apm_strz(z), ok).p : NULL;
}

const apm_queue *
apm_sqlite_queue_copy(apm_arena *arena, const apm_queue *queue)
{
    bool ok = true;
    apm_queue *copy = apm_arena_alloc(arena, sizeof(*copy));

    if (!copy)
        return NULL;
    *copy = *queue;
    copy->name = copy_z(arena, queue->name, &ok);
    copy->exchange = copy_z(arena, queue->exchange, &ok);
    copy->routing_key = copy_z(arena, queue->routing_key, &ok);
    copy->queue_type = copy->arguments = NULL; /* nothing to them here */
    return ok ? copy : NULL;
}

apm_sqlite_op *
apm_sqlite_publish_op(const apm_route *route, const apm_message *msg)
{
    publish_op *op = small_new(sizeof(*op), run_publish);
    bool ok = true;

    if (!op)
        return NULL;
    apm_arena *arena = &op->small.arena;
    if (route->queue)
        ok = (op->queue = apm_sqlite_queue_copy(arena, route->queue)) != NULL;
    op->type = route->exchange_type;
    op->exchange = copy_z(arena, route->exchange ? route->exchange : "", &ok);
    op->routing_key = copy_z(arena, route->routing_key ? route->routing_key : "", &ok);
    op->mandatory = route->mandatory;
    op->msg = (apm_message){
        .content_type = apm_arena_str(arena, msg->content_type, &ok),
        .content_encoding = apm_arena_str(arena, msg->content_encoding, &ok),
        .headers = apm_arena_str(arena, msg->headers, &ok),
        .body = apm_arena_str(arena, msg->body, &ok),
        .correlation_id = apm_arena_str(arena, msg->correlation_id, &ok),
        .reply_to = apm_arena_str(arena, msg->reply_to, &ok),
        .expiration = apm_arena_str(arena, msg->expiration, &ok),
        .priority = msg->priority,
        .delivery_mode = msg->delivery_mode,
        .redelivered = msg->redelivered,
        .sent_us = apm_clock_wall_us(),
    };
    if (ok)
        return &op->small.op;
    release_small(&op->small.op);
    return NULL;
}

/* ---- Settling ---- */

typedef struct settle_op {
    small_op small;
    apm_sqlite_tag tag;
    apm_disposition how;
    bool park;
    int64_t due_us;
    apm_str reason, queue;
} settle_op;

/* Take a held row away, which is the fence: E_FENCED when it is not there under this very tag. */
static apium_status
let_go(apm_sqlite_db *db, const apm_sqlite_tag *tag, apm_sqlite_place_row *row, apium_error *err)
{
    sqlite3_stmt *stmt = apm_sqlite_query(
        db, err,
        "DELETE FROM apium_held WHERE id = ?1 AND run = ?2 AND seq = ?3 RETURNING queue, rank, "
        "pos, redelivered",
        APM_SQL(apm_sqlite_int(tag->id), apm_sqlite_int(tag->run), apm_sqlite_int(tag->seq)));
    int there = stmt ? apm_sqlite_step(db, stmt, err) : -1;

    if (there < 0)
        return APIUM_E_SYSTEM;
    if (there == 0)
        return apm_fail(err, APIUM_E_FENCED, "cannot settle message %lld: it is not ours any more",
                        (long long)tag->id);
    *row = (apm_sqlite_place_row){
        .id = tag->id,
        .queue = sqlite3_column_int64(stmt, 0),
        .rank = sqlite3_column_int64(stmt, 1),
        .pos = sqlite3_column_int64(stmt, 2),
        .redelivered = sqlite3_column_int64(stmt, 3),
    };
    return apm_sqlite_step(db, stmt, err) < 0 ? APIUM_E_SYSTEM : APIUM_OK;
}

/* A position behind everything that was ever published. */
static apium_status
last_position(apm_sqlite_db *db, int64_t *pos, apium_error *err)
{
    sqlite3_stmt *stmt = apm_sqlite_query(
        db, err, "SELECT seq FROM sqlite_sequence WHERE name = 'apium_messages'", NULL, 0);
    int row = stmt ? apm_sqlite_step(db, stmt, err) : -1;

    if (row < 0)
        return APIUM_E_SYSTEM;
    *pos = (row ? sqlite3_column_int64(stmt, 0) : 0) + 1;
    sqlite3_reset(stmt);
    return APIUM_OK;
}

static apium_status
run_settle(apm_sqlite_db *db, apm_sqlite_op *base, apium_error *err)
{
    const settle_op *op = (const settle_op *)base;
    apm_sqlite_place_row row = { 0 };
    apium_status st = let_go(db, &op->tag, &row, err);

    if (st != APIUM_OK)
        return st;
    if (op->park)
        return apm_sqlite_exec(db, err,
                               "INSERT INTO apium_parked(due_us, id, queue, rank, pos, "
                               "redelivered) VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
                               APM_SQL(apm_sqlite_int(op->due_us), apm_sqlite_int(row.id),
                                       apm_sqlite_int(row.queue), apm_sqlite_int(row.rank),
                                       apm_sqlite_int(row.pos), apm_sqlite_int(row.redelivered)));
    switch (op->how) {
    case APM_ACK:
        return apm_sqlite_exec(db, err, "DELETE FROM apium_messages WHERE id = ?1",
                               APM_SQL(apm_sqlite_int(row.id)));
    case APM_REJECT:
        return apm_sqlite_bury(db, row.id, op->queue, op->reason, err);
    case APM_REQUEUE:
        st = last_position(db, &row.pos, err);
        if (st != APIUM_OK)
            return st;
        break;
    case APM_RESTORE:
        break;
    }
    row.redelivered = 1;
    return make_ready(db, &row, err);
}

apm_sqlite_op *
apm_sqlite_settle_op(const apm_sqlite_tag *tag, apm_disposition how, const char *reason,
                     const char *queue)
{
    settle_op *op = small_new(sizeof(*op), run_settle);
    bool ok = true;

    if (!op)
        return NULL;
    op->tag = *tag;
    op->how = how;
    if (how == APM_REJECT) {
        op->reason = apm_arena_str(&op->small.arena, apm_strz(reason), &ok);
        op->queue = apm_arena_str(&op->small.arena, apm_strz(queue), &ok);
    }
    if (ok)
        return &op->small.op;
    release_small(&op->small.op);
    return NULL;
}

apm_sqlite_op *
apm_sqlite_park_op(const apm_sqlite_tag *tag, int64_t due_us)
{
    settle_op *op = small_new(sizeof(*op), run_settle);

    if (!op)
        return NULL;
    op->tag = *tag;
    op->park = true;
    op->due_us = due_us;
    return &op->small.op;
}

/* ---- Receiving ---- */

static void
forget_taken(apm_sqlite_receive *op)
{
    for (size_t i = 0; i < op->n_got; i++) {
        apm_arena_clear(&op->got[i]->base.arena);
        free(op->got[i]);
    }
    for (size_t i = 0; i < op->n_refused; i++)
        free((void *)(uintptr_t)op->refused[i].raw.p);
    op->n_got = op->n_refused = 0;
}

static void
release_receive(apm_sqlite_op *base)
{
    apm_sqlite_receive *op = (apm_sqlite_receive *)base;

    forget_taken(op); /* what was handed on is not in `got` any more */
    free(op->got);
    free(op);
}

static bool
probe_receive(apm_sqlite_db *db, apm_sqlite_op *base)
{
    apm_sqlite_receive *op = (apm_sqlite_receive *)base;
    bool any = false;

    op->next_due_us = 0;
    if (apm_sqlite_next_due(db, &op->next_due_us, NULL) != APIUM_OK)
        return true; /* run will say what is wrong */
    if (!op->run.registered || (op->next_due_us && op->next_due_us <= apm_clock_wall_us()))
        return true;
    for (size_t i = 0; i < op->n_queues && !any; i++) {
        sqlite3_stmt *stmt = apm_sqlite_query(
            db, NULL,
            "SELECT 1 FROM apium_ready JOIN apium_queues USING(queue) WHERE name = ?1 LIMIT 1",
            APM_SQL(apm_sqlite_text(apm_strz(op->queues[i]))));
        any = !stmt || apm_sqlite_step(db, stmt, NULL) != 0;
        if (stmt)
            sqlite3_reset(stmt);
    }
    return any;
}

/* Read a message and hand it to `op`, or bury it when it is too big. */
static apium_status
take_message(apm_sqlite_db *db, apm_sqlite_receive *op, const apm_sqlite_place_row *row,
             size_t from, apium_error *err)
{
    sqlite3_stmt *stmt = apm_sqlite_query(
        db, err,
        "SELECT content_type, content_encoding, headers, correlation_id, reply_to, expiration, "
        "priority, delivery_mode,"
        " exchange, routing_key, length(body), body, sent_us FROM apium_messages WHERE id = ?1",
        APM_SQL(apm_sqlite_int(row->id)));
    int there = stmt ? apm_sqlite_step(db, stmt, err) : -1;

    if (there < 0)
        return APIUM_E_SYSTEM;
    int64_t size = there ? sqlite3_column_int64(stmt, 10) + sqlite3_column_bytes(stmt, 2) : 0;
    if (!there || size > op->max_bytes) {
        char why[sizeof(op->refused[0].why)];
        if (there)
            snprintf(why, sizeof(why),
                     "the message has %lld bytes, more than max_message_bytes %lld",
                     (long long)size, (long long)op->max_bytes);
        else
            snprintf(why, sizeof(why), "message %lld has no content", (long long)row->id);
        apm_str headers = there ? apm_sqlite_column(stmt, 2) : APM_STR("");
        /* take_all leaves room */
        struct apm_sqlite_refused *refused = &op->refused[op->n_refused++];
        refused->from = from;
        memcpy(refused->why, why, sizeof(why));
        refused->raw = apm_strz(headers.len < 4096 ? strndup(headers.p, headers.len) : NULL);
        sqlite3_reset(stmt);
        return apm_sqlite_bury(db, row->id, apm_strz(op->queues[from]), apm_strz(why), err);
    }

    apm_sqlite_delivery *delivery = calloc(1, sizeof(*delivery));
    bool ok = delivery != NULL;
    if (ok) {
        apm_arena *arena = &delivery->base.arena;
        delivery->tag = (apm_sqlite_tag){ row->id, op->run.run, op->seq + (int64_t)op->n_got };
        delivery->from = from;
        delivery->base.msg = (apm_message){
            .content_type = apm_arena_str(arena, apm_sqlite_column(stmt, 0), &ok),
            .content_encoding = apm_arena_str(arena, apm_sqlite_column(stmt, 1), &ok),
            .headers = apm_arena_str(arena, apm_sqlite_column(stmt, 2), &ok),
            .correlation_id = apm_arena_str(arena, apm_sqlite_column(stmt, 3), &ok),
            .reply_to = apm_arena_str(arena, apm_sqlite_column(stmt, 4), &ok),
            .expiration = apm_arena_str(arena, apm_sqlite_column(stmt, 5), &ok),
            .priority = sqlite3_column_int(stmt, 6),
            .delivery_mode = sqlite3_column_int(stmt, 7),
            .exchange = apm_arena_str(arena, apm_sqlite_column(stmt, 8), &ok),
            .routing_key = apm_arena_str(arena, apm_sqlite_column(stmt, 9), &ok),
            .body = apm_arena_str(arena, apm_sqlite_column(stmt, 11), &ok),
            .redelivered = row->redelivered != 0,
            .sent_us = sqlite3_column_int64(stmt, 12),
        };
        op->got[op->n_got++] = delivery;
    }
    sqlite3_reset(stmt);
    if (!ok)
        return apm_fail(err, APIUM_E_NOMEM, "cannot receive: out of memory");
    return apm_sqlite_exec(db, err,
                           "INSERT INTO apium_held(id, run, seq, queue, rank, pos, redelivered) "
                           "VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                           APM_SQL(apm_sqlite_int(row->id), apm_sqlite_int(op->run.run),
                                   apm_sqlite_int(delivery->tag.seq), apm_sqlite_int(row->queue),
                                   apm_sqlite_int(row->rank), apm_sqlite_int(row->pos),
                                   apm_sqlite_int(row->redelivered)));
}

/* Take the first message of a queue, if there is one. */
static apium_status
take_first(apm_sqlite_db *db, apm_sqlite_receive *op, int64_t queue, size_t from, bool *taken,
           apium_error *err)
{
    sqlite3_stmt *stmt = apm_sqlite_query(db, err,
                                          "SELECT rank, pos, id, redelivered FROM apium_ready "
                                          "WHERE queue = ?1 ORDER BY rank, pos, id LIMIT 1",
                                          APM_SQL(apm_sqlite_int(queue)));
    int there = stmt ? apm_sqlite_step(db, stmt, err) : -1;

    *taken = there > 0;
    if (there <= 0)
        return there < 0 ? APIUM_E_SYSTEM : APIUM_OK;
    apm_sqlite_place_row row = {
        .queue = queue,
        .rank = sqlite3_column_int64(stmt, 0),
        .pos = sqlite3_column_int64(stmt, 1),
        .id = sqlite3_column_int64(stmt, 2),
        .redelivered = sqlite3_column_int64(stmt, 3),
    };
    sqlite3_reset(stmt);
    apium_status st = apm_sqlite_exec(
        db, err, "DELETE FROM apium_ready WHERE queue = ?1 AND rank = ?2 AND pos = ?3 AND id = ?4",
        APM_SQL(apm_sqlite_int(queue), apm_sqlite_int(row.rank), apm_sqlite_int(row.pos),
                apm_sqlite_int(row.id)));
    return st == APIUM_OK ? take_message(db, op, &row, from, err) : st;
}

static apium_status
take_all(apm_sqlite_db *db, apm_sqlite_receive *op, apium_error *err)
{
    int64_t ids[APM_SQLITE_QUEUES_MAX];
    size_t bytes = 0, empty = 0, at = 0;
    apium_status st = APIUM_OK;

    for (size_t i = 0; i < op->n_queues && st == APIUM_OK; i++)
        st = apm_sqlite_find_queue(db, apm_strz(op->queues[i]), &ids[i], err);
    while (st == APIUM_OK && op->n_got < op->want && empty < op->n_queues && bytes < TAKE_BYTES &&
           op->n_refused < sizeof(op->refused) / sizeof(op->refused[0])) {
        size_t before = op->n_got;
        bool taken = false;
        if (ids[at])
            st = take_first(db, op, ids[at], at, &taken, err);
        if (op->n_got > before)
            bytes += op->got[before]->base.msg.body.len;
        empty = taken ? 0 : empty + 1;
        if (!taken || op->turns)
            at = (at + 1) % op->n_queues;
    }
    op->next_turn = at;
    return st;
}

static apium_status
run_receive(apm_sqlite_db *db, apm_sqlite_op *base, apium_error *err)
{
    apm_sqlite_receive *op = (apm_sqlite_receive *)base;

    forget_taken(op);
    apium_status st = apm_sqlite_enter_run(db, &op->run, &op->lost, err);
    if (st != APIUM_OK || op->lost)
        return st;
    st = apm_sqlite_wake_due(db, err);
    if (st == APIUM_OK)
        st = take_all(db, op, err);
    if (st == APIUM_OK)
        st = apm_sqlite_next_due(db, &op->next_due_us, err);
    return st;
}

apm_sqlite_receive *
apm_sqlite_receive_new(const apm_sqlite_run *run, const char *const *queues, size_t n_queues,
                       size_t want)
{
    size_t text = strlen(run->node) + 1;

    for (size_t i = 0; i < n_queues; i++)
        text += strlen(queues[i]) + 1;
    apm_sqlite_receive *op = calloc(1, sizeof(*op) + n_queues * sizeof(char *) + text);
    if (!op || !(op->got = calloc(want, sizeof(*op->got)))) {
        free(op);
        return NULL;
    }
    op->op =
        (apm_sqlite_op){ .run = run_receive, .probe = probe_receive, .release = release_receive };
    op->queues = (const char **)(op + 1);
    char *at = (char *)(op->queues + n_queues);
    op->run = *run;
    op->run.node = at;
    at = stpcpy(at, run->node) + 1;
    for (size_t i = 0; i < n_queues; i++) {
        op->queues[i] = at;
        at = stpcpy(at, queues[i]) + 1;
    }
    op->n_queues = n_queues;
    op->want = want;
    return op;
}

/* ---- Giving back what nobody has seen ---- */

typedef struct untake_op {
    small_op small;
    size_t n;
    apm_sqlite_tag tags[];
} untake_op;

static apium_status
run_untake(apm_sqlite_db *db, apm_sqlite_op *base, apium_error *err)
{
    const untake_op *op = (const untake_op *)base;

    for (size_t i = 0; i < op->n; i++) {
        apm_sqlite_place_row row = { 0 };
        apium_status st = let_go(db, &op->tags[i], &row, err);
        if (st == APIUM_E_FENCED)
            continue;
        if (st == APIUM_OK)
            st = make_ready(db, &row, err);
        if (st != APIUM_OK)
            return st;
    }
    return APIUM_OK;
}

apm_sqlite_op *
apm_sqlite_untake_op(const apm_sqlite_tag *tags, size_t n)
{
    untake_op *op = small_new(sizeof(*op) + n * sizeof(*tags), run_untake);

    if (!op)
        return NULL;
    op->n = n;
    memcpy(op->tags, tags, n * sizeof(*tags));
    return &op->small.op;
}
