/*
 * options.h - the command line as tables: one parser, one --help, one way to complain for all commands.
 *
 * A command describes its options in a table; a value goes into the command's own struct (`at`), or to the setting that
 * the option stands for (`setting`), which keeps it for apm_settings_set. Spellings are those of the `celery` command.
 */
#ifndef APM_CLI_OPTIONS_H
#define APM_CLI_OPTIONS_H

#include <stdio.h>

#include "core/model/settings.h"

typedef enum apm_option_kind {
    APM_OPT_END,
    APM_OPT_HEADING, /* help is the title of the options that follow */
    APM_OPT_FLAG,    /* bool */
    APM_OPT_TEXT,    /* const char * */
    APM_OPT_CHOICE,  /* const char *, one of `choices`; case does not matter */
    APM_OPT_INT,     /* apm_opt_number */
    APM_OPT_NUMBER,  /* apm_opt_number */
    APM_OPT_ARRAY,   /* const char *: a JSON array */
    APM_OPT_OBJECT,  /* const char *: a JSON object */
} apm_option_kind;

typedef struct apm_opt_number {
    bool given;
    double value; /* integers are exact: their range is below 2^53 */
} apm_opt_number;

typedef struct apm_option {
    apm_option_kind kind;
    char letter;         /* 'c' for -c; 0 none */
    const char *name;    /* "purge" for --purge */
    const char *alias;   /* another spelling; NULL none */
    const char *meta;    /* what the value is, for --help */
    size_t at;           /* offset of the value in the command's struct; unused with `setting` */
    const char *setting; /* the setting this option stands for; flags give "true" */
    const char *const *choices; /* of CHOICE, ended by NULL */
    double min, max;            /* of INT and NUMBER; both 0: from 0 up */
    const char *help;
} apm_option;

#define APM_OPT_SETTINGS 32 /* more options than any command has */

/* What was read. Text borrows from argv. */
typedef struct apm_options {
    struct {
        const char *name, *value;
    } settings[APM_OPT_SETTINGS];
    size_t n_settings;
    char **words; /* positional, a piece of the reordered argv */
    int n_words;
    int after; /* index in argv of what follows a "--"; argc when there is none */
    bool help, version;
} apm_options;

/*
 * Read options from argv[first..argc). Stops at the first word that is no option when `stop_at_word` (the global ones, before
 * the command), otherwise gathers words. `fallback` is a second table for options that `table` does not have, with its own
 * struct; may be NULL. E_INVALID with click's text: "No such option: --nosuch (did you mean --queue?)". Returns the index
 * of the first word not read through *next. Words are moved together within argv.
 */
apium_status apm_options_read(const apm_option *table, void *values, const apm_option *fallback,
                              void *fallback_values, char **argv, int argc, int first,
                              bool stop_at_word, apm_options *out, int *next, apium_error *err);

/* Print the options of a table, wrapped, under their headings. */
void apm_options_print(const apm_option *table, FILE *to);
/* Print text indented and wrapped at 79 columns; lines that begin with a space are kept as they are. */
void apm_options_wrap(const char *text, int indent, FILE *to);

#endif
