/* One run of the commands: a laboratory, observers, the server, the client (compare.h). */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "shim/command/command.h"
#include "shim/command/compare/compare.h"
#include "shim/command/lab.h"

#define SECOND      INT64_C(1000000000)
#define LISTEN_TIME (15 * SECOND) /* that the server may take until it listens */
#define SETTLE_TIME (4 * SECOND)  /* that the last segments may take */
#define QUIET_TIME  (SECOND / 4)  /* without a segment: they are over */
#define STOP_TIME   (2 * SECOND)  /* between SIGTERM and SIGKILL */
#define ARGS_MAX    96

enum { HOST_A, HOST_B, STATES, OBSERVERS };

/* What is running. */
struct stage {
    const struct settings *s;
    struct run *r;
    char lab[LAB_NAME_MAX];
    bool lab_up;
    pid_t observers[OBSERVERS];
    pid_t server;
};

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    interrupted = number;
}

static int64_t now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * SECOND + ts.tv_nsec;
}

static void nap(int msec)
{
    poll(NULL, 0, msec);
}

void run_path(char *out, size_t size, const struct settings *s, const struct run *r,
              const char *what)
{
    snprintf(out, size, "%s/%s-%s", s->directory, r->name, what);
}

/* ---- processes ---- */

static void redirect(int fd, const char *path, int flags)
{
    int to = open(path, flags | O_CLOEXEC, 0666);
    if (to >= 0)
        dup2(to, fd);
}

/* Starts this program with other arguments, in a process group of its own. NULL paths: /dev/null.
 */
static pid_t spawn(char *const argv[], const char *out, const char *err)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid != 0) {
        if (pid > 0)
            setpgid(pid, pid);
        return pid;
    }
    setpgid(0, 0);
    signal(SIGINT, SIG_DFL);
    redirect(0, "/dev/null", O_RDONLY);
    redirect(1, out ? out : "/dev/null", O_WRONLY | O_CREAT | O_TRUNC);
    redirect(2, err ? err : "/dev/null", O_WRONLY | O_CREAT | O_TRUNC);
    execv(argv[0], argv);
    _exit(STATUS_CANNOT);
}

/* Waits until the process ends; false: it did not in that time. */
static bool wait_for(pid_t pid, int64_t time, int *status)
{
    int64_t until = now() + time;
    while (waitpid(pid, status, WNOHANG) == 0) {
        if (now() >= until || interrupted)
            return false;
        nap(2);
    }
    return true;
}

static void stop_group(pid_t pid, int *status)
{
    int ignored;
    if (pid <= 0)
        return;
    kill(-pid, SIGTERM);
    int64_t until = now() + STOP_TIME;
    while (waitpid(pid, status ? status : &ignored, WNOHANG) == 0) {
        if (now() >= until) {
            kill(-pid, SIGKILL);
            waitpid(pid, status ? status : &ignored, 0);
            return;
        }
        nap(5);
    }
}

/* The first line of a file, for messages. */
static const char *first_line(const char *path)
{
    static char line[200];
    FILE *f = fopen(path, "re");
    line[0] = '\0';
    if (f) {
        if (!fgets(line, sizeof(line), f))
            line[0] = '\0';
        fclose(f);
    }
    line[strcspn(line, "\n")] = '\0';
    return line[0] ? line : "it said nothing";
}

/* ---- the laboratory ---- */

static bool lab_make(struct stage *g)
{
    char *argv[ARGS_MAX] = {(char *)g->s->self, "lab", "up"}, err[300];
    unsigned n = 3;
    for (unsigned i = 0; i < g->s->nlab; i++)
        argv[n++] = (char *)g->s->lab[i];
    snprintf(g->lab, sizeof(g->lab), "compare-%d-%s", (int)getpid(), g->r->name);
    argv[n++] = g->lab;
    run_path(err, sizeof(err), g->s, g->r, "lab.err");
    int status = -1;
    pid_t pid = spawn(argv, NULL, err);
    g->lab_up = pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
    if (!g->lab_up)
        complain(0, "no laboratory: %s", first_line(err));
    return g->lab_up;
}

static void lab_end(struct stage *g)
{
    char *argv[] = {(char *)g->s->self, "lab", "down", g->lab, NULL};
    if (!g->lab_up)
        return;
    pid_t pid = spawn(argv, NULL, NULL);
    if (pid > 0)
        waitpid(pid, NULL, 0);
    g->lab_up = false;
}

static bool lab_ask(const struct stage *g, struct lab_reply *reply)
{
    const struct lab_request request = {.ask = LAB_INFO, .host = -1};
    int fd = lab_connect(g->lab);
    if (fd < 0)
        return false;
    bool good = lab_request(fd, &request, reply, NULL) == 0;
    close(fd);
    return good;
}

/* ---- observers ---- */

/* Starts one and waits until it watches. */
static bool observer_start(struct stage *g, int which)
{
    int ready[2];
    char where[LAB_NAME_MAX + 4], pcap[300], states[300], line[200];
    const char *side = which == HOST_A ? "server" : "client";
    if (pipe2(ready, O_CLOEXEC) < 0)
        return false;
    snprintf(where, sizeof(where), "%s/%c", g->lab, which == HOST_A ? 'a' : 'b');
    snprintf(line, sizeof(line), "%s.pcap", side);
    run_path(pcap, sizeof(pcap), g->s, g->r, line);
    snprintf(line, sizeof(line), "%s-diag.json", side);
    run_path(states, sizeof(states), g->s, g->r, which == STATES ? "kernel.json" : line);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        close(ready[0]);
        setpgid(0, 0);
        _exit(which == STATES
                  ? observe_states(states, ready[1])
                  : observe_host(where, pcap, states, g->r->watch == WATCH_TRACEPOINT, ready[1]));
    }
    close(ready[1]);
    ssize_t n = pid > 0 ? read(ready[0], line, sizeof(line) - 1) : -1;
    close(ready[0]);
    g->observers[which] = pid;
    if (n == 0)
        return true;
    complain(0, "host %c: %.*s", which == HOST_A ? 'a' : 'b', n > 0 ? (int)n : 0, line);
    return false;
}

static bool observers_start(struct stage *g)
{
    bool kernel = !run_user(g->r, CLIENT) || !run_user(g->r, SERVER);
    g->r->watch = !kernel ? WATCH_NONE : states_possible() ? WATCH_TRACEPOINT : WATCH_SOCK_DIAG;
    if (g->r->watch == WATCH_TRACEPOINT && !observer_start(g, STATES))
        g->r->watch = WATCH_SOCK_DIAG;
    return observer_start(g, HOST_A) && observer_start(g, HOST_B);
}

static void observers_stop(struct stage *g)
{
    for (int i = 0; i < OBSERVERS; i++)
        if (g->observers[i] > 0)
            kill(g->observers[i], SIGTERM);
    for (int i = 0; i < OBSERVERS; i++) {
        if (g->observers[i] > 0)
            waitpid(g->observers[i], NULL, 0);
        g->observers[i] = 0;
    }
}

/* ---- the commands ---- */

/* The command line with {server}, {port}, {client} and {dir} filled in. */
static void fill_in(struct text *to, const struct settings *s, const char *directory,
                    const char *command)
{
    const struct {
        const char *word, *value;
    } words[] = {{"{server}", NETWORK_A}, {"{client}", NETWORK_B}, {"{dir}", directory}};
    while (*command) {
        size_t i = 0, n = sizeof(words) / sizeof(words[0]);
        while (i < n && strncmp(command, words[i].word, strlen(words[i].word)) != 0)
            i++;
        if (i < n) {
            text_add(to, "%s", words[i].value);
            command += strlen(words[i].word);
        } else if (strncmp(command, "{port}", 6) == 0) {
            text_add(to, "%u", s->port);
            command += 6;
        } else {
            text_add_n(to, command++, 1);
        }
    }
}

/* One program rather than a shell that waits for it, where the line is a single command. */
static void shell_line(struct text *to, const struct settings *s, const char *directory,
                       const char *command)
{
    if (!command[strcspn(command, ";&|<>()`\n")])
        text_add(to, "exec ");
    fill_in(to, s, directory, command);
}

static pid_t start(struct stage *g, int side)
{
    const struct settings *s = g->s;
    const char *name = side == CLIENT ? "client" : "server";
    char where[LAB_NAME_MAX + 4], out[300], err[300], trace[300], directory[300], what[40];
    struct text line = {0};
    snprintf(where, sizeof(where), "%s/%c", g->lab, side == CLIENT ? 'b' : 'a');
    snprintf(what, sizeof(what), "%s.out", name);
    run_path(out, sizeof(out), s, g->r, what);
    snprintf(what, sizeof(what), "%s.err", name);
    run_path(err, sizeof(err), s, g->r, what);
    snprintf(what, sizeof(what), "%s-trace.%%p.json", name);
    run_path(trace, sizeof(trace), s, g->r, what);
    run_path(directory, sizeof(directory), s, g->r, "dir");
    mkdir(directory, 0777);
    chmod(directory, 0777); /* servers that give up root write there, too */
    shell_line(&line, s, directory, side == CLIENT ? s->client : s->server);
    char *kernel[] = {(char *)s->self, "lab", "exec", where, "--", "sh", "-c", line.s, NULL};
    char *user[] = {(char *)s->self, "run", "--lab", where, "--", "sh", "-c", line.s, NULL};
    if (run_user(g->r, side)) {
        setenv("TCPSHIM_TRACE", "state,queue,segment,call,timer,cc", 1);
        setenv("TCPSHIM_TRACE_FORMAT", "json", 1);
        setenv("TCPSHIM_TRACE_FILE", trace, 1);
    }
    pid_t pid = spawn(run_user(g->r, side) ? user : kernel, out, err);
    unsetenv("TCPSHIM_TRACE");
    unsetenv("TCPSHIM_TRACE_FORMAT");
    unsetenv("TCPSHIM_TRACE_FILE");
    text_free(&line);
    return pid;
}

/* Whether a socket listens on the server's host: on the port if the command names it, else on any.
 */
static bool listens(const struct stage *g)
{
    bool any = !g->s->server || !strstr(g->s->server, "{port}");
    for (int v6 = 0; v6 < 2; v6++) {
        char path[60], line[300];
        unsigned port, state;
        snprintf(path, sizeof(path), "/proc/%d/net/tcp%s", (int)g->observers[HOST_A],
                 v6 ? "6" : "");
        FILE *f = fopen(path, "re");
        bool found = false;
        while (f && !found && fgets(line, sizeof(line), f))
            found = sscanf(line, "%*s %*[0-9A-F]:%x %*[0-9A-F]:%*x %x", &port, &state) == 2 &&
                    state == 10 && (any || port == g->s->port);
        if (f)
            fclose(f);
        if (found)
            return true;
    }
    return false;
}

static bool server_start(struct stage *g)
{
    char err[300];
    int64_t until = now() + LISTEN_TIME;
    run_path(err, sizeof(err), g->s, g->r, "server.err");
    g->server = start(g, SERVER);
    if (g->server < 0)
        return false;
    while (!listens(g)) {
        int status;
        if (waitpid(g->server, &status, WNOHANG) == g->server) {
            g->server = 0;
            if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
                nap(200); /* it may have become a daemon */
                if (listens(g))
                    return true;
            }
            complain(0, "%s: the server ended at once: %s", g->r->name, first_line(err));
            return false;
        }
        if (now() > until || interrupted) {
            if (!interrupted)
                complain(0, "%s: the server does not listen%s", g->r->name,
                         strstr(g->s->server, "{port}") ? " on the port" : "");
            return false;
        }
        nap(3);
    }
    return true;
}

/* Waits until no more segments pass. */
static void settle(const struct stage *g)
{
    struct lab_reply reply;
    uint64_t frames = UINT64_MAX;
    int64_t end = now() + SETTLE_TIME, quiet = 0, enough = QUIET_TIME;
    while (now() < end && !interrupted && lab_ask(g, &reply)) {
        uint64_t seen = reply.counts[0].frames + reply.counts[1].frames;
        enough = QUIET_TIME + 2 * (int64_t)(reply.to[0].delay + reply.to[1].delay);
        if (seen != frames)
            quiet = now();
        else if (now() - quiet > enough)
            return;
        frames = seen;
        nap(20);
    }
}

static void read_output(struct stage *g)
{
    char path[300], buffer[65536];
    run_path(path, sizeof(path), g->s, g->r, "client.out");
    g->r->output_hash = UINT64_C(14695981039346656037);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n;
    while (fd >= 0 && (n = read(fd, buffer, sizeof(buffer))) > 0) {
        g->r->output_bytes += (uint64_t)n;
        for (ssize_t i = 0; i < n; i++)
            g->r->output_hash =
                (g->r->output_hash ^ (unsigned char)buffer[i]) * UINT64_C(1099511628211);
    }
    if (fd >= 0)
        close(fd);
}

static bool perform(struct stage *g)
{
    struct run *r = g->r;
    if (g->s->server && !server_start(g))
        return false;
    r->client_begin = now();
    pid_t client = start(g, CLIENT);
    if (client < 0)
        return false;
    if (!wait_for(client, g->s->timeout, &r->client_status)) {
        r->client_late = true;
        stop_group(client, &r->client_status);
    }
    r->client_end = now();
    read_output(g);
    settle(g);
    if (g->server > 0 && waitpid(g->server, &r->server_status, WNOHANG) == g->server) {
        r->server_died = true;
        g->server = 0;
    }
    return !interrupted;
}

bool pair_run(const struct settings *s, struct run *r)
{
    struct stage g = {.s = s, .r = r};
    struct sigaction before[2];
    sigaction(SIGINT, &(struct sigaction){.sa_handler = on_signal}, &before[0]);
    sigaction(SIGTERM, &(struct sigaction){.sa_handler = on_signal}, &before[1]);
    r->client_status = r->server_status = -1;
    bool good = lab_make(&g) && observers_start(&g) && perform(&g);
    if (good && g.server > 0) {
        stop_group(g.server, &r->server_status);
        g.server = 0;
        settle(&g);
    }
    observers_stop(&g);
    stop_group(g.server, NULL);
    lab_end(&g);
    sigaction(SIGINT, &before[0], NULL);
    sigaction(SIGTERM, &before[1], NULL);
    if (interrupted)
        complain(0, "interrupted");
    return good;
}
