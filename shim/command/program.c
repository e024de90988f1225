#define _GNU_SOURCE
#include "shim/command/program.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#define SCRIPTS_MAX 4
/* Tables larger than this are not read: no program has them. */
#define TABLE_MAX ((uint64_t)64 << 20)

/* ---- finding ---- */

static bool runnable(const char *path, int *error)
{
    struct stat st;
    if (stat(path, &st) < 0) {
        *error = errno;
        return false;
    }
    *error = S_ISREG(st.st_mode) ? access(path, X_OK) == 0 ? 0 : errno : EACCES;
    return *error == 0;
}

static void find(const char *name, struct program *p)
{
    const char *path = getenv("PATH");
    if (strchr(name, '/') != NULL) {
        snprintf(p->path, sizeof(p->path), "%s", name);
        runnable(name, &p->error);
        return;
    }
    p->error = ENOENT;
    if (path == NULL || *name == '\0')
        path = *name == '\0' ? "" : "/bin:/usr/bin";
    while (*path != '\0') {
        const size_t len = strcspn(path, ":");
        int error; /* of one place; the next may be better */
        const int n = snprintf(p->path, sizeof(p->path), "%.*s%s%s", (int)len, path,
                               len > 0 ? "/" : "./", name);
        if (n > 0 && (size_t)n < sizeof(p->path) && runnable(p->path, &error)) {
            p->error = 0;
            return;
        }
        if (n > 0 && (size_t)n < sizeof(p->path) && access(p->path, F_OK) == 0)
            p->error = EACCES;
        path += len + (path[len] == ':');
    }
    snprintf(p->path, sizeof(p->path), "%s", name);
}

/* ---- what its file says about privileges ---- */

static void inspect_privileges(struct program *p)
{
    struct stat st;
    struct statvfs fs;
    if (stat(p->image, &st) < 0)
        return;
    p->nosuid_mount = statvfs(p->image, &fs) == 0 && (fs.f_flag & ST_NOSUID) != 0;
    p->setuid = (st.st_mode & S_ISUID) != 0 && st.st_uid != getuid();
    p->setgid = (st.st_mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) && st.st_gid != getgid();
    /* root has them anyway, and gains nothing that would alarm the loader */
    p->file_caps = getuid() != 0 && getxattr(p->image, "security.capability", NULL, 0) > 0;
}

/* ---- ELF, 64 bits, the machine's own byte order ---- */

/* [at, at+len) of the file, NUL behind it; NULL: not there. The caller frees it. */
static char *load(int fd, uint64_t at, uint64_t len)
{
    if (len == 0 || len > TABLE_MAX || at > INT64_MAX - len)
        return NULL;
    char *data = malloc(len + 1);
    if (data != NULL && pread(fd, data, len, (off_t)at) == (ssize_t)len) {
        data[len] = '\0';
        return data;
    }
    free(data);
    return NULL;
}

struct image {
    int fd;
    ElfW(Ehdr) head;
    ElfW(Phdr) * segments;
};

/* Where in the file a virtual address lies; 0: nowhere. */
static uint64_t file_offset(const struct image *im, uint64_t address)
{
    for (unsigned i = 0; i < im->head.e_phnum; i++) {
        const ElfW(Phdr) *s = &im->segments[i];
        if (s->p_type == PT_LOAD && address >= s->p_vaddr && address - s->p_vaddr < s->p_filesz)
            return s->p_offset + (address - s->p_vaddr);
    }
    return 0;
}

/* The libraries that it needs and the functions that it imports: all are in its string table. */
static void inspect_dynamic(const struct image *im, const ElfW(Phdr) * segment, struct program *p)
{
    ElfW(Dyn) *d = (void *)load(im->fd, segment->p_offset, segment->p_filesz);
    uint64_t strings_at = 0, strings_len = 0;
    const uint64_t n = d != NULL ? segment->p_filesz / sizeof(*d) : 0;
    for (uint64_t i = 0; i < n && d[i].d_tag != DT_NULL; i++) {
        if (d[i].d_tag == DT_STRTAB)
            strings_at = file_offset(im, d[i].d_un.d_ptr);
        if (d[i].d_tag == DT_STRSZ)
            strings_len = d[i].d_un.d_val;
    }
    char *strings = strings_at != 0 ? load(im->fd, strings_at, strings_len) : NULL;
    for (uint64_t i = 0; i < n && strings != NULL && d[i].d_tag != DT_NULL; i++) {
        if (d[i].d_tag != DT_NEEDED || d[i].d_un.d_val >= strings_len)
            continue;
        const char *needed = strings + d[i].d_un.d_val;
        p->libc |= strcmp(needed, "libc.so.6") == 0;
        p->io_uring |= strncmp(needed, "liburing", 8) == 0;
    }
    if (strings != NULL)
        p->io_uring |= memmem(strings, strings_len, "io_uring_", 9) != NULL;
    free(strings);
    free(d);
}

static bool section_says_go(const struct image *im)
{
    const ElfW(Ehdr) *h = &im->head;
    bool go = false;
    if (h->e_shentsize != sizeof(ElfW(Shdr)) || h->e_shstrndx >= h->e_shnum)
        return false;
    ElfW(Shdr) *sections =
        (void *)load(im->fd, h->e_shoff, (uint64_t)h->e_shnum * sizeof(*sections));
    if (sections == NULL)
        return false;
    const ElfW(Shdr) *names_of = &sections[h->e_shstrndx];
    char *names = load(im->fd, names_of->sh_offset, names_of->sh_size);
    for (unsigned i = 0; i < h->e_shnum && names != NULL && !go; i++) {
        if (sections[i].sh_name >= names_of->sh_size)
            continue;
        const char *name = names + sections[i].sh_name;
        go = strcmp(name, ".go.buildinfo") == 0 || strcmp(name, ".note.go.buildid") == 0 ||
             strcmp(name, ".gopclntab") == 0;
    }
    free(names);
    free(sections);
    return go;
}

/* The linker of Go leaves a note "Go", which stays when sections are stripped. */
static bool note_says_go(const struct image *im, const ElfW(Phdr) * segment)
{
    char *note = load(im->fd, segment->p_offset, segment->p_filesz);
    const bool go = note != NULL && segment->p_filesz >= 16 && memcmp(note + 12, "Go\0\0", 4) == 0;
    free(note);
    return go;
}

static void inspect_segments(const struct image *im, struct program *p)
{
    for (unsigned i = 0; i < im->head.e_phnum; i++) {
        const ElfW(Phdr) *s = &im->segments[i];
        if (s->p_type == PT_INTERP) {
            char *loader = load(im->fd, s->p_offset, s->p_filesz);
            p->dynamic = true;
            p->musl = loader != NULL && strstr(loader, "ld-musl") != NULL;
            free(loader);
        } else if (s->p_type == PT_DYNAMIC) {
            inspect_dynamic(im, s, p);
        } else if (s->p_type == PT_NOTE) {
            p->go |= note_says_go(im, s);
        }
    }
    p->go |= section_says_go(im);
}

static void inspect_elf(int fd, struct program *p)
{
    static const unsigned char own_class = sizeof(void *) == 8 ? ELFCLASS64 : ELFCLASS32;
    struct image im = {.fd = fd}, own = {.fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC)};
    const bool known =
        own.fd >= 0 && pread(own.fd, &own.head, sizeof(own.head), 0) == (ssize_t)sizeof(own.head);
    if (own.fd >= 0)
        close(own.fd);
    p->elf = true;
    if (pread(fd, &im.head, sizeof(im.head), 0) != (ssize_t)sizeof(im.head)) {
        p->error = ENOEXEC;
        return;
    }
    p->foreign = im.head.e_ident[EI_CLASS] != own_class ||
                 (known && im.head.e_machine != own.head.e_machine);
    if (p->foreign || im.head.e_phentsize != sizeof(ElfW(Phdr)))
        return;
    im.segments = (void *)load(fd, im.head.e_phoff, (uint64_t)im.head.e_phnum * sizeof(ElfW(Phdr)));
    if (im.segments != NULL)
        inspect_segments(&im, p);
    free(im.segments);
}

/* ---- scripts ---- */

/* The word behind `at`; cuts it off. NULL: there is none. */
static char *next_word(char **at)
{
    char *word = *at + strspn(*at, " \t");
    char *end = word + strcspn(word, " \t");
    *at = *end != '\0' ? end + 1 : end;
    *end = '\0';
    return *word != '\0' ? word : NULL;
}

/* "#!INTERPRETER [ARGUMENT]"; env(1) finds the interpreter by its name. False: no such line. */
static bool interpreter(char *line, char *out, size_t size)
{
    line[strcspn(line, "\n")] = '\0';
    char *at = line + 2;
    char *word = next_word(&at);
    if (word == NULL)
        return false;
    const char *slash = strrchr(word, '/');
    if (strcmp(slash != NULL ? slash + 1 : word, "env") == 0) {
        char *behind;
        while ((behind = next_word(&at)) != NULL)
            if (behind[0] != '-' && strchr(behind, '=') == NULL)
                break;
        if (behind != NULL)
            word = behind;
    }
    return (size_t)snprintf(out, size, "%s", word) < size;
}

static void inspect_image(struct program *p)
{
    char head[512] = {0};
    const int fd = open(p->image, O_RDONLY | O_CLOEXEC);
    const ssize_t n = fd >= 0 ? pread(fd, head, sizeof(head) - 1, 0) : -1;
    if (n >= SELFMAG && memcmp(head, ELFMAG, SELFMAG) == 0) {
        inspect_elf(fd, p);
    } else if (n >= 2 && memcmp(head, "#!", 2) == 0 && p->scripts < SCRIPTS_MAX) {
        struct program *next = malloc(sizeof(*next));
        char name[PATH_MAX];
        if (next != NULL && interpreter(head, name, sizeof(name))) {
            *next = (struct program){.scripts = p->scripts + 1};
            find(name, next);
            memcpy(next->image, next->path, sizeof(next->image));
            if (next->error == 0)
                inspect_image(next);
            memcpy(next->path, p->path, sizeof(next->path));
            *p = *next;
        }
        free(next);
    } else if (fd >= 0) {
        p->error = ENOEXEC;
    } /* else: can be executed and not read; nothing is known */
    if (fd >= 0)
        close(fd);
    if (p->elf)
        inspect_privileges(p);
}

void program_inspect(const char *name, struct program *p)
{
    *p = (struct program){0};
    find(name, p);
    memcpy(p->image, p->path, sizeof(p->image));
    if (p->error == 0)
        inspect_image(p);
}

/* ---- what it means ---- */

unsigned program_obstacles(const struct program *p, struct obstacle *out)
{
    unsigned n = 0;
    if (p->error != 0 || !p->elf)
        return 0;
    if (p->foreign)
        out[n++] = (struct obstacle){
            true, "it is made for another kind of processor or word size than libtcpshim.so",
            "build tcpshim for that kind (make CC='gcc -m32'), or install the program for this "
            "one"};
    else if (!p->dynamic)
        out[n++] = (struct obstacle){
            true, "it is statically linked: there is no loader that would honour LD_PRELOAD",
            "link it dynamically, or use another build of it"};
    if (p->go)
        out[n++] = (struct obstacle){
            true, "it is a Go program: it calls the kernel without libc, past the library",
            "none; use a program in another language, or gccgo (which uses libc)"};
    if (p->musl)
        out[n++] = (struct obstacle){true, "it uses musl, and libtcpshim.so needs glibc",
                                     "use the program of a glibc distribution"};
    if ((p->setuid || p->setgid) && !p->nosuid_mount)
        out[n++] = (struct obstacle){
            true, "it is setuid or setgid: the loader ignores LD_PRELOAD when ids change",
            "run it as its owner (sudo tcpshim run -- CMD), or a copy of it without that bit"};
    if (p->file_caps && !p->nosuid_mount)
        out[n++] = (struct obstacle){
            true, "it has file capabilities: the loader ignores LD_PRELOAD for an ordinary user",
            "run it as root, or a copy of it (cp does not copy capabilities)"};
    if (p->dynamic && !p->foreign && !p->libc && !p->musl)
        out[n++] = (struct obstacle){false, "it does not name libc.so.6 among its libraries",
                                     "none needed where one of those does"};
    if (p->io_uring)
        out[n++] = (struct obstacle){
            false, "it can use io_uring; the library tells it that there is none (ENOSYS)",
            "none needed where it then uses epoll, as most do; --io-uring lets it, past the stack"};
    return n;
}
