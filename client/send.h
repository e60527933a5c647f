/* send.h - one call on its way: options become a request, a request becomes a message. */
#ifndef APM_CLIENT_SEND_H
#define APM_CLIENT_SEND_H

#include <apium/send.h>

#include "client/runs.h"
#include "core/model/request.h"

/* A call with everything decided but where it goes. Text lives in `arena`. */
typedef struct apm_call {
    apm_arena arena;
    const apium_task_def *def; /* NULL: not registered here */
    apium_send_opts opts;
    apm_request req;
    apm_str route_name; /* the task that its route is looked up for; absent: its own */
    bool ignored;
} apm_call;

/* The end of year 9999, the last time that a date can name. */
#define APM_LAST_DATE_US INT64_C(253402300799000000)

void apm_call_init(apm_call *call);
/* What a definition, NULL none, says of how its task is sent. */
apium_send_opts apm_call_defaults(const apium_task_def *def);
/* Limits, priority and retries that a call can have. */
apium_status apm_call_check(const apium_send_opts *opts, apium_error *err);
/* Where it goes, and with which priority; the settings may grow a queue by it. */
apium_status apm_call_route(apium_app *app, apm_call *call, apm_route *route, apium_error *err);
apium_status apm_call_write(apium_app *app, apm_call *call, apm_message *msg, apium_error *err);
/*
 * Decide everything about a call of this task. Takes args over. A call that was made, or was refused, is cleared by
 * its arena.
 */
apium_status apm_call_make(apium_app *app, apm_call *call, const char *task, apium_value args,
                           const apium_send_opts *opts, apium_error *err);
/* Put its message into a unit of the conn's broker; run, NULL none, is told where the answer will come. */
apium_status apm_call_put(apm_conn *conn, apm_call *call, apium_run *run, apm_broker *broker,
                          apm_unit *unit, size_t *bytes, apium_error *err);
/* Is it to be run here and now? */
bool apm_call_is_eager(apium_app *app, const apm_call *call);
/* Say that a task could not be sent, and why. Answers st. */
apium_status
apm_call_refused(apium_error *err, apium_status st, const char *task, const apium_error *why);
/* Send it, or run it eagerly; out may be NULL. */
apium_status apm_call_go(apium_app *app, apm_call *call, apium_run **out, apium_error *err);
/* Run it here and now, and what follows from its outcome. */
apium_status apm_call_eager(apium_app *app, apm_call *call, apium_run **out, apium_error *err);

#endif
