/*
 * tcpshim compare: the same commands on kernel sockets and on the user stack, in laboratories that
 * are made alike, watched in the same way.
 *
 *     pair.c     one run: laboratory, observers, server, client; leaves files in a directory
 *     observe.c  a process on each host that captures its interface and asks sock_diag
 *     states.c   a process that reads the kernel's tracepoint of state changes
 *     load.c     the files of a run as flows
 *     measure.c  numbers out of the flows; what differs
 *     report.c   the table on a terminal, JSON            html.c  the page
 */
#pragma once

#include <signal.h>
#include <sys/types.h>

#include "shim/command/view/flow.h"

#define NETWORK_A "10.77.0.1" /* the server's host, a */
#define NETWORK_B "10.77.0.2" /* the client's, b */
#define PAIRS_MAX 4

struct settings {
    const char *server, *client; /* command lines; server may be NULL */
    const char *lab[64];         /* options for tcpshim lab up, as "--delay", "20ms" */
    unsigned nlab;
    const char *link; /* as given, for the report; NULL: plain */
    uint16_t port;
    int64_t timeout; /* ns that the client may take */
    const char *directory;
    const char *self; /* this program */
    bool quiet;
};

/* How kernel states were watched. */
enum watch { WATCH_NONE, WATCH_TRACEPOINT, WATCH_SOCK_DIAG };

/* What a run did. */
struct run {
    char name[3]; /* "ku": client on the kernel, server on the user stack */
    enum watch watch;
    int client_status, server_status; /* as waitpid() gives them; -1: was not run */
    bool client_late;                 /* did not end in time */
    bool server_died;                 /* before it was told to */
    int64_t client_begin, client_end; /* ns, CLOCK_MONOTONIC */
    int64_t wall_offset;              /* CLOCK_REALTIME - CLOCK_MONOTONIC */
    uint64_t output_bytes, output_hash;
    uint64_t capture_lost; /* segments that the capture missed */
    /* load.c */
    struct event_list events;
    struct flow_list flows;
};

static inline bool run_user(const struct run *r, int side)
{
    return r->name[side] == 'u';
}

/* ---- pair.c ---- */

/* Runs the pair named in r->name. False: could not; said why. */
bool pair_run(const struct settings *s, struct run *r);
/* settings->directory/NAME-WHAT */
void run_path(char *out, size_t size, const struct settings *s, const struct run *r,
              const char *what);

/* ---- observe.c ---- */

/* Watches a host until SIGTERM: segments to a pcap, states of kernel sockets to a trace. Closes
 * `ready` when it does; writes a line to it when it cannot. For a process of its own. */
int observe_host(const char *where, const char *pcap, const char *states, bool tracepoint,
                 int ready);
extern volatile sig_atomic_t observer_ended;
void observer_signals(void);

/* ---- states.c ---- */

/* Whether the tracepoint sock:inet_sock_set_state can be read. */
bool states_possible(void);
/* As observe_host(). */
int observe_states(const char *states, int ready);
/* The RFC's name of a state as Linux numbers it (net/tcp_states.h). */
const char *kernel_state_name(unsigned state);

/* ---- load.c ---- */

bool run_load(const struct settings *s, struct run *r);

/* ---- measure.c ---- */

enum row_class {
    ROW_RESULT,   /* what programs and users see: outputs, statuses, bytes */
    ROW_PROTOCOL, /* options, states, resets, errors */
    ROW_COUNT,    /* depends on timing: segments, ACKs */
    ROW_TIME,
};

struct table_row {
    char id[40];
    const char *section; /* begins here; NULL: goes on */
    char name[64];
    enum row_class class;
    bool differs; /* RESULT and PROTOCOL only: not all the same */
    char *text[PAIRS_MAX];
    double number[PAIRS_MAX]; /* NAN: none */
};

struct table {
    struct table_row *rows;
    size_t n, room;
    unsigned pairs;
};

void table_make(struct table *t, const struct run *runs, unsigned n);
bool table_differs(const struct table *t);
void table_free(struct table *t);

/* ---- report.c ---- */

/* "K-U" of "ku". */
const char *pair_title(const struct run *r);
void report_table(const struct settings *s, const struct run *runs, const struct table *t);
void report_json(const struct settings *s, const struct run *runs, const struct table *t);
const char *watch_text(enum watch watch);

/* ---- html.c ---- */

/* Adds the page. */
void report_html(struct text *to, const struct settings *s, const struct run *runs,
                 const struct table *t);
