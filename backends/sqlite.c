/*
 * sqlite.c - the result backend for sqlite:///path.
 *
 * Every document stored is a row with a version that grows over the whole file; the newest version
 * of a task is its state. Older ones stay for SUPERSEDED_US, so that whoever watches a task sees
 * each of its states although it only looks when x-done was touched. Expired rows are not there
 * for readers, and are deleted a few at a time by those who store, at most once a minute in a
 * process.
 */
#include <stdlib.h>
#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "backends/groups.h"
#include "backends/sqlite_chords.h"
#include "core/base/clock.h"
#include "core/base/error.h"

#define SUPERSEDED_US  ((int64_t)30 * 1000000)
#define CLEAN_EVERY_MS 60000
#define CLEAN_ROWS     500
/* While watching: a writer may have died between its commit and its touch. */
#define LOOK_EVERY_MS  1000

static const char schema[] =
    "CREATE TABLE IF NOT EXISTS apium_results(version INTEGER PRIMARY KEY "
    "AUTOINCREMENT, task_id TEXT NOT NULL,"
    " state TEXT NOT NULL, expires_us INTEGER, doc TEXT NOT NULL);"
    /* And by version, as the rowid is last in every index. */
    "CREATE INDEX IF NOT EXISTS apium_results_task ON apium_results(task_id);"
    "CREATE INDEX IF NOT EXISTS apium_results_expiry ON "
    "apium_results(expires_us) WHERE expires_us IS NOT NULL;";

typedef struct sqlite_backend sqlite_backend;

typedef struct watched {
    char *task_id;
    apm_change_cb *on_change;
    void *arg;
    int64_t version; /* newest one seen */
    uint64_t serial; /* of this watch */
    bool looked;     /* once at least: from now on everything is news */
    UT_hash_handle hh;
} watched;

typedef struct look_op look_op;

/* A loop handle outlives the backend by its closing. */
typedef struct ticker {
    uv_timer_t timer;
    sqlite_backend *backend;
} ticker;

struct sqlite_backend {
    apm_backend base;
    ticker *ticker;
    apm_sqlite_listener on_done;
    apm_link_watch link_watch;
    watched *watched;
    look_op *looking;
    bool look_again, listening;
    uint64_t watches; /* so far */
    int64_t cleaned_ms;
    struct one_op *asked; /* fetches and forgets under way */
    apm_page *pages;      /* of parts, under way */
};

/* ---- Storing ---- */

typedef struct record_op {
    apm_sqlite_op op;
    apm_str task_id, state, doc;
    int64_t expires_us; /* 0 never */
    bool clean;
    char text[];
} record_op;

static apium_status
delete_expired(apm_sqlite_db *db, int64_t rows, apium_error *err)
{
    apium_status st = apm_sqlite_exec(
        db, err,
        "DELETE FROM apium_results WHERE version IN (SELECT version FROM apium_results"
        " WHERE expires_us IS NOT NULL AND expires_us <= ?1 ORDER BY expires_us LIMIT ?2)",
        APM_SQL(apm_sqlite_int(apm_clock_wall_us()), apm_sqlite_int(rows)));
    return st == APIUM_OK ? apm_sqlite_chords_clean(db, rows, err) : st;
}

static apium_status
run_record(apm_sqlite_db *db, apm_sqlite_op *base, apium_error *err)
{
    const record_op *op = (const record_op *)base;
    int64_t now = apm_clock_wall_us();
    sqlite3_stmt *stmt =
        apm_sqlite_query(db, err,
                         "SELECT version, state, expires_us FROM apium_results WHERE task_id = ?1"
                         " ORDER BY version DESC LIMIT 1",
                         APM_SQL(apm_sqlite_text(op->task_id)));
    int there = stmt ? apm_sqlite_step(db, stmt, err) : -1;
    apium_status st = APIUM_OK;

    if (there < 0)
        return APIUM_E_SYSTEM;
    if (there) {
        int64_t version = sqlite3_column_int64(stmt, 0), expires = sqlite3_column_int64(stmt, 2);
        bool success = apm_str_eqz(apm_sqlite_column(stmt, 1), APM_STATE_SUCCESS);
        sqlite3_reset(stmt);
        if (success && (expires == 0 || expires > now))
            return APIUM_OK;
        st = apm_sqlite_exec(db, err,
                             "UPDATE apium_results SET expires_us = min(ifnull(expires_us, ?2), "
                             "?2) WHERE version = ?1",
                             APM_SQL(apm_sqlite_int(version), apm_sqlite_int(now + SUPERSEDED_US)));
    }
    apm_sqlite_val expires =
        op->expires_us ? apm_sqlite_int(op->expires_us) : apm_sqlite_text(APM_STR_NONE);
    if (st == APIUM_OK)
        st = apm_sqlite_exec(
            db, err,
            "INSERT INTO apium_results(task_id, state, expires_us, doc) VALUES(?1, ?2, ?3, ?4)",
            APM_SQL(apm_sqlite_text(op->task_id), apm_sqlite_text(op->state), expires,
                    apm_sqlite_text(op->doc)));
    apm_sqlite_touch(db, APM_SQLITE_DONE);
    if (st == APIUM_OK && op->clean)
        st = delete_expired(db, CLEAN_ROWS, err);
    return st;
}

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
backend_record(apm_backend *base, apm_unit *unit, const apm_record *record, apium_error *err)
{
    sqlite_backend *b = (sqlite_backend *)base;
    record_op *op = malloc(sizeof(*op) + record->task_id.len + record->state.len + record->doc.len);
    double keep_s = base->settings ? base->settings->result_expires : 0;
    int64_t now_ms = apm_clock_ms();

    if (!op)
        return apm_fail(err, APIUM_E_NOMEM, "cannot store the result of %.*s: out of memory",
                        APM_STR_ARG(record->task_id));
    char *at = op->text;
    *op = (record_op){
        .op = { .run = run_record },
        .expires_us = keep_s > 0 ? apm_clock_wall_us() + (int64_t)(keep_s * 1e6) : 0,
        .clean = now_ms - b->cleaned_ms >= CLEAN_EVERY_MS,
    };
    /* Only now: assigning the whole struct also writes its padding, in which `text` begins. */
    op->task_id = put(&at, record->task_id);
    op->state = put(&at, record->state);
    op->doc = put(&at, record->doc);
    if (op->clean)
        b->cleaned_ms = now_ms;
    apm_sqlite_add(unit, &op->op);
    return APIUM_OK;
}

/* ---- Fetching and forgetting ---- */

typedef struct one_op {
    apm_sqlite_op op;
    sqlite_backend *owner; /* NULL once it is closed */
    struct one_op *prev, *next;
    apm_fetch_cb *fetched;
    apm_backend_done *done;
    void *arg;
    char *doc;
    size_t len;
    /* A list of ids. */
    apm_ids_cb *listed;
    apm_arena arena;
    apm_str *ids;
    size_t n, max;
    bool more;
    char task_id[];
} one_op;

static apium_status
run_fetch(apm_sqlite_db *db, apm_sqlite_op *base, apium_error *err)
{
    one_op *op = (one_op *)base;
    sqlite3_stmt *stmt =
        apm_sqlite_query(db, err,
                         "SELECT doc, expires_us FROM apium_results WHERE task_id = ?1"
                         " ORDER BY version DESC LIMIT 1",
                         APM_SQL(apm_sqlite_text(apm_strz(op->task_id))));
    int there = stmt ? apm_sqlite_step(db, stmt, err) : -1;

    free(op->doc);
    op->doc = NULL;
    if (there <= 0)
        return there < 0 ? APIUM_E_SYSTEM : APIUM_OK;
    int64_t expires = sqlite3_column_int64(stmt, 1);
    if (expires == 0 || expires > apm_clock_wall_us()) {
        apm_str doc = apm_sqlite_column(stmt, 0);
        op->len = doc.len;
        if ((op->doc = malloc(doc.len + 1))) {
            memcpy(op->doc, doc.p, doc.len);
            op->doc[doc.len] = '\0';
        } else {
            sqlite3_reset(stmt);
            return apm_fail(err, APIUM_E_NOMEM, "cannot read the result of %s: out of memory",
                            op->task_id);
        }
    }
    sqlite3_reset(stmt);
    return APIUM_OK;
}

static apium_status
run_forget(apm_sqlite_db *db, apm_sqlite_op *base, apium_error *err)
{
    const one_op *op = (const one_op *)base;

    return apm_sqlite_exec(db, err, "DELETE FROM apium_results WHERE task_id = ?1",
                           APM_SQL(apm_sqlite_text(apm_strz(op->task_id))));
}

static apium_status
run_cleanup(apm_sqlite_db *db, apm_sqlite_op *base, apium_error *err)
{
    (void)base;
    return delete_expired(db, INT64_MAX, err);
}

static apium_status
run_list(apm_sqlite_db *db, apm_sqlite_op *base, apium_error *err)
{
    one_op *op = (one_op *)base;
    sqlite3_stmt *stmt = apm_sqlite_query(
        db, err,
        "SELECT task_id FROM apium_results AS r WHERE (expires_us IS NULL OR expires_us > ?1)"
        " AND task_id NOT GLOB 'group/*' AND task_id NOT GLOB 'apium-once/*'"
        " AND version = (SELECT max(version) FROM apium_results WHERE task_id = r.task_id)"
        " ORDER BY version DESC LIMIT ?2",
        APM_SQL(apm_sqlite_int(apm_clock_wall_us()), apm_sqlite_int((int64_t)op->max + 1)));
    int row = stmt ? 1 : -1;
    bool ok = true;

    apm_arena_clear(&op->arena);
    op->n = 0;
    op->more = false;
    op->ids = apm_arena_alloc(&op->arena, (op->max + 1) * sizeof(*op->ids));
    while (op->ids && row > 0 && (row = apm_sqlite_step(db, stmt, err)) > 0) {
        if ((op->more = op->n == op->max)) {
            sqlite3_reset(stmt);
            break;
        }
        op->ids[op->n++] = apm_arena_str(&op->arena, apm_sqlite_column(stmt, 0), &ok);
    }
    if (!op->ids || !ok)
        return apm_fail(err, APIUM_E_NOMEM, "cannot list results: out of memory");
    return row < 0 ? APIUM_E_SYSTEM : APIUM_OK;
}

static void
one_answered(apm_sqlite_op *base, apium_status status, const apium_error *err)
{
    one_op *op = (one_op *)base;

    if (!op->owner)
        return;
    if (op->prev)
        op->prev->next = op->next;
    else
        op->owner->asked = op->next;
    if (op->next)
        op->next->prev = op->prev;
    if (op->listed)
        op->listed(op->arg, op->ids, status == APIUM_OK ? op->n : 0, op->more, err);
    else if (op->fetched)
        op->fetched(op->arg,
                    status == APIUM_OK && op->doc ? (apm_str){ op->doc, op->len } : APM_STR_NONE,
                    err);
    else if (op->done)
        op->done(op->arg, status, err);
}

static void
release_one(apm_sqlite_op *base)
{
    one_op *op = (one_op *)base;

    apm_arena_clear(&op->arena);
    free(op->doc);
    free(op);
}

/* Without memory the answer comes from inside the call: there is nothing to keep it in. */
static void
ask(sqlite_backend *b, const char *task_id, one_op with, bool read_only)
{
    one_op *op = calloc(1, sizeof(*op) + strlen(task_id) + 1);

    if (!op) {
        apium_error err;
        apium_status st = apm_fail(&err, APIUM_E_NOMEM,
                                   "cannot ask for the result of %s: out of memory", task_id);
        if (with.listed)
            with.listed(with.arg, NULL, 0, false, &err);
        else if (with.fetched)
            with.fetched(with.arg, APM_STR_NONE, &err);
        else if (with.done)
            with.done(with.arg, st, &err);
        return;
    }
    *op = with;
    memcpy(op->task_id, task_id, strlen(task_id) + 1);
    op->op.finish = one_answered;
    op->op.release = release_one;
    op->owner = b;
    op->next = b->asked;
    if (b->asked)
        b->asked->prev = op;
    b->asked = op;
    apm_sqlite_submit(b->base.link, &op->op, read_only);
}

static void
backend_fetch(apm_backend *base, const char *task_id, apm_fetch_cb *done, void *arg)
{
    ask((sqlite_backend *)base, task_id,
        (one_op){ .op = { .run = run_fetch }, .fetched = done, .arg = arg }, true);
}

static void
backend_forget(apm_backend *base, const char *task_id, apm_backend_done *done, void *arg)
{
    ask((sqlite_backend *)base, task_id,
        (one_op){ .op = { .run = run_forget }, .done = done, .arg = arg }, false);
}

static void
backend_list(apm_backend *base, size_t max, apm_ids_cb *done, void *arg)
{
    ask((sqlite_backend *)base, "",
        (one_op){ .op = { .run = run_list }, .listed = done, .max = max, .arg = arg }, true);
}

static void
backend_cleanup(apm_backend *base, apm_backend_done *done, void *arg)
{
    ask((sqlite_backend *)base, "",
        (one_op){ .op = { .run = run_cleanup }, .done = done, .arg = arg }, false);
}

static void
backend_parts(apm_backend *base, const char *group_id, apm_parts_cb *done, void *arg)
{
    apm_sqlite_parts(&(apm_pages_of){ .link = base->link,
                                      .under_way = &((sqlite_backend *)base)->pages,
                                      .done = done,
                                      .arg = arg },
                     group_id);
}

/* ---- Watching ---- */

/* What is new of everything watched. */
struct look_op {
    apm_sqlite_op op;
    sqlite_backend *owner;
    apm_arena arena;
    struct ask {
        const char *task_id;
        int64_t version;
        uint64_t serial;
    } * asks;
    size_t n_asks;
    struct news {
        const char *task_id;
        int64_t version;
        apm_str doc;
        struct news *next;
    } * first, *last;
};

static apium_status
run_look(apm_sqlite_db *db, apm_sqlite_op *base, apium_error *err)
{
    look_op *op = (look_op *)base;
    int64_t now = apm_clock_wall_us();

    op->first = op->last = NULL;
    for (size_t i = 0; i < op->n_asks; i++) {
        sqlite3_stmt *stmt = apm_sqlite_query(
            db, err,
            "SELECT version, doc FROM apium_results WHERE task_id = ?1 AND version > ?2"
            " AND (expires_us IS NULL OR expires_us > ?3) ORDER BY version",
            APM_SQL(apm_sqlite_text(apm_strz(op->asks[i].task_id)),
                    apm_sqlite_int(op->asks[i].version), apm_sqlite_int(now)));
        int row = stmt ? 1 : -1;
        while (row > 0 && (row = apm_sqlite_step(db, stmt, err)) > 0) {
            bool ok = true;
            struct news *news = apm_arena_alloc(&op->arena, sizeof(*news));
            if (news)
                *news = (struct news){
                    .task_id = op->asks[i].task_id,
                    .version = sqlite3_column_int64(stmt, 0),
                    .doc = apm_arena_str(&op->arena, apm_sqlite_column(stmt, 1), &ok),
                };
            if (!news || !ok)
                return apm_fail(err, APIUM_E_NOMEM, "cannot read results: out of memory");
            if (op->last)
                op->last->next = news;
            else
                op->first = news;
            op->last = news;
        }
        if (row < 0)
            return APIUM_E_SYSTEM;
    }
    return APIUM_OK;
}

static void
watched_free(sqlite_backend *b, watched *w)
{
    HASH_DEL(b->watched, w);
    free(w->task_id);
    free(w);
}

static void look(sqlite_backend *b);

static void
look_answered(apm_sqlite_op *base, apium_status status, const apium_error *err)
{
    look_op *op = (look_op *)base;
    sqlite_backend *b = op->owner;

    (void)err;
    if (!b)
        return;
    for (struct news *news = op->first; status == APIUM_OK && news && op->owner;
         news = news->next) {
        watched *w;
        HASH_FIND_STR(b->watched, news->task_id, w);
        if (!w || w->version >= news->version)
            continue;
        /* A first look finds old states beside the present one: only that is news. */
        if (!w->looked && news->next && strcmp(news->next->task_id, news->task_id) == 0)
            continue;
        w->version = news->version;
        w->on_change(w->arg, apm_strz(news->task_id), news->doc);
    }
    if (!op->owner)
        return; /* closed by a callback */
    for (size_t i = 0; status == APIUM_OK && i < op->n_asks; i++) {
        watched *w;
        HASH_FIND_STR(b->watched, op->asks[i].task_id, w);
        if (w && w->serial == op->asks[i].serial)
            w->looked = true;
    }
    b->looking = NULL;
    if (b->look_again)
        look(b);
}

static void
release_look(apm_sqlite_op *base)
{
    look_op *op = (look_op *)base;

    apm_arena_clear(&op->arena);
    free(op);
}

static void
look(sqlite_backend *b)
{
    size_t n = HASH_COUNT(b->watched);

    b->look_again = b->looking != NULL;
    if (b->looking || n == 0)
        return;
    look_op *op = calloc(1, sizeof(*op));
    if (!op)
        return; /* the ticker looks again */
    op->op = (apm_sqlite_op){ .run = run_look, .finish = look_answered, .release = release_look };
    op->asks = apm_arena_alloc(&op->arena, n * sizeof(*op->asks));
    bool ok = op->asks != NULL;
    for (watched *w = b->watched; w && ok; w = w->hh.next) {
        struct ask *one = &op->asks[op->n_asks++];
        one->task_id = apm_arena_str(&op->arena, apm_strz(w->task_id), &ok).p;
        one->version = w->version;
        one->serial = w->serial;
    }
    if (!ok) {
        release_look(&op->op);
        return;
    }
    op->owner = b;
    b->looking = op;
    apm_sqlite_submit(b->base.link, &op->op, true);
}

static void
on_done(void *arg)
{
    look(arg);
}

static void
on_tick(uv_timer_t *timer)
{
    sqlite_backend *b = ((ticker *)timer->data)->backend;

    if (b)
        look(b);
}

static apium_status
backend_watch(apm_backend *base, const char *task_id, apm_change_cb *on_change, void *arg,
              apium_error *err)
{
    sqlite_backend *b = (sqlite_backend *)base;
    watched *w;

    HASH_FIND_STR(b->watched, task_id, w);
    if (w)
        return apm_fail(err, APIUM_E_INVALID, "cannot watch %s: it is watched already", task_id);
    w = calloc(1, sizeof(*w));
    if (!w || !(w->task_id = strdup(task_id))) {
        free(w);
        return apm_fail(err, APIUM_E_NOMEM, "cannot watch %s: out of memory", task_id);
    }
    w->on_change = on_change;
    w->arg = arg;
    w->serial = ++b->watches;
    HASH_ADD_KEYPTR(hh, b->watched, w->task_id, strlen(w->task_id), w);
    if (!w->hh.tbl) {
        free(w->task_id);
        free(w);
        return apm_fail(err, APIUM_E_NOMEM, "cannot watch %s: out of memory", task_id);
    }
    if (!b->listening) {
        b->listening = true;
        apm_sqlite_listen(base->link, APM_SQLITE_DONE, &b->on_done);
        uv_timer_start(&b->ticker->timer, on_tick, LOOK_EVERY_MS, LOOK_EVERY_MS);
    }
    look(b);
    return APIUM_OK;
}

static void
stop_listening(sqlite_backend *b)
{
    if (!b->listening)
        return;
    b->listening = false;
    apm_sqlite_unlisten(b->base.link, APM_SQLITE_DONE, &b->on_done);
    uv_timer_stop(&b->ticker->timer);
}

static void
backend_unwatch(apm_backend *base, const char *task_id)
{
    sqlite_backend *b = (sqlite_backend *)base;
    watched *w;

    HASH_FIND_STR(b->watched, task_id, w);
    if (w)
        watched_free(b, w);
    if (!b->watched)
        stop_listening(b);
}

static void
on_link(void *arg, apm_link *link, bool up, const char *why)
{
    sqlite_backend *b = arg;

    (void)link;
    (void)why;
    if (!up)
        return;
    /* Perhaps another file is there now, whose versions begin anew: the present state is told
     * (again). */
    for (watched *w = b->watched; w; w = w->hh.next)
        w->version = 0;
    look(b);
}

/* ---- Its life ---- */

static apium_status
backend_open(apm_backend *base, apium_error *err)
{
    sqlite_backend *b = (sqlite_backend *)base;

    b->ticker = calloc(1, sizeof(*b->ticker));
    if (!b->ticker)
        return apm_fail(err, APIUM_E_NOMEM, "cannot open \"%s\": out of memory", base->link->shown);
    b->ticker->backend = b;
    b->ticker->timer.data = b->ticker;
    uv_timer_init(apm_links_loop(base->link->set), &b->ticker->timer);
    b->on_done = (apm_sqlite_listener){ .on_event = on_done, .arg = b };
    b->link_watch = (apm_link_watch){ .on_event = on_link, .arg = b };
    apm_link_watch_add(base->link, &b->link_watch);
    apm_sqlite_schema(base->link, schema);
    apm_sqlite_schema(base->link, apm_sqlite_chords_schema);
    return APIUM_OK;
}

static void
ticker_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void
backend_close(apm_backend *base)
{
    sqlite_backend *b = (sqlite_backend *)base;

    stop_listening(b);
    apm_link_watch_remove(base->link, &b->link_watch);
    if (b->looking)
        b->looking->owner = NULL;
    for (one_op *op = b->asked; op; op = op->next)
        op->owner = NULL;
    apm_pages_leave(&b->pages);
    for (watched *w = b->watched, *next; w; w = next) {
        next = w->hh.next;
        watched_free(b, w);
    }
    b->ticker->backend = NULL;
    uv_close((uv_handle_t *)&b->ticker->timer, ticker_closed);
}

static const char *const schemes[] = { "sqlite", NULL };

const apm_backend_ops apm_sqlite_backend = {
    .name = "sqlite",
    .schemes = schemes,
    .size = sizeof(sqlite_backend),
    .features = APM_BACKEND_BARRIER,
    .open = backend_open,
    .close = backend_close,
    .record = backend_record,
    .expect = apm_sqlite_expect,
    .extend = apm_sqlite_extend,
    .arrive = apm_sqlite_arrive,
    .claim = apm_sqlite_claim,
    .parts = backend_parts,
    .save_group = apm_group_save,
    .fetch_group = apm_group_fetch,
    .forget_group = apm_group_forget,
    .fetch = backend_fetch,
    .watch = backend_watch,
    .unwatch = backend_unwatch,
    .forget = backend_forget,
    .list = backend_list,
    .cleanup = backend_cleanup,
};
