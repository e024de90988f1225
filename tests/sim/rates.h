/* Transfers over one bottleneck, in virtual time. */
#pragma once

#include "tests/sim/sim.h"

#define MARKS_MAX 256

struct path {
    const char *name;
    uint8_t cc;
    unsigned flows;
    unsigned renos;         /* so many of the flows are Reno's, whatever `cc` */
    unsigned loss, reorder; /* permille */
    unsigned loss_ppm;      /* instead of loss, per million */
    nsec_t late;            /* how late a reordered frame may be; 0: up to five one-way delays */
    unsigned mbits;         /* of the bottleneck */
    unsigned back_kbits;    /* of the way back, where ACKs are dropped; 0: no limit */
    unsigned rtt_ms, queue_ms;
    unsigned mark_us;   /* ECN: packets that wait longer are marked; 0: no marks */
    bool accurate;      /* and counted (RFC 9768) */
    unsigned megabytes; /* of each flow */
    double least;       /* Mbit/s, all flows together */
    double most;        /* more would be more than its share; 0: any */
    nsec_t longer_at;   /* then the path becomes longer: its delay doubles; 0: never */
    bool lossless;      /* nothing may have to be sent again */
    unsigned buffers;   /* MB, up to which both buffers may grow; 0: Linux's limits */
    unsigned
        rounds; /* after so many round trips 90 % of the bottleneck's rate is reached; 0: any */
};

/*
 * Plays the transfers of `p`. NULL, or what went wrong. *played is valid until the next call;
 * rates_marks[i] is when flow 0 (of several: any) had delivered i + 1 times MARK_BYTES.
 */
const char *rates_play(const struct path *p, bool verbose, const struct sim **played);
extern nsec_t rates_marks[MARKS_MAX];

/* sim --rates, second part: against the analytic models. How many rows failed; *rows: of how many.
 */
unsigned sim_models(bool verbose, unsigned *rows);
