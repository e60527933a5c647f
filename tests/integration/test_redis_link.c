/*
 * test_redis_link.c - the link to Redis under everything that happens to links: restarts, cuts, silence, other addresses, TLS,
 * passwords, sentinels, and servers that say "later".
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/clock.h"
#include "redis_side.h"

/* ---- Nothing lost, nothing doubled ---- */

typedef struct count {
    size_t ok, fenced, failed;
    char why[256];
} count;

static void
on_counted(void *arg, apium_status status, const apium_error *err)
{
    count *c = arg;
    if (status == APIUM_OK)
        c->ok++;
    else if (status == APIUM_E_FENCED)
        c->fenced++;
    else
        c->failed++;
    if (err)
        snprintf(c->why, sizeof(c->why), "%s", err->text);
}

/* Publish n numbered messages to a queue, each in a unit. */
static void
publish_many(side *s, const apm_queue *queue, int n, count *c)
{
    apium_error error, *err = &error;
    apm_route route = side_route(queue);

    for (int i = 0; i < n; i++) {
        char body[16];
        snprintf(body, sizeof(body), "%d", i);
        apm_message msg = side_message(body);
        apm_unit *unit = apm_unit_new(s->broker->link);
        ck_ok(apm_broker_publish(s->broker, unit, &route, &msg, err));
        apm_unit_commit(unit, on_counted, c);
    }
}

/* What was received goes on to `out` and its result is stored, in one unit. */
static void
move_on(side *s, const apm_queue *out, count *c)
{
    apium_error error, *err = &error;
    apm_route route = side_route(out);

    while (s->n_got) {
        apm_delivery *delivery = side_receive(s);
        apm_unit *unit = apm_unit_new(s->broker->link);
        char id[32];
        snprintf(id, sizeof(id), "m%.*s", APM_STR_ARG(delivery->msg.body));
        ck_ok(apm_broker_publish(s->broker, unit, &route, &delivery->msg, err));
        record(s, unit, id, "SUCCESS", "{\"status\": \"SUCCESS\"}");
        ck_ok(apm_broker_settle(s->broker, unit, delivery, APM_ACK, NULL, err));
        apm_unit_commit(unit, on_counted, c);
        apm_delivery_free(delivery);
    }
}

/* Move N messages from one queue to another while `disturb` does its worst; each must arrive once. */
static void
move_under(void (*disturb)(int round), int rounds)
{
    enum { N = 3000 };
    const apm_queue *in = side_queue("in"), *out = side_queue("out");
    side *s = side_with(true, true);
    count published = { 0 }, moved = { 0 };
    int round = 0;

    publish_many(s, in, N, &published);
    side_consume(s, in, 16);
    int64_t end = apm_clock_ms() + 60000;
    while (moved.ok + moved.fenced < N || ask("LLEN %s", out->name) < N) {
        ck_assert_msg(apm_clock_ms() < end,
                      "published %zu, received %zu, moved %zu, fenced %zu, failed %zu (%s)",
                      published.ok, s->received, moved.ok, moved.fenced, moved.failed, moved.why);
        size_t due = (size_t)(round + 1) * N / (size_t)(rounds + 1);
        if (round < rounds && moved.ok + moved.fenced > due)
            disturb(round++);
        for (int i = 0; i < 20 && (round == rounds || moved.ok + moved.fenced <= due); i++) {
            sides_turn();
            move_on(s, out, &moved);
        }
    }
    ck_assert_int_eq(round, rounds);
    ck_assert_uint_eq(published.ok, N);
    ck_assert_msg(moved.failed == 0, "failed: %s", moved.why);
    ck_assert_int_eq(ask("LLEN %s", out->name), N);
    ck_assert_int_eq(ask("LLEN %s", in->name), 0);
    ck_assert_int_eq(ask("HLEN unacked"), 0);
    ck_assert_int_eq(ask("ZCARD unacked_index"), 0);
    char *different = ask_text("EVAL %s 1 %s",
                               "local seen, n = {}, 0 "
                               "for _, m in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do "
                               "local body = cjson.decode(m).body "
                               "if not seen[body] then n = n + 1 seen[body] = true end end "
                               "return tostring(n)",
                               out->name);
    ck_assert_str_eq(different, "3000");
    free(different);
    side_free(s);
}

static void
cut(int round)
{
    (void)round;
    proxy_cut(net);
}

START_TEST(cut_connections_lose_and_double_nothing)
{
    redis_through_proxy();
    move_under(cut, 5);
}
END_TEST

static void
swallow_and_cut(int round)
{
    long before = proxy_swallowed(net);

    (void)round;
    proxy_swallow(net, true);
    int64_t end = apm_clock_ms() + 300;
    while (proxy_swallowed(net) == before && apm_clock_ms() < end)
        sides_turn();
    proxy_cut(net);
    proxy_swallow(net, false);
}

START_TEST(lost_answers_lose_and_double_nothing)
{
    redis_through_proxy();
    move_under(swallow_and_cut, 5);
}
END_TEST

static void
restart(int round)
{
    (void)round;
    server_kill(&redis);
    ck_assert_int_eq(server_restart(&redis), 0);
}

START_TEST(restarts_of_the_server_lose_and_double_nothing)
{
    move_under(restart, 2);
}
END_TEST

static void
forget_scripts(int round)
{
    (void)round;
    ask("SCRIPT FLUSH");
}

START_TEST(forgotten_scripts_are_sent_again)
{
    move_under(forget_scripts, 10);
}
END_TEST

static void
kill_clients(int round)
{
    (void)round;
    ask("CLIENT KILL TYPE normal SKIPME yes");
}

START_TEST(clients_that_the_server_ends_lose_and_double_nothing)
{
    move_under(kill_clients, 3);
}
END_TEST

START_TEST(a_server_that_lost_its_data_gets_the_bindings_again)
{
    apium_error error, *err = &error;
    const apm_queue *queue = side_queue("q");
    side *s = side_with(true, false);
    apm_route by_exchange = { .exchange = queue->exchange,
                              .routing_key = queue->routing_key,
                              .mandatory = true };
    apm_message msg = side_message("x");

    side_consume(s, queue, 10);
    ask("FLUSHALL");
    ask("CLIENT KILL TYPE normal SKIPME yes");
    run_until(ask("EXISTS _kombu.binding.%s", queue->exchange) == 1);
    ck_ok(side_publish_message(s, &by_exchange, &msg, err));
    apm_delivery *delivery = side_receive(s);
    ck_ok(side_settle(s, delivery, APM_ACK, NULL, err));
    side_free(s);
}
END_TEST

START_TEST(what_a_lost_fetch_took_is_adopted)
{
    apium_error error, *err = &error;
    redis_through_proxy();
    const apm_queue *queue = side_queue("q");
    side *s = side_with(true, false);

    side_consume(s, side_queue("other"), 10);
    run_for(100); /* the server knows the script, and that other queue is empty */
    for (int i = 0; i < 5; i++)
        ck_ok(side_publish(s, queue, "x", err));
    proxy_swallow(net, true);
    ck_ok(apm_broker_consume(s->broker, queue, err));
    run_until(ask("HLEN unacked") == 5);
    ck_assert_uint_eq(s->received, 0);
    proxy_cut(net);
    proxy_swallow(net, false);
    run_until(s->n_got == 5);
    ck_assert_int_eq(ask("HLEN unacked"), 5);
    ck_assert_int_eq(ask("LLEN %s", queue->name), 0);
    while (s->n_got) {
        apm_delivery *delivery = side_receive(s);
        ck_assert(!delivery->msg.redelivered);
        ck_ok(side_settle(s, delivery, APM_ACK, NULL, err));
    }
    ck_assert_int_eq(ask("HLEN unacked"), 0);
    side_free(s);
}
END_TEST

START_TEST(a_unit_sent_twice_is_applied_once)
{
    apium_error error, *err = &error;
    redis_through_proxy();
    const apm_queue *queue = side_queue("q");
    side *s = side_with(true, false);
    count c = { 0 };

    ck_ok(side_publish(s, queue, "first", err));
    ck_ok(side_publish(s, queue, "second", err)); /* the queue is declared on this connection ... */
    ck_ok(side_publish(s, queue, "third", err));  /* ... and the script of ordinary units known */
    proxy_swallow(net, true);
    publish_many(s, queue, 1, &c);
    run_until(ask("LLEN %s", queue->name) == 4);
    proxy_cut(net);
    proxy_swallow(net, false);
    run_until(c.ok + c.failed + c.fenced);
    ck_assert_uint_eq(c.ok, 1);
    run_for(100);
    ck_assert_int_eq(ask("LLEN %s", queue->name), 4);
    side_free(s);
    /* A clean end leaves only what was meant to stay; what it says of that is on its way. */
    run_until(ask("KEYS apium-once*") <= 1);
}
END_TEST

START_TEST(a_silent_network_is_noticed_and_left)
{
    apium_error error, *err = &error;
    redis_through_proxy();
    const apm_queue *queue = side_queue("q");
    side *s = side_with(true, false);
    count c = { 0 };

    ck_ok(side_publish(s, queue, "first", err));
    proxy_freeze(net, true);
    publish_many(s, queue, 1, &c);
    run_until(!s->broker->link->up);
    proxy_freeze(net, false);
    run_until(c.ok == 1);
    ck_assert_int_eq(ask("LLEN %s", queue->name), 2);
    side_free(s);
}
END_TEST

/* ---- A server that cannot be used now ---- */

/* Why the link is down. */
static void
note_event(void *arg, apm_link *link, bool up, const char *why)
{
    (void)link;
    if (!up)
        snprintf(arg, 256, "%s", why);
}

START_TEST(a_client_gives_up_after_its_patience)
{
    apium_error error, *err = &error;
    server_kill(&redis);
    side *s = side_new(700);
    apm_broker_opts opts = { .settings = &s->settings };
    count c = { 0 };
    int64_t start = apm_clock_ms();

    ck_ok(apm_broker_open(s->links, side_url, &opts, &s->broker, err));
    publish_many(s, side_queue("q"), 1, &c);
    run_until(c.failed == 1);
    ck_assert_int_ge(apm_clock_ms() - start, 700);
    ck_assert_int_lt(apm_clock_ms() - start, 3000);
    ck_assert_msg(strstr(c.why, "connection refused"), "%s", c.why);
    side_free(s);
}
END_TEST

START_TEST(a_server_without_memory_is_waited_for)
{
    const apm_queue *queue = side_queue("q");
    side *s = side_with(true, true);
    count c = { 0 };

    run_until(s->broker->link->up);
    ask("CONFIG SET maxmemory 1");
    publish_many(s, queue, 3, &c);
    run_for(800);
    ck_assert_msg(c.ok + c.failed == 0, "ok %zu, failed %zu: %s", c.ok, c.failed, c.why);
    ask("CONFIG SET maxmemory 0");
    run_until(c.ok == 3);
    ck_assert_int_eq(ask("LLEN %s", queue->name), 3);
    side_free(s);
}
END_TEST

START_TEST(a_server_with_too_many_clients_is_waited_for)
{
    apium_error error, *err = &error;
    char notice[256] = "";
    const apm_queue *queue = side_queue("q");
    redisContext *full[3];

    ask("CONFIG SET maxclients 3");
    for (int i = 0; i < 3;) { /* the connection of ask() may still count for a moment */
        full[i] = redisConnect("127.0.0.1", redis.port);
        redisReply *pong = redisCommand(full[i], "PING");
        if (pong && pong->type == REDIS_REPLY_STATUS)
            i++;
        else
            redisFree(full[i]);
        if (pong)
            freeReplyObject(pong);
    }
    side *s = side_new(WAIT_MS);
    apm_broker_opts opts = { .settings = &s->settings };
    apm_link_watch watch = { .on_event = note_event, .arg = notice };
    ck_ok(apm_broker_open(s->links, side_url, &opts, &s->broker, err));
    apm_link_watch_add(s->broker->link, &watch);
    run_until(notice[0]);
    ck_assert_msg(strstr(notice, "max number of clients"), "%s", notice);
    freeReplyObject(redisCommand(full[0], "CONFIG SET maxclients 100"));
    for (int i = 0; i < 3; i++)
        redisFree(full[i]);
    ck_ok(side_publish(s, queue, "x", err));
    apm_link_watch_remove(s->broker->link, &watch);
    side_free(s);
}
END_TEST

START_TEST(a_replica_is_not_written_to)
{
    const apm_queue *queue = side_queue("q");
    side *s = side_with(true, false);
    count c = { 0 };

    run_until(s->broker->link->up);
    ask("REPLICAOF 127.0.0.1 1");
    publish_many(s, queue, 2, &c);
    run_until(!s->broker->link->up);
    ask("REPLICAOF NO ONE");
    run_until(c.ok == 2);
    ck_assert_int_eq(ask("LLEN %s", queue->name), 2);
    side_free(s);
}
END_TEST

START_TEST(the_next_url_of_a_list_is_used_when_the_first_is_down)
{
    apium_error error, *err = &error;
    char url[256];

    snprintf(url, sizeof(url), "redis://127.0.0.1:%d/0;redis://127.0.0.1:%d/0", server_free_port(),
             redis.port);
    side *s = side_at(url, true, false);
    const apm_queue *queue = side_queue("q");
    ck_ok(side_publish(s, queue, "x", err));
    ck_assert_int_eq(ask("LLEN %s", queue->name), 1);
    side_free(s);
}
END_TEST

/* ---- Ways in ---- */

START_TEST(a_broker_and_a_backend_of_one_server_share_a_link)
{
    apium_error error, *err = &error;
    char broker[128], backend[128];
    side *s = side_new(WAIT_MS);
    apm_broker_opts opts = { .settings = &s->settings };
    const apm_queue *queue = side_queue("q");
    apm_route route = side_route(queue);
    apm_message msg = side_message("x");

    snprintf(broker, sizeof(broker), "redis://127.0.0.1:%d/3", redis.port);
    snprintf(backend, sizeof(backend), "redis://127.0.0.1:%d/5", redis.port);
    ck_ok(apm_broker_open(s->links, broker, &opts, &s->broker, err));
    ck_ok(apm_backend_open(s->links, backend, broker, &s->backend, err));
    ck_assert_ptr_eq(s->broker->link, s->backend->link);
    apm_unit *unit = apm_unit_new(s->broker->link);
    ck_ok(apm_broker_publish(s->broker, unit, &route, &msg, err));
    record(s, unit, "id-1", "SUCCESS", "{\"status\": \"SUCCESS\"}");
    ck_ok(side_commit(unit, err));
    side_free(s);
    char *space = ask_text("INFO keyspace");
    ck_assert_msg(strstr(space, "db3:keys=2,"), "%s",
                  space); /* the list and the binding, and no token */
    ck_assert_msg(strstr(space, "db5:keys=1,"), "%s", space);
    free(space);
}
END_TEST

START_TEST(a_database_that_is_not_there_is_named)
{
    apium_error error, *err = &error;
    char url[128];

    snprintf(url, sizeof(url), "redis://127.0.0.1:%d/999", redis.port);
    side *s = side_new(5000);
    apm_broker_opts opts = { .settings = &s->settings };
    ck_ok(apm_broker_open(s->links, url, &opts, &s->broker, err));
    ck_fails(side_publish(s, side_queue("q"), "x", err), APIUM_E_REFUSED);
    ck_assert_msg(strstr(err->text, "DB index is out of range"), "%s", err->text);
    apm_broker *none = NULL;
    snprintf(url, sizeof(url), "redis://127.0.0.1:%d/abc", redis.port);
    ck_fails(apm_broker_open(s->links, url, &opts, &none, err), APIUM_E_CONFIG);
    ck_assert_msg(strstr(err->text, "Database is int between 0 and limit - 1, not abc"), "%s",
                  err->text);
    side_free(s);
}
END_TEST

START_TEST(a_second_database_that_is_not_there_fails_alone)
{
    apium_error error, *err = &error;
    char backend[128];
    side *s = side_new(5000);
    apm_broker_opts opts = { .settings = &s->settings };
    const apm_queue *queue = side_queue("q");

    snprintf(backend, sizeof(backend), "redis://127.0.0.1:%d/998", redis.port);
    ck_ok(apm_broker_open(s->links, side_url, &opts, &s->broker, err));
    ck_ok(apm_backend_open(s->links, backend, side_url, &s->backend, err));
    apm_unit *unit = apm_unit_new(s->broker->link);
    record(s, unit, "id-1", "SUCCESS", "{\"status\": \"SUCCESS\"}");
    ck_fails(side_commit(unit, err), APIUM_E_REFUSED);
    ck_ok(side_publish(s, queue, "x", err));
    ck_assert_int_eq(ask("LLEN %s", queue->name), 1);
    side_free(s);
}
END_TEST

START_TEST(a_unix_socket_leads_to_its_database)
{
    apium_error error, *err = &error;
    char path[128], url[256];

    redis_teardown();
    snprintf(path, sizeof(path), "/tmp/apium-redis-%d.sock", (int)getpid());
    redis_setup_with((const char *const[]){ "--unixsocket", path, NULL });
    snprintf(url, sizeof(url), "redis+socket://%s?virtual_host=4", path);
    side *s = side_at(url, true, false);
    ck_ok(side_publish(s, side_queue("q"), "x", err));
    char *space = ask_text("INFO keyspace");
    ck_assert_ptr_nonnull(strstr(space, "db4:"));
    free(space);
    side_free(s);
}
END_TEST

START_TEST(a_password_lets_in_and_a_wrong_one_is_told_at_once)
{
    apium_error error, *err = &error;
    char url[128];
    int64_t start;

    ask("CONFIG SET requirepass p%%40ss:word");
    snprintf(url, sizeof(url), "redis://:p%%2540ss%%3Aword@127.0.0.1:%d/0", redis.port);
    side *s = side_at(url, true, false);
    ck_ok(side_publish(s, side_queue("q"), "x", err));
    side_free(s);

    s = side_new(WAIT_MS);
    apm_broker_opts opts = { .settings = &s->settings };
    snprintf(url, sizeof(url), "redis://:secret@127.0.0.1:%d/0", redis.port);
    ck_ok(apm_broker_open(s->links, url, &opts, &s->broker, err));
    start = apm_clock_ms();
    ck_fails(side_publish(s, side_queue("q"), "x", err), APIUM_E_REFUSED);
    ck_assert_int_lt(apm_clock_ms() - start, 2000);
    ck_assert_msg(strstr(err->text, "WRONGPASS"), "%s", err->text);
    ck_assert_msg(!strstr(err->text, "secret"), "%s", err->text);
    side_free(s);

    s = side_new(WAIT_MS);
    ck_ok(apm_broker_open(s->links, side_url, &opts, &s->broker, err));
    ck_fails(side_publish(s, side_queue("q"), "x", err), APIUM_E_REFUSED);
    ck_assert_msg(strstr(err->text, "NOAUTH"), "%s", err->text);
    side_free(s);
}
END_TEST

static void
run_or_fail(const char *fmt, ...)
{
    char command[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(command, sizeof(command), fmt, ap);
    va_end(ap);
    ck_assert_msg(system(command) == 0, "failed: %s", command);
}

START_TEST(tls_is_verified_unless_the_url_says_otherwise)
{
    apium_error error, *err = &error;
    char dir[] = "/tmp/apium-tls-XXXXXX", cert[64], key[64], url[512];
    const apm_queue *queue = side_queue("q");
    static const apm_broker_opts none;

    redis_teardown();
    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(cert, sizeof(cert), "%s/cert.pem", dir);
    snprintf(key, sizeof(key), "%s/key.pem", dir);
    run_or_fail("openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost "
                "-addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout %s -out %s 2>/dev/null",
                key, cert);
    redis_setup_with((const char *const[]){ "--tls-port", "0", "--tls-cert-file", cert,
                                            "--tls-key-file", key, "--tls-ca-cert-file", cert,
                                            "--tls-auth-clients", "no", NULL });

    snprintf(url, sizeof(url), "rediss://127.0.0.1:%d/0?ssl_ca_certs=%s", redis.port, cert);
    side *s = side_at(url, true, true);
    ck_ok(side_publish(s, queue, "x", err));
    char *big = malloc(3000001); /* many records, in both directions */
    memset(big, 'b', 3000000);
    big[3000000] = '\0';
    ck_ok(side_publish(s, queue, big, err));
    side_consume(s, queue, 10);
    for (int i = 0; i < 2; i++) {
        apm_delivery *delivery = side_receive(s);
        ck_assert(body_is(delivery, i ? big : "x"));
        ck_ok(side_settle(s, delivery, APM_ACK, NULL, err));
    }
    free(big);
    side_free(s);

    snprintf(url, sizeof(url), "rediss://127.0.0.1:%d/0?ssl_cert_reqs=none", redis.port);
    s = side_at(url, true, false);
    ck_ok(side_publish(s, queue, "x", err));
    side_free(s);

    s = side_new(WAIT_MS); /* nobody vouches for that certificate */
    apm_broker_opts opts = none;
    opts.settings = &s->settings;
    snprintf(url, sizeof(url), "rediss://127.0.0.1:%d/0", redis.port);
    ck_ok(apm_broker_open(s->links, url, &opts, &s->broker, err));
    ck_fails(side_publish(s, queue, "x", err), APIUM_E_REFUSED);
    ck_assert_msg(strstr(err->text, "certificate is not accepted"), "%s", err->text);
    side_free(s);

    s = side_new(2000); /* plain text to a server of TLS */
    opts.settings = &s->settings;
    snprintf(url, sizeof(url), "redis://127.0.0.1:%d/0", redis.port);
    ck_ok(apm_broker_open(s->links, url, &opts, &s->broker, err));
    ck_assert_int_ne(side_publish(s, queue, "x", err), APIUM_OK);
    side_free(s);
    run_or_fail("rm -r %s", dir);
}
END_TEST

START_TEST(sentinels_lead_to_the_master_and_to_the_next_one)
{
    apium_error error, *err = &error;
    server master = redis, replica = { 0 }, sentinel = { 0 };
    char port[16], url[256];
    const apm_queue *queue = side_queue("q");

    snprintf(port, sizeof(port), "127.0.0.1 %d", master.port);
    ck_assert_int_eq(
        server_start_redis(&replica, (const char *const[]){ "--replicaof", port, NULL }), 0);
    ck_assert_int_eq(server_start_sentinel(&sentinel, "chief", master.port), 0);
    snprintf(url, sizeof(url),
             "sentinel://127.0.0.1:%d/0;sentinel://127.0.0.1:%d/0?master_name=chief",
             server_free_port(), sentinel.port);
    side *s = side_new(60000);
    apm_broker_opts opts = { .settings = &s->settings };
    ck_fails(apm_broker_open(s->links, url, &opts, &s->broker, err), APIUM_E_CONFIG);
    ck_assert_msg(strstr(err->text, "'master_name' transport option must be specified."), "%s",
                  err->text);
    s->settings.master_name = "chief";
    ck_ok(apm_broker_open(s->links, url, &opts, &s->broker, err));
    ck_ok(side_publish(s, queue, "x", err));
    ck_assert_int_eq(ask("LLEN %s", queue->name), 1);

    /* The replica has it, and the sentinel knows the replica: now the master dies. */
    redis = replica;
    run_until(ask("LLEN %s", queue->name) == 1);
    redis = sentinel;
    run_until(ask("SENTINEL replicas chief") == 1);
    server_kill(&master);
    ck_ok(side_publish(s, queue, "y", err));
    redis = replica;
    ck_assert_int_eq(ask("LLEN %s", queue->name), 2);
    side_free(s);
    server_stop(&sentinel);
    server_stop(&replica);
    redis = master;
}
END_TEST

int
main(void)
{
    const TTest *const tests[] = {
        cut_connections_lose_and_double_nothing,
        lost_answers_lose_and_double_nothing,
        restarts_of_the_server_lose_and_double_nothing,
        forgotten_scripts_are_sent_again,
        clients_that_the_server_ends_lose_and_double_nothing,
        a_server_that_lost_its_data_gets_the_bindings_again,
        what_a_lost_fetch_took_is_adopted,
        a_unit_sent_twice_is_applied_once,
        a_silent_network_is_noticed_and_left,
        a_client_gives_up_after_its_patience,
        a_server_without_memory_is_waited_for,
        a_server_with_too_many_clients_is_waited_for,
        a_replica_is_not_written_to,
        the_next_url_of_a_list_is_used_when_the_first_is_down,
        a_broker_and_a_backend_of_one_server_share_a_link,
        a_database_that_is_not_there_is_named,
        a_second_database_that_is_not_there_fails_alone,
        a_unix_socket_leads_to_its_database,
        a_password_lets_in_and_a_wrong_one_is_told_at_once,
        tls_is_verified_unless_the_url_says_otherwise,
        sentinels_lead_to_the_master_and_to_the_next_one,
        NULL,
    };
    int rc = redis_installed();
    return rc ? rc : suite_run_with("redis_link", tests, 120, redis_setup, redis_teardown);
}
