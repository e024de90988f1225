#include "shim/core/rules.h"

#include "shim/core/addr.h"

#define RULES_MAX     64
#define RULE_TEXT_MAX 96 /* of a rule as it is written */

struct rule {
    bool kernel;
    uint8_t calls;  /* enum rule_call bits */
    uint8_t prefix; /* of 128; 0: any address */
    struct ip_addr net;
    uint16_t port_min, port_max;
    char text[RULE_TEXT_MAX + 8]; /* "rule: ..." as the program's user wrote it, for the trace */
};

static struct rule rules[RULES_MAX];
static unsigned nrules;
static const char blanks[] = " \t";

/* Cuts the next word off *p; empty at the end. */
static char *next_word(char **p)
{
    char *word = *p + strspn(*p, blanks);
    char *end = word + strcspn(word, blanks);
    *p = *end ? end + 1 : end;
    *end = '\0';
    return word;
}

static bool parse_number(const char *text, uint32_t max, uint32_t *out)
{
    uint32_t v = 0;
    if (*text == '\0' || strlen(text) > 5)
        return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return false;
        v = v * 10 + (uint32_t)(*text - '0');
    }
    *out = v;
    return v <= max;
}

/* PORT or PORT-PORT */
static bool parse_ports(char *text, struct rule *r)
{
    char *dash = strchr(text, '-');
    uint32_t low, high;
    if (dash)
        *dash = '\0';
    if (!parse_number(text, 65535, &low))
        return false;
    high = low;
    if (dash && !parse_number(dash + 1, 65535, &high))
        return false;
    r->port_min = (uint16_t)low;
    r->port_max = (uint16_t)high;
    return low <= high;
}

/* ADDR or ADDR/LEN; IPv6 in brackets. */
static bool parse_net(char *text, struct rule *r)
{
    if (strcmp(text, "*") == 0)
        return true;
    char *slash = strchr(text, '/');
    if (slash)
        *slash = '\0';
    size_t len = strlen(text);
    bool brackets = len >= 2 && text[0] == '[' && text[len - 1] == ']';
    if (!addr_parse(text + brackets, len - 2 * brackets, &r->net))
        return false;
    bool v4 = ip_addr_is_v4(&r->net);
    uint32_t prefix = v4 ? 32 : 128;
    if (slash && !parse_number(slash + 1, prefix, &prefix))
        return false;
    /* an IPv4 /0 means every IPv4 address: 96 bits of the mapped form */
    r->prefix = (uint8_t)(v4 ? prefix + 96 : prefix);
    return true;
}

/* [ADDR[/LEN]|*][:PORT[-PORT]] */
static bool parse_where(char *text, struct rule *r)
{
    char *behind = strrchr(text, ']');
    char *colon = strrchr(behind ? behind : text, ':');
    if (colon) {
        *colon = '\0';
        if (!parse_ports(colon + 1, r))
            return false;
    }
    return *text == '\0' || parse_net(text, r);
}

/* Cuts text up. Returns NULL or what is wrong. */
static const char *parse_rule(char *text, struct rule *r)
{
    char *word = next_word(&text);
    if (strcmp(word, "kernel") == 0)
        r->kernel = true;
    else if (strcmp(word, "user") != 0)
        return "begin with user or kernel";
    word = next_word(&text);
    bool call_given = true;
    if (strcmp(word, "connect") == 0)
        r->calls = RULE_CONNECT;
    else if (strcmp(word, "listen") == 0)
        r->calls = RULE_LISTEN;
    else if (strcmp(word, "any") != 0)
        call_given = false;
    if (call_given)
        word = next_word(&text);
    if (*word && !parse_where(word, r))
        return "give ADDR, ADDR/LEN or *, then :PORT or :PORT-PORT";
    if (*next_word(&text))
        return "say user|kernel [connect|listen|any] [ADDR[/LEN]|*][:PORT[-PORT]]";
    return NULL;
}

/* One rule of len characters. */
static const char *add_rule(const char *text, size_t len)
{
    char copy[RULE_TEXT_MAX];
    if (nrules == RULES_MAX)
        return "more than 64 rules";
    if (len >= sizeof(copy))
        return "too long";
    struct rule *r = &rules[nrules];
    *r = (struct rule){.calls = RULE_ANY, .port_max = 65535};
    snprintf(r->text, sizeof(r->text), "rule: %.*s", (int)len, text);
    memcpy(copy, text, len);
    copy[len] = '\0';
    const char *cure = parse_rule(copy, r);
    nrules += cure == NULL;
    return cure;
}

bool rules_parse(const char *text, char *error, size_t len)
{
    nrules = 0;
    while (*text) {
        text += strspn(text, blanks);
        size_t n = strcspn(text, ",\n");
        const char *cure = n > 0 ? add_rule(text, n) : NULL;
        if (cure) {
            snprintf(error, len, "rule \"%.*s\": %s", (int)n, text, cure);
            nrules = 0;
            return false;
        }
        text += n + (text[n] != '\0');
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
