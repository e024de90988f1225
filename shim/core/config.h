/* What the TCPSHIM_* variables say, read once by the constructor. Documented in README.md and docs/manual. */
#pragma once

#include <stdint.h>
#include <stdio.h>

#include "stack/stack.h"

struct config {
    bool off;             /* TCPSHIM_OFF=1: everything passes through */
    bool own_address;     /* TCPSHIM_ADDR given */
    struct ip_addr addr;  /* TCPSHIM_ADDR */
    uint8_t prefix;       /* of 128 */
    struct ip_addr gateway; /* TCPSHIM_GW; zero: none */
    char ifname[16];      /* TCPSHIM_IF; empty: by routing */
    uint64_t mem;         /* TCPSHIM_MEM, bytes of arena */
    uint32_t trace;       /* TCPSHIM_TRACE, enum trace_class bits */
    char trace_file[256]; /* TCPSHIM_TRACE_FILE; %p is the pid; empty: stderr */
    bool fallback_kernel; /* TCPSHIM_FALLBACK=kernel */
    bool loopback_user;   /* TCPSHIM_LOOPBACK=user */
    uint8_t cc;           /* TCPSHIM_CC */
    uint32_t spin_usec;   /* TCPSHIM_SPIN */
    char error[200];      /* a variable is malformed: names it and the cure; empty: none */
    char warning[160];    /* an unknown TCPSHIM_* variable; said once, TCP works; empty: none */
    nsec_t start;         /* CLOCK_MONOTONIC when the process was set up: zero of the traces */
};
extern struct config config;

/* Reads the environment. Never prints: errors are kept in config.error and said when TCP is first used. */
void config_read(char **environ_);
/* One line on stderr, prefixed "tcpshim: ", with raw write(2). At most a few per process. */
void config_complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

enum verdict { VERDICT_USER, VERDICT_KERNEL, VERDICT_FAIL };
struct decision {
    enum verdict verdict;
    int err;         /* positive errno for VERDICT_FAIL */
    const char *why; /* for the rule trace */
};
