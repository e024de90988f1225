/* Which events are wanted (filter.h). */
#include "shim/command/view/filter.h"

#include <stdlib.h>
#include <string.h>

/* Whether a word of the list (with commas) fulfils the condition. */
static bool any(const char *list, const void *of,
                bool (*fits)(const void *of, const char *s, size_t n))
{
    while (*list) {
        size_t n = strcspn(list, ",");
        if (n > 0 && fits(of, list, n))
            return true;
        list += n;
        list += *list == ',';
    }
    return false;
}

static bool is_word(const void *of, const char *s, size_t n)
{
    const char *word = of;
    return word && strlen(word) == n && memcmp(word, s, n) == 0;
}

static bool is_conn(const void *of, const char *s, size_t n)
{
    const struct event *e = of;
    return e->conn != 0 && strtoul(s, NULL, 10) == e->conn && n > 0;
}

static bool is_pid(const void *of, const char *s, size_t n)
{
    const struct event *e = of;
    return strtol(s, NULL, 10) == e->pid && n > 0;
}

bool addr_has_port(const char *addr, const char *port, size_t n)
{
    const char *colon = addr ? strrchr(addr, ':') : NULL;
    return colon && strlen(colon + 1) == n && memcmp(colon + 1, port, n) == 0;
}

bool addr_is(const char *addr, const char *wanted, size_t n)
{
    const char *colon = addr ? strrchr(addr, ':') : NULL;
    if (!colon)
        return false;
    if (strlen(addr) == n && memcmp(addr, wanted, n) == 0)
        return true;
    size_t host = (size_t)(colon - addr);
    if (host >= 2 && addr[0] == '[') { /* [::1]:80 */
        addr++;
        host -= 2;
    }
    return host == n && memcmp(addr, wanted, n) == 0;
}

static bool is_port(const void *of, const char *s, size_t n)
{
    const struct event *e = of;
    return addr_has_port(e->local, s, n) || addr_has_port(e->peer, s, n);
}

static bool is_addr(const void *of, const char *s, size_t n)
{
    const struct event *e = of;
    return addr_is(e->local, s, n) || addr_is(e->peer, s, n);
}

bool filter_takes(const struct filter *f, const struct event *e)
{
    if (e->kind == EV_LOST)
        return true;
    int64_t t = e->t - f->zero;
    if ((f->from != TIME_NONE && t < f->from) || (f->to != TIME_NONE && t > f->to))
        return false;
    if (f->pids && !any(f->pids, e, is_pid))
        return false;
    if (e->kind == EV_TRACE)
        return true;
    return (!f->classes || any(f->classes, e->class, is_word)) &&
           (!f->events || any(f->events, e->name, is_word)) &&
           (!f->conns || any(f->conns, e, is_conn)) && (!f->ports || any(f->ports, e, is_port)) &&
           (!f->addrs || any(f->addrs, e, is_addr));
}

bool parse_duration(const char *s, int64_t *ns)
{
    static const struct {
        const char *unit;
        double factor;
    } units[] = {{"", 1e9}, {"s", 1e9}, {"ms", 1e6}, {"us", 1e3}, {"ns", 1}};
    char *end;
    double v = strtod(s, &end);
    if (end == s || !(v > -9e9 && v < 9e9))
        return false;
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
        if (strcmp(end, units[i].unit) == 0) {
            *ns = (int64_t)(v * units[i].factor);
            return true;
        }
    return false;
}
