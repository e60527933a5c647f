/*
 * redis.h - the link to a Redis server: requests, units, subscriptions. Only adapters for Redis call this.
 *
 *   requests ─┐                        ┌─▶ command connection (one; pipelined)
 *   units ────┼──▶ apm_redis (heals) ──┼─▶ subscriber connection (while something is watched)
 *   channels ─┘                        └─▶ waiting connections (the broker's, for blocking commands)
 *
 * A broker and a backend on one server share the link, each with its own database: every request names it.
 */
#ifndef APM_LINK_REDIS_H
#define APM_LINK_REDIS_H

#include <hiredis/hiredis.h>

#include "core/link/link.h"
#include "core/link/redis_conn.h"

/* A script, as embed_lua.py makes it of a file, and its SHA-1. */
typedef struct apm_redis_script {
    const char *sha, *text;
} apm_redis_script;

/* Exactly one of reply (borrowed; never an error reply) and err is set. */
typedef void apm_redis_answer(void *arg, const redisReply *reply, const apium_error *err);

enum {
    APM_REDIS_REPEAT =
        1u << 0, /* may be sent again when its answer was lost: it is the same twice as once */
    APM_REDIS_UNACKED =
        1u << 1, /* touches the `unacked` hash: kept out of the gaps that Python's WATCH needs */
    APM_REDIS_NOW = 1u << 2, /* worth nothing later: fails at once when the link is down */
};

typedef struct apm_redis_req apm_redis_req;

/* One command, or one call of one script: begin, add its words, send. NULL without memory, and then
 * nothing is ever called; adding to and sending NULL are fine. `owner` is for apm_redis_disown. */
apm_redis_req *
apm_redis_begin(apm_link *link, int db, unsigned flags, apm_redis_answer *done, void *arg);
void apm_redis_add(apm_redis_req *req, apm_str word);
void apm_redis_addz(apm_redis_req *req, const char *word);
void apm_redis_addi(apm_redis_req *req, int64_t word);
void apm_redis_send(apm_link *link, apm_redis_req *req, const void *owner);
/* The same for a script: the words are its ARGV. It declares no KEYS, which a single server does not need. */
apm_redis_req *apm_redis_begin_script(apm_link *link, const apm_redis_script *script, int db,
                                      unsigned flags, apm_redis_answer *done, void *arg);
/* The owner goes away: its requests are answered E_CLOSED now. */
void apm_redis_disown(apm_link *link, const void *owner);

/* Called whenever the loop is about to sleep and the link is up, before what was gathered leaves. */
typedef struct apm_redis_hook {
    void (*run)(void *arg);
    void *arg;
    struct apm_redis_hook *next;
} apm_redis_hook;
void apm_redis_hook_add(apm_link *link, apm_redis_hook *hook);
void apm_redis_hook_remove(apm_link *link, apm_redis_hook *hook);

/* The database of a URL on this kind of link; E_CONFIG when it names none. */
apium_status apm_redis_db(const char *url, int *db, apium_error *err);
/* major * 100 + minor of the server, 0 while unknown. */
int apm_redis_version(apm_link *link);
/* Counts the times the link came up. */
uint64_t apm_redis_epoch(apm_link *link);
/* Another connection to the server the link is connected to now (opts: its callbacks; loop, address and times are
 * filled in). NULL while the link is down. */
apm_redis_conn *apm_redis_connect(apm_link *link, const apm_redis_conn_opts *opts);

/* The server's clock. Scripts that answer TIME feed it; now is an estimate, 0 while unknown. */
void apm_redis_clock_feed(apm_link *link, int64_t server_us);
int64_t apm_redis_clock_us(apm_link *link);
/* Entries of Python's are in `unacked`: leave it alone in the first 5 ms of each 100 ms of the server's clock. */
void apm_redis_gaps(apm_link *link, bool on);

/* ---- units: appended operations. A unit's tags are its fence: unless each is in the `unacked` hash, nothing happens. ---- */

/* The keys and options of the broker whose deliveries a unit settles. */
typedef struct apm_redis_keys {
    int db;
    const char *unacked, *index, *dead; /* with the global prefix */
    const char *prefix, *sep;
} apm_redis_keys;

/* SET with expiry (0: none) and PUBLISH on the channel of the key's name, unless a SUCCESS is stored there. */
void apm_redis_unit_record(apm_unit *unit, int db, apm_str key, int64_t expire_s, apm_str doc);
/* A chord's counting keys begin with `key`: .j the parts, .s and .t how many are expected. The part counts once for each `head`, the
 * beginning of its member up to and with its id; score "+inf" or a number, `ordered` a sorted set, else a list. */
void apm_redis_unit_arrive(apm_unit *unit, int db, apm_str key, bool ordered, apm_str score,
                           apm_str head, apm_str member, int64_t expire_s);
/* Forget them; the unit fails with E_NOTFOUND when they are gone. */
void apm_redis_unit_claim(apm_unit *unit, int db, apm_str key);
/* Add to .t. */
void apm_redis_unit_extend(apm_unit *unit, int db, apm_str key, int64_t by, int64_t expire_s);
/* Push to a list, at the left (served last) or the right (served next). */
void apm_redis_unit_push(apm_unit *unit, int db, apm_str key, bool right, apm_str value);
/* Push to every list whose binding to the exchange fits the routing key; step is the suffix of the list ("" or
 * separator and number). mandatory: the unit fails with E_UNROUTABLE when there is none. */
void
apm_redis_unit_route(apm_unit *unit, const apm_redis_keys *keys, const char *exchange, bool topic,
                     apm_str routing_key, apm_str step, bool mandatory, bool right, apm_str value);
void apm_redis_unit_publish(apm_unit *unit, apm_str channel, apm_str value);
/*
 * Big values are composed where they are needed: after a push, route or publish with an absent value, append to the buffer given and
 * end it, with nothing else in between. False: it has more than max bytes (*len), and the operation is taken back.
 */
apm_buf *apm_redis_unit_value(apm_unit *unit);
bool apm_redis_unit_value_end(apm_unit *unit, size_t max, size_t *len);
void apm_redis_unit_sadd(apm_unit *unit, int db, apm_str key, apm_str member);
/* Remove a delivery's entry; also the unit's fence. */
void apm_redis_unit_ack(apm_unit *unit, const apm_redis_keys *keys, apm_str tag);
/* Give the entry to nobody until due_us (wall), under a new tag. It is the fence of the old tag. */
void apm_redis_unit_park(apm_unit *unit, const apm_redis_keys *keys, apm_str tag,
                         apm_str parked_tag, int64_t due_us);
/* Keep a document in the dead-letter list, of which the newest `keep` stay. */
void apm_redis_unit_bury(apm_unit *unit, const apm_redis_keys *keys, apm_str doc, int64_t keep);
/* The same with the entry's own text, taken on the server as a JSON string between head and tail (for what is too big to fetch). */
void apm_redis_unit_bury_entry(apm_unit *unit, const apm_redis_keys *keys, apm_str tag,
                               apm_str head, apm_str tail, int64_t keep);

/* ---- subscriptions ---- */

typedef struct apm_redis_sub apm_redis_sub;
/* payload NULL: the subscription holds now (or again): look at what was missed. */
typedef void apm_redis_message(void *arg, apm_str channel, const apm_str *payload);

/* NULL without memory. */
apm_redis_sub *
apm_redis_subscribe(apm_link *link, const char *channel, apm_redis_message *on_message, void *arg);
void apm_redis_unsubscribe(apm_link *link, apm_redis_sub *sub); /* NULL is fine */

extern const apm_link_ops apm_redis_kind;

#endif
