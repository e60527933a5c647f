/*
 * http.h - a link to a server that keeps documents over HTTP (docs/http-result-protocol.md): libcurl's multi interface on the loop,
 * connections kept alive.
 *
 *   ask ──▶ waiting ──▶ at most 32 with libcurl ──▶ answer
 *              ▲──── back-off, Retry-After ────┘ the server is away
 *
 *   units: gathered ──▶ one POST /units at a time ──▶ done, each        a server with that ability
 *                  ──▶ GET, then PUT, for each document ──▶ done        any other
 *
 * What the server can do is asked first; until that is known, units wait.
 */
#ifndef APM_LINK_HTTP_H
#define APM_LINK_HTTP_H

#include "core/link/link.h"

extern const apm_link_ops apm_http_kind;

enum {
    APM_HTTP_UNITS = 1u << 0, /* POST /units and /watches/<name> */
    APM_HTTP_CHORDS = 1u << 1,
};

/* status 0: there is no answer, err says why. Text lives during the call. */
typedef void apm_http_cb(void *arg, int status, apm_str body, const apium_error *err);

typedef struct apm_http_asked {
    const char *method; /* static */
    const char *path;   /* below the link's, escaped; copied */
    apm_buf *body;      /* JSON, taken over; NULL none */
    int64_t wait_ms;    /* how long the server may take on purpose */
    bool for_ever;      /* whatever the patience of the links */
    void *owner;        /* of apm_http_leave */
    apm_http_cb *done;
    void *arg;
    void (*release)(void *arg); /* instead of done, when the owner leaves; may be NULL */
} apm_http_asked;

/* Ask; sent again while the server is away, as long as the links are patient. The answer never comes from inside the call, except for
 * E_NOMEM. */
void apm_http_ask(apm_link *link, const apm_http_asked *asked);
/* Forget what was asked for this owner: its callbacks do not come any more. */
void apm_http_leave(apm_link *link, const void *owner);

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
 * Append an operation to a unit: its text for POST /units is `head`, `doc` and "]". A plain server gets doc at `path`, unless a
 * SUCCESS is stored there and `unless_success` says so; path NULL: a plain server cannot do it. `once`: not to be applied twice.
 */
typedef struct apm_http_op {
    apm_str head, doc;
    const char *path;
    bool unless_success, once;
} apm_http_op;
apium_status
apm_http_add(apm_unit *unit, const apm_http_op *op, double expires_s, apium_error *err);

/* Append text as one segment of a path. */
void apm_http_escape(apm_buf *buf, apm_str text);

#endif
