/*
 * proxy.h - a small TCP proxy in a thread, between a test and its server, that misbehaves on request.
 */
#ifndef APM_TESTS_PROXY_H
#define APM_TESTS_PROXY_H

#include <stdbool.h>

typedef struct proxy proxy;

/* Listen on a free port of 127.0.0.1 and pass everything on to to_port there. NULL with a line printed. */
proxy *proxy_start(int to_port);
int proxy_port(const proxy *p);
/* Close all connections; new ones are welcome. */
void proxy_cut(proxy *p);
/* Pass nothing on, in either direction, and keep the connections (a silent network); false: pass on what waited. */
void proxy_freeze(proxy *p, bool frozen);
/* Pass on what the client says and throw away what the server answers. */
void proxy_swallow(proxy *p, bool swallow);
/* Pass everything on so much later, in either direction. */
void proxy_delay(proxy *p, int us);
/* Bytes thrown away so far. */
long proxy_swallowed(const proxy *p);
void proxy_stop(proxy *p);

#endif
