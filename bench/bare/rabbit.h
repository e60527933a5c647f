/* rabbit.h - a connection to RabbitMQ with one channel, and the end of the program when something goes wrong. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#if __has_include(<rabbitmq-c/amqp.h>)
#include <rabbitmq-c/amqp.h>
#include <rabbitmq-c/tcp_socket.h>
#else
#include <amqp.h>
#include <amqp_tcp_socket.h>
#endif

static inline void
must(amqp_rpc_reply_t reply, const char *what)
{
    if (reply.reply_type != AMQP_RESPONSE_NORMAL) {
        fprintf(stderr, "%s: cannot %s\n", program_invocation_short_name, what);
        exit(1);
    }
}

static inline amqp_connection_state_t
connected(int port)
{
    amqp_connection_state_t conn = amqp_new_connection();
    amqp_socket_t *socket = amqp_tcp_socket_new(conn);
    if (!socket || amqp_socket_open(socket, "127.0.0.1", port) != AMQP_STATUS_OK) {
        fprintf(stderr, "%s: cannot connect to RabbitMQ on port %d\n",
                program_invocation_short_name, port);
        exit(1);
    }
    must(amqp_login(conn, "/", 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, "guest", "guest"), "log in");
    amqp_channel_open(conn, 1);
    must(amqp_get_rpc_reply(conn), "open a channel");
    return conn;
}

static inline void
disconnect(amqp_connection_state_t conn)
{
    amqp_connection_close(conn, AMQP_REPLY_SUCCESS);
    amqp_destroy_connection(conn);
}
