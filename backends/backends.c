/* backends.c - the result backends of this build, one row each, and opening one by URL. */
#include "backends/backend.h"

#include <stdlib.h>

#include "config.h"
#if APM_WITH_REDIS
extern const apm_backend_ops apm_redis_backend;
#endif

#if APM_WITH_HTTP
extern const apm_backend_ops apm_http_backend;
#endif

extern const apm_backend_ops apm_disabled_backend;
extern const apm_backend_ops apm_memory_backend;
extern const apm_backend_ops apm_sqlite_backend;
extern const apm_backend_ops apm_rpc_backend;

const apm_backend_ops *const apm_backends[] = {
    &apm_disabled_backend,
    &apm_memory_backend,
    &apm_sqlite_backend,
#if APM_WITH_AMQP
    &apm_rpc_backend,
#endif
#if APM_WITH_REDIS
    &apm_redis_backend,
#endif
#if APM_WITH_HTTP
    &apm_http_backend,
#endif
    NULL,
};

static const apm_backend_ops *
find_adapter(const char *scheme)
{
    for (const apm_backend_ops *const *ops = apm_backends; *ops; ops++)
        for (const char *const *s = (*ops)->schemes; *s; s++)
            if (strcmp(*s, scheme) == 0)
                return *ops;
    return NULL;
}

apium_status
apm_backend_open(apm_links *set, const char *url, const char *broker_url, apm_backend **out,
                 apium_error *err)
{
    if (!url || !*url || strcmp(url, "disabled") == 0)
        url = "disabled://";
    /* Celery's aliases: "s3" is "s3://". */
    char bare[40];
    if (!strchr(url, ':') && strlen(url) < 32 && find_adapter(url) && strcmp(url, "rpc") != 0) {
        snprintf(bare, sizeof(bare), "%s://", url);
        url = bare;
    }
    char scheme[32];
    snprintf(scheme, sizeof(scheme), "%.*s", (int)strcspn(url, ":"), url);

    const apm_backend_ops *ops = find_adapter(scheme);
    char shown[256];
    apm_url_mask(url, shown, sizeof(shown));
    if (!ops)
        return apm_fail(
            err, APIUM_E_UNSUPPORTED,
            "cannot use \"%s\" as a result backend: no adapter for \"%s\" in this build", shown,
            scheme);
    apm_link *link = NULL;
    if (!(ops->features & APM_BACKEND_NONE)) {
        /* rpc:// has no server of its own: replies travel over the broker's. */
        apium_status st =
            apm_link_get(set, ops->features & APM_BACKEND_REPLY ? broker_url : url, &link, err);
        if (st != APIUM_OK)
            return st;
    }
    apm_backend *backend = calloc(1, ops->size);
    if (!backend) {
        apm_link_release(link);
        return apm_fail(err, APIUM_E_NOMEM, "cannot open the result backend \"%s\": out of memory",
                        shown);
    }
    *backend = (apm_backend){ .ops = ops,
                              .link = link,
                              .settings = apm_links_settings(set),
                              .features = ops->features,
                              .url = url };
    apium_status st = ops->open(backend, err);
    backend->url = NULL;
    if (st != APIUM_OK) {
        free(backend);
        apm_link_release(link);
        return st;
    }
    *out = backend;
    return APIUM_OK;
}

void
apm_backend_close(apm_backend *backend)
{
    if (!backend)
        return;
    backend->ops->close(backend);
    apm_link_release(backend->link);
    free(backend);
}
