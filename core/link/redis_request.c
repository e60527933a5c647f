/*
 * redis_request.c - requests of a Redis link: waiting, sent, lost, sent again.
 *
 * A request waits on link->waiting until the link is up, is written to the command connection, and is answered once.
 * When the connection is lost, what may be repeated goes back to the front in its old order; the rest is answered E_CLOSED.
 * "Later" (a busy script, no memory, no disk) is not an answer: the request waits half a second and is sent again.
 */
#include "core/link/redis_inside.h"

#include <stdio.h>
#include <stdlib.h>

#include "core/base/clock.h"
#include "core/base/error.h"

#define LATER_MS       500
#define GAP_EVERY_US   100000 /* Python gets the first 5 ms of each 100 ms ... */
#define GAP_US         5000
#define GAP_AHEAD_US   1500  /* ... and what we send needs a moment to get there */
#define CLOCK_FRESH_MS 60000 /* clocks drift: an old sample gives way */

/* ---- lists ---- */

static void
wait_append(req_list *list, apm_redis_req *req)
{
    req->wait_prev = list->tail;
    req->wait_next = NULL;
    *(list->tail ? &list->tail->wait_next : &list->head) = req;
    list->tail = req;
    req->waiting = true;
}

static void
wait_remove(req_list *list, apm_redis_req *req)
{
    *(req->wait_prev ? &req->wait_prev->wait_next : &list->head) = req->wait_next;
    *(req->wait_next ? &req->wait_next->wait_prev : &list->tail) = req->wait_prev;
    req->waiting = false;
}

static void
req_free(apm_redis *link, apm_redis_req *req)
{
    *(req->prev ? &req->prev->next : &link->all) = req->next;
    if (req->next)
        req->next->prev = req->prev;
    apm_buf_clear(&req->words);
    free(req->refused);
    free(req);
}

static void
req_answer(apm_redis *link, apm_redis_req *req, const redisReply *reply, const apium_error *err)
{
    apm_redis_answer *done = req->done;
    void *arg = req->arg;

    req_free(link, req); /* before: the callback may look at the list, or close the link */
    if (done)
        done(arg, reply, err);
}

/* ---- making ---- */

apm_redis_req *
apm_redis_begin(apm_link *base, int db, unsigned flags, apm_redis_answer *done, void *arg)
{
    apm_redis *link = (apm_redis *)base;
    apm_redis_req *req = calloc(1, sizeof(*req));

    if (!req)
        return NULL;
    *req = (apm_redis_req){ .link = base,
                            .db = db,
                            .flags = flags,
                            .done = done,
                            .arg = arg,
                            .started_ms = apm_clock_ms(),
                            .next = link->all };
    apm_buf_init(&req->words, APM_BUF_MAX * 2);
    if (link->all)
        link->all->prev = req;
    link->all = req;
    return req;
}

apm_redis_req *
apm_redis_begin_script(apm_link *base, const apm_redis_script *script, int db, unsigned flags,
                       apm_redis_answer *done, void *arg)
{
    apm_redis_req *req = apm_redis_begin(base, db, flags, done, arg);

    if (req)
        req->script = script;
    return req;
}

apm_redis_req *
redis_begin_atomic(apm_redis *link, int db, apm_redis_answer *done, void *arg)
{
    apm_redis_req *req = apm_redis_begin(&link->base, db, 0, done, arg);
    if (req)
        req->atomic = true;
    return req;
}

void
redis_open_command(apm_redis_req *req, size_t n_words)
{
    apm_resp_open(&req->words, n_words);
    req->n_commands++;
}

void
apm_redis_add(apm_redis_req *req, apm_str word)
{
    if (!req)
        return;
    apm_resp_add(&req->words, word);
    req->n_words++;
}

void
apm_redis_addz(apm_redis_req *req, const char *word)
{
    apm_redis_add(req, apm_strz(word));
}

void
apm_redis_addi(apm_redis_req *req, int64_t word)
{
    if (!req)
        return;
    apm_resp_int(&req->words, word);
    req->n_words++;
}

void
apm_redis_send(apm_link *base, apm_redis_req *req, const void *owner)
{
    apm_redis *link = (apm_redis *)base;

    if (!req)
        return;
    req->owner = owner;
    wait_append(
        &link->waiting,
        req); /* failures too are told at the next turn of the loop, not from inside the call */
}

void
apm_redis_disown(apm_link *base, const void *owner)
{
    apm_redis *link = (apm_redis *)base;
    apium_error err;
    bool again = true;

    apm_fail(&err, APIUM_E_CLOSED, "the adapter is closed");
    while (again) {
        again = false;
        for (apm_redis_req *req = link->all; req; req = req->next) {
            if (req->owner != owner || !req->done)
                continue;
            apm_redis_answer *done = req->done;
            void *arg = req->arg;
            req->done = NULL; /* if it was sent its reply still comes, for nobody */
            req->flags &= ~APM_REDIS_REPEAT;
            if (req->waiting) {
                wait_remove(&link->waiting, req);
                req_free(link, req);
            }
            done(arg, NULL, &err);
            again = true; /* the list may be another one now */
            break;
        }
    }
}

/* ---- answers ---- */

bool
redis_says_later(const char *text, bool *lose)
{
    static const char *const useless[] = { "LOADING ", "READONLY ", "MASTERDOWN ", "NOAUTH ",
                                           "UNBLOCKED " };
    static const char *const later[] = { "BUSY ",       "OOM ",         "MISCONF ",
                                         "NOREPLICAS ", "CLUSTERDOWN ", "TRYAGAIN " };

    *lose = false;
    for (size_t i = 0; i < sizeof(useless) / sizeof(*useless); i++)
        if (strncmp(text, useless[i], strlen(useless[i])) == 0)
            return *lose = true;
    for (size_t i = 0; i < sizeof(later) / sizeof(*later); i++)
        if (strncmp(text, later[i], strlen(later[i])) == 0)
            return true;
    return false;
}

/* Of a command of a transaction: why it could not be queued, then nothing of it is executed. */
static void
on_queued(void *arg, const redisReply *reply)
{
    apm_redis_req *req = arg;

    if (reply && reply->type == REDIS_REPLY_ERROR && !req->refused)
        req->refused = strdup(reply->str);
}

static void
on_reply(void *arg, const redisReply *reply)
{
    apm_redis_req *req = arg;
    apm_redis *link = (apm_redis *)req->link;
    apium_error err;
    bool lose;

    if (!reply) {
        wait_append(&link->lost, req); /* redis_requests_lost() decides */
        return;
    }
    if (reply->type != REDIS_REPLY_ERROR) {
        req_answer(link, req, reply, NULL);
        return;
    }
    if (req->script && !req->full_text && strncmp(reply->str, "NOSCRIPT", 8) == 0) {
        req->full_text = true;
        wait_append(&link->waiting, req);
        return;
    }
    const char *text = req->refused ? req->refused : reply->str;
    if (redis_says_later(text, &lose)) {
        if (lose) {
            wait_append(&link->lost, req);
            req->unheard = true;
            redis_lose(link, APIUM_E_CLOSED, text);
            return;
        }
        req->not_before_ms = apm_clock_ms() + LATER_MS;
        snprintf(link->last_error, sizeof(link->last_error), "%s", text);
        wait_append(&link->waiting, req);
        return;
    }
    apm_fail(&err, APIUM_E_REFUSED, "%s", text);
    req_answer(link, req, NULL, &err);
}

/* ---- databases ---- */

static db_state *
db_find(apm_redis *link, int db)
{
    for (unsigned i = 0; i < link->n_dbs; i++)
        if (link->dbs[i].db == db)
            return &link->dbs[i].state;
    if (link->n_dbs == MAX_DBS)
        return NULL;
    link->dbs[link->n_dbs].db = db;
    link->dbs[link->n_dbs].state = DB_UNKNOWN;
    return &link->dbs[link->n_dbs++].state;
}

static void
on_selected(void *arg, const redisReply *reply)
{
    apm_redis *link = arg;

    if (!reply)
        return;
    for (unsigned i = 0; i < link->n_dbs; i++) {
        if (link->dbs[i].state != DB_ASKED)
            continue;
        bool good = reply->type != REDIS_REPLY_ERROR;
        link->dbs[i].state = good ? DB_GOOD : DB_BAD;
        if (!good)
            link->current_db = -1; /* select again before the next command */
        return;
    }
}

static void
write_select(apm_redis *link, int db, apm_redis_reply_cb *cb)
{
    apm_buf cmd;

    apm_buf_init(&cmd, 128);
    apm_resp_open(&cmd, 2);
    apm_resp_addz(&cmd, "SELECT");
    apm_resp_int(&cmd, db);
    apm_redis_conn_send(link->cmd, apm_buf_str(&cmd), 0, cb, link);
    apm_buf_clear(&cmd);
    link->current_db = db;
}

/* ---- sending ---- */

/* Who stays sends a script as a whole when he first needs it: the server then knows it, and no answer has to be read to learn that it
 * did not (a solo pool's task keeps the loop from reading). Who comes for one call believes that it does. */
static bool
as_a_whole(apm_redis *link, apm_redis_req *req)
{
    if (req->full_text || apm_links_patience_ms(link->base.set) >= 0)
        return req->full_text;
    for (unsigned i = 0; i < link->n_scripts; i++)
        if (link->scripts[i] == req->script)
            return false;
    if (link->n_scripts < MAX_SCRIPTS)
        link->scripts[link->n_scripts++] = req->script;
    return req->full_text = true;
}

/* MULTI, its commands, EXEC: the last answer is the one that counts. */
static void
write_atomic(apm_redis *link, apm_redis_req *req)
{
    free(req->refused);
    req->refused = NULL;
    apm_redis_conn_send(link->cmd, APM_STR("*1\r\n$5\r\nMULTI\r\n"), 0, on_queued, req);
    for (unsigned i = 0; i < req->n_commands && link->cmd; i++)
        apm_redis_conn_send(link->cmd, i ? APM_STR_NONE : apm_buf_str(&req->words), 0, on_queued,
                            req);
    if (link->cmd)
        apm_redis_conn_send(link->cmd, APM_STR("*1\r\n$4\r\nEXEC\r\n"), 0, on_reply, req);
    else
        wait_append(&link->waiting, req);
}

static void
write_request(apm_redis *link, apm_redis_req *req)
{
    apm_buf head;

    req->unheard = false;
    if (link->current_db != req->db)
        write_select(link, req->db, NULL);
    if (req->atomic) {
        write_atomic(link, req);
        return;
    }
    apm_buf_init(&head, 1 << 20);
    if (req->script) {
        apm_resp_open(&head, req->n_words + 3);
        bool whole = as_a_whole(link, req);
        apm_resp_addz(&head, whole ? "EVAL" : "EVALSHA");
        apm_resp_addz(&head, whole ? req->script->text : req->script->sha);
        apm_resp_addz(&head, "0");
    } else {
        apm_resp_open(&head, req->n_words);
    }
    apm_redis_conn_push(link->cmd, apm_buf_str(&head));
    apm_buf_clear(&head);
    if (link->cmd && apm_str_is(req->tail))
        apm_redis_conn_push(link->cmd, apm_buf_str(&req->words));
    if (link->cmd)
        apm_redis_conn_send(link->cmd, apm_str_is(req->tail) ? req->tail : apm_buf_str(&req->words),
                            0, on_reply, req);
    else
        wait_append(&link->waiting, req);
}

void
redis_requests_pump(apm_redis *link)
{
    int64_t now = apm_clock_ms();
    bool asked = false;
    int64_t gap_ms = redis_gap_ms(link);

    for (apm_redis_req *req = link->waiting.head, *next; req && link->base.up; req = next) {
        next = req->wait_next;
        if (req->not_before_ms > now || (gap_ms && (req->flags & APM_REDIS_UNACKED)))
            continue;
        if (req->words.failed) {
            apium_error err;
            apm_fail(&err, APIUM_E_TOOBIG, "a request to Redis is too big");
            wait_remove(&link->waiting, req);
            req_answer(link, req, NULL, &err);
            next = link->waiting.head; /* the callback may have changed the list */
            continue;
        }
        db_state good = DB_GOOD,
                 *state = req->db == link->target.db ? &good : db_find(link, req->db);
        if (!state || *state == DB_BAD) {
            apium_error err;
            apm_fail(&err, APIUM_E_REFUSED, "the server has no database %d", req->db);
            wait_remove(&link->waiting, req);
            req_answer(link, req, NULL, &err);
            next = link->waiting.head;
            continue;
        }
        if (*state == DB_UNKNOWN && !asked) {
            *state = DB_ASKED;
            write_select(link, req->db, on_selected);
            asked = true;
        }
        if (*state != DB_GOOD)
            continue;
        wait_remove(&link->waiting, req);
        write_request(link, req);
    }
}

void
redis_requests_tick(apm_redis *link)
{
    int64_t now = apm_clock_ms(), patience = apm_links_patience_ms(link->base.set);
    apium_error err;

    for (apm_redis_req *req = link->waiting.head, *next; req; req = next) {
        next = req->wait_next;
        bool late = patience >= 0 && now - req->started_ms > patience &&
                    (!link->base.up || req->not_before_ms);
        if (!late && (link->base.up || !(req->flags & APM_REDIS_NOW)))
            continue;
        apm_fail(&err, APIUM_E_CLOSED, "cannot reach %s: %s", link->base.shown,
                 link->last_error[0] ? link->last_error : "no answer");
        wait_remove(&link->waiting, req);
        req_answer(link, req, NULL, &err);
        next = link->waiting.head;
    }
}

void
redis_requests_fail(apm_redis *link, apium_status status, const char *why)
{
    apium_error err;
    req_list doomed = link->waiting; /* not what the callbacks ask for anew */

    link->waiting = (req_list){ 0 };
    apm_fail(&err, status, "%s", why);
    while (doomed.head) {
        apm_redis_req *req = doomed.head;
        wait_remove(&doomed, req);
        req_answer(link, req, NULL, &err);
    }
}

void
redis_requests_lost(apm_redis *link)
{
    req_list lost = link->lost;
    apium_error err;

    link->lost = (req_list){ 0 };
    apm_fail(&err, APIUM_E_CLOSED, "the connection was lost before the answer came");
    /* Back to the front, keeping their order: from the last to the first. */
    for (apm_redis_req *req = lost.tail, *prev; req; req = prev) {
        prev = req->wait_prev;
        if (!(req->flags & APM_REDIS_REPEAT) && !req->unheard)
            continue;
        wait_remove(&lost, req);
        if (req->again && !req->unheard)
            *req->again = true;
        req->wait_prev = NULL;
        req->wait_next = link->waiting.head;
        *(link->waiting.head ? &link->waiting.head->wait_prev : &link->waiting.tail) = req;
        link->waiting.head = req;
        req->waiting = true;
    }
    while (lost.head) {
        apm_redis_req *req = lost.head;
        wait_remove(&lost, req);
        if (req->atomic) {
            void *call = req->arg;
            req_free(link, req);
            redis_call_lost(link, call);
            continue;
        }
        req_answer(link, req, NULL, &err);
    }
}

void
redis_requests_fresh(apm_redis *link)
{
    link->n_dbs = link->n_scripts = 0;
    link->current_db = link->target.db;
    for (apm_redis_req *req = link->waiting.head; req; req = req->wait_next)
        req->not_before_ms = 0;
}

void
redis_requests_clear(apm_redis *link)
{
    redis_requests_lost(link);
    redis_requests_fail(link, APIUM_E_CLOSED, "the link is closed");
}

/* ---- the server's clock, and the gaps in it that are Python's ---- */

void
apm_redis_clock_feed(apm_link *base, int64_t server_us)
{
    apm_redis *link = (apm_redis *)base;
    int64_t now_ms = apm_clock_ms(), ahead = server_us - apm_clock_ns() / 1000;

    /* Delay can only make a sample smaller: the largest is the best. */
    if (!link->ahead_at_ms || ahead > link->server_ahead_us ||
        now_ms - link->ahead_at_ms > CLOCK_FRESH_MS) {
        link->server_ahead_us = ahead;
        link->ahead_at_ms = now_ms;
    }
}

int64_t
apm_redis_clock_us(apm_link *base)
{
    const apm_redis *link = (const apm_redis *)base;
    return link->ahead_at_ms ? apm_clock_ns() / 1000 + link->server_ahead_us : 0;
}

void
apm_redis_gaps(apm_link *base, bool on)
{
    ((apm_redis *)base)->gaps = on;
}

static void
on_gap_over(uv_timer_t *timer)
{
    (void)timer; /* waking up is enough: the loop pumps before it sleeps */
}

int64_t
redis_gap_ms(apm_redis *link)
{
    if (!link->gaps || !link->ahead_at_ms)
        return 0;
    int64_t at = (apm_redis_clock_us(&link->base) + GAP_AHEAD_US) % GAP_EVERY_US;
    if (at >= GAP_US + GAP_AHEAD_US)
        return 0;
    int64_t ms = (GAP_US + GAP_AHEAD_US - at) / 1000 + 1;
    if (!uv_is_active((uv_handle_t *)&link->gap)) {
        uv_update_time(link->gap.loop);
        uv_timer_start(&link->gap, on_gap_over, (uint64_t)ms, 0);
    }
    return ms;
}
