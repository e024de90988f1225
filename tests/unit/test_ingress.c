/* The program at the interface's ingress (shim/link/ingress_program.c), run by the kernel. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shim/link/ingress.h"
#include "stack/tcp/marks.h"
#include "tests/unit/suites.h"

#define PASSES (-1)
#define DROPS  2
#define LPORT  8080
#define RPORT  40000
#define TCP    20
/* The interface of frames in BPF_PROG_TEST_RUN. */
#define LOOPBACK 1

static struct flow_mark *marks;
static int map, program;
static uint8_t frame[ETH_HLEN + 20 + TCP];
static unsigned length;

static int bpf(int command, union bpf_attr *attr)
{
    return (int)syscall(SYS_bpf, command, attr, sizeof(*attr));
}

#define LOCAL  htobe32(0x0a4d0001)
#define REMOTE htobe32(0x0a4d0002)

static struct flow_tuple tuple(void)
{
    return (struct flow_tuple){ip_addr_from_v4(LOCAL), ip_addr_from_v4(REMOTE), LPORT, RPORT};
}

static uint8_t *ipv4(void)
{
    const uint32_t local = LOCAL, remote = REMOTE;
    memset(frame, 0, sizeof(frame));
    put_be16(frame + 12, ETH_P_IP);
    uint8_t *ip = frame + ETH_HLEN;
    ip[0] = 0x45;
    ip[9] = IPPROTO_TCP;
    memcpy(ip + 12, &remote, 4);
    memcpy(ip + 16, &local, 4);
    put_be16(ip + 20, RPORT);
    put_be16(ip + 22, LPORT);
    ip[20 + 12] = TCP / 4 << 4;
    length = sizeof(frame);
    return ip;
}

static int verdict(void)
{
    union bpf_attr attr = {.test.prog_fd = 0};
    attr.test.prog_fd = (uint32_t)program;
    attr.test.data_in = (uintptr_t)frame;
    attr.test.data_size_in = length;
    ck_assert_int_eq(bpf(BPF_PROG_TEST_RUN, &attr), 0);
    return (int)attr.test.retval;
}

static int make_map(void)
{
    union bpf_attr attr = {.map_type = BPF_MAP_TYPE_ARRAY};
    attr.key_size = 4;
    attr.value_size = sizeof(struct flow_mark);
    attr.max_entries = MARKS;
    attr.map_flags = BPF_F_MMAPABLE;
    return bpf(BPF_MAP_CREATE, &attr);
}

/* False: this kernel, or this user, does without. */
static bool possible(void)
{
    const int fd = make_map();
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

static void load(void)
{
    struct bpf_insn code[INGRESS_INSNS];
    union bpf_attr attr = {.prog_type = BPF_PROG_TYPE_SCHED_CLS};
    map = make_map();
    ck_assert_int_ge(map, 0);
    marks = mmap(NULL, MARKS_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, map, 0);
    ck_assert_ptr_ne(marks, MAP_FAILED);
    attr.insn_cnt = ingress_program(map, code);
    ck_assert_uint_le(attr.insn_cnt, INGRESS_INSNS);
    attr.insns = (uintptr_t)code;
    attr.license = (uintptr_t) "GPL";
    program = bpf(BPF_PROG_LOAD, &attr);
    ck_assert_int_ge(program, 0);
}

static void unload(void)
{
    munmap(marks, MARKS_BYTES);
    close(map);
    close(program);
}

START_TEST(what_is_marked_is_dropped)
{
    const struct flow_tuple t = tuple();
    ipv4();
    ck_assert_int_eq(verdict(), PASSES);
    mark_set(marks, &t, LOOPBACK);
    ck_assert_int_eq(verdict(), DROPS);
    mark_clear(marks, &t);
    ck_assert_int_eq(verdict(), PASSES);
    mark_set(marks, &t, LOOPBACK + 1);
    ck_assert_int_eq(verdict(), PASSES);
}
END_TEST

/* Every bit of the addresses and ports counts. */
START_TEST(nothing_else_is_dropped)
{
    const struct flow_tuple t = tuple();
    mark_set(marks, &t, LOOPBACK);
    uint8_t *ip = ipv4();
    for (unsigned bit = 0; bit < 12 * 8; bit++) {
        ip[12 + bit / 8] ^= (uint8_t)(1 << bit % 8);
        ck_assert_int_eq(verdict(), PASSES);
        ip[12 + bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    ck_assert_int_eq(verdict(), DROPS);
}
END_TEST

START_TEST(what_is_not_a_plain_segment_passes)
{
    const struct flow_tuple t = tuple();
    mark_set(marks, &t, LOOPBACK);
    ipv4()[9] = IPPROTO_UDP;
    ck_assert_int_eq(verdict(), PASSES);
    ipv4()[0] = 0x46; /* options: its ports are elsewhere */
    ck_assert_int_eq(verdict(), PASSES);
    ipv4()[6] = 0x20; /* the first fragment */
    ck_assert_int_eq(verdict(), PASSES);
    ipv4()[7] = 1; /* another */
    ck_assert_int_eq(verdict(), PASSES);
    ipv4()[6] = 0x40; /* it must not be fragmented */
    ck_assert_int_eq(verdict(), DROPS);
    ipv4();
    length--;
    ck_assert_int_eq(verdict(), PASSES);
    ipv4();
    put_be16(frame + 12, ETH_P_ARP);
    ck_assert_int_eq(verdict(), PASSES);
}
END_TEST

/* ---- marks ---- */

static struct flow_mark table[MARKS];

static unsigned count(void)
{
    unsigned n = 0;
    for (unsigned i = 0; i < MARKS; i++)
        n += table[i].ifindex != 0;
    return n;
}

/* Two tuples of one place: the younger has it, and the elder's end does not take it away. */
START_TEST(the_younger_has_the_place)
{
    struct flow_tuple a = tuple(), b = tuple();
    memset(table, 0, sizeof(table));
    mark_set(table, &a, LOOPBACK);
    struct flow_mark *place = NULL;
    for (unsigned i = 0; i < MARKS; i++)
        if (table[i].ifindex != 0)
            place = &table[i];
    ck_assert_ptr_nonnull(place);
    do {
        b.rport++;
        memset(table, 0, sizeof(table));
        mark_set(table, &b, LOOPBACK);
    } while (place->ifindex == 0);
    mark_set(table, &a, LOOPBACK);
    mark_set(table, &b, LOOPBACK);
    ck_assert_uint_eq(count(), 1);
    mark_clear(table, &a);
    ck_assert_uint_eq(count(), 1);
    mark_clear(table, &b);
    ck_assert_uint_eq(count(), 0);
}
END_TEST

/* Connections of a client to one server, or of many clients: most have a place of their own. */
START_TEST(places_are_spread)
{
    memset(table, 0, sizeof(table));
    for (unsigned i = 0; i < MARKS / 4; i++) {
        struct flow_tuple t = tuple();
        t.lport = (uint16_t)(32768 + i);
        mark_set(table, &t, LOOPBACK);
    }
    ck_assert_uint_gt(count(), MARKS / 4 * 8 / 10);
    memset(table, 0, sizeof(table));
    for (unsigned i = 0; i < MARKS / 4; i++) {
        struct flow_tuple t = tuple();
        t.remote.b[15] = (uint8_t)i;
        t.remote.b[14] = (uint8_t)(i >> 8);
        t.rport = (uint16_t)(RPORT + i % 7);
        mark_set(table, &t, LOOPBACK);
    }
    ck_assert_uint_gt(count(), MARKS / 4 * 6 / 10);
}
END_TEST

Suite *suite_ingress(void)
{
    Suite *s = suite_create("ingress");
    TCase *t = tcase_create("marks");
    tcase_add_test(t, the_younger_has_the_place);
    tcase_add_test(t, places_are_spread);
    suite_add_tcase(s, t);
    if (!possible())
        return s;
    t = tcase_create("program");
    tcase_add_checked_fixture(t, load, unload);
    tcase_add_test(t, what_is_marked_is_dropped);
    tcase_add_test(t, nothing_else_is_dropped);
    tcase_add_test(t, what_is_not_a_plain_segment_passes);
    suite_add_tcase(s, t);
    return s;
}
