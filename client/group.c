/*
 * group.c - waiting for many: the tasks of a group, those of nested groups too, are watched all at once, and gather as they
 * finish; see apium/run.h.
 */
#include <stdlib.h>

#include "client/runs.h"
#include "core/base/error.h"
#include "core/model/result.h"

#define LOOKS_AT_ONCE 256

static apium_status
no_memory(apium_error *err)
{
    return apm_fail(err, APIUM_E_NOMEM, "out of memory");
}

/* --- gathering --- */

void
apm_gathering_free(apm_gathering *gathering)
{
    if (!gathering)
        return;
    free(gathering->tasks);
    free(gathering->order);
    free(gathering->seen);
    free(gathering);
}

/* The single tasks below a group; parents of its members are not waited for. */
static size_t
list_tasks(apium_run *run, apium_run **out, size_t n)
{
    for (size_t i = 0; i < run->n_members; i++) {
        apium_run *member = run->members[i];
        if (member->is_group) {
            n = list_tasks(member, out, n);
        } else {
            if (out)
                out[n] = member;
            n++;
        }
    }
    return n;
}

static void
note_done(apm_gathering *g, size_t place)
{
    if (g->seen[place])
        return;
    g->seen[place] = true;
    g->order[g->n_order++] = g->tasks[place];
    g->n_failed += apm_run_failed(g->tasks[place]);
}

/* Those that became ready since we last looked; nobody need watch them any more. */
static void
absorb(apm_gathering *g)
{
    apm_waiter *next;
    for (apm_waiter *w = g->gather.any ? g->gather.first : NULL; w; w = next) {
        next = w->next_ready;
        note_done(g, w->place);
        apm_run_unwatch(g->tasks[w->place]);
    }
    g->gather = (apm_gather){ 0 };
}

/* The group's gathering, its tasks telling that and no other one of the same tree. */
static apium_status
gathering_of(apium_run *run, apm_gathering **out, apium_error *err)
{
    apm_gathering *g = run->gathering;
    if (!g) {
        size_t n = list_tasks(run, NULL, 0);
        g = calloc(1, sizeof(*g));
        if (g)
            *g = (apm_gathering){ .tasks = calloc(n + 1, sizeof(apium_run *)),
                                  .order = calloc(n + 1, sizeof(apium_run *)),
                                  .seen = calloc(n + 1, sizeof(bool)),
                                  .n = n };
        if (!g || !g->tasks || !g->order || !g->seen) {
            apm_gathering_free(g);
            return no_memory(err);
        }
        (void)list_tasks(run, g->tasks, 0);
        run->gathering = g;
    }
    if (run->top->active != g) {
        g->gather = (apm_gather){ 0 };
        for (size_t i = 0; i < g->n; i++) {
            g->tasks[i]->waiter.gather = &g->gather;
            g->tasks[i]->waiter.place = i;
            if (apm_run_done(g->tasks[i]))
                note_done(g, i);
        }
        run->top->active = g;
    }
    absorb(g);
    *out = g;
    return APIUM_OK;
}

/* --- asking --- */

static apium_status
look_at(apium_run **runs, size_t n, apm_conn *conn, apm_backend *backend, apium_error *err)
{
    apm_answer *answers[LOOKS_AT_ONCE] = { 0 };
    apium_status st = APIUM_OK, one;
    apium_error why;
    for (size_t i = 0; i < n; i++) {
        if (apm_run_done(runs[i]) || !(answers[i] = apm_answer_new()))
            continue;
        backend->ops->fetch(backend, runs[i]->id, apm_answer_doc, answers[i]);
    }
    for (size_t i = 0; i < n; i++) {
        if (!answers[i])
            continue;
        one = apm_answer_wait(conn, &answers[i], &why);
        if (one == APIUM_OK && answers[i]->doc)
            apm_waiter_set(&runs[i]->waiter, (apm_str){ answers[i]->doc, answers[i]->doc_len });
        if (one != APIUM_OK && st == APIUM_OK) {
            st = one;
            if (err)
                *err = why;
        }
        apm_answer_free(answers[i]);
    }
    return st;
}

apium_status
apm_group_look(apium_run *run, apium_error *err)
{
    apm_conn *conn;
    apm_backend *backend;
    apm_gathering *g;
    apium_status st = gathering_of(run, &g, err);
    if (st != APIUM_OK || g->n_order == g->n)
        return st;
    st = apm_run_backend(run, &conn, &backend, err);
    bool own = st == APIUM_OK && apm_backend_can(backend, APM_BACKEND_REPLY);
    for (size_t i = 0; st == APIUM_OK && i < g->n; i += LOOKS_AT_ONCE) {
        size_t n = g->n - i < LOOKS_AT_ONCE ? g->n - i : LOOKS_AT_ONCE;
        if (!own)
            st = look_at(g->tasks + i, n, conn, backend, err);
        for (size_t k = 0; own && st == APIUM_OK && k < n; k++)
            st = apm_run_look(g->tasks[i + k], conn, backend, err);
    }
    absorb(g);
    return st;
}

static apium_status
watch_all(apm_gathering *g, apm_conn *conn, apium_error *err)
{
    apium_status st = APIUM_OK;
    if (g->watching == conn)
        return st;
    for (size_t i = 0; st == APIUM_OK && i < g->n; i++) {
        if (!apm_run_done(g->tasks[i]))
            st = apm_run_watch(g->tasks[i], conn, err);
        if (apm_run_done(g->tasks[i])) /* a waiter may find what another one knows */
            note_done(g, i);
    }
    if (st == APIUM_OK)
        g->watching = conn;
    return st;
}

/* Wait until so many have finished; or, with `failing`, one has failed. */
static apium_status
wait_for(apium_run *run, apm_gathering *g, size_t wanted, bool failing, int64_t timeout_ms,
         apium_error *err)
{
    apm_conn *conn;
    apm_backend *backend;
    int64_t deadline = apm_run_deadline(timeout_ms);
    apium_status st = APIUM_OK;

    if (g->n_order >= wanted || (failing && g->n_failed))
        return st;
    if (timeout_ms == 0) {
        st = apm_group_look(run, err);
    } else {
        st = apm_run_backend(run, &conn, &backend, err);
        if (st == APIUM_OK)
            st = watch_all(g, conn, err);
    }
    for (;;) {
        absorb(g);
        if (st != APIUM_OK || g->n_order >= wanted || (failing && g->n_failed))
            return st;
        st = timeout_ms ? apm_run_turn(conn, &g->gather.any, deadline, err) : APIUM_E_TIMEOUT;
        if (st == APIUM_E_TIMEOUT)
            return apm_fail(err, st, "%zu of its %zu tasks have finished%s", g->n_order, g->n,
                            timeout_ms ? " in time" : "");
    }
}

apium_status
apm_group_wait(apium_run *run, int64_t timeout_ms, bool failing, apium_error *err)
{
    apm_gathering *g;
    apium_status st = gathering_of(run, &g, err);
    return st == APIUM_OK ? wait_for(run, g, g->n, failing, timeout_ms, err) : st;
}

apium_status
apium_run_next(apium_run *run, int64_t timeout_ms, apium_run **member, apium_result **res,
               apium_error *err)
{
    apm_gathering *g;
    apium_error why;
    apium_status st;

    if (!run->is_group)
        return apm_fail(err, APIUM_E_INVALID, "cannot go through task %s: it is no group", run->id);
    st = gathering_of(run, &g, &why);
    if (st == APIUM_OK && g->told == g->n) {
        *member = NULL;
        *res = NULL;
        return APIUM_OK;
    }
    if (st == APIUM_OK)
        st = wait_for(run, g, g->told + 1, false, timeout_ms, &why);
    if (st != APIUM_OK)
        return apm_run_words(err, "go through", run, &why);
    apium_run *next = g->order[g->told];
    st = apm_result_new(next->id, (apm_str){ next->waiter.doc, next->waiter.doc_len }, res, err);
    if (st != APIUM_OK)
        return st;
    g->told++;
    *member = next;
    return APIUM_OK;
}

/* --- what is known of all of them --- */

/* How one member stands: of a group as its members do. */
typedef enum standing { WAITING, SUCCESSFUL, FAILED } standing;

static standing
standing_of(const apium_run *run)
{
    bool waiting = false, failed = false;
    if (!run->is_group)
        return !apm_run_done(run) ? WAITING : apm_run_failed(run) ? FAILED : SUCCESSFUL;
    for (size_t i = 0; i < run->n_members; i++) {
        standing one = standing_of(run->members[i]);
        waiting = waiting || one == WAITING;
        failed = failed || one == FAILED;
    }
    return failed ? FAILED : waiting ? WAITING : SUCCESSFUL;
}

static void
count_one(apium_counts *counts, const apium_run *run)
{
    standing one = standing_of(run);
    counts->all++;
    counts->waiting += one == WAITING;
    counts->failed += one == FAILED;
    counts->successful += one == SUCCESSFUL;
}

static apium_status
look(apium_run *run, apium_error *err)
{
    apm_conn *conn;
    apm_backend *backend;
    if (run->is_group)
        return apm_group_look(run, err);
    if (apm_run_done(run))
        return APIUM_OK;
    apium_status st = apm_run_backend(run, &conn, &backend, err);
    return st == APIUM_OK ? apm_run_look(run, conn, backend, err) : st;
}

apium_status
apium_count(apium_run *run, apium_counts *out, apium_error *err)
{
    apium_error why;
    apium_counts counts = { 0 };
    apium_status st = look(run, &why);
    if (st != APIUM_OK)
        return apm_run_words(err, "get the state of", run, &why);
    for (size_t i = 0; i < run->n_members; i++)
        count_one(&counts, run->members[i]);
    if (!run->is_group)
        count_one(&counts, run);
    *out = counts;
    return APIUM_OK;
}

apium_status
apium_ready(apium_run *run, bool *ready, apium_error *err)
{
    apium_error why;
    apium_status st = look(run, &why);
    if (st != APIUM_OK)
        return apm_run_words(err, "get the state of", run, &why);
    *ready = run->is_group ? run->gathering->n_order == run->gathering->n : apm_run_done(run);
    return APIUM_OK;
}

static apm_json
member_of(const apium_run *run, const char *name)
{
    apm_json doc;
    apm_str text = { run->waiter.doc, run->waiter.doc_len };
    if (!text.p || apm_json_parse(text, &doc, NULL) != APIUM_OK)
        return (apm_json){ 0 };
    return apm_json_get(doc, name);
}

static void
add_values(apm_buf *buf, const apium_run *run)
{
    apm_buf_addc(buf, '[');
    for (size_t i = 0; i < run->n_members; i++) {
        apm_buf_addz(buf, i ? ", " : "");
        if (run->members[i]->is_group) {
            add_values(buf, run->members[i]);
            continue;
        }
        apm_json value = member_of(run->members[i], "result");
        apm_buf_adds(buf, value.type == APM_JSON_NONE ? APM_STR("null") : value.text);
    }
    apm_buf_addc(buf, ']');
}

/* The first that failed, in their order. */
static const apium_run *
first_failed(const apm_gathering *g)
{
    for (size_t i = 0; g->n_failed && i < g->n; i++)
        if (apm_run_failed(g->tasks[i]))
            return g->tasks[i];
    return NULL;
}

apium_status
apm_group_result(apium_run *run, apium_result **out, apium_error *err)
{
    apm_gathering *g;
    apm_buf buf;
    apium_status st = gathering_of(run, &g, err);
    if (st != APIUM_OK)
        return st;
    const apium_run *failed = first_failed(g);
    if (!failed && g->n_order < g->n)
        return apm_result_new(run->id, APM_STR_NONE, out, err);
    apm_buf_init(&buf, APM_BUF_MAX);
    apm_buf_addz(&buf, "{\"status\": ");
    if (failed) {
        apm_json traceback = member_of(failed, "traceback");
        apm_buf_adds(&buf, member_of(failed, "status").text);
        apm_buf_addz(&buf, ", \"result\": ");
        apm_buf_adds(&buf, member_of(failed, "result").text);
        apm_buf_addz(&buf, ", \"traceback\": ");
        apm_buf_adds(&buf, traceback.type == APM_JSON_STRING ? traceback.text : APM_STR("null"));
    } else {
        apm_buf_addz(&buf, "\"SUCCESS\", \"result\": ");
        add_values(&buf, run);
        apm_buf_addz(&buf, ", \"traceback\": null");
    }
    apm_buf_addz(&buf, ", \"children\": null, \"date_done\": null, \"task_id\": ");
    apm_json_add_stringz(&buf, run->id);
    apm_buf_addc(&buf, '}');
    st = buf.failed ? apm_fail(err, APIUM_E_TOOBIG, "its results are too big together")
                    : apm_result_new(run->id, apm_buf_str(&buf), out, err);
    apm_buf_clear(&buf);
    return st;
}

/* --- all that came of it --- */

struct walk {
    apium_run **items;
    size_t n, cap;
};

static bool
push(struct walk *walk, apium_run *run)
{
    if (walk->n == walk->cap) {
        size_t cap = walk->cap ? 2 * walk->cap : 64;
        apium_run **items = realloc(walk->items, cap * sizeof(apium_run *));
        if (!items)
            return false;
        walk->items = items;
        walk->cap = cap;
    }
    walk->items[walk->n++] = run;
    return true;
}

apium_status
apium_collect(apium_run *run, int64_t timeout_ms, apium_collect_fn *each, void *arg,
              apium_error *err)
{
    struct walk walk = { 0 };
    int64_t deadline = apm_run_deadline(timeout_ms);
    apium_status st = push(&walk, run) ? APIUM_OK : no_memory(err);
    bool more = true;

    for (size_t at = 0; more && st == APIUM_OK && at < walk.n; at++) {
        apium_result *res;
        size_t n = 0;
        st = apium_get(walk.items[at], apm_run_left(deadline), &res, err);
        if (st != APIUM_OK)
            break;
        more = each(arg, walk.items[at], res);
        apium_result_free(res);
        if (more)
            st = apium_run_children(walk.items[at], &n, err);
        for (size_t i = 0; more && st == APIUM_OK && i < n; i++)
            if (!push(&walk, apium_run_child(walk.items[at], i)))
                st = no_memory(err);
    }
    free(walk.items);
    return st;
}
