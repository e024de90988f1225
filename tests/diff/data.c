/* Bytes: sending and receiving in all ways, queue lengths, buffers filled to the brim. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <unistd.h>

#include "tests/diff/diff.h"

#define BUFFER   65536
#define FILL_MAX (16u << 20)

static uint8_t buffer[BUFFER];

static void fill_pattern(struct world *w, size_t len)
{
    for (size_t i = 0; i < len; i++)
        buffer[i] = w->position++;
}

static uint32_t hash(uint32_t h, const uint8_t *bytes, size_t n) /* FNV-1a */
{
    for (size_t i = 0; i < n; i++)
        h = (h ^ bytes[i]) * 16777619u;
    return h;
}
#define HASH_START 2166136261u

static void say_bytes(long n)
{
    if (n > 0)
        say(" #%08x", hash(HASH_START, buffer, (size_t)n));
}

/* Small enough that no window fills. */
static size_t send_size(struct world *w)
{
    size_t len = (size_t)PICK(w, 0, 1, 1, 2, 5, 10, 100, 100, 1000, 3000);
    if (len > w->budget)
        len = 1;
    w->budget -= len < w->budget ? (unsigned)len : w->budget;
    return len;
}

static long send_flat(struct world *w, int fd, size_t len)
{
    const int flags = PICK(w, 0, MSG_NOSIGNAL, MSG_NOSIGNAL, MSG_DONTWAIT, MSG_EOR, MSG_DONTROUTE,
                           MSG_NOSIGNAL | MSG_OOB);
    const int how = PICK(w, 0, 1, 2, 2, 2);
    if (how == 0) {
        say("write(%zu)", len);
        return write(fd, buffer, len);
    }
    say("%s(%zu, flags %#x)", how == 1 ? "sendto" : "send", len, flags);
    w->urgent |= (flags & MSG_OOB) != 0;
    if (how == 2)
        return send(fd, buffer, len, flags);
    const struct sockaddr_in sa = address(w, 7);
    return sendto(fd, buffer, len, flags, (const struct sockaddr *)&sa, sizeof(sa));
}

static long send_vector(struct world *w, int fd, size_t len)
{
    const size_t a = len / 3, b = len / 2 - a;
    struct iovec iov[] = {
        {buffer, a}, {buffer + a, 0}, {buffer + a, b}, {buffer + a + b, len - a - b}};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 4};
    struct mmsghdr two[] = {{.msg_hdr = msg}, {.msg_hdr = {.msg_iov = iov + 3, .msg_iovlen = 1}}};
    switch (pick(w, 4)) {
    case 0:
        say("writev(%zu)", len);
        return writev(fd, iov, 4);
    case 1:
        say("pwritev2(%zu)", len);
        return pwritev2(fd, iov, 4, -1, 0);
    case 2: {
        say("sendmmsg(%zu)", len);
        const int n = sendmmsg(fd, two, 2, MSG_NOSIGNAL);
        for (int i = 0; i < n; i++)
            say(" %u", two[i].msg_len);
        return n;
    }
    default:
        say("sendmsg(%zu)", len);
        return sendmsg(fd, &msg, once_in(w, 2) ? MSG_NOSIGNAL : 0);
    }
}

static void op_send(struct world *w)
{
    const int open = once_in(w, 4) ? -1 : pick_state(w, TCP_ESTABLISHED);
    const unsigned slot = open >= 0 ? (unsigned)open : pick_slot(w, SLOT_SOCKET, !once_in(w, 30));
    const size_t len = send_size(w);
    fill_pattern(w, len);
    say("%s ", slot_name(slot));
    const int fd = fd_of(w, slot);
    const long r = once_in(w, 4) ? send_vector(w, fd, len) : send_flat(w, fd, len);
    say_result(r, errno);
    settle(w);
}

/* Urgent data often enough to meet its corners. */
static void op_send_urgent(struct world *w)
{
    const int slot = pick_state(w, TCP_ESTABLISHED);
    if (slot < 0)
        return;
    const size_t len = (size_t)PICK(w, 1, 1, 2, 5);
    fill_pattern(w, len);
    say("%s send(%zu, OOB)", slot_name((unsigned)slot), len);
    w->urgent = true;
    const long r = send(w->slot[slot].fd, buffer, len, MSG_OOB | MSG_NOSIGNAL);
    say_result(r, errno);
    settle(w);
}

/* Data held back by TCP_CORK or MSG_MORE, and what lets it go. */
static void op_cork(struct world *w)
{
    const int slot = pick_state(w, TCP_ESTABLISHED);
    if (slot < 0 || w->urgent)
        return;
    const int fd = w->slot[slot].fd;
    const bool cork = once_in(w, 2);
    int on = 1;
    fill_pattern(w, 10);
    if (cork)
        setsockopt(fd, IPPROTO_TCP, TCP_CORK, &on, sizeof(on));
    say("%s %s send(10)", slot_name((unsigned)slot), cork ? "cork" : "more");
    long r = send(fd, buffer, 10, MSG_NOSIGNAL | (cork ? 0 : MSG_MORE));
    say_result(r, errno);
    w->corked = true;
    settle(w);
    observe(w);
    w->corked = false;
    on = 0;
    switch (pick(w, cork ? 3 : 2)) {
    case 0:
        say("%s shutdown(1)", slot_name((unsigned)slot));
        r = shutdown(fd, SHUT_WR);
        break;
    case 1:
        if (cork)
            setsockopt(fd, IPPROTO_TCP, TCP_CORK, &on, sizeof(on));
        say("%s send(1)", slot_name((unsigned)slot));
        r = send(fd, buffer, 1, MSG_NOSIGNAL);
        break;
    default:
        say("%s uncork", slot_name((unsigned)slot));
        r = 0;
    }
    const int err = errno;
    if (cork)
        setsockopt(fd, IPPROTO_TCP, TCP_CORK, &on, sizeof(on));
    say_result(r, err);
    settle(w);
}

/* ---- receiving ---- */

static bool blocks(int fd)
{
    const int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && (flags & O_NONBLOCK) == 0;
}

static long recv_flat(struct world *w, int fd, size_t len)
{
    int flags = PICK(w, 0, 0, 0, MSG_DONTWAIT, MSG_PEEK, MSG_PEEK, MSG_TRUNC, MSG_WAITALL,
                     MSG_WAITALL | MSG_PEEK, MSG_OOB, MSG_OOB | MSG_PEEK, MSG_PEEK | MSG_TRUNC,
                     MSG_ERRQUEUE, MSG_CMSG_CLOEXEC);
    if (blocks(fd) && !once_in(w, 4))
        flags |= MSG_DONTWAIT;
    const int how = PICK(w, 0, 1, 2, 2);
    if (how == 0) {
        say("read(%zu)", len);
        return read(fd, buffer, len);
    }
    say("%s(%zu, flags %#x)", how == 1 ? "recvfrom" : "recv", len, flags);
    memset(buffer, 0, len);
    if (how == 2)
        return recv(fd, buffer, len, flags);
    struct sockaddr_in sa;
    socklen_t sa_len = sizeof(sa);
    const long r = recvfrom(fd, buffer, len, flags, (struct sockaddr *)&sa, &sa_len);
    const int err = errno;
    if (r >= 0)
        say(" from %u", sa_len);
    errno = err;
    return r;
}

static long recv_vector(struct world *w, int fd, size_t len)
{
    struct iovec iov[] = {
        {buffer, len / 2}, {buffer + len / 2, 0}, {buffer + len / 2, len - len / 2}};
    char control[64];
    struct sockaddr_in sa;
    struct msghdr msg = {.msg_iov = iov,
                         .msg_iovlen = 3,
                         .msg_name = &sa,
                         .msg_namelen = sizeof(sa),
                         .msg_control = control,
                         .msg_controllen = sizeof(control)};
    int flags = PICK(w, 0, MSG_PEEK, MSG_WAITALL, MSG_OOB, MSG_TRUNC, MSG_DONTWAIT);
    if (len == 0)
        flags &= ~MSG_OOB; /* Linux takes the byte and says MSG_TRUNC */
    memset(buffer, 0, len);
    switch (pick(w, 4)) {
    case 0:
        say("readv(%zu)", len);
        return readv(fd, iov, 3);
    case 1:
        say("preadv2(%zu)", len);
        return preadv2(fd, iov, 3, -1, 0);
    case 2: {
        struct mmsghdr two[] = {{.msg_hdr = {.msg_iov = iov, .msg_iovlen = 1}},
                                {.msg_hdr = {.msg_iov = iov + 2, .msg_iovlen = 1}}};
        say("recvmmsg(%zu)", len);
        const int n = recvmmsg(fd, two, 2, MSG_DONTWAIT, NULL);
        for (int i = 0; i < n; i++)
            say(" %u", two[i].msg_len);
        return n;
    }
    default: {
        say("recvmsg(%zu, flags %#x)", len, flags);
        const long r = recvmsg(fd, &msg, flags);
        const int err = errno;
        if (r >= 0)
            say(" name %u control %zu flags %#x", msg.msg_namelen, msg.msg_controllen,
                (unsigned)msg.msg_flags);
        errno = err;
        return r;
    }
    }
}

static void op_recv(struct world *w)
{
    const unsigned slot = pick_slot(w, SLOT_SOCKET, !once_in(w, 30));
    const int fd = fd_of(w, slot);
    const size_t len = (size_t)PICK(w, 0, 1, 2, 5, 10, 100, 1000, 5000, 60000, 60000);
    say("%s ", slot_name(slot));
    const long r = once_in(w, 4) ? recv_vector(w, fd, len) : recv_flat(w, fd, len);
    const int err = errno;
    if (r <= (long)len)
        say_bytes(r);
    say_result(r, err);
    settle(w);
}

static void op_drain(struct world *w)
{
    const unsigned slot = pick_slot(w, SLOT_SOCKET, true);
    const int fd = fd_of(w, slot);
    long total = 0, r;
    uint32_t h = HASH_START;
    say("%s drain", slot_name(slot));
    while ((r = recv(fd, buffer, BUFFER, MSG_DONTWAIT)) > 0) {
        total += r;
        h = hash(h, buffer, (size_t)r);
    }
    const int err = errno;
    say(" %ld #%08x", total, h);
    say_result(r, err);
    settle(w);
}

/* Arguments that are wrong in themselves. */
static void op_wrong(struct world *w)
{
    const unsigned slot = pick_slot(w, SLOT_SOCKET, true);
    const int fd = fd_of(w, slot);
    struct iovec iov = {buffer, 4};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 4000};
    volatile int few = -1, many = 2000; /* hidden from the compiler, which would warn */
    long r;
    switch (pick(w, 9)) {
    case 0:
        say("%s readv(-1)", slot_name(slot));
        r = readv(fd, &iov, few);
        break;
    case 1:
        say("%s writev(2000)", slot_name(slot));
        r = writev(fd, &iov, many);
        break;
    case 2:
        say("%s sendmsg(4000 parts)", slot_name(slot));
        r = sendmsg(fd, &msg, MSG_NOSIGNAL);
        break;
    case 3:
        say("%s pread", slot_name(slot));
        r = pread(fd, buffer, 1, 0);
        break;
    case 4:
        say("%s lseek", slot_name(slot));
        r = lseek(fd, 0, SEEK_CUR);
        break;
    case 5:
        say("%s writev(0)", slot_name(slot));
        r = writev(fd, &iov, 0);
        break;
    case 6:
        say("%s readv(0)", slot_name(slot));
        r = readv(fd, &iov, 0);
        break;
    case 7:
        iov.iov_len = (size_t)-1;
        say("%s readv(huge)", slot_name(slot));
        r = readv(fd, &iov, 1);
        break;
    default:
        say("%s ftruncate", slot_name(slot));
        r = ftruncate(fd, 0);
    }
    say_result(r, errno);
    settle(w);
}

/* ---- queue lengths ---- */

static void op_ioctl(struct world *w)
{
    static const struct {
        unsigned long request;
        const char *name;
    } requests[] = {{FIONREAD, "FIONREAD"},
                    {SIOCOUTQNSD, "SIOCOUTQNSD"},
                    {SIOCATMARK, "SIOCATMARK"},
                    {SIOCOUTQ, "SIOCOUTQ"}};
    const unsigned which = pick(w, 4);
    const unsigned slot = pick_slot(w, SLOT_SOCKET, !once_in(w, 30));
    const int fd = fd_of(w, slot);
    int value = -1, r, err, tries = 0;
    do { /* what is not acknowledged yet will be: a delayed ACK may be due */
        if (tries != 0)
            usleep(1000);
        r = ioctl(fd, requests[which].request, &value);
        err = errno;
    } while (r == 0 && requests[which].request == SIOCOUTQ && value != 0 && ++tries < 60);
    /* Of a connection that is over Linux still says what was unsent when it ended. */
    if (r == 0 && value != 0 && tcp_state_of(fd) == TCP_CLOSE)
        value = 0;
    say("%s %s %d", slot_name(slot), requests[which].name, value);
    say_result(r, err);
    if (once_in(w, 3)) {
        say("%s sockatmark", slot_name(slot));
        r = sockatmark(fd);
        say_result(r, errno);
    }
}

/* ---- full buffers ---- */

/*
 * Sends until nothing goes in any more, then receives all of it. How much fits is not promised:
 * only that the writer is not writable then, that all of it arrives, and that it is writable again.
 */
void data_fill(struct world *w)
{
    const int slot = pick_state(w, TCP_ESTABLISHED);
    const int peer = slot >= 0 ? peer_slot(w, (unsigned)slot) : -1;
    if (peer < 0 || tcp_state_of(w->slot[peer].fd) != TCP_ESTABLISHED)
        return;
    const int fd = w->slot[slot].fd;
    struct pollfd p = {.fd = w->slot[peer].fd, .events = POLLRDHUP};
    if (poll(&p, 1, 0) != 0) /* it reads the end whenever it is faster than the writer */
        return;
    p = (struct pollfd){.fd = fd, .events = POLLOUT};
    size_t sent = 0, got = 0;
    uint32_t out = HASH_START, in = HASH_START;
    say("%s fill", slot_name((unsigned)slot));
    while (recv(w->slot[peer].fd, buffer, BUFFER, MSG_DONTWAIT) > 0)
        ;
    settle(w);
    while (sent < FILL_MAX) {
        fill_pattern(w, 20000);
        const long r = send(fd, buffer, 20000, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (r <= 0) {
            say(" %s", r < 0 ? error_name(errno) : "0");
            break;
        }
        w->position = (uint8_t)(w->position - (20000 - r));
        out = hash(out, buffer, (size_t)r);
        sent += (size_t)r;
    }
    poll(&p, 1, 0);
    say(" revents %#x", (unsigned)p.revents);
    for (unsigned idle = 0; got < sent && idle < 500;) {
        const long r = recv(w->slot[peer].fd, buffer, BUFFER, MSG_DONTWAIT);
        if (r > 0) {
            in = hash(in, buffer, (size_t)r);
            got += (size_t)r;
            idle = 0;
        } else if (r == 0 || errno != EAGAIN) {
            say(" recv %ld %s", r, r < 0 ? error_name(errno) : "");
            break;
        } else {
            usleep(1000);
            idle++;
        }
    }
    settle(w);
    w->position = 0; /* how much went in is not promised */
    poll(&p, 1, 1000);
    say(" %s, revents %#x", got == sent && in == out ? "all arrived" : "bytes differ",
        (unsigned)p.revents);
    if (got != sent)
        say(" sent %zu got %zu", sent, got);
    say("\n");
}

static void op_sendfile(struct world *w)
{
    const int slot = pick_state(w, TCP_ESTABLISHED);
    if (slot < 0)
        return;
    const size_t len = send_size(w);
    const int file = memfd_create("diff", 0);
    if (file < 0)
        return;
    fill_pattern(w, len);
    if (write(file, buffer, len) != (ssize_t)len)
        say("memfd ");
    off_t offset = 0;
    say("%s sendfile(%zu)", slot_name((unsigned)slot), len);
    const long r = sendfile(w->slot[slot].fd, file, &offset, len + 5);
    const int err = errno;
    say(" offset %ld", (long)offset);
    say_result(r, err);
    close(file);
    settle(w);
}

/* splice() in either direction, through a pipe of its own. */
static void op_splice(struct world *w)
{
    const unsigned slot = pick_slot(w, SLOT_SOCKET, true);
    const int fd = fd_of(w, slot);
    const size_t len = send_size(w);
    int ends[2];
    if (w->urgent) /* Linux's splice() stands still at the mark, the shim's passes over it as recv()
                    */
        return;
    if (pipe2(ends, O_NONBLOCK | O_CLOEXEC) < 0)
        return;
    long r;
    int err;
    if (once_in(w, 2)) {
        fill_pattern(w, len);
        const ssize_t ready = write(ends[1], buffer, len);
        say("%s splice from pipe(%zu of %zd)", slot_name(slot), len + 1, ready);
        r = splice(ends[0], NULL, fd, NULL, len + 1, SPLICE_F_NONBLOCK);
        err = errno;
    } else {
        say("%s splice to pipe(%zu)", slot_name(slot), len);
        r = splice(fd, NULL, ends[1], NULL, len, SPLICE_F_NONBLOCK);
        err = errno;
        say_bytes(r > 0 ? read(ends[0], buffer, BUFFER) : 0);
    }
    say_result(r, err);
    close(ends[0]);
    close(ends[1]);
    settle(w);
}

const struct operation data_operations[] = {
    {26, op_send}, {26, op_recv}, {6, op_drain},    {5, op_send_urgent}, {2, op_cork},
    {4, op_ioctl}, {2, op_wrong}, {1, op_sendfile}, {2, op_splice},      {0, NULL},
};
