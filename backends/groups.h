/* groups.h - saved trees of groups, for stores that keep them among the results, under ids that no task has; slots of a backend. */
#ifndef APM_BACKENDS_GROUPS_H
#define APM_BACKENDS_GROUPS_H

#include "backends/backend.h"

/* The id, allocated; NULL without memory. */
char *apm_group_doc_id(apm_str group_id);

apium_status apm_group_save(apm_backend *backend, apm_unit *unit, apm_str group_id, apm_str doc,
                            apium_error *err);
void apm_group_fetch(apm_backend *backend, const char *group_id, apm_fetch_cb *done, void *arg);
void
apm_group_forget(apm_backend *backend, const char *group_id, apm_backend_done *done, void *arg);

#endif
