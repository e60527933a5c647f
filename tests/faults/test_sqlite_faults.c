/*
 * test_sqlite_faults.c - sqlite:///path in trouble: full disks, files that are no databases,
 * missing folders, strangers' locks, owners that die or hang. Nothing may be lost, every error
 * says which file and why, and when the trouble is over work goes on.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "side.h"

/* ---- A folder for each test ---- */

static char dir[64], path[96];

static void
setup(void)
{
    snprintf(dir, sizeof(dir), "/tmp/apium-faults-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/apium.db", dir);
    snprintf(side_url, sizeof(side_url), "sqlite:///%s", path);
}

static void
teardown(void)
{
    char command[128];

    (void)umount(dir);
    snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    ck_assert_int_eq(system(command), 0);
}

/* ---- What links and units say ---- */

typedef struct news {
    apm_link_watch watch;
    unsigned ups, downs;
    char why[512];
} news;

static void
on_link(void *arg, apm_link *link, bool up, const char *why)
{
    news *n = arg;

    (void)link;
    if (up)
        n->ups++;
    else
        n->downs++;
    if (!up)
        snprintf(n->why, sizeof(n->why), "%s", why);
}

static void
watch(side *s, news *n)
{
    *n = (news){ .watch = { .on_event = on_link, .arg = n } };
    apm_link_watch_add(s->broker->link, &n->watch);
}

static side *
worker_side(void)
{
    static apm_broker_opts opts;
    side *s = side_new(-1);
    apium_error error, *err = &error;

    opts = (apm_broker_opts){ .settings = &s->settings, .node = "test@here" };
    ck_ok(apm_broker_open(s->links, side_url, &opts, &s->broker, err));
    return s;
}

typedef struct tally {
    int ok, failed;
    apium_status status;
    char text[256];
} tally;

static void
on_counted(void *arg, apium_status status, const apium_error *err)
{
    tally *t = arg;

    if (status == APIUM_OK) {
        t->ok++;
    } else {
        t->failed++;
        t->status = status;
        snprintf(t->text, sizeof(t->text), "%s", err->text);
    }
}

static void
post(side *s, const apm_queue *queue, const char *body, tally *t)
{
    apium_error error, *err = &error;
    apm_unit *unit = apm_unit_new(s->broker->link);
    apm_route route = side_route(queue);
    apm_message msg = side_message(body);

    ck_ok(apm_broker_publish(s->broker, unit, &route, &msg, err));
    apm_unit_commit(unit, on_counted, t);
}

static char *
big_body(size_t size)
{
    char *body = side_keep(malloc(size + 1));

    memset(body, 'b', size);
    body[size] = '\0';
    return body;
}

static void
write_file(const char *name, const char *text, size_t size)
{
    FILE *file = fopen(name, "w");

    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(text, 1, size, file), size);
    ck_assert_int_eq(fclose(file), 0);
}

/* ---- A full disk ---- */

/* Publishes into a disk that fills up, makes room, and sees that everything arrives, once. */
static void
fill_and_free(void (*fill)(void), void (*make_room)(void))
{
    side *s = worker_side();
    const apm_queue *queue = side_queue("q");
    const char *body = big_body(50000);
    tally t = { 0 };
    news n;
    int sent = 0;

    watch(s, &n);
    post(s, queue, "first", &t);
    run_until(t.ok == 1);
    fill();
    while (!n.downs) {
        post(s, queue, body, &t);
        ck_assert_int_lt(++sent, 2000);
        sides_turn();
    }
    ck_assert_msg(strstr(n.why, path) && strstr(n.why, "Trying again in"), "why: %s", n.why);
    ck_assert_msg(strstr(n.why, "full") || strstr(n.why, "I/O"), "why: %s", n.why);
    run_for(500);
    ck_assert_int_eq(t.failed, 0);
    ck_assert_int_lt(t.ok, sent + 1);
    ck_assert_int_eq(side_inspect(s, queue).ready, t.ok); /* reading goes on */
    make_room();
    run_until(t.ok == sent + 1);
    ck_assert_uint_ge(n.ups, 1);
    ck_assert(s->broker->link->up);
    ck_assert_int_eq(t.failed, 0);
    ck_assert_int_eq(side_inspect(s, queue).ready, sent + 1);
    side_free(s);
}

static void
limit_file_size(void)
{
    struct rlimit limit;

    signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = 1 << 20;
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void
lift_limit(void)
{
    struct rlimit limit;

    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

START_TEST(a_file_that_may_not_grow_keeps_units_waiting_and_loses_none)
{
    fill_and_free(limit_file_size, lift_limit);
}
END_TEST

static void
fill_disk(void)
{
}

static void
delete_ballast(void)
{
    char name[128];

    snprintf(name, sizeof(name), "%s/ballast", dir);
    ck_assert_int_eq(unlink(name), 0);
}

START_TEST(a_full_disk_keeps_units_waiting_and_loses_none)
{
    char name[128];

    /* Where this may not be mounted (not root, a strict container) the limit on the file's size
     * above says the same. */
    if (mount("none", dir, "tmpfs", 0, "size=24m") != 0)
        return;
    snprintf(name, sizeof(name), "%s/ballast", dir);
    write_file(name, big_body(16 << 20), 16 << 20);
    fill_and_free(fill_disk, delete_ballast);
}
END_TEST

START_TEST(a_client_gives_up_on_a_full_disk_after_its_patience)
{
    side *s = side_new(700);
    apm_broker_opts opts = { .settings = &s->settings };
    apium_error error, *err = &error;
    const apm_queue *queue = side_queue("q");
    tally t = { 0 };

    ck_ok(apm_broker_open(s->links, side_url, &opts, &s->broker, err));
    post(s, queue, "first", &t);
    run_until(t.ok == 1);
    limit_file_size();
    int64_t start = apm_clock_ms();
    post(s, queue, big_body(3 << 20), &t);
    run_until(t.failed == 1);
    int64_t took = apm_clock_ms() - start;
    ck_assert_int_eq(t.status, APIUM_E_CLOSED);
    ck_assert_ptr_nonnull(strstr(t.text, path));
    ck_assert_msg(took >= 600 && took < 5000, "gave up after %lld ms", (long long)took);
    post(s, queue, "small", &t);
    run_until(t.ok == 2);
    side_free(s);
}
END_TEST

/* ---- Files and folders ---- */

START_TEST(a_file_that_is_no_database_is_refused_and_named)
{
    side *s = side_new(10000);
    apm_broker_opts opts = { .settings = &s->settings };
    apium_error error, *err = &error;
    tally t = { 0 };

    write_file(path, big_body(8192), 8192);
    ck_ok(apm_broker_open(s->links, side_url, &opts, &s->broker, err));
    post(s, side_queue("q"), "x", &t);
    run_until(t.failed == 1);
    ck_assert_int_eq(t.status, APIUM_E_REFUSED);
    ck_assert_msg(strstr(t.text, path) && strstr(t.text, "not a database"), "%s", t.text);
    side_free(s);
    struct stat info;
    ck_assert_int_eq(stat(path, &info), 0);
    ck_assert_int_eq(info.st_size, 8192); /* untouched */
}
END_TEST

START_TEST(a_worker_waits_for_a_broken_file_to_be_repaired)
{
    side *s;
    tally t = { 0 };
    news n;

    write_file(path, big_body(8192), 8192);
    s = worker_side();
    watch(s, &n);
    post(s, side_queue("q"), "x", &t);
    run_until(n.downs >= 2);
    ck_assert_msg(strstr(n.why, path) && strstr(n.why, "not a database"), "%s", n.why);
    ck_assert_int_eq(t.ok + t.failed, 0);
    ck_assert_int_eq(unlink(path), 0);
    run_until(t.ok == 1);
    ck_assert_uint_eq(n.ups, 1);
    side_free(s);
}
END_TEST

START_TEST(a_file_that_was_damaged_under_us_is_named)
{
    side *s = worker_side();
    const apm_queue *queue = side_queue("q");
    tally t = { 0 };
    news n;
    char name[128];
    struct stat info;

    watch(s, &n);
    for (int i = 0; i < 200; i++)
        post(s, queue, big_body(2000), &t);
    run_until(t.ok == 200);
    side_free(s); /* checkpoints */
    ck_assert_int_eq(stat(path, &info), 0);
    int fd = open(path, O_RDWR);
    for (off_t at = 4096; at < info.st_size; at += 4096)
        ck_assert_int_eq(
            pwrite(fd, "damage damage damage damage damage damage damage damage damage ", 64, at),
            64);
    close(fd);
    snprintf(name, sizeof(name), "%s-wal", path);
    (void)unlink(name);
    s = worker_side();
    watch(s, &n);
    t = (tally){ 0 };
    post(s, queue, "x", &t);
    run_until(n.downs >= 1);
    ck_assert_msg(strstr(n.why, path) && strstr(n.why, "malformed"), "%s", n.why);
    ck_assert_int_eq(t.ok + t.failed, 0);
    side_free(s);
    ck_assert_int_eq(t.status, APIUM_E_CLOSED); /* closing answers what waited */
}
END_TEST

START_TEST(a_missing_folder_is_named_and_waited_for)
{
    side *s;
    tally t = { 0 };
    news n;

    snprintf(path, sizeof(path), "%s/not/yet.db", dir);
    snprintf(side_url, sizeof(side_url), "sqlite:///%s", path);
    s = worker_side();
    watch(s, &n);
    post(s, side_queue("q"), "x", &t);
    run_until(n.downs >= 1);
    ck_assert_msg(strstr(n.why, "/not\": No such file or directory"), "%s", n.why);
    snprintf(path, sizeof(path), "%s/not", dir);
    ck_assert_int_eq(mkdir(path, 0755), 0);
    run_until(t.ok == 1);
    side_free(s);
}
END_TEST

START_TEST(a_client_hears_of_a_missing_folder_at_once)
{
    side *s = side_new(60000);
    apm_broker_opts opts = { .settings = &s->settings };
    apium_error error, *err = &error;
    tally t = { 0 };

    snprintf(side_url, sizeof(side_url), "sqlite:///%s/not/there.db", dir);
    ck_ok(apm_broker_open(s->links, side_url, &opts, &s->broker, err));
    int64_t start = apm_clock_ms();
    post(s, side_queue("q"), "x", &t);
    run_until(t.failed == 1);
    ck_assert_int_eq(t.status, APIUM_E_REFUSED);
    ck_assert_int_lt(apm_clock_ms() - start, 3000);
    side_free(s);
}
END_TEST

START_TEST(a_file_without_permission_is_refused_and_named)
{
    side *s;
    apm_broker_opts opts = { 0 };
    apium_error error, *err = &error;
    tally t = { 0 };

    write_file(path, "", 0);
    ck_assert_int_eq(chmod(path, 0444), 0);
    ck_assert_int_eq(chmod(dir, 0555), 0);
    if (geteuid() == 0)
        ck_assert_int_eq(seteuid(65534), 0);
    s = side_new(10000);
    opts.settings = &s->settings;
    ck_ok(apm_broker_open(s->links, side_url, &opts, &s->broker, err));
    post(s, side_queue("q"), "x", &t);
    run_until(t.failed == 1);
    ck_assert_int_eq(t.status, APIUM_E_REFUSED);
    ck_assert_msg(strstr(t.text, path) && strstr(t.text, "Permission denied"), "%s", t.text);
    side_free(s);
    if (getuid() == 0)
        ck_assert_int_eq(seteuid(0), 0);
    ck_assert_int_eq(chmod(dir, 0755), 0);
}
END_TEST

START_TEST(a_stranger_who_locks_the_file_is_waited_for)
{
    side *s = worker_side();
    tally t = { 0 };
    news n;
    sqlite3 *db;

    watch(s, &n);
    post(s, side_queue("q"), "first", &t);
    run_until(t.ok == 1);
    ck_assert_int_eq(sqlite3_open(path, &db), SQLITE_OK);
    ck_assert_int_eq(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    post(s, side_queue("q"), "second", &t);
    run_until(n.downs >= 1);
    ck_assert_msg(strstr(n.why, path) && strstr(n.why, "locked"), "%s", n.why);
    ck_assert_int_eq(t.ok, 1);
    ck_assert_int_eq(sqlite3_exec(db, "COMMIT", NULL, NULL, NULL), SQLITE_OK);
    run_until(t.ok == 2);
    sqlite3_close(db);
    side_free(s);
}
END_TEST

START_TEST(a_file_that_was_replaced_is_noticed)
{
    apium_error error, *err = &error;
    side *s = side_with(true, false), *other;
    const apm_queue *queue = side_queue("q");
    char command[1024];

    side_consume(s, queue, 5);
    ck_ok(side_publish(s, queue, "old", err));
    apm_delivery *old = side_receive(s);
    snprintf(command, sizeof(command), "rm -f '%s' '%s-wal' '%s-shm' '%s-lock' '%s-wake' '%s-done'",
             path, path, path, path, path, path);
    ck_assert_int_eq(system(command), 0);
    other = side_with(true, false);
    ck_ok(side_publish(other, queue, "new", err));
    apm_delivery *delivery = side_receive(s);
    ck_assert(body_is(delivery, "new"));
    ck_assert_int_eq(old->hold, APM_LOST);
    ck_ok(side_settle(s, delivery, APM_ACK, NULL, err));
    side_free(other);
    side_free(s);
}
END_TEST

START_TEST(wrong_urls_are_refused_when_they_are_opened)
{
    side *s = side_new(0);
    apium_error error, *err = &error;
    apm_link *link;
    static const char *const wrong[] = {
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite://host/path.db",
        "sqlite:///x.db?synchronous=MAYBE",
    };

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        ck_fails(apm_link_get(s->links, wrong[i], &link, err), APIUM_E_CONFIG);
        ck_assert_msg(strstr(err->text, "sqlite://"), "%s", err->text);
    }
    side_free(s);
}
END_TEST

START_TEST(a_relative_path_and_an_absolute_one_name_the_same_file)
{
    side *s = side_new(10000);
    apium_error error, *err = &error;
    apm_link *absolute, *relative, *other;

    ck_assert_int_eq(chdir(dir), 0);
    ck_ok(apm_link_get(s->links, side_url, &absolute, err));
    ck_ok(apm_link_get(s->links, "sqlite:///apium.db", &relative, err));
    ck_ok(apm_link_get(s->links, "sqlite:///other.db", &other, err));
    ck_assert_ptr_eq(absolute, relative);
    ck_assert_ptr_ne(absolute, other);
    run_until(absolute->up && other->up);
    ck_ok(apm_link_get(s->links, "sqlite:///./apium.db", &relative, err));
    ck_assert_ptr_eq(absolute, relative);
    ck_assert_int_eq(access(path, F_OK), 0);
    side_free(s);
}
END_TEST

START_TEST(tables_of_others_in_the_file_are_left_alone)
{
    sqlite3 *db;
    tally t = { 0 };

    ck_assert_int_eq(sqlite3_open(path, &db), SQLITE_OK);
    ck_assert_int_eq(
        sqlite3_exec(db, "CREATE TABLE queues(a); INSERT INTO queues VALUES(42)", NULL, NULL, NULL),
        SQLITE_OK);
    side *s = worker_side();
    post(s, side_queue("q"), "x", &t);
    run_until(t.ok == 1);
    ck_assert_int_eq(sqlite3_exec(db, "INSERT INTO queues VALUES(43)", NULL, NULL, NULL),
                     SQLITE_OK);
    sqlite3_close(db);
    side_free(s);
}
END_TEST

/* ---- Owners that die or hang ---- */

/* A process that receives everything and settles nothing; it leaves with 42 when it is told that
 * it has lost a delivery. */
static pid_t
start_hoarder(const apm_queue *queue, int ready_fd)
{
    pid_t pid = fork();

    if (pid != 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    side *s = side_with(true, false);
    side_consume(s, queue, 0);
    run_until(s->received == 3);
    ck_assert_int_eq(write(ready_fd, "x", 1), 1);
    while (s->n_lost == 0)
        sides_turn();
    _exit(s->n_lost == 3 ? 42 : 43);
}

static void
publish_from_a_process(const apm_queue *queue, int n)
{
    pid_t pid = fork();
    int status;

    if (pid == 0) {
        apium_error error, *err = &error;
        side *s = side_with(true, false);
        for (int i = 0; i < n; i++)
            ck_ok(side_publish(s, queue, "x", err));
        side_free(s);
        _exit(0);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
}

START_TEST(what_a_killed_process_held_is_back_within_seconds)
{
    apium_error error, *err = &error;
    const apm_queue *queue = side_queue("q");
    int ends[2];
    char x;

    ck_assert_int_eq(pipe(ends), 0);
    publish_from_a_process(queue, 3);
    pid_t pid = start_hoarder(queue, ends[1]);
    ck_assert_int_eq(read(ends[0], &x, 1), 1);
    side *s = side_with(true, false);
    side_consume(s, queue, 0);
    run_for(1500);
    ck_assert_uint_eq(s->received, 0); /* it is alive: hands off */
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    int64_t start = apm_clock_ms();
    for (int i = 0; i < 3; i++) {
        apm_delivery *delivery = side_receive(s);
        ck_assert(delivery->msg.redelivered);
        ck_ok(side_settle(s, delivery, APM_ACK, NULL, err));
    }
    ck_assert_int_lt(apm_clock_ms() - start, 8000);
    side_free(s);
}
END_TEST

START_TEST(what_a_hanging_process_holds_is_taken_after_its_lease_and_it_is_told)
{
    apium_error error, *err = &error;
    const apm_queue *queue = side_queue("q");
    int ends[2], status;
    char x;

    ck_assert_int_eq(pipe(ends), 0);
    publish_from_a_process(queue, 3);
    pid_t pid = start_hoarder(queue, ends[1]);
    ck_assert_int_eq(read(ends[0], &x, 1), 1);
    side *s = side_with(true, false);
    side_consume(s, queue, 0);
    run_for(1500);
    kill(pid, SIGSTOP);
    /* Five seconds pass with each turn of its timer, so that its own beats keep up. */
    for (int i = 0; i < 8; i++) {
        apm_clock_fake(5000);
        run_for(1200);
    }
    ck_assert_uint_eq(s->received, 0); /* 50 s: the lease is not over */
    for (int i = 0; i < 5; i++) {
        apm_clock_fake(5000);
        run_for(1200);
    }
    for (int i = 0; i < 3; i++) {
        apm_delivery *delivery = side_receive(s);
        ck_assert(delivery->msg.redelivered);
        ck_ok(side_settle(s, delivery, APM_ACK, NULL, err));
    }
    kill(pid, SIGCONT);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 42, "it was not told: status %x",
                  (unsigned)status);
    side_free(s);
}
END_TEST

START_TEST(closing_does_not_wait_for_a_writer_that_was_stopped)
{
    tally t = { 0 };
    side *s = worker_side();
    char name[128];

    post(s, side_queue("q"), "first", &t);
    run_until(t.ok == 1);
    /* As a process stopped in the middle of its transaction would. */
    snprintf(name, sizeof(name), "%s-lock", path);
    int fd = open(name, O_RDWR);
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1 };
    ck_assert_int_eq(fcntl(fd, F_OFD_SETLK, &lock), 0);
    post(s, side_queue("q"), "second", &t);
    run_for(300);
    int64_t start = apm_clock_ms();
    side_free(s);
    ck_assert_int_lt(apm_clock_ms() - start, 8000);
    ck_assert_int_eq(t.ok, 1);
    close(fd);
}
END_TEST

/* ---- Forks ---- */

static void
wait_for(int fd)
{
    char x;

    ck_assert_int_eq(read(fd, &x, 1), 1);
}

static void
tell(int fd)
{
    ck_assert_int_eq(write(fd, "x", 1), 1);
}

START_TEST(a_child_of_a_process_that_uses_the_file_may_use_it_too)
{
    apium_error error, *err = &error;
    const apm_queue *queue = side_queue("q");
    side *s = side_with(true, false);
    int to_child[2], to_parent[2], status;

    ck_assert_int_eq(pipe(to_child), 0);
    ck_assert_int_eq(pipe(to_parent), 0);
    ck_ok(side_publish(s, queue, "before", err));
    pid_t pid = fork();
    if (pid == 0) {
        sides_forked();
        s = side_with(true, false);
        for (int i = 0; i < 10; i++)
            ck_ok(side_publish(s, queue, "child", err));
        tell(to_parent[1]);
        wait_for(to_child[0]);
        for (int i = 0; i < 10; i++)
            ck_ok(side_publish(s, queue, "child", err));
        side_free(s);
        _exit(0);
    }
    ck_ok(side_publish(s, queue, "after", err));
    wait_for(to_parent[0]);
    /* The last user in this process leaves, then others come: the child's file must not go away under it. */
    side_free(s);
    publish_from_a_process(queue, 5);
    tell(to_child[1]);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    s = side_with(true, false);
    ck_assert_int_eq(side_inspect(s, queue).ready, 1 + 10 + 1 + 5 + 10);
    side_free(s);
}
END_TEST

START_TEST(forks_in_the_middle_of_work_disturb_nothing)
{
    const apm_queue *queue = side_queue("q");
    side *s = worker_side();
    tally t = { 0 };

    for (int i = 0; i < 30; i++) {
        for (int j = 0; j < 20; j++)
            post(s, queue, "x", &t);
        sides_turn();
        pid_t pid = fork();
        if (pid == 0)
            _exit(0);
        ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
    }
    run_until(t.ok == 600);
    ck_assert_int_eq(t.failed, 0);
    side_free(s);
}
END_TEST

START_TEST(a_file_that_could_not_be_closed_for_a_fork_is_refused_in_the_child)
{
    side *s = worker_side();
    tally t = { 0 };
    char name[128];
    int status;

    post(s, side_queue("q"), "first", &t);
    run_until(t.ok == 1);
    snprintf(name, sizeof(name), "%s-lock", path);
    int fd = open(name, O_RDWR);
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1 };
    ck_assert_int_eq(fcntl(fd, F_OFD_SETLK, &lock), 0);
    post(s, side_queue("q"), "second", &t);
    run_for(200); /* its thread waits for the lock now */
    pid_t pid = fork();
    if (pid == 0) {
        sides_forked();
        side *mine = side_new(5000);
        apm_broker_opts opts = { .settings = &mine->settings };
        tally of_child = { 0 };
        apium_error error, *err = &error;
        ck_ok(apm_broker_open(mine->links, side_url, &opts, &mine->broker, err));
        post(mine, side_queue("q"), "child", &of_child);
        run_until(of_child.failed == 1);
        _exit(of_child.status == APIUM_E_REFUSED && strstr(of_child.text, "forked") ? 42 : 1);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 42, "status %x", (unsigned)status);
    lock.l_type = F_UNLCK;
    ck_assert_int_eq(fcntl(fd, F_OFD_SETLK, &lock), 0);
    close(fd);
    run_until(t.ok == 2);
    side_free(s);
}
END_TEST

static const TTest *const *const list[] = {
    &a_file_that_may_not_grow_keeps_units_waiting_and_loses_none,
    &a_full_disk_keeps_units_waiting_and_loses_none,
    &a_client_gives_up_on_a_full_disk_after_its_patience,
    &a_file_that_is_no_database_is_refused_and_named,
    &a_worker_waits_for_a_broken_file_to_be_repaired,
    &a_file_that_was_damaged_under_us_is_named,
    &a_missing_folder_is_named_and_waited_for,
    &a_client_hears_of_a_missing_folder_at_once,
    &a_file_without_permission_is_refused_and_named,
    &a_stranger_who_locks_the_file_is_waited_for,
    &a_file_that_was_replaced_is_noticed,
    &wrong_urls_are_refused_when_they_are_opened,
    &a_relative_path_and_an_absolute_one_name_the_same_file,
    &tables_of_others_in_the_file_are_left_alone,
    &what_a_killed_process_held_is_back_within_seconds,
    &what_a_hanging_process_holds_is_taken_after_its_lease_and_it_is_told,
    &closing_does_not_wait_for_a_writer_that_was_stopped,
    &a_child_of_a_process_that_uses_the_file_may_use_it_too,
    &forks_in_the_middle_of_work_disturb_nothing,
    &a_file_that_could_not_be_closed_for_a_fork_is_refused_in_the_child,
};

int
main(void)
{
    const TTest *tests[sizeof(list) / sizeof(list[0]) + 1] = { 0 };

    for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++)
        tests[i] = *list[i];
    return suite_run_with("sqlite faults", tests, 60, setup, teardown);
}
