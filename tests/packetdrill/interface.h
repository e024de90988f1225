/*
 * What packetdrill asks of a stack that it tests as a shared object (--so_filename): the object
 * exports packetdrill_interface_init(), which fills this table. The order of the members is
 * packetdrill's; the declaration is ours.
 */
#pragma once

#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>

struct packetdrill_interface {
    void *userdata; /* the first argument of every function */
    void (*free)(void *);
    int (*socket)(void *, int, int, int);
    int (*bind)(void *, int, const struct sockaddr *, socklen_t);
    int (*listen)(void *, int, int);
    int (*accept)(void *, int, struct sockaddr *, socklen_t *);
    int (*connect)(void *, int, const struct sockaddr *, socklen_t);
    ssize_t (*read)(void *, int, void *, size_t);
    ssize_t (*readv)(void *, int, const struct iovec *, int);
    ssize_t (*recv)(void *, int, void *, size_t, int);
    ssize_t (*recvfrom)(void *, int, void *, size_t, int, struct sockaddr *, socklen_t *);
    ssize_t (*recvmsg)(void *, int, struct msghdr *, int);
    ssize_t (*write)(void *, int, const void *, size_t);
    ssize_t (*writev)(void *, int, const struct iovec *, int);
    ssize_t (*send)(void *, int, const void *, size_t, int);
    ssize_t (*sendto)(void *, int, const void *, size_t, int, const struct sockaddr *, socklen_t);
    ssize_t (*sendmsg)(void *, int, const struct msghdr *, int);
    int (*fcntl)(void *, int, int, ...);
    int (*ioctl)(void *, int, unsigned long, ...);
    int (*close)(void *, int);
    int (*shutdown)(void *, int, int);
    int (*getsockopt)(void *, int, int, int, void *, socklen_t *);
    int (*setsockopt)(void *, int, int, int, const void *, socklen_t);
    int (*poll)(void *, struct pollfd *, nfds_t, int);
    /* An IP packet for the stack. 0 or -1. */
    int (*netdev_send)(void *, const void *, size_t);
    /*
     * The next IP packet that the stack sends, waiting for it; *count is the buffer's size, then
     * the packet's, *usecs when it left. 0 or -1.
     */
    int (*netdev_receive)(void *, void *, size_t *count, long long *usecs);
    int (*usleep)(void *, useconds_t);
    int (*gettimeofday)(void *, struct timeval *, struct timezone *);
    int (*epoll_create)(void *, int);
    int (*epoll_ctl)(void *, int, int, int, struct epoll_event *);
    int (*epoll_wait)(void *, int, struct epoll_event *, int, int);
    int (*pipe)(void *, int[2]);
    int (*splice)(void *, int, off_t *, int, off_t *, size_t, unsigned);
};

/*
 * flags: words of the form NAME=VALUE, separated by commas (may be NULL or empty):
 *   local=ADDR    the stack's address (192.168.0.1)
 *   sysctl=DIR    where settings are read from (/proc/sys/net/ipv4), see settings.c; none without
 *   mtu=BYTES     of the interface (1500)
 */
void packetdrill_interface_init(const char *flags, struct packetdrill_interface *out);
