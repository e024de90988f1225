/* What the hooks of several files do with a user socket. All entered; results: counts or -errno. */
#pragma once

#include <fcntl.h>
#include <sys/uio.h>

#include "shim/libc/call.h"
#include "shim/libc/user.h"

_Static_assert(sizeof(struct slice) == sizeof(struct iovec) &&
                   offsetof(struct slice, base) == offsetof(struct iovec, iov_base) &&
                   offsetof(struct slice, len) == offsetof(struct iovec, iov_len),
               "struct slice is laid out as struct iovec");

/* As the kernel cuts every transfer (MAX_RW_COUNT). */
#define TRANSFER_MAX ((size_t)0x7ffff000)

/* Result of the checks below: -EFAULT, but only when there are bytes to copy (sock_fault_*()). */
#define SOCK_FAULT (INT64_MIN + 1)

/*
 * A program's buffer: 0, or SOCK_FAULT where it cannot be; -EFAULT for what Linux refuses before it
 * looks at the socket (access_ok()).
 */
static inline int64_t sock_check_buf(const void *buf, size_t len)
{
    if (likely(user_valid(buf, 1)))
        return 0;
    if ((uintptr_t)buf >= USER_HIGH)
        return -EFAULT;
    return len != 0 ? SOCK_FAULT : 0;
}
/*
 * The same of a vector, and -EINVAL for lengths beyond SSIZE_MAX. Otherwise the sum. untouched:
 * nothing will be copied (MSG_TRUNC).
 */
int64_t sock_check_iov(const struct iovec *iov, size_t n, bool untouched);
/* The result of a transfer whose buffer is wrong: what else is in its way comes first. */
int64_t sock_fault_recv(struct call *c, int flags);
int64_t sock_fault_send(struct call *c, int flags);
/* recv(2) and send(2) with their flags, blocking as the socket and MSG_DONTWAIT say. n <= IOV_MAX.
 */
int64_t sock_recv(struct call *c, const struct slice *to, unsigned n, int flags);
/* MSG_ERRQUEUE; msg may be NULL: the report goes unread. */
int64_t sock_recv_errqueue(struct call *c, struct msghdr *msg);
int64_t sock_send(struct call *c, const struct slice *from, unsigned n, int flags);
/* connect(2): may give CALL_PASS after it decided for the kernel. */
int64_t sock_connect(struct call *c, const struct sockaddr *sa, socklen_t len);
/* With data that may go in the SYN (MSG_FASTOPEN). Returns the bytes taken, which may be none. */
int64_t sock_connect_with(struct call *c, const struct sockaddr *sa, socklen_t len,
                          const struct slice *from, unsigned n, bool nonblock);
/* The first data of a socket whose connect() was put off (tcp_deferred()). */
int64_t sock_send_deferred(struct call *c, const struct slice *from, unsigned n, bool nonblock);
/*
 * MSG_FASTOPEN (RFC 7413, tcp(7)): connect and send in one call. With a cookie of the peer the data
 * goes with the SYN; without, the SYN asks for one, and the data follows the handshake. False: not
 * asked for, or the kernel's. Else *result is the bytes sent or -1.
 */
bool sock_fast_open(int fd, const struct sockaddr *sa, socklen_t sa_len, int flags,
                    const struct slice *from, unsigned n, int64_t *result);
/*
 * The socket's connection is about to be forgotten. As in Linux its port is free then, unless
 * bind() had asked for just that one; getsockname() goes on telling it.
 */
void sock_disconnects(struct usock *us);
/* The call took the connection's owner away and ended it: tells the peer, then who waits. */
void sock_ended(struct call *c);
/* The backing socket of an unconnected socket guards no port, if it did: it listens no more. */
void sock_unguard(struct call *c);
/* The listener listens no more: an unconnected socket that is still bound. */
void sock_unlisten(struct call *c);
/*
 * For a TCP descriptor that has no user socket: the errno with which connect() or listen() must
 * fail because the engine could not start and TCPSHIM_FALLBACK does not allow the kernel. 0: go on.
 */
int sock_refused(int fd, const struct sockaddr *sa, socklen_t len);
/* A descriptor that the kernel has just made is from now on a duplicate of us. Entered. */
int sock_add_fd(struct call *c, int fd);
/* Whether the backing descriptor's O_NONBLOCK is ours (it listens): F_SETFL must keep it. */
static inline bool sock_keeps_nonblock(const struct usock *us)
{
    return us->kernel_listen;
}
/* Not entered. Descriptor fd is about to be closed or replaced in this process. 0, or -EBADF:
 * internal, leave it alone. */
int sock_forget_fd(int fd, const char *name, bool linger);
