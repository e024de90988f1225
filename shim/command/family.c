#define _GNU_SOURCE
#include "shim/command/family.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "shim/life/arena_map.h"

#define KEEPER_NAME "tcpshim-keeper"
/* struct stack lies behind the arena's header, and begins with the arena's address. */
#define ARENA_HEADER 64
static const char file_name[] = "/memfd:" ARENA_FILE_NAME " (deleted)";

struct list_of {
    struct family *at;
    unsigned n;
};

/* ---- reading ---- */

static bool within(const struct arena_reader *r, uintptr_t address, size_t len)
{
    return address >= r->base && address - r->base <= r->size &&
           len <= r->size - (address - r->base);
}

static bool process_read(pid_t pid, uintptr_t address, void *to, size_t len)
{
    const struct iovec local = {to, len};
    const struct iovec remote = {(void *)address, len};
    return process_vm_readv(pid, &local, 1, &remote, 1, 0) == (ssize_t)len;
}

bool family_read(const struct family *f, uintptr_t address, void *to, size_t len)
{
    if (!within(&f->reader, address, len))
        return false;
    if (f->file >= 0)
        return pread(f->file, to, len, (off_t)(address - f->reader.base)) == (ssize_t)len;
    return process_read(f->via, address, to, len);
}

static bool read_for_arena(const struct arena_reader *r, uintptr_t address, void *to, size_t len)
{
    return family_read(container_of(r, struct family, reader), address, to, len);
}

bool member_read(const struct family_member *m, uintptr_t address, void *to, size_t len)
{
    return process_read(m->pid, address, to, len);
}

/* ---- finding ---- */

static FILE *open_of(pid_t pid, const char *what)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, what);
    return fopen(path, "re");
}

static struct family *family_of(struct list_of *l, uint64_t inode)
{
    for (unsigned i = 0; i < l->n; i++)
        if (l->at[i].inode == inode)
            return &l->at[i];
    struct family *more = realloc(l->at, (l->n + 1) * sizeof(*more));
    if (more == NULL)
        return NULL;
    l->at = more;
    more[l->n] = (struct family){.inode = inode, .file = -1, .reader = {.read = read_for_arena}};
    return &more[l->n++];
}

static void describe(struct family_member *m)
{
    char line[256];
    m->inner_pid = m->pid;
    FILE *f = open_of(m->pid, "status");
    while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
        if (strncmp(line, "Name:\t", 6) == 0)
            snprintf(m->name, sizeof(m->name), "%.*s", (int)strcspn(line + 6, "\n"), line + 6);
        if (strncmp(line, "NSpid:", 6) == 0) { /* outermost to innermost */
            char *last = strrchr(line, '\t');
            m->inner_pid = last != NULL ? (pid_t)strtol(last, NULL, 10) : m->pid;
        }
    }
    if (f != NULL)
        fclose(f);
    for (char *c = m->name; *c != '\0'; c++) /* a name may hold anything */
        if ((unsigned char)*c < ' ' || *c == 127)
            *c = '?';
    m->keeper = strcmp(m->name, KEEPER_NAME) == 0;
}

static void join(struct family *f, pid_t pid, bool mapped)
{
    for (unsigned i = 0; i < f->nmembers; i++)
        if (f->members[i].pid == pid)
            return;
    if (f->nmembers == FAMILY_MEMBERS_MAX)
        return;
    struct family_member *m = &f->members[f->nmembers++];
    *m = (struct family_member){.pid = pid, .mapped = mapped};
    describe(m);
}

/* The arenas in the memory of a process. False: it may not be looked into. */
static bool look_at_maps(struct list_of *l, pid_t pid)
{
    char line[512];
    FILE *f = open_of(pid, "maps");
    if (f == NULL)
        return errno != EACCES && errno != EPERM;
    while (fgets(line, sizeof(line), f) != NULL) {
        unsigned long low, high, inode;
        const char *path = strchr(line, '/');
        if (path == NULL || strncmp(path, file_name, sizeof(file_name) - 1) != 0 ||
            sscanf(line, "%lx-%lx %*s %*s %*s %lu", &low, &high, &inode) != 3)
            continue;
        struct family *family = family_of(l, inode);
        if (family == NULL)
            break;
        join(family, pid, true);
        family->reader.base = low;
        family->reader.size = high - low;
        if (family->via == 0)
            family->via = pid;
    }
    const bool seen = ferror(f) == 0;
    fclose(f);
    return seen;
}

/* The arena among the descriptors of a process: opens it, and finds a keeper, which maps it late.
 */
static void look_at_files(struct list_of *l, pid_t pid)
{
    char path[64], target[64];
    struct stat st;
    snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    DIR *d = opendir(path);
    const struct dirent *e;
    while (d != NULL && (e = readdir(d)) != NULL) {
        const ssize_t n = readlinkat(dirfd(d), e->d_name, target, sizeof(target) - 1);
        if (n != (ssize_t)sizeof(file_name) - 1 || memcmp(target, file_name, (size_t)n) != 0 ||
            fstatat(dirfd(d), e->d_name, &st, 0) < 0)
            continue;
        struct family *f = family_of(l, st.st_ino);
        if (f == NULL)
            break;
        join(f, pid, false);
        if (f->file < 0)
            f->file = openat(dirfd(d), e->d_name, O_RDONLY | O_CLOEXEC);
        if (f->file >= 0 && f->reader.base == 0 &&
            pread(f->file, &f->reader.base, sizeof(f->reader.base), ARENA_HEADER) ==
                sizeof(f->reader.base))
            f->reader.size = (size_t)st.st_size;
    }
    if (d != NULL)
        closedir(d);
}

static bool is_keeper(pid_t pid)
{
    char name[32] = "";
    FILE *f = open_of(pid, "comm");
    const bool keeper = f != NULL && fgets(name, sizeof(name), f) != NULL &&
                        strncmp(name, KEEPER_NAME, sizeof(KEEPER_NAME) - 1) == 0;
    if (f != NULL)
        fclose(f);
    return keeper;
}

unsigned families_find(struct family **out, unsigned *hidden)
{
    struct list_of l = {NULL, 0};
    DIR *proc = opendir("/proc");
    const struct dirent *e;
    *hidden = 0;
    while (proc != NULL && (e = readdir(proc)) != NULL) {
        const pid_t pid = (pid_t)strtol(e->d_name, NULL, 10);
        const unsigned before = l.n;
        if (pid <= 0)
            continue;
        const bool keeper = is_keeper(pid);
        if (!look_at_maps(&l, pid))
            ++*hidden;
        bool mapped = l.n > before;
        for (unsigned i = 0; i < l.n && !mapped; i++)
            for (unsigned m = 0; m < l.at[i].nmembers; m++)
                mapped |= l.at[i].members[m].pid == pid;
        if (mapped || keeper)
            look_at_files(&l, pid);
    }
    if (proc != NULL)
        closedir(proc);
    *out = l.at;
    return l.n;
}

void families_free(struct family *families, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        if (families[i].file >= 0)
            close(families[i].file);
    free(families);
}

void member_place(const struct family_member *m, char *out, size_t size)
{
    char lab[40] = "", host[4] = "", text[4096];
    size_t used = 0;
    out[0] = '\0';
    FILE *f = open_of(m->pid, "environ");
    int c = 0;
    while (f != NULL && c != EOF) {
        for (used = 0; (c = fgetc(f)) != EOF && c != '\0';)
            if (used < sizeof(text) - 1)
                text[used++] = (char)(c < ' ' ? '?' : c);
        text[used] = '\0';
        if (strncmp(text, "LAB=", 4) == 0)
            snprintf(lab, sizeof(lab), "%.39s", text + 4);
        if (strncmp(text, "LAB_HOST=", 9) == 0)
            snprintf(host, sizeof(host), "%.3s", text + 9);
    }
    if (f != NULL)
        fclose(f);
    if (lab[0] != '\0' && host[0] != '\0')
        snprintf(out, size, "%s/%s", lab, host);
}

void member_library(const struct family_member *m, char *out, size_t size)
{
    char line[4200];
    FILE *f = open_of(m->pid, "maps");
    out[0] = '\0';
    while (f != NULL && out[0] == '\0' && fgets(line, sizeof(line), f) != NULL) {
        const char *path = strchr(line, '/');
        const char *slash = strrchr(line, '/');
        if (path != NULL && strncmp(slash, "/libtcpshim.so", 14) == 0)
            snprintf(out, size, "%.*s", (int)strcspn(path, "\n"), path);
    }
    if (f != NULL)
        fclose(f);
}
