/* report.c - `apium report`: what a bug report should say. */
#include <openssl/crypto.h>
#include <sqlite3.h>
#include <sys/utsname.h>
#include <uv.h>

#include "cli/cli.h"
#include "config.h"

static const apm_option options[] = { { 0 } };

static void
print_setting(void *arg, const char *name, apm_str value, apm_source source, const char *help)
{
    static const char *const sources[] = {
        [APM_FROM_FILE] = "file",
        [APM_FROM_ENV] = "environment",
        [APM_FROM_CODE] = "program",
        [APM_FROM_FLAG] = "command line",
    };
    bool *any = arg;
    (void)help;
    if (source == APM_FROM_DEFAULT)
        return;
    *any = true;
    printf("%s: %.*s (%s)\n", name, APM_STR_ARG(value), sources[source]);
}

static int
run(apm_cli *cli, void *arg)
{
    struct utsname host = { 0 };
    bool any = false;
    (void)arg;
    (void)uname(&host);
    printf("\nsoftware -> apium:%s libuv:%s sqlite:%s openssl:%s\n", APIUM_VERSION,
           uv_version_string(), sqlite3_libversion(), OpenSSL_version(OPENSSL_VERSION_STRING));
    printf("platform -> system:%s release:%s machine:%s\n", host.sysname, host.release,
           host.machine);
    printf("adapters -> redis:%s amqp:%s sqlite:yes memory:yes\n", APM_WITH_REDIS ? "yes" : "no",
           APM_WITH_AMQP ? "yes" : "no");
    printf("app      -> %s\n\n", apm_app_name(cli->app));
    apm_settings_each(apm_app_settings(cli->app), print_setting, &any);
    if (!any)
        puts("every setting has its default");
    size_t n = 0;
    const apium_task_def *def;
    while ((def = apm_app_task_at(cli->app, n++)))
        printf("%s%s\n", n == 1 ? "\ntasks:\n  . " : "  . ", def->name);
    return APM_EXIT_OK;
}

const apm_command apm_cmd_report = {
    .name = "report",
    .summary = "Show information useful to include in bug reports.",
    .about = "Passwords and other secrets are left out.",
    .options = options,
    .loads = true,
    .run = run,
};
