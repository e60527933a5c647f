/*
 * server.h - servers that a test starts for itself: on a free port of 127.0.0.1, in a temporary folder, ended by their own
 * process id, also when the test dies.
 */
#ifndef APM_TESTS_SERVER_H
#define APM_TESTS_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define SERVER_SKIP 77 /* not installed; with APIUM_TEST_STRICT=1 that is a failure (1) */

typedef struct server {
    pid_t pid; /* 0 while it is down */
    int port;  /* kept when it is started again */
    char dir[64];
    char *argv[32];
    bool tls;     /* answers only to TLS: port is that of TLS */
    bool listens; /* it is no Redis: that it listens is enough */
} server;

/* Redis with its folder, data appended to a file (so that it survives server_kill), and these further arguments, ended by NULL. 0,
 * SERVER_SKIP or 1 with a line printed. */
int server_start_redis(server *srv, const char *const *more);
/* A sentinel that watches `name` at a port of 127.0.0.1. */
int server_start_sentinel(server *srv, const char *name, int port);
/* `apium web` of this program over a SQLite file in its folder. */
int server_start_web(server *srv, const char *apium);
/* A server of tests/support/recorder.py, which PYTHONPATH leads to: "couchdb", ... */
int server_start_recorder(server *srv, const char *scheme);
/* Start the same again, on the same port with the same folder. */
int server_restart(server *srv);
/* kill -9, and wait for its end. */
void server_kill(server *srv);
/* SIGSTOP and SIGCONT. */
void server_freeze(server *srv);
void server_thaw(server *srv);
/* End it and remove its folder. Nothing happens for one that was not started. */
void server_stop(server *srv);

/* A port that is free now. */
int server_free_port(void);
/* Where an executable of this name is on PATH or in the places of Debian; false when nowhere. */
bool server_find(const char *name, char *out, size_t size);

#endif
