/* The machine: library, privileges, sockets, memory, namespaces. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shim/command/doctor.h"
#include "shim/command/library.h"
#include "shim/command/privilege.h"

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

#define ARENA_PLACE   ((void *)0x6a0000000000) /* shim/life/arena_map.c */
#define ARENA_DEFAULT ((size_t)512 << 20)

/* ---- the library ---- */

/* Whether a program started with the library has it in its memory: the loader's last word. */
static bool loads(const struct library *l)
{
    int out[2], status;
    char line[1024];
    bool found = false;
    if (pipe(out) < 0)
        return false;
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0) {
        dup2(out[1], 1);
        const int null = open("/dev/null", O_WRONLY);
        dup2(null, 2);
        setenv("LD_PRELOAD", l->path, 1);
        execlp("cat", "cat", "/proc/self/maps", (char *)NULL);
        _exit(127);
    }
    close(out[1]);
    FILE *f = fdopen(out[0], "r");
    while (f != NULL && fgets(line, sizeof(line), f) != NULL)
        found |= strstr(line, "/libtcpshim.so") != NULL;
    if (f != NULL)
        fclose(f);
    if (child > 0)
        waitpid(child, &status, 0);
    return found;
}

static void examine_library(void)
{
    struct library l;
    const char *preload = getenv("LD_PRELOAD");
    library_find(NULL, &l);
    if (l.problem != NULL) {
        doctor_bad("library: %s%s%s", l.path, l.path[0] ? ": " : "", l.problem);
        doctor_cure("build it (make) or install it (make install), and keep the files together");
        return;
    }
    if (!loads(&l)) {
        doctor_bad("library: %s is not loaded by LD_PRELOAD", l.path);
        doctor_cure("LD_PRELOAD=%s true says why", l.path);
        return;
    }
    doctor_good("library: %s is loaded by LD_PRELOAD", l.path);
    if (!l.keeper)
        doctor_note("tcpshim-keeper is not beside it: connections of ended programs are finished "
                    "by the program itself, which waits for that");
    if (preload != NULL && preload[0] != '\0')
        doctor_note("LD_PRELOAD has %s already; libtcpshim.so is put before it", preload);
    if (access("/etc/ld.so.preload", R_OK) == 0)
        doctor_note("/etc/ld.so.preload loads libraries into every program; one that takes socket "
                    "calls, too, comes behind libtcpshim.so");
}

/* ---- privileges ---- */

static bool opens_packet_socket(int *problem)
{
    const int on = 1;
    const int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    *problem = fd < 0 ? errno : 0;
    if (fd < 0)
        return false;
    if (setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)) < 0)
        doctor_note("packet sockets without virtio-net headers: large frames are cut in software");
    close(fd);
    return true;
}

static void examine_privileges(void)
{
    const uint64_t have = privilege_effective();
    const bool raw = (have & privilege_bit(CAP_NET_RAW)) != 0;
    const bool admin = (have & privilege_bit(CAP_NET_ADMIN)) != 0;
    char own[4096] = "tcpshim";
    int problem;
    if (opens_packet_socket(&problem)) {
        doctor_good("raw packet socket: allowed (CAP_NET_RAW)");
    } else if (!raw) {
        (void)!readlink("/proc/self/exe", own, sizeof(own) - 1);
        doctor_bad("raw packet socket: not allowed, this user has no CAP_NET_RAW");
        doctor_cure("use sudo; or once, as root: setcap cap_net_raw,cap_net_admin+ep %s (whoever "
                    "may execute that file then gets both); or work in a laboratory (tcpshim lab)",
                    own);
    } else {
        doctor_bad("raw packet socket: %s", strerror(problem));
        doctor_cure("%s", problem == EAFNOSUPPORT
                              ? "a kernel with CONFIG_PACKET (modprobe af_packet)"
                              : "a sandbox (seccomp, LSM) forbids it: leave that");
    }
    if (admin)
        doctor_good("CAP_NET_ADMIN: ports of ended servers are free for new ones at once");
    else
        doctor_note("no CAP_NET_ADMIN: a restarted server waits for its old connections' end "
                    "before it gets its port");
}

/* How the kernel is kept from answering for our ports: README, "Shared address". */
static void examine_guard(void)
{
    struct sock_filter drop[] = {BPF_STMT(BPF_RET | BPF_K, 0)};
    const struct sock_fprog program = {.len = 1, .filter = drop};
    struct tcp_md5sig key = {.tcpm_keylen = 4, .tcpm_key = "test"};
    struct sockaddr_in peer = {.sin_family = AF_INET};
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    memcpy(&key.tcpm_addr, &peer, sizeof(peer));
    key.tcpm_flags = TCP_MD5SIG_FLAG_PREFIX;
    if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) == 0) {
        doctor_good("guard of ports: by a filter on a TCP socket");
    } else if (fd >= 0 && setsockopt(fd, IPPROTO_TCP, TCP_MD5SIG_EXT, &key, sizeof(key)) == 0) {
        doctor_good("guard of ports: by TCP MD5 keys (filters need CAP_NET_ADMIN on this kernel)");
    } else {
        doctor_bad("guard of ports: neither filters nor MD5 keys are allowed on TCP sockets, so "
                   "that the kernel would reset the stack's connections");
        doctor_cure("give the stack an address of its own (--addr), or CAP_NET_ADMIN");
    }
    if (fd >= 0)
        close(fd);
}

/* ---- memory, sandbox ---- */

static void examine_memory(void)
{
    struct rlimit space, file;
    const int fd = memfd_create("tcpshim-doctor", MFD_CLOEXEC);
    getrlimit(RLIMIT_AS, &space);
    getrlimit(RLIMIT_FSIZE, &file);
    void *at = mmap(ARENA_PLACE, ARENA_DEFAULT, PROT_NONE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    if (at == MAP_FAILED) {
        doctor_bad("memory: 512 MB of address space cannot be mapped (%s)", strerror(errno));
        doctor_cure("tcpshim run --mem 64M, or raise ulimit -v");
    } else {
        doctor_good("memory: the stack's 512 MB of address space (pages are taken when used)");
        munmap(at, ARENA_DEFAULT);
    }
    if (fd < 0 || file.rlim_cur < ARENA_DEFAULT)
        doctor_note("the stack's memory cannot be a file (memfd, ulimit -f): no keeper, and exec "
                    "does not hand sockets over");
    if (fd >= 0)
        close(fd);
}

static void examine_sandbox(void)
{
    char line[100];
    FILE *f = fopen("/proc/self/status", "re");
    while (f != NULL && fgets(line, sizeof(line), f) != NULL)
        if (strncmp(line, "Seccomp:\t", 9) == 0 && line[9] != '0')
            doctor_note("a seccomp filter is in force here: it may forbid what tcpshim needs");
    if (f != NULL)
        fclose(f);
}

/* ---- namespaces ---- */

/* In a child, so that nothing of it stays. 0 or errno. */
static int try_namespaces(int flags)
{
    int status = 0;
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_DUMPABLE, 1);
        _exit(unshare(flags) < 0 ? errno : 0);
    }
    if (child < 0 || waitpid(child, &status, 0) != child)
        return EAGAIN;
    return WIFEXITED(status) ? WEXITSTATUS(status) : EAGAIN;
}

static void examine_namespaces(void)
{
    int err = try_namespaces(CLONE_NEWNET);
    if (err == 0) {
        doctor_good("laboratories: allowed");
        return;
    }
    err = try_namespaces(CLONE_NEWUSER | CLONE_NEWNET);
    if (err == 0)
        doctor_good("laboratories: allowed, in user namespaces: tcpshim lab up");
    else
        doctor_note("laboratories: not for this user (%s); as root, or see the sysctls "
                    "user.max_user_namespaces and kernel.unprivileged_userns_clone",
                    strerror(err));
}

static void examine_kernel(void)
{
    struct utsname u;
    unsigned major = 0, minor = 0;
    if (uname(&u) < 0)
        return;
    sscanf(u.release, "%u.%u", &major, &minor);
    if (major > 4 || (major == 4 && minor >= 20))
        doctor_good("kernel %s", u.release);
    else
        doctor_note("kernel %s: older than 4.20, where it was not tried", u.release);
}

void doctor_examine_machine(void)
{
    examine_kernel();
    examine_library();
    examine_privileges();
    examine_guard();
    examine_memory();
    examine_sandbox();
    examine_namespaces();
}
