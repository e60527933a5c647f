/* call.c - `apium call`: send a task, print its id or, with --wait, its result. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include <apium/send.h>

#include "cli/answer.h"
#include "cli/canvas.h"
#include "core/base/clock.h"
#include "core/base/error.h"

struct values {
    const char *args, *kwargs, *eta, *expires, *serializer, *compression, *headers, *task_id,
        *shadow, *reply_to;
    const char *queue, *exchange, *routing_key, *link, *link_error, *canvas;
    apm_opt_number countdown, priority, retries, time_limit, soft_time_limit, timeout;
    bool ignore_result, transient, wait, traceback;
};

#define AT(member) offsetof(struct values, member)

static const char *const serializers[] = { "json", "yaml", "msgpack", NULL };

static const apm_option options[] = {
    { APM_OPT_HEADING, .help = "Calling Options" },
    { APM_OPT_ARRAY, 'a', "args", NULL, "JSON", AT(args),
      .help = "Positional arguments: a JSON array." },
    { APM_OPT_OBJECT, 'k', "kwargs", NULL, "JSON", AT(kwargs),
      .help = "Keyword arguments: a JSON object." },
    { APM_OPT_TEXT, 0, "canvas", NULL, "FILE", AT(canvas),
      .help = "A workflow in Celery's JSON form instead of NAME; - is standard input." },
    { APM_OPT_TEXT, 0, "eta", NULL, "DATE", AT(eta), .help = "Not before this time, in ISO 8601." },
    { APM_OPT_NUMBER, 0, "countdown", NULL, "SECONDS", AT(countdown),
      .help = "Not before so many seconds from now." },
    { APM_OPT_TEXT, 0, "expires", NULL, "DATE|SECONDS", AT(expires),
      .help = "Not after this time: ISO 8601, or seconds from now." },
    { APM_OPT_CHOICE, 0, "serializer", NULL, NULL, AT(serializer), .choices = serializers,
      .help = "How the body is written." },
    { APM_OPT_TEXT, 0, "compression", NULL, "NAME", AT(compression),
      .help = "zlib, bzip2, zstd, brotli or lzma." },
    { APM_OPT_INT, 0, "retries", NULL, "N", AT(retries), .max = 2147483647,
      .help = "Count it as this many retries already." },
    { APM_OPT_NUMBER, 0, "time-limit", NULL, "SECONDS", AT(time_limit),
      .help = "Kill it after this time." },
    { APM_OPT_NUMBER, 0, "soft-time-limit", NULL, "SECONDS", AT(soft_time_limit),
      .help = "Ask it to stop after this time." },
    { APM_OPT_FLAG, 0, "ignore-result", NULL, NULL, AT(ignore_result), .help = "Keep no result." },
    { APM_OPT_TEXT, 0, "task-id", "id", "ID", AT(task_id), .help = "Its id; made up otherwise." },
    { APM_OPT_TEXT, 0, "shadow", NULL, "NAME", AT(shadow), .help = "The name that logs show." },
    { APM_OPT_OBJECT, 0, "headers", NULL, "JSON", AT(headers),
      .help = "Headers of your own: a JSON object." },
    { APM_OPT_TEXT, 0, "link", NULL, "JSON", AT(link),
      .help = "Signature, or array of them, called with the result." },
    { APM_OPT_TEXT, 0, "link-error", NULL, "JSON", AT(link_error),
      .help = "The same, called when it fails." },
    { APM_OPT_HEADING, .help = "Routing Options" },
    { APM_OPT_TEXT, 0, "queue", NULL, "NAME", AT(queue), .help = "Queue to send it to." },
    { APM_OPT_TEXT, 0, "exchange", NULL, "NAME", AT(exchange),
      .help = "Exchange to publish it to." },
    { APM_OPT_TEXT, 0, "routing-key", NULL, "KEY", AT(routing_key),
      .help = "Routing key to publish it with." },
    { APM_OPT_INT, 0, "priority", NULL, "0..9", AT(priority), .max = 255,
      .help = "Priority (0 is first on Redis, last on RabbitMQ and SQLite)." },
    { APM_OPT_FLAG, 0, "transient", NULL, NULL, AT(transient),
      .help = "The broker may forget it in a restart." },
    { APM_OPT_TEXT, 0, "reply-to", NULL, "QUEUE", AT(reply_to),
      .help = "Queue that an rpc:// result goes to." },
    { APM_OPT_HEADING, .help = "Waiting Options" },
    { APM_OPT_FLAG, 'w', "wait", NULL, NULL, AT(wait),
      .help = "Wait for the result and print it as JSON." },
    { APM_OPT_NUMBER, 0, "timeout", NULL, "SECONDS", AT(timeout),
      .help = "With --wait: give up after this time." },
    { APM_OPT_FLAG, 0, "traceback", NULL, NULL, AT(traceback),
      .help = "With --wait: print the traceback of a failure." },
    { 0 },
};

/* A date or, where `seconds` is given, a number of seconds from now. */
static apium_status
read_time(apm_cli *cli, const char *option, const char *text, double *seconds, int64_t *at_us,
          apium_error *err)
{
    char *end;
    if (seconds) {
        *seconds = strtod(text, &end);
        if (*text && !*end && isfinite(*seconds))
            return APIUM_OK;
        *seconds = 0;
    }
    int offset_s;
    apium_error inner;
    apium_status st =
        apm_zone_offset(apm_app_settings(cli->app)->timezone, apm_clock_wall_us(), &offset_s, err);
    if (st != APIUM_OK)
        return st;
    if (apm_date_parse(apm_strz(text), offset_s, at_us, &inner) != APIUM_OK)
        return apm_fail(err, APIUM_E_INVALID, "Invalid value for '--%s': %s", option, inner.text);
    return APIUM_OK;
}

static apium_status
fill(apm_cli *cli, const struct values *v, apium_send_opts *opts, apium_error *err)
{
    *opts = (apium_send_opts){
        .kwargs = v->kwargs,
        .countdown = v->countdown.value,
        .queue = v->queue,
        .exchange = v->exchange,
        .routing_key = v->routing_key,
        .priority = (int)v->priority.value,
        .has_priority = v->priority.given,
        .task_id = v->task_id,
        .shadow = v->shadow,
        .reply_to = v->reply_to,
        .retries = (int64_t)v->retries.value,
        .time_limit = v->time_limit.value,
        .soft_time_limit = v->soft_time_limit.value,
        .ignore_result = v->ignore_result ? APIUM_ON : APIUM_DEFAULT,
        .serializer = v->serializer,
        .compression = v->compression,
        .persistent = v->transient ? APIUM_OFF : APIUM_DEFAULT,
        .headers = v->headers,
        .link = v->link,
        .link_error = v->link_error,
    };
    apium_status st = APIUM_OK;
    if (v->eta)
        st = read_time(cli, "eta", v->eta, NULL, &opts->eta_us, err);
    if (st == APIUM_OK && v->expires)
        st = read_time(cli, "expires", v->expires, &opts->expires, &opts->expires_at_us, err);
    return st;
}

/* Send the task, or the workflow. */
static apium_status
send_it(apm_cli *cli, const struct values *v, const apium_send_opts *opts, apium_run **out,
        apium_error *err)
{
    apium_sig *sig;
    if (!v->canvas)
        return apium_call(cli->app, cli->options.words[0], apium_json(v->args ? v->args : "[]"),
                          opts, out, err);
    apium_status st = apm_canvas_file(v->canvas, &sig, err);
    return st == APIUM_OK ? apium_send(cli->app, sig, opts, out, err) : st;
}

/* A failed step ends the wait for a workflow: its exception is the answer, unless its traceback is wanted too. */
static apium_status
wait_for_it(const struct values *v, apium_run *task, apium_result **res, apium_error *err)
{
    int64_t timeout_ms = v->timeout.given ? (int64_t)(v->timeout.value * 1000) : -1;
    return v->canvas && !v->traceback ? apium_get(task, timeout_ms, res, err)
                                      : apium_wait(task, timeout_ms, res, err);
}

static int
run(apm_cli *cli, void *arg)
{
    const struct values *v = arg;
    apium_send_opts opts;
    apium_error err = { 0 };
    apium_run *task = NULL;
    apium_result *res = NULL;
    int code = APM_EXIT_OK;

    if (!v->canvas && !cli->options.n_words)
        return apm_cli_misused(cli, "Missing argument 'NAME'.");
    if (v->canvas && (cli->options.n_words || v->args || v->kwargs))
        return apm_cli_misused(cli,
                               "'--canvas' names the tasks and their arguments: no %s with it.",
                               cli->options.n_words ? "NAME"
                               : v->args            ? "--args"
                                                    : "--kwargs");
    if (fill(cli, v, &opts, &err) != APIUM_OK)
        return apm_cli_fail(cli, &err);
    apium_status st = send_it(cli, v, &opts, &task, &err);
    if (st == APIUM_OK && v->wait)
        st = wait_for_it(v, task, &res, &err);
    if (st == APIUM_E_FAILED || st == APIUM_E_REVOKED) {
        fprintf(stderr, "%s\n", err.text);
        code = APM_EXIT_FAILURE;
    } else if (st != APIUM_OK) {
        if (task) /* it was sent: whoever waits elsewhere needs its id */
            fprintf(stderr, "%s\n", apium_run_id(task));
        code = apm_cli_fail(cli, &err);
    } else if (v->wait) {
        code = apm_answer_print(res, v->traceback && !apium_result_ok(res) ? APM_ANSWER_TRACEBACK
                                                                           : APM_ANSWER_VALUE);
    } else {
        puts(apium_run_id(task));
    }
    apium_result_free(res);
    apium_run_free(task);
    return code;
}

const apm_command apm_cmd_call = {
    .name = "call",
    .words = "[NAME]",
    .max_words = 1,
    .summary = "Call a task by name, or send a workflow.",
    .about = "Prints the id of the task (of a workflow: of its last task, or its group), or with "
             "--wait its return value as JSON.\n"
             "\n"
             "  apium call tasks.add -a '[2, 3]' --wait\n"
             "  apium call --canvas flow.json --wait\n"
             "  apium call reports.build -k '{\"year\": 2026}' --queue slow --countdown 60",
    .options = options,
    .size = sizeof(struct values),
    .loads = true,
    .run = run,
};
