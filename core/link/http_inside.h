/* http_inside.h - what the files of a link over HTTP share; see http.h. */
#ifndef APM_LINK_HTTP_INSIDE_H
#define APM_LINK_HTTP_INSIDE_H

#include "core/link/curl_lib.h"

#include "core/base/buf.h"
#include "core/link/http.h"

#define HTTP_URL_MAX ((size_t)65536)

typedef struct http_ask http_ask;
typedef struct http_unit http_unit;
typedef struct http_dialect http_dialect;

typedef struct http_link {
    apm_link base;
    const http_dialect *dialect;
    char *root; /* URL without credentials, ends in '/' */
    const char *user, *password;
    const char *place;  /* of the documents: a database, an index, the beginning of a path */
    const char *prefix; /* global_keyprefix of the results, where Celery has it */
    char *signs;        /* CURLOPT_AWS_SIGV4 instead of a user and a password; NULL none */
    char *header;       /* one more of each signed request; NULL none */
    CURLM *multi;
    uv_async_t
        async; /* what a timer is due for is done here: answers come where loops wait for them */
    bool timer_due, retry_due;
    uv_timer_t timer; /* libcurl's */
    uv_timer_t retry; /* the end of a back-off, or of somebody's patience */
    int handles;
    bool closing;

    /* asks */
    http_ask *waiting, *last_waiting;
    http_ask *active;
    unsigned n_active;
    bool away; /* nothing is sent before again_ms */
    int64_t again_ms;
    unsigned attempt;
    char why[CURL_ERROR_SIZE]; /* it was away last */
    CURL *spare[8];
    size_t n_spare;

    /* what the server can do */
    bool known, discovering;
    int64_t discover_ms; /* when it is asked again, while that is not known */
    unsigned abilities;
    apm_http_listener *listeners;

    /* units */
    http_unit *first, *last; /* committed, not sent */
    size_t n_units, bytes;
    struct http_batch *batch; /* POST /units under way */
    http_unit *plain;         /* under way at a plain server */
    unsigned n_plain;
    bool sending_plain;
    bool one_by_one; /* a batch was refused as a whole */
} http_link;

struct http_ask {
    http_link *link;
    apm_http_asked asked;
    char *path;
    char *body;
    size_t body_len;
    int64_t until_ms; /* the end of patience; -1 none */
    CURL *easy;
    struct curl_slist *headers;
    apm_buf answer;
    char why[CURL_ERROR_SIZE];
    http_ask *prev, *next;
};

/* http_easy.c: hand it to libcurl; false without memory. */
bool apm_http_start(http_link *link, http_ask *ask);
/* It is done with, whatever came of it. */
void apm_http_spare(http_link *link, http_ask *ask);

/* http_ask.c */
apium_status apm_http_open_multi(http_link *link, apium_error *err);
void apm_http_close_multi(http_link *link);
/* Set the timer that ends a back-off or somebody's patience. */
void apm_http_arm(http_link *link);
/* Write what can be written now. Answers come later, on the loop. */
void apm_http_push(http_link *link);
/* The server cannot be used for a while. */
void apm_http_away(http_link *link, const char *why, int64_t after_ms);
/* A handle of the link is closed. */
void apm_http_handle_closed(http_link *link);

/* http.c: ask what the server can do, if that is not known and under way. */
void apm_http_discover(http_link *link);

/* http_units.c */
apm_unit *apm_http_unit_new(apm_link *link);
void apm_http_unit_drop(apm_unit *unit);
void apm_http_unit_commit(apm_unit *unit);
void apm_http_units_send(http_link *link);
/* Those that wait, all or those whose patience is over, have failed. */
void apm_http_units_fail(http_link *link, bool all, const apium_error *err);
/* When the patience of the first one is over; INT64_MAX never. */
int64_t apm_http_units_until_ms(const http_link *link);

#endif
