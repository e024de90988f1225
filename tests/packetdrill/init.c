/*
 * packetdrill_interface_init(): the table, and the few functions of libc that packetdrill itself
 * calls and that would otherwise speak to the kernel (only when the object is also preloaded).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/times.h>
#include <unistd.h>

#include "shim/core/fdtable.h"
#include "shim/libc/real.h"
#include "tests/packetdrill/interface.h"
#include "tests/packetdrill/world.h"

/*
 * packetdrill sleeps until this much (its MAX_SPIN_USECS) before an event, and looks at the clock
 * in a loop for the rest. Our clock stands still in a loop, so its sleeps are as much longer.
 */
#define SPIN_USECS 20
/* Looks at the clock in a row, after which it is a loop that waits for time to pass. */
#define LOOKS_MAX 16

static unsigned looks;
static struct world_flags flags = {.mtu = 1500};

static void called(void)
{
    looks = 0;
}

/* A call that depends on settings, which the script may have changed. */
static void called_with_settings(void)
{
    called();
    world_tick();
    if (flags.sysctl[0] != '\0')
        settings_apply(flags.sysctl, engine.st);
}

static void pd_free(void *u)
{
    (void)u;
}

static int pd_socket(void *u, int domain, int type, int protocol)
{
    (void)u;
    called_with_settings();
    const int fd = socket(domain, type, protocol);
    struct usock *us = fd >= 0 ? fd_usock(fd) : NULL;
    if (us != NULL) {
        struct stack_cx cx;
        engine_enter(&cx);
        struct tcp_conn *c = usock_conn(&cx, us);
        if (c != NULL)
            settings_of_socket(tcp_opts(c));
        engine_leave(&cx);
    }
    return fd;
}

static int pd_bind(void *u, int fd, const struct sockaddr *sa, socklen_t len)
{
    (void)u;
    called();
    return bind(fd, sa, len);
}

static int pd_listen(void *u, int fd, int backlog)
{
    (void)u;
    called_with_settings();
    return listen(fd, backlog);
}

static int pd_accept(void *u, int fd, struct sockaddr *sa, socklen_t *len)
{
    (void)u;
    called();
    return accept(fd, sa, len);
}

static int pd_connect(void *u, int fd, const struct sockaddr *sa, socklen_t len)
{
    (void)u;
    called_with_settings();
    return connect(fd, sa, len);
}

static ssize_t pd_read(void *u, int fd, void *buf, size_t n)
{
    (void)u;
    called();
    return read(fd, buf, n);
}

static ssize_t pd_readv(void *u, int fd, const struct iovec *iov, int n)
{
    (void)u;
    called();
    return readv(fd, iov, n);
}

static ssize_t pd_recv(void *u, int fd, void *buf, size_t n, int how)
{
    (void)u;
    called();
    return recv(fd, buf, n, how);
}

static ssize_t pd_recvfrom(void *u, int fd, void *buf, size_t n, int how, struct sockaddr *sa,
                           socklen_t *len)
{
    (void)u;
    called();
    return recvfrom(fd, buf, n, how, sa, len);
}

static ssize_t pd_recvmsg(void *u, int fd, struct msghdr *m, int how)
{
    (void)u;
    called();
    return recvmsg(fd, m, how);
}

static ssize_t pd_write(void *u, int fd, const void *buf, size_t n)
{
    (void)u;
    called_with_settings();
    return write(fd, buf, n);
}

static ssize_t pd_writev(void *u, int fd, const struct iovec *iov, int n)
{
    (void)u;
    called_with_settings();
    return writev(fd, iov, n);
}

static ssize_t pd_send(void *u, int fd, const void *buf, size_t n, int how)
{
    (void)u;
    called_with_settings();
    return send(fd, buf, n, how);
}

static ssize_t pd_sendto(void *u, int fd, const void *buf, size_t n, int how,
                         const struct sockaddr *sa, socklen_t len)
{
    (void)u;
    called_with_settings();
    return sendto(fd, buf, n, how, sa, len);
}

static ssize_t pd_sendmsg(void *u, int fd, const struct msghdr *m, int how)
{
    (void)u;
    called_with_settings();
    return sendmsg(fd, m, how);
}

static int pd_fcntl(void *u, int fd, int cmd, ...)
{
    (void)u;
    va_list ap;
    va_start(ap, cmd);
    void *arg = va_arg(ap, void *);
    va_end(ap);
    called();
    return fcntl(fd, cmd, arg);
}

static int pd_ioctl(void *u, int fd, unsigned long request, ...)
{
    (void)u;
    va_list ap;
    va_start(ap, request);
    void *arg = va_arg(ap, void *);
    va_end(ap);
    called();
    return ioctl(fd, request, arg);
}

static int pd_close(void *u, int fd)
{
    (void)u;
    called();
    return close(fd);
}

static int pd_shutdown(void *u, int fd, int how)
{
    (void)u;
    called();
    return shutdown(fd, how);
}

static int pd_getsockopt(void *u, int fd, int level, int name, void *val, socklen_t *len)
{
    (void)u;
    called();
    return getsockopt(fd, level, name, val, len);
}

static int pd_setsockopt(void *u, int fd, int level, int name, const void *val, socklen_t len)
{
    (void)u;
    called_with_settings();
    return setsockopt(fd, level, name, val, len);
}

static int pd_poll(void *u, struct pollfd *fds, nfds_t n, int timeout)
{
    (void)u;
    called();
    return poll(fds, n, timeout);
}

static int pd_netdev_send(void *u, const void *buf, size_t n)
{
    (void)u;
    called();
    world_inject(buf, n);
    return 0;
}

static int pd_netdev_receive(void *u, void *buf, size_t *count, long long *usecs)
{
    (void)u;
    called();
    nsec_t at = 0;
    *count = world_next_packet(buf, *count, &at);
    *usecs = (long long)(at / NSEC_PER_USEC);
    return 0;
}

static int pd_usleep(void *u, useconds_t usecs)
{
    (void)u;
    called();
    world_let_others();
    world_sleep(((nsec_t)usecs + SPIN_USECS) * NSEC_PER_USEC);
    return 0;
}

static int pd_gettimeofday(void *u, struct timeval *tv, struct timezone *tz)
{
    (void)u, (void)tz;
    if (++looks > LOOKS_MAX)
        world_sleep(NSEC_PER_USEC);
    const nsec_t now = world_now();
    world_clock_read(); /* from here on time may pass again */
    tv->tv_sec = (time_t)(now / NSEC_PER_SEC);
    tv->tv_usec = (suseconds_t)(now % NSEC_PER_SEC / NSEC_PER_USEC);
    return 0;
}

static int pd_epoll_create(void *u, int size)
{
    (void)u;
    called();
    return epoll_create(size);
}

static int pd_epoll_ctl(void *u, int epfd, int op, int fd, struct epoll_event *event)
{
    (void)u;
    called();
    return epoll_ctl(epfd, op, fd, event);
}

static int pd_epoll_wait(void *u, int epfd, struct epoll_event *events, int max, int timeout)
{
    (void)u;
    called();
    return epoll_wait(epfd, events, max, timeout);
}

static int pd_pipe(void *u, int fds[2])
{
    (void)u;
    called();
    return pipe(fds);
}

static int pd_splice(void *u, int in, off_t *in_at, int out, off_t *out_at, size_t n, unsigned how)
{
    (void)u;
    called();
    /* a script's NULL comes as a pointer to zero */
    in_at = in_at != NULL && *in_at == 0 ? NULL : in_at;
    out_at = out_at != NULL && *out_at == 0 ? NULL : out_at;
    return (int)splice(in, in_at, out, out_at, n, how);
}

static void set_flag(const char *word)
{
    struct in_addr addr;
    if (sscanf(word, "mtu=%u", &flags.mtu) == 1 || sscanf(word, "sysctl=%127s", flags.sysctl) == 1)
        return;
    if (strncmp(word, "local=", 6) == 0 && inet_pton(AF_INET, word + 6, &addr) == 1) {
        flags.local = ip_addr_from_v4(addr.s_addr);
        return;
    }
    fprintf(stderr, "packetdrill_tcpshim: unknown flag \"%s\"\n", word);
    exit(1);
}

static void read_flags(const char *text)
{
    char word[160];
    flags.local = ip_addr_from_v4(inet_addr("192.168.0.1"));
    while (text != NULL && *text != '\0') {
        const size_t n = strcspn(text, ",");
        if (n > 0 && n < sizeof(word)) {
            memcpy(word, text, n);
            word[n] = '\0';
            set_flag(word);
        }
        text += n + (text[n] == ',');
    }
}

SHIM_EXPORT void packetdrill_interface_init(const char *text, struct packetdrill_interface *out)
{
    read_flags(text);
    world_start(&flags);
    *out = (struct packetdrill_interface){
        .free = pd_free,
        .socket = pd_socket,
        .bind = pd_bind,
        .listen = pd_listen,
        .accept = pd_accept,
        .connect = pd_connect,
        .read = pd_read,
        .readv = pd_readv,
        .recv = pd_recv,
        .recvfrom = pd_recvfrom,
        .recvmsg = pd_recvmsg,
        .write = pd_write,
        .writev = pd_writev,
        .send = pd_send,
        .sendto = pd_sendto,
        .sendmsg = pd_sendmsg,
        .fcntl = pd_fcntl,
        .ioctl = pd_ioctl,
        .close = pd_close,
        .shutdown = pd_shutdown,
        .getsockopt = pd_getsockopt,
        .setsockopt = pd_setsockopt,
        .poll = pd_poll,
        .netdev_send = pd_netdev_send,
        .netdev_receive = pd_netdev_receive,
        .usleep = pd_usleep,
        .gettimeofday = pd_gettimeofday,
        .epoll_create = pd_epoll_create,
        .epoll_ctl = pd_epoll_ctl,
        .epoll_wait = pd_epoll_wait,
        .pipe = pd_pipe,
        .splice = pd_splice,
    };
}

/* ---- for packetdrill itself, when preloaded ---- */

/* It waits for ten ticks of this clock before each script, so that jiffies are in its favour. */
SHIM_EXPORT clock_t times(struct tms *t)
{
    static clock_t ticks;
    if (t != NULL)
        *t = (struct tms){0};
    return ++ticks;
}

/* Real-time priority and locked memory: virtual time needs neither. */
SHIM_EXPORT int sched_setscheduler(pid_t pid, int policy, const struct sched_param *param)
{
    (void)pid, (void)policy, (void)param;
    return 0;
}

SHIM_EXPORT int mlockall(int how)
{
    (void)how;
    return 0;
}
