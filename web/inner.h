/*
 * inner.h - what the files of web/ share: the server, one call of a client, and how it is answered.
 *
 *   httpd ──▶ route.c: who asks (access.c), for what ──▶ keys.c, units.c, watch.c ... ──▶ backend ──▶ apm_web_answer
 */
#ifndef APM_WEB_INNER_H
#define APM_WEB_INNER_H

#include "backends/backend.h"
#include "brokers/broker.h"
#include "core/base/arena.h"
#include "core/base/json.h"
#include "core/httpd/httpd.h"
#include "core/model/result.h"
#include "web/web.h"

enum {
    APM_WEB_ID_MAX = 512,     /* bytes of an id */
    APM_WEB_WAIT_MAX_S = 60,  /* one long poll */
    APM_WEB_WAITS_MAX = 8192, /* long polls at once */
    APM_WEB_ARGS = 2,         /* parts of a path that stand for something */
};

typedef enum apm_role { APM_ROLE_NOBODY, APM_ROLE_READER, APM_ROLE_OPERATOR } apm_role;

typedef struct apm_access apm_access;
typedef struct apm_hub apm_hub;
typedef struct apm_sessions apm_sessions;
typedef struct apm_units_store apm_units_store;

typedef struct apm_web {
    apium_app *app;
    apm_settings *settings;
    const apm_web_opts *opts;
    uv_loop_t loop;
    uv_signal_t term, intr;
    uv_prepare_t prepare;
    uv_timer_t stop_timer;
    apm_link_watch watch;
    apm_links *links;
    apm_backend *backend;
    apm_httpd *httpd;
    apm_access *access;
    apm_hub *hub;
    apm_sessions *sessions;
    apm_units_store *units;
    apm_settings
        store_settings; /* of `links`: a copy, in which result_expires is that of the unit under way */
    apm_broker *broker;    /* opened when somebody asks for queues */
    struct asking *asking; /* what it has not answered */
    size_t n_asking;
    size_t listing;          /* lists being made */
    size_t sending;          /* in other threads */
    uint64_t answered[4][6]; /* by method and status / 100 */
    int64_t since_ms;
    size_t calls;  /* not answered yet */
    size_t waits;  /* of them those that wait for something to happen */
    bool stopping; /* read by other threads too */
} apm_web;

/* One request, until it is answered. */
typedef struct apm_web_call {
    apm_web *web;
    apm_http_req *req;
    apm_arena arena;
    apm_str args[APM_WEB_ARGS]; /* read from the path, without escapes; valid UTF-8 without NUL */
    apm_str query;              /* raw */
} apm_web_call;

typedef void apm_web_fn(apm_web_call *call);

/* A path is made of literal segments; ":" stands for one argument, which may follow a prefix ("/celery-task-meta-:"). */
typedef struct apm_route_row {
    const char *method, *path;
    apm_role role;
    apm_web_fn *run;
} apm_route_row;

/* route.c: find the row for a request and run it. */
void apm_web_on_request(void *arg, apm_http_req *req);

/* call.c: answering. Each ends the call. `body` is taken over, NULL none; `etag` NULL none. */
void apm_web_answer(apm_web_call *call, int status, apm_buf *body);
void apm_web_document(apm_web_call *call, apm_str doc, const char *etag);
void apm_web_reply(apm_web_call *call, const apm_http_reply *reply);
/* Begin an answer without an end; NULL without memory: the call is still to be answered. */
apm_http_stream *
apm_web_stream(apm_web_call *call, const char *type, void (*on_gone)(void *arg), void *arg);
/* The one form of an error. */
void apm_web_error(apm_web_call *call, int status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* What a store or broker could not do, as a status of HTTP; and as the answer. */
int apm_web_status(const apium_error *err);
void apm_web_fail(apm_web_call *call, const apium_error *err);
/* The value of a query parameter, unescaped in the arena; false: it is absent, or no text that an id could be. */
bool apm_web_param(apm_web_call *call, const char *name, apm_str *out);
/* How long to wait by a query parameter in seconds: milliseconds, 0 without it; -1: it makes no sense, and the call is answered. */
int64_t apm_web_wait_ms(apm_web_call *call, const char *name);
/* The body as JSON; false: it is none, and the call is answered. */
bool apm_web_json(apm_web_call *call, apm_json_type type, apm_json *out);
/* Decode %XX; false when that leaves a NUL, or no UTF-8, or is too long. */
bool apm_web_unescape(apm_str text, apm_arena *arena, apm_str *out);
/* Is that fit to be an id? */
bool apm_web_id_ok(apm_str id);

#define APM_ETAG_MAX 24
void apm_etag(apm_str doc, char out[APM_ETAG_MAX]);
/* Does If-None-Match name it? */
bool apm_web_has(const apm_web_call *call, const char *etag);

/* access.c: who may do what. */
apium_status apm_access_load(const char *path, apm_access **out, apium_error *err);
void apm_access_free(apm_access *access);
/* access NULL: everybody may do everything. */
apm_role apm_access_role(const apm_access *access, const char *authorization);

/* hub.c: many may listen to the changes of one task. */
typedef struct apm_listener {
    void (*on_change)(void *arg, apm_str id, apm_str doc);
    void *arg;
    struct apm_topic *topic; /* NULL: not listening */
    struct apm_listener *next;
    struct apm_hub_ask *ask; /* for the present state */
    uint64_t last;           /* hash of the document that it was given last; 0 none */
} apm_listener;
apium_status apm_hub_open(apm_web *web, apium_error *err);
void apm_hub_close(apm_web *web);
/* It is told the present document, if there is one, and every later one; never from inside the call. */
apium_status apm_hub_listen(apm_web *web, apm_str id, apm_listener *listener, apium_error *err);
void apm_hub_leave(apm_web *web, apm_listener *listener);

/* wait.c: answer with the first document of the task args[0] that is wanted; after wait_ms with the present one, or none. */
void apm_web_wait(apm_web_call *call, int64_t wait_ms,
                  bool (*wanted)(const apm_web_call *call, apm_str doc),
                  void (*answer)(apm_web_call *call, apm_str doc));

/* units.c: operations that are applied together, once; see docs/http-result-protocol.md. */
apium_status apm_units_open(apm_web *web, apium_error *err);
void apm_units_close(apm_web *web);
apm_web_fn apm_units_post;
/* One operation as a unit of its own, answered by an HTTP status. `op` is its JSON; token absent: none. */
void apm_units_one(apm_web_call *call, apm_str token, apm_buf *op);

/* watch.c: sessions of those who watch many tasks. */
apium_status apm_sessions_open(apm_web *web, apium_error *err);
void apm_sessions_close(apm_web *web);
apm_web_fn apm_watch_post;

/* keys.c: documents under Celery's keys. */
apm_web_fn apm_key_discover, apm_task_key_get, apm_task_key_put, apm_task_key_delete,
    apm_group_key_get, apm_group_key_put, apm_group_key_delete, apm_keys_post;
/* task.c: what a task looks like to those who ask by REST. doc absent: nothing is known of it. */
void apm_task_write(apm_buf *buf, apm_str id, apm_str doc);
/* Is that a document of a final state? As apm_web_wait asks. */
bool apm_task_ready(const apm_web_call *call, apm_str doc);
apm_web_fn apm_task_get, apm_tasks_post_states, apm_task_delete, apm_task_tree_get, apm_group_get;
/* send.c: sending happens in threads of libuv's pool, for the client blocks. */
apm_web_fn apm_tasks_post, apm_flower_apply, apm_flower_async_apply, apm_task_revoke,
    apm_flower_revoke, apm_flower_send_task;
/* queues.c: ask the broker for the queues of "?names=", or of the settings. `done` has to answer the call; err, when it cannot tell,
 * or has not within patience_ms. often: this is asked again and again, so nothing that is dear is asked for. */
typedef void apm_web_queues_fn(apm_web_call *call, const apm_queue_info *infos, size_t n,
                               const apium_error *err);
void
apm_web_ask_queues(apm_web_call *call, bool often, int64_t patience_ms, apm_web_queues_fn *done);
/* The broker is closed: it answers nothing any more. */
void apm_web_forget_queues(apm_web *web);
apm_web_fn apm_queues_get, apm_flower_queue_lengths;
/* flower.c: paths and answers of Flower's API. */
apm_web_fn apm_flower_info, apm_flower_result, apm_flower_abort, apm_flower_tasks, apm_flower_types,
    apm_flower_later, apm_flower_healthcheck;
/* events.c, metrics.c, openapi.c */
apm_web_fn apm_metrics_get, apm_events_get, apm_openapi_get, apm_health_get;
void apm_web_count(apm_web *web, const char *method, int status);

/* chords.c: the parts of a header. */
apm_web_fn apm_chord_size_put, apm_chord_part_put, apm_chord_parts_get, apm_chord_parts_delete,
    apm_chord_claim_put;
/* Answer an arrival by the number of distinct parts. */
void apm_chord_answer_arrival(apm_web_call *call, bool complete);
/* claims.c: is there a header, or E_NOTFOUND; may this claimant publish its body, or E_NOTFOUND; it is nobody's. done may come from inside the call without
 * memory only. */
void
apm_header_look(apm_web *web, const char *group,
                void (*done)(void *arg, apium_status status, const apium_error *err), void *arg);
void apm_header_release(apm_web *web, const char *group);
void
apm_header_claim(apm_web *web, const char *group, apm_str claimant, double expires_s,
                 void (*done)(void *arg, apium_status status, const apium_error *err), void *arg);

#endif
