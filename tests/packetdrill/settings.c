/*
 * Settings. packetdrill's scripts set Linux's sysctls by shell commands. They run in a network
 * namespace of their own, so that the kernel keeps, checks and resets them; here they are read, as
 * far as the engine has such a choice.
 */
#include "tests/packetdrill/world.h"

#include <stdio.h>
#include <stdlib.h>

#include "shim/core/config.h"
#include "stack/internal.h"
#include "stack/util/siphash.h"
#include "tests/packetdrill/link.h"

static uint8_t syn_retries;
static uint32_t rto_max;
static long flushes; /* of the metrics, so far */

static bool read_text(const char *dir, const char *name, char *out, int size)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return false;
    const bool ok = fgets(out, size, f) != NULL;
    fclose(f);
    return ok;
}

static long read_number(const char *dir, const char *name, long otherwise)
{
    char text[64];
    return read_text(dir, name, text, sizeof(text)) ? strtol(text, NULL, 0) : otherwise;
}

static bool is_zero(const char *dir, const char *name)
{
    return read_number(dir, name, 1) == 0;
}

/* Least, usual and most bytes of a buffer. */
static void read_buffer(const char *dir, const char *name, uint32_t *usual, uint32_t *most)
{
    char text[96];
    unsigned least;
    if (!read_text(dir, name, text, sizeof(text)) ||
        sscanf(text, "%u %u %u", &least, usual, most) != 3)
        *usual = *most = 0;
}

/* Straight into the secret: scripts also set the key of all zeros, which is none elsewhere. */
static void take_fastopen_key(const char *text, struct stack *st)
{
    uint8_t key[TCP_FASTOPEN_KEY_LEN];
    if (config_fastopen_key(text, key))
        st->tcp.fastopen_secret = siphash_key_of(key);
}

void settings_apply(const char *dir, struct stack *st)
{
    struct stack_config *c = &st->config;
    struct stack_tuning *t = &c->tuning;
    char text[64];
    if (read_text(dir, "tcp_congestion_control", text, sizeof(text))) {
        const int id = cc_by_name(text, strcspn(text, "\n"));
        if (id >= 0)
            c->cc = (uint8_t)id;
    }
    c->ecn = (uint8_t)read_number(dir, "tcp_ecn", STACK_ECN_ACCEPT);
    t->no_ecn_fallback = is_zero(dir, "tcp_ecn_fallback");
    t->ecn_option = ecn_option_of(read_number(dir, "tcp_ecn_option", 2));
    t->ecn_beacon = ecn_beacon_of(read_number(dir, "tcp_ecn_option_beacon", 3));
    c->fastopen = (uint16_t)read_number(dir, "tcp_fastopen", STACK_FASTOPEN_CLIENT);
    if (read_text(dir, "tcp_fastopen_key", text, sizeof(text)))
        take_fastopen_key(text, st);
    if (read_number(dir, "tcp_metrics_flush", 0) != flushes) {
        flushes = read_number(dir, "tcp_metrics_flush", 0);
        memset(st->tcp.fastopen, 0, sizeof(st->tcp.fastopen));
    }
    t->no_sack = is_zero(dir, "tcp_sack");
    t->no_timestamps = is_zero(dir, "tcp_timestamps");
    t->no_wscale = is_zero(dir, "tcp_window_scaling");
    t->no_idle_restart = is_zero(dir, "tcp_slow_start_after_idle");
    t->mtu_probing = (uint8_t)read_number(dir, "tcp_mtu_probing", STACK_MTU_PROBING_OFF);
    t->no_probes = is_zero(dir, "tcp_early_retrans");
    t->no_ack_interval = is_zero(dir, "tcp_invalid_ratelimit");
    read_buffer(dir, "tcp_wmem", &t->sndbuf, &t->sndbuf_max);
    read_buffer(dir, "tcp_rmem", &t->rcvbuf, &t->rcvbuf_max);
    /* Linux's buffer grows with the handshake (tcp_init_buffer_space()) */
    t->sndbuf = max_u32(t->sndbuf, TCP_SNDBUF_DEFAULT);
    t->min_frame_segs = (uint8_t)read_number(dir, "tcp_min_tso_segs", 0);
    struct netif *tun = stack_netif(st, link_netif());
    tun->gso = read_number(dir, "tun_gso", 1) != 0;
    tun->mtu = (uint32_t)read_number(dir, "tun_mtu", tun->mtu);
    syn_retries = (uint8_t)read_number(dir, "tcp_syn_retries", 0);
    rto_max = (uint32_t)read_number(dir, "tcp_rto_max_ms", 0);
}

void settings_show_counters(const char *dir, const struct stack *st)
{
    static uint64_t shown;
    const uint64_t now = stack_counter(st, COUNT_BAD_ICMP);
    if (now == shown)
        return;
    shown = now;
    char path[256];
    snprintf(path, sizeof(path), "%s/nstat", dir);
    FILE *f = fopen(path, "we");
    if (f == NULL)
        return;
    fprintf(f, "TcpExtOutOfWindowIcmps %llu\n", (unsigned long long)now);
    fclose(f);
}

void settings_of_socket(struct tcp_opts *opts)
{
    opts->syncnt = syn_retries;
    opts->rto_max = rto_max;
}
