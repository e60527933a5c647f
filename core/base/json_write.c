/* json_write.c - appending JSON as Python's json.dumps prints it; see json.h */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/base/json_scan.h"
#include "core/base/utf8.h"

bool
apm_utf8_valid(apm_str text, bool surrogates)
{
    const char *at = text.p, *end = at + text.len;

    while (at < end) {
        uint64_t eight;
        if (end - at >= 8 && (memcpy(&eight, at, 8), !(eight & 0x8080808080808080u))) {
            at += 8;
            continue;
        }
        int len = apm_utf8_len(at, end, surrogates);
        if (len == 0)
            return false;
        at += len;
    }
    return true;
}

static void
add_u(apm_buf *buf, uint32_t unit)
{
    static const char hex[] = "0123456789abcdef";
    char text[6] = { '\\',          'u', hex[unit >> 12], hex[unit >> 8 & 15], hex[unit >> 4 & 15],
                     hex[unit & 15] };

    apm_buf_add(buf, text, sizeof(text));
}

static void
add_escaped(apm_buf *buf, uint32_t point)
{
    static const char short_escapes[] =
        "\"\"\\\\\nn\rr\tt\bb\ff"; /* pairs: the character, its letter */

    for (const char *p = short_escapes; *p; p += 2)
        if ((uint32_t)*p == point) {
            char text[2] = { '\\', p[1] };
            apm_buf_add(buf, text, sizeof(text));
            return;
        }
    if (point >= 0x10000) {
        add_u(buf, 0xd800 + ((point - 0x10000) >> 10));
        add_u(buf, 0xdc00 + ((point - 0x10000) & 0x3ff));
    } else {
        add_u(buf, point);
    }
}

/* The top bit of a byte is set if this one is a quote, a backslash, a control character, DEL or not ASCII; and perhaps for others when
 * there is such a byte. */
static inline uint64_t
odd_bytes(uint64_t v)
{
    const uint64_t ones = 0x0101010101010101u;
    return ((v ^ ones * '"') - ones) | ((v ^ ones * '\\') - ones) | ((v ^ ones * 0x7f) - ones) |
           (v - ones * ' ') | v;
}

/* Is all of it printed as it is? DEL is the one character that is plain to a parser and escaped by Python. */
static bool
is_plain(apm_str text)
{
    const char *at = text.p, *end = at + text.len;
    uint64_t odd = 0, v;

    if (text.len < 8) {
        for (v = 0x2020202020202020u; at < end; at++)
            v = v << 8 | (unsigned char)*at;
        return !(odd_bytes(v) & 0x8080808080808080u);
    }
    for (; end - at > 8; at += 8) {
        memcpy(&v, at, 8);
        odd |= odd_bytes(v);
    }
    memcpy(&v, end - 8, 8);
    return !((odd | odd_bytes(v)) & 0x8080808080808080u);
}

/* Does it need no escapes? Then it is appended. */
static bool
add_plain(apm_buf *buf, apm_str text)
{
    if (!text.len || !is_plain(text))
        return false;
    char *room = apm_buf_reserve(buf, text.len + 2);
    if (room) {
        room[0] = '"';
        memcpy(room + 1, text.p, text.len);
        memcpy(room + 1 + text.len, "\"", 2);
        buf->len += text.len + 2;
    }
    return true;
}

static void
add_any(apm_buf *buf, apm_str text)
{
    const char *at = text.p, *end = at + text.len;

    apm_buf_addc(buf, '"');
    while (at < end && !buf->failed) {
        const char *run = at;
        at = apm_json_plain(at, end);
        const char *del = memchr(run, 0x7f, (size_t)(at - run));
        if (del)
            at = del;
        apm_buf_add(buf, run, (size_t)(at - run));
        while (at < end && (*at == '"' || *at == '\\' || (signed char)*at < ' ' || *at == 0x7f)) {
            int len = apm_utf8_len(at, end, true);
            if (len == 0) {
                buf->failed = true;
                return;
            }
            add_escaped(buf, apm_utf8_point(at, len));
            at += len;
        }
    }
    apm_buf_addc(buf, '"');
}

void
apm_json_add_string(apm_buf *buf, apm_str text)
{
    if (!add_plain(buf, text))
        add_any(buf, text);
}

bool
apm_json_try_string(apm_buf *buf, apm_str text)
{
    if (add_plain(buf, text))
        return true;
    if (!apm_utf8_valid(text, true))
        return false;
    add_any(buf, text);
    return true;
}

void
apm_json_add_stringz(apm_buf *buf, const char *text)
{
    if (text)
        apm_json_add_string(buf, apm_strz(text));
    else
        apm_buf_addz(buf, "null");
}

void
apm_json_add_int(apm_buf *buf, int64_t value)
{
    char text[24], *p = text + sizeof(text);
    uint64_t v = value < 0 ? -(uint64_t)value : (uint64_t)value;

    do {
        *--p = (char)('0' + v % 10);
        v /= 10;
    } while (v > 0);
    if (value < 0)
        *--p = '-';
    apm_buf_add(buf, p, (size_t)(text + sizeof(text) - p));
}

/* The next larger number of as many digits, "1.29e+07" to "1.30e+07". */
static void
step_up(char *text)
{
    char *p = strchr(text, 'e');

    while (p-- > text) {
        if (*p >= '0' && *p < '9') {
            ++*p;
            return;
        }
        if (*p == '9')
            *p = '0';
    }
}

/*
 * Print with so many digits; is that the same number? The nearest decimal is the only candidate, except at a power of
 * two, where the doubles above are twice as far apart as those below: the next larger one may do as well.
 */
static bool
print_digits(double value, int precision, char *text, size_t size)
{
    int exponent;

    snprintf(text, size, "%.*e", precision - 1, value);
    if (strtod(text, NULL) == value)
        return true;
    if (frexp(value, &exponent) != 0.5)
        return false;
    step_up(text);
    return strtod(text, NULL) == value;
}

/* The digits and the decimal exponent (of the first digit) of a positive number: the fewest that read back as it. */
static int
shortest(double value, char digits[24], int *exponent)
{
    char text[48];
    /* Whatever has at most 15 digits is found by asking for 15, except where doubles are sparse. */
    int precision = value < 2.3e-308 ? 1 : 15;

    while (!print_digits(value, precision, text, sizeof(text)) &&
           precision < 17) /* which always do */
        precision++;
    /* What separates the first digit from the others is the locale's affair. */
    char *e = strchr(text, 'e');
    int n = 0;
    for (char *p = text; p < e; p++)
        if (*p >= '0' && *p <= '9')
            digits[n++] = *p;
    while (n > 1 && digits[n - 1] == '0')
        n--;
    *exponent = atoi(e + 1);
    return n;
}

int
apm_double_repr(double value, char out[APM_DOUBLE_MAX])
{
    char digits[24], *p = out;
    int exponent = 0, n = 1;

    digits[0] = '0';
    if (signbit(value))
        *p++ = '-';
    if (value != 0)
        n = shortest(fabs(value), digits, &exponent);
    if (exponent < -4 || exponent >= 16) {
        *p++ = digits[0];
        if (n > 1) {
            *p++ = '.';
            memcpy(p, digits + 1, (size_t)n - 1);
            p += n - 1;
        }
        p += sprintf(p, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
    } else if (exponent < 0) {
        *p++ = '0';
        *p++ = '.';
        for (int i = -1; i > exponent; i--)
            *p++ = '0';
        memcpy(p, digits, (size_t)n);
        p += n;
    } else {
        for (int i = 0; i < n || i <= exponent + 1; i++) {
            if (i == exponent + 1)
                *p++ = '.';
            *p++ = i < n ? digits[i] : '0';
        }
    }
    *p = '\0';
    return (int)(p - out);
}

void
apm_json_add_double(apm_buf *buf, double value)
{
    char text[APM_DOUBLE_MAX];

    if (isnan(value))
        apm_buf_addz(buf, "NaN");
    else if (isinf(value))
        apm_buf_addz(buf, value < 0 ? "-Infinity" : "Infinity");
    else
        apm_buf_add(buf, text, (size_t)apm_double_repr(value, text));
}

void
apm_json_add_key(apm_buf *buf, const char *name)
{
    const apm_str text = apm_strz(name);
    /* Only an object that has just been opened ends with this brace: a string would end with its quote. */
    const bool first = buf->len == 0 || buf->p[buf->len - 1] == '{';

    if (!is_plain(text)) {
        apm_buf_addz(buf, first ? "" : ", ");
        apm_json_add_string(buf, text);
        apm_buf_addz(buf, ": ");
        return;
    }
    char *at = apm_buf_reserve(buf, text.len + 6);
    if (!at)
        return;
    if (!first) {
        *at++ = ',';
        *at++ = ' ';
    }
    *at++ = '"';
    memcpy(at, text.p, text.len);
    at += text.len;
    memcpy(at, "\": ", 4);
    buf->len = (size_t)(at + 3 - buf->p);
}
