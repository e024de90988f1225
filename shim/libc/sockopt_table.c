/*
 * The options that the engine must hear of. All others live in the kernel socket behind the
 * descriptor alone: accepted, remembered and reported by it, or refused with its errno.
 */
#define _GNU_SOURCE
#include <linux/tcp.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "shim/core/raw.h"
#include "shim/libc/backing.h"
#include "shim/libc/sockopt.h"
#include "shim/wait/wait.h"

/* Names that Debian 12's headers may lack, from the kernel's (asm-generic/socket.h, linux/in.h). */
enum {
    OPT_RCVTIMEO_NEW = 66,
    OPT_SNDTIMEO_NEW = 67,
    OPT_RTO_MAX_MS = 44, /* TCP_RTO_MAX_MS */
    OPT_IP_BIND_ADDRESS_NO_PORT = 24,
};

static nsec_t nsec_of(const struct timeval *tv)
{
    return (nsec_t)tv->tv_sec * NSEC_PER_SEC + (nsec_t)tv->tv_usec * NSEC_PER_USEC;
}

/* A time-out as the kernel rounded it (to its tick). */
static nsec_t timeo_of_kernel(const struct call *c, int name)
{
    struct timeval tv = {0};
    socklen_t len = sizeof(tv);
    raw_getsockopt(c->fd, SOL_SOCKET, name, &tv, &len);
    return nsec_of(&tv);
}

static int set_rcvtimeo(struct call *c, const void *val, socklen_t len)
{
    (void)val, (void)len;
    c->us->rcvtimeo = timeo_of_kernel(c, SO_RCVTIMEO);
    return 0;
}

static int set_sndtimeo(struct call *c, const void *val, socklen_t len)
{
    (void)val, (void)len;
    c->us->sndtimeo = timeo_of_kernel(c, SO_SNDTIMEO);
    return 0;
}

static int64_t give_timeo(nsec_t timeo, void *val, socklen_t *len)
{
    const struct timeval tv = {.tv_sec = (time_t)(timeo / NSEC_PER_SEC),
                               .tv_usec = (suseconds_t)(timeo % NSEC_PER_SEC / NSEC_PER_USEC)};
    return option_give(val, len, &tv, sizeof(tv));
}

static int64_t get_rcvtimeo(struct call *c, void *val, socklen_t *len)
{
    return give_timeo(c->us->rcvtimeo, val, len);
}

static int64_t get_sndtimeo(struct call *c, void *val, socklen_t *len)
{
    return give_timeo(c->us->sndtimeo, val, len);
}

static int int_of(const void *val)
{
    int value;
    memcpy(&value, val, sizeof(value));
    return value;
}

static int64_t give_int(int value, void *val, socklen_t *len)
{
    return option_give(val, len, &value, sizeof(value));
}

static int set_reuseaddr(struct call *c, const void *val, socklen_t len)
{
    (void)len;
    c->us->reuseaddr = int_of(val) != 0;
    return 0;
}

static int64_t get_reuseaddr(struct call *c, void *val, socklen_t *len)
{
    return give_int(c->us->reuseaddr, val, len);
}

static int set_reuseport(struct call *c, const void *val, socklen_t len)
{
    (void)len;
    c->us->reuseport = int_of(val) != 0;
    return 0;
}

static int64_t get_reuseport(struct call *c, void *val, socklen_t *len)
{
    return give_int(c->us->reuseport, val, len);
}

static int set_peek_off(struct call *c, const void *val, socklen_t len)
{
    (void)len;
    c->us->peek_off = int_of(val);
    return 0;
}

static int64_t get_peek_off(struct call *c, void *val, socklen_t *len)
{
    return give_int(c->us->peek_off, val, len);
}

static int set_linger(struct call *c, const void *val, socklen_t len)
{
    struct linger linger = {0};
    memcpy(&linger, val, len < sizeof(linger) ? len : sizeof(linger));
    struct tcp_opts *opts = option_opts(c);
    if (opts == NULL)
        return -ENOBUFS;
    opts->linger = linger.l_onoff != 0;
    if (opts->linger) /* Linux: off leaves the time as it was */
        opts->linger_secs = (uint16_t)(linger.l_linger < 0            ? 0
                                       : linger.l_linger > UINT16_MAX ? UINT16_MAX
                                                                      : linger.l_linger);
    option_changed(c);
    return 0;
}

static int64_t get_linger(struct call *c, void *val, socklen_t *len)
{
    if (c->us->conn == NULL && c->us->listener == NULL)
        return CALL_PASS;
    const struct tcp_opts *opts = option_opts(c);
    const struct linger linger = {.l_onoff = opts->linger, .l_linger = opts->linger_secs};
    return option_give(val, len, &linger, sizeof(linger));
}

static int64_t get_error(struct call *c, void *val, socklen_t *len)
{
    if (c->us->kind == USOCK_LISTENER) {
        const int err = c->us->listen_error;
        c->us->listen_error = 0;
        return give_int(err, val, len);
    }
    if (c->us->conn == NULL)
        return CALL_PASS;
    return give_int(tcp_take_error(c->us->conn), val, len);
}

static int64_t get_acceptconn(struct call *c, void *val, socklen_t *len)
{
    return give_int(c->us->kind == USOCK_LISTENER, val, len);
}

static int set_device(struct call *c, const void *val, socklen_t len)
{
    struct ifreq request = {0};
    memcpy(request.ifr_name, val, len < IFNAMSIZ ? len : IFNAMSIZ - 1);
    if (request.ifr_name[0] == '\0')
        c->us->bound_ifindex = 0;
    else if (raw_syscall(SYS_ioctl, c->fd, SIOCGIFINDEX, (long)&request, 0, 0, 0) == 0)
        c->us->bound_ifindex = (uint32_t)request.ifr_ifindex;
    return 0;
}

static int set_ifindex(struct call *c, const void *val, socklen_t len)
{
    (void)len;
    c->us->bound_ifindex = (uint32_t)int_of(val);
    return 0;
}

/* The kernel clamps and doubles; the program's wish ends autotuning. */
static int set_buffer(struct call *c, int name, bool receive)
{
    struct tcp_opts *opts = option_opts(c);
    if (opts == NULL)
        return -ENOBUFS;
    int value = 0;
    socklen_t len = sizeof(value);
    raw_getsockopt(c->fd, SOL_SOCKET, name, &value, &len);
    if (receive) {
        opts->rcvbuf = (uint32_t)value;
        opts->rcvbuf_locked = true;
    } else {
        opts->sndbuf = (uint32_t)value;
        opts->sndbuf_locked = true;
    }
    option_changed(c);
    return 0;
}

static int set_sndbuf(struct call *c, const void *val, socklen_t len)
{
    (void)val, (void)len;
    return set_buffer(c, SO_SNDBUF, false);
}

static int set_rcvbuf(struct call *c, const void *val, socklen_t len)
{
    (void)val, (void)len;
    return set_buffer(c, SO_RCVBUF, true);
}

/* IP_TOS: ECN's bits stay as they are, and SO_PRIORITY follows (Linux's ip_sock_set_tos()). */
static int set_tos(struct call *c, const void *val, socklen_t len)
{
    (void)val, (void)len;
    struct tcp_opts *opts = option_opts(c);
    if (opts == NULL)
        return -ENOBUFS;
    int value = opts->tos;
    socklen_t size = sizeof(value);
    raw_getsockopt(c->fd, IPPROTO_IP, IP_TOS, &value, &size);
    opts->tos = (uint8_t)value;
    value = opts->priority;
    raw_getsockopt(c->fd, SOL_SOCKET, SO_PRIORITY, &value, &size);
    opts->priority = (uint8_t)value;
    option_changed(c);
    return 0;
}

/* Linux's tcp_set_rcvlowat(): what is there may be enough now, and who waits must hear of it. */
static int set_rcvlowat(struct call *c, const void *val, socklen_t len)
{
    (void)val, (void)len;
    struct tcp_opts *opts = option_opts(c);
    if (opts == NULL)
        return -ENOBUFS;
    int value = 0;
    socklen_t size = sizeof(value);
    raw_getsockopt(c->fd, SOL_SOCKET, SO_RCVLOWAT, &value, &size);
    opts->rcvlowat = (uint32_t)value;
    if (c->us->conn != NULL && (tcp_poll(c->us->conn) & TCP_EV_IN) != 0)
        wait_notify(&c->cx, c->us, TCP_EV_IN | TCP_EV_PRI);
    return 0;
}

/* As the buffers are now, autotuning included. */
static int64_t get_buffer(struct call *c, bool receive, void *val, socklen_t *len)
{
    if (c->us->kind != USOCK_CONN)
        return CALL_PASS;
    struct tcp_view view;
    tcp_view(&c->cx, c->us->conn, &view);
    return give_int((int)(receive ? view.rcvbuf : view.sndbuf), val, len);
}

static int64_t get_sndbuf(struct call *c, void *val, socklen_t *len)
{
    return get_buffer(c, false, val, len);
}

static int64_t get_rcvbuf(struct call *c, void *val, socklen_t *len)
{
    return get_buffer(c, true, val, len);
}

static int64_t get_maxseg(struct call *c, void *val, socklen_t *len)
{
    if (c->us->kind != USOCK_CONN || tcp_state(c->us->conn) == TCP_CLOSED)
        return CALL_PASS;
    return give_int((int)tcp_mss(c->us->conn), val, len);
}

static int set_nodelay(struct call *c, const void *val, socklen_t len)
{
    (void)len;
    struct tcp_opts *opts = option_opts(c);
    if (opts == NULL)
        return -ENOBUFS;
    opts->nodelay = int_of(val) != 0;
    if (opts->nodelay && c->us->conn != NULL)
        tcp_push(&c->cx, c->us->conn);
    return 0;
}

static int set_quickack(struct call *c, const void *val, socklen_t len)
{
    (void)len;
    struct tcp_opts *opts = option_opts(c);
    if (opts == NULL)
        return -ENOBUFS;
    const bool on = (int_of(val) & 1) != 0;
    opts->quickack_off = !on;
    if (c->us->conn != NULL)
        tcp_quickack(&c->cx, c->us->conn, on);
    return 0;
}

static int64_t get_quickack(struct call *c, void *val, socklen_t *len)
{
    if (c->us->conn == NULL && c->us->listener == NULL)
        return CALL_PASS;
    return give_int(!option_opts(c)->quickack_off, val, len);
}

/* Linux's TCP_CA_NAME_MAX */
#define CC_NAME_MAX 16

static int set_congestion(struct call *c, const void *val, socklen_t len)
{
    const int id = cc_by_name(val, strnlen(val, len < CC_NAME_MAX ? len : CC_NAME_MAX - 1));
    if (id < 0)
        return -ENOENT; /* the kernel may have algorithms that the engine lacks */
    struct tcp_opts *opts = option_opts(c);
    if (opts == NULL)
        return -ENOBUFS;
    opts->cc = (uint8_t)id;
    return c->us->conn != NULL ? tcp_set_cc(&c->cx, c->us->conn, (uint8_t)id) : 0;
}

static int64_t get_congestion(struct call *c, void *val, socklen_t *len)
{
    char name[CC_NAME_MAX] = {0};
    const struct tcp_opts *opts = option_opts(c);
    if (opts == NULL)
        return CALL_PASS;
    strncpy(name, cc_ops(opts->cc)->name, sizeof(name) - 1);
    return option_give(val, len, name, sizeof(name));
}

/* 4 bytes or 8, bytes a second; all ones: no limit (Linux: sk_setsockopt()). */
static int set_max_pacing(struct call *c, const void *val, socklen_t len)
{
    struct tcp_opts *opts = option_opts(c);
    if (opts == NULL)
        return -ENOBUFS;
    uint64_t rate = 0;
    if (len >= sizeof(rate))
        memcpy(&rate, val, sizeof(rate));
    else
        rate = *(const uint32_t *)val == UINT32_MAX ? UINT64_MAX : *(const uint32_t *)val;
    opts->max_pacing =
        rate == UINT64_MAX ? 0 : (uint32_t)min_u64(max_u64(rate >> CC_RATE_SHIFT, 1), UINT32_MAX);
    option_changed(c);
    return 0;
}

/* 0 stands for the system's default: no limit. */
static int set_notsent_lowat(struct call *c, const void *val, socklen_t len)
{
    (void)len;
    struct tcp_opts *opts = option_opts(c);
    if (opts == NULL)
        return -ENOBUFS;
    const uint32_t lowat = (uint32_t)int_of(val);
    opts->notsent_lowat = lowat == 0            ? UINT32_MAX
                          : lowat == UINT32_MAX ? UINT32_MAX - 1 /* told from the default */
                                                : lowat;
    option_changed(c);
    return 0;
}

static int64_t get_notsent_lowat(struct call *c, void *val, socklen_t *len)
{
    if (c->us->conn == NULL && c->us->listener == NULL)
        return CALL_PASS;
    const uint32_t lowat = option_opts(c)->notsent_lowat;
    return give_int(lowat == UINT32_MAX ? 0 : lowat == UINT32_MAX - 1 ? -1 : (int)lowat, val, len);
}

static int set_mtu_discover(struct call *c, const void *val, socklen_t len)
{
    struct tcp_opts *opts = option_opts(c);
    if (opts == NULL)
        return -ENOBUFS;
    opts->pmtu_dont = len >= sizeof(int) && int_of(val) == IP_PMTUDISC_DONT;
    option_changed(c);
    return 0;
}

static int64_t get_mtu(struct call *c, void *val, socklen_t *len)
{
    if (c->us->kind != USOCK_CONN || tcp_state(c->us->conn) == TCP_CLOSED)
        return CALL_PASS; /* ENOTCONN */
    return give_int((int)tcp_path_mtu(c->cx.st, c->us->conn), val, len);
}

/* A common socket's is its mark. */
static int64_t get_user_timeout(struct call *c, void *val, socklen_t *len)
{
    if (c->us->conn == NULL && c->us->listener == NULL)
        return c->us->shares ? give_int(0, val, len) : CALL_PASS;
    return give_int((int)option_opts(c)->user_timeout, val, len);
}

static int64_t get_cookie(struct call *c, void *val, socklen_t *len)
{
    (void)val, (void)len;
    const int r = backing_own(c->us, c->fd);
    return r < 0 ? r : CALL_PASS;
}

static int set_v6only(struct call *c, const void *val, socklen_t len)
{
    (void)len;
    c->us->v6only = int_of(val) != 0;
    return 0;
}

/* TCP_FASTOPEN: how many, once it listens. */
static int set_fastopen(struct call *c, const void *val, socklen_t len)
{
    (void)len;
    struct tcp_opts *opts = option_opts(c);
    if (opts == NULL)
        return -ENOBUFS;
    const int n = int_of(val);
    opts->fastopen = (uint8_t)(n < 0 ? 0 : n > 255 ? 255 : n);
    return 0;
}

static int set_fastopen_connect(struct call *c, const void *val, socklen_t len)
{
    (void)len;
    struct tcp_opts *opts = option_opts(c);
    if (opts == NULL)
        return -ENOBUFS;
    if (!tcp_fastopen_client(c->cx.st))
        return -EOPNOTSUPP;
    opts->fastopen_connect = int_of(val) != 0;
    return 0;
}

static int set_fastopen_no_cookie(struct call *c, const void *val, socklen_t len)
{
    (void)len;
    struct tcp_opts *opts = option_opts(c);
    if (opts == NULL)
        return -ENOBUFS;
    opts->fastopen_no_cookie = int_of(val) != 0;
    return 0;
}

static int set_inq(struct call *c, const void *val, socklen_t len)
{
    (void)len;
    struct tcp_opts *opts = option_opts(c);
    if (opts == NULL)
        return -ENOBUFS;
    opts->inq = int_of(val) != 0;
    return 0;
}

static int set_zerocopy(struct call *c, const void *val, socklen_t len)
{
    (void)len;
    struct tcp_opts *opts = option_opts(c);
    if (opts == NULL)
        return -ENOBUFS;
    opts->zerocopy = int_of(val) != 0;
    return 0;
}

static int64_t get_zerocopy(struct call *c, void *val, socklen_t *len)
{
    if (c->us->conn == NULL && c->us->listener == NULL)
        return CALL_PASS;
    return give_int(option_opts(c)->zerocopy, val, len);
}

/* Before listen() the backing socket keeps it: listen_in_engine(). */
static int set_fastopen_key(struct call *c, const void *val, socklen_t len)
{
    c->us->fastopen_keyed = true;
    if (c->us->listener != NULL && len >= TCP_FASTOPEN_KEY_LEN)
        tcp_listener_set_fastopen_key(c->us->listener, val);
    return 0;
}

#define AT(field) offsetof(struct tcp_opts, field)

/* clang-format off */
const struct option options[] = {
    /* level, name, field, flags, offset, set, get */
    {IPPROTO_TCP, TCP_NODELAY,       FIELD_BOOL, OPTION_HOT | OPTION_JUDGED, AT(nodelay), set_nodelay, NULL},
    {IPPROTO_TCP, TCP_CORK,          FIELD_BOOL, OPTION_HOT | OPTION_JUDGED, AT(cork), NULL, NULL},
    {IPPROTO_TCP, TCP_QUICKACK,      FIELD_NONE, OPTION_HOT, 0, set_quickack, get_quickack},
    {IPPROTO_TCP, TCP_INFO,          FIELD_NONE, 0, 0, NULL, option_get_tcp_info},
    {IPPROTO_TCP, TCP_MAXSEG,        FIELD_U16,  0, AT(user_mss), NULL, get_maxseg},
    {IPPROTO_TCP, TCP_KEEPIDLE,      FIELD_U16,  OPTION_ZERO_DEFAULT | OPTION_JUDGED, AT(keepidle), NULL, NULL},
    {IPPROTO_TCP, TCP_KEEPINTVL,     FIELD_U16,  OPTION_ZERO_DEFAULT | OPTION_JUDGED, AT(keepintvl), NULL, NULL},
    {IPPROTO_TCP, TCP_KEEPCNT,       FIELD_U8,   OPTION_ZERO_DEFAULT | OPTION_JUDGED, AT(keepcnt), NULL, NULL},
    {IPPROTO_TCP, TCP_SYNCNT,        FIELD_U8,   OPTION_ZERO_DEFAULT | OPTION_JUDGED, AT(syncnt), NULL, NULL},
    {IPPROTO_TCP, TCP_LINGER2,       FIELD_I32,  OPTION_ZERO_DEFAULT | OPTION_READBACK, AT(linger2), NULL, NULL},
    {IPPROTO_TCP, TCP_DEFER_ACCEPT,  FIELD_U16,  OPTION_READBACK, AT(defer_accept), NULL, NULL},
    {IPPROTO_TCP, TCP_WINDOW_CLAMP,  FIELD_U32,  OPTION_READBACK, AT(window_clamp), NULL, NULL},
    {IPPROTO_TCP, TCP_USER_TIMEOUT,  FIELD_U32,  OPTION_JUDGED, AT(user_timeout), NULL, get_user_timeout},
    {IPPROTO_TCP, OPT_RTO_MAX_MS,    FIELD_U32,  OPTION_ZERO_DEFAULT, AT(rto_max), NULL, NULL},
    {IPPROTO_TCP, TCP_CONGESTION,    FIELD_NONE, OPTION_OURS, 0, set_congestion, get_congestion},
    {IPPROTO_TCP, TCP_NOTSENT_LOWAT, FIELD_NONE, 0, 0, set_notsent_lowat, get_notsent_lowat},
    {IPPROTO_TCP, TCP_FASTOPEN,      FIELD_NONE, 0, 0, set_fastopen, NULL},
    {IPPROTO_TCP, TCP_FASTOPEN_CONNECT, FIELD_NONE, 0, 0, set_fastopen_connect, NULL},
    {IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, FIELD_NONE, 0, 0, set_fastopen_no_cookie, NULL},
    {IPPROTO_TCP, TCP_FASTOPEN_KEY,  FIELD_NONE, 0, 0, set_fastopen_key, NULL},
    {IPPROTO_TCP, TCP_MD5SIG,        FIELD_NONE, OPTION_REFUSED, 0, NULL, NULL},
    {IPPROTO_TCP, TCP_MD5SIG_EXT,    FIELD_NONE, OPTION_REFUSED, 0, NULL, NULL},
    {IPPROTO_TCP, TCP_REPAIR,        FIELD_NONE, OPTION_REFUSED, 0, NULL, NULL},
    {IPPROTO_TCP, TCP_ULP,           FIELD_NONE, OPTION_REFUSED, 0, NULL, NULL},
    {IPPROTO_TCP, TCP_INQ,           FIELD_NONE, 0, 0, set_inq, NULL},
    {IPPROTO_TCP, TCP_ZEROCOPY_RECEIVE, FIELD_NONE, OPTION_REFUSED, 0, NULL, NULL},

    {SOL_SOCKET, SO_COOKIE,          FIELD_NONE, 0, 0, NULL, get_cookie},
    {SOL_SOCKET, SO_ERROR,           FIELD_NONE, 0, 0, NULL, get_error},
    {SOL_SOCKET, SO_REUSEADDR,       FIELD_NONE, 0, 0, set_reuseaddr, get_reuseaddr},
    {SOL_SOCKET, SO_REUSEPORT,       FIELD_NONE, 0, 0, set_reuseport, get_reuseport},
    {SOL_SOCKET, SO_KEEPALIVE,       FIELD_BOOL, OPTION_JUDGED, AT(keepalive), NULL, NULL},
    {SOL_SOCKET, SO_OOBINLINE,       FIELD_BOOL, OPTION_JUDGED, AT(oobinline), NULL, NULL},
    {SOL_SOCKET, SO_LINGER,          FIELD_NONE, OPTION_JUDGED, 0, set_linger, get_linger},
    {SOL_SOCKET, SO_RCVTIMEO,        FIELD_NONE, 0, 0, set_rcvtimeo, get_rcvtimeo},
    {SOL_SOCKET, SO_SNDTIMEO,        FIELD_NONE, 0, 0, set_sndtimeo, get_sndtimeo},
    {SOL_SOCKET, OPT_RCVTIMEO_NEW,   FIELD_NONE, 0, 0, set_rcvtimeo, get_rcvtimeo},
    {SOL_SOCKET, OPT_SNDTIMEO_NEW,   FIELD_NONE, 0, 0, set_sndtimeo, get_sndtimeo},
    {SOL_SOCKET, SO_SNDBUF,          FIELD_NONE, 0, 0, set_sndbuf, get_sndbuf},
    {SOL_SOCKET, SO_SNDBUFFORCE,     FIELD_NONE, 0, 0, set_sndbuf, NULL},
    {SOL_SOCKET, SO_RCVBUF,          FIELD_NONE, 0, 0, set_rcvbuf, get_rcvbuf},
    {SOL_SOCKET, SO_RCVBUFFORCE,     FIELD_NONE, 0, 0, set_rcvbuf, NULL},
    {SOL_SOCKET, SO_RCVLOWAT,        FIELD_U32,  0, AT(rcvlowat), set_rcvlowat, NULL},
    {SOL_SOCKET, SO_PRIORITY,        FIELD_U8,   0, AT(priority), NULL, NULL},
    {SOL_SOCKET, SO_ACCEPTCONN,      FIELD_NONE, 0, 0, NULL, get_acceptconn},
    {SOL_SOCKET, SO_MAX_PACING_RATE, FIELD_NONE, 0, 0, set_max_pacing, NULL},
    {SOL_SOCKET, SO_PEEK_OFF,        FIELD_NONE, 0, 0, set_peek_off, get_peek_off},
    {SOL_SOCKET, SO_BINDTODEVICE,    FIELD_NONE, 0, 0, set_device, NULL},
    {SOL_SOCKET, SO_BINDTOIFINDEX,   FIELD_NONE, 0, 0, set_ifindex, NULL},
    {SOL_SOCKET, SO_ZEROCOPY,        FIELD_NONE, 0, 0, set_zerocopy, get_zerocopy},
    {SOL_SOCKET, SO_TIMESTAMPING,    FIELD_NONE, OPTION_HOT, 0, option_set_timestamping, option_get_timestamping},
    {SOL_SOCKET, OPT_TIMESTAMPING_NEW, FIELD_NONE, OPTION_HOT, 0, option_set_timestamping_new, option_get_timestamping},
    /* The backing socket's filter is the guard's. */
    {SOL_SOCKET, SO_ATTACH_FILTER,   FIELD_NONE, OPTION_REFUSED, 0, NULL, NULL},
    {SOL_SOCKET, SO_ATTACH_BPF,      FIELD_NONE, OPTION_REFUSED, 0, NULL, NULL},
    {SOL_SOCKET, SO_DETACH_FILTER,   FIELD_NONE, OPTION_REFUSED, 0, NULL, NULL},
    {SOL_SOCKET, SO_LOCK_FILTER,     FIELD_NONE, OPTION_REFUSED, 0, NULL, NULL},

    {IPPROTO_IP, IP_TOS,             FIELD_U8,   0, AT(tos), set_tos, NULL},
    {IPPROTO_IP, IP_TTL,             FIELD_U8,   OPTION_READBACK | OPTION_ZERO_DEFAULT, AT(ttl), NULL, NULL},
    {IPPROTO_IP, IP_MTU_DISCOVER,    FIELD_NONE, 0, 0, set_mtu_discover, NULL},
    {IPPROTO_IP, IP_MTU,             FIELD_NONE, 0, 0, NULL, get_mtu},
    {IPPROTO_IPV6, IPV6_V6ONLY,      FIELD_NONE, 0, 0, set_v6only, NULL},
    {IPPROTO_IPV6, IPV6_MTU,         FIELD_NONE, 0, 0, NULL, get_mtu},
};
/* clang-format on */
const unsigned options_count = ARRAY_LEN(options);
