/* metrics.c - how the server is, for Prometheus and for whoever looks after it. */
#include "web/inner.h"

#include "core/base/clock.h"

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

void
apm_metrics_get(apm_web_call *call)
{
    const apm_web *web = call->web;
    apm_buf body;
    apm_buf_init(&body, 65536);
    apm_buf_addz(
        &body, "# HELP apium_web_requests_total Requests answered, by method and class of status.\n"
               "# TYPE apium_web_requests_total counter\n");
    for (size_t m = 0; m < 4; m++)
        for (int group = 2; group <= 5; group++)
            apm_buf_addf(&body, "apium_web_requests_total{method=\"%s\",status=\"%dxx\"} %llu\n",
                         methods[m], group, (unsigned long long)web->answered[m][group]);
    apm_buf_addf(&body,
                 "# HELP apium_web_connections Connections that are open.\n"
                 "# TYPE apium_web_connections gauge\napium_web_connections %zu\n"
                 "# HELP apium_web_waiting Requests that wait for a task.\n"
                 "# TYPE apium_web_waiting gauge\napium_web_waiting %zu\n"
                 "# HELP apium_web_sending Requests whose tasks are being sent.\n"
                 "# TYPE apium_web_sending gauge\napium_web_sending %zu\n"
                 "# HELP apium_web_store_up Whether the result store can be reached.\n"
                 "# TYPE apium_web_store_up gauge\napium_web_store_up %d\n"
                 "# HELP apium_web_uptime_seconds How long the server has run.\n"
                 "# TYPE apium_web_uptime_seconds gauge\napium_web_uptime_seconds %lld\n",
                 apm_httpd_connections(web->httpd), web->waits, web->sending,
                 web->backend->link->up, (long long)(apm_clock_ms() - web->since_ms) / 1000);
    apm_web_reply(call, &(apm_http_reply){ .status = 200,
                                           .type = "text/plain; version=0.0.4; charset=utf-8",
                                           .take = &body });
    apm_buf_clear(&body);
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
