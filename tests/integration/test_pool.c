/*
 * test_pool.c - pools with real processes and threads: this program is its own fork server (it
 * executes itself again), and its tasks are below. No broker, no backend.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
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

/* Does, with eyes for nothing else. */
static _Atomic int eager_ones;

static apium_verdict
run_eager(apium_task *task)
{
    int64_t until = apm_clock_ms() + DEADLINE_MS;
    atomic_fetch_add(&eager_ones, 1);
    while (apium_should_stop(task) == APIUM_STOP_NO && apm_clock_ms() < until)
        ;
    atomic_fetch_sub(&eager_ones, 1);
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
    volatile char *p = malloc((size_t)bytes); /* volatile: it is really touched */
    for (int64_t i = 0; i < bytes; i += 4096)
        p[i] = 1;
    return apium_return(task, apium_int(getpid()));
}

/* Lives on after SIGTERM. */
static apium_verdict
run_stubborn(apium_task *task)
{
    (void)signal(SIGTERM, SIG_IGN);
    return run_wait(task);
}

/* Writes over the queue, and over the words of half the slots when it is asked to. */
static apium_verdict
run_scribble(apium_task *task)
{
    int64_t bytes;
    if (!apium_args(task, "bytes:int", &bytes))
        return APIUM_FAILURE;
    void *p = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED, APM_FS_SLOTS, 0);
    if (p == MAP_FAILED)
        return apium_raise(task, "RuntimeError", "no shared memory");
    memset(p, 0x5a, (size_t)bytes);
    return APIUM_SUCCESS;
}

static apium_verdict
run_leave(apium_task *task)
{
    (void)task;
    if (fork() == 0) {
        (void)poll(NULL, 0, 100);
        _exit(0);
    }
    exit(1);
}

/* Pretends to speak for every job there could be, then talks nonsense. */
static apium_verdict
run_forge(apium_task *task)
{
    (void)task;
    for (int fd = APM_FS_END; fd < 64; fd++) {
        int type;
        socklen_t len = sizeof(type);
        if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0)
            continue;
        for (uint32_t slot = 0; slot < 64; slot++)
            for (uint32_t seq = 1; seq < 100; seq++) {
                const apm_state_frame frame = { slot, seq, APM_STR("PROGRESS"), APM_STR("{}") };
                if (apm_states_send(fd, &frame, NULL) != APIUM_OK)
                    return APIUM_FAILURE;
            }
        char garbage[64];
        memset(garbage, 0xff, sizeof(garbage));
        (void)!send(fd, garbage, sizeof(garbage), MSG_NOSIGNAL);
    }
    return run_wait(task);
}

/* Comes back twice. */
static apium_verdict
run_fork(apium_task *task)
{
    (void)fork();
    return apium_return(task, apium_int(getpid()));
}

static apium_verdict
run_fds(apium_task *task)
{
    int n = 0;
    for (int fd = 0; fd < 1024; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return apium_return(task, apium_int(n));
}

static apium_verdict
run_signals(apium_task *task)
{
    char text[256], stdin_path[64] = { 0 };
    int len;
    sigset_t blocked;
    struct sigaction act;
    (void)sigprocmask(SIG_BLOCK, NULL, &blocked);
    len = snprintf(text, sizeof(text),
                   "\"blocked: %s, ignored:", sigisemptyset(&blocked) ? "none" : "some");
    for (int i = 1; i < 32; i++)
        if (sigaction(i, NULL, &act) == 0 && act.sa_handler == SIG_IGN)
            len += snprintf(text + len, sizeof(text) - (size_t)len, " %d", i);
    if (readlink("/proc/self/fd/0", stdin_path, sizeof(stdin_path) - 1) < 0)
        return APIUM_FAILURE;
    snprintf(text + len, sizeof(text) - (size_t)len, ", stdin: %s\"", stdin_path);
    return apium_return(task, apium_json(text));
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
    { .name = "eager", .run = run_eager, .on_soft_limit = on_soft_limit },
    { .name = "crash", .run = run_crash },
    { .name = "exit", .run = run_exit },
    { .name = "states", .run = run_states },
    { .name = "pid", .run = run_pid },
    { .name = "mark", .run = run_mark },
    { .name = "leak", .run = run_leak },
    { .name = "stubborn", .run = run_stubborn },
    { .name = "scribble", .run = run_scribble },
    { .name = "leave", .run = run_leave },
    { .name = "forge", .run = run_forge },
    { .name = "fork", .run = run_fork },
    { .name = "fds", .run = run_fds },
    { .name = "signals", .run = run_signals },
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

enum { ITEMS = 20001 };

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

/* Let until() look: what happens in a timer would else be seen after a sleep only. */
static void
notice(struct bench *b)
{
    uv_stop(&b->loop);
}

static void
on_ready(void *arg)
{
    struct bench *b = arg;
    b->ready = true;
    notice(b);
}

static void
on_failed(void *arg, const apium_error *err)
{
    struct bench *b = arg;
    b->failed = true;
    notice(b);
    snprintf(b->error, sizeof(b->error), "%s", err->text);
}

static void
on_begin(void *arg, apm_job *job)
{
    struct bench *b = arg;
    struct item *item = (struct item *)(void *)job;
    b->begins++;
    notice(b);
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
    if (meta.len == 2) { /* forged for itself: that is its own business */
        item->states++;
        return;
    }
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
    notice(b);
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
    notice(b);
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
    notice(b);
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

/* Wait for what a thread does, without turning the loop. */
#define until_true(condition)                                                                      \
    do {                                                                                           \
        int64_t until_ms_ = apm_clock_ms() + DEADLINE_MS;                                          \
        while (!(condition)) {                                                                     \
            if (apm_clock_ms() >= until_ms_)                                                       \
                ck_abort_msg("%s:%d: never: %s", __FILE__, __LINE__, #condition);                  \
            (void)poll(NULL, 0, 1);                                                                \
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
    b->items = calloc(ITEMS, sizeof(*b->items)); /* they are pointed to: never moved */
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
    ck_assert_uint_le(b->n + n, ITEMS);
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

/* One job, submitted. */
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

/* A text of that many bytes, as JSON. */
static char *
long_json(size_t size)
{
    char *text = malloc(size + 1);
    memset(text, 'x', size);
    for (size_t i = 5; i + 1 < size; i += 97)
        text[i] = (char)('a' + i % 26);
    text[0] = text[size - 1] = '"';
    text[size] = '\0';
    return text;
}

static int
parent_of(int pid)
{
    char path[64];
    int parent = 0;
    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    FILE *file = fopen(path, "r");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(fscanf(file, "%*d (%*[^)]) %*c %d", &parent), 1);
    fclose(file);
    return parent;
}

static int
pid_at(struct bench *b, size_t n)
{
    int process, pid = 0;
    return apm_pool_process(b->pool, n, &process, &pid) ? pid : 0;
}

static unsigned
count_of(struct bench *b, const char *word)
{
    unsigned n = 0;
    for (unsigned i = 0; i < b->n; i++)
        n += b->items[i].result && strcmp(b->items[i].result, word) == 0;
    return n;
}

START_TEST(five_megabytes_travel_both_ways)
{
    enum { SIZE = 5 << 20 };
    struct bench *b = started("prefork", 1);
    char *value = long_json(SIZE), *args = malloc(SIZE + 3);
    snprintf(args, SIZE + 3, "[%s]", value);
    for (unsigned i = 1; i <= 3; i++) {
        struct item *item = send_one(b, "echo", args);
        until(b, b->dones == i);
        ck_assert_int_eq(item->kind, APM_DONE_SUCCESS);
        ck_assert_str_eq(item->result, value);
    }
    free(value);
    free(args);
    finish(b);
}
END_TEST

START_TEST(every_size_around_the_slots_own_travels)
{
    struct bench *b = started("prefork", 1);
    unsigned done = 0;
    for (size_t size = APM_SLOT_INLINE - 600; size < APM_SLOT_INLINE + 600; size += 7) {
        char *value = long_json(size), *args = malloc(size + 3);
        snprintf(args, size + 3, "[%s]", value);
        struct item *item = send_one(b, "echo", args);
        done++;
        until(b, b->dones == done);
        ck_assert_str_eq(item->result, value);
        free(value);
        free(args);
    }
    finish(b);
}
END_TEST

START_TEST(an_unregistered_task_fails_by_its_name)
{
    struct bench *b = started("prefork", 1);
    struct item *item = send_one(b, "nowhere", "[]");
    until(b, b->dones == 1);
    ck_assert_int_eq(item->kind, APM_DONE_FAILURE);
    ck_assert_str_eq(item->result, "NotRegistered('nowhere')");
    finish(b);
}
END_TEST

START_TEST(custom_states_arrive_in_order_before_the_end)
{
    static const char *const kinds[] = { "prefork", "threads" };
    for (int k = 0; k < 2; k++) {
        struct bench *b = started(kinds[k], 2);
        fill(b, 60, "states", "[50]");
        fill(b, 2, "states", "[20000]");
        b->feeding = true;
        until(b, b->dones == b->n);
        for (unsigned i = 0; i < b->n; i++) {
            ck_assert_int_eq(b->items[i].kind, APM_DONE_SUCCESS);
            ck_assert(b->items[i].states_in_order);
            ck_assert_uint_eq(b->items[i].states, i < 60 ? 50 : 20000);
        }
        finish(b);
    }
}
END_TEST

START_TEST(a_killed_process_in_a_deep_batch_loses_and_doubles_nothing_that_finished)
{
    enum { N = 4000 };
    char path[] = "/tmp/test_pool.XXXXXX", args[64];
    static uint8_t ran[N];
    struct bench *b = started("prefork", 3);
    int fd = mkstemp(path), kills = 0;
    unsigned line;
    ck_assert_int_ge(fd, 0);
    for (unsigned i = 0; i < N; i++) {
        snprintf(args, sizeof(args), "[\"%s\", \"%u\"]", path, i);
        fill(b, 1, "mark", args);
    }
    b->feeding = true;
    while (b->dones < N) {
        unsigned before = b->dones;
        until(b, b->dones == N || b->dones > before + 100);
        int pid = pid_at(b, (size_t)rand() % 3);
        if (pid && kill(pid, SIGKILL) == 0)
            kills++;
    }
    FILE *file = fdopen(fd, "r");
    while (fscanf(file, "%u", &line) == 1) {
        ck_assert_uint_lt(line, N);
        ran[line]++;
    }
    fclose(file);
    unlink(path);
    unsigned lost = 0;
    for (unsigned i = 0; i < N; i++) {
        ck_assert_int_eq(b->items[i].dones, 1);
        ck_assert_uint_le(ran[i], 1);
        if (b->items[i].kind == APM_DONE_SUCCESS)
            ck_assert_uint_eq(ran[i], 1);
        else
            ck_assert_int_eq(b->items[i].kind, APM_DONE_LOST);
        lost += b->items[i].kind == APM_DONE_LOST;
    }
    ck_assert_int_gt(kills, 3);
    ck_assert_uint_le(lost, (unsigned)kills);
    finish(b);
}
END_TEST

/* As the only process does it, right before it calls the task: take the job, go no further. */
static void
take_in_its_name(struct bench *b, const struct item *item)
{
    uint32_t seq;
    ck_assert_int_eq(item->job.state, APM_JOB_READY);
    ck_assert_int_eq(apm_slots_take(&b->pool->slots, 0, &seq), (int)item->job.slot);
    apm_pool_poll(b->pool);
    ck_assert(!apm_pool_take_back(b->pool, &b->items[0].job));
    ck_assert_int_eq(item->begins, 0);
}

START_TEST(a_job_whose_process_died_before_its_task_was_called_runs_in_the_next)
{
    struct bench *b = started("prefork", 1);
    until(b, pid_at(b, 0));
    int pid = pid_at(b, 0);
    ck_assert_int_eq(kill(pid, SIGSTOP), 0); /* it does not wake up any more */
    const struct item *item = send_one(b, "pid", "[]");
    take_in_its_name(b, item);
    ck_assert_int_eq(kill(pid, SIGKILL), 0);
    until(b, item->dones == 1);
    ck_assert_int_eq(item->kind, APM_DONE_SUCCESS);
    ck_assert_int_eq(atoi(item->result), pid_at(b, 0));
    ck_assert_int_ne(atoi(item->result), pid);
    finish(b);
}
END_TEST

START_TEST(a_job_with_which_process_after_process_dies_is_lost)
{
    struct bench *b = started("prefork", 1);
    until(b, pid_at(b, 0));
    int pid = pid_at(b, 0);
    ck_assert_int_eq(kill(pid, SIGSTOP), 0);
    const struct item *item = send_one(b, "noop", "[]");
    for (unsigned deaths = 1; item->dones == 0; deaths++) {
        ck_assert_uint_le(deaths, 4);
        take_in_its_name(b, item);
        until(b, pid_at(b, 0));
        ck_assert_int_eq(kill(pid_at(b, 0), SIGKILL), 0);
        until(b,
              b->downs == deaths); /* the next one comes after a while: it finds nothing to take */
    }
    ck_assert_uint_eq(b->downs, 4);
    ck_assert_int_eq(item->kind, APM_DONE_LOST);
    finish(b);
}
END_TEST

START_TEST(a_killed_fork_server_is_started_again_while_the_processes_work_on)
{
    struct bench *b = started("prefork", 2);
    until(b, pid_at(b, 1));
    int first = pid_at(b, 0), second = pid_at(b, 1);
    for (int round = 0; round < 3; round++) {
        int server = parent_of(pid_at(b, 0));
        if (round > 0) /* orphans are ours: ask the server of a new one */
            server = 0;
        struct item *item = send_one(b, "sleep", "[0.05]");
        until(b, item->begins == 1);
        if (server) {
            unsigned servers = b->servers;
            ck_assert_int_eq(kill(server, SIGKILL), 0);
            until(b, b->servers == servers + 2);
        }
        until(b, item->dones == 1);
        ck_assert_int_eq(item->kind, APM_DONE_SUCCESS);
    }
    ck_assert_int_eq(pid_at(b, 0), first);
    ck_assert_int_eq(pid_at(b, 1), second);
    ck_assert_int_eq(parent_of(first), getpid());
    /* Their exit status comes to us, and the new server replaces them. */
    struct item *item = send_one(b, "exit", "[7]");
    until(b, item->dones == 1);
    ck_assert_str_eq(item->result,
                     "WorkerLostError('Worker exited prematurely: exitcode 7 Job: 4.')");
    until(b, b->downs == 1 && pid_at(b, 1));
    item = send_one(b, "add", "[1, 2]");
    until(b, item->dones == 1);
    ck_assert_str_eq(item->result, "3");
    finish(b);
}
END_TEST

START_TEST(a_killed_fork_server_is_back_soon_as_long_as_it_was_of_use)
{
    struct bench *b = started("prefork", 1);
    int64_t began_ms = apm_clock_ms();
    for (unsigned round = 1; round <= 8; round++) {
        until(b, pid_at(b, 0));
        int process = pid_at(b, 0), server = parent_of(process);
        ck_assert_int_ne(server, getpid());
        const struct item *item = send_one(b, "noop", "[]"); /* of use itself */
        until(b, item->dones == 1);
        ck_assert_int_eq(kill(server, SIGKILL), 0);
        ck_assert_int_eq(kill(process, SIGKILL), 0);
        until(b, b->downs == round);
    }
    until(b, pid_at(b, 0));
    /* Waits that double, as for one that is of no use, would be 12.7 s and more. */
    ck_assert_int_lt(apm_clock_ms() - began_ms, 8000);
    finish(b);
}
END_TEST

START_TEST(fork_server_and_processes_killed_over_and_over_finish_every_job)
{
    enum { N = 3000 };
    struct bench *b = started("prefork", 2);
    fill(b, N, "noop", "[]");
    b->feeding = true;
    while (b->dones < N) {
        unsigned before = b->dones;
        until(b, b->dones == N || b->dones >= before + 300);
        int pid = pid_at(b, (size_t)rand() % 2);
        int parent = pid && alive(pid) ? parent_of(pid) : 0;
        if (parent && parent != getpid() && rand() % 2)
            (void)kill(parent, SIGKILL);
        else if (pid)
            (void)kill(pid, SIGKILL);
    }
    ck_assert_uint_eq(b->kinds[APM_DONE_SUCCESS] + b->kinds[APM_DONE_LOST], N);
    ck_assert_uint_le(b->kinds[APM_DONE_LOST], 10);
    finish(b);
    /* Nothing is left of them. One that was forked and never told us of may be about to leave. */
    int64_t deadline = apm_clock_ms() + DEADLINE_MS;
    while (waitpid(-1, NULL, WNOHANG) >= 0) {
        ck_assert_int_lt(apm_clock_ms(), deadline);
        (void)poll(NULL, 0, 5);
    }
    ck_assert_int_eq(errno, ECHILD);
}
END_TEST

/* In a process of its own: a pool whose processes are in user code, one asleep for long. Its pids
 * go to the pipe. */
static _Noreturn void
doomed_main(int out)
{
    struct bench *b = started("prefork", 3);
    fill(b, 2, "sleep", "[60]");
    b->feeding = true;
    until(b, b->begins == 2 && pid_at(b, 2));
    int pids[4] = { pid_at(b, 0), pid_at(b, 1), pid_at(b, 2), parent_of(pid_at(b, 0)) };
    (void)!write(out, pids, sizeof(pids));
    uv_run(&b->loop, UV_RUN_DEFAULT);
    abort();
}

/* Leaves a process behind that ends a little later. */
START_TEST(what_tasks_leave_behind_is_reaped)
{
    struct bench *b = started("prefork", 1);
    for (int round = 0; round < 2; round++) {
        int server = parent_of(pid_at(b, 0));
        struct item *item = send_one(b, "leave", "[]"); /* and its process exits */
        until(b, item->dones == 1);
        until(b, pid_at(b, 0) && b->downs == (unsigned)round + 1);
        if (round == 0) {
            ck_assert_int_eq(kill(server, SIGKILL), 0); /* now the next comes to us */
            until(b, b->servers == 2);
        }
    }
    /* No zombie in this process, none in the fork server. */
    int64_t until_ms = apm_clock_ms() + 300;
    uv_timer_set_repeat(&b->guard, 20);
    uv_timer_again(&b->guard);
    until(b, apm_clock_ms() >= until_ms);
    ck_assert_int_eq(system("! ps -eo ppid,pid,stat | grep \" Z\" | grep -w -e $PPID"), 0);
    finish(b);
    ck_assert_int_eq(waitpid(-1, NULL, WNOHANG), -1);
}
END_TEST

START_TEST(a_stuck_fork_server_is_replaced)
{
    struct bench *b = started("prefork", 1);
    int server = parent_of(pid_at(b, 0));
    struct item *item = send_one(b, "sleep", "[60]");
    until(b, item->begins == 1);
    ck_assert_int_eq(kill(server, SIGSTOP), 0);
    ck_assert_int_eq(kill(item->job.pid, SIGKILL), 0);
    until(b, item->dones == 1);
    ck_assert_str_eq(item->result,
                     "WorkerLostError('Worker exited prematurely: signal 9 (SIGKILL) Job: 1.')");
    ck_assert(!alive(server));
    until(b, pid_at(b, 0));
    /* The same while it owes an answer. */
    server = parent_of(pid_at(b, 0));
    apium_error error = { 0 }, *err = &error;
    ck_assert_int_eq(kill(server, SIGSTOP), 0);
    ck_ok(apm_pool_resize(b->pool, 1, err));
    until(b, pid_at(b, 1));
    ck_assert(!alive(server));
    finish(b);
}
END_TEST

START_TEST(a_handler_that_comes_back_in_a_forked_process_too_is_run_by_one)
{
    char pid[16];
    struct bench *b = started("prefork", 1);
    fill(b, 50, "fork", "[]");
    fill(b, 50, "pid", "[]");
    b->feeding = true;
    until(b, b->dones == 100);
    snprintf(pid, sizeof(pid), "%d", pid_at(b, 0));
    ck_assert_uint_eq(count_of(b, pid), 100);
    finish(b);
}
END_TEST

static unsigned
open_fds(void)
{
    unsigned n = 0;
    for (int fd = 0; fd < 1024; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

START_TEST(no_descriptor_is_left_open)
{
    struct bench *b = started("prefork", 2);
    until(b, pid_at(b, 1));
    unsigned before = open_fds();
    for (unsigned i = 0; i < 5; i++) {
        struct item *item = send_one(b, "crash", "[9]");
        until(b, item->dones == 1);
        until(b, pid_at(b, 1) && b->downs == i + 1);
    }
    int server = parent_of(pid_at(b, 0));
    unsigned servers = b->servers;
    ck_assert_int_eq(kill(server, SIGKILL), 0);
    until(b, b->servers == servers + 2);
    ck_assert_uint_eq(open_fds(), before);
    finish(b);
    b = prepare("prefork", 2);
    unsigned without = open_fds();
    start(b);
    apm_pool_stop(b->pool, false, on_stopped, b);
    until(b, b->stopped);
    ck_assert_uint_eq(open_fds(), without);
    finish(b);
}
END_TEST

START_TEST(a_pool_process_has_what_it_needs_open_and_no_more)
{
    struct bench *b = started("prefork", 2);
    int fd = open("/dev/null", O_RDONLY); /* not close-on-exec: a library's carelessness */
    struct item *item = send_one(b, "fds", "[]");
    until(b, item->dones == 1);
    /* 0 1 2, the slots, the eventfd, the socket, the life pipe. */
    ck_assert_str_eq(item->result, "7");
    close(fd);
    finish(b);
}
END_TEST

START_TEST(a_pool_process_has_the_signals_of_a_new_program)
{
    struct bench *b = started("prefork", 1);
    struct item *item = send_one(b, "signals", "[]");
    until(b, item->dones == 1);
    ck_assert_str_eq(item->result, "\"blocked: none, ignored: 1 2 13, stdin: /dev/null\"");
    finish(b);
}
END_TEST

START_TEST(nothing_survives_the_main_process)
{
    int pipes[2], pids[4];
    for (int round = 0; round < 2; round++) {
        ck_assert_int_eq(pipe(pipes), 0);
        pid_t pid = fork();
        if (pid == 0)
            doomed_main(pipes[1]);
        ck_assert_int_eq((int)read(pipes[0], pids, sizeof(pids)), (int)sizeof(pids));
        if (round == 1)
            ck_assert_int_eq(kill(pids[3], SIGKILL), 0); /* without their fork server, too */
        ck_assert_int_eq(kill(pid, SIGKILL), 0);
        ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
        int64_t deadline = apm_clock_ms() + DEADLINE_MS;
        for (int i = 0; i < 4; i++)
            while (alive(pids[i])) {
                ck_assert_msg(apm_clock_ms() < deadline, "process %d lives on", i);
                (void)poll(NULL, 0, 5);
            }
        close(pipes[0]);
        close(pipes[1]);
    }
}
END_TEST

START_TEST(a_job_is_taken_back_until_it_begins)
{
    struct bench *b = started("prefork", 1);
    fill(b, 1, "sleep", "[0.2]");
    fill(b, 2, "add", "[1, 2]");
    for (unsigned i = 0; i < 3; i++)
        submit(b, i);
    apm_pool_flush(b->pool);
    until(b, b->items[0].begins == 1);
    ck_assert(!apm_pool_take_back(b->pool, &b->items[0].job));
    ck_assert(apm_pool_take_back(b->pool, &b->items[1].job));
    ck_assert(!apm_pool_take_back(b->pool, &b->items[1].job));
    until(b, b->dones == 2);
    ck_assert_int_eq(b->items[1].begins, 0);
    ck_assert_int_eq(b->items[2].dones, 1);
    finish(b);
}
END_TEST

START_TEST(no_request_waits_while_a_process_is_idle)
{
    struct bench *b = started("prefork", 2);
    until(b, pid_at(b, 1));
    fill(b, 1, "sleep", "[1.0]");
    fill(b, 20, "noop", "[]");
    int64_t began_ms = apm_clock_ms();
    b->feeding = true;
    until(b, b->dones == 20);
    ck_assert_int_eq(b->items[0].dones, 0);
    ck_assert_int_lt(apm_clock_ms() - began_ms, 900);
    until(b, b->dones == 21);
    finish(b);
}
END_TEST

/* ---- limits and signals ---- */

START_TEST(a_soft_limit_tells_the_task_and_calls_its_function)
{
    char path[] = "/tmp/test_pool.XXXXXX", said[16] = { 0 };
    int fd = mkstemp(path);
    setenv("TEST_POOL_SOFT", path, 1);
    struct bench *b = started("prefork", 1);
    fill(b, 1, "wait", "[]");
    b->items[0].job.soft_time_limit_s = 0.2;
    b->feeding = true;
    int64_t began_ms = apm_clock_ms();
    until(b, b->dones == 1);
    ck_assert_int_ge(apm_clock_ms() - began_ms, 195);
    ck_assert_int_lt(apm_clock_ms() - began_ms, 1000);
    ck_assert_str_eq(b->items[0].result, "SoftTimeLimitExceeded()");
    ck_assert_uint_eq(b->limits_soft, 1);
    ck_assert_int_eq((int)read(fd, said, sizeof(said)), 6);
    ck_assert_str_eq(said, "called");
    ck_assert_uint_eq(b->downs, 0);
    close(fd);
    unlink(path);
    finish(b);
}
END_TEST

/* Also of a task that is over the moment it may know. */
START_TEST(a_soft_limit_calls_the_function_of_every_task)
{
    enum { N = 50 };
    char path[] = "/tmp/test_pool.XXXXXX";
    int fd = mkstemp(path);
    setenv("TEST_POOL_SOFT", path, 1);
    struct bench *b = started("prefork", 1);
    fill(b, N, "eager", "[]");
    for (unsigned i = 0; i < N; i++)
        b->items[i].job.soft_time_limit_s = 0.01;
    b->feeding = true;
    until(b, b->dones == N);
    ck_assert_uint_eq(b->limits_soft, N);
    ck_assert_int_eq((int)lseek(fd, 0, SEEK_END), 6 * N);
    close(fd);
    unlink(path);
    finish(b);
}
END_TEST

START_TEST(a_hard_limit_ends_the_process_and_another_takes_its_place)
{
    struct bench *b = started("prefork", 1);
    fill(b, 1, "sleep", "[60]");
    fill(b, 1, "stubborn", "[]");
    fill(b, 1, "add", "[1, 1]");
    b->items[0].job.time_limit_s = 1;
    b->items[1].job.time_limit_s = 0.25;
    b->feeding = true;
    until(b, b->dones == 3);
    ck_assert_int_eq(b->items[0].kind, APM_DONE_TIMEOUT);
    ck_assert_str_eq(b->items[0].result, "TimeLimitExceeded(1)");
    ck_assert_int_eq(b->items[1].kind, APM_DONE_TIMEOUT); /* SIGTERM was ignored, SIGKILL was not */
    ck_assert_str_eq(b->items[1].result, "TimeLimitExceeded(0.25)");
    ck_assert_str_eq(b->items[2].result, "2");
    ck_assert_uint_eq(b->limits_hard, 2);
    ck_assert_uint_eq(b->downs, 2);
    ck_assert_uint_eq(b->unexpected, 0);
    finish(b);
}
END_TEST

START_TEST(a_limit_never_hits_the_next_job)
{
    enum { N = 300 };
    struct bench *b = started("prefork", 2);
    for (unsigned i = 0; i < N; i++) {
        fill(b, 1, "sleep", i % 3 == 0 ? "[0.01]" : "[0.0]");
        b->items[i].job.time_limit_s = i % 3 == 0 ? 0.01 : 0;
    }
    b->feeding = true;
    until(b, b->dones == N);
    for (unsigned i = 0; i < N; i++)
        ck_assert_msg(b->items[i].kind == APM_DONE_SUCCESS ||
                          (b->items[i].kind == APM_DONE_TIMEOUT && i % 3 == 0),
                      "job %u: %s", i, b->items[i].result);
    finish(b);
}
END_TEST

START_TEST(terminate_ends_the_running_job_as_revoked)
{
    apium_error error = { 0 }, *err = &error;
    struct bench *b = started("prefork", 1);
    struct item *item = send_one(b, "sleep", "[60]");
    until(b, item->begins == 1);
    ck_ok(apm_pool_terminate(b->pool, &item->job, SIGTERM, err));
    until(b, item->dones == 1);
    ck_assert_int_eq(item->kind, APM_DONE_REVOKED);
    ck_assert_str_eq(item->result, "TaskRevokedError('terminated')");
    ck_fails(apm_pool_terminate(b->pool, &item->job, SIGTERM, err), APIUM_E_NOTFOUND);
    item = send_one(b, "sleep", "[60]");
    until(b, item->begins == 1);
    ck_ok(apm_pool_terminate(b->pool, &item->job, SIGINT,
                             err)); /* processes ignore it: it is made to work */
    until(b, item->dones == 1);
    item = send_one(b, "add", "[2, 2]");
    until(b, item->dones == 1);
    ck_assert_str_eq(item->result, "4");
    finish(b);
}
END_TEST

START_TEST(a_job_that_survives_its_signal_keeps_its_process)
{
    apium_error error = { 0 }, *err = &error;
    struct bench *b = started("prefork", 1);
    struct item *item = send_one(b, "sleep", "[0.3]");
    until(b, item->begins == 1);
    ck_ok(apm_pool_terminate(b->pool, &item->job, SIGWINCH, err));
    until(b, item->dones == 1);
    ck_assert_int_eq(item->kind, APM_DONE_SUCCESS);
    item = send_one(b, "add", "[2, 2]");
    until(b, item->dones == 1);
    ck_assert_uint_eq(b->downs, 0);
    finish(b);
}
END_TEST

START_TEST(terminate_hits_no_other_job)
{
    enum { N = 200 };
    apium_error error = { 0 };
    struct bench *b = started("prefork", 2);
    fill(b, N, "sleep", "[0.002]");
    b->feeding = true;
    unsigned terminated = 0;
    while (b->dones < N) {
        unsigned before = b->begins;
        until(b, b->begins > before || b->dones == N);
        for (unsigned i = 0; i < N; i++)
            if (b->items[i].job.state == APM_JOB_RUNNING && i % 4 == 0 &&
                apm_pool_terminate(b->pool, &b->items[i].job, SIGKILL, &error) == APIUM_OK)
                terminated++;
    }
    ck_assert_uint_gt(terminated, 0);
    for (unsigned i = 0; i < N; i++)
        ck_assert_msg(b->items[i].kind == APM_DONE_SUCCESS ||
                          (b->items[i].kind == APM_DONE_REVOKED && i % 4 == 0),
                      "job %u: %s", i, b->items[i].result);
    finish(b);
}
END_TEST

/* ---- coming and going ---- */

START_TEST(a_process_is_replaced_after_its_number_of_tasks)
{
    struct bench *b = prepare("prefork", 1);
    b->opts.max_tasks_per_child = 2;
    start(b);
    fill(b, 6, "pid", "[]");
    b->feeding = true;
    until(b, b->dones == 6);
    for (unsigned i = 0; i < 6; i += 2) {
        ck_assert_str_eq(b->items[i].result, b->items[i + 1].result);
        ck_assert(i == 0 || strcmp(b->items[i].result, b->items[i - 1].result) != 0);
    }
    ck_assert_uint_eq(b->unexpected, 0);
    finish(b);
}
END_TEST

START_TEST(a_process_that_grew_too_big_is_replaced)
{
    struct bench *b = prepare("prefork", 1);
    b->opts.max_memory_per_child_kib = 256 << 10;
    start(b);
    fill(b, 3, "leak", "[100000000]");
    fill(b, 1, "leak", "[1]");
    b->feeding = true;
    until(b, b->dones == 4);
    ck_assert_str_eq(b->items[0].result, b->items[2].result);
    ck_assert_str_ne(b->items[2].result, b->items[3].result);
    ck_assert_uint_eq(b->unexpected, 0);
    ck_assert_int_eq(WEXITSTATUS(b->last_status), APM_CHILD_RECYCLED);
    finish(b);
}
END_TEST

START_TEST(a_warm_stop_waits_for_the_running_and_forgets_the_waiting)
{
    struct bench *b = started("prefork", 1);
    fill(b, 1, "sleep", "[0.3]");
    fill(b, 2, "noop", "[]");
    for (unsigned i = 0; i < 3; i++)
        submit(b, i);
    apm_pool_flush(b->pool);
    until(b, b->items[0].begins == 1);
    apm_pool_stop(b->pool, false, on_stopped, b);
    until(b, b->stopped);
    ck_assert_int_eq(b->items[0].kind, APM_DONE_SUCCESS);
    ck_assert_int_eq(b->items[1].begins + b->items[2].begins, 0);
    ck_assert_int_eq(b->items[1].job.state, APM_JOB_NEW);
    finish(b);
}
END_TEST

START_TEST(a_stop_now_loses_what_runs)
{
    struct bench *b = started("prefork", 2);
    fill(b, 1, "sleep", "[60]");
    submit(b, 0);
    apm_pool_flush(b->pool);
    until(b, b->items[0].begins == 1);
    apm_pool_stop(b->pool, false, on_stopped, b);
    uv_run(&b->loop, UV_RUN_NOWAIT);
    ck_assert(!b->stopped);
    apm_pool_stop(b->pool, true, on_stopped, b);
    until(b, b->stopped);
    ck_assert_int_eq(b->items[0].kind, APM_DONE_LOST);
    finish(b);
}
END_TEST

START_TEST(a_pool_stops_at_any_moment_of_its_start)
{
    for (int turns = 0; turns < 6; turns++) {
        apium_error error = { 0 }, *err = &error;
        struct bench *b = prepare("prefork", 3);
        ck_ok(apm_pool_start(&b->loop, &b->opts, &b->pool, err));
        for (int i = 0; i < turns; i++)
            uv_run(&b->loop, UV_RUN_ONCE);
        apm_pool_stop(b->pool, turns % 2, on_stopped, b);
        until(b, b->stopped);
        finish(b);
    }
}
END_TEST

START_TEST(a_pool_grows_and_shrinks)
{
    apium_error error = { 0 }, *err = &error;
    struct bench *b = started("prefork", 1);
    ck_ok(apm_pool_resize(b->pool, 2, err));
    ck_assert_uint_eq(apm_pool_concurrency(b->pool), 3);
    until(b, pid_at(b, 2));
    struct item *item = send_one(b, "sleep", "[0.2]");
    until(b, item->begins == 1);
    ck_ok(apm_pool_resize(b->pool, -2, err));
    until(b, b->downs == 2);
    ck_assert_int_eq(item->dones, 0); /* the idle ones went */
    ck_assert_int_eq(pid_at(b, 0), item->job.pid);
    ck_assert_int_eq(pid_at(b, 1), 0);
    ck_fails(apm_pool_resize(b->pool, -1, err), APIUM_E_INVALID);
    ck_fails(apm_pool_resize(b->pool, 100000, err), APIUM_E_INVALID);
    until(b, item->dones == 1);
    ck_assert_uint_eq(b->unexpected, 0);
    finish(b);
}
END_TEST

START_TEST(an_app_that_cannot_be_set_up_is_said_why)
{
    apium_error error = { 0 }, *err = &error;
    setenv("TEST_POOL_SERVER", "fail", 1);
    struct bench *b = prepare("prefork", 1);
    ck_ok(apm_pool_start(&b->loop, &b->opts, &b->pool, err));
    until(b, b->failed);
    ck_assert_str_eq(b->error, "cannot load \"x.so\": no such file");
    ck_assert(!b->ready);
    finish(b);
}
END_TEST

START_TEST(a_fork_server_that_crashes_while_it_loads_is_a_failure_to_start)
{
    apium_error error = { 0 }, *err = &error;
    setenv("TEST_POOL_SERVER", "crash", 1);
    struct bench *b = prepare("prefork", 1);
    ck_ok(apm_pool_start(&b->loop, &b->opts, &b->pool, err));
    until(b, b->failed);
    ck_assert_str_eq(b->error, "the fork server ended (signal 9) before it had loaded the tasks");
    finish(b);
}
END_TEST

START_TEST(processes_that_die_at_start_are_replaced_at_a_bounded_rate)
{
    setenv("TEST_POOL_SERVER", "start", 1);
    struct bench *b = started("prefork", 1);
    int64_t until_ms = apm_clock_ms() + 1000;
    uv_timer_set_repeat(&b->guard, 50);
    uv_timer_again(&b->guard);
    until(b, apm_clock_ms() >= until_ms);
    /* At 0, 100, 300 and 700 ms. */
    ck_assert_uint_ge(b->downs, 2);
    ck_assert_uint_le(b->downs, 5);
    ck_assert_int_eq(WEXITSTATUS(b->last_status), APM_CHILD_NO_START);
    finish(b);
}
END_TEST

START_TEST(user_code_that_writes_over_the_queue_costs_what_was_running)
{
    struct bench *b = started("prefork", 2);
    until(b, pid_at(b, 1));
    fill(b, 20, "noop", "[]");
    fill(b, 1, "scribble", "[4096]"); /* the queue and what is before it */
    fill(b, 50, "sleep", "[0.001]");
    b->feeding = true;
    until(b, b->dones == b->n);
    ck_assert_uint_ge(b->kinds[APM_DONE_SUCCESS], b->n - 2);
    ck_assert_uint_eq(b->downs, 2);
    fill(b, 1, "add", "[20, 3]");
    until(b, b->dones == b->n);
    ck_assert_str_eq(b->items[b->n - 1].result, "23");
    finish(b);
}
END_TEST

START_TEST(a_process_that_forges_states_is_ended)
{
    struct bench *b = started("prefork", 1);
    fill(b, 1, "forge", "[]");
    fill(b, 30, "noop", "[]");
    b->feeding = true;
    until(b, b->dones == b->n);
    ck_assert_int_eq(b->items[0].kind, APM_DONE_LOST);
    ck_assert_uint_eq(b->kinds[APM_DONE_SUCCESS], 30);
    ck_assert_uint_eq(b->items[5].states, 0); /* nobody speaks for another one */
    finish(b);
}
END_TEST

START_TEST(jobs_whose_slots_were_written_over_are_lost_and_the_pool_goes_on)
{
    struct bench *b = started("prefork", 2);
    fill(b, 20, "noop", "[]");
    fill(b, 1, "scribble", "[16384]"); /* all slots, all seats, the first requests */
    fill(b, 50, "sleep", "[0.001]");
    b->feeding = true;
    until(b, b->dones == b->n);
    ck_assert_uint_gt(b->kinds[APM_DONE_LOST], 0);
    fill(b, 1, "add", "[20, 3]");
    until(b, b->dones == b->n);
    ck_assert_str_eq(b->items[b->n - 1].result, "23");
    finish(b);
}
END_TEST

/* ---- sleeping ---- */

/* Turns of the loop and wake-ups of the pool's first process in half a second. */
static long
wakeups(int pid)
{
    char path[64], line[128];
    long switches = -1;
    snprintf(path, sizeof(path), "/proc/%d/status", pid);
    FILE *file = fopen(path, "r");
    ck_assert_ptr_nonnull(file);
    while (fgets(line, sizeof(line), file))
        (void)sscanf(line, "voluntary_ctxt_switches: %ld", &switches);
    fclose(file);
    return switches;
}

static void
sleep_half_a_second(struct bench *b)
{
    long child = wakeups(pid_at(b, 0)), main_process = wakeups(getpid());
    uv_timer_set_repeat(&b->guard, 500);
    uv_timer_again(&b->guard);
    int64_t until_ms = apm_clock_ms() + 490;
    until(b, apm_clock_ms() >= until_ms);
    ck_assert_int_le(wakeups(pid_at(b, 0)) - child, 1);
    ck_assert_int_le(wakeups(getpid()) - main_process, 3);
}

START_TEST(an_idle_pool_sleeps)
{
    struct bench *b = started("prefork", 2);
    until(b, pid_at(b, 1));
    fill(b, 100, "noop", "[]");
    b->feeding = true;
    until(b, b->dones == 100);
    b->feeding = false;
    sleep_half_a_second(b);
    finish(b);
}
END_TEST

START_TEST(a_pool_with_long_jobs_and_others_waiting_sleeps)
{
    struct bench *b = started("prefork", 1);
    fill(b, 1, "sleep", "[1.0]");
    fill(b, 5, "noop", "[]");
    for (unsigned i = 0; i < b->n; i++)
        submit(b, i);
    apm_pool_flush(b->pool);
    until(b, b->begins == 1);
    int64_t settled_ms = apm_clock_ms() + 300; /* the tick slows down and stops */
    uv_timer_set_repeat(&b->guard, 100);
    uv_timer_again(&b->guard);
    until(b, apm_clock_ms() >= settled_ms);
    long before = wakeups(getpid());
    uv_timer_set_repeat(&b->guard, 500);
    uv_timer_again(&b->guard);
    until(b, apm_clock_ms() >= settled_ms + 490);
    ck_assert_int_le(wakeups(getpid()) - before, 3);
    until(b, b->dones == 6);
    finish(b);
}
END_TEST

static int
compare_times(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

START_TEST(a_lone_job_is_answered_at_once)
{
    enum { ROUNDS = 101 };
    static const char *const kinds[] = { "prefork", "threads" };
    int64_t took_ns[ROUNDS];
    for (int k = 0; k < 2; k++) {
        struct bench *b = started(kinds[k], 2);
        for (unsigned i = 0; i < ROUNDS; i++) {
            int64_t began_ns = apm_clock_ns();
            (void)send_one(b, "noop", "[]");
            until(b, b->dones == i + 1);
            took_ns[i] = apm_clock_ns() - began_ns;
        }
        /* 30 microseconds; by the tick alone it would be a millisecond at least. */
        qsort(took_ns, ROUNDS, sizeof(*took_ns), compare_times);
        ck_assert_int_lt(took_ns[ROUNDS / 2], 900000);
        finish(b);
    }
}
END_TEST

/* ---- threads ---- */

START_TEST(threads_run_jobs_in_this_process)
{
    struct bench *b = started("threads", 3);
    fill(b, 3000, "pid", "[]");
    b->feeding = true;
    until(b, b->dones == b->n);
    char pid[16];
    snprintf(pid, sizeof(pid), "%d", getpid());
    ck_assert_uint_eq(count_of(b, pid), 3000);
    ck_assert_ptr_nonnull(apm_pool_task(b->pool, APM_STR("add")));
    finish(b);
}
END_TEST

START_TEST(solo_is_one_thread)
{
    apium_error error = { 0 }, *err = &error;
    struct bench *b = started("solo", 8);
    ck_assert_uint_eq(apm_pool_concurrency(b->pool), 1);
    struct item *item = send_one(b, "add", "[4, 5]");
    until(b, item->dones == 1);
    ck_assert_str_eq(item->result, "9");
    ck_fails(apm_pool_resize(b->pool, 1, err), APIUM_E_UNSUPPORTED);
    finish(b);
}
END_TEST

START_TEST(threads_have_soft_limits_and_refuse_hard_ones)
{
    apium_error error = { 0 }, *err = &error;
    struct bench *b = started("threads", 1);
    fill(b, 1, "wait", "[]");
    b->items[0].job.time_limit_s = 1;
    ck_fails(apm_pool_submit(b->pool, &b->items[0].job, err), APIUM_E_UNSUPPORTED);
    b->items[0].job.time_limit_s = 0;
    b->items[0].job.soft_time_limit_s = 0.1;
    b->feeding = true;
    until(b, b->dones == 1);
    ck_assert_str_eq(b->items[0].result, "SoftTimeLimitExceeded()");
    finish(b);
}
END_TEST

START_TEST(threads_cannot_be_terminated)
{
    apium_error error = { 0 }, *err = &error;
    struct bench *b = started("threads", 1);
    struct item *item = send_one(b, "sleep", "[0.1]");
    until(b, item->begins == 1);
    ck_fails(apm_pool_terminate(b->pool, &item->job, SIGTERM, err), APIUM_E_UNSUPPORTED);
    until(b, item->dones == 1);
    ck_assert_int_eq(item->kind, APM_DONE_SUCCESS);
    finish(b);
}
END_TEST

START_TEST(a_pool_of_threads_grows_and_shrinks)
{
    apium_error error = { 0 }, *err = &error;
    struct bench *b = started("threads", 1);
    ck_ok(apm_pool_resize(b->pool, 2, err));
    until(b, pid_at(b, 2));
    ck_ok(apm_pool_resize(b->pool, -2, err));
    until(b, b->downs == 2);
    struct item *item = send_one(b, "add", "[1, 1]");
    until(b, item->dones == 1);
    finish(b);
}
END_TEST

START_TEST(a_stop_now_leaves_a_busy_thread_to_itself)
{
    static struct bench *b; /* still used by the thread at the end */
    b = started("threads", 2);
    fill(b, 1, "wait", "[]");
    submit(b, 0);
    apm_pool_flush(b->pool);
    until(b, b->items[0].begins == 1);
    apm_pool_stop(b->pool, true, on_stopped, b);
    until(b, b->stopped);
    ck_assert_int_eq(b->items[0].kind, APM_DONE_LOST);
    /* It was asked to stop; what it uses is still there. */
    (void)poll(NULL, 0, 50);
}
END_TEST

/* What a thread answers to being asked to stop is no outcome: its job was given up before. */
START_TEST(a_stop_now_gives_up_what_ends_at_once)
{
    for (int i = 0; i < 50; i++) {
        struct bench *b = started("threads", 1); /* not freed: as above */
        fill(b, 1, "eager", "[]");
        submit(b, 0);
        apm_pool_flush(b->pool);
        until(b, b->items[0].begins == 1);
        apm_pool_stop(b->pool, true, on_stopped, b);
        until(b, b->stopped);
        ck_assert_int_eq(b->items[0].kind, APM_DONE_LOST);
    }
}
END_TEST

START_TEST(a_stop_now_gives_up_what_was_not_seen_to_begin)
{
    struct bench *b = started("threads", 1);
    fill(b, 1, "eager", "[]");
    submit(b, 0);
    apm_pool_flush(b->pool);
    until_true(atomic_load(&eager_ones) == 1);
    apm_pool_stop(b->pool, true, on_stopped, b);
    ck_assert_int_eq(b->items[0].dones, 1);
    ck_assert_int_eq(b->items[0].kind, APM_DONE_LOST);
    until(b, b->stopped);
    until_true(atomic_load(&eager_ones) == 0); /* it was asked to stop as well */
}
END_TEST

START_TEST(a_pool_that_does_not_exist_is_refused)
{
    apium_error error = { 0 }, *err = &error;
    struct bench *b = prepare("gevent", 1);
    ck_fails(apm_pool_start(&b->loop, &b->opts, &b->pool, err), APIUM_E_CONFIG);
    ck_assert_str_eq(err->text, "there is no pool \"gevent\": prefork, threads or solo");
    b->opts.kind = "prefork";
    b->opts.concurrency = 0;
    ck_fails(apm_pool_start(&b->loop, &b->opts, &b->pool, err), APIUM_E_CONFIG);
    b->opts.concurrency = 100000;
    ck_fails(apm_pool_start(&b->loop, &b->opts, &b->pool, err), APIUM_E_CONFIG);
    finish(b);
}
END_TEST

/* ---- this program as fork server ---- */

static apium_status
failing_start(apium_app *app, apium_error *err)
{
    (void)app;
    return err->status = APIUM_E_REFUSED;
}

static int
be_fork_server(void)
{
    static const apium_hooks failing = { .process_start = failing_start };
    const char *mode = getenv("TEST_POOL_SERVER");
    apium_app *app = make_app();
    int code;

    if (mode && strcmp(mode, "crash") == 0)
        (void)raise(SIGKILL);
    if (mode && strcmp(mode, "start") == 0) {
        const apium_module module = { APIUM_ABI, sizeof(apium_task_def), "pool", NULL, &failing,
                                      NULL };
        if (apium_app_add(app, &module, NULL) != APIUM_OK)
            abort();
    }
    if (mode && strcmp(mode, "fail") == 0) {
        const apium_error err = { .status = APIUM_E_CONFIG,
                                  .text = "cannot load \"x.so\": no such file" };
        code = apm_fork_server_fail(&err);
    } else {
        code = apm_fork_server_main(app);
    }
    apium_app_free(app);
    return code;
}

int
main(int argc, char **argv)
{
    const TTest *const all[] = {
        a_request_runs_in_a_process_and_its_result_comes_back,
        the_tasks_options_are_known_to_the_main_process,
        every_job_of_many_batches_ends_once,
        a_process_that_dies_by_a_signal_loses_its_job_in_celerys_words,
        five_megabytes_travel_both_ways,
        every_size_around_the_slots_own_travels,
        an_unregistered_task_fails_by_its_name,
        custom_states_arrive_in_order_before_the_end,
        a_killed_process_in_a_deep_batch_loses_and_doubles_nothing_that_finished,
        a_job_whose_process_died_before_its_task_was_called_runs_in_the_next,
        a_job_with_which_process_after_process_dies_is_lost,
        a_killed_fork_server_is_started_again_while_the_processes_work_on,
        a_killed_fork_server_is_back_soon_as_long_as_it_was_of_use,
        fork_server_and_processes_killed_over_and_over_finish_every_job,
        what_tasks_leave_behind_is_reaped,
        a_stuck_fork_server_is_replaced,
        a_handler_that_comes_back_in_a_forked_process_too_is_run_by_one,
        no_descriptor_is_left_open,
        a_pool_process_has_what_it_needs_open_and_no_more,
        a_pool_process_has_the_signals_of_a_new_program,
        nothing_survives_the_main_process,
        a_job_is_taken_back_until_it_begins,
        no_request_waits_while_a_process_is_idle,
        a_soft_limit_tells_the_task_and_calls_its_function,
        a_soft_limit_calls_the_function_of_every_task,
        a_hard_limit_ends_the_process_and_another_takes_its_place,
        a_limit_never_hits_the_next_job,
        terminate_ends_the_running_job_as_revoked,
        a_job_that_survives_its_signal_keeps_its_process,
        terminate_hits_no_other_job,
        a_process_is_replaced_after_its_number_of_tasks,
        a_process_that_grew_too_big_is_replaced,
        a_warm_stop_waits_for_the_running_and_forgets_the_waiting,
        a_stop_now_loses_what_runs,
        a_pool_stops_at_any_moment_of_its_start,
        a_pool_grows_and_shrinks,
        an_app_that_cannot_be_set_up_is_said_why,
        a_fork_server_that_crashes_while_it_loads_is_a_failure_to_start,
        processes_that_die_at_start_are_replaced_at_a_bounded_rate,
        user_code_that_writes_over_the_queue_costs_what_was_running,
        a_process_that_forges_states_is_ended,
        jobs_whose_slots_were_written_over_are_lost_and_the_pool_goes_on,
        an_idle_pool_sleeps,
        a_pool_with_long_jobs_and_others_waiting_sleeps,
        a_lone_job_is_answered_at_once,
        threads_run_jobs_in_this_process,
        solo_is_one_thread,
        threads_have_soft_limits_and_refuse_hard_ones,
        threads_cannot_be_terminated,
        a_pool_of_threads_grows_and_shrinks,
        a_stop_now_leaves_a_busy_thread_to_itself,
        a_stop_now_gives_up_what_ends_at_once,
        a_stop_now_gives_up_what_was_not_seen_to_begin,
        a_pool_that_does_not_exist_is_refused,
        NULL,
    };
    (void)argc;
    program = argv;
    if (apm_fork_server_wanted())
        return be_fork_server();
    return suite_run("pool", all, 60);
}
