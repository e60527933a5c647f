/* purge.c - `apium purge`: empty queues, in Celery's words; `apium worker --purge` uses it too. */
#include "cli/ask.h"

struct values {
    const char *queues, *exclude;
    bool force;
};

#define AT(member) offsetof(struct values, member)

static const apm_option options[] = {
    { APM_OPT_HEADING, .help = "Purging Options" },
    { APM_OPT_FLAG, 'f', "force", NULL, NULL, AT(force), .help = "Don't prompt for verification." },
    { APM_OPT_TEXT, 'Q', "queues", NULL, "NAME,...", AT(queues),
      .help = "Queues to purge; without it, those of the settings." },
    { APM_OPT_TEXT, 'X', "exclude-queues", NULL, "NAME,...", AT(exclude),
      .help = "Queues not to purge." },
    { 0 },
};

static const char *
plural(int64_t n, const char *one, const char *many)
{
    return n == 1 ? one : many;
}

/* Ask, as click does: anything but y is no. */
static bool
confirmed(const char *const *queues, size_t n)
{
    printf("WARNING: This will remove all tasks from %s: ", plural((int64_t)n, "queue", "queues"));
    for (size_t i = 0; i < n; i++)
        printf("%s%s", i ? ", " : "", queues[i]);
    printf(".\n         There is no undo for this operation!\n\n(to skip this prompt use the -f "
           "option)\n"
           "Are you sure you want to delete all tasks? [y/N]: ");
    fflush(stdout);
    char line[16];
    return fgets(line, sizeof(line), stdin) && (line[0] == 'y' || line[0] == 'Y');
}

struct tally {
    apm_ask *ask;
    int64_t count;
    apium_status status;
    apium_error err;
};

static void
on_count(void *arg, apium_status status, int64_t count, const apium_error *err)
{
    struct tally *tally = arg;
    if (status == APIUM_OK)
        tally->count += count;
    else if (status != APIUM_E_NOTFOUND) { /* a queue that was never declared is empty */
        tally->status = status;
        tally->err = *err;
    }
    apm_ask_answered(tally->ask);
}

static apium_status
purge_all(apm_ask *ask, const char *const *queues, size_t n, int64_t *count, apium_error *err)
{
    struct tally tally = { .ask = ask };
    for (size_t i = 0; i < n; i++) {
        ask->broker->ops->purge(ask->broker, queues[i], on_count, &tally);
        apium_status st = apm_ask_wait(ask, "purge", err);
        if (st != APIUM_OK)
            return st;
        if (tally.status != APIUM_OK) {
            *err = tally.err;
            return tally.status;
        }
    }
    *count = tally.count;
    return APIUM_OK;
}

static int
run(apm_cli *cli, void *arg)
{
    const struct values *v = arg;
    apium_error err = { 0 };
    apm_arena arena = { 0 };
    apm_ask ask = { 0 };
    size_t n;
    int64_t count = 0;
    int code = APM_EXIT_OK;

    const char **queues = apm_ask_queues(cli->app, v->queues, v->exclude, &arena, &n);
    if (!queues)
        return apm_cli_misused(cli, "out of memory");
    if (n && !v->force && !confirmed(queues, n)) {
        fprintf(stderr, "Aborted!\n");
        code = APM_EXIT_FAILURE;
        goto out;
    }
    apium_status st = apm_ask_open(&ask, cli->app, &err);
    if (st == APIUM_OK)
        st = purge_all(&ask, queues, n, &count, &err);
    if (st != APIUM_OK)
        code = apm_cli_fail(cli, &err);
    else if (count)
        printf("Purged %lld %s from %zu known task %s.\n", (long long)count,
               plural(count, "message", "messages"), n, plural((int64_t)n, "queue", "queues"));
    else
        printf("No messages purged from %zu %s.\n", n, plural((int64_t)n, "queue", "queues"));
    apm_ask_close(&ask);
out:
    apm_arena_clear(&arena);
    return code;
}

const apm_command apm_cmd_purge = {
    .name = "purge",
    .summary = "Erase all messages from all known task queues.",
    .about = "There is no undo for this command. Messages that a worker holds stay; those that "
             "wait for their time go.",
    .options = options,
    .size = sizeof(struct values),
    .run = run,
};
