/* ssl_lib.h - OpenSSL: TLS, and the digests of secrets, loaded when it is first needed (core/base/lib.h). */
#ifndef APM_LINK_SSL_LIB_H
#define APM_LINK_SSL_LIB_H

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/sha.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "core/base/lib.h"

#define APM_SSL_FUNCTIONS(F)                                                                       \
    F(ASN1_OCTET_STRING_free)                                                                      \
    F(BIO_ctrl_pending)                                                                            \
    F(BIO_free)                                                                                    \
    F(BIO_new)                                                                                     \
    F(BIO_read)                                                                                    \
    F(BIO_s_mem)                                                                                   \
    F(BIO_write)                                                                                   \
    F(CRYPTO_memcmp)                                                                               \
    F(ERR_clear_error)                                                                             \
    F(ERR_error_string_n)                                                                          \
    F(ERR_get_error)                                                                               \
    F(ERR_reason_error_string)                                                                     \
    F(OPENSSL_cleanse)                                                                             \
    F(OpenSSL_version)                                                                             \
    F(SHA256)                                                                                      \
    F(SSL_CTX_check_private_key)                                                                   \
    F(SSL_CTX_ctrl)                                                                                \
    F(SSL_CTX_free)                                                                                \
    F(SSL_CTX_load_verify_locations)                                                               \
    F(SSL_CTX_new)                                                                                 \
    F(SSL_CTX_set_default_verify_paths)                                                            \
    F(SSL_CTX_set_options)                                                                         \
    F(SSL_CTX_set_verify)                                                                          \
    F(SSL_CTX_use_PrivateKey_file)                                                                 \
    F(SSL_CTX_use_certificate_chain_file)                                                          \
    F(SSL_ctrl)                                                                                    \
    F(SSL_do_handshake)                                                                            \
    F(SSL_free)                                                                                    \
    F(SSL_get0_param)                                                                              \
    F(SSL_get_error)                                                                               \
    F(SSL_get_verify_result)                                                                       \
    F(SSL_new)                                                                                     \
    F(SSL_read)                                                                                    \
    F(SSL_set1_host)                                                                               \
    F(SSL_set_bio)                                                                                 \
    F(SSL_set_connect_state)                                                                       \
    F(SSL_write)                                                                                   \
    F(TLS_client_method)                                                                           \
    F(X509_VERIFY_PARAM_set1_ip_asc)                                                               \
    F(X509_verify_cert_error_string)                                                               \
    F(a2i_IPADDRESS)

struct apm_ssl {
    APM_SSL_FUNCTIONS(APM_LIB_POINTER)
};
extern struct apm_ssl apm_ssl;

apium_status apm_ssl_load(apium_error *err);

#define ASN1_OCTET_STRING_free             apm_ssl.ASN1_OCTET_STRING_free
#define BIO_ctrl_pending                   apm_ssl.BIO_ctrl_pending
#define BIO_free                           apm_ssl.BIO_free
#define BIO_new                            apm_ssl.BIO_new
#define BIO_read                           apm_ssl.BIO_read
#define BIO_s_mem                          apm_ssl.BIO_s_mem
#define BIO_write                          apm_ssl.BIO_write
#define CRYPTO_memcmp                      apm_ssl.CRYPTO_memcmp
#define ERR_clear_error                    apm_ssl.ERR_clear_error
#define ERR_error_string_n                 apm_ssl.ERR_error_string_n
#define ERR_get_error                      apm_ssl.ERR_get_error
#define ERR_reason_error_string            apm_ssl.ERR_reason_error_string
#define OPENSSL_cleanse                    apm_ssl.OPENSSL_cleanse
#define OpenSSL_version                    apm_ssl.OpenSSL_version
#define SHA256                             apm_ssl.SHA256
#define SSL_CTX_check_private_key          apm_ssl.SSL_CTX_check_private_key
#define SSL_CTX_ctrl                       apm_ssl.SSL_CTX_ctrl
#define SSL_CTX_free                       apm_ssl.SSL_CTX_free
#define SSL_CTX_load_verify_locations      apm_ssl.SSL_CTX_load_verify_locations
#define SSL_CTX_new                        apm_ssl.SSL_CTX_new
#define SSL_CTX_set_default_verify_paths   apm_ssl.SSL_CTX_set_default_verify_paths
#define SSL_CTX_set_options                apm_ssl.SSL_CTX_set_options
#define SSL_CTX_set_verify                 apm_ssl.SSL_CTX_set_verify
#define SSL_CTX_use_PrivateKey_file        apm_ssl.SSL_CTX_use_PrivateKey_file
#define SSL_CTX_use_certificate_chain_file apm_ssl.SSL_CTX_use_certificate_chain_file
#define SSL_ctrl                           apm_ssl.SSL_ctrl
#define SSL_do_handshake                   apm_ssl.SSL_do_handshake
#define SSL_free                           apm_ssl.SSL_free
#define SSL_get0_param                     apm_ssl.SSL_get0_param
#define SSL_get_error                      apm_ssl.SSL_get_error
#define SSL_get_verify_result              apm_ssl.SSL_get_verify_result
#define SSL_new                            apm_ssl.SSL_new
#define SSL_read                           apm_ssl.SSL_read
#define SSL_set1_host                      apm_ssl.SSL_set1_host
#define SSL_set_bio                        apm_ssl.SSL_set_bio
#define SSL_set_connect_state              apm_ssl.SSL_set_connect_state
#define SSL_write                          apm_ssl.SSL_write
#define TLS_client_method                  apm_ssl.TLS_client_method
#define X509_VERIFY_PARAM_set1_ip_asc      apm_ssl.X509_VERIFY_PARAM_set1_ip_asc
#define X509_verify_cert_error_string      apm_ssl.X509_verify_cert_error_string
#define a2i_IPADDRESS                      apm_ssl.a2i_IPADDRESS

#endif
