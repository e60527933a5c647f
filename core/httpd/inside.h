/*
 * inside.h - what the files of core/httpd/ share.
 *
 *   httpd.c    the daemon on the loop: opening, turning, closing
 *   conns.c    connections and their patience: what idles, dribbles or does not read is cut
 *   request.c  a request, until it is answered
 *   stream.c   an answer without an end
 */
#ifndef APM_HTTPD_INSIDE_H
#define APM_HTTPD_INSIDE_H

#include "core/httpd/httpd.h"
#include "core/httpd/mhd_lib.h"

typedef enum apm_http_phase {
    APM_HTTP_IDLE,
    APM_HTTP_READING,
    APM_HTTP_WAITING,
    APM_HTTP_ANSWERING,
    APM_HTTP_STREAMING
} apm_http_phase;

typedef struct apm_http_conn {
    int fd;
    apm_http_phase phase;
    int64_t since_ms;
    apm_http_req *req;       /* while APM_HTTP_WAITING */
    apm_http_stream *stream; /* while APM_HTTP_STREAMING */
    struct apm_http_conn *prev, *next;
} apm_http_conn;

struct apm_http_req {
    apm_httpd *httpd;
    struct MHD_Connection *mhd;
    apm_http_conn *conn;
    char *method, *target;
    apm_buf body;
    bool began, given, suspended;
    size_t swallowed;              /* of a body that is too big */
    struct MHD_Response *response; /* the answer */
    int status;
    void (*on_gone)(void *arg);
    void *gone_arg;
};

/* Released with its response, which is when its connection is done with it. */
struct apm_http_stream {
    apm_httpd *httpd;
    struct MHD_Connection *mhd;
    apm_http_conn *conn;
    apm_buf pending;
    size_t sent;        /* of pending */
    int64_t written_ms; /* when something was added to an empty one */
    bool suspended, ended;
    void (*on_gone)(void *arg);
    void *arg;
};

struct apm_httpd {
    apm_httpd_opts opts;
    struct MHD_Daemon *daemon;
    uv_poll_t poll;
    uv_timer_t next, sweep;
    uv_idle_t idle; /* runs the daemon once more before the loop sleeps */
    int handles, port;
    char said[160]; /* by libmicrohttpd, last */
    bool running, closing;
    apm_http_conn *conns;
    size_t n_conns;
};

/* httpd.c: let the daemon turn before the loop sleeps. */
void apm_httpd_run_soon(apm_httpd *httpd);

/* conns.c */
void apm_httpd_phase_set(apm_http_conn *c, apm_http_phase next);
apm_http_conn *apm_httpd_conn_of(struct MHD_Connection *mhd);
void apm_httpd_tell_gone(apm_http_req *req);
void apm_httpd_on_connection(void *arg, struct MHD_Connection *mhd, void **context,
                             enum MHD_ConnectionNotificationCode code);
void apm_httpd_on_sweep(uv_timer_t *timer);

/* request.c: libmicrohttpd's callbacks; and: the request gets its response, NULL without memory. */
void *apm_httpd_on_uri(void *arg, const char *uri, struct MHD_Connection *mhd);
enum MHD_Result
apm_httpd_on_access(void *arg, struct MHD_Connection *mhd, const char *url, const char *method,
                    const char *version, const char *data, size_t *size, void **context);
void apm_httpd_on_completed(void *arg, struct MHD_Connection *mhd, void **context,
                            enum MHD_RequestTerminationCode code);
void apm_httpd_give(apm_http_req *req, struct MHD_Response *response, int status);

/* stream.c */
void apm_httpd_leave_stream(apm_http_stream *stream);

#endif
