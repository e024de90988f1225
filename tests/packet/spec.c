#include "tests/packet/spec.h"

#include <ctype.h>
#include <stdlib.h>

static const char flag_letters[] = "FSRPAUEWN";

void spec_print_flags(uint16_t flags, char out[12])
{
    static const char order[] = "SFRPAUEWN";
    unsigned n = 0;
    for (const char *l = order; *l; l++)
        if (flags & 1u << (strchr(flag_letters, *l) - flag_letters))
            out[n++] = *l;
    if (n == 0)
        out[n++] = '-';
    out[n] = 0;
}

bool spec_num_fits(const struct spec_num *n, uint32_t v)
{
    switch (n->cmp) {
    case SPEC_EQ:
        return v == n->v;
    case SPEC_GT:
        return (int32_t)(v - n->v) > 0;
    case SPEC_LT:
        return (int32_t)(v - n->v) < 0;
    default:
        return true;
    }
}

static const char *skip_space(const char *p)
{
    while (*p == ' ')
        p++;
    return p;
}

/* A word of letters and digits, taken off. */
static const char *take_word(const char *p, char *word, size_t size)
{
    size_t n = 0;
    p = skip_space(p);
    while (isalnum((unsigned char)*p) || *p == '!' || *p == '-') {
        if (n + 1 < size)
            word[n++] = *p;
        p++;
    }
    word[n] = 0;
    return p;
}

static const char *take_num(const char *p, struct spec_num *n)
{
    p = skip_space(p);
    n->cmp = SPEC_EQ;
    if (*p == '*') {
        n->cmp = SPEC_ANY;
        return p + 1;
    }
    if (*p == '>' || *p == '<')
        n->cmp = *p++ == '>' ? SPEC_GT : SPEC_LT;
    char *end;
    n->v = (uint32_t)strtoll(p, &end, 10);
    return end == p ? NULL : end;
}

static bool starts_num(const char *p)
{
    p = skip_space(p);
    return *p == '*' || isdigit((unsigned char)*p) || (*p == '-' && isdigit((unsigned char)p[1])) ||
           ((*p == '>' || *p == '<') && isdigit((unsigned char)p[1]));
}

static const char *take_hex(const char *p, struct spec_opt *o)
{
    p = skip_space(p);
    while (isxdigit((unsigned char)p[0]) && isxdigit((unsigned char)p[1])) {
        char two[3] = {p[0], p[1], 0};
        if (o->n == sizeof(o->hex))
            return NULL;
        o->hex[o->n++] = (uint8_t)strtoul(two, NULL, 16);
        p += 2;
    }
    return p;
}

static const char *take_option(const char *p, struct spec_opt *o)
{
    static const char *const names[] = {"mss", "wscale", "sackOK", "ts",   "sack",
                                        "nop", "eol",    "hex",    "none", "accecn"};
    char word[16];
    p = take_word(p, word, sizeof(word));
    const char *name = word;
    if (*name == '!') {
        o->absent = true;
        name++;
    }
    unsigned k = 0;
    while (k < ARRAY_LEN(names) && strcmp(name, names[k]) != 0)
        k++;
    if (k == ARRAY_LEN(names))
        return NULL;
    o->kind = (enum spec_opt_kind)k;
    if (o->kind == OPT_HEX)
        return take_hex(p, o);
    while (starts_num(p) && o->n < ARRAY_LEN(o->v)) {
        p = take_num(p, &o->v[o->n++]);
        if (p && *p == ':')
            p++;
        if (!p)
            return NULL;
    }
    return p;
}

static const char *take_options(const char *p, struct spec *out)
{
    out->has_opts = true;
    for (;;) {
        p = skip_space(p);
        if (*p == '>')
            return p + 1;
        if (out->nopts == ARRAY_LEN(out->opts))
            return NULL;
        p = take_option(p, &out->opts[out->nopts++]);
        if (!p)
            return NULL;
        p = skip_space(p);
        if (*p == ',')
            p++;
        else if (*p != '>')
            return NULL;
    }
}

static struct spec_num *field(struct spec *s, const char *word)
{
    static const struct {
        const char *name;
        size_t at;
    } fields[] = {
        {"seq", offsetof(struct spec, seq)}, {"ack", offsetof(struct spec, ack)},
        {"win", offsetof(struct spec, win)}, {"len", offsetof(struct spec, len)},
        {"urg", offsetof(struct spec, urg)}, {"gso", offsetof(struct spec, gso)},
        {"tos", offsetof(struct spec, tos)},
    };
    for (size_t i = 0; i < ARRAY_LEN(fields); i++)
        if (strcmp(word, fields[i].name) == 0)
            return (struct spec_num *)((char *)s + fields[i].at);
    return NULL;
}

const char *spec_parse(const char *text, struct spec *out)
{
    memset(out, 0, sizeof(*out));
    char word[16];
    const char *p = take_word(text, word, sizeof(word));
    for (const char *l = word; *l; l++) {
        const char *at = strchr(flag_letters, *l);
        if (*l == '-')
            continue;
        if (!at)
            return "unknown flag";
        out->flags |= (uint16_t)(1u << (at - flag_letters));
        out->psh_named |= *l == 'P';
    }
    for (p = skip_space(p); *p; p = skip_space(p)) {
        if (*p == '<') {
            p = take_options(p + 1, out);
        } else {
            p = take_word(p, word, sizeof(word));
            struct spec_num *n = field(out, word);
            if (!n)
                return "unknown field";
            p = take_num(p, n);
        }
        if (!p)
            return "malformed value or option";
    }
    return NULL;
}
