/* What happened in a test, kept cheaply and printed as a time-sequence diagram when it fails. */
#include "tests/packet/spec.h"
#include "tests/packet/world.h"

#include <stdio.h>

static struct log_entry *entry(int kind)
{
    struct log_entry *e = &W.log[W.log_n++ % LOG_MAX];
    e->at = W.now;
    e->kind = (unsigned)kind;
    return e;
}

void world_log_text(const char *text)
{
    snprintf(entry(LOG_TEXT)->text, sizeof(W.log[0].text), "%s", text);
}

void world_log_event(const char *what, uint32_t number, uint32_t events)
{
    struct log_entry *e = entry(LOG_TEXT);
    snprintf(e->text, sizeof(e->text), "notify %s %u:%s%s%s%s%s%s", what, number,
             events & TCP_EV_IN ? " IN" : "", events & TCP_EV_OUT ? " OUT" : "",
             events & TCP_EV_PRI ? " PRI" : "", events & TCP_EV_ERR ? " ERR" : "",
             events & TCP_EV_HUP ? " HUP" : "", events & TCP_EV_RDHUP ? " RDHUP" : "");
}

void world_log_trace(const struct trace_record *r)
{
    if (r->id == TRACE_EV_SEGMENT_OUT || r->id == TRACE_EV_CALL || r->id == TRACE_EV_RECV_FROM)
        return; /* the frame itself is in the log */
    struct log_entry *e = entry(LOG_TRACE);
    e->id = r->id;
    e->argc = r->argc;
    memcpy(e->argv, r->argv, r->argc * sizeof(*r->argv));
    e->text[0] = 0;
    if (r->id == TRACE_EV_DROPPED) /* the one string argument, valid only now */
        snprintf(e->text, sizeof(e->text), "%s", (const char *)(uintptr_t)r->argv[0]);
}

static size_t print_options(char *out, size_t room, const struct wire_seg *s, uint32_t sack_base)
{
    struct wire_opts o;
    const char *wrong = wire_parse_opts(s, &o);
    size_t n = 0;
    if (!s->optlen)
        return 0;
#define ADD(...) (n += (size_t)snprintf(out + n, n < room ? room - n : 0, __VA_ARGS__))
    ADD(" <");
    if (wrong)
        ADD("(%s) ", wrong);
    if (o.has_mss)
        ADD("mss %u ", o.mss);
    if (o.sack_ok)
        ADD("sackOK ");
    if (o.has_ts)
        ADD("ts %u %u ", o.ts_val, o.ts_ecr);
    if (o.has_wscale)
        ADD("wscale %u ", o.wscale);
    if (o.nsack)
        ADD("sack");
    for (unsigned i = 0; i < o.nsack; i++)
        ADD(" %u:%u", o.sack[i].start - sack_base, o.sack[i].end - sack_base);
    ADD(">");
    return n;
}

void world_log_frame(bool tx, const uint8_t *frame, size_t len, uint16_t gso_size)
{
    struct log_entry *e = entry(tx ? LOG_TX : LOG_RX);
    char *out = e->text;
    size_t room = sizeof(e->text), n = 0;
    struct wire_seg s;
    const char *wrong = wire_parse_tcp(frame, len, false, &s);
    if (wrong) {
        uint16_t type = len >= L2_LEN ? get_be16(frame + 12) : 0;
        ADD("%s, %zu bytes (%s)",
            type == 0x0806                                         ? "ARP"
            : type == 0x0800 && len > 24 && frame[L2_LEN + 9] == 1 ? "ICMP"
                                                                   : "frame",
            len, wrong);
        return;
    }
    const struct peer *f =
        tx ? world_flow_find(s.sport, s.dport) : world_flow_find(s.dport, s.sport);
    uint32_t seq0 = f ? (tx ? f->iss : f->irs) : 0, ack0 = f ? (tx ? f->irs : f->iss) : 0;
    if (tx && (s.flags & TCP_SYN))
        seq0 = s.seq;
    char flags[12];
    spec_print_flags(s.flags, flags);
    if (f != W.cur)
        ADD("[%u>%u] ", s.sport, s.dport);
    ADD("%s seq %u", flags, s.seq - seq0);
    if (s.flags & TCP_ACK)
        ADD(" ack %u", s.ack - ack0);
    ADD(" win %u len %u", s.win, s.len);
    if (s.urg)
        ADD(" urg %u", s.urg);
    if (gso_size)
        ADD(" gso %u", gso_size);
    if (n < room)
        print_options(out + n, room - n, &s, ack0);
#undef ADD
}

static void print_arg(const char *name, int name_len, const char *type, int type_len, uint64_t v)
{
    printf(" %.*s=", name_len, name);
    if (strncmp(type, "state", (size_t)type_len) == 0)
        printf("%s", tcp_state_name((unsigned)v));
    else if (strncmp(type, "reason", (size_t)type_len) == 0)
        printf("\"%s\"", tcp_reason_text((unsigned)v));
    else if (strncmp(type, "timer", (size_t)type_len) == 0)
        printf("%s", tcp_timer_name((unsigned)v));
    else if (type_len == 2)
        printf("%.3fms", (double)v / 1e6);
    else if (type_len == 3) /* str, seq, err */
        printf("%u", (uint32_t)v);
    else
        printf("%llu", (unsigned long long)v);
}

static void print_trace(const struct log_entry *e)
{
    const struct trace_event_info *info = &trace_events[e->id];
    printf("  . %s", info->name);
    const char *p = info->args;
    for (unsigned i = 0; i < e->argc && *p; i++) {
        int name = (int)strcspn(p, ":");
        int type = (int)strcspn(p + name + 1, " ");
        print_arg(p, name, p + name + 1, type, e->argv[i]);
        p += name + 1 + type;
        p += strspn(p, " ");
    }
    if (e->text[0])
        printf(" (%s)", e->text);
    printf("\n");
}

void world_print_log(void)
{
    unsigned first = W.log_n > 400 ? W.log_n - 400 : 0;
    printf("      time ms  host%56s  peer\n", "");
    for (unsigned i = first; i < W.log_n; i++) {
        const struct log_entry *e = &W.log[i % LOG_MAX];
        printf("  %11.3f  ", (double)(e->at - W.start) / 1e6);
        switch (e->kind) {
        case LOG_TX:
            printf("  --- %-50s -->\n", e->text);
            break;
        case LOG_RX:
            printf("  <-- %-50s ---\n", e->text);
            break;
        case LOG_TRACE:
            print_trace(e);
            break;
        case LOG_TEXT:
            printf("  * %s\n", e->text);
            break;
        }
    }
}
