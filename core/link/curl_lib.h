/* curl_lib.h - libcurl, the HTTP client, loaded when it is first needed (core/base/lib.h). */
#ifndef APM_LINK_CURL_LIB_H
#define APM_LINK_CURL_LIB_H

#define CURL_DISABLE_TYPECHECK
#include <curl/curl.h>

#include "core/base/lib.h"

#undef curl_easy_setopt
#undef curl_easy_getinfo
#undef curl_multi_setopt

#define APM_CURL_FUNCTIONS(F)                                                                      \
    F(curl_easy_cleanup)                                                                           \
    F(curl_easy_getinfo)                                                                           \
    F(curl_easy_init)                                                                              \
    F(curl_easy_reset)                                                                             \
    F(curl_easy_setopt)                                                                            \
    F(curl_easy_strerror)                                                                          \
    F(curl_global_init)                                                                            \
    F(curl_multi_add_handle)                                                                       \
    F(curl_multi_assign)                                                                           \
    F(curl_multi_cleanup)                                                                          \
    F(curl_multi_info_read)                                                                        \
    F(curl_multi_init)                                                                             \
    F(curl_multi_remove_handle)                                                                    \
    F(curl_multi_setopt)                                                                           \
    F(curl_multi_socket_action)                                                                    \
    F(curl_slist_append)                                                                           \
    F(curl_slist_free_all)

struct apm_curl {
    APM_CURL_FUNCTIONS(APM_LIB_POINTER)
};
extern struct apm_curl apm_curl;

apium_status apm_curl_load(apium_error *err);

#define curl_easy_cleanup        apm_curl.curl_easy_cleanup
#define curl_easy_getinfo        apm_curl.curl_easy_getinfo
#define curl_easy_init           apm_curl.curl_easy_init
#define curl_easy_reset          apm_curl.curl_easy_reset
#define curl_easy_setopt         apm_curl.curl_easy_setopt
#define curl_easy_strerror       apm_curl.curl_easy_strerror
#define curl_global_init         apm_curl.curl_global_init
#define curl_multi_add_handle    apm_curl.curl_multi_add_handle
#define curl_multi_assign        apm_curl.curl_multi_assign
#define curl_multi_cleanup       apm_curl.curl_multi_cleanup
#define curl_multi_info_read     apm_curl.curl_multi_info_read
#define curl_multi_init          apm_curl.curl_multi_init
#define curl_multi_remove_handle apm_curl.curl_multi_remove_handle
#define curl_multi_setopt        apm_curl.curl_multi_setopt
#define curl_multi_socket_action apm_curl.curl_multi_socket_action
#define curl_slist_append        apm_curl.curl_slist_append
#define curl_slist_free_all      apm_curl.curl_slist_free_all

#endif
