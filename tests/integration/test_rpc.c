/* test_rpc.c - rpc://, results as messages: a worker's side that sends them, a client's side that reads them, and Python's. */
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/integration/amqp_kit.h"

rabbitmq *server;

static kit k; /* the client's link */
static apm_backend *client, *worker;
static kit w; /* the worker's */
static apium_error error, *const err = &error;

static void
open_both(void)
{
    kit_open_at(&k, rabbitmq_url(server), 20000);
    kit_open(&w);
    ck_ok(apm_backend_open(k.set, "rpc://", rabbitmq_url(server), &client, err));
    ck_ok(apm_backend_open(w.set, "rpc://", rabbitmq_url(server), &worker, err));
}

static void
close_both(void)
{
    apm_backend_close(client);
    apm_backend_close(worker);
    kit_close(&k);
    kit_close(&w);
}

/* The client sends something, as a client does before it waits: that declares its reply queue. */
static const char *
reply_queue(void)
{
    apm_queue q = queue_named("asked");
    const char *name = client->ops->reply_to(client);

    put(&k, &q, "[]");
    return name;
}

static void
record_for(const char *reply_to, const char *id, const char *state)
{
    char doc[200];
    fate f = { 0 };

    snprintf(doc, sizeof(doc),
             "{\"status\": \"%s\", \"result\": 5, \"traceback\": null, \"children\": [], "
             "\"task_id\": \"%s\"}",
             state, id);
    apm_unit *unit = apm_unit_new(w.broker->link);
    ck_ok(worker->ops->record(worker, unit,
                              &(apm_record){ .task_id = apm_strz(id),
                                             .state = apm_strz(state),
                                             .doc = apm_strz(doc),
                                             .reply_to = apm_strz(reply_to),
                                             .correlation_id = apm_strz(id) },
                              err));
    apm_unit_commit(unit, note_fate, &f);
    wait_for(&w, f.n == 1);
    ck_assert_int_eq(f.bad, 0);
}

typedef struct told {
    int n;
    char docs[8][200];
} told;

static void
note_change(void *arg, apm_str task_id, apm_str doc)
{
    told *t = arg;

    ck_assert_uint_gt(task_id.len, 0);
    ck_assert_int_lt(t->n, 8);
    snprintf(t->docs[t->n++], sizeof(t->docs[0]), "%.*s", APM_STR_ARG(doc));
}

static void
note_doc(void *arg, apm_str doc, const apium_error *e)
{
    told *t = arg;

    ck_assert_msg(!e, "%s", e ? e->text : "");
    snprintf(t->docs[0], sizeof(t->docs[0]), "%.*s", APM_STR_ARG(doc));
    t->n++;
}

static const char *
fetched(const char *id)
{
    static told t;

    t = (told){ 0 };
    client->ops->fetch(client, id, note_doc, &t);
    ck_assert_int_eq(t.n, 0); /* never from inside the call */
    wait_for(&k, t.n == 1);
    return t.docs[0];
}

START_TEST(a_watcher_is_told_of_each_state_in_order)
{
    told t = { 0 }, other = { 0 };
    const char *to = reply_queue();

    ck_ok(client->ops->watch(client, "id-1", note_change, &t, err));
    ck_ok(client->ops->watch(client, "id-2", note_change, &other, err));
    record_for(to, "id-1", "STARTED");
    record_for(to, "id-1", "RETRY");
    record_for(to, "id-1", "SUCCESS");
    wait_for(&k, t.n == 3);
    ck_assert_ptr_nonnull(strstr(t.docs[0], "STARTED"));
    ck_assert_ptr_nonnull(strstr(t.docs[1], "RETRY"));
    ck_assert_ptr_nonnull(strstr(t.docs[2], "SUCCESS"));
    ck_assert_int_eq(other.n, 0);
    client->ops->unwatch(client, "id-1");
    record_for(to, "id-1", "SUCCESS");
    record_for(to, "id-2", "SUCCESS");
    wait_for(&k, other.n == 1);
    ck_assert_int_eq(t.n, 3);
}
END_TEST

START_TEST(a_watch_tells_first_what_came_before_it)
{
    told t = { 0 };
    const char *to = reply_queue();

    record_for(to, "early", "SUCCESS");
    ck_assert_ptr_nonnull(strstr(fetched("early"), "SUCCESS"));
    ck_ok(client->ops->watch(client, "early", note_change, &t, err));
    ck_assert_int_eq(t.n, 0);
    wait_for(&k, t.n == 1);
    ck_assert_ptr_nonnull(strstr(t.docs[0], "SUCCESS"));
}
END_TEST

START_TEST(a_fetch_gives_the_newest_that_was_sent_before_it)
{
    const char *to = reply_queue();

    ck_assert_str_eq(fetched("nothing"), "");
    record_for(to, "fetched", "STARTED");
    record_for(to, "fetched", "SUCCESS");
    ck_assert_ptr_nonnull(strstr(fetched("fetched"), "SUCCESS"));
    ck_assert_ptr_nonnull(strstr(fetched("fetched"), "SUCCESS")); /* reading does not use it up */
}
END_TEST

START_TEST(a_fetch_without_a_reply_queue_finds_nothing)
{
    ck_assert_str_eq(fetched("nothing"), "");
}
END_TEST

START_TEST(what_is_forgotten_is_gone)
{
    fate f = { 0 };
    const char *to = reply_queue();

    record_for(to, "gone", "SUCCESS");
    ck_assert_ptr_nonnull(strstr(fetched("gone"), "SUCCESS"));
    client->ops->forget(client, "gone", note_fate, &f);
    wait_for(&k, f.n == 1);
    ck_assert_str_eq(fetched("gone"), "");
}
END_TEST

START_TEST(nothing_is_sent_for_a_request_without_reply_to)
{
    record_for("", "nobody", "SUCCESS");
    ck_assert_int_eq(w.ups, 0); /* not even connected */
}
END_TEST

START_TEST(a_reply_to_a_queue_that_is_gone_is_dropped)
{
    record_for("no-such-queue", "late", "SUCCESS");
}
END_TEST

START_TEST(replies_go_on_after_the_connection_was_lost)
{
    told t = { 0 };
    const char *to = reply_queue();

    ck_ok(client->ops->watch(client, "again", note_change, &t, err));
    record_for(to, "again", "STARTED");
    wait_for(&k, t.n == 1);
    rabbitmq_ctl(server, "close_all_connections test");
    wait_for(&k, k.downs > 0);
    /* Until the client is there again its queue is not, and what is sent goes nowhere: as with Celery's. */
    for (int tries = 0; tries < 100 && t.n == 1; tries++) {
        record_for(to, "again", "SUCCESS");
        pass(&k, 100);
    }
    wait_for(&k, t.n >= 2);
    ck_assert_ptr_nonnull(strstr(t.docs[1], "SUCCESS"));
}
END_TEST

START_TEST(the_reply_queue_is_declared_as_celery_does)
{
    char program[900];

    snprintf(program, sizeof(program),
             "import os, amqp, urllib.parse\n"
             "c = amqp.Connection('127.0.0.1:%%d' %% "
             "urllib.parse.urlparse(os.environ['AMQP_URL']).port)\n"
             "c.connect(); ch = c.channel()\n"
             "ch.queue_declare('%s', durable=True, auto_delete=True, arguments={'x-expires': "
             "86400000})\n",
             reply_queue());
    rabbitmq_python(server, program);
}
END_TEST

START_TEST(python_reads_a_result_of_ours)
{
    /* The client is Celery: it asks, and its request is answered here by hand. */
    const char *program = "import os, celery\n"
                          "app = celery.Celery(broker=os.environ['AMQP_URL'], backend='rpc://')\n"
                          "result = app.send_task('t', queue='for-c')\n"
                          "print(result.get(timeout=20))\n";
    apm_queue q = queue_named("for-c");
    int ends[2];
    char answer[64] = "";

    ck_assert_int_eq(pipe(ends), 0);
    pid_t pid = fork();
    if (pid == 0) {
        const char *said = rabbitmq_python(server, program);
        _exit(write(ends[1], said, strlen(said)) < 0);
    }
    receive_from(&w, &q, 1);
    wait_for(&w, w.n_got == 1);
    const apm_message *msg = &w.got[0]->msg;
    char to[64], id[64];
    snprintf(to, sizeof(to), "%.*s", APM_STR_ARG(msg->reply_to));
    snprintf(id, sizeof(id), "%.*s", APM_STR_ARG(msg->correlation_id));
    record_for(to, id, "SUCCESS");
    settle(&w, take(&w, 0), APM_ACK, NULL);
    ck_assert_int_gt(read(ends[0], answer, sizeof(answer) - 1), 0);
    ck_assert_str_eq(answer, "5\n");
    waitpid(pid, NULL, 0);
}
END_TEST

START_TEST(rpc_needs_rabbitmq)
{
    apm_backend *backend;

    ck_fails(apm_backend_open(k.set, "rpc://", "sqlite:///nowhere.db", &backend, err),
             APIUM_E_CONFIG);
    ck_assert_ptr_nonnull(strstr(err->text, "RabbitMQ"));
}
END_TEST

int
main(void)
{
    const TTest *const tests[] = {
        a_watcher_is_told_of_each_state_in_order,
        a_watch_tells_first_what_came_before_it,
        a_fetch_gives_the_newest_that_was_sent_before_it,
        a_fetch_without_a_reply_queue_finds_nothing,
        what_is_forgotten_is_gone,
        nothing_is_sent_for_a_request_without_reply_to,
        a_reply_to_a_queue_that_is_gone_is_dropped,
        replies_go_on_after_the_connection_was_lost,
        the_reply_queue_is_declared_as_celery_does,
        python_reads_a_result_of_ours,
        rpc_needs_rabbitmq,
        NULL,
    };

    server = mmap(NULL, sizeof(*server), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    rabbitmq_start(server, "");
    int failed = suite_run_with("rpc", tests, 120, open_both, close_both);
    rabbitmq_stop(server);
    return failed;
}
