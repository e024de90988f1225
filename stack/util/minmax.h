/*
 * The largest value of the last `window` units of a clock, in constant space: the best, second best
 * and third best of ever younger parts of the window (Kathleen Nichols' algorithm). The clock has
 * 16 bits and may wrap; the window must be below 32768.
 */
#pragma once

#include "stack/base.h"

struct minmax {
    uint32_t value[3];
    uint16_t at[3];
};

static inline uint32_t minmax_best(const struct minmax *m)
{
    return m->value[0];
}

static inline void minmax_reset(struct minmax *m, uint16_t now, uint32_t value)
{
    for (unsigned i = 0; i < 3; i++) {
        m->value[i] = value;
        m->at[i] = now;
    }
}

static inline void minmax_set(struct minmax *m, unsigned from, uint16_t now, uint32_t value)
{
    for (unsigned i = from; i < 3; i++) {
        m->value[i] = value;
        m->at[i] = now;
    }
}

/* Takes a value in; returns the largest of the window. */
uint32_t minmax_running_max(struct minmax *m, uint16_t window, uint16_t now, uint32_t value);
