/* ICMP (RFC 792): echo for own addresses, and errors about packets of ours led to TCP. */
#include <errno.h>

#include "stack/ip/layer.h"
#include "stack/util/checksum.h"

#define ICMP_HEADER 8u

enum icmp_type {
    ICMP_ECHO_REPLY = 0,
    ICMP_UNREACHABLE = 3,
    ICMP_ECHO = 8,
    ICMP_TIME_EXCEEDED = 11,
    ICMP_PARAMETER_PROBLEM = 12,
};
#define ICMP_CODE_FRAG_NEEDED 4

/* Echo replies a second. */
#define ICMP_RATE 1000u

/* Linux's icmp_err_convert: what a destination unreachable of each code means. */
static const struct {
    int err;
    bool hard;
} unreachable[] = {
    [0] = {ENETUNREACH, false},   /* network */
    [1] = {EHOSTUNREACH, false},  /* host */
    [2] = {ENOPROTOOPT, true},    /* protocol */
    [3] = {ECONNREFUSED, true},   /* port */
    [4] = {EMSGSIZE, false},      /* fragmentation needed */
    [5] = {EOPNOTSUPP, false},    /* source route failed */
    [6] = {ENETUNREACH, true},    /* network unknown */
    [7] = {EHOSTDOWN, true},      /* host unknown */
    [8] = {ENONET, true},         /* source host isolated */
    [9] = {ENETUNREACH, true},    /* network prohibited */
    [10] = {EHOSTUNREACH, true},  /* host prohibited */
    [11] = {ENETUNREACH, false},  /* network, for this TOS */
    [12] = {EHOSTUNREACH, false}, /* host, for this TOS */
    [13] = {EHOSTUNREACH, true},  /* prohibited (RFC 1812 5.2.7.1) */
    [14] = {EHOSTUNREACH, true},  /* precedence violation */
    [15] = {EHOSTUNREACH, true},  /* precedence cutoff */
};

void icmp_init(struct stack *st, nsec_t now)
{
    st->ip.icmp_tokens = ICMP_RATE;
    st->ip.icmp_refilled = now;
}

/* One echo reply more? A token bucket that holds a second's worth. */
static bool rate_allows(struct stack_cx *cx)
{
    struct ip_stack *ip = &cx->st->ip;
    const uint64_t fresh = (cx->now - ip->icmp_refilled) / (NSEC_PER_SEC / ICMP_RATE);
    if (fresh >= ICMP_RATE) {
        ip->icmp_tokens = ICMP_RATE;
        ip->icmp_refilled = cx->now;
    } else if (fresh > 0) {
        ip->icmp_tokens = min_u32(ip->icmp_tokens + (uint32_t)fresh, ICMP_RATE);
        ip->icmp_refilled += fresh * (NSEC_PER_SEC / ICMP_RATE);
    }
    if (ip->icmp_tokens == 0)
        return false;
    ip->icmp_tokens--;
    return true;
}

/* One packet of a reply: an ICMP header or none, and a run of the data. */
static void send_echo_part(struct stack_cx *cx, const struct ip_out *how, const uint8_t *header,
                           const uint8_t *data, uint32_t len)
{
    struct frame_out frame;
    frame.l4_proto = IPPROTO_ICMP_;
    frame.l4 = FRAME_HEADROOM;
    frame.head_end = FRAME_HEADROOM;
    if (header != NULL) {
        memcpy(frame.head + FRAME_HEADROOM, header, ICMP_HEADER);
        frame.head_end += ICMP_HEADER;
    }
    frame.gso_size = 0;
    frame.lasting = false;
    frame.payload_len = len;
    frame.nslices = len > 0;
    frame.slices[0] = (struct slice){(void *)data, len};
    (void)ip_send(cx, how, &frame); /* lost like any other packet */
}

/* A reply beyond the MTU goes in fragments (RFC 791 3.2), as the request came. */
static void send_echo_fragments(struct stack_cx *cx, const struct ip_out *whole, uint8_t *header,
                                const uint8_t *data, uint32_t len, uint32_t mtu)
{
    const uint32_t most = (mtu - IP4_HEADER) & ~7u;
    const uint16_t check =
        (uint16_t)~csum_fold(csum_add(csum_add(0, header, ICMP_HEADER, false), data, len, false));
    memcpy(header + 2, &check, sizeof(check));
    struct ip_fragment part = {.id = (uint16_t)rng_u64(&cx->st->rng)};
    struct ip_out how = *whole;
    how.fragment = &part;
    uint32_t at = 0; /* in the ICMP message */
    while (at < ICMP_HEADER + len) {
        const bool first = at == 0;
        const uint32_t n = min_u32(most, ICMP_HEADER + len - at);
        const bool more = at + n < ICMP_HEADER + len;
        part.field = (uint16_t)(at / 8 | (more ? IP4_MF : 0));
        send_echo_part(cx, &how, first ? header : NULL, first ? data : data + at - ICMP_HEADER,
                       first ? n - ICMP_HEADER : n);
        at += n;
    }
}

/* RFC 1122 3.2.2.6: the data comes back as it came. */
static void echo_reply(struct stack_cx *cx, const struct ip_packet *p)
{
    const struct netif *nif = &cx->st->netifs[p->netif];
    if (!nif->answers_arp)
        return; /* a shared address: the kernel answers */
    if (!rate_allows(cx)) {
        ip_drop(cx, COUNT_ICMP_RATE, p->len);
        return;
    }
    stack_count(cx->st, COUNT_ICMP_IN);
    struct ip_path path;
    ip_path_reply(p, &path);
    const struct ip_out how = {
        .path = &path, .src = &p->dst, .dst = &p->src, .tos = p->tos, .ttl = 64};
    uint8_t header[ICMP_HEADER];
    memcpy(header, p->payload, ICMP_HEADER); /* identifier and sequence number */
    memset(header, 0, 4);
    header[0] = ICMP_ECHO_REPLY;
    const uint8_t *data = p->payload + ICMP_HEADER;
    const uint32_t len = p->len - ICMP_HEADER;
    if (IP4_HEADER + p->len > nif->mtu)
        send_echo_fragments(cx, &how, header, data, len, nif->mtu);
    else
        send_echo_part(cx, &how, header, data, len);
}

/*
 * Leads an error to the connection that the quoted packet is of. False: it quotes no packet that a
 * TCP of ours can have sent.
 */
static bool error_input(struct stack_cx *cx, const struct ip_packet *p, int err, bool hard,
                        uint32_t mtu)
{
    const uint8_t *quoted = p->payload + ICMP_HEADER;
    const uint32_t len = p->len - ICMP_HEADER;
    if (len < IP4_HEADER || quoted[0] >> 4 != 4)
        return false;
    const uint32_t header = (quoted[0] & 0x0fu) * 4u;
    /* RFC 792: 64 bits of the transport header are there, which hold the ports and SEQ */
    if (header < IP4_HEADER || len < header + 8)
        return false;
    if (quoted[9] != IPPROTO_TCP_ || (get_be16(quoted + 6) & IP4_OFFSET_MASK) != 0)
        return false;
    uint32_t src4, dst4;
    memcpy(&src4, quoted + 12, 4);
    memcpy(&dst4, quoted + 16, 4);
    const struct ip_addr src = ip_addr_from_v4(src4), dst = ip_addr_from_v4(dst4);
    if (!ip_is_local(cx->st, &src))
        return false;
    stack_count(cx->st, COUNT_ICMP_IN);
    tcp_icmp_error(cx, &src, &dst, quoted + header, len - header, err, hard, mtu);
    return true;
}

void icmp_input(struct stack_cx *cx, const struct ip_packet *p)
{
    /* never partial: the sum is checked even where the link vouches for TCP's */
    if (p->len < ICMP_HEADER || csum_fold(csum_add(0, p->payload, p->len, false)) != 0xffff) {
        ip_drop(cx, COUNT_BAD_ICMP, p->len);
        return;
    }
    const uint8_t type = p->payload[0], code = p->payload[1];
    bool good = true;
    TRACE(cx, LINK, NULL, ICMP_IN, type, code, get_be32(p->payload + 4));
    switch (type) {
    case ICMP_ECHO:
        echo_reply(cx, p);
        break;
    case ICMP_UNREACHABLE:
        if (code >= ARRAY_LEN(unreachable)) {
            good = false;
            break;
        }
        /* RFC 1191 4: the MTU of the next hop; 0 from routers older than that */
        good = error_input(cx, p, unreachable[code].err, unreachable[code].hard,
                           code == ICMP_CODE_FRAG_NEEDED ? get_be16(p->payload + 6) : 0);
        break;
    case ICMP_TIME_EXCEEDED:
        good = error_input(cx, p, EHOSTUNREACH, false, 0);
        break;
    case ICMP_PARAMETER_PROBLEM:
        good = error_input(cx, p, EPROTO, true, 0);
        break;
    default:
        /* echo replies are for the kernel's ping; source quench (RFC 6633) and redirect are ignored
         */
        break;
    }
    if (!good)
        ip_drop(cx, COUNT_BAD_ICMP, p->len);
}
