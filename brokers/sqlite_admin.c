/* sqlite_admin.c - declaring, counting, emptying and listing the queues of a SQLite file. The
 * run_* functions run in the link's thread. */
#include <stdlib.h>

#include "brokers/sqlite_tables.h"
#include "core/base/error.h"

/* One question, and the callback for its answer. All that is asked and answered lives in the arena. */
typedef struct apm_sqlite_question {
    apm_sqlite_op op;
    apm_sqlite_desk *desk; /* NULL once that is cleared */
    struct apm_sqlite_question *prev, *next;
    enum { DECLARE, INSPECT, LOOK, PURGE, BINDINGS, DEAD } what;
    apm_arena arena;
    const apm_queue *declare;
    const char **queues; /* NULL: all */
    size_t n_queues, limit;
    apm_queue_info *infos;
    apm_binding *bindings;
    apm_dead *dead;
    size_t n;
    int64_t count;
    union {
        apm_done_cb *done;
        apm_count_cb *count;
        apm_infos_cb *infos;
        apm_bindings_cb *bindings;
        apm_dead_cb *dead;
    } answer;
    void *arg;
} question;

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
    question *q = (question *)base;
    int64_t id;

    return apm_sqlite_ensure_queue(db, q->declare, &id, err);
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

/* The first message of each priority; of those the one that waits longest. */
static apium_status
find_oldest(apm_sqlite_db *db, int64_t queue, apm_queue_info *info, apium_error *err)
{
    apm_arena arena = { 0 };
    int64_t rank = -1;
    int row = 1;

    info->oldest_us = 0;
    while (row > 0) {
        sqlite3_stmt *stmt =
            apm_sqlite_query(db, err,
                             "SELECT rank, sent_us, headers FROM apium_ready JOIN apium_messages "
                             "USING(id) WHERE queue = ?1 AND rank > ?2 ORDER BY rank, pos, id "
                             "LIMIT 1",
                             APM_SQL(apm_sqlite_int(queue), apm_sqlite_int(rank)));
        row = stmt ? apm_sqlite_step(db, stmt, err) : -1;
        if (row <= 0)
            break;
        apm_json headers;
        apm_str eta = APM_STR_NONE;
        rank = sqlite3_column_int64(stmt, 0);
        if (apm_json_parse(apm_sqlite_column(stmt, 2), &headers, NULL) == APIUM_OK)
            (void)apm_json_string(apm_json_get(headers, "eta"), "eta", &arena, &eta, NULL);
        int64_t since_us = apm_message_waits_since(sqlite3_column_int64(stmt, 1), eta);
        sqlite3_reset(stmt);
        if (!since_us) {
            info->oldest_us = 0;
            break;
        }
        if (!info->oldest_us || since_us < info->oldest_us)
            info->oldest_us = since_us;
    }
    apm_arena_clear(&arena);
    return row < 0 ? APIUM_E_SYSTEM : APIUM_OK;
}

static apium_status
count_ready(apm_sqlite_db *db, int64_t queue, apm_queue_info *info, apium_error *err)
{
    apium_status st = count(db, "SELECT count(*) FROM apium_ready WHERE queue = ?1",
                            apm_sqlite_int(queue), &info->ready, err);

    return st == APIUM_OK ? find_oldest(db, queue, info, err) : st;
}

static apium_status
count_all(apm_sqlite_db *db, int64_t queue, apm_queue_info *info, apium_error *err)
{
    apm_sqlite_val id = apm_sqlite_int(queue);
    apium_status st = count_ready(db, queue, info, err);

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
list_queues(apm_sqlite_db *db, question *q, apium_error *err)
{
    sqlite3_stmt *stmt =
        apm_sqlite_query(db, err, "SELECT name FROM apium_queues ORDER BY name", NULL, 0);
    int row = stmt ? 1 : -1;

    while (row > 0 && (row = apm_sqlite_step(db, stmt, err)) > 0) {
        bool ok = true;
        apm_queue_info *info = grow(&q->arena, (void **)&q->infos, &q->n, sizeof(*info));
        if (info)
            info->name = apm_arena_str(&q->arena, apm_sqlite_column(stmt, 0), &ok).p;
        if (!info || !ok)
            return out_of_memory(err);
    }
    return row < 0 ? APIUM_E_SYSTEM : APIUM_OK;
}

static apium_status
run_inspect(apm_sqlite_db *db, apm_sqlite_op *base, apium_error *err)
{
    question *q = (question *)base;
    apium_status st = APIUM_OK;

    q->n = 0;
    if (!q->queues)
        st = list_queues(db, q, err);
    for (size_t i = 0; q->queues && i < q->n_queues; i++) {
        apm_queue_info *info = grow(&q->arena, (void **)&q->infos, &q->n, sizeof(*info));
        if (!info)
            return out_of_memory(err);
        *info = (apm_queue_info){ .name = q->queues[i] };
        if (q->what == LOOK)
            info->unacked = info->parked = info->dead = -1;
    }
    for (size_t i = 0; i < q->n && st == APIUM_OK; i++) {
        int64_t queue;
        q->infos[i].consumers = -1;
        st = apm_sqlite_find_queue(db, apm_strz(q->infos[i].name), &queue, err);
        if (st == APIUM_OK)
            st = q->what == LOOK ? count_ready(db, queue, &q->infos[i], err)
                                 : count_all(db, queue, &q->infos[i], err);
    }
    return st;
}

/* ---- Emptying ---- */

static apium_status
run_purge(apm_sqlite_db *db, apm_sqlite_op *base, apium_error *err)
{
    question *q = (question *)base;
    static const char *const statements[] = {
        "DELETE FROM apium_messages WHERE id IN (SELECT id FROM apium_ready WHERE queue = ?1)",
        "DELETE FROM apium_messages WHERE id IN (SELECT id FROM apium_parked WHERE queue = ?1)",
        "DELETE FROM apium_ready WHERE queue = ?1",
        "DELETE FROM apium_parked WHERE queue = ?1",
    };
    int64_t id;
    apium_status st = apm_sqlite_find_queue(db, apm_strz(q->queues[0]), &id, err);
    apm_sqlite_val queue = apm_sqlite_int(id);

    q->count = 0;
    for (size_t i = 0; i < sizeof(statements) / sizeof(statements[0]) && st == APIUM_OK; i++) {
        st = apm_sqlite_exec(db, err, statements[i], &queue, 1);
        if (i < 2)
            q->count += apm_sqlite_changes(db);
    }
    return st;
}

/* ---- Listing ---- */

static apium_status
run_bindings(apm_sqlite_db *db, apm_sqlite_op *base, apium_error *err)
{
    question *q = (question *)base;
    sqlite3_stmt *stmt = apm_sqlite_query(
        db, err,
        "SELECT name, exchange, key FROM apium_bindings JOIN apium_queues USING(queue)"
        " ORDER BY name, exchange, key",
        NULL, 0);
    int row = stmt ? 1 : -1;

    q->n = 0;
    while (row > 0 && (row = apm_sqlite_step(db, stmt, err)) > 0) {
        bool ok = true;
        apm_binding *binding = grow(&q->arena, (void **)&q->bindings, &q->n, sizeof(*binding));
        if (binding)
            *binding = (apm_binding){
                .queue = apm_arena_str(&q->arena, apm_sqlite_column(stmt, 0), &ok).p,
                .exchange = apm_arena_str(&q->arena, apm_sqlite_column(stmt, 1), &ok).p,
                .routing_key = apm_arena_str(&q->arena, apm_sqlite_column(stmt, 2), &ok).p,
            };
        if (!binding || !ok)
            return out_of_memory(err);
    }
    return row < 0 ? APIUM_E_SYSTEM : APIUM_OK;
}

/* A dead letter as the envelope that Redis would carry. */
static apium_status
print_dead(question *q, sqlite3_stmt *stmt, apm_dead *dead, apium_error *err)
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
        .queue = apm_arena_str(&q->arena, apm_sqlite_column(stmt, 0), &ok).p,
        .reason = apm_arena_str(&q->arena, apm_sqlite_column(stmt, 1), &ok).p,
        .at_us = sqlite3_column_int64(stmt, 2),
        /* What cannot be an envelope (headers that are no JSON text) is shown as it is. */
        .message = apm_arena_str(&q->arena, buf.failed ? msg.body : apm_buf_str(&buf), &ok),
    };
    apm_buf_clear(&buf);
    return ok ? APIUM_OK : out_of_memory(err);
}

static apium_status
run_dead(apm_sqlite_db *db, apm_sqlite_op *base, apium_error *err)
{
    question *q = (question *)base;
    sqlite3_stmt *stmt =
        apm_sqlite_query(db, err,
                         "SELECT queue, reason, at_us, content_type, content_encoding, headers, "
                         "correlation_id, reply_to, expiration,"
                         " priority, delivery_mode, exchange, routing_key, body FROM apium_dead "
                         "JOIN apium_messages USING(id)"
                         " ORDER BY n DESC LIMIT ?1",
                         APM_SQL(apm_sqlite_int((int64_t)q->limit)));
    int row = stmt ? 1 : -1;

    q->n = 0;
    while (row > 0 && (row = apm_sqlite_step(db, stmt, err)) > 0) {
        apm_dead *dead = grow(&q->arena, (void **)&q->dead, &q->n, sizeof(*dead));
        apium_status st = dead ? print_dead(q, stmt, dead, err) : out_of_memory(err);
        if (st != APIUM_OK)
            return st;
    }
    return row < 0 ? APIUM_E_SYSTEM : APIUM_OK;
}

/* ---- On the loop ---- */

static void
release_question(apm_sqlite_op *base)
{
    question *q = (question *)base;

    apm_arena_clear(&q->arena);
    free(q);
}

static void
answer(const question *q, apium_status status, const apium_error *err)
{
    size_t n = status == APIUM_OK ? q->n : 0;

    switch (q->what) {
    case DECLARE:
        if (q->answer.done)
            q->answer.done(q->arg, status, err);
        break;
    case INSPECT:
    case LOOK:
        q->answer.infos(q->arg, q->infos, n, err);
        break;
    case PURGE:
        q->answer.count(q->arg, status, status == APIUM_OK ? q->count : 0, err);
        break;
    case BINDINGS:
        q->answer.bindings(q->arg, q->bindings, n, err);
        break;
    case DEAD:
        q->answer.dead(q->arg, q->dead, n, err);
        break;
    }
}

static void
question_answered(apm_sqlite_op *base, apium_status status, const apium_error *err)
{
    question *q = (question *)base;

    if (!q->desk)
        return;
    if (q->prev)
        q->prev->next = q->next;
    else
        q->desk->first = q->next;
    if (q->next)
        q->next->prev = q->prev;
    answer(q, status, err);
}

static bool
copy_names(question *q, const char *const *names, size_t n)
{
    bool ok = true;

    q->queues = apm_arena_alloc(&q->arena, (n ? n : 1) * sizeof(*q->queues));
    q->n_queues = n;
    for (size_t i = 0; q->queues && i < n; i++)
        q->queues[i] = apm_arena_str(&q->arena, apm_strz(names[i]), &ok).p;
    return q->queues && ok;
}

/* Without memory the answer comes from inside the call: there is nothing to keep the question in. */
static void
ask(apm_sqlite_desk *desk, question with, const apm_queue *declare, const char *const *names,
    size_t n)
{
    static apium_status (*const runs[])(apm_sqlite_db *, apm_sqlite_op *, apium_error *) = {
        [DECLARE] = run_declare, [INSPECT] = run_inspect,   [LOOK] = run_inspect,
        [PURGE] = run_purge,     [BINDINGS] = run_bindings, [DEAD] = run_dead,
    };
    question *q = calloc(1, sizeof(*q));
    bool ok = q != NULL;

    if (ok) {
        *q = with;
        if (declare)
            ok = (q->declare = apm_sqlite_queue_copy(&q->arena, declare)) != NULL;
        if (names)
            ok = ok && copy_names(q, names, n);
    }
    if (!ok) {
        apium_error err;
        apium_status st = apm_fail(&err, APIUM_E_NOMEM, "cannot look after queues: out of memory");
        answer(&with, st, &err);
        if (q)
            release_question(&q->op);
        return;
    }
    q->op = (apm_sqlite_op){ .run = runs[q->what],
                             .finish = question_answered,
                             .release = release_question };
    q->desk = desk;
    q->next = desk->first;
    if (q->next)
        q->next->prev = q;
    desk->first = q;
    apm_sqlite_submit(desk->link, &q->op, q->what != DECLARE && q->what != PURGE);
}

void
apm_sqlite_ask_declare(apm_sqlite_desk *desk, const apm_queue *queue, apm_done_cb *done, void *arg)
{
    ask(desk, (question){ .what = DECLARE, .answer.done = done, .arg = arg }, queue, NULL, 0);
}

void
apm_sqlite_ask_inspect(apm_sqlite_desk *desk, const char *const *names, size_t n,
                       apm_infos_cb *done, void *arg)
{
    ask(desk, (question){ .what = INSPECT, .answer.infos = done, .arg = arg }, NULL, names, n);
}

void
apm_sqlite_ask_look(apm_sqlite_desk *desk, const char *const *names, size_t n, apm_infos_cb *done,
                    void *arg)
{
    ask(desk, (question){ .what = LOOK, .answer.infos = done, .arg = arg }, NULL, names, n);
}

void
apm_sqlite_ask_purge(apm_sqlite_desk *desk, const char *queue, apm_count_cb *done, void *arg)
{
    ask(desk, (question){ .what = PURGE, .answer.count = done, .arg = arg }, NULL, &queue, 1);
}

void
apm_sqlite_ask_bindings(apm_sqlite_desk *desk, apm_bindings_cb *done, void *arg)
{
    ask(desk, (question){ .what = BINDINGS, .answer.bindings = done, .arg = arg }, NULL, NULL, 0);
}

void
apm_sqlite_ask_dead(apm_sqlite_desk *desk, size_t limit, apm_dead_cb *done, void *arg)
{
    ask(desk, (question){ .what = DEAD, .limit = limit, .answer.dead = done, .arg = arg }, NULL,
        NULL, 0);
}

void
apm_sqlite_desk_clear(apm_sqlite_desk *desk)
{
    for (question *q = desk->first; q; q = q->next)
        q->desk = NULL;
    desk->first = NULL;
}
