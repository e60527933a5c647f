/*
 * rabbitmq.h - a RabbitMQ of the test's own: its node, data, epmd and ports are its own, it listens on 127.0.0.1 only, and a guard
 * process ends it when the test program goes, however it goes.
 */
#ifndef APM_TESTS_RABBITMQ_H
#define APM_TESTS_RABBITMQ_H

#include <stdbool.h>

typedef struct rabbitmq {
    char folder[64];
    int port, tls_port, epmd_port, dist_port;
    int server, epmd; /* process ids, which are their groups; 0: not running */
    int guard;        /* the pipe whose end the guard waits for */
} rabbitmq;

/* Start, and wait until it answers. When it is not installed: exits with 77, or 1 with APIUM_TEST_STRICT=1. `conf` is added to its
 * rabbitmq.conf. Authority, certificate and key for TLS are ca.pem, cert.pem, key.pem in the folder. */
void rabbitmq_start(rabbitmq *server, const char *conf);
void rabbitmq_stop(rabbitmq *server);
/* As a power cut would: kill -9, and up again. */
void rabbitmq_kill(rabbitmq *server);
void rabbitmq_up(rabbitmq *server);
/* "amqp://guest:guest@127.0.0.1:PORT//" */
const char *rabbitmq_url(const rabbitmq *server);
/* rabbitmqctl with these words (a shell reads them); fails the program when it fails. Its output is a static text. */
const char *rabbitmq_ctl(const rabbitmq *server, const char *words);
/* A Python program with kombu and Celery at hand; AMQP_URL is set. Its output is a static text; what it says on stderr fails the program. */
const char *rabbitmq_python(const rabbitmq *server, const char *program);

#endif
