/* See minmax.h. */
#include "stack/util/minmax.h"

static void shift(struct minmax *m)
{
    for (unsigned i = 0; i < 2; i++) {
        m->value[i] = m->value[i + 1];
        m->at[i] = m->at[i + 1];
    }
}

/* As time passes the runners-up step forward, and each part of the window gets a candidate. */
static void age(struct minmax *m, uint16_t window, uint16_t now, uint32_t value)
{
    const uint16_t best_age = (uint16_t)(now - m->at[0]);
    if (best_age > window) {
        shift(m);
        minmax_set(m, 2, now, value);
        if ((uint16_t)(now - m->at[0]) > window) {
            shift(m);
            minmax_set(m, 2, now, value);
        }
    } else if (m->at[1] == m->at[0] && best_age > window / 4) {
        minmax_set(m, 1, now, value);
    } else if (m->at[2] == m->at[1] && best_age > window / 2) {
        minmax_set(m, 2, now, value);
    }
}

uint32_t minmax_running_max(struct minmax *m, uint16_t window, uint16_t now, uint32_t value)
{
    if (value >= m->value[0] || (uint16_t)(now - m->at[2]) > window) {
        minmax_reset(m, now, value);
        return value;
    }
    if (value >= m->value[1])
        minmax_set(m, 1, now, value);
    else if (value >= m->value[2])
        minmax_set(m, 2, now, value);
    age(m, window, now, value);
    return m->value[0];
}
