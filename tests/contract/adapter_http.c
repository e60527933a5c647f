/* adapter_http.c - the row of http://: `apium web` of this build over a SQLite file, on a port of its own. */
#include <stdio.h>
#include <stdlib.h>

#include "adapters.h"
#include "server.h"

static server web;

static int
start(char *url, size_t size)
{
    const char *build = getenv("APIUM_TEST_BUILD");
    char program[4096];
    snprintf(program, sizeof(program), "%s/apium", build ? build : "build");
    int rc = server_start_web(&web, program);
    if (rc == 0)
        snprintf(url, size, "http://127.0.0.1:%d/", web.port);
    return rc;
}

static void
stop(void)
{
    server_stop(&web);
}

const adapter adapter_http = {
    .name = "http",
    .backend = true,
    .start = start,
    .stop = stop,
};
