/*
 * libFuzzer target: raw bytes as frames: two bytes of length and flags, then the frame. Behind the
 * first byte the target may be told to put the addresses and the checksums right.
 */
#include "tests/fuzz/world.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t frame[FRAME_MAX];
    if (size < 1)
        return 0;
    fuzz_start(data[0] & 1, data[0] & 2);
    struct tcp_opts o;
    tcp_opts_init(&o, F.cx.st);
    struct tcp_listen_args args = {.local = {.port = FUZZ_LISTEN}, .backlog = 4, .opts = &o};
    struct tcp_listener *l = NULL;
    tcp_listen(&F.cx, &args, &l);
    size_t at = 1;
    for (unsigned n = 0; at + 2 <= size && n < 200; n++) {
        uint8_t how = data[at];
        size_t len = (size_t)(how & 7) << 8 | data[at + 1];
        at += 2;
        if (len > size - at)
            len = size - at;
        memcpy(frame, data + at, len);
        at += len;
        if (how & 8 && len >= L2_LEN) {
            memcpy(frame, fuzz_host_mac, 6);
            memcpy(frame + 6, fuzz_peer_mac, 6);
            put_be16(frame + 12, how & 16 ? 0x0806 : 0x0800);
        }
        if (how & 32 && len >= L2_LEN + IP4_LEN) {
            put_be32(frame + L2_LEN + 12, FUZZ_PEER_IP);
            put_be32(frame + L2_LEN + 16, FUZZ_HOST_IP);
        }
        if (how & 64)
            wire_fix_csums(frame, len);
        fuzz_input(frame, (uint32_t)len, how & 128, how & 128 ? 1448 : 0);
        fuzz_run(NSEC_PER_MSEC * 50);
    }
    fuzz_end(NULL, 0, l);
    return 0;
}
