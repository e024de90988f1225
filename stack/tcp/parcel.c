#include "stack/tcp/parcel.h"

#include "stack/tcp/inside.h"

/* Less is copied at once: the lock would be taken twice for it. */
#define PARCEL_MIN 16384u
/* More goes in several: the other end has something to do while the next one is copied. */
#define PARCEL_MAX (128u << 10)

static struct tcp_parcel *parcel_new(struct stack *st, uint32_t holder)
{
    struct tcp_parcel *p = pool_alloc(&st->tcp.parcels);
    if (p != NULL)
        p->holder = holder;
    return p;
}

static void parcel_end(struct stack *st, struct tcp_parcel *p)
{
    *p = (struct tcp_parcel){.holder = 0}; /* see tcp_repair_parcels() */
    pool_free(&st->tcp.parcels, p);
}

static void parcel_free(struct stack *st, struct tcp_parcel *p)
{
    while (p->head != NULL) {
        struct chunk *c = p->head;
        p->head = c->next;
        pool_free(&st->tcp.chunks, c);
    }
    parcel_end(st, p);
}

void tcp_parcel_free(struct stack_cx *cx, struct tcp_parcel *p)
{
    parcel_free(cx->st, p);
}

uint32_t tcp_parcel_add(struct tcp_parcel *p, struct chunk *c)
{
    const uint32_t len = c->end - c->start;
    c->next = NULL;
    chunks_append(&p->head, &p->tail, c, c);
    p->chunks++;
    p->len += len;
    return len;
}

/* ---- send ---- */

/* Chunks for len bytes, or for as many as there are. */
static void add_chunks(struct stack *st, struct tcp_parcel *p, uint32_t len)
{
    while (p->len < len) {
        struct chunk *c = chunk_new(&st->tcp.chunks);
        if (c == NULL)
            break;
        c->start = 0;
        c->end = min_u32(len - p->len, CHUNK_DATA);
        tcp_parcel_add(p, c);
    }
}

struct tcp_parcel *tcp_pack(struct stack_cx *cx, struct tcp_conn *c, size_t len, uint32_t holder)
{
    if (len < PARCEL_MIN || holder == 0 || !tcp_inside_open(cx, c))
        return NULL;
    const uint32_t room = tcp_send_room(c);
    if (room < PARCEL_MIN || tcp_unsent(c) >= c->opts.notsent_lowat)
        return NULL;
    struct tcp_parcel *p = parcel_new(cx->st, holder);
    if (p != NULL)
        add_chunks(cx->st, p, (uint32_t)min_u64(len, min_u32(room, PARCEL_MAX)));
    if (p == NULL || p->len > 0)
        return p;
    parcel_end(cx->st, p);
    return NULL;
}

uint32_t tcp_parcel_len(const struct tcp_parcel *p)
{
    return p->len;
}

void tcp_parcel_fill(const struct tcp_parcel *p, const void *from)
{
    const uint8_t *text = from;
    for (struct chunk *c = p->head; c != NULL; c = c->next) {
        memcpy(c->data, text, c->end);
        text += c->end;
    }
}

uint32_t tcp_unpack(struct stack_cx *cx, struct tcp_conn *c, struct tcp_parcel *p)
{
    const uint32_t len = p->len;
    sendbuf_link(&c->sendbuf, p->head, p->tail, p->chunks, len);
    parcel_end(cx->st, p);
    return len;
}

/* ---- recv ---- */

int64_t tcp_recv_parcel(struct stack_cx *cx, struct tcp_conn *c, const struct slice *to,
                        uint32_t holder, struct tcp_parcel **out)
{
    *out = NULL;
    const uint32_t want = (uint32_t)min_u64(to->len, PARCEL_MAX);
    if (want < PARCEL_MIN || holder == 0 || !tcp_inside_ready(cx, c, PARCEL_MIN))
        return 0;
    struct tcp_parcel *p = parcel_new(cx->st, holder);
    if (p == NULL)
        return 0;
    struct flow *outer = work_begin(cx->st, &c->flow);
    const uint32_t got = tcp_inside_take(cx, c, to, want, p);
    work_end(cx->st, outer);
    if (p->len > 0)
        *out = p;
    else
        parcel_end(cx->st, p);
    return got;
}

void tcp_parcel_empty(const struct tcp_parcel *p, void *to)
{
    uint8_t *text = to;
    for (const struct chunk *c = p->head; c != NULL; c = c->next) {
        memcpy(text, c->data + c->start, c->end - c->start);
        text += c->end - c->start;
    }
}

/* ---- death ---- */

struct drop {
    struct stack *st;
    uint32_t holder;
};

static void drop_one(void *object, void *arg)
{
    struct tcp_parcel *p = object;
    const struct drop *d = arg;
    if (p->holder == d->holder)
        parcel_free(d->st, p);
}

void tcp_parcels_drop(struct stack *st, uint32_t holder)
{
    struct drop d = {st, holder};
    if (st->tcp.parcels.live > 0)
        pool_each(&st->tcp.parcels, drop_one, &d);
}

/* Counted before it is followed to the end, like a connection's chains. */
static bool parcel_whole(const struct tcp_stack *t, const struct tcp_parcel *p)
{
    uint32_t n = 0;
    for (const struct chunk *c = p->head; c != NULL; c = c->next)
        if (n++ == p->chunks || !pool_has_place(&t->chunks, c) || c->start > c->end ||
            c->end > CHUNK_DATA || c->objects != 1)
            return false;
    return n == p->chunks;
}

/*
 * Parcels are changed under the lock alone, so only one that the dead process was changing can be
 * in disorder. Nobody copies from or to that one: what it had is lost with the connection.
 */
static void claim_parcel(void *object, void *arg)
{
    struct tcp_parcel *p = object;
    struct tcp_stack *t = arg;
    if (p->holder == 0) {
        pool_free(&t->parcels, p);
        return;
    }
    bool whole = parcel_whole(t, p);
    for (const struct chunk *c = p->head; whole && c != NULL; c = c->next)
        whole = pool_claim(&t->chunks, c);
    if (!whole)
        *p = (struct tcp_parcel){.holder = p->holder};
}

void tcp_repair_parcels(struct tcp_stack *t)
{
    pool_each(&t->parcels, claim_parcel, t);
}
