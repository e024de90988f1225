/* tcpshim lab: laboratories of two or more hosts. */
#define _GNU_SOURCE
#include "shim/command/lab.h"

#include <dirent.h>
#include <errno.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shim/command/command.h"
#include "shim/command/privilege.h"
#include "shim/command/term.h"

enum own { OWN_HOSTS, OWN_MTU, OWN_OFFLOAD, OWN_ALL, OWN_HEADING, OWN_COUNT };

static const struct option_spec options[] = {
    [OWN_HOSTS] = {'n', "hosts", "NUMBER", "up: how many hosts, 2 to 16; they are a, b, c, ..."},
    [OWN_MTU] = {0, "mtu", "BYTES", "up: of the link; 1500 if not given"},
    [OWN_OFFLOAD] = {0, "offload", NULL,
                     "up: let frames of up to 64 KB cross the link in one piece (faster, but what "
                     "is lost or delayed is then such a piece)"},
    [OWN_ALL] = {0, "all", NULL, "down: all laboratories"},
    [OWN_HEADING] = {0, NULL, NULL, "The link (up, set):"},
#define X(id, option, argument, text) {0, option, argument, text},
    LINK_PROPERTIES(X)
#undef X
};

static const struct verb verbs[] = {
    {"up", "[options] [LAB]", "makes a laboratory; without a name it is called \"lab\""},
    {"exec", "[LAB/]HOST [--] CMD...",
     "runs CMD on a host, as it is (for a program under tcpshim: "
     "tcpshim run --lab HOST -- CMD)"},
    {"shell", "[LAB/]HOST", "a shell on a host"},
    {"set", "options [LAB/][HOST]", "changes the link, of what goes to HOST or of all, at once"},
    {"list", "[LAB]", "the laboratories, their links and what these did"},
    {"down", "[LAB]", "ends it, and every program that runs in it"},
};

static const struct example examples[] = {
    {"tcpshim lab up --delay 20ms --loss 1% --seed 7",
     "two hosts, 40 ms of round trip, one frame of a hundred lost"},
    {"tcpshim lab exec a -- nc -l 10.77.0.1 8080 &", "the kernel's TCP listens on a"},
    {"tcpshim run --lab b --trace state -- nc 10.77.0.1 8080", "and tcpshim's connects from b"},
    {"tcpshim lab set --cable out", "pulls the cable; --cable in puts it back"},
    {"tcpshim lab down", "takes everything away"},
};

struct request {
    struct lab_settings settings;
    unsigned link_mask;
    bool all;
    char **operands;
    int noperands;
};

/* ---- names ---- */

/* "[LAB/][HOST]" cut up; host -1: none named. False: said what is wrong. */
static bool split(const char *where, bool host_needed, char lab[LAB_NAME_MAX], int *host)
{
    const char *slash = strrchr(where, '/');
    const size_t len = slash != NULL ? (size_t)(slash - where) : 0;
    const char *rest = slash != NULL ? slash + 1 : where;
    const bool letter = rest[0] >= 'a' && rest[0] < 'a' + LAB_HOSTS_MAX && rest[1] == '\0';
    *host = letter ? rest[0] - 'a' : -1;
    if (len >= LAB_NAME_MAX || (slash != NULL && *rest != '\0' && !letter) ||
        (host_needed && !letter)) {
        complain(0, "'%s' names no host; hosts are a, b, ... or LAB/a, LAB/b, ...", where);
        return false;
    }
    if (slash != NULL)
        snprintf(lab, LAB_NAME_MAX, "%.*s", (int)len, where);
    else
        snprintf(lab, LAB_NAME_MAX, "%s", letter || *where == '\0' ? LAB_DEFAULT : where);
    return true;
}

static int no_lab(const char *name, int err)
{
    if (err == -ENOENT || err == -ECONNREFUSED)
        return complain(STATUS_FAILED, "there is no laboratory '%s'; make it: tcpshim lab up %s",
                        name, name);
    return complain(STATUS_FAILED, "laboratory '%s': %s", name,
                    err == -EPROTO ? "it was made by another version of tcpshim" : strerror(-err));
}

/* One question to the laboratory of that name. */
static int ask(const char *name, const struct lab_request *r, struct lab_reply *reply, int fds[2])
{
    const int connection = lab_connect(name);
    if (connection < 0)
        return no_lab(name, connection);
    const int err = lab_request(connection, r, reply, fds);
    close(connection);
    if (err == -ENXIO)
        return complain(STATUS_FAILED, "laboratory '%s' has %u hosts, a to %c", name,
                        reply->settings.hosts, 'a' + (char)reply->settings.hosts - 1);
    return err < 0 ? no_lab(name, err) : STATUS_OK;
}

/* ---- up ---- */

static int report_of(int from)
{
    char text[400];
    const ssize_t n = read(from, text, sizeof(text) - 1);
    if (n <= 0)
        return STATUS_OK;
    text[n] = '\0';
    return complain(STATUS_FAILED, "%s", text);
}

/* A listening socket at the laboratory's address; negative: said why. */
static int claim(const char *name, struct sockaddr_un *address)
{
    const int other = lab_connect(name); /* removes what a dead one left */
    if (other >= 0) {
        close(other);
        complain(0, "there is a laboratory '%s' already; tcpshim lab down %s ends it", name, name);
        return -EEXIST;
    }
    if (other == -EINVAL || !lab_address(name, address))
        return -EINVAL;
    const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd >= 0 && bind(fd, (struct sockaddr *)address, sizeof(*address)) == 0 &&
        listen(fd, 16) == 0)
        return fd;
    complain(0, "%s: %m", address->sun_path);
    return -EIO;
}

static int up(const struct request *q)
{
    const char *name = q->noperands > 1 ? q->operands[1] : LAB_DEFAULT;
    struct sockaddr_un address;
    int report[2], status;
    if (name[0] != '\0' && name[1] == '\0')
        return complain(STATUS_USAGE, "'%s' would be a host's name; give it two letters", name);
    const int control = claim(name, &address);
    if (control < 0)
        return STATUS_FAILED;
    if (pipe(report) < 0)
        return complain(STATUS_FAILED, "%m");
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0) {
        close(report[0]);
        status = lab_daemon(&q->settings, control, report[1]);
        unlink(address.sun_path);
        _exit(status);
    }
    close(report[1]);
    status = child < 0 ? complain(STATUS_FAILED, "%m") : report_of(report[0]);
    if (status != STATUS_OK)
        return status;
    char link[200];
    link_describe(&q->settings.link, link, sizeof(link));
    printf("laboratory '%s': hosts a (" LAB_NETWORK "1) to %c (" LAB_NETWORK "%u), link %s\n", name,
           'a' + (char)q->settings.hosts - 1, q->settings.hosts, link);
    return STATUS_OK;
}

/* ---- exec, shell ---- */

static void describe_host(const char *name, int host, unsigned hosts)
{
    char variable[] = "LAB_A", address[32], letter[] = {(char)('a' + host), '\0'};
    setenv("LAB", name, 1);
    setenv("LAB_HOST", letter, 1);
    for (unsigned i = 0; i < hosts; i++) {
        variable[4] = (char)('A' + i);
        snprintf(address, sizeof(address), LAB_NETWORK "%u", i + 1);
        setenv(variable, address, 1);
    }
}

int lab_enter(const char *where)
{
    struct lab_request r = {.ask = LAB_ENTER};
    struct lab_reply reply = {0};
    char name[LAB_NAME_MAX];
    int fds[2] = {-1, -1};
    if (!split(where, true, name, &r.host) || ask(name, &r, &reply, fds) != STATUS_OK)
        return STATUS_START;
    if ((fds[0] >= 0 && setns(fds[0], CLONE_NEWUSER) < 0) || setns(fds[1], CLONE_NEWNET) < 0)
        return complain(STATUS_START, "cannot enter %s: %m", where);
    if (fds[0] >= 0)
        close(fds[0]);
    close(fds[1]);
    describe_host(name, r.host, reply.settings.hosts);
    privilege_hand_down(privilege_bit(CAP_NET_RAW) | privilege_bit(CAP_NET_ADMIN) |
                        privilege_bit(CAP_NET_BIND_SERVICE));
    return STATUS_OK;
}

static int start(char **argv)
{
    execvp(argv[0], argv);
    return complain(errno == ENOENT ? STATUS_NOT_FOUND : STATUS_CANNOT, "%s: %m", argv[0]);
}

static int exec(const struct request *q)
{
    if (q->noperands < 3)
        return complain(STATUS_USAGE,
                        "which host and command? as in: tcpshim lab exec a -- ip addr");
    const int status = lab_enter(q->operands[1]);
    return status != STATUS_OK ? status : start(q->operands + 2);
}

static int shell(const struct request *q)
{
    const char *program = getenv("SHELL");
    char *argv[] = {(char *)(program != NULL ? program : "/bin/sh"), NULL};
    if (q->noperands != 2)
        return complain(STATUS_USAGE, "which host? as in: tcpshim lab shell a");
    const int status = lab_enter(q->operands[1]);
    return status != STATUS_OK ? status : start(argv);
}

/* ---- set, list, down ---- */

static int set(const struct request *q)
{
    struct lab_request r = {.ask = LAB_SET, .mask = q->link_mask, .link = q->settings.link};
    struct lab_reply reply;
    char name[LAB_NAME_MAX];
    if (!split(q->noperands > 1 ? q->operands[1] : "", false, name, &r.host))
        return STATUS_USAGE;
    if (q->link_mask == 0)
        return complain(STATUS_USAGE, "nothing to set; as in: tcpshim lab set --delay 50ms");
    return ask(name, &r, &reply, NULL);
}

static void show_counts(const struct link_counts *c)
{
    printf("      %llu frames, %llu bytes", (unsigned long long)c->frames,
           (unsigned long long)c->bytes);
    const struct {
        uint64_t n;
        const char *what;
    } rest[] = {{c->lost, "lost"},
                {c->overflowed, "too many for the queue"},
                {c->reordered, "overtaken"},
                {c->duplicated, "doubled"},
                {c->corrupted, "corrupted"}};
    for (unsigned i = 0; i < sizeof(rest) / sizeof(rest[0]); i++)
        if (rest[i].n > 0)
            printf(", %llu %s", (unsigned long long)rest[i].n, rest[i].what);
    putchar('\n');
}

/* False: it is not there any more. */
static bool show(const char *name)
{
    const struct lab_request r = {.ask = LAB_INFO, .host = -1};
    struct lab_reply reply;
    const int connection = lab_connect(name);
    if (connection < 0)
        return false;
    const int err = lab_request(connection, &r, &reply, NULL);
    close(connection);
    if (err < 0) {
        no_lab(name, err);
        return true;
    }
    printf("%s%s%s  %u hosts, mtu %u%s, process %d\n", term_style(stdout, STYLE_BOLD), name,
           term_style(stdout, STYLE_PLAIN), reply.settings.hosts, reply.settings.mtu,
           reply.settings.offload ? ", offload" : "", (int)reply.pid);
    for (unsigned i = 0; i < reply.settings.hosts; i++) {
        char text[200];
        link_describe(&reply.to[i], text, sizeof(text));
        printf("  %c   " LAB_NETWORK "%-3u to it: %s\n", 'a' + (char)i, i + 1, text);
        show_counts(&reply.counts[i]);
    }
    return true;
}

/* Calls visit for each laboratory's name; returns how many there are. */
static unsigned each(bool (*visit)(const char *name))
{
    char path[200];
    unsigned n = 0;
    struct dirent **entries;
    const int found =
        lab_directory(path, sizeof(path)) ? scandir(path, &entries, NULL, alphasort) : -1;
    for (int i = 0; i < found; i++) {
        char *dot = strrchr(entries[i]->d_name, '.');
        if (dot != NULL && dot != entries[i]->d_name && strcmp(dot, ".lab") == 0) {
            *dot = '\0';
            n += visit(entries[i]->d_name);
        }
        free(entries[i]);
    }
    if (found >= 0)
        free(entries);
    return n;
}

static int list(const struct request *q)
{
    if (q->noperands > 1)
        return show(q->operands[1]) ? STATUS_OK : no_lab(q->operands[1], -ENOENT);
    if (each(show) > 0)
        return STATUS_OK;
    puts("no laboratories; tcpshim lab up makes one");
    return STATUS_OK;
}

static int end(const char *name)
{
    const struct lab_request r = {.ask = LAB_DOWN, .host = -1};
    struct lab_reply reply;
    char rest;
    const int connection = lab_connect(name);
    if (connection < 0)
        return no_lab(name, connection);
    const int err = lab_request(connection, &r, &reply, NULL);
    if (err == 0) /* its end is the end of the connection */
        (void)!recv(connection, &rest, 1, 0);
    close(connection);
    return err < 0 ? no_lab(name, err) : STATUS_OK;
}

static bool end_one(const char *name)
{
    return end(name) == STATUS_OK;
}

static int down(const struct request *q)
{
    if (!q->all)
        return end(q->noperands > 1 ? q->operands[1] : LAB_DEFAULT);
    each(end_one);
    return STATUS_OK;
}

/* ---- */

static bool number(const char *value, unsigned min, unsigned max, const char *option, unsigned *out)
{
    char *end;
    const unsigned long v = strtoul(value, &end, 10);
    if (*value >= '0' && *value <= '9' && *end == '\0' && v >= min && v <= max) {
        *out = (unsigned)v;
        return true;
    }
    complain(0, "--%s %s: not understood; a number from %u to %u", option, value, min, max);
    return false;
}

/* False: said what is wrong. */
static bool take(int option, const char *value, struct request *q)
{
    if (option == OWN_HOSTS)
        return number(value, 2, LAB_HOSTS_MAX, "hosts", &q->settings.hosts);
    if (option == OWN_MTU)
        return number(value, 576, 65535, "mtu", &q->settings.mtu);
    if (option == OWN_OFFLOAD)
        q->settings.offload = true;
    if (option == OWN_ALL)
        q->all = true;
    if (option < OWN_COUNT)
        return true;
    const unsigned which = (unsigned)option - OWN_COUNT;
    const char *allowed = link_parse(which, value, &q->settings.link);
    if (allowed != NULL)
        complain(0, "--%s %s: not understood; %s", options[option].name, value, allowed);
    q->link_mask |= 1u << which;
    return allowed == NULL;
}

static int run(int argc, char **argv)
{
    static int (*const actions[])(const struct request *) = {up, exec, shell, set, list, down};
    struct request q = {.settings = {.hosts = 2, .mtu = 1500}};
    struct options o;
    int option;
    (void)argc;
    options_begin(&o, &command_lab, argv);
    while ((option = options_next(&o)) >= 0)
        if (!take(option, o.value, &q))
            return STATUS_USAGE;
    if (option != OPTION_END)
        return option == OPTION_HELP ? STATUS_OK : STATUS_USAGE;
    q.operands = o.operands;
    q.noperands = o.noperands;
    for (unsigned i = 0; q.noperands > 0 && i < sizeof(verbs) / sizeof(verbs[0]); i++)
        if (strcmp(verbs[i].name, q.operands[0]) == 0)
            return actions[i](&q);
    if (q.noperands == 0)
        return complain(STATUS_USAGE, "what? up, exec, shell, set, list or down; see --help");
    return complain(STATUS_USAGE, "there is no 'lab %s': up, exec, shell, set, list, down",
                    q.operands[0]);
}

const struct subcommand command_lab = {
    .name = "lab",
    .synopsis = "up [options] [LAB]\nexec [LAB/]HOST [--] CMD...\nshell [LAB/]HOST\n"
                "set options [LAB/][HOST]\nlist [LAB]\ndown [LAB]",
    .summary = "hosts in network namespaces, with a link of your choice",
    .text =
        "Makes private networks for experiments, tests and lessons: hosts a, b, ... with the "
        "addresses " LAB_NETWORK "1, .2, ..., joined by a link that delays, loses, reorders and "
        "so on as you say, the same frames each time for the same seed. ARP is delayed, never "
        "lost. It touches nothing of this machine's own network, and needs no root where "
        "user namespaces are allowed: tcpshim doctor says whether.\n\n"
        "Programs on a host find the addresses in $LAB_A, $LAB_B, ..., and its name in "
        "$LAB_HOST.",
    .verbs = verbs,
    .nverbs = sizeof(verbs) / sizeof(verbs[0]),
    .options = options,
    .noptions = sizeof(options) / sizeof(options[0]),
    .examples = examples,
    .nexamples = sizeof(examples) / sizeof(examples[0]),
    .command_at = 3,
    .run = run,
};
