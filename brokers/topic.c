/* topic.c - see topic.h */
#include "brokers/topic.h"

#define MAX_WORDS 128 /* a routing key is at most 255 bytes */

static size_t
split(const char *text, apm_str words[MAX_WORDS])
{
    size_t n = 0;

    while (*text && n < MAX_WORDS) {
        size_t len = strcspn(text, ".");
        words[n++] = (apm_str){ text, len };
        if (!text[len])
            break;
        text += len + 1;
        if (!*text && n < MAX_WORDS)
            words[n++] = APM_STR(""); /* "a." has two words */
    }
    return n;
}

bool
apm_topic_match(const char *pattern, const char *key)
{
    apm_str want[MAX_WORDS], have[MAX_WORDS];
    size_t n_want = split(pattern, want), n_have = split(key, have);
    size_t w = 0, h = 0, after_hash = 0, hash_at = 0;

    /* As with globs: on a mismatch the last `#` takes one word more. after_hash is 0 while there
     * was none. */
    while (h < n_have) {
        if (w < n_want && apm_str_eqz(want[w], "#")) {
            after_hash = ++w;
            hash_at = h;
        } else if (w < n_want && (apm_str_eqz(want[w], "*") || apm_str_eq(want[w], have[h]))) {
            w++;
            h++;
        } else if (after_hash) {
            w = after_hash;
            h = ++hash_at;
        } else {
            return false;
        }
    }
    while (w < n_want && apm_str_eqz(want[w], "#"))
        w++;
    return w == n_want;
}

bool
apm_binding_match(apm_exchange_type type, const char *binding_key, const char *key)
{
    switch (type) {
    case APM_FANOUT:
        return true;
    case APM_TOPIC:
        return apm_topic_match(binding_key, key);
    case APM_DIRECT:
    case APM_HEADERS:
        break;
    }
    return strcmp(binding_key, key) == 0;
}
