/*
 * wordcount.c - counts the words of text files, one task a file, with as many processes as you
 * like.
 *
 *     wordcount [OPTIONS] [FILE...]   counts; without files: this machine's licences
 *     wordcount worker [OPTIONS]      is a worker of the same tasks, and so with every command of
 *                                     apium
 *
 * Broker and result store are one SQLite file in a temporary directory, and the workers are this
 * same program, started twice; or, with -b, any broker, and then also workers that run elsewhere.
 */
#include <apium/apium.h>
#include <apium/cjson.h>

#include <ctype.h>
#include <errno.h>
#include <ftw.h>
#include <glob.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* --- words and how often they came --- */

typedef struct word {
    char *text;
    long count, files;
} word;

/* A table of words, open addressing; always at least half empty. */
typedef struct words {
    word *rows;
    size_t size, used;
} words;

static word *
find_row(const words *table, const char *text, size_t len)
{
    size_t hash = 5381;
    for (size_t i = 0; i < len; i++)
        hash = hash * 33 ^ (unsigned char)text[i];
    for (;; hash++) {
        word *row = &table->rows[hash & (table->size - 1)];
        if (!row->text || (strncmp(row->text, text, len) == 0 && row->text[len] == '\0'))
            return row;
    }
}

static bool
grow(words *table)
{
    words bigger = { .size = table->size ? table->size * 2 : 1024, .used = table->used };
    bigger.rows = calloc(bigger.size, sizeof(*bigger.rows));
    if (!bigger.rows)
        return false;
    for (size_t i = 0; i < table->size; i++)
        if (table->rows[i].text)
            *find_row(&bigger, table->rows[i].text, strlen(table->rows[i].text)) = table->rows[i];
    free(table->rows);
    *table = bigger;
    return true;
}

/* Count a word; false without memory. */
static bool
add_word(words *table, const char *text, size_t len, long count)
{
    if (table->used * 2 >= table->size && !grow(table))
        return false;
    word *row = find_row(table, text, len);
    if (!row->text) {
        row->text = strndup(text, len);
        if (!row->text)
            return false;
        table->used++;
    }
    row->count += count;
    row->files++;
    return true;
}

static void
free_words(words *table)
{
    for (size_t i = 0; i < table->size; i++)
        free(table->rows[i].text);
    free(table->rows);
}

/* --- the task --- */

static bool
count_file(FILE *file, words *table, long *total)
{
    char text[64];
    size_t len = 0;
    for (int c; (c = getc(file)) != EOF || len > 0;) {
        if (c != EOF && isalpha(c)) {
            if (len < sizeof(text))
                text[len++] = (char)tolower(c);
            continue;
        }
        if (len > 0) {
            ++*total;
            if (!add_word(table, text, len, 1))
                return false;
        }
        len = 0;
    }
    return true;
}

/* {"pid": ..., "words": ..., "counts": {"the": 12, ...}}; the words are letters, so there is
 * nothing to escape. */
static char *
to_json(const words *table, long total)
{
    char *json = NULL;
    size_t size;
    FILE *out = open_memstream(&json, &size);
    if (!out)
        return NULL;
    fprintf(out, "{\"pid\": %d, \"words\": %ld, \"counts\": {", (int)getpid(), total);
    const char *comma = "";
    for (size_t i = 0; i < table->size; i++)
        if (table->rows[i].text) {
            fprintf(out, "%s\"%s\": %ld", comma, table->rows[i].text, table->rows[i].count);
            comma = ", ";
        }
    fputs("}}", out);
    if (fclose(out) != 0) {
        free(json);
        return NULL;
    }
    return json;
}

/* wordcount.count(path) -> the words of a text file and how often each comes */
static apium_verdict
count(apium_task *task)
{
    const char *path;
    words table = { 0 };
    long total = 0;

    if (!apium_args(task, "path:str", &path))
        return APIUM_FAILURE;
    FILE *file = fopen(path, "r");
    if (!file) /* Python makes a FileNotFoundError of OSError(2, ...), and so on */
        return apium_raise_in(task, "builtins", "OSError",
                              apium_jsonf("[%d, %s]", errno, strerror(errno)));
    bool ok = count_file(file, &table, &total) && !ferror(file);
    fclose(file);
    apium_verdict verdict = ok ? apium_return(task, apium_json_take(to_json(&table, total)))
                               : apium_raise(task, "OSError", "cannot read %s", path);
    free_words(&table);
    return verdict;
}

static const apium_task_def tasks[] = {
    { .name = "wordcount.count", .run = count, .doc = "count(path): the words of a text file" },
    { 0 },
};

/* --- the workers --- */

#define WORKERS   2 /* nodes, each with PROCESSES */
#define PROCESSES 2

typedef struct options {
    const char *broker, *backend;
    int workers;
    char **files;
    size_t n_files;
} options;

static volatile sig_atomic_t interrupted;
static pid_t nodes[16];
static int n_nodes;

/* This program again, as a worker. */
static void
start_node(const options *opts, int n)
{
    char name[64], processes[16];
    snprintf(name, sizeof(name), "wordcount%d@%%h", n + 1);
    snprintf(processes, sizeof(processes), "%d", PROCESSES);
    pid_t parent = getpid(), pid = fork();
    if (pid != 0) {
        if (pid > 0)
            nodes[n_nodes++] = pid;
        return;
    }
    prctl(PR_SET_PDEATHSIG, SIGTERM); /* a worker without its boss stops */
    if (getppid() != parent)
        _exit(1);
    /* A banner does not belong in front of our table. */
    if (!freopen("/dev/null", "r", stdin) || !freopen("/dev/null", "w", stdout))
        _exit(1);
    execl("/proc/self/exe", "wordcount", "-q", "-b", opts->broker, "--result-backend",
          opts->backend, "worker", "-n", name, "-c", processes, "-l", "warning", (char *)NULL);
    _exit(127);
}

/* Ask them to finish, and see that they do. */
static void
stop_nodes(void)
{
    for (int i = 0; i < n_nodes; i++)
        kill(nodes[i], SIGTERM);
    for (int tries = 0; n_nodes > 0; tries++) {
        if (waitpid(nodes[n_nodes - 1], NULL, WNOHANG) != 0)
            n_nodes--;
        else if (tries > 500)
            kill(nodes[n_nodes - 1], SIGKILL);
        else
            nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
    }
}

/* Has a worker ended by itself? Then there is no use in waiting for it. */
static bool
node_died(void)
{
    for (int i = 0; i < n_nodes; i++)
        if (waitpid(nodes[i], NULL, WNOHANG) == nodes[i]) {
            nodes[i] = nodes[--n_nodes];
            return true;
        }
    return false;
}

/* --- counting --- */

typedef struct share {
    int pid;
    long files;
} share;

typedef struct totals {
    words table;
    long files, words, failed;
    share shares[64];
    size_t n_shares;
} totals;

static void
add_share(totals *sum, int pid)
{
    for (size_t i = 0; i < sum->n_shares; i++)
        if (sum->shares[i].pid == pid) {
            sum->shares[i].files++;
            return;
        }
    if (sum->n_shares < sizeof(sum->shares) / sizeof(*sum->shares))
        sum->shares[sum->n_shares++] = (share){ pid, 1 };
}

static void
add_result(totals *sum, const char *path, const apium_result *res)
{
    cJSON *json = apium_cjson_parse(apium_result_json(res));
    if (!json) {
        fprintf(stderr, "\r%s: %s\n", path,
                apium_result_ok(res) ? "no JSON" : apium_result_message(res));
        sum->failed++;
        return;
    }
    const cJSON *row;
    cJSON_ArrayForEach(row, cJSON_GetObjectItem(json, "counts"))
    {
        add_word(&sum->table, row->string, strlen(row->string), (long)row->valuedouble);
    }
    sum->words += (long)cJSON_GetNumberValue(cJSON_GetObjectItem(json, "words"));
    add_share(sum, (int)cJSON_GetNumberValue(cJSON_GetObjectItem(json, "pid")));
    sum->files++;
    cJSON_Delete(json);
}

/* One line that is written over, or, where nobody can write over, one for each tenth. */
static void
show_progress(size_t done, size_t n)
{
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\rcounting: %zu of %zu files %.*s%.*s", done, n, (int)(done * 30 / n),
                "##############################", 30 - (int)(done * 30 / n),
                "..............................");
    else if (done * 10 / n != (done - 1) * 10 / n)
        fprintf(stderr, "counting: %zu of %zu files\n", done, n);
    if (done == n && isatty(STDERR_FILENO))
        fputc('\n', stderr);
}

/* Wait for one result; false when it cannot come any more. */
static bool
collect(totals *sum, apium_run *run, const char *path)
{
    apium_result *res;
    apium_error err;
    for (;;) {
        apium_status st = apium_wait(run, 500, &res, &err);
        if (st == APIUM_OK)
            break;
        if (interrupted)
            return false;
        if (st != APIUM_E_TIMEOUT || node_died()) {
            fprintf(stderr, "\nwordcount: %s\n",
                    st == APIUM_E_TIMEOUT ? "a worker has ended" : err.text);
            return false;
        }
    }
    add_result(sum, path, res);
    apium_result_free(res);
    return true;
}

static bool
count_all(apium_app *app, const options *opts, totals *sum)
{
    apium_error err;
    bool ok = true;
    apium_run **runs = calloc(opts->n_files, sizeof(*runs));
    if (!runs)
        return false;
    for (size_t i = 0; i < opts->n_files && ok; i++) {
        char full[4096]; /* a worker may have another working directory */
        const char *path = realpath(opts->files[i], full) ? full : opts->files[i];
        ok = apium_call(app, "wordcount.count", apium_jsonf("[%s]", path), NULL, &runs[i], &err) ==
             APIUM_OK;
        if (!ok)
            fprintf(stderr, "wordcount: %s\n", err.text);
    }
    for (size_t i = 0; i < opts->n_files && ok; i++) {
        ok = collect(sum, runs[i], opts->files[i]);
        if (ok)
            show_progress(i + 1, opts->n_files);
    }
    for (size_t i = 0; i < opts->n_files; i++)
        apium_run_free(runs[i]);
    free(runs);
    return ok;
}

/* --- the table --- */

static int
by_count(const void *a, const void *b)
{
    const word *x = a, *y = b;
    if (x->count != y->count)
        return x->count < y->count ? 1 : -1;
    return strcmp(x->text ? x->text : "", y->text ? y->text : "");
}

static void
print_table(totals *sum, double seconds)
{
    printf("\n  %-16s %9s %8s\n", "word", "times", "files");
    qsort(sum->table.rows, sum->table.size, sizeof(word), by_count);
    for (size_t i = 0; i < 12 && i < sum->table.used; i++)
        printf("  %-16s %9ld %8ld\n", sum->table.rows[i].text, sum->table.rows[i].count,
               sum->table.rows[i].files);
    printf("\n%ld words, %zu different ones, in %ld files, in %.2f s, counted by %zu processes (",
           sum->words, sum->table.used, sum->files, seconds, sum->n_shares);
    for (size_t i = 0; i < sum->n_shares; i++)
        printf("%s%ld", i ? ", " : "", sum->shares[i].files);
    printf(" files)\n");
}

static void
print_next(const char *self, const options *opts, bool embedded)
{
    /* Where the command and the other sample are, seen from here: "build" of
     * "build/samples/wordcount". */
    const char *samples = strstr(self, "/samples/");
    char build[512];
    snprintf(build, sizeof(build), "%.*s", samples ? (int)(samples - self) : 2,
             samples ? self : "..");

    printf("\nWhat to try next:\n"
           "  your own text         %s *.txt\n",
           self);
    if (embedded)
        printf("  the same over Redis   %s -b redis://localhost/0\n"
               "  and over RabbitMQ     %s -b amqp://localhost\n"
               "  with more workers     %s -w 4\n",
               self, self, self);
    else
        printf("  with workers of other machines: start there\n"
               "    %s -b %s --result-backend %s worker\n",
               self, opts->broker, opts->backend);
    printf("  a worker to play with\n"
           "    export CELERY_BROKER_URL=sqlite:////tmp/apium.db "
           "CELERY_RESULT_BACKEND=sqlite:////tmp/apium.db\n"
           "    %s/apium -A %s/samples/tasks.so worker -l info &\n"
           "    %s/apium call tasks.add --args '[2, 3]' --wait\n"
           "  and the same from Python: samples/python/README.md\n",
           build, build, build);
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
            "usage: wordcount [-b BROKER] [-r BACKEND] [-w WORKERS] [FILE...]\n"
            "       wordcount [OPTIONS] worker|call|result|list|... (apium's commands, see "
            "wordcount worker --help)\n"
            "  -b URL   a broker instead of a temporary SQLite file; results go there too unless "
            "-r says otherwise\n"
            "  -r URL   a result backend\n"
            "  -w N     workers to start, each with %d processes (%d; 0 when some run already)\n",
            PROCESSES, WORKERS);
}

/* --- all together --- */

static char scratch[] = "/tmp/wordcount-XXXXXX";

static int
remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static bool
run(apium_app *app, const options *opts, totals *sum)
{
    apium_error err;
    if (apium_app_set(app, "broker_url", opts->broker, &err) != APIUM_OK ||
        apium_app_set(app, "result_backend", opts->backend, &err) != APIUM_OK) {
        fprintf(stderr, "wordcount: %s\n", err.text);
        return false;
    }
    fflush(NULL); /* or each child would print it too */
    for (int i = 0; i < opts->workers; i++)
        start_node(opts, i);
    bool ok = count_all(app, opts, sum);
    stop_nodes();
    return ok;
}

static void
on_signal(int sig)
{
    (void)sig;
    interrupted = 1;
}

static int
demo(char *self, options *opts)
{
    apium_app *app;
    apium_error err;
    totals sum = { 0 };
    struct timespec begin, end;
    char url[64];
    bool embedded = !opts->broker;

    if (embedded) {
        if (!mkdtemp(scratch)) {
            perror("wordcount: cannot make a temporary directory");
            return 1;
        }
        snprintf(url, sizeof(url), "sqlite:///%s/apium.db", scratch);
        opts->broker = url;
    }
    if (!opts->backend)
        opts->backend = strncmp(opts->broker, "amqp", 4) == 0 ? "rpc://" : opts->broker;
    if (apium_app_new("wordcount", tasks, &app, &err) != APIUM_OK) {
        fprintf(stderr, "wordcount: %s\n", err.text);
        return 1;
    }
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    printf("Counting the words of %zu files: one task a file, %d workers with %d processes each, "
           "over\n%s\n",
           opts->n_files, opts->workers, PROCESSES, embedded ? url : "the broker you named");
    clock_gettime(CLOCK_MONOTONIC, &begin);
    bool ok = run(app, opts, &sum);
    clock_gettime(CLOCK_MONOTONIC, &end);
    if (ok) {
        print_table(&sum, (double)(end.tv_sec - begin.tv_sec) +
                              (double)(end.tv_nsec - begin.tv_nsec) / 1e9);
        print_next(self, opts, embedded);
    }
    apium_app_free(app);
    free_words(&sum.table);
    if (embedded)
        nftw(scratch, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    return ok && sum.failed == 0 ? 0 : 1;
}

/* Is this apium's command line? A command stands behind apium's own options, a file of ours does
 * not have such a name. */
static bool
is_command(int argc, char **argv)
{
    static const char *const commands[] = { "worker", "call", "result", "list", "purge", "report" };
    for (int i = 1; i < argc; i++)
        for (size_t c = 0; c < sizeof(commands) / sizeof(*commands); c++)
            if (strcmp(argv[i], commands[c]) == 0)
                return true;
    return argc == 2 && strcmp(argv[1], "--version") == 0;
}

int
main(int argc, char **argv)
{
    options opts = { .workers = WORKERS };

    if (is_command(argc, argv))
        return apium_main(argc, argv, "wordcount", tasks);
    for (int c; (c = getopt(argc, argv, "b:r:w:h")) != -1;) {
        switch (c) {
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
    if (opts.workers < 0 || opts.workers > (int)(sizeof(nodes) / sizeof(*nodes))) {
        fprintf(stderr, "wordcount: -w takes 0 to %zu\n", sizeof(nodes) / sizeof(*nodes));
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
    int code = demo(argv[0], &opts);
    for (size_t i = 0; i < opts.n_files; i++)
        free(opts.files[i]);
    free(opts.files);
    return code;
}
