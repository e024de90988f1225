/*
 * The AF_PACKET link (packet(7)). One socket for all interfaces in shared address mode, bound to
 * one interface in own address mode. Opened with protocol 0, so that nothing arrives before the
 * options and the filter are set. Each frame carries a virtio-net header: frames of up to 64 KB and
 * partial checksums pass both ways. sendmsg and recvmsg beat the rings here (docs/architecture.md),
 * and where a frame can pass in one piece, sendto and recvfrom beat them: the kernel reads a list
 * of pieces with three copies, each checked.
 */
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <sys/uio.h>

#include "shim/core/fdtable.h"
#include "shim/core/raw.h"
#include "shim/core/shared.h"
#include "shim/link/aside.h"
#include "shim/link/batch.h"
#include "shim/link/filter.h"
#include "shim/link/interfaces.h"
#include "shim/link/link.h"
#include "shim/link/ports.h"
#include "shim/link/vnet.h"

#define RX_BYTES_MAX 131072
/* Behind a frame of PLACE_MIN so many are worth a look at their headers, to save a copy. */
#define LOOKS 8
/* Text that a program was told of, or is behind with, waits for it so long at most. */
#define PASSED_MAX NSEC_PER_MSEC
/* A frame below this is not a full one at Ethernet's MTU. */
#define RX_SHORT     1400
#define RCVBUF_BYTES (16 << 20)
#define SNDBUF_BYTES (4 << 20)
/* The IP header of an Ethernet frame is aligned when the frame begins here; */
#define RX_ALIGN 2
/* and it is behind a virtio-net header. */
#define VNET_BYTES sizeof(struct virtio_net_hdr)
_Static_assert((VNET_BYTES + ETH_HLEN) % 4 == 0, "alignment");
/* A frame up to this goes in one piece. */
#define PIECE_MAX 1536

struct af_packet {
    struct link link;
    bool vnet; /* virtio-net headers are on */
    bool own_address;
    uint32_t own_addr;      /* network order */
    uint32_t loopback;      /* ifindex of lo */
    struct port_set *ports; /* in the arena */
    bool stale;             /* the filter is older than `ports` */
    nsec_t refreshed;       /* when an unknown interface last made us look */
    uint64_t dropped;       /* frames that were truncated or malformed */
    unsigned looks;         /* frames that are worth a look before they are taken */
    bool left;              /* the next frame was left for another call to take */
    nsec_t passed;          /* since when it lies there although it was seen; 0: it was not */
};

static struct af_packet packet;
static bool by_messages; /* sendto and recvfrom are forbidden */
static uint8_t rx_buffer[RX_BYTES_MAX + RX_ALIGN] __attribute__((aligned(64)));
static struct sock_filter program[FILTER_MAX];

static struct af_packet *self(struct link *l)
{
    return container_of(l, struct af_packet, link);
}

/* Below the links that wrap it. */
static struct af_packet *bottom(struct link *l)
{
    return self(link_lowest(l));
}

static uint16_t ethertype(const struct netif *nif, const struct frame_out *f)
{
    const uint8_t *p = f->head + f->head_start;
    if (nif->kind == NETIF_ETHERNET)
        return get_be16(p + 12);
    return *p >> 4 == 6 ? ETH_P_IPV6 : ETH_P_IP;
}

/* The machine's interfaces changed: they are read again, at most once a second. */
static void look_again(struct af_packet *a, const struct stack_cx *cx)
{
    if (a->own_address || engine.sandboxed || cx->now < a->refreshed + NSEC_PER_SEC)
        return;
    a->refreshed = cx->now;
    link_refresh(&a->link, cx->st, 0);
}

void link_prepare_writing(struct link *l, struct stack *st)
{
    if (!self(l)->vnet)
        return;
    for (unsigned i = NETIF_LOOP + 1; i < NETIFS_MAX; i++) {
        const struct netif *nif = stack_netif(st, i);
        if (nif != NULL && nif->up && nif->ifindex != 0)
            (void)writer_make((uint8_t)i, nif->ifindex);
    }
}

static ssize_t send_frame(int fd, const struct frame_out *f, const struct msghdr *m)
{
    if (likely(!engine.sandboxed))
        return raw_sendmsg(fd, m, MSG_DONTWAIT | MSG_NOSIGNAL);
    const int writer = writer_of(f->netif);
    if (writer == 0)
        return -ENETDOWN;
    return raw_syscall(SYS_writev, writer, (long)m->msg_iov, (long)m->msg_iovlen, 0, 0, 0);
}

void link_by_messages(void)
{
    by_messages = true;
}

/* The frame, copied together. */
static ssize_t send_piece(int fd, const struct msghdr *m)
{
    uint8_t piece[VNET_BYTES + PIECE_MAX];
    size_t n = 0;
    for (size_t i = 0; i < m->msg_iovlen; i++) {
        memcpy(piece + n, m->msg_iov[i].iov_base, m->msg_iov[i].iov_len);
        n += m->msg_iov[i].iov_len;
    }
    return raw_sendto(fd, piece, n, MSG_DONTWAIT | MSG_NOSIGNAL, m->msg_name, m->msg_namelen);
}

/* The MTU of an interface changed, or it is down or gone. */
static bool shows_change(int err)
{
    return err == -EMSGSIZE || err == -ENETDOWN || err == -ENXIO;
}

/* So many frames that were to be sent later are lost; err: why one of them is. */
static void note_refused(struct link *l, struct stack_cx *cx, unsigned refused, int err)
{
    if (likely(refused == 0))
        return;
    for (unsigned i = 0; i < refused; i++)
        stack_count(cx->st, COUNT_TX_FAILED);
    if (shows_change(err))
        look_again(self(l), cx);
}

static void packet_flush(struct link *l, struct stack_cx *cx)
{
    int err = 0;
    if (batch_count() == 0)
        return;
    const unsigned refused = batch_send(cx->now, &err);
    note_refused(l, cx, refused, err);
}

/* A frame that others may follow in this pass waits for them. */
static bool keep(const struct netif *nif, const struct frame_out *f,
                 const struct virtio_net_hdr *vnet)
{
    if (!f->lasting || f->gso_size == 0 || engine.sandboxed || !batch_pays(f->payload_len) ||
        !batch_possible())
        return false;
    const int writer = writer_make(f->netif, nif->ifindex);
    if (writer == 0)
        return false;
    batch_add(writer, vnet, f);
    return true;
}

/* A segment that carries nothing but an acknowledgement. */
static bool acknowledges(const struct frame_out *f)
{
    return f->l4_proto == IPPROTO_TCP_ && f->payload_len == 0 &&
           (f->head[f->l4 + 13] & (TCP_SYN | TCP_FIN | TCP_RST)) == 0;
}

/* Perhaps by the service thread: see aside.h. */
static ssize_t send_ack(struct link *l, struct stack_cx *cx, const struct msghdr *m)
{
    int err = 0;
    if (aside_take(l->fd, m, cx->now)) {
        note_refused(l, cx, aside_refused(&err), err);
        return 0;
    }
    if (!aside_timed())
        return send_piece(l->fd, m);
    const nsec_t before = aside_clock();
    const ssize_t sent = send_piece(l->fd, m);
    const nsec_t after = aside_clock();
    aside_took(after, after - before);
    return sent;
}

static ssize_t send_any(struct link *l, struct stack_cx *cx, const struct frame_out *f,
                        const struct msghdr *m)
{
    const size_t len = (size_t)f->head_end - f->head_start + f->payload_len;
    const bool piece = len <= PIECE_MAX && likely(!engine.sandboxed && !by_messages);
    if (piece && acknowledges(f))
        return send_ack(l, cx, m);
    aside_flush(); /* in order */
    return piece ? send_piece(l->fd, m) : send_frame(l->fd, f, m);
}

static int packet_transmit(struct link *l, struct stack_cx *cx, const struct frame_out *f)
{
    struct af_packet *a = self(l);
    const struct netif *nif = stack_netif(cx->st, f->netif);
    const size_t head = (size_t)f->head_end - f->head_start;
    struct virtio_net_hdr vnet;
    struct iovec iov[2 + FRAME_SLICES_MAX];
    unsigned n = 0;
    if (!nif || !nif->up || nif->ifindex == 0)
        return -ENETDOWN;
    if (head + f->payload_len > FRAME_BYTES_MAX)
        return -EMSGSIZE;
    if (a->vnet) {
        vnet_describe(&vnet, f, cx->now);
        if (keep(nif, f, &vnet)) {
            if (batch_count() == BATCH_MAX)
                packet_flush(l, cx);
            return 0;
        }
        iov[n++] = (struct iovec){&vnet, sizeof(vnet)};
    }
    packet_flush(l, cx); /* in order */
    iov[n++] = (struct iovec){(void *)(uintptr_t)(f->head + f->head_start), head};
    for (unsigned i = 0; i < f->nslices; i++)
        iov[n++] = (struct iovec){f->slices[i].base, f->slices[i].len};
    struct sockaddr_ll to = {.sll_family = AF_PACKET,
                             .sll_protocol = htobe16(ethertype(nif, f)),
                             .sll_ifindex = (int)nif->ifindex,
                             .sll_halen = 6};
    struct msghdr m = {.msg_name = &to, .msg_namelen = sizeof(to), .msg_iov = iov, .msg_iovlen = n};
    ssize_t sent;
    do
        sent = send_any(l, cx, f, &m);
    while (sent == -EINTR ||
           (unlikely(sent < 0) && a->vnet && vnet_to_pages(&vnet, head, (int)sent, cx->now)));
    if (unlikely(sent < 0 && shows_change((int)sent)))
        look_again(a, cx);
    return sent < 0 ? (int)sent : 0;
}

/* What the virtio-net header of an arrived frame says. False: nothing that TCP could carry. */
static bool decode(const struct virtio_net_hdr *h, struct frame_in *f)
{
    f->csum_trusted = (h->flags & (VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID)) != 0;
    switch (h->gso_type & ~VIRTIO_NET_HDR_GSO_ECN) {
    case VIRTIO_NET_HDR_GSO_NONE:
        return true;
    case VIRTIO_NET_HDR_GSO_TCPV4:
    case VIRTIO_NET_HDR_GSO_TCPV6:
        f->gso_size = h->gso_size;
        return true;
    default:
        return false;
    }
}

/* The stack's interface for a frame. */
static int incoming_netif(struct af_packet *a, struct stack_cx *cx, uint32_t ifindex)
{
    int at = stack_netif_by_ifindex(cx->st, ifindex);
    if (likely(at > 0))
        return at;
    look_again(a, cx);
    return stack_netif_by_ifindex(cx->st, ifindex);
}

/* Whether the stack is to see a frame, and what it must know of it beside the bytes. */
static bool wanted(struct af_packet *a, struct stack_cx *cx, const struct sockaddr_ll *from,
                   const struct virtio_net_hdr *vnet, struct frame_in *f)
{
    if (from->sll_pkttype == PACKET_OUTGOING || from->sll_pkttype == PACKET_LOOPBACK ||
        (uint32_t)from->sll_ifindex == a->loopback)
        return false;
    if (a->vnet && !decode(vnet, f)) {
        a->dropped++;
        return false;
    }
    int netif = incoming_netif(a, cx, (uint32_t)from->sll_ifindex);
    if (netif <= 0)
        return false;
    f->netif = a->link.netif = (uint8_t)netif;
    return true;
}

/*
 * The next frame, behind its virtio-net header if there are such. As recvmsg(2) with MSG_TRUNC and
 * those flags; *truncated: not all of it had room.
 */
static ssize_t take(const struct af_packet *a, uint8_t *bytes, size_t room, int flags,
                    struct sockaddr_ll *from, bool *truncated)
{
    flags |= MSG_DONTWAIT | MSG_TRUNC;
    if (likely(!by_messages)) {
        socklen_t len = sizeof(*from);
        const ssize_t n = raw_recvfrom(a->link.fd, bytes, room, flags, from, &len);
        *truncated = n > (ssize_t)room;
        return n;
    }
    struct iovec iov = {bytes, room};
    struct msghdr m = {
        .msg_name = from, .msg_namelen = sizeof(*from), .msg_iov = &iov, .msg_iovlen = 1};
    const ssize_t n = raw_recvmsg(a->link.fd, &m, flags);
    *truncated = (m.msg_flags & MSG_TRUNC) != 0;
    return n;
}

/* ---- text that goes to its place at once (stack_foresee()) ---- */

/* What is seen of it: the virtio-net header and those of the segment. */
#define LOOK_BYTES (VNET_BYTES + FORESEEN_BYTES)

/* The frame that is next; where its text goes. */
struct coming {
    uint32_t announced; /* what tcp_announced_last() said when it was announced */
    struct sockaddr_ll from;
    ssize_t len; /* the virtio-net header included */
    struct frame_in frame;
    struct stack_place place;
    uint8_t head[LOOK_BYTES] __attribute__((aligned(8)));
    struct iovec iov[2 + TCP_PLACE_SLICES];
};

enum taking { TAKEN, LEFT, PLAIN /* by way of the buffer */, NOTHING };

/* What the last look found: good for the next call as long as it is announced. */
static struct coming coming;

/* Looks at the frame without taking it. */
static enum taking look_ahead(struct af_packet *a, struct stack_cx *cx, struct coming *c)
{
    struct virtio_net_hdr vnet;
    bool truncated;
    if (!tcp_any_foreseen(cx->st) || c->announced != tcp_announced_last(cx->st)) {
        c->len = take(a, c->head, sizeof(c->head), MSG_PEEK, &c->from, &truncated);
        if (c->len == -EAGAIN)
            return NOTHING;
    }
    if (c->len < (ssize_t)sizeof(c->head))
        return PLAIN;
    memcpy(&vnet, c->head, VNET_BYTES);
    c->frame = (struct frame_in){.data = c->head + VNET_BYTES,
                                 .len = (uint32_t)((size_t)c->len - VNET_BYTES)};
    return wanted(a, cx, &c->from, &vnet, &c->frame) && stack_foresee(cx, &c->frame, &c->place)
               ? TAKEN
               : PLAIN;
}

/*
 * The next text is another connection's than that of the call, which does not wait: its program is
 * told of it, and comes for it. Taken, it and all behind it would be copied twice.
 */
static bool tell_others(struct stack_cx *cx, struct coming *c, const struct drain *d)
{
    if (!d->stays || !d->reader->patient || c->place.len < PLACE_MIN ||
        c->place.conn == d->reader->us->conn || tcp_unread(c->place.conn) != 0)
        return false;
    if (tcp_announced(c->place.conn))
        return true;
    if (!tcp_announce(cx, c->place.conn, c->place.len))
        return false;
    c->announced = tcp_announced_last(cx->st);
    return true;
}

/* The reader has what it gets, or gets no more: who reads next need not look at the frame again. */
static void foresee_more(struct stack_cx *cx, struct coming *c, const struct drain *d)
{
    if (tell_others(cx, c, d) || !d->stays || c->place.len < PLACE_MIN ||
        c->place.conn != d->reader->us->conn)
        return;
    tcp_foresee_more(cx->st, c->place.conn);
    c->announced = tcp_announced_last(cx->st);
}

/* The program has something to do, and is yet to read what is in front of the text, or the text. */
static bool passing(const struct coming *c, const struct drain *d)
{
    return d->passing && c->place.len >= PLACE_MIN &&
           (tcp_announced(c->place.conn) || tcp_unread(c->place.conn) != 0);
}

/* Somebody will come for the text: he has time until then. */
static bool passes(struct af_packet *a, struct stack_cx *cx, struct coming *c,
                   const struct drain *d)
{
    if (!passing(c, d) && (d->reader == NULL || !tell_others(cx, c, d)))
        return false;
    if (a->passed == 0)
        a->passed = cx->now;
    return cx->now - a->passed < PASSED_MAX;
}

/*
 * Whether the frame had better stay for now: its text may go straight to a program that will read,
 * or read with more room. Not twice: nothing waits for one program's sake.
 */
static bool leaves(struct af_packet *a, struct stack_cx *cx, struct coming *c,
                   const struct drain *d, uint32_t direct)
{
    const struct reader *r = d->reader;
    if (direct == c->place.len)
        return false;
    if (r != NULL && r->got > 0) {
        if (direct > 0) /* a good part of it, see packet_receive() */
            return false;
        foresee_more(cx, c, d);
        return true;
    }
    if (passes(a, cx, c, d))
        return true;
    if (tcp_any_announced(cx->st))
        return false;
    if (!a->left && direct > 0 && r->patient && direct < c->place.len / 4)
        return a->left = true;
    if (!d->stays || d->woken == NULL || d->single || c->place.len < PLACE_MIN ||
        tcp_unread(c->place.conn) != 0 || !tcp_announce(cx, c->place.conn, c->place.len))
        return false;
    if (!*d->woken) {
        tcp_unannounce(cx->st);
        return false;
    }
    coming.announced = tcp_announced_last(cx->st);
    return true;
}

/* The bytes of the next text that the reader has room for: nothing is in front of them. */
static uint32_t direct_bytes(const struct stack_cx *cx, const struct coming *c,
                             const struct reader *r)
{
    if (r == NULL || r->us->conn != c->place.conn || tcp_unread(c->place.conn) != 0 ||
        stack_traces(cx, TRACE_BUFFER)) /* its lines tell of bytes that wait for their reader */
        return 0;
    return (uint32_t)min_u64(r->room.len, c->place.len);
}

/* The frame that was looked at is taken, its text to where it goes. */
static enum taking take_to_place(struct af_packet *a, struct stack_cx *cx, struct coming *c,
                                 struct reader *r)
{
    uint8_t head[LOOK_BYTES];
    struct stack_place *place = &c->place;
    c->iov[0] = (struct iovec){head, VNET_BYTES + place->head};
    unsigned n = 1;
    if (place->direct > 0)
        c->iov[n++] = (struct iovec){r->room.base, place->direct};
    if (place->direct < place->len) {
        struct slice rest[TCP_PLACE_SLICES];
        const unsigned slices =
            tcp_place_text(cx, place->conn, place->direct, place->len - place->direct, rest);
        if (slices == 0)
            return PLAIN;
        for (unsigned i = 0; i < slices; i++)
            c->iov[n++] = (struct iovec){rest[i].base, rest[i].len};
    }
    struct msghdr m = {.msg_iov = c->iov, .msg_iovlen = n};
    const ssize_t got = raw_recvmsg(a->link.fd, &m, MSG_DONTWAIT | MSG_TRUNC);
    tcp_unannounce(cx->st);
    a->left = false;
    a->passed = 0;
    if (c->len >= PLACE_MIN)
        a->looks = LOOKS;
    if (unlikely(got == -EFAULT && r != NULL && place->direct > 0)) {
        r->error = -EFAULT; /* the frame is lost, as on any wire; the next try has it again */
        return LEFT;
    }
    if (unlikely(got != c->len || memcmp(head, c->head, VNET_BYTES + place->head) != 0)) {
        a->dropped++;
        return TAKEN;
    }
    c->frame.place = place;
    link_input(&a->link, cx, &c->frame);
    if (r != NULL && place->taken && place->direct > 0) {
        r->got += place->direct;
        r->room.base = (uint8_t *)r->room.base + place->direct;
        r->room.len -= place->direct;
    }
    return TAKEN;
}

static enum taking receive_to_place(struct af_packet *a, struct stack_cx *cx, const struct drain *d)
{
    struct reader *r = d->reader;
    if (r != NULL && r->patient && r->room.len < PLACE_MIN / 4 && !a->left &&
        !tcp_any_announced(cx->st)) {
        a->left = true; /* see leaves(); here without a look */
        return LEFT;
    }
    const enum taking seen = look_ahead(a, cx, &coming);
    if (seen != TAKEN)
        return seen;
    const uint32_t direct = direct_bytes(cx, &coming, r);
    if (leaves(a, cx, &coming, d, direct))
        return LEFT;
    a->looks--;
    coming.place.direct = direct;
    return take_to_place(a, cx, &coming, r);
}

/* ---- by way of the buffer ---- */

/* What the system call said; negative: no frame came of it. */
static ssize_t receive_plain(struct af_packet *a, struct stack_cx *cx)
{
    struct virtio_net_hdr vnet = {.flags = 0};
    struct sockaddr_ll from = {.sll_ifindex = 0};
    const size_t extra = a->vnet ? VNET_BYTES : 0;
    uint8_t *bytes = rx_buffer + (a->vnet ? 0 : RX_ALIGN);
    bool truncated = false;
    const ssize_t n = take(a, bytes, RX_BYTES_MAX, 0, &from, &truncated);
    if (n == -EAGAIN) {
        tcp_unannounce(cx->st);
        return n;
    }
    if (n < (ssize_t)extra || truncated) {
        /* EINVAL: of a kind that the header cannot say; ENETDOWN: an interface went down */
        a->dropped += n != -EINTR;
        return n < 0 ? n : -EINVAL;
    }
    memcpy(&vnet, bytes, extra);
    struct frame_in f = {.data = bytes + extra, .len = (uint32_t)((size_t)n - extra)};
    tcp_unannounce(cx->st);
    a->left = false;
    a->passed = 0;
    if (n >= PLACE_MIN)
        a->looks = LOOKS;
    if (wanted(a, cx, &from, &vnet, &f))
        link_input(&a->link, cx, &f);
    return n;
}

static unsigned packet_receive(struct link *l, struct stack_cx *cx, unsigned max,
                               const struct drain *d)
{
    struct af_packet *a = self(l);
    /* A process that is killed half way must leave nobody else's receive buffer in its hands.
     * Without a drain there is no engine yet: the probe for an own address receives. */
    const bool places = d != NULL && a->vnet && l->upper == NULL &&
                        __atomic_load_n(&engine.sh->processes_live, __ATOMIC_RELAXED) <= 1;
    const struct reader *reader = d != NULL ? d->reader : NULL;
    unsigned taken = 0;
    /* a frame that cannot be had counts too: no stream of bad frames keeps us here */
    for (unsigned tries = 0; tries < max; tries++) {
        const enum taking how =
            d != NULL && places && a->looks > 0 ? receive_to_place(a, cx, d) : PLAIN;
        if (how == NOTHING || how == LEFT)
            break;
        if (how == PLAIN) {
            a->looks -= a->looks > 0;
            const ssize_t n = receive_plain(a, cx);
            if (n == -EAGAIN)
                break;
            if (n < 0)
                continue;
            if (d != NULL && d->single && *d->woken && n < RX_SHORT) {
                taken++;
                break;
            }
        }
        taken++;
        if (reader != NULL && reader->got > 0 && reader->room.len < PLACE_MIN) {
            if (places && d->stays && a->looks > 0 && look_ahead(a, cx, &coming) == TAKEN)
                foresee_more(cx, &coming, d);
            break;
        }
    }
    return taken;
}

static const struct link_ops packet_ops = {
    .name = "af_packet",
    .transmit = packet_transmit,
    .flush = packet_flush,
    .receive = packet_receive,
};

int link_filter_update(struct link *l)
{
    struct af_packet *a = bottom(l);
    if (!a->stale)
        return 0;
    struct filter_spec spec = {.own_address = a->own_address,
                               .own_addr = a->own_addr,
                               .loopback = a->loopback,
                               .ports = a->ports};
    struct sock_fprog prog = {.len = (uint16_t)filter_build(&spec, program), .filter = program};
    int err = raw_setsockopt(a->link.fd, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof(prog));
    if (err == -ENOMEM && !spec.own_address) {
        /* beyond net.core.optmem_max: a short program that passes more */
        spec.all_ports = true;
        prog.len = (uint16_t)filter_build(&spec, program);
        err = raw_setsockopt(a->link.fd, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof(prog));
    }
    a->stale = err < 0;
    return err;
}

/* The set changed: in own address mode no filter depends on it. */
static int ports_changed(struct af_packet *a, bool changed)
{
    a->stale = a->stale || (changed && !a->own_address);
    return link_filter_update(&a->link);
}

void link_filter_add_port(struct link *l, uint16_t port)
{
    struct af_packet *a = bottom(l);
    (void)ports_changed(a, ports_add(a->ports, port));
}

void link_filter_remove_port(struct link *l, uint16_t port)
{
    if (ports_has(bottom(l)->ports, port) && !tcp_port_in_use(engine.st, port))
        link_filter_sweep(l);
}

int link_filter_add_block(struct link *l, uint16_t low, uint16_t high)
{
    struct af_packet *a = bottom(l);
    if (!ports_add_block(a->ports, (struct port_range){low, high}))
        return -ENOSPC;
    return ports_changed(a, true);
}

void link_filter_forget(struct link *l)
{
    struct af_packet *a = self(l);
    a->ports->nports = a->ports->overflow = 0;
    a->ports->nblocks = min_u32(a->ports->nblocks, PORT_BLOCKS_MAX);
    a->stale = !a->own_address;
}

void link_filter_note(struct link *l, uint16_t port)
{
    ports_add(self(l)->ports, port);
}

void link_filter_sweep(struct link *l)
{
    struct af_packet *a = bottom(l);
    (void)ports_changed(a, ports_sweep(a->ports, engine.st));
}

void link_filter_narrow(struct link *l)
{
    struct af_packet *a = bottom(l);
    (void)ports_changed(a, ports_narrow(a->ports, engine.st));
}

void link_refresh(struct link *l, struct stack *st, uint32_t wanted)
{
    struct af_packet *a = bottom(l);
    if (!a->own_address && ifaces_read() == 0)
        ifaces_sync(st, &config, a->vnet, wanted);
}

static int set_int(int fd, int level, int name, int value)
{
    return raw_setsockopt(fd, level, name, &value, sizeof(value));
}

/* Buffers beyond rmem_max need CAP_NET_ADMIN; without it as much as is allowed. */
static void set_buffers(int fd)
{
    if (set_int(fd, SOL_SOCKET, SO_RCVBUFFORCE, RCVBUF_BYTES) < 0)
        (void)set_int(fd, SOL_SOCKET, SO_RCVBUF, RCVBUF_BYTES);
    if (set_int(fd, SOL_SOCKET, SO_SNDBUFFORCE, SNDBUF_BYTES) < 0)
        (void)set_int(fd, SOL_SOCKET, SO_SNDBUF, SNDBUF_BYTES);
}

/* Socket and options; nothing arrives yet. */
static int open_socket(struct af_packet *a, const char **cure)
{
    int fd = raw_socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    if (fd == -EPERM || fd == -EACCES) {
        *cure = "the packet socket needs CAP_NET_RAW: run as root, or with it as an ambient "
                "capability (setpriv --inh-caps +net_raw --ambient-caps +net_raw; file "
                "capabilities would switch LD_PRELOAD off); TCPSHIM_FALLBACK=kernel does without";
        return fd;
    }
    if (fd < 0) {
        *cure = "this kernel or sandbox has no AF_PACKET sockets; TCPSHIM_FALLBACK=kernel uses the "
                "kernel's TCP";
        return fd;
    }
    if (set_int(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, 1) < 0) {
        *cure = "PACKET_IGNORE_OUTGOING is missing: Linux 4.20 or newer is needed";
        raw_close(fd);
        return -EOPNOTSUPP;
    }
    a->vnet = set_int(fd, SOL_PACKET, PACKET_VNET_HDR, 1) == 0;
    set_buffers(fd);
    a->link.fd = fd_make_internal(fd);
    return 0;
}

/* Filter first, then bind: nothing arrives that is not wanted. */
static int attach_and_bind(struct af_packet *a, uint32_t ifindex, const char **cure)
{
    struct sockaddr_ll at = {
        .sll_family = AF_PACKET, .sll_protocol = htobe16(ETH_P_ALL), .sll_ifindex = (int)ifindex};
    int err = link_filter_update(&a->link);
    if (err < 0) {
        *cure = "the packet socket takes no filter (SO_ATTACH_FILTER): is net.core.optmem_max low?";
        return err;
    }
    err = raw_bind(a->link.fd, &at, sizeof(at));
    if (err < 0)
        *cure = "the packet socket cannot be bound: is the interface gone?";
    return err;
}

static bool forwards(const char *ifname)
{
    char path[64], value = '0';
    snprintf(path, sizeof(path), "/proc/sys/net/ipv4/conf/%s/forwarding", ifname);
    int fd = raw_open(path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return false;
    (void)!raw_read(fd, &value, 1);
    raw_close(fd);
    return value == '1';
}

/*
 * A kernel that forwards would route frames for our address and tell their senders that it is
 * unreachable. There the stack takes a MAC address of its own, whose frames the kernel ignores.
 */
static void take_own_mac(struct af_packet *a, const struct config *cfg, struct netif *nif)
{
    struct packet_mreq join = {
        .mr_ifindex = (int)nif->ifindex, .mr_type = PACKET_MR_UNICAST, .mr_alen = 6};
    uint8_t mac[6] = {0x02, nif->mac[5]}; /* locally administered (IEEE 802) */
    memcpy(&mac[2], &cfg->addr.b[12], 4);
    memcpy(join.mr_address, mac, sizeof(mac));
    if (raw_setsockopt(a->link.fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &join, sizeof(join)) == 0)
        memcpy(nif->mac, mac, sizeof(mac));
}

static int open_own(struct af_packet *a, struct stack *st, const struct config *cfg,
                    const char **cure)
{
    static char text[200];
    struct netif nif;
    int err = 0;
    const struct iface *i = iface_choose(cfg, text, sizeof(text), &err);
    if (!i) {
        *cure = text;
        return -err;
    }
    a->own_addr = ip_addr_v4(&cfg->addr);
    iface_to_netif(i, a->vnet, &nif);
    nif.answers_arp = true;
    nif.gateway = cfg->gateway;
    nif.naddrs = 1;
    nif.addrs[0].addr = cfg->addr;
    nif.addrs[0].prefix = cfg->prefix;
    if (nif.kind == NETIF_ETHERNET && forwards(i->name))
        take_own_mac(a, cfg, &nif);
    int at = stack_add_netif(st, &nif);
    return at < 0 ? at : attach_and_bind(a, nif.ifindex, cure);
}

static int open_shared(struct af_packet *a, struct stack *st, const struct config *cfg,
                       const char **cure)
{
    static char text[200];
    int err = 0;
    if (cfg->ifname[0] && !iface_choose(cfg, text, sizeof(text), &err)) {
        *cure = text;
        return -err;
    }
    ifaces_sync(st, cfg, a->vnet, 0);
    return attach_and_bind(a, 0, cure);
}

int link_af_packet_open(struct stack *st, const struct config *cfg, struct link **out,
                        const char **cure)
{
    struct af_packet *a = &packet;
    *a = (struct af_packet){
        .link = {.ops = &packet_ops, .fd = -1}, .own_address = cfg->own_address, .stale = true};
    int err = ifaces_read();
    if (err < 0) {
        *cure = "the machine's interfaces cannot be read over rtnetlink";
        return err;
    }
    a->loopback = iface_loopback();
    a->ports = &((struct shared *)stack_extra(st))->ports;
    err = open_socket(a, cure);
    if (err < 0)
        return err;
    err = cfg->own_address ? open_own(a, st, cfg, cure) : open_shared(a, st, cfg, cure);
    if (err < 0) {
        fd_release_internal(a->link.fd);
        return err;
    }
    *out = &a->link;
    return 0;
}

int link_af_packet_attach(struct stack *st, int fd, const struct config *cfg, struct link **out)
{
    struct af_packet *a = &packet;
    int vnet = 0;
    socklen_t len = sizeof(vnet);
    *a = (struct af_packet){.link = {.ops = &packet_ops, .fd = fd},
                            .own_address = cfg->own_address,
                            .ports = &((struct shared *)stack_extra(st))->ports};
    int err = raw_getsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &vnet, &len);
    a->vnet = vnet != 0;
    if (err == 0)
        err = ifaces_read();
    a->loopback = iface_loopback();
    *out = &a->link;
    return err;
}
