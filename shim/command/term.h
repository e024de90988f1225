/* What the terminal can show. */
#pragma once

#include <stdbool.h>
#include <stdio.h>

enum style { STYLE_PLAIN, STYLE_BOLD, STYLE_DIM, STYLE_RED, STYLE_GREEN, STYLE_YELLOW, STYLE_CYAN };

/* Whether colours go to this stream: a terminal, NO_COLOR not set (no-color.org), TERM not dumb. */
bool term_colored(FILE *to);
/* The sequence that begins a style (STYLE_PLAIN ends one), or "" where there are no colours. */
const char *term_style(FILE *to, enum style style);
/* Columns: of the terminal, else COLUMNS, else 80. */
unsigned term_width(FILE *to);
