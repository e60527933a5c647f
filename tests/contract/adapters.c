/* adapters.c - see adapters.h */
#include "adapters.h"

#include <string.h>

#include "config.h"

extern const adapter adapter_memory;
extern const adapter adapter_sqlite;
#if APM_WITH_REDIS
extern const adapter adapter_redis;
#endif
#if APM_WITH_HTTP && APM_WITH_WEB
extern const adapter adapter_http;
#endif
#if APM_WITH_HTTP
extern const adapter adapter_couchdb, adapter_consul, adapter_elasticsearch;
#endif
#if APM_WITH_AMQP
extern const adapter adapter_rabbitmq;
#endif

const adapter *const adapters[] = {
    &adapter_memory,
    &adapter_sqlite,
#if APM_WITH_REDIS
    &adapter_redis,
#endif
#if APM_WITH_HTTP && APM_WITH_WEB
    &adapter_http,
#endif
#if APM_WITH_HTTP
    &adapter_couchdb,
    &adapter_consul,
    &adapter_elasticsearch,
#endif
#if APM_WITH_AMQP
    &adapter_rabbitmq,
#endif
    NULL,
};

const adapter *
adapter_find(const char *name)
{
    for (const adapter *const *row = adapters; *row; row++)
        if (strcmp((*row)->name, name) == 0)
            return *row;
    return NULL;
}
