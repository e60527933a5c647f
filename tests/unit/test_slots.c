/* test_slots.c - the shared memory of a pool, hammered by several processes and threads */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "tests/support/suite.h"
#include "worker/slots.h"

static apium_error error, *const err = &error;

static unsigned
push(apm_slots *slots, uint32_t seq, apm_str request)
{
    unsigned slot;
    ck_ok(apm_slots_push(slots, seq, request, APM_STR_NONE, &slot, err));
    return slot;
}

static apm_slots
make(unsigned n, unsigned seats)
{
    apm_slots slots;
    ck_ok(apm_slots_create(&slots, n, seats, err));
    for (unsigned i = 0; i < seats; i++)
        apm_slots_reseat(&slots, i);
    return slots;
}

/* Take one and end it: has the main process to be woken? */
static bool
run_next(apm_slots *slots, int64_t now_ns)
{
    uint32_t seq;
    int slot = apm_slots_take(slots, 0, &seq);
    ck_assert_int_ge(slot, 0);
    return apm_slots_done(slots, 0, (unsigned)slot, seq, now_ns);
}

START_TEST(slots_are_run_in_the_order_of_pushing)
{
    apm_slots slots = make(8, 1);
    uint32_t seq;
    for (uint32_t i = 1; i <= 8; i++)
        push(&slots, i, APM_STR("x"));
    for (uint32_t i = 1; i <= 8; i++) {
        ck_assert_int_ge(apm_slots_take(&slots, 0, &seq), 0);
        ck_assert_uint_eq(seq, i);
    }
    ck_assert_int_eq(apm_slots_take(&slots, 0, &seq), -1);
    apm_slots_close(&slots);
}
END_TEST

START_TEST(a_full_pool_is_busy_until_a_slot_is_released)
{
    apm_slots slots = make(8, 1);
    unsigned slot, seat;
    uint32_t seq;
    for (uint32_t i = 1; i <= 8; i++)
        push(&slots, i, APM_STR("x"));
    ck_assert_uint_eq(apm_slots_room(&slots), 0);
    ck_fails(apm_slots_push(&slots, 9, APM_STR("x"), APM_STR_NONE, &slot, err), APIUM_E_BUSY);
    slot = (unsigned)apm_slots_take(&slots, 0, &seq);
    ck_assert_int_eq(apm_slots_next_taken(&slots), (int)slot);
    ck_assert_int_eq(apm_slots_look(&slots, slot, &seat), APM_SLOT_RUNNING);
    ck_ok(apm_slots_answer(&slots, slot, APM_STR("done"), APM_STR_NONE, err));
    apm_slots_done(&slots, 0, slot, seq, 0);
    ck_assert_int_eq(apm_slots_look(&slots, slot, &seat), APM_SLOT_DONE);
    apm_slots_release(&slots, slot);
    ck_assert_uint_eq(apm_slots_room(&slots), 1);
    push(&slots, 9, APM_STR("x"));
    apm_slots_close(&slots);
}
END_TEST

START_TEST(what_was_taken_back_is_not_run)
{
    apm_slots slots = make(8, 1);
    uint32_t seq;
    unsigned a = push(&slots, 1, APM_STR("a")), b = push(&slots, 2, APM_STR("b"));
    ck_assert(apm_slots_take_back(&slots, a));
    ck_assert(!apm_slots_take_back(&slots, a));
    ck_assert_int_eq(apm_slots_take(&slots, 0, &seq), (int)b);
    ck_assert(!apm_slots_take_back(&slots, b));
    ck_assert_int_eq(apm_slots_take(&slots, 0, &seq), -1);
    apm_slots_close(&slots);
}
END_TEST

START_TEST(a_slot_taken_back_is_used_again_under_another_number_while_its_old_entry_is_queued)
{
    apm_slots slots = make(8, 1);
    uint32_t seq;
    unsigned a = push(&slots, 1, APM_STR("a"));
    ck_assert(apm_slots_take_back(&slots, a));
    ck_assert_uint_eq(push(&slots, 2, APM_STR("b")), a);
    ck_assert_int_eq(apm_slots_take(&slots, 0, &seq), (int)a);
    ck_assert_uint_eq(seq, 2);
    ck_assert_int_eq(apm_slots_next_taken(&slots), (int)a);
    ck_assert_int_eq(apm_slots_next_taken(&slots), -1);
    apm_slots_close(&slots);
}
END_TEST

START_TEST(old_entries_behind_a_ready_one_fill_the_queue_at_most)
{
    apm_slots slots = make(8, 1);
    uint32_t seq = 1;
    unsigned first = push(&slots, seq++, APM_STR("stays"));
    while (apm_slots_room(&slots) > 0)
        ck_assert(apm_slots_take_back(&slots, push(&slots, seq++, APM_STR("goes"))));
    ck_assert_uint_eq(seq, 9);
    ck_assert_uint_eq(slots.n_free, 7);
    ck_assert(apm_slots_take_back(&slots, first));
    ck_assert_int_eq(apm_slots_next_taken(&slots), -1);
    ck_assert_uint_eq(apm_slots_room(&slots), 8);
    apm_slots_close(&slots);
}
END_TEST

START_TEST(big_requests_and_outcomes_travel_and_leave_no_memory_behind)
{
    enum { SIZE = 5 << 20 };
    apm_slots slots = make(8, 1);
    apm_buf buf;
    apm_str request;
    uint32_t seq;
    unsigned seat;
    struct stat before, after;
    char *big = malloc(SIZE);
    for (size_t i = 0; i < SIZE; i++)
        big[i] = (char)(i * 7 + i / 4096);
    apm_buf_init(&buf, APM_SLOT_BIG);
    for (uint32_t round = 1; round <= 3; round++) {
        unsigned slot = push(&slots, round, (apm_str){ big, SIZE });
        ck_assert_int_eq(apm_slots_take(&slots, 0, &seq), (int)slot);
        ck_ok(apm_slots_request(&slots, slot, &buf, &request, err));
        ck_assert(apm_str_eq(request, ((apm_str){ big, SIZE })));
        ck_ok(apm_slots_answer(&slots, slot, (apm_str){ big + 1, SIZE - 1 }, APM_STR_NONE, err));
        apm_slots_done(&slots, 0, slot, seq, 0);
        ck_assert_int_eq(apm_slots_next_taken(&slots), (int)slot);
        ck_assert_int_eq(apm_slots_look(&slots, slot, &seat), APM_SLOT_DONE);
        ck_ok(apm_slots_outcome(&slots, slot, &buf, err));
        ck_assert(apm_str_eq(apm_buf_str(&buf), ((apm_str){ big + 1, SIZE - 1 })));
        apm_slots_release(&slots, slot);
        ck_assert_int_eq(fstat(slots.fd, &after), 0);
        if (round > 1)
            ck_assert_int_eq(after.st_blocks, before.st_blocks);
        ck_assert_int_lt(after.st_blocks, SIZE / 512);
        before = after;
    }
    apm_buf_clear(&buf);
    free(big);
    apm_slots_close(&slots);
}
END_TEST

/* Blocks of the memory after a round of so many big requests that were in it at once. */
static int64_t
blocks_after(apm_slots *slots, unsigned n, apm_str big, uint32_t *seq)
{
    unsigned slot[8];
    struct stat file;
    for (unsigned i = 0; i < n; i++)
        slot[i] = push(slots, (*seq)++, big);
    while (n > 0)
        ck_assert(apm_slots_take_back(slots, slot[--n]));
    ck_assert_int_eq(apm_slots_next_taken(slots), -1);
    ck_assert_int_eq(fstat(slots->fd, &file), 0);
    return file.st_blocks;
}

START_TEST(what_is_behind_follows_inline_and_in_the_big_place)
{
    apm_slots slots = make(8, 1);
    apm_buf buf;
    apm_str request;
    char *big = calloc(1, 2 * APM_SLOT_INLINE);
    memset(big, 'b', 2 * APM_SLOT_INLINE);
    apm_buf_init(&buf, APM_SLOT_BIG);
    const size_t lengths[] = { 1, APM_SLOT_INLINE - 4, APM_SLOT_INLINE - 3, 2 * APM_SLOT_INLINE };
    for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
        const apm_str behind = { big, lengths[i] };
        unsigned slot, seat;
        uint32_t seq;
        ck_ok(apm_slots_push(&slots, (uint32_t)i + 1, APM_STR("head"), behind, &slot, err));
        ck_assert_int_eq(apm_slots_take(&slots, 0, &seq), (int)slot);
        ck_ok(apm_slots_request(&slots, slot, &buf, &request, err));
        ck_assert_uint_eq(request.len, 4 + behind.len);
        ck_assert_mem_eq(request.p, "head", 4);
        ck_assert_mem_eq(request.p + 4, behind.p, behind.len);
        ck_ok(apm_slots_answer(&slots, slot, APM_STR("done"), behind, err));
        apm_slots_done(&slots, 0, slot, seq, 0);
        ck_assert_int_eq(apm_slots_next_taken(&slots), (int)slot);
        ck_assert_int_eq(apm_slots_look(&slots, slot, &seat), APM_SLOT_DONE);
        ck_ok(apm_slots_outcome(&slots, slot, &buf, err));
        ck_assert_uint_eq(buf.len, 4 + behind.len);
        ck_assert_mem_eq(buf.p, "done", 4);
        ck_assert_mem_eq(buf.p + 4, behind.p, behind.len);
        apm_slots_release(&slots, slot);
    }
    apm_buf_clear(&buf);
    free(big);
    apm_slots_close(&slots);
}
END_TEST

START_TEST(a_little_memory_waits_for_the_next_big_request)
{
    enum { SIZE = 4 << 20 };
    apm_slots slots = make(8, 1);
    uint32_t seq = 1;
    const apm_str big = { calloc(1, SIZE), SIZE };
    int64_t none = blocks_after(&slots, 1, (apm_str){ big.p, 10 }, &seq);
    for (int round = 0; round < 3; round++)
        ck_assert_int_eq(blocks_after(&slots, 1, big, &seq), none + SIZE / 512);
    /* Of many at once not all stays. */
    for (int round = 0; round < 3; round++)
        ck_assert_int_eq(blocks_after(&slots, 8, big, &seq), none + 4 * (SIZE / 512));
    free((void *)(uintptr_t)big.p);
    apm_slots_close(&slots);
}
END_TEST

START_TEST(what_is_bigger_than_a_slot_can_be_is_refused)
{
    apm_slots slots = make(8, 1);
    unsigned slot;
    static const char byte;
    ck_fails(
        apm_slots_push(&slots, 1, (apm_str){ &byte, APM_SLOT_BIG + 1 }, APM_STR_NONE, &slot, err),
        APIUM_E_TOOBIG);
    ck_assert_uint_eq(apm_slots_room(&slots), 8);
    apm_slots_close(&slots);
}
END_TEST

START_TEST(a_word_that_no_rule_allows_is_noticed)
{
    apm_slots slots = make(8, 1);
    unsigned seat;
    unsigned slot = push(&slots, 1, APM_STR("x"));
    atomic_store(&slots.slot[slot].word, UINT64_C(0x5a5a5a5a5a5a5a5a));
    ck_assert_int_eq(apm_slots_next_taken(&slots), (int)slot);
    (void)apm_slots_look(&slots, slot, &seat);
    ck_assert(slots.broken);
    apm_slots_reset(&slots);
    ck_assert(!slots.broken);
    ck_assert_uint_eq(apm_slots_room(&slots), 8);
    apm_slots_close(&slots);
}
END_TEST

START_TEST(an_outcome_with_a_length_of_nonsense_is_refused)
{
    apm_slots slots = make(8, 1);
    apm_buf buf;
    uint32_t seq;
    apm_buf_init(&buf, APM_SLOT_BIG);
    unsigned slot = push(&slots, 1, APM_STR("x"));
    ck_assert_int_eq(apm_slots_take(&slots, 0, &seq), (int)slot);
    slots.slot[slot].outcome_len = UINT32_MAX;
    ck_fails(apm_slots_outcome(&slots, slot, &buf, err), APIUM_E_DECODE);
    apm_buf_clear(&buf);
    apm_slots_close(&slots);
}
END_TEST

START_TEST(what_is_no_pool_memory_is_not_attached)
{
    apm_slots slots;
    int fd = memfd_create("nothing", MFD_CLOEXEC);
    ck_fails(apm_slots_attach(&slots, fd, err), APIUM_E_DECODE);
    close(fd);
    ck_fails(apm_slots_attach(&slots, -1, err), APIUM_E_SYSTEM);
}
END_TEST

START_TEST(a_limit_of_file_sizes_is_an_error_and_no_signal)
{
    apm_slots slots;
    const struct rlimit limit = { 1 << 20, RLIM_INFINITY };
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit),
                     0); /* the test runs in a process of its own */
    ck_fails(apm_slots_create(&slots, 8, 1, err), APIUM_E_CONFIG);
}
END_TEST

START_TEST(a_held_seat_takes_nothing_and_a_hold_that_comes_too_late_says_so)
{
    apm_slots slots = make(8, 1);
    uint32_t seq;
    unsigned slot = push(&slots, 1, APM_STR("x"));
    ck_assert(!apm_slots_hold(&slots, 0, slot)); /* it does not run there */
    ck_assert_int_eq(apm_slots_take(&slots, 0, &seq), (int)slot);
    ck_assert(apm_slots_hold(&slots, 0, slot));
    ck_assert_uint_eq(apm_slots_orders(&slots, 0), APM_SEAT_HOLD);
    apm_slots_unhold(&slots, 0);
    ck_assert_uint_eq(apm_slots_orders(&slots, 0), APM_SEAT_STAY);
    apm_slots_done(&slots, 0, slot, seq, 0);
    ck_assert(!apm_slots_hold(&slots, 0, slot));
    ck_assert_uint_eq(apm_slots_orders(&slots, 0), APM_SEAT_STAY);
    apm_slots_close(&slots);
}
END_TEST

START_TEST(a_dozing_main_process_is_woken_for_the_last_outcome_and_for_many)
{
    apm_slots slots = make(64, 1);
    int64_t now = 1000000000;
    for (uint32_t i = 1; i <= 40; i++)
        push(&slots, i, APM_STR("x"));
    /* Awake: never. */
    ck_assert(!run_next(&slots, now));
    /* Asleep without a timer: at once, and only once. */
    apm_slots_main_state(&slots, APM_MAIN_SLEEPS);
    ck_assert(run_next(&slots, now));
    ck_assert(!run_next(&slots, now));
    /* Dozing, shortly after a wake-up: when 16 have gathered. */
    apm_slots_main_state(&slots, APM_MAIN_DOZES);
    for (int i = 4; i < 16; i++)
        ck_assert(!run_next(&slots, now));
    ck_assert(run_next(&slots, now));
    /* A while after it. */
    apm_slots_main_state(&slots, APM_MAIN_DOZES);
    ck_assert(run_next(&slots, now + 2000000));
    apm_slots_close(&slots);
}
END_TEST

START_TEST(a_lone_outcome_wakes_a_dozing_main_process)
{
    apm_slots slots = make(8, 1);
    push(&slots, 1, APM_STR("x"));
    apm_slots_main_state(&slots, APM_MAIN_DOZES);
    ck_assert(run_next(&slots, 1));
    apm_slots_close(&slots);
}
END_TEST

/* ---- hammering ---- */

enum { JOBS = 60000, SEATS = 4, SLOTS = 32 };

/* What processes did, where the test sees it. */
struct ledger {
    _Atomic uint8_t ran[JOBS + 1];
};

static void
work(apm_slots *slots, unsigned seat, struct ledger *ledger)
{
    for (;;) {
        uint32_t seq, orders = apm_slots_orders(slots, seat);
        if (orders == APM_SEAT_LEAVE)
            return;
        int slot = orders == APM_SEAT_STAY ? apm_slots_take(slots, seat, &seq) : -1;
        if (slot < 0) {
            apm_slots_sleep(slots, seat);
            continue;
        }
        atomic_fetch_add(&ledger->ran[seq], 1);
        char text[16];
        int len = snprintf(text, sizeof(text), "%u", seq);
        (void)apm_slots_answer(slots, (unsigned)slot, (apm_str){ text, (size_t)len }, APM_STR_NONE,
                               NULL);
        (void)apm_slots_done(slots, seat, (unsigned)slot, seq, apm_clock_ns());
    }
}

/* The main process's half: push, take back some, look, release; every number ends in one way. */
struct count {
    unsigned pushed, done, back, lost;
    unsigned running[SLOTS], n_running;
    uint32_t seq_of[SLOTS];
};

static void
end_of(apm_slots *slots, struct count *count, struct ledger *ledger, unsigned slot)
{
    apm_buf buf;
    char expected[16];
    uint32_t seq = count->seq_of[slot];
    apm_buf_init(&buf, APM_SLOT_INLINE);
    ck_ok(apm_slots_outcome(slots, slot, &buf, err));
    snprintf(expected, sizeof(expected), "%u", seq);
    if (!apm_str_eqz(apm_buf_str(&buf), expected) || atomic_load(&ledger->ran[seq]) != 1)
        ck_abort_msg("job %u ran %d times and answered %s", seq, atomic_load(&ledger->ran[seq]),
                     buf.p);
    apm_buf_clear(&buf);
    apm_slots_release(slots, slot);
    count->done++;
}

static void
look(apm_slots *slots, struct count *count, struct ledger *ledger)
{
    int slot;
    unsigned seat;
    while ((slot = apm_slots_next_taken(slots)) >= 0)
        count->running[count->n_running++] = (unsigned)slot;
    for (unsigned i = 0; i < count->n_running;) {
        if (apm_slots_look(slots, count->running[i], &seat) == APM_SLOT_DONE) {
            unsigned done = count->running[i];
            count->running[i] = count->running[--count->n_running];
            end_of(slots, count, ledger, done);
        } else {
            i++;
        }
    }
    ck_assert(!slots->broken);
}

static void
feed(apm_slots *slots, struct count *count, struct ledger *ledger)
{
    while (count->pushed < JOBS && apm_slots_room(slots) > 0) {
        uint32_t seq = ++count->pushed;
        unsigned slot = push(slots, seq, APM_STR("request"));
        count->seq_of[slot] = seq;
        if (rand() % 8 == 0 && apm_slots_take_back(slots, slot)) {
            ck_assert_int_eq(atomic_load(&ledger->ran[seq]), 0);
            count->back++;
        }
    }
    apm_slots_wake(slots);
}

static pid_t
fork_worker(apm_slots *slots, unsigned seat, struct ledger *ledger)
{
    pid_t pid = fork();
    if (pid == 0) {
        work(slots, seat, ledger);
        _exit(0);
    }
    return pid;
}

START_TEST(processes_killed_anywhere_run_every_slot_at_most_once_and_lose_only_what_they_held)
{
    struct ledger *ledger =
        mmap(NULL, sizeof(*ledger), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    apm_slots slots = make(SLOTS, SEATS);
    struct count count = { 0 };
    pid_t pids[SEATS];
    unsigned kills = 0;
    int64_t deadline = apm_clock_ms() + 50000;

    for (unsigned i = 0; i < SEATS; i++)
        pids[i] = fork_worker(&slots, i, ledger);
    while (count.done + count.back + count.lost < JOBS) {
        ck_assert_msg(apm_clock_ms() < deadline, "%u pushed, %u done, %u back, %u lost",
                      count.pushed, count.done, count.back, count.lost);
        feed(&slots, &count, ledger);
        sched_yield();
        look(&slots, &count, ledger);
        if (rand() % 200 != 0)
            continue;
        unsigned victim = (unsigned)rand() % SEATS, seat;
        ck_assert_int_eq(kill(pids[victim], SIGKILL), 0);
        ck_assert_int_eq(waitpid(pids[victim], NULL, 0), pids[victim]);
        kills++;
        look(&slots, &count, ledger);
        for (unsigned i = 0; i < count.n_running;) {
            apm_slot_state state = apm_slots_look(&slots, count.running[i], &seat);
            if (seat != victim) {
                i++;
                continue;
            }
            unsigned slot = count.running[i];
            count.running[i] = count.running[--count.n_running];
            if (state == APM_SLOT_DONE) {
                end_of(&slots, &count, ledger, slot);
            } else {
                ck_assert_int_le(atomic_load(&ledger->ran[count.seq_of[slot]]), 1);
                apm_slots_release(&slots, slot);
                count.lost++;
            }
        }
        apm_slots_reseat(&slots, victim);
        pids[victim] = fork_worker(&slots, victim, ledger);
    }
    ck_assert_uint_eq(count.done + count.back + count.lost, JOBS);
    ck_assert_uint_gt(kills, 0);
    ck_assert_uint_gt(count.back, 0);
    ck_assert_uint_le(count.lost, kills);
    ck_assert_uint_eq(count.n_running, 0);
    ck_assert_int_eq(apm_slots_next_taken(&slots), -1);
    ck_assert_uint_eq(apm_slots_room(&slots), SLOTS);
    for (unsigned i = 0; i < SEATS; i++)
        apm_slots_command(&slots, i, APM_SEAT_LEAVE);
    for (unsigned i = 0; i < SEATS; i++)
        ck_assert_int_eq(waitpid(pids[i], NULL, 0), pids[i]);
    apm_slots_close(&slots);
    munmap(ledger, sizeof(*ledger));
}
END_TEST

struct thread {
    apm_slots *slots;
    struct ledger *ledger;
    unsigned seat;
};

static void *
thread_main(void *arg)
{
    struct thread *thread = arg;
    work(thread->slots, thread->seat, thread->ledger);
    return NULL;
}

START_TEST(threads_run_every_slot_once)
{
    struct ledger *ledger = calloc(1, sizeof(*ledger));
    apm_slots slots = make(SLOTS, SEATS);
    struct count count = { 0 };
    pthread_t threads[SEATS];
    struct thread args[SEATS];
    int64_t deadline = apm_clock_ms() + 50000;

    for (unsigned i = 0; i < SEATS; i++) {
        args[i] = (struct thread){ &slots, ledger, i };
        ck_assert_int_eq(pthread_create(&threads[i], NULL, thread_main, &args[i]), 0);
    }
    while (count.done + count.back < JOBS) {
        ck_assert_msg(apm_clock_ms() < deadline, "%u pushed, %u done, %u back", count.pushed,
                      count.done, count.back);
        feed(&slots, &count, ledger);
        sched_yield();
        look(&slots, &count, ledger);
    }
    for (unsigned i = 0; i < SEATS; i++)
        apm_slots_command(&slots, i, APM_SEAT_LEAVE);
    for (unsigned i = 0; i < SEATS; i++)
        pthread_join(threads[i], NULL);
    ck_assert_uint_eq(apm_slots_room(&slots), SLOTS);
    apm_slots_close(&slots);
    free(ledger);
}
END_TEST

/* ---- every instruction ---- */

static void
run_one(apm_slots *slots)
{
    uint32_t seq;
    int slot = apm_slots_take(slots, 0, &seq);
    if (slot < 0)
        return;
    (void)apm_slots_answer(slots, (unsigned)slot, APM_STR("done"), APM_STR_NONE, NULL);
    (void)apm_slots_done(slots, 0, (unsigned)slot, seq, 1);
}

static void
run_for_ever(apm_slots *slots)
{
    for (;;) {
        uint32_t seq;
        int slot = apm_slots_take(slots, 0, &seq);
        if (slot < 0)
            apm_slots_sleep(slots, 0);
        else if (apm_slots_done(slots, 0, (unsigned)slot, seq, 1))
            _exit(3); /* "the main process has to be woken" */
    }
}

/* A process that is stopped just before it calls `what`. It has run a slot before that, so the
 * dynamic linker is done. */
static pid_t
fork_traced(apm_slots *slots, void (*what)(apm_slots *slots))
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
            _exit(1);
        run_one(slots);
        (void)raise(SIGSTOP);
        what(slots);
        _exit(0);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(WIFSTOPPED(status), "cannot trace a process here");
    return pid;
}

static bool
sleeps(pid_t pid)
{
    char path[32], state = 0;
    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    FILE *file = fopen(path, "r");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(fscanf(file, "%*d (%*[^)]) %c", &state), 1);
    fclose(file);
    return state == 'S';
}

/* Let it run for that many instructions. False: it ended, or went to sleep. */
static bool
step(pid_t pid, unsigned instructions)
{
    int status;
    for (unsigned i = 0; i < instructions; i++) {
        ck_assert_int_eq((int)ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL), 0);
        pid_t got;
        while ((got = waitpid(pid, &status, WNOHANG)) == 0)
            if (sleeps(pid))
                return false;
        ck_assert_int_eq(got, pid);
        if (WIFEXITED(status))
            return false;
    }
    return true;
}

/* Let it run free; one that slept is stopped when it has been woken. */
static void
let_go(pid_t pid, bool slept)
{
    int64_t deadline = apm_clock_ms() + 5000;
    while (slept && waitpid(pid, NULL, WNOHANG) == 0)
        ck_assert_msg(apm_clock_ms() < deadline, "it was not woken");
    ck_assert_int_eq((int)ptrace(PTRACE_DETACH, pid, NULL, NULL), 0);
}

static void
end_traced(pid_t pid)
{
    (void)kill(pid, SIGKILL);
    while (waitpid(pid, NULL, 0) > 0)
        ;
}

/* Four numbers: the first was run before the trace, the second may have been in its hands. */
static void
settle_after_kill(apm_slots *slots, unsigned instructions)
{
    unsigned seat, done = 0, lost = 0, taken[4], n = 0;
    uint32_t seq;
    int slot;
    while ((slot = apm_slots_take(slots, 1, &seq)) >= 0) {
        ck_ok(apm_slots_answer(slots, (unsigned)slot, APM_STR("done"), APM_STR_NONE, err));
        (void)apm_slots_done(slots, 1, (unsigned)slot, seq, 1);
    }
    while ((slot = apm_slots_next_taken(slots)) >= 0) {
        ck_assert_uint_lt(n, 4);
        taken[n++] = (unsigned)slot;
    }
    for (unsigned i = 0; i < n; i++) {
        apm_slot_state state = apm_slots_look(slots, taken[i], &seat);
        ck_assert_msg(state == APM_SLOT_DONE || (state == APM_SLOT_RUNNING && seat == 0),
                      "after %u instructions: state %d", instructions, state);
        done += state == APM_SLOT_DONE;
        lost += state == APM_SLOT_RUNNING;
        apm_slots_release(slots, taken[i]);
    }
    ck_assert_msg(done + lost == 4 && lost <= 1 && !slots->broken,
                  "after %u instructions: %u done, %u lost", instructions, done, lost);
    ck_assert_uint_eq(apm_slots_room(slots), slots->n);
}

/* The memory as it is now, and what we alone know: as if the process were killed here. */
static void
copy_slots(apm_slots *to, const apm_slots *from)
{
    unsigned n = from->n;
    memcpy((void *)to->shared, (const void *)from->shared,
           (size_t)((const char *)(from->seat + from->seats) - (const char *)from->shared));
    memcpy(to->order, from->order, n * sizeof(*to->order));
    memcpy(to->live, from->live, n * sizeof(*to->live));
    memcpy(to->free, from->free, n * sizeof(*to->free));
    to->tail = from->tail;
    to->seen = from->seen;
    to->n_free = from->n_free;
    to->delivered = from->delivered;
}

START_TEST(a_process_killed_after_any_instruction_leaves_no_slot_that_nobody_points_to)
{
    apm_slots slots = make(8, 2), copy = make(8, 2);
    unsigned instructions = 0;
    for (uint32_t seq = 1; seq <= 4; seq++)
        push(&slots, seq, APM_STR("x"));
    pid_t pid = fork_traced(&slots, run_one);
    do {
        copy_slots(&copy, &slots);
        settle_after_kill(&copy, instructions++);
    } while (step(pid, 1));
    end_traced(pid);
    ck_assert_uint_gt(instructions, 50);
    apm_slots_close(&slots);
    apm_slots_close(&copy);
}
END_TEST

/* A sanitizer's build has very many instructions. */
static unsigned
stride(unsigned instructions)
{
    return instructions < 200 ? 1 : instructions / 10;
}

START_TEST(a_process_that_falls_asleep_misses_no_work)
{
    apm_slots slots = make(8, 1);
    uint32_t seq = 0;
    unsigned instructions = 0, seat;
    for (bool running = true; running; instructions += stride(instructions)) {
        unsigned first = push(&slots, ++seq, APM_STR("x"));
        pid_t pid = fork_traced(&slots, run_for_ever);
        running = step(pid, instructions);
        ck_assert_int_eq(apm_slots_next_taken(&slots), (int)first);
        apm_slots_release(&slots, first);
        /* It is somewhere on its way to sleep: now work comes. */
        unsigned slot = push(&slots, ++seq, APM_STR("y"));
        apm_slots_wake(&slots);
        let_go(pid, !running);
        int64_t deadline = apm_clock_ms() + 5000;
        while (apm_slots_look(&slots, slot, &seat) != APM_SLOT_DONE)
            ck_assert_msg(apm_clock_ms() < deadline, "it sleeps, after %u instructions",
                          instructions);
        end_traced(pid);
        ck_assert_int_eq(apm_slots_next_taken(&slots), (int)slot);
        apm_slots_release(&slots, slot);
        apm_slots_reseat(&slots, 0);
    }
    ck_assert_uint_gt(instructions, 20);
    apm_slots_close(&slots);
}
END_TEST

START_TEST(a_main_process_that_falls_asleep_misses_no_outcome)
{
    apm_slots slots = make(8, 1);
    uint32_t seq = 0;
    unsigned instructions = 0, seat;
    for (bool seen = false; !seen; instructions += stride(instructions)) {
        unsigned first = push(&slots, ++seq, APM_STR("x")),
                 slot = push(&slots, ++seq, APM_STR("y"));
        pid_t pid = fork_traced(&slots, run_for_ever);
        int status = 0;
        ck_assert(step(pid, instructions));
        /* It is somewhere on its way to the end of a job: now the main process falls asleep. */
        apm_slots_main_state(&slots, APM_MAIN_SLEEPS);
        seen = apm_slots_look(&slots, slot, &seat) == APM_SLOT_DONE;
        let_go(pid, false);
        int64_t deadline = apm_clock_ms() + 5000;
        while (!seen && waitpid(pid, &status, WNOHANG) == 0)
            ck_assert_msg(apm_clock_ms() < deadline, "not woken, after %u instructions",
                          instructions);
        ck_assert(seen || (WIFEXITED(status) && WEXITSTATUS(status) == 3));
        end_traced(pid);
        apm_slots_main_state(&slots, APM_MAIN_AWAKE);
        ck_assert_int_eq(apm_slots_next_taken(&slots), (int)first);
        ck_assert_int_eq(apm_slots_next_taken(&slots), (int)slot);
        apm_slots_release(&slots, first);
        apm_slots_release(&slots, slot);
        apm_slots_reseat(&slots, 0);
    }
    ck_assert_uint_gt(instructions, 20);
    apm_slots_close(&slots);
}
END_TEST

int
main(void)
{
    const TTest *const tests[] = {
        slots_are_run_in_the_order_of_pushing,
        a_full_pool_is_busy_until_a_slot_is_released,
        what_was_taken_back_is_not_run,
        a_slot_taken_back_is_used_again_under_another_number_while_its_old_entry_is_queued,
        old_entries_behind_a_ready_one_fill_the_queue_at_most,
        big_requests_and_outcomes_travel_and_leave_no_memory_behind,
        what_is_behind_follows_inline_and_in_the_big_place,
        a_little_memory_waits_for_the_next_big_request,
        what_is_bigger_than_a_slot_can_be_is_refused,
        a_word_that_no_rule_allows_is_noticed,
        an_outcome_with_a_length_of_nonsense_is_refused,
        what_is_no_pool_memory_is_not_attached,
        a_limit_of_file_sizes_is_an_error_and_no_signal,
        a_held_seat_takes_nothing_and_a_hold_that_comes_too_late_says_so,
        a_dozing_main_process_is_woken_for_the_last_outcome_and_for_many,
        a_lone_outcome_wakes_a_dozing_main_process,
        processes_killed_anywhere_run_every_slot_at_most_once_and_lose_only_what_they_held,
        threads_run_every_slot_once,
        a_process_killed_after_any_instruction_leaves_no_slot_that_nobody_points_to,
        a_process_that_falls_asleep_misses_no_work,
        a_main_process_that_falls_asleep_misses_no_outcome,
        NULL,
    };
    return suite_run("slots", tests, 60);
}
