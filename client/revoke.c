/* revoke.c - Celery's control message `revoke`, for all tasks of a run; see apium/run.h. */
#include "client/runs.h"
#include "core/base/error.h"

/* Where Celery's nodes listen; control_exchange is not among the settings that change anything here. */
#define CONTROL_EXCHANGE "celery.pidbox"

static apium_status
add_id(void *arg, apium_run *run, apium_error *err)
{
    apm_buf *body = arg;
    (void)err;
    if (body->p[body->len - 1] != '[')
        apm_buf_addz(body, ", ");
    apm_json_add_stringz(body, run->id);
    return APIUM_OK;
}

static apium_status
write_body(apm_buf *body, apium_run *run, const char *terminate, apium_error *err)
{
    apm_buf_addz(body, "{\"method\": \"revoke\", \"arguments\": {\"task_id\": [");
    apium_status st = body->failed ? APIUM_E_NOMEM : apm_run_each(run, add_id, body, err);
    apm_buf_addf(body, "], \"terminate\": %s, \"signal\": ", terminate ? "true" : "false");
    apm_json_add_stringz(body, terminate);
    apm_buf_addz(body, "}, \"destination\": null, \"pattern\": null, \"matcher\": null}");
    if (st == APIUM_OK && body->failed)
        st = apm_fail(err, APIUM_E_NOMEM, "out of memory");
    return st;
}

static apium_status
broadcast(apm_conn *conn, apm_broker *broker, apm_str body, apium_error *err)
{
    const apm_route route = { .exchange = CONTROL_EXCHANGE,
                              .routing_key = "",
                              .exchange_type = APM_FANOUT };
    const apm_message msg = { .content_type = APM_STR("application/json"),
                              .content_encoding = APM_STR("utf-8"),
                              .headers = APM_STR("{\"clock\": 1, \"expires\": 0}"),
                              .body = body,
                              .priority = 0,
                              .delivery_mode = 2,
                              .exchange = APM_STR(CONTROL_EXCHANGE),
                              .routing_key = APM_STR("") };
    apm_unit *unit = apm_unit_new(broker->link);
    apm_answer *answer = apm_answer_new();
    apium_status st = unit && answer ? APIUM_OK : apm_fail(err, APIUM_E_NOMEM, "out of memory");
    if (st == APIUM_OK)
        st = apm_broker_publish(broker, unit, &route, &msg, err);
    if (st == APIUM_OK) {
        apm_unit_commit(unit, apm_answer_done, answer);
        st = apm_answer_wait(conn, &answer, err);
    } else {
        apm_unit_drop(unit);
    }
    apm_answer_free(answer);
    return st;
}

apium_status
apium_revoke(apium_run *run, const char *terminate, apium_error *err)
{
    apm_conn *conn;
    apm_broker *broker = NULL;
    apium_error why;
    apm_buf body;

    if (terminate && (!*terminate || !apm_utf8_valid(apm_strz(terminate), false)))
        return apm_fail(err, APIUM_E_INVALID, "cannot revoke %s: no signal is named", run->id);
    apium_status st = apm_conn_get(run->app, &conn, &why);
    if (st == APIUM_OK)
        st = apm_conn_broker(conn, &broker, &why);
    if (st == APIUM_OK && !(broker->ops->features & APM_BROKER_FANOUT))
        st = apm_fail(&why, APIUM_E_UNSUPPORTED, "%s has no broadcasts that reach workers",
                      broker->ops->name);
    apm_buf_init(&body, APM_BUF_MAX);
    if (st == APIUM_OK)
        st = write_body(&body, run, terminate, &why);
    if (st == APIUM_OK)
        st = broadcast(conn, broker, apm_buf_str(&body), &why);
    apm_buf_clear(&body);
    return st == APIUM_OK ? st : apm_run_words(err, "revoke", run, &why);
}
