/* prom.h - the text in which Prometheus is told numbers. A metric is its head, then its samples. */
#ifndef APM_BASE_PROM_H
#define APM_BASE_PROM_H

#include "core/base/buf.h"

#define APM_PROM_TYPE "text/plain; version=0.0.4; charset=utf-8"

/* type: "counter", "gauge", "histogram". */
void apm_prom_head(apm_buf *buf, const char *name, const char *type, const char *help);
/* name="value", quoted as it has to be. */
void apm_prom_label(apm_buf *buf, const char *name, const char *value);
/* A metric with one sample, which has the label unless that is NULL. */
void apm_prom_one(apm_buf *buf, const char *name, const char *type, const char *help,
                  const char *label, const char *label_value, double value);

#endif
