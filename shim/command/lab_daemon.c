/*
 * The process that is a laboratory. It lives in a network namespace of its own, the hub, where each
 * host's eth0 has its other end (a veth pair), takes every frame with a packet socket and sends it
 * on as the link's settings say: this needs no netem in the kernel. It ends by LAB_DOWN or SIGTERM;
 * when it ends by anything else the kernel takes namespaces and interfaces away with it.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "shim/command/command.h"
#include "shim/command/lab.h"

#ifndef PACKET_IGNORE_OUTGOING
#define PACKET_IGNORE_OUTGOING 23
#endif

#define SECOND      UINT64_C(1000000000)
#define FRAME_MAX   (sizeof(struct virtio_net_hdr) + 14 + 65535 + 64)
#define BATCH       64 /* frames from one host before the others' turn */
#define STATIONS    64 /* addresses learned */
#define CLIENTS     8
#define BUFFER      (8 << 20)
#define GRACE       (SECOND / 2) /* of the hosts' programs between SIGTERM and SIGKILL */
#define PACKETS_ALL 0x0300       /* ETH_P_ALL, in network order */

struct station {
    uint8_t mac[6];
    uint8_t host;
    bool used;
};

static struct {
    struct lab_settings settings;
    int user; /* user namespace; -1: none of its own */
    int hub;
    int net[LAB_HOSTS_MAX];
    ino_t ino[LAB_HOSTS_MAX];
    int port[LAB_HOSTS_MAX];
    struct link_way to[LAB_HOSTS_MAX];
    struct station stations[STATIONS];
    int control;
    int clients[CLIENTS];
} lab;

static volatile sig_atomic_t ended;

static void on_term(int number)
{
    (void)number;
    ended = 1;
}

static uint64_t now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * SECOND + (uint64_t)ts.tv_nsec;
}

/* ---- making it ---- */

/* What could not be done, for the one who waits. */
static bool failed(int report, const char *what, int err)
{
    dprintf(report, "%s: %s", what, strerror(-err));
    return false;
}

static bool write_file(const char *path, const char *text)
{
    const int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    const bool ok = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    close(fd);
    return ok;
}

static bool map_own_id(const char *path, unsigned id)
{
    char text[64];
    snprintf(text, sizeof(text), "%u %u 1", id, id);
    return write_file(path, text);
}

/* A user namespace in which this user is who he is, and may do everything. */
static bool own_user_namespace(int report)
{
    const unsigned uid = geteuid(), gid = getegid();
    /* file capabilities made this process's files root's */
    prctl(PR_SET_DUMPABLE, 1);
    if (unshare(CLONE_NEWUSER) < 0) {
        const int err = -errno;
        dprintf(report,
                "this machine lets ordinary users make no user namespace (%s); run it as root, or "
                "see sysctl user.max_user_namespaces and kernel.unprivileged_userns_clone",
                strerror(-err));
        return false;
    }
    write_file("/proc/self/setgroups", "deny");
    if (!map_own_id("/proc/self/uid_map", uid) || !map_own_id("/proc/self/gid_map", gid))
        return failed(report, "the user namespace's map", -errno);
    lab.user = open("/proc/self/ns/user", O_RDONLY | O_CLOEXEC);
    return lab.user >= 0 || failed(report, "/proc/self/ns/user", -errno);
}

static bool make_hub(int report)
{
    lab.user = -1;
    if (unshare(CLONE_NEWNET) < 0) {
        if (errno != EPERM)
            return failed(report, "a network namespace", -errno);
        if (!own_user_namespace(report))
            return false;
        if (unshare(CLONE_NEWNET) < 0)
            return failed(report, "a network namespace", -errno);
    }
    lab.hub = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    return lab.hub >= 0 || failed(report, "the hub's namespace", -errno);
}

static bool make_host(unsigned i, int report)
{
    const char name[] = {(char)('a' + i), '\0'};
    struct stat st = {0};
    int err = unshare(CLONE_NEWNET) < 0 ? -errno : 0;
    if (err == 0)
        lab.net[i] = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    if (err == 0 && (lab.net[i] < 0 || fstat(lab.net[i], &st) < 0 || setns(lab.hub, 0) < 0))
        err = -errno;
    if (err < 0)
        return failed(report, "a host's network namespace", err);
    lab.ino[i] = st.st_ino;
    err = lab_net_veth(name, lab.net[i], lab.settings.mtu);
    if (err == 0)
        err = lab_net_up(name);
    if (err == 0 && !lab.settings.offload)
        err = lab_net_offload_off(name);
    if (err == 0 && setns(lab.net[i], CLONE_NEWNET) < 0)
        err = -errno;
    if (err == 0)
        err = lab_net_lo_up();
    if (err == 0 && !lab.settings.offload)
        err = lab_net_offload_off("eth0");
    if (err == 0)
        err = lab_net_up("eth0");
    if (err == 0)
        err = lab_net_addresses(i + 1);
    if (err == 0 && setns(lab.hub, CLONE_NEWNET) < 0)
        err = -errno;
    return err == 0 || failed(report, "a host's interfaces", err);
}

static bool open_port(unsigned i, int report)
{
    const char name[] = {(char)('a' + i), '\0'};
    const int on = 1, bytes = BUFFER;
    const int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    const struct sockaddr_ll at = {.sll_family = AF_PACKET,
                                   .sll_protocol = PACKETS_ALL,
                                   .sll_ifindex = (int)if_nametoindex(name)};
    if (fd < 0 || setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)) < 0 ||
        setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on)) < 0)
        return failed(report, "a packet socket", -errno);
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)) < 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
    if (bind(fd, (const struct sockaddr *)&at, sizeof(at)) < 0)
        return failed(report, "a packet socket", -errno);
    lab.port[i] = fd;
    return true;
}

static bool make(int report)
{
    if (!make_hub(report))
        return false;
    for (unsigned i = 0; i < lab.settings.hosts; i++) {
        if (!make_host(i, report) || !open_port(i, report))
            return false;
        link_init(&lab.to[i], &lab.settings.link, i);
    }
    for (unsigned i = 0; i < CLIENTS; i++)
        lab.clients[i] = -1;
    return true;
}

/* ---- moving frames ---- */

/* The host that has the address; -1: not known, or a group. */
static int host_of(const uint8_t *mac)
{
    const struct station *s = &lab.stations[(mac[5] ^ mac[4]) % STATIONS];
    return (mac[0] & 1) == 0 && s->used && memcmp(s->mac, mac, 6) == 0 ? s->host : -1;
}

static void learn(const uint8_t *mac, unsigned host)
{
    struct station *s = &lab.stations[(mac[5] ^ mac[4]) % STATIONS];
    memcpy(s->mac, mac, 6);
    s->host = (uint8_t)host;
    s->used = true;
}

/* Whether fate may touch the frame: TCP, UDP and ICMP over IPv4, TCP and UDP over IPv6. Without ARP
 * and neighbour discovery nothing works at all, and they would use random numbers up by the clock.
 */
static bool of_chance(const uint8_t *frame, size_t len)
{
    if (len < 14 + 20)
        return false;
    const unsigned type = (unsigned)frame[12] << 8 | frame[13];
    return type == ETHERTYPE_IP || (type == ETHERTYPE_IPV6 && (frame[20] == 6 || frame[20] == 17));
}

static void forward(unsigned from, const uint8_t *bytes, size_t len, uint64_t at)
{
    const size_t head = sizeof(struct virtio_net_hdr);
    if (len < head + 14)
        return;
    const uint8_t *frame = bytes + head;
    const bool chance = of_chance(frame, len - head);
    learn(frame + 6, from);
    const int known = host_of(frame);
    for (unsigned to = 0; to < lab.settings.hosts; to++)
        if (to != from && (known < 0 || known == (int)to))
            link_offer(&lab.to[to], at, bytes, head, frame, len - head, chance);
}

static void take_from(unsigned host)
{
    static uint8_t bytes[FRAME_MAX];
    for (unsigned n = 0; n < BATCH; n++) {
        const ssize_t len = recv(lab.port[host], bytes, sizeof(bytes), 0);
        if (len <= 0)
            return;
        forward(host, bytes, (size_t)len, now());
    }
}

/* Sends what is due; returns when there is more. */
static uint64_t deliver(void)
{
    uint64_t next = UINT64_MAX;
    for (unsigned i = 0; i < lab.settings.hosts; i++) {
        struct link_frame *f;
        while ((f = link_due(&lab.to[i], now())) != NULL) {
            size_t len;
            const void *bytes = link_bytes(f, &len);
            (void)!send(lab.port[i], bytes, len, MSG_NOSIGNAL); /* a full queue loses it */
            free(f);
        }
        if (link_next(&lab.to[i]) < next)
            next = link_next(&lab.to[i]);
    }
    return next;
}

/* ---- questions ---- */

static bool lives_here(const char *pid)
{
    char path[300];
    struct stat st;
    snprintf(path, sizeof(path), "/proc/%s/ns/net", pid);
    if (stat(path, &st) < 0)
        return false;
    for (unsigned i = 0; i < lab.settings.hosts; i++)
        if (lab.ino[i] == st.st_ino)
            return true;
    return false;
}

/* To all programs in the hosts; returns how many there are. */
static unsigned signal_all(int number)
{
    unsigned n = 0;
    DIR *proc = opendir("/proc");
    const struct dirent *e;
    while (proc != NULL && (e = readdir(proc)) != NULL) {
        if (e->d_name[0] < '1' || e->d_name[0] > '9' || !lives_here(e->d_name))
            continue;
        n++;
        kill((pid_t)strtol(e->d_name, NULL, 10), number);
    }
    if (proc != NULL)
        closedir(proc);
    return n;
}

static void end_programs(void)
{
    const uint64_t until = now() + GRACE;
    signal_all(SIGTERM);
    while (signal_all(0) > 0 && now() < until)
        nanosleep(&(struct timespec){.tv_nsec = 10 * 1000000}, NULL);
    signal_all(SIGKILL);
}

static void set(const struct lab_request *r)
{
    for (unsigned i = 0; i < lab.settings.hosts; i++)
        if (r->host < 0 || r->host == (int)i)
            link_set(&lab.to[i], &r->link, r->mask, i);
}

/* False: the connection is over. */
static bool answer(int client)
{
    struct lab_request r;
    struct lab_reply reply = {.pid = getpid(), .settings = lab.settings};
    int fds[2];
    unsigned nfds = 0;
    if (lab_receive(client, &r) < 0)
        return false;
    if (r.host >= (int)lab.settings.hosts || r.host < -1) {
        reply.error = ENXIO;
    } else if (r.ask == LAB_ENTER && r.host >= 0) {
        if (lab.user >= 0)
            fds[nfds++] = lab.user;
        fds[nfds++] = lab.net[r.host];
    } else if (r.ask == LAB_SET) {
        set(&r);
    } else if (r.ask == LAB_DOWN) {
        ended = 1;
        end_programs();
    }
    for (unsigned i = 0; i < lab.settings.hosts; i++) {
        reply.to[i] = lab.to[i].settings;
        reply.counts[i] = lab.to[i].counts;
    }
    return lab_answer(client, &reply, fds, nfds) == 0;
}

static void admit(void)
{
    const int fd = accept4(lab.control, NULL, NULL, SOCK_CLOEXEC);
    for (unsigned i = 0; fd >= 0 && i < CLIENTS; i++) {
        if (lab.clients[i] < 0) {
            lab.clients[i] = fd;
            return;
        }
    }
    if (fd >= 0)
        close(fd);
}

/* ---- */

static void sleep_until(uint64_t next, struct pollfd *fds, unsigned n)
{
    const uint64_t at = now(), span = next > at ? next - at : 0;
    const struct timespec ts = {.tv_sec = (time_t)(span / SECOND),
                                .tv_nsec = (long)(span % SECOND)};
    ppoll(fds, n, next == UINT64_MAX ? NULL : &ts, NULL);
}

static void serve(void)
{
    struct pollfd fds[LAB_HOSTS_MAX + 1 + CLIENTS];
    const unsigned hosts = lab.settings.hosts;
    while (!ended) {
        for (unsigned i = 0; i < hosts; i++)
            fds[i] = (struct pollfd){.fd = lab.port[i], .events = POLLIN};
        fds[hosts] = (struct pollfd){.fd = lab.control, .events = POLLIN};
        for (unsigned i = 0; i < CLIENTS; i++)
            fds[hosts + 1 + i] = (struct pollfd){.fd = lab.clients[i], .events = POLLIN};
        sleep_until(deliver(), fds, hosts + 1 + CLIENTS);
        for (unsigned i = 0; i < hosts; i++)
            if (fds[i].revents != 0)
                take_from(i);
        if (fds[hosts].revents != 0)
            admit();
        for (unsigned i = 0; i < CLIENTS && !ended; i++) {
            if (fds[hosts + 1 + i].revents == 0 || answer(lab.clients[i]))
                continue;
            close(lab.clients[i]);
            lab.clients[i] = -1;
        }
    }
}

/* Nothing of the shell that it was started from is kept but the working descriptors. */
static void leave_the_shell(void)
{
    const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    setsid();
    (void)!chdir("/");
    for (int fd = 0; fd <= 2 && null >= 0; fd++)
        dup2(null, fd);
    close(null);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    sigaction(SIGTERM, &(struct sigaction){.sa_handler = on_term}, NULL);
    prctl(PR_SET_NAME, "tcpshim-lab");
    prctl(PR_SET_TIMERSLACK, 1UL); /* delays are kept to some ten microseconds */
}

int lab_daemon(const struct lab_settings *settings, int control, int report)
{
    lab.settings = *settings;
    lab.control = control;
    if (!make(report))
        return STATUS_FAILED;
    leave_the_shell();
    close(report);
    serve();
    return STATUS_OK;
}
