/*
 * What stands between the kernel and the segments of connections whose program is gone.
 *
 * An ephemeral port is of no use to anybody else: its guard stands as long as the engine has a
 * connection or a TIME_WAIT entry of the port.
 *
 * A port that the program chose is another matter: a server that is restarted must get it at once.
 * Linux lets it bind, if it says SO_REUSEADDR, while connections of the old server live on; but not
 * while a socket listens, as a guard does. So the guard is replaced by one deaf kernel socket for
 * each connection, in the state ESTABLISHED with exactly its addresses, made without any segment by
 * TCP_REPAIR: the kernel finds it before any listener, and bind(2) follows the rule above.
 * TIME_WAIT gets such a socket, too: a FIN that comes again is answered by the engine alone, and
 * bind(2) without SO_REUSEADDR is refused, as on Linux.
 *
 * TCP_REPAIR needs CAP_NET_ADMIN. Without it the guard stands until the port's connections are
 * over, TIME_WAIT not counted, and a restarted server has to wait for that long.
 */
#define _GNU_SOURCE
#include "shim/keeper/guards.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/tcp.h>
#include <netinet/in.h>

#include "shim/core/raw.h"
#include "shim/life/custody.h"
#include "shim/link/diag.h"
#include "shim/link/foreign.h"
#include "stack/tcp/flow.h"
#include "stack/tcp/tcp.h"
#include "stack/tcp/timewait.h"

#define GUARDS_MAX 32768
/* More connections of one port than this: its guard stands. */
#define STAND_INS_MAX 8192
#define NAMES_MAX     1024

struct guard {
    int fd;
    uint16_t port;
    bool named;
};

/* A deaf socket for one connection. */
struct stand_in {
    int fd;
    struct flow_tuple tuple;
};

/* Says that there are connections of this port (shim/link/foreign.h). */
struct name {
    int fd;
    uint16_t port;
};

static struct guard guards[GUARDS_MAX];
static unsigned nguards;
static struct stand_in stand_ins[STAND_INS_MAX];
static unsigned nstand_ins;
static struct name names[NAMES_MAX];
static unsigned nnames;

static void announce(uint16_t port)
{
    struct sockaddr_un name;
    const socklen_t len = foreign_name(port, &name);
    const int fd = raw_socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    if (nnames == NAMES_MAX || raw_bind(fd, &name, len) < 0) /* taken: another keeper says so */
        raw_close(fd);
    else
        names[nnames++] = (struct name){.fd = fd, .port = port};
}

static int drop_all(int fd)
{
    struct sock_filter code[] = {BPF_STMT(BPF_RET | BPF_K, 0)};
    const struct sock_fprog prog = {.len = ARRAY_LEN(code), .filter = code};
    return raw_setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof(prog));
}

static struct sockaddr_in sockaddr_of(const struct ip_addr *addr, uint16_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = ip_addr_v4(addr)};
}

/* A socket in its place, or negative errno. */
static int open_stand_in(const struct flow_tuple *t)
{
    const struct sockaddr_in local = sockaddr_of(&t->local, t->lport);
    const struct sockaddr_in remote = sockaddr_of(&t->remote, t->rport);
    const int on = 1;
    const int fd = raw_socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
    if (fd < 0)
        return fd;
    int err = raw_setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on));
    if (err == 0)
        err = drop_all(fd);
    if (err == 0)
        err = raw_bind(fd, &local, sizeof(local));
    if (err == 0)
        err = raw_connect(fd, &remote, sizeof(remote));
    if (err == 0)
        return fd;
    raw_close(fd);
    return err;
}

struct port_view {
    uint16_t port;
    unsigned connections; /* TIME_WAIT not counted */
    int error;            /* of the first stand-in that could not be made */
    bool make;
};

static void visit(struct tcp_conn *c, void *arg)
{
    struct port_view *v = arg;
    const struct flow *f = tcp_flow(c);
    const enum tcp_state state = tcp_state(c);
    if (f->tuple.lport != v->port || state == TCP_CLOSED || state == TCP_LISTEN || v->error != 0)
        return;
    v->connections++;
    if (!v->make)
        return;
    const int fd = nstand_ins < STAND_INS_MAX ? open_stand_in(&f->tuple) : -ENFILE;
    if (fd < 0)
        v->error = fd;
    else
        stand_ins[nstand_ins++] = (struct stand_in){.fd = fd, .tuple = f->tuple};
}

/* What finds no room does without: then the kernel resets a peer that is done. */
static void visit_time_wait(const struct tcp_time_wait_image *tw, void *arg)
{
    const struct port_view *v = arg;
    if (tw->tuple.lport != v->port || nstand_ins == STAND_INS_MAX)
        return;
    const int fd = open_stand_in(&tw->tuple);
    if (fd >= 0)
        stand_ins[nstand_ins++] = (struct stand_in){.fd = fd, .tuple = tw->tuple};
}

static bool has_connections(struct stack *st, uint16_t port)
{
    struct port_view v = {.port = port};
    tcp_each_conn(st, visit, &v);
    return v.connections > 0;
}

static bool stands_in(uint16_t port)
{
    for (unsigned i = 0; i < nstand_ins; i++)
        if (stand_ins[i].tuple.lport == port)
            return true;
    return false;
}

/* Whether the guard of a port that the program chose has to stand. */
static bool must_stand(struct stack *st, uint16_t port)
{
    if (!tcp_port_in_use(st, port) || stands_in(port))
        return false; /* a second guard of the port, of an SO_REUSEPORT group */
    struct port_view v = {.port = port, .make = true};
    announce(port);
    tcp_each_conn(st, visit, &v);
    if (v.error == 0)
        tcp_each_time_wait(st, visit_time_wait, &v);
    return v.error != 0;
}

static void take_one(struct stack *st, const struct custody_item *item, int fd)
{
    const bool stands = item->named ? must_stand(st, item->port) : tcp_port_in_use(st, item->port);
    if (!stands || nguards == GUARDS_MAX) {
        raw_close(fd);
        return;
    }
    drop_all(fd); /* clients on this host find nobody any more */
    diag_mark(fd, false);
    guards[nguards++] = (struct guard){.fd = fd, .port = item->port, .named = item->named};
}

void guards_take(struct stack *st, int custody)
{
    struct custody_item items[CUSTODY_BATCH];
    int fds[CUSTODY_BATCH], n;
    while ((n = custody_receive(custody, items, fds, NULL)) >= 0)
        for (int i = 0; i < n; i++)
            take_one(st, &items[i], fds[i]);
}

void guards_sweep(struct stack *st)
{
    for (unsigned i = nguards; i-- > 0;) {
        const struct guard *g = &guards[i];
        if (g->named ? has_connections(st, g->port) : tcp_port_in_use(st, g->port))
            continue;
        raw_close(g->fd);
        guards[i] = guards[--nguards];
    }
    for (unsigned i = nstand_ins; i-- > 0;) {
        if (tcp_flow_find(st, &stand_ins[i].tuple) != NULL)
            continue;
        raw_close(stand_ins[i].fd); /* TCP_REPAIR is still on: silently */
        stand_ins[i] = stand_ins[--nstand_ins];
    }
    for (unsigned i = nnames; i-- > 0;) {
        if (tcp_port_in_use(st, names[i].port))
            continue;
        raw_close(names[i].fd);
        names[i] = names[--nnames];
    }
}

void guards_each(void (*visit)(const struct guard_item *item, int fd, void *arg), void *arg)
{
    struct guard_item item = {.kind = GUARD_PORT};
    for (unsigned i = 0; i < nguards; i++) {
        item.port = guards[i].port;
        item.named = guards[i].named;
        visit(&item, guards[i].fd, arg);
    }
    item = (struct guard_item){.kind = GUARD_STAND_IN};
    for (unsigned i = 0; i < nstand_ins; i++) {
        item.tuple = stand_ins[i].tuple;
        visit(&item, stand_ins[i].fd, arg);
    }
    item = (struct guard_item){.kind = GUARD_NAME};
    for (unsigned i = 0; i < nnames; i++) {
        item.port = names[i].port;
        visit(&item, names[i].fd, arg);
    }
}

bool guards_adopt(const struct guard_item *item, int fd)
{
    if (item->kind == GUARD_PORT && nguards < GUARDS_MAX) {
        guards[nguards++] = (struct guard){.fd = fd, .port = item->port, .named = item->named};
        return true;
    }
    if (item->kind == GUARD_STAND_IN && nstand_ins < STAND_INS_MAX) {
        stand_ins[nstand_ins++] = (struct stand_in){.fd = fd, .tuple = item->tuple};
        return true;
    }
    if (item->kind == GUARD_NAME && nnames < NAMES_MAX) {
        names[nnames++] = (struct name){.fd = fd, .port = item->port};
        return true;
    }
    raw_close(fd);
    return false;
}
