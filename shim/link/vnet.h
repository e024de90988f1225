/*
 * The virtio-net header (virtio 1.2, 5.1.6) in front of a frame that leaves: what the kernel has to
 * complete, and in how many pieces of memory it keeps the frame.
 *
 * What the header says are headers (hdr_len) the kernel copies to one piece, and the rest to pages.
 * Pages of up to 32 KB come from lists of each processor. The receiver frees them on its own one,
 * so they return to a sender on another by way of the zone, 32 MB and more in turn: the copy writes
 * to cold memory. Larger pieces are in no such list: the few that are under way come back at once,
 * out of the cache. A large frame is one such piece therefore, as those of tap devices and virtual
 * machines are whose header says nothing (docs/performance.md has what it brings).
 *
 * Under the engine lock; process-local.
 */
#pragma once

#include <linux/virtio_net.h>
#include <stdbool.h>

#include "stack/stack.h"

void vnet_describe(struct virtio_net_hdr *h, const struct frame_out *f, nsec_t now);
/*
 * The kernel refused a frame with this errno (negative), whose headers have so many bytes. True: it
 * had no piece of that size; h asks for pages now, and so do all frames for a while.
 */
bool vnet_to_pages(struct virtio_net_hdr *h, size_t head, int err, nsec_t now);
