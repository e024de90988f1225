/*
 * The ladder: the life lines of client and server, what they sent each other, and at both sides
 * the states, the moves between the queues and the calls that caused them. Time runs down, row by
 * row, not to scale.
 */
#pragma once

#include "shim/command/view/flow.h"
#include "shim/command/view/svg.h"

enum {
    SHOW_CALL = 1,
    SHOW_STATE = 2,
    SHOW_QUEUE = 4,
    SHOW_SEGMENT = 8,
    SHOW_TIMER = 16,
    SHOW_CC = 32,
    SHOW_HELD = 64,
    SHOW_BUFFER = 128,
    SHOW_REASON = 256,
    SHOW_DEFAULT = SHOW_CALL | SHOW_STATE | SHOW_QUEUE | SHOW_SEGMENT | SHOW_TIMER | SHOW_CC |
                   SHOW_HELD | SHOW_REASON,
};

struct ladder_options {
    unsigned show;
    bool narrow;         /* for two side by side */
    bool full;           /* long transfers are not cut short */
    int64_t from, to;    /* ns from the flow's zero; TIME_NONE: no bound */
    double page;         /* a drawing ends near this height and another begins; 0: one drawing */
    const char *title;   /* NULL: the addresses */
    const char *name[2]; /* of the programs; NULL */
    bool own_style;
};

/* Adds the drawing (or drawings, one behind the other) to the text. */
void ladder_draw(struct text *to, const struct flow *f, const struct ladder_options *options);

/* ---- ladder_rows.c, for ladder_draw.c ---- */

enum { ROW_LINES = 12 };

/* What stands at one height. */
struct row {
    uint8_t side;
    int64_t t;         /* TIME_NONE: no time is written */
    const char *state; /* begins here */
    size_t segment;    /* index of the flow's item that leaves or arrives here; NO_MATCH */
    unsigned repeats;  /* the note happened so often again */
    bool elided;       /* stands for what was left out */
    unsigned nnotes, nlabels;
    char *notes[ROW_LINES];  /* at the side, wrapped */
    char *labels[ROW_LINES]; /* in the middle, above the arrow; the first is the main one */
    bool bad_note[ROW_LINES];
    double y, h; /* set when it is drawn */
};

struct rows {
    struct row *items;
    size_t n, room;
    size_t *row_of;     /* of each item of the flow; NO_MATCH: not shown */
    uint64_t window[2]; /* last written of each sender */
};

struct ladder_columns {
    size_t note, label; /* characters in a line */
};

void rows_make(struct rows *rows, const struct flow *f, const struct ladder_options *options,
               const struct ladder_columns *columns);
void rows_free(struct rows *rows);
