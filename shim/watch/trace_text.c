/*
 * The text sink (trace_text.h). A line is put together in a buffer on the stack, without stdio, and
 * leaves in one write, so that the lines of several processes do not mix:
 *
 *     0.001207 4711 #3 10.0.0.1:43210 -> 10.0.0.2:80  state  SYN_SENT -> ESTABLISHED  rx SYN,ACK
 */
#define _GNU_SOURCE
#include "shim/watch/trace_text.h"

#include <errno.h>
#include <time.h>

#include "shim/core/addr.h"
#include "shim/core/config.h"
#include "shim/core/fdtable.h"
#include "shim/core/raw.h"
#include "stack/tcp/flow.h"
#include "stack/tcp/names.h"
#include "stack/tcp/wire.h"

#define LINE_MAX_BYTES 480
/* How long a full pipe or terminal may hold the engine up before a line is lost. */
#define SINK_PATIENCE_SEC 1
/* Connections whose initial sequence numbers are remembered, for relative numbers. */
#define ISN_NOTES 1024

struct line {
    size_t n;
    char text[LINE_MAX_BYTES + 2];
};

/* The initial sequence numbers of a connection, seen on its SYNs. */
struct isn_note {
    uint32_t number; /* of the flow; 0: empty */
    bool has_iss, has_irs;
    uint32_t iss, irs;
};

enum { SINK_CLOSED = -1, SINK_BROKEN = -2 };

static int sink = SINK_CLOSED;
static int sink_pid; /* who opened it: a name with %p is another file after fork */
static struct isn_note isn_notes[ISN_NOTES];

static void put_char(struct line *l, char c)
{
    if (l->n < LINE_MAX_BYTES)
        l->text[l->n++] = c;
}

static void put(struct line *l, const char *s)
{
    for (; s && *s; s++)
        put_char(l, *s >= ' ' ? *s : ' ');
}

/* Decimal, with zeros in front up to width. */
static void put_padded(struct line *l, uint64_t v, unsigned width)
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

static void put_u64(struct line *l, uint64_t v)
{
    put_padded(l, v, 1);
}

static void put_signed(struct line *l, int64_t v)
{
    if (v < 0)
        put_char(l, '-');
    put_u64(l, v < 0 ? 0 - (uint64_t)v : (uint64_t)v);
}

/* A length of time in milliseconds. */
static void put_ms(struct line *l, uint64_t ns)
{
    put_u64(l, ns / NSEC_PER_MSEC);
    put_char(l, '.');
    put_padded(l, ns % NSEC_PER_MSEC / NSEC_PER_USEC, 3);
    put(l, "ms");
}

static void put_addr(struct line *l, const struct ip_addr *addr)
{
    char text[ADDR_TEXT_MAX];
    addr_format(addr, text);
    put(l, text);
}

static void put_v4(struct line *l, uint32_t addr4)
{
    struct ip_addr addr = ip_addr_from_v4(addr4);
    put_addr(l, &addr);
}

static void put_endpoint(struct line *l, const struct ip_addr *addr, uint16_t port)
{
    bool v6 = !ip_addr_is_v4(addr);
    if (port == 0 && ip_addr_is_any(addr)) {
        put_char(l, '*'); /* nothing is chosen yet */
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

static void put_flags(struct line *l, uint64_t flags)
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

static void put_errno(struct line *l, uint64_t err)
{
    const char *name = strerrorname_np((int)err);
    if (name)
        put(l, name);
    else
        put_u64(l, err);
}

static bool type_is(const char *type, size_t len, const char *name)
{
    return strlen(name) == len && memcmp(type, name, len) == 0;
}

/* One argument by its type in the schema (stack/trace.h). */
static void put_value(struct line *l, const char *type, size_t len, uint64_t v)
{
    if (type_is(type, len, "ns"))
        put_ms(l, v);
    else if (type_is(type, len, "state"))
        put(l, tcp_state_name((unsigned)v));
    else if (type_is(type, len, "reason"))
        put(l, tcp_reason_text((unsigned)v));
    else if (type_is(type, len, "timer"))
        put(l, tcp_timer_name((unsigned)v));
    else if (type_is(type, len, "flags"))
        put_flags(l, v);
    else if (type_is(type, len, "err"))
        put_errno(l, v);
    else if (type_is(type, len, "addr4"))
        put_v4(l, (uint32_t)v);
    else if (type_is(type, len, "str") || type_is(type, len, "call"))
        put(l, (const char *)(uintptr_t)v);
    else
        put_u64(l, v);
}

/* An argument of the schema: "name:type". Returns what follows it. */
static const char *next_arg(const char *spec, const char **name, size_t *name_len,
                            const char **type, size_t *type_len)
{
    *name = spec;
    *name_len = strcspn(spec, ":");
    *type = spec + *name_len + 1;
    *type_len = strcspn(*type, " ");
    spec = *type + *type_len;
    return *spec ? spec + 1 : spec;
}

/* "name=value name=value", and the reason, if there is one, last and in words. */
static void put_generic(struct line *l, const struct trace_record *r)
{
    const char *spec = trace_events[r->id].args;
    const char *reason = NULL;
    for (unsigned i = 0; i < r->argc && *spec; i++) {
        const char *name, *type;
        size_t name_len, type_len;
        spec = next_arg(spec, &name, &name_len, &type, &type_len);
        if (type_is(type, type_len, "reason") || type_is(type, type_len, "str")) {
            reason = type_is(type, type_len, "str") ? (const char *)(uintptr_t)r->argv[i]
                                                    : tcp_reason_text((unsigned)r->argv[i]);
            continue;
        }
        put_char(l, ' ');
        for (size_t k = 0; k < name_len; k++)
            put_char(l, name[k]);
        put_char(l, '=');
        put_value(l, type, type_len, r->argv[i]);
    }
    if (reason && *reason) {
        put(l, "  ");
        put(l, reason);
    }
}

static uint64_t arg(const struct trace_record *r, unsigned i)
{
    return i < r->argc ? r->argv[i] : 0;
}

/* Two spaces and the reason, where there is one. */
static void put_why(struct line *l, uint64_t reason)
{
    const char *text = tcp_reason_text((unsigned)reason);
    if (*text)
        put(l, "  ");
    put(l, text);
}

static void put_state(struct line *l, const struct trace_record *r)
{
    put(l, "  ");
    put(l, tcp_state_name((unsigned)arg(r, 0)));
    put(l, " -> ");
    put(l, tcp_state_name((unsigned)arg(r, 1)));
    put_why(l, arg(r, 2));
}

/* "  SYN queue 1, accept queue 0/128", behind the reason where there is one. */
static void put_queue(struct line *l, const struct trace_record *r)
{
    unsigned first = r->id == TRACE_EV_REFUSED || r->id == TRACE_EV_SYN_DROPPED;
    if (first)
        put_why(l, arg(r, 0));
    put(l, "  SYN queue ");
    put_u64(l, arg(r, first));
    if (r->argc > first + 1) {
        put(l, ", accept queue ");
        put_u64(l, arg(r, first + 1));
    }
    if (r->argc > first + 2) {
        put_char(l, '/');
        put_u64(l, arg(r, first + 2));
    }
}

static struct isn_note *isn_note(const struct flow *flow)
{
    if (!flow || flow->number == 0)
        return NULL;
    struct isn_note *n = &isn_notes[flow->number % ISN_NOTES];
    if (n->number != flow->number)
        *n = (struct isn_note){.number = flow->number};
    return n;
}

/* A sequence number from the connection's start where that was seen, then plain. */
static void put_seq(struct line *l, const char *name, uint32_t seq, bool known, uint32_t first)
{
    put(l, name);
    if (known) {
        put_u64(l, (uint32_t)(seq - first));
        put(l, " (");
    }
    put_u64(l, seq);
    put(l, known ? ")" : "");
}

/* flags seq ack len wnd why */
static void put_segment(struct line *l, const struct trace_record *r)
{
    bool out = r->id == TRACE_EV_SEGMENT_OUT;
    uint32_t flags = (uint32_t)arg(r, 0), seq = (uint32_t)arg(r, 1), ack = (uint32_t)arg(r, 2);
    struct isn_note none = {0}, *n = isn_note(r->flow);
    if (!n)
        n = &none;
    if (flags & TCP_SYN) {
        *(out ? &n->has_iss : &n->has_irs) = true;
        *(out ? &n->iss : &n->irs) = seq;
        /* a server's SYN came before its connection had a number: the answer names it */
        if (out && flags & TCP_ACK) {
            n->has_irs = true;
            n->irs = ack - 1;
        }
    }
    put(l, out ? "  tx " : "  rx ");
    put_flags(l, flags);
    put_seq(l, " seq ", seq, out ? n->has_iss : n->has_irs, out ? n->iss : n->irs);
    if (flags & TCP_ACK)
        put_seq(l, " ack ", ack, out ? n->has_irs : n->has_iss, out ? n->irs : n->iss);
    put(l, " win ");
    put_u64(l, arg(r, 4));
    put(l, " len ");
    put_u64(l, arg(r, 3));
    put_why(l, arg(r, 5));
}

/* "  recv(7) = -1 EAGAIN" */
static void put_call(struct line *l, const struct trace_record *r)
{
    put(l, "  ");
    put(l, (const char *)(uintptr_t)arg(r, 0));
    put_char(l, '(');
    put_signed(l, (int32_t)arg(r, 1));
    put(l, ") = ");
    if (arg(r, 3) != 0) {
        put(l, "-1 ");
        put_errno(l, arg(r, 3));
    } else {
        put_signed(l, (int64_t)arg(r, 2));
    }
}

/* "  connect(): user  rule: user connect 10.0.0.0/8" */
static void put_rule(struct line *l, const struct trace_record *r)
{
    put(l, "  ");
    put(l, (const char *)(uintptr_t)arg(r, 0));
    put(l, arg(r, 1) ? "(): user  " : "(): kernel  ");
    put(l, (const char *)(uintptr_t)arg(r, 2));
}

static void put_event(struct line *l, const struct trace_record *r)
{
    if (r->id != TRACE_EV_SEGMENT_IN && r->id != TRACE_EV_SEGMENT_OUT) {
        put(l, "  ");
        put(l, trace_events[r->id].name);
    }
    switch (r->id) {
    case TRACE_EV_STATE:
        put_state(l, r);
        break;
    case TRACE_EV_SEGMENT_IN:
    case TRACE_EV_SEGMENT_OUT:
        put_segment(l, r);
        break;
    case TRACE_EV_CALL:
        put_call(l, r);
        break;
    case TRACE_EV_RULE:
        put_rule(l, r);
        break;
    default:
        if (trace_events[r->id].class == TRACE_QUEUE)
            put_queue(l, r);
        else
            put_generic(l, r);
    }
}

/*
 * Since the start of the process. The engine's clock stands still while it works, so what calls say
 * in between would be ahead of it: times never run back.
 */
static nsec_t since_start(nsec_t now)
{
    static nsec_t last;
    nsec_t since = now > config.start ? now - config.start : 0;
    nsec_t before = __atomic_load_n(&last, __ATOMIC_RELAXED);
    if (since <= before)
        return before;
    __atomic_store_n(&last, since, __ATOMIC_RELAXED);
    return since;
}

static void put_head(struct line *l, const struct trace_record *r, int pid)
{
    nsec_t since = since_start(r->now);
    put_u64(l, since / NSEC_PER_SEC);
    put_char(l, '.');
    put_padded(l, since % NSEC_PER_SEC / NSEC_PER_USEC, 6);
    put_char(l, ' ');
    put_u64(l, (uint64_t)pid);
    if (!r->flow)
        return;
    if (r->flow->number != 0) {
        put(l, " #");
        put_u64(l, r->flow->number);
    }
    const struct flow_tuple *t = &r->flow->tuple;
    put_char(l, ' ');
    put_endpoint(l, &t->local, t->lport);
    if (t->rport != 0) {
        put(l, " -> ");
        put_endpoint(l, &t->remote, t->rport);
    }
}

/* The file's name with the pid for each %p. */
static void expand_name(char *out, size_t len, int pid)
{
    struct line l = {0};
    for (const char *p = config.trace_file; *p; p++) {
        if (p[0] == '%' && p[1] == 'p') {
            put_u64(&l, (uint64_t)pid);
            p++;
        } else {
            put_char(&l, *p);
        }
    }
    l.text[l.n] = '\0';
    memcpy(out, l.text, min_u64(l.n + 1, len));
    out[len - 1] = '\0';
}

/* One thread opens; lines of others are lost meanwhile. */
static void open_sink(int pid)
{
    int fd, closed = SINK_CLOSED;
    if (!__atomic_compare_exchange_n(&sink, &closed, SINK_BROKEN, false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_ACQUIRE))
        return;
    if (config.trace_file[0]) {
        char name[LINE_MAX_BYTES];
        expand_name(name, sizeof(name), pid);
        fd = raw_open(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        if (fd < 0)
            config_complain("TCPSHIM_TRACE_FILE=%s: cannot be opened (%s); name a file that can "
                            "be written",
                            name, strerrorname_np(-fd));
    } else {
        /* a duplicate: the program may close 2 and get a socket of its own by that number */
        fd = raw_fcntl(2, F_DUPFD_CLOEXEC, 3);
    }
    sink_pid = pid;
    if (fd < 0)
        return;
    int moved = fd_make_internal(fd);
    __atomic_store_n(&sink, moved >= 0 ? moved : fd, __ATOMIC_RELEASE);
}

void trace_text_open(void)
{
    int saved = errno;
    if (config.trace != 0 && config.trace_file[0] == '\0')
        open_sink(raw_getpid());
    errno = saved;
}

static int sink_fd(int pid)
{
    if (sink >= 0 && sink_pid != pid && strstr(config.trace_file, "%p")) {
        fd_release_internal(sink);
        sink = SINK_CLOSED;
    }
    if (sink == SINK_CLOSED)
        open_sink(pid);
    return __atomic_load_n(&sink, __ATOMIC_ACQUIRE);
}

static void write_line(int fd, struct line *l)
{
    l->text[l->n++] = '\n';
    for (;;) {
        ssize_t n = raw_write(fd, l->text, l->n);
        if (n == -EINTR)
            continue;
        if (n != -EAGAIN)
            return;
        struct pollfd p = {.fd = fd, .events = POLLOUT};
        struct timespec patience = {.tv_sec = SINK_PATIENCE_SEC};
        if (raw_ppoll(&p, 1, &patience) == 0)
            return;
    }
}

void trace_text(struct stack_cx *cx, const struct trace_record *record)
{
    int saved = errno;
    struct line l;
    l.n = 0;
    (void)cx;
    int pid = raw_getpid();
    int fd = sink_fd(pid);
    if (fd >= 0) {
        put_head(&l, record, pid);
        put_event(&l, record);
        write_line(fd, &l);
    }
    errno = saved;
}

void trace_text_now(const struct flow *flow, enum trace_event_id id, const uint64_t *argv,
                    unsigned argc)
{
    if (!(config.trace & trace_events[id].class))
        return;
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    const struct trace_record record = {
        .id = id,
        .now = (nsec_t)ts.tv_sec * NSEC_PER_SEC + (nsec_t)ts.tv_nsec,
        .flow = flow,
        .argc = argc,
        .argv = argv,
    };
    trace_text(NULL, &record);
}
