/*
 * One direction of a laboratory's link: decides by its seed what becomes of each frame, and keeps
 * what is under way. No system call: times are arguments, in nanoseconds of one clock.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* X(ID, option, argument, text) */
#define LINK_PROPERTIES(X)                                                                         \
    X(DELAY, "delay", "TIME", "one-way delay, as 20ms; the round trip takes twice that")           \
    X(JITTER, "jitter", "TIME", "up to so much more, frame by frame (order is kept)")              \
    X(LOSS, "loss", "PERCENT", "frames lost, as 1%")                                               \
    X(RATE, "rate", "BITS", "bits a second, as 10mbit; frames queue before it")                    \
    X(QUEUE, "queue", "BYTES",                                                                     \
      "of that queue, as 64k; what does not fit is lost (100 ms of rate)")                         \
    X(REORDER, "reorder", "PERCENT", "frames overtaken by those behind them")                      \
    X(DUP, "dup", "PERCENT", "frames that arrive twice")                                           \
    X(CORRUPT, "corrupt", "PERCENT", "frames with a bit turned over")                              \
    X(SEED, "seed", "NUMBER", "which frames are hit: the same seed hits the same ones")            \
    X(CABLE, "cable", "in|out", "pull the cable out, or put it back in")

enum link_property {
#define X(id, option, argument, text) LINK_##id,
    LINK_PROPERTIES(X)
#undef X
        LINK_PROPERTY_COUNT
};

struct link_settings {
    uint64_t delay, jitter;               /* ns */
    uint64_t rate;                        /* bits a second; 0: no limit */
    uint64_t queue;                       /* bytes before the rate; 0: 100 ms of it */
    uint32_t loss, reorder, dup, corrupt; /* of 10^6 */
    uint64_t seed;
    bool out; /* the cable is out */
};

struct link_counts {
    uint64_t frames, bytes;    /* offered */
    uint64_t lost, overflowed; /* by chance, because the queue was full */
    uint64_t reordered, duplicated, corrupted;
};

struct link_frame; /* under way */

struct link_way {
    struct link_settings settings;
    struct link_counts counts;
    uint64_t random[2]; /* xorshift128+ */
    uint64_t free_at;   /* when the rate admits the next frame */
    uint64_t last_due;  /* jitter keeps the order */
    uint64_t number;
    size_t held;              /* bytes under way */
    struct link_frame **heap; /* by time due */
    unsigned nheap, room;
};

/* A value of a property as the command line gives it. NULL, or what is allowed instead. */
const char *link_parse(enum link_property which, const char *value, struct link_settings *out);
/* Copies the properties of `mask` (1 << enum link_property). */
void link_take(struct link_settings *to, const struct link_settings *from, unsigned mask);
/* In words, as "delay 20ms, loss 1%"; "plain" when there is nothing. */
void link_describe(const struct link_settings *s, char *out, size_t size);

/* way: the number of the direction, so that each has its own sequence. */
void link_init(struct link_way *l, const struct link_settings *s, unsigned way);
void link_set(struct link_way *l, const struct link_settings *s, unsigned mask, unsigned way);
/*
 * A frame: head (hlen bytes, the virtio-net header) and data from the Ethernet header on. chance:
 * false for what must not use up random numbers and is not lost by chance (ARP and the like).
 */
void link_offer(struct link_way *l, uint64_t now, const void *head, size_t hlen, const void *data,
                size_t len, bool chance);
/* The next frame that is due, or NULL; the caller frees it with free(). */
struct link_frame *link_due(struct link_way *l, uint64_t now);
/* head and data as one run. */
const void *link_bytes(const struct link_frame *f, size_t *len);
/* When link_due() has something; UINT64_MAX: nothing is under way. */
uint64_t link_next(const struct link_way *l);
