/* recvmsg() with MSG_ERRQUEUE, and SO_TIMESTAMPING which fills that queue. */
#define _GNU_SOURCE
#include <time.h> /* before linux/errqueue.h, which wants it */

#include <errno.h>
#include <linux/errqueue.h>
#include <linux/net_tstamp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include "shim/core/clock.h"
#include "shim/core/raw.h"
#include "shim/libc/backing.h"
#include "shim/libc/cmsg.h"
#include "shim/libc/sock.h"
#include "shim/libc/sockopt.h"

/* SOF_TIMESTAMPING_OPT_ID_TCP of linux/net_tstamp.h, which Debian 12's lacks. */
enum { STAMPING_OPT_ID_TCP = 1 << 16 };

/* In tcp_stamping(): it was set by its newer name, which its messages have, too. */
#define STAMPING_NEW 0x80000000u

/* A time of the engine's clock on the calendar's. */
static struct timespec calendar(nsec_t at)
{
    const nsec_t then = at + (nsec_t)clock_to_calendar();
    return (struct timespec){.tv_sec = (time_t)(then / NSEC_PER_SEC),
                             .tv_nsec = (long)(then % NSEC_PER_SEC)};
}

/* A sock_extended_err, and the offender's address, who is nobody. */
static void put_error(const struct call *c, struct msghdr *msg, size_t room,
                      const struct sock_extended_err *ee)
{
    char data[sizeof(*ee) + sizeof(struct sockaddr_in6)] = {0};
    memcpy(data, ee, sizeof(*ee));
    if (c->us->family == AF_INET6)
        cmsg_put(msg, room, SOL_IPV6, IPV6_RECVERR, data, sizeof(data));
    else
        cmsg_put(msg, room, SOL_IP, IP_RECVERR, data, sizeof(*ee) + sizeof(struct sockaddr_in));
}

static void put_stamp(const struct call *c, struct msghdr *msg, size_t room,
                      const struct tcp_report *r)
{
    static const uint32_t info[] = {
        [TCP_REPORT_SCHED] = SCM_TSTAMP_SCHED,
        [TCP_REPORT_SENT] = SCM_TSTAMP_SND,
        [TCP_REPORT_ACKED] = SCM_TSTAMP_ACK,
    };
    const uint32_t stamping = tcp_stamping(c->us->conn);
    if ((stamping & SOF_TIMESTAMPING_SOFTWARE) != 0) {
        const struct timespec stamps[3] = {calendar(r->at)};
        const int type = (stamping & STAMPING_NEW) != 0 ? OPT_TIMESTAMPING_NEW : SO_TIMESTAMPING;
        cmsg_put(msg, room, SOL_SOCKET, type, stamps, sizeof(stamps));
    }
    const bool numbered = (stamping & SOF_TIMESTAMPING_OPT_ID) != 0;
    put_error(c, msg, room,
              &(struct sock_extended_err){.ee_errno = ENOMSG,
                                          .ee_origin = SO_EE_ORIGIN_TIMESTAMPING,
                                          .ee_info = info[r->kind],
                                          .ee_data = numbered ? r->first : 0});
    /* Linux would give a copy of the packet, too */
    if ((stamping & SOF_TIMESTAMPING_OPT_TSONLY) == 0)
        msg->msg_flags |= MSG_TRUNC;
}

int64_t sock_recv_errqueue(struct call *c, struct msghdr *msg)
{
    struct tcp_report r;
    if (!tcp_take_report(&c->cx, c->us->conn, &r))
        return -EAGAIN;
    if (msg == NULL)
        return 0;
    msg->msg_flags = MSG_ERRQUEUE;
    msg->msg_namelen = 0;
    const size_t room = cmsg_begin(msg);
    if (r.kind == TCP_REPORT_ZEROCOPY)
        put_error(c, msg, room,
                  &(struct sock_extended_err){.ee_origin = SO_EE_ORIGIN_ZEROCOPY,
                                              .ee_code = SO_EE_CODE_ZEROCOPY_COPIED,
                                              .ee_info = r.first,
                                              .ee_data = r.last});
    else
        put_stamp(c, msg, room, &r);
    return 0;
}

/*
 * The kernel judges all but what depends on the connection (Linux's sock_set_timestamping()): its
 * socket is not connected and would refuse to count bytes.
 */
static int set_timestamping(struct call *c, const void *val, socklen_t len, int name)
{
    const uint32_t counts = SOF_TIMESTAMPING_OPT_ID | STAMPING_OPT_ID_TCP;
    uint32_t flags[2] = {0}; /* and bind_phc */
    memcpy(flags, val, len < sizeof(flags) ? sizeof(flags[0]) : sizeof(flags));
    const uint32_t wanted = flags[0];
    flags[0] &= ~counts;
    int r = backing_own(c->us, c->fd);
    if (r == 0)
        r = raw_setsockopt(c->fd, SOL_SOCKET, name, flags, len);
    if (r < 0)
        return r;
    if ((wanted & counts) == STAMPING_OPT_ID_TCP)
        return -EINVAL;
    struct tcp_conn *conn = c->us->conn;
    const bool closed = conn == NULL || tcp_state(conn) == TCP_CLOSED;
    const bool numbers = (wanted & SOF_TIMESTAMPING_OPT_ID) != 0;
    if (numbers && closed)
        return -EINVAL;
    if (c->us->kind == USOCK_LISTENER)
        return 0;
    conn = usock_conn(&c->cx, c->us);
    if (conn == NULL)
        return -ENOBUFS;
    const bool anew = numbers && (tcp_stamping(conn) & SOF_TIMESTAMPING_OPT_ID) == 0;
    const uint32_t kinds =
        ((wanted & SOF_TIMESTAMPING_TX_SCHED) != 0 ? 1u << TCP_REPORT_SCHED : 0) |
        ((wanted & SOF_TIMESTAMPING_TX_SOFTWARE) != 0 ? 1u << TCP_REPORT_SENT : 0) |
        ((wanted & SOF_TIMESTAMPING_TX_ACK) != 0 ? 1u << TCP_REPORT_ACKED : 0);
    return tcp_set_stamps(&c->cx, conn, (uint8_t)kinds,
                          wanted | (name == OPT_TIMESTAMPING_NEW ? STAMPING_NEW : 0),
                          !anew                                 ? TCP_STAMP_BASE_KEPT
                          : (wanted & STAMPING_OPT_ID_TCP) != 0 ? TCP_STAMP_BASE_UNWRITTEN
                                                                : TCP_STAMP_BASE_UNACKED);
}

int option_set_timestamping(struct call *c, const void *val, socklen_t len)
{
    return set_timestamping(c, val, len, SO_TIMESTAMPING);
}

int option_set_timestamping_new(struct call *c, const void *val, socklen_t len)
{
    return set_timestamping(c, val, len, OPT_TIMESTAMPING_NEW);
}

int64_t option_get_timestamping(struct call *c, void *val, socklen_t *len)
{
    if (c->us->kind != USOCK_CONN)
        return CALL_PASS;
    const uint32_t flags[2] = {tcp_stamping(c->us->conn) & ~STAMPING_NEW};
    return option_give(val, len, flags, sizeof(flags));
}
