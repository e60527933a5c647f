/*
 * port.h - a port of this machine for a server that may be down for a while and has to find it free
 * again. So it is none of those that the kernel gives to outgoing connections: one of them could be
 * there then, even one to the missing server itself.
 */
#ifndef APM_TESTS_PORT_H
#define APM_TESTS_PORT_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    PORT_FIRST = 12000,
    PORT_COUNT = 20000
}; /* net.ipv4.ip_local_port_range is 32768 to 60999 */

/* 0 when there is none. */
static inline int
port_free(void)
{
    unsigned start;

    if (getrandom(&start, sizeof(start), 0) != sizeof(start))
        return 0;
    for (unsigned i = 0; i < PORT_COUNT; i++) {
        int port = PORT_FIRST + (int)((start + i) % PORT_COUNT), one = 1;
        struct sockaddr_in addr = { .sin_family = AF_INET,
                                    .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                    .sin_port = htons((uint16_t)port) };
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
        bool is_free = bind(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0;
        close(fd);
        if (is_free)
            return port;
    }
    return 0;
}

#endif
