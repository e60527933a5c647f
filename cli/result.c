/* result.c - `apium result`: print what became of a task. */
#include "cli/answer.h"
#include "cli/tree.h"

struct values {
    const char *task; /* -t: Celery's; our results need no task to be read */
    bool traceback, no_wait, state, json, tree;
    apm_opt_number timeout;
};

#define AT(member) offsetof(struct values, member)

static const apm_option options[] = {
    { APM_OPT_HEADING, .help = "Result Options" },
    { APM_OPT_TEXT, 't', "task", NULL, "NAME", AT(task),
      .help = "Accepted: results are read without their task." },
    { APM_OPT_FLAG, 0, "traceback", NULL, NULL, AT(traceback),
      .help = "Show the traceback instead." },
    { APM_OPT_FLAG, 0, "state", NULL, NULL, AT(state),
      .help = "Show the state there is now, and do not wait." },
    { APM_OPT_FLAG, 'j', "json", NULL, NULL, AT(json),
      .help = "Show the whole document as it is stored." },
    { APM_OPT_FLAG, 0, "tree", NULL, NULL, AT(tree),
      .help = "Draw all that came of it, as `canvas show` does, and do not wait." },
    { APM_OPT_HEADING, .help = "Waiting Options" },
    { APM_OPT_NUMBER, 0, "timeout", NULL, "SECONDS", AT(timeout),
      .help = "Give up after this time; without it, never." },
    { APM_OPT_FLAG, 0, "no-wait", NULL, NULL, AT(no_wait), .help = "The same as --timeout 0." },
    { 0 },
};

static int
draw(apm_cli *cli, const char *id)
{
    apium_error err = { 0 };
    apm_tree tree = { 0 };
    int code = APM_EXIT_OK;
    if (apm_tree_of_id(&tree, cli->app, id, &err) == APIUM_OK)
        apm_tree_print(&tree, stdout);
    else
        code = apm_cli_fail(cli, &err);
    apm_tree_clear(&tree);
    return code;
}

static int
run(apm_cli *cli, void *arg)
{
    const struct values *v = arg;
    apium_error err = { 0 };
    apium_run *task = NULL;
    apium_result *res = NULL;
    int code;

    if (v->tree)
        return draw(cli, cli->options.words[0]);
    if (apium_run_of(cli->app, cli->options.words[0], &task, &err) != APIUM_OK)
        return apm_cli_fail(cli, &err);
    apium_status st;
    if (v->state)
        st = apium_state(task, &res, &err);
    else
        st = apium_wait(task,
                        v->no_wait         ? 0
                        : v->timeout.given ? (int64_t)(v->timeout.value * 1000)
                                           : -1,
                        &res, &err);
    if (st != APIUM_OK) {
        code = apm_cli_fail(cli, &err);
    } else if (v->state) {
        puts(apium_result_state(res));
        code = APM_EXIT_OK;
    } else {
        code = apm_answer_print(res, v->json        ? APM_ANSWER_DOCUMENT
                                     : v->traceback ? APM_ANSWER_TRACEBACK
                                                    : APM_ANSWER_VALUE);
    }
    apium_result_free(res);
    apium_run_free(task);
    return code;
}

const apm_command apm_cmd_result = {
    .name = "result",
    .words = "TASK_ID",
    .min_words = 1,
    .max_words = 1,
    .summary = "Print the return value of a task.",
    .about =
        "Waits until the task is finished and prints its value as JSON. When it failed or was "
        "revoked, the exception "
        "goes to standard error and the exit code is 1; when there is no answer in time it is 75.",
    .options = options,
    .size = sizeof(struct values),
    .run = run,
};
