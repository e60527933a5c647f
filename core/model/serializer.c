/* serializer.c - the formats a body may have, by name and by content type. */
#include "core/model/serializer.h"

#include "core/base/error.h"
#include "core/model/formats.h"

static apium_status
refuse_pickle(apm_str in, apm_arena *arena, apm_str *out, apium_error *err)
{
    (void)in, (void)arena, (void)out;
    return apm_fail(err, APIUM_E_UNSUPPORTED,
                    "pickle is not supported: reading it runs code of the sender's choice");
}

static const apm_serializer serializers[] = {
    { "json", "application/json", "utf-8", APM_ACCEPT_JSON, NULL, NULL },
    { "yaml", "application/x-yaml", "utf-8", APM_ACCEPT_YAML, apm_yaml_to_json,
      apm_yaml_from_json },
    { "msgpack", "application/x-msgpack", "binary", APM_ACCEPT_MSGPACK, apm_msgpack_to_json,
      apm_msgpack_from_json },
    { "pickle", "application/x-python-serialize", "binary", APM_ACCEPT_PICKLE, refuse_pickle,
      refuse_pickle },
};

const apm_serializer *
apm_serializer_find(apm_str name_or_type)
{
    for (size_t i = 0; i < sizeof serializers / sizeof *serializers; i++)
        if (apm_str_eqz(name_or_type, serializers[i].name) ||
            apm_str_eqz(name_or_type, serializers[i].content_type))
            return &serializers[i];
    return NULL;
}
