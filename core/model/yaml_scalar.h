/*
 * yaml_scalar.h - what a plain scalar of YAML means: YAML 1.1 as PyYAML's safe_load resolves it.
 */
#ifndef APM_MODEL_YAML_SCALAR_H
#define APM_MODEL_YAML_SCALAR_H

#include "core/base/json.h"

#define APM_YAML_TAG(name) "tag:yaml.org,2002:" name

/* What a plain scalar means. */
typedef struct apm_yaml_plain {
    apm_json_type type; /* STRING: nothing but itself; OBJECT: a date, as kombu 5.6 writes it */
    char text[112];     /* its JSON, but for strings and long numbers */
    apm_str digits;     /* a decimal integer's digits, as many as there are */
    bool negative;
} apm_yaml_plain;

apm_yaml_plain apm_yaml_resolve(apm_str scalar);

#endif
