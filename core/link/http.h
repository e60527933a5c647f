/*
 * http.h - a link to a server that keeps documents over HTTP (docs/http-result-protocol.md; CouchDB, Consul, Elasticsearch, S3 in the forms
 * of Celery's backends): libcurl's multi interface on the loop, connections kept alive.
 *
 *   ask ──▶ waiting ──▶ at most 32 with libcurl ──▶ answer
 *              ▲──── back-off, Retry-After ────┘ the server is away
 *
 *   units: gathered ──▶ one POST /units at a time ──▶ done, each        a server with that ability
 *                  ──▶ read, then write, each document ──▶ done         any other
 *
 * What the server can do is asked first; until that is known, units wait.
 */
#ifndef APM_LINK_HTTP_H
#define APM_LINK_HTTP_H

#include "core/link/link.h"

extern const apm_link_ops apm_http_kind;

/* Schemes of servers that Celery has backends for. */
#define APM_HTTP_PRESETS                                                                           \
    "couchdb", "couchdb+http", "couchdb+https", "consul", "consul+http", "consul+https",           \
        "elasticsearch", "elasticsearch+http", "elasticsearch+https", "s3"

enum {
    APM_HTTP_UNITS = 1u << 0, /* POST /units and /watches/<name> */
    APM_HTTP_CHORDS = 1u << 1,
};

/* status 0: there is no answer, err says why. Text lives during the call. */
typedef void apm_http_cb(void *arg, int status, apm_str body, const apium_error *err);

typedef struct apm_http_asked {
    const char *method; /* static */
    const char *path;   /* below the link's, escaped; copied */
    apm_buf *body;      /* taken over; NULL none */
    const char *type;   /* of the body, static; NULL is not said */
    /* Answers that are not the server's trouble, although their status says so; may be NULL. */
    bool (*is_fate)(int status, apm_str body);
    int64_t wait_ms; /* how long the server may take on purpose */
    bool for_ever;   /* whatever the patience of the links */
    void *owner;     /* of apm_http_leave */
    apm_http_cb *done;
    void *arg;
    void (*release)(void *arg); /* instead of done, when the owner leaves; may be NULL */
} apm_http_asked;

/* Ask; sent again while the server is away, as long as the links are patient. The answer comes from inside the call only for E_NOMEM,
 * and E_TOOBIG: the path is longer than any server would take. */
void apm_http_ask(apm_link *link, const apm_http_asked *asked);
/* Forget what was asked for this owner: its callbacks do not come any more. */
void apm_http_leave(apm_link *link, const void *owner);

/* ---- documents under keys, whatever the dialect of the server ---- */

typedef enum apm_http_verb {
    APM_HTTP_PREPARE,
    APM_HTTP_READ,
    APM_HTTP_WRITE,
    APM_HTTP_DELETE,
} apm_http_verb;

/* doc: what was read; absent: there is none. err NULL: it is done. */
typedef void apm_http_done(void *arg, apm_str doc, const apium_error *err);

typedef struct apm_http_task {
    apm_http_verb verb;
    apm_str key;         /* Celery's, without global_keyprefix; copied */
    apm_str doc;         /* to be written, borrowed until done */
    bool unless_success; /* not over a SUCCESS */
    double expires_s;    /* of what is written, where the server can; 0 never */
    bool for_ever;       /* as of a request */
    void *owner;         /* of apm_http_leave */
    apm_http_done *done;
    void *arg;
    void (*release)(void *arg);
} apm_http_task;

/* done comes from inside the call only without memory, or when the document or its id is too big. */
void apm_http_do(apm_link *link, const apm_http_task *task);

/* Who is told when the server's abilities are known, and before the loop sleeps. */
typedef struct apm_http_listener {
    void (*on_known)(void *arg, unsigned abilities);
    void (*on_flush)(void *arg);
    void *arg;
    struct apm_http_listener *next;
} apm_http_listener;
/* on_known comes from inside the call when they are known already. */
void apm_http_listen(apm_link *link, apm_http_listener *listener);
void apm_http_unlisten(apm_link *link, apm_http_listener *listener);

/*
 * Append an operation to a unit: its text for POST /units is `head`, `doc` and "]". Any other server gets doc under `key`, unless a
 * SUCCESS is stored there and `unless_success` says so; key NULL: no other server can do it. `once`: not to be applied twice.
 */
typedef struct apm_http_op {
    apm_str head, doc;
    const char *key;
    bool unless_success, once;
} apm_http_op;
apium_status
apm_http_add(apm_unit *unit, const apm_http_op *op, double expires_s, apium_error *err);

/* Append text as one segment of a path. */
void apm_http_escape(apm_buf *buf, apm_str text);

#endif
