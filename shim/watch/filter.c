#include "shim/watch/filter.h"

#include <stdio.h>

#include "shim/core/addr.h"
#include "stack/tcp/flow.h"

#define CONDITIONS_MAX 32

static struct condition {
    enum { ON_PORT, ON_ADDR, ON_CONN } on;
    bool negated;
    bool first; /* of a term */
    uint32_t low, high;
    struct ip_addr net;
    unsigned prefix;
} conditions[CONDITIONS_MAX];
static unsigned count;

static const char *skip_blanks(const char *p)
{
    return p + strspn(p, " \t");
}

/* The word at *p, if it is this one. */
static bool take_word(const char **p, const char *word)
{
    const size_t len = strlen(word);
    if (strncmp(*p, word, len) != 0 || (*p)[len] != ' ')
        return false;
    *p = skip_blanks(*p + len);
    return true;
}

static bool take_number(const char **p, uint32_t *out)
{
    uint64_t v = 0;
    const char *begin = *p;
    for (; **p >= '0' && **p <= '9' && v <= UINT32_MAX; (*p)++)
        v = v * 10 + (uint64_t)(**p - '0');
    *out = (uint32_t)v;
    return *p > begin && v <= UINT32_MAX;
}

static bool take_range(const char **p, uint32_t max, struct condition *c)
{
    if (!take_number(p, &c->low))
        return false;
    c->high = c->low;
    if (**p == '-') {
        (*p)++;
        if (!take_number(p, &c->high))
            return false;
    }
    return c->low <= c->high && c->high <= max;
}

static bool take_net(const char **p, struct condition *c)
{
    const size_t len = strcspn(*p, "/, ");
    uint32_t prefix;
    if (!addr_parse(*p, len, &c->net))
        return false;
    const bool v4 = ip_addr_is_v4(&c->net);
    *p += len;
    c->prefix = 128;
    if (**p != '/')
        return true;
    (*p)++;
    if (!take_number(p, &prefix) || prefix > (v4 ? 32 : 128))
        return false;
    c->prefix = v4 ? 96 + prefix : prefix;
    return true;
}

static bool take_condition(const char **p, struct condition *c)
{
    c->negated = take_word(p, "not");
    if (take_word(p, "port")) {
        c->on = ON_PORT;
        return take_range(p, 65535, c);
    }
    if (take_word(p, "conn")) {
        c->on = ON_CONN;
        return take_range(p, UINT32_MAX, c);
    }
    c->on = ON_ADDR;
    return take_word(p, "addr") && take_net(p, c);
}

void filter_clear(void)
{
    count = 0;
}

bool filter_parse(const char *text, char *error, size_t error_len)
{
    const char *p = skip_blanks(text);
    bool first = true;
    count = 0;
    for (;;) {
        const char *const begin = p;
        struct condition c = {.first = first};
        if (count == CONDITIONS_MAX) {
            snprintf(error, error_len, "at most %d conditions", CONDITIONS_MAX);
            break;
        }
        const bool good = take_condition(&p, &c);
        p = skip_blanks(p);
        if (!good || (*p != '\0' && *p != ',' && strncmp(p, "and ", 4) != 0)) {
            snprintf(error, error_len,
                     "port N[-M], addr A.B.C.D[/LEN], conn N[-M], with not, and, comma (or); "
                     "not: %.30s",
                     begin);
            break;
        }
        conditions[count++] = c;
        if (*p == '\0')
            return true;
        first = *p == ',';
        p = skip_blanks(p + (first ? 1 : 4));
    }
    count = 0;
    return false;
}

static bool in_range(const struct condition *c, uint32_t n)
{
    return n >= c->low && n <= c->high;
}

static bool meets(const struct condition *c, const struct flow *f)
{
    const struct flow_tuple *t = &f->tuple;
    bool met;
    if (c->on == ON_PORT)
        met = in_range(c, t->lport) || (t->rport && in_range(c, t->rport));
    else if (c->on == ON_CONN)
        met = f->number && in_range(c, f->number);
    else
        met = addr_in_prefix(&t->local, &c->net, c->prefix) ||
              (t->rport && addr_in_prefix(&t->remote, &c->net, c->prefix));
    return met != c->negated;
}

bool filter_passes(const struct flow *flow)
{
    if (count == 0)
        return true;
    if (flow == NULL)
        return false;
    bool term = false;
    for (unsigned i = 0; i < count; i++) {
        if (conditions[i].first && term)
            return true;
        term = (conditions[i].first || term) && meets(&conditions[i], flow);
    }
    return term;
}
