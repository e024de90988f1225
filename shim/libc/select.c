/*
 * select and pselect, by way of poll: the sets become an array of descriptors. Sets without a user
 * socket go straight to libc. fd_sets may be longer than FD_SETSIZE: nfds is the bound, as in
 * Linux.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sys/select.h>

#include "shim/core/engine.h"
#include "shim/core/fdtable.h"
#include "shim/core/raw.h"
#include "shim/libc/real.h"
#include "shim/libc/user.h"
#include "shim/wait/pollset.h"
#include "shim/wait/wait.h"

#define WORD_BITS (8 * sizeof(unsigned long))
#define LOCAL_FDS 64

/* The events that stand for membership in readfds, writefds, exceptfds. */
static const short asked[3] = {POLLIN | POLLRDNORM | POLLRDBAND, POLLOUT | POLLWRNORM | POLLWRBAND,
                               POLLPRI};
/* And those that answer it (Linux: POLLIN_SET, POLLOUT_SET, POLLEX_SET). */
static const short answers[3] = {POLLIN | POLLRDNORM | POLLRDBAND | POLLHUP | POLLERR,
                                 POLLOUT | POLLWRNORM | POLLWRBAND | POLLERR, POLLPRI};

struct sets {
    unsigned long *set[3];
    unsigned nfds;
};

static unsigned words(const struct sets *s)
{
    return (unsigned)((s->nfds + WORD_BITS - 1) / WORD_BITS);
}

/* Members of any set in word w, within nfds. */
static unsigned long members(const struct sets *s, unsigned w)
{
    unsigned long all = 0;
    for (unsigned i = 0; i < 3; i++)
        if (s->set[i] != NULL)
            all |= s->set[i][w];
    if ((w + 1) * WORD_BITS > s->nfds)
        all &= (1ul << s->nfds % WORD_BITS) - 1;
    return all;
}

/* How many descriptors there are, and whether one of them is ours. */
static unsigned count(const struct sets *s, bool *ours)
{
    unsigned n = 0;
    *ours = false;
    for (unsigned i = 0; i < 3; i++)
        if (s->set[i] != NULL && !user_valid(s->set[i], words(s) * sizeof(unsigned long)))
            return 0; /* the kernel's to refuse */
    for (unsigned w = 0; w < words(s); w++) {
        for (unsigned long m = members(s, w); m != 0; m &= m - 1) {
            int fd = (int)(w * WORD_BITS) + __builtin_ctzl(m);
            n++;
            *ours |= fd_ours(fd) || wait_epoll_bare(fd);
        }
    }
    return n;
}

static void fill(const struct sets *s, struct pollfd *fds)
{
    for (unsigned w = 0; w < words(s); w++) {
        for (unsigned long m = members(s, w); m != 0; m &= m - 1) {
            const unsigned bit = (unsigned)__builtin_ctzl(m);
            *fds = (struct pollfd){.fd = (int)(w * WORD_BITS + bit)};
            for (unsigned i = 0; i < 3; i++)
                if (s->set[i] != NULL && (s->set[i][w] >> bit & 1) != 0)
                    fds->events |= asked[i];
            fds++;
        }
    }
}

/* Writes the sets; returns the number of bits, or -EBADF with the sets untouched. */
static int give(const struct sets *s, const struct pollfd *fds, unsigned n)
{
    int bits = 0;
    for (unsigned i = 0; i < n; i++)
        if ((fds[i].revents & POLLNVAL) != 0)
            return -EBADF;
    for (unsigned i = 0; i < 3; i++)
        if (s->set[i] != NULL)
            memset(s->set[i], 0, words(s) * sizeof(unsigned long));
    for (unsigned i = 0; i < n; i++) {
        const unsigned long bit = 1ul << (unsigned)fds[i].fd % WORD_BITS;
        for (unsigned k = 0; k < 3; k++) {
            if (s->set[k] == NULL || (fds[i].events & asked[k]) == 0 ||
                (fds[i].revents & answers[k]) == 0)
                continue;
            s->set[k][(unsigned)fds[i].fd / WORD_BITS] |= bit;
            bits++;
        }
    }
    return bits;
}

static int wait_in(const struct sets *s, struct pollfd *fds, unsigned n, nsec_t timeout,
                   const sigset_t *mask)
{
    fill(s, fds);
    const int r = pollset_wait(fds, n, timeout, mask, POLLSET_SELECT);
    return r < 0 ? r : give(s, fds, n);
}

struct mapping {
    void *base;
    size_t size;
};

static void unmap(void *arg)
{
    const struct mapping *m = arg;
    raw_munmap(m->base, m->size);
}

static int __attribute__((noinline))
wait_mapped(const struct sets *s, unsigned n, nsec_t timeout, const sigset_t *mask)
{
    struct mapping m = {.size = n * sizeof(struct pollfd)};
    m.base = raw_mmap(NULL, m.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (raw_is_error(m.base))
        return -ENOMEM;
    int r;
    pthread_cleanup_push(unmap, &m);
    r = wait_in(s, m.base, n, timeout, mask);
    pthread_cleanup_pop(1);
    return r;
}

static int __attribute__((noinline))
wait_local(const struct sets *s, unsigned n, nsec_t timeout, const sigset_t *mask)
{
    struct pollfd fds[LOCAL_FDS];
    return wait_in(s, fds, n, timeout, mask);
}

static int wait_sets(const struct sets *s, unsigned n, nsec_t timeout, const sigset_t *mask)
{
    return n <= LOCAL_FDS ? wait_local(s, n, timeout, mask) : wait_mapped(s, n, timeout, mask);
}

static int result_of(int r)
{
    if (r >= 0)
        return r;
    errno = -r;
    return -1;
}

static nsec_t now(void)
{
    struct stack_cx cx;
    engine_clock(&cx);
    return cx.now;
}

SHIM_EXPORT int select(int nfds, fd_set *r, fd_set *w, fd_set *e, struct timeval *timeout)
{
    const struct sets s = {{(unsigned long *)r, (unsigned long *)w, (unsigned long *)e},
                           nfds > 0 ? (unsigned)nfds : 0};
    bool ours;
    const unsigned n = count(&s, &ours);
    if (likely(!ours) || !engine_running())
        return real_ready()->select(nfds, r, w, e, timeout);
    nsec_t span = NSEC_NEVER;
    if (timeout != NULL && !user_valid(timeout, sizeof(*timeout)))
        return result_of(-EFAULT);
    if (timeout != NULL) {
        if (timeout->tv_sec < 0 || timeout->tv_usec < 0)
            return result_of(-EINVAL);
        const struct timespec ts = {.tv_sec = timeout->tv_sec + timeout->tv_usec / 1000000,
                                    .tv_nsec = timeout->tv_usec % 1000000 * 1000};
        pollset_timespec(&ts, &span);
    }
    const nsec_t start = now();
    const int result = wait_sets(&s, n, span, NULL);
    if (timeout != NULL && span != NSEC_NEVER) { /* Linux says what is left */
        const nsec_t spent = now() - start;
        const nsec_t left = spent < span ? span - spent : 0;
        timeout->tv_sec = (time_t)(left / NSEC_PER_SEC);
        timeout->tv_usec = (suseconds_t)(left % NSEC_PER_SEC / NSEC_PER_USEC);
    }
    return result_of(result);
}

SHIM_EXPORT int pselect(int nfds, fd_set *r, fd_set *w, fd_set *e, const struct timespec *timeout,
                        const sigset_t *mask)
{
    const struct sets s = {{(unsigned long *)r, (unsigned long *)w, (unsigned long *)e},
                           nfds > 0 ? (unsigned)nfds : 0};
    bool ours;
    const unsigned n = count(&s, &ours);
    if (likely(!ours) || !engine_running())
        return real_ready()->pselect(nfds, r, w, e, timeout, mask);
    nsec_t span;
    if (timeout != NULL && !user_valid(timeout, sizeof(*timeout)))
        return result_of(-EFAULT);
    if (!pollset_timespec(timeout, &span))
        return result_of(-EINVAL);
    return result_of(wait_sets(&s, n, span, mask));
}

SHIM_EXPORT int __select(int nfds, fd_set *r, fd_set *w, fd_set *e, struct timeval *timeout)
{
    return select(nfds, r, w, e, timeout);
}
