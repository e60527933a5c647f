/*
 * tls.h - one TLS session over bytes that somebody else carries: OpenSSL on memory, no socket.
 * What comes from the peer is fed in, plain text comes out, and what has to go to the peer is drained.
 */
#ifndef APM_LINK_TLS_H
#define APM_LINK_TLS_H

#include <apium/status.h>

#include "core/base/buf.h"
#include "core/base/url.h"

typedef enum apm_tls_verify {
    APM_TLS_REQUIRED, /* the peer's certificate must be good and name the host */
    APM_TLS_OPTIONAL, /* good if there is one; the name is not looked at */
    APM_TLS_NONE,     /* anything goes */
} apm_tls_verify;

/* All text is borrowed while the session is made. Zero: verify with the system's authorities. */
typedef struct apm_tls_opts {
    const char *ca_certs;           /* file or directory; NULL: the system's */
    const char *certfile, *keyfile; /* our own certificate; NULL: none. keyfile NULL: in certfile */
    apm_tls_verify verify;
    bool any_hostname;       /* do not compare the name */
    const char *server_name; /* to compare and to send (SNI); NULL: the host connected to */
} apm_tls_opts;

/* Read ssl_ca_certs, ssl_certfile, ssl_keyfile, ssl_cert_reqs (none, optional, required, with or without
 * Python's CERT_), ssl_check_hostname and ssl_server_hostname from a URL's query. E_CONFIG names the parameter. */
apium_status
apm_tls_from_url(apm_tls_opts *opts, apm_urls *urls, const apm_url *url, apium_error *err);

typedef struct apm_tls apm_tls;

/* E_CONFIG names the file that cannot be used. */
apium_status
apm_tls_new(apm_tls **out, const apm_tls_opts *opts, const char *host, apium_error *err);
void apm_tls_free(apm_tls *tls); /* NULL is fine */
/* Bytes from the peer; appends the plain text they give to `plain`, and sets *ready once the handshake is done. E_REFUSED is
 * a certificate that is not accepted (err says why), E_CLOSED the end. */
apium_status apm_tls_feed(apm_tls *tls, const char *p, size_t len, apm_buf *plain, bool *ready,
                          apium_error *err);
/* Encrypt; only once ready. */
apium_status apm_tls_write(apm_tls *tls, const char *p, size_t len, apium_error *err);
/* Append what has to be sent to the peer. */
void apm_tls_drain(apm_tls *tls, apm_buf *out);

#endif
