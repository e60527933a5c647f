/* adapter_memory.c - the row of memory://: a store of this process, a fresh one in each test's own
 * process. */
#include <stdio.h>

#include "adapters.h"

static int
start(char *url, size_t size)
{
    snprintf(url, size, "memory://contract");
    return 0;
}

static void
stop(void)
{
}

const adapter adapter_memory = {
    .name = "memory",
    .broker = true,
    .backend = true,
    .atomic = true,
    .tells_age = true,
    .start = start,
    .stop = stop,
};
