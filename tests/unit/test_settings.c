/* Settings: one table, four sources, and where a task goes. */
#include "core/model/serializer.h"
#include "core/model/settings.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/suite.h"

static apm_settings s;
static apium_error err;

static void
setup(void)
{
    err = (apium_error){ 0 };
    ck_assert_msg(apm_settings_init(&s, &err) == APIUM_OK, "%s", err.text);
}

static void
teardown(void)
{
    apm_settings_clear(&s);
}

static void
set(const char *name, const char *value)
{
    ck_assert_msg(apm_settings_set(&s, name, apm_strz(value), APM_FROM_CODE, &err) == APIUM_OK,
                  "%s", err.text);
}

/* The error that setting it gives. */
static const char *
refusal(const char *name, const char *value)
{
    err.text[0] = '\0';
    ck_assert_int_eq(apm_settings_set(&s, name, apm_strz(value), APM_FROM_CODE, &err),
                     APIUM_E_CONFIG);
    return err.text;
}

static apm_route
route(const char *task, const char *queue, const char *exchange, const char *routing_key,
      int *priority)
{
    apm_choice choice = { queue, exchange, routing_key, *priority };
    apm_route out;

    ck_assert_msg(apm_settings_route(&s, task, &choice, &out, priority, &err) == APIUM_OK, "%s",
                  err.text);
    return out;
}

static const char *
queue_for(const char *task)
{
    int priority = APM_PRIORITY_NONE;

    return route(task, NULL, NULL, NULL, &priority).routing_key;
}

START_TEST(defaults_are_those_of_celery)
{
    ck_assert_str_eq(s.task_default_queue, "celery");
    ck_assert_int_eq(s.worker_prefetch_multiplier, 4);
    ck_assert(!s.prefetch_multiplier_given);
    ck_assert_double_eq(s.result_expires, 86400);
    ck_assert_uint_eq(s.accept_content, APM_ACCEPT_JSON);
    ck_assert(!s.task_acks_late);
    ck_assert(apm_settings_ack_on_failure(&s));
    ck_assert_double_eq(s.visibility_timeout, 3600);
    ck_assert_int_eq(s.n_priority_steps, 4);
    ck_assert_int_eq(s.priority_steps[3], 9);
    ck_assert_str_eq(s.sep, "\x06\x16");
    ck_assert_int_eq(s.task_default_priority, APM_PRIORITY_NONE);
    ck_assert_int_eq(s.publish_max_retries, 3);
    ck_assert_double_eq(s.publish_interval_step, 0.2);
}
END_TEST

START_TEST(without_a_broker_everything_is_in_one_embedded_file)
{
    ck_assert_str_eq(s.broker_url, "sqlite:///apium.db");
    ck_assert_str_eq(s.result_backend, "sqlite:///apium.db");
    set("broker_url", "null");
    ck_assert_str_eq(s.broker_url, "sqlite:///apium.db");
    ck_assert_str_eq(s.result_backend, "sqlite:///apium.db");
}
END_TEST

START_TEST(a_broker_of_ones_own_has_no_backend_unless_one_is_named)
{
    set("broker_url", "redis://localhost/3");
    ck_assert_ptr_null(s.result_backend);
    set("result_backend", "redis://localhost/4");
    set("broker_url", "redis://localhost/5");
    ck_assert_str_eq(s.result_backend, "redis://localhost/4");
    set("result_backend", "disabled://");
    ck_assert_ptr_null(s.result_backend);
}
END_TEST

START_TEST(a_value_of_each_type_is_read_from_json_and_from_bare_text)
{
    set("task_acks_late", "true");
    ck_assert(s.task_acks_late);
    set("task_acks_late", "No");
    ck_assert(!s.task_acks_late);
    set("task_acks_late", "1");
    ck_assert(s.task_acks_late);
    set("task_acks_late", "\"off\"");
    ck_assert(!s.task_acks_late);
    set("worker_concurrency", "8");
    ck_assert_int_eq(s.worker_concurrency, 8);
    set("worker_concurrency", "\"9\"");
    ck_assert_int_eq(s.worker_concurrency, 9);
    set("worker_concurrency", "null");
    ck_assert_int_eq(s.worker_concurrency, 0);
    set("task_time_limit", "2.5");
    ck_assert_double_eq(s.task_time_limit, 2.5);
    set("task_default_queue", "\"a\\u0020b\"");
    ck_assert_str_eq(s.task_default_queue, "a b");
    set("task_default_queue", "17");
    ck_assert_str_eq(s.task_default_queue, "17");
    set("accept_content", "[\"json\", \"application/x-yaml\"]");
    ck_assert_uint_eq(s.accept_content, APM_ACCEPT_JSON | APM_ACCEPT_YAML);
    set("accept_content", "msgpack, json");
    ck_assert_uint_eq(s.accept_content, APM_ACCEPT_JSON | APM_ACCEPT_MSGPACK);
    set("broker_url", "[\"redis://a\", \"redis://b\"]");
    ck_assert_str_eq(s.broker_url, "redis://a;redis://b");
    set("task_default_delivery_mode", "transient");
    ck_assert_int_eq(s.task_default_delivery_mode, 1);
    set("broker_connection_retry_on_startup", "false");
    ck_assert_int_eq(s.broker_connection_retry_on_startup, APM_NO);
    set("worker_prefetch_multiplier", "1");
    ck_assert(s.prefetch_multiplier_given);
    set("worker_pool", "processes");
    ck_assert_str_eq(s.worker_pool, "prefork");
}
END_TEST

START_TEST(a_bad_value_names_setting_value_source_and_what_is_expected)
{
    ck_assert_str_eq(refusal("worker_concurrency", "many"),
                     "setting worker_concurrency: expected a whole number from 0 to 4096, not "
                     "\"many\" (program)");
    ck_assert_str_eq(refusal("task_protocol", "3"),
                     "setting task_protocol: expected a whole number from 1 to 2, not 3 (program)");
    ck_assert_str_eq(
        refusal("worker_concurrency", "1.5"),
        "setting worker_concurrency: expected a whole number from 0 to 4096, not 1.5 (program)");
    ck_assert_ptr_nonnull(strstr(refusal("task_time_limit", "-1"), "seconds from 0"));
    ck_assert_ptr_nonnull(strstr(refusal("task_time_limit", "NaN"), "seconds from 0"));
    ck_assert_ptr_nonnull(strstr(refusal("task_acks_late", "maybe"), "true or false"));
    ck_assert_ptr_nonnull(strstr(refusal("task_serializer", "pickle"), "runs code"));
    ck_assert_ptr_nonnull(strstr(refusal("task_compression", "rar"), "gzip"));
    ck_assert_ptr_nonnull(strstr(refusal("accept_content", "[\"jason\"]"), "json, yaml"));
    ck_assert_ptr_nonnull(strstr(refusal("worker_pool", "gevent"), "prefork, threads or solo"));
    ck_assert_ptr_nonnull(strstr(refusal("timezone", "Mars/Olympus"), "Mars"));
    ck_assert_ptr_nonnull(strstr(refusal("task_default_rate_limit", "10/d"), "10/h"));
}
END_TEST

START_TEST(a_bad_value_changes_nothing)
{
    set("broker_transport_options", "{\"visibility_timeout\": 60}");
    set("task_routes", "{\"a\": \"x\"}");
    refusal("broker_transport_options", "{\"sep\": \":\", \"visibility_timeout\": \"long\"}");
    refusal("task_routes", "{\"a\": \"y\", \"/b/\": \"z\", \"c\": 5}");
    ck_assert_double_eq(s.visibility_timeout, 60);
    ck_assert_str_eq(s.sep, "\x06\x16");
    ck_assert_str_eq(queue_for("a"), "x");
    ck_assert_str_eq(queue_for("b"), "celery");
}
END_TEST

START_TEST(an_unknown_setting_names_the_nearest)
{
    ck_assert_str_eq(refusal("task_ack_late", "1"),
                     "unknown setting task_ack_late (did you mean task_acks_late?)");
    ck_assert_str_eq(refusal("zzzz", "1"), "unknown setting zzzz");
}
END_TEST

START_TEST(a_stronger_source_wins_whatever_the_order)
{
    ck_assert_int_eq(apm_settings_set(&s, "worker_concurrency", APM_STR("7"), APM_FROM_FLAG, &err),
                     APIUM_OK);
    ck_assert_int_eq(apm_settings_set(&s, "worker_concurrency", APM_STR("5"), APM_FROM_FILE, &err),
                     APIUM_OK);
    ck_assert_int_eq(s.worker_concurrency, 7);
}
END_TEST

START_TEST(old_names_are_accepted)
{
    set("CELERY_ACKS_LATE", "true");
    ck_assert(s.task_acks_late);
    set("CELERYD_CONCURRENCY", "3");
    ck_assert_int_eq(s.worker_concurrency, 3);
    set("CELERY_TASK_RESULT_EXPIRES", "60");
    ck_assert_double_eq(s.result_expires, 60);
    set("CELERYD_TASK_TIME_LIMIT", "9");
    ck_assert_double_eq(s.task_time_limit, 9);
    set("BROKER_URL", "memory://");
    ck_assert_str_eq(s.broker_url, "memory://");
    set("CELERY_TASK_TRACK_STARTED", "1");
    ck_assert(s.task_track_started);
}
END_TEST

START_TEST(the_environment_names_any_setting_and_knows_celerys_urls)
{
    char *env[] = { "APIUM_BROKER_URL=redis://ours",
                    "CELERY_BROKER_URL=redis://theirs",
                    "CELERY_RESULT_BACKEND=redis://results",
                    "APIUM_TASK_ACKS_LATE=1",
                    "APIUM_TASK_TIME_LIMIT=",
                    "PATH=/bin",
                    "APIUM_TEST_STRICT=1",
                    NULL };
    char *bad[] = { "APIUM_TASK_ACK_LATE=1", NULL };

    ck_assert_msg(apm_settings_load_env(&s, env, &err) == APIUM_OK, "%s", err.text);
    ck_assert_str_eq(s.broker_url, "redis://ours");
    ck_assert_str_eq(s.result_backend, "redis://results");
    ck_assert(s.task_acks_late);
    ck_assert_double_eq(s.task_time_limit, 0);
    ck_assert_int_eq(apm_settings_load_env(&s, bad, &err), APIUM_E_CONFIG);
    ck_assert_ptr_nonnull(strstr(err.text, "task_acks_late"));
}
END_TEST

/* The settings of a file with that text; its error. */
static const char *
load(const char *text, apium_status expected)
{
    char path[] = "/tmp/apium-settings-XXXXXX";
    int fd = mkstemp(path);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    err.text[0] = '\0';
    apium_status st = apm_settings_load_file(&s, path, &err);
    unlink(path);
    ck_assert_msg(st == expected, "%s", err.text);
    return err.text;
}

START_TEST(a_yaml_file_names_settings_a_line_each)
{
    load("# where\nbroker_url: redis://h/1\ntask_acks_late: yes\nresult_expires: 1:00:00\n"
         "broker_transport_options:\n  visibility_timeout: 99\ntask_routes:\n  'feeds.*': {queue: "
         "feeds}\n"
         "accept_content: [json, yaml]\ntimezone: Europe/Paris\n",
         APIUM_OK);
    ck_assert_str_eq(s.broker_url, "redis://h/1");
    ck_assert(s.task_acks_late);
    ck_assert_double_eq(s.result_expires, 3600);
    ck_assert_double_eq(s.visibility_timeout, 99);
    ck_assert_str_eq(queue_for("feeds.x"), "feeds");
    ck_assert_uint_eq(s.accept_content, APM_ACCEPT_JSON | APM_ACCEPT_YAML);
    ck_assert_str_eq(s.timezone, "Europe/Paris");
    load("", APIUM_OK);
    load("{\"worker_concurrency\": 3}", APIUM_OK); /* JSON is YAML */
    ck_assert_int_eq(s.worker_concurrency, 3);
}
END_TEST

START_TEST(a_bad_file_names_itself_and_what_is_wrong)
{
    ck_assert_ptr_nonnull(
        strstr(load("task_ack_late: yes\n", APIUM_E_CONFIG), "mean task_acks_late?"));
    ck_assert_ptr_nonnull(strstr(err.text, "/tmp/apium-settings-"));
    ck_assert_ptr_nonnull(
        strstr(load("worker_concurrency: many\n", APIUM_E_CONFIG), "(configuration file)"));
    ck_assert_ptr_nonnull(strstr(load("a: b: c\n", APIUM_E_CONFIG), "line 1"));
    ck_assert_ptr_nonnull(strstr(load("- a\n", APIUM_E_CONFIG), "name: value"));
    ck_assert_int_eq(apm_settings_load_file(&s, "/nowhere/apium.conf", &err), APIUM_E_SYSTEM);
    ck_assert_ptr_nonnull(strstr(err.text, "/nowhere/apium.conf"));
}
END_TEST

START_TEST(transport_options_have_known_members)
{
    set("broker_transport_options",
        "{\"visibility_timeout\": 60, \"priority_steps\": [0, 5], \"sep\": \":\", "
        "\"fanout_prefix\": false, "
        "\"sentinel_kwargs\": {\"password\": \"x\"}, \"socket_timeout\": 3}");
    ck_assert_double_eq(s.visibility_timeout, 60);
    ck_assert_int_eq(s.n_priority_steps, 2);
    ck_assert_int_eq(s.priority_steps[1], 5);
    ck_assert_str_eq(s.sep, ":");
    ck_assert_str_eq(s.fanout_prefix, "");
    ck_assert_str_eq(s.sentinel_password, "x");
    set("broker_transport_options", "{}");
    ck_assert_double_eq(s.visibility_timeout, 3600);
    ck_assert_ptr_nonnull(strstr(
        refusal("broker_transport_options", "{\"visibility_timout\": 1}"),
        "unknown member visibility_timout of the options (did you mean visibility_timeout?)"));
    ck_assert_ptr_nonnull(
        strstr(refusal("broker_transport_options", "{\"priority_steps\": [3, 1]}"), "rising"));
    ck_assert_ptr_nonnull(
        strstr(refusal("broker_transport_options", "{\"priority_steps\": []}"), "at least one"));
    ck_assert_ptr_nonnull(strstr(refusal("broker_transport_options", "[]"), "object"));
}
END_TEST

START_TEST(the_result_prefix_gets_its_underscore_as_in_celery)
{
    set("result_backend_transport_options", "{\"global_keyprefix\": \"pfx\"}");
    ck_assert_str_eq(s.result_keyprefix, "pfx_");
    set("result_backend_transport_options", "{\"global_keyprefix\": \"pfx:\"}");
    ck_assert_str_eq(s.result_keyprefix, "pfx:");
    set("result_backend_transport_options", "{\"result_chord_ordered\": false}");
    ck_assert_str_eq(s.result_keyprefix, "");
    ck_assert(!s.result_chord_ordered);
}
END_TEST

START_TEST(a_task_goes_to_the_default_queue_by_the_default_exchange)
{
    int priority = APM_PRIORITY_NONE;
    apm_route to = route("t.add", NULL, NULL, NULL, &priority);

    ck_assert_str_eq(to.exchange, "");
    ck_assert_str_eq(to.routing_key, "celery");
    ck_assert_str_eq(to.queue->name, "celery");
    ck_assert_str_eq(to.queue->exchange, "celery");
    ck_assert(to.queue->durable);
    ck_assert(to.mandatory);
    ck_assert_int_eq(priority, APM_PRIORITY_NONE);
}
END_TEST

START_TEST(routes_match_exact_names_first_then_patterns_in_order)
{
    set("task_routes",
        "{\"feeds.*\": \"glob\", \"feeds.exact\": {\"queue\": \"exact\", \"priority\": 7}, "
        "\"/(video|image)\\\\..*/\": {\"queue\": \"media\"}, \"*.late\": \"late\"}");
    ck_assert_str_eq(queue_for("feeds.x"), "glob");
    ck_assert_str_eq(queue_for("feeds.exact"), "exact");
    ck_assert_str_eq(queue_for("feeds."), "celery"); /* a star is one character at least */
    ck_assert_str_eq(queue_for("image.scale"), "media");
    ck_assert_str_eq(queue_for("my.image.scale"), "celery"); /* from the beginning */
    ck_assert_str_eq(queue_for("a.b.late"), "late");
    int priority = APM_PRIORITY_NONE;
    route("feeds.exact", NULL, NULL, NULL, &priority);
    ck_assert_int_eq(priority, 7);
    priority = 2;
    ck_assert_str_eq(route("feeds.exact", "mine", NULL, NULL, &priority).routing_key, "mine");
    ck_assert_int_eq(priority, 2);
}
END_TEST

START_TEST(routers_are_asked_in_turn)
{
    set("task_routes", "[{\"a.*\": \"first\"}, {\"a.b\": \"second\", \"c\": \"third\"}]");
    ck_assert_str_eq(queue_for("a.b"), "first");
    ck_assert_str_eq(queue_for("c"), "third");
    set("task_routes", "[[[\"a.*\", {\"queue\": \"pairs\"}], [\"a.b\", \"exact\"]]]");
    ck_assert_str_eq(queue_for("a.c"), "pairs");
    ck_assert_str_eq(queue_for("a.b"), "exact");
    set("task_routes", "null");
    ck_assert_str_eq(queue_for("a.b"), "celery");
}
END_TEST

START_TEST(bad_routes_are_refused)
{
    ck_assert_ptr_nonnull(
        strstr(refusal("task_routes", "{\"a\": {\"que\": \"x\"}}"), "did you mean queue?"));
    ck_assert_ptr_nonnull(strstr(refusal("task_routes", "{\"/(/\": \"x\"}"), "/(/"));
    ck_assert_ptr_nonnull(strstr(refusal("task_routes", "[\"my.Router\"]"), "object of patterns"));
    ck_assert_ptr_nonnull(strstr(refusal("task_routes", "{\"a\": 5}"), "queue's name"));
    ck_assert_str_eq(queue_for("a"), "celery");
}
END_TEST

START_TEST(exchange_and_routing_key_given_together_are_used_as_they_are)
{
    int priority = APM_PRIORITY_NONE;
    apm_route to = route("t", NULL, "ex", "rk", &priority);

    ck_assert_str_eq(to.exchange, "ex");
    ck_assert_str_eq(to.routing_key, "rk");
    ck_assert_ptr_null(to.queue);
    to = route("t", NULL, "ex", NULL, &priority); /* one alone is not enough, as in Celery */
    ck_assert_str_eq(to.exchange, "");
    ck_assert_str_eq(to.routing_key, "celery");
    set("task_queues", "[{\"name\": \"q\", \"exchange\": \"ex\", \"exchange_type\": \"topic\", "
                       "\"routing_key\": \"rk\"}]");
    to = route("t", NULL, "ex", "rk", &priority);
    ck_assert_str_eq(to.queue->name, "q");
    ck_assert_int_eq(to.exchange_type, APM_TOPIC);
}
END_TEST

START_TEST(a_topic_queue_is_reached_by_its_exchange)
{
    int priority = APM_PRIORITY_NONE;

    set("task_queues",
        "{\"logs\": {\"exchange\": \"events\", \"exchange_type\": \"topic\", \"binding_key\": "
        "\"logs.#\"}}");
    apm_route to = route("t", "logs", NULL, "logs.error", &priority);
    ck_assert_str_eq(to.exchange, "events");
    ck_assert_str_eq(to.routing_key, "logs.error");
    ck_assert_int_eq(to.exchange_type, APM_TOPIC);
    to = route("t", "logs", NULL, NULL, &priority);
    ck_assert_str_eq(to.routing_key, "logs.#");
}
END_TEST

START_TEST(queues_carry_their_arguments)
{
    const apm_queue *queue;

    set("task_queue_max_priority", "5");
    set("task_create_missing_queue_type", "quorum");
    set("task_queues",
        "[\"plain\", {\"name\": \"q\", \"queue_arguments\": {\"x-max-priority\": 9, "
        "\"x-queue-type\": \"quorum\", \"x-expires\": 60000, \"x-max-length\": 10}}]");
    ck_assert_int_eq(apm_settings_queue(&s, "q", &queue, &err), APIUM_OK);
    ck_assert_int_eq(queue->max_priority, 9);
    ck_assert_str_eq(queue->queue_type, "quorum");
    ck_assert_int_eq(queue->expires_ms, 60000);
    ck_assert_str_eq(queue->arguments, "{\"x-max-length\": 10}");
    ck_assert_int_eq(apm_settings_queue(&s, "plain", &queue, &err), APIUM_OK);
    ck_assert_int_eq(queue->max_priority, 5);
    ck_assert_ptr_null(queue->queue_type);
    ck_assert_int_eq(apm_settings_queue(&s, "other", &queue, &err), APIUM_OK);
    ck_assert_str_eq(queue->exchange, "other");
    ck_assert_str_eq(queue->queue_type, "quorum");
    ck_assert_ptr_nonnull(
        strstr(refusal("task_queues", "[{\"name\": \"q\", \"exchang\": 1}]"), "mean exchange?"));
    ck_assert_ptr_nonnull(strstr(refusal("task_queues", "[{}]"), "no name"));
    ck_assert_ptr_nonnull(
        strstr(refusal("task_queues", "[{\"name\": \"q\", \"exchange_type\": \"x\"}]"), "type x"));
}
END_TEST

START_TEST(a_missing_queue_is_an_error_if_it_may_not_be_made)
{
    const apm_queue *queue;

    set("task_create_missing_queues", "false");
    set("task_queues", "[\"a\"]");
    ck_assert_int_eq(apm_settings_queue(&s, "a", &queue, &err), APIUM_OK);
    ck_assert_int_eq(apm_settings_queue(&s, "b", &queue, &err), APIUM_E_NOTFOUND);
}
END_TEST

START_TEST(a_rate_is_a_number_a_second_minute_or_hour)
{
    double rate;

    ck_assert_int_eq(apm_rate_parse(APM_STR("10/m"), &rate, &err), APIUM_OK);
    ck_assert_double_eq_tol(rate, 10 / 60.0, 1e-12);
    ck_assert_int_eq(apm_rate_parse(APM_STR("0.5"), &rate, &err), APIUM_OK);
    ck_assert_double_eq(rate, 0.5);
    ck_assert_int_eq(apm_rate_parse(APM_STR("x/s"), &rate, &err), APIUM_E_CONFIG);
    ck_assert_int_eq(apm_rate_parse(APM_STR("/s"), &rate, &err), APIUM_E_CONFIG);
    ck_assert_int_eq(apm_rate_parse(APM_STR("1/sec"), &rate, &err), APIUM_E_CONFIG);
}
END_TEST

START_TEST(the_switches_for_failure_and_timeout_inherit)
{
    set("task_acks_on_failure_or_timeout", "false");
    ck_assert(!apm_settings_ack_on_failure(&s));
    ck_assert(!apm_settings_ack_on_timeout(&s));
    set("task_acks_on_timeout", "true");
    ck_assert(!apm_settings_ack_on_failure(&s));
    ck_assert(apm_settings_ack_on_timeout(&s));
}
END_TEST

static void
look(void *arg, const char *name, apm_str value, apm_source source, const char *help)
{
    int *seen = arg;

    ck_assert_ptr_null(memmem(value.p, value.len, "s3cret", 6));
    ck_assert_str_ne(help, "");
    if (strcmp(name, "task_acks_late") == 0) {
        ck_assert(apm_str_eqz(value, "true"));
        ck_assert_int_eq(source, APM_FROM_CODE);
    }
    if (strcmp(name, "beat_schedule") == 0)
        ck_assert_ptr_nonnull(strstr(help, "without effect"));
    ++*seen;
}

START_TEST(every_setting_can_be_listed_without_its_secrets)
{
    int seen = 0;

    set("task_acks_late", "yes");
    set("task_acks_late", "true");
    set("broker_url", "redis://user:s3cret@host/1");
    set("broker_read_url", "[\"redis://:s3cret@a\", \"redis://:s3cret@b\"]");
    set("redis_password", "s3cret");
    set("database_url", "mysql://u:s3cret@h/d");
    set("broker_transport_options", "{\"sentinel_kwargs\": {\"password\": \"s3cret\"}}");
    apm_settings_each(&s, look, &seen);
    ck_assert_int_ge(seen, 180);
}
END_TEST

START_TEST(an_error_shows_no_password)
{
    ck_assert_ptr_null(strstr(
        refusal("broker_transport_options", "{\"x\": 1, \"password\": \"s3cret\"}"), "s3cret"));
}
END_TEST

int
main(void)
{
    const TTest *const tests[] = {
        defaults_are_those_of_celery,
        without_a_broker_everything_is_in_one_embedded_file,
        a_broker_of_ones_own_has_no_backend_unless_one_is_named,
        a_value_of_each_type_is_read_from_json_and_from_bare_text,
        a_bad_value_changes_nothing,
        a_bad_value_names_setting_value_source_and_what_is_expected,
        an_unknown_setting_names_the_nearest,
        a_stronger_source_wins_whatever_the_order,
        old_names_are_accepted,
        the_environment_names_any_setting_and_knows_celerys_urls,
        a_yaml_file_names_settings_a_line_each,
        a_bad_file_names_itself_and_what_is_wrong,
        transport_options_have_known_members,
        the_result_prefix_gets_its_underscore_as_in_celery,
        a_task_goes_to_the_default_queue_by_the_default_exchange,
        routes_match_exact_names_first_then_patterns_in_order,
        routers_are_asked_in_turn,
        bad_routes_are_refused,
        exchange_and_routing_key_given_together_are_used_as_they_are,
        a_topic_queue_is_reached_by_its_exchange,
        queues_carry_their_arguments,
        a_missing_queue_is_an_error_if_it_may_not_be_made,
        a_rate_is_a_number_a_second_minute_or_hour,
        the_switches_for_failure_and_timeout_inherit,
        every_setting_can_be_listed_without_its_secrets,
        an_error_shows_no_password,
        NULL,
    };

    return suite_run_with("settings", tests, 4, setup, teardown);
}
