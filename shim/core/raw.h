/*
 * System calls without libc: for the parts of the shim that must not meet their own hooks, must not
 * be cancellation points and must leave errno alone. Each returns what the kernel returns: a
 * negative errno on failure.
 */
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>

#if defined(__clang_analyzer__)
/* It does not see what the kernel writes through pointers that assembly got as numbers. */
long raw_syscall(long number, long a, long b, long c, long d, long e, long f);
#else
static inline long raw_syscall(long number, long a, long b, long c, long d, long e, long f)
{
#if defined(__x86_64__)
    long ret;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(ret)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return ret;
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc 0"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                     : "memory");
    return x0;
#else
#error "raw_syscall: this architecture is missing"
#endif
}
#endif

static inline int raw_socket(int domain, int type, int protocol)
{
    return (int)raw_syscall(SYS_socket, domain, type, protocol, 0, 0, 0);
}

static inline int raw_bind(int fd, const void *addr, socklen_t len)
{
    return (int)raw_syscall(SYS_bind, fd, (long)addr, len, 0, 0, 0);
}

static inline int raw_listen(int fd, int backlog)
{
    return (int)raw_syscall(SYS_listen, fd, backlog, 0, 0, 0, 0);
}

static inline int raw_connect(int fd, const void *addr, socklen_t len)
{
    return (int)raw_syscall(SYS_connect, fd, (long)addr, len, 0, 0, 0);
}

static inline int raw_accept4(int fd, void *addr, socklen_t *len, int flags)
{
    return (int)raw_syscall(SYS_accept4, fd, (long)addr, (long)len, flags, 0, 0);
}

static inline int raw_setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
    return (int)raw_syscall(SYS_setsockopt, fd, level, name, (long)value, len, 0);
}

static inline int raw_getsockopt(int fd, int level, int name, void *value, socklen_t *len)
{
    return (int)raw_syscall(SYS_getsockopt, fd, level, name, (long)value, (long)len, 0);
}

static inline int raw_getsockname(int fd, void *addr, socklen_t *len)
{
    return (int)raw_syscall(SYS_getsockname, fd, (long)addr, (long)len, 0, 0, 0);
}

static inline ssize_t raw_sendmsg(int fd, const struct msghdr *m, int flags)
{
    return raw_syscall(SYS_sendmsg, fd, (long)m, flags, 0, 0, 0);
}

static inline ssize_t raw_recvmsg(int fd, struct msghdr *m, int flags)
{
    return raw_syscall(SYS_recvmsg, fd, (long)m, flags, 0, 0, 0);
}

static inline ssize_t raw_sendto(int fd, const void *buf, size_t len, int flags, const void *addr,
                                 socklen_t addr_len)
{
    return raw_syscall(SYS_sendto, fd, (long)buf, (long)len, flags, (long)addr, addr_len);
}

static inline ssize_t raw_recvfrom(int fd, void *buf, size_t len, int flags, void *addr,
                                   socklen_t *addr_len)
{
    return raw_syscall(SYS_recvfrom, fd, (long)buf, (long)len, flags, (long)addr, (long)addr_len);
}

static inline ssize_t raw_recv(int fd, void *buf, size_t len, int flags)
{
    return raw_recvfrom(fd, buf, len, flags, NULL, NULL);
}

static inline ssize_t raw_send(int fd, const void *buf, size_t len, int flags)
{
    return raw_syscall(SYS_sendto, fd, (long)buf, (long)len, flags, 0, 0);
}

static inline ssize_t raw_read(int fd, void *buf, size_t len)
{
    return raw_syscall(SYS_read, fd, (long)buf, (long)len, 0, 0, 0);
}

static inline ssize_t raw_write(int fd, const void *buf, size_t len)
{
    return raw_syscall(SYS_write, fd, (long)buf, (long)len, 0, 0, 0);
}

static inline int raw_open(const char *path, int flags, mode_t mode)
{
    return (int)raw_syscall(SYS_openat, AT_FDCWD, (long)path, flags, mode, 0, 0);
}

static inline int raw_close(int fd)
{
    return (int)raw_syscall(SYS_close, fd, 0, 0, 0, 0, 0);
}

static inline int raw_fcntl(int fd, int cmd, long arg)
{
    return (int)raw_syscall(SYS_fcntl, fd, cmd, arg, 0, 0, 0);
}

/* timeout: NULL waits for ever; it is updated by the kernel. */
static inline int raw_ppoll(struct pollfd *fds, unsigned long n, struct timespec *timeout)
{
    return (int)raw_syscall(SYS_ppoll, (long)fds, (long)n, (long)timeout, 0, 0, 0);
}

static inline int raw_getpid(void)
{
    return (int)raw_syscall(SYS_getpid, 0, 0, 0, 0, 0, 0);
}

static inline ssize_t raw_getrandom(void *buf, size_t len)
{
    return raw_syscall(SYS_getrandom, (long)buf, (long)len, 0, 0, 0, 0);
}

/* The kernel's signal set: 64 bits. */
static inline int raw_sigprocmask(int how, const uint64_t *set, uint64_t *old)
{
    return (int)raw_syscall(SYS_rt_sigprocmask, how, (long)set, (long)old, sizeof(*set), 0, 0);
}

/* MAP_FAILED's place is taken by (void *)-errno: test with raw_is_error(). */
static inline void *raw_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
    return (void *)raw_syscall(SYS_mmap, (long)addr, (long)len, prot, flags, fd, offset);
}

static inline int raw_munmap(void *addr, size_t len)
{
    return (int)raw_syscall(SYS_munmap, (long)addr, (long)len, 0, 0, 0, 0);
}

static inline int raw_is_error(const void *p)
{
    return (unsigned long)p >= (unsigned long)-4095L;
}
