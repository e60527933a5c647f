/*
 * settings.h - Celery's lowercase settings, in one table (settings.c): name, type, range, default,
 * help. Parser, environment, YAML file, flags, `--help`, the man page and secret masking all come
 * from it.
 *
 * Order of sources, strongest first: command line, environment (APIUM_ + NAME in capitals; then
 * CELERY_BROKER_URL, CELERY_RESULT_BACKEND), a YAML file, defaults. An unknown name is E_CONFIG and
 * names the nearest known one.
 */
#ifndef APM_MODEL_SETTINGS_H
#define APM_MODEL_SETTINGS_H

#include "core/base/json.h"
#include "core/model/request.h"
#include "core/model/route.h"

typedef enum apm_source {
    APM_FROM_DEFAULT,
    APM_FROM_FILE,
    APM_FROM_ENV,
    APM_FROM_CODE,
    APM_FROM_FLAG
} apm_source;

typedef struct apm_settings {
    apm_arena arena;
    struct apm_settings_state *state; /* what was given by whom; compiled routes; queues made up */

    /* where */
    const char *broker_url;
    bool broker_given; /* by the user; else it is the embedded default */
    const char *broker_read_url, *broker_write_url; /* NULL: broker_url */
    const char *result_backend;                     /* NULL: disabled */
    double broker_connection_timeout;               /* seconds, as all doubles here */
    double broker_heartbeat;
    bool broker_connection_retry;
    apm_tri broker_connection_retry_on_startup;
    int64_t broker_connection_max_retries; /* 0: for ever */
    int64_t broker_pool_limit;

    /* broker_transport_options: the members apium knows */
    double visibility_timeout;                /* 3600 */
    const char *global_keyprefix;             /* broker keys; "" */
    const char *sep;                          /* "\x06\x16" */
    int priority_steps[10], n_priority_steps; /* 0 3 6 9 */
    const char *queue_order_strategy;         /* "round_robin", "priority", "sorted" */
    const char *unacked_key, *unacked_index_key, *unacked_mutex_key;
    const char *master_name; /* sentinel */
    const char *sentinel_username, *sentinel_password;
    const char *fanout_prefix;      /* "/{db}."; "" none */
    bool fanout_patterns;           /* true */
    const char *sqlite_synchronous; /* "FULL" */
    int64_t max_message_bytes;      /* a delivery bigger than that is refused; 128 MiB */

    /* result_backend_transport_options: the members apium knows */
    const char
        *result_keyprefix; /* "" or ending in one of ": _ - .": Celery adds a "_" to any other */
    const char *result_master_name;
    const char *result_sentinel_username, *result_sentinel_password;
    bool result_chord_ordered; /* true: parts of a chord in a sorted set, otherwise a list */
    const char *http_ca, *http_cert, *http_key; /* files in PEM; NULL: the system's, none */
    const char *http_token;                     /* bearer */
    bool http_verify;                           /* true */
    double http_timeout;                        /* of one request, 30 */

    /* of the result backends elasticsearch:// and s3:// */
    bool elasticsearch_save_meta_as_text;
    const char *s3_bucket, *s3_base_path, *s3_endpoint_url, *s3_region, *s3_access_key_id,
        *s3_secret_access_key;

    /* messages */
    const char *task_serializer, *result_serializer;
    unsigned accept_content; /* APM_ACCEPT_* */
    const char *task_compression, *result_compression;
    int64_t task_protocol;
    const char *timezone; /* NULL: UTC */
    bool enable_utc;
    int64_t task_default_delivery_mode; /* 2 or 1 */
    int64_t task_default_priority;      /* APM_PRIORITY_NONE */
    bool task_publish_retry;
    int64_t publish_max_retries;
    double publish_interval_start, publish_interval_step, publish_interval_max;

    /* queues and routes */
    const char *task_default_queue, *task_default_exchange, *task_default_exchange_type,
        *task_default_routing_key, *task_default_queue_type, *task_create_missing_queue_type;
    bool task_create_missing_queues;
    int64_t task_queue_max_priority; /* 0 none */
    apm_queue *task_queues;          /* as configured */
    size_t n_task_queues;
    apm_json task_routes; /* validated JSON (from YAML too) */
    apm_json task_annotations;

    /* tasks */
    int64_t task_chain_piece_size; /* steps; 0: chains travel whole */
    bool task_acks_late, task_track_started, task_ignore_result, task_store_errors_even_if_ignored,
        task_always_eager, task_eager_propagates, task_store_eager_result,
        task_inherit_parent_priority, task_send_sent_event, task_reject_on_worker_lost,
        task_remote_tracebacks;
    apm_tri task_acks_on_failure, task_acks_on_timeout;
    bool task_acks_on_failure_or_timeout;
    double task_time_limit, task_soft_time_limit; /* 0 none */
    const char *task_default_rate_limit;

    /* results */
    double result_expires; /* seconds; 0 never */
    bool result_extended;
    apm_tri result_persistent;
    double result_chord_join_timeout, result_chord_retry_interval;

    /* worker */
    int64_t worker_concurrency;         /* 0: number of CPUs */
    const char *worker_pool;            /* "prefork", "threads", "solo" */
    int64_t worker_prefetch_multiplier; /* 4; 0 unlimited */
    /* The multiplier was set by the user: obeyed to the letter, never grown for short tasks. */
    bool prefetch_multiplier_given;
    int64_t worker_max_tasks_per_child, worker_max_memory_per_child /* KiB */;
    bool worker_send_task_events, worker_enable_remote_control, worker_redirect_stdouts,
        worker_deduplicate_successful_tasks, worker_disable_rate_limits,
        worker_cancel_long_running_tasks_on_connection_loss, worker_detect_quorum_queues;
    const char *worker_redirect_stdouts_level;
    double worker_soft_shutdown_timeout, worker_proc_alive_timeout, worker_lost_wait;
    int64_t worker_eta_task_limit; /* 0 none */
} apm_settings;

/* Defaults. Release with apm_settings_clear. */
apium_status apm_settings_init(apm_settings *settings, apium_error *err);
void apm_settings_clear(apm_settings *settings);
/*
 * Set one by name; a value from a stronger source stays. The value is JSON text, or bare text: a
 * string, yes/no/on/off/1/0, a list separated by commas. E_CONFIG names setting, value, source and
 * what is expected. Old UPPERCASE names (CELERY_ACKS_LATE, CELERY_TASK_ACKS_LATE) are accepted,
 * with the new one named at debug.
 */
apium_status apm_settings_set(apm_settings *settings, const char *name, apm_str value,
                              apm_source source, apium_error *err);
apium_status apm_settings_load_env(apm_settings *settings, char *const *environ_, apium_error *err);
apium_status apm_settings_load_file(apm_settings *settings, const char *path, apium_error *err);
/* A number of the form "100/m" (per s, m, h; alone: per second) as tokens a second; 0 none.
 * E_CONFIG names the text. */
apium_status apm_rate_parse(apm_str text, double *per_second, apium_error *err);

/* Call visit for each setting with its present value as JSON text (secrets and URL passwords
 * masked), its source and help. */
typedef void
apm_setting_visit(void *arg, const char *name, apm_str value, apm_source source, const char *help);
void apm_settings_each(const apm_settings *settings, apm_setting_visit *visit, void *arg);

/* The queue of that name: from task_queues, the default queue, or made up
 * (task_create_missing_queues) and kept in the settings. E_NOTFOUND when it may not be created. */
apium_status apm_settings_queue(apm_settings *settings, const char *name, const apm_queue **out,
                                apium_error *err);

/* Decide where a task goes, as Celery: explicit options, then task_routes (first match; exact
 * names, then "glob.*", then "/regex/" in the order given), then the default queue. Each of the
 * choices may be NULL. When the queue's exchange is direct and exchange and routing key were not
 * both given, the message goes to the default exchange with the queue's name. `priority` in and
 * out: a route may give one. */
typedef struct apm_choice {
    const char *queue, *exchange, *routing_key;
    int priority;
} apm_choice;
apium_status apm_settings_route(apm_settings *settings, const char *task, const apm_choice *choice,
                                apm_route *out, int *priority, apium_error *err);

/* Celery's derived answers. */
bool apm_settings_ack_on_failure(const apm_settings *settings);
bool apm_settings_ack_on_timeout(const apm_settings *settings);

#endif
