#define _GNU_SOURCE
#include "shim/keeper/ingress.h"

#include <sys/socket.h>

#include "shim/core/raw.h"
#include "shim/life/keeper.h"
#include "shim/link/bpf.h"
#include "shim/link/ingress.h"
#include "stack/tcp/marks.h"
#include "stack/tcp/tcp.h"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

static uint32_t attached[NETIFS_MAX];
static unsigned n;
static int program = -1;

static int load(void)
{
    struct bpf_insn code[INGRESS_INSNS];
    union bpf_attr attr = {0};
    attr.prog_type = BPF_PROG_TYPE_SCHED_CLS;
    attr.insn_cnt = ingress_program(KEEPER_FD_MARKS, code);
    attr.insns = (uintptr_t)code;
    attr.license = (uintptr_t) "GPL";
    memcpy(attr.prog_name, "tcpshim_marks", sizeof("tcpshim_marks"));
    return bpf_call(BPF_PROG_LOAD, &attr);
}

/* Interfaces are known by number, and in this process's namespace: a program may have gone into
 * another before it started the keeper. */
static bool at_home(void)
{
    uint64_t here = 0, there = 1;
    socklen_t len = sizeof(here);
    const int fd = raw_socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    const bool known =
        raw_getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &here, &len) == 0 &&
        raw_getsockopt(KEEPER_FD_PACKET, SOL_SOCKET, SO_NETNS_COOKIE, &there, &len) == 0;
    raw_close(fd);
    return known && here == there;
}

static bool is_attached(uint32_t ifindex)
{
    for (unsigned i = 0; i < n; i++)
        if (attached[i] == ifindex)
            return true;
    return false;
}

void ingress_attach(uint32_t ifindex)
{
    union bpf_attr attr = {0};
    if (n == NETIFS_MAX || is_attached(ifindex) || !at_home())
        return;
    if (program < 0)
        program = load();
    if (program < 0)
        return;
    attr.link_create.prog_fd = (uint32_t)program;
    attr.link_create.target_ifindex = ifindex;
    attr.link_create.attach_type = TCX_INGRESS;
    /* its descriptor stays open, and the program in its place, as long as this process lives */
    if (bpf_call(BPF_LINK_CREATE, &attr) >= 0)
        attached[n++] = ifindex;
}

void ingress_end(struct stack *st)
{
    tcp_use_marks(st, NULL);
    if (n == 0)
        return;
    void *marks =
        raw_mmap(NULL, MARKS_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, KEEPER_FD_MARKS, 0);
    if (!raw_is_error(marks))
        memset(marks, 0, MARKS_BYTES);
}
