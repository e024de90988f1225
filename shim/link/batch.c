#define _GNU_SOURCE /* mmsghdr */
#include "shim/link/batch.h"

#include <errno.h>
#include <linux/aio_abi.h>
#include <linux/if_packet.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "shim/core/fdtable.h"
#include "shim/core/raw.h"
#include "shim/link/vnet.h"

#define WRITER_SNDBUF (4 << 20)

/* ---- writers ---- */

static struct writer {
    uint32_t ifindex; /* what fd was made for; 0: not yet made */
    int fd;           /* 0: it could not be made */
} writers[NETIFS_MAX];

static int open_writer(uint32_t ifindex)
{
    const int on = 1, bytes = WRITER_SNDBUF;
    const struct sockaddr_ll at = {.sll_family = AF_PACKET, .sll_ifindex = (int)ifindex};
    const int fd = raw_socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return 0;
    if (raw_setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)) < 0 ||
        raw_bind(fd, &at, sizeof(at)) < 0) {
        raw_close(fd);
        return 0;
    }
    (void)raw_setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes));
    return fd_make_internal(fd);
}

int writer_of(uint8_t netif)
{
    return netif < NETIFS_MAX ? writers[netif].fd : 0;
}

int writer_make(uint8_t netif, uint32_t ifindex)
{
    struct writer *w = &writers[netif];
    if (likely(w->ifindex == ifindex))
        return w->fd;
    if (w->fd != 0)
        fd_release_internal(w->fd); /* of an interface that is gone */
    *w = (struct writer){ifindex, open_writer(ifindex)};
    return w->fd;
}

/* ---- the kernel's asynchronous I/O, used synchronously ---- */

/* What io_setup(2) maps: not in the kernel's headers, but libaio and others rely on it. */
struct ring {
    uint32_t id, nr, head, tail;
    uint32_t magic, compat_features, incompat_features, header_length;
    struct io_event events[];
};
#define RING_MAGIC 0xa10a10a1u

struct kept {
    struct virtio_net_hdr vnet;
    uint8_t head[sizeof(((struct frame_out *)0)->head)];
    struct iovec iov[2 + FRAME_SLICES_MAX];
    struct iocb call;
};

static struct kept kept[BATCH_MAX];
static unsigned count;
static enum { UNTRIED, READY, IMPOSSIBLE } able;
static aio_context_t context;

static struct ring *ring_of(aio_context_t at)
{
    return (struct ring *)(uintptr_t)at;
}

static void give_up(void)
{
    if (context != 0)
        raw_syscall(SYS_io_destroy, (long)context, 0, 0, 0, 0, 0);
    context = 0;
    able = IMPOSSIBLE;
}

static void set_up(void)
{
    able = IMPOSSIBLE;
    /* a filter may kill for what a program with kernel sockets would never do */
    if (raw_syscall(SYS_prctl, PR_GET_SECCOMP, 0, 0, 0, 0, 0) != 0 ||
        raw_syscall(SYS_io_setup, BATCH_MAX, (long)&context, 0, 0, 0, 0) < 0)
        return;
    const struct ring *r = ring_of(context);
    if (r->magic != RING_MAGIC || r->incompat_features != 0)
        give_up();
    else
        able = READY;
}

/* Some 10 ms of what the fastest link here carries. */
#define BATCH_PAYS (64u << 20)

bool batch_pays(uint32_t bytes)
{
    static uint32_t sent;
    if (likely(sent >= BATCH_PAYS))
        return true;
    sent += bytes;
    return false;
}

bool batch_possible(void)
{
    if (unlikely(able == UNTRIED))
        set_up();
    return able == READY;
}

void batch_forbid(void)
{
    able = IMPOSSIBLE;
}

void batch_after_fork_child(void)
{
    if (context != 0) /* the mapping alone was inherited */
        raw_syscall(SYS_munmap, (long)context,
                    (long)(sizeof(struct ring) + ring_of(context)->nr * sizeof(struct io_event)), 0,
                    0, 0, 0);
    context = 0;
    if (able == READY)
        able = UNTRIED;
}

/* ---- the batch ---- */

unsigned batch_count(void)
{
    return count;
}

void batch_add(int writer, const struct virtio_net_hdr *vnet, const struct frame_out *f)
{
    struct kept *k = &kept[count++];
    const size_t head = (size_t)f->head_end - f->head_start;
    unsigned n = 0;
    k->vnet = *vnet;
    memcpy(k->head, f->head + f->head_start, head);
    k->iov[n++] = (struct iovec){&k->vnet, sizeof(k->vnet)};
    k->iov[n++] = (struct iovec){k->head, head};
    for (unsigned i = 0; i < f->nslices; i++)
        k->iov[n++] = (struct iovec){f->slices[i].base, f->slices[i].len};
    k->call = (struct iocb){.aio_lio_opcode = IOCB_CMD_PWRITEV,
                            .aio_fildes = (uint32_t)writer,
                            .aio_buf = (uintptr_t)k->iov,
                            .aio_nbytes = n};
}

static long write_one(const struct kept *k)
{
    const struct iocb *call = &k->call;
    long r;
    do
        r = raw_syscall(SYS_writev, call->aio_fildes, (long)call->aio_buf, (long)call->aio_nbytes,
                        0, 0, 0);
    while (r == -EINTR);
    return r;
}

/* What came of a frame; one that needs smaller pieces of memory is written again. */
static bool refused(struct kept *k, long result, nsec_t now, int *err)
{
    if (likely(result >= 0))
        return false;
    if (vnet_to_pages(&k->vnet, k->iov[1].iov_len, (int)result, now))
        result = write_one(k);
    if (result < 0)
        *err = (int)result;
    return result < 0;
}

/* One by one, from the frame `first` on. */
static unsigned write_each(unsigned first, nsec_t now, int *err)
{
    unsigned failed = 0;
    for (unsigned i = first; i < count; i++)
        failed += refused(&kept[i], write_one(&kept[i]), now, err);
    return failed;
}

/* ---- by sendmmsg() ---- */

/* So many batches go by sendmmsg(), to see; then what was seen holds for the rest of so many. */
#define TRIAL_SENDS    8
#define TRIAL_SWITCHES 1 /* a receiver on the same processor makes 2 to 50 */
#define TRIAL_EVERY    256

static struct {
    unsigned sends; /* since the last trial began */
    bool costs;     /* its switches said so, */
    bool forbidden; /* or they may not be asked for */
    uint64_t switches_before;
    const int *thread; /* its errno */
} trial;

/* How often the calling thread had to give its processor to another. */
static uint64_t switches(void)
{
    struct rusage r = {0};
    (void)raw_syscall(SYS_getrusage, RUSAGE_THREAD, (long)&r, 0, 0, 0, 0);
    return (uint64_t)r.ru_nivcsw;
}

/* Whether the next batch goes by sendmmsg(). */
static bool by_messages(void)
{
    if (trial.forbidden)
        return false;
    if (trial.sends == TRIAL_SENDS) {
        const bool other = trial.thread != &errno;
        trial.costs = other || switches() - trial.switches_before > TRIAL_SWITCHES;
    } else if (trial.sends == 0 || trial.sends == TRIAL_EVERY) {
        trial.sends = 0;
        trial.thread = &errno;
        trial.switches_before = switches();
    }
    return trial.sends++ < TRIAL_SENDS || !trial.costs;
}

void batch_forbid_messages(void)
{
    trial.forbidden = true;
}

/*
 * Returns how many frames are written; who wants to know why the next one is not writes it again.
 * A filter of system calls may be the reason, so there is no next time soon.
 */
static unsigned write_messages(void)
{
    struct mmsghdr messages[BATCH_MAX] = {0};
    unsigned sent = 0;
    for (unsigned i = 0; i < count; i++) {
        messages[i].msg_hdr.msg_iov = kept[i].iov;
        messages[i].msg_hdr.msg_iovlen = kept[i].call.aio_nbytes;
    }
    while (sent < count) {
        const uint32_t writer = kept[sent].call.aio_fildes;
        unsigned end = sent + 1;
        while (end < count && kept[end].call.aio_fildes == writer)
            end++;
        const long r =
            raw_syscall(SYS_sendmmsg, writer, (long)(messages + sent), end - sent, 0, 0, 0);
        if (unlikely(r <= 0 && r != -EINTR)) {
            trial.costs = true;
            trial.sends = TRIAL_SENDS + 1;
            break;
        }
        sent += r > 0 ? (unsigned)r : 0;
    }
    return sent;
}

/* ---- by io_submit() ---- */

/* The kernel has written `sent` frames: what it says of each. */
static unsigned take_events(unsigned sent, nsec_t now, int *err)
{
    struct ring *r = ring_of(context);
    unsigned failed = 0;
    uint32_t head = r->head;
    for (unsigned i = 0; i < sent && head != __atomic_load_n(&r->tail, __ATOMIC_ACQUIRE); i++) {
        const struct io_event *e = &r->events[head];
        struct iocb *call = (struct iocb *)(uintptr_t)e->obj;
        failed += refused(container_of(call, struct kept, call), e->res, now, err);
        head = head + 1 == r->nr ? 0 : head + 1;
    }
    __atomic_store_n(&r->head, head, __ATOMIC_RELEASE);
    return failed;
}

/* Returns how many frames the kernel took; of these *failed more were refused. */
static unsigned write_submitted(nsec_t now, unsigned *failed, int *err)
{
    struct iocb *calls[BATCH_MAX];
    unsigned sent = 0;
    for (unsigned i = 0; i < count; i++)
        calls[i] = &kept[i].call;
    while (sent < count) {
        const long r =
            raw_syscall(SYS_io_submit, (long)context, count - sent, (long)(calls + sent), 0, 0, 0);
        if (r == -EINTR)
            continue;
        if (unlikely(r <= 0)) { /* a filter, or somebody destroyed the context */
            able = IMPOSSIBLE;
            break;
        }
        *failed += take_events((unsigned)r, now, err);
        sent += (unsigned)r;
    }
    return sent;
}

unsigned batch_send(nsec_t now, int *err)
{
    unsigned sent = 0, failed = 0;
    if (count > 1 && able == READY)
        sent = by_messages() ? write_messages() : write_submitted(now, &failed, err);
    failed += write_each(sent, now, err);
    count = 0;
    return failed;
}
