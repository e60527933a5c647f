/*
 * redis_unit.c - units of a Redis link: operations, each written down as words of the unit script. What is committed leaves in
 * calls (redis_call.c).
 */
#include "core/link/redis_inside.h"

#include <stdio.h>
#include <stdlib.h>

#include "core/base/error.h"

#define VALUE_ROOM  24  /* for a value's length, which is known when it is composed */
#define RECORD_ROOM 96  /* what frames a result and the acknowledgement behind it, about */
#define RUN_MAX     200 /* values of one push: Lua's stack is not large */

static void
unit_free(redis_unit *unit)
{
    apm_buf_clear(&unit->words);
    free(unit);
}

void
redis_unit_answer(redis_unit *unit, apium_status status, const apium_error *err)
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
    unit->shape = UNIT_ANY;
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
    unit->composed.words_len = words_len;
    unit->composed.n_words = n_words;
    unit->composed.failed = failed;
    unit->composed.in_run = false;
    unit->composed.at = unit->words.len;
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
    unit->value = (span){ unit->run.count_at + 6, unit->words.len };
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

    if (words->failed && unit->composed.failed)
        return true; /* the whole unit is answered so */
    *len = words->failed ? max : words->len - (unit->composed.at + VALUE_ROOM);
    if (words->failed || *len > max) {
        words->failed = false;
        words->len = unit->composed.words_len;
        unit->n_words = unit->composed.n_words;
        unit->shape = UNIT_ANY;
        if (unit->composed.in_run && unit->run.n)
            unit->run.end = words->len;
        return false;
    }
    char *at = words->p + unit->composed.at;
    int n = snprintf(head, sizeof(head), "$%zu\r\n", *len);
    memcpy(at, head, (size_t)n);
    memmove(at + n, at + VALUE_ROOM, *len);
    words->len -= VALUE_ROOM - (size_t)n;
    apm_buf_addz(words, "\r\n");
    unit->n_words++;
    if (unit->composed.in_run)
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
    unit->keyset = i;
    wordi(unit, (int64_t)i + 1);
}

void
apm_redis_unit_record(apm_unit *base, int db, apm_str key, int64_t expire_s, apm_str doc)
{
    redis_unit *unit = (redis_unit *)base;
    (void)apm_buf_reserve(&unit->words, key.len + doc.len + RECORD_ROOM);
    wordz(unit, "S");
    wordi(unit, db);
    size_t at = unit->words.len;
    word(unit, key);
    unit->key = (span){ at, unit->words.len };
    wordi(unit, expire_s);
    at = unit->words.len;
    word(unit, doc);
    unit->value = (span){ at, unit->words.len };
    unit->shape = unit->shape == UNIT_EMPTY ? UNIT_STORED : UNIT_ANY;
    unit->db = db;
    unit->expire_s = expire_s;
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
        size_t at = unit->words.len;
        word(unit, key);
        unit->key = (span){ at, unit->words.len };
        unit->shape = unit->shape == UNIT_EMPTY ? UNIT_PUSHED : UNIT_ANY;
        unit->db = db;
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
        unit->composed.in_run = true;
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
    unit->shape = UNIT_ANY;
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
    size_t at = unit->words.len;
    word(unit, tag);
    unit->tag = (span){ at, unit->words.len };
    unit->shape = unit->shape <= UNIT_STORED ? UNIT_SETTLED : UNIT_ANY;
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
