/* main.c - apium_main: find the command in the table, read its options, make the app, run it. */
#include "cli/cli.h"
#include "cli/daemon.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include "config.h"
#include "core/base/error.h"
#include "core/model/settings_table.h"
#include "worker/pool.h"

static const apm_command *const commands[] = {
    &apm_cmd_call,   &apm_cmd_canvas,
    &apm_cmd_list,   &apm_cmd_purge,
    &apm_cmd_report, &apm_cmd_result,
#if APM_WITH_WEB
    &apm_cmd_web,
#endif
    &apm_cmd_worker, NULL,
};

#define AT(member) offsetof(apm_globals, member)

static const apm_option global_options[] = {
    { APM_OPT_HEADING, .help = "Options" },
    { APM_OPT_TEXT, 'A', "app", NULL, "MODULE", AT(module),
      .help = "Shared object with the tasks, such as ./tasks.so." },
    { APM_OPT_TEXT, 'b', "broker", NULL, "URL", .setting = "broker_url",
      .help = "Where the messages live." },
    { APM_OPT_TEXT, 0, "result-backend", NULL, "URL", .setting = "result_backend",
      .help = "Where the results live." },
    { APM_OPT_TEXT, 0, "config", NULL, "FILE", AT(config), .help = "Settings in YAML." },
    { APM_OPT_TEXT, 0, "workdir", NULL, "PATH", AT(workdir),
      .help = "Change to this folder first." },
    { APM_OPT_FLAG, 'C', "no-color", NULL, NULL, AT(no_color),
      .help = "Accepted: apium prints no colours." },
    { APM_OPT_FLAG, 'q', "quiet", NULL, NULL, AT(quiet), .help = "Leave out banners and hints." },
    { APM_OPT_FLAG, 0, "skip-checks", NULL, NULL, AT(skip_checks),
      .help = "Accepted: those checks are Django's." },
    { 0 },
};

static int
exit_code(apium_status status)
{
    switch (status) {
    case APIUM_OK:
        return APM_EXIT_OK;
    case APIUM_E_INVALID:
        return APM_EXIT_USAGE;
    case APIUM_E_CLOSED:
    case APIUM_E_REFUSED:
        return APM_EXIT_UNAVAILABLE;
    case APIUM_E_TIMEOUT:
    case APIUM_E_BUSY:
        return APM_EXIT_TEMPFAIL;
    case APIUM_E_CONFIG:
    case APIUM_E_UNSUPPORTED:
        return APM_EXIT_CONFIG;
    default:
        return APM_EXIT_FAILURE;
    }
}

int
apm_cli_fail(const apm_cli *cli, const apium_error *err)
{
    (void)cli;
    fflush(stdout);
    fprintf(stderr, "Error: %s\n", err->text);
    return exit_code(err->status);
}

int
apm_cli_misused(const apm_cli *cli, const char *fmt, ...)
{
    apium_error err = { .status = APIUM_E_INVALID };
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err.text, sizeof(err.text), fmt, ap);
    va_end(ap);
    return apm_cli_fail(cli, &err);
}

static const apm_command *
command_of(const char *name)
{
    for (size_t i = 0; commands[i]; i++) {
        if (strcmp(commands[i]->name, name) == 0)
            return commands[i];
    }
    return NULL;
}

static void
print_usage(const apm_cli *cli, const apm_command *cmd, FILE *to)
{
    if (cmd)
        fprintf(to, "Usage: %s [OPTIONS] %s [OPTIONS]%s%s\n", cli->program, cmd->name,
                cmd->words ? " " : "", cmd->words ? cmd->words : "");
    else
        fprintf(to, "Usage: %s [OPTIONS] COMMAND [ARGS]...\n", cli->program);
}

static int
print_help(const apm_cli *cli, const apm_command *cmd)
{
    print_usage(cli, cmd, stdout);
    putchar('\n');
    if (cmd) {
        apm_options_wrap(cmd->summary, 2, stdout);
        if (cmd->about) {
            putchar('\n');
            apm_options_wrap(cmd->about, 2, stdout);
        }
        apm_options_print(cmd->options, stdout);
        printf("\nThe options of %s itself (%s --help) may stand here too.\n", cli->program,
               cli->program);
        return APM_EXIT_OK;
    }
    apm_options_wrap("A task queue that speaks Celery's protocol.", 2, stdout);
    apm_options_print(global_options, stdout);
    printf("  %-32s%s\n  %-32s%s\n\nCommands:\n", "--version", "Show the version and exit.",
           "--help", "Show this message and exit; also after a command.");
    for (size_t i = 0; commands[i]; i++)
        printf("  %-8s %s\n", commands[i]->name, commands[i]->summary);
    return APM_EXIT_OK;
}

/* A wrong command line: usage, a hint, the error; as click prints it. */
static int
misused(const apm_cli *cli, const apm_command *cmd, const apium_error *err)
{
    print_usage(cli, cmd, stderr);
    fprintf(stderr, "Try '%s%s%s --help' for help.\n\nError: %s\n", cli->program, cmd ? " " : "",
            cmd ? cmd->name : "", err->text);
    return APM_EXIT_USAGE;
}

static apium_status
check_words(const apm_cli *cli, const apm_command *cmd, apium_error *err)
{
    if (cli->options.n_words < cmd->min_words)
        return apm_fail(err, APIUM_E_INVALID, "Missing argument '%s'.", cmd->words);
    if (cli->options.n_words > cmd->max_words)
        return apm_fail(err, APIUM_E_INVALID, "Got unexpected extra argument (%s)",
                        cli->options.words[cmd->max_words]);
    return APIUM_OK;
}

/* Settings from the command line: those of options, and NAME=VALUE after a "--" ("worker.x=1" as Celery spells it). */
static apium_status
apply_settings(apm_cli *cli, char **args, int argc, apium_error *err)
{
    apm_settings *settings = apm_app_settings(cli->app);
    for (size_t i = 0; i < cli->options.n_settings; i++) {
        const char *value = cli->options.settings[i].value;
        apium_status st = apm_settings_set(settings, cli->options.settings[i].name, apm_strz(value),
                                           APM_FROM_FLAG, err);
        if (st != APIUM_OK)
            return st;
    }
    for (int i = cli->options.after; i < argc; i++) {
        char name[80];
        const char *eq = strchr(args[i], '=');
        if (!eq)
            return apm_fail(err, APIUM_E_INVALID,
                            "\"%s\" is not NAME=VALUE (what follows -- are settings)", args[i]);
        snprintf(name, sizeof(name), "%.*s", (int)(eq - args[i]), args[i]);
        for (char *p = name; *p; p++)
            *p = *p == '.' ? '_' : *p;
        apium_status st = apm_settings_set(settings, name, apm_strz(eq + 1), APM_FROM_FLAG, err);
        if (st != APIUM_OK)
            return st;
    }
    return APIUM_OK;
}

apium_status
apm_cli_load(apm_cli *cli, apium_error *err)
{
    const char *path = cli->globals.module;
    char local[4096];
    if (!path)
        return APIUM_OK;
    if (!strchr(path, '/')) { /* the file here, as of Celery's -A, not something to search for */
        snprintf(local, sizeof(local), "./%s", path);
        path = local;
    }
    return apium_app_load(cli->app, path, err);
}

static apium_status
make_app(apm_cli *cli, const apm_command *cmd, char **args, int argc, apium_error *err)
{
    const apm_globals *g = &cli->globals;
    bool has_tasks = cli->module && cli->module->tasks;
    /* The fork server inherits the folder that its parent changed to. */
    if (g->workdir && !apm_fork_server_wanted() && chdir(g->workdir) < 0)
        return apm_fail(err, APIUM_E_CONFIG, "cannot change to the folder \"%s\": %s", g->workdir,
                        strerror(errno));
    apium_status st =
        apium_app_new(cli->module ? cli->module->name : "apium", NULL, &cli->app, err);
    if (st == APIUM_OK && has_tasks)
        st = apium_app_add(cli->app, cli->module, err);
    if (st == APIUM_OK && g->config) {
        st = apium_app_config(cli->app, g->config, err);
        if (st == APIUM_E_SYSTEM) /* a file that is not there is a wrong setting */
            st = err->status = APIUM_E_CONFIG;
    }
    if (st == APIUM_OK)
        st = apply_settings(cli, args, argc, err);
    if (st == APIUM_OK && (cmd->loads || apm_fork_server_wanted()))
        st = apm_cli_load(cli, err);
    return st;
}

/* Run the command whose options start at args[first]. */
static int
run_command(apm_cli *cli, const apm_command *cmd, char **args, int argc, int first)
{
    apium_error err = { 0 };
    void *values = calloc(1, cmd->size ? cmd->size : 1);
    int code = APM_EXIT_OK;

    if (!values)
        return APM_EXIT_FAILURE;
    apium_status st = apm_options_read(cmd->options, values, global_options, &cli->globals, args,
                                       argc, first, false, &cli->options, NULL, &err);
    if (st == APIUM_OK && cli->options.help) {
        code = print_help(cli, cmd);
        goto out;
    }
    if (st == APIUM_OK)
        st = check_words(cli, cmd, &err);
    if (st != APIUM_OK) {
        code = misused(cli, cmd, &err);
        goto out;
    }
    if (cmd->before && !apm_fork_server_wanted() &&
        (code = cmd->before(cli, values)) != APM_EXIT_OK)
        goto out;
    if (make_app(cli, cmd, args, argc, &err) != APIUM_OK)
        code = apm_fork_server_wanted() ? apm_fork_server_fail(&err) : apm_cli_fail(cli, &err);
    else if (apm_fork_server_wanted())
        code = apm_fork_server_main(cli->app);
    else
        code = cmd->run(cli, values);
    apium_app_free(cli->app);
out:
    free(values);
    /* A full disk or a closed pipe under our output is a failure of the command. */
    if (fflush(stdout) != 0 && code == APM_EXIT_OK) {
        fprintf(stderr, "Error: cannot write the output: %s\n", strerror(errno));
        code = APM_EXIT_FAILURE;
    }
    apm_daemon_failed(code);
    return code;
}

/* Read what stands before the command, then run it. args is a copy of argv that may be reordered. */
static int
run_line(apm_cli *cli, char **args, int argc)
{
    apium_error err = { 0 };
    int next = 1;
    if (apm_options_read(global_options, &cli->globals, NULL, NULL, args, argc, 1, true,
                         &cli->options, &next, &err) != APIUM_OK)
        return misused(cli, NULL, &err);
    if (cli->options.version) {
        printf("apium %s\n", APIUM_VERSION);
        return APM_EXIT_OK;
    }
    if (cli->options.help)
        return print_help(cli, NULL);
    if (next >= argc) {
        (void)print_help(cli, NULL);
        return APM_EXIT_USAGE;
    }
    if (strcmp(args[next], "help") == 0) {
        const apm_command *about = next + 1 < argc ? command_of(args[next + 1]) : NULL;
        return print_help(cli, about);
    }
    const apm_command *cmd = command_of(args[next]);
    if (!cmd) {
        const char *names[sizeof(commands) / sizeof(*commands)];
        size_t n = 0;
        for (; commands[n]; n++)
            names[n] = commands[n]->name;
        const char *near = apm_setting_nearest(args[next], names, n);
        apm_fail(&err, APIUM_E_INVALID, "No such command '%s'.%s%s%s", args[next],
                 near ? " Did you mean '" : "", near ? near : "", near ? "'?" : "");
        return misused(cli, NULL, &err);
    }
    return run_command(cli, cmd, args, argc, next + 1);
}

int
apium_main_module(int argc, char **argv, const apium_module *module)
{
    (void)
        apm_fork_server_wanted(); /* asked first: it takes its mark out of the environment, and its descriptors */
    const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
    apm_cli cli = { .argc = argc, .argv = argv, .module = module };
    cli.program = slash ? slash + 1 : argc > 0 ? argv[0] : "apium";

    char **args = calloc((size_t)argc + 1, sizeof(*args));
    if (!args)
        return APM_EXIT_FAILURE;
    for (int i = 0; i < argc; i++)
        args[i] = argv[i];
    int code = run_line(&cli, args, argc);
    free(args);
    return code;
}

int
apium_main(int argc, char **argv, const char *name, const apium_task_def *tasks)
{
    const apium_module module = { APIUM_ABI, sizeof(apium_task_def), name, tasks, NULL, NULL };
    return apium_main_module(argc, argv, &module);
}
