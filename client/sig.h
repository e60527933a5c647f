/* sig.h - the inside of a signature, and options laid over options. */
#ifndef APM_CLIENT_SIG_H
#define APM_CLIENT_SIG_H

#include <apium/send.h>

#include "core/base/error.h"
#include "core/base/json.h"

/*
 * One call as data. What apium understands is in fields; members that it does not know are kept as
 * they were read and written again, so that a signature made elsewhere passes through.
 */
struct apium_sig {
    apm_arena arena;
    const char *task;
    apm_str args, kwargs;       /* JSON; absent: [] and {} */
    apium_send_opts opts;       /* text in the arena; link, link_error and kwargs unused */
    apm_buf other_options;      /* further members of "options": `"chord": {...}, ...` */
    apm_buf other;              /* further members of the signature itself */
    apm_buf links, link_errors; /* signatures as JSON, with commas */
    apm_str subtask_type;       /* JSON; absent: null, a plain task */
    bool immutable;
    apium_error broken; /* the first thing that went wrong; status APIUM_OK: nothing */
    apm_buf json;       /* the last answer of apium_sig_json() */
};

/* Lay `over` over `base`: what over leaves at zero stays. Text is borrowed from both. A time given
 * in one form replaces the other form. */
void apm_opts_lay(apium_send_opts *base, const apium_send_opts *over);

/*
 * One signature or an array of them as the items of an array, without brackets: validated JSON
 * appended to buf with the comma that is due. NULL appends nothing. `what` names it in the error.
 */
apium_status apm_sigs_add(apm_buf *buf, const char *json, const char *what, apium_error *err);

#endif
