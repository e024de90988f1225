#include "shim/link/filter.h"

#include <linux/if_ether.h>
#include <linux/if_packet.h>

#include "stack/ip/ip.h"

#define ACCEPT UINT32_MAX
#define DROP   0u
/* Leaves of the search tree are compared one by one. */
#define LEAF_PORTS 8
#define ARP_REPLY  2u
/* Fragment offset of an IPv4 header: not zero in all fragments but the first. */
#define IP_FRAGMENT_OFFSET 0x1fffu

struct program {
    struct sock_filter *code;
    unsigned n;
};

static void emit(struct program *p, uint16_t code, uint32_t k, uint8_t jt, uint8_t jf)
{
    p->code[p->n++] = (struct sock_filter){.code = code, .jt = jt, .jf = jf, .k = k};
}

static void ret(struct program *p, uint32_t verdict)
{
    emit(p, BPF_RET | BPF_K, verdict, 0, 0);
}

/* Loads what the kernel knows beside the packet (SKF_AD_*). */
static void load_aux(struct program *p, uint32_t what)
{
    emit(p, BPF_LD | BPF_W | BPF_ABS, (uint32_t)SKF_AD_OFF + what, 0, 0);
}

/* Loads from the network header, wherever the link layer puts it. size: BPF_W, BPF_H or BPF_B. */
static void load_net(struct program *p, uint16_t size, uint32_t offset)
{
    emit(p, (uint16_t)(BPF_LD | size | BPF_ABS), (uint32_t)SKF_NET_OFF + offset, 0, 0);
}

/* Loads from behind the IPv4 header. */
static void load_transport(struct program *p, uint16_t size, uint32_t offset)
{
    emit(p, BPF_LDX | BPF_B | BPF_MSH, (uint32_t)SKF_NET_OFF, 0, 0);
    emit(p, (uint16_t)(BPF_LD | size | BPF_IND), (uint32_t)SKF_NET_OFF + offset, 0, 0);
}

static void ret_if_equal(struct program *p, uint32_t value, uint32_t verdict)
{
    emit(p, BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1);
    ret(p, verdict);
}

static void ret_unless_equal(struct program *p, uint32_t value, uint32_t verdict)
{
    emit(p, BPF_JMP | BPF_JEQ | BPF_K, value, 1, 0);
    ret(p, verdict);
}

/* Begins a section that runs only when A is value; returns what end_section() needs. */
static unsigned begin_section(struct program *p, uint32_t value)
{
    emit(p, BPF_JMP | BPF_JEQ | BPF_K, value, 1, 0);
    emit(p, BPF_JMP | BPF_JA, 0, 0, 0);
    return p->n;
}

static void end_section(struct program *p, unsigned start)
{
    p->code[start - 1].k = p->n - start;
}

/* A holds the destination port: accepts if it is among the n sorted ports, drops otherwise. */
static void search(struct program *p, const uint16_t *ports, unsigned n)
{
    if (n <= LEAF_PORTS) {
        for (unsigned i = 0; i < n; i++)
            ret_if_equal(p, ports[i], ACCEPT);
        ret(p, DROP);
        return;
    }
    unsigned half = n / 2;
    emit(p, BPF_JMP | BPF_JGE | BPF_K, ports[half], 0, 1);
    emit(p, BPF_JMP | BPF_JA, 0, 0, 0);
    unsigned left = p->n;
    search(p, ports, half);
    p->code[left - 1].k = p->n - left;
    search(p, ports + half, n - half);
}

static void tcp_section(struct program *p, const struct filter_spec *spec)
{
    if (spec->all_ports || spec->ports->overflow > 0 || spec->ports->nports > FILTER_PORTS_MAX) {
        ret(p, ACCEPT);
        return;
    }
    /* later fragments carry no port: the engine joins them with the first, or lets them age out */
    load_net(p, BPF_H, 6);
    emit(p, BPF_JMP | BPF_JSET | BPF_K, IP_FRAGMENT_OFFSET, 0, 1);
    ret(p, ACCEPT);
    load_transport(p, BPF_H, 2);
    for (unsigned i = 0; i < spec->ports->nblocks; i++) {
        const struct port_range *b = &spec->ports->blocks[i];
        emit(p, BPF_JMP | BPF_JGE | BPF_K, b->low, 0, 2);
        emit(p, BPF_JMP | BPF_JGT | BPF_K, b->high, 1, 0);
        ret(p, ACCEPT);
    }
    search(p, spec->ports->ports, spec->ports->nports);
}

/* Destination unreachable, time exceeded and parameter problem may be about our connections. */
static void icmp_section(struct program *p)
{
    load_net(p, BPF_H, 6);
    emit(p, BPF_JMP | BPF_JSET | BPF_K, IP_FRAGMENT_OFFSET, 0, 1);
    ret(p, DROP);
    load_transport(p, BPF_B, 0);
    ret_if_equal(p, 3, ACCEPT);
    ret_if_equal(p, 11, ACCEPT);
    ret_if_equal(p, 12, ACCEPT);
    ret(p, DROP);
}

/* The kernel answers requests for a shared address; the replies interest us too. */
static void shared_sections(struct program *p, const struct filter_spec *spec)
{
    unsigned section = begin_section(p, ETH_P_ARP);
    load_net(p, BPF_H, 6);
    ret_if_equal(p, ARP_REPLY, ACCEPT);
    ret(p, DROP);
    end_section(p, section);
    ret_unless_equal(p, ETH_P_IP, DROP);
    load_aux(p, SKF_AD_PKTTYPE);
    ret_unless_equal(p, PACKET_HOST, DROP);
    load_net(p, BPF_B, 9);
    section = begin_section(p, IPPROTO_TCP_);
    tcp_section(p, spec);
    end_section(p, section);
    ret_unless_equal(p, IPPROTO_ICMP_, DROP);
    icmp_section(p);
}

/* ARP to, from or about our address, and what is gratuitous; IPv4 to our address. */
static void own_sections(struct program *p, const struct filter_spec *spec)
{
    uint32_t addr = get_be32(&spec->own_addr);
    unsigned section = begin_section(p, ETH_P_ARP);
    load_net(p, BPF_W, 14); /* sender */
    ret_if_equal(p, addr, ACCEPT);
    emit(p, BPF_MISC | BPF_TAX, 0, 0, 0);
    load_net(p, BPF_W, 24); /* target */
    ret_if_equal(p, addr, ACCEPT);
    emit(p, BPF_JMP | BPF_JEQ | BPF_X, 0, 0, 1);
    ret(p, ACCEPT);
    ret(p, DROP);
    end_section(p, section);
    ret_unless_equal(p, ETH_P_IP, DROP);
    load_net(p, BPF_W, 16);
    ret_if_equal(p, addr, ACCEPT);
    ret(p, DROP);
}

unsigned filter_build(const struct filter_spec *spec, struct sock_filter *out)
{
    struct program p = {.code = out};
    load_aux(&p, SKF_AD_IFINDEX);
    ret_if_equal(&p, spec->loopback, DROP);
    load_aux(&p, SKF_AD_VLAN_TAG_PRESENT);
    ret_unless_equal(&p, 0, DROP);
    load_aux(&p, SKF_AD_PROTOCOL);
    if (spec->own_address)
        own_sections(&p, spec);
    else
        shared_sections(&p, spec);
    return p.n;
}

unsigned filter_guard(bool local_clients, bool v6_kernel, uint32_t loopback,
                      struct sock_filter *out)
{
    struct program p = {.code = out};
    if (local_clients) {
        load_aux(&p, SKF_AD_IFINDEX);
        ret_if_equal(&p, loopback, ACCEPT);
    }
    if (v6_kernel) {
        load_aux(&p, SKF_AD_PROTOCOL);
        ret_if_equal(&p, ETH_P_IPV6, ACCEPT);
    }
    ret(&p, DROP);
    return p.n;
}
