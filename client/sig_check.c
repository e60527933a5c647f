/* sig_check.c - what is wrong with a signature that came from elsewhere, and where; see sig.h. */
#include "client/sig.h"

#include <stdlib.h>
#include <uthash.h>

#include "core/base/error.h"

/* --- where --- */

#define MANY 256 /* no list is long that is not an error: beyond it the index alone tells */

/* A way into a signature, from the inside out: "kwargs", "tasks", [2]. */
typedef struct where {
    const struct where *up;
    const char *member; /* NULL: an item of a list */
    size_t index;
} where;

static void
print_where(const where *at, apm_buf *buf)
{
    if (!at)
        return;
    print_where(at->up, buf);
    if (!at->member)
        apm_buf_addf(buf, "[%zu]", at->index);
    else
        apm_buf_addf(buf, "%s%s", buf->len ? "." : "", at->member);
}

static apium_status
wrong(const where *at, apium_error *err, const char *what)
{
    apm_buf buf;
    apm_buf_init(&buf, MANY);
    print_where(at, &buf);
    apium_status st = buf.len ? apm_fail(err, APIUM_E_INVALID, "%s %s", buf.p, what)
                              : apm_fail(err, APIUM_E_INVALID, "it %s", what);
    apm_buf_clear(&buf);
    return st;
}

/* --- its form --- */

static bool
given(apm_json val)
{
    return val.type != APM_JSON_NONE && val.type != APM_JSON_NULL;
}

static apium_status check(apm_json json, const where *at, int depth, apium_error *err);

static apium_status
check_list(apm_json list, const where *at, int depth, apium_error *err)
{
    apm_json_iter it;
    apm_json item;
    apm_str key;
    where inside = { .up = at };
    apium_status st = apm_json_open(&it, list.text, err);
    for (; st == APIUM_OK && apm_json_next(&it, &key, &item, NULL) > 0; inside.index++)
        st = check(item, &inside, depth + 1, err);
    return st;
}

/* One signature, or a list of them. */
static apium_status
check_some(apm_json val, const where *at, int depth, apium_error *err)
{
    if (!given(val))
        return APIUM_OK;
    if (val.type == APM_JSON_ARRAY)
        return check_list(val, at, depth, err);
    return val.type == APM_JSON_OBJECT
               ? check(val, at, depth + 1, err)
               : wrong(at, err, "is neither a signature nor a list of them");
}

static apium_status
check_options(apm_json options, const where *at, int depth, apium_error *err)
{
    static const char *const links[] = { "link", "link_error", "chain", "chord" };
    apium_status st = APIUM_OK;
    for (size_t i = 0; i < sizeof(links) / sizeof(*links) && st == APIUM_OK; i++) {
        const where inside = { .up = at, .member = links[i] };
        st = check_some(apm_json_get(options, links[i]), &inside, depth, err);
    }
    return st;
}

static apium_status
check_tasks(apm_json kwargs, const where *at, int depth, apium_error *err)
{
    const where inside = { .up = at, .member = "tasks" };
    apm_json tasks = apm_json_get(kwargs, "tasks");
    if (tasks.type == APM_JSON_NONE)
        return wrong(&inside, err, "is missing");
    return tasks.type == APM_JSON_ARRAY ? check_list(tasks, &inside, depth, err)
                                        : wrong(&inside, err, "is no list");
}

static apium_status
check_chord(apm_json kwargs, const where *at, int depth, apium_error *err)
{
    const where in_header = { .up = at, .member = "header" },
                in_body = { .up = at, .member = "body" };
    apm_json header = apm_json_get(kwargs, "header"), body = apm_json_get(kwargs, "body");
    if (header.type == APM_JSON_NONE)
        return wrong(&in_header, err, "is missing");
    if (header.type != APM_JSON_ARRAY && header.type != APM_JSON_OBJECT)
        return wrong(&in_header, err, "is no list");
    if (!given(body))
        return wrong(&in_body, err, "is missing");
    apium_status st = check_some(header, &in_header, depth, err);
    return st == APIUM_OK ? check(body, &in_body, depth + 1, err) : st;
}

static bool
is_word(apm_json val, const char *word)
{
    return val.type == APM_JSON_STRING && apm_json_key_is(val.text, word);
}

/* A task's name: text, not empty, without a NUL. */
static bool
is_name(apm_json task)
{
    apm_arena arena = { 0 };
    const char *name = NULL;
    bool ok = task.type == APM_JSON_STRING &&
              apm_json_cstr(task, "task", &arena, &name, NULL) == APIUM_OK && *name;
    apm_arena_clear(&arena);
    return ok;
}

static apium_status
check(apm_json json, const where *at, int depth, apium_error *err)
{
    const where in_task = { .up = at, .member = "task" }, in_args = { .up = at, .member = "args" },
                in_kwargs = { .up = at, .member = "kwargs" },
                in_options = { .up = at, .member = "options" };
    if (json.type != APM_JSON_OBJECT)
        return wrong(at, err, "is no object");
    if (depth > APM_CANVAS_DEPTH)
        return apm_fail(err, APIUM_E_TOOBIG, "it is nested deeper than %d", APM_CANVAS_DEPTH);
    apm_json task = apm_json_get(json, "task"), args = apm_json_get(json, "args"),
             kwargs = apm_json_get(json, "kwargs"), options = apm_json_get(json, "options"),
             type = apm_json_get(json, "subtask_type");
    if (!given(task))
        return wrong(at, err, "names no task");
    if (!is_name(task))
        return wrong(&in_task, err, "is no name");
    if (given(args) && args.type != APM_JSON_ARRAY)
        return wrong(&in_args, err, "is no array");
    if (given(kwargs) && kwargs.type != APM_JSON_OBJECT)
        return wrong(&in_kwargs, err, "is no object");
    if (given(options) && options.type != APM_JSON_OBJECT)
        return wrong(&in_options, err, "is no object");
    apium_status st = given(options) ? check_options(options, &in_options, depth, err) : APIUM_OK;
    if (st != APIUM_OK)
        return st;
    if (is_word(type, "chain") || is_word(type, "group"))
        return check_tasks(kwargs, &in_kwargs, depth, err);
    return is_word(type, "chord") ? check_chord(kwargs, &in_kwargs, depth, err) : APIUM_OK;
}

apium_status
apm_sig_check(apm_json json, apium_error *err)
{
    return check(json, NULL, 0, err);
}

/* --- its ids --- */

struct used {
    apm_str id;
    char *where;
    UT_hash_handle hh;
};

static apium_status
note_id(struct used **all, apm_str id, const where *at, apium_error *err)
{
    struct used *found;
    apm_buf path;
    apm_buf_init(&path, APM_BUF_MAX);
    print_where(at, &path);
    HASH_FIND(hh, *all, id.p, id.len, found);
    if (found) {
        apium_status st = apm_fail(err, APIUM_E_INVALID, "the id %.*s is given twice: %s and %s",
                                   APM_STR_ARG(id), found->where, path.p);
        apm_buf_clear(&path);
        return st;
    }
    struct used *used = calloc(1, sizeof(*used));
    if (used)
        *used = (struct used){ .id = id, .where = apm_buf_take(&path, NULL) };
    if (!used || !used->where) {
        apm_buf_clear(&path);
        free(used);
        return apm_fail(err, APIUM_E_NOMEM, "out of memory");
    }
    HASH_ADD_KEYPTR(hh, *all, used->id.p, used->id.len, used);
    return APIUM_OK;
}

/* Of tasks alone: a chain has its last task's id, a chord that of the group that is its header. */
static apium_status
note_ids(struct used **all, const apm_canvas *tree, const where *at, apium_error *err)
{
    const apm_option *id = apm_canvas_opt(&tree->options, APM_OPT_TASK_ID);
    apium_status st = APIUM_OK;
    if (tree->kind == APM_SIG_TASK)
        return id && id->raw.len ? note_id(all, id->raw, at, err) : APIUM_OK;
    const where list = { .up = at, .member = tree->kind == APM_SIG_CHORD ? "header" : "tasks" };
    where inside = { .up = &list };
    for (; inside.index < tree->n_tasks && st == APIUM_OK; inside.index++)
        st = note_ids(all, tree->tasks[inside.index], &inside, err);
    const where body = { .up = at, .member = "body" };
    return st == APIUM_OK && tree->body ? note_ids(all, tree->body, &body, err) : st;
}

apium_status
apm_sig_check_ids(const apm_canvas *tree, apium_error *err)
{
    struct used *all = NULL, *used, *next;
    apium_status st = tree->kind == APM_SIG_TASK ? APIUM_OK : note_ids(&all, tree, NULL, err);
    HASH_ITER(hh, all, used, next)
    {
        HASH_DEL(all, used);
        free(used->where);
        free(used);
    }
    return st;
}
