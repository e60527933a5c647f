/* adapter_sqlite.c - the row of sqlite:///path: a file in a temporary folder. */
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>

#include "adapters.h"

static char dir[] = "/tmp/apium-sqlite-XXXXXX";
static char path[sizeof(dir) + sizeof("/contract.db")];

static int
start(char *url, size_t size)
{
    if (!mkdtemp(dir)) {
        perror("cannot make a temporary folder");
        return 1;
    }
    snprintf(path, sizeof(path), "%s/contract.db", dir);
    snprintf(url, size, "sqlite:///%s", path);
    return 0;
}

static void
stop(void)
{
    char command[sizeof(dir) + sizeof("rm -r ")];

    snprintf(command, sizeof(command), "rm -r %s", dir);
    if (system(command) != 0)
        fprintf(stderr, "cannot remove %s\n", dir);
}

static void
steal(const char *url)
{
    sqlite3 *db;

    (void)url;
    if (sqlite3_open(path, &db) == SQLITE_OK) {
        sqlite3_busy_timeout(db, 5000);
        sqlite3_exec(db,
                     "BEGIN IMMEDIATE;"
                     "INSERT INTO apium_ready(queue, rank, pos, id, redelivered) SELECT queue, "
                     "rank, pos, id, 1 FROM apium_held;"
                     "DELETE FROM apium_held; DELETE FROM apium_runs; COMMIT",
                     NULL, NULL, NULL);
    }
    sqlite3_close(db);
}

const adapter adapter_sqlite = {
    .name = "sqlite",
    .broker = true,
    .backend = true,
    .atomic = true,
    .tells_age = true,
    .start = start,
    .stop = stop,
    .steal = steal,
};
