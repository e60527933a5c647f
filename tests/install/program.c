/* program.c - a program of somebody else's: everything comes from the installed headers and library. */
#include <apium/apium.h>
#include <apium/cjson.h>
#include <stdio.h>
#include <string.h>

static apium_verdict
twice(apium_task *task)
{
    int64_t n = 0;
    if (!apium_args(task, "n:int", &n))
        return APIUM_FAILURE;
    if (n < 0)
        return apium_raise(task, "ValueError", "%d is negative", (int)n);
    if (n == 0)
        return apium_retry(task, APIUM_BACKOFF, "not yet");
    if (n == 1)
        return apium_raise_in(task, "mymod", "Odd", apium_jsonf("[%d]", (int)n));
    return apium_return(task, apium_int(2 * n));
}

#ifdef __cplusplus
static apium_task_def definition = {};
static apium_task_def tasks[2] = {};
static apium_send_opts opts = {};
#else
static apium_task_def definition;
static apium_task_def tasks[2];
static apium_send_opts opts;
#endif

/* Tasks run here and now; what a call answers is what a worker would have. */
int
main(void)
{
    apium_app *app = NULL;
    apium_run *run = NULL;
    apium_result *res = NULL;
    apium_error err;

    definition.name = "t.twice";
    definition.run = twice;
    tasks[0] = definition;
    opts.priority = 3;
    if (apium_app_new("program", tasks, &app, &err) != APIUM_OK ||
        apium_app_set(app, "task_always_eager", "true", &err) != APIUM_OK ||
        apium_call(app, "t.twice", apium_jsonf("[%d]", 21), &opts, &run, &err) != APIUM_OK ||
        apium_get(run, 1000, &res, &err) != APIUM_OK) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    cJSON *json = apium_cjson_parse(apium_result_json(res));
    printf("%s %d %s\n", apium_result_json(res), json ? json->valueint : -1, apium_version());
    cJSON_Delete(json);
    apium_result_free(res);
    apium_run_free(run);
    apium_app_free(app);
    return 0;
}
