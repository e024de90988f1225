/* The inside of the harness: shared by harness.c, calls.c, wire.c and log.c. */
#pragma once

#include "tests/packet/harness.h"

#include <setjmp.h>

#define TX_MAX          8192
#define FLOWS_MAX       8192
#define APPS_MAX        8192
#define LOG_MAX         4096
#define WORLD_ARENA_MAX ((size_t)64 << 20)

/* A frame that the host sent. */
struct sent_frame {
    nsec_t at;
    uint8_t *bytes;
    uint32_t len;
    uint16_t gso_size;
};

/* The program's side of a connection or listener: the owner that notify() is given. */
struct app {
    struct tcp_conn *conn;
    struct tcp_listener *listener;
    uint32_t number;
    uint32_t events;
    uint32_t sent, received; /* stream offsets */
    bool other_text;
};

struct log_entry {
    nsec_t at;
    enum { LOG_TX, LOG_RX, LOG_TRACE, LOG_TEXT } kind;
    enum trace_event_id id;
    unsigned argc;
    uint64_t argv[TRACE_ARGS_MAX];
    char text[120];
};

struct world_state {
    jmp_buf out;
    const struct packet_test *test;
    bool failed, skipped;
    struct world_opts opts;
    struct stack_cx cx;
    uint8_t netif;
    void *memory;
    size_t memory_used;
    nsec_t now, start;
    unsigned warnings;
    bool port_shared; /* shares_port() */
    uint64_t elected;
    bool patient;  /* program_goes_on() */
    bool together; /* frames_together() */
    bool arp_asked;
    char bad_frame[120]; /* what the host sent that no host may send */
    unsigned tx_head, tx_tail;
    struct sent_frame tx[TX_MAX];
    uint8_t *last_tx; /* given out by next_tx() */
    struct peer *cur;
    unsigned nflows;
    struct peer flows[FLOWS_MAX];
    unsigned napps;
    struct app apps[APPS_MAX];
    unsigned log_n;
    struct log_entry log[LOG_MAX];
};
extern struct world_state W;

/* The byte at an offset of any stream of the tests, counted from 0. */
static inline uint8_t pattern(uint32_t off)
{
    return (uint8_t)(off * 7 + (off >> 8) * 13 + (off >> 16) * 31);
}

void world_run_to(nsec_t target, bool stop_at_tx);
void world_after_step(void);
struct peer *world_flow_find(uint16_t hport, uint16_t pport);
/* From transmit(): checks and keeps a frame. */
int world_capture(const struct frame_out *f);
void world_answer_arp(void);

void world_log_frame(bool tx, const uint8_t *frame, size_t len, uint16_t gso_size);
void world_log_trace(const struct trace_record *r);
void world_log_text(const char *text);
void world_log_event(const char *what, uint32_t number, uint32_t events);
void world_print_log(void);
