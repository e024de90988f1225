/* Socket options and descriptor flags: set, read back, on sockets of the script and on fresh ones.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/time.h>
#include <unistd.h>

#include "tests/diff/diff.h"

#define VALUES 5

enum {
    LIVE = 1,   /* may be set on a socket of the script: does not change when things happen */
    VARIES = 2, /* what a connection reports is not promised: read on fresh sockets only */
};

struct option {
    int level, name;
    const char *label;
    unsigned flags;
    int values[VALUES];
};

#define OPTION(level, name, flags, ...)                                                            \
    {                                                                                              \
        level, name, #name, flags,                                                                 \
        {                                                                                          \
            __VA_ARGS__                                                                            \
        }                                                                                          \
    }

static const struct option options[] = {
    OPTION(IPPROTO_TCP, TCP_NODELAY, LIVE, 1, 0, 1, 5, -1),
    OPTION(IPPROTO_TCP, TCP_CORK, 0, 1, 0, 1, 2, -1),
    OPTION(IPPROTO_TCP, TCP_MAXSEG, VARIES, 1000, 536, 87, 40000, 0),
    OPTION(IPPROTO_TCP, TCP_KEEPIDLE, LIVE, 1, 7200, 0, 32768, -1),
    OPTION(IPPROTO_TCP, TCP_KEEPINTVL, LIVE, 1, 75, 0, 32767, -1),
    OPTION(IPPROTO_TCP, TCP_KEEPCNT, LIVE, 1, 9, 0, 128, -1),
    OPTION(IPPROTO_TCP, TCP_SYNCNT, LIVE, 6, 1, 127, 128, 0),
    OPTION(IPPROTO_TCP, TCP_LINGER2, LIVE, 10, 60, 0, 1000, 1),
    OPTION(IPPROTO_TCP, TCP_DEFER_ACCEPT, 0, 1, 0, 5, 100, -1),
    OPTION(IPPROTO_TCP, TCP_WINDOW_CLAMP, VARIES, 1, 0, 65536, 1000, 100000),
    OPTION(IPPROTO_TCP, TCP_QUICKACK, VARIES, 1, 0, 1, 0, 1),
    OPTION(IPPROTO_TCP, TCP_USER_TIMEOUT, LIVE, 0, 30000, 60000, -1, 99999),
    OPTION(IPPROTO_TCP, TCP_NOTSENT_LOWAT, 0, 0, 100000, 1, 16384, -1),
    OPTION(IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 0, 0, 0, 0, 2, -1),
    OPTION(IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS, LIVE, 0, 1, 2, -1, 0),
    OPTION(IPPROTO_TCP, 9999, LIVE, 0, 1, 2, 3, 4),
    OPTION(SOL_SOCKET, SO_REUSEADDR, LIVE, 1, 0, 1, 7, -1),
    OPTION(SOL_SOCKET, SO_REUSEPORT, LIVE, 1, 0, 1, 7, -1),
    OPTION(SOL_SOCKET, SO_KEEPALIVE, LIVE, 1, 0, 1, 7, -1),
    OPTION(SOL_SOCKET, SO_OOBINLINE, LIVE, 1, 0, 1, 0, 1),
    OPTION(SOL_SOCKET, SO_BROADCAST, LIVE, 1, 0, 1, 0, 2),
    OPTION(SOL_SOCKET, SO_DONTROUTE, 0, 1, 0, 1, 0, 2),
    OPTION(SOL_SOCKET, SO_SNDBUF, VARIES, 4096, 100000, 0, 1, -1),
    OPTION(SOL_SOCKET, SO_RCVBUF, VARIES, 4096, 100000, 0, 1, -1),
    OPTION(SOL_SOCKET, SO_RCVLOWAT, LIVE, 1, 2, 10, 0, 500),
    OPTION(SOL_SOCKET, SO_SNDLOWAT, LIVE, 1, 2, 10, 0, 500),
    OPTION(SOL_SOCKET, SO_PRIORITY, LIVE, 0, 3, 6, 7, 1),
    OPTION(SOL_SOCKET, SO_PEEK_OFF, LIVE, -1, 0, 5, -1, 0),
    OPTION(SOL_SOCKET, SO_TYPE, LIVE, 1, 1, 2, 3, 0),
    OPTION(SOL_SOCKET, SO_PROTOCOL, LIVE, 1, 1, 2, 3, 0),
    OPTION(SOL_SOCKET, SO_DOMAIN, LIVE, 1, 1, 2, 3, 0),
    OPTION(SOL_SOCKET, SO_ACCEPTCONN, LIVE, 1, 1, 2, 3, 0),
    OPTION(SOL_SOCKET, SO_ERROR, LIVE, 1, 1, 2, 3, 0),
    OPTION(SOL_SOCKET, SO_MARK, LIVE, 1, 0, 2, 3, 0),
    OPTION(SOL_SOCKET, 9998, LIVE, 0, 1, 2, 3, 4),
    OPTION(IPPROTO_IP, IP_TOS, LIVE, 0, 0x10, 0xff, 3, 0x20),
    OPTION(IPPROTO_IP, IP_TTL, LIVE, 64, 1, 255, 256, -1),
    OPTION(IPPROTO_IP, IP_MTU_DISCOVER, 0, 0, 1, 2, 3, 9),
    OPTION(IPPROTO_IP, IP_MTU, VARIES, 0, 1, 2, 3, 9),
    OPTION(IPPROTO_IP, IP_FREEBIND, LIVE, 0, 1, 0, 1, 0),
    OPTION(IPPROTO_IP, IP_RECVERR, 0, 0, 1, 0, 1, 0),
    OPTION(IPPROTO_UDP, 1, LIVE, 0, 1, 0, 1, 0),
};
#define OPTIONS (sizeof(options) / sizeof(options[0]))

static void say_get(int fd, const struct option *o, socklen_t len)
{
    uint8_t value[128];
    memset(value, 0xaa, sizeof(value));
    say("  get %s [%d]", o->label, (int)len);
    const int r = getsockopt(fd, o->level, o->name, value, &len);
    const int err = errno;
    if (r == 0) {
        say(" [%u]", len);
        for (unsigned i = 0; i < len && i < 16; i++)
            say(" %02x", value[i]);
    }
    say_result(r, err);
}

static socklen_t some_len(struct world *w)
{
    return once_in(w, 4) ? (socklen_t)PICK(w, 0, 1, 2, 3, 8, 100, -1) : sizeof(int);
}

static void say_set(struct world *w, int fd, const struct option *o)
{
    int value[4] = {o->values[pick(w, VALUES)], 0, 0, 0};
    const socklen_t len = once_in(w, 6) ? (socklen_t)PICK(w, 0, 1, 2, 3, 8, -1) : sizeof(int);
    say("  set %s %d [%d]", o->label, value[0], (int)len);
    const int r = setsockopt(fd, o->level, o->name, value, len);
    say_result(r, errno);
}

static void op_option(struct world *w)
{
    const struct option *o = &options[pick(w, OPTIONS)];
    const unsigned slot = pick_slot(w, SLOT_SOCKET, !once_in(w, 30));
    const int fd = fd_of(w, slot);
    say("%s option\n", slot_name(slot));
    if ((o->flags & LIVE) != 0 && !once_in(w, 3))
        say_set(w, fd, o);
    settle(w);
    if ((o->flags & VARIES) == 0)
        say_get(fd, o, some_len(w));
}

/* On a socket of its own, where values may be extreme. */
static void op_option_fresh(struct world *w)
{
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    say("fresh socket\n");
    for (unsigned n = 1 + pick(w, 4); n > 0; n--) {
        const struct option *o = &options[pick(w, OPTIONS)];
        say_set(w, fd, o);
        say_get(fd, o, some_len(w));
    }
    close(fd);
}

static void say_linger(int fd, socklen_t len)
{
    struct linger linger = {-1, -1};
    say("  get SO_LINGER [%d]", (int)len);
    const int r = getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &len);
    const int err = errno;
    say(" [%d] {%d, %d}", (int)len, linger.l_onoff, linger.l_linger);
    say_result(r, err);
}

static void op_linger(struct world *w)
{
    const unsigned slot = pick_slot(w, SLOT_SOCKET, !once_in(w, 30));
    const int fd = fd_of(w, slot);
    const struct linger linger = {PICK(w, 1, 1, 0, 2), PICK(w, 0, 0, 0, 1)};
    const socklen_t len = once_in(w, 8) ? (socklen_t)PICK(w, 0, 4, 100, -1) : sizeof(linger);
    say("%s set SO_LINGER {%d, %d} [%d]", slot_name(slot), linger.l_onoff, linger.l_linger,
        (int)len);
    char room[100] = {0};
    memcpy(room, &linger, sizeof(linger));
    const int r = setsockopt(fd, SOL_SOCKET, SO_LINGER, room, len);
    say_result(r, errno);
    say_linger(fd, once_in(w, 6) ? 4 : sizeof(linger));
}

/* Time-outs: on a fresh socket, that no call may wait long. */
static void op_timeout(struct world *w)
{
    static const struct timeval times[] = {{0, 0}, {1, 500000}, {0, 1000000}, {-1, 0}, {3, 0}};
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    const int name = PICK(w, SO_RCVTIMEO, SO_SNDTIMEO);
    struct timeval tv = times[pick(w, 5)];
    socklen_t len = once_in(w, 6) ? 4 : sizeof(tv);
    say("fresh set %d {%ld, %ld} [%u]", name, (long)tv.tv_sec, (long)tv.tv_usec, len);
    int r = setsockopt(fd, SOL_SOCKET, name, &tv, len);
    say_result(r, errno);
    len = sizeof(tv);
    r = getsockopt(fd, SOL_SOCKET, name, &tv, &len);
    const int err = errno;
    say("  get {%ld, %ld} [%u]", (long)tv.tv_sec, (long)tv.tv_usec, len);
    say_result(r, err);
    close(fd);
}

static void op_congestion(struct world *w)
{
    static const char *const names[] = {"reno", "cubic", "nosuch", "", "a-name-that-is-too-long"};
    const char *name = names[pick(w, 5)];
    const unsigned slot = pick_slot(w, SLOT_SOCKET, !once_in(w, 30));
    const int fd = fd_of(w, slot);
    say("%s set TCP_CONGESTION %s", slot_name(slot), name);
    int r = setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, (socklen_t)strlen(name));
    say_result(r, errno);
    if (r < 0)
        return; /* the default is the system's */
    char now[40] = {0};
    socklen_t len = (socklen_t)PICK(w, 16, 16, 4, 40);
    r = getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, now, &len);
    const int err = errno;
    say("  get TCP_CONGESTION [%u] %s", len, r == 0 ? now : "");
    say_result(r, err);
}

static void op_flags(struct world *w)
{
    const unsigned slot = pick_slot(w, SLOT_SOCKET, !once_in(w, 30));
    const int fd = fd_of(w, slot);
    int r, on;
    switch (pick(w, 6)) {
    case 0:
        say("%s F_GETFD", slot_name(slot));
        r = fcntl(fd, F_GETFD);
        break;
    case 1:
        say("%s F_SETFD", slot_name(slot));
        r = fcntl(fd, F_SETFD, PICK(w, 0, FD_CLOEXEC));
        break;
    case 2:
        on = PICK(w, 0, 1);
        say("%s FIONBIO %d", slot_name(slot), on);
        r = ioctl(fd, FIONBIO, &on);
        break;
    case 3:
        on = PICK(w, O_RDWR, O_RDWR | O_NONBLOCK, O_NONBLOCK, O_NONBLOCK | O_APPEND);
        say("%s F_SETFL %#x", slot_name(slot), (unsigned)on);
        r = fcntl(fd, F_SETFL, on);
        break;
    case 4:
        say("%s ioctl(bad)", slot_name(slot));
        r = ioctl(fd, 0xdead, &on);
        break;
    default:
        say("%s isfdtype", slot_name(slot));
        r = isfdtype(fd, 0140000);
    }
    say_result(r, errno);
    say("  F_GETFL");
    r = fcntl(fd, F_GETFL);
    say_result(r < 0 ? r : r & ~0100000 /* O_LARGEFILE */, errno);
}

const struct operation option_operations[] = {
    {5, op_option},     {2, op_option_fresh}, {4, op_linger}, {1, op_timeout},
    {1, op_congestion}, {3, op_flags},        {0, NULL},
};
