/* log.c - see log.h */
#include "core/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/clock.h"
#include "core/base/error.h"
#include "core/base/utf8.h"

#define GATHER_MAX     ((size_t)64 << 10)
#define MESSAGE_MAX    ((size_t)16 << 10)
#define STALL_LIMIT_MS 1000 /* a reader of our pipe that is this slow loses lines */

static struct {
    pthread_mutex_t lock;
    bool open, kv;
    int fd;
    char process[64];
    apm_buf pending;           /* whole lines */
    char message[MESSAGE_MAX]; /* before escaping */
    time_t second;             /* for which stamp is right */
    char stamp[32];
} state = { .lock = PTHREAD_MUTEX_INITIALIZER, .fd = STDERR_FILENO, .process = "MainProcess" };

static _Atomic int threshold = APM_LOG_WARNING;

static const struct {
    apm_log_level level;
    const char *upper, *lower;
} levels[] = {
    { APM_LOG_DEBUG, "DEBUG", "debug" },          { APM_LOG_INFO, "INFO", "info" },
    { APM_LOG_WARNING, "WARNING", "warning" },    { APM_LOG_ERROR, "ERROR", "error" },
    { APM_LOG_CRITICAL, "CRITICAL", "critical" },
};
#define N_LEVELS (sizeof(levels) / sizeof(levels[0]))

apium_status
apm_log_level_parse(const char *word, apm_log_level *out, apium_error *err)
{
    for (size_t i = 0; i < N_LEVELS; i++)
        if (strcasecmp(word, levels[i].lower) == 0) {
            *out = levels[i].level;
            return APIUM_OK;
        }
    if (strcasecmp(word, "warn") == 0 || strcasecmp(word, "fatal") == 0) {
        *out = (word[0] | 0x20) == 'w' ? APM_LOG_WARNING : APM_LOG_CRITICAL;
        return APIUM_OK;
    }
    return apm_fail(err, APIUM_E_CONFIG,
                    "unknown log level \"%.40s\": it is debug, info, warning, error or critical",
                    word);
}

/* Write what is pending; what cannot be written is lost, for there is nobody to tell. Locked. */
static void
flush(void)
{
    const char *at = state.pending.p;
    size_t left = state.pending.len;

    while (left > 0) {
        ssize_t n = write(state.fd, at, left);
        if (n > 0) {
            at += n;
            left -= (size_t)n;
        } else if (n < 0 && errno == EAGAIN) {
            struct pollfd wait = { .fd = state.fd, .events = POLLOUT };
            if (poll(&wait, 1, STALL_LIMIT_MS) == 0)
                break;
        } else if (n == 0 || errno != EINTR) {
            break;
        }
    }
    apm_buf_reset(&state.pending);
}

apium_status
apm_log_open(const apm_log_opts *opts, apium_error *err)
{
    int fd = STDERR_FILENO;

    if (opts->file &&
        (fd = open(opts->file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0644)) < 0)
        return apm_fail_sys(err, errno, "cannot open the log file %s", opts->file);
    pthread_mutex_lock(&state.lock);
    flush();
    if (state.fd != STDERR_FILENO)
        close(state.fd);
    state.fd = fd;
    state.kv = opts->kv;
    state.open = true;
    atomic_store_explicit(&threshold, opts->level ? opts->level : APM_LOG_WARNING,
                          memory_order_relaxed);
    pthread_mutex_unlock(&state.lock);
    return APIUM_OK;
}

void
apm_log_process(const char *name)
{
    pthread_mutex_lock(&state.lock);
    snprintf(state.process, sizeof(state.process), "%s", name);
    pthread_mutex_unlock(&state.lock);
}

bool
apm_log_on(apm_log_level level)
{
    return (int)level >= atomic_load_explicit(&threshold, memory_order_relaxed);
}

/* Text from anywhere, so that it stays on its line and cannot command a terminal. In quotes, they and backslashes are
 * escaped as well. */
static void
add_text(apm_buf *out, const char *at, bool quotes)
{
    const char *end = at + strlen(at);

    while (at < end) {
        const char *run = at;
        int len = 0;
        for (; at < end; at += len) {
            unsigned char c = (unsigned char)*at;
            len = apm_utf8_len(at, end, false);
            /* U+0080 to U+009F are control characters as well. */
            if (len == 0 || c < ' ' || c == 0x7f || (c == 0xc2 && (unsigned char)at[1] < 0xa0) ||
                (quotes && (c == '"' || c == '\\')))
                break;
        }
        apm_buf_add(out, run, (size_t)(at - run));
        if (at == end)
            break;
        if (*at == '\n')
            apm_buf_addz(out, "\\n");
        else if (*at == '\t')
            apm_buf_addz(out, "\\t");
        else if (*at == '\r')
            apm_buf_addz(out, "\\r");
        else if (*at == '"' || *at == '\\')
            apm_buf_addf(out, "\\%c", *at);
        else {
            if (len == 2)
                at++; /* of c2 80 the second byte is the character's number */
            apm_buf_addf(out, "\\x%02x", (unsigned char)*at);
        }
        at++;
    }
}

/* " name=value", in quotes where a word would not do. */
static void
add_field(apm_buf *out, const char *name, const char *value)
{
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.:@/+%,()<>[]";

    apm_buf_addf(out, " %s=", name);
    if (*value && value[strspn(value, plain)] == '\0') {
        apm_buf_addz(out, value);
        return;
    }
    apm_buf_addc(out, '"');
    add_text(out, value, true);
    apm_buf_addc(out, '"');
}

/* The time in the form of the format, to the second. */
static const char *
stamp(time_t now)
{
    struct tm tm;

    if (now != state.second || !state.stamp[0]) {
        localtime_r(&now, &tm);
        strftime(state.stamp, sizeof(state.stamp), "%Y-%m-%d %H:%M:%S", &tm);
        state.second = now;
    }
    return state.stamp;
}

static void
add_line(apm_log_level level, const apm_log_ctx *ctx, const char *event, const char *message)
{
    apm_buf *out = &state.pending;
    const char *process = ctx->process ? ctx->process : state.process;
    int64_t now_ms = apm_clock_wall_us() / 1000;
    const char *when = stamp(now_ms / 1000);
    size_t i = 0;

    while (i + 1 < N_LEVELS && levels[i].level < level)
        i++;
    if (!state.kv) {
        apm_buf_addf(out, "[%s,%03d: %s/", when, (int)(now_ms % 1000), levels[i].upper);
        add_text(out, process, false);
        apm_buf_addz(out, "] ");
        add_text(out, message, false);
    } else {
        apm_buf_addf(out, "ts=%.10sT%s.%03d level=%s", when, when + 11, (int)(now_ms % 1000),
                     levels[i].lower);
        add_field(out, "proc", process);
        if (event)
            add_field(out, "event", event);
        if (ctx->task_id)
            add_field(out, "id", ctx->task_id);
        if (ctx->task)
            add_field(out, "task", ctx->task);
        if (ctx->fields && *ctx->fields) {
            apm_buf_addc(out, ' ');
            add_text(out, ctx->fields, false);
        }
        apm_buf_addz(out, " msg=\"");
        add_text(out, message, true);
        apm_buf_addc(out, '"');
    }
    apm_buf_addc(out, '\n');
}

static void log_v(apm_log_level level, const apm_log_ctx *ctx, const char *event, const char *fmt,
                  va_list ap) __attribute__((format(printf, 4, 0)));

static void
log_v(apm_log_level level, const apm_log_ctx *ctx, const char *event, const char *fmt, va_list ap)
{
    int saved = errno; /* logging must not disturb what it is about */

    pthread_mutex_lock(&state.lock);
    int n = vsnprintf(state.message, sizeof(state.message), fmt, ap);
    if (n < 0)
        snprintf(state.message, sizeof(state.message), "%s", fmt);
    else if ((size_t)n >= sizeof(state.message))
        memcpy(state.message + sizeof(state.message) - 4, "...", 4);
    size_t before = state.pending.len;
    add_line(level, ctx, event, state.message);
    if (state.pending.failed) {
        /* Short of memory: keep the lines that are whole. */
        state.pending.failed = false;
        state.pending.len = before;
    }
    if (!state.open || level >= APM_LOG_ERROR || state.pending.len >= GATHER_MAX)
        flush();
    pthread_mutex_unlock(&state.lock);
    errno = saved;
}

void
apm_log(apm_log_level level, const char *event, const char *fmt, ...)
{
    va_list ap;

    if (!apm_log_on(level))
        return;
    va_start(ap, fmt);
    log_v(level, &(apm_log_ctx){ 0 }, event, fmt, ap);
    va_end(ap);
}

void
apm_log_task(apm_log_level level, const apm_log_ctx *ctx, const char *event, const char *fmt, ...)
{
    va_list ap;

    if (!apm_log_on(level))
        return;
    va_start(ap, fmt);
    log_v(level, ctx, event, fmt, ap);
    va_end(ap);
}

void
apm_log_flush(void)
{
    int saved = errno;

    pthread_mutex_lock(&state.lock);
    flush();
    pthread_mutex_unlock(&state.lock);
    errno = saved;
}

void
apm_log_forked(void)
{
    /* Whoever held the lock in the parent is not here. */
    pthread_mutex_init(&state.lock, NULL);
    apm_buf_reset(&state.pending);
}
