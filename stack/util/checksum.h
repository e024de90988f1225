/* The Internet checksum (RFC 1071), by parts. */
#pragma once

#include "stack/base.h"

/* Adds len bytes to a running sum. `odd` is true when an odd number of bytes was summed before. */
uint64_t csum_add(uint64_t sum, const void *data, size_t len, bool odd);
/* 16 bits, not inverted, in network byte order when stored with memcpy. */
uint16_t csum_fold(uint64_t sum);
/* Sum of the pseudo header for TCP over IPv4 or IPv6 (RFC 9293 3.1); len is header + payload. */
uint64_t csum_pseudo(const struct ip_addr *src, const struct ip_addr *dst, uint8_t proto,
                     uint32_t len);
