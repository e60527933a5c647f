/*
 * delay.c - a TCP proxy that delays every byte, each way, and does not slow the flow: a network with a latency.
 *
 *     delay LISTEN_PORT TARGET_PORT MICROSECONDS
 *
 * Each direction of a connection has a thread that reads and one that writes; between them, chunks wait for their time.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CHUNK (64 << 10)

struct chunk {
    struct chunk *next;
    struct timespec due;
    size_t len; /* 0: the end */
    char bytes[];
};

struct way {
    int from, to;
    pthread_mutex_t lock;
    pthread_cond_t filled;
    struct chunk *first, **last;
};

static long delay_us;

static void *
read_all(void *arg)
{
    struct way *way = arg;
    ssize_t n;

    do {
        struct chunk *chunk = malloc(sizeof(*chunk) + CHUNK);
        if (!chunk)
            abort();
        n = read(way->from, chunk->bytes, CHUNK);
        chunk->len = n > 0 ? (size_t)n : 0;
        chunk->next = NULL;
        struct chunk *small = realloc(chunk, sizeof(*chunk) + chunk->len);
        if (small)
            chunk = small;
        clock_gettime(CLOCK_MONOTONIC, &chunk->due);
        chunk->due.tv_nsec += delay_us * 1000;
        chunk->due.tv_sec += chunk->due.tv_nsec / 1000000000;
        chunk->due.tv_nsec %= 1000000000;
        pthread_mutex_lock(&way->lock);
        *way->last = chunk;
        way->last = &chunk->next;
        pthread_cond_signal(&way->filled);
        pthread_mutex_unlock(&way->lock);
    } while (n > 0);
    return NULL;
}

static void *
write_all(void *arg)
{
    struct way *way = arg;

    prctl(PR_SET_TIMERSLACK, 1); /* nanoseconds: a delay is not to be 50 us longer than it says */
    for (bool open = true; open;) {
        pthread_mutex_lock(&way->lock);
        while (!way->first)
            pthread_cond_wait(&way->filled, &way->lock);
        struct chunk *chunk = way->first;
        way->first = chunk->next;
        if (!way->first)
            way->last = &way->first;
        pthread_mutex_unlock(&way->lock);
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &chunk->due, NULL);
        open = chunk->len > 0;
        for (size_t at = 0; at < chunk->len && open;) {
            ssize_t n = send(way->to, chunk->bytes + at, chunk->len - at, MSG_NOSIGNAL);
            open = n > 0;
            at += n > 0 ? (size_t)n : 0;
        }
        free(chunk);
    }
    shutdown(way->to, SHUT_WR);
    return NULL; /* the sockets stay: this program ends with the measure */
}

static void
start(int from, int to)
{
    struct way *way = calloc(1, sizeof(*way));
    pthread_t thread;

    if (!way)
        abort();
    *way = (struct way){ .from = from, .to = to };
    way->last = &way->first;
    pthread_mutex_init(&way->lock, NULL);
    pthread_cond_init(&way->filled, NULL);
    if (pthread_create(&thread, NULL, read_all, way) != 0 || pthread_detach(thread) != 0 ||
        pthread_create(&thread, NULL, write_all, way) != 0 || pthread_detach(thread) != 0)
        abort();
}

int
main(int argc, char **argv)
{
    const int one = 1;
    if (argc != 4) {
        fprintf(stderr, "usage: delay LISTEN_PORT TARGET_PORT MICROSECONDS\n");
        return 2;
    }
    struct sockaddr_in here = { .sin_family = AF_INET,
                                .sin_port = htons((uint16_t)atoi(argv[1])),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK) },
                       there = here;
    there.sin_port = htons((uint16_t)atoi(argv[2]));
    delay_us = atol(argv[3]);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(listener, (struct sockaddr *)&here, sizeof(here)) < 0 || listen(listener, 64) < 0) {
        perror("delay: cannot listen");
        return 1;
    }
    for (;;) {
        int client = accept(listener, NULL, NULL), server = socket(AF_INET, SOCK_STREAM, 0);
        if (client < 0 || connect(server, (struct sockaddr *)&there, sizeof(there)) < 0) {
            close(client);
            close(server);
            continue;
        }
        setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        start(client, server);
        start(server, client);
    }
}
