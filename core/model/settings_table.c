/*
 * settings_table.c - every setting there is, one row each, in alphabetical order. Names and
 * defaults are Celery's; what apium has no use for is a row too, so that a configuration can be
 * shared.
 */
#include "core/model/settings_table.h"

#define BIG 1e12 /* seconds */

#define FIELD(name) offsetof(apm_settings, name)
#define BOOL(name, initial, help)                                                                  \
    {                                                                                              \
#name, APM_S_BOOL, FIELD(name), initial, 0, 0, NULL, NULL, help                            \
    }
#define TRI(name, initial, help)                                                                   \
    {                                                                                              \
#name, APM_S_TRI, FIELD(name), initial, 0, 0, NULL, NULL, help                             \
    }
#define INT(name, initial, min, max, help)                                                         \
    {                                                                                              \
#name, APM_S_INT, FIELD(name), initial, min, max, NULL, NULL, help                         \
    }
#define SECONDS(name, initial, min, max, help)                                                     \
    {                                                                                              \
#name, APM_S_SECONDS, FIELD(name), initial, min, max, NULL, NULL, help                     \
    }
#define TEXT(name, initial, help)                                                                  \
    {                                                                                              \
#name, APM_S_TEXT, FIELD(name), initial, 0, 0, NULL, NULL, help                            \
    }
#define URL(name, initial, help)                                                                   \
    {                                                                                              \
#name, APM_S_URL, FIELD(name), initial, 0, 0, NULL, NULL, help                             \
    }
#define JSON(name, initial, help)                                                                  \
    {                                                                                              \
#name, APM_S_JSON, FIELD(name), initial, 0, 0, NULL, NULL, help                            \
    }
#define CHOICE(name, initial, choices, help)                                                       \
    {                                                                                              \
#name, APM_S_CHOICE, FIELD(name), initial, 0, 0, choices, NULL, help                       \
    }
#define CUSTOM(name, initial, set, help)                                                           \
    {                                                                                              \
#name, APM_S_CUSTOM, 0, initial, 0, 0, NULL, set, help                                     \
    }
#define NO_EFFECT(name, initial, why)                                                              \
    {                                                                                              \
#name, APM_S_NO_EFFECT, 0, initial, 0, 0, NULL, NULL, "accepted without effect: " why      \
    }

/* clang-format off */
const apm_setting apm_setting_table[] = {
    CUSTOM(accept_content, "[\"json\"]", apm_set_accept_content, "serializers or content types that are read: json, yaml, msgpack"),
    NO_EFFECT(arangodb_backend_settings, "null", "a backend that apium does not have"),
    NO_EFFECT(azureblockblob_base_path, "null", "a backend that apium does not have"),
    NO_EFFECT(azureblockblob_connection_timeout, "null", "a backend that apium does not have"),
    NO_EFFECT(azureblockblob_container_name, "null", "a backend that apium does not have"),
    NO_EFFECT(azureblockblob_read_timeout, "null", "a backend that apium does not have"),
    NO_EFFECT(azureblockblob_retry_increment_base, "null", "a backend that apium does not have"),
    NO_EFFECT(azureblockblob_retry_initial_backoff_sec, "null", "a backend that apium does not have"),
    NO_EFFECT(azureblockblob_retry_max_attempts, "null", "a backend that apium does not have"),
    NO_EFFECT(beat_cron_starting_deadline, "null", "of beat"),
    NO_EFFECT(beat_max_loop_interval, "0", "of beat"),
    NO_EFFECT(beat_schedule, "{}", "of beat"),
    NO_EFFECT(beat_schedule_filename, "\"celerybeat-schedule\"", "of beat"),
    NO_EFFECT(beat_scheduler, "\"celery.beat:PersistentScheduler\"", "of beat"),
    NO_EFFECT(beat_sync_every, "0", "of beat"),
    NO_EFFECT(broker_channel_error_retry, "false", "apium always reconnects"),
    INT(broker_connection_max_retries, "100", 0, INT32_MAX, "attempts to reconnect; 0 or null for ever"),
    BOOL(broker_connection_retry, "true", "reconnect after a connection is lost"),
    TRI(broker_connection_retry_on_startup, "null", "retry the first connection; null: as broker_connection_retry"),
    SECONDS(broker_connection_timeout, "4", 0, BIG, "seconds a connection may take to be made"),
    NO_EFFECT(broker_failover_strategy, "null", "alternatives are tried in turn"),
    SECONDS(broker_heartbeat, "120", 0, 65535, "seconds between AMQP heartbeats of the consumer; 0 none"),
    NO_EFFECT(broker_heartbeat_checkrate, "3.0", "heartbeats are watched all the time"),
    NO_EFFECT(broker_host, "null", "use broker_url"),
    NO_EFFECT(broker_login_method, "null", "AMQP login is PLAIN"),
    NO_EFFECT(broker_native_delayed_delivery_queue_type, "\"quorum\"", "apium holds delayed tasks"),
    NO_EFFECT(broker_password, "null", "use broker_url"),
    NO_EFFECT(broker_pool_acquire_timeout, "null", "there is no connection pool"),
    INT(broker_pool_limit, "10", 0, INT32_MAX, "connections a producer may use"),
    NO_EFFECT(broker_port, "null", "use broker_url"),
    URL(broker_read_url, "null", "where to consume; null: broker_url"),
    NO_EFFECT(broker_transport, "null", "use broker_url"),
    CUSTOM(broker_transport_options, "{}", apm_set_broker_options, "an object of options of the broker: visibility_timeout, global_keyprefix, sep, priority_steps, ..."),
    CUSTOM(broker_url, "null", apm_set_broker, "where messages are; alternatives separated by ;; null: sqlite:///apium.db, for results too"),
    NO_EFFECT(broker_use_ssl, "false", "use rediss:// or amqps:// with query parameters"),
    NO_EFFECT(broker_user, "null", "use broker_url"),
    NO_EFFECT(broker_vhost, "null", "use broker_url"),
    URL(broker_write_url, "null", "where to publish; null: broker_url"),
    NO_EFFECT(cache_backend, "null", "a backend that apium does not have"),
    NO_EFFECT(cache_backend_options, "null", "a backend that apium does not have"),
    NO_EFFECT(cassandra_auth_kwargs, "null", "a backend that apium does not have"),
    NO_EFFECT(cassandra_auth_provider, "null", "a backend that apium does not have"),
    NO_EFFECT(cassandra_bundle_path, "null", "a backend that apium does not have"),
    NO_EFFECT(cassandra_entry_ttl, "null", "a backend that apium does not have"),
    NO_EFFECT(cassandra_keyspace, "null", "a backend that apium does not have"),
    NO_EFFECT(cassandra_options, "null", "a backend that apium does not have"),
    NO_EFFECT(cassandra_port, "null", "a backend that apium does not have"),
    NO_EFFECT(cassandra_read_consistency, "null", "a backend that apium does not have"),
    NO_EFFECT(cassandra_servers, "null", "a backend that apium does not have"),
    NO_EFFECT(cassandra_table, "null", "a backend that apium does not have"),
    NO_EFFECT(cassandra_write_consistency, "null", "a backend that apium does not have"),
    NO_EFFECT(control_exchange, "\"celery\"", "of remote control"),
    NO_EFFECT(control_queue_durable, "false", "of remote control"),
    NO_EFFECT(control_queue_exclusive, "true", "of remote control"),
    NO_EFFECT(control_queue_expires, "10.0", "of remote control"),
    NO_EFFECT(control_queue_ttl, "300.0", "of remote control"),
    NO_EFFECT(cosmosdbsql_collection_name, "null", "a backend that apium does not have"),
    NO_EFFECT(cosmosdbsql_consistency_level, "null", "a backend that apium does not have"),
    NO_EFFECT(cosmosdbsql_database_name, "null", "a backend that apium does not have"),
    NO_EFFECT(cosmosdbsql_max_retry_attempts, "null", "a backend that apium does not have"),
    NO_EFFECT(cosmosdbsql_max_retry_wait_time, "null", "a backend that apium does not have"),
    NO_EFFECT(couchbase_backend_settings, "null", "a backend that apium does not have"),
    NO_EFFECT(database_create_tables_at_setup, "null", "a backend that apium does not have"),
    NO_EFFECT(database_engine_callback, "null", "a backend that apium does not have"),
    NO_EFFECT(database_engine_options, "null", "a backend that apium does not have"),
    NO_EFFECT(database_short_lived_sessions, "null", "a backend that apium does not have"),
    NO_EFFECT(database_table_names, "null", "a backend that apium does not have"),
    NO_EFFECT(database_table_schemas, "null", "a backend that apium does not have"),
    NO_EFFECT(database_url, "null", "a backend that apium does not have"),
    NO_EFFECT(elasticsearch_max_retries, "null", "apium always tries again"),
    NO_EFFECT(elasticsearch_retry_on_timeout, "null", "apium always tries again"),
    BOOL(elasticsearch_save_meta_as_text, "true", "store documents as text; false: as objects that can be searched"),
    NO_EFFECT(elasticsearch_timeout, "null", "use http_timeout of result_backend_transport_options"),
    BOOL(enable_utc, "true", "dates in UTC"),
    NO_EFFECT(event_exchange, "\"celeryev\"", "of events"),
    NO_EFFECT(event_queue_durable, "false", "of events"),
    NO_EFFECT(event_queue_exclusive, "true", "of events"),
    NO_EFFECT(event_queue_expires, "60.0", "of events"),
    NO_EFFECT(event_queue_prefix, "\"celeryev\"", "of events"),
    NO_EFFECT(event_queue_ttl, "5.0", "of events"),
    NO_EFFECT(event_serializer, "\"json\"", "of events"),
    NO_EFFECT(gcs_base_path, "null", "a backend that apium does not have"),
    NO_EFFECT(gcs_bucket, "null", "a backend that apium does not have"),
    NO_EFFECT(gcs_project, "null", "a backend that apium does not have"),
    NO_EFFECT(gcs_ttl, "null", "a backend that apium does not have"),
    NO_EFFECT(imports, "[]", "Python modules; load tasks with -A"),
    NO_EFFECT(include, "[]", "Python modules; load tasks with -A"),
    NO_EFFECT(mongodb_backend_settings, "null", "a backend that apium does not have"),
    NO_EFFECT(redis_backend_use_ssl, "null", "use result_backend"),
    NO_EFFECT(redis_db, "null", "use result_backend"),
    NO_EFFECT(redis_host, "null", "use result_backend"),
    NO_EFFECT(redis_max_connections, "null", "use result_backend"),
    NO_EFFECT(redis_password, "null", "use result_backend"),
    NO_EFFECT(redis_port, "null", "use result_backend"),
    NO_EFFECT(redis_retry_on_timeout, "false", "apium always reconnects"),
    NO_EFFECT(redis_socket_connect_timeout, "null", "use broker_connection_timeout"),
    NO_EFFECT(redis_socket_keepalive, "false", "keepalive is always on"),
    NO_EFFECT(redis_socket_timeout, "120.0", "every request has a deadline"),
    NO_EFFECT(redis_username, "null", "use result_backend"),
    NO_EFFECT(result_accept_content, "null", "as accept_content"),
    CUSTOM(result_backend, "null", apm_set_backend, "where states and results are; null or disabled: nowhere"),
    NO_EFFECT(result_backend_always_retry, "false", "apium always reconnects"),
    NO_EFFECT(result_backend_base_sleep_between_retries_ms, "10", "apium backs off by itself"),
    NO_EFFECT(result_backend_max_retries, "Infinity", "apium always reconnects"),
    NO_EFFECT(result_backend_max_sleep_between_retries_ms, "10000", "apium backs off by itself"),
    CUSTOM(result_backend_transport_options, "{}", apm_set_backend_options, "an object of options of the backend: global_keyprefix, master_name, result_chord_ordered, http_token, ..."),
    NO_EFFECT(result_cache_max, "-1", "results are not cached"),
    SECONDS(result_chord_join_timeout, "3.0", 0, BIG, "seconds to wait for the parts of a chord"),
    SECONDS(result_chord_retry_interval, "1.0", 0.001, BIG, "seconds between looks at a chord whose parts are counted by polling"),
    CUSTOM(result_compression, "null", apm_set_result_compression, "compression of results sent as messages"),
    NO_EFFECT(result_exchange, "\"celeryresults\"", "results go to the default exchange"),
    NO_EFFECT(result_exchange_type, "\"direct\"", "results go to the default exchange"),
    SECONDS(result_expires, "86400", 0, BIG, "seconds a result is kept; 0 or null for ever"),
    BOOL(result_extended, "false", "store name, arguments, worker, retries and queue with a result"),
    TRI(result_persistent, "null", "results sent as messages survive the broker; null: as the backend does"),
    CUSTOM(result_serializer, "\"json\"", apm_set_result_serializer, "json, yaml or msgpack"),
    TEXT(s3_access_key_id, "null", "key that requests to s3:// are signed with; null: AWS_ACCESS_KEY_ID of the environment"),
    TEXT(s3_base_path, "null", "what keys in the bucket begin with"),
    TEXT(s3_bucket, "null", "bucket of s3://"),
    TEXT(s3_endpoint_url, "null", "server of s3://, if it is not Amazon's"),
    TEXT(s3_region, "null", "region of the bucket; null: AWS_DEFAULT_REGION of the environment, or us-east-1"),
    TEXT(s3_secret_access_key, "null", "secret of s3_access_key_id; null: AWS_SECRET_ACCESS_KEY of the environment"),
    NO_EFFECT(security_cert_store, "null", "messages are not signed"),
    NO_EFFECT(security_certificate, "null", "messages are not signed"),
    NO_EFFECT(security_digest, "\"sha256\"", "messages are not signed"),
    NO_EFFECT(security_key, "null", "messages are not signed"),
    NO_EFFECT(security_key_password, "null", "messages are not signed"),
    BOOL(task_acks_late, "false", "acknowledge after the task has run, not when it begins"),
    TRI(task_acks_on_failure, "null", "acknowledge a late task that failed; null: task_acks_on_failure_or_timeout"),
    BOOL(task_acks_on_failure_or_timeout, "true", "acknowledge a late task that failed or ran out of time"),
    TRI(task_acks_on_timeout, "null", "acknowledge a late task that ran out of time; null: task_acks_on_failure_or_timeout"),
    NO_EFFECT(task_allow_error_cb_on_chord_header, "false", "of workflows"),
    BOOL(task_always_eager, "false", "run tasks in the calling process"),
    JSON(task_annotations, "null", "an object of task names (or \"*\") and attributes that override theirs"),
    INT(task_chain_piece_size, "0", 0, 1000000, "steps of a chain that its messages carry (twice that at most); the rest waits in the result store; 0: all"),
    CUSTOM(task_compression, "null", apm_set_compression, "gzip, bzip2, lzma, brotli or zstd"),
    NO_EFFECT(task_create_missing_queue_exchange_type, "null", "queues made up have a direct exchange"),
    CHOICE(task_create_missing_queue_type, "\"classic\"", "classic|quorum", "type of queues that are made up"),
    BOOL(task_create_missing_queues, "true", "make up queues that task_queues does not name"),
    CUSTOM(task_default_delivery_mode, "2", apm_set_delivery_mode, "2 or persistent, 1 or transient"),
    TEXT(task_default_exchange, "null", "exchange of the default queue; null: its name"),
    CHOICE(task_default_exchange_type, "\"direct\"", "direct|topic|fanout|headers", "type of that exchange"),
    CUSTOM(task_default_priority, "null", apm_set_priority, "priority of tasks that name none"),
    TEXT(task_default_queue, "\"celery\"", "queue of tasks that name none"),
    CHOICE(task_default_queue_type, "\"classic\"", "classic|quorum", "type of the default queue"),
    CUSTOM(task_default_rate_limit, "null", apm_set_rate_limit, "tasks a second, minute or hour: \"10/s\""),
    TEXT(task_default_routing_key, "null", "routing key of the default queue; null: its name"),
    BOOL(task_eager_propagates, "false", "an eager task that fails is an error of the call"),
    BOOL(task_ignore_result, "false", "store no results"),
    BOOL(task_inherit_parent_priority, "false", "what a task sends gets the priority of that task"),
    INT(task_protocol, "2", 1, 2, "message protocol written: 1 or 2"),
    BOOL(task_publish_retry, "true", "try again to publish when the connection is lost"),
    CUSTOM(task_publish_retry_policy, "{\"max_retries\": 3, \"interval_start\": 0, \"interval_max\": 1, \"interval_step\": 0.2}", apm_set_publish_policy, "how often and after how many seconds"),
    INT(task_queue_max_priority, "null", 0, 255, "x-max-priority of all queues; null none"),
    CUSTOM(task_queues, "null", apm_set_queues, "a list of queue names or objects, or an object of them"),
    BOOL(task_reject_on_worker_lost, "null", "give a late task back when its process dies"),
    BOOL(task_remote_tracebacks, "false", "send tracebacks along"),
    CUSTOM(task_routes, "null", apm_set_routes, "an object (or list) of task names, globs or /regular expressions/ and queues or options"),
    BOOL(task_send_sent_event, "false", "send an event for each task sent"),
    CUSTOM(task_serializer, "\"json\"", apm_set_serializer, "json, yaml or msgpack"),
    SECONDS(task_soft_time_limit, "null", 0, BIG, "seconds after which a task is asked to stop; null none"),
    BOOL(task_store_eager_result, "false", "store results of eager tasks"),
    BOOL(task_store_errors_even_if_ignored, "false", "store failures of tasks whose results are ignored"),
    SECONDS(task_time_limit, "null", 0, BIG, "seconds after which a task is ended; null none"),
    BOOL(task_track_started, "false", "store the state STARTED"),
    CUSTOM(timezone, "null", apm_set_timezone, "IANA name of the time zone of dates; null: UTC"),
    NO_EFFECT(worker_agent, "null", "a Python class"),
    NO_EFFECT(worker_autoscaler, "\"celery.worker.autoscale:Autoscaler\"", "a Python class"),
    BOOL(worker_cancel_long_running_tasks_on_connection_loss, "false", "end late tasks when the connection is lost"),
    INT(worker_concurrency, "null", 0, 4096, "tasks at a time; 0 or null: number of CPUs"),
    NO_EFFECT(worker_consumer, "\"celery.worker.consumer:Consumer\"", "a Python class"),
    BOOL(worker_deduplicate_successful_tasks, "false", "accepted without effect"),
    BOOL(worker_detect_quorum_queues, "true", "use per-consumer prefetch with quorum queues"),
    NO_EFFECT(worker_direct, "false", "there are no queues of a single worker"),
    NO_EFFECT(worker_disable_prefetch, "false", "use worker_prefetch_multiplier"),
    BOOL(worker_disable_rate_limits, "false", "ignore rate limits"),
    NO_EFFECT(worker_enable_prefetch_count_reduction, "true", "deliveries still held are recognised"),
    BOOL(worker_enable_remote_control, "true", "listen to remote control"),
    NO_EFFECT(worker_enable_soft_shutdown_on_idle, "false", "an idle worker stops at once"),
    INT(worker_eta_task_limit, "null", 0, INT32_MAX, "tasks with an eta held in memory; 0 or null: no limit"),
    NO_EFFECT(worker_hijack_root_logger, "true", "of Python logging"),
    NO_EFFECT(worker_log_color, "null", "logs have no colours"),
    NO_EFFECT(worker_log_format, "\"[%(asctime)s: %(levelname)s/%(processName)s] %(message)s\"", "use --log-format"),
    SECONDS(worker_lost_wait, "10.0", 0, BIG, "seconds to wait for the result of a lost process"),
    INT(worker_max_memory_per_child, "null", 0, INT64_C(1) << 40, "KiB of memory after which a process is replaced; null none"),
    INT(worker_max_tasks_per_child, "null", 0, INT32_MAX, "tasks after which a process is replaced; null none"),
    CUSTOM(worker_pool, "\"prefork\"", apm_set_pool, "prefork, threads or solo"),
    NO_EFFECT(worker_pool_putlocks, "true", "of Python pools"),
    NO_EFFECT(worker_pool_restarts, "false", "of remote control"),
    CUSTOM(worker_prefetch_multiplier, "4", apm_set_prefetch, "tasks held a process; 0: no limit"),
    SECONDS(worker_proc_alive_timeout, "4.0", 0, BIG, "seconds a new process may take to be ready"),
    BOOL(worker_redirect_stdouts, "true", "accepted without effect: what tasks print goes where the worker's own output goes"),
    CHOICE(worker_redirect_stdouts_level, "\"WARNING\"", "DEBUG|INFO|WARNING|ERROR|CRITICAL", "accepted without effect"),
    BOOL(worker_send_task_events, "false", "send events"),
    SECONDS(worker_soft_shutdown_timeout, "0.0", 0, BIG, "seconds running tasks have before a cold shutdown"),
    NO_EFFECT(worker_state_db, "null", "use --statedb"),
    NO_EFFECT(worker_task_log_format, "\"[%(asctime)s: %(levelname)s/%(processName)s] %(task_name)s[%(task_id)s]: %(message)s\"", "use --log-format"),
    NO_EFFECT(worker_timer, "null", "a Python class"),
    NO_EFFECT(worker_timer_precision, "1.0", "timers are exact"),
};
/* clang-format on */

const size_t apm_setting_count = sizeof apm_setting_table / sizeof *apm_setting_table;
