/*
 * redis_call.c - what is committed on a Redis link, gathered into calls.
 *
 * A lone unit leaves at once. While calls are unanswered, units gather until a call is worth it; a few calls may be
 * unanswered at a time. Each call has a token, so that sending it again after a lost connection neither repeats
 * it nor forgets what it answered; later calls remove the tokens whose answers have come.
 *
 * A call is the unit script, which knows all operations, or what does the same for less: pushes alone need no decision, so
 * they are a transaction (whose fate the unit script finds out if its answer is lost); settlements alone are a short script.
 */
#include "core/link/redis_inside.h"

#include <stdio.h>
#include <stdlib.h>

#include "core/base/clock.h"
#include "core/base/error.h"
#include "redis_settle.lua.h"
#include "redis_unit.lua.h"

#define CALL_UNITS 64 /* 16 to 64 settlements a call measured best; 128 is slower */
#define CALL_BYTES (1 << 20)
#define COPY_BYTES                                                                                 \
    (64 << 10)            /* a unit of this size that is alone in its call is not copied into it */
#define CALL_WORTH     24 /* so many waiting units are worth a further unanswered call */
#define BYTES_WORTH    (32 << 10) /* ... and so are so many bytes */
#define MAX_CALLS      12         /* unanswered: what a round trip to a far server can carry */
#define SPENT_WORTH    16         /* so many tokens are worth removing */
#define TOKEN_LIFE_S   86400      /* of one whose call may be sent again for ever */
#define TOKEN_MARGIN_S 60
#define LATER_MS       500

struct redis_call {
    apm_redis *link;
    redis_unit *units;
    size_t n;
    bool unacked, rare;
    bool
        untold; /* the script keeps no token: it cannot tell what a call that is sent again did before */
    bool again; /* it was */
    int64_t started_ms;
    char token[sizeof(((apm_redis *)0)->once) + 24];
};

static void
gather(apm_redis *link, redis_unit *unit)
{
    unit->next = NULL;
    *link->units_tail = unit;
    link->units_tail = &unit->next;
    link->n_units++;
    link->units_bytes += unit->words.len;
}

void
redis_unit_commit(apm_unit *base)
{
    redis_unit *unit = (redis_unit *)base;

    unit->started_ms = apm_clock_ms();
    gather((apm_redis *)base->link, unit);
}

/* ---- answers ---- */

static void
later(apm_redis *link, redis_unit *unit, const char *why)
{
    snprintf(link->last_error, sizeof(link->last_error), "%s", why);
    link->units_not_before_ms = apm_clock_ms() + LATER_MS;
    gather(link, unit);
}

static void
settled(redis_unit *unit, int64_t answer)
{
    apium_error err;

    if (answer == 1) {
        apm_fail(&err, APIUM_E_FENCED, "the delivery is not ours any more");
        redis_unit_answer(unit, APIUM_E_FENCED, &err);
        return;
    }
    /* 2 and more: two and the bits of the arrivals that completed their header */
    if (unit->head.completed)
        *unit->head.completed = answer > 1 ? (uint32_t)(answer - 2) : 0;
    redis_unit_answer(unit, APIUM_OK, NULL);
}

static void
refused(apm_redis *link, redis_unit *unit, const char *text)
{
    static const struct {
        const char *mark;
        apium_status status;
    } ours[] = { { "UNROUTABLE ", APIUM_E_UNROUTABLE }, { "CLAIMED ", APIUM_E_NOTFOUND } };
    apium_error err;
    bool lose;

    if (redis_says_later(text, &lose)) {
        later(link, unit, text);
        if (lose)
            redis_lose(link, APIUM_E_CLOSED, text);
        return;
    }
    apm_fail(&err, APIUM_E_REFUSED, "%s", text);
    for (size_t i = 0; i < sizeof(ours) / sizeof(*ours); i++)
        if (strncmp(text, ours[i].mark, strlen(ours[i].mark)) == 0)
            apm_fail(&err, ours[i].status, "%s", text + strlen(ours[i].mark));
    redis_unit_answer(unit, err.status, &err);
}

/* What was said of one unit: a number, or why not. */
static void
said(apm_redis *link, redis_unit *unit, const redisReply *answer)
{
    if (answer->type == REDIS_REPLY_INTEGER)
        settled(unit, answer->integer);
    else
        refused(link, unit,
                answer->type == REDIS_REPLY_STRING || answer->type == REDIS_REPLY_ERROR
                    ? answer->str
                    : "Redis gave an answer that makes no sense");
}

static void
spend(apm_redis *link, const redis_call *call)
{
    if (call->untold)
        return;
    if (link->spent.failed) /* they expire by themselves */
        apm_buf_reset(&link->spent), link->n_spent = 0;
    apm_resp_addz(&link->spent, call->token);
    link->n_spent++;
}

static void
fail_call(redis_call *call, const apium_error *err)
{
    apium_error odd;

    if (!err) {
        apm_fail(&odd, APIUM_E_REFUSED, "Redis gave an answer that makes no sense");
        err = &odd;
    }
    for (redis_unit *unit = call->units, *next; unit; unit = next) {
        next = unit->next;
        redis_unit_answer(unit, err->status, err);
    }
    free(call);
}

/* Of the unit script: the clock, then for each unit. */
static void
on_called(void *arg, const redisReply *reply, const apium_error *err)
{
    redis_call *call = arg;
    apm_redis *link = call->link;
    size_t i = 2;

    link->calls--;
    if (!reply || reply->type != REDIS_REPLY_ARRAY || reply->elements != call->n + 2) {
        fail_call(call, err);
        return;
    }
    apm_redis_clock_feed(&link->base, reply->element[0]->integer * INT64_C(1000000) +
                                          reply->element[1]->integer);
    spend(link, call);
    for (redis_unit *unit = call->units, *next; unit; unit = next) {
        next = unit->next;
        said(link, unit, reply->element[i++]);
    }
    free(call);
}

/* Of the short script: 0, or an answer for each. */
static void
on_settled(void *arg, const redisReply *reply, const apium_error *err)
{
    redis_call *call = arg;
    apm_redis *link = call->link;
    size_t i = 0;

    link->calls--;
    bool all = reply && reply->type == REDIS_REPLY_INTEGER && reply->integer == 0;
    if (!all && (!reply || reply->type != REDIS_REPLY_ARRAY || reply->elements != call->n)) {
        fail_call(call, err);
        return;
    }
    spend(link, call);
    for (redis_unit *unit = call->units, *next; unit; unit = next) {
        next = unit->next;
        const redisReply *one = all ? NULL : reply->element[i++];
        /* What is fenced when it is sent again has most likely been settled before, and if not, somebody else settles it. */
        bool perhaps = one && call->untold && call->again && one->integer == 1;
        if (all || perhaps)
            settled(unit, 0);
        else
            said(link, unit, one);
    }
    free(call);
}

/* Of a transaction: those of its commands, the last of which are the units'. */
static void
on_pushed(void *arg, const redisReply *reply, const apium_error *err)
{
    redis_call *call = arg;
    apm_redis *link = call->link;

    link->calls--;
    if (!reply || reply->type != REDIS_REPLY_ARRAY || reply->elements < call->n + 1) {
        fail_call(call, err);
        return;
    }
    spend(link, call);
    size_t i = reply->elements - call->n;
    for (redis_unit *unit = call->units, *next; unit; unit = next, i++) {
        next = unit->next;
        if (reply->element[i]->type == REDIS_REPLY_ERROR)
            refused(link, unit, reply->element[i]->str);
        else
            settled(unit, 0);
    }
    free(call);
}

/* ---- calls ---- */

/* Take up to a call's worth of units from the front. */
static void
take_units(apm_redis *link, redis_call *call)
{
    redis_unit **tail = &call->units;
    size_t bytes = 0;

    while (link->units && call->n < CALL_UNITS) {
        redis_unit *unit = link->units;
        if (call->n && bytes + unit->words.len > CALL_BYTES)
            break;
        bytes += unit->words.len;
        link->units = unit->next;
        unit->next = NULL;
        *tail = unit;
        tail = &unit->next;
        call->unacked |= unit->unacked;
        call->rare |= unit->rare;
        call->n++;
    }
    if (!link->units)
        link->units_tail = &link->units;
    link->n_units -= call->n;
    link->units_bytes -= bytes;
    call->started_ms = call->units->started_ms;
}

static apm_str
part(const redis_unit *unit, span of)
{
    return (apm_str){ unit->words.p + of.at, of.end - of.at };
}

/* How long the server keeps our token: as long as we may come again with it. */
static int64_t
token_life_s(const apm_redis *link)
{
    int64_t patience = apm_links_patience_ms(link->base.set);
    bool for_ever = patience < 0 || patience / 1000 > TOKEN_LIFE_S;
    return for_ever ? TOKEN_LIFE_S : patience / 1000 + TOKEN_MARGIN_S;
}

/* How many tokens go with this call; few can wait, for they expire by themselves. */
static size_t
spent_now(const apm_redis *link)
{
    return link->n_spent < SPENT_WORTH || link->spent.failed ? 0 : link->n_spent;
}

static void
add_spent(apm_redis *link, apm_redis_req *req, size_t n)
{
    if (!n)
        return;
    apm_buf_adds(&req->words, apm_buf_str(&link->spent));
    req->n_words += n;
    apm_buf_reset(&link->spent);
    link->n_spent = 0;
}

/* Pushes into our own database, none of them big. */
static bool
only_pushes(const redis_call *call)
{
    for (const redis_unit *unit = call->units; unit; unit = unit->next)
        if (unit->shape != UNIT_PUSHED || unit->db != call->link->target.db ||
            unit->words.len >= COPY_BYTES)
            return false;
    return true;
}

/* Deliveries of one broker acknowledged, and results of one life stored, all in our own database. `set`: the broker's keys, NULL
 * nothing is acknowledged. */
static bool
only_settlements(redis_call *call, const keyset **set, int64_t *expire_s)
{
    const apm_redis *link = call->link;

    *set = NULL;
    *expire_s = -1;
    call->untold = true;
    for (const redis_unit *unit = call->units; unit; unit = unit->next) {
        /* An acknowledgement before the task runs: once we have it, nobody else does it. And a result by itself has no tag that
         * tells of it. */
        if (unit->tag.end == 0 || unit->key.end == 0)
            call->untold = false;
        if (unit->shape == UNIT_SETTLED) {
            const keyset *its = &link->keysets[unit->keyset];
            if (its->db != link->target.db || (*set && *set != its))
                return false;
            *set = its;
        } else if (unit->shape != UNIT_STORED) {
            return false;
        }
        if (unit->key.end == 0)
            continue;
        if (unit->db != link->target.db || (*expire_s >= 0 && *expire_s != unit->expire_s))
            return false;
        *expire_s = unit->expire_s;
    }
    return true;
}

static apm_redis_req *
pushes(redis_call *call)
{
    apm_redis *link = call->link;
    apm_redis_req *req = redis_begin_atomic(link, link->target.db, on_pushed, call);
    size_t spent = spent_now(link);

    if (!req)
        return NULL;
    redis_open_command(req, 5);
    apm_redis_addz(req, "SET");
    apm_redis_addz(req, call->token);
    apm_redis_addz(req, "pushed"); /* redis_unit.lua knows it */
    apm_redis_addz(req, "EX");
    apm_redis_addi(req, token_life_s(link));
    if (spent) {
        redis_open_command(req, spent + 1);
        apm_redis_addz(req, "DEL");
        add_spent(link, req, spent);
    }
    for (const redis_unit *unit = call->units; unit; unit = unit->next) {
        redis_open_command(req, 2 + unit->run.n);
        apm_redis_addz(req, unit->run.right ? "RPUSH" : "LPUSH");
        apm_buf_adds(&req->words, part(unit, unit->key));
        apm_buf_adds(&req->words, part(unit, unit->value));
    }
    return req;
}

static apm_redis_req *
settlements(redis_call *call, const keyset *set, int64_t expire_s)
{
    apm_redis *link = call->link;
    apm_redis_req *req =
        apm_redis_begin_script(&link->base, &redis_settle_script, link->target.db,
                               APM_REDIS_REPEAT | (set ? APM_REDIS_UNACKED : 0), on_settled, call);
    size_t spent = spent_now(link);

    if (!req)
        return NULL;
    req->again = &call->again;
    apm_redis_addz(req, call->untold ? "" : call->token);
    apm_redis_addi(req, token_life_s(link));
    if (expire_s < 0)
        apm_redis_addz(req, "");
    else
        apm_redis_addi(req, expire_s);
    apm_redis_addz(req, set ? set->unacked : "");
    apm_redis_addz(req, set ? set->index : "");
    apm_redis_addi(req, (int64_t)spent);
    add_spent(link, req, spent);
    for (const redis_unit *unit = call->units; unit; unit = unit->next) {
        if (unit->tag.end)
            apm_buf_adds(&req->words, part(unit, unit->tag));
        else
            apm_resp_addz(&req->words, "");
        req->n_words += 3;
        if (unit->key.end == 0) {
            apm_resp_addz(&req->words, "");
            apm_resp_addz(&req->words, "");
            continue;
        }
        apm_buf_adds(&req->words, part(unit, unit->key));
        if (call->n == 1 && unit->words.len >= COPY_BYTES)
            req->tail = part(unit, unit->value); /* the call keeps the unit */
        else
            apm_buf_adds(&req->words, part(unit, unit->value));
    }
    return req;
}

static apm_redis_req *
any(redis_call *call)
{
    apm_redis *link = call->link;
    apm_redis_req *req = apm_redis_begin_script(
        &link->base, call->rare ? &redis_unit_script : &redis_unit_usual_script, link->target.db,
        APM_REDIS_REPEAT | (call->unacked ? APM_REDIS_UNACKED : 0), on_called, call);
    size_t spent = spent_now(link);

    if (!req)
        return NULL;
    apm_redis_addz(req, call->token);
    apm_redis_addi(req, token_life_s(link));
    apm_redis_addi(req, link->target.db);
    apm_redis_addi(req, (int64_t)spent);
    add_spent(link, req, spent);
    apm_redis_addi(req, link->n_keysets);
    for (unsigned i = 0; i < link->n_keysets; i++) {
        const keyset *set = &link->keysets[i];
        apm_redis_addi(req, set->db);
        apm_redis_addz(req, set->unacked);
        apm_redis_addz(req, set->index);
        apm_redis_addz(req, set->dead);
        apm_redis_addz(req, set->prefix);
        apm_redis_addz(req, set->sep);
    }
    apm_redis_addi(req, (int64_t)call->n);
    for (const redis_unit *unit = call->units; unit; unit = unit->next) {
        apm_redis_addi(req, (int64_t)unit->n_words);
        if (call->n == 1 && unit->words.len >= COPY_BYTES)
            req->tail = apm_buf_str(&unit->words); /* the call keeps the unit */
        else
            apm_buf_adds(&req->words, apm_buf_str(&unit->words));
        req->n_words += unit->n_words;
    }
    return req;
}

static void
send_request(redis_call *call, apm_redis_req *req)
{
    apm_redis *link = call->link;

    link->calls++;
    if (req) {
        req->started_ms = call->started_ms;
        apm_redis_send(&link->base, req, NULL);
        return;
    }
    apium_error err;
    link->calls--;
    apm_fail(&err, APIUM_E_NOMEM, "out of memory");
    fail_call(call, &err);
}

static void
send_call(apm_redis *link)
{
    redis_call *call = calloc(1, sizeof(*call));
    const keyset *set;
    int64_t expire_s;

    if (!call)
        return; /* they stay gathered: the next turn may have memory */
    call->link = link;
    take_units(link, call);
    snprintf(call->token, sizeof(call->token), "%s:%llu", link->once,
             (unsigned long long)++link->call_no);
    if (only_pushes(call)) {
        send_request(call, pushes(call));
    } else if (only_settlements(call, &set, &expire_s)) {
        send_request(call, settlements(call, set, expire_s));
    } else {
        call->untold = false;
        send_request(call, any(call));
    }
}

void
redis_call_lost(apm_redis *link, void *arg)
{
    redis_call *call = arg;

    link->calls--;
    send_request(call, any(call)); /* its token tells whether the transaction was executed */
}

/* A unit that could not be written down fails alone, before it is in a call with others. */
static void
answer_unencodable(apm_redis *link)
{
    redis_unit *doomed = NULL;
    apium_error err;

    for (redis_unit **at = &link->units; *at;) {
        redis_unit *unit = *at;
        if (!unit->unencodable && !unit->words.failed) {
            at = &unit->next;
            continue;
        }
        *at = unit->next;
        link->n_units--;
        link->units_bytes -= unit->words.len;
        unit->next = doomed;
        doomed = unit;
    }
    link->units_tail = &link->units;
    while (*link->units_tail)
        link->units_tail = &(*link->units_tail)->next;
    for (redis_unit *next; doomed; doomed = next) {
        next = doomed->next;
        apm_fail(&err, doomed->unencodable ? APIUM_E_NOMEM : APIUM_E_TOOBIG, "%s",
                 doomed->unencodable ? "out of memory" : "the unit is too big for one call");
        redis_unit_answer(doomed, err.status, &err);
    }
}

void
redis_units_pump(apm_redis *link)
{
    bool unencodable = false;

    if (!link->units || apm_clock_ms() < link->units_not_before_ms)
        return;
    for (const redis_unit *unit = link->units; unit && !unencodable; unit = unit->next)
        unencodable = unit->unencodable || unit->words.failed;
    if (unencodable)
        answer_unencodable(link);
    /* In a gap, gather rather than queue up calls of one. */
    if (link->calls && redis_gap_ms(link))
        return;
    while (link->units && link->calls < MAX_CALLS &&
           (link->calls == 0 || link->n_units >= CALL_WORTH || link->units_bytes >= BYTES_WORTH)) {
        size_t before = link->n_units;
        send_call(link);
        if (link->n_units == before)
            return;
    }
}

void
redis_units_tick(apm_redis *link)
{
    int64_t patience = apm_links_patience_ms(link->base.set), now = apm_clock_ms();
    char why[600];

    if (patience < 0 || !link->units || now - link->units->started_ms <= patience ||
        (link->base.up && now >= link->units_not_before_ms))
        return;
    snprintf(why, sizeof(why), "cannot reach %s: %s", link->base.shown,
             link->last_error[0] ? link->last_error : "no answer");
    redis_units_clear(link, APIUM_E_CLOSED, why);
}

void
redis_units_clear(apm_redis *link, apium_status status, const char *why)
{
    redis_unit *units = link->units;
    apium_error err;

    link->units = NULL;
    link->units_tail = &link->units;
    link->n_units = link->units_bytes = 0;
    apm_fail(&err, status, "%s", why);
    for (redis_unit *next; units; units = next) {
        next = units->next;
        redis_unit_answer(units, status, &err);
    }
}
