/*
 * access.c - who may do what. A file with one line each:
 *     reader token S3CRET
 *     operator basic ann:her-password
 * Secrets are kept and compared as SHA-256 digests, every one of them each time, so that nothing is learnt from how long it takes.
 */
#include "web/inner.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/stat.h>

#include "core/base/b64.h"
#include "core/link/ssl_lib.h"

typedef struct entry {
    apm_role role;
    bool basic;
    unsigned char digest[SHA256_DIGEST_LENGTH];
    struct entry *next;
} entry;

struct apm_access {
    entry *first;
};

static apium_status
add_line(apm_access *access, char *line, const char *path, int number, apium_error *err)
{
    char *save = NULL, *role = strtok_r(line, " \t\r\n", &save),
         *kind = strtok_r(NULL, " \t\r\n", &save), *secret = strtok_r(NULL, "\r\n", &save);
    if (!role || *role == '#')
        return APIUM_OK;
    secret = secret ? secret + strspn(secret, " \t") : NULL;
    bool reader = strcmp(role, "reader") == 0, basic = kind && strcmp(kind, "basic") == 0;
    if ((!reader && strcmp(role, "operator") != 0) || !kind ||
        (!basic && strcmp(kind, "token") != 0) || !secret || !*secret ||
        (basic && !strchr(secret, ':')))
        return apm_fail(err, APIUM_E_CONFIG,
                        "%s, line %d: expected \"reader|operator token SECRET\" or "
                        "\"reader|operator basic USER:PASSWORD\"",
                        path, number);
    entry *e = calloc(1, sizeof(*e));
    if (!e)
        return apm_fail(err, APIUM_E_NOMEM, "cannot read %s: out of memory", path);
    e->role = reader ? APM_ROLE_READER : APM_ROLE_OPERATOR;
    e->basic = basic;
    SHA256((const unsigned char *)secret, strlen(secret), e->digest);
    OPENSSL_cleanse(secret, strlen(secret));
    e->next = access->first;
    access->first = e;
    return APIUM_OK;
}

apium_status
apm_access_load(const char *path, apm_access **out, apium_error *err)
{
    FILE *file = fopen(path, "re");
    char line[1024];
    int number = 0;
    struct stat st;
    if (!file)
        return apm_fail(err, APIUM_E_CONFIG, "cannot read %s: %s", path, strerror(errno));
    apm_access *access = calloc(1, sizeof(*access));
    if (!access) {
        fclose(file);
        return apm_fail(err, APIUM_E_NOMEM, "cannot read %s: out of memory", path);
    }
    apium_status status = APIUM_OK;
    if (fstat(fileno(file), &st) == 0 && st.st_mode & S_IRWXO)
        status = apm_fail(err, APIUM_E_CONFIG,
                          "%s holds secrets and others may use it: chmod o= it", path);
    while (status == APIUM_OK && fgets(line, sizeof(line), file))
        status = add_line(access, line, path, ++number, err);
    OPENSSL_cleanse(line, sizeof(line));
    fclose(file);
    if (status == APIUM_OK && !access->first)
        status = apm_fail(err, APIUM_E_CONFIG, "%s lets nobody in", path);
    if (status != APIUM_OK) {
        apm_access_free(access);
        return status;
    }
    *out = access;
    return APIUM_OK;
}

void
apm_access_free(apm_access *access)
{
    for (entry *e = access ? access->first : NULL, *next; e; e = next) {
        next = e->next;
        OPENSSL_cleanse(e, sizeof(*e));
        free(e);
    }
    free(access);
}

apm_role
apm_access_role(const apm_access *access, const char *authorization)
{
    unsigned char digest[SHA256_DIGEST_LENGTH] = { 0 };
    apm_buf plain;
    apm_role role = APM_ROLE_NOBODY;
    bool basic = false;

    if (!access)
        return APM_ROLE_OPERATOR;
    if (!authorization)
        return APM_ROLE_NOBODY;
    apm_buf_init(&plain, 8192);
    if (strncasecmp(authorization, "Bearer ", 7) == 0) {
        apm_buf_addz(&plain, authorization + 7);
    } else if (strncasecmp(authorization, "Basic ", 6) == 0) {
        const apm_str text = apm_strz(authorization + 6);
        char *room = apm_buf_reserve(&plain, text.len + 4);
        size_t len;
        basic = true;
        if (room && apm_b64_decode(text, room, &len, NULL) == APIUM_OK)
            plain.len += len;
    }
    SHA256((const unsigned char *)(plain.p ? plain.p : ""), plain.len, digest);
    for (const entry *e = access->first; e; e = e->next)
        if (CRYPTO_memcmp(e->digest, digest, sizeof(digest)) == 0 && e->basic == basic &&
            plain.len && e->role > role)
            role = e->role;
    apm_buf_clear(&plain);
    return role;
}
