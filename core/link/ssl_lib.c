/* ssl_lib.c - see ssl_lib.h */
#include "core/link/ssl_lib.h"

#include "config.h"

struct apm_ssl apm_ssl;

apium_status
apm_ssl_load(apium_error *err)
{
    static const char *const names[] = { APM_SSL_FUNCTIONS(APM_LIB_NAME) NULL };
    return apm_lib_load(APM_LIBSSL, names, (void **)&apm_ssl, err);
}
