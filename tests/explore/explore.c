/*
 * State exploration. From the beginning of a scenario every action that is possible is tried, from
 * each state that it leads to again, breadth first, down to the scenario's depth; a state that was
 * seen before (world_hash()) is not followed twice. States are not kept: the engine is
 * deterministic, so that the way to a state is played again.
 *
 * In each state: the invariants hold; each transition on the way was an arrow of RFC 9293 figure 5
 * or an early end; and from here a good network and two programs that close lead to an end where
 * nothing is left (no stuck state). Over all states each arrow and each of the 11 states is seen.
 */
#include "tests/explore/explore.h"

#include <stdio.h>
#include <stdlib.h>

#define NODES_MAX (1u << 18)
#define SEEN_SIZE (1u << 20) /* a power of two */

struct node {
    uint32_t parent;
    uint8_t action, depth;
};

static struct node nodes[NODES_MAX];
static uint32_t nnodes;
static uint64_t seen[SEEN_SIZE];
static uint32_t here; /* the node whose way is played */
static int extra;     /* and the action tried from it; -1: none */

/* True: it was not there yet. */
static bool remember(uint64_t hash)
{
    hash |= 1; /* 0 is an empty place */
    for (uint32_t at = (uint32_t)(hash >> 20) % SEEN_SIZE;; at = (at + 1) % SEEN_SIZE) {
        if (seen[at] == hash)
            return false;
        if (seen[at] == 0) {
            seen[at] = hash;
            return true;
        }
    }
}

static unsigned way_to(uint32_t node, uint8_t actions[256])
{
    const unsigned depth = nodes[node].depth;
    for (unsigned i = depth; i > 0; i--) {
        actions[i - 1] = nodes[node].action;
        node = nodes[node].parent;
    }
    return depth;
}

_Noreturn void explore_fail(const char *what)
{
    uint8_t actions[256];
    const unsigned n = way_to(here, actions);
    printf("explore: %s: %s, after\n", world.scenario->name, what);
    for (unsigned i = 0; i < n; i++)
        printf("  %s\n", action_names[actions[i]]);
    if (extra >= 0)
        printf("  %s\n", action_names[extra]);
    printf("explore: 0 passed, 1 failed\n");
    exit(1);
}

static void play(const struct scenario *s, uint32_t node, int action)
{
    uint8_t actions[256];
    const unsigned n = way_to(node, actions);
    here = node;
    extra = action;
    world_begin(s);
    for (unsigned i = 0; i < n; i++)
        world_do(actions[i]);
    if (action >= 0)
        world_do((enum action)action);
}

static void look(const struct scenario *s, uint32_t node, int action, uint32_t most)
{
    play(s, node, action);
    if (!remember(world_hash()))
        return;
    if (nnodes < most)
        nodes[nnodes++] = (struct node){node, (uint8_t)action, (uint8_t)(nodes[node].depth + 1)};
    const char *wrong = world_end();
    if (wrong != NULL)
        explore_fail(wrong);
}

/* Returns the number of states. */
static uint32_t explore(const struct scenario *s)
{
    memset(seen, 0, sizeof(seen));
    nnodes = 1;
    nodes[0] = (struct node){0};
    const uint32_t most = min_u32(s->states, NODES_MAX);
    for (uint32_t at = 0; at < nnodes; at++) {
        if (nodes[at].depth >= s->depth)
            continue;
        play(s, at, -1);
        bool can[ACTION_COUNT];
        for (unsigned a = 0; a < ACTION_COUNT; a++)
            can[a] = world_can(a);
        for (unsigned a = 0; a < ACTION_COUNT; a++)
            if (can[a])
                look(s, at, (int)a, most);
    }
    printf("%-22s %6u states%s, up to %u actions\n", s->name, nnodes,
           nnodes == most ? " (bound)" : "", nodes[nnodes - 1].depth);
    return nnodes;
}

static const struct scenario scenarios[] = {
    {.name = "client and server", .b_listens = true, .depth = 13, .states = 4000},
    {.name = "with losses",
     .b_listens = true,
     .losses = 2,
     .timers = 2,
     .depth = 9,
     .states = 5000},
    {.name = "doubled, reordered",
     .b_listens = true,
     .doubles = 1,
     .overtakings = 1,
     .depth = 10,
     .states = 4000},
    {.name = "both connect", .b_connects = true, .depth = 13, .states = 4000},
    {.name = "both, with losses",
     .b_connects = true,
     .losses = 1,
     .timers = 2,
     .depth = 9,
     .states = 5000},
    {.name = "nobody listens", .timers = 2, .losses = 1, .depth = 8, .states = 1000},
};

int main(void)
{
    uint64_t states = 0;
    for (unsigned i = 0; i < ARRAY_LEN(scenarios); i++)
        states += explore(&scenarios[i]);
    const unsigned missing = figure_print();
    if (missing != 0)
        printf("%u arrows or states were never seen\n", missing);
    printf("%llu states\n", (unsigned long long)states);
    printf("explore: %u passed, %u failed\n", (unsigned)ARRAY_LEN(scenarios), missing != 0);
    return missing != 0;
}
