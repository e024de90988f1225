/* Text that grows (text.h). */
#include "shim/command/view/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shim/command/view/event.h"

static void make_room(struct text *t, size_t more)
{
    if (t->s && t->n + more + 1 <= t->room)
        return;
    t->room = (t->n + more + 1) * 2;
    t->s = must_alloc(t->s, t->room);
}

void text_add_n(struct text *t, const char *s, size_t n)
{
    make_room(t, n);
    memcpy(t->s + t->n, s, n);
    t->n += n;
    t->s[t->n] = '\0';
}

void text_add(struct text *t, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n > 0) {
        make_room(t, (size_t)n);
        vsnprintf(t->s + t->n, (size_t)n + 1, format, again);
        t->n += (size_t)n;
    }
    va_end(again);
    if (!t->s)
        text_add_n(t, "", 0);
}

void text_add_xml(struct text *t, const char *s)
{
    for (; *s; s++) {
        switch (*s) {
        case '&':
            text_add_n(t, "&amp;", 5);
            break;
        case '<':
            text_add_n(t, "&lt;", 4);
            break;
        case '>':
            text_add_n(t, "&gt;", 4);
            break;
        case '"':
            text_add_n(t, "&quot;", 6);
            break;
        default: /* control characters are not allowed in XML */
            text_add_n(t, (unsigned char)*s < ' ' && *s != '\n' && *s != '\t' ? " " : s, 1);
        }
    }
    if (!t->s)
        text_add_n(t, "", 0);
}

void text_clear(struct text *t)
{
    t->n = 0;
    if (t->s)
        t->s[0] = '\0';
}

void text_free(struct text *t)
{
    free(t->s);
    *t = (struct text){0};
}

size_t text_columns(const char *s)
{
    size_t n = 0;
    for (; *s; s++)
        n += ((unsigned char)*s & 0xC0) != 0x80;
    return n;
}
