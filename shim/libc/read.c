/* recv() and its relatives. The loop is Linux's tcp_recvmsg() as a program sees it. */
#define _GNU_SOURCE
#include <limits.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "shim/core/family.h"
#include "shim/core/shared.h"
#include "shim/libc/cursor.h"
#include "shim/libc/follow.h"
#include "shim/libc/real.h"
#include "shim/libc/sock.h"
#include "shim/wait/wait.h"

_Noreturn void __chk_fail(void);

int64_t sock_check_iov(const struct iovec *iov, size_t n, bool untouched)
{
    if (!user_valid(iov, n * sizeof(*iov)))
        return -EFAULT;
    size_t total = 0;
    bool wrong = false;
    for (size_t i = 0; i < n; i++) {
        if ((ssize_t)iov[i].iov_len < 0)
            return -EINVAL;
        const int64_t r = sock_check_buf(iov[i].iov_base, iov[i].iov_len);
        if (unlikely(r == -EFAULT))
            return r;
        wrong |= r != 0;
        total += min_u64(iov[i].iov_len, TRANSFER_MAX);
    }
    return unlikely(wrong && !untouched) ? SOCK_FAULT : (int64_t)min_u64(total, TRANSFER_MAX);
}

static size_t total_of(const struct slice *v, unsigned n)
{
    size_t total = 0;
    for (unsigned i = 0; i < n; i++)
        total += v[i].len;
    return total;
}

/* SO_PEEK_OFF: peeking moves it on, taking moves it back. */
static void move_peek_off(struct usock *us, int flags, size_t bytes)
{
    if (likely(us->peek_off < 0))
        return;
    if ((flags & MSG_PEEK) != 0)
        us->peek_off += (int32_t)bytes;
    else
        us->peek_off -= (int32_t)min_u64(bytes, (uint64_t)us->peek_off);
}

/*
 * After some bytes an error, the urgent mark or the end is the next call's. A peek stops wherever
 * the mark is: what it got ended there, or began there.
 */
static bool must_stop(const struct usock *us, bool peek)
{
    return tcp_peek_error(us->conn) != 0 || (peek ? tcp_has_mark(us->conn) : tcp_at_mark(us->conn));
}

/*
 * The call has what it wants, and room for more. Where the link has seen that more is there, it is
 * taken: how many bytes.
 */
static size_t read_on(struct call *c, struct cursor *k)
{
    const struct slice *window;
    if (!tcp_text_foreseen(c->cx.st, c->us->conn) || engine.sandboxed)
        return 0;
    (void)cursor_window(k, &window);
    if (window[0].len < PLACE_MIN)
        return 0;
    struct reader reader = {.us = c->us, .room = window[0], .patient = true};
    const struct drain d = {.reader = &reader, .stays = list_empty(&engine.sh->sleepers)};
    engine_drain_for(&c->cx, &d);
    return reader.got;
}

/* Large text from a socket of the same stack: copied outside the engine. 0: not this time. */
static int64_t recv_parcel(struct call *c, const struct slice *to)
{
    struct tcp_parcel *p;
    const int64_t r = tcp_recv_parcel(&c->cx, c->us->conn, to, process_number(), &p);
    if (p == NULL)
        return r;
    call_copy(c, p, to->base, false);
    tcp_parcel_free(&c->cx, p);
    return r;
}

int64_t sock_recv(struct call *c, const struct slice *to, unsigned n, int flags)
{
    struct usock *us = c->us;
    const bool peek = (flags & MSG_PEEK) != 0;
    follow_read(c);
    if (unlikely(c->traced))
        call_note(c, (struct call_args){
                         .shape = ARGS_BUFFER, .a = total_of(to, n), .b = (unsigned)flags});
    const uint32_t how =
        (peek ? TCP_RECV_PEEK : 0) | ((flags & MSG_TRUNC) != 0 ? TCP_RECV_TRUNC : 0);
    if (unlikely((flags & MSG_ERRQUEUE) != 0))
        return sock_recv_errqueue(c, NULL);
    if (unlikely((flags & MSG_OOB) != 0))
        return tcp_recv(&c->cx, us->conn, to, n, how | TCP_RECV_OOB, 0);
    const bool nonblock = us->nonblock || (flags & MSG_DONTWAIT) != 0;
    const size_t total = total_of(to, n);
    const size_t target = (flags & MSG_WAITALL) != 0
                              ? total
                              : min_u64(max_u32(tcp_opts(us->conn)->rcvlowat, 1), total);
    const uint32_t peek_from = peek && us->peek_off > 0 ? (uint32_t)us->peek_off : 0;
    const nsec_t deadline = call_deadline(c, us->rcvtimeo);
    const bool fills = !peek && (flags & MSG_TRUNC) == 0 && total > 0;
    size_t copied = 0;
    bool drained = false;
    struct cursor k;
    cursor_init(&k, to, n);
    if (unlikely(peek && tcp_announced(us->conn)))
        engine_drain(&c->cx);
    for (;;) {
        const struct slice *window;
        const unsigned slices = cursor_window(&k, &window);
        /* A call that asks for nothing waits for something all the same, but takes nothing. */
        int64_t r = how == 0 && slices == 1 ? recv_parcel(c, window) : 0;
        const bool part = r > 0;
        if (r == 0)
            r = tcp_recv(&c->cx, us->conn, window, slices, how,
                         peek_from + (peek ? (uint32_t)copied : 0));
        if (r > 0) {
            copied += (size_t)r;
            cursor_advance(&k, (size_t)r);
            if (must_stop(us, peek))
                break;
            if (copied < target || (part && copied < total && tcp_inq(us->conn) > 0))
                continue;
            copied += fills && copied < total ? read_on(c, &k) : 0;
            break;
        }
        if (r != -EAGAIN) {
            if (copied == 0)
                return r;
            break;
        }
        struct reader reader = {.us = us, .patient = nonblock};
        if (fills)
            reader.room = window[0];
        if (nonblock && (drained || copied > 0))
            break;
        if (nonblock || (tcp_text_foreseen(c->cx.st, us->conn) && !engine.sandboxed)) {
            const struct drain d = {.reader = fills ? &reader : NULL,
                                    .stays = list_empty(&engine.sh->sleepers)};
            engine_drain_for(&c->cx, &d);
            drained = true;
            r = 0;
        } else {
            r = call_wait(c, TCP_EV_IN | TCP_EV_RDHUP, NULL, deadline,
                          us->rcvtimeo == 0 && copied == 0 ? WAIT_RESTART : 0,
                          fills ? &reader : NULL);
        }
        if (reader.got > 0) {
            copied += reader.got;
            cursor_advance(&k, reader.got);
            if (copied >= target || must_stop(us, peek))
                break;
        }
        if (unlikely(reader.error != 0 && r >= 0))
            r = reader.error;
        if (total == 0 && !nonblock)
            return 0; /* it has waited, once */
        if (r < 0) {
            if (copied == 0)
                return r;
            break;
        }
    }
    if (copied == 0)
        return -EAGAIN;
    move_peek_off(us, flags, copied);
    return (int64_t)copied;
}

int64_t sock_fault_recv(struct call *c, int flags)
{
    char byte;
    const struct slice to = {.base = &byte, .len = 1};
    const int64_t r = sock_recv(c, &to, 1, (flags & ~(MSG_WAITALL | MSG_TRUNC)) | MSG_PEEK);
    return r > 0 ? -EFAULT : r;
}

static ssize_t recv_buffer(struct call *c, void *buf, size_t len, int flags)
{
    int64_t r = sock_check_buf(buf, len);
    if (likely(r == 0) || (r == SOCK_FAULT && (flags & MSG_TRUNC) != 0)) {
        const struct slice to = {.base = buf, .len = min_u64(len, TRANSFER_MAX)};
        r = sock_recv(c, &to, 1, flags);
    } else if (r == SOCK_FAULT) {
        r = sock_fault_recv(c, flags);
    }
    return call_end(c, r);
}

SHIM_EXPORT ssize_t recv(int fd, void *buf, size_t len, int flags)
{
    struct call c;
    if (likely(!call_begin(&c, fd, "recv", CALL_CONN | CALL_READS)))
        return real_ready()->recv(fd, buf, len, flags);
    return recv_buffer(&c, buf, len, flags);
}

SHIM_EXPORT ssize_t recvfrom(int fd, void *restrict buf, size_t len, int flags,
                             struct sockaddr *restrict sa, socklen_t *restrict sa_len)
{
    struct call c;
    if (likely(!call_begin(&c, fd, "recvfrom", CALL_CONN | CALL_READS)))
        return real_ready()->recvfrom(fd, buf, len, flags, sa, sa_len);
    const ssize_t r = recv_buffer(&c, buf, len, flags);
    if (r < 0 || sa == NULL)
        return r;
    if (!user_valid(sa_len, sizeof(*sa_len)))
        return call_result(-EFAULT);
    if ((int)*sa_len < 0)
        return call_result(-EINVAL);
    *sa_len = 0; /* a stream has no sender to name */
    return r;
}

static __attribute__((noinline)) ssize_t read_socket(int fd, void *buf, size_t len)
{
    struct call c;
    if (likely(!call_begin(&c, fd, "read", CALL_CONN | CALL_READS)))
        return real_ready()->read(fd, buf, len);
    if (unlikely(len == 0) && sock_check_buf(buf, 0) == 0)
        return call_end(&c, 0); /* read(), unlike recv(), asks nobody then */
    return recv_buffer(&c, buf, len, 0);
}

/* Apart from the rest, so that other files pay for nothing but the look into the table. */
SHIM_EXPORT ssize_t read(int fd, void *buf, size_t len)
{
    if (likely(fd_entry(fd) == 0))
        return real_ready()->read(fd, buf, len);
    return read_socket(fd, buf, len);
}
extern __typeof(read) __read __attribute__((alias("read"), visibility("default")));

static ssize_t read_vector(struct call *c, const struct iovec *iov, int n, int flags)
{
    if (n < 0 || n > IOV_MAX)
        return call_end(c, -EINVAL);
    int64_t r = sock_check_iov(iov, (size_t)n, false);
    if (r > 0)
        r = sock_recv(c, (const struct slice *)iov, (unsigned)n, flags);
    else if (r == SOCK_FAULT)
        r = sock_fault_recv(c, flags);
    return call_end(c, r);
}

SHIM_EXPORT ssize_t readv(int fd, const struct iovec *iov, int n)
{
    struct call c;
    if (likely(!call_begin(&c, fd, "readv", CALL_CONN | CALL_READS)))
        return real_ready()->readv(fd, iov, n);
    return read_vector(&c, iov, n, 0);
}

/* Offset -1 means readv(); any other is refused by the backing socket (ESPIPE), as are pread() and
 * preadv(). */
SHIM_EXPORT ssize_t preadv2(int fd, const struct iovec *iov, int n, off_t offset, int flags)
{
    struct call c;
    if (unlikely(offset == -1 && call_begin(&c, fd, "preadv2", CALL_CONN | CALL_READS)))
        return read_vector(&c, iov, n, (flags & RWF_NOWAIT) != 0 ? MSG_DONTWAIT : 0);
    if (real_ready()->preadv2 == NULL)
        return call_result(-ENOSYS);
    return real.preadv2(fd, iov, n, offset, flags);
}
extern __typeof(preadv2) preadv64v2 __attribute__((alias("preadv2"), visibility("default")));

/* What _FORTIFY_SOURCE turns the calls into; `size` is the compiler's knowledge of the buffer. */
SHIM_EXPORT ssize_t __read_chk(int fd, void *buf, size_t len, size_t size)
{
    if (len > size)
        __chk_fail();
    return read(fd, buf, len);
}

SHIM_EXPORT ssize_t __recv_chk(int fd, void *buf, size_t len, size_t size, int flags)
{
    if (len > size)
        __chk_fail();
    return recv(fd, buf, len, flags);
}

SHIM_EXPORT ssize_t __recvfrom_chk(int fd, void *buf, size_t len, size_t size, int flags,
                                   struct sockaddr *sa, socklen_t *sa_len)
{
    if (len > size)
        __chk_fail();
    return recvfrom(fd, buf, len, flags, sa, sa_len);
}
