/*
 * log.h - the program's log, in Celery's look:
 *     [2026-08-21 10:00:00,123: INFO/MainProcess] Task math.add[<id>] succeeded in 0.003s: 4
 * or with --log-format=kv:
 *     ts=2026-08-21T10:00:00.123 level=info proc=MainProcess event=task.succeeded id=... msg="..."
 * One event, one line, one write; control characters in foreign text are escaped. Library code logs at debug
 * only; the program logs a failure once, where it gives up.
 */
#ifndef APM_BASE_LOG_H
#define APM_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include <apium/status.h>

typedef enum apm_log_level {
    APM_LOG_DEBUG = 10,
    APM_LOG_INFO = 20,
    APM_LOG_WARNING = 30,
    APM_LOG_ERROR = 40,
    APM_LOG_CRITICAL = 50,
} apm_log_level;

typedef struct apm_log_opts {
    apm_log_level level;
    bool kv;
    const char *file; /* appended to; NULL is stderr */
} apm_log_opts;

/* Lines are gathered and written by apm_log_flush() (the loop calls it before it sleeps) or at once for ERROR
 * and above, or when 64 KiB are waiting. Until apm_log_open a process logs WARNING and above to stderr, unbuffered. */
apium_status apm_log_open(const apm_log_opts *opts, apium_error *err);
/* The process name that follows (default "MainProcess"); copied. */
void apm_log_process(const char *name);
bool apm_log_on(apm_log_level level);
/* event is a stable dotted word ("task.received") that only kv shows. Both formats escape control characters and
 * what is not UTF-8 in the message, and cut it after 16 KiB. */
void apm_log(apm_log_level level, const char *event, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* The same with another process name for this line, and what kv adds: the task, and `fields` that are written
 * as they are, such as "runtime_ms=3" (each may be NULL). */
typedef struct apm_log_ctx {
    const char *process, *task_id, *task, *fields;
} apm_log_ctx;
void apm_log_task(apm_log_level level, const apm_log_ctx *ctx, const char *event, const char *fmt,
                  ...) __attribute__((format(printf, 4, 5)));
void apm_log_flush(void);
/* After fork: forget what the parent had gathered. */
void apm_log_forked(void);
/* "debug", "INFO", ... ; E_CONFIG names the word. */
apium_status apm_log_level_parse(const char *word, apm_log_level *out, apium_error *err);

#endif
