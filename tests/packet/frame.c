#include "tests/packet/frame.h"

#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_ARP  0x0806
#define PROTO_ICMP     1
#define PROTO_TCP      6

uint32_t wire_sum(uint32_t sum, const void *data, size_t len)
{
    const uint8_t *p = data;
    uint64_t s = sum;
    for (; len >= 2; len -= 2, p += 2)
        s += (uint32_t)p[0] << 8 | p[1];
    if (len)
        s += (uint32_t)p[0] << 8;
    while (s >> 32)
        s = (s & 0xffffffff) + (s >> 32);
    return (uint32_t)s;
}

uint16_t wire_csum(uint32_t sum, const void *data, size_t len)
{
    uint64_t s = wire_sum(sum, data, len);
    while (s >> 16)
        s = (s & 0xffff) + (s >> 16);
    return (uint16_t)~s;
}

uint32_t wire_pseudo(uint32_t src, uint32_t dst, uint8_t proto, uint32_t len)
{
    return (src >> 16) + (src & 0xffff) + (dst >> 16) + (dst & 0xffff) + proto + len;
}

static void put_ether(uint8_t *out, const uint8_t dmac[6], const uint8_t smac[6], uint16_t type)
{
    memcpy(out, dmac, 6);
    memcpy(out + 6, smac, 6);
    put_be16(out + 12, type);
}

size_t wire_build_ip(uint8_t *out, uint32_t src, uint32_t dst, uint8_t proto, const void *payload,
                     size_t len, const uint8_t dmac[6], const uint8_t smac[6])
{
    put_ether(out, dmac, smac, ETHERTYPE_IPV4);
    uint8_t *ip = out + L2_LEN;
    memset(ip, 0, IP4_LEN);
    ip[0] = 0x45;
    put_be16(ip + 2, (uint16_t)(IP4_LEN + len));
    put_be16(ip + 6, 0x4000); /* DF */
    ip[8] = 64;
    ip[9] = proto;
    put_be32(ip + 12, src);
    put_be32(ip + 16, dst);
    put_be16(ip + 10, wire_csum(0, ip, IP4_LEN));
    if (len && payload != ip + IP4_LEN)
        memmove(ip + IP4_LEN, payload, len);
    return L2_LEN + IP4_LEN + len;
}

size_t wire_build_tcp(uint8_t *out, const struct wire_seg *s, const uint8_t dmac[6],
                      const uint8_t smac[6])
{
    uint8_t *t = out + L2_LEN + IP4_LEN;
    unsigned hlen = 20 + s->optlen;
    put_be16(t, s->sport);
    put_be16(t + 2, s->dport);
    put_be32(t + 4, s->seq);
    put_be32(t + 8, s->ack);
    t[12] = (uint8_t)(hlen / 4 << 4 | s->flags >> 8);
    t[13] = (uint8_t)s->flags;
    put_be16(t + 14, s->win);
    put_be16(t + 16, 0);
    put_be16(t + 18, s->urg);
    memcpy(t + 20, s->opts, s->optlen);
    if (s->len)
        memcpy(t + hlen, s->text, s->len);
    uint32_t total = hlen + s->len;
    put_be16(t + 16, wire_csum(wire_pseudo(s->src, s->dst, PROTO_TCP, total), t, total));
    size_t len = wire_build_ip(out, s->src, s->dst, PROTO_TCP, t, total, dmac, smac);
    uint8_t *ip = out + L2_LEN;
    ip[1] = s->tos;
    if (s->ttl)
        ip[8] = s->ttl;
    put_be16(ip + 10, 0);
    put_be16(ip + 10, wire_csum(0, ip, IP4_LEN));
    return len;
}

size_t wire_build_icmp(uint8_t *out, uint32_t src, uint32_t dst, uint8_t type, uint8_t code,
                       uint32_t rest, const void *body, size_t len, const uint8_t dmac[6],
                       const uint8_t smac[6])
{
    uint8_t *p = out + L2_LEN + IP4_LEN;
    p[0] = type;
    p[1] = code;
    put_be16(p + 2, 0);
    put_be32(p + 4, rest);
    memcpy(p + 8, body, len);
    put_be16(p + 2, wire_csum(0, p, 8 + len));
    return wire_build_ip(out, src, dst, PROTO_ICMP, p, 8 + len, dmac, smac);
}

size_t wire_build_arp(uint8_t *out, uint16_t op, const uint8_t smac[6], uint32_t sip,
                      const uint8_t tmac[6], uint32_t tip, const uint8_t dmac[6])
{
    put_ether(out, dmac, smac, ETHERTYPE_ARP);
    uint8_t *a = out + L2_LEN;
    put_be16(a, 1);
    put_be16(a + 2, ETHERTYPE_IPV4);
    a[4] = 6;
    a[5] = 4;
    put_be16(a + 6, op);
    memcpy(a + 8, smac, 6);
    put_be32(a + 14, sip);
    memcpy(a + 18, tmac, 6);
    put_be32(a + 24, tip);
    return L2_LEN + 28;
}

const char *wire_parse_tcp(const uint8_t *frame, size_t len, bool csum, struct wire_seg *out)
{
    memset(out, 0, sizeof(*out));
    if (len < L2_LEN + IP4_LEN + 20)
        return "frame too short for TCP";
    if (get_be16(frame + 12) != ETHERTYPE_IPV4)
        return "not IPv4";
    const uint8_t *ip = frame + L2_LEN;
    if (ip[0] != 0x45)
        return "IP version or header length";
    uint32_t total = get_be16(ip + 2);
    if (total != len - L2_LEN)
        return "IP total length does not match the frame";
    if (wire_csum(0, ip, IP4_LEN) != 0)
        return "IP header checksum";
    if (ip[9] != PROTO_TCP)
        return "not TCP";
    out->tos = ip[1];
    out->ttl = ip[8];
    out->src = get_be32(ip + 12);
    out->dst = get_be32(ip + 16);
    const uint8_t *t = ip + IP4_LEN;
    uint32_t tlen = total - IP4_LEN;
    if (csum && wire_csum(wire_pseudo(out->src, out->dst, PROTO_TCP, tlen), t, tlen) != 0)
        return "TCP checksum";
    unsigned hlen = (t[12] >> 4) * 4u;
    if (hlen < 20 || hlen > tlen)
        return "TCP data offset";
    out->sport = get_be16(t);
    out->dport = get_be16(t + 2);
    out->seq = get_be32(t + 4);
    out->ack = get_be32(t + 8);
    out->flags = (uint16_t)((t[12] & 1) << 8 | t[13]);
    out->win = get_be16(t + 14);
    out->urg = get_be16(t + 18);
    out->optlen = hlen - 20;
    memcpy(out->opts, t + 20, out->optlen);
    out->text = t + hlen;
    out->len = tlen - hlen;
    return NULL;
}

const char *wire_parse_opts(const struct wire_seg *s, struct wire_opts *out)
{
    memset(out, 0, sizeof(*out));
    for (unsigned i = 0; i < s->optlen;) {
        const uint8_t *o = s->opts + i;
        if (o[0] == 0)
            return NULL;
        if (o[0] == 1) {
            i++;
            continue;
        }
        if (i + 2 > s->optlen || o[1] < 2 || i + o[1] > s->optlen)
            return "option length";
        if (o[0] == 2 && o[1] == 4) {
            out->has_mss = true;
            out->mss = get_be16(o + 2);
        } else if (o[0] == 3 && o[1] == 3) {
            out->has_wscale = true;
            out->wscale = o[2];
        } else if (o[0] == 4 && o[1] == 2) {
            out->sack_ok = true;
        } else if (o[0] == 5 && o[1] >= 10 && (o[1] - 2) % 8 == 0) {
            out->nsack = (o[1] - 2u) / 8;
            for (unsigned k = 0; k < out->nsack; k++) {
                out->sack[k].start = get_be32(o + 2 + 8 * k);
                out->sack[k].end = get_be32(o + 6 + 8 * k);
            }
        } else if (o[0] == 8 && o[1] == 10) {
            out->has_ts = true;
            out->ts_val = get_be32(o + 2);
            out->ts_ecr = get_be32(o + 6);
        } else if (o[0] == 174 && o[1] <= 11 && (o[1] - 2) % 3 == 0) { /* what the engine sends */
            out->has_accecn = true;
            out->naccecn = (o[1] - 2u) / 3;
            for (unsigned k = 0; k < out->naccecn; k++)
                out->accecn[k] = (uint32_t)o[2 + 3 * k] << 16 | get_be16(o + 3 + 3 * k);
        } else if (o[0] == 34 && s->flags & 2 && o[1] <= 18 && o[1] % 2 == 0) { /* RFC 7413 */
        } else if (o[0] == 254 && s->flags & 2 && o[1] >= 4 &&
                   get_be16(o + 2) == 0xf989) { /* A.2 */
        } else {
            return "unknown option";
        }
        i += o[1];
    }
    return NULL;
}

void wire_fix_csums(uint8_t *frame, size_t len)
{
    if (len < L2_LEN + IP4_LEN || get_be16(frame + 12) != ETHERTYPE_IPV4)
        return;
    uint8_t *ip = frame + L2_LEN;
    unsigned ihl = (ip[0] & 15) * 4u;
    uint32_t total = get_be16(ip + 2);
    if (ihl < IP4_LEN || ihl > len - L2_LEN)
        return;
    put_be16(ip + 10, 0);
    put_be16(ip + 10, wire_csum(0, ip, ihl));
    if (total > len - L2_LEN || total < ihl)
        return;
    uint8_t *p = ip + ihl;
    uint32_t plen = total - ihl;
    if (ip[9] == PROTO_TCP && plen >= 20) {
        put_be16(p + 16, 0);
        uint32_t sum = wire_pseudo(get_be32(ip + 12), get_be32(ip + 16), PROTO_TCP, plen);
        put_be16(p + 16, wire_csum(sum, p, plen));
    } else if (ip[9] == PROTO_ICMP && plen >= 8) {
        put_be16(p + 2, 0);
        put_be16(p + 2, wire_csum(0, p, plen));
    }
}
