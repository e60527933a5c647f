/* tls.c - OpenSSL between two memory buffers; see tls.h. */
#include "core/link/tls.h"

#include <errno.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/stat.h>

#include "core/base/error.h"
#include "core/link/ssl_lib.h"

struct apm_tls {
    SSL_CTX *ctx;
    SSL *ssl;
    BIO *in, *out; /* owned by ssl */
    bool ready;
};

/* The first error that OpenSSL has queued, as text; the queue is emptied. */
static const char *
ssl_why(char *text, size_t size)
{
    unsigned long code = ERR_get_error();

    if (code == 0)
        snprintf(text, size, "the peer ended the session");
    else
        ERR_error_string_n(code, text, size);
    ERR_clear_error();
    const char *reason = code ? ERR_reason_error_string(code) : NULL;
    return reason ? reason : text;
}

apium_status
apm_tls_from_url(apm_tls_opts *opts, apm_urls *urls, const apm_url *url, apium_error *err)
{
    *opts = (apm_tls_opts){
        .ca_certs = apm_url_param(urls, url, "ssl_ca_certs"),
        .certfile = apm_url_param(urls, url, "ssl_certfile"),
        .keyfile = apm_url_param(urls, url, "ssl_keyfile"),
        .server_name = apm_url_param(urls, url, "ssl_server_hostname"),
    };
    const char *reqs = apm_url_param(urls, url, "ssl_cert_reqs");
    if (reqs) {
        const char *word = strncasecmp(reqs, "CERT_", 5) == 0 ? reqs + 5 : reqs;
        if (strcasecmp(word, "none") == 0)
            opts->verify = APM_TLS_NONE;
        else if (strcasecmp(word, "optional") == 0)
            opts->verify = APM_TLS_OPTIONAL;
        else if (strcasecmp(word, "required") != 0)
            return apm_fail(err, APIUM_E_CONFIG,
                            "ssl_cert_reqs is \"%.40s\": it is one of none, optional, required",
                            reqs);
    }
    const char *check = apm_url_param(urls, url, "ssl_check_hostname");
    opts->any_hostname = check && (strcasecmp(check, "false") == 0 || strcmp(check, "0") == 0 ||
                                   strcasecmp(check, "no") == 0);
    return APIUM_OK;
}

static apium_status
load_files(SSL_CTX *ctx, const apm_tls_opts *opts, apium_error *err)
{
    char text[160];

    if (opts->ca_certs) {
        struct stat st;
        bool folder = stat(opts->ca_certs, &st) == 0 && S_ISDIR(st.st_mode);
        if (SSL_CTX_load_verify_locations(ctx, folder ? NULL : opts->ca_certs,
                                          folder ? opts->ca_certs : NULL) != 1)
            return apm_fail(err, APIUM_E_CONFIG, "cannot use the authorities in \"%s\": %s",
                            opts->ca_certs, ssl_why(text, sizeof(text)));
    } else {
        SSL_CTX_set_default_verify_paths(ctx);
    }
    if (!opts->certfile)
        return APIUM_OK;
    if (SSL_CTX_use_certificate_chain_file(ctx, opts->certfile) != 1)
        return apm_fail(err, APIUM_E_CONFIG, "cannot use the certificate in \"%s\": %s",
                        opts->certfile, ssl_why(text, sizeof(text)));
    const char *key = opts->keyfile ? opts->keyfile : opts->certfile;
    if (SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_check_private_key(ctx) != 1)
        return apm_fail(err, APIUM_E_CONFIG, "cannot use the key in \"%s\": %s", key,
                        ssl_why(text, sizeof(text)));
    return APIUM_OK;
}

apium_status
apm_tls_new(apm_tls **out, const apm_tls_opts *opts, const char *host, apium_error *err)
{
    apium_status st = apm_ssl_load(err);
    apm_tls *tls = st == APIUM_OK ? calloc(1, sizeof(*tls)) : NULL;

    if (st != APIUM_OK)
        return st;
    if (!tls || !(tls->ctx = SSL_CTX_new(TLS_client_method()))) {
        st = apm_fail(err, APIUM_E_NOMEM, "cannot start TLS: out of memory");
        goto out;
    }
    SSL_CTX_set_min_proto_version(tls->ctx, TLS1_2_VERSION);
    /* A peer that closes without a close_notify is an ordinary end of file to us: the protocols above frame their data. */
    SSL_CTX_set_options(tls->ctx, SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_mode(tls->ctx, SSL_MODE_RELEASE_BUFFERS);
    if ((st = load_files(tls->ctx, opts, err)) != APIUM_OK)
        goto out;
    SSL_CTX_set_verify(tls->ctx, opts->verify == APM_TLS_NONE ? SSL_VERIFY_NONE : SSL_VERIFY_PEER,
                       NULL);

    tls->ssl = SSL_new(tls->ctx);
    tls->in = BIO_new(BIO_s_mem());
    tls->out = BIO_new(BIO_s_mem());
    if (!tls->ssl || !tls->in || !tls->out) {
        BIO_free(tls->in);
        BIO_free(tls->out);
        st = apm_fail(err, APIUM_E_NOMEM, "cannot start TLS: out of memory");
        goto out;
    }
    SSL_set_bio(tls->ssl, tls->in, tls->out);
    SSL_set_connect_state(tls->ssl);

    const char *name = opts->server_name ? opts->server_name : host;
    ASN1_OCTET_STRING *ip = a2i_IPADDRESS(name);
    ERR_clear_error();
    bool compare = opts->verify == APM_TLS_REQUIRED && !opts->any_hostname;
    if (ip) {
        ASN1_OCTET_STRING_free(ip);
        if (compare)
            X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(tls->ssl), name);
    } else {
        SSL_set_tlsext_host_name(tls->ssl, name);
        if (compare)
            SSL_set1_host(tls->ssl, name);
    }
    /* The first flight of the handshake is ready to be drained after this. */
    SSL_do_handshake(tls->ssl);
    ERR_clear_error();
    *out = tls;
    tls = NULL;
out:
    apm_tls_free(tls);
    return st;
}

void
apm_tls_free(apm_tls *tls)
{
    if (!tls)
        return;
    SSL_free(tls->ssl);
    SSL_CTX_free(tls->ctx);
    free(tls);
}

static apium_status
fail_handshake(apm_tls *tls, apium_error *err)
{
    char text[160];
    long verdict = SSL_get_verify_result(tls->ssl);

    if (verdict != X509_V_OK) {
        ERR_clear_error();
        return apm_fail(err, APIUM_E_REFUSED, "the server's certificate is not accepted: %s",
                        X509_verify_cert_error_string(verdict));
    }
    return apm_fail(err, APIUM_E_REFUSED, "TLS handshake: %s", ssl_why(text, sizeof(text)));
}

apium_status
apm_tls_feed(apm_tls *tls, const char *p, size_t len, apm_buf *plain, bool *ready, apium_error *err)
{
    if (len > 0 && BIO_write(tls->in, p, (int)len) != (int)len)
        return apm_fail(err, APIUM_E_NOMEM, "cannot read from the TLS session: out of memory");
    if (!tls->ready) {
        ERR_clear_error();
        int rc = SSL_do_handshake(tls->ssl);
        if (rc == 1)
            tls->ready = true;
        else if (SSL_get_error(tls->ssl, rc) != SSL_ERROR_WANT_READ)
            return fail_handshake(tls, err);
    }
    *ready = tls->ready;
    while (tls->ready) {
        char *room = apm_buf_reserve(plain, 16384);
        if (!room)
            return apm_fail(err, APIUM_E_NOMEM, "cannot read from the TLS session: out of memory");
        ERR_clear_error();
        int got = SSL_read(tls->ssl, room, 16384);
        if (got > 0) {
            plain->len += (size_t)got;
            continue;
        }
        int why = SSL_get_error(tls->ssl, got);
        if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE)
            break;
        char text[160];
        return apm_fail(err, APIUM_E_CLOSED, "TLS: %s", ssl_why(text, sizeof(text)));
    }
    return APIUM_OK;
}

apium_status
apm_tls_write(apm_tls *tls, const char *p, size_t len, apium_error *err)
{
    /* Into memory, so either all of it or an error. */
    while (len > 0) {
        int part = len > (1 << 30) ? 1 << 30 : (int)len;
        ERR_clear_error();
        int put = SSL_write(tls->ssl, p, part);
        if (put <= 0) {
            char text[160];
            return apm_fail(err, APIUM_E_CLOSED, "TLS: %s", ssl_why(text, sizeof(text)));
        }
        p += put;
        len -= (size_t)put;
    }
    return APIUM_OK;
}

void
apm_tls_drain(apm_tls *tls, apm_buf *out)
{
    size_t waiting = BIO_ctrl_pending(tls->out);
    char *room = waiting ? apm_buf_reserve(out, waiting) : NULL;

    if (room) {
        int got = BIO_read(tls->out, room, (int)waiting);
        if (got > 0)
            out->len += (size_t)got;
    }
}
