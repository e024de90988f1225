/*
 * The world that the shim runs in under packetdrill: a clock that stands still until somebody
 * sleeps, a link that keeps what is sent, sleeping without the kernel. Theory of operation in
 * world.c.
 */
#pragma once

#include "shim/core/engine.h"

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
/*
 * Something is about to happen after what happened before: a nanosecond later, so that the stack
 * sees the order of events to which the script gives one time.
 */
void world_tick(void);
/* An IP packet arrives. */
void world_inject(const void *packet, size_t len);
/*
 * The next packet that the stack sends, waited for; its length, 0: there will be none, or it is
 * longer than size.
 */
size_t world_next_packet(void *buf, size_t size, nsec_t *at);
/*
 * Before time passes: the thread that packetdrill has for calls that wait gets real time to begin
 * its call and sleep in it, or to note what it came back with.
 */
void world_let_others(void);
/* A thread looked at the clock: one that waited in a call has noted when it came back. */
void world_clock_read(void);

/* ---- settings.c ---- */

/* Takes over what the settings say now; called before sockets are made and segments taken. */
void settings_apply(const char *dir, struct stack *st);
/* What scripts ask of nstat(8), which run.py replaces by a file in that directory. */
void settings_show_counters(const char *dir, const struct stack *st);
/* Defaults of a new socket. */
void settings_of_socket(struct tcp_opts *opts);
