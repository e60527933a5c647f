/*
 * redis_inside.h - what the files of the Redis link share; nobody else includes it.
 *
 *   redis.c           the life of the link: connect, greet, lose, try again, close
 *   redis_request.c   commands and scripts waiting, sent, lost, sent again
 *   redis_unit.c      units: their operations, written down as words
 *   redis_call.c      units gathered into calls: a transaction of pushes, or a script (redis_settle.lua, redis_unit.lua)
 *   redis_sub.c       subscriptions
 *   redis_sentinel.c  asking sentinels for the master
 */
#ifndef APM_LINK_REDIS_INSIDE_H
#define APM_LINK_REDIS_INSIDE_H

#include "core/link/redis.h"

#define MAX_KEYSETS 16
#define MAX_DBS     64
#define MAX_SCRIPTS 32

typedef struct redis_unit redis_unit;
typedef struct redis_call redis_call;

/* A part of a buffer; a place in it may move in memory. */
typedef struct span {
    size_t at, end;
} span;

/* What a unit consists of: the two usual kinds leave in calls that are made for them. */
typedef enum unit_shape {
    UNIT_EMPTY,
    UNIT_STORED,  /* one result */
    UNIT_SETTLED, /* one delivery acknowledged, with its result if it has one */
    UNIT_PUSHED,  /* pushes to one end of one list */
    UNIT_ANY,
} unit_shape;

struct redis_unit {
    apm_unit head;
    apm_buf words;
    size_t n_words;
    bool unacked, unencodable;
    bool rare; /* has operations that the usual script lacks */
    unit_shape shape;
    span key, value,
        tag; /* words, as they are encoded: where it stores or pushes and what; what it acknowledges */
    int db;           /* of the key */
    unsigned keyset;  /* of the tag */
    int64_t expire_s; /* of the result */
    struct {
        size_t words_len, n_words, at; /* before its operation, and where it begins */
        bool failed, in_run;
    } composed; /* a value that is composed in place */
    struct {
        size_t count_at, key_at, key_len, end; /* in words; `end`: nothing came since */
        unsigned n;                            /* 0: there is none */
        int db;
        bool right;
    } run; /* of pushes to one end of one list: an operation that grows */
    int64_t started_ms;
    redis_unit *next;
};

struct apm_redis_req {
    apm_redis_req *prev, *next;           /* on link->all */
    apm_redis_req *wait_prev, *wait_next; /* on link->waiting */
    apm_link *link;
    const apm_redis_script *script;
    bool atomic;   /* the words are whole commands, to be executed as one transaction */
    char *refused; /* what the server said of one of them; NULL none */
    unsigned n_commands;
    bool *again; /* becomes true when it is sent a second time; NULL nobody asks */
    apm_buf words;
    apm_str tail; /* words behind them that another keeps until this is answered; absent none */
    size_t n_words;
    int db;
    unsigned flags;
    bool waiting, full_text; /* full_text: EVAL, because the server does not know the script */
    bool unheard; /* the server refused it as a whole: sending it again is no repetition */
    int64_t started_ms, not_before_ms;
    apm_redis_answer *done;
    void *arg;
    const void *owner;
};

typedef struct req_list {
    apm_redis_req *head, *tail;
} req_list;

typedef struct keyset {
    int db;
    char *unacked, *index, *dead, *prefix, *sep;
} keyset;

typedef enum db_state { DB_UNKNOWN, DB_ASKED, DB_GOOD, DB_BAD } db_state;

typedef struct apm_redis {
    apm_link base;
    apm_redis_addr *addrs; /* the alternatives, or the sentinels */
    size_t n_addrs, at;
    bool sentinels;
    const char *master_name;
    apm_redis_addr target; /* where the command connection goes */
    char *target_host;     /* as a sentinel named it */

    uv_prepare_t prepare;
    uv_timer_t tick, retry, gap;
    apm_redis_hook *hooks;
    unsigned handles; /* libuv's and the connections', until all are closed */
    bool closing;

    apm_redis_conn *cmd;   /* NULL between connections */
    apm_redis_conn *conns; /* all that are alive */
    void *asking;          /* redis_sentinel.c */
    unsigned attempt;
    int64_t up_since_ms;
    char last_error[256];
    apium_status last_status;
    int version;
    uint64_t epoch;
    char run_id[48];
    long long conn_id; /* of the last command connection, to be ended on the server */

    apm_redis_req *all;
    req_list waiting, lost;
    int current_db; /* of the command connection, as of the last word written */
    struct {
        int db;
        db_state state;
    } dbs[MAX_DBS];
    unsigned n_dbs;
    const apm_redis_script *scripts[MAX_SCRIPTS]; /* that were sent as a whole to this connection */
    unsigned n_scripts;

    int64_t
        server_ahead_us; /* server's wall clock minus our monotonic one; the least delayed sample */
    int64_t ahead_at_ms;
    bool gaps;

    keyset keysets[MAX_KEYSETS];
    unsigned n_keysets;
    redis_unit *units, **units_tail; /* gathered */
    size_t n_units, units_bytes;
    unsigned calls; /* unanswered */
    int64_t units_not_before_ms;
    char once[48]; /* the key of our tokens, without its number */
    uint64_t call_no;
    apm_buf spent; /* tokens whose answers have come, as words */
    size_t n_spent;

    apm_redis_conn *sub;
    apm_redis_sub *subs; /* by channel */
    int64_t sub_retry_ms;
} apm_redis;

/* redis.c */
void redis_lose(apm_redis *link, apium_status status,
                const char *why); /* the command connection is no use */
void redis_open_conn(apm_redis *link);
void redis_attempt_failed(apm_redis *link, apium_status status, const char *why);
bool redis_handle_closed(apm_redis *link); /* count one down; true when the link itself is gone */

/* redis_request.c */
/* A transaction: each command is opened with its number of words, then they are added. Its answer is that of EXEC. What was lost with the
 * connection is told to redis_call_lost() with `arg`. */
apm_redis_req *redis_begin_atomic(apm_redis *link, int db, apm_redis_answer *done, void *arg);
void redis_open_command(apm_redis_req *req, size_t n_words);
void redis_requests_pump(apm_redis *link);
void redis_requests_tick(apm_redis *link);                                       /* patience */
void redis_requests_fail(apm_redis *link, apium_status status, const char *why); /* all that wait */
void
redis_requests_lost(apm_redis *link); /* the connection is gone: put back what may be repeated */
void redis_requests_clear(apm_redis *link); /* the link closes */
void redis_requests_fresh(apm_redis *link); /* a new connection is up */
/* How long to keep away from `unacked`, 0 when it may be touched. */
int64_t redis_gap_ms(apm_redis *link);
/* Is this error reply one that says "later" (true) and, if so, is the whole connection no use (*lose)? */
bool redis_says_later(const char *text, bool *lose);

/* redis_unit.c */
apm_unit *redis_unit_new(apm_link *link);
void redis_unit_drop(apm_unit *unit);
/* Release it and tell who committed it. */
void redis_unit_answer(redis_unit *unit, apium_status status, const apium_error *err);

/* redis_call.c */
void redis_unit_commit(apm_unit *unit);
void redis_call_lost(apm_redis *link, void *call); /* the answer to its transaction */
void redis_units_pump(apm_redis *link);
void redis_units_tick(apm_redis *link);
void redis_units_clear(apm_redis *link, apium_status status, const char *why);

/* redis_sub.c */
void redis_subs_down(apm_redis *link);
void redis_subs_tick(apm_redis *link);
void redis_subs_clear(apm_redis *link);

/* redis_sentinel.c */
void redis_sentinel_ask(apm_redis *link);
void redis_sentinel_stop(apm_redis *link);

#endif
