/* sig.h - the inside of a signature, and options laid over options. */
#ifndef APM_CLIENT_SIG_H
#define APM_CLIENT_SIG_H

#include <apium/canvas.h>

#include "workflows/canvas.h"

/*
 * A signature is a tree of workflows/, and what it needs to live: memory, and the signatures that became parts of it. A part stays an
 * object of its own, whose tree hangs in that of the outermost signature, so that it may be changed afterwards.
 *
 *   chain ──tree──▶ canvas ─┬─▶ canvas ◀──tree── a ──owner──▶ chain
 *     └─parts─▶ a ─▶ b      └─▶ canvas ◀──tree── b
 */
struct apium_sig {
    apm_arena arena;
    apm_canvas *tree; /* NULL: there was no memory for it, which `broken` says */
    apium_sig *owner; /* the outermost signature that this one is in; NULL: it stands for itself */
    apium_sig *parts; /* all that is in it, at any depth */
    apium_sig *next;  /* among the owner's parts */
    int depth;        /* of the tree; 0 a task */
    apium_error broken; /* the first thing that went wrong; status APIUM_OK: nothing */
    apm_buf json;       /* the last answer of apium_sig_json() */
};

/* NULL without memory. */
apium_sig *apm_sig_new(apm_sig_kind kind, const char *task);
/* Remember what is wrong, unless something is already. */
void apm_sig_break(apium_sig *sig, apium_status status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* "the signature of t.add", "the chain". */
const char *apm_sig_name(const apium_sig *sig, char *buf, size_t size);
/* What is wrong with it or one of its parts. */
apium_status apm_sig_ok(const apium_sig *sig, apium_error *err);
/* The signature that is sent when this one is. */
apium_sig *apm_sig_root(apium_sig *sig);
/* A value for a signature, kept in it: absent, and the signature broken, when there is something wrong with it. */
apm_json apm_sig_value(apium_sig *sig, apium_value value, const char *what);
/* args or kwargs from a value: an array goes to args, an object to kwargs. */
void apm_sig_arguments(apium_sig *sig, apium_value value, bool named);
/* The JSON of `part`, which is used up, kept in sig; absent, and sig broken, when it cannot be. */
apm_str apm_sig_absorb(apium_sig *sig, apium_sig *part, const char *what);

/* ---- options ---- */

/* Lay `over` over `base`: what over leaves at zero stays. Text is borrowed from both. A time given in one form replaces the other
 * form. */
void apm_opts_lay(apium_send_opts *base, const apium_send_opts *over);
/* Write them as a signature's options, all but kwargs, link and link_error. */
apium_status apm_opts_write(apm_arena *arena, apm_options *options, const apium_send_opts *opts,
                            apium_error *err);
/* Is this the name of an option that means something? */
bool apm_opts_known(const char *name);

/* ---- checks ---- */

/* Is this validated JSON a signature, with all that is in it? E_INVALID says where it is none. */
apium_status apm_sig_check(apm_json json, apium_error *err);
/* E_INVALID when two tasks of a workflow were given one id. */
apium_status apm_sig_check_ids(const apm_canvas *tree, apium_error *err);

/*
 * One signature or an array of them as the items of an array, without brackets: validated JSON
 * appended to buf with the comma that is due. NULL appends nothing. `what` names it in the error.
 */
apium_status apm_sigs_add(apm_buf *buf, const char *json, const char *what, apium_error *err);

#endif
