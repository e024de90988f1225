#include "shim/link/netlink.h"

#include <errno.h>

#include "shim/core/fdtable.h"
#include "shim/core/raw.h"

/* One datagram of an answer is at most 32 KB (netlink's dump skbs). */
#define ANSWER_MAX 32768

static int netlink_fd = -1;
/* Distinct between the processes that share the socket after fork: an answer that a killed process
 * left behind is told from ours. */
static uint32_t sequence;
static char answer[ANSWER_MAX] __attribute__((aligned(NLMSG_ALIGNTO)));

void nl_begin(struct nl_request *rq, uint16_t type, uint16_t flags, const void *fixed, size_t len)
{
    *rq = (struct nl_request){.header = {.nlmsg_len = (uint32_t)NLMSG_SPACE(len),
                                         .nlmsg_type = type,
                                         .nlmsg_flags = flags}};
    memcpy(rq->body, fixed, len);
}

void nl_put(struct nl_request *rq, uint16_t type, const void *value, size_t len)
{
    size_t at = rq->header.nlmsg_len;
    if (at + RTA_SPACE(len) > sizeof(*rq))
        return;
    struct rtattr rta = {.rta_len = (uint16_t)RTA_LENGTH(len), .rta_type = type};
    char *p = (char *)rq + at;
    memcpy(p, &rta, sizeof(rta));
    memcpy(p + RTA_LENGTH(0), value, len);
    rq->header.nlmsg_len = (uint32_t)(at + RTA_SPACE(len));
}

static int open_socket(void)
{
    int fd = fd_socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (fd < 0)
        return fd;
    netlink_fd = fd_make_internal(fd);
    return 0;
}

/* Goes through one datagram. Returns 1 at the end of the answer, 0 when more follows, or an error.
 */
static int read_answer(size_t len, uint32_t seq, bool dump,
                       void (*visit)(const struct nlmsghdr *, void *), void *arg)
{
    const struct nlmsghdr *m = (const struct nlmsghdr *)answer;
    for (; NLMSG_OK(m, len); m = NLMSG_NEXT(m, len)) {
        if (m->nlmsg_seq != seq)
            continue;
        if (m->nlmsg_type == NLMSG_DONE)
            return 1;
        if (m->nlmsg_type == NLMSG_ERROR) {
            int err = ((const struct nlmsgerr *)NLMSG_DATA(m))->error;
            return err < 0 ? err : 1;
        }
        if (m->nlmsg_type >= NLMSG_MIN_TYPE)
            visit(m, arg);
        if (!dump)
            return 1;
    }
    return 0;
}

int nl_ask(struct nl_request *rq, void (*visit)(const struct nlmsghdr *m, void *arg), void *arg)
{
    if (netlink_fd < 0) {
        int err = open_socket();
        if (err < 0)
            return err;
    }
    uint32_t seq = ((uint32_t)raw_getpid() << 16) + (++sequence & 0xffff);
    bool dump = (rq->header.nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP;
    rq->header.nlmsg_flags |= NLM_F_REQUEST;
    rq->header.nlmsg_seq = seq;
    ssize_t n = raw_send(netlink_fd, rq, rq->header.nlmsg_len, 0);
    if (n < 0)
        return (int)n;
    for (;;) {
        /* the kernel answers within send(): a datagram that is not there will not come */
        n = raw_recv(netlink_fd, answer, sizeof(answer), MSG_DONTWAIT);
        if (n == -EINTR)
            continue;
        if (n < 0)
            return n == -EAGAIN ? -EIO : (int)n;
        int done = read_answer((size_t)n, seq, dump, visit, arg);
        if (done != 0)
            return done < 0 ? done : 0;
    }
}

void nl_parse(const struct rtattr *rta, size_t len, const struct rtattr **table, unsigned max)
{
    memset(table, 0, (max + 1) * sizeof(*table));
    for (; RTA_OK(rta, len); rta = RTA_NEXT(rta, len)) {
        unsigned type = rta->rta_type & ~(unsigned)NLA_F_NESTED;
        if (type <= max)
            table[type] = rta;
    }
}

uint32_t nl_u32(const struct rtattr *a)
{
    uint32_t v = 0;
    if (a && RTA_PAYLOAD(a) >= sizeof(v))
        memcpy(&v, RTA_DATA(a), sizeof(v));
    return v;
}
