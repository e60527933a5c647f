/* redis_tls.c - see redis_tls.h. */
#include "core/link/redis_tls.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdlib.h>

#include "core/base/error.h"

struct apm_redis_tls {
    SSL_CTX *ctx;
    SSL *ssl;
    BIO *in, *out; /* owned by ssl */
    bool ready;
};

/* "certificate verify failed" and the like; the queue of errors is emptied. */
static const char *
ssl_reason(char *text, size_t size)
{
    unsigned long code = ERR_peek_last_error();
    const char *reason = code ? ERR_reason_error_string(code) : NULL;
    snprintf(text, size, "%s", reason ? reason : "TLS error");
    ERR_clear_error();
    return text;
}

static apium_status
load_files(apm_redis_tls *tls, const apm_redis_addr *addr, apium_error *err)
{
    char why[128];

    if (addr->ca_file) {
        if (SSL_CTX_load_verify_locations(tls->ctx, addr->ca_file, NULL) != 1)
            return apm_fail(err, APIUM_E_CONFIG, "cannot load ssl_ca_certs \"%s\": %s", addr->ca_file,
                            ssl_reason(why, sizeof(why)));
    } else if (SSL_CTX_set_default_verify_paths(tls->ctx) != 1) {
        return apm_fail(err, APIUM_E_SYSTEM, "cannot find the system's certificates: %s",
                        ssl_reason(why, sizeof(why)));
    }
    if (addr->cert_file && SSL_CTX_use_certificate_chain_file(tls->ctx, addr->cert_file) != 1)
        return apm_fail(err, APIUM_E_CONFIG, "cannot load ssl_certfile \"%s\": %s", addr->cert_file,
                        ssl_reason(why, sizeof(why)));
    const char *key = addr->key_file ? addr->key_file : addr->cert_file;
    if (key && SSL_CTX_use_PrivateKey_file(tls->ctx, key, SSL_FILETYPE_PEM) != 1)
        return apm_fail(err, APIUM_E_CONFIG, "cannot load ssl_keyfile \"%s\": %s", key,
                        ssl_reason(why, sizeof(why)));
    return APIUM_OK;
}

/* The certificate must be for the host of the URL, be it a name or an address. */
static bool
expect_host(SSL *ssl, const char *host)
{
    unsigned char bytes[sizeof(struct in6_addr)];
    X509_VERIFY_PARAM *param = SSL_get0_param(ssl);

    if (inet_pton(AF_INET, host, bytes) == 1 || inet_pton(AF_INET6, host, bytes) == 1)
        return X509_VERIFY_PARAM_set1_ip_asc(param, host) == 1;
    return SSL_set1_host(ssl, host) == 1 && SSL_set_tlsext_host_name(ssl, host) == 1;
}

apium_status
apm_redis_tls_new(const apm_redis_addr *addr, apm_redis_tls **out, apium_error *err)
{
    apium_status st = APIUM_OK;
    apm_redis_tls *tls = calloc(1, sizeof(*tls));

    if (!tls)
        return apm_fail(err, APIUM_E_NOMEM, "cannot set up TLS: out of memory");
    tls->ctx = SSL_CTX_new(TLS_client_method());
    if (!tls->ctx || SSL_CTX_set_min_proto_version(tls->ctx, TLS1_2_VERSION) != 1) {
        st = apm_fail(err, APIUM_E_NOMEM, "cannot set up TLS");
        goto out;
    }
    SSL_CTX_set_mode(tls->ctx, SSL_MODE_AUTO_RETRY | SSL_MODE_RELEASE_BUFFERS);
    st = load_files(tls, addr, err);
    if (st != APIUM_OK)
        goto out;
    tls->ssl = SSL_new(tls->ctx);
    tls->in = BIO_new(BIO_s_mem());
    tls->out = BIO_new(BIO_s_mem());
    if (!tls->ssl || !tls->in || !tls->out) {
        BIO_free(tls->in);
        BIO_free(tls->out);
        st = apm_fail(err, APIUM_E_NOMEM, "cannot set up TLS");
        goto out;
    }
    SSL_set_bio(tls->ssl, tls->in, tls->out);
    SSL_set_connect_state(tls->ssl);
    /* A server always shows a certificate, so for a client "optional" verifies what it shows, as in Python. */
    SSL_set_verify(tls->ssl, addr->verify == APM_VERIFY_NONE ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, NULL);
    if (addr->verify != APM_VERIFY_NONE && !expect_host(tls->ssl, addr->host)) {
        st = apm_fail(err, APIUM_E_CONFIG, "cannot verify certificates for the host \"%s\"", addr->host);
        goto out;
    }
    *out = tls;
    tls = NULL;
out:
    apm_redis_tls_free(tls);
    return st;
}

void
apm_redis_tls_free(apm_redis_tls *tls)
{
    if (!tls)
        return;
    SSL_free(tls->ssl);
    SSL_CTX_free(tls->ctx);
    free(tls);
}

/* Move what OpenSSL wants to send into `cipher`. */
static apium_status
drain(apm_redis_tls *tls, apm_buf *cipher, apium_error *err)
{
    size_t pending;

    while ((pending = BIO_ctrl_pending(tls->out)) > 0) {
        char *room = apm_buf_reserve(cipher, pending);
        if (!room)
            return apm_fail(err, APIUM_E_NOMEM, "cannot encrypt: out of memory");
        int n = BIO_read(tls->out, room, (int)(pending < INT32_MAX ? pending : INT32_MAX));
        if (n <= 0)
            break;
        cipher->len += (size_t)n;
    }
    return APIUM_OK;
}

static apium_status
refused(apm_redis_tls *tls, apium_error *err)
{
    char why[128];
    long verdict = SSL_get_verify_result(tls->ssl);

    ssl_reason(why, sizeof(why));
    if (!tls->ready && verdict != X509_V_OK)
        return apm_fail(err, APIUM_E_REFUSED, "the server's certificate is not accepted: %s",
                        X509_verify_cert_error_string(verdict));
    return apm_fail(err, tls->ready ? APIUM_E_CLOSED : APIUM_E_REFUSED, "TLS: %s", why);
}

apium_status
apm_redis_tls_read(apm_redis_tls *tls, const void *p, size_t len, apm_buf *plain, apm_buf *cipher, apium_error *err)
{
    const char *at = p;
    size_t left = len;

    while (left) { /* BIO_write takes an int */
        int n = BIO_write(tls->in, at, (int)(left < (1 << 20) ? left : 1 << 20));
        if (n <= 0)
            return apm_fail(err, APIUM_E_NOMEM, "cannot decrypt: out of memory");
        at += n;
        left -= (size_t)n;
    }
    ERR_clear_error();
    if (!tls->ready) {
        int rc = SSL_do_handshake(tls->ssl);
        if (rc == 1)
            tls->ready = true;
        else if (SSL_get_error(tls->ssl, rc) != SSL_ERROR_WANT_READ)
            return refused(tls, err);
    }
    while (tls->ready) {
        char *room = apm_buf_reserve(plain, 16384);
        if (!room)
            return apm_fail(err, APIUM_E_NOMEM, "cannot decrypt: out of memory");
        int n = SSL_read(tls->ssl, room, 16384);
        if (n > 0) {
            plain->len += (size_t)n;
            continue;
        }
        int why = SSL_get_error(tls->ssl, n);
        if (why == SSL_ERROR_WANT_READ)
            break;
        if (why == SSL_ERROR_ZERO_RETURN)
            return apm_fail(err, APIUM_E_CLOSED, "the server closed the connection");
        return refused(tls, err);
    }
    return drain(tls, cipher, err);
}

apium_status
apm_redis_tls_write(apm_redis_tls *tls, apm_str plain, apm_buf *cipher, apium_error *err)
{
    while (plain.len) {
        ERR_clear_error();
        int n = SSL_write(tls->ssl, plain.p, (int)(plain.len < (1 << 20) ? plain.len : 1 << 20));
        if (n <= 0)
            return refused(tls, err);
        plain.p += n;
        plain.len -= (size_t)n;
    }
    return drain(tls, cipher, err);
}

bool
apm_redis_tls_ready(const apm_redis_tls *tls)
{
    return tls->ready;
}
