/* A kernel TCP socket that listens and hears nobody, or hardly anybody: what makes it a guard
 * (guard.h). */
#pragma once

#include "stack/base.h"

/*
 * Closes the socket's ears: to all; but with local_clients not to what comes in over the loopback
 * interface, with v6_kernel not to native IPv6. Entered. 0 or negative errno.
 */
int seal_socket(int fd, bool local_clients, bool v6_kernel);
