/*
 * TCPSHIM_PCAP: what the stack sends and receives, as a pcap file with nanoseconds, link type
 * Ethernet (draft-ietf-opsawg-pcap), for Wireshark, tshark, tcpdump and all else that libpcap
 * serves.
 *
 * The wrapper is the one nearest to the stack, above TCPSHIM_IMPAIR: what the impairment drops on
 * the way out is in the file, what it drops on the way in is not, and damage shows as the stack
 * sees it. So each `tx` and `rx` of the trace is one packet, with the time of the trace. What
 * passes inside the stack (TCPSHIM_LOOPBACK=user) is there once, when it arrives.
 *
 * Frames stay as large as they passed the link (up to 64 KB, as in a capture on any host whose card
 * cuts for it), with their lengths; checksums that the card or the kernel would complete are
 * completed here. What arrived with a wrong checksum is shown with it.
 *
 * One file for a family of processes, whoever of them moves a frame: a connection may pass through
 * several. %p is the pid of the first. It is opened with O_APPEND, each packet is one writev()
 * under the engine's lock: none is lost or doubled by fork, and what another family or an earlier
 * run wrote to the same name stays. Where the disk is full, packets are missing, whole ones, and
 * one line says so; the file is readable at any time. A FIFO works, too (wireshark -k -i FIFO).
 *
 * Not through libpcap. Its pcap_dump() is stdio: it allocates, locks, and what lies in its buffer
 * doubles at fork; here packets are written under the engine's lock, in children, behind chroot and
 * seccomp, and after the last process is gone by the keeper, which is linked statically. The
 * library would be loaded (with libdbus, libsystemd and libgcrypt behind it) for the 24 bytes of
 * the file's header. That libpcap reads what is written here is for the tests to show.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>

#include "shim/core/clock.h"
#include "shim/core/fdtable.h"
#include "shim/core/raw.h"
#include "shim/core/shared.h"
#include "shim/link/link.h"
#include "shim/link/segment.h"
#include "stack/util/checksum.h"

#define PCAP_MAGIC_NSEC   0xa1b23c4du
#define PCAP_SNAPLEN      262144u
#define LINKTYPE_ETHERNET 1u
#define ETH_HEADER_BYTES  14u
/* Headers of Ethernet, IP and TCP at their largest. */
#define HEADERS_MAX (ETH_HEADER_BYTES + 60 + 60)
/* How long a full pipe may hold the engine up before the rest of a packet is given up. */
#define PIPE_PATIENCE_SEC 1

struct pcap_file_header {
    uint32_t magic;
    uint16_t major, minor;
    uint32_t zone, accuracy, snaplen, linktype;
};

struct pcap_record_header {
    uint32_t sec, nsec, captured, length;
};

static const struct pcap_file_header file_header = {.magic = PCAP_MAGIC_NSEC,
                                                    .major = 2,
                                                    .minor = 4,
                                                    .snaplen = PCAP_SNAPLEN,
                                                    .linktype = LINKTYPE_ETHERNET};

static struct capture {
    struct link link;
    int fd;
    bool regular;   /* a file on a disk, not a pipe or a device */
    uint64_t limit; /* RLIMIT_FSIZE, which would end the process; UINT64_MAX: none */
    int64_t offset; /* from CLOCK_MONOTONIC to the time of day */
} capture = {.fd = -1};

static void complain(int err)
{
    struct shared *sh = engine.sh;
    if (!sh || __atomic_exchange_n(&sh->capture_said, true, __ATOMIC_RELAXED))
        return;
    config_complain("TCPSHIM_PCAP=%s: cannot be written (%s); packets are missing from it",
                    config.pcap, strerrorname_np(err));
}

/* ---- writing ---- */

/* Takes back what there was room for of a packet, so that the file ends with a whole one. */
static void take_back(size_t written)
{
    const long end = raw_syscall(SYS_lseek, capture.fd, 0, SEEK_CUR, 0, 0, 0);
    if (end >= (long)written)
        raw_syscall(SYS_ftruncate, capture.fd, end - (long)written, 0, 0, 0, 0);
}

/* The rest of a packet must follow, or the reader of the pipe loses its place. */
static bool finish_pipe(struct iovec *iov, unsigned n, size_t done)
{
    for (unsigned i = 0; i < n; done -= min_u64(done, iov[i].iov_len), i++) {
        for (size_t at = min_u64(done, iov[i].iov_len); at < iov[i].iov_len;) {
            const ssize_t w =
                raw_write(capture.fd, (char *)iov[i].iov_base + at, iov[i].iov_len - at);
            struct pollfd p = {.fd = capture.fd, .events = POLLOUT};
            struct timespec patience = {.tv_sec = PIPE_PATIENCE_SEC};
            if (w > 0)
                at += (size_t)w;
            else if (w != -EINTR && (w != -EAGAIN || raw_ppoll(&p, 1, &patience) == 0))
                return false;
        }
    }
    return true;
}

static bool beyond_limit(size_t len)
{
    if (likely(capture.limit == UINT64_MAX))
        return false;
    const long size = raw_syscall(SYS_lseek, capture.fd, 0, SEEK_END, 0, 0, 0);
    return size >= 0 && (uint64_t)size + len > capture.limit;
}

static void write_packet(struct iovec *iov, unsigned n, size_t len)
{
    ssize_t w;
    if (beyond_limit(len)) {
        complain(EFBIG);
        return;
    }
    do
        w = raw_syscall(SYS_writev, capture.fd, (long)iov, n, 0, 0, 0);
    while (w == -EINTR);
    if (likely(w == (ssize_t)len))
        return;
    if (w > 0 && capture.regular) {
        take_back((size_t)w);
        w = -ENOSPC;
    } else if (w > 0) {
        if (finish_pipe(iov, n, (size_t)w))
            return;
        w = -EPIPE;
    }
    complain(w < 0 ? (int)-w : EIO);
    if (w == -EPIPE || w == -EBADF)
        capture.fd = -1;
}

/* iov[0] and iov[1] are left free for the headers. */
static void packet(const struct stack_cx *cx, bool ethernet, struct iovec *iov, unsigned n,
                   size_t bytes)
{
    /* an IP packet of an interface without Ethernet: locally administered addresses */
    static const uint8_t no_ethernet[ETH_HEADER_BYTES] = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0};
    const size_t len = bytes + (ethernet ? 0 : ETH_HEADER_BYTES);
    const nsec_t at = cx->now + (nsec_t)capture.offset;
    struct pcap_record_header h = {.sec = (uint32_t)(at / NSEC_PER_SEC),
                                   .nsec = (uint32_t)(at % NSEC_PER_SEC),
                                   .captured = (uint32_t)len,
                                   .length = (uint32_t)len};
    iov[0] = (struct iovec){&h, sizeof(h)};
    iov[1] = (struct iovec){(void *)(uintptr_t)no_ethernet, ethernet ? 0 : ETH_HEADER_BYTES};
    write_packet(iov, n, sizeof(h) + len);
    iov[0] = (struct iovec){0}; /* the header ends here */
}

static bool is_ethernet(const struct stack_cx *cx, uint8_t netif)
{
    const struct netif *nif = stack_netif(cx->st, netif);
    return !nif || nif->kind == NETIF_ETHERNET;
}

/* ---- the link ---- */

/* The TCP checksum that lies in head, over the whole of the segment's slices. */
static void complete_checksum(uint8_t *head, const struct segment *s, const struct iovec *text,
                              unsigned n)
{
    uint8_t *field = head + s->l4 + 16;
    const uint32_t header = s->text - s->l4;
    memset(field, 0, 2);
    uint64_t sum = csum_pseudo(&s->src, &s->dst, IPPROTO_TCP, header + s->len);
    sum = csum_add(sum, head + s->l4, header, false);
    bool odd = false; /* a TCP header is a multiple of four */
    size_t left = s->len;
    for (unsigned i = 0; i < n && left > 0; i++) {
        const size_t len = min_u64(text[i].iov_len, left);
        sum = csum_add(sum, text[i].iov_base, len, odd);
        odd ^= (len & 1) != 0;
        left -= len;
    }
    const uint16_t check = (uint16_t)~csum_fold(sum);
    memcpy(field, &check, sizeof(check));
}

static void record_out(struct stack_cx *cx, const struct frame_out *f)
{
    const bool ethernet = is_ethernet(cx, f->netif);
    uint8_t head[sizeof(f->head)];
    struct iovec iov[3 + FRAME_SLICES_MAX];
    struct segment s;
    const uint32_t len = (uint32_t)(f->head_end - f->head_start);
    memcpy(head, f->head + f->head_start, len);
    iov[2] = (struct iovec){head, len};
    for (unsigned i = 0; i < f->nslices; i++)
        iov[3 + i] = (struct iovec){f->slices[i].base, f->slices[i].len};
    if (f->csum_partial &&
        segment_parse(head, len, len + f->payload_len, ethernet ? ETH_HEADER_BYTES : 0, &s))
        complete_checksum(head, &s, iov + 3, f->nslices);
    packet(cx, ethernet, iov, 3 + f->nslices, len + f->payload_len);
}

static void record_in(struct stack_cx *cx, const struct frame_in *f)
{
    const bool ethernet = is_ethernet(cx, f->netif);
    uint8_t head[HEADERS_MAX];
    struct iovec iov[4];
    struct segment s;
    uint32_t len = 0;
    if (f->csum_trusted &&
        segment_parse(f->data, f->len, f->len, ethernet ? ETH_HEADER_BYTES : 0, &s)) {
        len = s.text;
        memcpy(head, f->data, len);
        const struct iovec text = {(void *)(uintptr_t)(f->data + len), s.len};
        complete_checksum(head, &s, &text, 1);
    }
    iov[2] = (struct iovec){head, len};
    iov[3] = (struct iovec){(void *)(uintptr_t)(f->data + len), f->len - len};
    packet(cx, ethernet, iov, 4, f->len);
}

static int capture_transmit(struct link *l, struct stack_cx *cx, const struct frame_out *f)
{
    const int err = l->lower->ops->transmit(l->lower, cx, f);
    if (err >= 0 && capture.fd >= 0)
        record_out(cx, f);
    return err;
}

static void capture_input(struct link *l, struct stack_cx *cx, const struct frame_in *f)
{
    if (capture.fd >= 0)
        record_in(cx, f);
    link_input(l, cx, f);
}

static void capture_looped(struct link *l, struct stack_cx *cx, const struct frame_in *packet)
{
    (void)l;
    if (capture.fd >= 0)
        record_in(cx, packet);
}

static unsigned capture_receive(struct link *l, struct stack_cx *cx, unsigned max,
                                const struct drain *d)
{
    return l->lower->ops->receive(l->lower, cx, max, d);
}

static nsec_t capture_deadline(const struct link *l)
{
    return link_deadline(l->lower);
}

static void capture_release(struct link *l, struct stack_cx *cx)
{
    link_release(l->lower, cx);
}

static const struct link_ops capture_ops = {
    .name = "capture",
    .transmit = capture_transmit,
    .receive = capture_receive,
    .input = capture_input,
    .looped = capture_looped,
    .deadline = capture_deadline,
    .release = capture_release,
};

/* ---- opening ---- */

/* The file's name, with the family's first pid for each %p. */
static void expand_name(const struct config *cfg, int pid, char *out, size_t len)
{
    size_t n = 0;
    for (const char *p = cfg->pcap; *p && n + 12 < len; p++) {
        if (p[0] == '%' && p[1] == 'p') {
            n += (size_t)snprintf(out + n, len - n, "%d", pid);
            p++;
        } else {
            out[n++] = *p;
        }
    }
    out[n] = '\0';
}

/* Begins the file, or looks whether it may be continued. Others may open it at this moment. */
static int begin_file(int fd)
{
    struct pcap_file_header found;
    int err = 0;
    raw_syscall(SYS_flock, fd, LOCK_EX, 0, 0, 0, 0);
    const long size = raw_syscall(SYS_lseek, fd, 0, SEEK_END, 0, 0, 0);
    if (size == 0) {
        const ssize_t w = raw_write(fd, &file_header, sizeof(file_header));
        if (w >= 0 && w < (ssize_t)sizeof(file_header)) {
            raw_syscall(SYS_ftruncate, fd, 0, 0, 0, 0, 0);
            err = -ENOSPC;
        } else if (w < 0) {
            err = (int)w;
        }
    } else if (raw_syscall(SYS_pread64, fd, (long)&found, sizeof(found), 0, 0, 0) !=
                   (long)sizeof(found) ||
               memcmp(&found, &file_header, sizeof(found)) != 0) {
        err = -EEXIST;
    }
    raw_syscall(SYS_flock, fd, LOCK_UN, 0, 0, 0, 0);
    return err;
}

static bool is_regular(int fd)
{
    struct stat st;
    return raw_syscall(SYS_fstat, fd, (long)&st, 0, 0, 0, 0) == 0 && S_ISREG(st.st_mode);
}

/* Returns the descriptor, or -1 after a line on stderr. */
static int open_file(const struct config *cfg, int pid)
{
    char name[512];
    expand_name(cfg, pid, name, sizeof(name));
    /* for writing and reading: a pipe without reader neither blocks nor sends SIGPIPE */
    int fd = raw_open(name, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0644);
    int err = fd < 0 ? fd : 0;
    if (fd >= 0 && is_regular(fd)) {
        err = begin_file(fd);
    } else if (fd >= 0) {
        const ssize_t w = raw_write(fd, &file_header, sizeof(file_header));
        err = w < 0 ? (int)w : 0;
    }
    if (err == 0)
        return fd_make_internal(fd);
    if (fd >= 0)
        raw_close(fd);
    if (err == -EEXIST)
        config_complain("TCPSHIM_PCAP=%s: there is a file that is no capture of tcpshim; name "
                        "another or remove it",
                        name);
    else
        config_complain("TCPSHIM_PCAP=%s: cannot be opened (%s); name a file that can be written",
                        name, strerrorname_np(-err));
    return -1;
}

static uint64_t file_limit(void)
{
    struct rlimit limit = {.rlim_cur = RLIM_INFINITY};
    raw_syscall(SYS_prlimit64, 0, RLIMIT_FSIZE, 0, (long)&limit, 0, 0);
    return limit.rlim_cur == RLIM_INFINITY ? UINT64_MAX : limit.rlim_cur;
}

struct link *link_capture(struct stack *st, const struct config *cfg, int fd, struct link *lower)
{
    struct shared *sh = stack_extra(st);
    if (!cfg->pcap[0]) {
        fd_release_internal(fd); /* the image before this one had a capture */
        return NULL;
    }
    if (fd < 0) {
        if (sh->capture_pid == 0) {
            sh->capture_pid = raw_getpid();
            sh->capture_offset = clock_to_calendar();
        }
        fd = open_file(cfg, sh->capture_pid);
    }
    if (fd < 0 || raw_fcntl(fd, F_GETFD, 0) < 0)
        return NULL;
    capture = (struct capture){.link = {.ops = &capture_ops, .fd = lower->fd, .lower = lower},
                               .fd = fd,
                               .regular = is_regular(fd),
                               .limit = file_limit(),
                               .offset = sh->capture_offset};
    lower->upper = &capture.link;
    return &capture.link;
}

int link_capture_fd(void)
{
    return capture.fd;
}
