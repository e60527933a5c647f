/* proxy.c - see proxy.h */
#include "proxy.h"

#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_PAIRS 256

struct proxy {
    pthread_t thread;
    int listener, port, to_port, wake[2];
    atomic_bool stop, cut, frozen, swallow;
    atomic_long swallowed;
    atomic_int delay_us;
    int pair[MAX_PAIRS][2]; /* client, server; -1: free */
};

static void
drop(proxy *p, int i)
{
    close(p->pair[i][0]);
    close(p->pair[i][1]);
    p->pair[i][0] = p->pair[i][1] = -1;
}

static void
welcome(proxy *p)
{
    struct sockaddr_in to = { .sin_family = AF_INET,
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                              .sin_port = htons((unsigned short)p->to_port) };
    int client = accept4(p->listener, NULL, NULL, SOCK_CLOEXEC);
    int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (client < 0 || server < 0 || connect(server, (struct sockaddr *)&to, sizeof(to)) < 0) {
        close(client);
        close(server);
        return;
    }
    for (int i = 0; i < MAX_PAIRS; i++) {
        if (p->pair[i][0] >= 0)
            continue;
        p->pair[i][0] = client;
        p->pair[i][1] = server;
        return;
    }
    close(client);
    close(server);
}

/* From one end to the other; false when either is gone. */
static bool
pass(proxy *p, int i, int from)
{
    char bytes[65536];
    ssize_t n = read(p->pair[i][from], bytes, sizeof(bytes));

    if (n <= 0)
        return false;
    if (from == 1 && p->swallow) {
        p->swallowed += n;
        return true;
    }
    if (p->delay_us)
        usleep((useconds_t)p->delay_us);
    for (ssize_t done = 0; done < n;) {
        ssize_t put = send(p->pair[i][1 - from], bytes + done, (size_t)(n - done), MSG_NOSIGNAL);
        if (put <= 0)
            return false;
        done += put;
    }
    return true;
}

static void *
run(void *arg)
{
    proxy *p = arg;
    struct pollfd fds[2 + 2 * MAX_PAIRS];
    int who[2 + 2 * MAX_PAIRS];

    while (!p->stop) {
        nfds_t n = 2;
        fds[0] = (struct pollfd){ .fd = p->listener, .events = POLLIN };
        fds[1] = (struct pollfd){ .fd = p->wake[0], .events = POLLIN };
        for (int i = 0; i < MAX_PAIRS && !p->frozen; i++)
            for (int end = 0; end < 2 && p->pair[i][0] >= 0; end++) {
                who[n] = 2 * i + end;
                fds[n++] = (struct pollfd){ .fd = p->pair[i][end], .events = POLLIN };
            }
        if (poll(fds, n, -1) < 0)
            continue;
        if (fds[1].revents) {
            char c;
            (void)!read(p->wake[0], &c, 1);
            if (p->cut)
                for (int i = 0; i < MAX_PAIRS; i++)
                    if (p->pair[i][0] >= 0)
                        drop(p, i);
            p->cut = false;
            continue;
        }
        for (nfds_t f = 2; f < n; f++)
            if (fds[f].revents && p->pair[who[f] / 2][0] >= 0 && !pass(p, who[f] / 2, who[f] % 2))
                drop(p, who[f] / 2);
        if (fds[0].revents)
            welcome(p);
    }
    return NULL;
}

proxy *
proxy_start(int to_port)
{
    struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(addr);
    proxy *p = calloc(1, sizeof(*p));

    if (!p)
        return NULL;
    p->to_port = to_port;
    for (int i = 0; i < MAX_PAIRS; i++)
        p->pair[i][0] = p->pair[i][1] = -1;
    p->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (p->listener < 0 || bind(p->listener, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
        listen(p->listener, 64) < 0 ||
        getsockname(p->listener, (struct sockaddr *)&addr, &len) < 0 || pipe(p->wake) < 0 ||
        pthread_create(&p->thread, NULL, run, p) != 0) {
        perror("cannot start a proxy");
        free(p);
        return NULL;
    }
    p->port = ntohs(addr.sin_port);
    return p;
}

static void
wake(proxy *p)
{
    (void)!write(p->wake[1], "x", 1);
}

int
proxy_port(const proxy *p)
{
    return p->port;
}

void
proxy_cut(proxy *p)
{
    p->cut = true;
    wake(p);
    while (p->cut)
        usleep(1000); /* until the thread did it */
}

void
proxy_freeze(proxy *p, bool frozen)
{
    p->frozen = frozen;
    wake(p);
}

void
proxy_swallow(proxy *p, bool swallow)
{
    p->swallow = swallow;
}

void
proxy_delay(proxy *p, int us)
{
    p->delay_us = us;
}

long
proxy_swallowed(const proxy *p)
{
    return p->swallowed;
}

void
proxy_stop(proxy *p)
{
    if (!p)
        return;
    p->stop = true;
    wake(p);
    pthread_join(p->thread, NULL);
    for (int i = 0; i < MAX_PAIRS; i++)
        if (p->pair[i][0] >= 0)
            drop(p, i);
    close(p->listener);
    close(p->wake[0]);
    close(p->wake[1]);
    free(p);
}
