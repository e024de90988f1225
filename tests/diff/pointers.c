/*
 * Addresses that cannot be: in the first page, beyond what a process has, in the kernel's half.
 * Linux says EFAULT, though for most calls only when it comes to the bytes.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <unistd.h>

#include "tests/diff/diff.h"

static void *nowhere(struct world *w)
{
    static volatile uintptr_t at[] = {0,          8, 0xfff0, 0x7fffffffff00, 0xffff888000000000,
                                      UINTPTR_MAX};
    return (void *)at[pick(w, sizeof(at) / sizeof(at[0]))];
}

/* Bytes in and out. Where the first part of a vector is right, Linux may get as far as its end
 * before it finds out. */
static void op_wrong_buffer(struct world *w)
{
    const unsigned slot = pick_slot(w, SLOT_SOCKET, true);
    const int fd = fd_of(w, slot);
    void *p = nowhere(w);
    char room[4] = "abc";
    struct iovec iov[] = {{room, 0}, {p, once_in(w, 4) ? 0 : 5}};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
    const unsigned what = pick(w, 9);
    if (w->urgent && what < 4) /* a call that comes to no bytes may all the same pass the mark */
        return;
    const int flags = PICK(w, MSG_DONTWAIT, MSG_DONTWAIT, MSG_DONTWAIT | MSG_PEEK,
                           MSG_DONTWAIT | MSG_TRUNC, MSG_DONTWAIT | MSG_WAITALL);
    long r;
    say("%s at %p: ", slot_name(slot), p);
    if (what >= 6)
        iov[0].iov_len = 3;
    switch (what) {
    case 0:
        say("recv(5, flags %#x)", flags);
        r = recv(fd, p, 5, flags);
        break;
    case 1:
        say("preadv2(%zu + %zu)", iov[0].iov_len, iov[1].iov_len);
        r = preadv2(fd, iov, 2, -1, RWF_NOWAIT);
        break;
    case 2:
        say("recvmsg(%zu + %zu, flags %#x)", iov[0].iov_len, iov[1].iov_len, flags);
        r = recvmsg(fd, &msg, flags);
        break;
    case 3:
        say("recvmsg(all of it)");
        r = recvmsg(fd, p, MSG_DONTWAIT);
        break;
    case 4:
        say("send(5)");
        r = send(fd, p, 5, MSG_DONTWAIT | MSG_NOSIGNAL);
        break;
    case 5:
        say("write(0)");
        r = write(fd, p, 0);
        break;
    case 6:
        say("writev(%zu + %zu)", iov[0].iov_len, iov[1].iov_len);
        r = writev(fd, iov, 2);
        break;
    case 7:
        say("sendmsg(%zu + %zu)", iov[0].iov_len, iov[1].iov_len);
        r = sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
        break;
    default:
        say("sendmsg(all of it)");
        r = sendmsg(fd, p, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    const int err = errno;
    if (r > 0)
        say(" %.3s", room);
    say_result(r, err);
    settle(w);
}

static void op_wrong_name(struct world *w)
{
    const unsigned slot = pick_slot(w, SLOT_SOCKET, true);
    const int fd = fd_of(w, slot);
    void *p = nowhere(w);
    struct sockaddr_storage room;
    socklen_t len = (socklen_t)PICK(w, 0, 16, 28);
    int r, value = 1;
    say("%s at %p: ", slot_name(slot), p);
    switch (pick(w, 8)) {
    case 0:
        if (len == 0) /* EINVAL, or the answer to an earlier connect() */
            len = 16;
        say("connect");
        r = connect(fd, p, len);
        break;
    case 1:
        say("bind(%u)", len);
        r = bind(fd, p, len);
        break;
    case 2:
        say("getsockname(%u)", len);
        r = getsockname(fd, p, &len);
        break;
    case 3:
        say("getsockname(length)");
        r = getsockname(fd, (struct sockaddr *)&room, p);
        break;
    case 4:
        say("getpeername(%u)", len);
        r = getpeername(fd, p, &len);
        break;
    case 5:
        say("setsockopt");
        r = setsockopt(fd, IPPROTO_TCP, PICK(w, 1, 3, 4), p, sizeof(value));
        break;
    case 6:
        say("getsockopt");
        r = getsockopt(fd, SOL_SOCKET, PICK(w, SO_KEEPALIVE, SO_RCVLOWAT), p, &len);
        break;
    default:
        say("getsockopt(length)");
        r = getsockopt(fd, SOL_SOCKET, PICK(w, SO_KEEPALIVE, SO_RCVLOWAT), &value, p);
    }
    say_result(r, errno);
    settle(w);
}

/* The connection that cannot be told of is lost. */
static void op_wrong_accept(struct world *w)
{
    const int slot = pick_state(w, 10 /* LISTEN */);
    struct sockaddr_storage room;
    socklen_t len = sizeof(room);
    if (slot < 0)
        return;
    void *p = nowhere(w);
    const bool at_len = once_in(w, 2);
    if (p == NULL && !at_len)
        return;
    say("%s accept4(%s at %p)", slot_name((unsigned)slot), at_len ? "length" : "name", p);
    const int r = at_len ? accept4(w->slot[slot].fd, (struct sockaddr *)&room, p, SOCK_NONBLOCK)
                         : accept4(w->slot[slot].fd, p, &len, SOCK_NONBLOCK);
    say_result(r, errno);
    settle(w);
}

static void op_wrong_set(struct world *w)
{
    const unsigned slot = pick_slot(w, SLOT_SOCKET, true), set = pick_slot(w, SLOT_SET, true);
    const int fd = fd_of(w, slot);
    void *p = nowhere(w);
    struct timeval none = {0, 0};
    int r;
    say("%s %s at %p: ", slot_name(slot), slot_name(set), p);
    switch (pick(w, 6)) {
    case 0:
        say("poll");
        r = poll(p, 2, 0);
        break;
    case 1:
        say("select");
        r = p != NULL ? select(10, NULL, p, NULL, &none) : 0;
        break;
    case 2:
        say("epoll_ctl");
        r = epoll_ctl(fd_of(w, set), PICK(w, EPOLL_CTL_ADD, EPOLL_CTL_MOD), fd, p);
        break;
    case 3:
        say("FIONREAD");
        r = ioctl(fd, FIONREAD, p);
        break;
    case 4:
        say("FIONBIO");
        r = ioctl(fd, FIONBIO, p);
        break;
    default:
        say("recvmmsg");
        r = recvmmsg(fd, p, 2, MSG_DONTWAIT, NULL);
    }
    say_result(r, errno);
}

const struct operation pointer_operations[] = {
    {3, op_wrong_buffer}, {2, op_wrong_name}, {1, op_wrong_accept}, {1, op_wrong_set}, {0, NULL},
};
