#define _GNU_SOURCE
#include "shim/link/diag.h"

#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>

#include "shim/core/fdtable.h"
#include "shim/core/raw.h"
#include "stack/tcp/names.h"

#ifndef IP_RECVERR_RFC4884
#define IP_RECVERR_RFC4884 26
#endif
/* INET_DIAG_SOCKOPT of Linux 5.10, and bits of its two bytes (struct inet_diag_sockopt). */
#define ATTRIBUTE_SOCKOPT 22
#define SOCKOPT_MC_LOOP   0x10u /* of the first */
#define SOCKOPT_RFC4884   0x02u /* of the second */
#define ANSWER_BYTES      8192
#define DUMP_ANSWERS_MAX  4096

static int diag_fd = -1; /* -1: not open yet; other negative: never */
static uint32_t sequence;
static uint8_t answer[ANSWER_BYTES] __attribute__((aligned(8)));

/* Options that datagram sockets alone heed. */
void diag_mark(int fd, bool door)
{
    const int yes = 1, no = 0;
    (void)raw_setsockopt(fd, IPPROTO_IP, IP_MULTICAST_LOOP, door ? &yes : &no, sizeof(int));
    if (door)
        (void)raw_setsockopt(fd, IPPROTO_IP, IP_RECVERR_RFC4884, &yes, sizeof(int));
}

static bool is_set(int fd, int name)
{
    int value = 0;
    socklen_t len = sizeof(value);
    return raw_getsockopt(fd, IPPROTO_IP, name, &value, &len) == 0 && value != 0;
}

bool diag_is_door(int fd)
{
    return is_set(fd, IP_MULTICAST_LOOP) && is_set(fd, IP_RECVERR_RFC4884);
}

uint64_t diag_cookie(int fd)
{
    uint64_t cookie = 0;
    socklen_t len = sizeof(cookie);
    (void)raw_getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len);
    return cookie;
}

void diag_forbid(void)
{
    if (diag_fd == -1)
        diag_fd = -EPERM;
}

static int open_diag(void)
{
    if (diag_fd != -1)
        return diag_fd;
    const int fd = fd_socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    if (fd < 0)
        return fd;
    diag_fd = fd_make_internal(fd);
    return diag_fd;
}

/* The bytes of an attribute of at least len, or NULL. */
static const uint8_t *attribute(const struct nlmsghdr *h, uint16_t type, size_t len)
{
    const uint8_t *at = (const uint8_t *)h + NLMSG_SPACE(sizeof(struct inet_diag_msg));
    const uint8_t *end = (const uint8_t *)h + h->nlmsg_len;
    while (at + NLA_HDRLEN <= end) {
        const struct nlattr *a = (const void *)at;
        if (a->nla_len < NLA_HDRLEN || at + a->nla_len > end)
            break;
        if (a->nla_type == type && a->nla_len >= NLA_HDRLEN + len)
            return at + NLA_HDRLEN;
        at += NLA_ALIGN(a->nla_len);
    }
    return NULL;
}

static enum diag_kind kind_of(const struct nlmsghdr *h)
{
    const uint8_t *options = attribute(h, ATTRIBUTE_SOCKOPT, 2);
    if (options == NULL)
        return DIAG_DOOR; /* an old kernel does not say */
    if ((options[0] & SOCKOPT_MC_LOOP) == 0)
        return DIAG_DEAF;
    return (options[1] & SOCKOPT_RFC4884) != 0 ? DIAG_DOOR : DIAG_KERNEL;
}

static struct diag_socket decode(const struct nlmsghdr *h)
{
    const struct inet_diag_msg *m = NLMSG_DATA(h);
    struct diag_socket s = {.cookie =
                                (uint64_t)m->id.idiag_cookie[1] << 32 | m->id.idiag_cookie[0]};
    if (m->idiag_family == AF_INET6)
        memcpy(&s.local, m->id.idiag_src, sizeof(s.local));
    else
        s.local = ip_addr_from_v4(m->id.idiag_src[0]);
    s.kind = m->idiag_state == TCP_LISTEN ? kind_of(h) : DIAG_FLOW;
    return s;
}

/* Whether a listener hears IPv4. */
static bool hears_v4(const struct nlmsghdr *h, const struct ip_addr *local)
{
    const uint8_t *only = attribute(h, INET_DIAG_SKV6ONLY, 1);
    return (only == NULL || *only == 0) && (ip_addr_is_v4(local) || ip_addr_is_any(local));
}

struct question {
    struct nlmsghdr head;
    struct inet_diag_req_v2 ask;
};

static struct question question(int family, uint16_t flags, uint16_t port)
{
    return (struct question){
        .head = {.nlmsg_len = sizeof(struct question),
                 .nlmsg_type = SOCK_DIAG_BY_FAMILY,
                 .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags),
                 .nlmsg_seq = ++sequence ^ (uint32_t)raw_getpid() << 12},
        .ask = {.sdiag_family = (uint8_t)family,
                .sdiag_protocol = IPPROTO_TCP,
                .idiag_states = UINT32_MAX,
                .id = {.idiag_sport = htons(port),
                       .idiag_cookie = {INET_DIAG_NOCOOKIE, INET_DIAG_NOCOOKIE}}}};
}

/* By sendmsg and recvmsg, which a sandbox that may drive allows (shim/life/sandbox.c). */
static int ask(struct question *q)
{
    struct iovec iov = {q, sizeof(*q)};
    const struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
    const int fd = open_diag();
    if (fd < 0)
        return fd;
    const ssize_t n = raw_sendmsg(fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
    return n < 0 ? (int)n : 0;
}

/* The bytes of the next answers to q; others are of who asked before and was killed. */
static ssize_t hear(const struct question *q)
{
    for (;;) {
        struct iovec iov = {answer, sizeof(answer)};
        struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
        const ssize_t n = raw_recvmsg(diag_fd, &m, MSG_DONTWAIT);
        const struct nlmsghdr *h = (const void *)answer;
        if (n < 0 || (NLMSG_OK(h, (uint32_t)n) && h->nlmsg_seq == q->head.nlmsg_seq))
            return n;
    }
}

bool diag_may_ask(nsec_t now, enum diag_question which)
{
    static const unsigned most[DIAG_QUESTIONS] = {[DIAG_FIND] = 500, [DIAG_LISTENERS] = 30};
    static nsec_t since[DIAG_QUESTIONS];
    static unsigned asked[DIAG_QUESTIONS];
    if (now >= since[which] + NSEC_PER_SEC) {
        since[which] = now;
        asked[which] = 0;
    }
    return asked[which]++ < most[which];
}

int diag_find(const struct flow_tuple *t, uint32_t ifindex, struct diag_socket *out)
{
    struct question q = question(AF_INET, 0, t->lport);
    q.ask.id.idiag_dport = htons(t->rport);
    q.ask.id.idiag_src[0] = ip_addr_v4(&t->local);
    q.ask.id.idiag_dst[0] = ip_addr_v4(&t->remote);
    q.ask.id.idiag_if = ifindex;
    *out = (struct diag_socket){.kind = DIAG_NONE};
    const int err = ask(&q);
    const ssize_t n = err < 0 ? err : hear(&q);
    if (n < 0)
        return (int)n;
    const struct nlmsghdr *h = (const void *)answer;
    if (h->nlmsg_type == SOCK_DIAG_BY_FAMILY &&
        h->nlmsg_len >= NLMSG_LENGTH(sizeof(struct inet_diag_msg)))
        *out = decode(h);
    return 0;
}

static int dump(int family, uint16_t port, void (*visit)(const struct diag_socket *s, void *arg),
                void *arg)
{
    struct question q = question(family, NLM_F_DUMP, port);
    q.ask.idiag_states = 1u << TCP_LISTEN;
    int err = ask(&q);
    if (err < 0)
        return err;
    for (unsigned heard = 0; heard < DUMP_ANSWERS_MAX; heard++) {
        ssize_t n = hear(&q);
        if (n < 0)
            return (int)n;
        const struct nlmsghdr *h = (const void *)answer;
        for (; NLMSG_OK(h, (uint32_t)n);
             n -= NLMSG_ALIGN(h->nlmsg_len),
             h = (const void *)((const uint8_t *)h + NLMSG_ALIGN(h->nlmsg_len))) {
            if (h->nlmsg_type == NLMSG_DONE || h->nlmsg_type == NLMSG_ERROR)
                return 0; /* an error: the kernel has no such sockets (IPv6) */
            if (h->nlmsg_len < NLMSG_LENGTH(sizeof(struct inet_diag_msg)))
                continue;
            const struct diag_socket s = decode(h);
            if (hears_v4(h, &s.local))
                visit(&s, arg);
        }
    }
    return 0;
}

int diag_listeners(uint16_t port, void (*visit)(const struct diag_socket *s, void *arg), void *arg)
{
    const int err = dump(AF_INET, port, visit, arg);
    return err < 0 ? err : dump(AF_INET6, port, visit, arg);
}
