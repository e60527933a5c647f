/*
 * sqlite_store.c - the thread of a SQLite link: takes what has gathered, commits it in one
 * transaction, answers.
 *
 *   inbox ──▶ todo ──▶ batch ──commit──▶ outbox          a unit's own failure: undone to its savepoint, answered alone
 *              ▲         │
 *              └──fault──┘  the file is at fault: everything is undone and kept, in order; back-off; the link is down
 *
 * What is given up during a fault: with a patience (clients) a unit fails with E_CLOSED once it
 * has waited that long, and at once with E_REFUSED when waiting does not help (not a database, no
 * such directory, no permission); without one (workers) it is kept until somebody repairs the
 * file. Reads go on during a fault, if the file can be read.
 */
#include "core/link/sqlite_store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/base/clock.h"
#include "core/base/error.h"
#include "core/base/ids.h"

#define BATCH_MAX      512 /* units in a transaction: others are waiting for the lock */
#define BACKOFF_MS     100 /* after the first failure; doubled up to: */
#define BACKOFF_MAX_MS 5000

void
apm_sqlite_units_add(units *list, unit *u)
{
    u->next = NULL;
    if (list->last)
        list->last->next = u;
    else
        list->first = u;
    list->last = u;
}

void
apm_sqlite_units_append(units *list, units *more)
{
    if (!more->first)
        return;
    if (list->last)
        list->last->next = more->first;
    else
        list->first = more->first;
    list->last = more->last;
    *more = (units){ 0 };
}

unit *
apm_sqlite_units_take(units *list)
{
    unit *u = list->first;

    if (u) {
        list->first = u->next;
        if (!list->first)
            list->last = NULL;
        u->next = NULL;
    }
    return u;
}

/* ---- Talking to the loop ---- */

static void
answer(store *s, units *list)
{
    if (!list->first)
        return;
    pthread_mutex_lock(&s->mutex);
    apm_sqlite_units_append(&s->outbox, list);
    if (s->wake)
        s->wake(s->wake_arg);
    pthread_mutex_unlock(&s->mutex);
}

static void
tell(store *s, bool up, const char *why)
{
    pthread_mutex_lock(&s->mutex);
    s->news = true;
    s->up = up;
    snprintf(s->why, sizeof(s->why), "%s", why);
    if (s->wake)
        s->wake(s->wake_arg);
    pthread_mutex_unlock(&s->mutex);
}

/* ---- Running units ---- */

static apium_status
run_ops(apm_sqlite_db *db, unit *u)
{
    for (apm_sqlite_op *op = u->first; op; op = op->next) {
        apium_status st = op->run(db, op, &u->err);
        if (st != APIUM_OK)
            return st;
    }
    return APIUM_OK;
}

/* Run units inside a write transaction. Not OK: the file is at fault. */
static apium_status
run_writing(apm_sqlite_db *db, units *batch, apium_error *err)
{
    apium_status st = APIUM_OK;

    for (unit *u = batch->first; u && st == APIUM_OK; u = u->next) {
        if (u->idle)
            continue;
        st = apm_sqlite_db_savepoint(db, err);
        if (st != APIUM_OK)
            break;
        u->status = run_ops(db, u);
        if (u->status == APIUM_OK) {
            st = apm_sqlite_db_release(db, err);
        } else if (db->fault) {
            *err = u->err;
            st = u->status;
        } else {
            st = apm_sqlite_db_undo(db, err);
        }
    }
    return st;
}

static apium_status
run_reading(apm_sqlite_db *db, units *batch, apium_error *err)
{
    for (unit *u = batch->first; u; u = u->next) {
        if (u->idle)
            continue;
        u->status = run_ops(db, u);
        if (u->status != APIUM_OK && db->fault) {
            *err = u->err;
            return u->status;
        }
    }
    return APIUM_OK;
}

static bool
has_work(apm_sqlite_db *db, unit *u)
{
    for (apm_sqlite_op *op = u->first; op; op = op->next)
        if (!op->probe || op->probe(db, op))
            return true;
    return u->first == NULL;
}

/* Run a batch in one transaction; statuses are set in its units. Not OK: nothing of it happened,
 * the file is at fault. */
static apium_status
run_batch(store *s, apm_sqlite_db *db, units *batch, apium_error *err)
{
    const char *schemas[MAX_SCHEMAS];
    bool writes = false;

    pthread_mutex_lock(&s->mutex);
    unsigned n = s->n_schemas;
    memcpy(schemas, s->schemas, sizeof(schemas));
    pthread_mutex_unlock(&s->mutex);

    apium_status st = apm_sqlite_db_open(db, schemas, n, err);
    if (st != APIUM_OK)
        return st;
    for (unit *u = batch->first; u; u = u->next) {
        u->status = APIUM_OK;
        u->idle = !has_work(db, u);
        writes = writes || (!u->read_only && !u->idle);
    }
    st = apm_sqlite_db_begin(db, writes, err);
    if (st != APIUM_OK)
        return st;
    st = writes ? run_writing(db, batch, err) : run_reading(db, batch, err);
    if (st != APIUM_OK) {
        apm_sqlite_db_rollback(db);
        return st;
    }
    return apm_sqlite_db_commit(db, err);
}

/* After a fault these are as good as new when the handle is opened again; a full disk or a busy
 * file keep theirs. */
static bool
must_reopen(int fault)
{
    return (fault & 0xff) != SQLITE_FULL && (fault & 0xff) != SQLITE_BUSY &&
           (fault & 0xff) != SQLITE_LOCKED;
}

/* ---- The thread ---- */

typedef struct life {
    store *s;
    apm_sqlite_db db;
    units todo;
    unsigned failures; /* in a row */
    int64_t next_try_ms;
    bool hopeless; /* the last failure was of a kind that waiting does not cure */
    bool up;
} life;

static void
split(units *from, units *to, size_t max, bool reads_only)
{
    units rest = { 0 };

    for (unit *u; max && (u = apm_sqlite_units_take(from));) {
        if (reads_only && !u->read_only) {
            apm_sqlite_units_add(&rest, u);
            continue;
        }
        apm_sqlite_units_add(to, u);
        max--;
    }
    apm_sqlite_units_append(&rest, from);
    *from = rest;
}

/* The file is at fault: fail what may not wait (any longer). */
static void
give_up(life *l, bool hopeless, const apium_error *why)
{
    units kept = { 0 }, failed = { 0 };
    int64_t now = apm_clock_ms();

    for (unit *u; (u = apm_sqlite_units_take(&l->todo));) {
        bool late = l->s->patience_ms >= 0 && (hopeless || now - u->since_ms >= l->s->patience_ms);
        if (!late) {
            apm_sqlite_units_add(&kept, u);
            continue;
        }
        u->err = *why;
        u->err.status = u->status = hopeless ? APIUM_E_REFUSED : APIUM_E_CLOSED;
        u->err.retriable = !hopeless;
        apm_sqlite_units_add(&failed, u);
    }
    l->todo = kept;
    answer(l->s, &failed);
}

static void
after_fault(life *l, units *batch, const apium_error *err)
{
    int64_t wait = BACKOFF_MAX_MS;
    char why[512];

    /* What was taken goes back to the head: the order of units is kept. */
    apm_sqlite_units_append(batch, &l->todo);
    l->todo = *batch;
    if (must_reopen(l->db.fault))
        apm_sqlite_db_close(&l->db, false);
    if (l->failures < 6)
        wait = BACKOFF_MS << l->failures;
    wait += (int64_t)((double)wait * 0.2 * (2.0 * apm_random_unit() - 1.0));
    l->failures++;
    l->next_try_ms = apm_clock_ms() + wait;
    /* The first trouble may be over at once (the file was locked for a moment): no need to alarm
     * anybody. */
    if (l->failures > 1 || err->status == APIUM_E_REFUSED) {
        l->up = false;
        snprintf(why, sizeof(why), "%s. Trying again in %.2f seconds... (%u)", err->text,
                 (double)wait / 1000.0, l->failures);
        tell(l->s, false, why);
    }
    l->hopeless = err->status == APIUM_E_REFUSED;
    give_up(l, l->hopeless, err);
}

/* One transaction's worth. */
static void
work(life *l, bool reads_only)
{
    units batch = { 0 };
    apium_error err = { 0 };

    /* While in trouble unit by unit: what fits on a full disk gets through, in order. */
    split(&l->todo, &batch, l->failures && !reads_only ? 1 : BATCH_MAX, reads_only);
    if (!batch.first && (reads_only || (l->up && !l->failures)))
        return;
    if (reads_only) {
        if (!l->db.handle || run_batch(l->s, &l->db, &batch, &err) != APIUM_OK) {
            apm_sqlite_units_append(&batch, &l->todo);
            l->todo = batch;
            return;
        }
        answer(l->s, &batch);
        return;
    }
    if (run_batch(l->s, &l->db, &batch, &err) != APIUM_OK) {
        after_fault(l, &batch, &err);
        return;
    }
    if (!l->up || l->db.replaced)
        tell(l->s, true, l->db.replaced ? ", which is another file now" : "");
    l->up = true;
    l->db.replaced = false;
    l->failures = 0;
    answer(l->s, &batch);
}

/* Sleep until something is given or `left` milliseconds are over; with the mutex. */
static void
doze(store *s, int64_t left)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += left / 1000;
    until.tv_nsec += left % 1000 * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_cond_timedwait(&s->more, &s->mutex, &until);
}

/* Nobody's patience ends before we have tried for the last time; who must not wait for a repair hears so
 * at once. */
static void
hasten(life *l)
{
    int64_t patience = l->s->patience_ms;

    if (patience < 0 || !l->todo.first)
        return;
    int64_t last = l->hopeless ? 0 : l->todo.first->since_ms + patience;
    if (last < l->next_try_ms)
        l->next_try_ms = last;
}

/* Wait for units, the end of a back-off, or the end. True: stop. */
static bool
gather(life *l)
{
    store *s = l->s;
    int64_t left;

    pthread_mutex_lock(&s->mutex);
    while (s->pause || (!s->inbox.first && !s->stop)) {
        if (s->pause) {
            apm_sqlite_store_pause(s);
        } else if (l->failures) {
            hasten(l);
            left = l->next_try_ms - apm_clock_ms();
            if (left <= 0)
                break;
            doze(s, left);
        } else if (l->todo.first || !l->up) {
            break;
        } else {
            pthread_cond_wait(&s->more, &s->mutex);
        }
    }
    apm_sqlite_units_append(&l->todo, &s->inbox);
    hasten(l);
    bool stop = s->stop;
    pthread_mutex_unlock(&s->mutex);
    return stop;
}

static void
finish(life *l)
{
    apium_error err;

    /* One honest try with what was handed over; then no more. */
    if (!l->failures)
        while (l->todo.first && !l->failures)
            work(l, false);
    apm_sqlite_db_close(&l->db, true);
    apm_fail(&err, APIUM_E_CLOSED, "cannot use \"%s\": it was closed", l->s->path);
    for (unit *u = l->todo.first; u; u = u->next) {
        u->status = APIUM_E_CLOSED;
        u->err = err;
    }
    answer(l->s, &l->todo);
}

static void
release(store *s)
{
    pthread_mutex_destroy(&s->mutex);
    pthread_cond_destroy(&s->more);
    free(s->path);
    free(s->synchronous);
    free(s);
}

static void *
thread_main(void *arg)
{
    store *s = arg;
    life l = { .s = s };

    apm_sqlite_db_init(&l.db, s->path, s->synchronous);
    s->db = &l.db;
    apm_sqlite_fork_add(s);
    while (!gather(&l))
        work(&l, l.failures && apm_clock_ms() < l.next_try_ms);
    finish(&l);
    pthread_mutex_lock(&s->mutex);
    s->paused = true; /* the file is closed: a fork need not wait for it */
    pthread_cond_broadcast(&s->more);
    pthread_mutex_unlock(&s->mutex);
    apm_sqlite_fork_remove(s);
    pthread_mutex_lock(&s->mutex);
    bool abandoned = s->abandoned;
    s->ended = true;
    if (s->wake)
        s->wake(s->wake_arg);
    pthread_mutex_unlock(&s->mutex);
    if (abandoned)
        release(s);
    return NULL;
}

/* ---- The loop's side of it ---- */

store *
apm_sqlite_store_start(const char *path, const char *synchronous, int64_t patience_ms,
                       apium_error *err)
{
    store *s = calloc(1, sizeof(*s));
    pthread_condattr_t attr;
    sigset_t all, old;

    if (!s || !(s->path = strdup(path)) || !(s->synchronous = strdup(synchronous))) {
        if (s)
            free(s->path);
        free(s);
        apm_fail(err, APIUM_E_NOMEM, "cannot open \"%s\": out of memory", path);
        return NULL;
    }
    s->patience_ms = patience_ms;
    pthread_mutex_init(&s->mutex, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&s->more, &attr);
    pthread_condattr_destroy(&attr);
    /* Signals are the main thread's. */
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &old);
    int rc = pthread_create(&s->thread, NULL, thread_main, s);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc != 0) {
        release(s);
        apm_fail_sys(err, rc, "cannot open \"%s\": cannot start a thread", path);
        return NULL;
    }
    return s;
}

void
apm_sqlite_store_attach(store *s, void (*wake)(void *), void *arg)
{
    pthread_mutex_lock(&s->mutex);
    s->wake = wake;
    s->wake_arg = arg;
    if (s->news || s->outbox.first)
        wake(arg);
    pthread_mutex_unlock(&s->mutex);
}

void
apm_sqlite_store_give(store *s, units *list)
{
    int64_t now = apm_clock_ms();

    for (unit *u = list->first; u; u = u->next)
        u->since_ms = now;
    pthread_mutex_lock(&s->mutex);
    apm_sqlite_units_append(&s->inbox, list);
    pthread_cond_broadcast(&s->more);
    pthread_mutex_unlock(&s->mutex);
}

bool
apm_sqlite_store_look(store *s, units *answered, bool *up, char why[512], bool *ended)
{
    pthread_mutex_lock(&s->mutex);
    bool news = s->news;
    s->news = false;
    *answered = s->outbox;
    s->outbox = (units){ 0 };
    *up = s->up;
    memcpy(why, s->why, sizeof(s->why));
    *ended = s->ended;
    pthread_mutex_unlock(&s->mutex);
    return news;
}

void
apm_sqlite_store_add_schema(store *s, const char *sql)
{
    pthread_mutex_lock(&s->mutex);
    unsigned i = 0;
    while (i < s->n_schemas && s->schemas[i] != sql)
        i++;
    if (i == s->n_schemas && i < MAX_SCHEMAS)
        s->schemas[s->n_schemas++] = sql;
    pthread_mutex_unlock(&s->mutex);
}

void
apm_sqlite_store_stop(store *s)
{
    pthread_mutex_lock(&s->mutex);
    s->stop = true;
    pthread_cond_broadcast(&s->more);
    pthread_mutex_unlock(&s->mutex);
}

void
apm_sqlite_store_free(store *s)
{
    pthread_join(s->thread, NULL);
    release(s);
}

void
apm_sqlite_store_abandon(store *s)
{
    pthread_mutex_lock(&s->mutex);
    bool ended = s->ended;
    s->abandoned = true;
    s->wake = NULL;
    pthread_mutex_unlock(&s->mutex);
    if (ended)
        apm_sqlite_store_free(s);
    else
        pthread_detach(s->thread);
}
