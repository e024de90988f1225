/* One engine for a fuzz target: in-memory link, virtual clock, everything checked after each step.
 */
#pragma once

#include "stack/internal.h"
#include "stack/stack.h"
#include "stack/tcp/tcp.h"
#include "stack/tcp/wire.h"
#include "tests/packet/frame.h"

#define FUZZ_HOST_IP ip4(10, 0, 0, 1)
#define FUZZ_PEER_IP ip4(10, 0, 0, 2)
#define FUZZ_LISTEN  80
#define FUZZ_FLOWS   4

extern const uint8_t fuzz_host_mac[6], fuzz_peer_mac[6];

/* What the peer knows of one connection from what the host sent. */
struct fuzz_flow {
    uint16_t hport, pport;
    uint32_t host_nxt,
        host_una;      /* highest that the host sent; its first unacknowledged as the peer has it */
    uint32_t peer_nxt; /* what the host acknowledged last */
    uint32_t ts;       /* newest TSval of the host */
};

struct fuzz_world {
    struct stack_cx cx;
    uint8_t netif;
    nsec_t now;
    unsigned nflows;
    struct fuzz_flow flows[FUZZ_FLOWS];
    unsigned frames;
    bool patient; /* the program is about to go on: stack_flush_patiently() */
    bool looks;   /* or to look for frames: stack_flush_to_look() */
    bool places;  /* the link asks where text goes: stack_foresee() */
};
extern struct fuzz_world F;

/* A new engine with an interface and a neighbour; `shared` is the way of addressing, gso the link's
 * abilities. */
void fuzz_start(bool shared, bool gso);
/* The same with ECN, Fast Open, ... of `config`, whose ports are set here. */
void fuzz_start_with(const struct stack_config *config, bool gso);
/* Aborts, and says what, when it does not hold. */
void fuzz_expect(bool ok, const char *what);
/* Aborts when an invariant does not hold. */
void fuzz_check(void);
void fuzz_run(nsec_t dt);
/* A frame arrives; if it is trusted and F.places says so, its text goes to its place at once. */
void fuzz_input(const uint8_t *frame, uint32_t len, bool trusted, uint16_t gso_size);
/*
 * Closes what is open (an entry may be NULL) and runs until no connection is left; aborts when
 * memory does not come back.
 */
void fuzz_end(struct tcp_conn **conns, unsigned n, struct tcp_listener *listener);

/* ---- the input as a program ---- */

struct fuzz_input {
    const uint8_t *p, *end;
};

/* The next bytes as a number; zeros behind the end. */
static inline uint32_t fuzz_take(struct fuzz_input *in, unsigned bytes)
{
    uint32_t v = 0;
    while (bytes-- && in->p < in->end)
        v = v << 8 | *in->p++;
    return v;
}
