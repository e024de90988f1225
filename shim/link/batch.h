/*
 * Large frames leave together, by one system call.
 *
 * A frame that arrives wakes its receiver. Where both ends share a processor the kernel lets it run
 * at the end of the sender's system call: two switches and a look at nothing for each 64 KB, more
 * than the frame costs. io_submit(2) writes many frames before it returns (to a socket it writes at
 * once, nothing is asynchronous), and the receiver finds all of them. Measured: 1.3 to 1.6 times
 * the throughput of one sendmsg() each (docs/performance.md). Where the receiver has a processor of
 * its own, sendmmsg(2) does the same at less cost; it lets others run after each frame, by which it
 * is seen that there are some.
 *
 * The frames lie here between transmit and the end of the engine's pass, at most BATCH_MAX, and
 * only such whose payload stays where it is (frame_out.lasting). Writing takes sockets that are
 * bound to one interface, since it names no address. Where any of this cannot be had, frames leave
 * one by one. All under the engine lock; process-local.
 */
#pragma once

#include <linux/virtio_net.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "stack/stack.h"

#define BATCH_MAX 16

/* A packet socket that sends on one interface and receives nothing; 0: there is none. */
int writer_of(uint8_t netif);
/* The same, made now if need be; ifindex is the kernel's number of the interface. Needs
 * CAP_NET_RAW. */
int writer_make(uint8_t netif, uint32_t ifindex);

/*
 * Whether this process has sent so much in large frames, `bytes` more now, that a batch is worth
 * what its socket and context cost: the kernel takes 15 to 45 ms to end them, which a program's
 * exit waits for.
 */
bool batch_pays(uint32_t bytes);
/* Whether frames may be kept at all. */
bool batch_possible(void);
/* Keeps the frame; vnet is its virtio-net header. The batch must not be full. */
void batch_add(int writer, const struct virtio_net_hdr *vnet, const struct frame_out *f);
/* How many are kept. */
unsigned batch_count(void);
/*
 * Sends what is kept, in order, but for frames that the kernel had no memory for at first. Returns
 * how many it refused; *err is the errno (negative) of one of them.
 */
unsigned batch_send(nsec_t now, int *err);
/* No more from now on: a filter of system calls does not allow it. */
void batch_forbid(void);
/* Nor sendmmsg(2) and what is needed to tell when. */
void batch_forbid_messages(void);
/* The kernel knows the child's contexts apart from the parent's. */
void batch_after_fork_child(void);
