/* worker.c - `apium worker`: options into settings, the daemon around it, the worker itself, again after HUP. */
#include "worker/worker.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/daemon.h"
#include "core/base/log.h"

struct values {
    const char *node, *pool, *queues, *exclude, *level, *optimization, *log_format;
    const char *http, *logfile, *pidfile, *uid, *gid, *umask;
    bool detach, purge, without_gossip, without_mingle, without_heartbeat;
};

#define AT(member) offsetof(struct values, member)

static const char *const levels[] = {
    "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "FATAL", NULL
};
static const char *const pools[] = { "prefork", "processes", "threads", "solo", NULL };
static const char *const profiles[] = { "default", "fair", NULL };
static const char *const formats[] = { "classic", "kv", NULL };

static const apm_option options[] = {
    { APM_OPT_HEADING, .help = "Worker Options" },
    { APM_OPT_TEXT, 'n', "hostname", NULL, "NODE", AT(node),
      .help = "Name of this node, such as w1@%h. Expands %h (host), %n (name), %d (domain)." },
    { APM_OPT_CHOICE, 'l', "loglevel", NULL, NULL, AT(level), .choices = levels,
      .help = "WARNING unless given." },
    { APM_OPT_CHOICE, 0, "log-format", NULL, NULL, AT(log_format), .choices = formats,
      .help = "classic looks like Celery's log; kv is key=value." },
    { APM_OPT_CHOICE, 'O', "optimization", NULL, NULL, AT(optimization), .choices = profiles,
      .help = "Accepted: scheduling is always fair." },
    { APM_OPT_INT, 0, "prefetch-multiplier", NULL, "N", .setting = "worker_prefetch_multiplier",
      .max = 100000, .help = "Messages held for each process; 0 has no bound (4)." },
    { APM_OPT_HEADING, .help = "Pool Options" },
    { APM_OPT_INT, 'c', "concurrency", NULL, "N", .setting = "worker_concurrency", .min = 1,
      .max = 10000, .help = "Tasks run at once; the number of CPUs unless given." },
    { APM_OPT_CHOICE, 'P', "pool", NULL, NULL, AT(pool), .choices = pools,
      .help = "How tasks are run (prefork)." },
    { APM_OPT_FLAG, 'E', "task-events", "events", NULL, .setting = "worker_send_task_events",
      .help = "Sets worker_send_task_events." },
    { APM_OPT_NUMBER, 0, "time-limit", NULL, "SECONDS", .setting = "task_time_limit",
      .help = "Tasks are killed after this time." },
    { APM_OPT_NUMBER, 0, "soft-time-limit", NULL, "SECONDS", .setting = "task_soft_time_limit",
      .help = "Tasks are asked to stop after this time." },
    { APM_OPT_INT, 0, "max-tasks-per-child", NULL, "N", .setting = "worker_max_tasks_per_child",
      .min = 1, .max = 2147483647, .help = "A pool process is replaced after so many tasks." },
    { APM_OPT_INT, 0, "max-memory-per-child", NULL, "KIB", .setting = "worker_max_memory_per_child",
      .min = 1, .max = 1e12,
      .help = "A pool process is replaced, between tasks, when it is bigger." },
    { APM_OPT_HEADING, .help = "Queue Options" },
    { APM_OPT_FLAG, 0, "purge", "discard", NULL, AT(purge),
      .help = "Empty the queues first. There is no undo." },
    { APM_OPT_TEXT, 'Q', "queues", NULL, "NAME,...", AT(queues),
      .help = "Queues to consume from; without it, those of the settings." },
    { APM_OPT_TEXT, 'X', "exclude-queues", NULL, "NAME,...", AT(exclude),
      .help = "Queues not to consume from." },
    { APM_OPT_HEADING, .help = "Features" },
    { APM_OPT_TEXT, 0, "http", NULL, "ADDR:PORT", AT(http),
      .help = "Serve /metrics (Prometheus) and /healthz there, to everybody who reaches it." },
    { APM_OPT_FLAG, 0, "without-gossip", NULL, NULL, AT(without_gossip),
      .help = "Accepted: apium does not gossip." },
    { APM_OPT_FLAG, 0, "without-mingle", NULL, NULL, AT(without_mingle),
      .help = "Accepted: apium does not mingle." },
    { APM_OPT_FLAG, 0, "without-heartbeat", NULL, NULL, AT(without_heartbeat),
      .help = "Accepted: apium sends no event heartbeats." },
    { APM_OPT_HEADING, .help = "Daemonization Options" },
    { APM_OPT_FLAG, 'D', "detach", NULL, NULL, AT(detach), .help = "Run in the background." },
    { APM_OPT_TEXT, 'f', "logfile", NULL, "FILE", AT(logfile),
      .help = "Log to this file instead of standard error; expands %n, %h ..." },
    { APM_OPT_TEXT, 0, "pidfile", NULL, "FILE", AT(pidfile),
      .help = "Write the process id here; refuse to start when it is in use." },
    { APM_OPT_TEXT, 0, "uid", NULL, "USER", AT(uid), .help = "Become this user." },
    { APM_OPT_TEXT, 0, "gid", NULL, "GROUP", AT(gid), .help = "Become this group." },
    { APM_OPT_TEXT, 0, "umask", NULL, "OCTAL", AT(umask),
      .help = "Permissions that new files lack." },
    { 0 },
};

/* Set in a detached process, so that it does not detach again when HUP executes its command line anew. */
#define DETACHED "APIUM_DETACHED"

static int
before(apm_cli *cli, void *arg)
{
    const struct values *v = arg;
    apium_error err = { 0 };
    bool again = getenv(DETACHED) != NULL;

    if (!cli->globals.module && !(cli->module && cli->module->tasks))
        return apm_cli_misused(cli,
                               "no tasks to run: name a module with -A, such as -A ./tasks.so");
    apium_status st = again ? APIUM_OK : apm_daemon_privileges(v->uid, v->gid, v->umask, &err);
    if (st == APIUM_OK && v->detach && !again) {
        st = apm_daemon_detach(&err);
        if (st == APIUM_OK)
            setenv(DETACHED, "1", 1);
    }
    return st == APIUM_OK ? APM_EXIT_OK : apm_cli_fail(cli, &err);
}

static apium_status
open_log(const struct values *v, const char *node, apium_error *err)
{
    apm_log_opts opts = { .level = APM_LOG_WARNING,
                          .kv = v->log_format && strcmp(v->log_format, "kv") == 0 };
    char path[4096];
    apium_status st = APIUM_OK;
    if (v->level)
        st = apm_log_level_parse(v->level, &opts.level, err);
    if (st == APIUM_OK && v->logfile) {
        st = apm_node_path(v->logfile, node, 0, path, sizeof(path), err);
        opts.file = path;
    }
    return st == APIUM_OK ? apm_log_open(&opts, err) : st;
}

static apium_status
prepare(apm_cli *cli, const struct values *v, char *node, size_t size, apium_error *err)
{
    apm_settings *settings = apm_app_settings(cli->app);
    apium_status st = apm_node_name(v->node, node, size, err);
    if (st == APIUM_OK)
        st = open_log(v, node, err);
    if (st == APIUM_OK && v->pool)
        st = apm_settings_set(settings, "worker_pool",
                              apm_strz(strcmp(v->pool, "processes") == 0 ? "prefork" : v->pool),
                              APM_FROM_FLAG, err);
    /* With processes the fork server alone loads the module: user code stays out of this one, which only learns the
     * settings that the module brings. */
    if (st == APIUM_OK && cli->globals.module && strcmp(settings->worker_pool, "prefork") == 0)
        st = apm_app_learn(cli->app, cli->globals.module, err);
    if (st == APIUM_OK && strcmp(settings->worker_pool, "prefork") != 0)
        st = apm_cli_load(cli, err);
    return st;
}

/* The same command line once more, in this same process; comes back only when it cannot. */
static int
start_again(const apm_cli *cli)
{
    apm_log_flush();
    execv("/proc/self/exe", cli->argv);
    fprintf(stderr, "Error: cannot start again: %s\n", strerror(errno));
    return APM_EXIT_FAILURE;
}

static int
run(apm_cli *cli, void *arg)
{
    const struct values *v = arg;
    apium_error err = { 0 };
    char node[256], pidfile[4096] = "";

    apium_status st = prepare(cli, v, node, sizeof(node), &err);
    if (st == APIUM_OK && v->pidfile)
        st = apm_node_path(v->pidfile, node, 0, pidfile, sizeof(pidfile), &err);
    if (st != APIUM_OK)
        return apm_cli_fail(cli, &err);
    if (*pidfile && apm_pidfile_write(pidfile, &err) != APIUM_OK) {
        fprintf(stderr, "ERROR: %s\n", err.text);
        return APM_EXIT_CANTCREAT;
    }
    apm_daemon_ready();
    apm_worker_opts opts = {
        .node = v->node,
        .queues = v->queues,
        .exclude = v->exclude,
        .purge = v->purge,
        .quiet = cli->globals.quiet,
        .http = v->http,
        .argv = cli->argv,
    };
    int code = apm_worker_run(cli->app, &opts, &err);
    if (code == APM_EXIT_RESTART)
        code = start_again(cli);
    else if (code != APM_EXIT_OK && err.status != APIUM_OK)
        apm_log(APM_LOG_CRITICAL, "worker.gave_up", "%s", err.text);
    apm_log_flush();
    if (*pidfile)
        apm_pidfile_remove(pidfile);
    return code;
}

const apm_command apm_cmd_worker = {
    .name = "worker",
    .summary = "Start a worker.",
    .about = "  apium -A ./tasks.so worker -l INFO\n"
             "  apium -A ./tasks.so worker -Q hipri,lopri -c 4\n"
             "  apium -A ./tasks.so worker -n w1@%h -- worker.prefetch_multiplier=1\n"
             "\n"
             "TERM and INT stop it when what runs has ended; a second one, or QUIT, at once; HUP "
             "starts it again.",
    .options = options,
    .size = sizeof(struct values),
    .before = before,
    .run = run,
};
