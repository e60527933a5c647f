/* kinds.c - the kinds of link in this build, one row each. */
#include "config.h"
#include "core/link/link.h"
#include "core/link/memory.h"
#include "core/link/sqlite.h"
#if APM_WITH_AMQP
#include "core/link/amqp.h"
#endif
#if APM_WITH_REDIS
#include "core/link/redis.h"
#endif
#if APM_WITH_HTTP
#include "core/link/http.h"
#endif

const apm_link_ops *const apm_link_kinds[] = {
    &apm_memory_kind,
    &apm_sqlite_kind,
#if APM_WITH_AMQP
    &apm_amqp_kind,
#endif
#if APM_WITH_REDIS
    &apm_redis_kind,
#endif
#if APM_WITH_HTTP
    &apm_http_kind,
#endif
    NULL,
};
