/* slots.c - see slots.h */
#include "worker/slots.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/base/error.h"

#define MAGIC            UINT64_C(0x73746f6c73757061) /* "apuslots" */
#define GATHER           16      /* outcomes that may wait for a dozing main process */
#define WAKE_INTERVAL_NS 1000000 /* nor does it get more wake-ups than one in that time */
/* Memory of big requests and outcomes that stays: of one, and of all. Giving it back and getting it costs more than to write. */
#define KEEP_ONE         ((size_t)4 << 20)
#define KEEP_ALL         ((size_t)16 << 20)

_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && ATOMIC_INT_LOCK_FREE == 2,
               "atomics in shared memory must not need a lock");

/* The first pages of the memory. What several sides write is kept in cache lines of its own. */
struct apm_shared {
    uint64_t magic;
    uint32_t n, seats;
    _Alignas(64) _Atomic uint64_t head;
    _Alignas(64) _Atomic uint64_t tail;
    _Alignas(64) _Atomic uint32_t main_state;
    _Atomic uint64_t delivered; /* outcomes that main has seen */
    _Alignas(64) _Atomic uint64_t done;
    _Atomic int64_t woken_ns; /* when a process last woke main */
    _Alignas(64) _Atomic uint64_t queue[];
};

/* Where things are, from the two numbers that describe the memory. */
struct layout {
    size_t slots, seats, areas, mapped;
    uint64_t total;
};

static size_t
page_up(size_t n)
{
    return (n + 4095) & ~(size_t)4095;
}

static struct layout
layout_of(unsigned n, unsigned seats)
{
    struct layout at;
    at.slots = page_up(sizeof(apm_shared) + n * sizeof(uint64_t));
    at.seats = at.slots + n * sizeof(apm_slot);
    at.areas = page_up(at.seats + seats * sizeof(apm_seat));
    at.mapped = at.areas + (size_t)n * 2 * APM_SLOT_INLINE;
    /* Beyond the mapped part: a sparse place for each slot's big request and big outcome. */
    at.total = at.mapped + (uint64_t)n * 2 * APM_SLOT_BIG;
    return at;
}

static char *
request_area(const apm_slots *slots, unsigned slot)
{
    struct layout at = layout_of(slots->n, slots->seats);
    return (char *)slots->shared + at.areas + (size_t)slot * 2 * APM_SLOT_INLINE;
}

static char *
outcome_area(const apm_slots *slots, unsigned slot)
{
    return request_area(slots, slot) + APM_SLOT_INLINE;
}

static off_t
request_offset(const apm_slots *slots, unsigned slot)
{
    return (off_t)(slots->mapped_bytes + (uint64_t)slot * 2 * APM_SLOT_BIG);
}

static off_t
outcome_offset(const apm_slots *slots, unsigned slot)
{
    return request_offset(slots, slot) + (off_t)APM_SLOT_BIG;
}

static uint64_t
word_of(apm_slot_state state, unsigned seat, uint32_t seq)
{
    return (uint64_t)state << 56 | (uint64_t)seat << 32 | seq;
}

static apm_slot_state
word_state(uint64_t word)
{
    return (apm_slot_state)(word >> 56);
}

static unsigned
word_seat(uint64_t word)
{
    return (unsigned)(word >> 32) & 0xffffff;
}

static uint32_t
word_seq(uint64_t word)
{
    return (uint32_t)word;
}

static void
futex_wait(_Atomic uint32_t *word, uint32_t value)
{
    (void)syscall(SYS_futex, word, FUTEX_WAIT, value, NULL, NULL, 0);
}

static void
futex_wake(_Atomic uint32_t *word)
{
    (void)syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/* ---- bytes ---- */

static apium_status
write_all(int fd, apm_str bytes, off_t at, apium_error *err)
{
    while (bytes.len > 0) {
        ssize_t n = pwrite(fd, bytes.p, bytes.len, at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return apm_fail_sys(err, n < 0 ? errno : ENOSPC,
                                "cannot write to the pool's shared memory");
        bytes.p += n;
        bytes.len -= (size_t)n;
        at += n;
    }
    return APIUM_OK;
}

static apium_status
read_all(int fd, apm_buf *buf, size_t len, off_t at, apium_error *err)
{
    char *p = apm_buf_reserve(buf, len);
    if (!p)
        return apm_fail_sys(err, ENOMEM, "cannot read %zu bytes from the pool's shared memory",
                            len);
    size_t done = 0;
    while (done < len) {
        ssize_t n = pread(fd, p + done, len - done, at + (off_t)done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return apm_fail_sys(err, n < 0 ? errno : EIO, "cannot read the pool's shared memory");
        done += (size_t)n;
    }
    buf->len += len;
    buf->p[buf->len] = '\0';
    return APIUM_OK;
}

static apium_status
store(apm_slots *slots, apm_str bytes, apm_str behind, char *area, off_t spill, apium_error *err)
{
    if (bytes.len > APM_SLOT_BIG || behind.len > APM_SLOT_BIG - bytes.len)
        return apm_fail(err, APIUM_E_TOOBIG, "%zu bytes do not fit into a slot of the pool (%zu)",
                        bytes.len + behind.len, APM_SLOT_BIG);
    if (bytes.len + behind.len > APM_SLOT_INLINE) {
        apium_status st = write_all(slots->fd, bytes, spill, err);
        return st == APIUM_OK ? write_all(slots->fd, behind, spill + (off_t)bytes.len, err) : st;
    }
    if (bytes.len > 0)
        memcpy(area, bytes.p, bytes.len);
    if (behind.len > 0)
        memcpy(area + bytes.len, behind.p, behind.len);
    return APIUM_OK;
}

/* The two big places of a slot. */
enum place { REQUEST, OUTCOME };

static void
punch(apm_slots *slots, unsigned slot, enum place place)
{
    off_t at = place == REQUEST ? request_offset(slots, slot) : outcome_offset(slots, slot);
    (void)fallocate(slots->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, (off_t)APM_SLOT_BIG);
    slots->kept_bytes -= slots->kept[slot][place];
    slots->kept[slot][place] = 0;
}

/* A big place is empty again, which had so many bytes: a small part of the memory stays for the next ones. */
static void
empty(apm_slots *slots, unsigned slot, enum place place, size_t len)
{
    size_t had = slots->kept[slot][place], have = len > had ? len : had;
    if (have > KEEP_ONE || slots->kept_bytes - had + have > KEEP_ALL) {
        punch(slots, slot, place);
        return;
    }
    slots->kept_bytes += have - had;
    slots->kept[slot][place] = (uint32_t)have;
}

/* ---- making and mapping ---- */

static apium_status
map(apm_slots *slots, int fd, unsigned n, unsigned seats, apium_error *err)
{
    struct layout at = layout_of(n, seats);
    void *p = mmap(NULL, at.mapped, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        return apm_fail_sys(err, errno, "cannot map the pool's shared memory");
    *slots = (apm_slots){
        .fd = fd,
        .shared = p,
        .mapped_bytes = at.mapped,
        .slot = (apm_slot *)((char *)p + at.slots),
        .seat = (apm_seat *)((char *)p + at.seats),
        .n = n,
        .seats = seats,
    };
    return APIUM_OK;
}

apium_status
apm_slots_create(apm_slots *slots, unsigned n, unsigned seats, apium_error *err)
{
    unsigned pow2 = 8;
    while (pow2 < n && pow2 < APM_SLOTS_MAX)
        pow2 *= 2;
    n = pow2;
    if (seats < 1 || seats > APM_SEATS_MAX)
        return apm_fail(err, APIUM_E_INVALID, "a pool of %u processes: it must be 1 to %d", seats,
                        APM_SEATS_MAX);

    struct layout at = layout_of(n, seats);
    struct rlimit limit;
    /* Passing it would kill us with SIGXFSZ instead of failing. */
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
        limit.rlim_cur < at.total)
        return apm_fail(
            err, APIUM_E_CONFIG,
            "cannot make the pool's shared memory: the limit of file sizes (ulimit -f) must be "
            "unlimited, or prefetch and concurrency smaller");
    int fd = memfd_create("apium-pool", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return apm_fail_sys(err, errno, "cannot make the pool's shared memory");
    apium_status st = APIUM_OK;
    if (ftruncate(fd, (off_t)at.total) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
        st = apm_fail_sys(err, errno, "cannot size the pool's shared memory");
    else
        st = map(slots, fd, n, seats, err);
    if (st != APIUM_OK) {
        close(fd);
        return st;
    }
    slots->order = calloc(n, sizeof(*slots->order));
    slots->live = calloc(n, sizeof(*slots->live));
    slots->spilled = calloc(n, sizeof(*slots->spilled));
    slots->free = calloc(n, sizeof(*slots->free));
    slots->kept = calloc(n, sizeof(*slots->kept));
    if (!slots->order || !slots->live || !slots->spilled || !slots->free || !slots->kept) {
        apm_slots_close(slots);
        return apm_fail_sys(err, ENOMEM, "cannot make the pool's slots");
    }
    apm_slots_reset(slots);
    return APIUM_OK;
}

void
apm_slots_reset(apm_slots *slots)
{
    unsigned n = slots->n;
    apm_shared *shared = slots->shared;
    shared->magic = MAGIC;
    shared->n = n;
    shared->seats = slots->seats;
    atomic_store(&shared->head, 0);
    atomic_store(&shared->tail, 0);
    atomic_store(&shared->main_state, APM_MAIN_AWAKE);
    atomic_store(&shared->delivered, 0);
    atomic_store(&shared->done, 0);
    atomic_store(&shared->woken_ns, 0);
    slots->tail = slots->seen = slots->delivered = 0;
    /* Only what was used: untouched pages stay untouched. */
    for (unsigned i = 0; i < n; i++) {
        if (slots->live[i])
            punch(slots, i, REQUEST), punch(slots, i, OUTCOME);
        if (atomic_load(&slots->slot[i].word))
            atomic_store(&slots->slot[i].word, 0);
        slots->live[i] = 0;
        slots->spilled[i] = 0;
    }
    for (unsigned i = 0; i < slots->seated; i++)
        apm_slots_reseat(slots, i);
    /* The lowest number on top: slots are reused last-in first-out, so few pages are touched. */
    for (slots->n_free = 0; slots->n_free < n; slots->n_free++)
        slots->free[slots->n_free] = n - 1 - slots->n_free;
    slots->broken = false;
}

apium_status
apm_slots_attach(apm_slots *slots, int fd, apium_error *err)
{
    apm_shared head;
    struct stat file;
    ssize_t got = pread(fd, &head, sizeof(head), 0);
    if (got < 0 || fstat(fd, &file) < 0)
        return apm_fail_sys(err, errno, "cannot read the pool's shared memory");
    if (got != (ssize_t)sizeof(head) || head.magic != MAGIC || head.n == 0 ||
        head.n > APM_SLOTS_MAX || head.seats == 0 || head.seats > APM_SEATS_MAX ||
        (uint64_t)file.st_size != layout_of(head.n, head.seats).total)
        return apm_fail(err, APIUM_E_DECODE, "descriptor %d is no shared memory of a pool", fd);
    return map(slots, fd, head.n, head.seats, err);
}

void
apm_slots_close(apm_slots *slots)
{
    if (slots->shared) {
        munmap(slots->shared, slots->mapped_bytes);
        close(slots->fd);
    }
    free(slots->order);
    free(slots->live);
    free(slots->spilled);
    free(slots->free);
    free(slots->kept);
    *slots = (apm_slots){ .fd = -1 };
}

/* ---- main process ---- */

unsigned
apm_slots_room(const apm_slots *slots)
{
    /* A number that was taken back keeps its place in the queue until `seen` has passed it. */
    unsigned places = slots->n - (unsigned)(slots->tail - slots->seen);
    return slots->n_free < places ? slots->n_free : places;
}

apium_status
apm_slots_push(apm_slots *slots, uint32_t seq, apm_str request, apm_str behind, unsigned *out,
               apium_error *err)
{
    if (apm_slots_room(slots) == 0)
        return apm_fail(err, APIUM_E_BUSY, "the pool has no free slot");
    unsigned i = slots->free[slots->n_free - 1];
    apm_slot *slot = &slots->slot[i];
    const size_t len = request.len + behind.len;
    apium_status st =
        store(slots, request, behind, request_area(slots, i), request_offset(slots, i), err);
    if (st != APIUM_OK)
        return st;
    slots->n_free--;
    slots->spilled[i] = len > APM_SLOT_INLINE ? (uint32_t)len : 0;
    slot->request_len = (uint32_t)len;
    slot->outcome_len = 0;
    atomic_store_explicit(&slot->began_ns, 0, memory_order_relaxed);
    atomic_store_explicit(&slot->stop, 0, memory_order_relaxed);
    atomic_store_explicit(&slot->word, word_of(APM_SLOT_READY, 0, seq), memory_order_release);
    slots->live[i] = seq;

    uint64_t entry = (uint64_t)seq << 32 | i;
    size_t place = slots->tail & (slots->n - 1);
    slots->order[place] = entry;
    atomic_store_explicit(&slots->shared->queue[place], entry, memory_order_relaxed);
    slots->tail++;
    atomic_store_explicit(&slots->shared->tail, slots->tail, memory_order_release);
    *out = i;
    return APIUM_OK;
}

void
apm_slots_wake(apm_slots *slots)
{
    /* The same value again, but sequentially consistent: before a process that says it sleeps after
     * our look at its seat, this store comes first, and its second look at the queue sees it. */
    atomic_store(&slots->shared->tail, slots->tail);
    uint64_t work = slots->tail - atomic_load(&slots->shared->head);
    if (work > slots->n)
        return; /* empty, or not to be believed: the next look tells */
    for (unsigned i = 0; i < slots->seated && work > 0; i++) {
        uint32_t idle = APM_SEAT_IDLE;
        if (atomic_load(&slots->seat[i].asleep) == APM_SEAT_IDLE &&
            atomic_compare_exchange_strong(&slots->seat[i].asleep, &idle, APM_SEAT_AWAKE)) {
            futex_wake(&slots->seat[i].asleep);
            work--;
        }
    }
}

static void
make_free(apm_slots *slots, unsigned slot)
{
    slots->live[slot] = 0;
    slots->free[slots->n_free++] = slot;
    if (slots->spilled[slot])
        empty(slots, slot, REQUEST, slots->spilled[slot]);
}

bool
apm_slots_take_back(apm_slots *slots, unsigned slot)
{
    uint64_t word = word_of(APM_SLOT_READY, 0, slots->live[slot]);
    if (slots->live[slot] == 0 || !atomic_compare_exchange_strong(&slots->slot[slot].word, &word,
                                                                  word_of(APM_SLOT_FREE, 0, 0)))
        return false;
    make_free(slots, slot);
    return true;
}

int
apm_slots_next_taken(apm_slots *slots)
{
    while (slots->seen < slots->tail) {
        uint64_t head = atomic_load_explicit(&slots->shared->head, memory_order_acquire);
        uint64_t entry = slots->order[slots->seen & (slots->n - 1)];
        unsigned slot = (unsigned)(entry & 0xffffffff);
        uint32_t seq = (uint32_t)(entry >> 32);
        if (head == slots->seen) {
            if (slots->live[slot] == seq &&
                atomic_load(&slots->slot[slot].word) == word_of(APM_SLOT_READY, 0, seq))
                return -1;
            /* Taken, or taken back, and nobody has moved the head past it yet. */
            atomic_compare_exchange_strong(&slots->shared->head, &head, head + 1);
        } else if (head < slots->seen || head > slots->tail) {
            slots->broken = true;
            return -1;
        }
        slots->seen++;
        if (slots->live[slot] == seq)
            return (int)slot;
    }
    return -1;
}

apm_slot_state
apm_slots_look(apm_slots *slots, unsigned slot, unsigned *seat)
{
    uint64_t word = atomic_load(&slots->slot[slot].word);
    apm_slot_state state = word_state(word);
    if (word_seq(word) != slots->live[slot] || state == APM_SLOT_FREE || state > APM_SLOT_DONE ||
        word_seat(word) >= slots->seats)
        slots->broken = true;
    *seat = word_seat(word) < slots->seats ? word_seat(word) : 0;
    return state > APM_SLOT_DONE ? APM_SLOT_FREE : state;
}

bool
apm_slots_entered(const apm_slots *slots, unsigned slot)
{
    return atomic_load_explicit(&slots->slot[slot].entered, memory_order_acquire) ==
           slots->live[slot];
}

apium_status
apm_slots_outcome(apm_slots *slots, unsigned slot, apm_buf *buf, apium_error *err)
{
    size_t len = slots->slot[slot].outcome_len;
    apm_buf_reset(buf);
    if (len > APM_SLOT_BIG)
        return apm_fail(err, APIUM_E_DECODE, "slot %u claims an outcome of %zu bytes", slot, len);
    if (len > APM_SLOT_INLINE) {
        apium_status st = read_all(slots->fd, buf, len, outcome_offset(slots, slot), err);
        empty(slots, slot, OUTCOME, len);
        return st;
    }
    apm_buf_add(buf, outcome_area(slots, slot), len);
    if (buf->failed)
        return apm_fail_sys(err, ENOMEM, "cannot read an outcome of %zu bytes", len);
    return APIUM_OK;
}

void
apm_slots_release(apm_slots *slots, unsigned slot)
{
    if (slots->live[slot] == 0)
        return;
    uint64_t word = atomic_exchange(&slots->slot[slot].word, word_of(APM_SLOT_FREE, 0, 0));
    if (word_state(word) == APM_SLOT_DONE)
        atomic_store_explicit(&slots->shared->delivered, ++slots->delivered, memory_order_relaxed);
    else /* its process may have died while it wrote a big outcome */
        punch(slots, slot, OUTCOME);
    make_free(slots, slot);
}

bool
apm_slots_hold(apm_slots *slots, unsigned seat, unsigned slot)
{
    uint32_t seq = slots->live[slot];
    /* Publish, then look; the process marks its slot done, then looks. One of us sees the other. */
    atomic_store(&slots->seat[seat].held, seq);
    if (seq && atomic_load(&slots->slot[slot].word) == word_of(APM_SLOT_RUNNING, seat, seq))
        return true;
    apm_slots_unhold(slots, seat);
    return false;
}

static void
rouse(apm_seat *seat)
{
    if (atomic_exchange(&seat->asleep, APM_SEAT_AWAKE) != APM_SEAT_AWAKE)
        futex_wake(&seat->asleep);
}

void
apm_slots_unhold(apm_slots *slots, unsigned seat)
{
    atomic_store(&slots->seat[seat].held, 0);
    rouse(&slots->seat[seat]);
}

void
apm_slots_command(apm_slots *slots, unsigned seat, uint32_t command)
{
    atomic_store(&slots->seat[seat].command, command);
    rouse(&slots->seat[seat]);
}

void
apm_slots_reseat(apm_slots *slots, unsigned seat)
{
    if (seat >= slots->seated)
        slots->seated = seat + 1;
    atomic_store(&slots->seat[seat].asleep, APM_SEAT_AWAKE);
    atomic_store(&slots->seat[seat].command, APM_SEAT_STAY);
    atomic_store(&slots->seat[seat].held, 0);
    atomic_store(&slots->seat[seat].asked, 0);
    atomic_store(&slots->seat[seat].answered, 0);
}

void
apm_slots_ask(apm_slots *slots, unsigned seat, uint32_t number)
{
    atomic_store(&slots->seat[seat].asked, number);
    rouse(&slots->seat[seat]);
}

bool
apm_slots_answered(const apm_slots *slots, unsigned seat, uint32_t number)
{
    return atomic_load(&slots->seat[seat].answered) == number;
}

bool
apm_slots_any_done(const apm_slots *slots)
{
    return atomic_load(&slots->shared->done) != slots->delivered;
}

void
apm_slots_main_state(apm_slots *slots, uint32_t how)
{
    atomic_store(&slots->shared->main_state, how);
}

/* ---- pool process ---- */

static bool
queue_empty(apm_slots *slots)
{
    uint64_t head = atomic_load(&slots->shared->head);
    return (int64_t)(atomic_load(&slots->shared->tail) - head) <= 0;
}

uint32_t
apm_slots_orders(apm_slots *slots, unsigned i)
{
    apm_seat *seat = &slots->seat[i];
    uint32_t asked = atomic_load_explicit(&seat->asked, memory_order_relaxed);
    if (asked != atomic_load_explicit(&seat->answered, memory_order_relaxed))
        atomic_store(&seat->answered, asked);
    if (atomic_load(&seat->held))
        return APM_SEAT_HOLD;
    return atomic_load(&seat->command);
}

int
apm_slots_take(apm_slots *slots, unsigned seat, uint32_t *seq)
{
    apm_shared *shared = slots->shared;
    for (;;) {
        uint64_t head = atomic_load_explicit(&shared->head, memory_order_acquire);
        uint64_t tail = atomic_load(&shared->tail);
        if ((int64_t)(tail - head) <= 0)
            return -1;
        uint64_t entry =
            atomic_load_explicit(&shared->queue[head & (slots->n - 1)], memory_order_acquire);
        /* Still the head: so the place had not been reused when we read it. */
        if (atomic_load(&shared->head) != head)
            continue;
        unsigned slot = (unsigned)(entry & 0xffffffff);
        uint32_t number = (uint32_t)(entry >> 32);
        if (slot >= slots->n)
            return -1; /* overwritten: the main process notices */
        uint64_t word = word_of(APM_SLOT_READY, 0, number);
        bool won = atomic_compare_exchange_strong(&slots->slot[slot].word, &word,
                                                  word_of(APM_SLOT_RUNNING, seat, number));
        atomic_compare_exchange_strong(&shared->head, &head, head + 1);
        if (won) {
            *seq = number;
            return (int)slot;
        }
    }
}

apium_status
apm_slots_request(apm_slots *slots, unsigned slot, apm_buf *buf, apm_str *request, apium_error *err)
{
    size_t len = slots->slot[slot].request_len;
    if (len > APM_SLOT_BIG)
        return apm_fail(err, APIUM_E_DECODE, "slot %u claims a request of %zu bytes", slot, len);
    if (len > APM_SLOT_INLINE) {
        apm_buf_reset(buf);
        apium_status st = read_all(slots->fd, buf, len, request_offset(slots, slot), err);
        if (st == APIUM_OK)
            *request = apm_buf_str(buf);
        return st;
    }
    *request = (apm_str){ request_area(slots, slot), len };
    return APIUM_OK;
}

void
apm_slots_enter(apm_slots *slots, unsigned slot, uint32_t seq)
{
    atomic_store_explicit(&slots->slot[slot].entered, seq, memory_order_release);
}

apium_status
apm_slots_answer(apm_slots *slots, unsigned slot, apm_str outcome, apm_str behind, apium_error *err)
{
    apium_status st =
        store(slots, outcome, behind, outcome_area(slots, slot), outcome_offset(slots, slot), err);
    if (st == APIUM_OK)
        slots->slot[slot].outcome_len = (uint32_t)(outcome.len + behind.len);
    return st;
}

bool
apm_slots_done(apm_slots *slots, unsigned seat, unsigned slot, uint32_t seq, int64_t now_ns)
{
    apm_shared *shared = slots->shared;
    uint64_t word = word_of(APM_SLOT_RUNNING, seat, seq);
    if (!atomic_compare_exchange_strong(&slots->slot[slot].word, &word,
                                        word_of(APM_SLOT_DONE, seat, seq)))
        return false;
    uint64_t done = atomic_fetch_add(&shared->done, 1) + 1;
    uint32_t main_state = atomic_load(&shared->main_state);
    if (main_state == APM_MAIN_AWAKE)
        return false;
    if (main_state == APM_MAIN_DOZES && !queue_empty(slots) &&
        (int64_t)(done - atomic_load_explicit(&shared->delivered, memory_order_relaxed)) < GATHER &&
        now_ns - atomic_load_explicit(&shared->woken_ns, memory_order_relaxed) < WAKE_INTERVAL_NS)
        return false;
    /* One of us wakes it, once. */
    if (atomic_exchange(&shared->main_state, APM_MAIN_AWAKE) == APM_MAIN_AWAKE)
        return false;
    atomic_store_explicit(&shared->woken_ns, now_ns, memory_order_relaxed);
    return true;
}

void
apm_slots_sleep(apm_slots *slots, unsigned i)
{
    apm_seat *seat = &slots->seat[i];
    uint32_t how = atomic_load(&seat->held) ? APM_SEAT_HELD : APM_SEAT_IDLE;
    atomic_store(&seat->asleep, how);
    /* We have said that we sleep: now look once more. */
    bool held = atomic_load(&seat->held) != 0;
    bool stay = atomic_load(&seat->command) == APM_SEAT_STAY &&
                atomic_load(&seat->asked) == atomic_load(&seat->answered);
    if (held ? how == APM_SEAT_HELD : stay && queue_empty(slots) && how == APM_SEAT_IDLE)
        futex_wait(&seat->asleep, how);
    atomic_store(&seat->asleep, APM_SEAT_AWAKE);
}
