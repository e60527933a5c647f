/* cjson.c - see apium/cjson.h. */
#include <apium/cjson.h>

#include <math.h>

#include "client/value.h"

/* Is there a number that JSON has not? Nested as deep as cJSON parses. */
static bool
has_strange_number(const cJSON *item, int depth)
{
    if (cJSON_IsNumber(item))
        return !isfinite(item->valuedouble);
    if (depth > CJSON_NESTING_LIMIT)
        return true;
    for (const cJSON *child = item->child; child; child = child->next)
        if (has_strange_number(child, depth + 1))
            return true;
    return false;
}

apium_value
apium_cjson(const cJSON *item)
{
    static const char no_number[] = "a cJSON tree holds NaN or an infinity, or is too deep";
    if (item && has_strange_number(item, 0))
        return (
            apium_value){ .kind = APIUM_BROKEN, .u.text = no_number, .len = sizeof(no_number) - 1 };
    char *text = item ? cJSON_PrintUnformatted(item) : NULL;
    if (!text)
        return apium_jsonn(NULL, 0);
    /* cJSON's memory is not ours to free() when its hooks were replaced. */
    char *copy = strdup(text);
    cJSON_free(text);
    return apium_json_take(copy);
}

cJSON *
apium_cjson_parse(const char *json)
{
    return json ? cJSON_Parse(json) : NULL;
}
