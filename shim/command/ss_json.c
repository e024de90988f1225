/* Snapshots for programs: one object a line, names as in struct tcp_info where it has them. */
#include <stdio.h>
#include <time.h>

#include "shim/command/ss.h"
#include "shim/watch/format.h"
#include "stack/tcp/cc.h"

#define JSON_VERSION 1

/* Begins with a comma unless it is the first of its object or array. */
static void comma(bool *first)
{
    if (!*first)
        putchar(',');
    *first = false;
}

static void text(const char *s)
{
    putchar('"');
    for (; *s != '\0'; s++) {
        const unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\')
            printf("\\%c", c);
        else if (c < ' ' || c >= 127)
            printf("\\u%04x", c);
        else
            putchar(c);
    }
    putchar('"');
}

static void member(const char *name, const char *value)
{
    printf(",\"%s\":", name);
    text(value);
}

static void number(const char *name, uint64_t value)
{
    printf(",\"%s\":%llu", name, (unsigned long long)value);
}

/* Nanoseconds as seconds. */
static void seconds(const char *name, int64_t ns)
{
    printf(",\"%s\":%.9f", name, (double)ns / 1e9);
}

static void owners(const struct snapshot_socket *k)
{
    bool first = true;
    fputs(",\"users\":[", stdout);
    for (unsigned i = 0; i < k->nowners; i++) {
        comma(&first);
        printf("{\"pid\":%d,\"fd\":%d", (int)k->owners[i].member->pid, k->owners[i].fd);
        member("name", k->owners[i].member->name);
        putchar('}');
    }
    putchar(']');
}

static void timers(const struct snapshot_socket *k)
{
    bool first = true;
    fputs(",\"timers\":{", stdout);
    for (unsigned i = 0; i < k->ntimers; i++) {
        comma(&first);
        text(tcp_timer_name(k->timers[i].which));
        printf(":%.9f", (double)k->timers[i].left / 1e9);
    }
    putchar('}');
}

static void conn(const struct snapshot_socket *k)
{
    const struct tcp_view *v = &k->view;
    const uint32_t mss = max_u32(v->snd_mss, 1);
    printf(",\"orphan\":%s,\"unaccepted\":%s", k->orphan ? "true" : "false",
           k->unaccepted ? "true" : "false");
    seconds("rto", (int64_t)v->rto);
    seconds("rtt", (int64_t)v->srtt);
    seconds("rttvar", (int64_t)v->rttvar);
    seconds("min_rtt", (int64_t)v->min_rtt);
    seconds("ato", (int64_t)v->ato);
    seconds("last_data_sent", (int64_t)v->last_data_sent);
    seconds("last_data_recv", (int64_t)v->last_data_recv);
    seconds("last_ack_recv", (int64_t)v->last_ack_recv);
    member("congestion", cc_ops(k->cc)->name);
    const struct {
        const char *name;
        uint64_t value;
    } numbers[] = {
        {"snd_mss", v->snd_mss},
        {"rcv_mss", v->rcv_mss},
        {"advmss", v->advmss},
        {"pmtu", v->pmtu},
        {"ca_state", v->ca_state},
        {"backoff", v->backoff},
        {"retransmits", v->retransmits},
        {"probes", v->probes},
        {"snd_cwnd", v->cwnd / mss},
        {"snd_ssthresh", v->ssthresh >= 0x7fffffff ? 0x7fffffff : v->ssthresh / mss},
        {"snd_wnd", v->snd_wnd},
        {"rcv_wnd", v->rcv_wnd},
        {"snd_wscale", v->snd_wscale},
        {"rcv_wscale", v->rcv_wscale},
        {"unacked", v->unacked_segs},
        {"sacked", v->sacked_segs},
        {"lost", v->lost_segs},
        {"retrans", v->retrans_segs},
        {"total_retrans", v->total_retrans},
        {"bytes_sent", v->bytes_sent},
        {"bytes_retrans", v->bytes_retrans},
        {"bytes_acked", v->bytes_acked},
        {"bytes_received", v->bytes_received},
        {"segs_out", v->segs_out},
        {"segs_in", v->segs_in},
        {"data_segs_out", v->data_segs_out},
        {"data_segs_in", v->data_segs_in},
        {"notsent_bytes", k->unsent},
        {"in_flight", k->in_flight},
        {"out_of_order", k->ooo},
        {"sndbuf", v->sndbuf},
        {"rcvbuf", v->rcvbuf},
        {"snd_una", k->snd_una.v},
        {"snd_nxt", k->snd_nxt.v},
        {"rcv_nxt", k->rcv_nxt.v},
        {"error", (uint64_t)k->error},
    };
    for (unsigned i = 0; i < ARRAY_LEN(numbers); i++)
        number(numbers[i].name, numbers[i].value);
    if (k->held != TCP_WHY_NONE)
        member("held", tcp_reason_text(k->held));
}

/* As in a trace, without what the socket has said: whose it is. */
static void events(const struct snapshot_socket *k, unsigned most)
{
    static struct line l;
    bool first = true;
    fputs(",\"events\":[", stdout);
    for (unsigned i = k->nevents - min_u32(most, k->nevents); i < k->nevents; i++) {
        uint64_t argv[TRACE_ARGS_MAX];
        const struct ring_event *e = &k->events[i];
        const struct trace_record record = {
            .id = e->event, .now = e->when, .argc = ring_expand(e, argv), .argv = argv};
        l.n = 0;
        trace_json_event(&l, &(struct shown){.r = &record,
                                             .info = &trace_events[record.id],
                                             .isn = k->isn,
                                             .now = record.now});
        comma(&first);
        fwrite(l.text, 1, l.n, stdout);
    }
    putchar(']');
}

static void one(const struct snapshot_socket *k, unsigned most_events)
{
    char local[64], remote[64];
    ss_endpoint(&k->local, local, sizeof(local));
    ss_endpoint(&k->remote, remote, sizeof(remote));
    fputs("{\"state\":", stdout);
    text(tcp_state_name(k->state));
    member("local", local);
    if (k->kind != FLOW_LISTENER)
        member("peer", remote);
    number("conn", k->number);
    number("recvq", k->recvq);
    number("sendq", k->sendq);
    owners(k);
    timers(k);
    if (k->age != NSEC_NEVER)
        seconds("age", (int64_t)k->age);
    if (k->kind == FLOW_CONN)
        conn(k);
    if (k->kind == FLOW_HALF_OPEN)
        number("retransmits", k->retransmits);
    if (k->kind == FLOW_LISTENER) {
        number("syn_queue", k->syn_queue);
        number("accept_queue", k->accept_queue);
        number("backlog", k->backlog);
    }
    if (most_events > 0)
        events(k, most_events);
    putchar('}');
}

static void family(const struct ss_wish *w, const struct snapshot *s, unsigned *shown)
{
    bool first = true;
    char place[48];
    fputs("{\"processes\":[", stdout);
    for (unsigned i = 0; i < s->family->nmembers; i++) {
        const struct family_member *m = &s->family->members[i];
        comma(&first);
        printf("{\"pid\":%d,\"keeper\":%s", (int)m->pid, m->keeper ? "true" : "false");
        member("name", m->name);
        putchar('}');
    }
    putchar(']');
    member_place(&s->family->members[0], place, sizeof(place));
    if (place[0] != '\0')
        member("lab", place);
    if (s->problem != NULL)
        member("problem", s->problem);
    fputs(",\"counters\":{", stdout);
    first = true;
    for (unsigned i = 0; i < STACK_COUNTER_COUNT && s->problem == NULL; i++) {
        comma(&first);
        text(stack_counter_names[i]);
        printf(":%llu", (unsigned long long)s->counters[i]);
    }
    fputs("},\"sockets\":[", stdout);
    first = true;
    for (unsigned i = 0; i < s->n; i++) {
        if (!ss_wanted(w, &s->sockets[i]))
            continue;
        comma(&first);
        one(&s->sockets[i], w->events);
        ++*shown;
    }
    fputs("]}", stdout);
}

unsigned ss_print_json(const struct ss_wish *w, const struct snapshot *s, unsigned n)
{
    struct timespec ts;
    unsigned shown = 0;
    bool first = true;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    printf("{\"v\":%d,\"t\":%lld.%09ld,\"stacks\":[", JSON_VERSION, (long long)ts.tv_sec,
           ts.tv_nsec);
    for (unsigned i = 0; i < n; i++) {
        comma(&first);
        family(w, &s[i], &shown);
    }
    puts("]}");
    return shown;
}
