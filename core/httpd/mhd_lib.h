/* mhd_lib.h - libmicrohttpd, the HTTP server, loaded when it is first needed (core/base/lib.h). */
#ifndef APM_HTTPD_MHD_LIB_H
#define APM_HTTPD_MHD_LIB_H

#include <microhttpd.h>

#include "core/base/lib.h"

#define APM_MHD_FUNCTIONS(F)                                                                       \
    F(MHD_add_response_header)                                                                     \
    F(MHD_create_response_from_buffer)                                                             \
    F(MHD_create_response_from_callback)                                                           \
    F(MHD_destroy_response)                                                                        \
    F(MHD_get_connection_info)                                                                     \
    F(MHD_get_connection_values)                                                                   \
    F(MHD_get_daemon_info)                                                                         \
    F(MHD_get_timeout)                                                                             \
    F(MHD_is_feature_supported)                                                                    \
    F(MHD_lookup_connection_value)                                                                 \
    F(MHD_queue_response)                                                                          \
    F(MHD_resume_connection)                                                                       \
    F(MHD_run)                                                                                     \
    F(MHD_start_daemon)                                                                            \
    F(MHD_stop_daemon)                                                                             \
    F(MHD_suspend_connection)

struct apm_mhd {
    APM_MHD_FUNCTIONS(APM_LIB_POINTER)
};
extern struct apm_mhd apm_mhd;

apium_status apm_mhd_load(apium_error *err);

#define MHD_add_response_header           apm_mhd.MHD_add_response_header
#define MHD_create_response_from_buffer   apm_mhd.MHD_create_response_from_buffer
#define MHD_create_response_from_callback apm_mhd.MHD_create_response_from_callback
#define MHD_destroy_response              apm_mhd.MHD_destroy_response
#define MHD_get_connection_info           apm_mhd.MHD_get_connection_info
#define MHD_get_connection_values         apm_mhd.MHD_get_connection_values
#define MHD_get_daemon_info               apm_mhd.MHD_get_daemon_info
#define MHD_get_timeout                   apm_mhd.MHD_get_timeout
#define MHD_is_feature_supported          apm_mhd.MHD_is_feature_supported
#define MHD_lookup_connection_value       apm_mhd.MHD_lookup_connection_value
#define MHD_queue_response                apm_mhd.MHD_queue_response
#define MHD_resume_connection             apm_mhd.MHD_resume_connection
#define MHD_run                           apm_mhd.MHD_run
#define MHD_start_daemon                  apm_mhd.MHD_start_daemon
#define MHD_stop_daemon                   apm_mhd.MHD_stop_daemon
#define MHD_suspend_connection            apm_mhd.MHD_suspend_connection

#endif
