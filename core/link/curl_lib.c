/* curl_lib.c - see curl_lib.h */
#include "core/link/curl_lib.h"

#include "config.h"

struct apm_curl apm_curl;

apium_status
apm_curl_load(apium_error *err)
{
    static const char *const names[] = { APM_CURL_FUNCTIONS(APM_LIB_NAME) NULL };
    return apm_lib_load(APM_LIBCURL, names, (void **)&apm_curl, err);
}
