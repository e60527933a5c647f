/* consumer.c - see consumer.h. */
#include "tests/support/consumer.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backends/backend.h"
#include "brokers/broker.h"
#include "client/app.h"
#include "client/run.h"
#include "core/base/clock.h"
#include "core/model/result.h"

typedef struct job job;

typedef struct consumer {
    apium_app *app;
    apm_links *links;
    apm_broker *broker;
    apm_backend *backend;
    uv_loop_t loop;
    job *first, **last; /* delivered, and not begun yet */
} consumer;

/* Everything about one delivery until its unit is answered. */
struct job {
    job *next;
    consumer *of;
    apm_delivery *delivery;
    apm_request req;
    apm_outcome outcome;
    apm_buf doc;
    bool reporting; /* a state is on its way to the store */
};

static void
die(const char *what, const apium_error *err)
{
    fprintf(stderr, "consumer: %s: %s\n", what, err->text);
    _exit(1);
}

static void
on_settled(void *arg, apium_status status, const apium_error *err)
{
    job *j = arg;
    if (status != APIUM_OK)
        die("settle", err);
    apm_delivery_free(j->delivery);
    apm_buf_clear(&j->doc);
    free(j);
}

static void
acknowledge(job *j, apm_unit *unit)
{
    apium_error err;
    if (apm_broker_settle(j->of->broker, unit, j->delivery, APM_ACK, NULL, &err) != APIUM_OK)
        die("ack", &err);
    apm_unit_commit(unit, on_settled, j);
}

/* The outcome is stored on another link than the queue's: now the delivery may go. */
static void
on_recorded(void *arg, apium_status status, const apium_error *err)
{
    job *j = arg;
    if (status != APIUM_OK)
        die("record", err);
    acknowledge(j, apm_unit_new(j->of->broker->link));
}

static void
record(job *j, apm_unit *unit, apm_str state)
{
    apium_error err;
    const apm_record rec = { .task_id = j->req.id,
                             .state = state,
                             .doc = apm_buf_str(&j->doc),
                             .reply_to = j->req.reply_to,
                             .correlation_id = j->req.correlation_id };
    if (j->of->backend->ops->record(j->of->backend, unit, &rec, &err) != APIUM_OK)
        die("record", &err);
}

static void
on_reported(void *arg, apium_status status, const apium_error *err)
{
    job *j = arg;
    if (status != APIUM_OK)
        die("report", err);
    j->reporting = false;
}

/* A step of the loop, never from a callback of its own. */
static void
turn(consumer *of)
{
    apm_links_flush(of->links);
    uv_run(&of->loop, UV_RUN_ONCE);
}

/* Back when the state is stored: the task that reports it holds the loop up, and what it says may need a connection first. */
static apium_status
report(void *arg, apm_str state, apm_str meta, apium_error *err)
{
    job *j = arg;
    const apm_result_opts opts = { .extended = true,
                                   .now_us = apm_clock_wall_us(),
                                   .worker = "consumer@test" };
    (void)err;
    apm_buf_reset(&j->doc);
    apm_result_write_state(&j->doc, &j->req, state, meta, &opts);
    apm_unit *unit = apm_unit_new(j->of->backend->link);
    record(j, unit, state);
    j->reporting = true;
    apm_unit_commit(unit, on_reported, j);
    while (j->reporting)
        turn(j->of);
    return APIUM_OK;
}

static void
work(job *j)
{
    consumer *of = j->of;
    apm_delivery *delivery = j->delivery;
    apm_malformed how;
    apium_error err;
    const apm_decode_opts decode = { .accept = ~0u };

    if (apm_request_read(&delivery->msg, &decode, &delivery->arena, &j->req, &how, &err) !=
        APIUM_OK)
        die("read", &err);
    const apium_task_def *def = apm_app_task(of->app, j->req.task);
    const apm_run_env env = {
        .app = of->app, .hostname = "consumer@test", .report = report, .arg = j
    };
    const apm_result_opts opts = { .extended = true,
                                   .now_us = apm_clock_wall_us(),
                                   .worker = "consumer@test" };

    apm_run(&env, def, &j->req, &delivery->arena, &j->outcome);
    apm_buf_reset(&j->doc);
    if (j->outcome.kind != APM_DONE_SUCCESS && j->outcome.kind != APM_DONE_FAILURE) {
        acknowledge(j, apm_unit_new(of->broker->link));
        return;
    }
    apm_unit *unit = apm_unit_new(of->backend->link);
    apm_result_write(&j->doc, &j->req, &j->outcome, &opts);
    record(j, unit, j->outcome.kind == APM_DONE_SUCCESS ? APM_STR("SUCCESS") : APM_STR("FAILURE"));
    if (of->backend->link == of->broker->link)
        acknowledge(j, unit);
    else
        apm_unit_commit(unit, on_recorded, j);
}

static void
on_batch(void *arg, apm_delivery **batch, size_t n)
{
    consumer *of = arg;
    for (size_t i = 0; i < n; i++) {
        job *j = calloc(1, sizeof(*j));
        *j = (job){ .of = of, .delivery = batch[i] };
        apm_buf_init(&j->doc, APM_BUF_MAX);
        *of->last = j;
        of->last = &j->next;
    }
}

static void
on_lost(void *arg, apm_delivery *delivery)
{
    (void)arg;
    (void)delivery;
}

static void
on_refused(void *arg, const char *queue, apm_str raw, const char *why)
{
    (void)arg;
    (void)raw;
    fprintf(stderr, "consumer: refused in %s: %s\n", queue, why);
}

static void
on_notice(void *arg, apm_log_level level, const char *text)
{
    (void)arg;
    (void)level;
    fprintf(stderr, "consumer: %s\n", text);
}

static void
consume(const char *const *settings, const apium_task_def *tasks)
{
    consumer of = { 0 };
    apium_error err;
    const apm_queue *queue;

    const apium_module module = { APIUM_ABI, sizeof(apium_task_def), "consumer", tasks, NULL,
                                  settings };
    if (apium_app_new("consumer", NULL, &of.app, &err) != APIUM_OK ||
        apium_app_add(of.app, &module, &err) != APIUM_OK)
        die("app", &err);
    apm_settings *s = apm_app_settings(of.app);
    uv_loop_init(&of.loop);
    of.last = &of.first;
    signal(SIGPIPE, SIG_IGN);
    of.links = apm_links_new(&of.loop, s, -1);
    const apm_broker_opts opts = { .settings = s,
                                   .node = "consumer@test",
                                   .on_batch = on_batch,
                                   .on_lost = on_lost,
                                   .on_refused = on_refused,
                                   .on_notice = on_notice,
                                   .arg = &of };
    if (apm_broker_open(of.links, s->broker_url, &opts, &of.broker, &err) != APIUM_OK)
        die("broker", &err);
    if (apm_backend_open(of.links, s->result_backend, s->broker_url, &of.backend, &err) != APIUM_OK)
        die("backend", &err);
    if (apm_settings_queue(s, s->task_default_queue, &queue, &err) != APIUM_OK)
        die("queue", &err);
    apm_broker_declare(of.broker, queue, NULL, NULL);
    if (apm_broker_consume(of.broker, queue, &err) != APIUM_OK)
        die("consume", &err);
    apm_broker_window(of.broker, 4, false);
    for (;;) {
        job *j = of.first;
        if (!j) {
            turn(&of);
            continue;
        }
        of.first = j->next;
        if (!of.first)
            of.last = &of.first;
        work(j);
    }
}

pid_t
consumer_start(const char *const *settings, const apium_task_def *tasks)
{
    pid_t parent = getpid(), pid = fork();
    if (pid != 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    setsid();
    consume(settings, tasks);
    _exit(1);
}

void
consumer_stop(pid_t pid)
{
    if (pid <= 0)
        return;
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}
