/*
 * backend.h - what a result store supplies: documents under task ids, and being told of their changes. It never
 * publishes tasks. Calls are made on the loop of its link and do not block; answers come as callbacks on the
 * loop, never from inside the call.
 */
#ifndef APM_BACKENDS_BACKEND_H
#define APM_BACKENDS_BACKEND_H

#include "core/link/link.h"
#include "core/model/result.h"

typedef struct apm_backend apm_backend;

enum {
    APM_BACKEND_BARRIER =
        1u << 0, /* can count a chord's header atomically (the workflows' business) */
    APM_BACKEND_REPLY =
        1u
        << 1, /* results are messages to the caller's reply queue: only the caller can read them */
    APM_BACKEND_NONE = 1u << 2,  /* disabled:// keeps nothing */
    APM_BACKEND_LOCAL = 1u << 3, /* lives in this process alone (memory://) */
    /* The server has not said yet what it can do: other features may come until this one goes, which is before its link is up */
    APM_BACKEND_UNKNOWN = 1u << 4,
};

/* One state of one task, to be stored. */
typedef struct apm_record {
    apm_str task_id;
    apm_str state;
    apm_str doc;                      /* the whole document, JSON text */
    apm_str reply_to, correlation_id; /* of the request, for APM_BACKEND_REPLY */
} apm_record;

/* The return of one part of a chord's header. */
typedef struct apm_part {
    apm_str group_id, task_id;
    int64_t index;  /* its place in the header; -1 unknown: after all others */
    apm_str member; /* JSON: [1, "<task_id>", "<STATE>", <result or exception>] */
} apm_part;

/*
 * Some of the parts of a complete header, in its order (without one: as they returned), each id once. `more`: another call follows.
 * All of it lives during the call.
 */
typedef struct apm_parts {
    const apm_str *members;
    size_t n;
    apm_str
        tree; /* with the first call: the stored tree of the group's results; absent: they are a plain list */
    bool more;
} apm_parts;

enum { APM_PARTS_MAX = 256, APM_PARTS_BYTES = 1 << 20 }; /* in one call, about */

/* parts NULL: that was all, err says why; E_NOTFOUND: somebody has taken the header, perhaps meanwhile. */
typedef void apm_parts_cb(void *arg, const apm_parts *parts, const apium_error *err);
/* doc is absent when nothing is stored (the task is PENDING) or on an error (err then set); it lives during the call. */
typedef void apm_fetch_cb(void *arg, apm_str doc, const apium_error *err);
/* Every document stored for a watched id from the moment of watching on, and the present one first if there is one. */
typedef void apm_change_cb(void *arg, apm_str task_id, apm_str doc);
/* Ids of tasks that have a result; `more`: there are others too. */
typedef void apm_ids_cb(void *arg, const apm_str *ids, size_t n, bool more, const apium_error *err);
typedef void apm_backend_done(void *arg, apium_status status, const apium_error *err);

typedef struct apm_backend_ops {
    const char *name;
    const char *const *schemes;
    size_t size;       /* of the adapter's backend, whose first member is an apm_backend */
    uint32_t features; /* that each of its backends begins with */

    apium_status (*open)(apm_backend *backend, apium_error *err);
    void (*close)(apm_backend *backend);
    /* Append to a unit of the backend's link: store the document and notify, unless a SUCCESS is stored already
     * (that is no failure). Expires after result_expires. */
    apium_status (*record)(apm_backend *backend, apm_unit *unit, const apm_record *record,
                           apium_error *err);
    /*
     * Chords; all NULL without APM_BACKEND_BARRIER. expect: so many parts will return (written anew when repeated). extend: so
     * many more, whichever of the two comes first. arrive: one has, which counts its id once; the unit's *completed says whether all
     * have, and says so again to a part that returns again before the header is taken. claim: the header is taken for its body and
     * forgotten; refused with E_NOTFOUND, and with it the whole unit, when somebody else did. What nobody takes expires like results.
     * reserve, before the body is published over another link: from now on the header is this claimant's, who may say so again, and is
     * refused to others with E_NOTFOUND; a unit of its own; NULL where the store has no such thing.
     */
    apium_status (*expect)(apm_backend *backend, apm_unit *unit, apm_str group_id, int64_t size,
                           apium_error *err);
    apium_status (*extend)(apm_backend *backend, apm_unit *unit, apm_str group_id, int64_t by,
                           apium_error *err);
    apium_status (*arrive)(apm_backend *backend, apm_unit *unit, const apm_part *part,
                           apium_error *err);
    apium_status (*reserve)(apm_backend *backend, apm_unit *unit, apm_str group_id,
                            apm_str claimant, apium_error *err);
    apium_status (*claim)(apm_backend *backend, apm_unit *unit, apm_str group_id, apium_error *err);
    void (*parts)(apm_backend *backend, const char *group_id, apm_parts_cb *done, void *arg);
    /* The tree of a group's results under its id, as GroupResult.save(), restore() and forget() use it: {"result": tuple}. NULL where
     * nothing is kept. */
    apium_status (*save_group)(apm_backend *backend, apm_unit *unit, apm_str group_id, apm_str doc,
                               apium_error *err);
    void (*fetch_group)(apm_backend *backend, const char *group_id, apm_fetch_cb *done, void *arg);
    void (*forget_group)(apm_backend *backend, const char *group_id, apm_backend_done *done,
                         void *arg);

    void (*fetch)(apm_backend *backend, const char *task_id, apm_fetch_cb *done, void *arg);
    /* At most `max` tasks that have a result: the newest first where the store knows, otherwise any, and perhaps one twice. NULL: it
     * cannot tell. */
    void (*list)(apm_backend *backend, size_t max, apm_ids_cb *done, void *arg);
    /* Survives reconnection (what was missed meanwhile is fetched). One watcher per id and backend. */
    apium_status (*watch)(apm_backend *backend, const char *task_id, apm_change_cb *on_change,
                          void *arg, apium_error *err);
    /* The same for a task that is sent next: nothing can be stored, so nothing is looked for. But what is stored before the server has
     * heard of the watching is not told: whoever has waited in vain for a moment looks. NULL where watching costs more than next to
     * nothing. */
    apium_status (*watch_sent)(apm_backend *backend, const char *task_id, apm_change_cb *on_change,
                               void *arg, apium_error *err);
    void (*unwatch)(apm_backend *backend, const char *task_id);
    void (*forget)(apm_backend *backend, const char *task_id, apm_backend_done *done, void *arg);
    /* Delete what has expired, where the store does not do it by itself; NULL where it does. */
    void (*cleanup)(apm_backend *backend, apm_backend_done *done, void *arg);
    /* With APM_BACKEND_REPLY: the reply_to that this process's messages carry. NULL otherwise. */
    const char *(*reply_to)(apm_backend *backend);
} apm_backend_ops;

struct apm_backend {
    const apm_backend_ops *ops;
    apm_link *link; /* NULL for disabled:// */
    apm_settings *settings;
    uint32_t features;
    const char *
        url; /* as it was opened, lives during open() only: the link may have been made for another path on its server */
};

/* All adapters built in, ended by NULL (backends.c). */
extern const apm_backend_ops *const apm_backends[];

/* url NULL or "" is disabled://; "rpc" and "rpc://" are over broker_url's server, as in Celery. */
apium_status apm_backend_open(apm_links *set, const char *url, const char *broker_url,
                              apm_backend **out, apium_error *err);
void apm_backend_close(apm_backend *backend); /* NULL is fine */

static inline bool
apm_backend_can(const apm_backend *backend, uint32_t feature)
{
    return (backend->features & feature) == feature;
}

#endif
