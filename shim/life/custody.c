#define _GNU_SOURCE
#include "shim/life/custody.h"

#include <errno.h>
#include <sys/uio.h>

#include "shim/core/raw.h"

union control {
    struct cmsghdr header;
    char room[CMSG_SPACE(CUSTODY_BATCH * sizeof(int))];
};

int custody_send(int out, const struct custody_item *items, const int *fds, unsigned n)
{
    union control control;
    struct iovec iov = {(void *)(uintptr_t)items, n * sizeof(*items)};
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = &control,
                       .msg_controllen = CMSG_SPACE(n * sizeof(int))};
    control.header = (struct cmsghdr){
        .cmsg_len = CMSG_LEN(n * sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(&control.header), fds, n * sizeof(int));
    const ssize_t r = raw_sendmsg(out, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
    return r < 0 ? (int)r : 0;
}

int custody_receive(int in, struct custody_item items[CUSTODY_BATCH], int fds[CUSTODY_BATCH],
                    unsigned *lost)
{
    union control control = {.header = {.cmsg_len = 0}};
    struct iovec iov = {items, CUSTODY_BATCH * sizeof(*items)};
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = &control,
                       .msg_controllen = sizeof(control)};
    const ssize_t r = raw_recvmsg(in, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (r <= 0)
        return r < 0 ? (int)r : -EAGAIN;
    unsigned n = 0;
    if (m.msg_controllen >= sizeof(struct cmsghdr) && control.header.cmsg_type == SCM_RIGHTS)
        n = (unsigned)((control.header.cmsg_len - CMSG_LEN(0)) / sizeof(int));
    memcpy(fds, CMSG_DATA(&control.header), n * sizeof(int));
    if (lost != NULL)
        *lost = (unsigned)((size_t)r / sizeof(*items)) - n;
    return (int)n;
}
