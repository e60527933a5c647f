/* send.h - one call on its way: options become a request, a request becomes a message. */
#ifndef APM_CLIENT_SEND_H
#define APM_CLIENT_SEND_H

#include <apium/send.h>

#include "client/conn.h"
#include "core/model/request.h"

/* A run of a task; made by send.c, eager.c and apium_run_of(). */
struct apium_run {
    apium_app *app;
    char *id;
    apm_conn *watching; /* watches for it since it was sent; NULL: when somebody waits */
    apm_waiter waiter;
    bool ignored; /* nothing will ever be stored */
    bool eager;   /* it has run here already; waiter.doc is its outcome */
};

apium_status apm_run_new(apium_app *app, apm_str id, apium_run **out, apium_error *err);

/* A call with everything decided but where it goes. Text lives in `arena`. */
typedef struct apm_call {
    apm_arena arena;
    const apium_task_def *def; /* NULL: not registered here */
    apium_send_opts opts;
    apm_request req;
    bool ignored;
} apm_call;

void apm_call_init(apm_call *call);
/* Send it, or run it eagerly; out may be NULL. */
apium_status apm_call_go(apium_app *app, apm_call *call, apium_run **out, apium_error *err);
/* Run it here and now, and what follows from its outcome. */
apium_status apm_call_eager(apium_app *app, apm_call *call, apium_run **out, apium_error *err);

#endif
