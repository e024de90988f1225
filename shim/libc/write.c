/* send() and its relatives. The loop is Linux's tcp_sendmsg() as a program sees it. */
#define _GNU_SOURCE
#include <limits.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "shim/core/family.h"
#include "shim/libc/cursor.h"
#include "shim/libc/follow.h"
#include "shim/libc/real.h"
#include "shim/libc/sock.h"
#include "shim/wait/wait.h"

/* One step failed for good, or for now where the call may not wait. Bytes already taken come first.
 */
static int64_t ended(struct call *c, int64_t err, size_t copied, int flags)
{
    if (copied > 0)
        return (int64_t)copied;
    if (err == -EPIPE && (flags & MSG_NOSIGNAL) == 0)
        c->sigpipe = true;
    return err;
}

/* After a part was taken, an error is the next call's: not asked for, it stays pending. */
static bool is_over(const struct usock *us, size_t copied)
{
    return copied > 0 && (tcp_peek_error(us->conn) != 0 || tcp_writing_shut(us->conn));
}

/*
 * Large text to a socket of the same stack, copied while others use the engine. False: not this
 * time. *r: as tcp_send(), or 0: it was over meanwhile.
 */
static bool send_parcel(struct call *c, const struct slice *from, size_t copied, int64_t *r)
{
    struct tcp_parcel *p = tcp_pack(&c->cx, c->us->conn, from->len, process_number());
    if (likely(p == NULL))
        return false;
    call_copy(c, p, from->base, true);
    *r = 0;
    if (unlikely(is_over(c->us, copied)))
        tcp_parcel_free(&c->cx, p);
    else
        *r = tcp_send_parcel(&c->cx, c->us->conn, p);
    return true;
}

/* The bytes of the vector behind the first `copied`, which are sent already. */
static int64_t send_from(struct call *c, const struct slice *from, unsigned n, size_t copied,
                         int flags)
{
    struct usock *us = c->us;
    const bool nonblock = us->nonblock || (flags & MSG_DONTWAIT) != 0;
    const uint32_t how = ((flags & MSG_MORE) != 0 ? TCP_SEND_MORE : 0) |
                         ((flags & MSG_OOB) != 0 ? TCP_SEND_OOB : 0) |
                         ((flags & MSG_EOR) != 0 ? TCP_SEND_EOR : 0) |
                         (nonblock ? TCP_SEND_ONCE : 0);
    const bool plain = (how & ~TCP_SEND_ONCE) == 0;
    const uint32_t wait = plain && follow_write(c) ? TCP_SEND_UNFINISHED : 0;
    size_t total = 0;
    for (unsigned i = 0; i < n; i++)
        total += from[i].len;
    if (copied > 0 && copied >= total)
        return (int64_t)copied;
    const nsec_t deadline = call_deadline(c, us->sndtimeo);
    bool drained = false;
    struct cursor k;
    cursor_init(&k, from, n);
    cursor_advance(&k, copied);
    for (;;) {
        if (is_over(us, copied))
            return (int64_t)copied;
        const struct slice *window;
        const unsigned slices = cursor_window(&k, &window);
        const uint32_t more = slices < k.n ? TCP_SEND_MORE | TCP_SEND_PART
                                           : 0; /* the rest of the vector follows at once */
        int64_t r;
        if (!plain || slices != 1 || more != 0 || !send_parcel(c, window, copied, &r))
            r = tcp_send(&c->cx, us->conn, window, slices, how | more | wait);
        else if (unlikely(r == 0))
            continue;
        if (r >= 0) {
            copied += (size_t)r;
            if (copied >= total)
                return (int64_t)copied;
            cursor_advance(&k, (size_t)r);
            if (r > 0)
                continue;
            r = -EAGAIN;
        }
        if (r != -EAGAIN)
            return ended(c, r, copied, flags);
        if (nonblock) {
            if (drained || copied > 0)
                return ended(c, -EAGAIN, copied, flags);
            engine_drain(&c->cx); /* an ACK may lie in the packet socket */
            drained = true;
            continue;
        }
        r = call_wait(c, TCP_EV_OUT, NULL, deadline,
                      us->sndtimeo == 0 && copied == 0 ? WAIT_RESTART : 0, NULL);
        if (r < 0)
            return ended(c, r, copied, flags);
    }
}

/*
 * MSG_ZEROCOPY: its bytes were copied, so its buffers are free already. Linux says the same, and
 * that it copied, of devices that cannot gather and of receivers on the same host.
 */
static int64_t zerocopied(struct call *c, int64_t r, int flags)
{
    if (unlikely((flags & MSG_ZEROCOPY) != 0) && r > 0 && tcp_opts(c->us->conn)->zerocopy)
        tcp_zerocopy_done(&c->cx, c->us->conn);
    return r;
}

int64_t sock_send(struct call *c, const struct slice *from, unsigned n, int flags)
{
    struct usock *us = c->us;
    size_t total = 0;
    for (unsigned i = 0; i < n; i++)
        total += from[i].len;
    call_note(c, (struct call_args){.shape = ARGS_BUFFER, .a = total, .b = (unsigned)flags});
    if (likely(us->conn == NULL || !tcp_deferred(us->conn)))
        return zerocopied(c, send_from(c, from, n, 0, flags), flags);
    const bool nonblock = us->nonblock || (flags & MSG_DONTWAIT) != 0;
    const int64_t r = sock_send_deferred(c, from, n, nonblock);
    if (r < 0)
        return ended(c, r, 0, flags);
    return zerocopied(c, r > 0 && nonblock ? r : send_from(c, from, n, (size_t)r, flags), flags);
}

int64_t sock_fault_send(struct call *c, int flags)
{
    const struct slice nothing = {.len = 0};
    const int64_t r = sock_send(c, &nothing, 1, flags & ~MSG_OOB);
    return r < 0 ? r : -EFAULT;
}

static ssize_t send_buffer(struct call *c, const void *buf, size_t len, int flags)
{
    int64_t r = sock_check_buf(buf, len);
    if (likely(r == 0)) {
        const struct slice from = {.base = (void *)buf, .len = min_u64(len, TRANSFER_MAX)};
        r = sock_send(c, &from, 1, flags);
    } else if (r == SOCK_FAULT) {
        r = sock_fault_send(c, flags);
    }
    return call_end(c, r);
}

SHIM_EXPORT ssize_t send(int fd, const void *buf, size_t len, int flags)
{
    struct call c;
    if (likely(!call_begin(&c, fd, "send", CALL_CONN)))
        return real_ready()->send(fd, buf, len, flags);
    return send_buffer(&c, buf, len, flags);
}
extern __typeof(send) __send __attribute__((alias("send"), visibility("default")));

static __attribute__((noinline)) ssize_t write_socket(int fd, const void *buf, size_t len)
{
    struct call c;
    if (likely(!call_begin(&c, fd, "write", CALL_CONN)))
        return real_ready()->write(fd, buf, len);
    return send_buffer(&c, buf, len, 0);
}

/* Apart from the rest, so that other files pay for nothing but the look into the table. */
SHIM_EXPORT ssize_t write(int fd, const void *buf, size_t len)
{
    if (likely(fd_entry(fd) == 0))
        return real_ready()->write(fd, buf, len);
    return write_socket(fd, buf, len);
}
extern __typeof(write) __write __attribute__((alias("write"), visibility("default")));

bool sock_fast_open(int fd, const struct sockaddr *sa, socklen_t sa_len, int flags,
                    const struct slice *from, unsigned n, int64_t *result)
{
    struct call c;
    if ((flags & MSG_FASTOPEN) == 0 || sa == NULL ||
        !call_begin(&c, fd, "connect", CALL_UNDECIDED | CALL_CONN))
        return false;
    const bool nonblock = c.us->nonblock || (flags & MSG_DONTWAIT) != 0;
    int64_t r = sock_connect_with(&c, sa, sa_len, from, n, nonblock);
    if (r == CALL_PASS) {
        call_pass(&c);
        return false;
    }
    if (r >= 0 && !(r > 0 && nonblock))
        r = send_from(&c, from, n, (size_t)r, flags);
    *result = call_end(&c, zerocopied(&c, r, flags));
    return true;
}

SHIM_EXPORT ssize_t sendto(int fd, const void *buf, size_t len, int flags,
                           const struct sockaddr *sa, socklen_t sa_len)
{
    struct call c;
    int64_t r;
    const struct slice from = {.base = (void *)buf, .len = min_u64(len, TRANSFER_MAX)};
    if (unlikely((flags & MSG_FASTOPEN) != 0) && sock_check_buf(buf, len) == 0 &&
        sock_fast_open(fd, sa, sa_len, flags, &from, 1, &r))
        return r;
    if (likely(!call_begin(&c, fd, "sendto", CALL_CONN)))
        return real_ready()->sendto(fd, buf, len, flags, sa, sa_len);
    return send_buffer(&c, buf, len, flags); /* a connected stream ignores the address */
}

static ssize_t write_vector(struct call *c, const struct iovec *iov, int n, int flags)
{
    if (n < 0 || n > IOV_MAX)
        return call_end(c, -EINVAL);
    int64_t r = sock_check_iov(iov, (size_t)n, false);
    if (r > 0) /* an empty vector asks nobody, unlike send() of nothing */
        r = sock_send(c, (const struct slice *)iov, (unsigned)n, flags);
    else if (r == SOCK_FAULT)
        r = sock_fault_send(c, flags);
    return call_end(c, r);
}

SHIM_EXPORT ssize_t writev(int fd, const struct iovec *iov, int n)
{
    struct call c;
    if (likely(!call_begin(&c, fd, "writev", CALL_CONN)))
        return real_ready()->writev(fd, iov, n);
    return write_vector(&c, iov, n, 0);
}

/* As preadv2(): offset -1 means writev(). */
SHIM_EXPORT ssize_t pwritev2(int fd, const struct iovec *iov, int n, off_t offset, int flags)
{
    struct call c;
    if (unlikely(offset == -1 && call_begin(&c, fd, "pwritev2", CALL_CONN)))
        return write_vector(&c, iov, n, (flags & RWF_NOWAIT) != 0 ? MSG_DONTWAIT : 0);
    if (real_ready()->pwritev2 == NULL)
        return call_result(-ENOSYS);
    return real.pwritev2(fd, iov, n, offset, flags);
}
extern __typeof(pwritev2) pwritev64v2 __attribute__((alias("pwritev2"), visibility("default")));
