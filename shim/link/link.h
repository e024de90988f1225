/*
 * The link: frames between the engine and the world. A table of functions, so that links can be
 * stacked (capture, impairment) and replaced (memory, for tests).
 */
#pragma once

#include "shim/core/config.h"
#include "shim/core/engine.h"

struct link {
    const struct link_ops *ops;
    int fd;             /* readable when frames wait: what the driver polls; -1: none */
    uint8_t netif;      /* of the packet socket's: over which the last frame arrived */
    struct link *lower; /* the link that this one wraps; NULL: none */
    struct link *upper; /* who wraps this one and gets what arrives; NULL: the stack */
};

struct link_ops {
    const char *name;
    /* As stack_ops.transmit. */
    int (*transmit)(struct link *l, struct stack_cx *cx, const struct frame_out *frame);
    /*
     * Takes up to max frames that wait and hands each to stack_input(). Returns how many; 0: none.
     * Never blocks. d (may be NULL) says for whom: it does not ask whether there are more when a
     * caller with a single wish was woken by a frame that ends a burst, because it is not full, or
     * when a reader's buffer is full. Frames may be left for the next call, which takes them.
     */
    unsigned (*receive)(struct link *l, struct stack_cx *cx, unsigned max, const struct drain *d);
    /* As stack_ops.flush; NULL: what is transmitted leaves at once. */
    void (*flush)(struct link *l, struct stack_cx *cx);
    /* Of links that wrap others: a frame arrived on the one below. */
    void (*input)(struct link *l, struct stack_cx *cx, const struct frame_in *frame);
    /* As stack_ops.looped, of the link nearest to the stack; NULL: it does not care. */
    void (*looped)(struct link *l, struct stack_cx *cx, const struct frame_in *packet);
    /* Of links that hold frames back: when release() must run next; NSEC_NEVER: nothing is held. */
    nsec_t (*deadline)(const struct link *l);
    void (*release)(struct link *l, struct stack_cx *cx);
};

/* Hands on a frame that arrived on l. */
static inline void link_input(struct link *l, struct stack_cx *cx, const struct frame_in *frame)
{
    struct link *upper = l->upper;
    if (likely(upper == NULL))
        stack_input(cx, frame);
    else
        upper->ops->input(upper, cx, frame);
}

/* The packet socket's, below those that wrap it. */
static inline struct link *link_lowest(struct link *l)
{
    while (unlikely(l->lower != NULL))
        l = l->lower;
    return l;
}

/* Entered: what was kept leaves. l may be NULL. */
static inline void link_flush(struct link *l, struct stack_cx *cx)
{
    if (unlikely(l == NULL))
        return;
    l = link_lowest(l);
    if (likely(l->ops->flush != NULL))
        l->ops->flush(l, cx);
}

/* When the link wants link_release(); NSEC_NEVER. l may be NULL. */
static inline nsec_t link_deadline(const struct link *l)
{
    return likely(l == NULL || l->ops->deadline == NULL) ? NSEC_NEVER : l->ops->deadline(l);
}

/* Entered: lets go what is due. */
static inline void link_release(struct link *l, struct stack_cx *cx)
{
    if (unlikely(l != NULL && link_deadline(l) <= cx->now))
        l->ops->release(l, cx);
}

/* When the engine wants to be run although nothing arrives: for its timers or for the link's. */
static inline nsec_t engine_deadline(const struct stack *st)
{
    return min_u64(stack_deadline(st), link_deadline(engine.link));
}

/*
 * Puts on a link what the variables ask for: TCPSHIM_IMPAIR, and nearest to the stack, so that it
 * shows what the stack sends and receives, TCPSHIM_PCAP. Not entered; before *l is used. capture:
 * the open file of the family, or -1: it is opened by its name. What fails is said on stderr.
 */
void link_wrap(struct stack *st, const struct config *cfg, int capture, struct link **l);
/* Impairment (impair.c) and capture (capture.c) over `lower`; NULL: not asked for, or impossible.
 */
struct link *link_impair(struct stack *st, struct link *lower);
struct link *link_capture(struct stack *st, const struct config *cfg, int fd, struct link *lower);
/* The descriptor of the capture; -1: none. */
int link_capture_fd(void);

/*
 * AF_PACKET. Opens the packet socket with protocol 0, options, filter, then binds it, and tells the
 * stack its interfaces. Needs CAP_NET_RAW. 0 or negative errno; *cure points at one sentence then.
 */
int link_af_packet_open(struct stack *st, const struct config *cfg, struct link **out,
                        const char **cure);
/* A process that inherited the packet socket of a stack (the keeper). As above. */
int link_af_packet_attach(struct stack *st, int fd, const struct config *cfg, struct link **out);
/*
 * Opens what this process needs to send when it may use write(2) alone (shim/life/sandbox.h): needs
 * CAP_NET_RAW, and does what it can.
 */
void link_prepare_writing(struct link *l, struct stack *st);
/* From now on without sendto(2) and recvfrom(2): a filter of system calls does not allow them. */
void link_by_messages(void);
/*
 * Shared address mode: the local ports that frames are wanted for. Entered (engine_enter). In own
 * address mode they do nothing. A port is added before its guard stands, so that nothing is missed.
 */
void link_filter_add_port(struct link *l, uint16_t port);
/* A holder of the port is gone: its frames pass until no listener and no flow uses it. */
void link_filter_remove_port(struct link *l, uint16_t port);
/* A block of ephemeral ports, host order, inclusive. 0 or -ENOSPC. */
int link_filter_add_block(struct link *l, uint16_t low, uint16_t high);
/* Drops ports that no listener and no flow uses. guard_sweep() calls it. */
void link_filter_sweep(struct link *l);
/* Lets through only what connections and TIME_WAIT entries of now need: for the keeper. */
void link_filter_narrow(struct link *l);
/* Forgets all single ports; those that are noted then count again with link_filter_update(). */
void link_filter_forget(struct link *l);
void link_filter_note(struct link *l, uint16_t port);
/* Replaces the socket's program, atomically, if ports changed it since; the calls above do. 0 or
 * negative errno. */
int link_filter_update(struct link *l);
/*
 * Shared address mode: reads the machine's interfaces again. wanted: an interface to take in
 * although it has no address; 0: none.
 */
void link_refresh(struct link *l, struct stack *st, uint32_t wanted);
