/*
 * conn.h - the blocking face over the adapters: a private loop with links, a broker and a backend,
 * one for each thread that uses an app. They open when they are first asked for, and the loop turns
 * only while somebody waits.
 */
#ifndef APM_CLIENT_CONN_H
#define APM_CLIENT_CONN_H

#include <apium/app.h>

#include "backends/backend.h"
#include "brokers/broker.h"

typedef struct apm_conns apm_conns; /* of an app */
typedef struct apm_conn apm_conn;   /* of one thread of it */

apium_status apm_conns_new(apium_app *app, apm_conns **out, apium_error *err);
/* Close all; NULL is fine. Other threads must be done with the app. */
void apm_conns_free(apm_conns *conns);
/* In a forked process: forget them, they are the parent's. */
void apm_conns_forked(apm_conns *conns);

/* This thread's. A process that was forked since is noticed and starts anew. */
apium_status apm_conn_get(apium_app *app, apm_conn **out, apium_error *err);
/* Close this thread's, if there is one. */
void apm_conn_end(apium_app *app);

apium_app *apm_conn_app(const apm_conn *conn);
uv_loop_t *apm_conn_loop(apm_conn *conn);
apm_links *apm_conn_links(apm_conn *conn);
/* Open on first use; owned by the conn. */
apium_status apm_conn_broker(apm_conn *conn, apm_broker **out, apium_error *err);
apium_status apm_conn_backend(apm_conn *conn, apm_backend **out, apium_error *err);
/* The same, once it is known what the backend's server can do. */
apium_status apm_conn_backend_known(apm_conn *conn, apm_backend **out, apium_error *err);

/*
 * Turn the loop until *done, for at most timeout_ms (-1 for ever). What was gathered is flushed
 * first. Answers *done.
 */
bool apm_conn_turn(apm_conn *conn, const bool *done, int64_t timeout_ms);

/* This thread waits for results: what it sends from now on is watched for before it is sent, where that is cheap. */
void apm_conn_waits(apm_conn *conn);
bool apm_conn_watches(const apm_conn *conn);

/* Milliseconds that an answer may take before we give up: what the settings allow for reaching a
 * server. */
int64_t apm_conn_patience_ms(const apm_conn *conn);

/*
 * An answer to wait for. Hand `apm_answer_done, answer` (or _doc for what fetches) to the call that
 * takes a callback, and wait; if we give up first, the callback finds an abandoned answer and
 * releases it.
 *     apm_answer *answer = apm_answer_new();
 *     apm_unit_commit(unit, apm_answer_done, answer);
 *     st = apm_answer_wait(conn, &answer, err);
 *     apm_answer_free(answer);
 */
typedef struct apm_answer {
    bool done, abandoned;
    apium_status status;
    apium_error err;
    char *doc; /* NULL when there is none */
    size_t doc_len;
} apm_answer;

apm_answer *apm_answer_new(void);
void apm_answer_done(void *answer, apium_status status, const apium_error *err);
void apm_answer_doc(void *answer, apm_str doc, const apium_error *err);
/* Wait for the answer, at most twice the patience (links give up after once); then *answer is NULL
 * and the status E_TIMEOUT. */
apium_status apm_answer_wait(apm_conn *conn, apm_answer **answer, apium_error *err);
void apm_answer_free(apm_answer *answer);

/*
 * Runs whose result somebody waits for, by the id of their task: several may wait for the same one,
 * while a backend has one watcher an id.
 */
typedef struct apm_waiter {
    char *doc; /* the newest document, of malloc; NULL before the first */
    size_t doc_len;
    bool ready; /* and it is of a final state */
    struct apm_waiter *next;
    struct apm_gather *gather; /* told when it becomes ready; NULL none */
    size_t place;              /* in that */
    struct apm_waiter *next_ready;
} apm_waiter;

/* Where waiters that became ready gather: who waits for many need not look at all of them. */
typedef struct apm_gather {
    bool any;
    apm_waiter *first, *last;
} apm_gather;

/* unsent: it is sent next (apm_backend_ops.watch_sent). */
apium_status apm_conn_watch(apm_conn *conn, const char *task_id, bool unsent, apm_waiter *waiter,
                            apium_error *err);
void apm_conn_unwatch(apm_conn *conn, const char *task_id, apm_waiter *waiter);
/* Keep doc as the newest of a waiter; no memory: what it had stays. */
void apm_waiter_set(apm_waiter *waiter, apm_str doc);

/* For how long the backend has been out of reach, in milliseconds; 0 when it is not. *why gets the
 * last reason, or "". */
int64_t apm_conn_backend_down_ms(const apm_conn *conn, const char **why);

#endif
