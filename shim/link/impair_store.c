#include "shim/link/impair_store.h"

#define PIECE_SIZE 2048u

struct piece {
    struct piece *next;
    uint8_t bytes[PIECE_SIZE - sizeof(struct piece *)];
};

#define PIECE_BYTES ((uint32_t)sizeof(((struct piece *)NULL)->bytes))

struct held {
    struct list link; /* impair_state.held */
    nsec_t due;
    struct piece *pieces;
    uint32_t len;
    uint8_t dir, netif;
};

void impair_store_init(struct impair_state *state, struct arena *arena)
{
    list_init(&state->held);
    pool_init(arena, &state->heads, sizeof(struct held));
    pool_init(arena, &state->pieces, sizeof(struct piece));
    state->held_pieces_max = (uint32_t)(arena_limit(arena) / 8 / PIECE_SIZE);
}

static void forget(void *object, void *pool)
{
    pool_free(pool, object);
}

void impair_store_repair(struct impair_state *state)
{
    struct pool *const pools[] = {&state->heads, &state->pieces};
    for (unsigned i = 0; i < ARRAY_LEN(pools); i++) {
        pool_repair(pools[i]);
        pool_each(pools[i], forget, pools[i]);
    }
    list_init(&state->held);
    state->held_pieces = 0;
}

static void drop(struct impair_state *state, struct held *h)
{
    while (h->pieces) {
        struct piece *p = h->pieces;
        h->pieces = p->next;
        pool_free(&state->pieces, p);
        state->held_pieces--;
    }
    list_remove(&h->link);
    pool_free(&state->heads, h);
}

/* Behind all that are due no later. */
static void insert(struct impair_state *state, struct held *h)
{
    struct list *at = state->held.prev;
    while (at != &state->held && list_entry(at, struct held, link)->due > h->due)
        at = at->prev;
    list_push_front(at, &h->link);
}

bool impair_store_put(struct impair_state *state, nsec_t due, enum impair_dir dir, uint8_t netif,
                      const uint8_t *frame, uint32_t len)
{
    struct held *h = pool_alloc(&state->heads);
    if (!h)
        return false;
    h->due = due;
    h->len = len;
    h->dir = (uint8_t)dir;
    h->netif = netif;
    struct piece **tail = &h->pieces;
    for (uint32_t at = 0; at < len; at += PIECE_BYTES) {
        struct piece *p =
            state->held_pieces < state->held_pieces_max ? pool_alloc_raw(&state->pieces) : NULL;
        if (!p) {
            drop(state, h);
            return false;
        }
        state->held_pieces++;
        p->next = NULL;
        memcpy(p->bytes, frame + at, min_u32(PIECE_BYTES, len - at));
        *tail = p;
        tail = &p->next;
    }
    insert(state, h);
    return true;
}

nsec_t impair_store_due(const struct impair_state *state)
{
    if (list_empty(&state->held))
        return NSEC_NEVER;
    return list_first(&state->held, struct held, link)->due;
}

uint32_t impair_store_take(struct impair_state *state, nsec_t now, enum impair_dir *dir,
                           uint8_t *netif, uint8_t *frame)
{
    if (impair_store_due(state) > now)
        return 0;
    struct held *h = list_first(&state->held, struct held, link);
    const uint32_t len = h->len;
    uint32_t at = 0;
    for (const struct piece *p = h->pieces; p; p = p->next, at += PIECE_BYTES)
        memcpy(frame + at, p->bytes, min_u32(PIECE_BYTES, len - at));
    *dir = (enum impair_dir)h->dir;
    *netif = h->netif;
    drop(state, h);
    return len;
}
