/* url.c - see url.h */
#include "core/base/url.h"

#include <stdlib.h>

#include "core/base/error.h"

static apm_str
from_to(const char *p, const char *end)
{
    return (apm_str){ p, (size_t)(end - p) };
}

/* The first of `chars` in s, or its end. */
static const char *
find_any(apm_str s, const char *chars)
{
    const char *at = s.p, *end = s.p + s.len;

    while (at < end && !strchr(chars, *at))
        at++;
    return at;
}

static const char *
find_last(apm_str s, char c)
{
    return s.len > 0 ? memrchr(s.p, c, s.len) : NULL;
}

/* The scheme at the start of an item, and where what follows "://" begins. */
static bool
split_scheme(apm_str item, apm_str *scheme, const char **rest)
{
    const char *at = item.p, *end = item.p + item.len;

    while (at < end && (*at == '+' || *at == '-' || *at == '.' || (*at >= '0' && *at <= '9') ||
                        (*at >= 'a' && *at <= 'z') || (*at >= 'A' && *at <= 'Z')))
        at++;
    if (at == item.p || end - at < 3 || memcmp(at, "://", 3) != 0)
        return false;
    *scheme = from_to(item.p, at);
    *rest = at + 3;
    return true;
}

static int
hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Percent-decoding, which leaves a '%' that begins no escape alone; with `plus`, '+' is a space. NULL without memory. */
static char *
decode(apm_arena *arena, apm_str s, bool plus)
{
    char *out = apm_arena_bytes(arena, s.len + 1), *to = out;

    if (!out)
        return NULL;
    for (size_t i = 0; i < s.len; i++) {
        int high, low;
        if (s.p[i] == '%' && s.len - i > 2 && (high = hex_value(s.p[i + 1])) >= 0 &&
            (low = hex_value(s.p[i + 2])) >= 0) {
            *to++ = (char)(high << 4 | low);
            i += 2;
        } else {
            *to++ = plus && s.p[i] == '+' ? ' ' : s.p[i];
        }
    }
    *to = '\0';
    return out;
}

typedef struct parser {
    apm_urls *urls;
    const char *text; /* the whole list, for errors */
    apium_error *err;
} parser;

static apium_status
bad(parser *ps, const char *why)
{
    char masked[200];

    apm_url_mask(ps->text, masked, sizeof(masked));
    return apm_fail(ps->err, APIUM_E_CONFIG, "bad URL \"%s\": %s", masked, why);
}

static apium_status
keep(parser *ps, apm_str s, const char **out)
{
    char *text = decode(&ps->urls->arena, s, false);

    if (!text)
        return apm_fail(ps->err, APIUM_E_NOMEM, "cannot parse a URL: out of memory");
    *out = text;
    return APIUM_OK;
}

/* host, host:port, [v6] or [v6]:port */
static apium_status
parse_host(parser *ps, apm_str host, apm_url *url)
{
    const char *end = host.p + host.len, *colon;

    if (host.len > 0 && host.p[0] == '[') {
        const char *close = memchr(host.p, ']', host.len);
        if (!close || (close + 1 < end && close[1] != ':'))
            return bad(ps, "the brackets around an IPv6 address do not match");
        colon = close + 1;
        host = from_to(host.p + 1, close);
    } else {
        colon = find_any(host, ":");
        host = from_to(host.p, colon);
    }
    if (colon < end) {
        for (const char *p = colon + 1; p < end; p++) {
            url->port = url->port * 10 + (*p - '0');
            /* What stands here may be half a password: the message must not quote it. */
            if (*p < '0' || *p > '9' || url->port > 65535)
                return bad(
                    ps,
                    "the port is no number up to 65535 (in a password, write / as %2F, @ as %40, "
                    "; as %3B)");
        }
    }
    return keep(ps, host, &url->host);
}

static apium_status
parse_one(parser *ps, apm_str item, apm_url *url)
{
    apium_status st;
    apm_str scheme;
    const char *at = item.p, *end = item.p + item.len;

    if (split_scheme(item, &scheme, &at)) {
        char *lower = decode(&ps->urls->arena, scheme, false);
        if (!lower)
            return apm_fail(ps->err, APIUM_E_NOMEM, "cannot parse a URL: out of memory");
        url->scheme = lower;
        for (; *lower; lower++)
            if (*lower >= 'A' && *lower <= 'Z')
                *lower |= 0x20;
    } else if (ps->urls->n > 0) {
        url->scheme = ps->urls->items[0].scheme;
    } else {
        return bad(ps, "it does not begin with a scheme, such as redis://");
    }
    for (const char *p = item.p; p < end; p++)
        if ((unsigned char)*p <= ' ' || *p == 0x7f)
            return bad(ps, "it holds a space or control character");
        else if (*p == '#')
            return bad(ps, "write # as %23");
        else if (end - p > 2 && memcmp(p, "%00", 3) == 0)
            return bad(ps, "it holds a NUL");

    apm_str authority = from_to(at, find_any(from_to(at, end), "/?"));
    const char *login_end = find_last(authority, '@');
    at = authority.p + authority.len;
    if (login_end) {
        apm_str login = from_to(authority.p, login_end);
        const char *colon = find_any(login, ":");
        if (colon > login.p && (st = keep(ps, from_to(login.p, colon), &url->user)) != APIUM_OK)
            return st;
        if (colon + 1 < login_end &&
            (st = keep(ps, from_to(colon + 1, login_end), &url->password)) != APIUM_OK)
            return st;
        authority = from_to(login_end + 1, at);
    }
    if ((st = parse_host(ps, authority, url)) != APIUM_OK)
        return st;
    const char *query = find_any(from_to(at, end), "?");
    if (at < query && (st = keep(ps, from_to(at + 1, query), &url->path)) != APIUM_OK)
        return st;
    if (query < end) {
        bool ok = true;
        url->query = apm_arena_str(&ps->urls->arena, from_to(query + 1, end), &ok).p;
        if (!ok)
            return apm_fail(ps->err, APIUM_E_NOMEM, "cannot parse a URL: out of memory");
    }
    return APIUM_OK;
}

apium_status
apm_urls_parse(apm_urls *urls, const char *text, apium_error *err)
{
    apm_urls made = { 0 };
    parser ps = { .urls = &made, .text = text, .err = err };
    apium_status st = APIUM_OK;
    size_t most = 1;

    for (const char *p = text; *p; p++)
        most += *p == ';';
    if (most > SIZE_MAX / sizeof(apm_url) ||
        !(made.items = apm_arena_alloc(&made.arena, most * sizeof(apm_url))))
        return apm_fail(err, APIUM_E_NOMEM, "cannot parse a URL: out of memory");
    for (const char *p = text;; p++) {
        apm_str item = from_to(p, strchrnul(p, ';'));
        /* A semicolon too many does no harm. */
        if (item.len > 0 && (st = parse_one(&ps, item, &made.items[made.n])) != APIUM_OK)
            goto out;
        made.n += item.len > 0;
        p += item.len;
        if (!*p)
            break;
    }
    if (made.n == 0) {
        st = apm_fail(err, APIUM_E_CONFIG, "bad URL \"\": it is empty");
        goto out;
    }
    *urls = made;
    made = (apm_urls){ 0 };
out:
    apm_urls_clear(&made);
    return st;
}

void
apm_urls_clear(apm_urls *urls)
{
    apm_arena_clear(&urls->arena);
    *urls = (apm_urls){ 0 };
}

const char *
apm_url_param(apm_urls *urls, const apm_url *url, const char *name)
{
    const char *found = NULL;

    if (!url->query)
        return NULL;
    for (const char *p = url->query;; p++) {
        const char *end = strchrnul(p, '&');
        const char *equals = find_any(from_to(p, end), "=");
        char *key = decode(&urls->arena, from_to(p, equals), true);
        if (key && end > p && strcmp(key, name) == 0)
            found = decode(&urls->arena, from_to(equals < end ? equals + 1 : end, end), true);
        p = end;
        if (!*p)
            return found;
    }
}

/* Text into a bounded place, without control characters. */
typedef struct masked {
    char *at, *end;
} masked;

static void
put(masked *out, apm_str s)
{
    for (size_t i = 0; i < s.len && out->at < out->end; i++)
        *out->at++ = (unsigned char)s.p[i] < ' ' || s.p[i] == 0x7f ? '?' : s.p[i];
}

static bool
is_secret(apm_str name)
{
    static const char *const words[] = { "pass", "secret", "token" };

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        if (name.len > 0 && memmem(name.p, name.len, words[i], strlen(words[i])))
            return true;
    return false;
}

/* What follows a host: the path as it is, the query without secret values. */
static void
put_tail(masked *out, apm_str tail)
{
    const char *at = find_any(tail, "?"), *end = tail.p + tail.len;

    put(out, from_to(tail.p, at));
    while (at < end) {
        const char *next = find_any(from_to(at + 1, end), "&");
        const char *value = find_any(from_to(at, next), "=");
        if (value < next && is_secret(from_to(at, value))) {
            put(out, from_to(at, value + 1));
            put(out, APM_STR("**"));
        } else {
            put(out, from_to(at, next));
        }
        at = next;
    }
}

/*
 * A password ends at the last '@' of all: somebody who forgot to escape it had no intention to show
 * the half behind its first '/', '?' or '#'.
 */
static void
mask_one(masked *out, apm_str item)
{
    const char *at = item.p, *end = item.p + item.len;
    apm_str scheme;

    if (split_scheme(item, &scheme, &at))
        put(out, from_to(item.p, at));
    apm_str rest = from_to(at, end), authority = from_to(at, find_any(rest, "/?#"));
    const char *authority_end = authority.p + authority.len;
    const char *login_end = find_last(rest, '@');
    /* Only where nobody logs in does a bracket begin an address. */
    bool v6 = !login_end && authority.len > 0 && authority.p[0] == '[';
    const char *host = v6 ? find_any(authority, "]") : authority.p;
    const char *colon = find_any(from_to(host, authority_end), ":");

    if (colon < authority_end && login_end && colon < login_end) {
        put(out, from_to(at, colon + 1));
        put(out, APM_STR("**"));
        at = login_end;
    } else if (colon < authority_end) {
        /* No '@' follows: this must be a port, or it is the beginning of a password cut by a ';'. */
        const char *p = colon + 1;
        while (p < authority_end && *p >= '0' && *p <= '9')
            p++;
        if (p < authority_end) {
            put(out, from_to(at, colon + 1));
            put(out, APM_STR("**"));
            at = authority_end;
        }
    }
    put_tail(out, from_to(at, end));
}

void
apm_url_mask(const char *text, char *out, size_t size)
{
    masked to = { out, out + size - 1 };

    if (size == 0)
        return;
    for (const char *p = text;; p++) {
        apm_str item = from_to(p, strchrnul(p, ';'));
        mask_one(&to, item);
        p += item.len;
        if (!*p)
            break;
        put(&to, APM_STR(";"));
    }
    *to.at = '\0';
}
