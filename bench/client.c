/*
 * client.c - the C client, for `./dev bench`; broker and backend are those of the environment.
 *
 *     client single N         N calls of tasks.noop, each waited for until the broker has it: calls a second
 *     client bulk N           the same as one batch
 *     client lone N           one task at a time, from sending it to having its result: the median and the
 *                             99th percentile, in microseconds
 *     client flight N WIDTH   the same with WIDTH on their way at a time
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <apium/apium.h>

static apium_error err;

static double
now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

static void
must(apium_status st)
{
    if (st == APIUM_OK)
        return;
    fprintf(stderr, "client: %s\n", err.text);
    exit(1);
}

static void
publish(apium_app *app, size_t n, bool bulk)
{
    apium_batch *batch = NULL;
    size_t sent = n;
    must(apium_call(app, "tasks.noop", apium_null(), NULL, NULL, &err)); /* connected, declared */
    if (bulk)
        must(apium_batch_new(app, &batch, &err));
    double began = now();
    for (size_t i = 1; i < n; i++)
        must(bulk ? apium_batch_call(batch, "tasks.noop", apium_null(), NULL, NULL, &err)
                  : apium_call(app, "tasks.noop", apium_null(), NULL, NULL, &err));
    if (bulk)
        must(apium_batch_end(batch, &sent, &err));
    printf("%.0f\n", (double)sent / (now() - began));
    apium_batch_free(batch);
}

static int
by_size(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static void
latency(apium_app *app, size_t n, size_t width)
{
    double *took = calloc(n, sizeof(*took)), *began = calloc(width, sizeof(*began));
    apium_run **runs = calloc(width, sizeof(*runs));
    apium_result *res;
    const size_t warm = n / 10;
    if (!took || !began || !runs)
        abort();
    for (size_t i = 0; i < n + width; i++) {
        const size_t at = i % width;
        if (i >= width) {
            must(apium_get(runs[at], 60 * 1000, &res, &err));
            took[i - width] = now() - began[at];
            apium_result_free(res);
            apium_run_free(runs[at]);
        }
        if (i < n) {
            began[at] = now();
            must(apium_call(app, "tasks.noop", apium_null(), NULL, &runs[at], &err));
        }
    }
    qsort(took + warm, n - warm, sizeof(*took), by_size);
    printf("%.1f %.1f\n", took[warm + (n - warm) / 2] * 1e6,
           took[warm + (n - warm) * 99 / 100] * 1e6);
    free(took);
    free(began);
    free(runs);
}

int
main(int argc, char **argv)
{
    apium_app *app;
    const char *what = argc > 2 ? argv[1] : "";
    size_t n = argc > 2 ? strtoul(argv[2], NULL, 10) : 0;
    must(apium_app_new("bench", NULL, &app, &err));
    if (n && (strcmp(what, "single") == 0 || strcmp(what, "bulk") == 0)) {
        publish(app, n, *what == 'b');
    } else if (n && strcmp(what, "lone") == 0) {
        latency(app, n, 1);
    } else if (n && strcmp(what, "flight") == 0 && argc > 3 && atoi(argv[3]) > 0) {
        latency(app, n, strtoul(argv[3], NULL, 10));
    } else {
        fprintf(stderr, "usage: client single N | bulk N | lone N | flight N WIDTH\n");
        return 2;
    }
    apium_app_free(app);
    return 0;
}
