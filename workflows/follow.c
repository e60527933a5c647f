/*
 * follow.c - callbacks, the next step of a chain, errbacks, the return of a chord's part, in Celery's order (docs/protocol.md "What a
 * worker does after a task"); see follow.h.
 */
#include "workflows/follow.h"

#include <stdlib.h>

#include "core/base/error.h"
#include "core/model/result.h"
#include "workflows/canvas_inner.h"
#include "workflows/gather.h"

typedef apium_status each_fn(void *arg, apm_json sig, size_t index);

static apium_status
no_memory(apium_error *err)
{
    return apm_fail(err, APIUM_E_NOMEM, "cannot go on after the task: out of memory");
}

/* Call fn for each item of a raw JSON array. */
static apium_status
each_item(apm_str list, each_fn *fn, void *arg, apium_error *err)
{
    if (!apm_str_is(list))
        return APIUM_OK;
    apm_json_iter it;
    apium_status st = apm_json_open(&it, list, err);
    apm_str key;
    apm_json val;
    int more = 0;
    for (size_t i = 0; st == APIUM_OK && (more = apm_json_next(&it, &key, &val, err)) > 0; i++)
        st = fn(arg, val, i);
    return st != APIUM_OK ? st : more < 0 ? APIUM_E_DECODE : APIUM_OK;
}

static size_t
count(apm_str list)
{
    return apm_str_is(list) ? apm_json_count((apm_json){ APM_JSON_ARRAY, list }) : 0;
}

static apm_str
array_of_one(apm_str item, apm_arena *arena)
{
    char *p = apm_arena_bytes(arena, item.len + 2);
    if (!p)
        return APM_STR_NONE;
    p[0] = '[';
    memcpy(p + 1, item.p, item.len);
    p[item.len + 1] = ']';
    return (apm_str){ p, item.len + 2 };
}

static apm_str
array_of_text(apm_str text, apm_arena *arena)
{
    apm_buf buf;
    apm_buf_init(&buf, APM_BUF_MAX);
    apm_buf_addc(&buf, '[');
    apm_json_add_string(&buf, text);
    apm_buf_addc(&buf, ']');
    apm_str out = buf.failed ? APM_STR_NONE : apm_arena_str(arena, apm_buf_str(&buf), NULL);
    apm_buf_clear(&buf);
    return out;
}

/* What the worker passes beside the arguments: who it comes from; the priority is not inherited. */
static apium_status
origin_options(const apm_sending *how, apm_options *options, apium_error *err)
{
    apm_arena *arena = how->arena;
    *options = (apm_options){ 0 };
    return apm_canvas_set_text(arena, options, APM_OPT_ROOT_ID, how->root_id) &&
                   apm_canvas_set_text(arena, options, APM_OPT_PARENT_ID, how->parent_id)
               ? APIUM_OK
               : no_memory(err);
}

static apium_status
no_priority(const apm_sending *how, apm_options *options, apium_error *err)
{
    return apm_canvas_set_named(how->arena, options, "priority", APM_STR("null")) ? APIUM_OK
                                                                                  : no_memory(err);
}

/* ---- success ---- */

struct links {
    apm_sending *how;
    apm_str partial;
    const apm_options *options;
    apm_canvas *together; /* all that are no groups, when there are several */
    apium_error *err;
};

static apium_status
send_link(void *arg, apm_json text, size_t index)
{
    (void)index;
    struct links *links = arg;
    apm_canvas *sig;
    apium_status st = apm_canvas_read(text, links->how->arena, &sig, links->err);
    if (st != APIUM_OK)
        return st;
    if (links->together && sig->kind != APM_SIG_GROUP) {
        links->together->tasks[links->together->n_tasks++] = sig;
        return APIUM_OK;
    }
    return apm_canvas_apply(links->how, sig, links->partial, links->options, NULL, links->err);
}

/* One link is sent by itself; of several, groups by themselves and all others as one new group. */
static apium_status
send_links(apm_sending *how, apm_str list, apm_str partial, const apm_options *options,
           bool always_group, apium_error *err)
{
    size_t n = count(list);
    struct links links = { how, partial, options, NULL, err };
    if (!n)
        return APIUM_OK;
    if (n > 1 || always_group) {
        links.together = apm_canvas_new(how->arena, APM_SIG_GROUP, "celery.group");
        if (!links.together ||
            !(links.together->tasks = apm_arena_alloc(how->arena, n * sizeof(apm_canvas *))))
            return no_memory(err);
    }
    apium_status st = each_item(list, send_link, &links, err);
    if (st == APIUM_OK && links.together && links.together->n_tasks)
        st = apm_canvas_apply(how, links.together, partial, options, NULL, err);
    return st;
}

/* The array without its last item: what remains of a chain (its last element runs next). */
static apm_str
without_last(apm_str list, apm_arena *arena, apm_json *last)
{
    size_t n;
    *last = apm_json_last((apm_json){ APM_JSON_ARRAY, list }, &n);
    if (n < 2)
        return APM_STR("[]");
    size_t len = (size_t)(last->text.p - list.p);
    while (len && list.p[len - 1] != ',')
        len--;
    char *p = apm_arena_bytes(arena, len);
    if (!p)
        return APM_STR_NONE;
    memcpy(p, list.p, len);
    p[len - 1] = ']';
    return (apm_str){ p, len };
}

static apium_status
send_next_step(apm_sending *how, apm_str chain, apm_str partial, apm_options *options,
               apium_error *err)
{
    apm_json next;
    apm_canvas *sig;
    if (!apm_str_is(chain) || apm_json_empty((apm_json){ APM_JSON_ARRAY, chain }))
        return APIUM_OK;
    apm_str rest = without_last(chain, how->arena, &next);
    if (!apm_str_is(rest) || !apm_canvas_set(how->arena, options, APM_OPT_CHAIN, rest))
        return no_memory(err);
    apium_status st = apm_canvas_read(next, how->arena, &sig, err);
    return st == APIUM_OK ? apm_canvas_apply(how, sig, partial, options, NULL, err) : st;
}

static apium_status
after_success(apm_sending *how, const apm_request *req, apm_str result, apium_error *err)
{
    apm_options options;
    apm_str partial = array_of_one(result, how->arena);
    if (!apm_str_is(partial))
        return no_memory(err);
    apium_status st = origin_options(how, &options, err);
    if (st == APIUM_OK)
        st = no_priority(how, &options, err);
    if (st == APIUM_OK)
        st = send_links(how, req->callbacks, partial, &options, false, err);
    if (st == APIUM_OK)
        st = send_next_step(how, req->chain, partial, &options, err);
    return st;
}

/* ---- failure ---- */

struct marking {
    apm_sending *how;
    apm_follow *out;
    size_t cap_unrun, cap_returns;
    const apm_exception *exc;
    apm_str exc_json, state;
    apium_error *err;
};

static apium_status mark_chain(struct marking *m, apm_str chain);

static void *
grown(apm_arena *arena, void *items, size_t n, size_t *cap, size_t size)
{
    if (n < *cap)
        return items;
    size_t more = *cap ? 2 * *cap : 8;
    void *fresh = apm_arena_alloc(arena, more * size);
    if (fresh && n)
        memcpy(fresh, items, n * size);
    if (fresh)
        *cap = more;
    return fresh;
}

static apium_status
add_unrun(struct marking *m, const apm_request *req)
{
    apm_unrun *items =
        grown(m->how->arena, m->out->unrun, m->out->n_unrun, &m->cap_unrun, sizeof(*items));
    if (!items)
        return no_memory(m->err);
    m->out->unrun = items;
    items[m->out->n_unrun++] = (apm_unrun){ .req = *req, .exc = *m->exc };
    return APIUM_OK;
}

static apium_status
add_return(struct marking *m, const apm_return *part)
{
    apm_return *items =
        grown(m->how->arena, m->out->returns, m->out->n_returns, &m->cap_returns, sizeof(*items));
    if (!items)
        return no_memory(m->err);
    m->out->returns = items;
    items[m->out->n_returns++] = *part;
    return APIUM_OK;
}

apm_str
apm_follow_member(apm_arena *arena, apm_str task_id, apm_str state, apm_str result)
{
    apm_buf buf;
    apm_buf_init(&buf, APM_BUF_MAX);
    apm_buf_addz(&buf, "[1, ");
    apm_json_add_string(&buf, task_id);
    apm_buf_addz(&buf, ", ");
    apm_json_add_string(&buf, state);
    apm_buf_addz(&buf, ", ");
    apm_buf_adds(&buf, apm_str_is(result) ? result : APM_STR("null"));
    apm_buf_addc(&buf, ']');
    apm_str out = buf.failed ? APM_STR_NONE : apm_arena_str(arena, apm_buf_str(&buf), NULL);
    apm_buf_clear(&buf);
    return out;
}

static apm_str
exception_json(apm_arena *arena, const apm_exception *exc)
{
    apm_buf buf;
    apm_buf_init(&buf, APM_BUF_MAX);
    apm_exception_json(&buf, exc);
    apm_str out = buf.failed ? APM_STR_NONE : apm_arena_str(arena, apm_buf_str(&buf), NULL);
    apm_buf_clear(&buf);
    return out;
}

/* A signature that waited for what has failed: its own result, and whoever waits for that. Of a chain only the last step is
 * marked, which is the one that somebody waits for. */
static apium_status
mark_sig(struct marking *m, const apm_canvas *sig)
{
    apm_arena *arena = m->how->arena;
    apium_status st = APIUM_OK;

    if (sig->kind == APM_SIG_CHAIN) {
        if (sig->n_tasks)
            st = mark_sig(m, sig->tasks[sig->n_tasks - 1]);
        /* What was to follow the chain as a whole. */
        const apm_option *after = apm_canvas_opt(&sig->options, APM_OPT_CHAIN);
        return st == APIUM_OK && after && !after->sig ? mark_chain(m, after->raw) : st;
    }
    const apm_options *options = &sig->options;
    apm_request req = { .id = apm_canvas_opt_text(arena, options, APM_OPT_TASK_ID),
                        .task = sig->task,
                        .group = apm_canvas_opt_text(arena, options, APM_OPT_GROUP_ID),
                        .reply_to = apm_canvas_opt_text(arena, options, APM_OPT_REPLY_TO),
                        .args = apm_str_is(sig->args) ? sig->args : APM_STR("[]"),
                        .kwargs = sig->kind == APM_SIG_TASK && apm_str_is(sig->kwargs)
                                      ? sig->kwargs
                                      : APM_STR("{}"),
                        .group_index = -1,
                        .eta_us = APM_TIME_NONE,
                        .expires_us = APM_TIME_NONE,
                        .ignore_result = APM_UNSET,
                        .priority = APM_PRIORITY_NONE };
    const apm_option *chord = apm_canvas_opt(options, APM_OPT_CHORD),
                     *index = apm_canvas_opt(options, APM_OPT_GROUP_INDEX);
    if (index)
        (void)apm_json_int64((apm_json){ APM_JSON_INT, index->raw }, "group_index",
                             &req.group_index, NULL);
    if (apm_str_is(req.id))
        st = add_unrun(m, &req);
    if (st == APIUM_OK && sig->kind == APM_SIG_CHORD)
        st = mark_sig(m, sig->body);
    if (st == APIUM_OK && sig->kind == APM_SIG_GROUP) {
        /* Celery leaves its members pending, and whoever waits for them waits for ever. Within a header they return, too. */
        for (size_t i = 0; i < sig->n_tasks && st == APIUM_OK; i++)
            st = mark_sig(m, sig->tasks[i]);
    }
    if (st == APIUM_OK && chord && sig->kind == APM_SIG_TASK && apm_str_is(req.group) &&
        apm_str_is(req.id)) {
        const apm_return part = { .group_id = req.group,
                                  .task_id = req.id,
                                  .index = req.group_index,
                                  .member = apm_follow_member(arena, req.id, m->state, m->exc_json),
                                  .body = chord->raw };
        st = apm_str_is(part.member) ? add_return(m, &part) : no_memory(m->err);
    }
    const apm_option *rest = apm_canvas_opt(options, APM_OPT_CHAIN);
    return st == APIUM_OK && rest && !rest->sig ? mark_chain(m, rest->raw) : st;
}

static apium_status
mark_item(void *arg, apm_json text, size_t index)
{
    (void)index;
    struct marking *m = arg;
    apm_canvas *sig;
    /* A step that is no signature would have failed when it was reached; it holds nobody up. */
    if (apm_canvas_read(text, m->how->arena, &sig, NULL) != APIUM_OK)
        return APIUM_OK;
    return mark_sig(m, sig);
}

/* The steps that will not be reached, the last one first. */
static apium_status
mark_chain(struct marking *m, apm_str chain)
{
    return each_item(chain, mark_item, m, m->err);
}

/* What failed, as its errbacks are told of it. */
struct failed {
    const apm_request *req; /* its id, task, arguments ... */
    const apm_exception *exc;
    apm_str traceback;
};

/* The arguments of an errback that is called here: the request, the exception, the traceback. */
static apm_str
call_args(apm_arena *arena, const struct failed *failed, apm_str own_args)
{
    const apm_request *req = failed->req;
    apm_buf buf;
    apm_buf_init(&buf, APM_BUF_MAX);
    apm_buf_addz(&buf, "[{\"id\": ");
    apm_json_add_string(&buf, req->id);
    apm_buf_addz(&buf, ", \"task\": ");
    apm_json_add_string(&buf, req->task);
    apm_buf_addz(&buf, ", \"args\": ");
    apm_buf_adds(&buf, apm_str_is(req->args) ? req->args : APM_STR("[]"));
    apm_buf_addz(&buf, ", \"kwargs\": ");
    apm_buf_adds(&buf, apm_str_is(req->kwargs) ? req->kwargs : APM_STR("{}"));
    const struct {
        const char *name;
        apm_str text;
    } ids[] = { { "root_id", req->root_id },
                { "parent_id", req->parent_id },
                { "group", req->group } };
    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        apm_json_add_key(&buf, ids[i].name);
        if (apm_str_is(ids[i].text))
            apm_json_add_string(&buf, ids[i].text);
        else
            apm_buf_addz(&buf, "null");
    }
    apm_json_add_key(&buf, "retries");
    apm_json_add_int(&buf, req->retries);
    apm_buf_addz(&buf, "}, ");
    apm_exception_json(&buf, failed->exc);
    apm_buf_addz(&buf, ", ");
    if (apm_str_is(failed->traceback))
        apm_json_add_string(&buf, failed->traceback);
    else
        apm_buf_addz(&buf, "null");
    apm_buf_addc(&buf, ']');
    apm_str args = buf.failed ? APM_STR_NONE : apm_arena_str(arena, apm_buf_str(&buf), NULL);
    apm_buf_clear(&buf);
    return apm_str_is(args) ? apm_canvas_concat(arena, args, own_args) : args;
}

struct calling {
    apm_sending *how;
    const struct failed *failed;
    apm_follow *out;
    apm_buf others; /* what is sent as a message instead */
    apium_error *err;
};

static apium_status
add_call(void *arg, apm_json text, size_t index)
{
    (void)index;
    struct calling *c = arg;
    apm_canvas *sig;
    apium_status st = apm_canvas_read(text, c->how->arena, &sig, c->err);
    if (st != APIUM_OK)
        return st;
    if (sig->kind != APM_SIG_TASK || !c->how->calls(c->how->arg, sig->task)) {
        apm_buf_addz(&c->others, c->others.len > 1 ? ", " : "");
        apm_buf_adds(&c->others, text.text);
        return APIUM_OK;
    }
    apm_errback_call *call = &c->out->calls[c->out->n_calls];
    *call = (apm_errback_call){
        .task = sig->task,
        .args = call_args(c->how->arena, c->failed, sig->args),
        .kwargs = apm_str_is(sig->kwargs) ? sig->kwargs : APM_STR("{}"),
        .failed_id = c->failed->req->id,
    };
    if (!apm_str_is(call->args))
        return no_memory(c->err);
    c->out->n_calls++;
    return APIUM_OK;
}

/* Errbacks that this process calls are taken out of *list. */
static apium_status
gather_calls(apm_sending *how, apm_str *list, const struct failed *failed, apm_follow *out,
             apium_error *err)
{
    struct calling c = { .how = how, .failed = failed, .out = out, .err = err };
    size_t n = count(*list);
    if (!n || !how->calls)
        return APIUM_OK;
    apm_errback_call *calls = apm_arena_alloc(how->arena, (out->n_calls + n) * sizeof(*out->calls));
    if (!calls)
        return no_memory(err);
    if (out->n_calls)
        memcpy(calls, out->calls, out->n_calls * sizeof(*calls));
    out->calls = calls;
    size_t before = out->n_calls;
    apm_buf_init(&c.others, APM_BUF_MAX);
    apm_buf_addc(&c.others, '[');
    apium_status st = each_item(*list, add_call, &c, err);
    apm_buf_addc(&c.others, ']');
    if (st == APIUM_OK && out->n_calls > before) {
        *list = c.others.failed ? APM_STR_NONE
                                : apm_arena_str(how->arena, apm_buf_str(&c.others), NULL);
        if (!apm_str_is(*list))
            st = no_memory(err);
    }
    apm_buf_clear(&c.others);
    return st;
}

static apium_status
send_errbacks(apm_sending *how, apm_str list, const struct failed *failed, apm_str root_id,
              apm_buf *sent, apm_follow *out, apium_error *err)
{
    apm_options options;
    apm_str failed_id = failed->req->id;
    apm_str partial = array_of_text(failed_id, how->arena);
    apium_status st = gather_calls(how, &list, failed, out, err);
    if (st != APIUM_OK || !count(list))
        return st;
    if (!apm_str_is(partial))
        return no_memory(err);
    apm_str root = how->root_id, parent = how->parent_id;
    apm_buf *children = how->children;
    how->root_id = apm_str_is(root_id) ? root_id : failed_id;
    how->parent_id = failed_id;
    how->children = sent;
    st = origin_options(how, &options, err);
    if (st == APIUM_OK)
        st = send_links(how, list, partial, &options, true, err);
    how->root_id = root;
    how->parent_id = parent;
    how->children = children;
    return st;
}

static bool
is_failure(apm_outcome_kind kind)
{
    return kind == APM_DONE_FAILURE || kind == APM_DONE_LOST || kind == APM_DONE_TIMEOUT ||
           kind == APM_DONE_REVOKED || kind == APM_DONE_REJECT;
}

static apium_status
add_own_return(struct marking *m, const apm_request *req, apm_str state, apm_str result)
{
    if (!apm_str_is(req->chord) || !apm_str_is(req->group) || !apm_str_is(req->id))
        return APIUM_OK;
    const apm_return part = { .group_id = req->group,
                              .task_id = req->id,
                              .index = req->group_index,
                              .member = apm_follow_member(m->how->arena, req->id, state, result),
                              .body = req->chord };
    return apm_str_is(part.member) ? add_return(m, &part) : no_memory(m->err);
}

apium_status
apm_follow_outcome(apm_sending *how, const apm_request *req, const apm_outcome *outcome,
                   bool errbacks, apm_follow *out, apium_error *err)
{
    *out = (apm_follow){ .children = outcome->children };
    if (outcome->kind == APM_DONE_REPLACED)
        return apm_follow_replaced(how, req, outcome->replacement, err);
    bool success = outcome->kind == APM_DONE_SUCCESS, failure = is_failure(outcome->kind);
    bool chord = apm_str_is(req->chord), chain = apm_str_is(req->chain);
    if (!(success &&
          (chord || chain || apm_str_is(req->callbacks) || apm_str_is(outcome->added))) &&
        !(failure && (chord || chain || (errbacks && apm_str_is(req->errbacks)))))
        return APIUM_OK;

    how->root_id = apm_str_is(req->root_id) ? req->root_id : req->id;
    how->parent_id = req->id;
    struct marking m = { .how = how, .out = out, .err = err };
    if (failure) {
        m.exc = &outcome->exc;
        m.exc_json = exception_json(how->arena, &outcome->exc);
        m.state = outcome->kind == APM_DONE_REVOKED ? APM_STR("REVOKED") : APM_STR("FAILURE");
        if (!apm_str_is(m.exc_json))
            return no_memory(err);
        apium_status st = add_own_return(&m, req, m.state, m.exc_json);
        if (st == APIUM_OK)
            st = mark_chain(&m, req->chain);
        const struct failed failed = { req, &outcome->exc, outcome->traceback };
        if (st == APIUM_OK && errbacks)
            st = send_errbacks(how, req->errbacks, &failed, req->root_id, NULL, out, err);
        return st;
    }

    apm_buf children;
    apm_buf_init(&children, APM_BUF_MAX);
    how->children = &children;
    apium_status st = add_own_return(&m, req, APM_STR("SUCCESS"), outcome->result);
    if (st == APIUM_OK && apm_str_is(outcome->added))
        st = apm_follow_added(how, req, outcome->added, err);
    if (st == APIUM_OK)
        st = after_success(how, req, outcome->result, err);
    if (st == APIUM_OK && children.len) {
        apm_str own = outcome->children;
        bool some = apm_str_is(own) && apm_json_count((apm_json){ APM_JSON_ARRAY, own });
        out->children = apm_strz(apm_arena_printf(
            how->arena, "[%.*s%s%.*s]", some ? (int)(own.len - 2) : 0, some ? own.p + 1 : "",
            some ? ", " : "", APM_STR_ARG(apm_buf_str(&children))));
        if (children.failed || !apm_str_is(out->children))
            st = no_memory(err);
    }
    how->children = NULL;
    apm_buf_clear(&children);
    return st;
}

/* ---- a complete header ---- */

static apium_status
chord_error(apm_sending *how, const apm_part_read *member, apm_exception *exc, apm_exception *cause,
            apium_error *err)
{
    apm_buf doc;
    apm_result_doc read;
    apm_str id;
    apm_arena *arena = how->arena;
    apium_status st = apm_json_string((apm_json){ APM_JSON_STRING, member->task_id }, "a part's id",
                                      arena, &id, err);
    if (st != APIUM_OK)
        return st;
    apm_buf_init(&doc, APM_BUF_MAX);
    apm_buf_addz(&doc, "{\"status\": \"FAILURE\", \"result\": ");
    apm_buf_adds(&doc, member->result);
    apm_buf_addc(&doc, '}');
    apm_str text = doc.failed ? APM_STR_NONE : apm_arena_str(arena, apm_buf_str(&doc), NULL);
    if (!apm_str_is(text))
        st = no_memory(err);
    *cause = (apm_exception){ APM_STR("Exception"), APM_STR("builtins"), APM_STR("[]") };
    if (st == APIUM_OK && apm_result_read(text, arena, &read, NULL) == APIUM_OK &&
        apm_str_is(read.exc.type))
        *cause = read.exc;
    apm_buf_reset(&doc);
    apm_buf_addf(&doc, "Dependency %.*s raised ", APM_STR_ARG(id));
    apm_exception_repr(&doc, cause);
    *exc = (apm_exception){ APM_STR("ChordError"), APM_STR("celery.exceptions"),
                            array_of_text(apm_buf_str(&doc), arena) };
    if (st == APIUM_OK && (doc.failed || !apm_str_is(exc->args)))
        st = no_memory(err);
    apm_buf_clear(&doc);
    return st;
}

apium_status
apm_follow_send_body(apm_sending *how, apm_str body, apm_str results, apium_error *err)
{
    apm_canvas *sig;
    apm_json parsed;
    apium_status st = apm_json_parse(body, &parsed, err);
    if (st == APIUM_OK)
        st = apm_canvas_read(parsed, how->arena, &sig, err);
    return st == APIUM_OK ? apm_canvas_apply(how, sig, results, NULL, NULL, err) : st;
}

apium_status
apm_follow_complete(apm_sending *how, const apm_return *part, const apm_request *last,
                    apm_gathered *all, apm_follow *out, apium_error *err)
{
    *out = (apm_follow){ 0 };
    how->children = NULL;
    how->root_id = apm_str_is(last->root_id) ? last->root_id : last->id;
    how->parent_id = last->id;
    if (apm_str_is(all->failed)) {
        apm_part_read failed;
        apm_exception exc, cause;
        apium_status st = apm_gather_read(all->failed, &failed, err);
        if (st == APIUM_OK)
            st = chord_error(how, &failed, &exc, &cause, err);
        apm_gather_clear(all);
        return st == APIUM_OK ? apm_follow_body_failed(how, part->body, &exc, &cause, out, err)
                              : st;
    }
    apm_buf args;
    apium_status st = apm_gather_args(all, &args, err);
    apm_gather_clear(all);
    if (st == APIUM_OK)
        st = apm_follow_send_body(how, part->body, apm_buf_str(&args), err);
    apm_buf_clear(&args);
    return st;
}

apium_status
apm_follow_body_failed(apm_sending *how, apm_str body, const apm_exception *exc,
                       const apm_exception *cause, apm_follow *out, apium_error *err)
{
    apm_canvas *sig;
    apm_json parsed;
    *out = (apm_follow){ 0 };
    apium_status st = apm_json_parse(body, &parsed, err);
    if (st == APIUM_OK)
        st = apm_canvas_read(parsed, how->arena, &sig, err);
    if (st != APIUM_OK)
        return st;
    struct marking m = { .how = how,
                         .out = out,
                         .exc = sig->kind == APM_SIG_GROUP && !apm_canvas_rest(&sig->options)
                                    ? cause
                                    : exc,
                         .state = APM_STR("FAILURE"),
                         .err = err };
    m.exc_json = exception_json(how->arena, m.exc);
    if (!apm_str_is(m.exc_json))
        return no_memory(err);
    st = mark_sig(&m, sig);
    /* As Celery stores it: the failure of a body that was never sent says nothing of a group. */
    for (size_t i = 0; i < out->n_unrun; i++)
        out->unrun[i].req.group = APM_STR_NONE;
    /* A chain's errbacks were copied to each of its steps; the first one would have failed. */
    const apm_canvas *bearer = sig;
    const apm_option *links = apm_canvas_opt(&bearer->options, APM_OPT_LINK_ERROR);
    if (!links && sig->kind == APM_SIG_CHAIN && sig->n_tasks) {
        bearer = sig->tasks[sig->n_tasks - 1];
        links = apm_canvas_opt(&bearer->options, APM_OPT_LINK_ERROR);
    }
    apm_str id = apm_canvas_opt_text(how->arena, &bearer->options, APM_OPT_TASK_ID);
    if (!apm_str_is(id) && out->n_unrun) /* a chain of Celery's 5.2 has none: its last step's */
        id = out->unrun[0].req.id;
    if (st == APIUM_OK && links && apm_str_is(id)) {
        apm_str list = links->raw;
        if (list.len && list.p[0] != '[')
            list = array_of_one(list, how->arena);
        /* Celery calls them before it stores the failure, so they are its children. */
        apm_buf sent;
        apm_buf_init(&sent, APM_BUF_MAX);
        const apm_request body_req = {
            .id = id,
            .task = bearer->task,
            .args = bearer->args,
            .kwargs = bearer->kind == APM_SIG_TASK ? bearer->kwargs : APM_STR_NONE,
        };
        const struct failed failed = { &body_req, exc, APM_STR_NONE };
        st = apm_str_is(list) ? send_errbacks(how, list, &failed, APM_STR_NONE, &sent, out, err)
                              : no_memory(err);
        if (st == APIUM_OK && out->n_unrun && sent.len)
            out->unrun[0].children = array_of_one(apm_buf_str(&sent), how->arena);
        apm_buf_clear(&sent);
    }
    return st;
}
