/* The state of a script: random numbers, the log, slots and addresses. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "tests/diff/diff.h"

#define LISTENING 10 /* tcpi_state */

extern volatile int sigpipes; /* main.c */

/* ---- random ---- */

uint64_t random_next(struct world *w) /* splitmix64 */
{
    uint64_t z = w->random += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

unsigned pick(struct world *w, unsigned n)
{
    return (unsigned)(random_next(w) % n);
}

bool once_in(struct world *w, unsigned n)
{
    return pick(w, n) == 0;
}

int pick_int(struct world *w, const int *values, unsigned n)
{
    return values[pick(w, n)];
}

/* ---- log ---- */

#define LOG_SIZE (1 << 20)
static char log_text[LOG_SIZE];
static size_t log_len;

void say(const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    const int n = vsnprintf(log_text + log_len, LOG_SIZE - log_len, format, ap);
    va_end(ap);
    if (n > 0 && (size_t)n < LOG_SIZE - log_len)
        log_len += (size_t)n;
}

void log_reset(void)
{
    log_len = 0;
}

void log_flush(void)
{
    for (size_t at = 0; at < log_len;) {
        const ssize_t n = write(STDOUT_FILENO, log_text + at, log_len - at);
        if (n <= 0)
            _exit(3);
        at += (size_t)n;
    }
    log_len = 0;
}

const char *error_name(int err)
{
    const char *name = strerrorname_np(err);
    return name != NULL ? name : "?";
}

void say_result(long result, int err)
{
    if (result < 0)
        say(" = %ld %s", result, error_name(err));
    else
        say(" = %ld", result);
    if (sigpipes != 0)
        say(" SIGPIPE %d", sigpipes);
    sigpipes = 0;
    say("\n");
}

void say_events(uint32_t events)
{
    static const struct {
        uint32_t bit;
        const char *name;
    } names[] = {
        {EPOLLIN, "IN"},          {EPOLLPRI, "PRI"},         {EPOLLOUT, "OUT"},
        {EPOLLERR, "ERR"},        {EPOLLHUP, "HUP"},         {POLLNVAL, "NVAL"},
        {EPOLLRDNORM, "RDNORM"},  {EPOLLRDBAND, "RDBAND"},   {EPOLLWRNORM, "WRNORM"},
        {EPOLLWRBAND, "WRBAND"},  {EPOLLMSG, "MSG"},         {EPOLLRDHUP, "RDHUP"},
        {EPOLLEXCLUSIVE, "EXCL"}, {EPOLLONESHOT, "ONESHOT"}, {EPOLLET, "ET"},
    };
    const char *between = "";
    if (events == 0)
        say("0");
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if ((events & names[i].bit) == 0)
            continue;
        say("%s%s", between, names[i].name);
        between = "|";
        events &= ~names[i].bit;
    }
    if (events != 0)
        say("|%#x", events);
}

/* ---- slots ---- */

static const struct {
    unsigned first, count;
    char letter;
} kinds[] = {
    [SLOT_SOCKET] = {0, SOCKETS, 'S'},
    [SLOT_SET] = {SOCKETS, SETS, 'E'},
    [SLOT_PIPE] = {SOCKETS + SETS, PIPES, 'P'},
};

enum slot_kind kind_of(unsigned slot)
{
    return slot < SOCKETS ? SLOT_SOCKET : slot < SOCKETS + SETS ? SLOT_SET : SLOT_PIPE;
}

const char *slot_name(unsigned slot)
{
    static char names[SLOTS][4];
    const enum slot_kind kind = kind_of(slot);
    snprintf(names[slot], sizeof(names[slot]), "%c%u", kinds[kind].letter,
             (slot - kinds[kind].first) % 10);
    return names[slot];
}

unsigned pick_slot(struct world *w, enum slot_kind kind, bool used)
{
    const unsigned first = kinds[kind].first, count = kinds[kind].count;
    unsigned found[SLOTS] = {0}, n = 0;
    for (unsigned i = first; i < first + count; i++)
        if ((w->slot[i].fd >= 0) == used)
            found[n++] = i;
    return n != 0 ? found[pick(w, n)] : first + pick(w, count);
}

int tcp_state_of(int fd)
{
    struct tcp_info info = {0};
    socklen_t len = sizeof(info);
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0)
        return -1;
    return info.tcpi_state;
}

int pick_state(struct world *w, int state)
{
    unsigned found[SOCKETS] = {0}, n = 0;
    for (unsigned i = 0; i < SOCKETS; i++)
        if (w->slot[i].fd >= 0 && tcp_state_of(w->slot[i].fd) == state)
            found[n++] = i;
    return n != 0 ? (int)found[pick(w, n)] : -1;
}

int fd_of(const struct world *w, unsigned slot)
{
    const struct slot *s = &w->slot[slot];
    if (s->fd >= 0)
        return s->fd;
    for (unsigned i = 0; i < SLOTS; i++) /* its old number belongs to another slot by now */
        if (w->slot[i].fd == s->stale)
            return -1;
    return s->stale;
}

void slot_open(struct world *w, unsigned slot, int fd)
{
    if (fd < 0)
        return;
    w->slot[slot] = (struct slot){.fd = fd, .stale = fd, .file = ++w->files};
}

void slot_close(struct world *w, unsigned slot)
{
    struct slot *s = &w->slot[slot];
    if (s->fd < 0)
        return;
    say("close(%s)", slot_name(slot));
    const int r = close(s->fd);
    const int err = errno;
    s->fd = -1;
    s->seen[0] = '\0';
    say_result(r, err);
}

unsigned slot_for_new(struct world *w, enum slot_kind kind)
{
    const unsigned slot = pick_slot(w, kind, false);
    if (w->slot[slot].fd >= 0) {
        slot_close(w, slot);
        settle(w);
    }
    return slot;
}

int peer_slot(const struct world *w, unsigned slot)
{
    struct sockaddr_in local, remote, other;
    socklen_t len = sizeof(local);
    if (getsockname(w->slot[slot].fd, (struct sockaddr *)&local, &len) < 0)
        return -1;
    len = sizeof(remote);
    if (getpeername(w->slot[slot].fd, (struct sockaddr *)&remote, &len) < 0)
        return -1;
    for (unsigned i = 0; i < SOCKETS; i++) {
        len = sizeof(other);
        if (w->slot[i].fd < 0 || getpeername(w->slot[i].fd, (struct sockaddr *)&other, &len) < 0 ||
            other.sin_port != local.sin_port)
            continue;
        len = sizeof(other);
        if (getsockname(w->slot[i].fd, (struct sockaddr *)&other, &len) == 0 &&
            other.sin_port == remote.sin_port)
            return (int)i;
    }
    return -1;
}

void world_begin(struct world *w, uint64_t seed)
{
    const int barrier = w->barrier;
    memset(w, 0, sizeof(*w));
    w->barrier = barrier;
    w->seed = w->random = seed;
    w->budget = 30000;
    /* TIME_WAIT of one script is not in the way of the next */
    w->here.s_addr = htonl(0x7f000000u | (1 + (unsigned)(seed / 254 / 250 % 250)) << 16 |
                           (unsigned)(seed / 254 % 250) << 8 | (1 + (unsigned)(seed % 254)));
    for (unsigned i = 0; i < SLOTS; i++)
        w->slot[i].fd = w->slot[i].stale = -1;
}

void world_end(struct world *w)
{
    for (unsigned i = 0; i < SLOTS; i++)
        slot_close(w, i);
    settle(w);
}

/* ---- addresses ---- */

struct sockaddr_in address(const struct world *w, uint16_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = w->here};
}

uint16_t port_of(int fd)
{
    struct sockaddr_in sa = {0};
    socklen_t len = sizeof(sa);
    return getsockname(fd, (struct sockaddr *)&sa, &len) == 0 ? ntohs(sa.sin_port) : 0;
}

/*
 * Ports are named by a socket that has them: numbers are random, and used again at random, by the
 * shim even for connections to different ports at the same time.
 */
static void say_port(const struct world *w, int slot, uint16_t port)
{
    const int peer = slot >= 0 && w->slot[slot].fd >= 0 ? peer_slot(w, (unsigned)slot) : -1;
    if (peer >= 0 && port_of(w->slot[peer].fd) == port) {
        say(" port of peer %s", slot_name((unsigned)peer));
        return;
    }
    for (unsigned i = 0; i < SOCKETS; i++) {
        if (w->slot[i].fd >= 0 && tcp_state_of(w->slot[i].fd) == LISTENING &&
            port_of(w->slot[i].fd) == port) {
            say(" port of %s", slot_name(i));
            return;
        }
    }
    say(" some port");
}

socklen_t address_size(const struct world *w, unsigned slot)
{
    return w->slot[slot].v6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
}

socklen_t address_for(const struct world *w, unsigned slot, const struct sockaddr_in *sa,
                      socklen_t len, struct sockaddr_storage *out)
{
    memset(out, 0, sizeof(*out));
    if (!w->slot[slot].v6 || sa->sin_family != AF_INET || len != sizeof(*sa)) {
        memcpy(out, sa, len < sizeof(*sa) ? len : sizeof(*sa));
        return len;
    }
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)out;
    in6->sin6_family = AF_INET6;
    in6->sin6_port = sa->sin_port;
    if (sa->sin_addr.s_addr != htonl(INADDR_ANY)) {
        in6->sin6_addr.s6_addr[10] = in6->sin6_addr.s6_addr[11] = 0xff;
        memcpy(&in6->sin6_addr.s6_addr[12], &sa->sin_addr, 4);
    }
    return sizeof(*in6);
}

/* An address that a call gave, an IPv6 one in full as IPv4. */
static struct sockaddr_in plain(const void *given, socklen_t len)
{
    struct sockaddr_in sa = {0};
    const struct sockaddr_in6 *in6 = given;
    memcpy(&sa, given, len < sizeof(sa) ? len : sizeof(sa));
    if (len < sizeof(*in6) || in6->sin6_family != AF_INET6)
        return sa;
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    if (memcmp(in6->sin6_addr.s6_addr, mapped, sizeof(mapped)) == 0)
        memcpy(&sa.sin_addr, &in6->sin6_addr.s6_addr[12], 4);
    else
        memcpy(&sa.sin_addr, in6->sin6_addr.s6_addr, 4);
    return sa;
}

void say_address(const struct world *w, int slot, const void *given, socklen_t len)
{
    const struct sockaddr_in full = plain(given, len), *sa = &full;
    say("[%u", len);
    if (len >= sizeof(sa->sin_family))
        say(" family %u", sa->sin_family);
    if (len >= sizeof(*sa)) {
        if (sa->sin_addr.s_addr == w->here.s_addr)
            say(" here");
        else
            say(" %s", inet_ntoa(sa->sin_addr));
        if (sa->sin_port != 0)
            say_port(w, slot, ntohs(sa->sin_port));
        else
            say(" port 0");
    }
    say("]");
}
