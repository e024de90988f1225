/* The packet socket's filter and the guards', run over frames by a machine of our own. */
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <sys/mman.h>

#include "shim/link/filter.h"
#include "stack/tcp/timewait.h"
#include "tests/unit/bpf.h"
#include "tests/unit/suites.h"

#define ARENA_BYTES ((size_t)64 << 20)
#define LO          1
#define OWN         0x0a090002u /* 10.9.0.2 */

static struct sock_filter code[FILTER_MAX];
static struct port_set ports;
static uint8_t data[14 + 60 + 20];

static struct bpf_frame frame(uint16_t protocol)
{
    memset(data, 0, sizeof(data));
    put_be16(data + 12, protocol);
    return (struct bpf_frame){.data = data,
                              .len = sizeof(data),
                              .network = 14,
                              .ifindex = 2,
                              .pkttype = PACKET_HOST,
                              .protocol = protocol};
}

/* An IPv4 frame to dst, options words of 4 bytes in the header; the transport header at *l4. */
static struct bpf_frame ipv4(uint8_t proto, uint32_t dst, unsigned options, uint8_t **l4)
{
    struct bpf_frame f = frame(ETH_P_IP);
    uint8_t *ip = data + 14;
    ip[0] = (uint8_t)(0x45 + options);
    ip[9] = proto;
    put_be32(ip + 16, dst);
    *l4 = ip + 20 + 4 * options;
    return f;
}

static uint32_t tcp_to(uint16_t port, unsigned options)
{
    uint8_t *l4;
    const struct bpf_frame f = ipv4(6, OWN, options, &l4);
    put_be16(l4 + 2, port);
    return bpf_run(code, &f);
}

static void build_shared(void)
{
    const struct filter_spec spec = {.loopback = LO, .ports = &ports};
    const unsigned n = filter_build(&spec, code);
    ck_assert_uint_le(n, FILTER_MAX);
    ck_assert(bpf_valid(code, n));
}

static void build_own(void)
{
    struct filter_spec spec = {.own_address = true, .loopback = LO};
    put_be32(&spec.own_addr, OWN);
    ck_assert(bpf_valid(code, filter_build(&spec, code)));
}

static void setup(void)
{
    memset(&ports, 0, sizeof(ports));
}

/* With n ports 7, 14, 21, ... and two blocks every port is judged as a plain look-up would. */
START_TEST(shared_ports)
{
    static const unsigned counts[] = {0, 1, 8, 9, 29, 100, FILTER_PORTS_MAX};
    const unsigned n = counts[_i];
    ports_add_block(&ports, (struct port_range){32768, 33279});
    ports_add_block(&ports, (struct port_range){60000, 60511});
    for (unsigned i = 1; i <= n; i++)
        ports_add(&ports, (uint16_t)(7 * i));
    build_shared();
    for (unsigned port = 1; port < 65536; port += port < 2000 ? 1 : 37) {
        const bool wanted =
            (port % 7 == 0 && port <= 7 * n) || ports_in_block(&ports, (uint16_t)port);
        ck_assert_msg((tcp_to((uint16_t)port, port % 11) != 0) == wanted, "port %u of %u", port, n);
    }
    static const uint16_t edges[] = {32767, 32768, 33279, 33280, 59999, 60000, 60511, 60512};
    for (unsigned i = 0; i < ARRAY_LEN(edges); i++)
        ck_assert_int_eq(tcp_to(edges[i], 0) != 0, ports_in_block(&ports, edges[i]));
}
END_TEST

START_TEST(shared_too_many_ports)
{
    for (unsigned i = 1; i <= FILTER_PORTS_MAX + 1; i++)
        ports_add(&ports, (uint16_t)i);
    build_shared();
    ck_assert(tcp_to(50000, 0));
}
END_TEST

static void time_wait_of(struct stack_cx *cx, uint16_t port)
{
    const struct tcp_time_wait_image image = {.tuple = {.lport = port, .rport = 80},
                                              .ends_at = cx->now + NSEC_PER_SEC};
    ck_assert_int_eq(tcp_time_wait_adopt(cx, &image), 0);
}

/* A stack that opens nothing more sees the segments of its TIME_WAIT entries alone. */
START_TEST(narrow)
{
    static const struct stack_ops ops;
    const struct stack_config config = {.own_address = false};
    void *memory = mmap(NULL, ARENA_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ck_assert_ptr_ne(memory, MAP_FAILED);
    struct stack_cx cx = {.ops = &ops, .now = NSEC_PER_SEC};
    cx.st = stack_init(memory, ARENA_BYTES, 0, &config, cx.now);
    ck_assert_ptr_nonnull(cx.st);
    ports_add_block(&ports, (struct port_range){32768, 33279});
    ports_add(&ports, 80);
    ck_assert(ports_narrow(&ports, cx.st));
    build_shared();
    ck_assert(!tcp_to(80, 0) && !tcp_to(32768, 0));
    time_wait_of(&cx, 32800);
    time_wait_of(&cx, 443);
    ck_assert(ports_narrow(&ports, cx.st));
    ck_assert(!ports_narrow(&ports, cx.st));
    build_shared();
    for (unsigned port = 1; port < 65536; port++)
        ck_assert_int_eq(tcp_to((uint16_t)port, 0) != 0, port == 32800 || port == 443);
    /* so many that they are taken together */
    for (unsigned i = 0; i < FILTER_PORTS_MAX; i++)
        time_wait_of(&cx, (uint16_t)(40001 + 2 * i));
    ck_assert(ports_narrow(&ports, cx.st));
    build_shared();
    ck_assert(tcp_to(443, 0) && tcp_to(32800, 0) && tcp_to(40001, 0) && tcp_to(40002, 0));
    ck_assert(!tcp_to(444, 0) && !tcp_to(32801, 0) && !tcp_to(40000, 0) && !tcp_to(50000, 0));
    munmap(memory, ARENA_BYTES);
}
END_TEST

START_TEST(shared_refuses_others_frames)
{
    uint8_t *l4;
    ports_add(&ports, 80);
    build_shared();
    struct bpf_frame f = ipv4(6, OWN, 0, &l4);
    put_be16(l4 + 2, 80);
    ck_assert(bpf_run(code, &f));
    f.ifindex = LO;
    ck_assert(!bpf_run(code, &f));
    f.ifindex = 2;
    f.vlan = 1;
    ck_assert(!bpf_run(code, &f));
    f.vlan = 0;
    f.pkttype = PACKET_OTHERHOST;
    ck_assert(!bpf_run(code, &f));
    f.pkttype = PACKET_BROADCAST;
    ck_assert(!bpf_run(code, &f));
    f.pkttype = PACKET_HOST;
    f.protocol = ETH_P_IPV6;
    ck_assert(!bpf_run(code, &f));
    f = ipv4(17, OWN, 0, &l4);
    put_be16(l4 + 2, 80);
    ck_assert(!bpf_run(code, &f));
}
END_TEST

/* Where there is no link layer header (tun) the network header begins at 0. */
START_TEST(shared_without_ethernet)
{
    uint8_t *l4;
    ports_add(&ports, 80);
    build_shared();
    struct bpf_frame f = ipv4(6, OWN, 3, &l4);
    put_be16(l4 + 2, 80);
    f.data += 14;
    f.len -= 14;
    f.network = 0;
    ck_assert(bpf_run(code, &f));
    put_be16(l4 + 2, 81);
    ck_assert(!bpf_run(code, &f));
}
END_TEST

START_TEST(shared_fragments)
{
    uint8_t *l4;
    ports_add(&ports, 80);
    build_shared();
    struct bpf_frame f = ipv4(6, OWN, 0, &l4);
    put_be16(l4 + 2, 81);
    put_be16(data + 14 + 6, 0x2000); /* the first: judged by its port */
    ck_assert(!bpf_run(code, &f));
    put_be16(data + 14 + 6, 0x2001); /* later ones have none */
    ck_assert(bpf_run(code, &f));
    data[14 + 9] = 17;
    ck_assert(!bpf_run(code, &f));
}
END_TEST

START_TEST(shared_icmp)
{
    uint8_t *l4;
    build_shared();
    for (unsigned type = 0; type < 256; type++) {
        const struct bpf_frame f = ipv4(1, OWN, type % 11, &l4);
        *l4 = (uint8_t)type;
        ck_assert_int_eq(bpf_run(code, &f) != 0, type == 3 || type == 11 || type == 12);
    }
}
END_TEST

START_TEST(shared_arp)
{
    build_shared();
    struct bpf_frame f = frame(ETH_P_ARP);
    put_be16(data + 14 + 6, 1);
    ck_assert(!bpf_run(code, &f));
    put_be16(data + 14 + 6, 2);
    ck_assert(bpf_run(code, &f));
    f.pkttype = PACKET_BROADCAST; /* gratuitous */
    ck_assert(bpf_run(code, &f));
}
END_TEST

START_TEST(own_address)
{
    uint8_t *l4;
    build_own();
    struct bpf_frame f = ipv4(6, OWN, 0, &l4);
    ck_assert(bpf_run(code, &f));
    f.pkttype = PACKET_OTHERHOST; /* a MAC address of our own */
    ck_assert(bpf_run(code, &f));
    f.vlan = 1;
    ck_assert(!bpf_run(code, &f));
    f = ipv4(1, OWN, 0, &l4);
    ck_assert(bpf_run(code, &f));
    f = ipv4(6, OWN + 1, 0, &l4);
    ck_assert(!bpf_run(code, &f));
    f = frame(ETH_P_IPV6);
    ck_assert(!bpf_run(code, &f));
}
END_TEST

START_TEST(own_address_arp)
{
    build_own();
    const struct bpf_frame f = frame(ETH_P_ARP);
    uint8_t *sender = data + 14 + 14, *target = data + 14 + 24;
    put_be32(sender, OWN + 1);
    put_be32(target, OWN + 2);
    ck_assert(!bpf_run(code, &f));
    put_be32(target, OWN);
    ck_assert(bpf_run(code, &f));
    put_be32(target, 0);
    put_be32(sender, OWN); /* a conflict */
    ck_assert(bpf_run(code, &f));
    put_be32(sender, OWN + 9);
    put_be32(target, OWN + 9); /* gratuitous */
    ck_assert(bpf_run(code, &f));
}
END_TEST

/* A frame cut anywhere is dropped or judged by what is there, never read past. */
START_TEST(short_frames)
{
    uint8_t *l4;
    ports_add(&ports, 80);
    for (unsigned own = 0; own < 2; own++) {
        if (own)
            build_own();
        else
            build_shared();
        for (unsigned len = 0; len < 14 + 20 + 4; len++) {
            struct bpf_frame f = ipv4(6, OWN, 0, &l4);
            put_be16(l4 + 2, 80);
            f.len = len;
            ck_assert_int_eq(bpf_run(code, &f) != 0, own && len >= 14 + 20);
        }
    }
}
END_TEST

START_TEST(guard_programs)
{
    for (unsigned kind = 0; kind < 4; kind++) {
        const bool local = kind & 1, v6 = kind & 2;
        const unsigned n = filter_guard(local, v6, LO, code);
        ck_assert_uint_le(n, FILTER_GUARD_MAX);
        ck_assert(bpf_valid(code, n));
        struct bpf_frame f = {.ifindex = 2, .protocol = ETH_P_IP};
        ck_assert(!bpf_run(code, &f));
        f.ifindex = LO;
        ck_assert_int_eq(bpf_run(code, &f) != 0, local);
        f.ifindex = 2;
        f.protocol = ETH_P_IPV6;
        ck_assert_int_eq(bpf_run(code, &f) != 0, v6);
    }
}
END_TEST

START_TEST(set_of_ports)
{
    ck_assert(ports_add(&ports, 80));
    ck_assert(!ports_add(&ports, 80)); /* a second holder: the filter stays */
    ck_assert(ports_has(&ports, 80) && !ports_has(&ports, 81));
    ck_assert_uint_eq(ports.nports, 1);
    ports_add_block(&ports, (struct port_range){1000, 1999});
    ck_assert(!ports_add(&ports, 1500)); /* let through already */
    ck_assert(ports_add(&ports, 2000));
    for (unsigned port = 3000; port < 3000 + 2 * PORTS_MAX; port++)
        ports_add(&ports, (uint16_t)port);
    ck_assert_uint_eq(ports.nports, PORTS_MAX);
    ck_assert_uint_gt(ports.overflow, 0);
    build_shared();
    ck_assert(tcp_to(9, 0)); /* no room: all TCP */
}
END_TEST

Suite *suite_filter(void)
{
    Suite *s = suite_create("filter");
    TCase *tc = tcase_create("core");
    tcase_add_checked_fixture(tc, setup, NULL);
    tcase_add_loop_test(tc, shared_ports, 0, 7);
    tcase_add_test(tc, shared_too_many_ports);
    tcase_add_test(tc, narrow);
    tcase_add_test(tc, shared_refuses_others_frames);
    tcase_add_test(tc, shared_without_ethernet);
    tcase_add_test(tc, shared_fragments);
    tcase_add_test(tc, shared_icmp);
    tcase_add_test(tc, shared_arp);
    tcase_add_test(tc, own_address);
    tcase_add_test(tc, own_address_arp);
    tcase_add_test(tc, short_frames);
    tcase_add_test(tc, guard_programs);
    tcase_add_test(tc, set_of_ports);
    suite_add_tcase(s, tc);
    return s;
}
