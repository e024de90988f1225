/* Events as lines for a terminal: aligned, coloured, at most `width` columns. */
#pragma once

#include "shim/command/view/event.h"

enum print_time { PRINT_RELATIVE, PRINT_DELTA, PRINT_CLOCK, PRINT_WALL };

struct printer {
    FILE *to;
    unsigned width; /* columns; 0: lines are not folded */
    bool colored;
    enum print_time time;
    int64_t zero; /* what relative times are counted from */
    /* what the printer remembers */
    int64_t last, wall_offset; /* CLOCK_REALTIME - CLOCK_MONOTONIC, from the traces; 0: not known */
    unsigned who_width;
    struct introduced *introduced;
    size_t nintroduced;
};

void print_event(struct printer *p, const struct event *e, const json_t *object);
void printer_free(struct printer *p);
