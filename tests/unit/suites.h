/*
 * The suites of the unit tests, one a module: tests/unit/test_<name>.c exports
 * `Suite *suite_<name>(void)`. Append a line here to add one.
 */
#pragma once

#include <check.h>

/* Run by the binary `unit`: everything that needs no stub. */
#define UNIT_SUITES(X)                                                                             \
    X(siphash)                                                                                     \
    X(random)                                                                                      \
    X(checksum)                                                                                    \
    X(wheel)                                                                                       \
    X(arena)                                                                                       \
    X(trace)                                                                                       \
    X(trace_filter)                                                                                \
    X(trace_format)                                                                                \
    X(ring)                                                                                        \
    X(sink)                                                                                        \
    X(seq)                                                                                         \
    X(wire)                                                                                        \
    X(flow)                                                                                        \
    X(sendbuf)                                                                                     \
    X(recvbuf)                                                                                     \
    X(rtt)                                                                                         \
    X(isn)                                                                                         \
    X(sentmap)                                                                                     \
    X(cc)                                                                                          \
    X(bbr)                                                                                         \
    X(filter)                                                                                      \
    X(config)                                                                                      \
    X(link_segment)                                                                                \
    X(spin)                                                                                        \
    X(aside)                                                                                       \
    X(ingress)                                                                                     \
    X(vnet)                                                                                        \
    X(impair_rules)                                                                                \
    X(impair)

/* Run by the binary `unit_ip`: the network layer over tests/unit/stub_tcp.c in place of stack/tcp.
 */
#define UNIT_IP_SUITES(X)                                                                          \
    X(stack)                                                                                       \
    X(arp)                                                                                         \
    X(ipv4)                                                                                        \
    X(segment)                                                                                     \
    X(fragment)                                                                                    \
    X(icmp)                                                                                        \
    X(loopback)                                                                                    \
    X(route)

#ifdef UNIT_IP
#define SUITES(X) UNIT_IP_SUITES(X)
#else
#define SUITES(X) UNIT_SUITES(X)
#endif

#define X(name) Suite *suite_##name(void);
SUITES(X)
#undef X
