/*
 * flows.c - a module whose tasks change the workflow they are in: one that becomes what it is given, one that adds to its
 * chord, and an errback that is a function. What the errback was told is written to $FLOWS, a line a call.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <apium/apium.h>

static apium_verdict
run_add(apium_task *task)
{
    int64_t x, y;
    if (!apium_args(task, "x:int y:int", &x, &y))
        return APIUM_FAILURE;
    return apium_return(task, apium_int(x + y));
}

static apium_verdict
run_xsum(apium_task *task)
{
    apium_ints numbers;
    int64_t sum = 0;
    if (!apium_args(task, "numbers:int[]", &numbers))
        return APIUM_FAILURE;
    for (size_t i = 0; i < numbers.n; i++)
        sum += numbers.items[i];
    return apium_return(task, apium_int(sum));
}

static apium_verdict
run_echo(apium_task *task)
{
    const char *value;
    if (!apium_args(task, "value:json", &value))
        return APIUM_FAILURE;
    return apium_return(task, apium_json(value));
}

static apium_verdict
run_fail(apium_task *task)
{
    const char *message;
    if (!apium_args(task, "message:str='boom'", &message))
        return APIUM_FAILURE;
    return apium_raise(task, "ValueError", "%s", message);
}

/* flows.crash(): the process is gone. */
static apium_verdict
run_crash(apium_task *task)
{
    (void)task;
    _exit(3);
}

static apium_verdict
run_sleep(apium_task *task)
{
    double seconds;
    if (!apium_args(task, "seconds:float", &seconds))
        return APIUM_FAILURE;
    usleep((useconds_t)(seconds * 1e6));
    return apium_return(task, apium_double(seconds));
}

/* flows.become(sig, *ignored): go on as this signature. */
static apium_verdict
run_become(apium_task *task)
{
    const char *json, *rest;
    apium_sig *sig = NULL;
    apium_error err;
    if (!apium_args(task, "sig:object *rest", &json, &rest))
        return APIUM_FAILURE;
    if (apium_sig_parse(json, &sig, &err) != APIUM_OK)
        return apium_raise(task, "ValueError", "%s", err.text);
    return apium_replace(task, sig);
}

/* flows.more(value, *sigs): add the signatures to the chord, return the value. */
static apium_verdict
run_more(apium_task *task)
{
    const char *value, *json;
    apium_sig *sig = NULL;
    apium_error err;
    if (!apium_args(task, "value:json sig:object", &value, &json))
        return APIUM_FAILURE;
    if (apium_sig_parse(json, &sig, &err) != APIUM_OK ||
        apium_add_to_chord(task, sig, &err) != APIUM_OK)
        return apium_raise(task, "ValueError", "%s", err.text);
    return apium_return(task, apium_json(value));
}

/* flows.note(request, exc, traceback, *more): an errback. */
static apium_verdict
run_note(apium_task *task)
{
    const char *request, *exc, *traceback, *more;
    if (!apium_args(task, "request:object exc:object traceback:json *more", &request, &exc,
                    &traceback, &more))
        return APIUM_FAILURE;
    int fd = open(getenv("FLOWS"), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    char *line = NULL;
    int n = asprintf(&line, "[%s, %s, %s, %s]\n", request, exc, traceback, more);
    bool ok = fd >= 0 && n > 0 && write(fd, line, (size_t)n) == n;
    if (fd >= 0)
        close(fd);
    free(line);
    return ok ? APIUM_SUCCESS : apium_raise(task, "OSError", "cannot write to $FLOWS");
}

static apium_verdict
run_bad_note(apium_task *task)
{
    return apium_raise(task, "KeyError", "the errback itself");
}

/* One record of a fixed length, so that none crosses a page and a kill cuts none: "word key redelivered pid milliseconds". */
static bool
put(apium_task *task, const char *word, const char *key)
{
    char line[129];
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    int fd = open(getenv("FLOWS"), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    int n =
        snprintf(line, sizeof(line), "%s %s %d %ld %lld", word, key, apium_task_redelivered(task),
                 (long)getpid(), now.tv_sec * 1000LL + now.tv_nsec / 1000000);
    bool ok = fd >= 0 && n < 127;
    if (ok) {
        memset(line + n, ' ', 127 - (size_t)n);
        line[127] = '\n';
        ok = write(fd, line, 128) == 128;
    }
    if (fd >= 0)
        close(fd);
    return ok;
}

static apium_verdict
work(apium_task *task, const char *key, int64_t ms, apium_value result)
{
    if (!put(task, "begin", key))
        return apium_raise(task, "OSError", "cannot write to $FLOWS");
    usleep((useconds_t)(ms * 1000));
    if (!put(task, "end", key))
        return apium_raise(task, "OSError", "cannot write to $FLOWS");
    return apium_return(task, result);
}

/* flows.part(key, ms): write down that it began and ended, take that long, return the key. */
static apium_verdict
run_part(apium_task *task)
{
    const char *key;
    int64_t ms;
    if (!apium_args(task, "key:str ms:int", &key, &ms))
        return APIUM_FAILURE;
    return work(task, key, ms, apium_string(key));
}

/* flows.body(results, key, ms): the same, returns how many results there are. */
static apium_verdict
run_body(apium_task *task)
{
    apium_strs results;
    const char *key;
    int64_t ms;
    if (!apium_args(task, "results:str[] key:str ms:int", &results, &key, &ms))
        return APIUM_FAILURE;
    return work(task, key, ms, apium_int((int64_t)results.n));
}

static const apium_task_def tasks[] = {
    { .name = "flows.add", .run = run_add },
    { .name = "flows.xsum", .run = run_xsum },
    { .name = "flows.echo", .run = run_echo },
    { .name = "flows.fail", .run = run_fail },
    { .name = "flows.crash", .run = run_crash },
    { .name = "flows.sleep", .run = run_sleep },
    { .name = "flows.become", .run = run_become },
    { .name = "flows.more", .run = run_more },
    { .name = "flows.part",
      .run = run_part,
      .acks_late = APIUM_ON,
      .reject_on_worker_lost = APIUM_ON },
    { .name = "flows.body",
      .run = run_body,
      .acks_late = APIUM_ON,
      .reject_on_worker_lost = APIUM_ON },
    { .name = "flows.note", .run = run_note, .errback = true },
    { .name = "flows.bad_note", .run = run_bad_note, .errback = true },
    { 0 },
};

APIUM_MODULE("flows", tasks);
