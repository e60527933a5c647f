/* sqlite_chords.h - counting the parts of chords in a SQLite file; the slots of the backend's table. */
#ifndef APM_BACKENDS_SQLITE_CHORDS_H
#define APM_BACKENDS_SQLITE_CHORDS_H

#include "backends/backend.h"

extern const char apm_sqlite_chords_schema[];
/* Statement that deletes what has expired (?1: now, microseconds). */
extern const char apm_sqlite_chords_expired[], apm_sqlite_parts_expired[];

apium_status apm_sqlite_expect(apm_backend *backend, apm_unit *unit, apm_str group_id, int64_t size, apium_error *err);
apium_status apm_sqlite_extend(apm_backend *backend, apm_unit *unit, apm_str group_id, int64_t by, apium_error *err);
apium_status apm_sqlite_arrive(apm_backend *backend, apm_unit *unit, const apm_part *part, apium_error *err);
apium_status apm_sqlite_claim(apm_backend *backend, apm_unit *unit, apm_str group_id, apium_error *err);
void apm_sqlite_parts(apm_backend *backend, const char *group_id, apm_parts_cb *done, void *arg);
apium_status apm_sqlite_save_group(apm_backend *backend, apm_unit *unit, apm_str group_id, apm_str doc, apium_error *err);
void apm_sqlite_fetch_group(apm_backend *backend, const char *group_id, apm_fetch_cb *done, void *arg);

#endif
