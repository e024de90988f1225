/*
 * The beginning: the constructor, which costs next to nothing, and the start of the engine at the
 * first TCP socket. Nothing is printed before a program uses TCP.
 */
#define _GNU_SOURCE
#include "shim/life/init.h"

#include <errno.h>
#include <pthread.h>
#include <unistd.h>

#include "shim/core/config.h"
#include "shim/core/fdtable.h"
#include "shim/core/layout.h"
#include "shim/core/raw.h"
#include "shim/core/shared.h"
#include "shim/libc/real.h"
#include "shim/libc/streams.h"
#include "shim/life/arena_map.h"
#include "shim/life/births.h"
#include "shim/life/environment.h"
#include "shim/life/handover.h"
#include "shim/life/keeper.h"
#include "shim/life/kin.h"
#include "shim/life/leader.h"
#include "shim/life/own_address.h"
#include "shim/link/aside.h"
#include "shim/link/batch.h"
#include "shim/link/ingress.h"
#include "shim/link/link.h"
#include "shim/link/standing.h"
#include "shim/wait/wait.h"
#include "shim/watch/crash.h"
#include "shim/watch/trace.h"

#define START_TEXT_MAX 400

/* Held while the engine starts, and across fork; the engine's own lock comes after it. */
static pthread_mutex_t start_lock = PTHREAD_MUTEX_INITIALIZER;
static char start_text[START_TEXT_MAX]; /* why the start failed and the cure */
static bool start_tried, start_told;

static void before_fork(void)
{
    pthread_mutex_lock(&start_lock);
    kin_before_fork();
    fds_before_fork();
}

static void after_fork_parent(void)
{
    fds_after_fork_parent();
    pthread_mutex_unlock(&start_lock);
}

static void after_fork_child(void)
{
    fds_after_fork_child();
    wait_after_fork_child();
    standing_after_fork_child();
    batch_after_fork_child();
    aside_after_fork_child();
    kin_after_fork_child();
    pthread_mutex_unlock(&start_lock);
}

void shim_init(void)
{
    static bool done;
    if (__atomic_exchange_n(&done, true, __ATOMIC_ACQ_REL))
        return;
    real_bind();
    const char *handed = environment_take(environ, HANDOVER_VARIABLE);
    config_read(environ);
    if (config.off)
        return;
    environment_keep(environ);
    pthread_atfork(before_fork, after_fork_parent, after_fork_child);
    trace_open();
    crash_watch();
    if (unlikely(handed != NULL))
        start_tried = handover_adopt(handed);
    if (engine_running())
        streams_replace_standard();
}

__attribute__((constructor)) static void construct(void)
{
    int saved = errno;
    shim_init();
    leader_know();
    errno = saved;
}

static nsec_t monotonic(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (nsec_t)ts.tv_sec * NSEC_PER_SEC + (nsec_t)ts.tv_nsec;
}

static void drop_arena(void *base, int file)
{
    arena_unmap(base, config.mem);
    if (file >= 0)
        raw_close(file);
}

/* text: zeroed, to be filled but for its last byte. */
static void read_sysctl(const char *path, char *text, size_t size)
{
    const int fd = raw_open(path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return;
    (void)!raw_read(fd, text, size - 1);
    raw_close(fd);
}

/* A sysctl of net.ipv4 that is a small number. */
static int small_sysctl(const char *path, int otherwise)
{
    char text[8] = "";
    int value;
    read_sysctl(path, text, sizeof(text));
    return sscanf(text, "%d", &value) == 1 ? value : otherwise;
}

/* The key of the kernel's cookies, if it has been set and may be read: a host has one. */
static void fastopen_key(uint8_t key[TCP_FASTOPEN_KEY_LEN])
{
    char text[64] = "";
    read_sysctl("/proc/sys/net/ipv4/tcp_fastopen_key", text, sizeof(text));
    if (!config_fastopen_key(text, key))
        memset(key, 0, TCP_FASTOPEN_KEY_LEN);
}

/* As the kernel's tcp_ecn says, where TCPSHIM_ECN does not: enum stack_ecn's numbers are Linux's.
 */
static uint8_t ecn_mode(void)
{
    if (config.ecn != ECN_AS_KERNEL)
        return config.ecn;
    const int mode = small_sysctl("/proc/sys/net/ipv4/tcp_ecn", STACK_ECN_ACCEPT);
    return mode >= 0 && mode <= STACK_ECN_MAX ? (uint8_t)mode : STACK_ECN_ACCEPT;
}

/* The kernel's default is not to look for black holes; but that costs nothing until there is one.
 */
static uint8_t mtu_probing_mode(void)
{
    return small_sysctl("/proc/sys/net/ipv4/tcp_mtu_probing", 0) == STACK_MTU_PROBING_ALWAYS
               ? STACK_MTU_PROBING_ALWAYS
               : STACK_MTU_PROBING_BLACK_HOLE;
}

/* An arena with a stack in it. */
static int make_stack(void **base, int *file, struct stack **st)
{
    struct stack_config sc = {
        .own_address = config.own_address,
        .loopback = config.loopback_user || config.own_address,
        .cc = config.cc,
        .ecn = ecn_mode(),
        .tuning = {.mtu_probing = mtu_probing_mode(),
                   .ecn_option =
                       ecn_option_of(small_sysctl("/proc/sys/net/ipv4/tcp_ecn_option", 2)),
                   .ecn_beacon =
                       ecn_beacon_of(small_sysctl("/proc/sys/net/ipv4/tcp_ecn_option_beacon", 3))},
        .fastopen = (uint16_t)small_sysctl("/proc/sys/net/ipv4/tcp_fastopen", 1)};
    fastopen_key(sc.fastopen_key);
    int err = arena_map(config.mem, base, file);
    if (err < 0) {
        snprintf(start_text, sizeof(start_text),
                 "TCPSHIM_MEM: %llu MB of address space cannot be mapped (%s); give less, or raise "
                 "ulimit -v",
                 (unsigned long long)(config.mem >> 20), strerror(-err));
        return err;
    }
    if (raw_getrandom(sc.seed, sizeof(sc.seed)) != sizeof(sc.seed))
        memcpy(sc.seed, &(nsec_t){monotonic()},
               sizeof(nsec_t)); /* before the kernel's pool is up */
    standing_port_range(&sc.port_min, &sc.port_max);
    /* the probe of an own address begins in the past (own_address.c) */
    *st = stack_init(*base, config.mem, shared_size(), &sc, monotonic() - 2 * NSEC_PER_SEC);
    if (*st) {
        arena_set_tag(stack_arena(*st), layout_tag());
        return 0;
    }
    snprintf(start_text, sizeof(start_text), "TCPSHIM_MEM: %llu MB is too little; give 16M or more",
             (unsigned long long)(config.mem >> 20));
    drop_arena(*base, *file);
    return -ENOMEM;
}

/* The link, and the own address where there is one. */
static int make_link(struct stack *st, struct link **l)
{
    const char *cure = "the packet socket cannot be opened";
    int err = config.own_address ? own_address_lock(&config, start_text, sizeof(start_text)) : 0;
    if (err < 0)
        return err;
    err = link_af_packet_open(st, &config, l, &cure);
    if (err < 0) {
        snprintf(start_text, sizeof(start_text), "%s (%s)", cure, strerror(-err));
        own_address_unlock();
        return err;
    }
    link_wrap(st, &config, -1, l);
    if (config.own_address)
        err = own_address_probe(&config, st, *l, start_text, sizeof(start_text));
    if (err < 0) {
        fd_release_internal((*l)->fd);
        fd_release_internal(link_capture_fd());
        own_address_unlock();
    }
    return err;
}

static int start(void)
{
    struct stack *st;
    struct link *l;
    void *base;
    int file;
    if (config.error[0]) {
        snprintf(start_text, sizeof(start_text), "%s", config.error);
        return -EINVAL;
    }
    int err = fd_table_init();
    if (err < 0) {
        snprintf(start_text, sizeof(start_text), "no memory for the table of descriptors");
        return err;
    }
    err = make_stack(&base, &file, &st);
    if (err < 0)
        return err;
    shared_init(st);
    err = make_link(st, &l);
    if (err < 0) {
        drop_arena(base, file);
        return err;
    }
    if (!config.own_address)
        ingress_prepare(st, (uint8_t *)base + config.mem);
    births_prepare();
    keeper_prepare(file);
    engine.sh = stack_extra(st);
    engine_use_link(l);
    __atomic_store_n(&engine.st, st, __ATOMIC_RELEASE);
    handover_publish();
    engine_attach();
    return 0;
}

/* Once, at the first use of TCP. */
static void tell(void)
{
    if (start_told)
        return;
    start_told = true;
    if (config.warning[0])
        config_complain("%s", config.warning);
    if (engine.start_error)
        config_complain("%s%s", start_text,
                        config.fallback_kernel ? "; TCP uses the kernel (TCPSHIM_FALLBACK)" : "");
}

/* quietly: the process gives up privileges; what it has then is not for its relatives. */
static void start_among_kin(bool quietly)
{
    if (quietly)
        kin_part();
    if (!kin_begin())
        engine.start_error = -start();
    kin_end(engine_running());
}

static int start_once(bool quietly)
{
    const uint64_t all = UINT64_MAX;
    uint64_t before;
    int saved = errno;
    shim_init();
    /* a handler that makes a socket meanwhile would wait for its own thread */
    raw_sigprocmask(SIG_SETMASK, &all, &before);
    pthread_mutex_lock(&start_lock);
    if (!start_tried) {
        start_tried = true;
        start_among_kin(quietly);
    }
    if (!quietly)
        tell();
    int err = -engine.start_error;
    pthread_mutex_unlock(&start_lock);
    raw_sigprocmask(SIG_SETMASK, &before, NULL);
    errno = saved;
    return err;
}

bool engine_join(int pid)
{
    const uint64_t all = UINT64_MAX;
    uint64_t before;
    shim_init();
    if (config.off || config.error[0])
        return false;
    raw_sigprocmask(SIG_SETMASK, &all, &before);
    pthread_mutex_lock(&start_lock);
    if (!start_tried)
        start_tried = handover_join(pid, 0);
    pthread_mutex_unlock(&start_lock);
    raw_sigprocmask(SIG_SETMASK, &before, NULL);
    return engine_running();
}

int engine_start(void)
{
    if (likely(engine_running() && __atomic_load_n(&start_told, __ATOMIC_RELAXED)))
        return 0;
    return start_once(false);
}

int engine_start_quietly(void)
{
    return engine_running() ? 0 : start_once(true);
}
