/*
 * flow.c - one workflow, sent and waited for, for `./dev bench`: prints the seconds until it was sent, and until its result was there.
 *
 *     flow chord N [BYTES]    N parts that return a string of so many bytes; the body returns how many it got
 *     flow chain N            N steps that pass a number on
 *
 * Broker and backend are those of the environment; workers with samples/tasks.so run elsewhere.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <apium/apium.h>

static double
now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

static apium_sig *
make_chord(size_t n, size_t bytes)
{
    apium_sig **parts = calloc(n, sizeof(*parts));
    char *text = malloc(bytes + 1);
    if (!parts || !text)
        abort();
    memset(text, 'x', bytes);
    text[bytes] = '\0';
    for (size_t i = 0; i < n; i++)
        parts[i] = apium_sig_new("tasks.echo", "[%s]", text);
    apium_sig *flow = apium_chord(apium_group_of(n, parts),
                                  apium_sig_immutable(apium_sig_new("tasks.noop", NULL)));
    free(parts);
    free(text);
    return flow;
}

static apium_sig *
make_chain(size_t n)
{
    apium_sig **steps = calloc(n, sizeof(*steps));
    if (!steps)
        abort();
    steps[0] = apium_sig_new("tasks.echo", "[0]");
    for (size_t i = 1; i < n; i++)
        steps[i] = apium_sig_new("tasks.add", "[1]");
    apium_sig *flow = apium_chain_of(n, steps);
    free(steps);
    return flow;
}

int
main(int argc, char **argv)
{
    apium_app *app;
    apium_run *run;
    apium_result *res;
    apium_error err;
    size_t n = argc > 2 ? strtoul(argv[2], NULL, 10) : 0;
    bool chord = argc > 2 && strcmp(argv[1], "chord") == 0;
    if (!n || (!chord && strcmp(argv[1], "chain") != 0)) {
        fprintf(stderr, "usage: flow chord N [BYTES] | flow chain N\n");
        return 2;
    }
    if (apium_app_new("bench", NULL, &app, &err) != APIUM_OK)
        goto failed;
    apium_sig *flow =
        chord ? make_chord(n, argc > 3 ? strtoul(argv[3], NULL, 10) : 4) : make_chain(n);
    double began = now();
    if (apium_send(app, flow, NULL, &run, &err) != APIUM_OK)
        goto failed;
    double sent = now() - began;
    if (apium_get(run, 600 * 1000, &res, &err) != APIUM_OK)
        goto failed;
    printf("%.3f %.3f\n", sent, now() - began);
    apium_result_free(res);
    apium_run_free(run);
    apium_app_free(app);
    return 0;
failed:
    fprintf(stderr, "flow: %s\n", err.text);
    return 1;
}
