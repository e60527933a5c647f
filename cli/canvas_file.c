/* canvas_file.c - a workflow from a file; see canvas.h. */
#include "cli/canvas.h"

#include <errno.h>
#include <stdio.h>

#include "client/sig.h"
#include "core/base/error.h"

static apium_status
read_all(FILE *from, const char *name, apm_buf *buf, apium_error *err)
{
    for (;;) {
        char *p = apm_buf_reserve(buf, 65536);
        size_t n = p ? fread(p, 1, 65536, from) : 0;
        buf->len += n;
        if (n == 0)
            break;
    }
    if (ferror(from))
        return apm_fail(err, APIUM_E_CONFIG, "cannot read %s: %s", name, strerror(errno));
    if (buf->failed)
        return apm_fail(err, APIUM_E_CONFIG, "cannot read %s: it is too big", name);
    if (memchr(buf->p ? buf->p : "", '\0', buf->len))
        return apm_fail(err, APIUM_E_CONFIG, "cannot read %s: it holds a NUL byte", name);
    apm_buf_addc(buf, '\0');
    return APIUM_OK;
}

static apium_status
parse(const char *json, const char *name, apium_sig **out, apium_error *err)
{
    static const char said[] = "cannot read a signature: ";
    apium_error why;
    apium_sig *sig = NULL;
    apium_status st = apium_sig_parse(json, &sig, &why);
    if (st == APIUM_OK)
        st = apm_sig_check_ids(sig->tree, &why);
    if (st == APIUM_OK) {
        *out = sig;
        return st;
    }
    apium_sig_free(sig);
    bool twice = strncmp(why.text, said, sizeof(said) - 1) == 0;
    return apm_fail(err, APIUM_E_CONFIG, "cannot read a workflow from %s: %s", name,
                    twice ? why.text + sizeof(said) - 1 : why.text);
}

apium_status
apm_canvas_file(const char *path, apium_sig **out, apium_error *err)
{
    bool in = strcmp(path, "-") == 0;
    const char *name = in ? "standard input" : path;
    apm_buf buf;
    FILE *from = in ? stdin : fopen(path, "re");
    if (!from)
        return apm_fail(err, APIUM_E_CONFIG, "cannot read %s: %s", name, strerror(errno));
    apm_buf_init(&buf, APM_BUF_MAX);
    apium_status st = read_all(from, name, &buf, err);
    if (st == APIUM_OK)
        st = parse(buf.p, name, out, err);
    apm_buf_clear(&buf);
    if (!in)
        (void)fclose(from);
    return st;
}
