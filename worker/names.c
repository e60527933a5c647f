/* names.c - node names and the templates of files that carry them; see worker.h. */
#include "worker/worker.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/error.h"

struct names {
    const char *host;   /* %h */
    const char *domain; /* %d: after the first dot; the host itself when there is none */
    char name[128];     /* %n */
    const char *node;   /* %p */
    int process;        /* %i, %I */
};

static apium_status
expand(const char *template_, const struct names *names, char *out, size_t size, apium_error *err)
{
    apm_buf buf;
    apm_buf_init(&buf, size - 1);
    for (const char *p = template_; *p; p++) {
        if (*p != '%' || !p[1]) {
            apm_buf_addc(&buf, *p);
            continue;
        }
        switch (*++p) {
        case 'h':
            apm_buf_addz(&buf, names->host);
            break;
        case 'n':
            apm_buf_addz(&buf, names->name);
            break;
        case 'd':
            apm_buf_addz(&buf, names->domain);
            break;
        case 'p':
            apm_buf_addz(&buf, names->node ? names->node : "");
            break;
        case 'i':
            apm_buf_addf(&buf, "%d", names->process);
            break;
        case 'I':
            if (names->process)
                apm_buf_addf(&buf, "-%d", names->process);
            break;
        case '%':
            apm_buf_addc(&buf, '%');
            break;
        default: /* as Celery: unknown letters stay as they are */
            apm_buf_addc(&buf, '%');
            apm_buf_addc(&buf, *p);
        }
    }
    apium_status st = APIUM_OK;
    if (buf.failed)
        st = apm_fail(err, APIUM_E_CONFIG, "cannot expand \"%s\": longer than %zu bytes", template_,
                      size - 1);
    else
        snprintf(out, size, "%.*s", APM_STR_ARG(apm_buf_str(&buf)));
    apm_buf_clear(&buf);
    return st;
}

apium_status
apm_node_name(const char *template_, char *out, size_t size, apium_error *err)
{
    char host[256] = "localhost";
    if (gethostname(host, sizeof(host) - 1) < 0)
        return apm_fail_sys(err, errno, "cannot read the host's name");
    const char *dot = strchr(host, '.');
    struct names names = { .host = host, .domain = dot ? dot + 1 : host };
    snprintf(names.name, sizeof(names.name), "%.*s", (int)strcspn(host, "."), host);

    if (!template_ || !*template_)
        template_ = "celery@%h";
    char text[512];
    const char *at = strchr(template_, '@');
    if (!at)
        snprintf(text, sizeof(text), "celery@%s", template_);
    else if (at == template_)
        snprintf(text, sizeof(text), "celery%s", template_);
    else
        snprintf(text, sizeof(text), "%s", template_);
    return expand(text, &names, out, size, err);
}

apium_status
apm_node_path(const char *template_, const char *node, int process, char *out, size_t size,
              apium_error *err)
{
    const char *at = strchr(node, '@');
    const char *host = at ? at + 1 : node;
    const char *dot = strchr(host, '.');
    struct names names = {
        .host = host, .domain = dot ? dot + 1 : host, .node = node, .process = process
    };
    snprintf(names.name, sizeof(names.name), "%.*s", (int)(at ? at - node : (long)strlen(node)),
             node);
    return expand(template_, &names, out, size, err);
}
