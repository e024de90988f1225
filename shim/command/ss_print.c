/* Snapshots for people. */
#include <arpa/inet.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "shim/command/ss.h"
#include "shim/command/term.h"
#include "shim/watch/format.h"
#include "stack/tcp/cc.h"

#define INDENT 6

void ss_endpoint(const struct endpoint *e, char *out, size_t size)
{
    char text[INET6_ADDRSTRLEN] = "*";
    const bool v4 = ip_addr_is_v4(&e->addr), any = ip_addr_is_any(&e->addr);
    if (!any && v4)
        inet_ntop(AF_INET, &e->addr.b[12], text, sizeof(text));
    else if (!any)
        inet_ntop(AF_INET6, e->addr.b, text, sizeof(text));
    if (e->port != 0)
        snprintf(out, size, any || v4 ? "%s:%u" : "[%s]:%u", text, e->port);
    else
        snprintf(out, size, any || v4 ? "%s:*" : "[%s]:*", text);
}

/* ---- words behind each other, wrapped ---- */

struct words {
    unsigned width, column;
};

static void __attribute__((format(printf, 2, 3))) word(struct words *w, const char *format, ...)
{
    char text[200];
    va_list ap;
    va_start(ap, format);
    const int n = vsnprintf(text, sizeof(text), format, ap);
    va_end(ap);
    const unsigned len = n < 0 ? 0 : min_u32((uint32_t)n, sizeof(text) - 1);
    if (w->column > INDENT && w->column + 1 + len > w->width) {
        putchar('\n');
        w->column = 0;
    }
    if (w->column == 0)
        w->column = (unsigned)printf("%*s%s", INDENT, "", text);
    else
        w->column += (unsigned)printf(" %s", text);
}

static void end_line(struct words *w)
{
    if (w->column > 0)
        putchar('\n');
    w->column = 0;
}

static double ms(nsec_t t)
{
    return (double)t / 1e6;
}

/* "950ms", "12.3s", "4min", "2h": short, as ss has it. */
static const char *span(char *out, size_t size, int64_t ns)
{
    const double t = (double)ns / 1e9;
    if (t < 10)
        snprintf(out, size, "%.0fms", t * 1e3);
    else if (t < 120)
        snprintf(out, size, "%.1fs", t);
    else if (t < 7200)
        snprintf(out, size, "%.0fmin", t / 60);
    else
        snprintf(out, size, "%.0fh", t / 3600);
    return out;
}

/* ---- details ---- */

static void users(struct words *w, const struct snapshot *s, const struct snapshot_socket *k)
{
    char place[48];
    for (unsigned i = 0; i < k->nowners; i++)
        word(w, "users:((\"%s\",pid=%d,fd=%d))", k->owners[i].member->name,
             (int)k->owners[i].member->pid, k->owners[i].fd);
    if (k->unaccepted)
        word(w, "users:(none yet: in the accept queue)");
    else if (k->orphan)
        word(w, "users:(none: the program has closed it)");
    for (unsigned i = 0; i < s->family->nmembers && k->nowners == 0; i++)
        if (s->family->members[i].keeper || s->family->nmembers == 1)
            word(w, "of:%s,pid=%d", s->family->members[i].name, (int)s->family->members[i].pid);
    const struct family_member *first =
        k->nowners > 0 ? k->owners[0].member : &s->family->members[0];
    member_place(first, place, sizeof(place));
    if (place[0] != '\0')
        word(w, "lab:%s", place);
    if (k->number != 0)
        word(w, "conn:%u", k->number);
}

static void timers(struct words *w, const struct snapshot_socket *k)
{
    char text[32];
    for (unsigned i = 0; i < k->ntimers; i++) {
        const int64_t left = k->timers[i].left;
        if (left > 0)
            word(w, "timer:(%s,%s)", tcp_timer_name(k->timers[i].which),
                 span(text, sizeof(text), left));
        else
            word(w, "timer:(%s,now)", tcp_timer_name(k->timers[i].which));
    }
}

static void flags(struct words *w, const struct tcp_opts *o)
{
    if (o->nodelay)
        word(w, "nodelay");
    if (o->cork)
        word(w, "cork");
    if (o->keepalive)
        word(w, "keepalive");
    if (o->user_timeout != 0)
        word(w, "user_timeout:%u", o->user_timeout);
}

static void path(struct words *w, const struct snapshot_socket *k)
{
    const struct tcp_view *v = &k->view;
    if (v->ts)
        word(w, "ts");
    if (v->sack)
        word(w, "sack");
    if (v->ecn)
        word(w, "ecn");
    if (v->wscale)
        word(w, "wscale:%u,%u", v->snd_wscale, v->rcv_wscale);
    word(w, "rto:%.0f", ms(v->rto));
    if (v->backoff != 0)
        word(w, "backoff:%u", v->backoff);
    if (v->srtt != 0) {
        word(w, "rtt:%.3f/%.3f", ms(v->srtt), ms(v->rttvar));
        word(w, "minrtt:%.3f", ms(v->min_rtt));
    }
    word(w, "mss:%u", v->snd_mss);
    word(w, "rcvmss:%u", v->rcv_mss);
    word(w, "advmss:%u", v->advmss);
    word(w, "pmtu:%u", v->pmtu);
}

static void congestion(struct words *w, const struct snapshot_socket *k)
{
    static const char *const ca[] = {"open", "disorder", "cwr", "recovery", "loss"};
    const struct tcp_view *v = &k->view;
    const uint32_t mss = max_u32(v->snd_mss, 1);
    word(w, "%s", cc_ops(k->cc)->name);
    word(w, "ca:%s", v->ca_state < ARRAY_LEN(ca) ? ca[v->ca_state] : "?");
    word(w, "cwnd:%u", v->cwnd / mss);
    if (v->ssthresh < 0x7fffffff)
        word(w, "ssthresh:%u", v->ssthresh / mss);
    word(w, "in_flight:%u", k->in_flight);
    word(w, "snd_wnd:%u", v->snd_wnd);
    word(w, "rcv_wnd:%u", v->rcv_wnd);
    if (v->unacked_segs != 0)
        word(w, "unacked:%u", v->unacked_segs);
    if (v->retrans_segs != 0 || v->total_retrans != 0)
        word(w, "retrans:%u/%u", v->retrans_segs, v->total_retrans);
    if (v->lost_segs != 0)
        word(w, "lost:%u", v->lost_segs);
    if (v->sacked_segs != 0)
        word(w, "sacked:%u", v->sacked_segs);
}

static void counters(struct words *w, const struct tcp_view *v)
{
    word(w, "bytes_sent:%llu", (unsigned long long)v->bytes_sent);
    if (v->bytes_retrans != 0)
        word(w, "bytes_retrans:%llu", (unsigned long long)v->bytes_retrans);
    word(w, "bytes_acked:%llu", (unsigned long long)v->bytes_acked);
    word(w, "bytes_received:%llu", (unsigned long long)v->bytes_received);
    word(w, "segs_out:%u", v->segs_out);
    word(w, "segs_in:%u", v->segs_in);
    word(w, "data_segs_out:%u", v->data_segs_out);
    word(w, "data_segs_in:%u", v->data_segs_in);
    word(w, "lastsnd:%.0f", ms(v->last_data_sent));
    word(w, "lastrcv:%.0f", ms(v->last_data_recv));
    word(w, "lastack:%.0f", ms(v->last_ack_recv));
    if (v->dsack_dups != 0)
        word(w, "dsack_dups:%u", v->dsack_dups);
    if (v->reord_seen != 0)
        word(w, "reord_seen:%u", v->reord_seen);
}

static void conn_details(struct words *w, const struct snapshot_socket *k)
{
    word(w, "rcvbuf:%u/%u", k->ready, k->view.rcvbuf);
    if (k->ooo != 0)
        word(w, "out_of_order:%u", k->ooo);
    word(w, "sndbuf:%u/%u", k->sendq, k->view.sndbuf);
    if (k->unsent != 0)
        word(w, "notsent:%u", k->unsent);
    if (k->held != TCP_WHY_NONE)
        word(w, "held:(%s)", tcp_reason_text(k->held));
    flags(w, &k->opts);
    if (k->error != 0)
        word(w, "error:(%s)", strerror(k->error));
    if (k->soft_error != 0)
        word(w, "last_error:(%s)", strerror(k->soft_error));
    end_line(w);
    path(w, k);
    congestion(w, k);
    end_line(w);
    counters(w, &k->view);
    end_line(w);
}

/* Behind "-0.013188 " the event as the trace has it, wrapped between words. */
static void one_event(const struct trace_record *r, const struct snapshot *s,
                      const struct snapshot_socket *k, unsigned width)
{
    static struct line l;
    char since[24];
    const nsec_t ago = s->now > r->now ? s->now - r->now : 0;
    struct words w = {.width = width};
    l.n = 0;
    l.cut = false;
    trace_text_event(&l, &(struct shown){.r = r, .info = &trace_events[r->id], .isn = k->isn});
    l.text[l.n] = '\0';
    snprintf(since, sizeof(since), "-%.6f", (double)ago / 1e9);
    word(&w, "%11s", since);
    for (char *rest, *p = strtok_r(l.text, " ", &rest); p != NULL; p = strtok_r(NULL, " ", &rest)) {
        if (w.column + 1 + strlen(p) > width) {
            end_line(&w);
            word(&w, "%14s%s", "", p);
        } else {
            word(&w, "%s", p);
        }
    }
    end_line(&w);
}

static void events(const struct snapshot *s, const struct snapshot_socket *k, unsigned most,
                   unsigned width)
{
    for (unsigned i = k->nevents - min_u32(most, k->nevents); i < k->nevents; i++) {
        uint64_t argv[TRACE_ARGS_MAX];
        const struct ring_event *e = &k->events[i];
        const struct trace_record record = {
            .id = e->event, .now = e->when, .argc = ring_expand(e, argv), .argv = argv};
        one_event(&record, s, k, width);
    }
}

static void details(const struct snapshot *s, const struct snapshot_socket *k, unsigned width)
{
    struct words w = {.width = width};
    char text[32];
    users(&w, s, k);
    if (k->age != NSEC_NEVER)
        word(&w, "age:%s", span(text, sizeof(text), (int64_t)k->age));
    if (k->kind == FLOW_LISTENER) {
        word(&w, "syn_queue:%u", k->syn_queue);
        word(&w, "accept_queue:%u/%u", k->accept_queue, k->backlog);
        if (k->kernel_too)
            word(&w, "(local clients: through the kernel)");
        flags(&w, &k->opts);
    }
    if (k->kind == FLOW_HALF_OPEN)
        word(&w, "retransmits:%u", k->retransmits);
    timers(&w, k);
    end_line(&w);
    if (k->kind == FLOW_CONN)
        conn_details(&w, k);
}

/* ---- lines ---- */

static enum style style_of(enum tcp_state s)
{
    switch (s) {
    case TCP_ESTABLISHED:
        return STYLE_GREEN;
    case TCP_LISTEN:
        return STYLE_CYAN;
    case TCP_CLOSED:
        return STYLE_RED;
    case TCP_TIME_WAIT:
        return STYLE_DIM;
    default:
        return STYLE_YELLOW;
    }
}

/* NAME/PID, as much of it as the terminal's line holds. */
static void holder(const struct snapshot *s, const struct snapshot_socket *k, const int columns[2])
{
    char text[64] = "";
    const int used = 12 + 1 + 6 + 1 + 7 + 1 + columns[0] + 1 + columns[1] + 1;
    const int width = isatty(STDOUT_FILENO) ? (int)term_width(stdout) : INT32_MAX;
    if (k->nowners > 0)
        snprintf(text, sizeof(text), "%s/%d", k->owners[0].member->name,
                 (int)k->owners[0].member->pid);
    else if (s->family->nmembers > 0 && s->family->members[0].keeper)
        snprintf(text, sizeof(text), "keeper/%d", (int)s->family->members[0].pid);
    if (text[0] != '\0' && used < width)
        printf(" %.*s", width - used, text);
}

static void line(const struct snapshot *s, const struct snapshot_socket *k, const int columns[2],
                 bool brief)
{
    char local[64], remote[64];
    ss_endpoint(&k->local, local, sizeof(local));
    ss_endpoint(&k->remote, remote, sizeof(remote));
    printf("%s%-12s%s %6u %7u %-*s %-*s", term_style(stdout, style_of(k->state)),
           tcp_state_name(k->state), term_style(stdout, STYLE_PLAIN), k->recvq, k->sendq,
           columns[0], local, brief ? columns[1] : 0, remote);
    if (brief)
        holder(s, k, columns);
    putchar('\n');
}

static void print_counters(const struct snapshot *s)
{
    struct words w = {.width = term_width(stdout)};
    printf("%sstack of %s, pid %d%s%s\n", term_style(stdout, STYLE_BOLD),
           s->family->members[0].name, (int)s->family->members[0].pid,
           s->family->nmembers > 1 ? ", ..." : "", term_style(stdout, STYLE_PLAIN));
    for (unsigned i = 0; i < STACK_COUNTER_COUNT; i++)
        if (s->counters[i] != 0)
            word(&w, "%s:%llu", stack_counter_names[i], (unsigned long long)s->counters[i]);
    end_line(&w);
}

/* The widths that the addresses need. */
static void measure(const struct ss_wish *w, const struct snapshot *s, unsigned n, int columns[2])
{
    columns[0] = 5; /* of the headings */
    columns[1] = 4;
    for (unsigned i = 0; i < n; i++) {
        for (unsigned j = 0; j < s[i].n; j++) {
            const struct snapshot_socket *k = &s[i].sockets[j];
            char text[64];
            if (!ss_wanted(w, k))
                continue;
            ss_endpoint(&k->local, text, sizeof(text));
            columns[0] = (int)max_u32((uint32_t)columns[0], (uint32_t)strlen(text));
            ss_endpoint(&k->remote, text, sizeof(text));
            columns[1] = (int)max_u32((uint32_t)columns[1], (uint32_t)strlen(text));
        }
    }
}

unsigned ss_print(const struct ss_wish *w, const struct snapshot *s, unsigned n)
{
    unsigned shown = 0;
    int columns[2];
    measure(w, s, n, columns);
    for (unsigned i = 0; i < n; i++) {
        for (unsigned j = 0; j < s[i].n; j++) {
            const struct snapshot_socket *k = &s[i].sockets[j];
            if (!ss_wanted(w, k))
                continue;
            if (shown++ == 0)
                printf("%s%-12s Recv-Q  Send-Q %-*s %-*s%s%s\n", term_style(stdout, STYLE_BOLD),
                       "State", columns[0], "Local", w->brief ? columns[1] : 0, "Peer",
                       w->brief ? " Process" : "", term_style(stdout, STYLE_PLAIN));
            line(&s[i], k, columns, w->brief);
            if (!w->brief)
                details(&s[i], k, term_width(stdout));
            events(&s[i], k, w->events, term_width(stdout));
        }
        if (w->counters && s[i].problem == NULL)
            print_counters(&s[i]);
    }
    return shown;
}
