/* What happens on a host: its interface captured, its kernel sockets asked for (compare.h). */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pcap/pcap.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "shim/command/command.h"
#include "shim/command/compare/compare.h"
#include "shim/command/lab.h"

/* Headers only, with room for all options. */
#define SNAP_BYTES    192
#define CAPTURE_BYTES (16 << 20)
/* How often sock_diag is asked: alone, and beside the tracepoint, which does not show TIME_WAIT. */
#define POLL_MSEC          1
#define POLL_MSEC_BESIDE   4
#define TCP_SYN_RECV_STATE 3
#define KNOWN_MAX          4096

volatile sig_atomic_t observer_ended;

static void on_term(int number)
{
    (void)number;
    observer_ended = 1;
}

void observer_signals(void)
{
    sigaction(SIGTERM, &(struct sigaction){.sa_handler = on_term}, NULL);
    signal(SIGINT, SIG_IGN);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
}

/* A kernel socket that was seen. */
struct known {
    uint32_t local, peer; /* network order */
    uint16_t lport, pport;
    uint8_t state;
    bool seen; /* in this round */
};

struct watcher {
    int diag;
    FILE *states;
    bool tracepoint;
    struct known known[KNOWN_MAX];
    unsigned nknown;
    double now;
};

static double now_seconds(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void put_state(struct watcher *w, const struct known *k, unsigned from, unsigned to)
{
    char local[INET_ADDRSTRLEN], peer[INET_ADDRSTRLEN];
    inet_ntop(AF_INET, &k->local, local, sizeof(local));
    inet_ntop(AF_INET, &k->peer, peer, sizeof(peer));
    fprintf(w->states,
            "{\"t\":%.9f,\"pid\":0,\"class\":\"state\",\"ev\":\"state\",\"local\":\"%s:%u\","
            "\"peer\":\"%s:%u\",\"from\":\"%s\",\"to\":\"%s\",\"why\":\"seen by sock_diag\","
            "\"why_id\":\"sock_diag\"}\n",
            w->now, local, k->lport, peer, k->pport, kernel_state_name(from),
            kernel_state_name(to));
}

static void take_socket(struct watcher *w, const struct inet_diag_msg *m)
{
    const bool v6 = m->idiag_family == AF_INET6;
    const uint32_t *src = m->id.idiag_src, *dst = m->id.idiag_dst;
    if (v6 && (src[0] || src[1] || src[2] != htonl(0xFFFF)))
        return; /* not IPv4 in IPv6's clothes */
    struct known k = {.local = src[v6 ? 3 : 0],
                      .peer = dst[v6 ? 3 : 0],
                      .lport = ntohs(m->id.idiag_sport),
                      .pport = ntohs(m->id.idiag_dport),
                      .state = m->idiag_state,
                      .seen = true};
    if (k.pport == 0)
        return;
    for (unsigned i = 0; i < w->nknown; i++) {
        struct known *o = &w->known[i];
        if (o->local != k.local || o->peer != k.peer || o->lport != k.lport || o->pport != k.pport)
            continue;
        if (o->state != k.state)
            put_state(w, &k, o->state, k.state);
        *o = k;
        return;
    }
    if (w->nknown == KNOWN_MAX)
        return;
    w->known[w->nknown++] = k;
    put_state(w, &k, k.state == TCP_SYN_RECV_STATE ? TCP_LISTEN : TCP_CLOSE, k.state);
}

/* One round: all sockets of a family in the states that matter. */
static void ask_family(struct watcher *w, uint8_t family)
{
    struct {
        struct nlmsghdr head;
        struct inet_diag_req_v2 body;
    } request = {
        .head = {.nlmsg_len = sizeof(request),
                 .nlmsg_type = SOCK_DIAG_BY_FAMILY,
                 .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
        .body = {.sdiag_family = family,
                 .sdiag_protocol = IPPROTO_TCP,
                 .idiag_states = w->tracepoint ? 1U << TCP_TIME_WAIT | 1U << TCP_FIN_WAIT2 |
                                                     1U << TCP_SYN_RECV_STATE
                                               : ~(1U << TCP_LISTEN | 1U << TCP_CLOSE)},
    };
    if (send(w->diag, &request, sizeof(request), 0) < 0)
        return;
    for (;;) {
        static char reply[32768] __attribute__((aligned(8)));
        ssize_t got = recv(w->diag, reply, sizeof(reply), 0);
        if (got <= 0)
            return;
        unsigned n = (unsigned)got;
        for (struct nlmsghdr *h = (struct nlmsghdr *)reply; NLMSG_OK(h, n); h = NLMSG_NEXT(h, n)) {
            if (h->nlmsg_type == NLMSG_DONE || h->nlmsg_type == NLMSG_ERROR)
                return;
            take_socket(w, NLMSG_DATA(h));
        }
    }
}

static void ask(struct watcher *w)
{
    w->now = now_seconds();
    for (unsigned i = 0; i < w->nknown; i++)
        w->known[i].seen = false;
    ask_family(w, AF_INET);
    ask_family(w, AF_INET6);
    for (unsigned i = 0; i < w->nknown;) {
        struct known *k = &w->known[i];
        if (k->seen) {
            i++;
            continue;
        }
        if (!w->tracepoint)
            put_state(w, k, k->state, TCP_CLOSE);
        *k = w->known[--w->nknown];
    }
}

/* The interface, opened in the namespace that this thread is in. NULL: error says why. */
static pcap_t *open_capture(char *error)
{
    pcap_t *p = pcap_create("eth0", error);
    struct bpf_program program;
    if (!p)
        return NULL;
    pcap_set_snaplen(p, SNAP_BYTES);
    pcap_set_promisc(p, 0);
    pcap_set_immediate_mode(p, 1);
    pcap_set_buffer_size(p, CAPTURE_BYTES);
    pcap_set_tstamp_precision(p, PCAP_TSTAMP_PRECISION_NANO);
    int result = pcap_activate(p);
    if (result < 0) {
        snprintf(error, PCAP_ERRBUF_SIZE, "%s: %s", pcap_statustostr(result), pcap_geterr(p));
    } else if (pcap_compile(p, &program, "tcp or icmp", 1, PCAP_NETMASK_UNKNOWN) == 0) {
        pcap_setfilter(p, &program);
        pcap_freecode(&program);
        if (pcap_setnonblock(p, 1, error) == 0)
            return p;
    }
    pcap_close(p);
    return NULL;
}

/* What the kernel could not hand over is said in the trace. */
static void say_lost(pcap_t *p, FILE *states)
{
    struct pcap_stat stat;
    if (pcap_stats(p, &stat) == 0 && stat.ps_drop > 0)
        fprintf(states, "{\"ev\":\"lost\",\"count\":%u}\n", stat.ps_drop);
}

int observe_host(const char *where, const char *pcap, const char *states, bool tracepoint,
                 int ready)
{
    char error[PCAP_ERRBUF_SIZE] = "";
    observer_signals();
    if (lab_enter(where) != STATUS_OK)
        return STATUS_FAILED;
    pcap_t *p = open_capture(error);
    pcap_dumper_t *dumper = p ? pcap_dump_open(p, pcap) : NULL;
    static struct watcher watcher; /* the process has one */
    struct watcher *w = &watcher;
    if (!dumper) {
        dprintf(ready, "cannot capture: %s", p ? pcap_geterr(p) : error);
        return STATUS_FAILED;
    }
    w->tracepoint = tracepoint;
    w->diag = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    w->states = fopen(states, "we");
    if (w->diag < 0 || !w->states) {
        dprintf(ready, "%s", w->states ? "sock_diag is not permitted" : strerror(errno));
        return STATUS_FAILED;
    }
    close(ready);
    struct pollfd fd = {.fd = pcap_get_selectable_fd(p), .events = POLLIN};
    const double period = (tracepoint ? POLL_MSEC_BESIDE : POLL_MSEC) / 1e3;
    while (!observer_ended) {
        const double wait = w->now + period - now_seconds();
        poll(&fd, 1, wait > 0 ? (int)(wait * 1e3) + 1 : 0);
        pcap_dispatch(p, -1, pcap_dump, (u_char *)dumper);
        if (now_seconds() >= w->now + period)
            ask(w);
    }
    while (pcap_dispatch(p, -1, pcap_dump, (u_char *)dumper) > 0)
        ;
    ask(w);
    say_lost(p, w->states);
    pcap_dump_close(dumper);
    fclose(w->states);
    return STATUS_OK;
}
