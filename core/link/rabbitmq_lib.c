/* rabbitmq_lib.c - see rabbitmq_lib.h */
#include "core/link/rabbitmq_lib.h"

#include "config.h"

struct apm_rabbitmq apm_rabbitmq;

apium_status
apm_rabbitmq_load(apium_error *err)
{
    static const char *const names[] = { APM_RABBITMQ_FUNCTIONS(APM_LIB_NAME) NULL };
    return apm_lib_load(APM_LIBRABBITMQ, names, (void **)&apm_rabbitmq, err);
}
