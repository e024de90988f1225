/*
 * The kernel's own word on its connections' states and errors: the tracepoints
 * sock:inet_sock_set_state and sock:inet_sk_error_report, read in an instance of tracefs of our
 * own (compare.h). They show sockets of all network namespaces; the addresses choose.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shim/command/command.h"
#include "shim/command/compare/compare.h"

#define INSTANCES "/sys/kernel/tracing/instances"

/* One event of the tracepoint; error: of a report, else 0. */
struct change {
    double t;
    char local[24], peer[24];
    char from[24], to[24];
    int error;
};

struct changes {
    struct change *items;
    size_t n, room;
};

const char *kernel_state_name(unsigned state)
{
    static const char *const names[] = {"?",           "ESTABLISHED", "SYN_SENT",  "SYN_RECEIVED",
                                        "FIN_WAIT_1",  "FIN_WAIT_2",  "TIME_WAIT", "CLOSED",
                                        "CLOSE_WAIT",  "LAST_ACK",    "LISTEN",    "CLOSING",
                                        "SYN_RECEIVED"};
    return state < sizeof(names) / sizeof(names[0]) ? names[state] : "?";
}

/* "TCP_FIN_WAIT1" as the RFC has it. */
static const char *rfc_name(const char *s, size_t n)
{
    static const char *const names[][2] = {
        {"TCP_ESTABLISHED", "ESTABLISHED"}, {"TCP_SYN_SENT", "SYN_SENT"},
        {"TCP_SYN_RECV", "SYN_RECEIVED"},   {"TCP_NEW_SYN_RECV", "SYN_RECEIVED"},
        {"TCP_FIN_WAIT1", "FIN_WAIT_1"},    {"TCP_FIN_WAIT2", "FIN_WAIT_2"},
        {"TCP_TIME_WAIT", "TIME_WAIT"},     {"TCP_CLOSE", "CLOSED"},
        {"TCP_CLOSE_WAIT", "CLOSE_WAIT"},   {"TCP_LAST_ACK", "LAST_ACK"},
        {"TCP_LISTEN", "LISTEN"},           {"TCP_CLOSING", "CLOSING"},
    };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strlen(names[i][0]) == n && memcmp(names[i][0], s, n) == 0)
            return names[i][1];
    return "?";
}

static bool put(const char *instance, const char *file, const char *value)
{
    char path[200];
    snprintf(path, sizeof(path), "%s/%s", instance, file);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool good = write(fd, value, strlen(value)) == (ssize_t)strlen(value);
    close(fd);
    return good;
}

static void instance_path(char *out, size_t size)
{
    snprintf(out, size, INSTANCES "/tcpshim-%d", (int)getpid());
}

bool states_possible(void)
{
    char path[100];
    instance_path(path, sizeof(path));
    if (mkdir(path, 0700) < 0)
        return false;
    bool good = put(path, "trace_clock", "mono") &&
                put(path, "events/sock/inet_sock_set_state/enable", "1");
    put(path, "events/sock/inet_sock_set_state/enable", "0");
    rmdir(path);
    return good;
}

/* The value behind "key=" in a line; NULL. *n: its length. */
static const char *value_of(const char *line, const char *key, size_t *n)
{
    char wanted[24];
    snprintf(wanted, sizeof(wanted), " %s=", key);
    const char *at = strstr(line, wanted);
    if (!at)
        return NULL;
    at += strlen(wanted);
    *n = strcspn(at, " \n");
    return at;
}

static bool take_endpoint(char *out, size_t size, const char *line, const char *addr,
                          const char *port)
{
    size_t an, pn;
    const char *a = value_of(line, addr, &an), *p = value_of(line, port, &pn);
    if (!a || !p || strncmp(a, "10.77.0.", 8) != 0)
        return false;
    snprintf(out, size, "%.*s:%.*s", (int)an, a, (int)pn, p);
    return true;
}

/* "curl-28840   [000] ..... 13680.287393: inet_sock_set_state: family=... sport=... ..." */
static void take_line(struct changes *l, const char *line)
{
    const char *event = strstr(line, ": inet_sock_set_state: ");
    const bool report = !event;
    if (report)
        event = strstr(line, ": inet_sk_error_report: ");
    const char *t = event;
    while (t && t > line && t[-1] != ' ')
        t--;
    struct change c = {0};
    size_t n;
    if (!t || !take_endpoint(c.local, sizeof(c.local), event, "saddr", "sport") ||
        !take_endpoint(c.peer, sizeof(c.peer), event, "daddr", "dport"))
        return;
    /* cut to microseconds: what is seen in the same one came before */
    c.t = strtod(t, NULL) + 0.999e-6;
    const char *s = value_of(event, "error", &n);
    if (report && s)
        c.error = (int)strtol(s, NULL, 10);
    s = value_of(event, "oldstate", &n);
    snprintf(c.from, sizeof(c.from), "%s", s ? rfc_name(s, n) : "?");
    s = value_of(event, "newstate", &n);
    snprintf(c.to, sizeof(c.to), "%s", s ? rfc_name(s, n) : "?");
    if (l->n == l->room) {
        l->room = l->room ? l->room * 2 : 256;
        l->items = must_alloc(l->items, l->room * sizeof(c));
    }
    l->items[l->n++] = c;
}

/* connect() enters SYN_SENT before it has a port: the next change of that peer's has it. */
static void find_ports(struct changes *l)
{
    for (size_t i = 0; i < l->n; i++) {
        struct change *c = &l->items[i];
        size_t n = strlen(c->local);
        if (n < 2 || strcmp(c->local + n - 2, ":0") != 0)
            continue;
        for (size_t k = i + 1; k < l->n; k++) {
            const struct change *o = &l->items[k];
            if (strcmp(o->peer, c->peer) == 0 && strncmp(o->local, c->local, n - 1) == 0 &&
                strcmp(o->from, c->to) == 0) {
                memcpy(c->local, o->local, sizeof(c->local));
                break;
            }
        }
    }
}

static bool write_changes(const struct changes *l, const char *path)
{
    FILE *to = fopen(path, "we");
    if (!to)
        return false;
    for (size_t i = 0; i < l->n; i++) {
        const struct change *c = &l->items[i];
        fprintf(to, "{\"t\":%.9f,\"pid\":0,\"local\":\"%s\",\"peer\":\"%s\",", c->t, c->local,
                c->peer);
        if (c->error)
            fprintf(to,
                    "\"class\":\"state\",\"ev\":\"socket-error\",\"err\":%d,\"error\":\"%s\"}\n",
                    c->error, strerrorname_np(c->error) ? strerrorname_np(c->error) : "?");
        else
            fprintf(to,
                    "\"class\":\"state\",\"ev\":\"state\",\"from\":\"%s\",\"to\":\"%s\","
                    "\"why\":\"kernel\",\"why_id\":\"tracepoint\"}\n",
                    c->from, c->to);
    }
    return fclose(to) == 0;
}

/* Reads what the pipe has. */
static void drain(int pipe, struct changes *l)
{
    static char buffer[65536];
    static size_t have;
    for (;;) {
        ssize_t n = read(pipe, buffer + have, sizeof(buffer) - have - 1);
        if (n <= 0)
            return;
        have += (size_t)n;
        buffer[have] = '\0';
        char *line = buffer, *end;
        while ((end = strchr(line, '\n'))) {
            *end = '\0';
            take_line(l, line);
            line = end + 1;
        }
        have -= (size_t)(line - buffer);
        memmove(buffer, line, have);
        if (have == sizeof(buffer) - 1)
            have = 0;
    }
}

int observe_states(const char *states, int ready)
{
    char instance[100], path[160];
    struct changes changes = {0};
    observer_signals();
    instance_path(instance, sizeof(instance));
    if (mkdir(instance, 0700) < 0)
        return STATUS_FAILED;
    bool good = put(instance, "trace_clock", "mono") && put(instance, "buffer_size_kb", "2048") &&
                put(instance, "events/sock/inet_sock_set_state/filter", "protocol == 6") &&
                put(instance, "events/sock/inet_sk_error_report/filter", "protocol == 6") &&
                put(instance, "events/sock/inet_sock_set_state/enable", "1");
    put(instance, "events/sock/inet_sk_error_report/enable", "1");
    snprintf(path, sizeof(path), "%s/trace_pipe", instance);
    int pipe = good ? open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC) : -1;
    if (pipe >= 0)
        close(ready);
    while (pipe >= 0 && !observer_ended) {
        struct pollfd fd = {.fd = pipe, .events = POLLIN};
        poll(&fd, 1, 100);
        drain(pipe, &changes);
    }
    put(instance, "events/enable", "0");
    if (pipe >= 0) {
        drain(pipe, &changes);
        close(pipe);
    }
    rmdir(instance);
    find_ports(&changes);
    good = good && pipe >= 0 && write_changes(&changes, states);
    free(changes.items);
    return good ? STATUS_OK : STATUS_FAILED;
}
