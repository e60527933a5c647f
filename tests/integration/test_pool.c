/*
 * test_pool.c - pools with real processes and threads: this program is its own fork server (it executes itself again), and its
 * tasks are below. No broker, no backend.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <apium/app.h>
#include <apium/value.h>

#include "client/app.h"
#include "core/base/clock.h"
#include "tests/support/suite.h"
#include "worker/forkserver.h"
#include "worker/pool_inner.h"

#define DEADLINE_MS 20000 /* for what takes milliseconds */

static char **program; /* argv */

/* ---- the tasks ---- */

static apium_verdict
run_add(apium_task *task)
{
    int64_t x, y;
    if (!apium_args(task, "x:int y:int", &x, &y))
        return APIUM_FAILURE;
    return apium_return(task, apium_int(x + y));
}

static apium_verdict
run_noop(apium_task *task)
{
    (void)task;
    return APIUM_SUCCESS;
}

static apium_verdict
run_echo(apium_task *task)
{
    const char *value;
    if (!apium_args(task, "value:json", &value))
        return APIUM_FAILURE;
    return apium_return(task, apium_json(value));
}

/* Does not look at apium_should_stop. */
static apium_verdict
run_sleep(apium_task *task)
{
    double seconds;
    if (!apium_args(task, "seconds:float", &seconds))
        return APIUM_FAILURE;
    int64_t until = apm_clock_ms() + (int64_t)(seconds * 1000);
    for (int64_t left; (left = until - apm_clock_ms()) > 0;)
        (void)poll(NULL, 0, (int)left);
    return APIUM_SUCCESS;
}

/* Does. */
static apium_verdict
run_wait(apium_task *task)
{
    int64_t until = apm_clock_ms() + DEADLINE_MS;
    while (apm_clock_ms() < until && apium_should_stop(task) == APIUM_STOP_NO)
        (void)poll(NULL, 0, 2);
    return APIUM_FAILURE;
}

static apium_verdict
run_crash(apium_task *task)
{
    int64_t signum;
    if (!apium_args(task, "signal:int", &signum))
        return APIUM_FAILURE;
    (void)signal((int)signum, SIG_DFL);
    (void)raise((int)signum);
    return APIUM_SUCCESS;
}

static apium_verdict
run_exit(apium_task *task)
{
    int64_t code;
    if (!apium_args(task, "code:int", &code))
        return APIUM_FAILURE;
    exit((int)code);
}

static apium_verdict
run_states(apium_task *task)
{
    int64_t n;
    apium_error err = { 0 };
    if (!apium_args(task, "n:int", &n))
        return APIUM_FAILURE;
    for (int64_t i = 0; i < n; i++)
        if (apium_progress(task, i, n, &err) != APIUM_OK)
            return apium_raise(task, "RuntimeError", "%s", err.text);
    return APIUM_SUCCESS;
}

static apium_verdict
run_pid(apium_task *task)
{
    return apium_return(task, apium_int(getpid()));
}

/* Appends a line to a file: what really ran, whoever says what. */
static apium_verdict
run_mark(apium_task *task)
{
    const char *path, *line;
    if (!apium_args(task, "path:str line:str", &path, &line))
        return APIUM_FAILURE;
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT, 0600);
    dprintf(fd, "%s\n", line);
    close(fd);
    return APIUM_SUCCESS;
}

static apium_verdict
run_leak(apium_task *task)
{
    int64_t bytes;
    if (!apium_args(task, "bytes:int", &bytes))
        return APIUM_FAILURE;
    char *p = malloc((size_t)bytes);
    memset(p, 1, (size_t)bytes);
    return apium_return(task, apium_int(getpid() + 0 * p[0]));
}

/* Lives on after SIGTERM. */
static apium_verdict
run_stubborn(apium_task *task)
{
    (void)signal(SIGTERM, SIG_IGN);
    return run_wait(task);
}

/* Writes over the state of every slot and the head of the queue. */
static apium_verdict
run_scribble(apium_task *task)
{
    (void)task;
    struct stat file;
    int fd = APM_FS_SLOTS;
    if (fstat(fd, &file) < 0)
        return apium_raise(task, "RuntimeError", "no shared memory");
    memset(mmap(NULL, 16384, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), 0x5a, 16384);
    return APIUM_SUCCESS;
}

static void
on_soft_limit(apium_task *task)
{
    (void)task;
    static const char said[] = "called";
    int fd = open(getenv("TEST_POOL_SOFT"), O_WRONLY | O_APPEND | O_CREAT, 0600);
    (void)!write(fd, said, sizeof(said) - 1);
    close(fd);
}

static const apium_task_def tasks[] = {
    { .name = "add", .run = run_add, .acks_late = APIUM_ON, .rate_limit = "10/m" },
    { .name = "noop", .run = run_noop },
    { .name = "echo", .run = run_echo },
    { .name = "sleep", .run = run_sleep },
    { .name = "wait", .run = run_wait, .on_soft_limit = on_soft_limit },
    { .name = "crash", .run = run_crash },
    { .name = "exit", .run = run_exit },
    { .name = "states", .run = run_states },
    { .name = "pid", .run = run_pid },
    { .name = "mark", .run = run_mark },
    { .name = "leak", .run = run_leak },
    { .name = "stubborn", .run = run_stubborn },
    { .name = "scribble", .run = run_scribble },
    { 0 },
};

/* ---- a pool under test ---- */

struct item {
    apm_job job;
    apm_request req;
    char id[32];
    char *args;
    int begins, dones;
    unsigned states;
    bool states_in_order;
    apm_outcome_kind kind;
    char *result; /* or the exception's "type(args)" */
};

struct bench {
    uv_loop_t loop;
    uv_timer_t guard;
    uv_prepare_t feeder;
    unsigned next; /* items from here on are submitted as there is room, once `feeding` */
    bool feeding;
    apium_app *app;
    apm_pool *pool;
    apm_pool_opts opts;
    struct item *items;
    unsigned n, begins, dones, kinds[APM_DONE_REVOKED + 1];
    unsigned limits_soft, limits_hard, ups, downs, unexpected, servers;
    int last_status, last_pid;
    bool ready, failed, stopped;
    char error[256];
};

static void
on_ready(void *arg)
{
    ((struct bench *)arg)->ready = true;
}

static void
on_failed(void *arg, const apium_error *err)
{
    struct bench *b = arg;
    b->failed = true;
    snprintf(b->error, sizeof(b->error), "%s", err->text);
}

static void
on_begin(void *arg, apm_job *job)
{
    struct item *item = (struct item *)(void *)job;
    ((struct bench *)arg)->begins++;
    /* One comparison when all is well: each of Check's costs a system call. */
    if (++item->begins != 1 || item->dones != 0 || job->state != APM_JOB_RUNNING || job->pid <= 0)
        ck_abort_msg("%s began %d times, ended %d times", item->id, item->begins, item->dones);
}

static void
on_state(void *arg, apm_job *job, apm_str state, apm_str meta)
{
    struct item *item = (struct item *)(void *)job;
    char expected[64];
    (void)arg;
    ck_assert_int_eq(item->begins, 1);
    ck_assert_int_eq(item->dones, 0);
    ck_assert(apm_str_eqz(state, "PROGRESS"));
    snprintf(expected, sizeof(expected), "{\"current\": %u,", item->states);
    item->states_in_order = strncmp(meta.p, expected, strlen(expected)) == 0 &&
                            (item->states == 0 || item->states_in_order);
    item->states++;
}

static void
on_done(void *arg, apm_job *job, const apm_outcome *outcome)
{
    struct bench *b = arg;
    struct item *item = (struct item *)(void *)job;
    if (item->begins != 1 || ++item->dones != 1 || job->state != APM_JOB_OVER)
        ck_abort_msg("%s began %d times, ended %d times", item->id, item->begins, item->dones);
    item->kind = outcome->kind;
    b->dones++;
    b->kinds[outcome->kind]++;
    apm_buf buf;
    apm_buf_init(&buf, APM_BUF_MAX);
    if (outcome->kind == APM_DONE_SUCCESS)
        apm_buf_adds(&buf, outcome->result);
    else
        apm_exception_repr(&buf, &outcome->exc);
    item->result = apm_buf_take(&buf, NULL);
}

static void
on_limit(void *arg, apm_job *job, bool hard, double limit_s)
{
    struct bench *b = arg;
    ck_assert(limit_s == (hard ? job->time_limit_s : job->soft_time_limit_s));
    b->limits_hard += hard;
    b->limits_soft += !hard;
}

static void
on_process(void *arg, int process, int pid, bool up, int status, bool expected)
{
    struct bench *b = arg;
    if (process < 0) {
        b->servers++;
        return;
    }
    b->ups += up;
    b->downs += !up;
    b->unexpected += !up && !expected;
    if (!up) {
        b->last_status = status;
        b->last_pid = pid;
    }
}

static void
on_stopped(void *arg)
{
    struct bench *b = arg;
    b->stopped = true;
    b->pool = NULL;
}

static void
on_guard(uv_timer_t *timer)
{
    (void)timer; /* the loop turns: until() sees the time */
}

/* Turn the loop until the condition holds. */
#define until(b, condition)                                                                        \
    do {                                                                                           \
        int64_t until_ms_ = apm_clock_ms() + DEADLINE_MS;                                          \
        while (!(condition)) {                                                                     \
            if (apm_clock_ms() >= until_ms_)                                                       \
                ck_abort_msg("%s:%d: never: %s (%s)", __FILE__, __LINE__, #condition, (b)->error); \
            uv_run(&(b)->loop, UV_RUN_ONCE);                                                       \
        }                                                                                          \
    } while (0)

static apium_app *
make_app(void)
{
    apium_app *app;
    if (apium_app_new("pool", tasks, &app, NULL) != APIUM_OK)
        abort(); /* no ck_assert: the fork server is no test */
    return app;
}

/* As a worker does it: in the last step of each turn of the loop. */
static void
on_feed(uv_prepare_t *handle)
{
    struct bench *b = handle->data;
    apium_error error = { 0 }, *err = &error;
    if (!b->feeding || !b->pool)
        return;
    while (b->next < b->n && apm_pool_room(b->pool) > 0)
        ck_ok(apm_pool_submit(b->pool, &b->items[b->next++].job, err));
    apm_pool_flush(b->pool);
}

static struct bench *
prepare(const char *kind, unsigned concurrency)
{
    struct bench *b = calloc(1, sizeof(*b));
    b->app = make_app();
    ck_assert_int_eq(uv_loop_init(&b->loop), 0);
    uv_timer_init(&b->loop, &b->guard);
    uv_timer_start(&b->guard, on_guard, 1000, 1000); /* so that until() never waits for ever */
    uv_prepare_init(&b->loop, &b->feeder);
    b->feeder.data = b;
    uv_prepare_start(&b->feeder, on_feed);
    b->opts = (apm_pool_opts){
        .kind = kind,
        .concurrency = concurrency,
        .app = b->app,
        .hostname = "test@pool",
        .argv = program,
        .events = { on_ready, on_failed, on_begin, on_state, on_done, on_limit, on_process, b },
    };
    return b;
}

static void
start(struct bench *b)
{
    apium_error error = { 0 }, *err = &error;
    ck_ok(apm_pool_start(&b->loop, &b->opts, &b->pool, err));
    until(b, b->ready || b->failed);
    ck_assert_msg(b->ready, "%s", b->error);
}

static struct bench *
started(const char *kind, unsigned concurrency)
{
    struct bench *b = prepare(kind, concurrency);
    start(b);
    return b;
}

static void
init_item(struct bench *b, struct item *item, const char *task, const char *args)
{
    *item = (struct item){ .args = strdup(args) };
    snprintf(item->id, sizeof(item->id), "job-%u", (unsigned)(item - b->items));
    item->req = (apm_request){
        .id = apm_strz(item->id),
        .task = apm_strz(task),
        .args = apm_strz(item->args),
        .kwargs = APM_STR("{}"),
        .headers = APM_STR("{}"),
        .eta_us = APM_TIME_NONE,
        .expires_us = APM_TIME_NONE,
        .group_index = -1,
        .ignore_result = APM_UNSET,
        .priority = APM_PRIORITY_NONE,
        .protocol = 2,
        .serializer = APM_STR("json"),
    };
    item->job.req = &item->req;
}

/* Room for n jobs of a task with the same arguments, none submitted. */
static void
fill(struct bench *b, unsigned n, const char *task, const char *args)
{
    b->items = realloc(b->items, (b->n + n) * sizeof(*b->items));
    for (unsigned i = 0; i < n; i++)
        init_item(b, &b->items[b->n + i], task, args);
    b->n += n;
}

static void
submit(struct bench *b, unsigned i)
{
    apium_error error = { 0 }, *err = &error;
    ck_ok(apm_pool_submit(b->pool, &b->items[i].job, err));
}

/* One job, submitted; the items move, so all of a test are made before the first is submitted, or one after the other. */
static struct item *
send_one(struct bench *b, const char *task, const char *args)
{
    fill(b, 1, task, args);
    submit(b, b->n - 1);
    apm_pool_flush(b->pool);
    return &b->items[b->n - 1];
}

static void
finish(struct bench *b)
{
    if (b->pool) {
        apm_pool_stop(b->pool, false, on_stopped, b);
        until(b, b->stopped);
    }
    uv_close((uv_handle_t *)&b->guard, NULL);
    uv_close((uv_handle_t *)&b->feeder, NULL);
    uv_run(&b->loop, UV_RUN_DEFAULT);
    ck_assert_int_eq(uv_loop_close(&b->loop), 0);
    apium_app_free(b->app);
    for (unsigned i = 0; i < b->n; i++) {
        free(b->items[i].args);
        free(b->items[i].result);
    }
    free(b->items);
    free(b);
}

static bool
alive(int pid)
{
    char path[64], state = 0;
    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    FILE *file = fopen(path, "r");
    if (!file)
        return false;
    int got = fscanf(file, "%*d (%*[^)]) %c", &state);
    fclose(file);
    return got == 1 && state != 'Z';
}

/* ---- prefork ---- */

START_TEST(a_request_runs_in_a_process_and_its_result_comes_back)
{
    struct bench *b = started("prefork", 2);
    struct item *item = send_one(b, "add", "[2, 3]");
    until(b, b->dones == 1);
    ck_assert_int_eq(item->kind, APM_DONE_SUCCESS);
    ck_assert_str_eq(item->result, "5");
    ck_assert_int_ne(item->job.pid, getpid());
    finish(b);
}
END_TEST

START_TEST(the_tasks_options_are_known_to_the_main_process)
{
    struct bench *b = started("prefork", 1);
    const apm_task_info *add = apm_pool_task(b->pool, APM_STR("add"));
    ck_assert_ptr_nonnull(add);
    ck_assert_int_eq(add->acks_late, APIUM_ON);
    ck_assert_str_eq(add->rate_limit, "10/m");
    ck_assert_ptr_null(add->queue);
    ck_assert_ptr_nonnull(apm_pool_task(b->pool, APM_STR("wait")));
    ck_assert_ptr_null(apm_pool_task(b->pool, APM_STR("ad")));
    ck_assert_ptr_null(apm_pool_task(b->pool, APM_STR("addd")));
    size_t n = 0;
    while (apm_pool_task_at(b->pool, n))
        n++;
    ck_assert_uint_eq(n, sizeof(tasks) / sizeof(*tasks) - 1);
    finish(b);
}
END_TEST

START_TEST(every_job_of_many_batches_ends_once)
{
    enum { N = 20000 };
    struct bench *b = started("prefork", 2);
    fill(b, N, "noop", "[]");
    b->feeding = true;
    until(b, b->dones == N);
    ck_assert_uint_eq(b->kinds[APM_DONE_SUCCESS], N);
    ck_assert_uint_eq(apm_pool_room(b->pool), b->pool->slots.n);
    finish(b);
}
END_TEST

START_TEST(a_process_that_dies_by_a_signal_loses_its_job_in_celerys_words)
{
    struct bench *b = started("prefork", 1);
    struct item *item = send_one(b, "crash", "[9]");
    until(b, b->dones == 1);
    ck_assert_int_eq(item->kind, APM_DONE_LOST);
    ck_assert_str_eq(item->result,
                     "WorkerLostError('Worker exited prematurely: signal 9 (SIGKILL) Job: 1.')");
    item = send_one(b, "exit", "[3]");
    until(b, b->dones == 2);
    ck_assert_str_eq(item->result,
                     "WorkerLostError('Worker exited prematurely: exitcode 3 Job: 2.')");
    item = send_one(b, "add", "[1, 1]");
    until(b, b->dones == 3);
    ck_assert_str_eq(item->result, "2");
    ck_assert_uint_eq(b->unexpected, 2);
    finish(b);
}
END_TEST

int
main(int argc, char **argv)
{
    const TTest *const all[] = {
        a_request_runs_in_a_process_and_its_result_comes_back,
        the_tasks_options_are_known_to_the_main_process,
        every_job_of_many_batches_ends_once,
        a_process_that_dies_by_a_signal_loses_its_job_in_celerys_words,
        NULL,
    };
    (void)argc;
    program = argv;
    if (apm_fork_server_wanted())
        return apm_fork_server_main(make_app());
    return suite_run("pool", all, 60);
}
