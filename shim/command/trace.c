/* tcpshim trace: JSON traces for people. */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "shim/command/command.h"
#include "shim/command/term.h"
#include "shim/command/view/filter.h"
#include "shim/command/view/print.h"
#include "shim/command/view/read.h"

enum own {
    OWN_FOLLOW,
    OWN_TIME,
    OWN_JSON,
    OWN_WIDTH,
    OWN_FILTERS,
    OWN_CLASS,
    OWN_EVENT,
    OWN_CONN,
    OWN_PORT,
    OWN_ADDR,
    OWN_PID,
    OWN_FROM,
    OWN_TO
};

static const struct option_spec options[] = {
    [OWN_FOLLOW] = {'f', "follow", NULL, "go on as the files grow, until interrupted"},
    [OWN_TIME] = {'t', "time", "KIND",
                  "relative (seconds since the first event), delta (since the line before), clock "
                  "(as in the file), wall (time of day)"},
    [OWN_JSON] = {'j', "json", NULL, "print the chosen events as they stand in the files"},
    [OWN_WIDTH] = {'w', "width", "COLUMNS",
                   "fold lines there; 0: not at all (the terminal's; 80 elsewhere)"},
    [OWN_FILTERS] = {0, NULL, NULL, "Which events (values: lists with commas):"},
    [OWN_CLASS] = {'c', "class", "WORDS", "of these classes: state, queue, segment, call, ..."},
    [OWN_EVENT] = {'e', "event", "WORDS", "of these names: rx, tx, accepted, ..."},
    [OWN_CONN] = {'n', "conn", "NUMBERS", "of these connections (what stands behind the #)"},
    [OWN_PORT] = {'p', "port", "PORTS", "with such a port at either end"},
    [OWN_ADDR] = {'a', "addr", "ADDRESSES", "with such an address, or ADDRESS:PORT, at either end"},
    [OWN_PID] = {0, "pid", "NUMBERS", "of these processes"},
    [OWN_FROM] = {0, "from", "TIME", "not before this time since the first event, as 1.5 or 20ms"},
    [OWN_TO] = {0, "to", "TIME", "not after it"},
};

static const struct example examples[] = {
    {"tcpshim run --trace all --trace-format json --trace-file /tmp/c.json -- curl "
     "http://10.0.0.7/",
     "makes such a file"},
    {"tcpshim trace /tmp/c.json", "shows it"},
    {"tcpshim trace -c state,queue client.json server.json", "two processes on one time line"},
    {"tcpshim trace -f -p 80 /tmp/trace.*", "watches a server at work"},
};

/* How long a follower waits when nothing came, and how long it waits for older events of other
 * files. */
#define FOLLOW_MSEC 100

/* A file, and its first event that was not printed yet. */
struct input {
    struct reader reader;
    struct event event;
    json_t *object; /* NULL: none */
    bool open;
};

struct plan {
    struct filter filter;
    struct printer printer;
    bool follow, json;
    char **paths;
    unsigned n;
};

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    (void)number;
    interrupted = 1;
}

static bool time_kind(const char *word, enum print_time *out)
{
    static const char *const words[] = {"relative", "delta", "clock", "wall"};
    for (unsigned i = 0; i < 4; i++)
        if (strcmp(words[i], word) == 0) {
            *out = (enum print_time)i;
            return true;
        }
    complain(0, "--time %s: relative, delta, clock or wall", word);
    return false;
}

static int read_options(char **argv, struct plan *p)
{
    struct options o;
    struct filter *f = &p->filter;
    bool good = true;
    int option;
    options_begin(&o, &command_trace, argv);
    while (good && (option = options_next(&o)) >= 0) {
        switch ((enum own)option) {
        case OWN_FOLLOW:
            p->follow = true;
            break;
        case OWN_TIME:
            good = time_kind(o.value, &p->printer.time);
            break;
        case OWN_JSON:
            p->json = true;
            break;
        case OWN_WIDTH:
            p->printer.width = (unsigned)strtoul(o.value, NULL, 10);
            break;
        case OWN_FILTERS:
            break;
        case OWN_CLASS:
            f->classes = o.value;
            break;
        case OWN_EVENT:
            f->events = o.value;
            break;
        case OWN_CONN:
            f->conns = o.value;
            break;
        case OWN_PORT:
            f->ports = o.value;
            break;
        case OWN_ADDR:
            f->addrs = o.value;
            break;
        case OWN_PID:
            f->pids = o.value;
            break;
        case OWN_FROM:
            good = option_time("--from", o.value, &f->from);
            break;
        case OWN_TO:
            good = option_time("--to", o.value, &f->to);
            break;
        }
    }
    p->paths = o.operands;
    p->n = good && option == OPTION_END ? (unsigned)o.noperands : 0;
    if (!good)
        return OPTION_BAD;
    if (option == OPTION_END && p->n == 0) {
        complain(0, "which file? as in: tcpshim trace /tmp/trace.json (\"-\": standard input)");
        return OPTION_BAD;
    }
    return option;
}

/* Prints the event and forgets it. */
static void print(struct plan *p, struct input *in)
{
    if (p->printer.zero == TIME_NONE && in->event.t != TIME_NONE)
        p->printer.zero = p->printer.last = p->filter.zero = in->event.t;
    if (filter_takes(&p->filter, &in->event)) {
        if (p->json) {
            json_dumpf(in->object, stdout, JSON_COMPACT | JSON_REAL_PRECISION(16));
            putchar('\n');
        } else {
            print_event(&p->printer, &in->event, in->object);
        }
    }
    json_decref(in->object);
    in->object = NULL;
}

/* The input whose event is oldest; -1: none has one. Events that lost their time go first. */
static int oldest(const struct input *inputs, unsigned n)
{
    int found = -1;
    for (unsigned i = 0; i < n; i++)
        if (inputs[i].object && (found < 0 || inputs[i].event.t < inputs[found].event.t))
            found = (int)i;
    return found;
}

/* One pass over what the files have; returns when they have no more. */
static void drain(struct plan *p, struct input *inputs, bool whole)
{
    for (;;) {
        for (unsigned i = 0; i < p->n; i++)
            if (inputs[i].open && !inputs[i].object)
                reader_next(&inputs[i].reader, whole, &inputs[i].object, &inputs[i].event);
        int next = oldest(inputs, p->n);
        if (next < 0 || ferror(stdout) || interrupted)
            return;
        print(p, &inputs[next]);
    }
}

static int show(struct plan *p, struct input *inputs)
{
    int status = STATUS_OK;
    for (unsigned i = 0; i < p->n; i++) {
        int err =
            file_is_capture(p->paths[i]) ? -EINVAL : reader_open(&inputs[i].reader, p->paths[i]);
        inputs[i].open = err == 0;
        if (err == -EINVAL)
            status = complain(STATUS_FAILED, "%s: is a capture; tcpshim diagram reads those",
                              p->paths[i]);
        else if (err < 0)
            status = complain(STATUS_FAILED, "%s: %s", p->paths[i], strerror(-err));
    }
    drain(p, inputs, !p->follow);
    while (p->follow && !interrupted && !ferror(stdout) && status == STATUS_OK) {
        fflush(stdout);
        poll(NULL, 0, FOLLOW_MSEC);
        drain(p, inputs, false);
    }
    for (unsigned i = 0; i < p->n; i++) {
        if (!inputs[i].open)
            continue;
        if (inputs[i].reader.malformed > 0 && status == STATUS_OK)
            status = STATUS_NO;
        json_decref(inputs[i].object);
        reader_close(&inputs[i].reader);
    }
    return status;
}

static int run(int argc, char **argv)
{
    struct plan p = {
        .filter = {.from = TIME_NONE, .to = TIME_NONE},
        .printer = {.to = stdout,
                    .width = term_width(stdout),
                    .colored = term_colored(stdout),
                    .zero = TIME_NONE},
    };
    (void)argc;
    int option = read_options(argv, &p);
    if (option != OPTION_END)
        return option == OPTION_HELP ? STATUS_OK : STATUS_USAGE;
    if (p.follow)
        sigaction(SIGINT, &(struct sigaction){.sa_handler = on_signal}, NULL);
    struct input *inputs = must_alloc(NULL, p.n * sizeof(*inputs));
    memset(inputs, 0, p.n * sizeof(*inputs));
    int status = show(&p, inputs);
    free(inputs);
    printer_free(&p.printer);
    return status;
}

const struct subcommand command_trace = {
    .name = "trace",
    .synopsis = "[options] FILE...",
    .summary = "show traces: who did what, when, and why",
    .text =
        "Shows files that TCPSHIM_TRACE_FORMAT=json wrote, one event a line: the time, the process "
        "and its connection, what happened, and why. Several files are merged by time, so client "
        "and server stand on one time line when both ran on this machine.\n\n"
        "Lines that are no events are said with their number, and left out; the exit status is "
        "then 1. Numbers of segments count from the beginning of the connection. Colours go to a "
        "terminal only, and not where NO_COLOR is set.",
    .options = options,
    .noptions = sizeof(options) / sizeof(options[0]),
    .examples = examples,
    .nexamples = sizeof(examples) / sizeof(examples[0]),
    .takes_files = true,
    .run = run,
};
