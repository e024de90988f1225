/* Segments out of captured frames, and captures out of files, through libpcap (read.h). */
/* Of a time of day: 2100. */
#define SECONDS_MAX INT64_C(4102444800)
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <pcap/pcap.h>
#include <string.h>

#include "shim/command/view/read.h"

enum {
    ETH_HEADER = 14,
    SLL_HEADER = 16,
    SLL2_HEADER = 20,
    TYPE_IPV4 = 0x0800,
    TYPE_IPV6 = 0x86DD,
    TYPE_VLAN = 0x8100,
    PROTO_TCP = 6,
    TCP_HEADER = 20,
};

static uint16_t be16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)be16(p) << 16 | be16(p + 2);
}

/* Bytes before the IP header; 0: not IP. At most caplen. */
static size_t link_header(int link, const uint8_t *f, size_t caplen)
{
    size_t n = 0;
    unsigned type = 0;
    switch (link) {
    case DLT_EN10MB:
        n = ETH_HEADER;
        if (caplen < n)
            return 0;
        type = be16(f + 12);
        while (type == TYPE_VLAN && caplen >= n + 4) {
            type = be16(f + n + 2);
            n += 4;
        }
        break;
    case DLT_LINUX_SLL:
        n = SLL_HEADER;
        type = caplen >= n ? be16(f + 14) : 0;
        break;
    case DLT_LINUX_SLL2:
        n = SLL2_HEADER;
        type = caplen >= n ? be16(f) : 0;
        break;
    case DLT_NULL:
    case DLT_LOOP:
        return 4 < caplen ? 4 : 0;
    default:
        return 0;
    }
    return type == TYPE_IPV4 || type == TYPE_IPV6 ? n : 0;
}

static const char *endpoint(const uint8_t *addr, int family, uint16_t port)
{
    char host[INET6_ADDRSTRLEN], text[INET6_ADDRSTRLEN + 10];
    inet_ntop(family, addr, host, sizeof(host));
    snprintf(text, sizeof(text), family == AF_INET6 ? "[%s]:%u" : "%s:%u", host, port);
    return intern(text);
}

static void parse_options(struct options_seen *opt, const uint8_t *p, const uint8_t *end)
{
    while (p < end && *p != 0) {
        if (*p == 1) {
            p++;
            continue;
        }
        if (end - p < 2 || p[1] < 2 || p[1] > end - p)
            return;
        unsigned n = p[1];
        if (*p == 2 && n == 4) {
            opt->has_mss = true;
            opt->mss = be16(p + 2);
        } else if (*p == 3 && n == 3) {
            opt->has_wscale = true;
            opt->wscale = p[2];
        } else if (*p == 4 && n == 2) {
            opt->sack_ok = true;
        } else if (*p == 8 && n == 10) {
            opt->has_ts = true;
            opt->tsval = be32(p + 2);
            opt->tsecr = be32(p + 6);
        } else if (*p == 5) {
            for (unsigned i = 2; i + 8 <= n && opt->nsack < 4; i += 8) {
                opt->sack[opt->nsack][0] = be32(p + i);
                opt->sack[opt->nsack++][1] = be32(p + i + 4);
            }
        }
        p += n;
    }
}

struct event *segment_from_frame(struct event_list *list, int link, const uint8_t *frame,
                                 size_t caplen, size_t len, int64_t t)
{
    size_t header = link == DLT_RAW ? 0 : link_header(link, frame, caplen);
    if ((header == 0 && link != DLT_RAW) || caplen < header + 20)
        return NULL;
    const uint8_t *ip = frame + header, *end = frame + caplen;
    bool v6 = ip[0] >> 4 == 6;
    size_t ihl = v6 ? 40 : (size_t)(ip[0] & 15) * 4;
    if ((!v6 && ip[0] >> 4 != 4) || ihl < 20 || (size_t)(end - ip) < ihl + TCP_HEADER)
        return NULL;
    if ((v6 ? ip[6] : ip[9]) != PROTO_TCP || (!v6 && be16(ip + 6) & 0x1FFF))
        return NULL;
    const uint8_t *tcp = ip + ihl;
    size_t offset = (size_t)(tcp[12] >> 4) * 4;
    size_t said = be16(v6 ? ip + 4 : ip + 2);
    size_t total = said + (v6 ? 40 : 0);
    if (said == 0) /* above 64 KB */
        total = len - header;
    if (offset < TCP_HEADER || total < ihl + offset)
        return NULL;
    struct event *e = event_add(list);
    int family = v6 ? AF_INET6 : AF_INET;
    e->t = t;
    e->class = intern("segment");
    e->name = intern("tx");
    e->kind = EV_TX;
    e->wire = e->raw_wnd = true;
    e->local = endpoint(v6 ? ip + 8 : ip + 12, family, be16(tcp));
    e->peer = endpoint(v6 ? ip + 24 : ip + 16, family, be16(tcp + 2));
    e->seq = be32(tcp + 4);
    e->ack = be32(tcp + 8);
    e->flags = tcp[13];
    e->wnd = be16(tcp + 14); /* unscaled: the handshake's scale comes later (flow.c) */
    e->len = (uint32_t)(total - ihl - offset);
    if (tcp + offset <= end)
        parse_options(&e->opt, tcp + TCP_HEADER, tcp + offset);
    return e;
}

int capture_load(struct event_list *list, const char *path, unsigned source)
{
    char error[PCAP_ERRBUF_SIZE];
    pcap_t *p = pcap_open_offline_with_tstamp_precision(path, PCAP_TSTAMP_PRECISION_NANO, error);
    if (!p) {
        fprintf(stderr, "tcpshim: %s\n", error);
        return -EIO;
    }
    struct pcap_pkthdr *h;
    const u_char *frame;
    int got, link = pcap_datalink(p);
    while ((got = pcap_next_ex(p, &h, &frame)) == 1) {
        /* a broken file's times may be anything */
        const int64_t seconds = h->ts.tv_sec >= 0 && h->ts.tv_sec < SECONDS_MAX ? h->ts.tv_sec : 0;
        int64_t t = seconds * 1000000000 + h->ts.tv_usec % 1000000000;
        struct event *e = segment_from_frame(list, link, frame, h->caplen, h->len, t);
        if (e)
            e->source = source;
    }
    if (got == PCAP_ERROR)
        fprintf(stderr, "tcpshim: %s: %s\n", path, pcap_geterr(p));
    pcap_close(p);
    return got == PCAP_ERROR ? 1 : 0;
}
