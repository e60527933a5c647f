/* memory_chords.h - counting the parts of chords in this process's memory; what memory.c needs of it for the backend's table. */
#ifndef APM_BACKENDS_MEMORY_CHORDS_H
#define APM_BACKENDS_MEMORY_CHORDS_H

#include "backends/backend.h"
#include "backends/pages.h"
#include "core/link/memory.h"

/* Under the store's mutex: delete what has expired. */
void apm_memory_chords_clean(apm_memory_store *store);

apium_status apm_memory_expect(apm_backend *backend, apm_unit *unit, apm_str group_id, int64_t size,
                               apium_error *err);
apium_status apm_memory_extend(apm_backend *backend, apm_unit *unit, apm_str group_id, int64_t by,
                               apium_error *err);
apium_status
apm_memory_arrive(apm_backend *backend, apm_unit *unit, const apm_part *part, apium_error *err);
apium_status
apm_memory_claim(apm_backend *backend, apm_unit *unit, apm_str group_id, apium_error *err);

void apm_memory_parts(const apm_pages_of *of, const char *group_id);

/* memory.c; under the mutex: the stored document, absent if there is none. */
apm_str apm_memory_doc(apm_memory_store *store, const char *task_id);

#endif
