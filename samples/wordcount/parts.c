/* parts.c - see parts.h. */
#include "parts.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PART_BYTES 65536

static bool
add(parts *all, apium_sig *sig)
{
    if (sig && all->n == all->cap) {
        size_t cap = all->cap ? 2 * all->cap : 256;
        apium_sig **sigs = realloc(all->sigs, cap * sizeof(*sigs));
        if (!sigs) {
            apium_sig_free(sig);
            return false;
        }
        all->sigs = sigs;
        all->cap = cap;
    }
    if (sig)
        all->sigs[all->n++] = sig;
    return sig != NULL;
}

bool
parts_add(parts *all, const char *name, apium_error *why)
{
    char path[PATH_MAX]; /* a worker may have another working directory */
    struct stat st;
    bool ok = true;
    if (!realpath(name, path) || stat(path, &st) != 0 || access(path, R_OK) != 0) {
        apium_fail(why, APIUM_E_SYSTEM, "cannot read %s: %s", name, strerror(errno));
        return false;
    }
    if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)) {
        apium_fail(why, APIUM_E_INVALID, "cannot read %s: it is neither a file nor a folder", name);
        return false;
    }
    if (S_ISDIR(st.st_mode)) {
        ok = add(all, apium_sig_new("wordcount.folder", "[%s]", path));
        st.st_size = 0;
    }
    for (int64_t begin = 0, end; ok && begin < st.st_size; begin = end) {
        end = begin + PART_BYTES < st.st_size ? begin + PART_BYTES : st.st_size;
        ok = add(all, apium_sig_new("wordcount.count", "[%s, %lld, %lld]", path, (long long)begin,
                                    (long long)end));
    }
    if (!ok)
        apium_fail(why, APIUM_E_NOMEM, "cannot read %s: no memory for so many parts", name);
    return ok;
}

apium_sig *
parts_flow(parts *all, int64_t rows)
{
    apium_sig *header = apium_group_of(all->n, all->sigs);
    all->n = 0;
    return apium_chord(
        header, apium_chain(apium_sig_new("wordcount.merge", NULL),
                            apium_sig_new("wordcount.report", "[%lld]", (long long)rows), NULL));
}

void
parts_clear(parts *all)
{
    for (size_t i = 0; i < all->n; i++)
        apium_sig_free(all->sigs[i]);
    free(all->sigs);
    *all = (parts){ 0 };
}
