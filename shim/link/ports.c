#include "shim/link/ports.h"

#include "stack/tcp/tcp.h"

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
