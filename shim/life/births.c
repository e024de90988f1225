#define _GNU_SOURCE
#include "shim/life/births.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "shim/core/fdtable.h"
#include "shim/core/raw.h"

#define QUEUE_BYTES (4 << 20)

static int in = -1, out = -1, bell = -1;

void births_prepare(void)
{
    int pair[2];
    const int fd = (int)raw_syscall(SYS_eventfd2, 0, EFD_CLOEXEC | EFD_NONBLOCK, 0, 0, 0, 0);
    if (fd >= 0)
        bell = fd_make_internal(fd);
    if (raw_syscall(SYS_socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, (long)pair, 0, 0) <
        0)
        return;
    const int bytes = QUEUE_BYTES;
    if (raw_setsockopt(pair[0], SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) < 0)
        raw_setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
    out = fd_make_internal(pair[0]);
    in = fd_make_internal(pair[1]);
}

void births_fds(int fds[BIRTHS_HAVE])
{
    fds[0] = in;
    fds[1] = out;
    fds[2] = bell;
}

void births_adopt(const int fds[BIRTHS_HAVE])
{
    in = fds[0];
    out = fds[1];
    bell = fds[2];
}

int births_in(void)
{
    return in;
}

int births_bell(void)
{
    return bell;
}

void births_ring(void)
{
    const uint64_t one = 1;
    if (bell >= 0)
        raw_write(bell, &one, sizeof(one));
}

/* fd: -1: none goes with it. */
static bool send_notice(uint32_t number, uint32_t generation, int fd)
{
    struct birth_notice notice = {.number = number, .generation = generation};
    struct iovec iov = {&notice, sizeof(notice)};
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {.header = {.cmsg_len = CMSG_LEN(sizeof(int)),
                            .cmsg_level = SOL_SOCKET,
                            .cmsg_type = SCM_RIGHTS}};
    memcpy(CMSG_DATA(&control.header), &fd, sizeof(int));
    const struct msghdr m = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = fd >= 0 ? sizeof(control.space) : 0};
    return raw_sendmsg(out, &m, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0;
}

bool births_ask_ingress(uint32_t ifindex)
{
    return out >= 0 && send_notice(0, ifindex, -1);
}

bool births_announce(uint32_t number, uint32_t generation, int32_t pid)
{
    const int fd = out >= 0 ? (int)raw_syscall(SYS_pidfd_open, pid, 0, 0, 0, 0, 0) : -1;
    if (fd < 0)
        return false;
    const bool sent = send_notice(number, generation, fd);
    raw_close(fd);
    return sent;
}

int births_lifeline(uint32_t number, uint32_t generation)
{
    int pair[2];
    if (out < 0 || raw_syscall(SYS_pipe2, (long)pair, O_CLOEXEC, 0, 0, 0, 0) < 0)
        return -1;
    const bool sent = send_notice(number, generation, pair[0]);
    raw_close(pair[0]);
    if (sent)
        return pair[1];
    raw_close(pair[1]);
    return -1;
}
