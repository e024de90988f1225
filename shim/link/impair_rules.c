#include "shim/link/impair_rules.h"

#include <stdio.h>

#define WORD_MAX 24

struct impair_rules impair_rules;

static const char *const kind_words[IMPAIR_KINDS] = {"syn", "syn-ack", "ack", "data",
                                                     "fin", "rst",     "any"};
static const char *const verb_words[IMPAIR_VERBS] = {
    "drop", "dup", "corrupt", "reorder", "delay", "jitter", "rate", "rst", "zero-window"};

/* What a clause may say besides direction and port. */
enum { HAS_CHOICE = 1, HAS_TIME = 2, HAS_AFTER = 4, HAS_RATE = 8, NEEDS = 16 };
static const uint8_t takes[IMPAIR_VERBS] = {
    [IMPAIR_DROP] = HAS_CHOICE,
    [IMPAIR_DUP] = HAS_CHOICE,
    [IMPAIR_CORRUPT] = HAS_CHOICE,
    [IMPAIR_REORDER] = HAS_CHOICE,
    [IMPAIR_DELAY] = HAS_CHOICE | HAS_TIME,
    [IMPAIR_JITTER] = HAS_TIME,
    [IMPAIR_RATE] = HAS_RATE,
    [IMPAIR_RESET] = HAS_AFTER,
    [IMPAIR_ZERO_WINDOW] = HAS_TIME | HAS_AFTER,
};

/* A clause on its way. */
struct parser {
    const char *p, *end;
    char word[WORD_MAX]; /* the current one; empty: none is left */
    struct impair_rule rule;
    bool has_verb, has_choice, has_time, has_after, has_rate;
};

static char complaint[160];

static bool is(const char *a, const char *b)
{
    return strcmp(a, b) == 0;
}

static const char *expected(const struct parser *c, const char *what)
{
    if (c->word[0])
        snprintf(complaint, sizeof(complaint), "%s in place of \"%s\"", what, c->word);
    else
        snprintf(complaint, sizeof(complaint), "%s at the end of \"%.*s\"", what,
                 (int)min_u64((uint64_t)strlen(c->rule.text), 40), c->rule.text);
    return complaint;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '=';
}

/* The next word of the clause; false where it is too long. */
static bool next(struct parser *c)
{
    size_t n = 0;
    while (c->p < c->end && is_space(*c->p))
        c->p++;
    while (c->p < c->end && !is_space(*c->p)) {
        if (n < WORD_MAX - 1)
            c->word[n++] = *c->p;
        c->p++;
    }
    c->word[n] = '\0';
    return n < WORD_MAX - 1;
}

/* Digits with an optional fraction, times `unit`, which the caller knows from what follows. */
static const char *number(const char *s, uint64_t *whole, uint64_t *billionths)
{
    uint64_t v = 0, f = 0, place = 100000000;
    const char *p = s;
    for (; *p >= '0' && *p <= '9'; p++) {
        v = v * 10 + (uint64_t)(*p - '0');
        if (v > 1000000000000u)
            return NULL;
    }
    if (p == s)
        return NULL;
    if (*p == '.') {
        for (p++; *p >= '0' && *p <= '9'; p++, place /= 10)
            f += (uint64_t)(*p - '0') * place;
    }
    *whole = v;
    *billionths = f;
    return p;
}

struct unit {
    const char *name;
    uint64_t value;
};

static bool measure(const char *word, const struct unit *units, uint64_t max, uint64_t *out)
{
    uint64_t whole, part;
    const char *rest = number(word, &whole, &part);
    if (!rest)
        return false;
    for (const struct unit *u = units; u->name; u++) {
        if (strcmp(rest, u->name) != 0)
            continue;
        if (whole > max / u->value)
            return false;
        *out = whole * u->value + part * (u->value / 1000) / 1000000;
        return *out <= max;
    }
    return false;
}

static bool parse_time(const char *word, nsec_t *out)
{
    static const struct unit units[] = {
        {"us", NSEC_PER_USEC}, {"ms", NSEC_PER_MSEC}, {"s", NSEC_PER_SEC}, {NULL, 0}};
    return measure(word, units, 3600 * NSEC_PER_SEC, out);
}

static bool parse_size(const char *word, uint64_t *out)
{
    static const struct unit units[] = {
        {"", 1},        {"B", 1},        {"K", 1 << 10}, {"KB", 1 << 10}, {"k", 1 << 10},
        {"M", 1 << 20}, {"MB", 1 << 20}, {"G", 1 << 30}, {"GB", 1 << 30}, {NULL, 0}};
    return measure(word, units, (uint64_t)1 << 40, out);
}

static bool parse_rate(const char *word, uint64_t *out)
{
    static const struct unit units[] = {
        {"", 1},           {"k", 1000},          {"K", 1000},          {"M", 1000000},
        {"G", 1000000000}, {"bit", 1},           {"kbit", 1000},       {"Mbit", 1000000},
        {"mbit", 1000000}, {"Gbit", 1000000000}, {"gbit", 1000000000}, {NULL, 0}};
    return measure(word, units, 1000000000000u, out) && *out >= 1000;
}

static bool parse_percent(const char *word, uint64_t *chance)
{
    uint64_t whole, part;
    const char *rest = number(word, &whole, &part);
    if (!rest || !is(rest, "%") || whole > 100 || (whole == 100 && part != 0))
        return false;
    /* percent in billionths, of IMPAIR_ALWAYS */
    const uint64_t billionths = (whole * 1000000000u + part) / 100;
    *chance = (uint64_t)((__uint128_t)billionths * IMPAIR_ALWAYS / 1000000000u);
    return true;
}

/* "3", "3rd", "3-5" */
static bool parse_ordinal(const char *word, uint32_t *first, uint32_t *last)
{
    uint64_t low, high, part = 0;
    const char *rest = number(word, &low, &part);
    if (!rest || part != 0 || low == 0 || low > UINT32_MAX || strchr(word, '.'))
        return false;
    high = low;
    if (*rest == '-')
        rest = number(rest + 1, &high, &part);
    else if (is(rest, "st") || is(rest, "nd") || is(rest, "rd") || is(rest, "th"))
        rest = "";
    if (!rest || *rest || part != 0 || high < low || high > UINT32_MAX)
        return false;
    *first = (uint32_t)low;
    *last = (uint32_t)high;
    return true;
}

static int find(const char *const *words, int n, const char *word)
{
    for (int i = 0; i < n; i++) {
        if (is(words[i], word))
            return i;
    }
    return -1;
}

static const char *parse_port(struct parser *c)
{
    uint32_t low, high;
    next(c);
    if (!parse_ordinal(c->word, &low, &high) || high > 65535)
        return expected(c, "a port (port 80, port 8000-8099)");
    c->rule.port_low = (uint16_t)low;
    c->rule.port_high = (uint16_t)high;
    return NULL;
}

static const char *parse_verb(struct parser *c)
{
    const int verb = find(verb_words, IMPAIR_VERBS, c->word);
    if (verb < 0)
        return expected(c, "drop, dup, corrupt, reorder, delay, jitter, rate, rst, zero-window or "
                           "seed");
    c->rule.verb = (enum impair_verb)verb;
    c->has_verb = true;
    return NULL;
}

/* Which segments of the connection. */
static bool parse_choice(struct parser *c)
{
    struct impair_rule *r = &c->rule;
    const int kind = find(kind_words, IMPAIR_KINDS, c->word);
    c->has_choice = true;
    if (kind >= 0) {
        r->kind = (enum impair_kind)kind;
        return true;
    }
    if (is(c->word, "retransmit"))
        return r->retransmit = true;
    return parse_percent(c->word, &r->chance) || parse_ordinal(c->word, &r->first, &r->last);
}

/* What may follow this verb, for the complaint. */
static const char *choices(enum impair_verb verb)
{
    switch (verb) {
    case IMPAIR_DELAY:
        return "a time (20ms), syn, syn-ack, ack, data, fin, rst, any, a number, retransmit or N%";
    case IMPAIR_JITTER:
        return "a time (5ms)";
    case IMPAIR_RATE:
        return "bits in a second from 1k on (10M)";
    case IMPAIR_RESET:
        return "after and a size (rst after 1MB)";
    case IMPAIR_ZERO_WINDOW:
        return "a time (zero-window 5s)";
    default:
        return "N%, syn, syn-ack, ack, data, fin, rst, any, a number (1, 2nd, 3-5) or retransmit";
    }
}

static const char *parse_rest(struct parser *c)
{
    const uint8_t may = takes[c->rule.verb];
    if ((may & HAS_TIME) && !c->has_time && parse_time(c->word, &c->rule.time)) {
        c->has_time = true;
        return NULL;
    }
    if ((may & HAS_RATE) && !c->has_rate && parse_rate(c->word, &c->rule.rate)) {
        c->has_rate = true;
        return NULL;
    }
    if ((may & HAS_AFTER) && is(c->word, "after")) {
        next(c);
        c->has_after = parse_size(c->word, &c->rule.after);
        return c->has_after ? NULL : expected(c, "a size (1MB)");
    }
    if ((may & HAS_CHOICE) && parse_choice(c))
        return NULL;
    return expected(c, choices(c->rule.verb));
}

/* Whether the clause says enough. */
static const char *complete(struct parser *c)
{
    const uint8_t may = takes[c->rule.verb];
    c->word[0] = '\0';
    if (!c->has_verb)
        return expected(c, "drop, dup, corrupt, reorder, delay, jitter, rate, rst or zero-window");
    if (((may & HAS_TIME) && !c->has_time) || ((may & HAS_RATE) && !c->has_rate) ||
        (may == HAS_AFTER && !c->has_after) || (may == HAS_CHOICE && !c->has_choice))
        return expected(c, choices(c->rule.verb));
    return NULL;
}

static const char *parse_seed(struct parser *c, struct impair_rules *rules)
{
    uint64_t part = 0;
    next(c);
    const char *rest = number(c->word, &rules->seed, &part);
    if (!rest || *rest || part != 0)
        return expected(c, "a number (seed=7)");
    next(c);
    return c->word[0] ? expected(c, "the end of the clause") : NULL;
}

static const char *parse_clause(struct parser *c, struct impair_rules *rules)
{
    const char *error = NULL;
    for (bool fits = next(c); c->word[0] && !error; fits = next(c)) {
        if (!fits)
            return expected(c, "a shorter word");
        if (is(c->word, "in") || is(c->word, "out")) {
            if (c->rule.dirs[IMPAIR_IN] || c->rule.dirs[IMPAIR_OUT])
                return expected(c, "one of in and out, or none of them for both,");
            c->rule.dirs[is(c->word, "in") ? IMPAIR_IN : IMPAIR_OUT] = true;
        } else if (is(c->word, "port")) {
            error = parse_port(c);
        } else if (c->has_verb) {
            error = parse_rest(c);
        } else if (is(c->word, "seed")) {
            return parse_seed(c, rules);
        } else {
            error = parse_verb(c);
        }
    }
    if (!error)
        error = complete(c);
    if (error)
        return error;
    struct impair_rule *r = &c->rule;
    if (!r->dirs[IMPAIR_IN] && !r->dirs[IMPAIR_OUT]) {
        r->dirs[IMPAIR_IN] = true;
        /* the window that holds us up is the peer's */
        r->dirs[IMPAIR_OUT] = r->verb != IMPAIR_ZERO_WINDOW;
    }
    if (rules->n == IMPAIR_RULES_MAX)
        return "at most 16 clauses";
    rules->rule[rules->n++] = *r;
    return NULL;
}

const char *impair_rules_parse(struct impair_rules *rules, const char *text)
{
    *rules = (struct impair_rules){.seed = 1};
    while (*text) {
        const size_t len = strcspn(text, ",;");
        const size_t blanks = strspn(text, " \t\n");
        if (blanks < len) {
            struct parser c = {.p = text, .end = text + len};
            c.rule = (struct impair_rule){
                .kind = IMPAIR_ANY, .port_high = 65535, .chance = IMPAIR_ALWAYS};
            size_t keep = min_u64(len - blanks, IMPAIR_TEXT_MAX - 1);
            while (keep > 0 && is_space(text[blanks + keep - 1]))
                keep--;
            memcpy(c.rule.text, text + blanks, keep);
            const char *error = parse_clause(&c, rules);
            if (error) {
                rules->n = 0;
                return error;
            }
        }
        text += len + (text[len] != '\0');
    }
    return NULL;
}
