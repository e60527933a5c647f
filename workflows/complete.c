/* complete.c - a header is complete: its body is sent, or told how it failed; see follow.h */
#include "workflows/follow_inner.h"

#include "core/base/error.h"
#include "core/model/result.h"
#include "workflows/gather.h"

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
        st = apm_follow_no_memory(err);
    *cause = (apm_exception){ APM_STR("Exception"), APM_STR("builtins"), APM_STR("[]") };
    if (st == APIUM_OK && apm_result_read(text, arena, &read, NULL) == APIUM_OK &&
        apm_str_is(read.exc.type))
        *cause = read.exc;
    apm_buf_reset(&doc);
    apm_buf_addf(&doc, "Dependency %.*s raised ", APM_STR_ARG(id));
    apm_exception_repr(&doc, cause);
    *exc = (apm_exception){ APM_STR("ChordError"), APM_STR("celery.exceptions"),
                            apm_array_of_text(apm_buf_str(&doc), arena) };
    if (st == APIUM_OK && (doc.failed || !apm_str_is(exc->args)))
        st = apm_follow_no_memory(err);
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
    struct apm_marking m = { .how = how,
                             .out = out,
                             .exc = sig->kind == APM_SIG_GROUP && !apm_canvas_rest(&sig->options)
                                        ? cause
                                        : exc,
                             .state = APM_STR("FAILURE"),
                             .err = err };
    m.exc_json = apm_mark_exception(how->arena, m.exc);
    if (!apm_str_is(m.exc_json))
        return apm_follow_no_memory(err);
    st = apm_mark_sig(&m, sig);
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
            list = apm_array_of_one(list, how->arena);
        /* Celery calls them before it stores the failure, so they are its children. */
        apm_buf sent;
        apm_buf_init(&sent, APM_BUF_MAX);
        const apm_request body_req = {
            .id = id,
            .task = bearer->task,
            .args = bearer->args,
            .kwargs = bearer->kind == APM_SIG_TASK ? bearer->kwargs : APM_STR_NONE,
        };
        const struct apm_failed failed = { &body_req, exc, APM_STR_NONE };
        st = apm_str_is(list) ? apm_send_errbacks(how, list, &failed, APM_STR_NONE, &sent, out, err)
                              : apm_follow_no_memory(err);
        if (st == APIUM_OK && out->n_unrun && sent.len)
            out->unrun[0].children = apm_array_of_one(apm_buf_str(&sent), how->arena);
        apm_buf_clear(&sent);
    }
    return st;
}
