/* What the TCPSHIM_* variables say, read once by the constructor. Documented in README.md and in
 * docs/tcpshim.1, whose list of options is made from CONFIG_VARIABLES. */
#pragma once

#include <stdint.h>
#include <stdio.h>

#include "stack/stack.h"

/*
 * Every variable, with the option of `tcpshim run` that sets it.
 * X(NAME behind TCPSHIM_, parser, option, argument, value, text)
 *   parser    parse_PARSER() of config.c
 *   argument  of the option; NULL: it takes none and sets the variable to `value`
 */
#define CONFIG_VARIABLES(X)                                                                        \
    X(TRACE, trace, "trace", "WORDS", NULL,                                                        \
      "show what happens: a comma list of state, queue, segment, buffer, timer, call, rule, "      \
      "link, cc, or all")                                                                          \
    X(TRACE_FILE, trace_file, "trace-file", "FILE", NULL,                                          \
      "where traces go (stderr if not given); %p becomes the pid")                                 \
    X(TRACE_FORMAT, trace_format, "trace-format", "FORMAT", NULL,                                  \
      "text (default) or json, an object a line (docs/trace.md)")                                  \
    X(TRACE_FILTER, trace_filter, "trace-filter", "TERM,...", NULL,                                \
      "only connections of which one TERM holds: port N[-M], addr A.B.C.D[/LEN], conn N[-M], "     \
      "with not and and")                                                                          \
    X(TRACE_RING, trace_ring, "trace-ring", NULL, "dump",                                          \
      "tell the last events of a connection that ends by an error or a reset, and of all when "    \
      "the program crashes")                                                                       \
    X(PCAP, pcap, "pcap", "FILE", NULL,                                                            \
      "capture what the stack sends and receives, for Wireshark; %p becomes the pid")              \
    X(IMPAIR, impair, "impair", "RULE,...", NULL,                                                  \
      "spoil the network on purpose: drop=1%, delay=20ms, jitter, rate, reorder, dup, corrupt, "   \
      "seed=7; drop syn-ack 1, drop fin 2nd retransmit, delay ack 300ms, rst after 1MB, "          \
      "zero-window 5s; each with in or out and port N")                                            \
    X(ADDR, addr, "addr", "A.B.C.D/LEN", NULL,                                                     \
      "give the stack an address of its own, which the kernel does not have")                      \
    X(GW, gw, "gw", "A.B.C.D", NULL, "the router of that address; without it: on-link only")       \
    X(IF, if, "if", "NAME", NULL, "the interface of that address")                                 \
    X(RULES, rules, "rules", "RULE,...", NULL,                                                     \
      "who uses the user stack: user|kernel [connect|listen|any] "                                 \
      "[ADDRESS[/LEN]|*][:PORT[-PORT]]; "                                                          \
      "the first that matches decides")                                                            \
    X(LOOPBACK, loopback, "loopback", NULL, "user",                                                \
      "connections to this host itself run inside the stack, too, where both ends share it")       \
    X(CC, cc, "cc", "NAME", NULL, "congestion control: cubic (default), reno, bbr or dctcp")       \
    X(ECN, ecn, "ecn", "WORD", NULL,                                                               \
      "congestion marks: ask for RFC 3168's, accept them, or off; accurate: ask for accurate ECN " \
      "(RFC 9768); as the kernel's tcp_ecn if not given")                                          \
    X(MEM, mem, "mem", "SIZE", NULL, "memory of the stack, as 64M; 512M if not given")             \
    X(SPIN, spin, "spin", "USEC|auto", NULL,                                                       \
      "look this long before sleeping for a frame; 0: never; auto (default): a little, while "     \
      "that "                                                                                      \
      "pays")                                                                                      \
    X(FALLBACK, fallback, "fallback", NULL, "kernel",                                              \
      "use the kernel's TCP when the user stack cannot start")                                     \
    X(EXEC, exec, "exec", "keep|all|plain", NULL,                                                  \
      "which started programs stay under it though their environment is cleaned: those that get "  \
      "a connection (keep, the default), all, or none (plain)")                                    \
    X(IO_URING, io_uring, "io-uring", NULL, "allow",                                               \
      "let programs use io_uring, which passes the user stack by")                                 \
    X(INGRESS, ingress, "ingress", "drop|pass", NULL,                                              \
      "whether an eBPF program at the interface spares the kernel the frames of busy "             \
      "connections, which its IP and TCP would only drop (drop, the default)")                     \
    X(OFF, off, "off", NULL, "1", "load the library and let every call pass to the kernel")

/* TCPSHIM_EXEC: into which images the shim goes along where the program cleaned the environment. */
enum exec_mode { EXEC_KEEP, EXEC_ALL, EXEC_PLAIN };
#define ECN_AS_KERNEL 0xff

struct config {
    bool off;               /* TCPSHIM_OFF=1: everything passes through */
    bool own_address;       /* TCPSHIM_ADDR given */
    struct ip_addr addr;    /* TCPSHIM_ADDR */
    uint8_t prefix;         /* of 128 */
    struct ip_addr gateway; /* TCPSHIM_GW; zero: none */
    char ifname[16];        /* TCPSHIM_IF; empty: by routing */
    uint64_t mem;           /* TCPSHIM_MEM, bytes of arena */
    uint32_t trace;         /* TCPSHIM_TRACE, enum trace_class bits */
    char trace_file[256];   /* TCPSHIM_TRACE_FILE; %p is the pid; empty: stderr */
    bool trace_json;        /* TCPSHIM_TRACE_FORMAT=json */
    char pcap[256];         /* TCPSHIM_PCAP; %p is the pid; empty: no capture */
    bool fallback_kernel;   /* TCPSHIM_FALLBACK=kernel */
    bool loopback_user;     /* TCPSHIM_LOOPBACK=user */
    bool io_uring;          /* TCPSHIM_IO_URING=allow */
    bool ingress_drop;      /* TCPSHIM_INGRESS is not pass */
    uint8_t exec;           /* TCPSHIM_EXEC, enum exec_mode */
    uint8_t cc;             /* TCPSHIM_CC */
    uint8_t ecn;            /* TCPSHIM_ECN, enum stack_ecn; ECN_AS_KERNEL: not given */
    bool spin_auto;         /* TCPSHIM_SPIN=auto, */
    uint32_t spin_usec;     /* or its microseconds */
    char error[360];        /* a variable is malformed: names it and the cure; empty: none */
    char warning[160];      /* an unknown TCPSHIM_* variable; said once, TCP works; empty: none */
    nsec_t start;           /* CLOCK_MONOTONIC when the process was set up: zero of the traces */
};
extern struct config config;

/* Reads the environment. Never prints: errors are kept in config.error and said when TCP is first
 * used. */
void config_read(char **environ_);
/* What /proc/sys/net/ipv4/tcp_fastopen_key says. False: not a key; key is as it was. */
bool config_fastopen_key(const char *text, uint8_t key[16]);
/* One line on stderr, prefixed "tcpshim: ", with raw write(2). At most a few per process. */
void config_complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

enum verdict { VERDICT_USER, VERDICT_KERNEL, VERDICT_FAIL };
struct decision {
    enum verdict verdict;
    int err;         /* positive errno for VERDICT_FAIL */
    const char *why; /* for the rule trace */
};
