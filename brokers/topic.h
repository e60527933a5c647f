/* topic.h - does an exchange of a type send a routing key to a binding? For brokers that route by
 * themselves. */
#ifndef APM_BROKERS_TOPIC_H
#define APM_BROKERS_TOPIC_H

#include "core/model/route.h"

/* Topic patterns are AMQP's: words between dots, `*` stands for one word, `#` for any number, none
 * included. */
bool apm_topic_match(const char *pattern, const char *key);
/* Fanout takes everything, direct (and headers) the equal key, topic what matches. */
bool apm_binding_match(apm_exchange_type type, const char *binding_key, const char *key);

#endif
