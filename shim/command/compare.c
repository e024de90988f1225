/* tcpshim compare: the same commands on two stacks, and what differs. */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shim/command/command.h"
#include "shim/command/compare/compare.h"
#include "shim/command/lab.h"
#include "shim/command/view/filter.h"

/* Of this subcommand, documented in its text. */
enum { COMPARE_SAME = 0, COMPARE_DIFFERS = 1, COMPARE_FAILED = 2 };

enum own {
    OWN_SERVER,
    OWN_CLIENT,
    OWN_PAIRS,
    OWN_LAB,
    OWN_PORT,
    OWN_OUTPUT,
    OWN_JSON,
    OWN_KEEP,
    OWN_TIMEOUT,
};

static const struct option_spec options[] = {
    [OWN_SERVER] = {'s', "server", "CMD", "the server's command line"},
    [OWN_CLIENT] = {'c', "client", "CMD",
                    "the client's command line, started when the server listens"},
    [OWN_PAIRS] = {0, "pairs", "PAIRS",
                   "which stacks, client first, k the kernel and u the user stack (kk,uu)"},
    [OWN_LAB] = {'l', "lab", "LINK",
                 "the link: options of tcpshim lab, as delay=20ms,loss=1%,seed=7"},
    [OWN_PORT] = {'p', "port", "PORT", "what {port} stands for (8080)"},
    [OWN_OUTPUT] = {'o', "output", "FILE", "write a page with table, ladders and plots (HTML)"},
    [OWN_JSON] = {'j', "json", NULL, "print the table as JSON"},
    [OWN_KEEP] = {'k', "keep", "DIR", "keep captures, traces and outputs in this directory"},
    [OWN_TIMEOUT] = {0, "timeout", "TIME", "how long the client may take (30s)"},
};

static const struct example examples[] = {
    {"tcpshim compare -s 'python3 -m http.server {port}' -c 'curl -s http://{server}:{port}/' -o "
     "report.html",
     "a page fetched, kernel and user stack side by side"},
    {"tcpshim compare -l delay=20ms,loss=1% -s 'redis-server --port {port} --save \"\" "
     "--protected-mode no' -c 'redis-cli -h {server} -p {port} ping'",
     "over a slow and lossy link"},
    {"tcpshim compare --pairs kk,uu,ku,uk -s 'nc -l {port}' -c 'nc -N {server} {port}'",
     "mixed pairs, too"},
};

struct plan {
    struct settings s;
    struct run runs[PAIRS_MAX];
    unsigned n;
    const char *output;
    bool json, keep;
    char self[PATH_MAX], directory[PATH_MAX];
    char link[64][40];
};

static bool parse_pairs(struct plan *p, const char *list)
{
    p->n = 0;
    while (*list) {
        size_t len = strcspn(list, ",");
        if (len != 2 || !strchr("ku", list[0]) || !strchr("ku", list[1]) || p->n == PAIRS_MAX) {
            complain(0, "--pairs: up to %d of kk, uu, ku, uk, with commas", PAIRS_MAX);
            return false;
        }
        memcpy(p->runs[p->n].name, list, 2);
        p->runs[p->n++].name[2] = '\0';
        list += len;
        list += *list == ',';
    }
    return p->n > 0;
}

/* "delay=20ms,loss=1%" as options of `tcpshim lab up`. */
static bool parse_link(struct plan *p, const char *list)
{
    static const char *const words[] = {
#define X(id, option, argument, text) option,
        LINK_PROPERTIES(X)
#undef X
            "mtu"};
    p->s.link = list;
    while (*list) {
        size_t len = strcspn(list, ","), name = strcspn(list, "="), i = 0;
        while (i < sizeof(words) / sizeof(words[0]) &&
               (strlen(words[i]) != name || memcmp(words[i], list, name) != 0))
            i++;
        if (name >= len || len - name >= sizeof(p->link[0]) - 1 || p->s.nlab + 2 > 40 ||
            i == sizeof(words) / sizeof(words[0])) {
            complain(0, "--lab: '%.*s' is not like delay=20ms; see tcpshim lab --help", (int)len,
                     list);
            return false;
        }
        snprintf(p->link[p->s.nlab], sizeof(p->link[0]), "--%s", words[i]);
        p->s.lab[p->s.nlab] = p->link[p->s.nlab];
        p->s.nlab++;
        snprintf(p->link[p->s.nlab], sizeof(p->link[0]), "%.*s", (int)(len - name - 1),
                 list + name + 1);
        p->s.lab[p->s.nlab] = p->link[p->s.nlab];
        p->s.nlab++;
        list += len;
        list += *list == ',';
    }
    return true;
}

static bool parse_port(struct plan *p, const char *value)
{
    char *end;
    unsigned long port = strtoul(value, &end, 10);
    p->s.port = (uint16_t)port;
    if (*value && *end == '\0' && port > 0 && port < 65536)
        return true;
    complain(0, "--port %s: a port", value);
    return false;
}

static bool take_option(struct plan *p, enum own option, const char *value)
{
    switch (option) {
    case OWN_SERVER:
        p->s.server = value;
        return true;
    case OWN_CLIENT:
        p->s.client = value;
        return true;
    case OWN_PAIRS:
        return parse_pairs(p, value);
    case OWN_LAB:
        return parse_link(p, value);
    case OWN_PORT:
        return parse_port(p, value);
    case OWN_OUTPUT:
        p->output = value;
        return true;
    case OWN_JSON:
        p->json = true;
        return true;
    case OWN_KEEP:
        p->keep = true;
        snprintf(p->directory, sizeof(p->directory), "%s", value);
        return true;
    case OWN_TIMEOUT:
        if (parse_duration(value, &p->s.timeout) && p->s.timeout > 0)
            return true;
        complain(0, "--timeout %s: a time, as 30s", value);
        return false;
    }
    return false;
}

static int read_options(char **argv, struct plan *p)
{
    struct options o;
    int option;
    options_begin(&o, &command_compare, argv);
    while ((option = options_next(&o)) >= 0)
        if (!take_option(p, (enum own)option, o.value))
            return OPTION_BAD;
    if (option != OPTION_END)
        return option;
    if (!p->s.client || o.noperands > 0) {
        complain(0,
                 o.noperands > 0 ? "'%s' belongs to no option (quote a command line)"
                                 : "which client? as in: tcpshim compare -s 'nc -l {port}' -c "
                                   "'nc {server} {port}'",
                 o.noperands > 0 ? o.operands[0] : "");
        return OPTION_BAD;
    }
    return option;
}

/* Where the files of the runs go. */
static bool make_directory(struct plan *p)
{
    const char *base = getenv("TMPDIR");
    char full[PATH_MAX];
    if (!p->keep) {
        snprintf(p->directory, sizeof(p->directory), "%.200s/tcpshim-compare-XXXXXX",
                 base && *base ? base : "/tmp");
        if (!mkdtemp(p->directory)) {
            complain(0, "%s: %s", p->directory, strerror(errno));
            return false;
        }
    } else if (mkdir(p->directory, 0777) < 0 && errno != EEXIST) {
        complain(0, "%s: %s", p->directory, strerror(errno));
        return false;
    }
    if (realpath(p->directory, full))
        snprintf(p->directory, sizeof(p->directory), "%.200s", full);
    chmod(p->directory, 0755); /* a server that gives up root reaches {dir} */
    p->s.directory = p->directory;
    return true;
}

static void remove_directory(const struct plan *p)
{
    if (p->keep)
        return;
    pid_t pid = fork();
    if (pid == 0) {
        execlp("rm", "rm", "-rf", "--", p->directory, (char *)NULL);
        _exit(1);
    }
    if (pid > 0)
        waitpid(pid, NULL, 0);
}

static bool write_page(const struct plan *p, const struct table *t)
{
    struct text page = {0};
    report_html(&page, &p->s, p->runs, t);
    FILE *to = fopen(p->output, "we");
    bool good = to && fwrite(page.s, 1, page.n, to) == page.n;
    good = to && fclose(to) == 0 && good;
    if (!good)
        complain(0, "%s: %s", p->output, strerror(errno));
    text_free(&page);
    return good;
}

static int compare(struct plan *p)
{
    for (unsigned i = 0; i < p->n; i++) {
        if (isatty(STDERR_FILENO))
            fprintf(stderr, "%s ...\r", pair_title(&p->runs[i]));
        if (!pair_run(&p->s, &p->runs[i]) || !run_load(&p->s, &p->runs[i]))
            return COMPARE_FAILED;
    }
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "       \r");
    struct table t;
    table_make(&t, p->runs, p->n);
    if (p->json)
        report_json(&p->s, p->runs, &t);
    else
        report_table(&p->s, p->runs, &t);
    int status = table_differs(&t) ? COMPARE_DIFFERS : COMPARE_SAME;
    if (p->output && !write_page(p, &t))
        status = COMPARE_FAILED;
    table_free(&t);
    return status;
}

static int run(int argc, char **argv)
{
    struct plan *p = calloc(1, sizeof(*p));
    (void)argc;
    if (!p)
        return complain(COMPARE_FAILED, "no memory");
    p->s.port = 8080;
    p->s.timeout = INT64_C(30000000000);
    parse_pairs(p, "kk,uu");
    int option = read_options(argv, p);
    int status = option == OPTION_HELP ? STATUS_OK : COMPARE_FAILED;
    if (option == OPTION_END && readlink("/proc/self/exe", p->self, sizeof(p->self) - 1) < 0)
        complain(0, "/proc/self/exe: %s", strerror(errno));
    else if (option == OPTION_END && make_directory(p)) {
        p->s.self = p->self;
        status = compare(p);
        remove_directory(p);
    }
    for (unsigned i = 0; i < p->n; i++) {
        flows_free(&p->runs[i].flows);
        event_list_free(&p->runs[i].events);
    }
    free(p);
    return status;
}

const struct subcommand command_compare = {
    .name = "compare",
    .synopsis = "[options] [--server CMD] --client CMD",
    .summary = "run the same on kernel and user stack, and say what differs",
    .text =
        "Runs both commands once for each pair of stacks, in laboratories of two hosts that are "
        "made alike (see tcpshim lab): the server on one, and when it listens, the client on the "
        "other. {server} stands for the server's address, {port} for its port, {client} for the "
        "client's address, {dir} for an empty directory of this run. The server must stay in the "
        "foreground; it is ended by SIGTERM.\n\n"
        "Both hosts' interfaces are captured in the same way whatever the stack. States of kernel "
        "sockets are observed, by the tracepoint sock:inet_sock_set_state where tracefs may be "
        "used (as root), else by asking sock_diag every millisecond; the table says which.\n\n"
        "The table has what the programs returned, the options of the handshake, bytes, segments, "
        "ACKs, what was sent again, times, states and errors. Rows of results and of the protocol "
        "that differ are marked; counts of segments and times depend on timing and are not. Exit "
        "status: 0 same behaviour, 1 it differs, 2 a run was not possible.",
    .options = options,
    .noptions = sizeof(options) / sizeof(options[0]),
    .examples = examples,
    .nexamples = sizeof(examples) / sizeof(examples[0]),
    .run = run,
};
