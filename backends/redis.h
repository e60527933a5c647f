/* redis.h - what redis.c and redis_chords.c share. */
#ifndef APM_BACKENDS_REDIS_H
#define APM_BACKENDS_REDIS_H

#include "backends/backend.h"
#include "core/link/redis.h"

typedef struct apm_redis_store {
    apm_backend base;
    int db;
    char *prefix; /* of all keys: "" or ending in Celery's separator */
    struct apm_redis_watched *watched;
} apm_redis_store;

/* Whole seconds, as SETEX takes them; 0: never. */
int64_t apm_redis_expires_s(const apm_backend *backend);
void apm_redis_fetch_key(apm_redis_store *backend, const char *key, apm_fetch_cb *done, void *arg);
void
apm_redis_forget_key(apm_redis_store *backend, const char *key, apm_backend_done *done, void *arg);

/* redis_chords.c: slots of the table */
apium_status apm_redis_expect(apm_backend *base, apm_unit *unit, apm_str group_id, int64_t size,
                              apium_error *err);
apium_status
apm_redis_extend(apm_backend *base, apm_unit *unit, apm_str group_id, int64_t by, apium_error *err);
apium_status
apm_redis_arrive(apm_backend *base, apm_unit *unit, const apm_part *part, apium_error *err);
apium_status apm_redis_claim(apm_backend *base, apm_unit *unit, apm_str group_id, apium_error *err);
void apm_redis_parts(apm_backend *base, const char *group_id, apm_parts_cb *done, void *arg);
apium_status apm_redis_save_group(apm_backend *base, apm_unit *unit, apm_str group_id, apm_str doc,
                                  apium_error *err);
void apm_redis_fetch_group(apm_backend *base, const char *group_id, apm_fetch_cb *done, void *arg);
void
apm_redis_forget_group(apm_backend *base, const char *group_id, apm_backend_done *done, void *arg);

#endif
