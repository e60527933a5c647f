/* args.h - one argument on its way into a handler's variable: between args.c, which binds, and
 * args_convert.c. */
#ifndef APM_CLIENT_ARGS_H
#define APM_CLIENT_ARGS_H

#include "client/task.h"

typedef enum apm_arg_type {
    APM_ARG_INT,
    APM_ARG_FLOAT,
    APM_ARG_NUMBER,
    APM_ARG_BOOL,
    APM_ARG_STR,
    APM_ARG_BYTES,
    APM_ARG_JSON,
    APM_ARG_ARRAY,
    APM_ARG_OBJECT,
    APM_ARG_INTS,
    APM_ARG_FLOATS,
    APM_ARG_NUMBERS,
    APM_ARG_STRS,
    APM_ARG_TYPES
} apm_arg_type;

/* What a type is called: in a specification, and in Python's messages. */
typedef struct apm_arg_type_info {
    const char *name, *python;
    bool nullable; /* its variable can say that there is none */
} apm_arg_type_info;
extern const apm_arg_type_info apm_arg_types[APM_ARG_TYPES];

/* A converted value, by type. */
typedef union apm_arg_value {
    int64_t i;
    double d;
    bool b;
    const char *text;
    apium_number number;
    apium_text bytes;
    struct {
        const void *items; /* of int64_t, double, apium_number or char * */
        size_t n;
    } array;
} apm_arg_value;

/* The argument that is being converted. */
typedef struct apm_arg {
    apium_task *task;
    const apm_site *site;
    apm_str func, name; /* as messages show them */
    apm_arg_type type;
} apm_arg;

/* False: a TypeError, OverflowError or ValueError that names the argument is recorded. Text is put
 * into the task's arena. */
bool apm_arg_convert(const apm_arg *arg, apm_json val, apm_arg_value *out);
/* Store a value in the handler's variable of that type. */
void apm_arg_store(apm_arg_type type, const apm_arg_value *value, void *variable);

#endif
