/*
 * link.h - a connection to one server (or file) that heals, and units: operations that a store commits together.
 *
 *   adapters (broker, backend)  append operations ──▶  unit  ──commit──▶  link  ──▶ server
 *
 * A link belongs to a loop. A broker and a backend that name the same server share one link, and then what both append
 * to one unit commits together. Losing the connection is the link's business: it reconnects with back-off and jitter,
 * fails over to the next URL, tells its watchers, and sends again, under their fence, the units whose answer was lost.
 * Nothing here blocks the loop: a library that blocks (librabbitmq, SQLite) does so in a thread of its link.
 *
 * Each kind of link (redis.h, sqlite.h, amqp.h, memory.h in this folder) has its own operations; only adapters of that
 * kind call them. Everybody else sees this page.
 */
#ifndef APM_LINK_LINK_H
#define APM_LINK_LINK_H

#include <uv.h>

#include "core/base/error.h"
#include "core/base/url.h"
#include "core/model/settings.h"

typedef struct apm_link apm_link;
typedef struct apm_links apm_links;
typedef struct apm_unit apm_unit;

/* Called exactly once, on the loop, when the fate of a unit is known.
 *   APIUM_OK        applied, all of it, durably as the store understands it
 *   APIUM_E_FENCED  nothing was applied: a delivery that the unit settles is not ours any more
 *   other           nothing was applied (err says why); a unit with several deliveries is never half applied on a
 *                   store that has transactions
 * A unit whose connection was lost is sent again by the link; E_CLOSED comes only after `patience_ms`. */
typedef void apm_unit_done(void *arg, apium_status status, const apium_error *err);

/* The head of every kind's unit. A unit may ask: its i-th arrival at a barrier that completed it sets bit i of *completed, before
 * done is called. Whoever appends arrivals sets `completed` first, to what lives until then. */
struct apm_unit {
    apm_link *link;
    apm_unit_done *done;
    void *arg;
    uint32_t *completed;
    unsigned arrivals; /* appended so far; at most 32 */
};

typedef struct apm_link_ops {
    const char *kind;           /* "redis", for logs */
    const char *const *schemes; /* ended by NULL */
    size_t size;                /* of the kind's link; its first member is an apm_link */
    /* Do these URLs name one server, so that one link serves both? */
    bool (*same)(const apm_link *link, const apm_urls *urls);
    /* Start (connect in the background). The link is in its set already; link->urls is parsed. */
    apium_status (*open)(apm_link *link, apium_error *err);
    /* Give up everything: units still waiting are answered E_CLOSED. Asynchronous handles are closed on the loop; call
     * apm_link_closed() when the last one is. */
    void (*close)(apm_link *link);
    apm_unit *(*unit_new)(apm_link *link); /* NULL without memory */
    void (*unit_drop)(apm_unit *unit);     /* never committed: release */
    void (*commit)(apm_unit *unit);        /* takes the unit over; calls unit->done once */
    /* Send what was gathered now (the loop is about to sleep, or somebody waits). May be NULL. */
    void (*flush)(apm_link *link);
} apm_link_ops;

/* All kinds built in, ended by NULL (kinds.c). */
extern const apm_link_ops *const apm_link_kinds[];

/* Told on every change, on the loop: up true when connected (again), false when lost; why is a line for the log such as
 * "Cannot connect to redis://...: connection refused. Trying again in 2.00 seconds... (1/100)". */
typedef void apm_link_event(void *arg, apm_link *link, bool up, const char *why);

typedef struct apm_link_watch {
    apm_link_event *on_event;
    void *arg;
    struct apm_link_watch *next;
} apm_link_watch;

struct apm_link {
    const apm_link_ops *ops;
    apm_links *set;
    apm_urls urls;
    char shown[256]; /* the URL in use without its password */
    bool up;
    unsigned refs;
    apm_link_watch *watches;
    apm_link *next;
};

/* The links of one loop. Writing to a peer that has gone raises SIGPIPE: callers ignore it, or block it while
 * the loop turns. settings are borrowed for as long as the set lives. patience_ms: how long a unit or request may wait for
 * a connection before it fails with E_CLOSED; -1 for ever (worker), otherwise a client's bound. */
apm_links *apm_links_new(uv_loop_t *loop, apm_settings *settings, int64_t patience_ms);
/* Close every link; the set is released when the last handle is closed (keep the loop running until uv_run has nothing left). */
void apm_links_free(apm_links *set);
uv_loop_t *apm_links_loop(const apm_links *set);
apm_settings *apm_links_settings(const apm_links *set);
int64_t apm_links_patience_ms(const apm_links *set);
/* Flush every link. */
void apm_links_flush(apm_links *set);

/* The link for a URL (or `;` list): an existing one to the same server, or a new one. Give back with apm_link_release. E_CONFIG
 * names the URL without its password; E_UNSUPPORTED a scheme that this build has not. */
apium_status apm_link_get(apm_links *set, const char *url, apm_link **out, apium_error *err);
void apm_link_release(apm_link *link);
void apm_link_watch_add(apm_link *link, apm_link_watch *watch);
void apm_link_watch_remove(apm_link *link, apm_link_watch *watch);

/* For kinds: change `up`, tell the watchers. */
void apm_link_changed(apm_link *link, bool up, const char *why);
/* For kinds: the last handle is closed, the memory may go. */
void apm_link_closed(apm_link *link);

/* A unit on a link. Append with the adapters' functions, then commit it (or drop it). NULL without memory. */
apm_unit *apm_unit_new(apm_link *link);
void apm_unit_drop(apm_unit *unit); /* NULL is fine */
void apm_unit_commit(apm_unit *unit, apm_unit_done *done, void *arg);

/* Milliseconds until attempt n (from 0) of a reconnect: 2, 4, 6 ... 30 s as Celery waits, with +-20% jitter; the first is
 * at once. */
int64_t apm_link_backoff_ms(unsigned attempt);

#endif
