/* One script: something to begin with, then operations at random. */
#include "tests/diff/diff.h"

#define STEPS_MIN   30
#define STEPS_MORE  31
#define FILL_RARITY 500 /* one step in so many fills buffers */

static const struct operation *const tables[] = {
    life_operations, data_operations,    option_operations, ready_operations,
    wait_operations, pointer_operations, edge_operations};
#define TABLES (sizeof(tables) / sizeof(tables[0]))

static unsigned total_weight(void)
{
    unsigned total = 0;
    for (unsigned t = 0; t < TABLES; t++)
        for (const struct operation *o = tables[t]; o->run != NULL; o++)
            total += o->weight;
    return total;
}

static void step(struct world *w)
{
    if (once_in(w, FILL_RARITY)) {
        data_fill(w);
        return;
    }
    unsigned at = pick(w, total_weight());
    for (unsigned t = 0; t < TABLES; t++) {
        for (const struct operation *o = tables[t]; o->run != NULL; o++) {
            if (at < o->weight) {
                o->run(w);
                return;
            }
            at -= o->weight;
        }
    }
}

void script_run(struct world *w)
{
    for (unsigned n = pick(w, 4); n > 0; n--)
        life_pair(w);
    if (!once_in(w, 4))
        ready_set(w);
    for (unsigned n = STEPS_MIN + pick(w, STEPS_MORE); n > 0; n--) {
        observe(w);
        step(w);
    }
    observe(w);
}
