#include "shim/link/segment.h"

#include "stack/util/checksum.h"

#define IP4_HEADER_MIN 20u
#define IP6_HEADER     40u
#define TCP_HEADER_MIN 20u
#define PROTO_TCP      6
#define ETH_ADDRS      12u

/* Offsets in the IPv4 header (RFC 791 3.1) and the TCP header (RFC 9293 3.1). */
enum { IP4_TOTAL = 2, IP4_ID = 4, IP4_FRAGMENT = 6, IP4_PROTO = 9, IP4_SUM = 10, IP4_SRC = 12 };
enum { IP6_LEN = 4, IP6_NEXT = 6, IP6_SRC = 8 };
enum { T_SEQ = 4, T_ACK = 8, T_OFFSET = 12, T_FLAGS = 13, T_WND = 14, T_SUM = 16, T_URG = 18 };

static struct ip_addr read_v4(const uint8_t *p)
{
    uint32_t v4;
    memcpy(&v4, p, sizeof(v4));
    return ip_addr_from_v4(v4);
}

/* The IP header: sets ip, l4, end and the addresses. */
static bool parse_ip(const uint8_t *frame, uint32_t len, uint32_t whole, struct segment *s)
{
    const uint8_t *ip = frame + s->ip;
    if (len < s->ip + IP4_HEADER_MIN)
        return false;
    if (ip[0] >> 4 == 4) {
        const uint32_t header = (ip[0] & 15u) * 4;
        if (header < IP4_HEADER_MIN || ip[IP4_PROTO] != PROTO_TCP ||
            (get_be16(ip + IP4_FRAGMENT) & 0x3fff) != 0)
            return false;
        s->l4 = s->ip + header;
        s->end = s->ip + get_be16(ip + IP4_TOTAL);
        s->src = read_v4(ip + IP4_SRC);
        s->dst = read_v4(ip + IP4_SRC + 4);
    } else if (ip[0] >> 4 == 6 && len >= s->ip + IP6_HEADER && ip[IP6_NEXT] == PROTO_TCP) {
        s->l4 = s->ip + IP6_HEADER;
        s->end = s->l4 + get_be16(ip + IP6_LEN);
        memcpy(s->src.b, ip + IP6_SRC, 16);
        memcpy(s->dst.b, ip + IP6_SRC + 16, 16);
    } else {
        return false;
    }
    return s->end <= whole;
}

bool segment_parse(const uint8_t *frame, uint32_t len, uint32_t whole, uint32_t l2,
                   struct segment *s)
{
    s->ip = l2;
    if (!parse_ip(frame, len, whole, s) || s->l4 + TCP_HEADER_MIN > min_u32(len, s->end))
        return false;
    const uint8_t *tcp = frame + s->l4;
    s->text = s->l4 + (tcp[T_OFFSET] >> 4) * 4u;
    if (s->text < s->l4 + TCP_HEADER_MIN || s->text > min_u32(len, s->end))
        return false;
    s->sport = get_be16(tcp);
    s->dport = get_be16(tcp + 2);
    s->seq = get_be32(tcp + T_SEQ);
    s->ack = get_be32(tcp + T_ACK);
    s->flags = tcp[T_FLAGS];
    s->wnd = get_be16(tcp + T_WND);
    s->len = s->end - s->text;
    return true;
}

static uint64_t sum_of(const uint8_t *frame, const struct segment *s)
{
    const uint32_t len = s->end - s->l4;
    return csum_add(csum_pseudo(&s->src, &s->dst, PROTO_TCP, len), frame + s->l4, len, false);
}

void segment_checksum(uint8_t *frame, const struct segment *s)
{
    uint8_t *field = frame + s->l4 + T_SUM;
    memset(field, 0, 2);
    const uint16_t sum = (uint16_t)~csum_fold(sum_of(frame, s));
    memcpy(field, &sum, sizeof(sum));
}

bool segment_checksum_ok(const uint8_t *frame, const struct segment *s)
{
    return csum_fold(sum_of(frame, s)) == 0xffff;
}

/* Length, and where IPv4 is spoken the header's checksum. */
static void set_length(uint8_t *frame, const struct segment *s)
{
    uint8_t *ip = frame + s->ip;
    if (ip[0] >> 4 == 6) {
        put_be16(ip + IP6_LEN, (uint16_t)(s->end - s->l4));
        return;
    }
    put_be16(ip + IP4_TOTAL, (uint16_t)(s->end - s->ip));
    memset(ip + IP4_SUM, 0, 2);
    const uint16_t sum = (uint16_t)~csum_fold(csum_add(0, ip, s->l4 - s->ip, false));
    memcpy(ip + IP4_SUM, &sum, sizeof(sum));
}

uint32_t segment_cut(const uint8_t *frame, const struct segment *s, uint32_t at, uint32_t size,
                     uint8_t *out)
{
    const uint32_t n = min_u32(size, s->len - at);
    const bool last = at + n == s->len;
    struct segment piece = *s;
    uint8_t *tcp = out + s->l4;
    memcpy(out, frame, s->text);
    memcpy(out + s->text, frame + s->text + at, n);
    piece.end = s->text + n;
    put_be32(tcp + T_SEQ, s->seq + at);
    uint8_t flags = s->flags;
    if (!last)
        flags &= (uint8_t) ~(TCP_FIN | TCP_PSH);
    if (at > 0)
        flags &= (uint8_t)~TCP_CWR; /* RFC 3168 6.1.2 */
    const uint16_t urg = get_be16(tcp + T_URG);
    if (flags & TCP_URG) {
        if (urg < at)
            flags &= (uint8_t)~TCP_URG;
        put_be16(tcp + T_URG, urg < at ? 0 : (uint16_t)(urg - at));
    }
    tcp[T_FLAGS] = flags;
    if (size != 0 && out[s->ip] >> 4 == 4)
        put_be16(out + s->ip + IP4_ID, (uint16_t)(get_be16(frame + s->ip + IP4_ID) + at / size));
    set_length(out, &piece);
    segment_checksum(out, &piece);
    return piece.end;
}

void segment_set_window(uint8_t *frame, struct segment *s, uint16_t wnd)
{
    uint8_t *tcp = frame + s->l4;
    uint16_t before, after, sum;
    memcpy(&before, tcp + T_WND, 2);
    put_be16(tcp + T_WND, wnd);
    memcpy(&after, tcp + T_WND, 2);
    memcpy(&sum, tcp + T_SUM, 2);
    /* HC' = ~(~HC + ~m + m') */
    sum = (uint16_t)~csum_fold((uint64_t)(uint16_t)~sum + (uint16_t)~before + after);
    memcpy(tcp + T_SUM, &sum, 2);
    s->wnd = wnd;
}

static void swap_bytes(uint8_t *a, uint8_t *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const uint8_t t = a[i];
        a[i] = b[i];
        b[i] = t;
    }
}

uint32_t segment_make_rst(uint8_t *frame, uint32_t l2, struct segment *s, bool to_sender)
{
    uint8_t *ip = frame + s->ip, *tcp = frame + s->l4;
    const uint32_t next =
        s->seq + s->len + ((s->flags & TCP_SYN) != 0) + ((s->flags & TCP_FIN) != 0);
    if (to_sender) {
        const bool v6 = ip[0] >> 4 == 6;
        if (l2 >= ETH_ADDRS)
            swap_bytes(frame, frame + 6, 6);
        swap_bytes(ip + (v6 ? IP6_SRC : IP4_SRC), ip + (v6 ? IP6_SRC + 16 : IP4_SRC + 4),
                   v6 ? 16 : 4);
        swap_bytes(tcp, tcp + 2, 2);
        put_be32(tcp + T_SEQ, s->ack);
        put_be32(tcp + T_ACK, next);
    }
    s->end = s->l4 + TCP_HEADER_MIN;
    tcp[T_OFFSET] = TCP_HEADER_MIN / 4 << 4;
    tcp[T_FLAGS] = TCP_RST | TCP_ACK;
    memset(tcp + T_WND, 0, 2);
    memset(tcp + T_URG, 0, 2);
    set_length(frame, s);
    const uint32_t end = s->end;
    (void)segment_parse(frame, end, end, l2, s);
    segment_checksum(frame, s);
    return end;
}
