/* Text that grows. */
#pragma once

#include <stddef.h>

struct text {
    char *s; /* ends with a zero byte once something was added; NULL before */
    size_t n, room;
};

void text_add(struct text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
void text_add_n(struct text *t, const char *s, size_t n);
/* Escaped for XML and HTML. */
void text_add_xml(struct text *t, const char *s);
void text_clear(struct text *t);
void text_free(struct text *t);
/* Columns that UTF-8 text takes (no wide characters). */
size_t text_columns(const char *s);
