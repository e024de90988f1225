#define _GNU_SOURCE
#include "shim/life/own_address.h"

#include <errno.h>
#include <stdio.h>
#include <sys/un.h>

#include "shim/core/addr.h"
#include "shim/core/fdtable.h"
#include "shim/core/raw.h"
#include "shim/link/route.h"
#include "stack/ip/ip.h"

/* RFC 5227 waits seconds for stations that may be far; a link answers within milliseconds. */
#define PROBES     3
#define PROBE_WAIT (10 * NSEC_PER_MSEC)
/* The engine lets a probe rest this long before it announces: we begin that much in the past. */
#define PROBE_REST NSEC_PER_SEC
/* Visits that nobody took note of; a full queue says no pid. */
#define VISITORS_MAX 64
/* A keeper that has the address may have connections to finish (its YIELD_MAX is less). */
#define KEEPER_PATIENCE (6 * NSEC_PER_SEC)

static int lock_fd = -1;

/* The pid behind a name that is taken; 0: unknown. fd is connected to its holder afterwards. */
static int holder(int fd, const struct sockaddr_un *name, socklen_t len)
{
    struct ucred cred = {.pid = 0};
    socklen_t cred_len = sizeof(cred);
    if (raw_connect(fd, name, len) == 0)
        (void)raw_getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &cred_len);
    return cred.pid;
}

/*
 * The name is taken. Where a keeper holds it for a family that is gone, it gives way to a visitor
 * as soon as its connections are over (shim/keeper/finish.c): that is awaited. *pid: of the holder
 * that does not; 0: unknown.
 */
static int bind_after_keeper(int fd, const struct sockaddr_un *name, socklen_t len, int *pid)
{
    int err = -EADDRINUSE;
    const int visitor = raw_socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (visitor < 0)
        return err;
    *pid = 0;
    for (nsec_t waited = 0, span = NSEC_PER_MSEC; err == -EADDRINUSE && waited < KEEPER_PATIENCE;
         waited += span) {
        if (*pid == 0)
            *pid = holder(visitor, name, len);
        if (*pid > 0 && *pid != raw_getpid() &&
            raw_syscall(SYS_kill, *pid, 0, 0, 0, 0, 0) != -ESRCH)
            break;
        struct timespec pause = {.tv_nsec = (long)span};
        raw_ppoll(NULL, 0, &pause);
        err = raw_bind(fd, name, len);
    }
    raw_close(visitor);
    return err;
}

int own_address_lock(const struct config *cfg, char *text, size_t len)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX}; /* sun_path[0] is 0: an abstract name */
    char addr[ADDR_TEXT_MAX];
    addr_format(&cfg->addr, addr);
    int n = snprintf(name.sun_path + 1, sizeof(name.sun_path) - 1, "tcpshim/%s", addr);
    socklen_t name_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
    int fd = raw_socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int pid = 0;
    int err = fd < 0 ? fd : raw_bind(fd, &name, name_len);
    if (err == -EADDRINUSE)
        err = bind_after_keeper(fd, &name, name_len, &pid);
    if (err == 0)
        err = raw_listen(fd, VISITORS_MAX);
    if (err == 0) {
        lock_fd = fd_make_internal(fd);
        return 0;
    }
    if (fd >= 0)
        raw_close(fd);
    if (err == -EADDRINUSE)
        snprintf(text, len,
                 "TCPSHIM_ADDR=%s: the stack of pid %d has this address; choose another, or end "
                 "that process",
                 addr, pid);
    else
        snprintf(text, len, "TCPSHIM_ADDR=%s: cannot be locked (unix socket: %s)", addr,
                 strerror(-err));
    return err;
}

int own_address_fd(void)
{
    return lock_fd;
}

void own_address_adopt(int fd)
{
    lock_fd = fd;
}

void own_address_unlock(void)
{
    if (lock_fd >= 0)
        fd_release_internal(lock_fd);
    lock_fd = -1;
}

/* The link that the probes leave by: the engine does not run yet. */
static struct link *probe_link;

static int probe_transmit(struct stack_cx *cx, const struct frame_out *frame)
{
    return probe_link->ops->transmit(probe_link, cx, frame);
}

static void probe_notify(struct stack_cx *cx, void *owner, uint32_t events)
{
    (void)cx;
    (void)owner;
    (void)events;
}

static const struct stack_ops probe_ops = {.transmit = probe_transmit, .notify = probe_notify};

/* Takes frames for PROBE_WAIT. */
static void listen_for_answers(struct stack_cx *cx)
{
    struct pollfd p = {.fd = probe_link->fd, .events = POLLIN};
    struct timespec left = {.tv_nsec = (long)PROBE_WAIT};
    while (raw_ppoll(&p, 1, &left) > 0)
        if (probe_link->ops->receive(probe_link, cx, 64, NULL) == 0)
            break;
}

int own_address_probe(const struct config *cfg, struct stack *st, struct link *l, char *text,
                      size_t len)
{
    char addr[ADDR_TEXT_MAX];
    struct route_answer route;
    addr_format(&cfg->addr, addr);
    if (route_lookup(&cfg->addr, NULL, 0, &route) == 0 && route.local) {
        snprintf(text, len,
                 "TCPSHIM_ADDR=%s: the kernel has this address; choose one that nobody has, or "
                 "unset TCPSHIM_ADDR to share the kernel's",
                 addr);
        return -EADDRINUSE;
    }
    const uint8_t at = NETIF_LOOP + 1;
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    nsec_t now = (nsec_t)ts.tv_sec * NSEC_PER_SEC + (nsec_t)ts.tv_nsec;
    struct stack_cx cx = {.st = st, .now = now - PROBE_REST, .ops = &probe_ops};
    probe_link = l;
    for (unsigned i = 0; i < PROBES && !stack_netif(st, at)->addrs[0].conflict; i++) {
        arp_probe(&cx, at, &cfg->addr);
        listen_for_answers(&cx);
    }
    if (stack_netif(st, at)->addrs[0].conflict) {
        snprintf(text, len,
                 "TCPSHIM_ADDR=%s: another station on the network has this address; choose one "
                 "that is free",
                 addr);
        return -EADDRINUSE;
    }
    cx.now = now + PROBES * PROBE_WAIT;
    stack_run_timers(&cx);
    stack_flush(&cx);
    return 0;
}
