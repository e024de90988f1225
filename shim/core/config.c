#include "shim/core/config.h"

#include <errno.h>
#include <stdarg.h>

#include "shim/core/addr.h"
#include "shim/core/raw.h"
#include "shim/core/rules.h"
#include "shim/link/impair_rules.h"
#include "shim/watch/filter.h"
#include "stack/tcp/cc.h"

#define MEM_DEFAULT    ((uint64_t)512 << 20)
#define MEM_MAX        ((uint64_t)1 << 40)
#define COMPLAINTS_MAX 5

struct config config;

/* Each parser returns NULL or what is allowed instead. */
typedef const char *parser(struct config *c, const char *value);

static bool parse_switch(const char *value, bool *out)
{
    *out = strcmp(value, "1") == 0;
    return *out || strcmp(value, "0") == 0;
}

static bool parse_decimal(const char *value, const char **end, uint64_t max, uint64_t *out)
{
    uint64_t v = 0;
    const char *p = value;
    for (; *p >= '0' && *p <= '9'; p++) {
        v = v * 10 + (uint64_t)(*p - '0');
        if (v > max)
            return false;
    }
    *end = p;
    *out = v;
    return p > value;
}

static const char *parse_off(struct config *c, const char *value)
{
    return parse_switch(value, &c->off) ? NULL : "0 or 1";
}

static const char *parse_addr(struct config *c, const char *value)
{
    static const char *const allowed = "an IPv4 address of its own with its prefix, as 10.9.0.2/24";
    const char *slash = strchr(value, '/');
    const char *end;
    uint64_t prefix;
    if (!slash || !addr_parse(value, (size_t)(slash - value), &c->addr) ||
        !ip_addr_is_v4(&c->addr) || !parse_decimal(slash + 1, &end, 32, &prefix) || *end ||
        prefix == 0)
        return allowed;
    uint32_t host = get_be32(&c->addr.b[12]);
    uint32_t rest = prefix == 32 ? 0 : UINT32_MAX >> prefix;
    if (addr_is_group(&c->addr) || addr_is_loopback(&c->addr) || c->addr.b[12] == 0 ||
        (prefix < 31 && ((host & rest) == 0 || (host & rest) == rest)))
        return "an address that a host can have, as 10.9.0.2/24";
    c->prefix = (uint8_t)(96 + prefix);
    c->own_address = true;
    return NULL;
}

static const char *parse_gw(struct config *c, const char *value)
{
    if (!addr_parse(value, strlen(value), &c->gateway) || !ip_addr_is_v4(&c->gateway) ||
        ip_addr_is_any(&c->gateway) || addr_is_group(&c->gateway))
        return "the IPv4 address of a router on the link, as 10.9.0.1";
    return NULL;
}

static const char *parse_if(struct config *c, const char *value)
{
    if (strlen(value) >= sizeof(c->ifname) || strchr(value, '/'))
        return "the name of a network interface, as eth0";
    strcpy(c->ifname, value);
    return NULL;
}

static const char *parse_mem(struct config *c, const char *value)
{
    const char *end;
    uint64_t v;
    unsigned shift = 0;
    if (!parse_decimal(value, &end, MEM_MAX, &v))
        return "a size from 8M to 1024G, as 512M";
    if (*end == 'K' || *end == 'k')
        shift = 10;
    else if (*end == 'M' || *end == 'm')
        shift = 20;
    else if (*end == 'G' || *end == 'g')
        shift = 30;
    if (end[shift > 0] != '\0' || v > MEM_MAX >> shift || v << shift < STACK_SIZE_MIN)
        return "a size from 8M to 1024G, as 512M";
    c->mem = (v << shift) & ~(uint64_t)(ARENA_SPAN_SIZE - 1);
    return NULL;
}

static bool trace_word(const char *word, size_t len, uint32_t *bits)
{
    if (len == 3 && memcmp(word, "all", 3) == 0) {
        *bits |= TRACE_ALL;
        return true;
    }
    for (unsigned i = 0; i < TRACE_CLASS_COUNT; i++) {
        const char *known = trace_class_words[i];
        if (strlen(known) == len && memcmp(known, word, len) == 0) {
            *bits |= 1u << i;
            return true;
        }
    }
    return false;
}

static const char *parse_trace(struct config *c, const char *value)
{
    static const char first[] = "a comma list of all";
    static char allowed[128];
    while (*value) {
        size_t len = strcspn(value, ",");
        if (len > 0 && !trace_word(value, len, &c->trace)) {
            size_t used = strlen(strcpy(allowed, first));
            for (unsigned i = 0; i < TRACE_CLASS_COUNT && used < sizeof(allowed); i++)
                used += (size_t)snprintf(allowed + used, sizeof(allowed) - used, ", %s",
                                         trace_class_words[i]);
            return allowed;
        }
        value += len + (value[len] == ',');
    }
    return NULL;
}

static const char *parse_trace_file(struct config *c, const char *value)
{
    if (strlen(value) >= sizeof(c->trace_file))
        return "a file name below 256 bytes; %p in it stands for the pid";
    strcpy(c->trace_file, value);
    return NULL;
}

static const char *parse_trace_format(struct config *c, const char *value)
{
    c->trace_json = strcmp(value, "json") == 0;
    return c->trace_json || strcmp(value, "text") == 0 ? NULL : "text or json";
}

static const char *parse_pcap(struct config *c, const char *value)
{
    if (strlen(value) >= sizeof(c->pcap))
        return "a file name below 256 bytes; %p in it stands for the pid";
    strcpy(c->pcap, value);
    return NULL;
}

static const char *parse_impair(struct config *c, const char *value)
{
    (void)c;
    return impair_rules_parse(&impair_rules, value);
}

static const char *parse_trace_filter(struct config *c, const char *value)
{
    static char error[140];
    (void)c;
    return filter_parse(value, error, sizeof(error)) ? NULL : error;
}

static const char *parse_trace_ring(struct config *c, const char *value)
{
    if (strcmp(value, "dump") == 0)
        c->trace |= TRACE_TROUBLE;
    return c->trace & TRACE_TROUBLE || strcmp(value, "silent") == 0 ? NULL : "dump or silent";
}

static const char *parse_fallback(struct config *c, const char *value)
{
    c->fallback_kernel = strcmp(value, "kernel") == 0;
    return c->fallback_kernel || strcmp(value, "none") == 0 ? NULL : "kernel or none";
}

static const char *parse_loopback(struct config *c, const char *value)
{
    c->loopback_user = strcmp(value, "user") == 0;
    return c->loopback_user || strcmp(value, "kernel") == 0 ? NULL : "user or kernel";
}

static const char *parse_ingress(struct config *c, const char *value)
{
    c->ingress_drop = strcmp(value, "drop") == 0;
    return c->ingress_drop || strcmp(value, "pass") == 0 ? NULL : "drop or pass";
}

static const char *parse_exec(struct config *c, const char *value)
{
    static const char *const words[] = {
        [EXEC_KEEP] = "keep", [EXEC_ALL] = "all", [EXEC_PLAIN] = "plain"};
    for (unsigned i = 0; i < ARRAY_LEN(words); i++) {
        if (strcmp(value, words[i]) == 0) {
            c->exec = (uint8_t)i;
            return NULL;
        }
    }
    return "keep, all or plain";
}

static const char *parse_io_uring(struct config *c, const char *value)
{
    c->io_uring = strcmp(value, "allow") == 0;
    return c->io_uring || strcmp(value, "deny") == 0 ? NULL : "allow or deny";
}

static const char *parse_ecn(struct config *c, const char *value)
{
    static const char *const words[] = {"off",      "ask",          "accept",
                                        "accurate", "accurate-ask", "accurate-accept"};
    _Static_assert(ARRAY_LEN(words) == STACK_ECN_MAX + 1, "in the order of enum stack_ecn");
    for (unsigned i = 0; i < ARRAY_LEN(words); i++) {
        if (strcmp(value, words[i]) == 0) {
            c->ecn = (uint8_t)i;
            return NULL;
        }
    }
    return "off, ask, accept, accurate, accurate-ask or accurate-accept";
}

static const char *parse_cc(struct config *c, const char *value)
{
    static const char *const names[] = {
#define X(id, name) name,
        TCP_CCS(X)
#undef X
    };
    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        if (strcmp(value, names[i]) == 0) {
            c->cc = (uint8_t)i;
            return NULL;
        }
    }
#define X(id, name) " " name
    return "one of:" TCP_CCS(X);
#undef X
}

static const char *parse_spin(struct config *c, const char *value)
{
    const char *end;
    uint64_t v = 0;
    c->spin_auto = strcmp(value, "auto") == 0;
    if (!c->spin_auto && (!parse_decimal(value, &end, 1000000, &v) || *end))
        return "auto, or microseconds from 0 to 1000000";
    c->spin_usec = (uint32_t)v;
    return NULL;
}

static const char *parse_rules(struct config *c, const char *value)
{
    static char error[120];
    (void)c;
    return rules_parse(value, error, sizeof(error)) ? NULL : error;
}

static const struct variable {
    const char *name; /* behind TCPSHIM_ */
    parser *parse;
} variables[] = {
#define X(name, parser, option, argument, set, text) {#name, parse_##parser},
    CONFIG_VARIABLES(X)
#undef X
};

/* Edit distance (Levenshtein), for the hint at a misspelt name; names are short. */
static unsigned distance(const char *a, size_t alen, const char *b)
{
    unsigned row[17];
    size_t blen = strlen(b);
    for (size_t j = 0; j <= blen; j++)
        row[j] = (unsigned)j;
    for (size_t i = 1; i <= alen; i++) {
        unsigned diagonal = row[0];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= blen; j++) {
            unsigned best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            best = min_u32(best, min_u32(row[j], row[j - 1]) + 1);
            row[j] = best;
        }
    }
    return row[blen];
}

static void warn_unknown(struct config *c, const char *name, size_t len)
{
    const char *nearest = variables[0].name;
    unsigned best = UINT32_MAX;
    for (unsigned i = 0; i < ARRAY_LEN(variables); i++) {
        unsigned d = distance(name, min_u64(len, 16), variables[i].name);
        if (d < best) {
            best = d;
            nearest = variables[i].name;
        }
    }
    if (c->warning[0] == '\0')
        snprintf(
            c->warning, sizeof(c->warning),
            "TCPSHIM_%.*s is no variable of tcpshim and was ignored; the nearest is TCPSHIM_%s",
            (int)min_u64(len, 60), name, nearest);
}

/* One variable: "NAME=value" behind TCPSHIM_. An empty value counts as not set. */
static void read_variable(struct config *c, const char *entry)
{
    size_t len = strcspn(entry, "=");
    for (unsigned i = 0; i < ARRAY_LEN(variables); i++) {
        const struct variable *v = &variables[i];
        if (strlen(v->name) != len || memcmp(v->name, entry, len) != 0)
            continue;
        const char *value = entry + len + (entry[len] == '=');
        const char *allowed = *value ? v->parse(c, value) : NULL;
        if (allowed && c->error[0] == '\0')
            snprintf(c->error, sizeof(c->error), "TCPSHIM_%s=%.60s: not understood; allowed: %s",
                     v->name, value, allowed);
        return;
    }
    warn_unknown(c, entry, len);
}

/* What no single variable can show. */
static void check_together(struct config *c)
{
    bool gateway = !ip_addr_is_any(&c->gateway);
    if (c->error[0] || !gateway)
        return;
    if (!c->own_address)
        snprintf(c->error, sizeof(c->error),
                 "TCPSHIM_GW is set without TCPSHIM_ADDR; it is the router of the stack's own "
                 "address: set both or none");
    else if (!addr_in_prefix(&c->gateway, &c->addr, c->prefix) || ip_addr_eq(&c->gateway, &c->addr))
        snprintf(c->error, sizeof(c->error),
                 "TCPSHIM_GW is not another address within the prefix of TCPSHIM_ADDR");
}

void config_read(char **environ_)
{
    static const char prefix[] = "TCPSHIM_";
    int saved = errno;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    filter_clear();
    config = (struct config){.mem = MEM_DEFAULT,
                             .ecn = ECN_AS_KERNEL,
                             .spin_auto = true,
                             .ingress_drop = true,
                             .start = (nsec_t)now.tv_sec * NSEC_PER_SEC + (nsec_t)now.tv_nsec};
    for (char **e = environ_; e && *e; e++)
        if (memcmp(*e, "T", 1) == 0 && strncmp(*e, prefix, sizeof(prefix) - 1) == 0)
            read_variable(&config, *e + sizeof(prefix) - 1);
    check_together(&config);
    errno = saved;
}

bool config_fastopen_key(const char *text, uint8_t key[16])
{
    uint32_t words[4]; /* little-endian in memory, as Linux keeps them */
    if (sscanf(text, "%8x-%8x-%8x-%8x", &words[0], &words[1], &words[2], &words[3]) != 4)
        return false;
    memcpy(key, words, sizeof(words));
    return true;
}

void config_complain(const char *format, ...)
{
    static unsigned said;
    if (__atomic_fetch_add(&said, 1, __ATOMIC_RELAXED) >= COMPLAINTS_MAX)
        return;
    char line[512] = "tcpshim: ";
    size_t used = strlen(line);
    va_list ap;
    va_start(ap, format);
    int n = vsnprintf(line + used, sizeof(line) - used - 1, format, ap);
    va_end(ap);
    if (n < 0)
        return;
    used = min_u64(used + (size_t)n, sizeof(line) - 2);
    line[used++] = '\n';
    (void)!raw_write(2, line, used);
}
