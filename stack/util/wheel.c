/*
 * The ticks of a deadline are read as eight digits of six bits. A timer hangs on the level of the
 * highest digit in which its tick differs from the wheel's, in the slot of that digit. So no level
 * ever wraps round: on each one only slots ahead of the wheel's own digit are in use, everything on
 * a lower level comes before everything on a higher one, and the next event is the lowest slot of
 * the lowest level in use. When the wheel reaches a slot above level 0, its timers move down.
 *
 * Level 0's slot at the wheel's own digit holds what is due: past deadlines go there as well.
 */
#include "stack/util/wheel.h"

#define DIGIT_BITS 6
#define DIGIT_MASK (WHEEL_SLOTS - 1)
#define TICK_MAX   (UINT64_MAX >> WHEEL_TICK_SHIFT)
#define TICK_LEN   ((nsec_t)1 << WHEEL_TICK_SHIFT)

_Static_assert(WHEEL_SLOTS == 1 << DIGIT_BITS, "a slot for each value of a digit");
_Static_assert(WHEEL_LEVELS *DIGIT_BITS + WHEEL_TICK_SHIFT == 64, "the levels cover nsec_t");

void wheel_init(struct wheel *w, nsec_t now)
{
    w->tick = now >> WHEEL_TICK_SHIFT;
    for (unsigned l = 0; l < WHEEL_LEVELS; l++) {
        w->occupied[l] = 0;
        for (unsigned s = 0; s < WHEEL_SLOTS; s++)
            list_init(&w->slots[l][s]);
    }
}

void wheel_timer_init(struct wheel_timer *t, uint8_t kind)
{
    list_init(&t->link);
    t->deadline = NSEC_NEVER;
    t->level = 0;
    t->slot = 0;
    t->kind = kind;
}

/* The first tick that starts at or after the deadline: a timer must not fire early. */
static uint64_t tick_of(nsec_t deadline)
{
    const uint64_t tick = (deadline >> WHEEL_TICK_SHIFT) + ((deadline & (TICK_LEN - 1)) != 0);
    return min_u64(tick, TICK_MAX);
}

static void unhang(struct wheel *w, struct wheel_timer *t)
{
    list_remove(&t->link);
    if (list_empty(&w->slots[t->level][t->slot]))
        w->occupied[t->level] &= ~((uint64_t)1 << t->slot);
}

static void hang(struct wheel *w, struct wheel_timer *t, unsigned level, unsigned slot)
{
    t->level = (uint8_t)level;
    t->slot = (uint8_t)slot;
    list_push_back(&w->slots[level][slot], &t->link);
    w->occupied[level] |= (uint64_t)1 << slot;
}

static void place(const struct wheel *w, nsec_t deadline, unsigned *level, unsigned *slot)
{
    const uint64_t tick = max_u64(tick_of(deadline), w->tick);
    const uint64_t differ = tick ^ w->tick;
    *level = differ == 0 ? 0 : (63 - (unsigned)__builtin_clzll(differ)) / DIGIT_BITS;
    *slot = (tick >> (*level * DIGIT_BITS)) & DIGIT_MASK;
}

void wheel_arm(struct wheel *w, struct wheel_timer *t, nsec_t deadline)
{
    if (deadline == NSEC_NEVER) {
        wheel_cancel(w, t);
        return;
    }
    unsigned level, slot;
    place(w, deadline, &level, &slot);
    t->deadline = deadline;
    if (list_linked(&t->link)) {
        if (t->level == level && t->slot == slot)
            return;
        unhang(w, t);
    }
    hang(w, t, level, slot);
}

void wheel_cancel(struct wheel *w, struct wheel_timer *t)
{
    if (list_linked(&t->link))
        unhang(w, t);
    t->deadline = NSEC_NEVER;
}

/* The tick at which the next slot in use begins, and its level; false when none is. */
static bool next_event(const struct wheel *w, uint64_t *tick, unsigned *level)
{
    for (unsigned l = 0; l < WHEEL_LEVELS; l++) {
        if (w->occupied[l] == 0)
            continue;
        const unsigned shift = l * DIGIT_BITS;
        const uint64_t slot = (uint64_t)__builtin_ctzll(w->occupied[l]);
        const uint64_t above = w->tick >> shift >> DIGIT_BITS << DIGIT_BITS << shift;
        *tick = above | slot << shift;
        *level = l;
        return true;
    }
    return false;
}

/* Hangs the timers of the slot that the wheel has just reached on lower levels. */
static void cascade(struct wheel *w, unsigned level)
{
    const unsigned slot = (w->tick >> (level * DIGIT_BITS)) & DIGIT_MASK;
    struct list *from = &w->slots[level][slot];
    for (struct list *n; (n = list_pop_front(from)) != NULL;) {
        struct wheel_timer *t = list_entry(n, struct wheel_timer, link);
        unsigned to_level, to_slot;
        place(w, t->deadline, &to_level, &to_slot);
        hang(w, t, to_level, to_slot);
    }
    w->occupied[level] &= ~((uint64_t)1 << slot);
}

struct wheel_timer *wheel_expire(struct wheel *w, nsec_t now)
{
    const uint64_t target = now >> WHEEL_TICK_SHIFT;
    for (;;) {
        uint64_t tick;
        unsigned level;
        if (!next_event(w, &tick, &level) || tick > max_u64(target, w->tick)) {
            w->tick = max_u64(target, w->tick);
            return NULL;
        }
        w->tick = tick;
        if (level == 0) {
            struct list *due = &w->slots[0][tick & DIGIT_MASK];
            struct wheel_timer *t = list_first(due, struct wheel_timer, link);
            wheel_cancel(w, t);
            return t;
        }
        cascade(w, level);
    }
}

nsec_t wheel_next(const struct wheel *w)
{
    uint64_t tick;
    unsigned level;
    if (!next_event(w, &tick, &level))
        return NSEC_NEVER;
    return tick << WHEEL_TICK_SHIFT;
}
