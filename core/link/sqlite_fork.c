/*
 * sqlite_fork.c - what a fork() does to open SQLite files.
 *
 * SQLite's locks belong to a process, but its list of open files is copied into a child: a file that was open during
 * the fork looks locked there, and is not. Therefore the threads of all links close their files for the moment of a
 * fork and open them again when they need them. Where one does not get to it in time (it waits for a lock), the child
 * refuses to open that file. In the child the links of the parent are dead; it drops them and opens its own.
 */
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/base/error.h"
#include "core/link/sqlite_store.h"

#define PAUSE_S 3 /* patience with a thread that is in the middle of a transaction */

/* Held from before a fork until after it. */
static pthread_mutex_t stores_mutex = PTHREAD_MUTEX_INITIALIZER;
static store *stores;

/* Files that were open when this process was forked. They are few, and never forgotten. */
static struct tainted {
    dev_t dev;
    ino_t ino;
    struct tainted *next;
} * tainted;

/* ---- In the thread ---- */

void
apm_sqlite_store_pause(store *s)
{
    while (s->pause) {
        if (!s->paused) {
            pthread_mutex_unlock(&s->mutex);
            apm_sqlite_db_close(s->db, false);
            pthread_mutex_lock(&s->mutex);
            s->paused = true;
            pthread_cond_broadcast(&s->more);
        }
        pthread_cond_wait(&s->more, &s->mutex);
    }
    s->paused = false;
}

/* ---- Around a fork ---- */

static void
before_fork(void)
{
    struct timespec until;

    pthread_mutex_lock(&stores_mutex);
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += PAUSE_S;
    for (store *s = stores; s; s = s->neighbour) {
        pthread_mutex_lock(&s->mutex);
        s->pause = true;
        pthread_cond_broadcast(&s->more);
        pthread_mutex_unlock(&s->mutex);
    }
    for (store *s = stores; s; s = s->neighbour) {
        int rc = 0;
        pthread_mutex_lock(&s->mutex);
        while (!s->paused && rc == 0)
            rc = pthread_cond_timedwait(&s->more, &s->mutex, &until);
        pthread_mutex_unlock(&s->mutex);
    }
}

static void
after_fork_in_parent(void)
{
    for (store *s = stores; s; s = s->neighbour) {
        pthread_mutex_lock(&s->mutex);
        s->pause = false;
        pthread_cond_broadcast(&s->more);
        pthread_mutex_unlock(&s->mutex);
    }
    pthread_mutex_unlock(&stores_mutex);
}

static void
taint(const char *path)
{
    struct stat info;
    struct tainted *t = stat(path, &info) == 0 ? malloc(sizeof(*t)) : NULL;

    if (!t)
        return;
    *t = (struct tainted){ info.st_dev, info.st_ino, tainted };
    tainted = t;
}

static void
after_fork_in_child(void)
{
    for (store *s = stores; s; s = s->neighbour) {
        if (!s->paused)
            taint(s->path);
        /* Our copies would keep the parent's sign of life after its death. */
        if (s->db->lock_fd >= 0)
            close(s->db->lock_fd);
        for (int i = 0; i < 2; i++)
            if (s->db->touch_fd[i] >= 0)
                close(s->db->touch_fd[i]);
    }
    stores = NULL;
    pthread_mutex_unlock(&stores_mutex);
}

static void
install(void)
{
    (void)pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

/* ---- Stores come and go ---- */

void
apm_sqlite_fork_add(store *s)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    (void)pthread_once(&once, install);
    pthread_mutex_lock(&stores_mutex);
    s->neighbour = stores;
    stores = s;
    pthread_mutex_unlock(&stores_mutex);
}

void
apm_sqlite_fork_remove(store *s)
{
    pthread_mutex_lock(&stores_mutex);
    for (store **at = &stores; *at; at = &(*at)->neighbour) {
        if (*at == s) {
            *at = s->neighbour;
            break;
        }
    }
    pthread_mutex_unlock(&stores_mutex);
}

bool
apm_sqlite_fork_tainted(const char *path)
{
    struct stat info;

    if (!tainted || stat(path, &info) < 0)
        return false;
    for (const struct tainted *t = tainted; t; t = t->next)
        if (t->dev == info.st_dev && t->ino == info.st_ino)
            return true;
    return false;
}
