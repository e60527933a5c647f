/* brokers.c - the broker adapters of this build, one row each, and opening one by URL. */
#include "brokers/broker.h"

#include <stdlib.h>

#include "config.h"
#if APM_WITH_REDIS
extern const apm_broker_ops apm_redis_broker;
#endif

extern const apm_broker_ops apm_memory_broker;
extern const apm_broker_ops apm_sqlite_broker;
extern const apm_broker_ops apm_amqp_broker;

const apm_broker_ops *const apm_brokers[] = {
    &apm_memory_broker,
    &apm_sqlite_broker,
#if APM_WITH_AMQP
    &apm_amqp_broker,
#endif
#if APM_WITH_REDIS
    &apm_redis_broker,
#endif
    NULL,
};

static const apm_broker_ops *
find_adapter(const char *scheme)
{
    for (const apm_broker_ops *const *ops = apm_brokers; *ops; ops++)
        for (const char *const *s = (*ops)->schemes; *s; s++)
            if (strcmp(*s, scheme) == 0)
                return *ops;
    return NULL;
}

apium_status
apm_broker_open(apm_links *set, const char *url, const apm_broker_opts *opts, apm_broker **out,
                apium_error *err)
{
    apm_link *link;
    apium_status st = apm_link_get(set, url, &link, err);
    if (st != APIUM_OK)
        return st;
    const apm_broker_ops *ops = find_adapter(link->urls.items[0].scheme);
    apm_broker *broker = ops ? calloc(1, ops->size) : NULL;
    if (!ops)
        st = apm_fail(err, APIUM_E_UNSUPPORTED, "cannot use \"%s\" as a broker", link->shown);
    else if (!broker)
        st = apm_fail(err, APIUM_E_NOMEM, "cannot open the broker \"%s\": out of memory",
                      link->shown);
    if (st == APIUM_OK) {
        *broker = (apm_broker){ .ops = ops, .link = link, .opts = *opts, .url = url };
        st = ops->open(broker, err);
        broker->url = NULL;
    }
    if (st != APIUM_OK) {
        free(broker);
        apm_link_release(link);
        return st;
    }
    *out = broker;
    return APIUM_OK;
}

void
apm_broker_close(apm_broker *broker)
{
    if (!broker)
        return;
    broker->ops->close(broker);
    apm_link_release(broker->link);
    free(broker);
}
