/*
 * redis_sentinel.c - asking sentinels, one after the other, where the master is. The one that answered is asked first
 * next time.
 */
#include "core/link/redis_inside.h"

#include <stdio.h>
#include <stdlib.h>

#include "core/base/clock.h"
#include "core/base/error.h"

typedef struct ask {
    apm_redis *link;
    apm_redis_conn *conn;
    apm_redis_addr addr;
    size_t asked;
    bool answered;
} ask;

static void ask_next(ask *a);

/* It gave no address: remember why, go on to the next sentinel, or give up this round. */
static void
no_answer(ask *a, const char *why)
{
    apm_redis *link = a->link;
    char where[160], text[256];

    apm_redis_addr_print(&a->addr, where, sizeof(where));
    snprintf(text, sizeof(text), "sentinel %s: %s", where, why);
    if (++a->asked < link->n_addrs) {
        link->at = (link->at + 1) % link->n_addrs;
        ask_next(a);
        return;
    }
    link->asking = NULL;
    link->at = (link->at + 1) % link->n_addrs;
    free(a);
    redis_attempt_failed(link, APIUM_E_CLOSED, text);
}

static void
on_master(void *arg, const redisReply *reply)
{
    ask *a = arg;
    apm_redis *link = a->link;
    char why[200];

    if (!reply)
        return; /* on_ended follows */
    a->answered = true;
    apm_redis_conn_close(a->conn);
    a->conn = NULL;
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 ||
        reply->element[0]->type != REDIS_REPLY_STRING ||
        reply->element[1]->type != REDIS_REPLY_STRING) {
        if (reply->type == REDIS_REPLY_ERROR)
            snprintf(why, sizeof(why), "%s", reply->str);
        else
            snprintf(why, sizeof(why), "knows no master named \"%s\"", link->master_name);
        no_answer(a, why);
        return;
    }
    free(link->target_host);
    link->target_host = strdup(reply->element[0]->str);
    link->target = link->addrs[0]; /* user, password, database and TLS are those of the first URL */
    link->target.host = link->target_host ? link->target_host : "";
    link->target.port = atoi(reply->element[1]->str);
    link->asking = NULL;
    free(a);
    redis_open_conn(link);
}

static void
on_ready(void *arg, apm_redis_conn *conn)
{
    ask *a = arg;
    apm_buf cmd;

    apm_buf_init(&cmd, 4096);
    apm_resp_open(&cmd, 3);
    apm_resp_addz(&cmd, "SENTINEL");
    apm_resp_addz(&cmd, "get-master-addr-by-name");
    apm_resp_addz(&cmd, a->link->master_name);
    apm_redis_conn_send(conn, apm_buf_str(&cmd), 0, on_master, a);
    apm_buf_clear(&cmd);
    apm_redis_conn_flush(conn);
}

static void
on_ended(void *arg, apm_redis_conn *conn, const apium_error *err)
{
    ask *a = arg;
    (void)conn;
    a->conn = NULL;
    no_answer(a, err->text);
}

static void
on_freed(void *arg)
{
    redis_handle_closed(arg);
}

static void
ask_next(ask *a)
{
    apm_redis *link = a->link;
    const apm_settings *settings = apm_links_settings(link->base.set);
    double timeout = settings->broker_connection_timeout;

    /* A sentinel has its own credentials (sentinel_kwargs), not the master's. */
    a->addr = link->addrs[link->at];
    a->addr.user = settings->sentinel_username;
    a->addr.password = settings->sentinel_password;
    link->target = a->addr; /* for messages, until the master is known */
    link->handles++;
    a->conn = apm_redis_conn_open(
        &(apm_redis_conn_opts){ .loop = apm_links_loop(link->base.set),
                                .addr = &a->addr,
                                .plain = true,
                                .read_bytes = 4096,
                                .connect_ms = timeout > 0 ? (int64_t)(timeout * 1000.0) : 4000,
                                .on_ready = on_ready,
                                .on_ended = on_ended,
                                .arg = a,
                                .on_freed = on_freed,
                                .freed_arg = link,
                                .list = &link->conns });
    if (!a->conn) {
        link->handles--;
        no_answer(a, "out of memory");
    }
}

void
redis_sentinel_ask(apm_redis *link)
{
    ask *a = calloc(1, sizeof(*a));

    if (!a) {
        redis_attempt_failed(link, APIUM_E_NOMEM, "out of memory");
        return;
    }
    a->link = link;
    link->asking = a;
    ask_next(a);
}

void
redis_sentinel_stop(apm_redis *link)
{
    ask *a = link->asking;

    if (!a)
        return;
    link->asking = NULL;
    apm_redis_conn_close(a->conn);
    free(a);
}
