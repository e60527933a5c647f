/* prom.c - see prom.h */
#include "core/base/prom.h"

void
apm_prom_head(apm_buf *buf, const char *name, const char *type, const char *help)
{
    apm_buf_addf(buf, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

void
apm_prom_label(apm_buf *buf, const char *name, const char *value)
{
    apm_buf_addf(buf, "%s=\"", name);
    for (; *value; value++) {
        if (*value == '\\' || *value == '"')
            apm_buf_addc(buf, '\\');
        if (*value == '\n')
            apm_buf_addz(buf, "\\n");
        else
            apm_buf_addc(buf, *value);
    }
    apm_buf_addc(buf, '"');
}

void
apm_prom_one(apm_buf *buf, const char *name, const char *type, const char *help, const char *label,
             const char *label_value, double value)
{
    apm_prom_head(buf, name, type, help);
    apm_buf_addz(buf, name);
    if (label) {
        apm_buf_addc(buf, '{');
        apm_prom_label(buf, label, label_value);
        apm_buf_addc(buf, '}');
    }
    apm_buf_addf(buf, " %.15g\n", value);
}
