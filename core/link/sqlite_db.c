/*
 * sqlite_db.c - the open file of a SQLite link: opening, the lock file, transactions, statements,
 * and what SQLite's error codes mean to us. Used by the link's thread alone.
 *
 * Nothing here opens the database file itself: closing any descriptor of it would drop SQLite's
 * own POSIX locks.
 */
#include "core/link/sqlite_store.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/error.h"

#define WRITER_BYTE ((off_t)0)
#define RUN_BYTES   ((off_t)1 << 62)
#define BUSY_MS                                                                                    \
    2000 /* patience with strangers (the sqlite3 shell): our own writers queue on the lock file */

static const char *const touch_suffix[] = {
    [APM_SQLITE_WAKE] = "-wake", [APM_SQLITE_DONE] = "-done"
};

void
apm_sqlite_db_init(apm_sqlite_db *db, const char *path, const char *synchronous)
{
    *db = (apm_sqlite_db){
        .path = path, .synchronous = synchronous, .lock_fd = -1, .touch_fd = { -1, -1 }
    };
}

/* ---- Errors ---- */

/* Is it the file that is at fault, so that every unit waits until it is well again? */
static bool
is_fault(int code)
{
    switch (code & 0xff) {
    case SQLITE_FULL:
    case SQLITE_IOERR:
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_CANTOPEN:
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_AUTH:
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_PROTOCOL:
        return true;
    default:
        return false;
    }
}

static apium_status
fail(apm_sqlite_db *db, int code, apium_error *err)
{
    const char *text = db->handle ? sqlite3_errmsg(db->handle) : sqlite3_errstr(code);
    int sys = db->handle ? sqlite3_system_errno(db->handle) : 0;
    apium_status st = APIUM_E_SYSTEM;

    if (is_fault(code))
        db->fault = code;
    switch (code & 0xff) {
    case SQLITE_NOMEM:
        st = APIUM_E_NOMEM;
        break;
    case SQLITE_TOOBIG:
        st = APIUM_E_TOOBIG;
        break;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_FULL:
    case SQLITE_IOERR:
    case SQLITE_PROTOCOL:
        st = APIUM_E_BUSY;
        break;
    case SQLITE_CANTOPEN:
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_AUTH:
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        st = APIUM_E_REFUSED;
        break;
    }
    /* errno is left over from some earlier call unless the code says that the system refused
     * something. */
    bool system = sys && ((code & 0xff) == SQLITE_IOERR || (code & 0xff) == SQLITE_FULL ||
                          (code & 0xff) == SQLITE_CANTOPEN);
    apm_fail(err, st, "cannot use \"%s\": %s%s%s%s", db->path, text, system ? " (" : "",
             system ? strerror(sys) : "", system ? ")" : "");
    if (err && system)
        err->sys = sys;
    return st;
}

/* A file beside the database could not be used. Out of room or of descriptors, waiting may help;
 * otherwise somebody has to do something. */
static apium_status
fail_beside(apm_sqlite_db *db, const char *suffix, int sys, apium_error *err)
{
    bool wait = sys == ENOSPC || sys == EDQUOT || sys == EMFILE || sys == ENFILE || sys == EBUSY;
    apium_status st = wait ? APIUM_E_BUSY : APIUM_E_REFUSED;

    db->fault = wait ? SQLITE_FULL : SQLITE_CANTOPEN;
    (void)apm_fail(err, st, "cannot use \"%s\": cannot open \"%s%s\": %s", db->path, db->path,
                   suffix, strerror(sys));
    if (err)
        err->sys = sys;
    return st;
}

/* ---- The lock file ---- */

static int
lock_byte(int fd, off_t at, short type, bool wait)
{
    struct flock lock = { .l_type = type, .l_whence = SEEK_SET, .l_start = at, .l_len = 1 };
    int rc;

    do
        rc = fcntl(fd, wait ? F_OFD_SETLKW : F_OFD_SETLK, &lock);
    while (rc < 0 && errno == EINTR);
    return rc;
}

static int
open_beside(const apm_sqlite_db *db, const char *suffix)
{
    char *name = sqlite3_mprintf("%s%s", db->path, suffix);
    int fd = name ? open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0666) : -1;
    int sys = errno;

    sqlite3_free(name);
    errno = sys;
    return fd;
}

static void
close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* Is what we have open still what the name leads to? */
static bool
lock_file_is_current(const apm_sqlite_db *db)
{
    struct stat now;
    char *name = sqlite3_mprintf("%s-lock", db->path);
    bool same = name && stat(name, &now) == 0 && (int64_t)now.st_ino == db->lock_inode;

    sqlite3_free(name);
    return same;
}

static apium_status
open_lock_file(apm_sqlite_db *db, apium_error *err)
{
    struct stat info;

    close_fd(&db->lock_fd);
    db->lock_fd = open_beside(db, "-lock");
    if (db->lock_fd < 0 || fstat(db->lock_fd, &info) < 0)
        return fail_beside(db, "-lock", errno, err);
    db->lock_inode = (int64_t)info.st_ino;
    for (size_t i = 0; i < db->n_holds; i++)
        (void)lock_byte(db->lock_fd, RUN_BYTES + (off_t)db->holds[i], F_WRLCK, false);
    return APIUM_OK;
}

/* Queue for the right to write. Somebody may have deleted the lock file while we waited for the
 * old one. */
static apium_status
lock_writer(apm_sqlite_db *db, apium_error *err)
{
    for (int tries = 0; tries < 10; tries++) {
        if (db->lock_fd < 0) {
            apium_status st = open_lock_file(db, err);
            if (st != APIUM_OK)
                return st;
        }
        if (lock_byte(db->lock_fd, WRITER_BYTE, F_WRLCK, true) < 0)
            return fail_beside(db, "-lock", errno, err);
        if (lock_file_is_current(db)) {
            db->locked = true;
            return APIUM_OK;
        }
        close_fd(&db->lock_fd);
    }
    return fail_beside(db, "-lock", EBUSY, err);
}

static void
unlock_writer(apm_sqlite_db *db)
{
    if (db->locked)
        (void)lock_byte(db->lock_fd, WRITER_BYTE, F_UNLCK, false);
    db->locked = false;
}

apium_status
apm_sqlite_hold(apm_sqlite_db *db, int64_t run, apium_error *err)
{
    for (size_t i = 0; i < db->n_holds; i++)
        if (db->holds[i] == run)
            return APIUM_OK;
    if (db->n_holds == MAX_HOLDS)
        return apm_fail(err, APIUM_E_TOOBIG,
                        "cannot use \"%s\": more than %d consumers in one process", db->path,
                        MAX_HOLDS);
    if (lock_byte(db->lock_fd, RUN_BYTES + (off_t)run, F_WRLCK, false) < 0)
        return apm_fail_sys(err, errno, "cannot use \"%s\": cannot lock \"%s-lock\"", db->path,
                            db->path);
    db->holds[db->n_holds++] = run;
    return APIUM_OK;
}

void
apm_sqlite_unhold(apm_sqlite_db *db, int64_t run)
{
    for (size_t i = 0; i < db->n_holds; i++) {
        if (db->holds[i] == run) {
            (void)lock_byte(db->lock_fd, RUN_BYTES + (off_t)run, F_UNLCK, false);
            db->holds[i] = db->holds[--db->n_holds];
            return;
        }
    }
}

apm_sqlite_life
apm_sqlite_alive(apm_sqlite_db *db, int64_t run, int64_t place)
{
    struct flock lock = {
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = RUN_BYTES + (off_t)run, .l_len = 1
    };

    for (size_t i = 0; i < db->n_holds; i++)
        if (db->holds[i] == run)
            return APM_SQLITE_ALIVE;
    if (place != db->lock_inode || fcntl(db->lock_fd, F_OFD_GETLK, &lock) < 0)
        return APM_SQLITE_UNKNOWN;
    return lock.l_type == F_UNLCK ? APM_SQLITE_DEAD : APM_SQLITE_ALIVE;
}

int64_t
apm_sqlite_place(const apm_sqlite_db *db)
{
    return db->lock_inode;
}

/* ---- Opening and closing ---- */

static apium_status
pragma(apm_sqlite_db *db, apium_error *err, const char *fmt, const char *value)
{
    char *sql = sqlite3_mprintf(fmt, value);
    int rc = sql ? sqlite3_exec(db->handle, sql, NULL, NULL, NULL) : SQLITE_NOMEM;

    sqlite3_free(sql);
    return rc == SQLITE_OK ? APIUM_OK : fail(db, rc, err);
}

static apium_status
check_directory(apm_sqlite_db *db, apium_error *err)
{
    struct stat info;
    char *copy = strdup(db->path);

    if (!copy)
        return apm_fail(err, APIUM_E_NOMEM, "cannot open \"%s\": out of memory", db->path);
    const char *dir = dirname(copy);
    apium_status st = APIUM_OK;
    if (stat(dir, &info) < 0) {
        db->fault = SQLITE_CANTOPEN;
        st = apm_fail(err, APIUM_E_REFUSED, "cannot open \"%s\": the directory \"%s\": %s",
                      db->path, dir, strerror(errno));
    } else if (stat(db->path, &info) == 0 && S_ISDIR(info.st_mode)) {
        db->fault = SQLITE_CANTOPEN;
        st = apm_fail(err, APIUM_E_REFUSED, "cannot open \"%s\": it is a directory", db->path);
    }
    free(copy);
    return st;
}

static apium_status
open_file(apm_sqlite_db *db, apium_error *err)
{
    apium_status st = check_directory(db, err);

    if (st == APIUM_OK && apm_sqlite_fork_tainted(db->path)) {
        db->fault = SQLITE_CANTOPEN;
        st = apm_fail(err, APIUM_E_REFUSED,
                      "cannot use \"%s\": it was in use when this process was forked", db->path);
    }
    for (int i = 0; st == APIUM_OK && i < 2; i++) {
        if (db->touch_fd[i] < 0)
            db->touch_fd[i] = open_beside(db, touch_suffix[i]);
        if (db->touch_fd[i] < 0)
            st = fail_beside(db, touch_suffix[i], errno, err);
    }
    if (st == APIUM_OK)
        st = lock_writer(db, err); /* turning a file to WAL wants it alone */
    if (st != APIUM_OK)
        return st;
    int rc =
        sqlite3_open_v2(db->path, &db->handle,
                        SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);
    if (rc != SQLITE_OK)
        return fail(db, rc, err);
    sqlite3_extended_result_codes(db->handle, 1);
    sqlite3_busy_timeout(db->handle, BUSY_MS);
    st = pragma(db, err, "PRAGMA journal_mode=%s", "WAL");
    if (st == APIUM_OK)
        st = pragma(db, err, "PRAGMA synchronous=%s", db->synchronous);
    return st;
}

/* A column that a schema adds was added before: SQLite has no other way to find out within a statement. */
static bool
has_column(const apm_sqlite_db *db)
{
    return strncmp(sqlite3_errmsg(db->handle), "duplicate column name", 21) == 0;
}

apium_status
apm_sqlite_db_open(apm_sqlite_db *db, const char *const *schemas, unsigned n, apium_error *err)
{
    apium_status st = APIUM_OK;

    db->fault = 0;
    if (db->handle) {
        /* Deleted or replaced under us, writes would go into a file that nobody finds. */
        int moved = 0;
        sqlite3_file_control(db->handle, "main", SQLITE_FCNTL_HAS_MOVED, &moved);
        if (moved) {
            apm_sqlite_db_close(db, false);
            db->replaced = true;
        }
    }
    if (!db->handle)
        st = open_file(db, err);
    while (st == APIUM_OK && db->applied < n) {
        if (!db->locked)
            st = lock_writer(db, err);
        if (st == APIUM_OK) {
            int rc = sqlite3_exec(db->handle, schemas[db->applied], NULL, NULL, NULL);
            st = rc == SQLITE_OK || (rc == SQLITE_ERROR && has_column(db)) ? APIUM_OK
                                                                           : fail(db, rc, err);
        }
        if (st == APIUM_OK)
            db->applied++;
        else if (st == APIUM_E_SYSTEM) /* somebody else's tables under our names */
            st = apm_fail(err, APIUM_E_REFUSED, "cannot use \"%s\": its tables are not apium's: %s",
                          db->path, sqlite3_errmsg(db->handle));
    }
    if (db->handle && !sqlite3_get_autocommit(db->handle))
        sqlite3_exec(db->handle, "ROLLBACK", NULL, NULL, NULL);
    unlock_writer(db);
    if (st != APIUM_OK) {
        if (!db->fault)
            db->fault = SQLITE_ERROR;
        apm_sqlite_db_close(db, false);
    }
    return st;
}

void
apm_sqlite_db_close(apm_sqlite_db *db, bool all)
{
    for (size_t i = 0; i < sizeof(db->cache) / sizeof(db->cache[0]); i++) {
        sqlite3_finalize(db->cache[i].stmt);
        db->cache[i].sql = NULL;
        db->cache[i].stmt = NULL;
    }
    sqlite3_close(db->handle);
    db->handle = NULL;
    db->applied = 0;
    unlock_writer(db);
    close_fd(&db->touch_fd[0]);
    close_fd(&db->touch_fd[1]);
    if (all) {
        close_fd(&db->lock_fd);
        db->n_holds = 0;
    }
}

/* ---- Statements ---- */

static sqlite3_stmt *
find_statement(apm_sqlite_db *db, const char *sql, apium_error *err)
{
    const size_t slots = sizeof(db->cache) / sizeof(db->cache[0]);
    size_t at = ((uintptr_t)sql >> 3) % slots;

    while (db->cache[at].sql && db->cache[at].sql != sql)
        at = (at + 1) % slots; /* there are fewer statements in the program than slots */
    if (!db->cache[at].stmt) {
        int rc = sqlite3_prepare_v3(db->handle, sql, -1, SQLITE_PREPARE_PERSISTENT,
                                    &db->cache[at].stmt, NULL);
        if (rc != SQLITE_OK) {
            fail(db, rc, err);
            return NULL;
        }
        db->cache[at].sql = sql;
    }
    return db->cache[at].stmt;
}

sqlite3_stmt *
apm_sqlite_query(apm_sqlite_db *db, apium_error *err, const char *sql, const apm_sqlite_val *vals,
                 size_t n)
{
    sqlite3_stmt *stmt = find_statement(db, sql, err);
    int rc = SQLITE_OK;

    if (!stmt)
        return NULL;
    sqlite3_reset(stmt);
    for (size_t i = 0; i < n && rc == SQLITE_OK; i++) {
        const apm_sqlite_val *val = &vals[i];
        int at = (int)i + 1;
        if (val->kind == APM_SQLITE_INT)
            rc = sqlite3_bind_int64(stmt, at, val->i);
        else if (!val->s.p)
            rc = sqlite3_bind_null(stmt, at);
        else if (val->kind == APM_SQLITE_TEXT)
            rc = sqlite3_bind_text64(stmt, at, val->s.p, val->s.len, SQLITE_STATIC, SQLITE_UTF8);
        else
            rc = sqlite3_bind_blob64(stmt, at, val->s.p, val->s.len, SQLITE_STATIC);
    }
    if (rc != SQLITE_OK) {
        fail(db, rc, err);
        return NULL;
    }
    return stmt;
}

int
apm_sqlite_step(apm_sqlite_db *db, sqlite3_stmt *stmt, apium_error *err)
{
    int rc = sqlite3_step(stmt);

    if (rc == SQLITE_ROW)
        return 1;
    if (rc != SQLITE_DONE)
        fail(db, rc, err); /* before the reset, which may change the text */
    sqlite3_reset(stmt);
    return rc == SQLITE_DONE ? 0 : -1;
}

apium_status
apm_sqlite_exec(apm_sqlite_db *db, apium_error *err, const char *sql, const apm_sqlite_val *vals,
                size_t n)
{
    apium_error own;
    sqlite3_stmt *stmt = apm_sqlite_query(db, &own, sql, vals, n);
    int rc = stmt ? 1 : -1;

    while (rc > 0)
        rc = apm_sqlite_step(db, stmt, &own);
    if (rc < 0) {
        if (err)
            *err = own;
        return own.status;
    }
    return APIUM_OK;
}

int64_t
apm_sqlite_changes(const apm_sqlite_db *db)
{
    return sqlite3_changes64(db->handle);
}

int64_t
apm_sqlite_last_id(const apm_sqlite_db *db)
{
    return sqlite3_last_insert_rowid(db->handle);
}

apm_str
apm_sqlite_column(sqlite3_stmt *stmt, int column)
{
    if (sqlite3_column_type(stmt, column) == SQLITE_NULL)
        return APM_STR_NONE;
    const char *p =
        sqlite3_column_blob(stmt, column); /* of a text too: its bytes; NULL when empty */
    return (apm_str){ p ? p : "", (size_t)sqlite3_column_bytes(stmt, column) };
}

void
apm_sqlite_touch(apm_sqlite_db *db, apm_sqlite_topic topic)
{
    db->touched |= 1u << topic;
}

/* ---- Transactions ---- */

static void
reset_all(apm_sqlite_db *db)
{
    for (size_t i = 0; i < sizeof(db->cache) / sizeof(db->cache[0]); i++)
        if (db->cache[i].stmt && sqlite3_stmt_busy(db->cache[i].stmt))
            sqlite3_reset(db->cache[i].stmt);
}

apium_status
apm_sqlite_db_begin(apm_sqlite_db *db, bool write, apium_error *err)
{
    apium_status st = APIUM_OK;

    db->fault = 0;
    db->touched = 0;
    if (write)
        st = lock_writer(db, err);
    if (st == APIUM_OK)
        st = write ? apm_sqlite_exec(db, err, "BEGIN IMMEDIATE", NULL, 0)
                   : apm_sqlite_exec(db, err, "BEGIN", NULL, 0);
    if (st != APIUM_OK)
        unlock_writer(db);
    return st;
}

apium_status
apm_sqlite_db_commit(apm_sqlite_db *db, apium_error *err)
{
    reset_all(db);
    apium_status st = apm_sqlite_exec(db, err, "COMMIT", NULL, 0);
    if (st != APIUM_OK) {
        apm_sqlite_db_rollback(db);
        return st;
    }
    unlock_writer(db);
    for (int i = 0; i < 2; i++)
        if (db->touched & (1u << i))
            (void)futimens(db->touch_fd[i], NULL);
    return APIUM_OK;
}

void
apm_sqlite_db_rollback(apm_sqlite_db *db)
{
    int fault = db->fault;

    if (db->handle) {
        reset_all(db);
        if (!sqlite3_get_autocommit(db->handle)) /* some errors have rolled back already */
            (void)apm_sqlite_exec(db, NULL, "ROLLBACK", NULL, 0);
    }
    db->fault = fault;
    unlock_writer(db);
}

apium_status
apm_sqlite_db_savepoint(apm_sqlite_db *db, apium_error *err)
{
    return apm_sqlite_exec(db, err, "SAVEPOINT unit", NULL, 0);
}

apium_status
apm_sqlite_db_release(apm_sqlite_db *db, apium_error *err)
{
    reset_all(db);
    return apm_sqlite_exec(db, err, "RELEASE unit", NULL, 0);
}

apium_status
apm_sqlite_db_undo(apm_sqlite_db *db, apium_error *err)
{
    reset_all(db);
    if (sqlite3_get_autocommit(db->handle))
        return fail(db, SQLITE_IOERR, err); /* the whole transaction is gone with the unit */
    apium_status st = apm_sqlite_exec(db, err, "ROLLBACK TO unit", NULL, 0);
    return st == APIUM_OK ? apm_sqlite_exec(db, err, "RELEASE unit", NULL, 0) : st;
}
