#define _GNU_SOURCE
#include "shim/life/environment.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "shim/core/config.h"
#include "shim/core/raw.h"

#define PRELOAD   "LD_PRELOAD="
#define PREFIX    "TCPSHIM_"
#define KEPT_MAX  24
#define KEPT_TEXT 2048

static struct {
    char library[PATH_MAX]; /* absolute; empty: not known */
    unsigned n;
    char *vars[KEPT_MAX]; /* TCPSHIM_*, "NAME=value" */
    char text[KEPT_TEXT];
} kept;

static bool begins(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

/* The file that this code came from. */
static void find_library(void)
{
    Dl_info info;
    char *out = kept.library;
    size_t used = 0;
    if (dladdr(&kept, &info) == 0 || info.dli_fname == NULL)
        return;
    if (info.dli_fname[0] != '/') {
        const long n = raw_syscall(SYS_getcwd, (long)out, PATH_MAX - 1, 0, 0, 0, 0);
        if (n <= 1 || out[0] != '/')
            return;
        used = (size_t)n - 1;
        out[used++] = '/';
    }
    const size_t len = strlen(info.dli_fname) + 1;
    if (len > PATH_MAX - used)
        out[0] = '\0';
    else
        memcpy(out + used, info.dli_fname, len);
}

void environment_keep(char **environ_)
{
    size_t used = 0;
    find_library();
    for (char **e = environ_; e != NULL && *e != NULL && kept.n < KEPT_MAX; e++) {
        const size_t len = strlen(*e) + 1;
        if (!begins(*e, PREFIX) || len > KEPT_TEXT - used)
            continue;
        kept.vars[kept.n++] = memcpy(kept.text + used, *e, len);
        used += len;
    }
}

char *environment_take(char **environ_, const char *name)
{
    const size_t len = strlen(name);
    for (char **e = environ_; e != NULL && *e != NULL; e++) {
        if (strncmp(*e, name, len) != 0 || (*e)[len] != '=')
            continue;
        char *value = *e + len + 1;
        for (; *e != NULL; e++)
            e[0] = e[1];
        return value;
    }
    return NULL;
}

bool environment_beside(const char *name, char *path, size_t size)
{
    const char *slash = strrchr(kept.library, '/');
    const int dir = slash != NULL ? (int)(slash - kept.library) : 0;
    const int n = snprintf(path, size, "%.*s/%s", dir, kept.library, name);
    return slash != NULL && n > 0 && (size_t)n < size &&
           raw_syscall(SYS_faccessat, AT_FDCWD, (long)path, X_OK, 0, 0, 0) == 0;
}

/* The place of a variable that is set in envp, or -1. */
static long find(char *const envp[], const char *var)
{
    const size_t len = strcspn(var, "=") + 1;
    for (long i = 0; envp[i] != NULL; i++)
        if (strncmp(envp[i], var, len) == 0)
            return i;
    return -1;
}

/* The library among the words of LD_PRELOAD: by its file's name, wherever that lies. */
static bool preloads(const char *value)
{
    const char *base = strrchr(kept.library, '/');
    base = base != NULL ? base + 1 : kept.library;
    const size_t len = strlen(base);
    for (const char *at = strstr(value, base); at != NULL; at = strstr(at + 1, base))
        if ((at == value || strchr("/: ", at[-1]) != NULL) &&
            (at[len] == '\0' || strchr(": ", at[len]) != NULL))
            return true;
    return false;
}

static bool wanted(char *const envp[], long preload)
{
    const long off = find(envp, "TCPSHIM_OFF=1");
    if (off >= 0 && strcmp(envp[off], "TCPSHIM_OFF=1") == 0)
        return false;
    if (preload >= 0 && preloads(envp[preload]))
        return true;
    return config.exec != EXEC_PLAIN && kept.library[0] != '\0' &&
           raw_syscall(SYS_faccessat, AT_FDCWD, (long)kept.library, R_OK, 0, 0, 0) == 0;
}

bool environment_make(struct environment *e, char *const envp[], const char *extra)
{
    static char *const none[] = {NULL};
    size_t n = 0;
    if (envp == NULL)
        envp = none;
    const long preload = find(envp, PRELOAD);
    if (!wanted(envp, preload))
        return false;
    const bool lost = preload < 0 || !preloads(envp[preload]);
    while (envp[n] != NULL)
        n++;
    const size_t theirs = preload >= 0 ? strlen(envp[preload]) : 0;
    const size_t text = sizeof(PRELOAD) + strlen(kept.library) + 1 + theirs;
    e->size = (n + KEPT_MAX + 3) * sizeof(char *) + text;
    e->map = raw_mmap(NULL, e->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (raw_is_error(e->map))
        return false;
    char **out = e->map;
    char *line = (char *)(out + n + KEPT_MAX + 3);
    size_t used = 0;
    for (size_t i = 0; i < n; i++)
        if ((long)i != preload || !lost)
            out[used++] = envp[i];
    if (lost) {
        snprintf(line, text, "%s%s%s%s", PRELOAD, kept.library, theirs > 0 ? ":" : "",
                 preload >= 0 ? envp[preload] + sizeof(PRELOAD) - 1 : "");
        out[used++] = line;
        for (unsigned i = 0; i < kept.n; i++)
            if (find(envp, kept.vars[i]) < 0)
                out[used++] = kept.vars[i];
    }
    if (extra != NULL)
        out[used++] = (char *)extra;
    out[used] = NULL;
    e->envp = out;
    return true;
}

void environment_drop(struct environment *e)
{
    if (e->map != NULL)
        raw_munmap(e->map, e->size);
    e->map = NULL;
}
