/* op.h - one operation of a unit. */
#ifndef APM_WEB_OP_H
#define APM_WEB_OP_H

#include "web/inner.h"

typedef enum apm_op_kind {
    APM_OP_RECORD,
    APM_OP_GROUP,
    APM_OP_EXPECT,
    APM_OP_EXTEND, /* may not simply be applied again */
    APM_OP_ARRIVE,
    APM_OP_TAKE,  /* nor may this */
    APM_OP_CLAIM, /* this and the next are questions, and units of their own */
    APM_OP_CHECK,
    APM_OPS,
} apm_op_kind;

typedef struct apm_op {
    apm_op_kind kind;
    apm_str text[2]; /* the strings, in their order; borrowed, or in the arena */
    size_t n_text;
    apm_json doc;
    int64_t number;
} apm_op;

/* Read one from its JSON; the error says what makes no sense. */
apium_status
apm_op_read(const apm_web *web, apm_json val, apm_arena *arena, apm_op *out, apium_error *err);
/* Append it to a unit of the store; done_before: all but what may not be applied again. */
apium_status
apm_op_append(apm_web *web, apm_unit *to, const apm_op *o, bool done_before, apium_error *err);

#endif
