/* IP addresses as people write them. */
#pragma once

#include "stack/base.h"

/* Longest text with its NUL, as INET6_ADDRSTRLEN. */
#define ADDR_TEXT_MAX 46

/* Parses len characters: dotted quad or RFC 4291 text. False when they are neither. */
bool addr_parse(const char *text, size_t len, struct ip_addr *out);
/* Writes addr (dotted quad when it is IPv4) with a NUL; returns the length without it. */
size_t addr_format(const struct ip_addr *addr, char out[ADDR_TEXT_MAX]);
/* Whether the first prefix (of 128) bits agree. */
bool addr_in_prefix(const struct ip_addr *addr, const struct ip_addr *net, unsigned prefix);
/* Multicast or the limited broadcast address. */
bool addr_is_group(const struct ip_addr *addr);
/* 127.0.0.0/8 or ::1. */
bool addr_is_loopback(const struct ip_addr *addr);

/* A run of IPv4 addresses, host order. */
struct v4_prefix {
    uint32_t addr;
    uint8_t len;
};
/*
 * Calls visit for disjoint prefixes that together hold every address that is in none of the n in
 * except. Stops at the first error (negative) and returns it.
 */
int addr4_cover(const struct v4_prefix *except, unsigned n,
                int (*visit)(const struct v4_prefix *prefix, void *arg), void *arg);
