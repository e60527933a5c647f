/*
 * ledger.c - a module whose tasks write down that they began and ended, in the file that $LEDGER names: word, key, pid,
 * monotonic milliseconds. What was written survives a kill -9. A record is one write of one length, a line padded with
 * spaces: so records of several processes never mix, and none lies across two pages, where a reader, or a kill, could
 * come between its halves. tests/interop/interop_app.py writes the same.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <apium/apium.h>

#define RECORD 128 /* a divisor of the page size */

static int fd = -1;

/* Already when the module is loaded: a task's first line is then one write away from its start. */
__attribute__((constructor)) static void
open_ledger(void)
{
    fd = open(getenv("LEDGER") ? getenv("LEDGER") : "/dev/null",
              O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
}

static int
put(const char *word, const char *key)
{
    char text[RECORD];
    char record[RECORD + 1];
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    int n = snprintf(text, sizeof(text), "%s %s %ld %lld", word, key, (long)getpid(),
                     now.tv_sec * 1000LL + now.tv_nsec / 1000000);
    if (n >= RECORD)
        return -1;
    snprintf(record, sizeof(record), "%-*s\n", RECORD - 1, text);
    return write(fd, record, RECORD) == RECORD ? 0 : -1;
}

/* ledger.work(key, ms=0): write "begin key pid time", take that long, write "end key pid time", return the pid. */
static apium_verdict
run_work(apium_task *task)
{
    const char *key;
    int64_t ms;

    if (!apium_args(task, "key:str ms:int=0", &key, &ms))
        return APIUM_FAILURE;
    if (put("begin", key) < 0)
        return apium_raise(task, "OSError", "cannot write to the ledger");
    struct timespec left = { ms / 1000, ms % 1000 * 1000000 };
    while (ms > 0 && nanosleep(&left, &left) < 0)
        ;
    if (put("end", key) < 0)
        return apium_raise(task, "OSError", "cannot write to the ledger");
    return apium_return(task, apium_int(getpid()));
}

static const apium_task_def tasks[] = {
    { .name = "ledger.work", .run = run_work },
    { .name = "ledger.late",
      .run = run_work,
      .acks_late = APIUM_ON,
      .reject_on_worker_lost = APIUM_OFF },
    { .name = "ledger.sure",
      .run = run_work,
      .acks_late = APIUM_ON,
      .reject_on_worker_lost = APIUM_ON },
    { 0 },
};

APIUM_MODULE("ledger", tasks);
