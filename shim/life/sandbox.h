/*
 * Processes that lock themselves in (seccomp): theory of operation in sandbox.c.
 */
#pragma once

#include <stdbool.h>

struct sock_fprog;

/* While the process is still privileged: what it will need to send from inside. Not entered. */
void sandbox_prepare(void);
/* A filter is about to be installed (NULL: the strict mode of seccomp(2)). all: in every thread. */
void sandbox_enter(const struct sock_fprog *filter, bool all);
