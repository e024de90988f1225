#include "shim/link/aside.h"

#include <errno.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <sys/prctl.h>
#include <time.h>

#include "shim/core/raw.h"
#include "stack/stack.h"

#define RING 64
/* One ACK of SAMPLE is timed; after SAMPLES such it is decided. */
#define SAMPLE  8
#define SAMPLES 32
/* So long takes one that another's work is in; one that has none takes 2 to 4 us. */
#define DEAR (8 * NSEC_PER_USEC)
/* The same, once they go aside, and the thread has times of its own. */
#define CHEAP (6 * NSEC_PER_USEC)
/* As many ACKs as are between two decisions come within this, or it does not matter. */
#define WINDOW (50 * NSEC_PER_MSEC)
/*
 * Of so many in a hundred the thread comes too late, in a moving average: 10 to 35 where there is
 * room for it, 60 where it shares a processor. Then it is left alone for a while; it begins in
 * between.
 */
#define LATE_MAX   50
#define LATE_FIRST 38
#define LATE_PART  4 /* of the average is the last value */
#define ALONE      (2 * NSEC_PER_SEC)
/* The thread looks for more so long before it sleeps. */
#define LOOK (20 * NSEC_PER_USEC)

struct entry {
    int fd;
    uint16_t len;
    uint8_t to_len;
    uint8_t to[sizeof(struct sockaddr_ll)];
    uint8_t bytes[sizeof(struct virtio_net_hdr) + sizeof(((struct frame_out *)0)->head)];
};

/* Written by who is entered, but for the tail. */
static struct {
    struct entry entries[RING];
    uint32_t head; /* entries that were put (atomic) */
    uint32_t tail; /* and that were claimed, by whoever sends them (atomic) */
} ring;

/* Entered. */
static const struct aside_helper *helper;
static struct {
    bool on;
    unsigned seen, timed; /* since the last decision, ACKs and those of them that were timed, */
    unsigned late;        /* and that the caller had to send */
    unsigned lateness;    /* in hundredths */
    nsec_t took;          /* the latter, together */
    nsec_t since;
    nsec_t not_before;
} lesson;

/* Both sides' (atomic). */
static struct {
    bool asleep, busy, forbidden;
    unsigned refused;
    int err;
    uint32_t sent, took; /* by the thread since the last decision; in ns */
} helps;

nsec_t aside_clock(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (nsec_t)ts.tv_sec * NSEC_PER_SEC + (nsec_t)ts.tv_nsec;
}

/* ---- the ring ---- */

static bool any(void)
{
    return __atomic_load_n(&ring.head, __ATOMIC_SEQ_CST) !=
           __atomic_load_n(&ring.tail, __ATOMIC_SEQ_CST);
}

/*
 * Copies the next entry, then makes it the caller's. Who is too late has copied what may have
 * changed meanwhile, and tries again.
 */
static bool claim(struct entry *e)
{
    uint32_t at = __atomic_load_n(&ring.tail, __ATOMIC_ACQUIRE);
    do {
        if (at == __atomic_load_n(&ring.head, __ATOMIC_ACQUIRE))
            return false;
        *e = ring.entries[at % RING];
    } while (!__atomic_compare_exchange_n(&ring.tail, &at, at + 1, false, __ATOMIC_ACQ_REL,
                                          __ATOMIC_ACQUIRE));
    return true;
}

static void send_entry(const struct entry *e)
{
    ssize_t n;
    do
        n = raw_sendto(e->fd, e->bytes, e->len, MSG_DONTWAIT | MSG_NOSIGNAL, (void *)e->to,
                       e->to_len);
    while (n == -EINTR);
    if (likely(n >= 0))
        return;
    __atomic_store_n(&helps.err, (int)n, __ATOMIC_RELAXED);
    __atomic_add_fetch(&helps.refused, 1, __ATOMIC_RELEASE);
}

/* ---- who has frames ---- */

static bool possible(void)
{
    /* a filter may kill for what a program with kernel sockets would never do */
    return helper != NULL && !__atomic_load_n(&helps.forbidden, __ATOMIC_RELAXED) &&
           raw_syscall(SYS_prctl, PR_GET_SECCOMP, 0, 0, 0, 0, 0) == 0;
}

static void decide(nsec_t now)
{
    const bool often = now - lesson.since < WINDOW;
    const uint32_t sent = __atomic_exchange_n(&helps.sent, 0, __ATOMIC_RELAXED);
    const uint32_t took = __atomic_exchange_n(&helps.took, 0, __ATOMIC_RELAXED);
    if (lesson.on) {
        const unsigned late = 100 * lesson.late / lesson.seen;
        lesson.lateness = (lesson.lateness * (LATE_PART - 1) + late) / LATE_PART;
        lesson.on = often && lesson.lateness <= LATE_MAX && sent != 0 && took / sent >= CHEAP;
        if (lesson.lateness > LATE_MAX)
            lesson.not_before = now + ALONE;
    } else if (often && lesson.took / lesson.timed >= DEAR && now >= lesson.not_before) {
        lesson.on = possible();
        lesson.lateness = LATE_FIRST;
        if (!lesson.on)
            lesson.not_before = now + ALONE;
    }
    lesson.seen = lesson.timed = lesson.late = 0;
    lesson.took = 0;
    lesson.since = now;
}

bool aside_timed(void)
{
    return lesson.seen++ % SAMPLE == 0;
}

void aside_took(nsec_t now, nsec_t took)
{
    lesson.took += took;
    if (++lesson.timed == SAMPLES)
        decide(now);
}

/* The next entry of the ring; NULL: it is full, for the thread does not get a processor. */
static struct entry *room(void)
{
    if (ring.head - __atomic_load_n(&ring.tail, __ATOMIC_ACQUIRE) < RING)
        return &ring.entries[ring.head % RING];
    aside_flush();
    return NULL;
}

bool aside_take(int fd, const struct msghdr *m, nsec_t now)
{
    struct entry *e = lesson.on && helper->listens() ? room() : NULL;
    if (likely(e == NULL))
        return false;
    e->fd = fd;
    e->len = 0;
    for (size_t i = 0; i < m->msg_iovlen; i++) {
        memcpy(e->bytes + e->len, m->msg_iov[i].iov_base, m->msg_iov[i].iov_len);
        e->len += (uint16_t)m->msg_iov[i].iov_len;
    }
    e->to_len = (uint8_t)m->msg_namelen;
    memcpy(e->to, m->msg_name, m->msg_namelen);
    __atomic_store_n(&ring.head, ring.head + 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&helps.asleep, __ATOMIC_SEQ_CST)) {
        __atomic_store_n(&helps.asleep, false, __ATOMIC_RELAXED);
        helper->call();
    }
    if (++lesson.seen >= SAMPLE * SAMPLES)
        decide(now);
    return true;
}

void aside_flush(void)
{
    struct entry e;
    while (unlikely(any()) && claim(&e)) {
        lesson.late++;
        send_entry(&e);
    }
}

unsigned aside_refused(int *err)
{
    if (likely(__atomic_load_n(&helps.refused, __ATOMIC_ACQUIRE) == 0))
        return 0;
    *err = __atomic_load_n(&helps.err, __ATOMIC_RELAXED);
    return __atomic_exchange_n(&helps.refused, 0, __ATOMIC_ACQ_REL);
}

void aside_forbid(void)
{
    lesson.on = false;
    __atomic_store_n(&helps.forbidden, true, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&helps.busy, __ATOMIC_SEQ_CST))
        raw_syscall(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
    aside_flush();
}

void aside_after_fork_child(void)
{
    ring.head = ring.tail = 0;
    helps.asleep = helps.busy = false;
    lesson.on = false;
    lesson.seen = lesson.timed = lesson.late = 0;
    lesson.took = 0;
}

/* ---- the thread ---- */

void aside_use(const struct aside_helper *h)
{
    helper = h;
}

bool aside_listen(void)
{
    __atomic_store_n(&helps.asleep, true, __ATOMIC_SEQ_CST);
    return any();
}

bool aside_awake(void)
{
    __atomic_store_n(&helps.asleep, false, __ATOMIC_RELAXED);
    return any();
}

void aside_help(void)
{
    struct entry e;
    __atomic_store_n(&helps.busy, true, __ATOMIC_SEQ_CST);
    nsec_t at = aside_clock(), last = at;
    while (!__atomic_load_n(&helps.forbidden, __ATOMIC_SEQ_CST) && at - last < LOOK) {
        if (!claim(&e)) {
            raw_syscall(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
            at = aside_clock();
            continue;
        }
        const nsec_t before = at;
        send_entry(&e);
        last = at = aside_clock();
        __atomic_add_fetch(&helps.took, (uint32_t)(at - before), __ATOMIC_RELAXED);
        __atomic_add_fetch(&helps.sent, 1, __ATOMIC_RELAXED);
    }
    __atomic_store_n(&helps.busy, false, __ATOMIC_SEQ_CST);
}
