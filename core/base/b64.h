/* b64.h - standard base64 with padding (RFC 4648 section 4), as message envelopes use it. */
#ifndef APM_BASE_B64_H
#define APM_BASE_B64_H

#include <apium/status.h>

#include "core/base/buf.h"

#define APM_B64_LEN(n) (((n) + 2) / 3 * 4)

void apm_b64_add(apm_buf *buf, const void *p, size_t len);
/* Decode into out (room for text.len / 4 * 3 + 3 bytes). As Python's b64decode, characters outside the alphabet
 * are skipped; wrong padding is E_DECODE. */
apium_status apm_b64_decode(apm_str text, void *out, size_t *out_len, apium_error *err);

#endif
