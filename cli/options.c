/* options.c - reading a command line by its table; see options.h. */
#include "cli/options.h"

#include <assert.h>
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <strings.h>

#include "core/base/error.h"
#include "core/model/settings_table.h"

#define WIDTH     79
#define COLUMN    34 /* where the help of an option begins */
#define NAMES_MAX 128

static const apm_option *
by_name(const apm_option *table, const char *name, size_t len)
{
    apm_str wanted = { name, len };
    for (const apm_option *opt = table; opt && opt->kind; opt++) {
        if (opt->name &&
            (apm_str_eqz(wanted, opt->name) || (opt->alias && apm_str_eqz(wanted, opt->alias))))
            return opt;
    }
    return NULL;
}

static const apm_option *
by_letter(const apm_option *table, char letter)
{
    for (const apm_option *opt = table; opt && opt->kind; opt++) {
        if (opt->letter == letter && opt->kind != APM_OPT_HEADING)
            return opt;
    }
    return NULL;
}

static apium_status
no_such(const char *word, const apm_option *table, const apm_option *fallback, apium_error *err)
{
    if (strncmp(word, "--", 2) != 0)
        return apm_fail(err, APIUM_E_INVALID, "No such option: %.2s", word);
    char name[64];
    snprintf(name, sizeof(name), "%.*s", (int)strcspn(word + 2, "="), word + 2);
    const char *known[NAMES_MAX];
    size_t n = 0;
    const apm_option *const tables[] = { table, fallback };
    for (int t = 0; t < 2; t++) {
        for (const apm_option *opt = tables[t]; opt && opt->kind && n < NAMES_MAX - 1; opt++) {
            if (opt->name)
                known[n++] = opt->name;
        }
    }
    known[n++] = "help";
    const char *near = apm_setting_nearest(name, known, n);
    if (near)
        return apm_fail(err, APIUM_E_INVALID, "No such option: --%s (did you mean --%s?)", name,
                        near);
    return apm_fail(err, APIUM_E_INVALID, "No such option: --%s", name);
}

/* "'-c' / '--concurrency'", as click names an option. */
static const char *
shown(const apm_option *opt, char out[96])
{
    if (opt->letter && opt->name)
        snprintf(out, 96, "'-%c' / '--%s'", opt->letter, opt->name);
    else if (opt->name)
        snprintf(out, 96, "'--%s'", opt->name);
    else
        snprintf(out, 96, "'-%c'", opt->letter);
    return out;
}

static apium_status
invalid(const apm_option *opt, const char *why, apium_error *err)
{
    char name[96];
    return apm_fail(err, APIUM_E_INVALID, "Invalid value for %s: %s", shown(opt, name), why);
}

static apium_status
read_number(const apm_option *opt, const char *text, double *out, apium_error *err)
{
    char why[160], *end;
    double value = strtod(text, &end);
    if (end == text || *end || !isfinite(value) || isspace((unsigned char)*text) ||
        (opt->kind == APM_OPT_INT && (value != floor(value) || strpbrk(text, ".eExXpP")))) {
        snprintf(why, sizeof(why), "'%.60s' is not a valid %s.", text,
                 opt->kind == APM_OPT_INT ? "integer" : "float");
        return invalid(opt, why, err);
    }
    double max = opt->min == 0 && opt->max == 0 ? 9007199254740992.0 : opt->max;
    if (value < opt->min || value > max) {
        snprintf(why, sizeof(why), "%.60s is not in the range %.15g to %.15g.", text, opt->min,
                 max);
        return invalid(opt, why, err);
    }
    *out = value;
    return APIUM_OK;
}

/* Join the choices of an option: "default|fair". */
static void
join(const apm_option *opt, char *out, size_t size)
{
    size_t n = 0;
    for (size_t i = 0; opt->choices[i] && n < size; i++)
        n += (size_t)snprintf(out + n, size - n, "%s%s", i ? "|" : "", opt->choices[i]);
}

/* The choice that the text names, spelled as in the table. */
static apium_status
read_choice(const apm_option *opt, const char *text, const char **out, apium_error *err)
{
    for (size_t i = 0; opt->choices[i]; i++) {
        if (strcasecmp(opt->choices[i], text) == 0) {
            *out = opt->choices[i];
            return APIUM_OK;
        }
    }
    char all[120], why[200];
    join(opt, all, sizeof(all));
    snprintf(why, sizeof(why), "'%.40s' is not one of %s.", text, all);
    return invalid(opt, why, err);
}

static apium_status
read_json(const apm_option *opt, const char *text, apium_error *err)
{
    apium_error inner;
    apm_json json;
    bool array = opt->kind == APM_OPT_ARRAY;
    if (apm_json_parse(apm_strz(text), &json, &inner) != APIUM_OK)
        return invalid(opt, inner.text, err);
    if (json.type != (array ? APM_JSON_ARRAY : APM_JSON_OBJECT))
        return invalid(opt,
                       array ? "not a JSON array, such as '[2, 3]'"
                             : "not a JSON object, such as '{\"x\": 2}'",
                       err);
    return APIUM_OK;
}

/* Take one value (NULL for flags). */
static apium_status
take(const apm_option *opt, void *values, const char *text, apm_options *out, apium_error *err)
{
    void *at = (char *)values + opt->at;
    double number = 0;
    const char *word = text;
    apium_status st = APIUM_OK;

    switch (opt->kind) {
    case APM_OPT_INT:
    case APM_OPT_NUMBER:
        st = read_number(opt, text, &number, err);
        break;
    case APM_OPT_CHOICE:
        st = read_choice(opt, text, &word, err);
        break;
    case APM_OPT_ARRAY:
    case APM_OPT_OBJECT:
        st = read_json(opt, text, err);
        break;
    default:
        break;
    }
    if (st != APIUM_OK)
        return st;
    if (opt->setting) {
        assert(out->n_settings < APM_OPT_SETTINGS);
        out->settings[out->n_settings].name = opt->setting;
        out->settings[out->n_settings++].value = opt->kind == APM_OPT_FLAG ? "true" : word;
    } else if (opt->kind == APM_OPT_FLAG) {
        *(bool *)at = true;
    } else if (opt->kind == APM_OPT_INT || opt->kind == APM_OPT_NUMBER) {
        *(apm_opt_number *)at = (apm_opt_number){ .given = true, .value = number };
    } else {
        *(const char **)at = word;
    }
    return APIUM_OK;
}

struct reader {
    const apm_option *tables[2];
    void *values[2];
    char **argv;
    int argc, at;
    apm_options *out;
};

/* The value of an option: what is attached to it, or the next word. */
static apium_status
value_of(struct reader *r, const apm_option *opt, const char *attached, const char **text,
         apium_error *err)
{
    char name[96];
    *text = attached;
    if (opt->kind == APM_OPT_FLAG && attached)
        return apm_fail(err, APIUM_E_INVALID, "Option %s does not take a value.", shown(opt, name));
    if (opt->kind == APM_OPT_FLAG || attached)
        return APIUM_OK;
    if (r->at + 1 >= r->argc)
        return apm_fail(err, APIUM_E_INVALID, "Option %s requires an argument.", shown(opt, name));
    *text = r->argv[++r->at];
    return APIUM_OK;
}

static apium_status
read_long(struct reader *r, const char *word, apium_error *err)
{
    const char *name = word + 2, *eq = strchr(name, '='), *text;
    size_t len = eq ? (size_t)(eq - name) : strlen(name);
    for (int t = 0; t < 2; t++) {
        const apm_option *opt = by_name(r->tables[t], name, len);
        if (!opt)
            continue;
        apium_status st = value_of(r, opt, eq ? eq + 1 : NULL, &text, err);
        return st != APIUM_OK ? st : take(opt, r->values[t], text, r->out, err);
    }
    if (strcmp(word, "--help") == 0)
        return r->out->help = true, APIUM_OK;
    if (strcmp(word, "--version") == 0)
        return r->out->version = true, APIUM_OK;
    return no_such(word, r->tables[0], r->tables[1], err);
}

/* -c4, -c 4, and flags in one word: -qE. */
static apium_status
read_letters(struct reader *r, const char *word, apium_error *err)
{
    for (const char *p = word + 1; *p; p++) {
        const apm_option *opt = NULL;
        int t = 0;
        for (; t < 2 && !(opt = by_letter(r->tables[t], *p)); t++)
            ;
        if (!opt && *p == 'h') {
            r->out->help = true;
            continue;
        }
        if (!opt) {
            char one[3] = { '-', *p, 0 };
            return no_such(one, NULL, NULL, err);
        }
        const char *text, *attached = opt->kind != APM_OPT_FLAG && p[1] ? p + 1 : NULL;
        apium_status st = value_of(r, opt, attached, &text, err);
        if (st == APIUM_OK)
            st = take(opt, r->values[t], text, r->out, err);
        if (st != APIUM_OK || opt->kind != APM_OPT_FLAG)
            return st;
    }
    return APIUM_OK;
}

apium_status
apm_options_read(const apm_option *table, void *values, const apm_option *fallback,
                 void *fallback_values, char **argv, int argc, int first, bool stop_at_word,
                 apm_options *out, int *next, apium_error *err)
{
    struct reader r = { { table, fallback }, { values, fallback_values }, argv, argc, first, out };
    int words = first; /* words are moved to the front: each place was read before it is written */

    out->words = argv + first;
    out->after = argc;
    for (; r.at < argc; r.at++) {
        char *word = argv[r.at];
        apium_status st = APIUM_OK;
        if (strcmp(word, "--") == 0) {
            out->after = r.at + 1;
            break;
        }
        if (strncmp(word, "--", 2) == 0) {
            st = read_long(&r, word, err);
        } else if (word[0] == '-' && word[1]) {
            st = read_letters(&r, word, err);
        } else if (stop_at_word) {
            break;
        } else {
            argv[words++] = word;
        }
        if (st != APIUM_OK)
            return st;
    }
    out->n_words = words - first;
    if (next)
        *next = r.at;
    return APIUM_OK;
}

/* Print up to the next break of a paragraph; gives what is left. */
static const char *
print_line(const char *text, int width, FILE *to)
{
    int len = (int)strcspn(text, "\n");
    if (len > width) {
        int cut = width;
        while (cut > 0 && text[cut] != ' ')
            cut--;
        len = cut > 0 ? cut : width;
    }
    fprintf(to, "%.*s\n", len, text);
    text += len;
    return *text == ' ' || *text == '\n' ? text + 1 : text;
}

void
apm_options_wrap(const char *text, int indent, FILE *to)
{
    while (*text) {
        if (*text == '\n') {
            putc('\n', to);
            text++;
            continue;
        }
        fprintf(to, "%*s", indent, "");
        text = print_line(text, *text == ' ' ? 1000 : WIDTH - indent, to);
    }
}

void
apm_options_print(const apm_option *table, FILE *to)
{
    for (const apm_option *opt = table; opt->kind; opt++) {
        if (opt->kind == APM_OPT_HEADING) {
            fprintf(to, "\n%s:\n", opt->help);
            continue;
        }
        char left[128];
        int n = 0;
        if (opt->letter)
            n = snprintf(left, sizeof(left), "-%c", opt->letter);
        n += snprintf(left + n, sizeof(left) - (size_t)n, "%s--%s", n ? ", " : "", opt->name);
        if (opt->alias)
            n += snprintf(left + n, sizeof(left) - (size_t)n, ", --%s", opt->alias);
        if (opt->kind == APM_OPT_CHOICE) {
            char all[80];
            join(opt, all, sizeof(all));
            n += snprintf(left + n, sizeof(left) - (size_t)n, " [%s]", all);
        } else if (opt->kind != APM_OPT_FLAG) {
            n += snprintf(left + n, sizeof(left) - (size_t)n, " %s", opt->meta);
        }
        const char *help = opt->help;
        if (n + 2 < COLUMN - 1) {
            fprintf(to, "  %-*s", COLUMN - 2, left);
            help = print_line(help, WIDTH - COLUMN, to);
        } else {
            fprintf(to, "  %s\n", left);
        }
        apm_options_wrap(help, COLUMN, to);
    }
}
