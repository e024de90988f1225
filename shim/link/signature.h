/*
 * Guards without a filter. Kernels of 2026 let only CAP_NET_ADMIN attach a filter to a TCP socket;
 * a program that gave up its privileges, or never had more than CAP_NET_RAW, guards its ports by
 * TCP MD5 signatures (RFC 2385): a socket that has a key for a remote address drops, without a
 * word, whatever comes from there without a signature. Nobody has the key.
 */
#pragma once

#include "stack/base.h"

/* Addresses of this host beside 127.0.0.0/8 that are excepted at most. */
#define SIGNATURE_LOCAL_MAX 16

/*
 * Makes a TCP socket (AF_INET, or AF_INET6 for its IPv4 side) deaf to every remote address, but for
 * this host's own when local_clients. 0 or negative errno.
 */
int signature_guard(int fd, bool local_clients);
