/* value.h - an apium_value becoming JSON text. */
#ifndef APM_CLIENT_VALUE_H
#define APM_CLIENT_VALUE_H

#include <apium/value.h>

#include "core/base/error.h"
#include "core/base/json.h"

/*
 * Consume a value: its validated JSON, terminated, in the arena. APIUM_NONE gives type
 * APM_JSON_NONE.
 *   E_ENCODE  no JSON, no UTF-8, a broken template; err says what is wrong, not whose value it was
 *   E_NOMEM, E_TOOBIG
 */
apium_status apm_value_take(apium_value value, apm_arena *arena, apm_json *out, apium_error *err);

#endif
