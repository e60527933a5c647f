/*
 * web.h - `apium web`: keeps results for workers behind HTTP (docs/http-result-protocol.md), and answers questions about tasks.
 * Started by the command; runs until TERM or INT.
 */
#ifndef APM_WEB_WEB_H
#define APM_WEB_WEB_H

#include "client/app.h"

typedef struct apm_web_opts {
    const char *addr;              /* NULL: 127.0.0.1 */
    int port;                      /* 0: any free one */
    const char *access;            /* file of who may do what; NULL: everybody on this machine */
    const char *certificate, *key; /* files in PEM; NULL: no TLS */
    const char *cors;              /* the origin that pages may ask from, "*" any; NULL none */
    size_t max_body_bytes;
    unsigned max_connections;
    /* Told where it listens, once it does; may be NULL. */
    void (*on_ready)(void *arg, const char *addr, int port);
    void *arg;
} apm_web_opts;

/* Run until stopped. */
apium_status apm_web_run(apium_app *app, const apm_web_opts *opts, apium_error *err);

#endif
