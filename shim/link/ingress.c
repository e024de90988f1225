/* The family's side of the program at the interface's ingress: see ingress.h. */
#include "shim/link/ingress.h"

#include "shim/core/config.h"
#include "shim/core/fdtable.h"
#include "shim/core/raw.h"
#include "shim/core/shared.h"
#include "shim/life/births.h"
#include "shim/life/keeper.h"
#include "shim/link/bpf.h"
#include "stack/tcp/marks.h"
#include "stack/tcp/tcp.h"

/* So many frames within that time are worth the program: 10,000 a second. */
#define MANY   500
#define WITHIN (50 * NSEC_PER_MSEC)

static int map = -1;

/* An array of marks that can be mapped, or negative errno. */
static int make_map(void)
{
    union bpf_attr attr = {0};
    attr.map_type = BPF_MAP_TYPE_ARRAY;
    attr.key_size = sizeof(uint32_t);
    attr.value_size = sizeof(struct flow_mark);
    attr.max_entries = MARKS;
    attr.map_flags = BPF_F_MMAPABLE;
    memcpy(attr.map_name, "tcpshim_marks", sizeof("tcpshim_marks"));
    return bpf_call(BPF_MAP_CREATE, &attr);
}

static bool map_at(void *at, int fd)
{
    const int prot = PROT_READ | PROT_WRITE;
    void *got = raw_mmap(at, MARKS_BYTES, prot, MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0);
    if (got == at)
        return true;
    if (!raw_is_error(got))
        raw_munmap(got, MARKS_BYTES);
    return false;
}

void ingress_prepare(struct stack *st, void *end)
{
    if (!config.ingress_drop)
        return;
    const int fd = make_map();
    if (fd < 0)
        return;
    if (!map_at(end, fd)) {
        raw_close(fd);
        return;
    }
    map = fd_make_internal(fd);
    tcp_use_marks(st, end);
}

int ingress_fd(void)
{
    return map;
}

bool ingress_adopt(const struct stack *st, int fd)
{
    if (tcp_marks(st) == NULL)
        return true;
    map = fd;
    return map_at(tcp_marks(st), fd);
}

static void ask(unsigned index)
{
    struct shared *sh = engine.sh;
    const uint32_t bit = 1u << index;
    const struct netif *nif = stack_netif(engine.st, index);
    if ((sh->ingress_asked & bit) != 0 || tcp_marks(engine.st) == NULL || nif == NULL ||
        nif->kind != NETIF_ETHERNET || !keeper_watches())
        return;
    if (births_ask_ingress(nif->ifindex))
        sh->ingress_asked |= bit;
}

void ingress_count(struct stack_cx *cx, unsigned frames, unsigned netif)
{
    static unsigned n;
    static nsec_t since;
    n += frames;
    if (likely(n < MANY))
        return;
    if (cx->now - since < WITHIN)
        ask(netif);
    n = 0;
    since = cx->now;
}
