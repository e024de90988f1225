/* recvmsg(), sendmsg() and their plural forms. A TCP socket has no names, and control messages only
 * where TCP_INQ asks for them; other sockets may carry user sockets.
 */
#define _GNU_SOURCE
#include <limits.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include "shim/core/raw.h"
#include "shim/libc/cmsg.h"
#include "shim/libc/real.h"
#include "shim/libc/rights.h"
#include "shim/libc/sock.h"

static int64_t check_msg(const struct msghdr *msg, bool untouched)
{
    if (!user_valid(msg, sizeof(*msg)))
        return -EFAULT;
    if (msg->msg_iovlen > IOV_MAX)
        return -EMSGSIZE;
    return sock_check_iov(msg->msg_iov, msg->msg_iovlen, untouched);
}

/* TCP_INQ: how much is left to read; 1 more after a FIN. */
static void tell_inq(const struct tcp_conn *conn, struct msghdr *msg, size_t room)
{
    const int left = (int)tcp_unread(conn) + tcp_reading_shut(conn);
    cmsg_put(msg, room, IPPROTO_TCP, TCP_CM_INQ, &left, sizeof(left));
}

SHIM_EXPORT ssize_t recvmsg(int fd, struct msghdr *msg, int flags)
{
    struct call c;
    if (likely(!call_begin(&c, fd, "recvmsg", CALL_CONN | CALL_READS))) {
        const ssize_t n = real_ready()->recvmsg(fd, msg, flags);
        if (n >= 0 && rights_possible(msg))
            rights_received(fd, msg, flags);
        return n;
    }
    int64_t r = check_msg(msg, (flags & (MSG_TRUNC | MSG_ERRQUEUE)) != 0);
    if (unlikely((flags & MSG_ERRQUEUE) != 0))
        return call_end(&c, r < 0 ? r : sock_recv_errqueue(&c, msg));
    if (r >= 0)
        r = sock_recv(&c, (const struct slice *)msg->msg_iov, (unsigned)msg->msg_iovlen, flags);
    else if (r == SOCK_FAULT)
        r = sock_fault_recv(&c, flags);
    if (r >= 0) {
        msg->msg_flags = (flags & MSG_OOB) != 0 && r > 0 ? MSG_OOB : 0;
        msg->msg_namelen = 0;
        const size_t room = cmsg_begin(msg);
        if (unlikely(tcp_opts(c.us->conn)->inq))
            tell_inq(c.us->conn, msg, room);
    }
    return call_end(&c, r);
}

SHIM_EXPORT ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
    struct call c;
    if (unlikely((flags & MSG_FASTOPEN) != 0 && fd_usock(fd) != NULL &&
                 user_valid(msg, sizeof(*msg))) &&
        msg->msg_name != NULL && msg->msg_iovlen > 0) {
        int64_t r = check_msg(msg, false);
        if (r < 0)
            return call_result(r == SOCK_FAULT ? -EFAULT : r);
        if (sock_fast_open(fd, msg->msg_name, msg->msg_namelen, flags,
                           (const struct slice *)msg->msg_iov, (unsigned)msg->msg_iovlen, &r))
            return r;
    }
    if (likely(!call_begin(&c, fd, "sendmsg", CALL_CONN))) {
        if (likely(!rights_possible(msg)))
            return real_ready()->sendmsg(fd, msg, flags);
        rights_send(fd, msg);
        const ssize_t n = real_ready()->sendmsg(fd, msg, flags);
        if (n < 0)
            rights_unsend(msg);
        return n;
    }
    int64_t r = check_msg(msg, false);
    if (r >= 0)
        r = sock_send(&c, (const struct slice *)msg->msg_iov, (unsigned)msg->msg_iovlen, flags);
    else if (r == SOCK_FAULT)
        r = sock_fault_send(&c, flags);
    return call_end(&c, r);
}

/* Whether the time of a recvmmsg() is over: Linux looks only between messages. */
static bool over(const struct timespec *end)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec > end->tv_sec || (now.tv_sec == end->tv_sec && now.tv_nsec >= end->tv_nsec);
}

/* Linux's recvmmsg() reports a pending error before it reads what came in before the error. */
static int take_error(int fd)
{
    struct call c;
    if (!call_begin(&c, fd, "recvmmsg", CALL_CONN | CALL_READS))
        return 0;
    const int err = tcp_take_error(c.us->conn);
    call_end(&c, 0);
    return err;
}

SHIM_EXPORT int recvmmsg(int fd, struct mmsghdr *msgs, unsigned n, int flags,
                         struct timespec *timeout)
{
    if (likely(fd_usock(fd) == NULL)) {
        const int got = real_ready()->recvmmsg(fd, msgs, n, flags, timeout);
        for (int i = 0; i < got; i++)
            if (rights_possible(&msgs[i].msg_hdr))
                rights_received(fd, &msgs[i].msg_hdr, flags);
        return got;
    }
    struct timespec end = {0};
    if (timeout != NULL && !user_valid(timeout, sizeof(*timeout)))
        return (int)call_result(-EFAULT);
    if (timeout != NULL) {
        clock_gettime(CLOCK_MONOTONIC, &end);
        end.tv_sec += timeout->tv_sec;
        end.tv_nsec += timeout->tv_nsec;
        if (end.tv_nsec >= 1000000000) {
            end.tv_sec++;
            end.tv_nsec -= 1000000000;
        }
    }
    const int pending = take_error(fd);
    if (pending != 0)
        return (int)call_result(-pending);
    unsigned done = 0;
    while (done < n) {
        const ssize_t r = recvmsg(fd, &msgs[done].msg_hdr, flags & ~MSG_WAITFORONE);
        if (r < 0)
            return done > 0 ? (int)done : -1;
        msgs[done++].msg_len = (unsigned)r;
        if ((flags & MSG_WAITFORONE) != 0)
            flags |= MSG_DONTWAIT;
        if ((timeout != NULL && over(&end)) || (msgs[done - 1].msg_hdr.msg_flags & MSG_OOB) != 0)
            break;
    }
    return (int)done;
}

/* Not a user socket; what it carries may be. */
static int send_messages(int fd, struct mmsghdr *msgs, unsigned n, int flags)
{
    for (unsigned i = 0; i < n; i++)
        if (rights_possible(&msgs[i].msg_hdr))
            rights_send(fd, &msgs[i].msg_hdr);
    const int sent = real_ready()->sendmmsg(fd, msgs, n, flags);
    const int saved = errno;
    for (unsigned i = sent > 0 ? (unsigned)sent : 0; i < n; i++)
        if (rights_possible(&msgs[i].msg_hdr))
            rights_unsend(&msgs[i].msg_hdr);
    errno = saved;
    return sent;
}

SHIM_EXPORT int sendmmsg(int fd, struct mmsghdr *msgs, unsigned n, int flags)
{
    if (likely(fd_usock(fd) == NULL))
        return send_messages(fd, msgs, n, flags);
    unsigned done = 0;
    while (done < n && done < IOV_MAX) {
        const ssize_t r = sendmsg(fd, &msgs[done].msg_hdr, flags);
        if (r < 0)
            return done > 0 ? (int)done : -1;
        msgs[done++].msg_len = (unsigned)r;
    }
    return (int)done;
}
