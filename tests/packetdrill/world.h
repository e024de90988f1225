/*
 * The world that the shim runs in under packetdrill: a clock that stands still until somebody
 * sleeps, a link that keeps what is sent, sleeping without the kernel. Theory of operation in
 * world.c.
 */
#pragma once

#include "shim/core/engine.h"

#define WORLD_PACKET_MAX 65536

struct world_flags {
    struct ip_addr local;
    char sysctl[128]; /* directory; empty: none */
    uint32_t mtu;
};

/* Makes the stack. Called once, by the thread that runs the script. */
void world_start(const struct world_flags *flags);
nsec_t world_now(void);
/*
 * Lets dt pass: timers run, calls that wait return at the moment when they can.
 */
void world_sleep(nsec_t dt);
/* An IP packet arrives. */
void world_inject(const void *packet, size_t len);
/*
 * The next packet that the stack sends, waited for; its length, 0: there will be none, or it is
 * longer than size.
 */
size_t world_next_packet(void *buf, size_t size, nsec_t *at);
/* A thread looked at the clock: one that waited in a call has noted when it came back. */
void world_clock_read(void);

/* ---- settings.c ---- */

/* Takes over what the settings say now; called before sockets are made and segments taken. */
void settings_apply(const char *dir, struct stack *st);
/* Defaults of a new socket. */
void settings_of_socket(struct tcp_opts *opts);
