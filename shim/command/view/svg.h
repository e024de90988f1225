/*
 * A drawing that becomes plain, self-contained SVG. Three layers: lines, then the ground behind
 * texts that lines may cross, then texts. Colours come from a few classes, for light and dark
 * grounds and for paper. Text is set in a fixed pitch, so its width is known.
 */
#pragma once

#include <stdbool.h>
#include <stdio.h>

#include "shim/command/view/text.h"

struct svg {
    struct text lines, grounds, texts;
    double width, height;
};

enum anchor { ANCHOR_START, ANCHOR_MIDDLE, ANCHOR_END };

/* Width of text in the fixed pitch. */
double svg_text_width(const char *s, double size);
/* class: words of the style below. ground: lines below the text are interrupted. */
void svg_text(struct svg *g, double x, double y, double size, enum anchor anchor, const char *class,
              bool ground, const char *s);
void svg_line(struct svg *g, double x1, double y1, double x2, double y2, const char *class);
void svg_rect(struct svg *g, double x, double y, double w, double h, const char *class);
/* Data of a path element. */
void svg_path(struct svg *g, const char *d, const char *class);
/* The point of an arrow at x, y that flies along (dx, dy). */
void svg_arrow_head(struct svg *g, double x, double y, double dx, double dy, const char *class);
/* The cross of what was lost. */
void svg_cross(struct svg *g, double x, double y, const char *class);
/* Adds the finished element, and empties the drawing. own_style: with the style sheet inside.
 * title: read by screen readers. */
void svg_finish(struct svg *g, struct text *to, bool own_style, const char *title);
/* The style sheet, for a page with several drawings. */
extern const char svg_style[];
