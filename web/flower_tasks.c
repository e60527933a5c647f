/*
 * flower_tasks.c - Flower's lists: /api/tasks with its filters, /api/task/types. Flower knows tasks by their events; here stored
 * results tell, so what only events know is null, and where Flower goes by the time of receiving this goes by the time of the state.
 */
#include "web/flower.h"

#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "core/base/clock.h"
#include "core/base/error.h"
#include "web/listing.h"

#define LISTS_MAX 4 /* at once: each looks at thousands of documents */

typedef enum sort_key { BY_TIME, BY_NAME, BY_STATE } sort_key;

typedef struct task {
    apm_str id, json;
    apm_str key; /* what it is sorted by, unless that is the time; absent: unknown */
    int64_t at_us;
} task;

typedef struct lister {
    apm_web_call *call;
    /* filters; absent: none */
    apm_str name, state, worker;
    int64_t from_us, until_us; /* APM_TIME_NONE: none */
    int64_t limit, offset;     /* limit -1: none */
    sort_key sort;
    bool types, descending;
    task *tasks;
    size_t n, cap;
    bool failed;
    const char **names; /* of types, not sorted */
} lister;

/* ---- reading the question ---- */

static bool
read_int(apm_web_call *call, const char *name, int64_t *out)
{
    apm_str text;
    char *end;
    if (!apm_web_param(call, name, &text))
        return true;
    long long n = strtoll(text.p, &end, 10);
    if (text.len == 0 || *end) {
        apm_web_error(call, 400, "Invalid argument '%.64s' of type 'int'", text.p);
        return false;
    }
    *out = n < 0 ? 0 : n;
    return true;
}

static bool
read_filter(apm_web_call *call, const char *name, apm_str *out)
{
    if (apm_web_param(call, name, out) && (out->len == 0 || apm_str_eqz(*out, "All")))
        *out = APM_STR_NONE;
    return true;
}

/* "2026-11-28 10:00", in the zone of the settings. */
static bool
read_time(apm_web_call *call, const char *name, int64_t *out)
{
    apm_str text;
    int offset_s = 0, year, month, day, hour, minute, len = 0;
    if (!apm_web_param(call, name, &text) || text.len == 0)
        return true;
    (void)apm_zone_offset(call->web->settings->timezone, apm_clock_wall_us(), &offset_s, NULL);
    char *date = apm_arena_printf(&call->arena, "%s", text.p);
    for (char *at = date; at && *at; at++)
        if (*at == '+') /* a space in a query */
            *at = ' ';
    if (date &&
        sscanf(date, "%4d-%2d-%2d %2d:%2d%n", &year, &month, &day, &hour, &minute, &len) == 5 &&
        date[len] == '\0' && apm_date_parse(apm_strz(date), offset_s, out, NULL) == APIUM_OK)
        return true;
    apm_web_error(call, 400,
                  "Invalid received_start or received_end, expected format 'YYYY-MM-DD HH:MM'");
    return false;
}

static bool
read_sort(apm_web_call *call, lister *l)
{
    static const struct {
        const char *name;
        sort_key key;
    } keys[] = {
        { "name", BY_NAME }, { "state", BY_STATE }, { "received", BY_TIME }, { "started", BY_TIME }
    };
    apm_str text;
    l->descending = true;
    if (!apm_web_param(call, "sort_by", &text) || text.len == 0)
        return true;
    const char *name = text.p + (text.p[0] == '-');
    l->descending = name != text.p;
    for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++)
        if (strcmp(name, keys[i].name) == 0) {
            l->sort = keys[i].key;
            return true;
        }
    apm_web_error(call, 400,
                  "Invalid sort_by '%.64s', expected one of name, received, started, state",
                  text.p);
    return false;
}

/* ---- looking at tasks ---- */

/* A filter that was given, and something else than it. */
static bool
misses(apm_str filter, apm_str value)
{
    return apm_str_is(filter) && (!apm_str_is(value) || value.len != filter.len ||
                                  strncasecmp(value.p, filter.p, filter.len) != 0);
}

static task *
new_task(lister *l)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 64;
        task *more = realloc(l->tasks, cap * sizeof(*more));
        if (!more)
            return NULL;
        l->tasks = more;
        l->cap = cap;
    }
    return &l->tasks[l->n++];
}

static void
on_task(void *arg, apm_str id, apm_str doc)
{
    lister *l = arg;
    apm_arena scratch = { 0 }, *arena = &l->call->arena;
    apm_result_doc read;
    bool ok = true;
    if (apm_result_read(doc, &scratch, &read, NULL) != APIUM_OK || misses(l->name, read.name) ||
        misses(l->state, read.status) || misses(l->worker, read.worker) ||
        (l->types && !apm_str_is(read.name)) ||
        (l->from_us != APM_TIME_NONE && read.date_done_us != APM_TIME_NONE &&
         read.date_done_us < l->from_us) ||
        (l->until_us != APM_TIME_NONE && read.date_done_us != APM_TIME_NONE &&
         read.date_done_us > l->until_us)) {
        apm_arena_clear(&scratch);
        return;
    }
    task *t = new_task(l);
    if (t) {
        apm_str key = l->sort == BY_STATE              ? read.status
                      : l->sort == BY_NAME || l->types ? read.name
                                                       : APM_STR_NONE;
        *t = (task){ .id = apm_arena_str(arena, id, &ok), .at_us = read.date_done_us };
        t->key = apm_str_is(key) ? apm_arena_str(arena, key, &ok) : APM_STR_NONE;
        if (!l->types) {
            apm_buf buf;
            apm_buf_init(&buf, APM_BUF_MAX);
            apm_flower_write_task(&buf, id, &read);
            ok = ok && !buf.failed;
            if (ok)
                t->json = apm_arena_str(arena, apm_buf_str(&buf), &ok);
            apm_buf_clear(&buf);
        }
    }
    l->failed = l->failed || !t || !ok;
    apm_arena_clear(&scratch);
}

static int
compare_text(apm_str a, apm_str b)
{
    size_t n = a.len < b.len ? a.len : b.len;
    int c = n ? memcmp(a.p, b.p, n) : 0;
    return c ? c : (a.len > b.len) - (a.len < b.len);
}

/* What has no key comes before what has one; ids decide last. */
static int
compare(const void *a_, const void *b_)
{
    const task *a = a_, *b = b_;
    int c = apm_str_is(a->key) - apm_str_is(b->key);
    if (!c && apm_str_is(a->key))
        c = compare_text(a->key, b->key);
    else if (!c)
        c = (a->at_us > b->at_us) - (a->at_us < b->at_us);
    return c ? c : compare_text(a->id, b->id);
}

/* ---- answering ---- */

static void
answer(lister *l, bool more, apm_buf *body)
{
    const apm_http_header header = { "X-Apium-Complete", more ? "false" : "true" };
    apm_web_call *call = l->call;
    call->web->listing--;
    free(l->tasks);
    if (body->failed) {
        apm_web_answer(call, 200, body);
        return;
    }
    apm_web_reply(
        call, &(apm_http_reply){ .status = 200, .take = body, .headers = &header, .n_headers = 1 });
}

static bool
answers(lister *l, const apium_error *err)
{
    apm_web_call *call = l->call;
    apium_error failed;
    if (!err && l->failed) {
        (void)apm_fail(&failed, APIUM_E_NOMEM, "cannot list tasks: out of memory");
        err = &failed;
    }
    if (!err)
        return true;
    failed = *err;
    call->web->listing--;
    free(l->tasks);
    apm_web_fail(call, &failed);
    return false;
}

static void
on_tasks(void *arg, bool more, const apium_error *err)
{
    lister *l = arg;
    apm_buf body;
    if (!answers(l, err))
        return;
    if (l->n)
        qsort(l->tasks, l->n, sizeof(*l->tasks), compare);
    apm_buf_init(&body, APM_BUF_MAX);
    apm_buf_addc(&body, '{');
    for (int64_t i = l->offset, n = 0; i < (int64_t)l->n && (l->limit < 0 || n < l->limit);
         i++, n++) {
        const task *t = &l->tasks[l->descending ? (int64_t)l->n - 1 - i : i];
        apm_buf_addz(&body, n ? ", " : "");
        apm_json_add_string(&body, t->id);
        apm_buf_addz(&body, ": ");
        apm_buf_adds(&body, t->json);
    }
    apm_buf_addc(&body, '}');
    answer(l, more, &body);
}

static int
compare_names(const void *a, const void *b)
{
    return compare_text(((const task *)a)->key, ((const task *)b)->key);
}

/* The tasks of -A, and those that have results. */
static void
on_types(void *arg, bool more, const apium_error *err)
{
    lister *l = arg;
    apm_buf body;
    const char *name;
    if (err && err->status == APIUM_E_UNSUPPORTED)
        err = NULL;
    for (size_t i = 0; !err && apm_app_task_at(l->call->web->app, i); i++) {
        name = apm_app_task_at(l->call->web->app, i)->name;
        task *t = new_task(l);
        if (t)
            *t = (task){ .key = apm_strz(name) };
        l->failed = l->failed || !t;
    }
    if (!answers(l, err))
        return;
    if (l->n)
        qsort(l->tasks, l->n, sizeof(*l->tasks), compare_names);
    apm_buf_init(&body, APM_BUF_MAX);
    apm_buf_addz(&body, "{\"task-types\": [");
    for (size_t i = 0; i < l->n; i++) {
        if (i && compare_text(l->tasks[i].key, l->tasks[i - 1].key) == 0)
            continue;
        apm_buf_addz(&body, i ? ", " : "");
        apm_json_add_string(&body, l->tasks[i].key);
    }
    apm_buf_addz(&body, "]}");
    answer(l, more, &body);
}

static void
run(apm_web_call *call, const lister *with, void (*on_end)(void *, bool, const apium_error *))
{
    lister *l = apm_arena_alloc(&call->arena, sizeof(*l));
    if (!l || call->web->listing >= LISTS_MAX) {
        apm_web_error(call, 503, "too many lists are being made already");
        return;
    }
    *l = *with;
    call->web->listing++;
    apm_listing_run(call->web, &(apm_listing){ .on_task = on_task, .on_end = on_end, .arg = l });
}

void
apm_flower_tasks(apm_web_call *call)
{
    lister l = { .call = call, .from_us = APM_TIME_NONE, .until_us = APM_TIME_NONE, .limit = -1 };
    apm_str search;
    if (apm_web_param(call, "search", &search) && search.len) {
        apm_web_error(call, 501,
                      "searching is not there yet: filter by taskname, state, workername");
        return;
    }
    if (read_int(call, "limit", &l.limit) && read_int(call, "offset", &l.offset) &&
        read_sort(call, &l) && read_filter(call, "workername", &l.worker) &&
        read_filter(call, "taskname", &l.name) && read_filter(call, "state", &l.state) &&
        read_time(call, "received_start", &l.from_us) &&
        read_time(call, "received_end", &l.until_us))
        run(call, &l, on_tasks);
}

void
apm_flower_types(apm_web_call *call)
{
    run(call,
        &(lister){
            .call = call, .types = true, .from_us = APM_TIME_NONE, .until_us = APM_TIME_NONE },
        on_types);
}
