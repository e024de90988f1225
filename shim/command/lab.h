/*
 * Laboratories: hosts in network namespaces of their own, joined by a link with chosen properties.
 *
 *     lab.c         the subcommand; entering a host          lab_link.c  the link: what becomes of
 * a frame lab_state.c   where laboratories are found, requests   lab_net.c   interfaces (rtnetlink,
 * ethtool) lab_daemon.c  the process that is the laboratory: it holds the namespaces and moves the
 * frames
 *
 * A laboratory lives as long as its daemon; nothing of it is anywhere else but a socket file.
 * Without CAP_SYS_ADMIN it lies in a user namespace of its own, where the user keeps his own id.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/un.h>

#include "shim/command/lab_link.h"

#define LAB_DEFAULT   "lab"
#define LAB_NAME_MAX  32
#define LAB_HOSTS_MAX 16
#define LAB_NETWORK   "10.77.0." /* host a is .1, b is .2, ... */
#define LAB_NETWORK6  "fd77::"

struct lab_settings {
    unsigned hosts;
    unsigned mtu;
    bool offload; /* frames of up to 64 KB on the link; else of the MTU */
    struct link_settings link;
};

enum lab_ask { LAB_INFO, LAB_ENTER, LAB_SET, LAB_DOWN };

struct lab_request {
    enum lab_ask ask;
    int host;      /* ENTER: which; SET: frames to which, -1: to all */
    unsigned mask; /* SET: enum link_property bits to take from link */
    struct link_settings link;
};

struct lab_reply {
    int error; /* positive errno */
    int32_t pid;
    struct lab_settings settings;
    struct link_settings to[LAB_HOSTS_MAX]; /* per receiving host */
    struct link_counts counts[LAB_HOSTS_MAX];
};

/* Where host `where` ("[LAB/]HOST") is, from now on: namespaces, environment, capabilities. 0, or
 * STATUS_START after one line on stderr. */
int lab_enter(const char *where);

/* ---- lab_state.c ---- */

/* The directory of the sockets, made if need be. False: one line on stderr was written. */
bool lab_directory(char *out, size_t size);
/* The address of a laboratory's socket. False: said why. */
bool lab_address(const char *name, struct sockaddr_un *out);
/* Connects; negative errno (-ENOENT, -ECONNREFUSED: there is no such laboratory; a dead one's
 * socket is removed). */
int lab_connect(const char *name);
/* One question to it. fds (user namespace or -1, network namespace) for ENTER. 0 or negative errno.
 */
int lab_request(int connection, const struct lab_request *request, struct lab_reply *reply,
                int fds[2]);
/* The other end: one question is answered. Negative errno: the connection is over. */
int lab_receive(int connection, struct lab_request *request);
int lab_answer(int connection, const struct lab_reply *reply, const int *fds, unsigned nfds);

/* ---- lab_daemon.c ---- */

/* Becomes the laboratory: makes the namespaces, writes a line to `report` when it failed or closes
 * it when all stands; returns an exit status when the laboratory is over. control: listening. */
int lab_daemon(const struct lab_settings *settings, int control, int report);

/* ---- lab_net.c; all work in the network namespace that the thread is in. Negative errno. ---- */

int lab_net_lo_up(void);
/* A veth pair: `name` here, `eth0` with that MTU in the namespace. */
int lab_net_veth(const char *name, int peer_namespace, unsigned mtu);
int lab_net_up(const char *name);
/* Addresses LAB_NETWORK number /24 and LAB_NETWORK6 number /64 for eth0. */
int lab_net_addresses(unsigned number);
/* Segments and checksums are made before the interface: what the link carries is what a wire would.
 */
int lab_net_offload_off(const char *name);
