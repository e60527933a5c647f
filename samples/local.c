/* local.c - see local.h. */
#include "local.h"

#include <errno.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t interrupted;

static void
on_signal(int sig)
{
    (void)sig;
    interrupted = 1;
}

/* A command stands behind apium's own options; a file of ours does not have such a name. */
bool
local_is_command(int argc, char **argv)
{
    static const char *const commands[] = { "worker", "call",  "canvas", "result",
                                            "list",   "purge", "report" };
    for (int i = 1; i < argc; i++)
        for (size_t c = 0; c < sizeof(commands) / sizeof(*commands); c++)
            if (strcmp(argv[i], commands[c]) == 0)
                return true;
    return argc == 2 && strcmp(argv[1], "--version") == 0;
}

/* This program again, as a worker. */
static void
start_node(local *here)
{
    char node[64], processes[16];
    snprintf(node, sizeof(node), "%s%d@%%h", here->name, here->n_nodes + 1);
    snprintf(processes, sizeof(processes), "%d", LOCAL_PROCESSES);
    pid_t parent = getpid(), pid = fork();
    if (pid != 0) {
        if (pid > 0)
            here->nodes[here->n_nodes++] = pid;
        return;
    }
    prctl(PR_SET_PDEATHSIG, SIGTERM); /* a worker without its boss stops */
    if (getppid() != parent)
        _exit(1);
    /* A banner does not belong in front of our output. */
    if (!freopen("/dev/null", "r", stdin) || !freopen("/dev/null", "w", stdout))
        _exit(1);
    execl("/proc/self/exe", here->name, "-q", "-b", here->broker, "--result-backend", here->backend,
          "worker", "-n", node, "-c", processes, "-l", "warning", (char *)NULL);
    _exit(127);
}

bool
local_folder_make(const char *name, char folder[LOCAL_PATH_MAX])
{
    const char *where = getenv("TMPDIR");
    where = where && *where ? where : "/tmp";
    if (snprintf(folder, LOCAL_PATH_MAX, "%s/%s-XXXXXX", where, name) < LOCAL_PATH_MAX &&
        mkdtemp(folder))
        return true;
    fprintf(stderr, "%s: cannot make a folder in %s: %s\n", name, where, strerror(errno));
    folder[0] = '\0';
    return false;
}

static int
remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

void
local_folder_remove(const char *folder)
{
    if (folder[0])
        nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

bool
local_open(local *here, const apium_task_def *tasks)
{
    apium_error err;
    if (!here->broker) {
        if (!local_folder_make(here->name, here->folder))
            return false;
        snprintf(here->url, sizeof(here->url), "sqlite:///%s/apium.db", here->folder);
        here->broker = here->url;
    }
    if (!here->backend)
        here->backend = here->broker;
    if (apium_app_new(here->name, tasks, &here->app, &err) != APIUM_OK ||
        apium_app_set(here->app, "broker_url", here->broker, &err) != APIUM_OK ||
        apium_app_set(here->app, "result_backend", here->backend, &err) != APIUM_OK) {
        fprintf(stderr, "%s: %s\n", here->name, err.text);
        return false;
    }
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    fflush(NULL); /* or each child would print it too */
    for (int i = 0; i < here->workers; i++)
        start_node(here);
    return true;
}

bool
local_goes_on(local *here)
{
    if (interrupted) {
        fprintf(stderr, "%s: interrupted\n", here->name);
        return false;
    }
    for (int i = 0; i < here->n_nodes; i++)
        if (waitpid(here->nodes[i], NULL, WNOHANG) == here->nodes[i]) {
            here->nodes[i] = here->nodes[--here->n_nodes];
            fprintf(stderr, "%s: a worker has ended\n", here->name);
            return false;
        }
    return true;
}

apium_result *
local_get(local *here, apium_run *run)
{
    apium_result *res;
    apium_error err;
    apium_status st;
    while ((st = apium_wait(run, 500, &res, &err)) == APIUM_E_TIMEOUT)
        if (!local_goes_on(here))
            return NULL;
    if (st != APIUM_OK) {
        fprintf(stderr, "%s: %s\n", here->name, err.text);
        return NULL;
    }
    if (!apium_result_ok(res)) {
        fprintf(stderr, "%s: %s\n", here->name, apium_result_message(res));
        apium_result_free(res);
        return NULL;
    }
    return res;
}

/* Ask them to finish, and see that they do. */
static void
stop_nodes(local *here)
{
    for (int i = 0; i < here->n_nodes; i++)
        kill(here->nodes[i], SIGTERM);
    for (int tries = 0; here->n_nodes > 0; tries++) {
        pid_t last = here->nodes[here->n_nodes - 1];
        if (waitpid(last, NULL, WNOHANG) != 0)
            here->n_nodes--;
        else if (tries > 500)
            kill(last, SIGKILL);
        else
            nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
    }
}

void
local_close(local *here)
{
    stop_nodes(here);
    apium_app_free(here->app);
    here->app = NULL;
    local_folder_remove(here->folder);
}
