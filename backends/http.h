/* http.h - what the files of the result backend for http:// share. */
#ifndef APM_BACKENDS_HTTP_H
#define APM_BACKENDS_HTTP_H

#include "backends/backend.h"
#include "core/link/http.h"

typedef struct apm_http_watched apm_http_watched;
typedef struct apm_http_parts apm_http_parts;

/* A handle of the loop outlives the backend by its closing. */
typedef struct apm_http_ticker apm_http_ticker;

typedef struct apm_http_store {
    apm_backend base;
    apm_http_listener listener;
    bool known;
    unsigned abilities;

    /* http_watch.c */
    apm_http_watched *watched, *turns; /* turns: of looking */
    apm_http_ticker *ticker;
    char session[40];
    unsigned generation; /* of the session: answers to older ones are late */
    bool began;          /* the server has answered this session */
    int64_t seen;
    unsigned polls; /* under way */
    bool removing;  /* one of them takes ids off */
    bool due;       /* there is something to say */
    char **removed; /* ids that are no longer watched, to be said */
    size_t n_removed, cap_removed;

    apm_http_parts *parts; /* under way */
} apm_http_store;

apium_status apm_http_watch_open(apm_http_store *store, apium_error *err);
void apm_http_watch_close(apm_http_store *store);
/* Say what is due; the abilities are known. */
void apm_http_watch_flush(apm_http_store *store);
apium_status apm_http_watch(apm_backend *backend, const char *task_id, apm_change_cb *on_change,
                            void *arg, apium_error *err);
void apm_http_unwatch(apm_backend *backend, const char *task_id);

/* The key of a task's document in buf. */
void apm_http_task_key(apm_buf *buf, apm_str task_id);

#endif
