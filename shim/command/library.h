/* Where libtcpshim.so is, and whether this process could use it. */
#pragma once

#include <limits.h>
#include <stdbool.h>

struct library {
    char path[PATH_MAX];
    const char *problem; /* NULL: usable */
    bool keeper;         /* tcpshim-keeper lies beside it */
};

/* Beside this command, or in ../lib or ../lib/tcpshim from it. given: a path instead; or NULL. */
void library_find(const char *given, struct library *out);
/* Puts it first in LD_PRELOAD. 0 or negative errno. */
int library_preload(const struct library *l);
