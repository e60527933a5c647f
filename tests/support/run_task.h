/*
 * run_task.h - run one handler as a pool process would, without a pool: a definition, arguments as JSON, an outcome.
 *     run_task(&(apium_task_def){ .name = "tasks.add", .run = add }, "[2, 3]", "{}");
 *     ck_assert_str_eq(text(outcome.result), "5");
 */
#ifndef APM_TESTS_RUN_TASK_H
#define APM_TESTS_RUN_TASK_H

#include <stdio.h>

#include "client/except.h"
#include "client/run.h"
#include "core/base/clock.h"
#include "tests/support/suite.h"

/* Of the last run; the request may be prepared before, and lives on for the next. */
static apm_arena run_arena;
static apm_outcome outcome;
static apm_request request = {
    .id = { "id-1", 4 },
    .group_index = -1,
    .priority = APM_PRIORITY_NONE,
    .eta_us = APM_TIME_NONE,
    .expires_us = APM_TIME_NONE,
    .ignore_result = APM_UNSET,
    .protocol = 2,
};
static apm_run_env run_env = { .hostname = "w1@here" };

static inline void
run_task(const apium_task_def *def, const char *args, const char *kwargs)
{
    request.task = apm_strz(def->name);
    request.args = apm_strz(args);
    request.kwargs = apm_strz(kwargs);
    apm_arena_clear(&run_arena);
    apm_run(&run_env, def, &request, &run_arena, &outcome);
}

/* A slice as a C string, one of the last few. */
static inline const char *
text(apm_str s)
{
    static char texts[4][8192];
    static int next;
    char *out = texts[next++ % 4];
    snprintf(out, sizeof(texts[0]), "%.*s", s.p ? (int)s.len : 6, s.p ? s.p : "absent");
    return out;
}

/* The exception of the last run as Python would show it: "TypeError: ...". */
static inline const char *
raised(void)
{
    apm_buf buf;
    static char out[8192];
    apm_buf_init(&buf, sizeof(out));
    if (apm_str_is(outcome.exc.type))
        apm_exception_line(&buf, &outcome.exc);
    snprintf(out, sizeof(out), "%s", buf.len ? buf.p : "none");
    apm_buf_clear(&buf);
    return out;
}

#endif
