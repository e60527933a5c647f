/* web.c - `apium web`: the HTTP server. */
#include "web/web.h"

#include <stdio.h>

#include "cli/cli.h"
#include "core/base/log.h"

struct values {
    const char *addr, *access, *certificate, *key, *cors, *level, *logfile, *log_format;
    apm_opt_number port, max_body, max_connections;
};

#define AT(member) offsetof(struct values, member)

static const char *const formats[] = { "classic", "kv", NULL };

static const apm_option options[] = {
    { APM_OPT_HEADING, .help = "Web Options" },
    { APM_OPT_TEXT, 0, "addr", "address", "IP", AT(addr),
      .help = "Where to listen; 127.0.0.1 without it. Other than this machine needs --access." },
    { APM_OPT_INT, 0, "port", NULL, "PORT", AT(port), .max = 65535,
      .help = "8280 without it; 0 takes any free one." },
    { APM_OPT_TEXT, 0, "access", NULL, "FILE", AT(access),
      .help = "Who may do what: lines of \"reader|operator token SECRET\" or \"reader|operator "
              "basic USER:PASSWORD\". Without it everybody on this machine may do everything." },
    { APM_OPT_TEXT, 0, "certificate", NULL, "FILE", AT(certificate),
      .help = "Speak TLS, with this certificate (PEM, its chain after it) and --key." },
    { APM_OPT_TEXT, 0, "key", NULL, "FILE", AT(key), .help = "The certificate's key (PEM)." },
    { APM_OPT_TEXT, 0, "cors", NULL, "ORIGIN", AT(cors),
      .help = "The origin whose pages may ask (https://app.example), or *." },
    { APM_OPT_NUMBER, 0, "max-body", NULL, "MB", AT(max_body), .min = 0.001, .max = 256,
      .help = "The biggest request body; 64 without it." },
    { APM_OPT_INT, 0, "max-connections", NULL, "N", AT(max_connections), .min = 1, .max = 100000,
      .help = "4096 without it." },
    { APM_OPT_HEADING, .help = "Logging Options" },
    { APM_OPT_TEXT, 'l', "loglevel", NULL, "LEVEL", AT(level),
      .help = "DEBUG, INFO, WARNING, ERROR or CRITICAL; INFO without it." },
    { APM_OPT_TEXT, 'f', "logfile", NULL, "PATH", AT(logfile),
      .help = "Append the log to a file." },
    { APM_OPT_CHOICE, 0, "log-format", NULL, "FORMAT", AT(log_format), .choices = formats,
      .help = "classic: as Celery; kv: name=value." },
    { 0 },
};

struct listening {
    const apm_cli *cli;
    bool tls;
};

static void
on_ready(void *arg, const char *addr, int port)
{
    const struct listening *l = arg;
    bool six = strchr(addr, ':') != NULL;
    if (l->cli->globals.quiet)
        return;
    printf("Listening on http%s://%s%s%s:%d/\n", l->tls ? "s" : "", six ? "[" : "", addr,
           six ? "]" : "", port);
    fflush(stdout);
}

static int
run(apm_cli *cli, void *arg)
{
    const struct values *v = arg;
    apium_error err = { 0 };
    apm_log_opts log = { .level = APM_LOG_INFO,
                         .kv = v->log_format && strcmp(v->log_format, "kv") == 0,
                         .file = v->logfile };
    apium_status st = v->level ? apm_log_level_parse(v->level, &log.level, &err) : APIUM_OK;
    if (st == APIUM_OK)
        st = apm_log_open(&log, &err);
    struct listening listening = { .cli = cli, .tls = v->certificate != NULL };
    const apm_web_opts opts = {
        .addr = v->addr,
        .port = v->port.given ? (int)v->port.value : 8280,
        .access = v->access,
        .certificate = v->certificate,
        .key = v->key,
        .cors = v->cors,
        .max_body_bytes = v->max_body.given ? (size_t)(v->max_body.value * (1 << 20)) : 0,
        .max_connections = v->max_connections.given ? (unsigned)v->max_connections.value : 0,
        .on_ready = on_ready,
        .arg = &listening,
    };
    if (st == APIUM_OK)
        st = apm_web_run(cli->app, &opts, &err);
    apm_log_flush();
    return st == APIUM_OK ? APM_EXIT_OK : apm_cli_fail(cli, &err);
}

const apm_command apm_cmd_web = {
    .name = "web",
    .summary = "Keep results for workers behind HTTP, and answer questions about tasks.",
    .about = "  apium --result-backend sqlite:///results.db web\n"
             "  apium --result-backend redis://localhost/0 web --addr 0.0.0.0 --access who.txt\n"
             "\n"
             "Results are kept in result_backend. Workers use the server"
             " with result_backend = http://127.0.0.1:8280/. TERM and INT stop it.",
    .options = options,
    .size = sizeof(struct values),
    .loads = true,
    .run = run,
};
