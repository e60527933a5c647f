/* flower.h - a task in the form in which Flower shows it. */
#ifndef APM_WEB_FLOWER_H
#define APM_WEB_FLOWER_H

#include "core/model/result.h"
#include "web/inner.h"

/* All of Flower's fields; what only events know is null. */
void apm_flower_write_task(apm_buf *buf, apm_str id, const apm_result_doc *doc);
/* Answer by the task args[0] as its result: doc absent, nothing is known of it. */
void apm_flower_answer_result(apm_web_call *call, apm_str doc);
/* The options of apply_async among the members of a body, as JSON members; and "timeout", if it is there. false: the call is answered. */
bool apm_flower_options(apm_web_call *call, apm_json body, apm_buf *options, int64_t *timeout_ms);

#endif
