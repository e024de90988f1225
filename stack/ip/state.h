/*
 * What the network layer keeps in struct stack: neighbours, announcements of own addresses,
 * fragments, the loopback's queue. Everything is bounded here; nothing a peer sends adds to it.
 */
#pragma once

#include "stack/arena.h"
#include "stack/base.h"
#include "stack/stack.h"
#include "stack/util/list.h"
#include "stack/util/siphash.h"
#include "stack/util/wheel.h"

#define ARP_ENTRIES_MAX 1024u
#define ARP_BUCKETS     256u
/*
 * Frames that wait for a neighbour's address: of one neighbour, and of all. Clients open many
 * connections at once, and a SYN that is dropped here costs a second: as many as Linux keeps
 * (net.ipv4.neigh.default.unres_qlen_bytes, 212,992, at 768 bytes for a SYN).
 */
#define ARP_QUEUE_ENTRY_MAX 277u
#define ARP_QUEUE_MAX       (4u * ARP_QUEUE_ENTRY_MAX)

#define FRAG_DATAGRAMS_MAX 64u
#define FRAG_BYTES_MAX     (1u << 20)

/* Two sizes of packet buffers: a full Ethernet frame with its bookkeeping, and the largest object.
 */
#define PACKET_SMALL_SIZE 2048u
#define PACKET_LARGE_SIZE ((uint32_t)ARENA_OBJECT_MAX)

/* IP packet of the loopback: fifteen pages of payload with the headers of a segment with
 * timestamps. */
#define LOOPBACK_MTU         61492u
#define LOOPBACK_PACKETS_MAX 1024u
#define LOOPBACK_BYTES_MAX   (8u << 20)

/* RFC 4861 7.3.2's states as Linux's neighbour table uses them for ARP, without DELAY. */
enum arp_state {
    ARP_FREE,       /* not in the table */
    ARP_INCOMPLETE, /* asked, no answer yet: frames wait */
    ARP_REACHABLE,  /* confirmed, lately */
    ARP_STALE,      /* known, confirmed long ago or never: used, and asked again when used */
    ARP_PROBE,      /* being asked again, frames go out meanwhile */
    ARP_FAILED,     /* did not answer */
};

struct arp_entry {
    struct list hash_link;
    struct list lru_link;     /* the first is the next to be replaced */
    struct wheel_timer timer; /* armed while a request is unanswered */
    struct list queue;        /* struct packet_buf: packets from the IP header on */
    uint32_t addr4;           /* network order */
    uint8_t netif;
    uint8_t state; /* enum arp_state */
    uint8_t tries; /* requests since the last confirmation */
    uint8_t mac[6];
    uint16_t nqueued;
    nsec_t changed; /* when the MAC was confirmed or set, or the neighbour given up */
};

struct arp_table {
    struct siphash_key key;
    struct list buckets[ARP_BUCKETS];
    struct list lru;
    uint32_t used;    /* entries[0..used) were handed out once */
    uint32_t nqueued; /* frames waiting, all entries */
    struct arp_entry entries[ARP_ENTRIES_MAX];
};

/* One address of an interface that the engine answers for (RFC 5227). Parallel to netif.addrs. */
struct ip_own {
    struct wheel_timer timer; /* the next announcement */
    uint8_t announces;        /* announcements still to send */
    bool claimed;             /* announced at least once: defended from here on */
    nsec_t probing_until;     /* 0: not being probed */
    nsec_t defended, warned;  /* when it last was; 0: never */
};

/* A packet kept: a frame that waits for ARP, a piece of a datagram, a packet on the loopback. */
struct packet_buf {
    struct list link;
    uint32_t len;      /* of data */
    uint32_t offset;   /* fragment: of its first byte in the datagram */
    uint16_t gso_size; /* loopback */
    uint16_t l4;       /* ARP queue: offset of the transport header in data */
    uint16_t head_len; /* ARP queue: bytes of data that are headers */
    uint16_t csum_offset;
    uint8_t l4_proto;
    bool csum_partial;
    bool large; /* which pool it came from */
    uint8_t data[];
};

#define PACKET_SMALL_DATA (PACKET_SMALL_SIZE - (uint32_t)offsetof(struct packet_buf, data))
#define PACKET_LARGE_DATA (PACKET_LARGE_SIZE - (uint32_t)offsetof(struct packet_buf, data))
_Static_assert(LOOPBACK_MTU <= PACKET_LARGE_DATA, "a packet of the loopback fits a buffer");

/* A datagram being put together (RFC 791 3.2). */
struct frag_datagram {
    struct list link;         /* oldest first */
    struct wheel_timer timer; /* RFC 1122 3.3.2: gives it up */
    struct list pieces;       /* struct packet_buf by offset, no overlap */
    uint32_t src4, dst4;      /* network order */
    uint16_t id;
    uint8_t proto;
    uint8_t tos, ttl; /* of the piece with offset 0 */
    bool dead;        /* overlapped: what still comes of it is swallowed */
    uint32_t have;    /* payload bytes in pieces */
    uint32_t total;   /* payload bytes of the whole; 0: the last piece has not come */
    uint32_t bytes;   /* memory of its pieces */
};

struct ip_stack {
    struct arp_table arp;
    struct ip_own own[NETIFS_MAX][NETIF_ADDRS_MAX];
    bool announce_pending; /* stack_add_netif() left announcements to the next flush */

    struct pool small, large; /* struct packet_buf */
    struct pool datagrams;    /* struct frag_datagram */
    struct list frag_age;
    uint32_t nfrags;
    uint32_t frag_bytes;

    struct list loopback;
    uint32_t loopback_packets;
    uint32_t loopback_bytes;

    uint16_t next_id;     /* IP identification */
    uint32_t icmp_tokens; /* echo replies that may be sent now */
    nsec_t icmp_refilled;
};
