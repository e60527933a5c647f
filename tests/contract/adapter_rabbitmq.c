/* adapter_rabbitmq.c - the row of amqp://: a server of its own. Results go by rpc://, which only their asker reads, so it is no row of
 * the backends' suite. */
#include <stdio.h>

#include "adapters.h"
#include "rabbitmq.h"

static rabbitmq server;

static int
start(char *url, size_t size)
{
    rabbitmq_start(&server, "");
    snprintf(url, size, "%s", rabbitmq_url(&server));
    return 0;
}

static void
stop(void)
{
    rabbitmq_stop(&server);
}

/* Whatever is held goes back with its connection. */
static void
steal(const char *url)
{
    (void)url;
    rabbitmq_ctl(&server, "close_all_connections test");
}

const adapter adapter_rabbitmq = {
    .name = "rabbitmq",
    .broker = true,
    .start = start,
    .stop = stop,
    .steal = steal,
};
