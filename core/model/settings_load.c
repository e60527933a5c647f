/* settings_load.c - settings from the environment and from a YAML file. */
#include "core/model/settings_table.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>

#include "core/base/error.h"
#include "core/model/formats.h"

#define FILE_MAX ((size_t)8 << 20) /* bytes of a configuration file */

/* Celery's own variables: weaker than ours of the same meaning. */
static const struct {
    const char *variable, *setting;
} celery_variables[] = {
    { "CELERY_BROKER_URL", "broker_url" },
    { "CELERY_BROKER_READ_URL", "broker_read_url" },
    { "CELERY_BROKER_WRITE_URL", "broker_write_url" },
    { "CELERY_RESULT_BACKEND", "result_backend" },
};

/* How those of ours begin that are no settings: of the build, the tests and the program's own
 * processes. */
static const char *const not_settings[] = { "BENCH",       "BUILD",  "DEBIAN", "DETACHED",
                                            "FORK_SERVER", "MODULE", "TEST_",  "WERROR" };

static apium_status
from_variable(apm_settings *settings, const char *name, const char *value, apium_error *err)
{
    char lower[128];
    size_t len = strlen(name);

    for (size_t i = 0; i < sizeof not_settings / sizeof *not_settings; i++)
        if (strncmp(name, not_settings[i], strlen(not_settings[i])) == 0)
            return APIUM_OK;
    if (len >= sizeof lower)
        return apm_fail(err, APIUM_E_CONFIG, "unknown setting APIUM_%.80s in the environment",
                        name);
    for (size_t i = 0; i <= len; i++)
        lower[i] = (char)tolower((unsigned char)name[i]);
    return apm_settings_set(settings, lower, apm_strz(value), APM_FROM_ENV, err);
}

apium_status
apm_settings_load_env(apm_settings *settings, char *const *environ_, apium_error *err)
{
    apium_status st;

    for (size_t i = 0; i < sizeof celery_variables / sizeof *celery_variables; i++) {
        const char *name = celery_variables[i].variable;
        size_t len = strlen(name);
        for (char *const *e = environ_; *e; e++)
            if (strncmp(*e, name, len) == 0 && (*e)[len] == '=' && (*e)[len + 1] &&
                (st = apm_settings_set(settings, celery_variables[i].setting,
                                       apm_strz(*e + len + 1), APM_FROM_ENV, err)) != APIUM_OK)
                return st;
    }
    for (char *const *e = environ_; *e; e++) {
        const char *equals = strchr(*e, '=');
        char name[256];
        if (strncmp(*e, "APIUM_", 6) != 0 || !equals || !equals[1] ||
            (size_t)(equals - *e) - 6 >= sizeof name)
            continue; /* an empty variable is none, as Celery has it */
        memcpy(name, *e + 6, (size_t)(equals - *e) - 6);
        name[equals - *e - 6] = '\0';
        if ((st = from_variable(settings, name, equals + 1, err)) != APIUM_OK)
            return st;
    }
    return APIUM_OK;
}

static apium_status
read_file(const char *path, apm_buf *buf, apium_error *err)
{
    apium_status st = APIUM_OK;
    FILE *file = fopen(path, "re");
    char *room;
    size_t n;

    if (!file)
        return apm_fail_sys(err, errno, "cannot read settings from %s", path);
    do {
        if (!(room = apm_buf_reserve(buf, 4096))) {
            st = apm_fail(err, APIUM_E_TOOBIG, "cannot read settings from %s: it is too big", path);
            break;
        }
        n = fread(room, 1, 4096, file);
        buf->len += n;
    } while (n > 0);
    if (st == APIUM_OK && ferror(file))
        st = apm_fail_sys(err, errno, "cannot read settings from %s", path);
    (void)fclose(file);
    return st;
}

apium_status
apm_settings_load_file(apm_settings *settings, const char *path, apium_error *err)
{
    apm_arena arena = { 0 };
    apm_buf buf;
    apm_json_iter it;
    apm_json val;
    apm_str json, raw_key;
    const char *name;
    apium_error why = { 0 };
    apium_status st;

    apm_buf_init(&buf, FILE_MAX);
    if ((st = read_file(path, &buf, err)) != APIUM_OK)
        goto out;
    if ((st = apm_yaml_to_json(apm_buf_str(&buf), &arena, &json, &why)) != APIUM_OK) {
        st = apm_fail(err, APIUM_E_CONFIG, "%s: %s", path, why.text);
        goto out;
    }
    if (apm_str_eqz(json, "null")) /* an empty file */
        goto out;
    if (apm_json_open(&it, json, NULL) != APIUM_OK || !it.object) {
        st = apm_fail(err, APIUM_E_CONFIG, "%s: expected lines of the form name: value", path);
        goto out;
    }
    while (apm_json_next(&it, &raw_key, &val, &why) > 0) {
        if ((st = apm_json_cstr((apm_json){ APM_JSON_STRING, raw_key }, "name", &arena, &name,
                                err)) != APIUM_OK)
            goto out;
        if ((st = apm_settings_set(settings, name, val.text, APM_FROM_FILE, &why)) != APIUM_OK) {
            st = apm_fail(err, st, "%s: %s", path, why.text);
            goto out;
        }
    }
out:
    apm_buf_clear(&buf);
    apm_arena_clear(&arena);
    return st;
}
