#include "shim/core/rules.h"

#include "shim/core/addr.h"

#define RULES_MAX     64
#define RULE_TEXT_MAX 96

struct rule {
    bool kernel;
    uint8_t calls;  /* enum rule_call bits */
    uint8_t prefix; /* of 128; 0: any address */
    struct ip_addr net;
    uint16_t port_min, port_max;
    char text[RULE_TEXT_MAX]; /* "rule: ..." as the program's user wrote it, for the trace */
};

static struct rule rules[RULES_MAX];
static unsigned nrules;

struct word {
    const char *at;
    size_t len;
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static bool word_is(const struct word *w, const char *text)
{
    return w->len == strlen(text) && memcmp(w->at, text, w->len) == 0;
}

/* Takes the next word off [*p, end). Empty at the end. */
static struct word next_word(const char **p, const char *end)
{
    while (*p < end && is_blank(**p))
        (*p)++;
    struct word w = {.at = *p};
    while (*p < end && !is_blank(**p))
        (*p)++;
    w.len = (size_t)(*p - w.at);
    return w;
}

static bool parse_number(const char *at, size_t len, uint32_t max, uint32_t *out)
{
    if (len == 0 || len > 5)
        return false;
    uint32_t v = 0;
    for (size_t i = 0; i < len; i++) {
        if (at[i] < '0' || at[i] > '9')
            return false;
        v = v * 10 + (uint32_t)(at[i] - '0');
    }
    *out = v;
    return v <= max;
}

/* PORT or PORT-PORT */
static bool parse_ports(const char *at, size_t len, struct rule *r)
{
    const char *dash = memchr(at, '-', len);
    uint32_t low, high;
    size_t first = dash ? (size_t)(dash - at) : len;
    if (!parse_number(at, first, 65535, &low))
        return false;
    high = low;
    if (dash && !parse_number(dash + 1, len - first - 1, 65535, &high))
        return false;
    r->port_min = (uint16_t)low;
    r->port_max = (uint16_t)high;
    return low <= high;
}

/* ADDR or ADDR/LEN; IPv6 in brackets. */
static bool parse_net(const char *at, size_t len, struct rule *r)
{
    if (len == 1 && *at == '*')
        return true;
    const char *slash = memchr(at, '/', len);
    size_t addr_len = slash ? (size_t)(slash - at) : len;
    const char *addr = at;
    if (addr_len >= 2 && addr[0] == '[' && addr[addr_len - 1] == ']') {
        addr++;
        addr_len -= 2;
    }
    if (!addr_parse(addr, addr_len, &r->net))
        return false;
    bool v4 = ip_addr_is_v4(&r->net);
    uint32_t prefix = v4 ? 32 : 128;
    if (slash && !parse_number(slash + 1, (size_t)(at + len - slash - 1), prefix, &prefix))
        return false;
    /* an IPv4 /0 means every IPv4 address: 96 bits of the mapped form */
    r->prefix = (uint8_t)(v4 ? prefix + 96 : prefix);
    return true;
}

/* [ADDR[/LEN]|*][:PORT[-PORT]] */
static bool parse_where(const struct word *w, struct rule *r)
{
    const char *end = w->at + w->len;
    const char *colon = NULL;
    for (const char *p = end; p > w->at && p[-1] != ']' && p[-1] != '/'; p--) {
        if (p[-1] == ':') {
            colon = p - 1;
            break;
        }
    }
    size_t net_len = colon ? (size_t)(colon - w->at) : w->len;
    if (colon && !parse_ports(colon + 1, (size_t)(end - colon - 1), r))
        return false;
    return net_len == 0 || parse_net(w->at, net_len, r);
}

static const char *parse_rule(const char *at, const char *end, struct rule *r)
{
    *r = (struct rule){.calls = RULE_ANY, .port_max = 65535};
    struct word w = next_word(&at, end);
    if (word_is(&w, "kernel"))
        r->kernel = true;
    else if (!word_is(&w, "user"))
        return "begin with user or kernel";
    w = next_word(&at, end);
    bool call_given = true;
    if (word_is(&w, "connect"))
        r->calls = RULE_CONNECT;
    else if (word_is(&w, "listen"))
        r->calls = RULE_LISTEN;
    else if (!word_is(&w, "any"))
        call_given = false;
    if (call_given)
        w = next_word(&at, end);
    if (w.len > 0 && !parse_where(&w, r))
        return "give ADDR, ADDR/LEN or *, then :PORT or :PORT-PORT";
    if (next_word(&at, end).len > 0)
        return "say user|kernel [connect|listen|any] [ADDR[/LEN]|*][:PORT[-PORT]]";
    return NULL;
}

bool rules_parse(const char *text, char *error, size_t len)
{
    nrules = 0;
    while (*text) {
        const char *end = text + strcspn(text, ",\n");
        while (is_blank(*text))
            text++;
        if (text < end) {
            struct rule r;
            const char *cure = parse_rule(text, end, &r);
            if (nrules == RULES_MAX)
                cure = "more than 64 rules";
            if (cure) {
                snprintf(error, len, "rule \"%.*s\": %s", (int)(end - text), text, cure);
                nrules = 0;
                return false;
            }
            snprintf(r.text, sizeof(r.text), "rule: %.*s", (int)(end - text), text);
            rules[nrules++] = r;
        }
        text = *end ? end + 1 : end;
    }
    return true;
}

struct decision rules_decide(enum rule_call call, const struct endpoint *ep)
{
    for (unsigned i = 0; i < nrules; i++) {
        const struct rule *r = &rules[i];
        if (!(r->calls & call) || ep->port < r->port_min || ep->port > r->port_max)
            continue;
        if (r->prefix > 0 && !addr_in_prefix(&ep->addr, &r->net, r->prefix))
            continue;
        return (struct decision){.verdict = r->kernel ? VERDICT_KERNEL : VERDICT_USER,
                                 .why = r->text};
    }
    return (struct decision){.verdict = VERDICT_USER, .why = "no rule says otherwise"};
}
