/*
 * Plays packetdrill's part for one short script, so that the shared object is tested where there is
 * no packetdrill: a passive open, text both ways, a read() that waits in a second thread, a
 * retransmission at its exact time, and the close.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "stack/base.h"
#include "tests/packetdrill/interface.h"

enum { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16 };
enum { IP = 20, TCP = 20, REMOTE_PORT = 40000, LOCAL_PORT = 8080, REMOTE_ISN = 1000 };

/* packetdrill's usleep() falls short by this much, see init.c. */
#define SPIN 20

static struct packetdrill_interface so;
static uint32_t host_isn;

static void check(int ok, const char *what, int line)
{
    if (ok)
        return;
    printf("smoke.c:%d: not true: %s\n", line, what);
    exit(1);
}
#define CHECK(cond) check(cond, #cond, __LINE__)

static uint32_t sum(uint32_t s, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        s += (i & 1) ? p[i] : (uint32_t)p[i] << 8;
    return s;
}

static uint16_t inverted(uint32_t s)
{
    while (s >> 16)
        s = (s & 0xffff) + (s >> 16);
    return (uint16_t)~s;
}

/* The remote host's segment arrives; seq and ack relative to the ISNs. */
static void inject(unsigned flags, uint32_t seq, uint32_t ack, const char *text)
{
    uint8_t p[200] = {0x45};
    const size_t len = strlen(text), total = IP + TCP + len;
    put_be16(p + 2, (unsigned)total);
    p[8] = 64;
    p[9] = IPPROTO_TCP;
    put_be32(p + 12, 0xc0000201); /* 192.0.2.1 */
    put_be32(p + 16, 0xc0a80001); /* 192.168.0.1 */
    put_be16(p + 10, inverted(sum(0, p, IP)));
    uint8_t *t = p + IP;
    put_be16(t, REMOTE_PORT);
    put_be16(t + 2, LOCAL_PORT);
    put_be32(t + 4, REMOTE_ISN + seq);
    put_be32(t + 8, (flags & ACK) ? host_isn + ack : 0);
    t[12] = TCP / 4 << 4;
    t[13] = (uint8_t)flags;
    put_be16(t + 14, 65535);
    /* NOLINTNEXTLINE(bugprone-not-null-terminated-result): bytes on a wire */
    memcpy(t + TCP, text, len);
    const uint32_t pseudo = sum(IPPROTO_TCP + (uint32_t)(TCP + len), p + 12, 8);
    put_be16(t + 16, inverted(sum(pseudo, t, TCP + len)));
    CHECK(so.netdev_send(so.userdata, p, total) == 0);
}

static long long now(void)
{
    struct timeval tv;
    CHECK(so.gettimeofday(so.userdata, &tv, NULL) == 0);
    return tv.tv_sec * 1000000ll + tv.tv_usec;
}

/* The host's next segment; its text. Returns when it left. */
static long long expect(unsigned flags, uint32_t seq, uint32_t ack, const char *text)
{
    static uint8_t p[65536];
    size_t n = sizeof(p);
    long long at = 0;
    CHECK(so.netdev_receive(so.userdata, p, &n, &at) == 0);
    CHECK(n >= IP + TCP && p[0] == 0x45 && p[9] == IPPROTO_TCP);
    const uint8_t *t = p + IP;
    if (flags & SYN)
        host_isn = get_be32(t + 4);
    CHECK(t[13] == flags);
    CHECK(get_be32(t + 4) - host_isn == seq);
    CHECK(get_be32(t + 8) - REMOTE_ISN == ack);
    const size_t head = IP + (size_t)(t[12] >> 4) * 4;
    CHECK(n - head == strlen(text) && memcmp(p + head, text, n - head) == 0);
    return at;
}

static struct waiting {
    int fd;
    ssize_t got;
    char text[16];
    long long back;
} waiting;

static void *wait_for_text(void *arg)
{
    struct waiting *w = arg;
    w->got = so.read(so.userdata, w->fd, w->text, sizeof(w->text));
    w->back = now();
    return NULL;
}

/* 100 ms after the call something is there: the waiting call returns at that very moment. */
static void blocking_read(int fd)
{
    pthread_t thread;
    waiting.fd = fd;
    const long long begin = now();
    CHECK(pthread_create(&thread, NULL, wait_for_text, &waiting) == 0);
    usleep(20000); /* real time: it sleeps now, or will find the text at once */
    so.usleep(so.userdata, 100000 - SPIN);
    inject(ACK | PSH, 1, 1, "hello");
    pthread_join(thread, NULL);
    CHECK(waiting.got == 5 && memcmp(waiting.text, "hello", 5) == 0);
    CHECK(waiting.back == begin + 100000);
    expect(ACK, 1, 6, "");
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s packetdrill_tcpshim.so\n", argv[0]);
        return 2;
    }
    void *handle = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL) {
        printf("%s\n", dlerror());
        return 1;
    }
    void (*init)(const char *, struct packetdrill_interface *);
    *(void **)&init = dlsym(handle, "packetdrill_interface_init");
    CHECK(init != NULL);
    init("local=192.168.0.1", &so);

    const int listener = so.socket(so.userdata, AF_INET, SOCK_STREAM, 0);
    CHECK(listener >= 0);
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(LOCAL_PORT)};
    sa.sin_addr.s_addr = inet_addr("192.168.0.1");
    CHECK(so.bind(so.userdata, listener, (struct sockaddr *)&sa, sizeof(sa)) == 0);
    CHECK(so.listen(so.userdata, listener, 1) == 0);
    inject(SYN, 0, 0, "");
    expect(SYN | ACK, 0, 1, "");
    so.usleep(so.userdata, 10000 - SPIN);
    inject(ACK, 1, 1, "");
    socklen_t len = sizeof(sa);
    const int fd = so.accept(so.userdata, listener, (struct sockaddr *)&sa, &len);
    CHECK(fd >= 0 && ntohs(sa.sin_port) == REMOTE_PORT);
    blocking_read(fd);

    CHECK(so.write(so.userdata, fd, "world", 5) == 5);
    const long long sent = expect(ACK | PSH, 1, 6, "world");
    const long long again = expect(ACK | PSH, 1, 6, "world"); /* nobody acknowledges it */
    CHECK(again - sent >= 200000 && again - sent < 250000 && again == now());
    inject(ACK, 6, 6, "");
    struct pollfd p = {.fd = fd, .events = POLLIN};
    CHECK(so.poll(so.userdata, &p, 1, 50) == 0 && now() == again + 50000);
    CHECK(so.close(so.userdata, fd) == 0);
    expect(ACK | FIN, 6, 6, "");
    inject(ACK | FIN, 6, 7, "");
    expect(ACK, 7, 7, "");
    CHECK(so.close(so.userdata, listener) == 0);
    inject(ACK, 7, 7, "");
    so.free(so.userdata);
    return 0;
}
