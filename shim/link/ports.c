#include "shim/link/ports.h"

#include "shim/link/filter.h"
#include "stack/tcp/flow.h"
#include "stack/tcp/tcp.h"
#include "stack/tcp/timewait.h"

#define PORTS_OF_CHUNK (65536u / PORT_BLOCKS_MAX)

bool ports_in_block(const struct port_set *s, uint16_t port)
{
    for (unsigned i = 0; i < s->nblocks; i++)
        if (port >= s->blocks[i].low && port <= s->blocks[i].high)
            return true;
    return false;
}

/* The place of port, or where it belongs. */
static uint32_t position(const struct port_set *s, uint16_t port)
{
    uint32_t low = 0, high = s->nports;
    while (low < high) {
        uint32_t mid = (low + high) / 2;
        if (s->ports[mid] < port)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

bool ports_has(const struct port_set *s, uint16_t port)
{
    uint32_t at = position(s, port);
    return at < s->nports && s->ports[at] == port;
}

bool ports_add(struct port_set *s, uint16_t port)
{
    if (ports_has(s, port))
        return false;
    if (s->nports == PORTS_MAX) {
        s->overflow++;
        return s->overflow == 1;
    }
    uint32_t at = position(s, port);
    memmove(&s->ports[at + 1], &s->ports[at], (s->nports - at) * sizeof(s->ports[0]));
    s->ports[at] = port;
    s->nports++;
    return !ports_in_block(s, port);
}

bool ports_add_block(struct port_set *s, struct port_range block)
{
    if (s->nblocks == PORT_BLOCKS_MAX)
        return false;
    s->blocks[s->nblocks++] = block;
    return true;
}

bool ports_sweep(struct port_set *s, const struct stack *st)
{
    uint32_t kept = 0;
    bool changed = false;
    for (uint32_t i = 0; i < s->nports; i++) {
        const uint16_t port = s->ports[i];
        if (tcp_port_in_use(st, port))
            s->ports[kept++] = port;
        else
            changed = changed || !ports_in_block(s, port);
    }
    s->nports = kept;
    return changed;
}

/* One bit a port. */
struct port_bits {
    uint64_t words[65536 / 64];
    uint32_t n;
};

static bool has_bit(const struct port_bits *b, uint32_t port)
{
    return (b->words[port / 64] >> port % 64 & 1) != 0;
}

static void set_bit(struct port_bits *b, uint16_t port)
{
    b->n += !has_bit(b, port);
    b->words[port / 64] |= UINT64_C(1) << port % 64;
}

static void note_conn(struct tcp_conn *c, void *arg)
{
    set_bit(arg, tcp_flow(c)->tuple.lport);
}

static void note_time_wait(const struct tcp_time_wait_image *tw, void *arg)
{
    set_bit(arg, tw->tuple.lport);
}

/* From the first to the last port of each part of the numbers. */
static bool chunks(struct port_set *s, const struct port_bits *used)
{
    s->nports = s->overflow = s->nblocks = 0;
    for (uint32_t chunk = 0; chunk < 65536; chunk += PORTS_OF_CHUNK) {
        uint32_t low = chunk, high = chunk + PORTS_OF_CHUNK - 1;
        while (low < high && !has_bit(used, low))
            low++;
        while (high > low && !has_bit(used, high))
            high--;
        if (has_bit(used, low))
            s->blocks[s->nblocks++] = (struct port_range){(uint16_t)low, (uint16_t)high};
    }
    return true;
}

bool ports_narrow(struct port_set *s, struct stack *st)
{
    static struct port_bits used;
    used = (struct port_bits){.n = 0};
    tcp_each_conn(st, note_conn, &used);
    tcp_each_time_wait(st, note_time_wait, &used);
    if (used.n > FILTER_PORTS_MAX)
        return chunks(s, &used);
    bool changed = s->nblocks != 0 || s->overflow != 0 || s->nports != used.n;
    s->nblocks = s->overflow = s->nports = 0;
    for (uint32_t port = 0; port < 65536; port++) {
        if (!has_bit(&used, port))
            continue;
        changed = changed || s->ports[s->nports] != port;
        s->ports[s->nports++] = (uint16_t)port;
    }
    return changed;
}
