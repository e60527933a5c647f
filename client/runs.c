/* runs.c - runs as a tree: made from what was sent, from an id, from a tuple; see apium/run.h. */
#include "client/runs.h"

#include <stdlib.h>

#include "core/base/error.h"

/* A chain has as many parents as it had steps, so they are walked and not called; members nest as deep as workflows do. */

static apium_status
no_memory(apium_error *err)
{
    return apm_fail(err, APIUM_E_NOMEM, "out of memory");
}

/* --- making --- */

apium_status
apm_run_new(apium_app *app, apm_str id, apium_run **out, apium_error *err)
{
    if (id.len && memchr(id.p, '\0', id.len)) /* a text of C would end there, and be another's id */
        return apm_fail(err, APIUM_E_INVALID, "a task's id must not have a NUL");
    apium_run *run = calloc(1, sizeof(*run));
    if (run)
        run->id = strndup(id.p, id.len);
    if (!run || !run->id) {
        free(run);
        return no_memory(err);
    }
    run->app = app;
    run->top = run;
    *out = run;
    return APIUM_OK;
}

apium_status
apium_run_of(apium_app *app, const char *task_id, apium_run **out, apium_error *err)
{
    if (!task_id || !*task_id || !apm_utf8_valid(apm_strz(task_id), false))
        return apm_fail(err, APIUM_E_INVALID, "cannot open a run without a task's id");
    return apm_run_new(app, apm_strz(task_id), out, err);
}

static apium_status
make_members(apium_run *run, size_t n, apium_error *err)
{
    run->is_group = true;
    run->members = calloc(n + 1, sizeof(apium_run *));
    return run->members ? APIUM_OK : no_memory(err);
}

static apium_status
of_handle(apium_app *app, const apm_handle *handle, apium_run *top, apium_run **out,
          apium_error *err)
{
    apium_run *first = NULL, **at = &first;
    apium_status st = APIUM_OK;
    for (; handle && st == APIUM_OK; handle = handle->parent, at = &(*at)->parent) {
        st = apm_run_new(app, handle->id, at, err);
        if (st != APIUM_OK)
            break;
        (*at)->top = top ? top : first;
        if (handle->is_group)
            st = make_members(*at, handle->n_members, err);
        for (size_t i = 0; st == APIUM_OK && handle->is_group && i < handle->n_members; i++) {
            st = of_handle(app, handle->members[i], (*at)->top, &(*at)->members[i], err);
            (*at)->n_members += st == APIUM_OK;
        }
    }
    if (st != APIUM_OK)
        apium_run_free(first);
    else
        *out = first;
    return st;
}

apium_status
apm_run_of_handle(apium_app *app, const apm_handle *handle, apium_run **out, apium_error *err)
{
    return of_handle(app, handle, NULL, out, err);
}

static void
free_some(apium_run **runs, size_t n)
{
    for (size_t i = 0; i < n; i++)
        apium_run_free(runs[i]);
    free(runs);
}

void
apium_run_free(apium_run *run)
{
    for (apium_run *parent; run; run = parent) {
        parent = run->parent;
        apm_run_unwatch(run);
        apm_gathering_free(run->gathering);
        free_some(run->members, run->n_members);
        free_some(run->children, run->n_children);
        free(run->waiter.doc);
        free(run->tuple);
        free(run->id);
        free(run);
    }
}

/* --- looking around --- */

const char *
apium_run_id(const apium_run *run)
{
    return run->id;
}

bool
apium_run_is_group(const apium_run *run)
{
    return run->is_group;
}

apium_run *
apium_run_parent(const apium_run *run)
{
    return run->parent;
}

apium_run *
apium_run_child(const apium_run *run, size_t i)
{
    if (run->is_group)
        return i < run->n_members ? run->members[i] : NULL;
    return i < run->n_children ? run->children[i] : NULL;
}

apium_status
apm_run_each(apium_run *run, apm_run_fn *fn, void *arg, apium_error *err)
{
    size_t n = 0;
    for (const apium_run *at = run; at; at = at->parent)
        n++;
    apium_run **line = calloc(n, sizeof(apium_run *));
    apium_status st = line ? APIUM_OK : no_memory(err);
    size_t i = n;
    for (apium_run *at = run; line && at; at = at->parent)
        line[--i] = at;
    for (i = 0; st == APIUM_OK && i < n; i++) {
        if (!line[i]->is_group)
            st = fn(arg, line[i], err);
        for (size_t m = 0; st == APIUM_OK && m < line[i]->n_members; m++)
            st = apm_run_each(line[i]->members[m], fn, arg, err);
    }
    free(line);
    return st;
}

/* --- tuples --- */

static void
write_tuple(apm_buf *buf, const apium_run *run, int depth)
{
    apm_buf_addz(buf, "[[");
    apm_json_add_stringz(buf, run->id);
    apm_buf_addz(buf, ", ");
    if (run->parent && depth < APM_JSON_DEPTH / 4) /* what is deeper could not be read again */
        write_tuple(buf, run->parent, depth + 1);
    else
        apm_buf_addz(buf, "null");
    apm_buf_addz(buf, run->is_group ? "], [" : "], null");
    for (size_t i = 0; i < run->n_members; i++) {
        apm_buf_addz(buf, i ? ", " : "");
        write_tuple(buf, run->members[i], depth + 1);
    }
    apm_buf_addz(buf, run->is_group ? "]]" : "]");
}

const char *
apium_run_tuple(apium_run *run)
{
    apm_buf buf;
    if (run->tuple)
        return run->tuple;
    apm_buf_init(&buf, APM_BUF_MAX);
    write_tuple(&buf, run, 0);
    run->tuple = apm_buf_take(&buf, NULL);
    return run->tuple;
}

static apium_status
of_tuple(apium_app *app, apm_json tuple, apium_run *top, apium_run **out, apium_error *err);

static apium_status
read_members(apium_run *run, apm_json nodes, apium_error *err)
{
    apm_json_iter it;
    apm_json item;
    apm_str key;
    apium_status st = make_members(run, apm_json_count(nodes), err);
    if (st == APIUM_OK)
        st = apm_json_open(&it, nodes.text, err);
    while (st == APIUM_OK && apm_json_next(&it, &key, &item, NULL) > 0) {
        st = of_tuple(run->app, item, run->top, &run->members[run->n_members], err);
        run->n_members += st == APIUM_OK;
    }
    return st;
}

/* [id or [id, parent], null or [member...]]; parsing has bounded how deep. */
static apium_status
of_tuple(apium_app *app, apm_json tuple, apium_run *top, apium_run **out, apium_error *err)
{
    apm_json head = apm_json_at(tuple, 0), nodes = apm_json_at(tuple, 1);
    apm_json id = head.type == APM_JSON_ARRAY ? apm_json_at(head, 0) : head,
             parent = head.type == APM_JSON_ARRAY ? apm_json_at(head, 1) : (apm_json){ 0 };
    apm_arena arena = { 0 };
    apium_run *run = NULL;
    const char *text;

    if (tuple.type != APM_JSON_ARRAY || id.type != APM_JSON_STRING ||
        apm_json_cstr(id, "id", &arena, &text, NULL) != APIUM_OK || !*text) {
        apm_arena_clear(&arena);
        return apm_fail(err, APIUM_E_INVALID, "%.*s is no result tuple",
                        (int)(tuple.text.len < 60 ? tuple.text.len : 60),
                        tuple.text.p ? tuple.text.p : "");
    }
    apium_status st = apm_run_new(app, apm_strz(text), &run, err);
    apm_arena_clear(&arena);
    if (st != APIUM_OK)
        return st;
    run->top = top ? top : run;
    if (nodes.type == APM_JSON_ARRAY)
        st = read_members(run, nodes, err);
    else if (nodes.type != APM_JSON_NULL && nodes.type != APM_JSON_NONE)
        st = apm_fail(err, APIUM_E_INVALID, "the members of %s are no list", run->id);
    if (st == APIUM_OK && parent.type != APM_JSON_NULL && parent.type != APM_JSON_NONE)
        st = of_tuple(app, parent, run->top, &run->parent, err);
    if (st != APIUM_OK)
        apium_run_free(run);
    else
        *out = run;
    return st;
}

apium_status
apium_run_of_tuple(apium_app *app, const char *json, apium_run **out, apium_error *err)
{
    apium_error why;
    apm_json tuple;
    apium_status st = apm_json_parse(apm_strz(json), &tuple, &why);
    if (st == APIUM_OK)
        st = of_tuple(app, tuple, NULL, out, &why);
    return st == APIUM_OK ? st : apm_fail(err, st, "cannot open a run: %s", why.text);
}

/* --- what came of a task --- */

/* A list of tuples becomes the run's children. */
static apium_status
read_children(apium_run *run, const char *list, apium_error *err)
{
    apm_json array, item;
    apm_json_iter it;
    apm_str key;
    free_some(run->children, run->n_children);
    run->children = NULL;
    run->n_children = 0;
    if (!list)
        return APIUM_OK;
    apium_status st = apm_json_parse(apm_strz(list), &array, err);
    if (st == APIUM_OK && !(run->children = calloc(apm_json_count(array) + 1, sizeof(apium_run *))))
        st = no_memory(err);
    if (st == APIUM_OK)
        st = apm_json_open(&it, array.text, err);
    while (st == APIUM_OK && apm_json_next(&it, &key, &item, NULL) > 0) {
        st = of_tuple(run->app, item, NULL, &run->children[run->n_children], err);
        run->n_children += st == APIUM_OK;
    }
    return st;
}

apium_status
apium_run_children(apium_run *run, size_t *n, apium_error *err)
{
    apium_result *res;
    apium_error why;
    if (run->is_group) {
        *n = run->n_members;
        return APIUM_OK;
    }
    apium_status st = apium_state(run, &res, err);
    if (st != APIUM_OK)
        return st;
    st = read_children(run, apium_result_children(res), &why);
    apium_result_free(res);
    if (st != APIUM_OK)
        return apm_run_words(err, "read the children of", run, &why);
    *n = run->n_children;
    return APIUM_OK;
}

/* --- under an id of its own --- */

static apium_status
store_group(apium_run *run, apm_conn *conn, apm_backend *backend, apm_str doc, apium_error *err)
{
    apm_unit *unit = apm_unit_new(backend->link);
    apm_answer *answer = apm_answer_new();
    apium_status st = unit && answer ? APIUM_OK : no_memory(err);
    if (st == APIUM_OK)
        st = backend->ops->save_group(backend, unit, apm_strz(run->id), doc, err);
    if (st == APIUM_OK) {
        apm_unit_commit(unit, apm_answer_done, answer);
        st = apm_answer_wait(conn, &answer, err);
    } else {
        apm_unit_drop(unit);
    }
    apm_answer_free(answer);
    return st;
}

apium_status
apium_run_save(apium_run *run, apium_error *err)
{
    apm_conn *conn;
    apm_backend *backend;
    apium_error why;
    const char *tuple = apium_run_tuple(run);
    apm_buf doc;

    if (!run->is_group)
        return apm_fail(err, APIUM_E_INVALID, "cannot save task %s: it is no group", run->id);
    apium_status st = apm_run_backend(run, &conn, &backend, &why);
    if (st == APIUM_OK && !backend->ops->save_group)
        st = apm_fail(&why, APIUM_E_UNSUPPORTED, "the result backend %s keeps no groups",
                      backend->ops->name);
    apm_buf_init(&doc, APM_BUF_MAX);
    apm_buf_addf(&doc, "{\"result\": %s}", tuple ? tuple : "");
    if (st == APIUM_OK && (!tuple || doc.failed))
        st = no_memory(&why);
    if (st == APIUM_OK)
        st = store_group(run, conn, backend, apm_buf_str(&doc), &why);
    apm_buf_clear(&doc);
    return st == APIUM_OK ? st : apm_run_words(err, "save", run, &why);
}

/* The stored document of a group; NULL when there is none. */
static apium_status
fetch_group(apium_run *run, apm_answer **answer, apium_error *err)
{
    apm_conn *conn;
    apm_backend *backend;
    apium_status st = apm_run_backend(run, &conn, &backend, err);
    if (st == APIUM_OK && !backend->ops->fetch_group)
        st = apm_fail(err, APIUM_E_UNSUPPORTED, "the result backend %s keeps no groups",
                      backend->ops->name);
    if (st == APIUM_OK && !(*answer = apm_answer_new()))
        st = no_memory(err);
    if (st == APIUM_OK) {
        backend->ops->fetch_group(backend, run->id, apm_answer_doc, *answer);
        st = apm_answer_wait(conn, answer, err);
    }
    return st;
}

apium_status
apium_run_restore(apium_app *app, const char *group_id, apium_run **out, apium_error *err)
{
    apm_answer *answer = NULL;
    apium_run *asked;
    apium_error why;
    apm_json doc;

    apium_status st = apium_run_of(app, group_id, &asked, err);
    if (st != APIUM_OK)
        return st;
    asked->is_group = true;
    st = fetch_group(asked, &answer, &why);
    if (st == APIUM_OK && !answer->doc)
        st = apm_fail(&why, APIUM_E_NOTFOUND, "none was saved");
    if (st == APIUM_OK)
        st = apm_json_parse((apm_str){ answer->doc, answer->doc_len }, &doc, &why);
    if (st == APIUM_OK)
        st = of_tuple(app, apm_json_get(doc, "result"), NULL, out, &why);
    if (st != APIUM_OK)
        apm_run_words(err, "restore", asked, &why);
    apm_answer_free(answer);
    apium_run_free(asked);
    return st;
}
