/*
 * redis_side.h - what the tests of Redis share: a server and a proxy for each test, and asking the server directly, past
 * everything of ours.
 */
#ifndef APM_TESTS_REDIS_SIDE_H
#define APM_TESTS_REDIS_SIDE_H

#include <hiredis/hiredis.h>

#include "adapters.h"
#include "brokers/redis.h"
#include "proxy.h"
#include "server.h"
#include "side.h"

extern server redis;
extern proxy *net; /* in front of the server */

/* For each test: a server; side_url leads to it directly. */
void redis_setup(void);
void redis_teardown(void);
/* The same with these arguments of the server. */
void redis_setup_with(const char *const *more);
/* From now on side_url leads through the proxy. */
void redis_through_proxy(void);
/* Skip or fail as a whole when there is no server; otherwise 0. Call it from main(). */
int redis_installed(void);

/* Ask the server. An integer, or the length of an array or text; -1 for nil. Fails the test on an error reply. */
long long ask(const char *fmt, ...);
/* The text of the answer, for free(). NULL for nil. */
char *ask_text(const char *fmt, ...);

/* Open a side through a URL of this test's own. */
side *side_at(const char *url, bool broker, bool backend);
/* A result of a task stored and acknowledged or published: append it to a unit. */
void record(side *s, apm_unit *unit, const char *id, const char *state, const char *doc);

#endif
