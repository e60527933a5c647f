/* test_amqp_loss.c - the RabbitMQ broker when the server goes: connections closed, killed, silent, blocked, never there. */
#include <signal.h>
#include <sys/mman.h>

#include "tests/integration/amqp_kit.h"

rabbitmq *server;

static kit k;
static apium_error error, *const err = &error;
static bool *
    alarmed; /* shared by the tests' processes: one that failed may have left the server's alarm on */

static void
alarm_on(void)
{
    *alarmed = true;
    rabbitmq_ctl(server, "set_vm_memory_high_watermark absolute 1MB");
}

static void
alarm_off(void)
{
    rabbitmq_ctl(server, "set_vm_memory_high_watermark 0.8");
    *alarmed = false;
}

static void
open_kit(void)
{
    if (*alarmed)
        alarm_off();
    kit_open(&k);
}

static void
close_kit(void)
{
    kit_close(&k);
}

/* ---- the connection goes ---- */

/* Publish a thousand and consume them while `disturb` happens; every message is acked in the end. */
static void
survive(const char *name, void (*disturb)(void))
{
    apm_queue q = queue_named(name);
    fate sent = { 0 }, settled = { 0 };
    static bool seen[1000];
    static apm_delivery *all[8000];
    size_t n = 0, distinct = 0;
    char body[16];

    for (int i = 0; i < 500; i++) {
        snprintf(body, sizeof(body), "%d", i);
        send_to(&k, &q, body, &sent);
    }
    receive_from(&k, &q, 50);
    wait_for(&k, k.n_got >= 50);
    for (int i = 500; i < 1000; i++) {
        snprintf(body, sizeof(body), "%d", i);
        send_to(&k, &q, body, &sent);
    }
    disturb();
    while (distinct < 1000) {
        wait_for(&k, k.n_got > 0);
        apm_delivery *delivery = take(&k, 0);
        int i = atoi(delivery->msg.body.p);
        ck_assert(i >= 0 && i < 1000);
        distinct += !seen[i];
        seen[i] = true;
        ck_assert_uint_lt(n, 8000);
        all[n++] = delivery;
        apm_unit *unit = apm_unit_new(k.broker->link);
        ck_ok(apm_broker_settle(k.broker, unit, delivery, APM_ACK, NULL, err));
        apm_unit_commit(unit, note_fate, &settled);
    }
    wait_for(&k, sent.n == 1000 && (size_t)settled.n == n);
    ck_assert_msg(sent.bad == 0, "%s", sent.err.text);
    ck_assert_int_eq(settled.bad, 0);
    ck_assert_int_ge(k.downs, 1);
    ck_assert_int_ge(k.ups, 2);
    for (size_t i = 0; i < n; i++)
        apm_delivery_free(all[i]);
}

static void
close_connections(void)
{
    rabbitmq_ctl(server, "close_all_connections test");
}

START_TEST(connections_that_the_server_closes_are_opened_again)
{
    survive("closed", close_connections);
}
END_TEST

static void
restart(void)
{
    rabbitmq_kill(server);
    pass(&k, 1000);
    rabbitmq_up(server);
}

START_TEST(a_server_that_dies_and_comes_back_loses_nothing)
{
    survive("restarted", restart);
    ck_assert_ptr_nonnull(strstr(k.why, "Connected to amqp://guest:**@127.0.0.1"));
}
END_TEST

START_TEST(held_deliveries_are_lost_with_the_connection_and_come_again)
{
    apm_queue q = queue_named("lost");

    put(&k, &q, "1");
    put(&k, &q, "2");
    receive_from(&k, &q, 2);
    wait_for(&k, k.n_got == 2);
    apm_delivery *settled = take(&k, 0);
    apm_unit *unit = apm_unit_new(k.broker->link);
    fate f = { 0 };
    ck_ok(apm_broker_settle(k.broker, unit, settled, APM_ACK, NULL, err));
    close_connections();
    wait_for(&k, k.n_lost == 1);
    /* Its tag is dead: nothing is settled, the message comes again, and that is no failure. */
    apm_unit_commit(unit, note_fate, &f);
    wait_for(&k, f.n == 1);
    ck_assert_int_eq(f.bad, 0);
    apm_delivery_free(settled);
    wait_for(&k, k.n_got == 2);
    ck_assert(k.got[0]->msg.redelivered && k.got[1]->msg.redelivered);
}
END_TEST

START_TEST(a_deleted_queue_is_declared_and_consumed_again)
{
    apm_queue q = queue_named("deleted");

    receive_from(&k, &q, 2);
    put(&k, &q, "1");
    wait_for(&k, k.n_got == 1);
    rabbitmq_ctl(server, "delete_queue deleted");
    wait_for(&k, strstr(k.notice, "deleted"));
    kit other;
    kit_open(&other);
    put(&other, &q, "2");
    wait_for(&k, k.n_got == 2);
    kit_close(&other);
}
END_TEST

START_TEST(while_the_server_blocks_publishes_wait_and_acks_go_on)
{
    apm_queue q = queue_named("blocked");
    fate before = { 0 }, f = { 0 };
    int sent = 0;

    put(&k, &q, "1");
    put(&k, &q, "2");
    receive_from(&k, &q, 2);
    wait_for(&k, k.n_got == 2);
    alarm_on();
    /* Whoever publishes is told that he is blocked, once the server has looked at its memory. */
    for (; !strstr(k.notice, "blocked") && sent < 300; sent++) {
        send_to(&k, &q, "3", &before);
        pass(&k, 100);
    }
    ck_assert_msg(strstr(k.notice, "blocked") != NULL, "no alarm after %d messages", sent);
    for (int i = 0; i < 10; i++)
        send_to(&k, &q, "4", &f);
    pass(&k, 300);
    ck_assert_int_eq(f.n, 0);
    settle(&k, take(&k, 0), APM_ACK, NULL);
    wait_for(&k, strstr(rabbitmq_ctl(server,
                                     "list_queues name messages_unacknowledged --no-table-headers"),
                        "blocked\t1"));
    /* A client does not wait for ever. */
    kit client;
    fate refused = { 0 };
    kit_open_at(&client, rabbitmq_url(server), 1500);
    send_to(&client, &q, "5", &refused);
    wait_for(&client, refused.n == 1);
    ck_assert_int_eq(refused.bad, 1);
    ck_assert(refused.err.retriable);
    kit_part(&client);
    alarm_off();
    wait_for(&k, f.n == 10 && before.n == sent);
    ck_assert_int_eq(f.bad + before.bad, 0);
}
END_TEST

START_TEST(the_next_url_of_a_list_is_tried)
{
    apm_queue q = queue_named("failover");
    char url[200];

    kit_close(&k);
    snprintf(url, sizeof(url), "amqp://guest:guest@127.0.0.1:1//;%s", rabbitmq_url(server));
    kit_open_at(&k, url, -1);
    put(&k, &q, "1");
    ck_assert_int_eq(k.downs, 1);
    ck_assert_ptr_nonnull(strstr(k.why, "Connected"));
    receive_from(&k, &q, 1);
    wait_for(&k, k.n_got == 1);
    settle(&k, take(&k, 0), APM_ACK, NULL);
}
END_TEST

START_TEST(a_client_without_a_server_gives_up_after_its_patience)
{
    apm_queue q = queue_named("nobody");
    fate f = { 0 };
    counts c = { 0 };
    const char *name = "nobody";

    kit_close(&k);
    kit_open_at(&k, "amqp://guest:s3cret@127.0.0.1:1//", 1000);
    send_to(&k, &q, "1", &f);
    k.broker->ops->inspect(k.broker, &name, 1, note_counts, &c);
    wait_for(&k, f.n == 1 && c.done);
    ck_assert_int_eq(f.status, APIUM_E_CLOSED);
    ck_assert(c.failed);
    ck_assert_ptr_nonnull(strstr(f.err.text, "refused"));
    ck_assert_ptr_null(strstr(f.err.text, "s3cret"));
    ck_assert_ptr_null(strstr(k.why, "s3cret"));
    ck_assert_ptr_nonnull(strstr(k.why, "Trying again in"));
}
END_TEST

START_TEST(wrong_credentials_and_an_unknown_virtual_host_are_told_at_once)
{
    apm_queue q = queue_named("nobody");
    char url[100];

    for (int i = 0; i < 2; i++) {
        fate f = { 0 };
        kit_close(&k);
        snprintf(url, sizeof(url),
                 i ? "amqp://guest:guest@127.0.0.1:%d/nohost" : "amqp://guest:wr0ng@127.0.0.1:%d//",
                 server->port);
        kit_open_at(&k, url, 60000);
        send_to(&k, &q, "1", &f);
        wait_for(&k, f.n == 1);
        ck_assert_int_eq(f.status, APIUM_E_REFUSED);
        ck_assert_msg(strstr(f.err.text, i ? "nohost" : "ACCESS_REFUSED") != NULL, "%s",
                      f.err.text);
        ck_assert_ptr_null(strstr(f.err.text, "wr0ng"));
    }
}
END_TEST

START_TEST(a_silent_server_is_noticed_by_its_missing_heartbeats)
{
    apm_queue q = queue_named("silent");
    char url[100];

    kit_close(&k);
    snprintf(url, sizeof(url), "%s?heartbeat=1", rabbitmq_url(server));
    kit_open_at(&k, url, -1);
    receive_from(&k, &q, 1);
    wait_for(&k, k.ups == 1);
    pass(&k, 4000); /* heartbeats keep an idle connection */
    ck_assert_int_eq(k.downs, 0);
    kill(-server->server, SIGSTOP);
    wait_for(&k, k.downs > 0);
    ck_assert_ptr_nonnull(strstr(k.why, "heartbeat"));
    kill(-server->server, SIGCONT);
    wait_for(&k, k.ups == 2);
    put(&k, &q, "1");
    wait_for(&k, k.n_got == 1);
}
END_TEST

START_TEST(tls_is_verified_unless_the_url_says_otherwise)
{
    apm_queue q = queue_named("tls");
    char url[300];
    fate f = { 0 };

    kit_close(&k);
    snprintf(url, sizeof(url), "amqps://guest:guest@127.0.0.1:%d//", server->tls_port);
    kit_open_at(&k, url, 60000);
    send_to(&k, &q, "1", &f);
    wait_for(&k, f.n == 1);
    ck_assert_int_eq(f.status, APIUM_E_REFUSED);
    ck_assert_ptr_nonnull(strstr(f.err.text, "certificate"));
    kit_close(&k);
    snprintf(url, sizeof(url), "amqps://guest:guest@127.0.0.1:%d//?ssl_ca_certs=%s/ca.pem",
             server->tls_port, server->folder);
    kit_open_at(&k, url, -1);
    put(&k, &q, "1");
    kit_part(&k);
    snprintf(url, sizeof(url), "amqps://guest:guest@127.0.0.1:%d//?ssl_cert_reqs=none",
             server->tls_port);
    kit_open_at(&k, url, -1);
    receive_from(&k, &q, 1);
    wait_for(&k, k.n_got == 1);
    settle(&k, take(&k, 0), APM_ACK, NULL);
    kit_part(&k);
    snprintf(url, sizeof(url), "amqps://guest:guest@127.0.0.1:%d//?ssl_ca_certs=/no/such/file",
             server->tls_port);
    kit_open_at(&k, url, 60000);
    f = (fate){ 0 };
    send_to(&k, &q, "1", &f);
    wait_for(&k, f.n == 1);
    ck_assert_int_eq(f.status, APIUM_E_CONFIG);
    ck_assert_ptr_nonnull(strstr(f.err.text, "/no/such/file"));
}
END_TEST

START_TEST(a_link_that_is_closed_answers_what_waits)
{
    apm_queue q = queue_named("closing");
    fate f = { 0 };

    kit_close(&k);
    kit_open_at(&k, "amqp://guest:guest@127.0.0.1:1//", -1);
    send_to(&k, &q, "1", &f);
    receive_from(&k, &q, 1);
    pass(&k, 50);
    kit_close(&k);
    ck_assert_int_eq(f.n, 1);
    ck_assert_int_eq(f.status, APIUM_E_CLOSED);
    kit_open(&k);
}
END_TEST

int
main(void)
{
    const TTest *const tests[] = {
        connections_that_the_server_closes_are_opened_again,
        a_server_that_dies_and_comes_back_loses_nothing,
        held_deliveries_are_lost_with_the_connection_and_come_again,
        a_deleted_queue_is_declared_and_consumed_again,
        while_the_server_blocks_publishes_wait_and_acks_go_on,
        the_next_url_of_a_list_is_tried,
        a_client_without_a_server_gives_up_after_its_patience,
        wrong_credentials_and_an_unknown_virtual_host_are_told_at_once,
        a_silent_server_is_noticed_by_its_missing_heartbeats,
        tls_is_verified_unless_the_url_says_otherwise,
        a_link_that_is_closed_answers_what_waits,
        NULL,
    };

    /* Tests run in processes of their own; what one restarts, the next and the end have to find. */
    server = mmap(NULL, sizeof(*server) + sizeof(*alarmed), PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    alarmed = (bool *)(server + 1);
    rabbitmq_start(server, "");
    int failed = suite_run_with("amqp_loss", tests, 120, open_kit, close_kit);
    rabbitmq_stop(server);
    return failed;
}
