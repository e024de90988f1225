#define _GNU_SOURCE
#include "shim/watch/line.h"

#include "shim/core/addr.h"

void put_char(struct line *l, char c)
{
    if (l->n < LINE_MAX_BYTES)
        l->text[l->n++] = c;
    else
        l->cut = true;
}

void put(struct line *l, const char *s)
{
    for (; s && *s; s++)
        put_char(l, *s);
}

void put_n(struct line *l, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        put_char(l, s[i]);
}

void put_plain(struct line *l, const char *s)
{
    for (; s && *s; s++)
        put_char(l, (unsigned char)*s >= ' ' ? *s : ' ');
}

void put_padded(struct line *l, uint64_t v, unsigned width)
{
    char digits[20];
    unsigned n = 0;
    do {
        digits[n++] = (char)('0' + v % 10);
        v /= 10;
    } while (v > 0);
    for (unsigned i = n; i < width; i++)
        put_char(l, '0');
    while (n > 0)
        put_char(l, digits[--n]);
}

void put_u64(struct line *l, uint64_t v)
{
    put_padded(l, v, 1);
}

void put_signed(struct line *l, int64_t v)
{
    if (v < 0)
        put_char(l, '-');
    put_u64(l, v < 0 ? 0 - (uint64_t)v : (uint64_t)v);
}

void put_seconds(struct line *l, uint64_t ns)
{
    put_u64(l, ns / NSEC_PER_SEC);
    put_char(l, '.');
    put_padded(l, ns % NSEC_PER_SEC, 9);
}

void put_addr(struct line *l, const struct ip_addr *addr)
{
    char text[ADDR_TEXT_MAX];
    addr_format(addr, text);
    put(l, text);
}

void put_endpoint(struct line *l, const struct ip_addr *addr, uint16_t port)
{
    bool v6 = !ip_addr_is_v4(addr);
    if (port == 0 && ip_addr_is_any(addr)) {
        put_char(l, '*');
        return;
    }
    put(l, v6 ? "[" : "");
    put_addr(l, addr);
    put(l, v6 ? "]:" : ":");
    if (port != 0)
        put_u64(l, port);
    else
        put_char(l, '*');
}

void put_flags(struct line *l, uint64_t flags)
{
    static const char *const names[] = {"FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"};
    /* SYN before ACK, ACK before what rides on it: as people say it */
    static const uint8_t order[] = {1, 2, 0, 3, 4, 5, 6, 7};
    const char *between = "";
    for (unsigned i = 0; i < ARRAY_LEN(order); i++) {
        if (!(flags >> order[i] & 1))
            continue;
        put(l, between);
        put(l, names[order[i]]);
        between = ",";
    }
    if (*between == '\0')
        put(l, "none");
}

void put_errno(struct line *l, uint64_t err)
{
    const char *name = strerrorname_np((int)err);
    if (name)
        put(l, name);
    else
        put_u64(l, err);
}

/* Days since 1970 to a date: libc's gmtime() may take locks. */
void put_date(struct line *l, uint64_t sec, uint64_t nsec)
{
    /* from 1 March of year 0, in eras of 400 years: leap days then come last */
    const uint64_t days = sec / 86400 + 719468, rest = sec % 86400;
    const uint64_t era = days / 146097, day = days % 146097;
    const uint64_t of_era = (day - day / 1460 + day / 36524 - day / 146096) / 365;
    const uint64_t of_year = day - (365 * of_era + of_era / 4 - of_era / 100);
    const uint64_t march = (5 * of_year + 2) / 153;
    const uint64_t month = march < 10 ? march + 3 : march - 9;
    put_padded(l, era * 400 + of_era + (month <= 2), 4);
    put_char(l, '-');
    put_padded(l, month, 2);
    put_char(l, '-');
    put_padded(l, of_year - (153 * march + 2) / 5 + 1, 2);
    put_char(l, 'T');
    put_padded(l, rest / 3600, 2);
    put_char(l, ':');
    put_padded(l, rest / 60 % 60, 2);
    put_char(l, ':');
    put_padded(l, rest % 60, 2);
    put_char(l, '.');
    put_padded(l, nsec, 9);
    put_char(l, 'Z');
}
