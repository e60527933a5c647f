/* kinds.c - the kinds of link in this build, one row each. */
#include "config.h"
#include "core/link/link.h"
#include "core/link/sqlite.h"

const apm_link_ops *const apm_link_kinds[] = {
    &apm_sqlite_kind,
    NULL,
};
