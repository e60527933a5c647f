/*
 * http_dialect.h - how kinds of servers keep documents: what is asked to read, write and delete one, and what the answers mean. One is
 * plain, the others are those of Celery's own backends that speak HTTP. Text in, text out: asking is http_job.c's business.
 *
 *   read ──▶ found ──▶ write ──▶ wrote ──▶ done          a write that must not overwrite a SUCCESS
 *     ▲                  ▲─ more ──┤
 *     └──────── again ─────────────┘                     somebody else was faster
 *
 * Every write may be sent again: a document is the whole of its state.
 */
#ifndef APM_LINK_HTTP_DIALECT_H
#define APM_LINK_HTTP_DIALECT_H

#include "core/link/http_inside.h"

typedef enum http_turn {
    HTTP_DONE,   /* found: there is a document */
    HTTP_ABSENT, /* found: there is none */
    HTTP_MORE,   /* the next request of the same */
    HTTP_AGAIN,  /* read, and begin anew */
    HTTP_FAILED, /* err says why */
} http_turn;

typedef struct http_request {
    const char *method, *type; /* type of the body; NULL none is said */
    apm_buf path, body;
} http_request;

typedef struct http_answer {
    int status;
    apm_str body;
} http_answer;

#define HTTP_VERSION_MAX 128

/* One document and what is to become of it. */
typedef struct http_job {
    apm_http_verb verb;
    apm_str key, doc;
    bool unless_success;
    double expires_s; /* 0 never */

    unsigned step; /* of the present writing or deleting */
    bool there;    /* there was a document when it was last read */
    /* What a dialect knows of the one that it read, and of its own lock. */
    char version[HTTP_VERSION_MAX], holder[HTTP_VERSION_MAX];
    bool barred;
    apm_arena arena;
} http_job;

struct http_dialect {
    const char *scheme;
    int port;
    const char *place;     /* when the URL has no path */
    bool asks_abilities;   /* the server may be one of ours */
    bool erases_a_version; /* and has to read it before */
    bool ready_stays;      /* neither does STARTED or RETRY overwrite a FAILURE */

    /* Fill link->root and link->place. */
    apium_status (*open)(http_link *link, const apm_url *url, apium_error *err);
    /* What has to be there before all documents; NULL: a first reading shows whether the server is. */
    void (*prepare)(const http_link *link, const http_job *job, http_request *req);
    http_turn (*prepared)(const http_link *link, http_job *job, http_answer answer,
                          apium_error *err);
    void (*read)(const http_link *link, const http_job *job, http_request *req);
    http_turn (*found)(const http_link *link, http_job *job, http_answer answer, apm_str *doc,
                       apium_error *err);
    void (*write)(const http_link *link, const http_job *job, http_request *req);
    http_turn (*wrote)(const http_link *link, http_job *job, http_answer answer, apium_error *err);
    void (*erase)(const http_link *link, const http_job *job, http_request *req);
    http_turn (*erased)(const http_link *link, http_job *job, http_answer answer, apium_error *err);
    /* An answer that looks like trouble of the server and is about the request; may be NULL. */
    bool (*is_fate)(int status, apm_str body);
};

extern const http_dialect apm_http_plain, apm_http_couchdb, apm_http_consul, apm_http_elasticsearch,
    apm_http_s3;

/* HTTP_FAILED: the server answers what it should not, with its own words. */
http_turn
apm_http_refused(const http_link *link, const http_job *job, http_answer answer, apium_error *err);
/* HTTP_FAILED: an answer that makes no sense. */
http_turn apm_http_nonsense(const http_link *link, const http_job *job, apium_error *err);
/* Are these all? HTTP_DONE; otherwise refused. */
http_turn apm_http_expect(const http_link *link, const http_job *job, http_answer answer,
                          apium_error *err, const int *statuses);
/* The server's own words about an error, one line; "" none. */
void apm_http_why(apm_str body, char *out, size_t size);

/* "http://host:port/", then a path of `path`'s segments, as a root. */
apium_status apm_http_root(http_link *link, bool tls, const char *host, int port, const char *path,
                           apium_error *err);
/* Text as several segments of a path: slashes stay. */
void apm_http_escape_path(apm_buf *buf, apm_str text);
/* The whole name of a document: with global_keyprefix. */
void apm_http_name(const http_link *link, const http_job *job, apm_buf *buf);
/* The same, escaped as one segment. */
void apm_http_add_name(const http_link *link, const http_job *job, apm_buf *path);

#endif
