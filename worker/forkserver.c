/*
 * forkserver.c - the process that forks pool processes. It has loaded the tasks and does nothing
 * else, in one thread: so a fork of it is clean, cheap and always the same, however long the main
 * process has been running. It dies with the main process (the kernel's parent-death signal); its
 * children do not die with it.
 */
#include "worker/forkserver.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/error.h"
#include "core/base/log.h"
#include "worker/child.h"
#include "worker/heap.h"
#include "worker/title.h"

struct server {
    apium_app *app;
    apm_slots slots;
    int signals; /* signalfd: SIGCHLD */
};

/* ---- starting ---- */

bool
apm_fork_server_wanted(void)
{
    static int wanted = -1;
    if (wanted >= 0)
        return wanted;
    wanted = getenv(APM_FS_ENV) != NULL;
    if (!wanted)
        return false;
    unsetenv(APM_FS_ENV); /* what tasks start is no fork server */
    /* The main process may have died before the first line here: then the life pipe has ended. */
    char byte;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)fcntl(APM_FS_LIFE, F_SETFL, O_NONBLOCK);
    if (read(APM_FS_LIFE, &byte, 1) == 0)
        _exit(0);
    /* Before a module's constructor runs a program: our descriptors are not for it. */
    for (int fd = APM_FS_CONTROL; fd < APM_FS_END; fd++)
        (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    (void)close_range(APM_FS_END, ~0U, 0);
    /* Signals to the process group are for the main process to understand. */
    static const int ignored[] = { SIGINT,  SIGTERM, SIGQUIT, SIGHUP, SIGPIPE,
                                   SIGUSR1, SIGUSR2, SIGTTIN, SIGTTOU };
    for (size_t i = 0; i < sizeof(ignored) / sizeof(*ignored); i++)
        (void)signal(ignored[i], SIG_IGN);
    return true;
}

int
apm_fork_server_fail(const apium_error *why)
{
    apm_fs_msg msg = { .kind = APM_FS_FAILED, .value = (int)why->status };
    snprintf(msg.text, sizeof(msg.text), "%s", why->text);
    (void)apm_fs_send(APM_FS_CONTROL, &msg, NULL, 0);
    return 1;
}

static apium_status
say_hello(apium_app *app, apium_error *err)
{
    apium_status st = APIUM_OK;
    apm_buf buf;
    int fd = -1;

    apm_buf_init(&buf, APM_BUF_MAX);
    apm_fs_table_write(app, &buf);
    if (buf.failed) {
        st = apm_fail_sys(err, ENOMEM, "cannot write the table of tasks");
        goto out;
    }
    fd = memfd_create("apium-tasks", MFD_CLOEXEC);
    if (fd < 0 || write(fd, buf.p, buf.len) != (ssize_t)buf.len) {
        st = apm_fail_sys(err, errno, "cannot write the table of tasks");
        goto out;
    }
    apm_fs_msg msg = { .kind = APM_FS_HELLO, .bytes = (int64_t)buf.len };
    if (!apm_fs_send(APM_FS_CONTROL, &msg, &fd, 1))
        st = apm_fail(err, APIUM_E_CLOSED, "the main process is gone");
out:
    if (fd >= 0)
        close(fd);
    apm_buf_clear(&buf);
    return st;
}

/* ---- forking ---- */

static _Noreturn void
be_a_child(struct server *server, const apm_fs_msg *ask, int sock)
{
    char title[64];
    /* The number is the seat's: a seat's next process has the same name, as Celery's have. */
    snprintf(title, sizeof(title), "[apium worker: ForkPoolWorker-%u]", ask->seat + 1);
    apm_title_set(title);
    close(APM_FS_CONTROL);
    close(server->signals);
    const apm_child child = {
        .slots = &server->slots,
        .seat = ask->seat,
        .sock = sock,
        .wake_fd = APM_FS_WAKE,
        .app = server->app,
        .hostname = ask->text,
        .max_tasks = ask->max_tasks,
        .max_memory_kib = ask->max_memory_kib,
    };
    apm_child_process(&child, APM_FS_LIFE);
}

/* False: the main process is gone. */
static bool
fork_one(struct server *server, const apm_fs_msg *ask)
{
    apm_fs_msg answer = { .kind = APM_FS_FORKED, .seat = ask->seat };
    int pair[2] = { -1, -1 }, fds[2] = { -1, -1 };
    sigset_t all, old;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        answer.value = errno;
        return apm_fs_send(APM_FS_CONTROL, &answer, NULL, 0);
    }
    fflush(NULL);
    apm_log_flush();
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &old); /* the child chooses its handlers before any can run */
    pid_t pid = fork();
    if (pid == 0) {
        close(pair[0]);
        be_a_child(server, ask, pair[1]);
    }
    answer.value = pid < 0 ? errno : 0;
    sigprocmask(SIG_SETMASK, &old, NULL);
    close(pair[1]);
    if (pid > 0) {
        answer.pid = pid;
        fds[0] = pair[0];
        fds[1] = pidfd_open(pid, 0); /* not reaped yet, so it is this one */
        if (fds[1] < 0)
            answer.value = errno; /* without its socket the child leaves by itself */
    }
    bool ok = apm_fs_send(APM_FS_CONTROL, &answer, fds, answer.value ? 0 : 2);
    close(pair[0]);
    if (fds[1] >= 0)
        close(fds[1]);
    return ok;
}

/*
 * Report the dead. A status is on its way before its zombie is gone: if we die in between, the main
 * process gets the zombie instead, so it always learns the status. False: the main process is gone.
 */
static bool
bury(void)
{
    for (;;) {
        siginfo_t info = { 0 };
        int status = 0;
        if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid == 0)
            return true;
        if (info.si_code == CLD_EXITED)
            status = W_EXITCODE(info.si_status & 0xff, 0);
        else
            status = W_EXITCODE(0, info.si_status) | (info.si_code == CLD_DUMPED ? WCOREFLAG : 0);
        apm_fs_msg msg = { .kind = APM_FS_EXITED, .pid = info.si_pid, .value = status };
        if (!apm_fs_send(APM_FS_CONTROL, &msg, NULL, 0))
            return false;
        (void)waitpid(info.si_pid, &status, 0);
    }
}

static void
serve(struct server *server)
{
    struct pollfd watched[] = { { APM_FS_CONTROL, POLLIN, 0 }, { server->signals, POLLIN, 0 } };
    for (;;) {
        if (poll(watched, 2, -1) < 0 && errno != EINTR)
            return;
        if (watched[1].revents) {
            struct signalfd_siginfo info;
            (void)!read(server->signals, &info, sizeof(info));
            if (!bury())
                return;
        }
        if (watched[0].revents) {
            apm_fs_msg ask;
            int fds[APM_FS_FDS];
            int got = apm_fs_recv(APM_FS_CONTROL, true, &ask, fds);
            for (int i = 0; i < APM_FS_FDS; i++)
                if (fds[i] >= 0)
                    close(fds[i]);
            const apm_fs_msg pong = { .kind = APM_FS_PONG };
            if (got > 0 && ask.kind == APM_FS_PING && !apm_fs_send(APM_FS_CONTROL, &pong, NULL, 0))
                return;
            if (got < 0 || (got > 0 && ask.kind == APM_FS_FORK && ask.seat < server->slots.seats &&
                            !fork_one(server, &ask)))
                return;
        }
    }
}

int
apm_fork_server_main(apium_app *app)
{
    struct server server = { .app = app, .signals = -1 };
    apium_error err = { 0 };
    sigset_t chld;

    apm_title_set("[apium worker: fork server]");
    apm_heap_keep();
    (void)prctl(PR_SET_NAME, program_invocation_short_name); /* we were executed as "exe" */
    /* What tasks leave behind is ours to bury, not the main process's. */
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1);
    int null = open("/dev/null", O_RDONLY);
    if (null >= 0) {
        (void)dup2(null, STDIN_FILENO);
        if (null > STDERR_FILENO)
            close(null);
    }
    sigemptyset(&chld);
    sigaddset(&chld, SIGCHLD);
    (void)signal(SIGCHLD, SIG_DFL); /* an inherited SIG_IGN would eat exit statuses */
    (void)sigprocmask(SIG_BLOCK, &chld, NULL);
    server.signals = signalfd(-1, &chld, SFD_CLOEXEC | SFD_NONBLOCK);
    if (server.signals < 0)
        (void)apm_fail_sys(&err, errno, "cannot watch pool processes");
    else if (apm_slots_attach(&server.slots, APM_FS_SLOTS, &err) == APIUM_OK)
        (void)say_hello(app, &err);
    if (err.status != APIUM_OK)
        return apm_fork_server_fail(&err);
    serve(&server);
    return 0;
}
