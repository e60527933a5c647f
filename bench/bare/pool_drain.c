/*
 * pool_drain - how many no-op jobs a second a bare pool runs: no broker, no backend, no worker around it.
 *
 *     pool_drain [prefork|threads|solo] [PROCESSES] [JOBS]
 */
#include <stdio.h>
#include <stdlib.h>

#include "core/base/clock.h"
#include "worker/pool.h"

struct bench {
    uv_prepare_t feeder;
    apm_pool *pool;
    apm_job *jobs;
    unsigned n, next, done, success;
    apm_request req;
    int64_t began_ns;
};

static apium_verdict
run_noop(apium_task *task)
{
    (void)task;
    return APIUM_SUCCESS;
}

static const apium_task_def tasks[] = { { .name = "noop", .run = run_noop }, { 0 } };

static void
on_feed(uv_prepare_t *handle)
{
    struct bench *b = handle->data;
    if (!b->began_ns)
        return;
    while (b->next < b->n && apm_pool_room(b->pool) > 0)
        if (apm_pool_submit(b->pool, &b->jobs[b->next++], NULL) != APIUM_OK)
            abort();
    apm_pool_flush(b->pool);
}

static void
on_stopped(void *arg)
{
    uv_close(arg, NULL);
}

static void
on_ready(void *arg)
{
    ((struct bench *)arg)->began_ns = apm_clock_ns();
}

static void
on_failed(void *arg, const apium_error *err)
{
    (void)arg;
    fprintf(stderr, "pool_drain: %s\n", err->text);
    exit(1);
}

static void
on_begin(void *arg, apm_job *job)
{
    (void)arg;
    (void)job;
}

static void
on_done(void *arg, apm_job *job, const apm_outcome *outcome)
{
    struct bench *b = arg;
    (void)job;
    b->success += outcome->kind == APM_DONE_SUCCESS;
    if (++b->done < b->n)
        return;
    double seconds = (double)(apm_clock_ns() - b->began_ns) / 1e9;
    printf("%u jobs in %.3f s: %.0f jobs/s, %u succeeded\n", b->n, seconds, b->n / seconds,
           b->success);
    apm_pool_stop(b->pool, false, on_stopped, &b->feeder);
}

int
main(int argc, char **argv)
{
    static const char header[] =
        "{\"lang\": \"py\", \"task\": \"noop\", \"id\": \"7c2d12f8-6bd1-4f5c-a2a9-6c4d27e1f7a0\", "
        "\"shadow\": "
        "null, \"eta\": null, \"expires\": null, \"group\": null, \"group_index\": null, "
        "\"retries\": 0, "
        "\"timelimit\": [null, null], \"root_id\": \"7c2d12f8-6bd1-4f5c-a2a9-6c4d27e1f7a0\", "
        "\"parent_id\": null, \"argsrepr\": \"()\", \"kwargsrepr\": \"{}\", \"origin\": "
        "\"gen4711@host\", \"ignore_result\": false}";
    apium_error err = { 0 };
    apium_app *app;
    uv_loop_t loop;
    struct bench b = { .n = argc > 3 ? (unsigned)atoi(argv[3]) : 1000000 };

    bool server = apm_fork_server_wanted(); /* before anything else */
    if (apium_app_new("bench", tasks, &app, &err) != APIUM_OK)
        return server ? apm_fork_server_fail(&err) : 1;
    if (server)
        return apm_fork_server_main(app);
    b.jobs = calloc(b.n, sizeof(*b.jobs));
    if (!b.jobs)
        abort();
    b.req = (apm_request){
        .id = APM_STR("7c2d12f8-6bd1-4f5c-a2a9-6c4d27e1f7a0"),
        .task = APM_STR("noop"),
        .root_id = APM_STR("7c2d12f8-6bd1-4f5c-a2a9-6c4d27e1f7a0"),
        .args = APM_STR("[]"),
        .kwargs = APM_STR("{}"),
        .embed =
            APM_STR("{\"callbacks\": null, \"errbacks\": null, \"chain\": null, \"chord\": null}"),
        .headers = apm_strz(header),
        .eta_us = APM_TIME_NONE,
        .expires_us = APM_TIME_NONE,
        .group_index = -1,
        .ignore_result = APM_UNSET,
        .priority = APM_PRIORITY_NONE,
        .protocol = 2,
        .serializer = APM_STR("json"),
    };
    for (unsigned i = 0; i < b.n; i++)
        b.jobs[i].req = &b.req;
    uv_loop_init(&loop);
    uv_prepare_init(&loop, &b.feeder);
    b.feeder.data = &b;
    uv_prepare_start(&b.feeder, on_feed);
    const apm_pool_opts opts = {
        .kind = argc > 1 ? argv[1] : "prefork",
        .concurrency = argc > 2 ? (unsigned)atoi(argv[2]) : 2,
        .app = app,
        .hostname = "bench@pool",
        .argv = argv,
        .events = { .on_ready = on_ready,
                    .on_failed = on_failed,
                    .on_begin = on_begin,
                    .on_done = on_done,
                    .arg = &b },
    };
    if (apm_pool_start(&loop, &opts, &b.pool, &err) != APIUM_OK) {
        fprintf(stderr, "pool_drain: %s\n", err.text);
        return 1;
    }
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_loop_close(&loop);
    apium_app_free(app);
    free(b.jobs);
    return 0;
}
