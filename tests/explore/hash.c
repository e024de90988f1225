/* What tells one state of the world from another. Times are left out, but for which timers run. */
#include "tests/explore/explore.h"

static uint64_t mix(uint64_t h, uint64_t v)
{
    h ^= v + 0x9e3779b97f4a7c15u + (h << 6) + (h >> 2);
    h *= 0xff51afd7ed558ccdu;
    return h ^ h >> 33;
}

static uint64_t mix_conn(uint64_t h, const struct tcp_conn *c)
{
    h = mix(h, c->state);
    h = mix(h, (uint64_t)c->app_held << 0 | (uint64_t)c->snd_shut << 1 |
                   (uint64_t)c->rcv_shut << 2 | (uint64_t)c->fin_queued << 3 |
                   (uint64_t)c->fin_received << 4 | (uint64_t)c->fin_ahead << 5 |
                   (uint64_t)c->syn_acked << 6 | (uint64_t)c->ack_delayed << 7 |
                   (uint64_t)c->half_accepted << 8 | (uint64_t)c->tlp_out << 9);
    h = mix(h, (uint32_t)seq_diff(c->snd_una, c->iss));
    h = mix(h, (uint32_t)seq_diff(c->snd_nxt, c->iss));
    h = mix(h, (uint32_t)seq_diff(c->rcv_nxt, c->irs));
    h = mix(h, c->sendbuf.len);
    h = mix(h, (uint64_t)c->sent.lost << 32 | c->sent.sacked);
    h = mix(h, (uint64_t)c->err << 32 | (uint64_t)c->retries << 8 | c->ca_state);
    uint64_t armed = 0;
    for (unsigned i = 0; i < TCP_CONN_TIMERS; i++)
        armed |= (uint64_t)(c->deadline[i] != NSEC_NEVER) << i;
    return mix(h, armed);
}

static uint64_t mix_flow(uint64_t h, struct flow *f)
{
    h = mix(h, f->kind);
    if (f->kind == FLOW_CONN)
        return mix_conn(h, conn_of(f));
    if (f->kind == FLOW_HALF_OPEN) {
        const struct tcp_half_open *o = container_of(f, struct tcp_half_open, flow);
        return mix(h, (uint64_t)o->acked << 8 | o->retransmits);
    }
    if (f->kind == FLOW_TIME_WAIT) {
        const struct tcp_time_wait *tw = container_of(f, struct tcp_time_wait, flow);
        return mix(h, tw->snd_nxt.v ^ (uint64_t)tw->rcv_nxt.v << 32);
    }
    return h;
}

static uint64_t mix_host(uint64_t h, struct host *at, const struct host *peer)
{
    h = mix(h, (uint64_t)at->opened << 0 | (uint64_t)at->sent << 1 | (uint64_t)at->shut << 2 |
                   (uint64_t)at->closed << 3 | (uint64_t)at->unlistened << 4 |
                   (uint64_t)(at->conn != NULL) << 5 | (uint64_t)(at->listener != NULL) << 6);
    h = mix(h, (uint64_t)at->wrote << 32 | at->read);
    const struct ip_addr mine = ip_addr_from_v4(__builtin_bswap32(at->ip)),
                         theirs = ip_addr_from_v4(__builtin_bswap32(peer->ip));
    const struct flow_tuple t = {mine, theirs, at->port, peer->port};
    struct flow *f = flow_find(&at->cx.st->tcp.flows, &t);
    if (f != NULL)
        h = mix_flow(h, f);
    /* what is on its way, without the stamps that the time puts there */
    for (unsigned i = 0; i < at->npackets; i++) {
        struct tcp_segment s;
        const struct packet *p = &at->packets[i];
        if (!tcp_parse(p->bytes + 20, p->len - 20, &s))
            continue;
        h = mix(h, (uint64_t)s.seq.v << 32 | s.ack.v);
        h = mix(h, (uint64_t)s.flags << 32 | s.len);
        h = mix(h, (uint64_t)s.wnd << 8 | s.opt.sack_count);
    }
    return mix(h, at->npackets);
}

uint64_t world_hash(void)
{
    uint64_t h = mix(0, (uint64_t)world.losses << 24 | (uint64_t)world.doubles << 16 |
                            (uint64_t)world.overtakings << 8 | world.timers);
    h = mix_host(h, &world.hosts[0], &world.hosts[1]);
    return mix_host(h, &world.hosts[1], &world.hosts[0]);
}
