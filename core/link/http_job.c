/* http_job.c - reading, writing and deleting one document, whatever the dialect of the server; see http_dialect.h */
#include <stdio.h>
#include <stdlib.h>

#include "core/base/error.h"
#include "core/base/json.h"
#include "core/link/http_dialect.h"
#include "core/model/result.h"

/* So often may somebody else be faster. */
#define ROUNDS_MAX 20

typedef enum stage { PREPARING, READING, WRITING, ERASING } stage;

typedef struct doing {
    http_link *link;
    http_job job;
    stage stage;
    unsigned rounds;
    void *owner;
    bool for_ever;
    apm_http_done *done;
    void *arg;
    void (*release)(void *arg);
    char key[];
} doing;

/* ---- what dialects share ---- */

static const char *
purpose(const http_job *job)
{
    static const char *const words[] = {
        [APM_HTTP_PREPARE] = "keep results",
        [APM_HTTP_READ] = "read a result",
        [APM_HTTP_WRITE] = "store a result",
        [APM_HTTP_DELETE] = "forget a result",
    };
    return words[job->verb];
}

/* The text between two marks. */
static apm_str
between(apm_str text, const char *begin, const char *end)
{
    const char *from = memmem(text.p, text.len, begin, strlen(begin));
    if (!from)
        return APM_STR_NONE;
    from += strlen(begin);
    const char *to = memmem(from, (size_t)(text.p + text.len - from), end, strlen(end));
    return to ? (apm_str){ from, (size_t)(to - from) } : APM_STR_NONE;
}

void
apm_http_why(apm_str body, char *out, size_t size)
{
    apm_arena arena = { 0 };
    apm_json doc, val, error;
    apm_str text = APM_STR_NONE;
    *out = '\0';
    if (body.len > 65536)
        return;
    if (apm_json_parse(body, &doc, NULL) == APIUM_OK) {
        error = apm_json_get(doc, "error");
        if ((val = apm_json_get(error, "message")).type == APM_JSON_STRING ||
            (val = apm_json_get(error, "reason")).type == APM_JSON_STRING ||
            (val = apm_json_get(doc, "reason")).type == APM_JSON_STRING ||
            (val = apm_json_get(doc, "message")).type == APM_JSON_STRING ||
            (val = error).type == APM_JSON_STRING)
            (void)apm_json_string(val, "error", &arena, &text, NULL);
    } else if (apm_str_is(text = between(body, "<Code>", "</Code>"))) {
        const apm_str words = between(body, "<Message>", "</Message>");
        if (apm_str_is(words))
            text = apm_strz(
                apm_arena_printf(&arena, "%.*s: %.*s", APM_STR_ARG(text), APM_STR_ARG(words)));
    } else if (body.len > 0 && *body.p != '<') {
        text = body;
    }
    size_t n = 0;
    for (size_t i = 0; i < text.len && n + 1 < size && text.p[i] != '\n'; i++)
        out[n++] = (unsigned char)text.p[i] < ' ' || text.p[i] == 0x7f ? '?' : text.p[i];
    while (n > 0 && (out[n - 1] == ' ' || out[n - 1] == '?'))
        n--;
    out[n] = '\0';
    apm_arena_clear(&arena);
}

http_turn
apm_http_refused(const http_link *link, const http_job *job, http_answer answer, apium_error *err)
{
    char why[160];
    apm_http_why(answer.body, why, sizeof(why));
    (void)apm_fail(err, answer.status == 413 ? APIUM_E_TOOBIG : APIUM_E_REFUSED,
                   "cannot %s: %s answers %d%s%s", purpose(job), link->base.shown, answer.status,
                   *why ? ": " : "", why);
    return HTTP_FAILED;
}

http_turn
apm_http_nonsense(const http_link *link, const http_job *job, apium_error *err)
{
    (void)apm_fail(err, APIUM_E_REFUSED, "cannot %s: %s gave an answer that makes no sense",
                   purpose(job), link->base.shown);
    return HTTP_FAILED;
}

http_turn
apm_http_expect(const http_link *link, const http_job *job, http_answer answer, apium_error *err,
                const int *statuses)
{
    for (; *statuses; statuses++)
        if (answer.status == *statuses)
            return HTTP_DONE;
    return apm_http_refused(link, job, answer, err);
}

void
apm_http_name(const http_link *link, const http_job *job, apm_buf *buf)
{
    apm_buf_addz(buf, link->prefix);
    apm_buf_adds(buf, job->key);
}

void
apm_http_add_name(const http_link *link, const http_job *job, apm_buf *path)
{
    apm_http_escape(path, apm_strz(link->prefix));
    apm_http_escape(path, job->key);
}

/* ---- the course of a job ---- */

static void
doing_free(doing *d)
{
    apm_arena_clear(&d->job.arena);
    free(d);
}

static void
release(void *arg)
{
    doing *d = arg;
    if (d->release)
        d->release(d->arg);
    doing_free(d);
}

static void
finish(doing *d, apm_str doc, const apium_error *err)
{
    d->done(d->arg, doc, err);
    doing_free(d);
}

static void on_answer(void *arg, int status, apm_str body, const apium_error *err);

static void
proceed(doing *d, stage next)
{
    const http_dialect *dialect = d->link->dialect;
    http_request req = { 0 };
    apm_buf_init(&req.path, 65536);
    apm_buf_init(&req.body, 2 * APM_BUF_MAX);
    d->stage = next;
    (next == PREPARING ? dialect->prepare
     : next == READING ? dialect->read
     : next == WRITING ? dialect->write
                       : dialect->erase)(d->link, &d->job, &req);
    if (req.path.failed || req.body.failed) {
        apium_error err;
        (void)apm_fail(&err, APIUM_E_TOOBIG, "cannot %s: its id or the document is too big",
                       purpose(&d->job));
        finish(d, APM_STR_NONE, &err);
    } else {
        apm_http_ask(&d->link->base, &(apm_http_asked){ .method = req.method,
                                                        .path = req.path.p ? req.path.p : "",
                                                        .body = req.body.p ? &req.body : NULL,
                                                        .type = req.type,
                                                        .is_fate = dialect->is_fate,
                                                        .for_ever = d->for_ever,
                                                        .owner = d->owner,
                                                        .done = on_answer,
                                                        .arg = d,
                                                        .release = release });
    }
    apm_buf_clear(&req.path);
    apm_buf_clear(&req.body);
}

static apm_str
state_of(apm_str doc)
{
    apm_json json;
    if (apm_json_parse(doc, &json, NULL) != APIUM_OK)
        return APM_STR_NONE;
    json = apm_json_get(json, "status");
    return json.type == APM_JSON_STRING && json.text.len >= 2
               ? (apm_str){ json.text.p + 1, json.text.len - 2 }
               : APM_STR_NONE;
}

/* Celery's UNREADY_STATES. */
static bool
unready(apm_str state)
{
    static const char *const names[] = { APM_STATE_PENDING, APM_STATE_RECEIVED, APM_STATE_STARTED,
                                         "REJECTED", APM_STATE_RETRY };
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
        if (apm_str_eqz(state, names[i]))
            return true;
    return false;
}

/* Does the document that is there stay? */
static bool
stays(const doing *d, apm_str there)
{
    if (!d->job.unless_success)
        return false;
    const apm_str old = state_of(there);
    return apm_str_eqz(old, APM_STATE_SUCCESS) ||
           (d->link->dialect->ready_stays && apm_str_is(old) && apm_state_ready(old) &&
            unready(state_of(d->job.doc)));
}

static void
was_read(doing *d, http_turn turn, apm_str doc)
{
    d->job.step = 0;
    d->job.there = turn == HTTP_DONE;
    if (d->job.verb == APM_HTTP_WRITE && !(turn == HTTP_DONE && stays(d, doc)))
        proceed(d, WRITING);
    else if (d->job.verb == APM_HTTP_DELETE && turn == HTTP_DONE)
        proceed(d, ERASING);
    else
        finish(d, turn == HTTP_DONE && doc.len ? doc : APM_STR_NONE, NULL);
}

static void
on_answer(void *arg, int status, apm_str body, const apium_error *err)
{
    doing *d = arg;
    const http_dialect *dialect = d->link->dialect;
    const http_answer answer = { status, body };
    apm_str doc = APM_STR_NONE;
    apium_error own;
    if (!status) {
        finish(d, APM_STR_NONE, err);
        return;
    }
    http_turn turn = d->stage == PREPARING ? dialect->prepared(d->link, &d->job, answer, &own)
                     : d->stage == READING ? dialect->found(d->link, &d->job, answer, &doc, &own)
                     : d->stage == WRITING ? dialect->wrote(d->link, &d->job, answer, &own)
                                           : dialect->erased(d->link, &d->job, answer, &own);
    if (turn == HTTP_FAILED) {
        finish(d, APM_STR_NONE, &own);
    } else if (turn == HTTP_MORE) {
        d->job.step++;
        proceed(d, d->stage);
    } else if (turn == HTTP_AGAIN && ++d->rounds > ROUNDS_MAX) {
        (void)apm_fail(&own, APIUM_E_REFUSED, "cannot %s: %s says each time that it has changed",
                       purpose(&d->job), d->link->base.shown);
        finish(d, APM_STR_NONE, &own);
    } else if (turn == HTTP_AGAIN) {
        proceed(d, READING);
    } else if (d->stage == READING) {
        was_read(d, turn, doc);
    } else {
        finish(d, APM_STR_NONE, NULL);
    }
}

void
apm_http_do(apm_link *base, const apm_http_task *task)
{
    http_link *link = (http_link *)base;
    doing *d = calloc(1, sizeof(*d) + task->key.len + 1);
    if (!d) {
        apium_error err;
        (void)apm_fail(&err, APIUM_E_NOMEM, "cannot ask for a result: out of memory");
        task->done(task->arg, APM_STR_NONE, &err);
        return;
    }
    memcpy(d->key, task->key.p, task->key.len);
    d->link = link;
    d->job = (http_job){ .verb = task->verb,
                         .key = { d->key, task->key.len },
                         .doc = task->doc,
                         .unless_success = task->unless_success,
                         .expires_s = task->expires_s };
    d->owner = task->owner;
    d->for_ever = task->for_ever;
    d->done = task->done;
    d->arg = task->arg;
    d->release = task->release;
    if (task->verb == APM_HTTP_PREPARE && link->dialect->prepare)
        proceed(d, PREPARING);
    else if (task->verb == APM_HTTP_WRITE && !task->unless_success)
        proceed(d, WRITING);
    else if (task->verb == APM_HTTP_DELETE && !link->dialect->erases_a_version)
        proceed(d, ERASING);
    else
        proceed(d, READING);
}
