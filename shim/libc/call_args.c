/* The arguments of traced calls, as a person would write them: "1000, MSG_NOSIGNAL". */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>

#include "shim/libc/call.h"
#include "shim/libc/sockaddr.h"
#include "shim/libc/user.h"
#include "shim/watch/line.h"

struct name {
    int number;
    const char *text;
};

#define N(id)                                                                                      \
    {                                                                                              \
        id, #id                                                                                    \
    }
static const struct name message_flags[] = {
    N(MSG_OOB),      N(MSG_PEEK), N(MSG_DONTROUTE),    N(MSG_CTRUNC),   N(MSG_TRUNC),
    N(MSG_DONTWAIT), N(MSG_EOR),  N(MSG_WAITALL),      N(MSG_CONFIRM),  N(MSG_ERRQUEUE),
    N(MSG_NOSIGNAL), N(MSG_MORE), N(MSG_CMSG_CLOEXEC), N(MSG_ZEROCOPY), N(MSG_FASTOPEN),
};
static const struct name accept_flags[] = {N(SOCK_NONBLOCK), N(SOCK_CLOEXEC)};
static const struct name hows[] = {N(SHUT_RD), N(SHUT_WR), N(SHUT_RDWR)};
static const struct name levels[] = {N(SOL_SOCKET), N(IPPROTO_TCP), N(IPPROTO_IP), N(IPPROTO_IPV6)};
static const struct name socket_options[] = {
    N(SO_REUSEADDR),  N(SO_TYPE),      N(SO_ERROR),        N(SO_DONTROUTE), N(SO_BROADCAST),
    N(SO_SNDBUF),     N(SO_RCVBUF),    N(SO_KEEPALIVE),    N(SO_OOBINLINE), N(SO_PRIORITY),
    N(SO_LINGER),     N(SO_REUSEPORT), N(SO_RCVLOWAT),     N(SO_RCVTIMEO),  N(SO_SNDTIMEO),
    N(SO_ACCEPTCONN), N(SO_PROTOCOL),  N(SO_DOMAIN),       N(SO_MARK),      N(SO_BINDTODEVICE),
    N(SO_BUSY_POLL),  N(SO_ZEROCOPY),  N(SO_INCOMING_CPU), N(SO_TIMESTAMP),
};
static const struct name tcp_options[] = {
    N(TCP_NODELAY),          N(TCP_MAXSEG),       N(TCP_CORK),     N(TCP_KEEPIDLE),
    N(TCP_KEEPINTVL),        N(TCP_KEEPCNT),      N(TCP_SYNCNT),   N(TCP_LINGER2),
    N(TCP_DEFER_ACCEPT),     N(TCP_WINDOW_CLAMP), N(TCP_INFO),     N(TCP_QUICKACK),
    N(TCP_CONGESTION),       N(TCP_USER_TIMEOUT), N(TCP_FASTOPEN), N(TCP_NOTSENT_LOWAT),
    N(TCP_FASTOPEN_CONNECT), N(TCP_ULP),          N(TCP_MD5SIG),   N(TCP_INQ),
};
static const struct name ip_options[] = {
    N(IP_TOS),      N(IP_TTL),         N(IP_MTU_DISCOVER), N(IP_MTU),
    N(IP_FREEBIND), N(IP_TRANSPARENT), N(IP_RECVERR),      N(IP_BIND_ADDRESS_NO_PORT)};
static const struct name commands[] = {N(F_DUPFD), N(F_DUPFD_CLOEXEC), N(F_GETFD),  N(F_SETFD),
                                       N(F_GETFL), N(F_SETFL),         N(F_GETOWN), N(F_SETOWN)};
static const struct name requests[] = {N(FIONBIO), N(FIONREAD), N(TIOCOUTQ), N(FIOASYNC)};
#undef N

static void put_name(struct line *l, const struct name *names, size_t n, int number)
{
    for (size_t i = 0; i < n; i++) {
        if (names[i].number == number) {
            put(l, names[i].text);
            return;
        }
    }
    put_signed(l, number);
}

static void put_bits(struct line *l, const struct name *names, size_t n, unsigned bits)
{
    const char *between = "";
    for (size_t i = 0; i < n; i++) {
        if (!(bits & (unsigned)names[i].number))
            continue;
        put(l, between);
        put(l, names[i].text);
        bits &= ~(unsigned)names[i].number;
        between = "|";
    }
    if (bits || *between == '\0') {
        put(l, between);
        put_u64(l, bits);
    }
}

static void put_option(struct line *l, const struct call_args *a)
{
    const int level = (int)a->a, name = (int)a->b;
    put_name(l, levels, ARRAY_LEN(levels), level);
    put(l, ", ");
    if (level == SOL_SOCKET)
        put_name(l, socket_options, ARRAY_LEN(socket_options), name);
    else if (level == IPPROTO_TCP)
        put_name(l, tcp_options, ARRAY_LEN(tcp_options), name);
    else if (level == IPPROTO_IP)
        put_name(l, ip_options, ARRAY_LEN(ip_options), name);
    else
        put_signed(l, name);
    if (a->p != NULL && a->len == sizeof(int) && user_valid(a->p, a->len)) {
        int value;
        memcpy(&value, a->p, sizeof(value));
        put(l, ", ");
        put_signed(l, value);
    }
}

static void put_address(struct line *l, const struct call_args *a)
{
    struct endpoint at;
    const struct sockaddr *sa = a->p;
    if (sa == NULL || a->len < sizeof(sa->sa_family) || !user_valid(sa, a->len))
        return;
    if (sa->sa_family == AF_UNSPEC)
        put(l, "AF_UNSPEC");
    else if (sockaddr_parse(sa->sa_family, sa, a->len, &at) == 0)
        put_endpoint(l, &at.addr, at.port);
}

static void put_args(struct line *l, const struct call_args *a)
{
    switch (a->shape) {
    case ARGS_NONE:
        break;
    case ARGS_NUMBER:
        put_signed(l, (int64_t)a->a);
        break;
    case ARGS_BUFFER:
        put_u64(l, a->a);
        if (a->b) {
            put(l, ", ");
            put_bits(l, message_flags, ARRAY_LEN(message_flags), (unsigned)a->b);
        }
        break;
    case ARGS_ADDRESS:
        put_address(l, a);
        break;
    case ARGS_ACCEPT:
        if (a->a)
            put_bits(l, accept_flags, ARRAY_LEN(accept_flags), (unsigned)a->a);
        break;
    case ARGS_HOW:
        put_name(l, hows, ARRAY_LEN(hows), (int)a->a);
        break;
    case ARGS_OPTION:
        put_option(l, a);
        break;
    case ARGS_COMMAND:
        put_name(l, commands, ARRAY_LEN(commands), (int)a->a);
        if ((int)a->a == F_SETFL || (int)a->a == F_SETFD) {
            put(l, ", ");
            put_u64(l, a->b);
        }
        break;
    case ARGS_REQUEST:
        put_name(l, requests, ARRAY_LEN(requests), (int)a->a);
        break;
    }
}

const char *call_args_text(const struct call *c, int64_t result)
{
    static struct line l; /* the engine's lock is held */
    struct call_args args = c->args;
    if (result == -EFAULT)
        args.p = NULL;
    l.n = 0;
    put_args(&l, &args);
    l.text[l.n] = '\0';
    return l.text;
}
