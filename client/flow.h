/* flow.h - messages of a workflow: what its expansion asks for becomes calls. */
#ifndef APM_CLIENT_FLOW_H
#define APM_CLIENT_FLOW_H

#include "client/send.h"
#include "client/sig.h"

/* The call that one of an expansion's messages is: its own options before those of the definition. Text in the arena. */
void apm_call_of(apium_app *app, const apm_sig_send *send, apm_arena *arena, apm_call *call);

/* eager.c: may this be run here and now? A task that is not registered is sent to those who know it. */
bool apm_eager_can(apium_app *app, const apm_canvas *tree);
/* Run it all, here and now. out may be NULL. */
apium_status apm_send_eager(apium_app *app, apm_canvas *tree, const apm_options *over,
                            apium_run **out, apium_error *err);

#endif
