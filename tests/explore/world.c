/* The two hosts, the channel, and the steps. */
#include "tests/explore/explore.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

struct world world;

#define EPOCH     (1000 * NSEC_PER_SEC)
#define MEMORY    STACK_SIZE_MIN
#define END_STEPS 3000

const char *const action_names[ACTION_COUNT] = {
#define X(id, what) [ACT_##id] = what,
    ACTIONS(X)
#undef X
};

/* ---- one host ---- */

static int on_transmit(struct stack_cx *cx, const struct frame_out *f)
{
    struct host *h = cx->user;
    const size_t head = (size_t)(f->head_end - f->head_start);
    if (h->npackets == CHANNEL_MAX || head + f->payload_len > PACKET_MAX) {
        world.overflow = true;
        return -ENOBUFS;
    }
    struct packet *p = &h->packets[h->npackets++];
    memcpy(p->bytes, f->head + f->head_start, head);
    p->len = (uint32_t)head;
    for (unsigned i = 0; i < f->nslices; i++) {
        memcpy(p->bytes + p->len, f->slices[i].base, f->slices[i].len);
        p->len += (uint32_t)f->slices[i].len;
    }
    return 0;
}

static void on_notify(struct stack_cx *cx, void *owner, uint32_t events)
{
    (void)cx, (void)owner, (void)events;
}

static void on_trace(struct stack_cx *cx, const struct trace_record *r)
{
    (void)cx;
    if (r->id != TRACE_EV_STATE)
        return;
    const enum tcp_state from = (enum tcp_state)r->argv[0], to = (enum tcp_state)r->argv[1];
    if (figure_saw(from, to, (enum tcp_reason)r->argv[2]))
        return;
    static char text[120];
    snprintf(text, sizeof(text), "no such transition: %s to %s", tcp_state_name(from),
             tcp_state_name(to));
    explore_fail(text);
}

static const struct stack_ops ops = {
    .transmit = on_transmit, .notify = on_notify, .trace = on_trace};

static void *fresh_memory(void *old)
{
    if (old != NULL) {
        madvise(old, MEMORY, MADV_DONTNEED);
        return old;
    }
    char *p = mmap(NULL, MEMORY + ARENA_SPAN_SIZE, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        abort();
    return (void *)(((uintptr_t)p + ARENA_SPAN_SIZE - 1) & ~(uintptr_t)(ARENA_SPAN_SIZE - 1));
}

static struct endpoint endpoint_of(const struct host *h)
{
    return (struct endpoint){ip_addr_from_v4(__builtin_bswap32(h->ip)), h->port};
}

static void host_begin(struct host *h, unsigned index)
{
    void *memory = fresh_memory(h->memory);
    *h =
        (struct host){.memory = memory, .ip = 0x0a000001 + index, .port = (uint16_t)(5000 + index)};
    struct stack_config config = {.own_address = true, .port_min = 32768, .port_max = 60999};
    memset(config.seed, (int)(7 + index), sizeof(config.seed));
    h->cx = (struct stack_cx){.now = world.now, .ops = &ops, .user = h, .trace = TRACE_STATE};
    h->cx.st = stack_init(memory, MEMORY, 0, &config, world.now);
    if (h->cx.st == NULL)
        abort();
    struct netif nif = {.up = true, .kind = NETIF_RAW_IP, .ifindex = 1, .mtu = 1500, .naddrs = 1};
    nif.addrs[0].addr = endpoint_of(h).addr;
    nif.addrs[0].prefix = 120;
    h->netif = (uint8_t)stack_add_netif(h->cx.st, &nif);
}

void world_begin(const struct scenario *scenario)
{
    world.scenario = scenario;
    world.now = EPOCH;
    world.losses = world.doubles = world.overtakings = world.timers = 0;
    world.overflow = false;
    for (unsigned i = 0; i < 2; i++)
        host_begin(&world.hosts[i], i);
}

/* What a program does without being told: it accepts and reads. */
static void settle(void)
{
    for (unsigned i = 0; i < 2; i++) {
        struct host *h = &world.hosts[i];
        stack_flush(&h->cx);
        if (h->listener != NULL && h->conn == NULL && !h->closed) {
            h->conn = tcp_accept(&h->cx, h->listener);
            if (h->conn != NULL)
                tcp_set_owner(h->conn, h);
        }
        uint8_t byte[8];
        const struct slice to = {byte, sizeof(byte)};
        int64_t got;
        while (h->conn != NULL && (got = tcp_recv(&h->cx, h->conn, &to, 1, 0, 0)) > 0)
            h->read += (uint32_t)got;
        stack_flush(&h->cx);
        if (tcp_check_invariants(h->cx.st) != 0 || stack_counter(h->cx.st, COUNT_INVARIANT) != 0)
            explore_fail("an invariant is broken");
    }
}

/* ---- actions ---- */

static void open_active(struct host *h, struct host *peer)
{
    h->conn = tcp_open(&h->cx);
    tcp_set_owner(h->conn, h);
    const struct endpoint local = endpoint_of(h), remote = endpoint_of(peer);
    const struct ip_path path = {.netif = h->netif, .next_hop = remote.addr};
    tcp_connect(&h->cx, h->conn, &local, &remote, &path);
}

static void open_passive(struct host *h)
{
    struct tcp_opts opts;
    tcp_opts_init(&opts, h->cx.st);
    const struct tcp_listen_args args = {
        .local = endpoint_of(h), .backlog = 1, .opts = &opts, .owner = h};
    if (tcp_listen(&h->cx, &args, &h->listener) < 0)
        abort();
}

static void host_open(struct host *h, struct host *peer)
{
    h->opened = true;
    if (h == &world.hosts[1] && world.scenario->b_listens)
        open_passive(h);
    else
        open_active(h, peer);
}

static void host_close(struct host *h)
{
    h->closed = true;
    tcp_close(&h->cx, h->conn);
    h->conn = NULL;
}

static void host_unlisten(struct host *h)
{
    h->unlistened = true;
    tcp_listener_close(&h->cx, h->listener);
    h->listener = NULL;
}

static void take_packet(struct host *from, unsigned at, bool keep)
{
    struct host *to = from == &world.hosts[0] ? &world.hosts[1] : &world.hosts[0];
    const struct packet p = from->packets[at];
    if (!keep) {
        memmove(&from->packets[at], &from->packets[at + 1],
                (from->npackets - at - 1) * sizeof(from->packets[0]));
        from->npackets--;
    }
    const struct frame_in in = {.data = p.bytes, .len = p.len, .netif = to->netif};
    stack_input(&to->cx, &in);
}

static void lose_packet(struct host *from)
{
    memmove(&from->packets[0], &from->packets[1], (from->npackets - 1) * sizeof(from->packets[0]));
    from->npackets--;
}

static nsec_t next_deadline(void)
{
    return min_u64(stack_deadline(world.hosts[0].cx.st), stack_deadline(world.hosts[1].cx.st));
}

static void fire_timer(void)
{
    const nsec_t at = next_deadline();
    /* the wheel may look in vain once or twice: until something is due */
    world.now = max_u64(at, world.now + 1);
    for (unsigned i = 0; i < 2; i++) {
        struct host *h = &world.hosts[i];
        h->cx.now = world.now;
        stack_run_timers(&h->cx);
    }
}

static bool can_send(const struct host *h)
{
    if (h->conn == NULL || h->sent || h->shut)
        return false;
    const enum tcp_state s = tcp_state(h->conn);
    return s == TCP_ESTABLISHED || s == TCP_CLOSE_WAIT;
}

bool world_can(enum action a)
{
    const struct scenario *s = world.scenario;
    const struct host *ha = &world.hosts[0], *hb = &world.hosts[1];
    switch (a) {
    case ACT_OPEN_A:
        return !ha->opened;
    case ACT_OPEN_B:
        return !hb->opened && (s->b_listens || s->b_connects);
    case ACT_SEND_A:
        return can_send(ha);
    case ACT_SEND_B:
        return can_send(hb);
    case ACT_SHUT_A:
        return ha->conn != NULL && !ha->shut && tcp_state(ha->conn) != TCP_CLOSED;
    case ACT_SHUT_B:
        return hb->conn != NULL && !hb->shut && tcp_state(hb->conn) != TCP_CLOSED;
    case ACT_CLOSE_A:
        return ha->conn != NULL;
    case ACT_CLOSE_B:
        return hb->conn != NULL;
    case ACT_UNLISTEN_B:
        return hb->listener != NULL;
    case ACT_DELIVER_A:
        return ha->npackets > 0;
    case ACT_DELIVER_B:
        return hb->npackets > 0;
    case ACT_OVERTAKE_A:
        return ha->npackets > 1 && world.overtakings < s->overtakings;
    case ACT_OVERTAKE_B:
        return hb->npackets > 1 && world.overtakings < s->overtakings;
    case ACT_LOSE_A:
        return ha->npackets > 0 && world.losses < s->losses;
    case ACT_LOSE_B:
        return hb->npackets > 0 && world.losses < s->losses;
    case ACT_DOUBLE_A:
        return ha->npackets > 0 && world.doubles < s->doubles;
    case ACT_DOUBLE_B:
        return hb->npackets > 0 && world.doubles < s->doubles;
    case ACT_TIMER:
        return world.timers < s->timers && next_deadline() != NSEC_NEVER;
    default:
        return false;
    }
}

static void send_byte(struct host *h)
{
    const struct slice from = {(void *)"x", 1};
    h->sent = true;
    if (tcp_send(&h->cx, h->conn, &from, 1, 0) > 0)
        h->wrote++;
}

static void shut(struct host *h)
{
    h->shut = true;
    tcp_shutdown(&h->cx, h->conn, TCP_SHUT_WR);
}

void world_do(enum action a)
{
    struct host *ha = &world.hosts[0], *hb = &world.hosts[1];
    world.current = a;
    world.step++;
    world.now += NSEC_PER_MSEC; /* everything takes its time */
    ha->cx.now = hb->cx.now = world.now;
    world.losses += a == ACT_LOSE_A || a == ACT_LOSE_B;
    world.doubles += a == ACT_DOUBLE_A || a == ACT_DOUBLE_B;
    world.overtakings += a == ACT_OVERTAKE_A || a == ACT_OVERTAKE_B;
    world.timers += a == ACT_TIMER;
    switch (a) {
    case ACT_OPEN_A:
    case ACT_OPEN_B:
        host_open(a == ACT_OPEN_A ? ha : hb, a == ACT_OPEN_A ? hb : ha);
        break;
    case ACT_SEND_A:
    case ACT_SEND_B:
        send_byte(a == ACT_SEND_A ? ha : hb);
        break;
    case ACT_SHUT_A:
    case ACT_SHUT_B:
        shut(a == ACT_SHUT_A ? ha : hb);
        break;
    case ACT_CLOSE_A:
    case ACT_CLOSE_B:
        host_close(a == ACT_CLOSE_A ? ha : hb);
        break;
    case ACT_UNLISTEN_B:
        host_unlisten(hb);
        break;
    case ACT_DELIVER_A:
    case ACT_DELIVER_B:
        take_packet(a == ACT_DELIVER_A ? ha : hb, 0, false);
        break;
    case ACT_OVERTAKE_A:
    case ACT_OVERTAKE_B:
        take_packet(a == ACT_OVERTAKE_A ? ha : hb, 1, false);
        break;
    case ACT_LOSE_A:
    case ACT_LOSE_B:
        lose_packet(a == ACT_LOSE_A ? ha : hb);
        break;
    case ACT_DOUBLE_A:
    case ACT_DOUBLE_B:
        take_packet(a == ACT_DOUBLE_A ? ha : hb, 0, true);
        break;
    case ACT_TIMER:
        fire_timer();
        break;
    default:
        break;
    }
    settle();
}

/* ---- the end ---- */

static bool deliver_one(void)
{
    for (unsigned i = 0; i < 2; i++) {
        if (world.hosts[i].npackets == 0)
            continue;
        world_do(i == 0 ? ACT_DELIVER_A : ACT_DELIVER_B);
        return true;
    }
    return false;
}

static bool close_one(void)
{
    if (world.hosts[0].conn != NULL)
        world_do(ACT_CLOSE_A);
    else if (world.hosts[1].conn != NULL)
        world_do(ACT_CLOSE_B);
    else if (world.hosts[1].listener != NULL)
        world_do(ACT_UNLISTEN_B);
    else
        return false;
    return true;
}

static const char *left_behind(const struct host *h)
{
    const struct tcp_stack *t = &h->cx.st->tcp;
    if (t->conns.live != 0)
        return "a connection never ends";
    if (t->half_opens.live != 0)
        return "a half-open entry never ends";
    if (t->time_waits.live != 0)
        return "TIME_WAIT never ends";
    if (t->listeners.live != 0 || t->flows.count != 0 || t->norphans != 0)
        return "something of a connection is left";
    if (t->chunks.live != 0 || t->records.live != 0 || t->ranges.live != 0)
        return "memory of a connection is left";
    return NULL;
}

const char *world_end(void)
{
    for (unsigned step = 0; step < END_STEPS; step++) {
        if (deliver_one())
            continue;
        /* nothing is on its way: programs that are done close, then time passes */
        if (close_one())
            continue;
        if (next_deadline() == NSEC_NEVER) {
            for (unsigned i = 0; i < 2; i++) {
                const char *what = left_behind(&world.hosts[i]);
                if (what != NULL)
                    return what;
            }
            return NULL;
        }
        world_do(ACT_TIMER);
    }
    return "it does not come to an end";
}
