/*
 * The link, and stand-ins for what the shim does on a machine and has no use here: the filter of a
 * packet socket, the lock of an own address, the keeper, the service thread.
 */
#define _GNU_SOURCE
#include "tests/packetdrill/link.h"

#include <stdlib.h>

#include "shim/life/keeper.h"
#include "shim/life/own_address.h"
#include "shim/life/service.h"
#include "shim/link/foreign.h"
#include "shim/link/guard.h"
#include "shim/link/link.h"
#include "stack/ip/ip.h"
#include "stack/tcp/wire.h"

struct packet {
    struct packet *next;
    nsec_t at;
    size_t len;
    uint8_t bytes[];
};

static struct packet *first, **last = &first;
static struct world_flags wanted;
static uint8_t netif_index;

void link_configure(const struct world_flags *flags)
{
    wanted = *flags;
}

uint8_t link_netif(void)
{
    return netif_index;
}

static int keep(struct link *l, struct stack_cx *cx, const struct frame_out *f)
{
    (void)l;
    const size_t head = (size_t)(f->head_end - f->head_start);
    struct packet *p = malloc(sizeof(*p) + head + f->payload_len);
    if (p == NULL)
        return -1;
    *p = (struct packet){.at = cx->now, .len = head + f->payload_len};
    memcpy(p->bytes, f->head + f->head_start, head);
    uint8_t *to = p->bytes + head;
    for (unsigned i = 0; i < f->nslices; i++) {
        memcpy(to, f->slices[i].base, f->slices[i].len);
        to += f->slices[i].len;
    }
    *last = p;
    last = &p->next;
    return 0;
}

static unsigned receive_nothing(struct link *l, struct stack_cx *cx, unsigned max,
                                const struct drain *d)
{
    (void)l, (void)cx, (void)max, (void)d;
    return 0;
}

bool link_has_packet(void)
{
    return first != NULL;
}

size_t link_take(void *buf, size_t size, nsec_t *at)
{
    struct packet *p = first;
    if (p == NULL || p->len > size)
        return 0;
    const size_t len = p->len;
    memcpy(buf, p->bytes, len);
    *at = p->at;
    first = p->next;
    if (first == NULL)
        last = &first;
    free(p);
    return len;
}

int link_af_packet_open(struct stack *st, const struct config *cfg, struct link **out,
                        const char **cure)
{
    static const struct link_ops ops = {
        .name = "memory", .transmit = keep, .receive = receive_nothing};
    static struct link link = {.ops = &ops, .fd = -1};
    (void)cure;
    struct netif nif = {.up = true,
                        .kind = NETIF_RAW_IP,
                        .ifindex = 1000,
                        .mtu = wanted.mtu,
                        .gso = true,
                        .naddrs = 1};
    nif.addrs[0].addr = cfg->addr;
    nif.addrs[0].prefix = cfg->prefix;
    nif.gateway = cfg->addr; /* no neighbour is ever asked for */
    const int index = stack_add_netif(st, &nif);
    if (index < 0)
        return index;
    netif_index = (uint8_t)index;
    *out = &link;
    return 0;
}

void link_filter_add_port(struct link *l, uint16_t port)
{
    (void)l, (void)port;
}

void link_filter_remove_port(struct link *l, uint16_t port)
{
    (void)l, (void)port;
}

int link_filter_add_block(struct link *l, uint16_t low, uint16_t high)
{
    (void)l, (void)low, (void)high;
    return 0;
}

void link_filter_sweep(struct link *l)
{
    (void)l;
}

int link_filter_update(struct link *l)
{
    (void)l;
    return 0;
}

void link_refresh(struct link *l, struct stack *st, uint32_t ifindex)
{
    (void)l, (void)st, (void)ifindex;
}

/* ---- own_address.h ---- */

int own_address_lock(const struct config *cfg, char *text, size_t len)
{
    (void)cfg, (void)text, (void)len;
    return 0;
}

int own_address_probe(const struct config *cfg, struct stack *st, struct link *l, char *text,
                      size_t len)
{
    (void)cfg, (void)st, (void)l, (void)text, (void)len;
    return 0;
}

void own_address_unlock(void)
{
}

int own_address_fd(void)
{
    return -1;
}

/* ---- keeper.h, service.h ---- */

void keeper_prepare(int arena)
{
    (void)arena;
}

void keeper_begin(void)
{
}

bool keeper_start(void)
{
    return false;
}

bool keeper_hold(int fd, uint16_t port, bool named)
{
    (void)fd, (void)port, (void)named;
    return false;
}

void keeper_let_go(int fd, uint16_t port)
{
    (void)fd, (void)port;
}

bool service_wanted(struct stack_cx *cx)
{
    (void)cx;
    return false;
}

void service_start(void)
{
}

void service_forked(void)
{
}

void service_after_fork_child(void)
{
}

void service_main_left(void)
{
}
