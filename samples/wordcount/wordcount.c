/*
 * wordcount.c - counts the words of text files with as many processes as you like: a map-reduce as
 * a chord.
 *
 *             ┌─▶ count ──┐
 *     split ──┼─▶ count ──┼──▶ merge ──▶ report
 *             └─▶ folder ─┘
 *
 *     wordcount [OPTIONS] [FILE|FOLDER...]   counts; without any: this machine's licences
 *     wordcount worker [OPTIONS]             is a worker of the same tasks, and so with every
 *                                            command of apium
 *
 * Broker and result store are one SQLite file in a temporary folder, and the workers are this same
 * program, started twice; or, with -b, any broker, and then also workers that run elsewhere. The
 * tasks are in tasks.c, the workflow in parts.c.
 */
#include "../local.h"
#include "parts.h"
#include "tasks.h"

#include <apium/cjson.h>

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define ROWS   12
#define ID_MAX 64

typedef struct options {
    const char *broker, *backend;
    int workers;
    bool all; /* every word, as uniq -c prints them, and nothing else */
    char **files;
    size_t n_files;
} options;

/* --- count, merge, report --- */

/* One line that is written over, or, where nobody can write over, one for each tenth. */
static void
show_progress(size_t done, size_t n)
{
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\rcounting: %zu of %zu parts %.*s%.*s%s", done, n, (int)(done * 30 / n),
                "##############################", 30 - (int)(done * 30 / n),
                "..............................", done == n ? "\n" : "");
    else if (done * 10 / n != (done - 1) * 10 / n)
        fprintf(stderr, "counting: %zu of %zu parts\n", done, n);
}

/* The parts as they finish, in whatever order. False when one failed, or nothing more can come. */
static bool
watch_parts(local *here, apium_run *header, size_t n)
{
    apium_run *member;
    apium_result *res;
    apium_error err;
    for (size_t done = 0; local_goes_on(here);) {
        apium_status st = apium_run_next(header, 500, &member, &res, &err);
        if (st == APIUM_E_TIMEOUT)
            continue;
        if (st == APIUM_OK && !member)
            return true;
        if (st != APIUM_OK) {
            fprintf(stderr, "\nwordcount: %s\n", err.text);
            return false;
        }
        bool ok = apium_result_ok(res);
        if (ok)
            show_progress(++done, n);
        else
            fprintf(stderr, "\nwordcount: %s\n", apium_result_message(res));
        apium_result_free(res);
        if (!ok)
            return false;
    }
    return false;
}

/* All of it as one workflow; the report, which is the caller's. */
static apium_result *
count_all(local *here, const options *opts, parts *all, char header_id[ID_MAX])
{
    size_t n = all->n;
    apium_run *run = NULL;
    apium_result *res = NULL;
    apium_error err;

    if (apium_send(here->app, parts_flow(all, opts->all ? 0 : ROWS), NULL, &run, &err) !=
        APIUM_OK) {
        fprintf(stderr, "wordcount: %s\n", err.text);
        return NULL;
    }
    /* run is report's, the end of the chord's body; before it comes the header. */
    apium_run *counts = apium_run_parent(run);
    if (n == 0 || !counts || watch_parts(here, counts, n))
        res = local_get(here, run);
    if (res && counts) { /* the header is kept under its id, so that others can look at it */
        snprintf(header_id, ID_MAX, "%s", apium_run_id(counts));
        if (apium_run_save(counts, &err) != APIUM_OK)
            fprintf(stderr, "wordcount: %s\n", err.text);
    }
    apium_run_free(run);
    return res;
}

/* --- what is shown --- */

static void
print_rows(const cJSON *rows, bool as_uniq)
{
    const cJSON *row;
    cJSON_ArrayForEach(row, rows)
    {
        long count = (long)cJSON_GetNumberValue(cJSON_GetArrayItem(row, 1));
        const char *word = cJSON_GetStringValue(cJSON_GetArrayItem(row, 0));
        printf(as_uniq ? "%7ld %s\n" : "  %9ld  %s\n", count, word);
    }
}

static void
print_report(const cJSON *report, double seconds)
{
    const cJSON *shares = cJSON_GetObjectItem(report, "parts"), *share;
    double all = 0;
    cJSON_ArrayForEach(share, shares)
    {
        all += share->valuedouble;
    }
    printf("\n  %9s  %s\n", "times", "word");
    print_rows(cJSON_GetObjectItem(report, "rows"), false);
    printf("\n%.0f words, %.0f different ones, in %.1f MB, in %.2f s; %.0f parts by %d processes",
           cJSON_GetNumberValue(cJSON_GetObjectItem(report, "words")),
           cJSON_GetNumberValue(cJSON_GetObjectItem(report, "different")),
           cJSON_GetNumberValue(cJSON_GetObjectItem(report, "bytes")) / 1e6, seconds, all,
           cJSON_GetArraySize(shares));
    cJSON_ArrayForEach(share, shares)
    {
        printf("%s%.0f%s", share == shares->child ? " (" : ", ", share->valuedouble,
               share->next ? "" : ")");
    }
    putchar('\n');
}

static void
print_next(const char *self, const local *here, const char *header_id, bool embedded)
{
    /* Where the command is, seen from here: "build" of "build/samples/wordcount". */
    const char *name = strrchr(self, '/');
    char build[512] = "build";
    if (name && name - self > 8 && strncmp(name - 8, "/samples", 8) == 0)
        snprintf(build, sizeof(build), "%.*s", (int)(name - 8 - self), self);

    printf("\nWhat to try next:\n"
           "  your own text          %s *.txt\n"
           "  the same over Redis    %s -b redis://localhost/0\n"
           "  and over RabbitMQ      %s -b amqp://localhost -r redis://localhost/0\n",
           self, self, self);
    if (embedded)
        printf("  in a file that stays   %s -b sqlite:////tmp/words.db   (and then: apium canvas "
               "show ID)\n"
               "  with more workers      %s -w 4\n",
               self, self);
    else
        printf("  its parts, as a tree   %s/apium -b '%s' --result-backend '%s' canvas show %s\n"
               "  workers elsewhere      %s -b '%s' --result-backend '%s' worker\n",
               build, here->broker, here->backend, header_id, self, here->broker, here->backend);
    printf(
        "  from Python            samples/python/README.md\n"
        "  more samples           samples/README.md, and how they are made: docs/workflows.md\n");
}

/* --- what is counted --- */

static void
add_file(options *opts, const char *path)
{
    char **files = realloc(opts->files, (opts->n_files + 1) * sizeof(*files));
    char *copy = strdup(path);
    if (!files || !copy)
        exit(1);
    opts->files = files;
    opts->files[opts->n_files++] = copy;
}

/* Real text that every Debian has: licences, copyright notes, and Perl's own pages where they
 * are. */
static void
default_files(options *opts)
{
    static const char *const patterns[] = { "/usr/share/common-licenses/*",
                                            "/usr/share/doc/*/copyright",
                                            "/usr/share/perl/*/pod/*.pod" };
    for (size_t p = 0; p < sizeof(patterns) / sizeof(*patterns); p++) {
        glob_t found;
        if (glob(patterns[p], 0, NULL, &found) == 0)
            for (size_t i = 0; i < found.gl_pathc && opts->n_files < 1000; i++) {
                struct stat st; /* many a licence is a link to another one */
                if (lstat(found.gl_pathv[i], &st) == 0 && S_ISREG(st.st_mode))
                    add_file(opts, found.gl_pathv[i]);
            }
        globfree(&found);
    }
}

static void
usage(FILE *out)
{
    fprintf(out,
            "usage: wordcount [-a] [-b BROKER] [-r BACKEND] [-w WORKERS] [FILE|FOLDER...]\n"
            "       wordcount [OPTIONS] worker|call|result|list|... (apium's commands, see "
            "wordcount worker --help)\n"
            "  -a       print every word, as uniq -c does, and nothing else\n"
            "  -b URL   a broker instead of a temporary SQLite file; results go there too unless "
            "-r says otherwise\n"
            "  -r URL   a result backend; needed with RabbitMQ, which keeps none that all workers "
            "could read\n"
            "  -w N     workers to start, each with %d processes (%d; 0 when some run already)\n",
            LOCAL_PROCESSES, LOCAL_WORKERS);
}

/* --- all together --- */

static double
now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static bool
demo(const char *self, const options *opts)
{
    local here = { .name = "wordcount",
                   .broker = opts->broker,
                   .backend = opts->backend,
                   .workers = opts->workers };
    parts all = { 0 };
    apium_error err;
    bool ok = true;
    char header_id[ID_MAX] = "";
    double begin = now();
    apium_result *res = NULL;

    for (size_t i = 0; i < opts->n_files && ok; i++)
        ok = parts_add(&all, opts->files[i], &err);
    if (!ok)
        fprintf(stderr, "wordcount: %s\n", err.text);
    if (ok) {
        bool open = local_open(&here, wordcount_tasks);
        if (open && !opts->all) {
            printf("Counting words in %zu parts of %zu files and folders: %d workers with %d "
                   "processes each, over\n%s\n",
                   all.n, opts->n_files, opts->workers, LOCAL_PROCESSES,
                   opts->broker ? "the broker you named" : here.url);
            fflush(stdout);
        }
        if (open)
            res = count_all(&here, opts, &all, header_id);
    }
    double seconds = now() - begin;
    cJSON *report = res ? apium_cjson_parse(apium_result_json(res)) : NULL;
    if (report && opts->all)
        print_rows(cJSON_GetObjectItem(report, "rows"), true);
    else if (report) {
        print_report(report, seconds);
        print_next(self, &here, header_id, !opts->broker);
    }
    ok = report != NULL;
    cJSON_Delete(report);
    apium_result_free(res);
    parts_clear(&all);
    local_close(&here);
    return ok;
}

int
main(int argc, char **argv)
{
    options opts = { .workers = LOCAL_WORKERS };

    if (local_is_command(argc, argv))
        return apium_main(argc, argv, "wordcount", wordcount_tasks);
    for (int c; (c = getopt(argc, argv, "ab:r:w:h")) != -1;) {
        switch (c) {
        case 'a':
            opts.all = true;
            break;
        case 'b':
            opts.broker = optarg;
            break;
        case 'r':
            opts.backend = optarg;
            break;
        case 'w':
            opts.workers = atoi(optarg);
            break;
        default:
            usage(c == 'h' ? stdout : stderr);
            return c == 'h' ? 0 : 2;
        }
    }
    if (opts.workers < 0 || opts.workers > LOCAL_WORKERS_MAX) {
        fprintf(stderr, "wordcount: -w takes 0 to %d\n", LOCAL_WORKERS_MAX);
        return 2;
    }
    if (opts.broker && strncmp(opts.broker, "amqp", 4) == 0 && !opts.backend) {
        fprintf(stderr, "wordcount: RabbitMQ keeps no results that all workers could read: name a "
                        "result backend too, as -r redis://localhost/0\n");
        return 2;
    }
    for (int i = optind; i < argc; i++)
        add_file(&opts, argv[i]);
    if (optind == argc)
        default_files(&opts);
    if (opts.n_files == 0) {
        fprintf(stderr, "wordcount: no text files: name some\n");
        return 2;
    }
    bool ok = demo(argv[0], &opts);
    for (size_t i = 0; i < opts.n_files; i++)
        free(opts.files[i]);
    free(opts.files);
    return ok ? 0 : 1;
}
