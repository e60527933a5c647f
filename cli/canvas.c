/* canvas.c - `apium canvas`: draw a workflow, from a file or from what became of it. */
#include "cli/canvas.h"

#include <unistd.h>

#include "cli/cli.h"
#include "cli/tree.h"

struct values {
    bool dot;
};

static const apm_option options[] = {
    { APM_OPT_HEADING, .help = "Canvas Options" },
    { APM_OPT_FLAG, 0, "dot", NULL, NULL, offsetof(struct values, dot),
      .help = "A graph for Graphviz instead of lines." },
    { 0 },
};

/* One that is meant to be a file and is not there is no id that nobody knows. */
static bool
is_file(const char *what)
{
    const size_t len = strlen(what);
    return strcmp(what, "-") == 0 || strchr(what, '/') || access(what, F_OK) == 0 ||
           (len > 5 && strcmp(what + len - 5, ".json") == 0);
}

static int
run(apm_cli *cli, void *arg)
{
    const struct values *v = arg;
    const char *what = cli->options.words[1];
    apium_error err = { 0 };
    apium_sig *sig = NULL;
    apm_tree tree = { 0 };
    int code = APM_EXIT_OK;

    if (strcmp(cli->options.words[0], "show") != 0)
        return apm_cli_misused(cli, "No such command '%s': show.", cli->options.words[0]);
    apium_status st;
    if (is_file(what)) {
        st = apm_canvas_file(what, &sig, &err);
        if (st == APIUM_OK)
            st = apm_tree_of_sig(&tree, sig, &err);
    } else {
        st = apm_tree_of_id(&tree, cli->app, what, &err);
    }
    if (st != APIUM_OK)
        code = apm_cli_fail(cli, &err);
    else if (v->dot)
        apm_tree_dot(&tree, stdout);
    else
        apm_tree_print(&tree, stdout);
    apm_tree_clear(&tree);
    apium_sig_free(sig);
    return code;
}

const apm_command apm_cmd_canvas = {
    .name = "canvas",
    .words = "show FILE|ID",
    .min_words = 2,
    .max_words = 2,
    .summary = "Draw a workflow as a tree.",
    .about =
        "From a file in Celery's JSON form (- is standard input), or from the id of a task or of a "
        "saved group: then with the states that the result backend knows, from the first task that "
        "led there. Names of tasks are known with result_extended.\n"
        "\n"
        "  apium canvas show flow.json\n"
        "  apium canvas show 9c5c9d6e-0f5e-4f38-8d0e-3d1a9b3d1c55\n"
        "  apium canvas show --dot flow.json | dot -Tsvg > flow.svg",
    .options = options,
    .size = sizeof(struct values),
    .run = run,
};
