/* metrics.c - how the server is, for Prometheus and for whoever looks after it. */
#include "web/inner.h"

#include "brokers/depths.h"
#include "core/base/clock.h"
#include "core/base/prom.h"

#define BROKER_MS 3000 /* /metrics waits for the broker; Prometheus does not wait much longer */

static const char *const methods[] = { "GET", "PUT", "POST", "DELETE" };

void
apm_web_count(apm_web *web, const char *method, int status)
{
    int group = status / 100;
    size_t m = 0;
    while (m < 3 && strcmp(methods[m], method) != 0)
        m++;
    if (strcmp(methods[m], method) == 0 && group >= 1 && group <= 5)
        web->answered[m][group]++;
}

static void
write_requests(apm_buf *buf, const apm_web *web)
{
    apm_prom_head(buf, "apium_web_requests_total", "counter",
                  "Requests answered, by method and class of status.");
    for (size_t m = 0; m < 4; m++)
        for (int group = 2; group <= 5; group++)
            apm_buf_addf(buf, "apium_web_requests_total{method=\"%s\",status=\"%dxx\"} %llu\n",
                         methods[m], group, (unsigned long long)web->answered[m][group]);
}

/* broker: 1 it has answered, 0 it has not, -1 there is none to ask. */
static void
answer_metrics(apm_web_call *call, const apm_queue_info *queues, size_t n, int broker)
{
    const apm_web *web = call->web;
    const struct {
        const char *name, *help;
        double value;
    } gauges[] = {
        { "apium_web_connections", "Connections that are open.",
          (double)apm_httpd_connections(web->httpd) },
        { "apium_web_waiting", "Requests that wait for a task.", (double)web->waits },
        { "apium_web_sending", "Requests whose tasks are being sent.", (double)web->sending },
        { "apium_web_store_up", "Whether the result store can be reached.",
          web->backend->link->up },
        { "apium_web_uptime_seconds", "How long the server has run.",
          (double)((apm_clock_ms() - web->since_ms) / 1000) },
        { "apium_web_broker_up",
          "Whether the broker has answered when it was asked for its queues.", broker },
    };
    apm_buf body;
    apm_buf_init(&body, APM_BUF_MAX);
    write_requests(&body, web);
    for (size_t i = 0; i < sizeof(gauges) / sizeof(*gauges) - (broker < 0); i++)
        apm_prom_one(&body, gauges[i].name, "gauge", gauges[i].help, NULL, NULL, gauges[i].value);
    apm_depths_write(&body, queues, n);
    apm_web_reply(call, &(apm_http_reply){ .status = 200, .type = APM_PROM_TYPE, .take = &body });
    apm_buf_clear(&body);
}

static void
on_queues(apm_web_call *call, const apm_queue_info *infos, size_t n, const apium_error *err)
{
    answer_metrics(call, infos, n, err == NULL);
}

void
apm_metrics_get(apm_web_call *call)
{
    /* A server that only keeps results makes no embedded broker for being asked how it is. */
    if (call->web->broker || call->web->settings->broker_given)
        apm_web_ask_queues(call, true, BROKER_MS, on_queues);
    else
        answer_metrics(call, NULL, 0, -1);
}

void
apm_health_get(apm_web_call *call)
{
    apm_buf body;
    if (!call->web->backend->link->up) {
        apm_web_error(call, 503, "the result store cannot be reached");
        return;
    }
    apm_buf_init(&body, 64);
    apm_buf_addz(&body, "{\"status\": \"ok\"}");
    apm_web_answer(call, 200, &body);
}
