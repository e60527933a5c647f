/*
 * workflow.c - a workflow in C: count the words of files, each file by itself, add the counts up, say what came of it.
 *
 *     ./workflow worker &          runs the tasks (apium worker's options apply)
 *     ./workflow README.md LICENSE
 *
 *   count(README.md) ─┐
 *                     ├─▶ total ─▶ report
 *   count(LICENSE)  ──┘
 *
 * Any step might as well run in a Celery worker: the names of the tasks are all that is shared.
 */
#include <apium/apium.h>

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- the steps --- */

static apium_verdict
count(apium_task *task)
{
    const char *path;
    if (!apium_args(task, "path:str", &path))
        return APIUM_FAILURE;
    FILE *file = fopen(path, "re");
    if (!file)
        return apium_raise(task, "FileNotFoundError", "%s: %s", path, strerror(errno));
    int64_t words = 0;
    for (int c, inside = 0; (c = getc(file)) != EOF; inside = !isspace(c))
        words += !isspace(c) && !inside;
    (void)fclose(file);
    return apium_return(task, apium_int(words));
}

/* The body of the chord gets the list of all counts. */
static apium_verdict
total(apium_task *task)
{
    apium_ints counts;
    int64_t sum = 0;
    if (!apium_args(task, "counts:int[]", &counts))
        return APIUM_FAILURE;
    for (size_t i = 0; i < counts.n; i++)
        sum += counts.items[i];
    return apium_return(task, apium_int(sum));
}

static apium_verdict
report(apium_task *task)
{
    int64_t sum, files;
    if (!apium_args(task, "sum:int files:int", &sum, &files))
        return APIUM_FAILURE;
    return apium_return(
        task, apium_jsonf("\"%lld words in %lld files\"", (long long)sum, (long long)files));
}

static const apium_task_def tasks[] = {
    { .name = "words.count", .run = count },
    { .name = "words.total", .run = total },
    { .name = "words.report", .run = report },
    { 0 },
};

/* --- the workflow --- */

static apium_sig *
workflow(int n, char **paths)
{
    apium_sig **counts = calloc((size_t)n, sizeof(apium_sig *));
    if (!counts)
        return NULL;
    for (int i = 0; i < n; i++)
        counts[i] = apium_sig_new("words.count", "[%s]", paths[i]);
    /* report gets the sum before its own argument */
    apium_sig *flow = apium_chord(apium_group_of((size_t)n, counts),
                                  apium_chain(apium_sig_new("words.total", NULL),
                                              apium_sig_new("words.report", "[%d]", n), NULL));
    free(counts); /* the signatures are the group's by now */
    return flow;
}

int
main(int argc, char **argv)
{
    apium_app *app;
    apium_run *run = NULL;
    apium_result *res = NULL;
    apium_error err;

    if (argc < 2 || strcmp(argv[1], "worker") == 0)
        return apium_main(argc, argv, "words", tasks);
    apium_status st = apium_app_new("words", NULL, &app, &err);
    if (st == APIUM_OK) {
        st = apium_send(app, workflow(argc - 1, argv + 1), NULL, &run, &err);
        if (st == APIUM_OK)
            st = apium_get(run, 60000, &res, &err);
        if (st == APIUM_OK)
            puts(apium_result_json(res));
        apium_result_free(res);
        apium_run_free(run);
        apium_app_free(app);
    }
    if (st != APIUM_OK)
        fprintf(stderr, "%s\n", err.text);
    return st == APIUM_OK ? 0 : 1;
}
