/* mhd_lib.c - see mhd_lib.h */
#include "core/httpd/mhd_lib.h"

#include "config.h"

struct apm_mhd apm_mhd;

apium_status
apm_mhd_load(apium_error *err)
{
    static const char *const names[] = { APM_MHD_FUNCTIONS(APM_LIB_NAME) NULL };
    return apm_lib_load(APM_LIBMICROHTTPD, names, (void **)&apm_mhd, err);
}
