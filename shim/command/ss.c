/* tcpshim ss: the connections of running programs. */
#include "shim/command/ss.h"

#include <stdlib.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include "shim/command/command.h"

/* Last events of a connection in JSON unless told otherwise. */
#define JSON_EVENTS 10

enum own {
    OWN_ALL,
    OWN_LISTENING,
    OWN_BRIEF,
    OWN_COUNTERS,
    OWN_EVENTS,
    OWN_STATE,
    OWN_PORT,
    OWN_PID,
    OWN_WATCH,
    OWN_INTERVAL,
    OWN_JSON,
};

static const struct option_spec options[] = {
    [OWN_ALL] = {'a', "all", NULL, "sockets that are not connected yet, too"},
    [OWN_LISTENING] = {'l', "listening", NULL, "listeners only"},
    [OWN_BRIEF] = {'b', "brief", NULL, "one line for each socket"},
    [OWN_COUNTERS] = {'c', "counters", NULL, "what each stack has counted since it started"},
    [OWN_EVENTS] = {'e', "events", "NUMBER",
                    "what happened last to each connection, at most so many events; with --json 10 "
                    "if not given, 0 for none"},
    [OWN_STATE] = {'s', "state", "STATE,...",
                   "in these states only, as established, syn-sent, time-wait, listen"},
    [OWN_PORT] = {0, "port", "NUMBER", "with this port on either side"},
    [OWN_PID] = {'p', "pid", "PID", "held by this process"},
    [OWN_WATCH] = {'w', "watch", NULL, "show it again and again"},
    [OWN_INTERVAL] = {'n', "interval", "SECONDS", "between two of those; 1 if not given"},
    [OWN_JSON] = {'j', "json", NULL, "as JSON, one object for each look"},
};

static const struct example examples[] = {
    {"tcpshim ss", "everything that runs under tcpshim now"},
    {"tcpshim ss -w --port 80", "what happens to the connections of port 80"},
    {"tcpshim ss -b --state close-wait", "connections that their program forgets to close"},
    {"tcpshim ss -e 20 --pid 4711", "how the connections of a process came to be as they are"},
};

struct request {
    struct ss_wish wish;
    bool watch;
    bool events_given;
    double interval;
};

bool ss_wanted(const struct ss_wish *w, const struct snapshot_socket *k)
{
    bool held = false;
    if (w->listening && k->kind != FLOW_LISTENER)
        return false;
    if (w->states != 0 && (w->states >> k->state & 1) == 0)
        return false;
    if (w->states == 0 && !w->all && k->kind == FLOW_CONN && k->state == TCP_CLOSED &&
        k->error == 0)
        return false; /* a socket that was made and not connected yet */
    if (w->port != 0 && w->port != k->local.port && w->port != k->remote.port)
        return false;
    for (unsigned i = 0; i < k->nowners; i++)
        held |= k->owners[i].member->pid == w->pid;
    return w->pid == 0 || held;
}

/* ---- the command line ---- */

/* Letters alone, so that SYN_SENT, syn-sent and SYNSENT are one. */
static bool same_word(const char *a, size_t len, const char *b)
{
    size_t i = 0;
    for (;; i++, b++) {
        while (i < len && (a[i] == '-' || a[i] == '_'))
            i++;
        while (*b == '-' || *b == '_')
            b++;
        if (i == len || *b == '\0')
            return i == len && *b == '\0';
        if ((a[i] | 0x20) != (*b | 0x20))
            return false;
    }
}

static uint32_t state_by_name(const char *word, size_t len)
{
    if (same_word(word, len, "estab"))
        return 1u << TCP_ESTABLISHED;
    if (same_word(word, len, "syn-recv"))
        return 1u << TCP_SYN_RECEIVED;
    for (unsigned s = 1; s <= TCP_STATE_MAX; s++)
        if (same_word(word, len, tcp_state_name(s)))
            return 1u << s;
    return 0;
}

static bool parse_states(const char *value, uint32_t *out)
{
    while (*value != '\0') {
        const size_t len = strcspn(value, ",");
        const uint32_t bit = state_by_name(value, len);
        if (bit == 0) {
            complain(0, "there is no state '%.*s'; as in RFC 9293: established, syn-sent, ...",
                     (int)len, value);
            return false;
        }
        *out |= bit;
        value += len + (value[len] == ',');
    }
    return true;
}

static bool parse_number(const char *value, long min, long max, const char *what, long *out)
{
    char *end;
    *out = strtol(value, &end, 10);
    if (*value >= '0' && *value <= '9' && *end == '\0' && *out >= min && *out <= max)
        return true;
    complain(0, "%s is no %s", value, what);
    return false;
}

/* False: said what is wrong. */
static bool take(int option, const char *value, struct request *q)
{
    long number = 0;
    char *end;
    switch (option) {
    case OWN_ALL:
        q->wish.all = true;
        return true;
    case OWN_LISTENING:
        q->wish.listening = true;
        return true;
    case OWN_BRIEF:
        q->wish.brief = true;
        return true;
    case OWN_COUNTERS:
        q->wish.counters = true;
        return true;
    case OWN_EVENTS:
        if (!parse_number(value, 0, RING_EVENTS, "number of events (0 to 8192)", &number))
            return false;
        q->wish.events = (unsigned)number;
        q->events_given = true;
        return true;
    case OWN_STATE:
        return parse_states(value, &q->wish.states);
    case OWN_PORT:
        if (!parse_number(value, 1, 65535, "port", &number))
            return false;
        q->wish.port = (uint16_t)number;
        return true;
    case OWN_PID:
        if (!parse_number(value, 1, INT32_MAX, "process id", &number))
            return false;
        q->wish.pid = (pid_t)number;
        return true;
    case OWN_WATCH:
        q->watch = true;
        return true;
    case OWN_INTERVAL:
        q->interval = strtod(value, &end);
        if (*end == '\0' && q->interval >= 0.05 && q->interval <= 86400)
            return true;
        complain(0, "--interval %s: seconds from 0.05 on", value);
        return false;
    default:
        q->wish.json = true;
        return true;
    }
}

/* ---- */

/* Why a family is not shown. Of another build, the place of its library helps. */
static void tell(const struct ss_wish *w, const struct snapshot *s)
{
    char library[300] = "";
    const struct family *f = s->family;
    bool asked = w->pid == 0;
    for (unsigned i = 0; i < f->nmembers; i++) {
        asked |= f->members[i].pid == w->pid;
        if (s->other_build && library[0] == '\0')
            member_library(&f->members[i], library, sizeof(library));
    }
    if (asked)
        complain(0, "process %d (%s): %s%s%s%s", (int)f->members[0].pid, f->members[0].name,
                 s->problem, library[0] ? " (" : "", library, library[0] ? ")" : "");
}

static unsigned look(const struct request *q)
{
    struct family *families;
    unsigned hidden, shown = 0;
    const unsigned n = families_find(&families, &hidden);
    struct snapshot *s = calloc(n > 0 ? n : 1, sizeof(*s));
    if (s == NULL)
        return 0;
    for (unsigned i = 0; i < n; i++)
        snapshot_take(&families[i], &s[i]);
    if (q->watch && !q->wish.json && isatty(STDOUT_FILENO))
        fputs("\033[H\033[2J", stdout);
    shown = q->wish.json ? ss_print_json(&q->wish, s, n) : ss_print(&q->wish, s, n);
    for (unsigned i = 0; i < n; i++) {
        if (s[i].problem != NULL && !q->wish.json)
            tell(&q->wish, &s[i]);
        snapshot_free(&s[i]);
    }
    if (n == 0 && !q->wish.json)
        printf("No program runs under tcpshim with a TCP socket%s.\n",
               hidden > 0 && geteuid() != 0 ? " that you may look into (root sees all)" : "");
    free(s);
    families_free(families, n);
    return shown;
}

static int run(int argc, char **argv)
{
    struct request q = {.interval = 1};
    struct options o;
    int option;
    (void)argc;
    options_begin(&o, &command_ss, argv);
    while ((option = options_next(&o)) >= 0)
        if (!take(option, o.value, &q))
            return STATUS_USAGE;
    if (option != OPTION_END)
        return option == OPTION_HELP ? STATUS_OK : STATUS_USAGE;
    if (q.wish.json && !q.events_given)
        q.wish.events = JSON_EVENTS;
    if (o.noperands > 0)
        return complain(STATUS_USAGE, "'%s' is no option; see --help", o.operands[0]);
    const struct timespec pause = {.tv_sec = (time_t)q.interval,
                                   .tv_nsec =
                                       (long)((q.interval - (double)(time_t)q.interval) * 1e9)};
    unsigned shown = look(&q);
    while (q.watch && fflush(stdout) == 0) {
        nanosleep(&pause, NULL);
        shown = look(&q);
    }
    return shown > 0 ? STATUS_OK : STATUS_NO;
}

const struct subcommand command_ss = {
    .name = "ss",
    .synopsis = "[options]",
    .summary = "list the connections of programs under tcpshim",
    .text =
        "Shows every connection, listener, half-open and TIME_WAIT entry of the programs that run "
        "under tcpshim now, and of the keepers that finish the connections of ended ones: what "
        "`ss -tinmoe` shows of the kernel's, and how far each timer is. It reads the programs' "
        "memory while they run and stops nothing.\n\n"
        "Recv-Q and Send-Q are bytes that the program has not read and that the peer has not "
        "acknowledged; of a listener, its accept queue and the limit of that. Behind a connection "
        "stand: users (name, process, descriptor), conn (its number in traces), age; buffers and "
        "what is in them; round-trip time and rto in milliseconds; cwnd and ssthresh in segments; "
        "counters; timers with the milliseconds left; held (why data waits). Connections that "
        "rules "
        "sent to the kernel are the kernel's: ss(8) lists them. Ordinary users see their own "
        "programs.\n\n"
        "-e shows what each stack keeps of the past without being asked: changes of state, "
        "segments, time-outs, recoveries and the reasons of silences, as `tcpshim trace` shows "
        "them, with how many seconds ago each was. A stack keeps the last 8192 of all of its "
        "connections together.",
    .options = options,
    .noptions = sizeof(options) / sizeof(options[0]),
    .examples = examples,
    .nexamples = sizeof(examples) / sizeof(examples[0]),
    .run = run,
};
