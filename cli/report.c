/* report.c - `apium report`: what a bug report should say. */
#include <sqlite3.h>
#include <sys/utsname.h>
#include <uv.h>

#include "cli/cli.h"
#include "config.h"
#include "core/link/ssl_lib.h"

struct values {
    bool all, json;
};

static const apm_option options[] = {
    { APM_OPT_HEADING, .help = "Report Options" },
    { APM_OPT_FLAG, 'a', "all", NULL, NULL, offsetof(struct values, all),
      .help = "Every setting with its meaning, also those with their default." },
    { APM_OPT_FLAG, 'j', "json", NULL, NULL, offsetof(struct values, json),
      .help = "The settings only, an object of JSON a line." },
    { 0 },
};

struct listing {
    const struct values *values;
    bool any;
};

static const char *
source_name(apm_source source)
{
    static const char *const names[] = {
        [APM_FROM_DEFAULT] = "default",   [APM_FROM_FILE] = "file",
        [APM_FROM_ENV] = "environment",   [APM_FROM_CODE] = "program",
        [APM_FROM_FLAG] = "command line",
    };
    return (size_t)source < sizeof(names) / sizeof(*names) && names[source] ? names[source] : "?";
}

static void
print_setting(void *arg, const char *name, apm_str value, apm_source source, const char *help)
{
    struct listing *to = arg;
    if (source == APM_FROM_DEFAULT && !to->values->all)
        return;
    to->any = true;
    if (!to->values->json) {
        printf("%s: %.*s (%s)\n", name, APM_STR_ARG(value), source_name(source));
        if (to->values->all && help)
            printf("    %s\n", help);
        return;
    }
    apm_buf buf;
    apm_buf_init(&buf, APM_BUF_MAX);
    apm_buf_addc(&buf, '{');
    apm_json_add_key(&buf, "name");
    apm_json_add_stringz(&buf, name);
    apm_json_add_key(&buf, "value");
    apm_buf_adds(&buf, value);
    apm_json_add_key(&buf, "source");
    apm_json_add_stringz(&buf, source_name(source));
    apm_json_add_key(&buf, "help");
    apm_json_add_stringz(&buf, help);
    apm_buf_addc(&buf, '}');
    printf("%.*s\n", APM_STR_ARG(apm_buf_str(&buf)));
    apm_buf_clear(&buf);
}

static void
print_software(const apm_cli *cli)
{
    struct utsname host = { 0 };
    apium_error err;
    (void)uname(&host);
    const char *openssl =
        apm_ssl_load(&err) == APIUM_OK ? OpenSSL_version(OPENSSL_VERSION_STRING) : "none";
    printf("\nsoftware -> apium:%s libuv:%s sqlite:%s openssl:%s\n", APIUM_VERSION,
           uv_version_string(), sqlite3_libversion(), openssl);
    printf("platform -> system:%s release:%s machine:%s\n", host.sysname, host.release,
           host.machine);
    printf("adapters -> redis:%s amqp:%s http:%s sqlite:yes memory:yes\n",
           APM_WITH_REDIS ? "yes" : "no", APM_WITH_AMQP ? "yes" : "no",
           APM_WITH_HTTP ? "yes" : "no");
    printf("app      -> %s\n\n", apm_app_name(cli->app));
}

static int
run(apm_cli *cli, void *arg)
{
    struct listing listing = { .values = arg };
    if (!listing.values->json)
        print_software(cli);
    apm_settings_each(apm_app_settings(cli->app), print_setting, &listing);
    if (listing.values->json)
        return APM_EXIT_OK;
    if (!listing.any)
        puts("every setting has its default");
    size_t n = 0;
    const apium_task_def *def;
    while ((def = apm_app_task_at(cli->app, n++)))
        printf("%s  . %s\n", n == 1 ? "\ntasks:\n" : "", def->name);
    return APM_EXIT_OK;
}

const apm_command apm_cmd_report = {
    .name = "report",
    .summary = "Show information useful to include in bug reports.",
    .about = "Passwords and other secrets are left out.",
    .options = options,
    .size = sizeof(struct values),
    .loads = true,
    .run = run,
};
