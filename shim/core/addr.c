#include "shim/core/addr.h"

#include <arpa/inet.h>

bool addr_parse(const char *text, size_t len, struct ip_addr *out)
{
    char copy[ADDR_TEXT_MAX];
    if (len == 0 || len >= sizeof(copy))
        return false;
    memcpy(copy, text, len);
    copy[len] = '\0';
    uint32_t v4;
    if (inet_pton(AF_INET, copy, &v4) == 1) {
        *out = ip_addr_from_v4(v4);
        return true;
    }
    return inet_pton(AF_INET6, copy, out->b) == 1;
}

static size_t put_decimal(char *out, unsigned byte)
{
    size_t n = 0;
    if (byte >= 100)
        out[n++] = (char)('0' + byte / 100);
    if (byte >= 10)
        out[n++] = (char)('0' + byte / 10 % 10);
    out[n++] = (char)('0' + byte % 10);
    return n;
}

size_t addr_format(const struct ip_addr *addr, char out[ADDR_TEXT_MAX])
{
    if (!ip_addr_is_v4(addr)) {
        inet_ntop(AF_INET6, addr->b, out, ADDR_TEXT_MAX);
        return strlen(out);
    }
    size_t n = 0;
    for (unsigned i = 12; i < 16; i++) {
        if (i > 12)
            out[n++] = '.';
        n += put_decimal(out + n, addr->b[i]);
    }
    out[n] = '\0';
    return n;
}

bool addr_in_prefix(const struct ip_addr *addr, const struct ip_addr *net, unsigned prefix)
{
    unsigned whole = prefix / 8, rest = prefix % 8;
    if (memcmp(addr->b, net->b, whole) != 0)
        return false;
    return rest == 0 || ((addr->b[whole] ^ net->b[whole]) >> (8 - rest)) == 0;
}

bool addr_is_group(const struct ip_addr *addr)
{
    if (!ip_addr_is_v4(addr))
        return addr->b[0] == 0xff;
    return (addr->b[12] & 0xf0) == 0xe0 || ip_addr_v4(addr) == UINT32_MAX;
}

bool addr_is_loopback(const struct ip_addr *addr)
{
    static const struct ip_addr v6_loopback = {.b = {[15] = 1}};
    if (ip_addr_is_v4(addr))
        return addr->b[12] == 127;
    return ip_addr_eq(addr, &v6_loopback);
}

static uint32_t mask(unsigned len)
{
    return len == 0 ? 0 : UINT32_MAX << (32 - len);
}

/* Whether a and b share an address: then one holds the other. */
static bool overlap(const struct v4_prefix *a, const struct v4_prefix *b)
{
    const uint32_t m = mask(a->len < b->len ? a->len : b->len);
    return ((a->addr ^ b->addr) & m) == 0;
}

int addr4_cover(const struct v4_prefix *except, unsigned n,
                int (*visit)(const struct v4_prefix *prefix, void *arg), void *arg)
{
    /* The tree of prefixes in order: a node that meets an exception is split, or left out whole. */
    struct v4_prefix p = {0};
    for (;;) {
        const struct v4_prefix *met = NULL;
        for (unsigned i = 0; i < n && (!met || met->len > p.len); i++)
            if (overlap(&p, &except[i]))
                met = &except[i];
        if (met && met->len > p.len) {
            p.len++; /* its left half */
            continue;
        }
        int err = met ? 0 : visit(&p, arg);
        if (err < 0)
            return err;
        while (p.len > 0 && (p.addr & 1u << (32 - p.len))) {
            p.addr &= ~(1u << (32 - p.len)); /* a right half: its parent is done */
            p.len--;
        }
        if (p.len == 0)
            return 0;
        p.addr |= 1u << (32 - p.len);
    }
}
