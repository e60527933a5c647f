/* adapter_stores.c - the rows of couchdb://, consul:// and elasticsearch://: the servers of tests/support/recorder.py. */
#include <stdio.h>

#include "adapters.h"
#include "server.h"

static server store;

static int
start(const char *scheme, char *url, size_t size)
{
    int rc = server_start_recorder(&store, scheme);
    if (rc == 0)
        snprintf(url, size, "%s://127.0.0.1:%d/results", scheme, store.port);
    return rc;
}

static int
start_couchdb(char *url, size_t size)
{
    return start("couchdb", url, size);
}

static int
start_consul(char *url, size_t size)
{
    return start("consul", url, size);
}

static int
start_elasticsearch(char *url, size_t size)
{
    return start("elasticsearch", url, size);
}

static void
stop(void)
{
    server_stop(&store);
}

const adapter adapter_couchdb = {
    .name = "couchdb",
    .backend = true,
    .keeps = true,
    .looked_at = true,
    .start = start_couchdb,
    .stop = stop,
};

const adapter adapter_consul = {
    .name = "consul",
    .backend = true,
    .keeps = true,
    .looked_at = true,
    .start = start_consul,
    .stop = stop,
};

const adapter adapter_elasticsearch = {
    .name = "elasticsearch",
    .backend = true,
    .ready_stays = true,
    .keeps = true,
    .looked_at = true,
    .start = start_elasticsearch,
    .stop = stop,
};
