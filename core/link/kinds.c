/* kinds.c - the kinds of link in this build, one row each. */
#include "config.h"
#include "core/link/link.h"

const apm_link_ops *const apm_link_kinds[] = {
    NULL,
};
