/*
 * TCPSHIM_IMPAIR: what is done to the segments of the user stack on purpose. Clauses are separated
 * by commas or semicolons; all that match a segment apply to it.
 *
 *     drop|dup|corrupt|reorder [KIND] [N|N-M] [retransmit] [PERCENT%]
 *     delay [KIND] [N|N-M] [retransmit] [PERCENT%] TIME
 *     jitter TIME              the delay varies by so much, both ways; order is kept
 *     rate BITS                bits in a second, with a queue of 200 ms
 *     rst after SIZE           both ends get a RST, once for a connection
 *     zero-window TIME [after SIZE]
 *     seed N
 *
 * and in each of them `in` or `out` and `port N[-M]`. `drop=1%` is `drop 1%`. KIND: syn syn-ack ack
 * (without text) data fin rst any. N counts segments of the kind in one connection and direction
 * ("1", "2nd", "3-5"); with `retransmit` it counts those that were sent before.
 */
#pragma once

#include "stack/base.h"

#define IMPAIR_RULES_MAX 16
#define IMPAIR_TEXT_MAX  56

/* Which segments; a FIN with text is both fin and data. */
enum impair_kind {
    IMPAIR_SYN,
    IMPAIR_SYN_ACK,
    IMPAIR_ACK,
    IMPAIR_DATA,
    IMPAIR_FIN,
    IMPAIR_RST,
    IMPAIR_ANY,
    IMPAIR_KINDS
};

enum impair_verb {
    IMPAIR_DROP,
    IMPAIR_DUP,
    IMPAIR_CORRUPT,
    IMPAIR_REORDER,
    IMPAIR_DELAY,
    IMPAIR_JITTER,
    IMPAIR_RATE,
    IMPAIR_RESET,
    IMPAIR_ZERO_WINDOW,
    IMPAIR_VERBS
};

enum impair_dir { IMPAIR_IN, IMPAIR_OUT, IMPAIR_DIRS };

/* Certain, in the unit of impair_rule.chance. */
#define IMPAIR_ALWAYS ((uint64_t)1 << 32)

struct impair_rule {
    enum impair_verb verb;
    enum impair_kind kind;
    bool dirs[IMPAIR_DIRS];
    bool retransmit;              /* only what was sent before */
    uint16_t port_low, port_high; /* either end's; 0, 65535: all */
    uint32_t first, last;         /* ordinals; 0: all */
    uint64_t chance;              /* of IMPAIR_ALWAYS */
    nsec_t time;                  /* delay, jitter, length of a closed window */
    uint64_t after;               /* bytes of text before it begins */
    uint64_t rate;                /* bits in a second */
    char text[IMPAIR_TEXT_MAX];   /* as it was written */
};

struct impair_rules {
    unsigned n; /* 0: nothing is impaired */
    uint64_t seed;
    struct impair_rule rule[IMPAIR_RULES_MAX];
};

/* What TCPSHIM_IMPAIR says (config_read()). */
extern struct impair_rules impair_rules;

/* NULL, or what is allowed in place of the first mistake (as long as the next call). */
const char *impair_rules_parse(struct impair_rules *rules, const char *text);
