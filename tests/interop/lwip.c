/*
 * lwIP (Debian's liblwip) as one end of a transfer, in the laboratory: an Ethernet interface of its
 * own over a packet socket, with a MAC and an address that the kernel does not have.
 *
 *     lwip INTERFACE ADDRESS/24 MTU PORT FILE
 *
 * As tests/interop/peer.py: whoever connects to PORT sends what is in FILE and gets it back from
 * the end to the beginning. And for each line `ADDRESS PORT` of stdin it connects, sends FILE,
 * reads the answer, and prints `ok` or what was wrong.
 */
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <lwip/api.h>
#include <lwip/etharp.h>
#include <lwip/netif.h>
#include <lwip/tcpip.h>

#define FRAME_MAX 2048
#define FILE_MAX  (1 << 20)
/* lwIP takes all of a write or nothing, and no more segments than TCP_SND_QUEUELEN says */
#define WRITE_MAX   4096
#define PATIENCE_MS 20000

static uint8_t there[FILE_MAX], back[FILE_MAX];
static size_t length;

_Noreturn static void die(const char *what)
{
    perror(what);
    exit(1);
}

/* ---- the interface ---- */

static err_t on_output(struct netif *nif, struct pbuf *p)
{
    uint8_t frame[FRAME_MAX];
    const uint16_t len = pbuf_copy_partial(p, frame, sizeof(frame), 0);
    const int *fd = nif->state;
    return write(*fd, frame, len) == len ? ERR_OK : ERR_IF;
}

static err_t on_init(struct netif *nif)
{
    static const uint8_t mac[6] = {2, 0, 0, 0, 0x77, 4};
    memcpy(nif->hwaddr, mac, sizeof(mac));
    nif->hwaddr_len = sizeof(mac);
    nif->output = etharp_output;
    nif->linkoutput = on_output;
    nif->flags = NETIF_FLAG_BROADCAST | NETIF_FLAG_ETHARP | NETIF_FLAG_ETHERNET;
    return ERR_OK;
}

static void receive(void *arg)
{
    struct netif *nif = arg;
    const int *fd = nif->state;
    uint8_t frame[FRAME_MAX];
    for (;;) {
        const ssize_t n = read(*fd, frame, sizeof(frame));
        if (n <= 0 || n == sizeof(frame))
            continue;
        struct pbuf *p = pbuf_alloc(PBUF_RAW, (uint16_t)n, PBUF_RAM);
        if (p == NULL)
            continue;
        pbuf_take(p, frame, (uint16_t)n);
        if (nif->input(p, nif) != ERR_OK)
            pbuf_free(p);
    }
}

static int packet_socket(const char *interface)
{
    const int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    const int ignore = 1, room = 1 << 20;
    struct sockaddr_ll at = {.sll_family = AF_PACKET,
                             .sll_protocol = htons(ETH_P_ALL),
                             .sll_ifindex = (int)if_nametoindex(interface)};
    setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &ignore, sizeof(ignore));
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0)
        die(interface);
    return fd;
}

/* address: `A.B.C.D/24`. */
static void start(const char *interface, char *address, uint16_t mtu)
{
    static struct netif nif;
    static int fd;
    ip4_addr_t addr, mask, none = {0};
    *strchr(address, '/') = 0;
    ip4addr_aton(address, &addr);
    IP4_ADDR(&mask, 255, 255, 255, 0);
    fd = packet_socket(interface);
    tcpip_init(NULL, NULL);
    LOCK_TCPIP_CORE();
    if (netif_add(&nif, &addr, &mask, &none, &fd, on_init, tcpip_input) == NULL)
        die("netif_add");
    nif.mtu = mtu;
    netif_set_default(&nif);
    netif_set_up(&nif);
    netif_set_link_up(&nif);
    UNLOCK_TCPIP_CORE();
    sys_thread_new("receive", receive, &nif, 0, 0);
}

/* ---- transfers ---- */

/* lwip_strerr() is empty in Debian's build. */
static const char *failed(err_t r)
{
    static const char *const names[] = {
        "no error",  "no memory",   "no buffer", "timed out", "no route",  "in progress",
        "bad value", "would block", "in use",    "already",   "connected", "not connected",
        "interface", "aborted",     "reset",     "closed",    "argument"};
    return r <= 0 && (size_t)-r < sizeof(names) / sizeof(names[0]) ? names[-r] : "?";
}

/* Reads to the end of the stream; NULL: it is what was expected. */
static const char *read_all(struct netconn *c, const uint8_t *expected)
{
    size_t got = 0;
    struct pbuf *p;
    err_t r;
    while ((r = netconn_recv_tcp_pbuf(c, &p)) == ERR_OK) {
        bool equal = got + p->tot_len <= length;
        for (const struct pbuf *q = p; q != NULL && equal; q = q->next) {
            equal = memcmp(q->payload, expected + got, q->len) == 0;
            got += q->len;
        }
        pbuf_free(p);
        if (!equal)
            return "the bytes differ";
    }
    return r != ERR_CLSD ? failed(r) : got < length ? "the stream ended too soon" : NULL;
}

/* NULL: all was taken. */
static const char *write_all(struct netconn *c, const uint8_t *bytes)
{
    err_t r = ERR_OK;
    size_t taken; /* with a time-out part of it may be */
    for (size_t at = 0; r == ERR_OK && at < length; at += taken)
        r = netconn_write_partly(c, bytes + at, length - at < WRITE_MAX ? length - at : WRITE_MAX,
                                 NETCONN_COPY, &taken);
    if (r == ERR_OK)
        r = netconn_shutdown(c, 0, 1);
    return r == ERR_OK ? NULL : failed(r);
}

static void be_patient(struct netconn *c)
{
    netconn_set_recvtimeout(c, PATIENCE_MS);
    netconn_set_sendtimeout(c, PATIENCE_MS);
}

static struct netconn *listen_on(uint16_t port)
{
    struct netconn *listener = netconn_new(NETCONN_TCP);
    if (listener == NULL || netconn_bind(listener, NULL, port) != ERR_OK ||
        netconn_listen(listener) != ERR_OK)
        die("netconn_listen");
    return listener;
}

static void serve(void *arg)
{
    struct netconn *c, *listener = arg;
    for (;;) {
        if (netconn_accept(listener, &c) != ERR_OK)
            continue;
        be_patient(c);
        if (read_all(c, there) == NULL)
            write_all(c, back); /* the client misses it otherwise */
        netconn_close(c);
        netconn_delete(c);
    }
}

static const char *transfer(const char *address, uint16_t port)
{
    ip_addr_t to;
    struct netconn *c = netconn_new(NETCONN_TCP);
    if (c == NULL || !ipaddr_aton(address, &to))
        return "cannot begin";
    be_patient(c);
    const err_t r = netconn_connect(c, &to, port);
    const char *wrong = r == ERR_OK ? write_all(c, there) : failed(r);
    if (wrong == NULL)
        wrong = read_all(c, back);
    netconn_close(c);
    netconn_delete(c);
    return wrong == NULL ? "ok" : wrong;
}

static void load(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (f == NULL)
        die(path);
    length = fread(there, 1, sizeof(there), f);
    fclose(f);
    for (size_t i = 0; i < length; i++)
        back[i] = there[length - 1 - i];
}

int main(int argc, char **argv)
{
    if (argc != 6 || strchr(argv[2], '/') == NULL) {
        fprintf(stderr, "usage: lwip INTERFACE ADDRESS/24 MTU PORT FILE\n");
        return 2;
    }
    char line[128], address[64];
    unsigned to;
    load(argv[5]);
    start(argv[1], argv[2], (uint16_t)strtoul(argv[3], NULL, 10));
    sys_thread_new("serve", serve, listen_on((uint16_t)strtoul(argv[4], NULL, 10)), 0, 0);
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof(line), stdin) != NULL) {
        if (sscanf(line, "%63s %u", address, &to) != 2)
            break;
        puts(transfer(address, (uint16_t)to));
        fflush(stdout);
    }
    return 0;
}
