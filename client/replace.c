/* replace.c - a task that becomes a workflow, or adds to the chord it is a part of. What is sent for it leaves with the outcome. */
#include <apium/send.h>

#include "client/task.h"

apium_verdict
apium_replace(apium_task *task, apium_sig *sig)
{
    apium_error err = { 0 };
    const char *json = sig ? apium_sig_json(sig, &err) : NULL;
    apm_str text = apm_arena_str(task->arena, apm_strz(json), NULL);
    apium_sig_free(sig);
    if (task->finished)
        return APIUM_REPLACED;
    if (!json)
        return apm_task_raisef(task, NULL, "ValueError", "cannot replace %s: %s", task->def->name,
                               sig ? err.text : "there is no signature");
    if (!apm_str_is(text))
        return apm_task_raisef(task, NULL, "MemoryError", "cannot replace %s: out of memory",
                               task->def->name);
    task->out->kind = APM_DONE_REPLACED;
    task->out->replacement = text;
    return APIUM_REPLACED;
}

apium_status
apium_add_to_chord(apium_task *task, apium_sig *sig, apium_error *err)
{
    apm_outcome *out = task->out;
    apium_status st = APIUM_OK;
    if (!apm_str_is(task->req->chord) || !apm_str_is(task->req->group))
        st = apm_fail(err, APIUM_E_INVALID,
                      "cannot add to a chord: %s is not a member of any chord", task->def->name);
    else if (!sig)
        st = apm_fail(err, APIUM_E_INVALID, "cannot add to a chord: there is no signature");
    const char *json = st == APIUM_OK ? apium_sig_json(sig, err) : NULL;
    if (st == APIUM_OK && !json)
        st = APIUM_E_INVALID;
    if (st == APIUM_OK) {
        bool some = apm_str_is(out->added);
        const char *added =
            apm_arena_printf(task->arena, "[%.*s%s%s]", some ? (int)(out->added.len - 2) : 0,
                             some ? out->added.p + 1 : "", some ? ", " : "", json);
        if (added)
            out->added = apm_strz(added);
        else
            st = apm_fail(err, APIUM_E_NOMEM, "cannot add to a chord: out of memory");
    }
    apium_sig_free(sig);
    return st;
}
