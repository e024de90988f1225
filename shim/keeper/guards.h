/* The guards that the keeper took over from a dead family. */
#pragma once

#include "stack/stack.h"
#include "stack/tcp/flow.h"

/* Takes them out of custody (shim/life/custody.h) and decides what is to stand. */
void guards_take(struct stack *st, int custody);
/* What the keeper holds for a port or a tuple, as another keeper takes it over (merge.h). */
enum guard_kind { GUARD_PORT, GUARD_STAND_IN, GUARD_NAME };
struct guard_item {
    enum guard_kind kind;
    bool named;
    uint16_t port;
    struct flow_tuple tuple; /* of a stand-in */
};
void guards_each(void (*visit)(const struct guard_item *item, int fd, void *arg), void *arg);
/* The descriptor belongs to the guards from here on. False: there is no room, and it is closed. */
bool guards_adopt(const struct guard_item *item, int fd);
/* Lets go of those whose connections are over. */
void guards_sweep(struct stack *st);
