/* child.c - see child.h */
#include "worker/child.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "client/builtin.h"
#include "client/run.h"
#include "core/base/clock.h"
#include "core/base/error.h"
#include "core/base/log.h"
#include "worker/states.h"

#define KEEP_BYTES (2 << 20)

/* One job in the hands of this process or thread. */
struct run {
    const apm_child *child;
    unsigned slot;
    uint32_t seq;
    uint32_t states; /* custom states reported */
};

/* What the soft limit's handler compares with: the job that user code runs now, 0 between jobs.
 * Processes only. */
static _Atomic uint32_t running_seq;
static _Atomic int *running_stop;
static pid_t main_tid;
/* Set in what a task forked: when that returns from the handler as if it were us, it has to go. */
static bool forked_off;

void
apm_child_name(unsigned seat, char name[APM_CHILD_NAME_MAX])
{
    snprintf(name, APM_CHILD_NAME_MAX, "ForkPoolWorker-%u", seat + 1);
}

static apium_status
report(void *arg, apm_str state, apm_str meta, apium_error *err)
{
    struct run *run = arg;
    const apm_state_frame frame = { run->slot, run->seq, state, meta };
    apium_status st = apm_states_send(run->child->sock, &frame, err);
    if (st == APIUM_OK)
        run->states++;
    return st;
}

/* An outcome for what apm_run could not do or could not hand over. */
static apm_outcome
failure(apm_arena *arena, const char *type, const char *module, apm_str text, int64_t runtime_ns)
{
    apm_buf args;
    apm_buf_init(&args, 4096);
    apm_buf_addc(&args, '[');
    apm_json_add_string(&args, text);
    apm_buf_addc(&args, ']');
    apm_outcome outcome = {
        .kind = APM_DONE_FAILURE,
        .exc = { apm_strz(type), apm_strz(module),
                 args.failed ? APM_STR("[]") : apm_arena_str(arena, apm_buf_str(&args), NULL) },
        .runtime_ns = runtime_ns,
    };
    apm_buf_clear(&args);
    return outcome;
}

/* Leave the outcome in the slot; when it does not fit anywhere, leave that as the outcome. */
static void
answer(const apm_child *child, unsigned slot, const apm_outcome *outcome, apm_arena *arena,
       apm_buf *out)
{
    apium_error err = { 0 };
    apm_buf_reset(out);
    apm_str behind;
    apm_outcome_pack(outcome, out, &behind);
    apium_status st =
        out->failed || behind.len > APM_BUF_MAX - out->len
            ? apm_fail(&err, APIUM_E_TOOBIG, "the result is bigger than %zu bytes", APM_BUF_MAX)
            : apm_slots_answer(child->slots, slot, apm_buf_str(out), behind, &err);
    if (st == APIUM_OK)
        return;
    apm_outcome instead = failure(arena, st == APIUM_E_TOOBIG ? "EncodeError" : "MemoryError",
                                  st == APIUM_E_TOOBIG ? "kombu.exceptions" : "builtins",
                                  apm_strz(err.text), outcome->runtime_ns);
    instead.states = outcome->states;
    apm_buf_clear(out);
    apm_outcome_pack(&instead, out, NULL);
    (void)apm_slots_answer(child->slots, slot, apm_buf_str(out), APM_STR_NONE, NULL);
}

static void
run_slot(const apm_child *child, bool process, unsigned number, uint32_t seq, apm_arena *arena,
         apm_buf *in, apm_buf *out)
{
    apm_slot *slot = &child->slots->slot[number];
    struct run run = { .child = child, .slot = number, .seq = seq };
    apm_outcome outcome = { 0 };
    apm_request req;
    apm_str bytes;
    apium_error err = { 0 };

    int64_t began_ns = apm_clock_ns();
    atomic_store_explicit(&slot->began_ns, began_ns, memory_order_release);
    if (apm_slots_request(child->slots, number, in, &bytes, &err) != APIUM_OK ||
        apm_request_unpack(bytes, &req, &err) != APIUM_OK) {
        outcome = failure(arena, "RuntimeError", "builtins", apm_strz(err.text), 0);
    } else {
        const apium_task_def *def = apm_app_runnable(child->app, req.task);
        if (!def) {
            outcome = failure(arena, "NotRegistered", "celery.exceptions", req.task, 0);
        } else {
            const apm_run_env env = {
                .app = child->app,
                .hostname = child->hostname,
                .report = report,
                .arg = &run,
                .stop = &slot->stop,
            };
            if (process) {
                running_stop = &slot->stop;
                atomic_store(&running_seq, seq);
            }
            apm_slots_enter(child->slots, number, seq);
            apm_run(&env, def, &req, arena, &outcome);
            if (forked_off)
                _exit(0);
            if (process)
                atomic_store(&running_seq, 0);
        }
    }
    outcome.states = run.states;
    answer(child, number, &outcome, arena, out);
    if (apm_slots_done(child->slots, child->seat, number, seq, apm_clock_ns())) {
        uint64_t one = 1;
        (void)!write(child->wake_fd, &one, sizeof(one));
    }
    apm_arena_clear(arena);
    /* A rare big body's storage is given back; the common small one's is kept. */
    if (in->cap > KEEP_BYTES)
        apm_buf_clear(in);
    if (out->cap > KEEP_BYTES)
        apm_buf_clear(out);
}

/* Resident memory now, not its peak: what a task gave back does not count. -1 unknown. */
static int64_t
resident_kib(int statm)
{
    char text[128];
    long long resident;
    ssize_t n = pread(statm, text, sizeof(text) - 1, 0);
    if (n <= 0)
        return -1;
    text[n] = '\0';
    return sscanf(text, "%*d %lld", &resident) == 1 ? resident * (sysconf(_SC_PAGESIZE) / 1024)
                                                    : -1;
}

int
apm_child_run(const apm_child *child)
{
    bool process = main_tid == gettid(); /* not a thread of the main process */
    int statm = child->max_memory_kib > 0 ? open("/proc/self/statm", O_RDONLY | O_CLOEXEC) : -1;
    int64_t ran = 0;
    int code = APM_CHILD_LEFT;
    apm_arena arena = { 0 };
    apm_buf in, out;
    apm_buf_init(&in, APM_BUF_MAX);
    apm_buf_init(&out, APM_BUF_MAX);

    for (;;) {
        uint32_t seq = 0;
        int slot = -1;
        uint32_t orders = apm_slots_orders(child->slots, child->seat);
        if (orders == APM_SEAT_LEAVE)
            break;
        if (orders == APM_SEAT_STAY)
            slot = apm_slots_take(child->slots, child->seat, &seq);
        if (slot < 0) {
            apm_slots_sleep(child->slots, child->seat);
            continue;
        }
        run_slot(child, process, (unsigned)slot, seq, &arena, &in, &out);
        apm_log_flush();
        code = APM_CHILD_RECYCLED;
        if (child->max_tasks > 0 && ++ran >= child->max_tasks)
            break;
        if (statm >= 0) {
            int64_t kib = resident_kib(statm);
            if (kib > child->max_memory_kib) {
                apm_log(APM_LOG_WARNING, "pool.memory",
                        "child process exiting after exceeding memory limit (%lldKiB / %lldKiB)",
                        (long long)kib, (long long)child->max_memory_kib);
                break;
            }
        }
        code = APM_CHILD_LEFT;
    }
    if (statm >= 0)
        close(statm);
    apm_buf_clear(&in);
    apm_buf_clear(&out);
    return code;
}

/* ---- a process of its own ---- */

/* The soft limit. It carries the number of the job that is meant: when that one is over, it means
 * nobody. */
static void
on_soft_limit(int signum, siginfo_t *info, void *context)
{
    int saved = errno;
    (void)context;
    if (info->si_code == SI_QUEUE &&
        (uint32_t)info->si_value.sival_int == atomic_load(&running_seq)) {
        if (gettid() != main_tid) {
            /* It fell to a thread that the task started; the task itself is in the first one. */
            (void)syscall(SYS_rt_tgsigqueueinfo, getpid(), main_tid, signum, info);
        } else {
            int none = APM_STOP_NO;
            atomic_compare_exchange_strong(running_stop, &none, APM_STOP_SOFT_LIMIT);
            apm_run_soft_limit();
        }
    }
    errno = saved;
}

/* What a task may expect: everything as a new program has it, but ^C and the end of the terminal
 * are the main process's business, and a peer that closes its connection is no reason to die. */
static void
set_signals(void)
{
    static const int ignored[] = { SIGINT, SIGHUP, SIGPIPE };
    struct sigaction act = { .sa_handler = SIG_DFL };
    sigset_t none;
    for (int i = 1; i < NSIG; i++)
        (void)sigaction(i, &act, NULL);
    act.sa_handler = SIG_IGN;
    for (size_t i = 0; i < sizeof(ignored) / sizeof(*ignored); i++)
        (void)sigaction(ignored[i], &act, NULL);
    /* No SA_RESTART: a task that waits in a system call shall notice. */
    struct sigaction soft = { .sa_sigaction = on_soft_limit, .sa_flags = SA_SIGINFO | SA_ONSTACK };
    (void)sigaction(SIGUSR1, &soft, NULL);
    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

/*
 * Die with the main process, whatever user code does then, but not with the fork server. The life
 * pipe has one write end, in the main process; the kernel sends our own description of its read end
 * SIGKILL when that closes.
 */
static void
bind_life(int life_fd)
{
    char path[32], byte;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", life_fd);
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 || fcntl(fd, F_SETOWN, getpid()) < 0 || fcntl(fd, F_SETSIG, SIGKILL) < 0 ||
        fcntl(fd, F_SETFL, O_NONBLOCK | O_ASYNC) < 0)
        _exit(APM_CHILD_NO_START); /* rather none than one that outlives its worker */
    /* Armed: if it closed before, nobody tells us any more. End of file is 0, an open empty pipe
     * EAGAIN. */
    if (read(fd, &byte, 1) == 0)
        _exit(APM_CHILD_LEFT);
    close(life_fd);
}

static void
note_fork(void)
{
    forked_off = true;
}

_Noreturn void
apm_child_process(const apm_child *child, int life_fd)
{
    char name[APM_CHILD_NAME_MAX], go;
    apium_error err = { 0 };
    ssize_t n;

    main_tid = gettid();
    bind_life(life_fd);
    set_signals();
    apm_child_name(child->seat, name);
    apm_log_forked();
    apm_log_process(name);
    apm_app_forked(child->app);
    /* The main process must know us before we touch the shared memory in a seat's name. */
    do
        n = read(child->sock, &go, 1);
    while (n < 0 && errno == EINTR);
    if (n != 1)
        _exit(APM_CHILD_LEFT);
    (void)pthread_atfork(NULL, NULL, note_fork);

    const apium_hooks *hooks = apm_app_hooks(child->app);
    int code = APM_CHILD_NO_START;
    if (hooks->process_start && hooks->process_start(child->app, &err) != APIUM_OK) {
        apm_log(APM_LOG_ERROR, "pool.start", "the hook process_start failed: %s", err.text);
    } else {
        code = apm_child_run(child);
        if (hooks->process_stop)
            hooks->process_stop(child->app);
    }
    apm_log_flush();
    fflush(NULL);
    _exit(code); /* not exit(): the fork server's atexit handlers are not ours to run */
}
