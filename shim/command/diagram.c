/* tcpshim diagram: pictures of connections. */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "shim/command/command.h"
#include "shim/command/view/filter.h"
#include "shim/command/view/ladder.h"
#include "shim/command/view/plot.h"
#include "shim/command/view/read.h"

enum own {
    OWN_OUTPUT,
    OWN_KIND,
    OWN_LIST,
    OWN_CONN,
    OWN_PORT,
    OWN_FROM,
    OWN_TO,
    OWN_SHOW,
    OWN_FULL,
    OWN_SENDER,
    OWN_TITLE,
};

static const struct option_spec options[] = {
    [OWN_OUTPUT] = {'o', "output", "FILE",
                    "the SVG file to write (\"-\": standard output); one that ends in .html "
                    "becomes a page, cut "
                    "so that it can be printed"},
    [OWN_KIND] = {'k', "kind", "KIND",
                  "ladder (who sent what, states, queues, calls), time-sequence (sequence numbers "
                  "over time), cwnd (congestion window, bytes in flight, RTT and RTO over time)"},
    [OWN_LIST] = {'l', "list", NULL, "list the connections of the files instead"},
    [OWN_CONN] = {'n', "conn", "NUMBER", "which connection, as --list numbers them (the first)"},
    [OWN_PORT] = {'p', "port", "PORT", "only connections with this port at either end"},
    [OWN_FROM] = {0, "from", "TIME", "ladder: from this time after the first segment on, as 20ms"},
    [OWN_TO] = {0, "to", "TIME", "ladder: up to this time"},
    [OWN_SHOW] =
        {'s', "show", "WORDS",
         "ladder: what beside segments: call, state, queue, timer, cc, held, reason (these "
         "if not given), buffer; all; none"},
    [OWN_FULL] = {0, "full", NULL, "ladder: do not cut long transfers short"},
    [OWN_SENDER] = {0, "sender", "SIDE", "plots: whose bytes, client or server (who sent more)"},
    [OWN_TITLE] = {0, "title", "TEXT", "stands above the picture"},
};

static const struct example examples[] = {
    {"tcpshim run --trace all --trace-format json --trace-file c.json -- curl http://10.0.0.7/",
     "makes a trace"},
    {"tcpshim diagram c.json -o c.svg", "the connection as the client saw it"},
    {"tcpshim diagram client.json server.json -o both.svg", "as both saw it"},
    {"tcpshim diagram -k cwnd server.json -o cwnd.svg", "congestion control of a download"},
    {"tcpshim diagram tcpdump.pcap -o p.svg", "from a capture: no states, no calls"},
};

/* Of a ladder on a page: what is half as long again still fits a sheet of A4, upended. */
#define PIECE_HEIGHT 510

enum kind { KIND_LADDER, KIND_SEQUENCE, KIND_CWND };

struct plan {
    enum kind kind;
    struct ladder_options ladder;
    struct plot_options plot;
    const char *output, *port;
    unsigned long conn; /* 0: the first */
    bool list;
    char **paths;
    unsigned n;
};

static bool parse_kind(const char *word, enum kind *out)
{
    static const char *const words[] = {"ladder", "time-sequence", "cwnd"};
    for (unsigned i = 0; i < 3; i++)
        if (strcmp(words[i], word) == 0) {
            *out = (enum kind)i;
            return true;
        }
    complain(0, "--kind %s: ladder, time-sequence or cwnd", word);
    return false;
}

static bool parse_show(const char *list, unsigned *out)
{
    static const struct {
        const char *word;
        unsigned bits;
    } words[] = {
        {"call", SHOW_CALL},
        {"state", SHOW_STATE},
        {"queue", SHOW_QUEUE},
        {"timer", SHOW_TIMER},
        {"cc", SHOW_CC},
        {"held", SHOW_HELD},
        {"reason", SHOW_REASON},
        {"buffer", SHOW_BUFFER},
        {"segment", SHOW_SEGMENT},
        {"all", ~0U},
        {"none", 0},
    };
    *out = SHOW_SEGMENT;
    while (*list) {
        size_t n = strcspn(list, ","), i = 0, count = sizeof(words) / sizeof(words[0]);
        while (i < count && (strlen(words[i].word) != n || memcmp(words[i].word, list, n) != 0))
            i++;
        if (i == count) {
            complain(0, "--show: there is no '%.*s'", (int)n, list);
            return false;
        }
        *out |= words[i].bits;
        list += n;
        list += *list == ',';
    }
    return true;
}

static bool parse_side(const char *word, int *out)
{
    *out = strcmp(word, "server") == 0 ? SERVER : CLIENT;
    if (*out == SERVER || strcmp(word, "client") == 0)
        return true;
    complain(0, "--sender %s: client or server", word);
    return false;
}

static bool take_option(struct plan *p, enum own option, const char *value)
{
    char *end;
    switch (option) {
    case OWN_OUTPUT:
        p->output = value;
        return true;
    case OWN_KIND:
        return parse_kind(value, &p->kind);
    case OWN_LIST:
        p->list = true;
        return true;
    case OWN_CONN:
        p->conn = strtoul(value, &end, 10);
        if (*end == '\0' && p->conn > 0)
            return true;
        complain(0, "--conn %s: a number, as --list shows them", value);
        return false;
    case OWN_PORT:
        p->port = value;
        return true;
    case OWN_FROM:
        return option_time("--from", value, &p->ladder.from);
    case OWN_TO:
        return option_time("--to", value, &p->ladder.to);
    case OWN_SHOW:
        return parse_show(value, &p->ladder.show);
    case OWN_FULL:
        p->ladder.full = true;
        return true;
    case OWN_SENDER:
        return parse_side(value, &p->plot.sender);
    case OWN_TITLE:
        p->ladder.title = p->plot.title = value;
        return true;
    }
    return false;
}

static int read_options(char **argv, struct plan *p)
{
    struct options o;
    int option;
    options_begin(&o, &command_diagram, argv);
    while ((option = options_next(&o)) >= 0)
        if (!take_option(p, (enum own)option, o.value))
            return OPTION_BAD;
    p->paths = o.operands;
    p->n = option == OPTION_END ? (unsigned)o.noperands : 0;
    if (option != OPTION_END)
        return option;
    if (p->n == 0 || (!p->output && !p->list)) {
        complain(0, "%s, as in: tcpshim diagram trace.json -o out.svg",
                 p->n == 0 ? "which file?" : "where to?");
        return OPTION_BAD;
    }
    return option;
}

/* ---- choosing ---- */

static bool wanted(const struct plan *p, const struct flow *f)
{
    return !p->port || addr_has_port(f->side[0].addr, p->port, strlen(p->port)) ||
           addr_has_port(f->side[1].addr, p->port, strlen(p->port));
}

static const char *watched(const struct flow *f)
{
    bool client = f->side[CLIENT].traced, server = f->side[SERVER].traced;
    return client && server ? "both sides" : client ? "client" : server ? "server" : "the wire";
}

static int list(const struct plan *p, const struct flow_list *flows)
{
    int status = STATUS_NO;
    for (size_t i = 0; i < flows->n; i++) {
        const struct flow *f = flows->items[i];
        char bytes[2][32], span[32];
        if (!wanted(p, f))
            continue;
        printf("%3u  %s → %s\n     %s sent, %s received in %s; watched: %s\n", f->number,
               f->side[CLIENT].addr, f->side[SERVER].addr,
               bytes_format(bytes[0], sizeof(bytes[0]), f->bytes[CLIENT]),
               bytes_format(bytes[1], sizeof(bytes[1]), f->bytes[SERVER]),
               duration_format(span, sizeof(span), f->end - f->zero), watched(f));
        status = STATUS_OK;
    }
    return status;
}

static const struct flow *choose(const struct plan *p, const struct flow_list *flows)
{
    const struct flow *found = NULL;
    unsigned count = 0;
    for (size_t i = 0; i < flows->n; i++) {
        const struct flow *f = flows->items[i];
        if (!wanted(p, f) || (p->conn && f->number != p->conn))
            continue;
        count++;
        if (!found)
            found = f;
    }
    if (!found)
        complain(0, "no such connection in %s (tcpshim diagram --list shows what there is)",
                 p->n == 1 ? p->paths[0] : "these files");
    else if (count > 1)
        fprintf(stderr, "tcpshim diagram: %u connections; this is number %u (see --list, --conn)\n",
                count, found->number);
    return found;
}

/* The command of each side's process, from the first lines of the traces. */
static void name_sides(struct plan *p, const struct flow *f, const struct event_list *events)
{
    for (size_t i = 0; i < events->n; i++) {
        const struct event *e = &events->items[i];
        if (e->kind != EV_TRACE)
            continue;
        for (int side = 0; side < 2; side++)
            if (f->side[side].traced && f->side[side].pid == e->pid)
                p->ladder.name[side] = e->args;
    }
}

static int write_file(const char *path, const struct text *content)
{
    bool standard = strcmp(path, "-") == 0;
    FILE *to = standard ? stdout : fopen(path, "w");
    if (!to)
        return complain(STATUS_FAILED, "%s: %s", path, strerror(errno));
    bool good = fwrite(content->s, 1, content->n, to) == content->n;
    good = (standard ? fflush(to) : fclose(to)) == 0 && good;
    return good ? STATUS_OK : complain(STATUS_FAILED, "%s: %s", path, strerror(errno));
}

/* A page around the drawings, in pieces that fit sheets of paper. */
static void begin_page(struct plan *p, struct text *to)
{
    p->ladder.own_style = p->plot.own_style = false;
    p->ladder.page = PIECE_HEIGHT;
    text_add(to,
             "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
             "<title>tcpshim diagram</title>\n<style>\n%s"
             "body{margin:0;background:#fff}svg{display:block;width:100%%;max-width:1240px;"
             "height:auto;margin:0 auto;break-inside:avoid}\n"
             "@media screen and (prefers-color-scheme:dark){body{background:#15191e}}\n"
             "@page{size:A4 landscape;margin:8mm}\n</style></head><body>\n",
             svg_style);
}

static int draw(struct plan *p, const struct flow *f, const struct event_list *events)
{
    struct text svg = {0};
    const char *dot = strrchr(p->output, '.');
    bool page = dot && strcmp(dot, ".html") == 0;
    name_sides(p, f, events);
    if (page)
        begin_page(p, &svg);
    if (p->kind == KIND_LADDER)
        ladder_draw(&svg, f, &p->ladder);
    else
        (p->kind == KIND_CWND ? plot_congestion : plot_sequence)(&svg, f, &p->plot);
    if (page)
        text_add(&svg, "</body></html>\n");
    int status = write_file(p->output, &svg);
    text_free(&svg);
    return status;
}

static int run(int argc, char **argv)
{
    struct plan p = {
        .ladder = {.show = SHOW_DEFAULT, .from = TIME_NONE, .to = TIME_NONE, .own_style = true},
        .plot = {.sender = -1, .own_style = true},
    };
    (void)argc;
    int option = read_options(argv, &p);
    if (option != OPTION_END)
        return option == OPTION_HELP ? STATUS_OK : STATUS_USAGE;
    struct event_list events = {0};
    struct flow_list flows = {0};
    int status = STATUS_OK;
    for (unsigned i = 0; i < p.n && status != STATUS_FAILED; i++) {
        int got = events_load(&events, p.paths[i], i);
        status = got < 0 ? STATUS_FAILED : got > 0 ? STATUS_NO : status;
    }
    if (status != STATUS_FAILED) {
        event_sort(&events);
        flows_build(&flows, &events);
        const struct flow *f = p.list ? NULL : choose(&p, &flows);
        int done = p.list ? list(&p, &flows) : f ? draw(&p, f, &events) : STATUS_NO;
        status = done != STATUS_OK ? done : status;
    }
    flows_free(&flows);
    event_list_free(&events);
    return status;
}

const struct subcommand command_diagram = {
    .name = "diagram",
    .synopsis = "[options] FILE... -o OUT.svg",
    .summary = "draw a connection as a picture",
    .text =
        "Draws one connection of the files: traces that TCPSHIM_TRACE_FORMAT=json wrote, of one "
        "side or of both, or captures (pcap, pcapng). The ladder has the client on the left and "
        "the server on the right; time runs down, not to scale, with milliseconds since the first "
        "segment. At both sides stand the states, the moves between SYN queue and accept queue, "
        "and the calls that caused them; arrows are segments, red ones were sent again, and a "
        "cross says where one was lost, which is known where both sides were watched. A long "
        "transfer is cut short and its middle counted.\n\n"
        "With traces of both sides, times are comparable when both ran on one machine. Captures "
        "know neither states nor calls. The picture is plain SVG, for light and dark screens and "
        "for paper.",
    .options = options,
    .noptions = sizeof(options) / sizeof(options[0]),
    .examples = examples,
    .nexamples = sizeof(examples) / sizeof(examples[0]),
    .takes_files = true,
    .run = run,
};
