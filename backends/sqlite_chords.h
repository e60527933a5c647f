/* sqlite_chords.h - counting the parts of chords in a SQLite file; what sqlite.c needs of it for the backend's table. */
#ifndef APM_BACKENDS_SQLITE_CHORDS_H
#define APM_BACKENDS_SQLITE_CHORDS_H

#include "backends/backend.h"
#include "backends/pages.h"
#include "core/link/sqlite.h"

extern const char apm_sqlite_chords_schema[];
/* In the link's thread: delete at most so many parts of chords that have expired, and chords without parts. */
apium_status apm_sqlite_chords_clean(apm_sqlite_db *db, int64_t rows, apium_error *err);

apium_status apm_sqlite_expect(apm_backend *backend, apm_unit *unit, apm_str group_id, int64_t size,
                               apium_error *err);
apium_status apm_sqlite_extend(apm_backend *backend, apm_unit *unit, apm_str group_id, int64_t by,
                               apium_error *err);
apium_status
apm_sqlite_arrive(apm_backend *backend, apm_unit *unit, const apm_part *part, apium_error *err);
apium_status
apm_sqlite_claim(apm_backend *backend, apm_unit *unit, apm_str group_id, apium_error *err);

void apm_sqlite_parts(const apm_pages_of *of, const char *group_id);

#endif
