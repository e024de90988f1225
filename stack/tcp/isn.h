/* Numbers that a stranger must not guess: ISNs (RFC 6528), timestamps, ports (RFC 6056), SYN
 * cookies (RFC 4987). */
#pragma once

#include "stack/stack.h"
#include "stack/tcp/seq.h"

/* The 4-tuple as it is hashed. */
struct flow_tuple {
    struct ip_addr local, remote;
    uint16_t lport, rport;
};

/* ISN = M + F(tuple, secret), M a clock (RFC 6528 section 3). */
tcp_seq isn_generate(const struct siphash_key *secret, const struct flow_tuple *t, nsec_t now);
/* Per-tuple offset of the timestamp clock (RFC 7323 5.4: hides uptime, keeps PAWS monotonic for a
 * tuple). */
uint32_t ts_offset(const struct siphash_key *secret, const struct flow_tuple *t);
/* Where the search for an ephemeral port begins, in [0, range) (RFC 6056 algorithm 3: hash plus a
 * random increment). */
uint32_t port_offset(const struct siphash_key *secret, const struct flow_tuple *t, uint32_t range);

/*
 * SYN cookies: the MSS class and a minute counter inside the ISN; window scale and SACK travel in
 * the low bits of the timestamp, as Linux does it.
 */
tcp_seq cookie_make(const struct siphash_key *secret, const struct flow_tuple *t, tcp_seq irs,
                    uint16_t mss, nsec_t now);
/* The MSS that the cookie stands for; 0 when it is not one of ours or older than two minutes. */
uint16_t cookie_check(const struct siphash_key *secret, const struct flow_tuple *t, tcp_seq irs,
                      tcp_seq cookie, nsec_t now);
/* Low 6 bits of our TSval: 4 bits window scale (15: none), SACK permitted, reserved. */
uint32_t cookie_ts_encode(uint32_t ts_val, bool wscale_ok, uint8_t wscale, bool sack);
/* Returns false when the bits make no sense. */
bool cookie_ts_decode(uint32_t ts_ecr, bool *wscale_ok, uint8_t *wscale, bool *sack);
