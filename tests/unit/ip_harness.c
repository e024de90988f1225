#include "tests/unit/ip_harness.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "stack/util/checksum.h"

struct world world;

const uint8_t our_mac[6] = {0x02, 0, 0, 0, 0, 0x02};
const uint8_t peer_mac[6] = {0x02, 0, 0, 0, 0, 0x01};
const uint8_t other_mac[6] = {0x02, 0, 0, 0, 0, 0x99};
const uint8_t broadcast_mac[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

static int transmit(struct stack_cx *cx, const struct frame_out *frame)
{
    (void)cx;
    if (world.transmit_result < 0)
        return world.transmit_result;
    ck_assert_uint_lt(world.nsent, FRAMES_MAX);
    struct sent *s = &world.sent[world.nsent++];
    s->netif = frame->netif;
    s->gso_size = frame->gso_size;
    s->csum_partial = frame->csum_partial;
    s->csum_offset = frame->csum_offset;
    s->l4 = (uint32_t)(frame->l4 - frame->head_start);
    s->len = (uint32_t)(frame->head_end - frame->head_start);
    memcpy(s->data, frame->head + frame->head_start, s->len);
    uint32_t payload = 0;
    for (unsigned i = 0; i < frame->nslices; i++) {
        memcpy(s->data + s->len, frame->slices[i].base, frame->slices[i].len);
        s->len += (uint32_t)frame->slices[i].len;
        payload += (uint32_t)frame->slices[i].len;
    }
    ck_assert_uint_eq(payload, frame->payload_len);
    return 0;
}

static void warn(struct stack_cx *cx, const char *text, const struct ip_addr *addr)
{
    (void)cx;
    ck_assert_ptr_nonnull(text);
    world.nwarned++;
    world.warned = *addr;
}

static void trace(struct stack_cx *cx, const struct trace_record *record)
{
    (void)cx;
    ck_assert_uint_lt(record->id, TRACE_EVENT_COUNT);
}

static const struct stack_ops ops = {.transmit = transmit, .warn = warn, .trace = trace};

void world_up(void)
{
    const struct stack_config config = {
        .seed = {1, 2, 3},
        .own_address = true,
        .loopback = true,
    };
    memset(&world, 0, sizeof(world));
    world.sent = calloc(FRAMES_MAX, sizeof(world.sent[0]));
    /* a span more, to cut an aligned piece out of it */
    world.memory = mmap(NULL, WORLD_SIZE + ARENA_SPAN_SIZE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ck_assert_ptr_ne(world.memory, MAP_FAILED);
    void *base = (void *)(((uintptr_t)world.memory + ARENA_SPAN_SIZE - 1) & ~(ARENA_SPAN_SIZE - 1));
    const nsec_t now = 1000 * NSEC_PER_SEC;
    world.st = stack_init(base, WORLD_SIZE, 100, &config, now);
    ck_assert_ptr_nonnull(world.st);
    world.cx = (struct stack_cx){.st = world.st, .now = now, .ops = &ops, .trace = TRACE_ALL};

    struct netif nif = {
        .up = true,
        .kind = NETIF_ETHERNET,
        .ifindex = 3,
        .mtu = 1500,
        .answers_arp = true,
        .naddrs = 1,
        .gateway = ip_addr_from_v4(GATEWAY),
    };
    memcpy(nif.mac, our_mac, 6);
    nif.addrs[0].addr = ip_addr_from_v4(OUR_ADDR);
    nif.addrs[0].prefix = 120;
    world.wire = (uint8_t)stack_add_netif(world.st, &nif);
    stack_flush(&world.cx);
    world_run(3 * NSEC_PER_SEC);
    world.nsent = 0;
}

void world_down(void)
{
    free(world.sent);
    munmap(world.memory, WORLD_SIZE + ARENA_SPAN_SIZE);
}

void world_run(nsec_t by)
{
    const nsec_t end = world.cx.now + by;
    for (nsec_t next; (next = stack_deadline(world.st)) <= end;) {
        world.cx.now = max_u64(world.cx.now, next);
        stack_run_timers(&world.cx);
        stack_flush(&world.cx);
    }
    world.cx.now = end;
    stack_run_timers(&world.cx);
    stack_flush(&world.cx);
}

void world_frame_on(uint8_t netif, const uint8_t *data, uint32_t len, bool trusted)
{
    /* from the heap and of exact size, so that a read past the end is caught */
    uint8_t *copy = malloc(len > 0 ? len : 1);
    memcpy(copy, data, len);
    const struct frame_in frame = {
        .data = copy, .len = len, .netif = netif, .csum_trusted = trusted};
    stack_input(&world.cx, &frame);
    stack_flush(&world.cx);
    free(copy);
}

void world_frame(const uint8_t *data, uint32_t len)
{
    world_frame_on(world.wire, data, len, false);
}

bool world_clean(void)
{
    const struct ip_stack *ip = &world.st->ip;
    return ip->small.live == 0 && ip->large.live == 0 && ip->datagrams.live == 0 &&
           ip->nfrags == 0 && ip->frag_bytes == 0 && ip->arp.nqueued == 0 &&
           ip->loopback_packets == 0 && ip->loopback_bytes == 0 &&
           arena_bad_frees(world.st->arena) == 0;
}

uint64_t count_of(enum stack_counter c)
{
    return stack_counter(world.st, c);
}

void fix_ip4_checksum(uint8_t *buf)
{
    uint8_t *ip = buf + 14;
    memset(ip + 10, 0, 2);
    const uint16_t check = (uint16_t)~csum_fold(csum_add(0, ip, (ip[0] & 15u) * 4, false));
    memcpy(ip + 10, &check, 2);
}

uint32_t make_ip4(uint8_t *buf, uint32_t src, uint32_t dst, uint8_t proto, uint16_t fragment,
                  uint16_t id, uint32_t payload_len)
{
    memcpy(buf, our_mac, 6);
    memcpy(buf + 6, peer_mac, 6);
    put_be16(buf + 12, 0x0800);
    uint8_t *ip = buf + 14;
    memset(ip, 0, 20);
    ip[0] = 0x45;
    ip[1] = 0x10;
    put_be16(ip + 2, (uint16_t)(20 + payload_len));
    put_be16(ip + 4, id);
    put_be16(ip + 6, fragment);
    ip[8] = 63;
    ip[9] = proto;
    memcpy(ip + 12, &src, 4);
    memcpy(ip + 16, &dst, 4);
    fix_ip4_checksum(buf);
    return 34 + payload_len;
}

void make_arp(uint8_t *buf, const uint8_t eth_dst[6], uint16_t op, const uint8_t sha[6],
              uint32_t spa, const uint8_t tha[6], uint32_t tpa)
{
    static const uint8_t fixed[] = {0, 1, 8, 0, 6, 4};
    memcpy(buf, eth_dst, 6);
    memcpy(buf + 6, sha, 6);
    put_be16(buf + 12, 0x0806);
    memcpy(buf + 14, fixed, 6);
    put_be16(buf + 20, op);
    memcpy(buf + 22, sha, 6);
    memcpy(buf + 28, &spa, 4);
    memcpy(buf + 32, tha, 6);
    memcpy(buf + 38, &tpa, 4);
}

bool is_arp(const struct sent *s)
{
    return s->len == 42 && get_be16(s->data + 12) == 0x0806;
}

uint16_t sent_arp_op(const struct sent *s)
{
    return get_be16(s->data + 20);
}

uint32_t sent_arp_spa(const struct sent *s)
{
    uint32_t a;
    memcpy(&a, s->data + 28, 4);
    return a;
}

uint32_t sent_arp_tpa(const struct sent *s)
{
    uint32_t a;
    memcpy(&a, s->data + 38, 4);
    return a;
}

bool sent_checksums_right(const struct sent *s)
{
    const uint8_t *ip = s->data + s->l4 - 20;
    if (csum_fold(csum_add(0, ip, 20, false)) != 0xffff || s->csum_partial)
        return false;
    uint32_t src, dst;
    memcpy(&src, ip + 12, 4);
    memcpy(&dst, ip + 16, 4);
    const struct ip_addr a = ip_addr_from_v4(src), b = ip_addr_from_v4(dst);
    const uint32_t len = s->len - s->l4;
    const uint64_t pseudo = ip[9] == IPPROTO_TCP_ ? csum_pseudo(&a, &b, ip[9], len) : 0;
    return csum_fold(csum_add(pseudo, s->data + s->l4, len, false)) == 0xffff;
}

uint8_t pattern(uint32_t at)
{
    return (uint8_t)(at * 7 + (at >> 8) * 13 + 1);
}

int send_tcp(const struct ip_path *path, uint32_t src, uint32_t dst, uint32_t payload_len,
             uint16_t gso_size, uint8_t flags)
{
    static uint8_t payload[FRAME_KEPT];
    for (uint32_t i = 0; i < payload_len; i++)
        payload[i] = pattern(i);
    const struct ip_addr s = ip_addr_from_v4(src), d = ip_addr_from_v4(dst);
    const struct ip_out how = {.path = path, .src = &s, .dst = &d, .tos = 8, .ttl = 64, .df = true};
    struct frame_out f = {
        .l4_proto = IPPROTO_TCP_,
        .l4 = FRAME_HEADROOM,
        .head_end = FRAME_HEADROOM + 20,
        .gso_size = gso_size,
        .payload_len = payload_len,
    };
    uint8_t *tcp = f.head + FRAME_HEADROOM;
    put_be16(tcp, 1234);
    put_be16(tcp + 2, 80);
    put_be32(tcp + 4, 0xfffffff0);
    put_be32(tcp + 8, 77);
    tcp[12] = 0x50;
    tcp[13] = flags;
    put_be16(tcp + 14, 5000);
    for (uint32_t at = 0; at < payload_len;) {
        /* odd and even lengths, the last takes the rest */
        uint32_t n = payload_len / 7 + (f.nslices % 3);
        if (n == 0 || f.nslices == 15 || n > payload_len - at)
            n = payload_len - at;
        f.slices[f.nslices++] = (struct slice){payload + at, n};
        at += n;
    }
    return ip_send(&world.cx, &how, &f);
}
