/*
 * cli.h - what the subcommands share: a command as a row of a table, the run of one, exit codes.
 *
 * A subcommand is one file and one row in commands[] (main.c).
 */
#ifndef APM_CLI_CLI_H
#define APM_CLI_CLI_H

#include "cli/options.h"
#include "client/app.h"
#include "worker/worker.h"

/* Exit codes besides the worker's OK, FAILURE and USAGE (docs/commands.md); sysexits.h has the same numbers. */
enum {
    APM_EXIT_UNAVAILABLE = 69, /* a server cannot be reached, or refuses us */
    APM_EXIT_CANTCREAT = 73,   /* the pidfile exists */
    APM_EXIT_TEMPFAIL = 75,    /* no answer in time; asking again is reasonable */
    APM_EXIT_CONFIG = 78,      /* a setting, file or module cannot be used */
};

/* The options before the command. */
typedef struct apm_globals {
    const char *module; /* -A */
    const char *config, *workdir;
    bool no_color, quiet, skip_checks;
} apm_globals;

typedef struct apm_cli {
    int argc;
    char **argv; /* as this program was started */
    const char *program;
    const apium_module *module; /* what is linked into the program */
    apm_globals globals;
    apm_options options; /* of the command: words, what follows "--" */
    apium_app *app;
} apm_cli;

typedef struct apm_command {
    const char *name;
    const char *words; /* for the usage line: "NAME" */
    int min_words, max_words;
    const char *summary; /* one line */
    const char *about;   /* the rest of --help; may be NULL */
    const apm_option *options;
    size_t size; /* of the struct that the options fill */
    bool loads;  /* wants the tasks of -A in this process */
    /* Before the app is made, with the settings of the command line still in cli->options; may be NULL. Anything but OK ends. */
    int (*before)(apm_cli *cli, void *values);
    int (*run)(apm_cli *cli, void *values);
} apm_command;

extern const apm_command apm_cmd_worker, apm_cmd_call, apm_cmd_canvas, apm_cmd_result, apm_cmd_list,
    apm_cmd_purge, apm_cmd_report, apm_cmd_web;

/* Load the tasks of -A into the app; nothing without -A. */
apium_status apm_cli_load(apm_cli *cli, apium_error *err);
/* Print "Error: ..." and give the exit code that belongs to the error's status. */
int apm_cli_fail(const apm_cli *cli, const apium_error *err);
/* A mistake on the command line, found by the command itself: E_INVALID with click's words. */
int apm_cli_misused(const apm_cli *cli, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
