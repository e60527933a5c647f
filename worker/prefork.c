/*
 * prefork.c - the main process's side of processes: the fork server is started, asked, watched and
 * started again, pool processes are adopted and buried.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/error.h"
#include "core/base/log.h"
#include "worker/forkserver.h"
#include "worker/pool_inner.h"

#define MS                INT64_C(1000000) /* in ns */
#define SERVER_AGAIN_NS   (100 * MS)       /* a dead fork server's next, doubling */
#define SERVER_STEPS      7
#define SERVER_HEALTHY_NS (10000 * MS) /* living that long is of use too */
#define BUSY_NS           (50 * MS)
#define BURY_NS           (2000 * MS) /* a dead process's status has to come in that time */
#define ASK_NS            (5000 * MS) /* and an answer to a request */
#define LEAVE_NS          (2000 * MS) /* a fork server told to leave */

#define OTHER_DESCRIPTORS 512

struct prefork {
    char *const *argv;
    uv_signal_t child;              /* SIGCHLD */
    apm_watch *control, *exit;      /* the fork server's socket and pidfd */
    pid_t server;                   /* 0: none */
    int life[2];                    /* its only write end is ours: pool processes die with it */
    int64_t up_ns, due_ns, kill_ns; /* started; start again; kill it */
    unsigned failures;              /* in a row that died without having made a process */
    int64_t asked_ns;   /* for a sign of life that it owes, or gone since then; 0: none */
    bool hello, useful; /* this one: knows the tasks; has made a process */
    int fds[2];         /* control and exit on their way to the loop */
};

/* ---- the fork server's process ---- */

/* Its environment is ours and one variable. */
static char **
server_environment(void)
{
    static char marker[] = APM_FS_ENV "=1";
    size_t n = 0;
    while (environ[n])
        n++;
    char **env = calloc(n + 2, sizeof(*env));
    if (env) {
        memcpy(env, environ, n * sizeof(*env));
        env[n] = marker;
    }
    return env;
}

/* Execute this program again with our four descriptors at their places. */
static apium_status
spawn_server(const struct prefork *self, const int fds[4], pid_t *pid, apium_error *err)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    sigset_t none, all;
    char **env = server_environment();
    int high[4] = { -1, -1, -1, -1 };
    apium_status st = APIUM_OK;

    sigemptyset(&none);
    sigfillset(&all);
    (void)posix_spawn_file_actions_init(&actions);
    (void)posix_spawnattr_init(&attr);
    (void)posix_spawnattr_setsigmask(&attr, &none);
    (void)posix_spawnattr_setsigdefault(&attr, &all);
    (void)posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    for (int i = 0; i < 4; i++) {
        /* Out of the way of the places, so that no dup2 overwrites what a later one needs. */
        high[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, APM_FS_END + 8);
        if (high[i] < 0 ||
            posix_spawn_file_actions_adddup2(&actions, high[i], APM_FS_CONTROL + i) != 0)
            st = apm_fail_sys(err, errno, "cannot start the fork server");
    }
    if (st == APIUM_OK) {
        int sys =
            env ? posix_spawn(pid, "/proc/self/exe", &actions, &attr, self->argv, env) : ENOMEM;
        if (sys)
            st = apm_fail_sys(err, sys, "cannot start the fork server");
    }
    for (int i = 0; i < 4; i++)
        if (high[i] >= 0)
            close(high[i]);
    (void)posix_spawnattr_destroy(&attr);
    (void)posix_spawn_file_actions_destroy(&actions);
    free(env);
    return st;
}

static void on_control(apm_watch *watch);
static void on_server_exit(apm_watch *watch);

static apium_status
start_server(apm_pool *pool, int *control, int *exit_fd, apium_error *err)
{
    struct prefork *self = pool->self;
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return apm_fail_sys(err, errno, "cannot start the fork server");
    const int fds[4] = { pair[1], pool->slots.fd, pool->wake_fd, self->life[0] };
    apium_status st = spawn_server(self, fds, &self->server, err);
    close(pair[1]);
    if (st == APIUM_OK) {
        *exit_fd = pidfd_open(self->server, 0);
        if (*exit_fd < 0) {
            st = apm_fail_sys(err, errno, "cannot watch the fork server");
            (void)kill(self->server, SIGKILL);
            (void)waitpid(self->server, NULL, 0);
        }
    }
    if (st != APIUM_OK) {
        self->server = 0;
        close(pair[0]);
        return st;
    }
    *control = pair[0];
    self->up_ns = apm_clock_ns();
    self->kill_ns = self->due_ns = APM_NEVER;
    self->hello = self->useful = false;
    return APIUM_OK;
}

static bool
watch_server(apm_pool *pool, int control, int exit_fd)
{
    struct prefork *self = pool->self;
    self->control = apm_watch_open(pool, control, on_control, NULL);
    self->exit = apm_watch_open(pool, exit_fd, on_server_exit, NULL);
    return self->control && self->exit;
}

static void
server_again(apm_pool *pool)
{
    struct prefork *self = pool->self;
    int64_t now_ns = apm_clock_ns();
    if (self->useful || now_ns - self->up_ns > SERVER_HEALTHY_NS) {
        self->failures = 0;
        self->due_ns = self->up_ns + SERVER_AGAIN_NS;
    } else {
        unsigned steps = self->failures < SERVER_STEPS ? self->failures : SERVER_STEPS;
        self->due_ns = now_ns + (SERVER_AGAIN_NS << steps);
        self->failures++;
    }
}

/* ---- its messages ---- */

/* It cannot set up the app. At start that is the end; later the processes that are there work on,
 * and it is tried again. */
static void
server_failed(apm_pool *pool, const apium_error *err)
{
    if (!pool->ready)
        apm_pool_is_failed(pool, err);
    else
        apm_log(APM_LOG_ERROR, "pool.fork_server", "the fork server cannot start: %s", err->text);
}

static void
read_hello(apm_pool *pool, const apm_fs_msg *msg, int fd)
{
    struct prefork *self = pool->self;
    apium_error err = { 0 };
    apm_task_info *tasks = NULL;
    size_t n = 0;
    struct stat file;

    void *p = fd < 0 || msg->bytes <= 0 || fstat(fd, &file) < 0 || file.st_size < msg->bytes
                  ? MAP_FAILED
                  : mmap(NULL, (size_t)msg->bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    apium_status st =
        p == MAP_FAILED
            ? apm_fail(&err, APIUM_E_DECODE, "the fork server's table of tasks is missing")
            : apm_fs_table_read((apm_str){ p, (size_t)msg->bytes }, &tasks, &n, &err);
    if (p != MAP_FAILED)
        (void)munmap(p, (size_t)msg->bytes);
    if (st != APIUM_OK) {
        server_failed(pool, &err);
        return;
    }
    apm_pool_tasks(pool, tasks, n);
    self->hello = true;
    self->asked_ns = 0;
    pool->seating = true;
    apm_pool_fill(pool);
    apm_pool_arm(pool); /* for seats whose time has not come */
}

static void on_process_exit(apm_watch *watch);
static void on_process_sock(apm_watch *watch);

static void
adopt(apm_pool *pool, const apm_fs_msg *msg, int fds[APM_FS_FDS])
{
    if (msg->seat >= pool->slots.seats || pool->processes[msg->seat].life != APM_ASKED)
        return;
    apm_process *process = &pool->processes[msg->seat];
    if (fds[0] < 0 || fds[1] < 0) {
        if (!pool->ready && pool->n_up == 0) {
            apium_error err = { 0 };
            /* Descriptors that did not arrive: this process may open no more. */
            (void)apm_fail_sys(&err, msg->value ? msg->value : EMFILE,
                               "cannot start a pool process");
            apm_pool_is_failed(pool, &err);
        }
        apm_pool_unseated(pool, process);
        return;
    }
    if (!process->wanted || pool->slots.broken) {
        apm_pool_refused(pool, process); /* its socket ends with the message, and it leaves */
        return;
    }
    apm_states_clear(&process->states);
    process->sock = apm_watch_open(pool, fds[0], on_process_sock, process);
    process->exit = apm_watch_open(pool, fds[1], on_process_exit, process);
    fds[0] = fds[1] = -1;
    if (!process->sock || !process->exit || send(process->sock->fd, "", 1, MSG_NOSIGNAL) != 1) {
        if (process->exit)
            (void)apm_process_signal(process, SIGKILL, 0);
        apm_watch_close(&process->sock);
        apm_watch_close(&process->exit);
        apm_pool_unseated(pool, process);
        return;
    }
    ((struct prefork *)pool->self)->useful = true;
    apm_pool_seated(pool, process, msg->pid);
}

static apm_process *
process_of(apm_pool *pool, int pid)
{
    for (unsigned i = 0; i < pool->slots.seated; i++)
        if (pool->processes[i].life == APM_UP && pool->processes[i].pid == pid)
            return &pool->processes[i];
    return NULL;
}

/* Everything it has said; also what it said before it died. */
static void
read_control(apm_pool *pool)
{
    struct prefork *self = pool->self;
    apm_fs_msg msg;
    int fds[APM_FS_FDS];

    while (self->control) {
        int got = apm_fs_recv(self->control->fd, true, &msg, fds);
        if (got < 0) {
            /* It closed its end: dead, or as good as dead. on_server_exit does the rest. */
            (void)kill(self->server, SIGKILL);
            apm_watch_close(&self->control);
        }
        if (got <= 0)
            return;
        switch (msg.kind) {
        case APM_FS_HELLO:
            read_hello(pool, &msg, fds[0]);
            break;
        case APM_FS_FAILED: {
            apium_error err = { .status = (apium_status)msg.value };
            snprintf(err.text, sizeof(err.text), "%s", msg.text);
            server_failed(pool, &err);
            break;
        }
        case APM_FS_FORKED:
            adopt(pool, &msg, fds);
            break;
        case APM_FS_EXITED: {
            apm_process *process = process_of(pool, msg.pid);
            if (process)
                apm_pool_died(pool, process, msg.value);
            break;
        }
        case APM_FS_PONG:
            self->asked_ns = 0;
            break;
        case APM_FS_FORK:
        case APM_FS_PING:
            break;
        }
        for (int i = 0; i < APM_FS_FDS; i++)
            if (fds[i] >= 0)
                close(fds[i]);
    }
}

static void
on_control(apm_watch *watch)
{
    read_control(watch->pool);
}

/* ---- deaths ---- */

/*
 * What a fork server that died leaves comes to us, for we are a subreaper: pool processes, what it
 * forked and never told us of, what tasks had started. The main process has no other children while
 * it runs, so the unknown ones are reaped unread.
 */
static void
reap_strays(apm_pool *pool)
{
    struct prefork *self = pool->self;
    for (;;) {
        siginfo_t info = { 0 };
        if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid == 0 ||
            info.si_pid == self->server || process_of(pool, info.si_pid))
            return;
        (void)waitpid(info.si_pid, NULL, WNOHANG);
    }
}

static void
on_child(uv_signal_t *handle, int signum)
{
    (void)signum;
    reap_strays(handle->data);
}

static void
reap_orphan(apm_pool *pool, apm_process *process)
{
    int status = -1;
    if (waitpid(process->pid, &status, WNOHANG) == 0)
        return; /* not dead after all */
    apm_pool_died(pool, process, status);
    reap_strays(pool); /* they may have been behind it */
}

static void
on_process_exit(apm_watch *watch)
{
    apm_process *process = watch->arg;
    apm_pool *pool = watch->pool;
    struct prefork *self = pool->self;

    (void)uv_poll_stop(&watch->poll); /* it stays readable */
    read_control(pool);               /* its status may be there already */
    if (process->exit != watch)
        return;
    process->dead = true;
    if (process->orphan) {
        reap_orphan(pool, process);
    } else if (self->server) {
        process->bury_ns = apm_clock_ns() + BURY_NS;
        apm_pool_arm(pool);
    }
}

static void
on_process_sock(apm_watch *watch)
{
    apm_process *process = watch->arg;
    apm_pool *pool = watch->pool;
    char byte;
    ssize_t n;

    apm_pool_poll(pool); /* the begin of the job comes before its states */
    (void)apm_pool_states(pool, process);
    if (process->sock != watch)
        return;
    do
        n = recv(watch->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n == 0)
        (void)uv_poll_stop(&watch->poll); /* ended: on_process_exit follows */
}

static void
close_prefork(apm_pool *pool)
{
    struct prefork *self = pool->self;
    if (!uv_is_closing((uv_handle_t *)&self->child))
        uv_close((uv_handle_t *)&self->child, apm_pool_handle_closed);
    apm_pool_closed(pool);
}

static void
on_server_exit(apm_watch *watch)
{
    apm_pool *pool = watch->pool;
    struct prefork *self = pool->self;
    int status = -1, pid = self->server;
    bool said_hello = self->hello;

    read_control(pool);
    (void)waitpid(pid, &status, 0);
    self->server = 0;
    self->asked_ns = self->asked_ns ? self->asked_ns : apm_clock_ns();
    self->hello = pool->seating = false;
    apm_watch_close(&self->control);
    apm_watch_close(&self->exit);
    if (pool->ending) {
        reap_strays(pool);
        close_prefork(pool);
        return;
    }
    for (unsigned i = 0; i < pool->slots.seated; i++) {
        apm_process *process = &pool->processes[i];
        if (process->life == APM_ASKED)
            apm_pool_refused(pool, process);
        if (process->life != APM_UP)
            continue;
        process->orphan = true;
        process->bury_ns = APM_NEVER;
        if (process->dead)
            reap_orphan(pool, process);
    }
    reap_strays(pool);
    pool->happened++;
    if (pool->events.on_process)
        pool->events.on_process(pool->events.arg, -1, pid, false, status, pool->stopping);
    if (!pool->ready && !said_hello) {
        apium_error err = { 0 };
        (void)apm_fail(&err, APIUM_E_CLOSED,
                       "the fork server ended (%s %d) before it had loaded the tasks",
                       WIFSIGNALED(status) ? "signal" : "exit code",
                       WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        apm_pool_is_failed(pool, &err);
        return;
    }
    if (!pool->stopping && !pool->failed)
        server_again(pool);
    apm_pool_arm(pool);
}

/* ---- the kind ---- */

/* Each process costs us two descriptors; many would leave none for connections. */
static void
make_room_for_descriptors(unsigned concurrency)
{
    struct rlimit limit;
    rlim_t need = 2 * (rlim_t)concurrency + OTHER_DESCRIPTORS;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= need)
        return;
    limit.rlim_cur = need < limit.rlim_max ? need : limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}

static apium_status
prefork_start(apm_pool *pool, const apm_pool_opts *opts, apium_error *err)
{
    struct prefork *self = calloc(1, sizeof(*self));
    if (!self)
        return apm_fail_sys(err, ENOMEM, "cannot make the pool");
    *self = (struct prefork){ .argv = opts->argv, .life = { -1, -1 }, .kill_ns = APM_NEVER };
    pool->self = self;
    make_room_for_descriptors(opts->concurrency);
    if (pipe2(self->life, O_CLOEXEC) < 0)
        return apm_fail_sys(err, errno, "cannot make the pool's life pipe");
    if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
        return apm_fail_sys(err, errno, "cannot become the reaper of pool processes");
    self->due_ns = APM_NEVER;
    return start_server(pool, &self->fds[0], &self->fds[1], err);
}

static bool
prefork_open(apm_pool *pool)
{
    struct prefork *self = pool->self;
    bool ok = watch_server(pool, self->fds[0], self->fds[1]);
    self->fds[0] = self->fds[1] = -1;
    (void)uv_signal_init(pool->loop, &self->child);
    self->child.data = pool;
    pool->handles++;
    return uv_signal_start(&self->child, on_child, SIGCHLD) == 0 && ok;
}

static void
prefork_seat(apm_pool *pool, apm_process *process)
{
    struct prefork *self = pool->self;
    apm_fs_msg ask = {
        .kind = APM_FS_FORK,
        .seat = process->seat,
        .max_tasks = pool->max_tasks,
        .max_memory_kib = pool->max_memory_kib,
    };
    snprintf(ask.text, sizeof(ask.text), "%s", pool->hostname);
    process->life = APM_ASKED;
    process->due_ns = apm_clock_ns() + ASK_NS;
    if (!self->control || !apm_fs_send(self->control->fd, &ask, NULL, 0)) {
        /* Dead, and the next one is asked; or busy with all that we asked before. */
        process->life = APM_AWAY;
        process->due_ns = apm_clock_ns() + BUSY_NS;
    }
}

static int64_t
prefork_next(const apm_pool *pool)
{
    const struct prefork *self = pool->self;
    return self->server ? self->kill_ns : self->due_ns;
}

static void
prefork_run(apm_pool *pool, int64_t now_ns)
{
    struct prefork *self = pool->self;
    apium_error err = { 0 };
    int control, exit_fd;

    for (unsigned i = 0; i < pool->slots.seated; i++) {
        apm_process *process = &pool->processes[i];
        /* Asked for, or dead, for so long, and the fork server says nothing: it is stuck. Without
         * it the zombie comes to us, and another is asked. */
        if (process->life == APM_UP && process->bury_ns <= now_ns) {
            process->bury_ns = APM_NEVER;
            self->kill_ns = now_ns;
        } else if (process->life == APM_ASKED && process->due_ns <= now_ns) {
            process->due_ns = APM_NEVER;
            self->kill_ns = now_ns;
        }
    }
    if (self->server && self->kill_ns <= now_ns) {
        self->kill_ns = APM_NEVER;
        (void)kill(self->server, SIGKILL);
    }
    if (self->server || self->due_ns > now_ns || pool->stopping)
        return;
    if (start_server(pool, &control, &exit_fd, &err) != APIUM_OK ||
        !watch_server(pool, control, exit_fd)) {
        server_again(pool);
        return;
    }
    pool->happened++;
    if (pool->events.on_process)
        pool->events.on_process(pool->events.arg, -1, self->server, true, -1, true);
}

static void
prefork_ask(apm_pool *pool)
{
    struct prefork *self = pool->self;
    const apm_fs_msg ping = { .kind = APM_FS_PING };
    if (!self->asked_ns && self->control && apm_fs_send(self->control->fd, &ping, NULL, 0))
        self->asked_ns = apm_clock_ns();
}

static int64_t
prefork_silent_ms(const apm_pool *pool)
{
    const struct prefork *self = pool->self;
    return self->asked_ns ? (apm_clock_ns() - self->asked_ns) / 1000000 : 0;
}

static void
prefork_stop(apm_pool *pool, bool now)
{
    struct prefork *self = pool->self;
    if (self->server == 0) {
        close_prefork(pool);
        return;
    }
    /* At the end of its socket it leaves. */
    apm_watch_close(&self->control);
    self->kill_ns = now ? 0 : apm_clock_ns() + LEAVE_NS;
    if (now)
        (void)kill(self->server, SIGKILL);
    apm_pool_arm(pool);
}

static void
prefork_free(apm_pool *pool)
{
    struct prefork *self = pool->self;
    if (!self)
        return;
    for (int i = 0; i < 2; i++)
        if (self->life[i] >= 0)
            close(self->life[i]);
    free(self);
}

const apm_pool_kind apm_pool_prefork = {
    .name = "prefork",
    .processes = true,
    .start = prefork_start,
    .open = prefork_open,
    .seat = prefork_seat,
    .next = prefork_next,
    .ask = prefork_ask,
    .silent_ms = prefork_silent_ms,
    .run = prefork_run,
    .stop = prefork_stop,
    .free = prefork_free,
};
