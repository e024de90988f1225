/* Sockets come, connect, are duplicated and go. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "tests/diff/diff.h"

#define TCP_LISTEN_STATE 10    /* of tcpi_state */
#define BRIEF_USEC       20000 /* the longest that a blocking call may block */

/* New sockets: Nagle's waits are not promised, blocking calls end by themselves. */
static void tame(int fd)
{
    const int on = 1;
    const struct timeval brief = {.tv_usec = BRIEF_USEC};
    setsockopt(fd, IPPROTO_TCP, 1 /* TCP_NODELAY */, &on, sizeof(on));
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &brief, sizeof(brief));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &brief, sizeof(brief));
}

static unsigned new_socket(struct world *w, int type)
{
    const unsigned slot = slot_for_new(w, SLOT_SOCKET);
    const bool v6 = once_in(w, 5);
    const int fd = socket(v6 ? AF_INET6 : AF_INET, type, 0);
    const int err = errno;
    slot_open(w, slot, fd);
    if (fd >= 0)
        tame(fd);
    w->slot[slot].v6 = v6;
    say("socket(%s%s%s) as %s", v6 ? "IPv6 " : "",
        (type & SOCK_NONBLOCK) != 0 ? "NONBLOCK" : "blocking",
        (type & SOCK_CLOEXEC) != 0 ? " CLOEXEC" : "", slot_name(slot));
    say_result(fd, err);
    return slot;
}

static void op_socket(struct world *w)
{
    new_socket(w, SOCK_STREAM | PICK(w, SOCK_NONBLOCK, SOCK_NONBLOCK, 0, SOCK_CLOEXEC));
}

static void op_socket_wrong(struct world *w)
{
    static const int wrong[][3] = {
        {AF_INET, SOCK_STREAM, IPPROTO_UDP},
        {AF_INET, SOCK_STREAM | 0x100, 0},
        {AF_INET, 77, 0},
        {77, SOCK_STREAM, 0},
        {AF_INET, SOCK_SEQPACKET, 0},
        {AF_INET, SOCK_STREAM, 300},
    };
    const int *a = wrong[pick(w, sizeof(wrong) / sizeof(wrong[0]))];
    say("socket(%d, %d, %d)", a[0], a[1], a[2]);
    const int fd = socket(a[0], a[1], a[2]);
    const int err = errno;
    say_result(fd, err);
    if (fd >= 0)
        close(fd);
}

static int say_bind(struct world *w, unsigned slot, const struct sockaddr_in *sa, socklen_t len)
{
    const int fd = fd_of(w, slot);
    say("bind(%s, ", slot_name(slot));
    say_address(w, -1, sa, len);
    say(")");
    struct sockaddr_storage room;
    len = address_for(w, slot, sa, len, &room);
    const int r = bind(fd, (const struct sockaddr *)&room, len);
    say_result(r, errno);
    if (r == 0 && w->nports < PORTS)
        w->ports[w->nports++] = port_of(fd);
    return r;
}

/*
 * A port that some socket is or was bound to. Not one that was chosen for a connection: the shim's
 * guard of such a port, which may stay for a while, lets a local client wait where Linux refuses
 * it.
 */
static uint16_t any_port(struct world *w)
{
    return w->nports != 0 ? w->ports[pick(w, w->nports)] : 0;
}

/* A port that bind() may ask for: not one that was chosen for a connection, which only Linux gives
 * back at once (the shim holds some in stock). */
static uint16_t bindable_port(struct world *w)
{
    const int listener = pick_state(w, TCP_LISTEN_STATE);
    const unsigned slot = listener >= 0 ? (unsigned)listener : pick_slot(w, SLOT_SOCKET, true);
    return w->slot[slot].fd < 0 || w->slot[slot].used ? 0 : port_of(w->slot[slot].fd);
}

static void op_bind(struct world *w)
{
    const unsigned slot = pick_slot(w, SLOT_SOCKET, !once_in(w, 20));
    struct sockaddr_in sa = address(w, once_in(w, 2) ? 0 : bindable_port(w));
    socklen_t len = sizeof(sa);
    switch (pick(w, 12)) {
    case 0:
        sa.sin_addr.s_addr = htonl(0xc0000201); /* 192.0.2.1: no address of this host */
        break;
    case 1:
        len = (socklen_t)PICK(w, 0, 1, 2, 8, 15, 128);
        break;
    case 2:
        sa.sin_family = (sa_family_t)PICK(w, AF_UNSPEC, AF_INET6, AF_UNIX);
        break;
    case 3:
        sa.sin_addr.s_addr = htonl(INADDR_ANY);
        break;
    default:
        break;
    }
    say_bind(w, slot, &sa, len);
}

static void say_listen(struct world *w, unsigned slot, int backlog)
{
    say("listen(%s, %d)", slot_name(slot), backlog);
    const int r = listen(fd_of(w, slot), backlog);
    say_result(r, errno);
    settle(w);
}

static void op_listen(struct world *w)
{
    const unsigned slot = pick_slot(w, SLOT_SOCKET, !once_in(w, 20));
    const int backlog = PICK(w, -1, 0, 1, 2, 8);
    struct pollfd p = {.fd = w->slot[slot].fd};
    /* Linux's accepted sockets are then born half shut; and a listener with an error of a former
     * connection tells it to write(), the shim to getsockopt(SO_ERROR) alone. */
    if (!w->slot[slot].shut && (poll(&p, 1, 0) < 1 || (p.revents & POLLERR) == 0))
        say_listen(w, slot, backlog);
}

void life_listener(struct world *w)
{
    const unsigned slot = new_socket(w, SOCK_STREAM | SOCK_NONBLOCK);
    if (w->slot[slot].fd < 0)
        return;
    const struct sockaddr_in sa = address(w, 0);
    say_bind(w, slot, &sa, sizeof(sa));
    say_listen(w, slot, PICK(w, 0, 1, 4, 8, 8));
}

static void mark_used(struct world *w, unsigned slot)
{
    for (unsigned i = 0; i < SLOTS; i++)
        w->slot[i].used |= w->slot[i].file == w->slot[slot].file;
}

/* Nobody may listen there: the shim leaves such a connection to the kernel, and its place in sets.
 */
static void set_apart(struct world *w, unsigned slot)
{
    for (unsigned i = 0; i < SLOTS; i++) {
        if (w->slot[i].file == w->slot[slot].file)
            w->slot[i].apart = true;
        if (kind_of(i) == SLOT_SET)
            w->slot[i].mixed = true;
    }
}

static void say_connect(struct world *w, unsigned slot, const struct sockaddr_in *sa, socklen_t len,
                        bool served)
{
    const int fd = fd_of(w, slot);
    /* One that the kernel has for good would come into the kernel's accept queue, not the engine's:
     * which of two queues accept() takes from is not promised. */
    if (served && w->slot[slot].apart)
        return;
    say("connect(%s, ", slot_name(slot));
    say_address(w, -1, sa, len);
    say(")");
    struct sockaddr_storage room;
    len = address_for(w, slot, sa, len, &room);
    const int r = connect(fd, (const struct sockaddr *)&room, len);
    say_result(r, errno);
    mark_used(w, slot);
    if (!served)
        set_apart(w, slot);
    settle(w);
}

static void op_connect(struct world *w)
{
    const unsigned slot = pick_slot(w, SLOT_SOCKET, !once_in(w, 20));
    const int listener = pick_state(w, TCP_LISTEN_STATE);
    struct sockaddr_in sa = address(w, 0);
    if (listener >= 0)
        sa.sin_port = htons(port_of(w->slot[listener].fd));
    if (sa.sin_port == 0)
        return;
    say_connect(w, slot, &sa, sizeof(sa), true);
    if (once_in(w, 3))
        say_connect(w, slot, &sa, sizeof(sa), true);
}

/* Names that do not name a listener. */
static void op_connect_wrong(struct world *w)
{
    const unsigned slot = pick_slot(w, SLOT_SOCKET, !once_in(w, 20));
    struct sockaddr_in sa = address(w, any_port(w));
    socklen_t len = sizeof(sa);
    bool valid = false;
    switch (pick(w, 6)) {
    case 0:
        len = (socklen_t)PICK(w, 0, 1, 2, 8, 15);
        break;
    case 1:
        sa.sin_family = (sa_family_t)PICK(w, AF_INET6, AF_UNIX, 99);
        break;
    case 2:
    case 3:
        sa.sin_family = AF_UNSPEC;
        break;
    default:
        if (sa.sin_port == 0)
            return;
        valid = true;
        break;
    }
    say_connect(w, slot, &sa, len, !valid);
}

static unsigned say_accept(struct world *w, unsigned listener)
{
    const int fd = fd_of(w, listener);
    const unsigned slot = slot_for_new(w, SLOT_SOCKET);
    const int flags = PICK(w, SOCK_NONBLOCK, SOCK_NONBLOCK, SOCK_NONBLOCK | SOCK_CLOEXEC, 0, 0x7);
    struct sockaddr_storage sa = {0};
    socklen_t len = address_size(w, listener);
    const bool named = once_in(w, 2), plain = flags == 0;
    if (named && once_in(w, 8))
        len = (socklen_t)PICK(w, 0, 2, 8, -1);
    const socklen_t room = len;
    struct sockaddr *to = named ? (struct sockaddr *)&sa : NULL;
    socklen_t *to_len = named ? &len : NULL;
    say("accept(%s, flags %#x) as %s", slot_name(listener), flags, slot_name(slot));
    const int r = plain ? accept(fd, to, to_len) : accept4(fd, to, to_len, flags);
    const int err = errno;
    const bool v6 = w->slot[listener].v6;
    slot_open(w, slot, r);
    w->slot[slot].v6 = v6;
    if (r >= 0 && named) {
        say(" ");
        say_address(w, (int)slot, &sa, room < len ? room : len);
        say(" %u", len);
    }
    w->slot[slot].used = r >= 0;
    w->slot[slot].apart = r >= 0 && w->slot[listener].apart;
    say_result(r, err);
    settle(w);
    return slot;
}

static void op_accept(struct world *w)
{
    const int listener = pick_state(w, TCP_LISTEN_STATE);
    say_accept(w, listener >= 0 && !once_in(w, 10) ? (unsigned)listener
                                                   : pick_slot(w, SLOT_SOCKET, true));
}

void life_pair(struct world *w)
{
    int listener = pick_state(w, TCP_LISTEN_STATE);
    if (listener < 0) {
        life_listener(w);
        listener = pick_state(w, TCP_LISTEN_STATE);
    }
    if (listener < 0)
        return;
    const struct sockaddr_in sa = address(w, port_of(w->slot[listener].fd));
    const unsigned slot = new_socket(w, SOCK_STREAM | SOCK_NONBLOCK);
    if (slot == (unsigned)listener) /* it had to make room */
        return;
    say_connect(w, slot, &sa, sizeof(sa), true);
    if (w->sleepers) /* they were woken, and look before the connection is taken */
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    if (!once_in(w, 5) && w->slot[listener].fd >= 0)
        say_accept(w, (unsigned)listener);
}

static void op_shutdown(struct world *w)
{
    const unsigned slot = pick_slot(w, SLOT_SOCKET, !once_in(w, 30));
    const int how = PICK(w, SHUT_RD, SHUT_WR, SHUT_WR, SHUT_RDWR, 3, -1);
    say("shutdown(%s, %d)", slot_name(slot), how);
    const int r = shutdown(fd_of(w, slot), how);
    const int err = errno;
    for (unsigned i = 0; i < SLOTS && r < 0 && err == ENOTCONN; i++)
        w->slot[i].shut |= w->slot[i].file == w->slot[slot].file;
    say_result(r, err);
    mark_used(w, slot); /* also when it was a listener, or nothing yet */
    settle(w);
}

static void op_close(struct world *w)
{
    const unsigned slot = once_in(w, 12) ? pick(w, SLOTS) : pick_slot(w, SLOT_SOCKET, true);
    if (w->slot[slot].fd < 0) { /* closed twice */
        const int fd = fd_of(w, slot);
        if (fd < 0)
            return;
        say("close(%s again)", slot_name(slot));
        const int r = close(fd);
        say_result(r, errno);
        return;
    }
    slot_close(w, slot);
    settle(w);
}

static void copy_marks(struct world *w, unsigned to, unsigned from)
{
    w->slot[to].v6 = w->slot[from].v6;
    w->slot[to].used = w->slot[from].used;
    w->slot[to].shut = w->slot[from].shut;
    w->slot[to].file = w->slot[from].file;
    w->slot[to].mixed = w->slot[from].mixed;
    w->slot[to].apart = w->slot[from].apart;
}

static void op_dup(struct world *w)
{
    const enum slot_kind kind = once_in(w, 6) ? SLOT_SET : SLOT_SOCKET;
    const unsigned from = pick_slot(w, kind, !once_in(w, 30));
    const unsigned to = slot_for_new(w, kind);
    if (to == from)
        return;
    const int fd = fd_of(w, from);
    int r;
    switch (pick(w, 3)) {
    case 0:
        say("dup(%s)", slot_name(from));
        r = dup(fd);
        break;
    case 1:
        say("F_DUPFD(%s, 30)", slot_name(from));
        r = fcntl(fd, F_DUPFD, 30);
        break;
    default:
        say("F_DUPFD_CLOEXEC(%s)", slot_name(from));
        r = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    }
    const int err = errno;
    slot_open(w, to, r);
    if (r >= 0)
        copy_marks(w, to, from);
    say(" as %s", slot_name(to));
    say_result(r, err);
}

/* Onto a number that is in use: what was there is closed. */
static void op_dup2(struct world *w)
{
    const enum slot_kind kind = once_in(w, 8) ? SLOT_SET : SLOT_SOCKET;
    const unsigned from = pick_slot(w, kind, !once_in(w, 20));
    const unsigned to = pick_slot(w, kind, true);
    const int target = fd_of(w, to);
    if (target < 0 || (to != from && w->slot[to].fd < 0))
        return;
    const int flags = PICK(w, -1, -1, 0, O_CLOEXEC, 1);
    say("dup%s(%s, %s)",
        flags < 0    ? "2"
        : flags == 0 ? "3"
                     : "3 flags",
        slot_name(from), slot_name(to));
    const int r = flags < 0 ? dup2(fd_of(w, from), target) : dup3(fd_of(w, from), target, flags);
    const int err = errno;
    if (r >= 0 && from != to) {
        w->slot[to].seen[0] = '\0';
        copy_marks(w, to, from);
    }
    say_result(r, err);
    settle(w);
}

static void say_name(struct world *w, unsigned slot, bool peer)
{
    struct sockaddr_storage sa = {0};
    socklen_t room = address_size(w, slot);
    if (once_in(w, 6))
        room = (socklen_t)PICK(w, 0, 2, 8, 100, -1);
    socklen_t len = room;
    say("%s(%s, %d)", peer ? "getpeername" : "getsockname", slot_name(slot), (int)room);
    const int r = (peer ? getpeername : getsockname)(fd_of(w, slot), (struct sockaddr *)&sa, &len);
    const int err = errno;
    if (r == 0) {
        say(" ");
        say_address(w, (int)slot, &sa, room < len ? room : len);
        say(" %u", len);
    }
    say_result(r, err);
}

static void op_name(struct world *w)
{
    const unsigned slot = pick_slot(w, SLOT_SOCKET, !once_in(w, 30));
    say_name(w, slot, once_in(w, 2));
}

/* Socket calls on what is no socket. */
static void op_not_socket(struct world *w)
{
    const unsigned slot =
        once_in(w, 2) ? pick_slot(w, SLOT_PIPE, true) : pick_slot(w, SLOT_SET, true);
    const int fd = once_in(w, 5) ? -1 : once_in(w, 5) ? 9999 : fd_of(w, slot);
    char byte = 0;
    int r;
    say("%s: ", fd == -1 ? "-1" : fd == 9999 ? "9999" : slot_name(slot));
    switch (pick(w, 7)) {
    case 0:
        say("listen");
        r = listen(fd, 1);
        break;
    case 1:
        say("accept");
        r = accept(fd, NULL, NULL);
        break;
    case 2:
        say("shutdown");
        r = shutdown(fd, SHUT_WR);
        break;
    case 3:
        say("send");
        r = (int)send(fd, &byte, 1, MSG_DONTWAIT);
        break;
    case 4:
        say("recv");
        r = (int)recv(fd, &byte, 1, MSG_DONTWAIT);
        break;
    case 5:
        say("getsockname");
        r = getsockname(fd, NULL, NULL);
        break;
    default: {
        const struct sockaddr_in sa = address(w, 9);
        say("connect");
        r = connect(fd, (const struct sockaddr *)&sa, sizeof(sa));
    }
    }
    say_result(r, errno);
}

void life_shutdown(struct world *w)
{
    op_shutdown(w);
}

const struct operation life_operations[] = {
    {4, op_socket},    {1, op_socket_wrong},  {4, op_bind},   {3, op_listen},
    {6, op_connect},   {3, op_connect_wrong}, {6, op_accept}, {8, life_pair},
    {10, op_shutdown}, {9, op_close},         {3, op_dup},    {2, op_dup2},
    {3, op_name},      {1, op_not_socket},    {0, NULL},
};
