/*
 * redis_tls.h - TLS between a connection and its socket, by OpenSSL on memory BIOs: the connection owns the socket
 * and the loop, this turns bytes into other bytes. (redis_conn.c is the only caller.)
 */
#ifndef APM_LINK_REDIS_TLS_H
#define APM_LINK_REDIS_TLS_H

#include "core/base/buf.h"
#include "core/link/redis_addr.h"

typedef struct apm_redis_tls apm_redis_tls;

apium_status apm_redis_tls_new(const apm_redis_addr *addr, apm_redis_tls **out, apium_error *err);
void apm_redis_tls_free(apm_redis_tls *tls); /* NULL is fine */
/* Bytes came from the socket: what they say is appended to `plain`, what must be answered to `cipher`. Call it with
 * nothing to begin the handshake. E_CLOSED when the peer ended it, E_REFUSED when the certificate is not accepted. */
apium_status apm_redis_tls_read(apm_redis_tls *tls, const void *p, size_t len, apm_buf *plain, apm_buf *cipher,
                                apium_error *err);
/* Append to `cipher` what says `plain`. Only after apm_redis_tls_ready(). */
apium_status apm_redis_tls_write(apm_redis_tls *tls, apm_str plain, apm_buf *cipher, apium_error *err);
bool apm_redis_tls_ready(const apm_redis_tls *tls);

#endif
