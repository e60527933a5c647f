/* errbacks.c - who is told of a failure: by a message with the failed id, or by a call in this process; see follow_inner.h */
#include "workflows/follow_inner.h"

#include "core/base/error.h"

/* The arguments of an errback that is called here: the request, the exception, the traceback. */
static apm_str
call_args(apm_arena *arena, const struct apm_failed *failed, apm_str own_args)
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
    const struct apm_failed *failed;
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
        return apm_follow_no_memory(c->err);
    c->out->n_calls++;
    return APIUM_OK;
}

/* Errbacks that this process calls are taken out of *list. */
static apium_status
gather_calls(apm_sending *how, apm_str *list, const struct apm_failed *failed, apm_follow *out,
             apium_error *err)
{
    struct calling c = { .how = how, .failed = failed, .out = out, .err = err };
    size_t n = apm_count_items(*list);
    if (!n || !how->calls)
        return APIUM_OK;
    apm_errback_call *calls = apm_arena_alloc(how->arena, (out->n_calls + n) * sizeof(*out->calls));
    if (!calls)
        return apm_follow_no_memory(err);
    if (out->n_calls)
        memcpy(calls, out->calls, out->n_calls * sizeof(*calls));
    out->calls = calls;
    size_t before = out->n_calls;
    apm_buf_init(&c.others, APM_BUF_MAX);
    apm_buf_addc(&c.others, '[');
    apium_status st = apm_each_item(*list, add_call, &c, err);
    apm_buf_addc(&c.others, ']');
    if (st == APIUM_OK && out->n_calls > before) {
        *list = c.others.failed ? APM_STR_NONE
                                : apm_arena_str(how->arena, apm_buf_str(&c.others), NULL);
        if (!apm_str_is(*list))
            st = apm_follow_no_memory(err);
    }
    apm_buf_clear(&c.others);
    return st;
}

apium_status
apm_send_errbacks(apm_sending *how, apm_str list, const struct apm_failed *failed, apm_str root_id,
                  apm_buf *sent, apm_follow *out, apium_error *err)
{
    apm_options options;
    apm_str failed_id = failed->req->id;
    apm_str partial = apm_array_of_text(failed_id, how->arena);
    apium_status st = gather_calls(how, &list, failed, out, err);
    if (st != APIUM_OK || !apm_count_items(list))
        return st;
    if (!apm_str_is(partial))
        return apm_follow_no_memory(err);
    apm_str root = how->root_id, parent = how->parent_id;
    apm_buf *children = how->children;
    how->root_id = apm_str_is(root_id) ? root_id : failed_id;
    how->parent_id = failed_id;
    how->children = sent;
    st = apm_origin_options(how, &options, err);
    if (st == APIUM_OK)
        st = apm_send_links(how, list, partial, &options, true, err);
    how->root_id = root;
    how->parent_id = parent;
    how->children = children;
    return st;
}
