/* call.c - reading a call and answering it; see inner.h */
#include "web/inner.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/base/hash.h"
#include "core/base/log.h"

static void
call_free(apm_web_call *call)
{
    call->web->calls--;
    apm_arena_clear(&call->arena);
    free(call);
}

/* The reply's headers, at most 4, and those that every answer has. */
static size_t
add_headers(const apm_web_call *call, const apm_http_reply *reply, apm_http_header headers[8])
{
    const char *cors = call->web->opts->cors;
    size_t n = 0;
    for (; n < reply->n_headers && n < 4; n++)
        headers[n] = reply->headers[n];
    headers[n++] = (apm_http_header){ "Cache-Control", "no-store" };
    headers[n++] = (apm_http_header){ "X-Content-Type-Options", "nosniff" };
    if (cors)
        headers[n++] = (apm_http_header){ "Access-Control-Allow-Origin", cors };
    return n;
}

static void
note(const apm_web_call *call, int status)
{
    apm_log(APM_LOG_DEBUG, "web.answered", "%s %.200s: %d", apm_http_method(call->req),
            apm_http_target(call->req), status);
    apm_web_count(call->web, apm_http_method(call->req), status);
}

void
apm_web_reply(apm_web_call *call, const apm_http_reply *reply)
{
    apm_http_header headers[8];
    apm_http_reply full = *reply;
    full.headers = headers;
    full.n_headers = add_headers(call, reply, headers);
    note(call, reply->status);
    apm_http_answer(call->req, &full);
    call_free(call);
}

apm_http_stream *
apm_web_stream(apm_web_call *call, const char *type, void (*on_gone)(void *arg), void *arg)
{
    apm_http_header headers[8];
    apm_http_reply reply = { .status = 200, .type = type };
    reply.n_headers = add_headers(call, &reply, headers);
    reply.headers = headers;
    apm_http_stream *stream = apm_http_begin(call->req, &reply, on_gone, arg);
    if (!stream)
        return NULL;
    note(call, 200);
    call_free(call);
    return stream;
}

void
apm_web_answer(apm_web_call *call, int status, apm_buf *body)
{
    if (body && body->failed) {
        apm_buf_clear(body);
        apm_web_error(call, 500, "the answer is too big, or there is no memory for it");
        return;
    }
    apm_web_reply(call, &(apm_http_reply){ .status = status, .take = body, .body = APM_STR("") });
}

void
apm_web_document(apm_web_call *call, apm_str doc, const char *etag)
{
    const apm_http_header header = { "ETag", etag };
    apm_web_reply(call,
                  &(apm_http_reply){
                      .status = 200, .body = doc, .headers = &header, .n_headers = etag ? 1 : 0 });
}

void
apm_web_error(apm_web_call *call, int status, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    /* A cut may leave half a character. */
    size_t len = strlen(text);
    while (len && !apm_utf8_valid((apm_str){ text, len }, false))
        len--;
    apm_buf body;
    apm_buf_init(&body, 8192);
    apm_buf_addf(&body, "{\"error\": {\"status\": %d, \"message\": ", status);
    apm_json_add_string(&body, (apm_str){ text, len });
    apm_buf_addz(&body, "}}");
    const apm_http_header header = { status == 401 ? "WWW-Authenticate" : "Retry-After",
                                     status == 401 ? "Basic realm=\"apium\"" : "1" };
    apm_web_reply(call, &(apm_http_reply){ .status = status,
                                           .take = &body,
                                           .headers = &header,
                                           .n_headers = status == 401 || status == 503 ? 1 : 0 });
    apm_buf_clear(&body);
}

int
apm_web_status(const apium_error *err)
{
    switch (err->status) {
    case APIUM_E_INVALID:
    case APIUM_E_DECODE:
    case APIUM_E_UNROUTABLE:
        return 400;
    case APIUM_E_NOTFOUND:
        return 404;
    case APIUM_E_TOOBIG:
        return 413;
    case APIUM_E_UNSUPPORTED:
        return 501;
    case APIUM_E_CLOSED:
    case APIUM_E_TIMEOUT:
    case APIUM_E_BUSY:
    case APIUM_E_NOMEM:
        return 503;
    default:
        return 500;
    }
}

void
apm_web_fail(apm_web_call *call, const apium_error *err)
{
    apm_web_error(call, apm_web_status(err), "%s", err->text);
}

static int
hex(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

bool
apm_web_unescape(apm_str text, apm_arena *arena, apm_str *out)
{
    char *to = apm_arena_bytes(arena, text.len + 1);
    size_t n = 0;
    if (!to)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        int high, low;
        if (text.p[i] != '%') {
            to[n++] = text.p[i];
            continue;
        }
        if (i + 2 >= text.len || (high = hex(text.p[i + 1])) < 0 ||
            (low = hex(text.p[i + 2])) < 0 || (high == 0 && low == 0))
            return false;
        to[n++] = (char)(high * 16 + low);
        i += 2;
    }
    to[n] = '\0';
    *out = (apm_str){ to, n };
    return n == strlen(to) && apm_utf8_valid(*out, false);
}

bool
apm_web_id_ok(apm_str id)
{
    static const char *const ours[] = { "group/", "apium-once/",
                                        "apium-claim/" }; /* what backends keep beside the tasks */
    for (size_t i = 0; i < sizeof(ours) / sizeof(*ours); i++)
        if (id.len >= strlen(ours[i]) && memcmp(id.p, ours[i], strlen(ours[i])) == 0)
            return false;
    return id.len > 0 && id.len <= APM_WEB_ID_MAX && !memchr(id.p, '\0', id.len);
}

bool
apm_web_param(apm_web_call *call, const char *name, apm_str *out)
{
    const char *at = call->query.p, *end = at + call->query.len;
    size_t len = strlen(name);
    while (at && at < end) {
        const char *amp = memchr(at, '&', (size_t)(end - at));
        const char *stop = amp ? amp : end;
        if ((size_t)(stop - at) > len && memcmp(at, name, len) == 0 && at[len] == '=')
            return apm_web_unescape((apm_str){ at + len + 1, (size_t)(stop - at) - len - 1 },
                                    &call->arena, out);
        at = stop + 1;
    }
    return false;
}

int64_t
apm_web_wait_ms(apm_web_call *call, const char *name)
{
    apm_str text;
    char *end;
    if (!apm_web_param(call, name, &text))
        return 0;
    double s = strtod(text.p, &end);
    if (text.len == 0 || *end || !(s >= 0 && s <= 1e9)) {
        apm_web_error(call, 400, "%s is a number of seconds", name);
        return -1;
    }
    return (int64_t)((s < APM_WEB_WAIT_MAX_S ? s : APM_WEB_WAIT_MAX_S) * 1000);
}

bool
apm_web_json(apm_web_call *call, apm_json_type type, apm_json *out)
{
    apium_error err;
    if (apm_json_parse(apm_http_body(call->req), out, &err) != APIUM_OK) {
        apm_web_error(call, 400, "the body is not JSON: %s", err.text);
        return false;
    }
    if (out->type != type) {
        apm_web_error(call, 400, "the body is not a JSON %s",
                      type == APM_JSON_ARRAY ? "array" : "object");
        return false;
    }
    return true;
}

void
apm_etag(apm_str doc, char out[APM_ETAG_MAX])
{
    snprintf(out, APM_ETAG_MAX, "\"%016llx\"", (unsigned long long)apm_hash(doc));
}

bool
apm_web_has(const apm_web_call *call, const char *etag)
{
    const char *given = apm_http_header_of(call->req, "If-None-Match");
    return given && (strstr(given, etag) || strcmp(given, "*") == 0);
}
