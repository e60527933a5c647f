/* rabbitmq_lib.h - librabbitmq, the codec of AMQP methods and tables, loaded when it is first needed (core/base/lib.h). */
#ifndef APM_LINK_RABBITMQ_LIB_H
#define APM_LINK_RABBITMQ_LIB_H

#if __has_include(<rabbitmq-c/amqp.h>)
#include <rabbitmq-c/amqp.h>
#include <rabbitmq-c/framing.h>
#else
#include <amqp.h>
#include <amqp_framing.h>
#endif

#include "core/base/lib.h"

#define APM_RABBITMQ_FUNCTIONS(F)                                                                  \
    F(amqp_decode_method)                                                                          \
    F(amqp_decode_table)                                                                           \
    F(amqp_encode_method)                                                                          \
    F(amqp_method_has_content)                                                                     \
    F(amqp_method_name)                                                                            \
    F(empty_amqp_pool)                                                                             \
    F(init_amqp_pool)                                                                              \
    F(recycle_amqp_pool)

struct apm_rabbitmq {
    APM_RABBITMQ_FUNCTIONS(APM_LIB_POINTER)
};
extern struct apm_rabbitmq apm_rabbitmq;

apium_status apm_rabbitmq_load(apium_error *err);

#define amqp_decode_method      apm_rabbitmq.amqp_decode_method
#define amqp_decode_table       apm_rabbitmq.amqp_decode_table
#define amqp_encode_method      apm_rabbitmq.amqp_encode_method
#define amqp_method_has_content apm_rabbitmq.amqp_method_has_content
#define amqp_method_name        apm_rabbitmq.amqp_method_name
#define empty_amqp_pool         apm_rabbitmq.empty_amqp_pool
#define init_amqp_pool          apm_rabbitmq.init_amqp_pool
#define recycle_amqp_pool       apm_rabbitmq.recycle_amqp_pool

#endif
