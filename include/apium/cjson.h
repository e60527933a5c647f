/*
 * apium/cjson.h - values as cJSON trees, for programs that use that library. Not included by
 * apium.h; compile with `pkg-config --cflags --libs apium libcjson`.
 *
 * cJSON holds every number as a double and ends strings at NUL: integers beyond 2^53 are rounded,
 * 1.0 becomes 1. Where that matters stay with the JSON text, which apium never changes.
 */
#ifndef APIUM_CJSON_H
#define APIUM_CJSON_H

#include <cjson/cJSON.h>

#include <apium/result.h>
#include <apium/task.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A tree as a value; borrowed during this call only. NaN and infinities, which cJSON would write as
 * null, make it broken. */
APIUM_API apium_value apium_cjson(const cJSON *item);
/* JSON text, such as apium_args() or apium_result_json() give, as a tree for cJSON_Delete(). NULL
 * for NULL, without memory, and for what cJSON cannot read (NaN, nesting beyond 1,000). */
APIUM_API cJSON *apium_cjson_parse(const char *json);

#ifdef __cplusplus
}
#endif
#endif
