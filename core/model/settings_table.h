/* settings_table.h - the rows behind apm_settings, and the helpers that its files share. */
#ifndef APM_MODEL_SETTINGS_TABLE_H
#define APM_MODEL_SETTINGS_TABLE_H

#include <regex.h>

#include "core/model/settings.h"

typedef enum apm_setting_kind {
    APM_S_BOOL,
    APM_S_TRI,     /* true, false, or null: the other setting or the adapter decides */
    APM_S_INT,     /* null is 0 */
    APM_S_SECONDS, /* null is 0 */
    APM_S_TEXT,
    APM_S_CHOICE,
    APM_S_URL, /* text, or a list of alternatives */
    APM_S_JSON,
    APM_S_CUSTOM,
    APM_S_NO_EFFECT, /* Celery has it, apium has no use for it: any value */
} apm_setting_kind;

/* A value on its way into a field: what it is, and the bare text it came as. */
typedef struct apm_given {
    apm_json json; /* a string when the text was bare */
    apm_source source;
} apm_given;

typedef struct apm_setting {
    const char *name;
    apm_setting_kind kind;
    size_t offset;
    const char *initial; /* JSON text */
    double min, max;     /* of a number */
    const char *choices; /* "a|b" */
    /* Fill the fields; *err says what is wrong with the value, without naming the setting. */
    apium_status (*set)(apm_settings *settings, const apm_given *given, apium_error *err);
    const char *help;
} apm_setting;

extern const apm_setting apm_setting_table[];
extern const size_t apm_setting_count;

/* One rule of task_routes. */
typedef struct apm_route_rule {
    const char *pattern; /* a name or a glob; NULL when regex is used */
    regex_t *regex;      /* compiled */
    bool exact;
    int router; /* exact names come first within one mapping */
    const char *queue, *exchange, *routing_key;
    int priority;
} apm_route_rule;

struct apm_settings_state {
    struct {
        apm_source source;
        apm_str text; /* JSON */
    } * values;       /* one a row of the table */
    apm_route_rule *rules;
    size_t n_rules;
    struct apm_made_queue {
        struct apm_made_queue *next;
        apm_queue queue;
    } * made;
};

/* Of the known names the one with the fewest edits to `name`; NULL when none is near. */
const char *apm_setting_nearest(const char *name, const char *const *known, size_t n);

/* A copy in the settings' arena. E_NOMEM. */
apium_status
apm_settings_keep(apm_settings *settings, apm_str text, const char **out, apium_error *err);
/* E_CONFIG: an object has a member that is not known, with the nearest that is. */
apium_status apm_settings_unknown(apm_settings *settings, apm_str raw_key, const char *const *known,
                                  size_t n, const char *of, apium_error *err);
/* A string value as C text in the arena; null gives NULL. */
apium_status
apm_settings_text(apm_settings *settings, apm_json val, const char **out, apium_error *err);
/* JSON or words; numbers in a range. */
apium_status apm_settings_bool(apm_json val, bool *out, apium_error *err);
apium_status apm_settings_int(apm_json val, double min, double max, int64_t *out, apium_error *err);
apium_status
apm_settings_seconds(apm_json val, double min, double max, double *out, apium_error *err);

/* The setters of settings that are more than one value. */
typedef apium_status
apm_setting_set(apm_settings *settings, const apm_given *given, apium_error *err);
apm_setting_set apm_set_accept_content, apm_set_delivery_mode, apm_set_compression,
    apm_set_serializer, apm_set_timezone, apm_set_priority, apm_set_rate_limit, apm_set_pool,
    apm_set_backend, apm_set_broker, apm_set_prefetch, apm_set_broker_options,
    apm_set_backend_options, apm_set_publish_policy, apm_set_queues, apm_set_routes,
    apm_set_result_serializer, apm_set_result_compression;

/* Release what the arena does not hold. */
void apm_settings_drop_rules(apm_settings *settings);

#endif
