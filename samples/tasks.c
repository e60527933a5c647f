/*
 * tasks.c - small tasks that show what a task can do, and that tests and benchmarks use:
 *     apium -A build/samples/tasks.so worker -l info
 *     apium call tasks.add --args '[2, 3]' --wait
 *
 * Built by itself: cc -shared -fPIC -o tasks.so tasks.c $(pkg-config --cflags --libs apium)
 */
#include <apium/apium.h>

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* --- arithmetic --- */

static apium_verdict
overflow(apium_task *task, const char *what)
{
    return apium_raise(task, "OverflowError", "%s does not fit in 64 bits", what);
}

/* tasks.add(x, y) -> x + y; like Python, 2 + 0.5 is 2.5 and 2 + 0.0 is 2.0 */
static apium_verdict
add(apium_task *task)
{
    apium_number x, y;
    int64_t sum;

    if (!apium_args(task, "x:number y:number", &x, &y))
        return APIUM_FAILURE; /* a TypeError that names the argument is recorded already */
    if (x.is_float || y.is_float)
        return apium_return(task, apium_double(x.d + y.d));
    if (__builtin_add_overflow(x.i, y.i, &sum))
        return overflow(task, "the sum");
    return apium_return(task, apium_int(sum));
}

/* tasks.mul(x, y) -> x * y */
static apium_verdict
mul(apium_task *task)
{
    apium_number x, y;
    int64_t product;

    if (!apium_args(task, "x:number y:number", &x, &y))
        return APIUM_FAILURE;
    if (x.is_float || y.is_float)
        return apium_return(task, apium_double(x.d * y.d));
    if (__builtin_mul_overflow(x.i, y.i, &product))
        return overflow(task, "the product");
    return apium_return(task, apium_int(product));
}

/* tasks.xsum(numbers) -> their sum; an int unless one of them is a float */
static apium_verdict
xsum(apium_task *task)
{
    apium_numbers numbers;
    int64_t whole = 0;
    double sum = 0;
    bool is_float = false;

    if (!apium_args(task, "numbers:number[]", &numbers))
        return APIUM_FAILURE;
    for (size_t i = 0; i < numbers.n; i++) {
        const apium_number *n = &numbers.items[i];
        if (n->is_float && !is_float) {
            is_float = true;
            sum = (double)whole;
        }
        if (is_float)
            sum += n->d;
        else if (__builtin_add_overflow(whole, n->i, &whole))
            return overflow(task, "the sum");
    }
    return apium_return(task, is_float ? apium_double(sum) : apium_int(whole));
}

/* --- passing values --- */

/* tasks.echo(value) -> value, byte for byte as it came: integers of any size, NaN, lone surrogates,
 * 1 and 1.0 */
static apium_verdict
echo(apium_task *task)
{
    const char *value;

    if (!apium_args(task, "value:json", &value))
        return APIUM_FAILURE;
    return apium_return(task, apium_json(value));
}

/* tasks.noop() -> null */
static apium_verdict
noop(apium_task *task)
{
    return apium_args(task, "") ? APIUM_SUCCESS : APIUM_FAILURE;
}

/* --- taking time --- */

static double
now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* Sleep until `end`, looking now and then whether the task should stop. A signal of the pool ends a
 * nap early. */
static bool
sleep_until(const apium_task *task, double end)
{
    for (double left; (left = end - now()) > 0;) {
        if (apium_should_stop(task))
            return false;
        double nap = left < 0.1 ? left : 0.1;
        nanosleep(&(struct timespec){ .tv_nsec = (long)(nap * 1e9) }, NULL);
    }
    return true;
}

/* tasks.sleep(seconds) -> seconds, having slept; gives up when told to stop */
static apium_verdict
sleep_for(apium_task *task)
{
    double seconds;

    if (!apium_args(task, "seconds:float", &seconds))
        return APIUM_FAILURE;
    if (isnan(seconds) || seconds < 0)
        return apium_raise(task, "ValueError", "sleep length must be non-negative");
    if (!sleep_until(task, now() + seconds))
        return APIUM_FAILURE; /* after the soft limit: SoftTimeLimitExceeded */
    return apium_return(task, apium_double(seconds));
}

/* tasks.spin(seconds) -> seconds, having kept a processor busy; gives up when told to stop */
static apium_verdict
spin(apium_task *task)
{
    double seconds, end;

    if (!apium_args(task, "seconds:float", &seconds))
        return APIUM_FAILURE;
    for (end = now() + seconds; now() < end;)
        if (apium_should_stop(task))
            return APIUM_FAILURE;
    return apium_return(task, apium_double(seconds));
}

/* tasks.progress(steps) -> steps, saying PROGRESS before each step */
static apium_verdict
progress(apium_task *task)
{
    int64_t steps;
    apium_error err;

    if (!apium_args(task, "steps:int=10", &steps))
        return APIUM_FAILURE;
    for (int64_t i = 0; i < steps; i++) {
        if (apium_progress(task, i, steps, &err) != APIUM_OK)
            return apium_raise(task, "RuntimeError", "%s", err.text);
        if (!sleep_until(task, now() + 0.05))
            return APIUM_FAILURE;
    }
    return apium_return(task, apium_int(steps));
}

/* --- going wrong --- */

/* tasks.fail(message) raises ValueError(message) */
static apium_verdict
fail(apium_task *task)
{
    const char *message;

    if (!apium_args(task, "message:str='this task always fails'", &message))
        return APIUM_FAILURE;
    return apium_raise(task, "ValueError", "%s", message);
}

/* tasks.flaky(key, fails) -> {"key": key, "attempts": fails + 1}: retries as often as it was told
 * to, then succeeds */
static apium_verdict
flaky(apium_task *task)
{
    const char *key;
    int64_t fails;

    if (!apium_args(task, "key:str fails:int=1", &key, &fails))
        return APIUM_FAILURE;
    if (apium_task_retries(task) < fails)
        return apium_retry(task, 0.2, "%s: attempt %lld of %lld", key,
                           (long long)apium_task_retries(task) + 1, (long long)fails + 1);
    return apium_return(task, apium_jsonf("{\"key\": %s, \"attempts\": %lld}", key,
                                          (long long)apium_task_retries(task) + 1));
}

/* tasks.crash(signal) ends its process by a signal, SIGSEGV when none is named */
static apium_verdict
crash(apium_task *task)
{
    int64_t sig;

    if (!apium_args(task, "signal:int=11", &sig))
        return APIUM_FAILURE;
    if (sig < 1 || sig >= NSIG)
        return apium_raise(task, "ValueError", "%lld is not the number of a signal",
                           (long long)sig);
    signal((int)sig, SIG_DFL);
    sigset_t only;
    sigemptyset(&only);
    sigaddset(&only, (int)sig);
    sigprocmask(SIG_UNBLOCK, &only, NULL);
    kill(getpid(), (int)sig);
    return apium_raise(task, "RuntimeError", "signal %lld did not end the process", (long long)sig);
}

/* tasks.exit(code) leaves its process in the middle of the task */
static apium_verdict
leave(apium_task *task)
{
    int64_t code;

    if (!apium_args(task, "code:int=1", &code))
        return APIUM_FAILURE;
    _exit((int)code);
}

static char
    *volatile last_leak; /* or the compiler would see that nobody reads it, and allocate nothing */

/* tasks.leak(bytes) -> bytes, allocated and never released: see --max-memory-per-child */
static apium_verdict
leak(apium_task *task)
{
    int64_t bytes;

    if (!apium_args(task, "bytes:int=1048576", &bytes))
        return APIUM_FAILURE;
    char *lost = bytes < 0 ? NULL : malloc((size_t)bytes);
    if (!lost)
        return apium_raise(task, "MemoryError", "cannot leak %lld bytes", (long long)bytes);
    memset(lost, 1, (size_t)bytes);
    last_leak = lost;
    return apium_return(task, apium_int(bytes));
}

static const apium_task_def tasks[] = {
    { .name = "tasks.add", .run = add, .doc = "add(x, y): x + y" },
    { .name = "tasks.mul", .run = mul, .doc = "mul(x, y): x * y" },
    { .name = "tasks.xsum", .run = xsum, .doc = "xsum(numbers): their sum" },
    { .name = "tasks.echo", .run = echo, .doc = "echo(value): value, exactly" },
    { .name = "tasks.noop", .run = noop, .doc = "noop(): nothing" },
    { .name = "tasks.sleep", .run = sleep_for, .doc = "sleep(seconds)" },
    { .name = "tasks.spin", .run = spin, .doc = "spin(seconds): keeps a processor busy" },
    { .name = "tasks.progress",
      .run = progress,
      .doc = "progress(steps): reports PROGRESS on the way" },
    { .name = "tasks.fail", .run = fail, .doc = "fail(message): raises ValueError" },
    { .name = "tasks.flaky",
      .run = flaky,
      .max_retries = APIUM_UNLIMITED,
      .doc = "flaky(key, fails): retries, then succeeds" },
    { .name = "tasks.crash", .run = crash, .doc = "crash(signal): ends its process" },
    { .name = "tasks.exit", .run = leave, .doc = "exit(code): leaves its process" },
    { .name = "tasks.leak", .run = leak, .doc = "leak(bytes): keeps memory for ever" },
    { 0 },
};

APIUM_MODULE("tasks", tasks);
