/* groups.c - see groups.h */
#include "backends/groups.h"

#include <stdio.h>
#include <stdlib.h>

#include "core/base/error.h"

static apium_status
no_memory(apm_str group_id, apium_error *err)
{
    return apm_fail(err, APIUM_E_NOMEM, "cannot use the group %.*s: out of memory",
                    APM_STR_ARG(group_id));
}

char *
apm_group_doc_id(apm_str group_id)
{
    char *id = NULL;
    return asprintf(&id, "group/%.*s", APM_STR_ARG(group_id)) < 0 ? NULL : id;
}

apium_status
apm_group_save(apm_backend *backend, apm_unit *unit, apm_str group_id, apm_str doc,
               apium_error *err)
{
    char *id = apm_group_doc_id(group_id);
    if (!id)
        return no_memory(group_id, err);
    const apm_record record = { .task_id = apm_strz(id), .state = APM_STR("GROUP"), .doc = doc };
    apium_status st = backend->ops->record(backend, unit, &record, err);
    free(id);
    return st;
}

void
apm_group_fetch(apm_backend *backend, const char *group_id, apm_fetch_cb *done, void *arg)
{
    char *id = apm_group_doc_id(apm_strz(group_id));
    if (id) {
        backend->ops->fetch(backend, id, done, arg);
    } else {
        apium_error err;
        (void)no_memory(apm_strz(group_id), &err);
        done(arg, APM_STR_NONE, &err);
    }
    free(id);
}

void
apm_group_forget(apm_backend *backend, const char *group_id, apm_backend_done *done, void *arg)
{
    char *id = apm_group_doc_id(apm_strz(group_id));
    if (id) {
        backend->ops->forget(backend, id, done, arg);
    } else if (done) {
        apium_error err;
        apium_status st = no_memory(apm_strz(group_id), &err);
        done(arg, st, &err);
    }
    free(id);
}
