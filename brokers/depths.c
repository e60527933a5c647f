/* depths.c - see depths.h. celery_queue_length is celery-exporter's; its celery_active_consumer_count is no name that promtool takes. */
#include "brokers/depths.h"

#include "core/base/prom.h"

static const struct {
    const char *name, *help;
    size_t at; /* of an int64_t in the info; 0: the age */
} gauges[] = {
    { "celery_queue_length", "Messages of the queue that wait and that no worker has.",
      offsetof(apm_queue_info, ready) },
    { "apium_queue_oldest_age_seconds",
      "How long the first message waits; 0 when none does. Absent where nobody knows.", 0 },
    { "apium_queue_unacked", "Messages of the queue that workers hold.",
      offsetof(apm_queue_info, unacked) },
    { "apium_queue_parked", "Messages of the queue that are kept until their eta.",
      offsetof(apm_queue_info, parked) },
    { "apium_queue_dead", "Messages of the queue that were refused and are kept.",
      offsetof(apm_queue_info, dead) },
    { "apium_queue_consumers", "Consumers of the queue.", offsetof(apm_queue_info, consumers) },
};

static bool
value_of(const apm_queue_info *info, size_t at, double *value)
{
    if (at == 0) {
        bool known = apm_queue_age(info, value);
        return known || info->ready == 0;
    }
    int64_t count = *(const int64_t *)(const void *)((const char *)info + at);
    *value = (double)count;
    return count >= 0;
}

void
apm_depths_write(apm_buf *buf, const apm_queue_info *infos, size_t n)
{
    for (size_t g = 0; g < sizeof(gauges) / sizeof(*gauges); g++) {
        bool headed = false;
        for (size_t i = 0; i < n; i++) {
            double value;
            if (!value_of(&infos[i], gauges[g].at, &value))
                continue;
            if (!headed)
                apm_prom_head(buf, gauges[g].name, "gauge", gauges[g].help);
            headed = true;
            apm_buf_addf(buf, "%s{", gauges[g].name);
            apm_prom_label(buf, "queue_name", infos[i].name);
            apm_buf_addf(buf, "} %.9g\n", value);
        }
    }
}
