#define _GNU_SOURCE
#include "shim/keeper/merge.h"

#include <errno.h>
#include <stdio.h>
#include <sys/un.h>
#include <unistd.h>

#include "shim/core/engine.h"
#include "shim/core/raw.h"
#include "shim/keeper/guards.h"
#include "shim/link/link.h"
#include "stack/tcp/tcp.h"
#include "stack/tcp/timewait.h"

/* Of one message; the kernel takes up to 253 descriptors. */
#define BATCH 64
/* Keepers that are served at a time; the others wait in the queue of the name. */
#define CLIENTS_MAX (MERGE_FDS - 1)
#define BACKLOG     64
/* A keeper whose offer was not taken goes on alone, and offers again after this time. */
#define OFFER_AGAIN (5 * NSEC_PER_SEC)
/* It answers for its entries alone while it waits for the other: neither takes longer. */
#define ANSWER_MAX_SECONDS 2
/* Other layouts of the messages do not mix. */
#define MAGIC (0x74637701u ^ (uint32_t)(sizeof(struct message) << 8))

enum message_kind { TIME_WAITS, GUARDS, END };

struct message {
    uint32_t magic;
    uint16_t kind, n;
    union {
        struct tcp_time_wait_image time_waits[BATCH];
        struct guard_item guards[BATCH];
    };
};

union control {
    struct cmsghdr header;
    char room[CMSG_SPACE(BATCH * sizeof(int))];
};

static struct message message; /* large, and used for one step at a time */
static int door = -1;
static int clients[CLIENTS_MAX]; /* descriptor + 1 */
static nsec_t offer_after;

static socklen_t name_of_senior(struct sockaddr_un *name)
{
    *name = (struct sockaddr_un){.sun_family = AF_UNIX}; /* sun_path[0] is 0: an abstract name */
    const int n =
        snprintf(name->sun_path + 1, sizeof(name->sun_path) - 1, "tcpshim-keeper-of/%u", geteuid());
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
}

/* Anybody may bind or connect to a name: only processes of the same user are trusted. */
static bool same_user(int fd)
{
    struct ucred peer = {.pid = 0};
    socklen_t len = sizeof(peer);
    return raw_getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 && peer.uid == geteuid();
}

/* ---- giving ---- */

struct sending {
    int to;
    int error; /* the first */
    int fds[BATCH];
};

static size_t length(void)
{
    const size_t one =
        message.kind == GUARDS ? sizeof(message.guards[0]) : sizeof(message.time_waits[0]);
    return offsetof(struct message, guards) + (message.kind == END ? 0 : message.n * one);
}

static void begin(enum message_kind kind)
{
    message.magic = MAGIC;
    message.kind = (uint16_t)kind;
    message.n = 0;
}

static void flush(struct sending *s)
{
    union control control = {.header = {.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    struct iovec iov = {&message, length()};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
    if (message.kind == GUARDS && message.n > 0) {
        control.header.cmsg_len = CMSG_LEN(message.n * sizeof(int));
        memcpy(CMSG_DATA(&control.header), s->fds, message.n * sizeof(int));
        m.msg_control = &control;
        m.msg_controllen = CMSG_SPACE(message.n * sizeof(int));
    }
    if (s->error == 0 && (message.n > 0 || message.kind == END))
        s->error = raw_sendmsg(s->to, &m, MSG_NOSIGNAL) < 0 ? -EIO : 0;
    message.n = 0;
}

static void give_time_wait(const struct tcp_time_wait_image *tw, void *arg)
{
    message.time_waits[message.n++] = *tw;
    if (message.n == BATCH)
        flush(arg);
}

static void give_guard(const struct guard_item *item, int fd, void *arg)
{
    struct sending *s = arg;
    s->fds[message.n] = fd;
    message.guards[message.n++] = *item;
    if (message.n == BATCH)
        flush(s);
}

/* The entries before what stands for them: what stands for nothing is let go of. */
static bool give_all(struct stack *st, int to)
{
    struct sending s = {.to = to};
    uint32_t answer = 0;
    begin(TIME_WAITS);
    tcp_each_time_wait(st, give_time_wait, &s);
    flush(&s);
    begin(GUARDS);
    guards_each(give_guard, &s);
    flush(&s);
    begin(END);
    flush(&s);
    return s.error == 0 && raw_recv(to, &answer, sizeof(answer), 0) == sizeof(answer) &&
           answer == MAGIC;
}

static int open_socket(void)
{
    const struct timeval most = {.tv_sec = ANSWER_MAX_SECONDS};
    const int fd = raw_socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd >= 0) {
        raw_setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &most, sizeof(most));
        raw_setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &most, sizeof(most));
    }
    return fd;
}

/* This keeper answers to the name from here on. */
static bool open_door(void)
{
    struct sockaddr_un name;
    const socklen_t len = name_of_senior(&name);
    const int fd = open_socket();
    if (fd < 0)
        return false;
    if (raw_bind(fd, &name, len) < 0 || raw_listen(fd, BACKLOG) < 0) {
        raw_close(fd);
        return false;
    }
    door = fd;
    return true;
}

bool merge_offer(struct stack_cx *cx)
{
    struct sockaddr_un name;
    const socklen_t len = name_of_senior(&name);
    if (door >= 0 || cx->now < offer_after)
        return false;
    offer_after = cx->now + OFFER_AGAIN;
    for (unsigned tries = 0; tries < 3; tries++) {
        const int to = open_socket();
        if (to < 0)
            return false;
        const int err = raw_connect(to, &name, len);
        const bool given = err == 0 && same_user(to) && give_all(cx->st, to);
        raw_close(to);
        if (given)
            return true;
        if (err != -ECONNREFUSED || open_door())
            return false;
        /* refused, and the name is taken: another keeper was quicker, and listens in a moment */
        struct timespec moment = {.tv_nsec = (long)NSEC_PER_MSEC};
        raw_ppoll(NULL, 0, &moment);
    }
    return false;
}

/* ---- taking ---- */

static bool take_guards(const union control *control, size_t controllen)
{
    int fds[BATCH];
    const bool has =
        controllen >= sizeof(struct cmsghdr) && control->header.cmsg_type == SCM_RIGHTS;
    const unsigned n = has ? (unsigned)((control->header.cmsg_len - CMSG_LEN(0)) / sizeof(int)) : 0;
    bool all = n == message.n;
    memcpy(fds, CMSG_DATA(&control->header), n * sizeof(int));
    for (unsigned i = 0; i < n; i++)
        all = guards_adopt(&message.guards[i], fds[i]) && all;
    return all;
}

static bool take_time_waits(struct stack_cx *cx)
{
    for (unsigned i = 0; i < message.n; i++)
        if (tcp_time_wait_adopt(cx, &message.time_waits[i]) == -ENOMEM)
            return false;
    return true;
}

/* 1: that was all of this client; 0: more is to come; negative: it is not to be served. */
static int take_message(struct stack_cx *cx, int from)
{
    union control control = {.header = {.cmsg_len = 0}};
    struct iovec iov = {&message, sizeof(message)};
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = &control,
                       .msg_controllen = sizeof(control)};
    const ssize_t r = raw_recvmsg(from, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (r == -EAGAIN)
        return 0;
    if (r < (ssize_t)offsetof(struct message, guards) || message.magic != MAGIC ||
        message.n > BATCH || (size_t)r != length())
        return -EPROTO;
    switch (message.kind) {
    case TIME_WAITS:
        return take_time_waits(cx) ? 0 : -ENOMEM;
    case GUARDS:
        return take_guards(&control, m.msg_controllen) ? 0 : -ENFILE;
    default:
        return 1;
    }
}

static void admit(void)
{
    for (unsigned i = 0; i < CLIENTS_MAX; i++) {
        if (clients[i] != 0)
            continue;
        const int fd = raw_accept4(door, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            return;
        if (same_user(fd)) {
            clients[i] = fd + 1;
            return;
        }
        raw_close(fd);
    }
}

void merge_poll(struct pollfd fds[MERGE_FDS])
{
    bool room = false;
    for (unsigned i = 0; i < CLIENTS_MAX; i++) {
        fds[1 + i] = (struct pollfd){.fd = clients[i] - 1, .events = POLLIN};
        room = room || clients[i] == 0;
    }
    fds[0] = (struct pollfd){.fd = room ? door : -1, .events = POLLIN};
}

bool merge_serve(struct stack_cx *cx, const struct pollfd fds[MERGE_FDS])
{
    bool taken = false;
    for (unsigned i = 0; i < CLIENTS_MAX; i++) {
        if (clients[i] == 0 || fds[1 + i].revents == 0)
            continue;
        const int fd = clients[i] - 1, got = take_message(cx, fd);
        if (got == 0)
            continue;
        if (got > 0) {
            const uint32_t answer = MAGIC;
            link_filter_narrow(engine.link); /* and lets pass what is for them */
            raw_send(fd, &answer, sizeof(answer), MSG_DONTWAIT | MSG_NOSIGNAL);
            taken = true;
        }
        raw_close(fd);
        clients[i] = 0;
    }
    if (fds[0].revents != 0)
        admit();
    return taken;
}
