/* retry.c - trying again later: when, how often, and what a task that has used its retries up ends
 * with. */
#include "client/task.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "client/except.h"
#include "core/base/clock.h"
#include "core/base/ids.h"

#define DEFAULT_MAX_RETRIES 3
#define DEFAULT_DELAY_S     180.0
#define DEFAULT_BACKOFF_S   1.0
#define DEFAULT_BACKOFF_MAX 600.0
#define LAST_DATE_US                                                                               \
    INT64_C(253402300799000000) /* the end of year 9999, the last that a date can name */

/* The number in a definition (0 the default) as a count; APIUM_UNLIMITED stays. */
static int
max_retries(int given)
{
    return given == 0 ? DEFAULT_MAX_RETRIES : given == APIUM_NO_RETRIES ? 0 : given;
}

int
apium_task_max_retries(const apium_task *task)
{
    return max_retries(task->def->max_retries);
}

static double
default_delay(const apium_task_def *def)
{
    return def->default_retry_delay > 0 ? def->default_retry_delay : DEFAULT_DELAY_S;
}

/* The n-th delay, n from 0: factor * 2^n up to the ceiling; with full jitter any delay up to that.
 * Like Celery's, a jittered delay is a whole number of seconds unless the factor is none. */
static double
backoff(const apium_task_def *def, int64_t n)
{
    double factor = def->retry_backoff_factor > 0 ? def->retry_backoff_factor : DEFAULT_BACKOFF_S;
    double ceiling = def->retry_backoff_max > 0 ? def->retry_backoff_max : DEFAULT_BACKOFF_MAX;
    double delay = n < 0 ? factor : ldexp(factor, n > 1000 ? 1000 : (int)n);
    if (delay > ceiling)
        delay = ceiling;
    if (def->retry_jitter == APIUM_OFF)
        return delay;
    if (factor == floor(factor))
        return floor(apm_random_unit() * (floor(delay) + 1));
    return apm_random_unit() * delay;
}

static int64_t
eta_after(double seconds)
{
    int64_t now = apm_clock_wall_us();
    double eta = (double)now + (seconds > 0 ? seconds * 1e6 : 0);
    return eta >= (double)LAST_DATE_US ? LAST_DATE_US
           : seconds > 0               ? now + (int64_t)(seconds * 1e6)
                                       : now;
}

static int64_t
eta_of(const apium_task *task, double countdown)
{
    if (countdown == APIUM_BACKOFF)
        return eta_after(backoff(task->def, task->req->retries));
    if (countdown == APIUM_DEFAULT_DELAY)
        return eta_after(default_delay(task->def));
    return eta_after(countdown);
}

static bool
has_cause(const apium_task *task)
{
    return task->out->kind == APM_DONE_FAILURE && apm_str_is(task->out->exc.type);
}

/* In Celery's words; args and kwargs are those of the next attempt. */
static apium_verdict
max_retries_exceeded(apium_task *task, const apm_site *site, apm_str args, apm_str kwargs)
{
    apm_buf shown_args, shown_kwargs;
    apm_buf_init(&shown_args, 64 << 10);
    apm_buf_init(&shown_kwargs, 64 << 10);
    apm_json_repr(&shown_args, (apm_json){ APM_JSON_ARRAY, args }, true, 8192);
    apm_json_repr(&shown_kwargs, (apm_json){ APM_JSON_OBJECT, kwargs }, false, 8192);
    apium_verdict verdict = apm_task_raisef(
        task, site, "celery.exceptions.MaxRetriesExceededError",
        "Can't retry %s[%.*s] args:%.*s kwargs:%.*s", task->def->name, APM_STR_ARG(task->req->id),
        APM_STR_ARG(apm_buf_str(&shown_args)), APM_STR_ARG(apm_buf_str(&shown_kwargs)));
    apm_buf_clear(&shown_args);
    apm_buf_clear(&shown_kwargs);
    return verdict;
}

/* What a retry changes; absent text leaves it as it was. */
typedef struct changes {
    apm_str args, kwargs, request;
} changes;

static apium_verdict
decide(apium_task *task, const apm_site *site, int64_t eta_us, int max, const changes *with)
{
    int64_t retries = task->req->retries < 0 ? 1 : task->req->retries + 1;
    apm_outcome *out = task->out;

    if (task->finished)
        return APIUM_RETRY;
    if (max != APIUM_UNLIMITED && retries > max) {
        if (has_cause(task))
            return APIUM_FAILURE;
        apm_str args = apm_str_is(task->req->args) ? task->req->args : APM_STR("[]");
        apm_str kwargs = apm_str_is(task->req->kwargs) ? task->req->kwargs : APM_STR("{}");
        return max_retries_exceeded(task, site, with && apm_str_is(with->args) ? with->args : args,
                                    with && apm_str_is(with->kwargs) ? with->kwargs : kwargs);
    }
    if (!has_cause(task)) {
        out->exc = (apm_exception){ 0 };
        out->traceback = APM_STR_NONE;
    }
    out->kind = APM_DONE_RETRY;
    out->retries = retries;
    out->retry_eta_us = eta_us;
    out->retry_request = with ? with->request : APM_STR_NONE;
    return APIUM_RETRY;
}

apium_verdict
apm_task_autoretry(apium_task *task)
{
    double delay = task->def->retry_backoff ? backoff(task->def, task->req->retries)
                                            : default_delay(task->def);
    return decide(task, NULL, eta_after(delay), apium_task_max_retries(task), NULL);
}

apium_verdict
apium_retry_at(apium_task *task, const char *file, int line, const char *func, double countdown,
               const char *fmt, ...)
{
    const apm_site site = { file, func, line };
    if (fmt && !has_cause(task)) {
        char *text = NULL;
        va_list ap;
        va_start(ap, fmt);
        int n = vasprintf(&text, fmt, ap);
        va_end(ap);
        apm_task_raisef(task, &site, "RuntimeError", "%s", n < 0 ? "retry" : text);
        if (n >= 0)
            free(text);
    }
    return decide(task, &site, eta_of(task, countdown), apium_task_max_retries(task), NULL);
}

/* --- with choices --- */

/* Validated JSON of one type, in the arena; absent stays absent. */
static bool
take_json(apium_task *task, const char *text, apm_json_type type, const char *what, apm_str *out)
{
    apium_error err;
    apm_json json;
    *out = APM_STR_NONE;
    if (!text)
        return true;
    if (apm_value_take(apium_json(text), task->arena, &json, &err) != APIUM_OK) {
        apm_task_raisef(task, NULL, "ValueError", "cannot retry with these %s: %s", what, err.text);
        return false;
    }
    if (json.type != type) {
        apm_task_raisef(task, NULL, "TypeError",
                        "cannot retry with these %s: a JSON %s is expected", what,
                        type == APM_JSON_ARRAY ? "array" : "object");
        return false;
    }
    *out = json.text;
    return true;
}

static void
add_raw(apm_buf *buf, const char *key, apm_str text)
{
    if (!apm_str_is(text))
        return;
    apm_json_add_key(buf, key);
    apm_buf_adds(buf, text);
}

static void
add_seconds(apm_buf *buf, const char *key, double seconds)
{
    if (!(seconds > 0) || !isfinite(seconds))
        return;
    apm_json_add_key(buf, key);
    apm_json_add_double(buf, seconds);
}

apium_verdict
apium_retry_with(apium_task *task, const apium_retry_opts *opts)
{
    changes with = { 0 };
    apm_str headers;
    apm_buf buf;

    if (!take_json(task, opts->args, APM_JSON_ARRAY, "args", &with.args) ||
        !take_json(task, opts->kwargs, APM_JSON_OBJECT, "kwargs", &with.kwargs) ||
        !take_json(task, opts->headers, APM_JSON_OBJECT, "headers", &headers))
        return APIUM_FAILURE;
    apm_buf_init(&buf, APM_BUF_MAX);
    apm_buf_addc(&buf, '{');
    add_raw(&buf, "args", with.args);
    add_raw(&buf, "kwargs", with.kwargs);
    if (opts->queue) {
        apm_json_add_key(&buf, "queue");
        apm_json_add_stringz(&buf, opts->queue);
    }
    if (opts->priority || opts->has_priority) {
        apm_json_add_key(&buf, "priority");
        apm_json_add_int(&buf, opts->priority);
    }
    if (opts->expires > 0) {
        apm_json_add_key(&buf, "expires_us");
        apm_json_add_int(&buf, eta_after(opts->expires));
    }
    add_raw(&buf, "headers", headers);
    add_seconds(&buf, "time_limit", opts->time_limit);
    add_seconds(&buf, "soft_time_limit", opts->soft_time_limit);
    bool empty = buf.len == 1;
    apm_buf_addc(&buf, '}');
    bool ok = !buf.failed;
    if (ok && !empty)
        with.request = apm_arena_str(task->arena, apm_buf_str(&buf), &ok);
    apm_buf_clear(&buf);
    if (!ok)
        return apm_task_raisef(task, NULL, "MemoryError", "cannot retry: out of memory");

    int64_t eta = opts->eta_us ? opts->eta_us
                  : opts->now
                      ? eta_after(0)
                      : eta_of(task, opts->countdown != 0 ? opts->countdown : APIUM_DEFAULT_DELAY);
    int max = opts->max_retries ? max_retries(opts->max_retries) : apium_task_max_retries(task);
    return decide(task, NULL, eta, max, &with);
}
