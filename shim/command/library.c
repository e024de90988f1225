#define _GNU_SOURCE
#include "shim/command/library.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define LIBRARY "libtcpshim.so"

/* The directory of this command, without a slash at its end. */
static bool own_directory(char *out, size_t size)
{
    const ssize_t n = readlink("/proc/self/exe", out, size - 1);
    if (n <= 0)
        return false;
    out[n] = '\0';
    char *slash = strrchr(out, '/');
    if (slash == NULL)
        return false;
    *slash = '\0';
    return true;
}

static bool beside(const char *library, const char *name)
{
    char path[PATH_MAX + 32];
    const char *slash = strrchr(library, '/');
    snprintf(path, sizeof(path), "%.*s%s", (int)(slash - library) + 1, library, name);
    return access(path, X_OK) == 0;
}

void library_find(const char *given, struct library *out)
{
    static const char *const places[] = {"", "/../lib", "/../lib/tcpshim"};
    char directory[PATH_MAX - 64], candidate[PATH_MAX];
    struct statvfs fs;
    *out = (struct library){0};
    if (given != NULL && realpath(given, out->path) == NULL)
        snprintf(out->path, sizeof(out->path), "%s", given);
    for (unsigned i = 0; given == NULL && i < 3 && out->path[0] == '\0'; i++) {
        if (!own_directory(directory, sizeof(directory)))
            break;
        snprintf(candidate, sizeof(candidate), "%s%s/" LIBRARY, directory, places[i]);
        if (access(candidate, R_OK) == 0 && realpath(candidate, out->path) == NULL)
            out->path[0] = '\0';
    }
    if (out->path[0] == '\0') {
        out->problem = LIBRARY " lies neither beside this command nor in ../lib from it";
    } else if (access(out->path, R_OK) != 0) {
        out->problem = errno == ENOENT ? "there is no such library" : "it cannot be read";
    } else if (strpbrk(out->path, " :") != NULL) {
        out->problem = "its path has a blank or a colon, which LD_PRELOAD takes for separators; "
                       "move it";
    } else if (statvfs(out->path, &fs) == 0 && (fs.f_flag & ST_NOEXEC) != 0) {
        out->problem = "it lies on a file system that is mounted noexec; move it";
    }
    out->keeper = out->problem == NULL && beside(out->path, "tcpshim-keeper");
}

int library_preload(const struct library *l)
{
    const char *before = getenv("LD_PRELOAD");
    char *value;
    if (before == NULL || before[0] == '\0')
        return setenv("LD_PRELOAD", l->path, 1) == 0 ? 0 : -errno;
    if (asprintf(&value, "%s:%s", l->path, before) < 0)
        return -ENOMEM;
    const int err = setenv("LD_PRELOAD", value, 1) == 0 ? 0 : -errno;
    free(value);
    return err;
}
