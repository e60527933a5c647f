/*
 * ask.h - asking a broker from a command: a loop of our own that turns until the answer is there or time is up.
 */
#ifndef APM_CLI_ASK_H
#define APM_CLI_ASK_H

#include "brokers/broker.h"
#include "cli/cli.h"

typedef struct apm_ask {
    uv_loop_t loop;
    uv_timer_t timer;
    apm_links *links;
    apm_broker *broker;
    int64_t patience_ms;
    bool answered, late;
} apm_ask;

/* Open the app's broker. Close with apm_ask_close, also after a failure. */
apium_status apm_ask_open(apm_ask *ask, apium_app *app, apium_error *err);
/* Turn the loop until apm_ask_answered(); E_TIMEOUT when nothing comes. May be used again for the next question. */
apium_status apm_ask_wait(apm_ask *ask, const char *what, apium_error *err);
void apm_ask_answered(apm_ask *ask);
void apm_ask_close(apm_ask *ask);

/* The names in a comma separated list, or (text NULL) those of the app's queues; without those of `exclude`. In the arena;
 * ended by NULL. NULL without memory. */
const char **
apm_ask_queues(apium_app *app, const char *text, const char *exclude, apm_arena *arena, size_t *n);

#endif
