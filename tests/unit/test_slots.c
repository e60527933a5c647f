/* test_slots.c - the shared memory of a pool, hammered by several processes and threads */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
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
    ck_ok(apm_slots_push(slots, seq, request, &slot, err));
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
    ck_fails(apm_slots_push(&slots, 9, APM_STR("x"), &slot, err), APIUM_E_BUSY);
    slot = (unsigned)apm_slots_take(&slots, 0, &seq);
    ck_assert_int_eq(apm_slots_next_taken(&slots), (int)slot);
    ck_assert_int_eq(apm_slots_look(&slots, slot, &seat), APM_SLOT_RUNNING);
    ck_ok(apm_slots_answer(&slots, slot, APM_STR("done"), err));
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
        ck_ok(apm_slots_answer(&slots, slot, (apm_str){ big + 1, SIZE - 1 }, err));
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

START_TEST(what_is_bigger_than_a_slot_can_be_is_refused)
{
    apm_slots slots = make(8, 1);
    unsigned slot;
    static const char byte;
    ck_fails(apm_slots_push(&slots, 1, (apm_str){ &byte, APM_SLOT_BIG + 1 }, &slot, err),
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
        (void)apm_slots_answer(slots, (unsigned)slot, (apm_str){ text, (size_t)len }, NULL);
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
        what_is_bigger_than_a_slot_can_be_is_refused,
        a_word_that_no_rule_allows_is_noticed,
        an_outcome_with_a_length_of_nonsense_is_refused,
        what_is_no_pool_memory_is_not_attached,
        a_held_seat_takes_nothing_and_a_hold_that_comes_too_late_says_so,
        a_dozing_main_process_is_woken_for_the_last_outcome_and_for_many,
        a_lone_outcome_wakes_a_dozing_main_process,
        processes_killed_anywhere_run_every_slot_at_most_once_and_lose_only_what_they_held,
        threads_run_every_slot_once,
        NULL,
    };
    return suite_run("slots", tests, 60);
}
