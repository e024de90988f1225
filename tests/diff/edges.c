/*
 * Short scenes that a random walk would seldom meet: the same call twice, the ends of ranges, one
 * socket under several numbers, a message that nobody reads.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "tests/diff/diff.h"

#define HIGH_FDS   100  /* out of the way of the numbers that scripts compare */
#define LISTENING  10   /* tcpi_state */
#define GONE_MS    5000 /* for the end of a connection whose last descriptor was in a message */
#define HELD_BYTES 10

static void say_poll(const char *what, int fd)
{
    struct pollfd p = {.fd = fd,
                       .events = POLLIN | POLLPRI | POLLOUT | POLLRDHUP | POLLRDBAND | POLLWRBAND};
    const int r = poll(&p, 1, 0);
    say("  %s ", what);
    say_events((uint16_t)p.revents);
    say_result(r, errno);
}

/* A socket of an established connection and its other end, both in slots. */
static bool pick_pair(struct world *w, unsigned *slot, unsigned *peer)
{
    const int a = pick_state(w, TCP_ESTABLISHED);
    const int b = a >= 0 ? peer_slot(w, (unsigned)a) : -1;
    if (b < 0 || tcp_state_of(w->slot[b].fd) != TCP_ESTABLISHED)
        return false;
    *slot = (unsigned)a;
    *peer = (unsigned)b;
    return true;
}

static bool unread(int fd)
{
    int n = 0;
    return ioctl(fd, FIONREAD, &n) < 0 || n != 0;
}

/* An error is told once, by whoever asks first. */
static void op_error_twice(struct world *w)
{
    const unsigned slot = pick_slot(w, SLOT_SOCKET, true);
    const int fd = fd_of(w, slot);
    for (unsigned i = 0; i < 2; i++) {
        int value = -1;
        socklen_t len = sizeof(value);
        const int r = getsockopt(fd, SOL_SOCKET, SO_ERROR, &value, &len);
        const int err = errno;
        say("%s SO_ERROR %s", slot_name(slot), value > 0 ? error_name(value) : "0");
        say_result(r, err);
        say_poll("poll", fd);
    }
}

/* O_NONBLOCK belongs to the open file: set by one number, seen by all, also by one in a set. */
static void op_flags_of_twins(struct world *w)
{
    const unsigned slot = pick_slot(w, SLOT_SOCKET, true);
    const int fd = fd_of(w, slot), twin = fcntl(fd, F_DUPFD_CLOEXEC, HIGH_FDS);
    if (twin < 0)
        return;
    const int before = fcntl(fd, F_GETFL);
    say("%s and a twin", slot_name(slot));
    for (unsigned i = 0; i < 4; i++) {
        int on = once_in(w, 2);
        const int by = once_in(w, 2) ? fd : twin;
        if (once_in(w, 2))
            ioctl(by, FIONBIO, &on);
        else
            fcntl(by, F_SETFL, on ? O_RDWR | O_NONBLOCK : O_RDWR);
        say(" %d:%#x,%#x", on, (unsigned)fcntl(fd, F_GETFL) & O_NONBLOCK,
            (unsigned)fcntl(twin, F_GETFL) & O_NONBLOCK);
    }
    fcntl(twin, F_SETFL, before);
    say(" cloexec %d,%d", fcntl(fd, F_GETFD), fcntl(twin, F_GETFD));
    const int r = close(twin);
    say_result(r, errno);
}

/* What accept4() makes of its flags. */
static void op_accept_flags(struct world *w)
{
    const int listener = pick_state(w, LISTENING);
    if (listener < 0)
        return;
    const int flags = PICK(w, 0, SOCK_NONBLOCK, SOCK_CLOEXEC, SOCK_NONBLOCK | SOCK_CLOEXEC);
    const unsigned slot = slot_for_new(w, SLOT_SOCKET);
    const int r = accept4(w->slot[listener].fd, NULL, NULL, flags | SOCK_NONBLOCK);
    const int err = errno;
    const bool v6 = w->slot[listener].v6;
    slot_open(w, slot, r);
    w->slot[slot].v6 = v6;
    w->slot[slot].used = r >= 0;
    w->slot[slot].apart = r >= 0 && w->slot[listener].apart;
    say("accept4(%s, %#x) as %s", slot_name((unsigned)listener), (unsigned)flags, slot_name(slot));
    if (r >= 0)
        say(" F_GETFL %#x F_GETFD %d", (unsigned)fcntl(r, F_GETFL) & ~0100000u, fcntl(r, F_GETFD));
    say_result(r, err);
    settle(w);
}

/* ---- ends of ranges ---- */

static void op_vectors(struct world *w)
{
    static uint8_t bytes[IOV_MAX];
    static struct iovec iov[IOV_MAX + 1];
    unsigned slot, peer;
    if (w->urgent || !pick_pair(w, &slot, &peer) || unread(w->slot[peer].fd))
        return;
    const int n = PICK(w, 0, 1, IOV_MAX, IOV_MAX, IOV_MAX + 1);
    const size_t each = once_in(w, 4) ? 0 : 1;
    for (int i = 0; i < n; i++) {
        bytes[i % IOV_MAX] = (uint8_t)i;
        iov[i] = (struct iovec){bytes + i % IOV_MAX, each};
    }
    say("%s writev(%d of %zu)", slot_name(slot), n, each);
    long r = writev(w->slot[slot].fd, iov, n);
    say_result(r, errno);
    settle(w);
    memset(bytes, 0, sizeof(bytes));
    const int how = PICK(w, 0, 1, 2);
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = (size_t)n};
    say("  %s %s(%d)", slot_name(peer), how == 0 ? "preadv2" : "recvmsg", n);
    r = how == 0   ? preadv2(w->slot[peer].fd, iov, n, -1, RWF_NOWAIT)
        : how == 1 ? recvmsg(w->slot[peer].fd, &msg, MSG_DONTWAIT)
                   : recvmsg(w->slot[peer].fd, &msg, MSG_DONTWAIT | MSG_WAITALL);
    const int err = errno;
    say(" last %u", r > 0 ? bytes[(size_t)r % sizeof(bytes) - (r % IOV_MAX != 0)] : 0);
    say_result(r, err);
    settle(w);
}

static void op_sendfile_edges(struct world *w)
{
    const unsigned slot = pick_slot(w, SLOT_SOCKET, true);
    const int fd = fd_of(w, slot);
    off_t offset = PICK(w, 0, 5, 10, 11, 1000, -1);
    const size_t count = (size_t)PICK(w, 0, 1, 10, 100000);
    const unsigned how = pick(w, 5);
    if (how == 2 && w->urgent) /* see op_splice() */
        return;
    const int file = memfd_create("diff", MFD_CLOEXEC);
    int ends[2] = {-1, -1};
    long r = -1;
    if (file < 0 || write(file, "0123456789", 10) != 10 || pipe2(ends, O_NONBLOCK) < 0)
        return;
    lseek(file, offset >= 0 ? offset : 0, SEEK_SET);
    switch (how) {
    case 0:
        say("%s sendfile(%zu at %ld)", slot_name(slot), count, (long)offset);
        r = sendfile(fd, file, &offset, count);
        break;
    case 1:
        say("%s sendfile(%zu from its place)", slot_name(slot), count);
        r = sendfile(fd, file, NULL, count);
        break;
    case 2:
        say("%s sendfile from it(%zu)", slot_name(slot), count);
        r = sendfile(ends[1], fd, NULL, count);
        break;
    case 3:
        offset = 0;
        say("%s splice at an offset(%zu)", slot_name(slot), count);
        r = splice(ends[0], NULL, fd, &offset, count, SPLICE_F_NONBLOCK);
        break;
    default:
        say("%s splice with a file(%zu)", slot_name(slot), count);
        r = splice(file, NULL, fd, NULL, count, SPLICE_F_NONBLOCK);
    }
    const int err = errno;
    say(" offset %ld place %ld", (long)offset, (long)lseek(file, 0, SEEK_CUR));
    say_result(r, err);
    close(file);
    close(ends[0]);
    close(ends[1]);
    settle(w);
}

/* No time at all, next to none, and times that are none. */
static void op_tiny_timeouts(struct world *w)
{
    static const struct timespec spans[] = {{0, 0},          {0, 1},  {0, 999}, {0, 1000001},
                                            {0, 1000000000}, {0, -1}, {-1, 0}};
    const unsigned which = pick(w, sizeof(spans) / sizeof(spans[0]));
    const struct timespec *ts = &spans[which];
    const unsigned slot = pick_slot(w, SLOT_SOCKET, true), set = pick_slot(w, SLOT_SET, true);
    const int fd = w->slot[slot].fd;
    struct pollfd p = {.fd = fd, .events = (short)PICK(w, POLLIN, POLLPRI, POLLOUT)};
    struct timeval tv = {ts->tv_sec, ts->tv_nsec / 1000 % 1000000};
    struct epoll_event events[16];
    fd_set reading;
    int r;
    if (fd < 0)
        return;
    FD_ZERO(&reading);
    FD_SET(fd, &reading);
    say("%s in %ld.%09ld: ", slot_name(slot), (long)ts->tv_sec, ts->tv_nsec);
    switch (pick(w, 4)) {
    case 0:
        say("ppoll ");
        r = ppoll(&p, 1, ts, NULL);
        say_events(r >= 0 ? (uint16_t)p.revents : 0);
        break;
    case 1:
        say("pselect");
        r = pselect(fd + 1, &reading, NULL, NULL, ts, NULL);
        break;
    case 2:
        say("select");
        r = select(fd + 1, &reading, NULL, NULL, &tv);
        break;
    default:
        if (w->slot[set].mixed)
            ts = &spans[0];
        say("epoll_pwait2(%s)", slot_name(set));
        r = epoll_pwait2(fd_of(w, set), events, 16, ts, NULL);
    }
    say_result(r, errno);
}

/* ---- receiving ---- */

/* SO_RCVLOWAT: readable when so much is there, or the end is; recv() waits as long. */
static void op_low_water(struct world *w)
{
    unsigned slot, peer;
    if (w->urgent || !pick_pair(w, &slot, &peer) || unread(w->slot[slot].fd))
        return;
    const int fd = w->slot[slot].fd, set = epoll_create1(EPOLL_CLOEXEC);
    const int low = HELD_BYTES, one = 1;
    struct epoll_event event = {.events = EPOLLIN | (once_in(w, 2) ? (uint32_t)EPOLLET : 0)};
    uint8_t bytes[HELD_BYTES + 5] = {0};
    say("%s SO_RCVLOWAT %d", slot_name(slot), low);
    int r = setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &low, sizeof(low));
    say_result(r, errno);
    epoll_ctl(set, EPOLL_CTL_ADD, fd, &event);
    for (unsigned sent = 0; sent < sizeof(bytes); sent += 5) {
        say_poll("poll", fd);
        say("  epoll_wait");
        r = epoll_wait(set, &event, 1, 0);
        say_result(r, errno);
        if (send(w->slot[peer].fd, bytes, 5, MSG_NOSIGNAL) != 5)
            say("  not sent\n");
        settle(w);
        say("  peek");
        const long n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT | MSG_PEEK);
        say_result(n, errno);
    }
    say("  epoll_wait");
    r = epoll_wait(set, &event, 1, 0);
    say_result(r, errno);
    say("  recv");
    const long n = recv(fd, bytes, sizeof(bytes), 0);
    say_result(n, errno);
    setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &one, sizeof(one));
    close(set);
    settle(w);
}

/* Text, an urgent byte, text: the mark in every way of reading, in line or not. */
static void op_mark(struct world *w)
{
    unsigned slot, peer;
    if (!pick_pair(w, &slot, &peer) || unread(w->slot[slot].fd))
        return;
    const int fd = w->slot[slot].fd, to = w->slot[peer].fd, in_line = once_in(w, 2);
    char bytes[8];
    w->urgent = true;
    setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &in_line, sizeof(in_line));
    say("%s mark%s", slot_name(slot), in_line ? " in line" : "");
    const long sent = send(to, "abc", (size_t)PICK(w, 0, 3), MSG_NOSIGNAL) +
                      send(to, "de!", (size_t)PICK(w, 1, 3), MSG_NOSIGNAL | MSG_OOB) +
                      send(to, "fgh", (size_t)PICK(w, 0, 3), MSG_NOSIGNAL);
    say_result(sent, errno);
    settle(w);
    for (unsigned i = 0; i < 6; i++) {
        const int flags =
            PICK(w, 0, 0, 0, MSG_OOB, MSG_OOB | MSG_PEEK, MSG_PEEK, MSG_WAITALL, MSG_TRUNC);
        const size_t len = (size_t)PICK(w, 1, 2, 8);
        int mark = -1;
        ioctl(fd, SIOCATMARK, &mark);
        say_poll("poll", fd);
        memset(bytes, 0, sizeof(bytes));
        say("  mark %d recv(%zu, flags %#x)", mark, len, (unsigned)flags);
        const long r = recv(fd, bytes, len, flags | MSG_DONTWAIT);
        const int err = errno;
        if (r > 0)
            say(" %.*s", (int)r, bytes);
        say_result(r, err);
    }
    settle(w);
}

/* ---- sets ---- */

/* The number goes, the open file stays: the member lives on, and cannot be named any more. */
static void op_member_outlives_number(struct world *w)
{
    const unsigned slot = pick_slot(w, SLOT_SOCKET, true);
    if (w->slot[slot].fd < 0 || w->slot[slot].apart)
        return;
    const int set = epoll_create1(EPOLL_CLOEXEC), outer = epoll_create1(EPOLL_CLOEXEC);
    const int number = fcntl(w->slot[slot].fd, F_DUPFD_CLOEXEC, HIGH_FDS);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.u64 = 1};
    say("%s in a set by another number", slot_name(slot));
    int r = epoll_ctl(set, EPOLL_CTL_ADD, number, &event);
    say_result(r, errno);
    event.data.u64 = 2;
    epoll_ctl(outer, EPOLL_CTL_ADD, set, &event);
    close(number);
    say_poll("poll of the set", set);
    for (unsigned i = 0; i < 3; i++) {
        event = (struct epoll_event){.events = EPOLLIN, .data.u64 = 3};
        say("  epoll_wait");
        r = epoll_wait(i == 1 ? outer : set, &event, 1, 0);
        const int err = errno;
        if (r > 0) {
            say(" #%u:", (unsigned)event.data.u64);
            say_events(event.events);
        }
        say_result(r, err);
        say("  epoll_ctl");
        r = i == 0   ? epoll_ctl(set, EPOLL_CTL_MOD, number, &event)
            : i == 1 ? epoll_ctl(set, EPOLL_CTL_DEL, w->slot[slot].fd, NULL)
                     : epoll_ctl(set, EPOLL_CTL_ADD, w->slot[slot].fd, &event);
        say_result(r, errno);
    }
    say("  epoll_wait");
    struct epoll_event both[4];
    r = epoll_wait(set, both, 4, 0);
    say_result(r, errno);
    close(set);
    close(outer);
}

/* ---- groups ---- */

/* Several listeners on one port: who gets a connection is not promised, that one does is. */
static void op_group(struct world *w)
{
    int listeners[3], clients[4], accepted = 0;
    const unsigned n = 2 + pick(w, 2), late = pick(w, 4);
    struct sockaddr_in sa = address(w, 0);
    say("group of %u", n);
    for (unsigned i = 0; i < n; i++) {
        const int on = i != late;
        listeners[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        setsockopt(listeners[i], SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
        int r = bind(listeners[i], (struct sockaddr *)&sa, sizeof(sa));
        say(" bind %s", r < 0 ? error_name(errno) : "0");
        r = r < 0 ? r : listen(listeners[i], 8);
        say(" listen %s,", r < 0 ? error_name(errno) : "0");
        if (i == 0)
            sa.sin_port = htons(port_of(listeners[0]));
    }
    for (unsigned i = 0; i < 4; i++) {
        clients[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        const int r = connect(clients[i], (struct sockaddr *)&sa, sizeof(sa));
        say(" connect %s", r < 0 ? error_name(errno) : "0");
        settle(w);
    }
    for (unsigned i = 0; i < n; i++) {
        int fd;
        while ((fd = accept4(listeners[i], NULL, NULL, SOCK_NONBLOCK)) >= 0) {
            accepted++;
            close(fd);
        }
    }
    settle(w);
    for (unsigned i = 0; i < 4; i++) {
        struct pollfd p = {.fd = clients[i], .events = POLLIN | POLLRDHUP};
        poll(&p, 1, 0);
        say(" ");
        say_events((uint16_t)p.revents);
        close(clients[i]);
    }
    for (unsigned i = 0; i < n; i++)
        close(listeners[i]);
    say_result(accepted, 0);
    settle(w);
}

/* ---- messages ---- */

static long pass(int by, int fd)
{
    char byte = 'x', control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec iov = {&byte, 1};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control,
                         .msg_controllen = sizeof(control)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &fd, sizeof(fd));
    return sendmsg(by, &msg, 0);
}

/* The descriptor in the next message; -1: none. room: for it. */
static int fetch(int from, bool room, int flags)
{
    char byte, control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec iov = {&byte, 1};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    int fd = -1;
    if (room) {
        msg.msg_control = control;
        msg.msg_controllen = sizeof(control);
    }
    const long n = recvmsg(from, &msg, flags);
    const struct cmsghdr *c = n > 0 && room ? CMSG_FIRSTHDR(&msg) : NULL;
    if (c != NULL && c->cmsg_type == SCM_RIGHTS)
        memcpy(&fd, CMSG_DATA(c), sizeof(fd));
    say(" recvmsg %ld flags %#x", n, (unsigned)msg.msg_flags);
    return fd;
}

/* One end of a connection goes through a unix socket, and comes out; or its message is lost. */
static void op_pass(struct world *w)
{
    unsigned slot, peer;
    int ends[2], fd;
    enum {
        COMES_OUT,
        PEEKED,
        NO_ROOM,
        UNREAD
    } fate = once_in(w, 12) ? NO_ROOM + pick(w, 2) : pick(w, 2);
    if (w->urgent || !pick_pair(w, &slot, &peer) || unread(w->slot[slot].fd) ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        return;
    say("%s in a message", slot_name(slot));
    const long r = pass(ends[0], w->slot[slot].fd);
    say_result(r, errno);
    unsigned twins = 0;
    for (unsigned i = 0; i < SLOTS; i++)
        twins += i != slot && w->slot[i].fd >= 0 && w->slot[i].file == w->slot[slot].file;
    if (fate >= NO_ROOM && twins != 0)
        fate = COMES_OUT;
    const bool last = fate >= NO_ROOM || !once_in(w, 3);
    if (last)
        slot_close(w, slot);
    settle(w);
    if (fate == PEEKED) {
        say("  peek");
        fd = fetch(ends[1], true, MSG_PEEK);
        say_result(fd < 0 ? -1 : close(fd), errno);
    }
    if (fate == NO_ROOM) {
        say("  no room");
        say_result(fetch(ends[1], false, 0), 0);
    } else if (fate != UNREAD) {
        say("  out");
        fd = fetch(ends[1], true, MSG_CMSG_CLOEXEC);
        const long sent = send(fd, "hello", 5, MSG_NOSIGNAL | MSG_DONTWAIT);
        say_result(sent, errno);
        if (last) /* the slot may have been opened again: nothing else was called meanwhile */
            slot_open(w, slot, fd);
        else
            close(fd);
    }
    close(ends[0]);
    close(ends[1]);
    const struct timespec step = {.tv_nsec = 1000000};
    for (unsigned i = 0; fate >= NO_ROOM && i < GONE_MS; i++) { /* Linux: at once; the shim looks */
        if (tcp_state_of(w->slot[peer].fd) != TCP_ESTABLISHED)
            break;
        nanosleep(&step, NULL);
    }
    settle(w);
}

const struct operation edge_operations[] = {
    {2, op_error_twice}, {1, op_flags_of_twins}, {1, op_accept_flags},
    {1, op_vectors},     {2, op_sendfile_edges}, {2, op_tiny_timeouts},
    {1, op_low_water},   {1, op_mark},           {1, op_member_outlives_number},
    {1, op_group},       {1, op_pass},           {0, NULL},
};
