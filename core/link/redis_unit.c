/*
 * redis_unit.c - units of a Redis link: what is committed is gathered into calls of the unit script.
 *
 * A lone unit leaves at once. While calls are unanswered, units gather until a call is worth it; a few calls may be
 * unanswered at a time. Each call has a token, so that sending it again after a lost connection neither repeats
 * it nor forgets what it answered; the next call removes the tokens whose answers have come.
 */
#include "core/link/redis_inside.h"

#include <stdio.h>
#include <stdlib.h>

#include "core/base/clock.h"
#include "core/base/error.h"
#include "redis_unit.lua.h"

#define CALL_UNITS 64 /* 16 to 64 settlements a call measured best; 128 is slower */
#define CALL_BYTES (1 << 20)
#define COPY_BYTES                                                                                 \
    (64 << 10)           /* a unit of this size that is alone in its call is not copied into it */
#define VALUE_ROOM   24  /* for a value's length, which is known when it is composed */
#define RUN_MAX      200 /* values of one push: Lua's stack is not large */
#define CALL_WORTH   24  /* so many waiting units are worth a further unanswered call */
#define BYTES_WORTH  (32 << 10) /* ... and so are so many bytes */
#define MAX_CALLS    3
#define TOKEN_LIFE_S "86400"
#define LATER_MS     500

static apm_redis_script unit_script = { .text = redis_unit_lua },
                        usual_script = { .text = redis_unit_lua_usual };

struct redis_unit {
    apm_unit head;
    apm_buf words;
    size_t n_words;
    bool unacked, unencodable;
    bool rare; /* has operations that the usual script lacks */
    struct {
        size_t words_len, n_words, at; /* before its operation, and where it begins */
        bool failed, in_run;
    } value; /* that is composed in place */
    struct {
        size_t count_at, key_at, key_len, end; /* in words; `end`: nothing came since */
        unsigned n;                            /* 0: there is none */
        int db;
        bool right;
    } run; /* of pushes to one end of one list: an operation that grows */
    int64_t started_ms;
    redis_unit *next;
};

struct redis_call {
    apm_redis *link;
    redis_unit *units;
    size_t n;
    char token[sizeof(((apm_redis *)0)->once) + 24];
};

static void
unit_free(redis_unit *unit)
{
    apm_buf_clear(&unit->words);
    free(unit);
}

static void
unit_answer(redis_unit *unit, apium_status status, const apium_error *err)
{
    apm_unit_done *done = unit->head.done;
    void *arg = unit->head.arg;

    unit_free(unit);
    if (done)
        done(arg, status, err);
}

apm_unit *
redis_unit_new(apm_link *link)
{
    redis_unit *unit = calloc(1, sizeof(*unit));

    (void)link;
    if (!unit)
        return NULL;
    apm_buf_init(&unit->words, APM_BUF_MAX * 2);
    return &unit->head;
}

void
redis_unit_drop(apm_unit *unit)
{
    unit_free((redis_unit *)unit);
}

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

/* ---- operations ---- */

static void
word(redis_unit *unit, apm_str text)
{
    apm_resp_add(&unit->words, text);
    unit->n_words++;
}

static void
wordz(redis_unit *unit, const char *text)
{
    word(unit, apm_strz(text));
}

static void
rare_op(redis_unit *unit, const char *name)
{
    wordz(unit, name);
    unit->rare = true;
}

static void
wordi(redis_unit *unit, int64_t n)
{
    apm_resp_int(&unit->words, n);
    unit->n_words++;
}

static bool
same_set(const keyset *set, const apm_redis_keys *keys)
{
    return set->db == keys->db && strcmp(set->unacked, keys->unacked) == 0 &&
           strcmp(set->index, keys->index) == 0 && strcmp(set->dead, keys->dead) == 0 &&
           strcmp(set->prefix, keys->prefix) == 0 && strcmp(set->sep, keys->sep) == 0;
}

/* The last word of an operation that began at these places: given, or composed in place. */
static void
word_value(redis_unit *unit, apm_str value, size_t words_len, size_t n_words, bool failed)
{
    if (apm_str_is(value)) {
        word(unit, value);
        return;
    }
    char *room = apm_buf_reserve(&unit->words, VALUE_ROOM);
    unit->value.words_len = words_len;
    unit->value.n_words = n_words;
    unit->value.failed = failed;
    unit->value.in_run = false;
    unit->value.at = unit->words.len;
    if (room)
        unit->words.len += VALUE_ROOM;
}

/* One more value is in the run: its count is four digits, written over. */
static void
run_grew(redis_unit *unit)
{
    char *at = unit->words.p + unit->run.count_at;

    unit->run.n++;
    unit->run.end = unit->words.len;
    if (unit->words.failed)
        return;
    for (unsigned n = unit->run.n, i = 4; i-- > 0; n /= 10)
        at[i] = (char)('0' + n % 10);
}

apm_buf *
apm_redis_unit_value(apm_unit *base)
{
    return &((redis_unit *)base)->words;
}

bool
apm_redis_unit_value_end(apm_unit *base, size_t max, size_t *len)
{
    redis_unit *unit = (redis_unit *)base;
    apm_buf *words = &unit->words;
    char head[VALUE_ROOM + 8];

    if (words->failed && unit->value.failed)
        return true; /* the whole unit is answered so */
    *len = words->failed ? max : words->len - (unit->value.at + VALUE_ROOM);
    if (words->failed || *len > max) {
        words->failed = false;
        words->len = unit->value.words_len;
        unit->n_words = unit->value.n_words;
        if (unit->value.in_run && unit->run.n)
            unit->run.end = words->len;
        return false;
    }
    char *at = words->p + unit->value.at;
    int n = snprintf(head, sizeof(head), "$%zu\r\n", *len);
    memcpy(at, head, (size_t)n);
    memmove(at + n, at + VALUE_ROOM, *len);
    words->len -= VALUE_ROOM - (size_t)n;
    apm_buf_addz(words, "\r\n");
    unit->n_words++;
    if (unit->value.in_run)
        run_grew(unit);
    return true;
}

/* The number by which the script knows this broker's keys. Copied: the broker may be gone before the call is. */
static void
word_keys(redis_unit *unit, const apm_redis_keys *keys)
{
    apm_redis *link = (apm_redis *)unit->head.link;
    unsigned i = 0;

    while (i < link->n_keysets && !same_set(&link->keysets[i], keys))
        i++;
    if (i == link->n_keysets) {
        keyset set = { .db = keys->db,
                       .unacked = strdup(keys->unacked),
                       .index = strdup(keys->index),
                       .dead = strdup(keys->dead),
                       .prefix = strdup(keys->prefix),
                       .sep = strdup(keys->sep) };
        if (i == MAX_KEYSETS || !set.unacked || !set.index || !set.dead || !set.prefix ||
            !set.sep) {
            free(set.unacked);
            free(set.index);
            free(set.dead);
            free(set.prefix);
            free(set.sep);
            unit->unencodable = true;
            return;
        }
        link->keysets[link->n_keysets++] = set;
    }
    wordi(unit, (int64_t)i + 1);
}

void
apm_redis_unit_record(apm_unit *base, int db, apm_str key, int64_t expire_s, apm_str doc)
{
    redis_unit *unit = (redis_unit *)base;
    wordz(unit, "S");
    wordi(unit, db);
    word(unit, key);
    wordi(unit, expire_s);
    word(unit, doc);
}

void
apm_redis_unit_arrive(apm_unit *base, int db, apm_str key, bool ordered, apm_str score,
                      apm_str head, apm_str member, int64_t expire_s)
{
    redis_unit *unit = (redis_unit *)base;
    rare_op(unit, "J");
    wordi(unit, db);
    word(unit, key);
    wordz(unit, ordered ? "1" : "0");
    word(unit, score);
    word(unit, head);
    word(unit, member);
    wordi(unit, expire_s);
    base->arrivals++;
}

void
apm_redis_unit_claim(apm_unit *base, int db, apm_str key)
{
    redis_unit *unit = (redis_unit *)base;
    rare_op(unit, "Q");
    wordi(unit, db);
    word(unit, key);
}

void
apm_redis_unit_extend(apm_unit *base, int db, apm_str key, int64_t by, int64_t expire_s)
{
    redis_unit *unit = (redis_unit *)base;
    rare_op(unit, "T");
    wordi(unit, db);
    word(unit, key);
    wordi(unit, by);
    wordi(unit, expire_s);
}

static bool
goes_on(const redis_unit *unit, int db, apm_str key, bool right)
{
    return unit->run.n && unit->run.n < RUN_MAX && unit->run.end == unit->words.len &&
           !unit->words.failed && unit->run.db == db && unit->run.right == right &&
           unit->run.key_len == key.len &&
           memcmp(unit->words.p + unit->run.key_at, key.p, key.len) == 0;
}

void
apm_redis_unit_push(apm_unit *base, int db, apm_str key, bool right, apm_str value)
{
    redis_unit *unit = (redis_unit *)base;
    const size_t words_len = unit->words.len, n_words = unit->n_words;
    const bool failed = unit->words.failed;
    if (!goes_on(unit, db, key, right)) {
        wordz(unit, "P");
        wordi(unit, db);
        word(unit, key);
        unit->run.key_at = unit->words.len - key.len - 2;
        wordz(unit, right ? "RPUSH" : "LPUSH");
        wordz(unit, "0000");
        unit->run.count_at = unit->words.len - 6;
        unit->run.key_len = key.len;
        unit->run.db = db;
        unit->run.right = right;
        unit->run.n = 0;
    }
    word_value(unit, value, words_len, n_words, failed);
    if (apm_str_is(value))
        run_grew(unit);
    else
        unit->value.in_run = true;
}

void
apm_redis_unit_route(apm_unit *base, const apm_redis_keys *keys, const char *exchange, bool topic,
                     apm_str routing_key, apm_str step, bool mandatory, bool right, apm_str value)
{
    redis_unit *unit = (redis_unit *)base;
    const size_t words_len = unit->words.len, n_words = unit->n_words;
    const bool failed = unit->words.failed;
    rare_op(unit, "X");
    word_keys(unit, keys);
    wordz(unit, exchange);
    wordz(unit, topic ? "1" : "0");
    word(unit, routing_key);
    word(unit, step);
    wordz(unit, mandatory ? "1" : "0");
    wordz(unit, right ? "RPUSH" : "LPUSH");
    word_value(unit, value, words_len, n_words, failed);
}

void
apm_redis_unit_publish(apm_unit *base, apm_str channel, apm_str value)
{
    redis_unit *unit = (redis_unit *)base;
    const size_t words_len = unit->words.len, n_words = unit->n_words;
    const bool failed = unit->words.failed;
    wordz(unit, "C");
    word(unit, channel);
    word_value(unit, value, words_len, n_words, failed);
}

void
apm_redis_unit_sadd(apm_unit *base, int db, apm_str key, apm_str member)
{
    redis_unit *unit = (redis_unit *)base;
    rare_op(unit, "B");
    wordi(unit, db);
    word(unit, key);
    word(unit, member);
}

void
apm_redis_unit_ack(apm_unit *base, const apm_redis_keys *keys, apm_str tag)
{
    redis_unit *unit = (redis_unit *)base;
    wordz(unit, "A");
    word_keys(unit, keys);
    word(unit, tag);
    unit->unacked = true;
}

void
apm_redis_unit_park(apm_unit *base, const apm_redis_keys *keys, apm_str tag, apm_str parked_tag,
                    int64_t due_us)
{
    redis_unit *unit = (redis_unit *)base;
    char due[40];

    snprintf(due, sizeof(due), "%lld.%06lld", (long long)(due_us / 1000000),
             (long long)(due_us % 1000000));
    rare_op(unit, "K");
    word_keys(unit, keys);
    word(unit, tag);
    word(unit, parked_tag);
    wordz(unit, due);
    unit->unacked = true;
}

void
apm_redis_unit_bury(apm_unit *base, const apm_redis_keys *keys, apm_str doc, int64_t keep)
{
    redis_unit *unit = (redis_unit *)base;
    rare_op(unit, "D");
    word_keys(unit, keys);
    word(unit, doc);
    wordi(unit, keep);
}

void
apm_redis_unit_bury_entry(apm_unit *base, const apm_redis_keys *keys, apm_str tag, apm_str head,
                          apm_str tail, int64_t keep)
{
    redis_unit *unit = (redis_unit *)base;
    rare_op(unit, "E");
    word_keys(unit, keys);
    word(unit, tag);
    word(unit, head);
    word(unit, tail);
    wordi(unit, keep);
    unit->unacked = true;
}

/* ---- calls ---- */

static void
later(apm_redis *link, redis_unit *unit, const char *why)
{
    snprintf(link->last_error, sizeof(link->last_error), "%s", why);
    link->units_not_before_ms = apm_clock_ms() + LATER_MS;
    gather(link, unit);
}

/* What the script said of one unit. */
static void
settled(apm_redis *link, redis_unit *unit, const redisReply *answer)
{
    apium_error err;
    bool lose;

    if (answer->type == REDIS_REPLY_INTEGER && answer->integer != 1) {
        /* 2 and more: two and the bits of the arrivals that completed their header */
        if (unit->head.completed)
            *unit->head.completed = answer->integer > 1 ? (uint32_t)(answer->integer - 2) : 0;
        unit_answer(unit, APIUM_OK, NULL);
    } else if (answer->type == REDIS_REPLY_INTEGER) {
        apm_fail(&err, APIUM_E_FENCED, "the delivery is not ours any more");
        unit_answer(unit, APIUM_E_FENCED, &err);
    } else if (answer->type != REDIS_REPLY_STRING) {
        apm_fail(&err, APIUM_E_REFUSED, "Redis gave an answer that makes no sense");
        unit_answer(unit, err.status, &err);
    } else if (redis_says_later(answer->str, &lose)) {
        later(link, unit, answer->str);
        if (lose)
            redis_lose(link, APIUM_E_CLOSED, answer->str);
    } else {
        bool unroutable = strncmp(answer->str, "UNROUTABLE ", 11) == 0;
        bool claimed = strncmp(answer->str, "CLAIMED ", 8) == 0;
        apm_fail(&err,
                 unroutable ? APIUM_E_UNROUTABLE
                 : claimed  ? APIUM_E_NOTFOUND
                            : APIUM_E_REFUSED,
                 "%s",
                 unroutable ? answer->str + 11
                 : claimed  ? answer->str + 8
                            : answer->str);
        unit_answer(unit, err.status, &err);
    }
}

static void
on_call(void *arg, const redisReply *reply, const apium_error *err)
{
    redis_call *call = arg;
    apm_redis *link = call->link;
    apium_error odd;
    bool whole = reply && reply->type == REDIS_REPLY_ARRAY && reply->elements == call->n + 2;
    size_t i = 2;

    link->calls--;
    if (whole) {
        apm_redis_clock_feed(&link->base, reply->element[0]->integer * INT64_C(1000000) +
                                              reply->element[1]->integer);
        apm_resp_addz(&link->spent, call->token);
        link->n_spent++;
    } else if (!err) {
        apm_fail(&odd, APIUM_E_REFUSED, "Redis gave an answer that makes no sense");
        err = &odd;
    }
    for (redis_unit *unit = call->units, *next; unit; unit = next) {
        next = unit->next;
        if (whole)
            settled(link, unit, reply->element[i++]);
        else
            unit_answer(unit, err->status, err);
    }
    free(call);
}

/* Take up to a call's worth of units from the front. */
static redis_unit *
take_units(apm_redis *link, size_t *n, bool *unacked, bool *rare)
{
    redis_unit *first = NULL, **tail = &first;
    size_t bytes = 0;

    *n = 0;
    *unacked = *rare = false;
    while (link->units && *n < CALL_UNITS) {
        redis_unit *unit = link->units;
        if (*n && bytes + unit->words.len > CALL_BYTES)
            break;
        bytes += unit->words.len;
        link->units = unit->next;
        unit->next = NULL;
        *tail = unit;
        tail = &unit->next;
        *unacked |= unit->unacked;
        *rare |= unit->rare;
        ++*n;
    }
    if (!link->units)
        link->units_tail = &link->units;
    link->n_units -= *n;
    link->units_bytes -= bytes;
    return first;
}

static void
send_call(apm_redis *link)
{
    redis_call *call = calloc(1, sizeof(*call));
    bool unacked, rare;

    if (!call)
        return; /* they stay gathered: the next turn may have memory */
    call->link = link;
    call->units = take_units(link, &call->n, &unacked, &rare);
    snprintf(call->token, sizeof(call->token), "%s:%llu", link->once,
             (unsigned long long)++link->call_no);

    apm_redis_req *req =
        apm_redis_begin_script(&link->base, rare ? &unit_script : &usual_script, link->target.db,
                               APM_REDIS_REPEAT | (unacked ? APM_REDIS_UNACKED : 0), on_call, call);
    link->calls++;
    if (!req) {
        apium_error err;
        apm_fail(&err, APIUM_E_NOMEM, "out of memory");
        on_call(call, NULL, &err);
        return;
    }
    apm_redis_addz(req, call->token);
    apm_redis_addz(req, TOKEN_LIFE_S);
    apm_redis_addi(req, link->target.db);
    if (link->spent.failed)
        apm_buf_reset(&link->spent), link->n_spent = 0; /* they expire by themselves */
    apm_redis_addi(req, (int64_t)link->n_spent);
    apm_buf_adds(&req->words, apm_buf_str(&link->spent));
    req->n_words += link->n_spent;
    apm_buf_reset(&link->spent);
    link->n_spent = 0;
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
    apm_redis_send(&link->base, req, NULL);
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
        unit_answer(doomed, err.status, &err);
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
        unit_answer(units, status, &err);
    }
}
