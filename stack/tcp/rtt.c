/*
 * The estimator of RFC 6298 2 in Linux's form: a fall of the round-trip time does not widen the
 * time-out (an idea of Eifel's), the deviation used is the largest of the round, and it decays once
 * a round, not with each sample (a window of 40 samples would forget everything in one round trip).
 */
#include "stack/tcp/rtt.h"

/* A sample beyond this says nothing; keeps the arithmetic far from overflow. */
#define SAMPLE_MAX (10 * RTO_MAX)
/* The minimum counts for so long. */
#define MIN_WINDOW     (300 * NSEC_PER_SEC)
#define MIN_UNIT_SHIFT 30
#define MIN_AT_MASK    ((1u << 22) - 1)

void rtt_init(struct rtt *r)
{
    memset(r, 0, sizeof(*r));
    r->rto = RTO_INITIAL;
}

static void decay(struct rtt *r)
{
    if (r->mdev_max < r->rttvar)
        r->rttvar -= (r->rttvar - r->mdev_max) / 4;
    r->mdev_max = 0;
}

static void set_rto(struct rtt *r)
{
    r->rto = min_u64(r->srtt + max_u64(4 * r->rttvar, RTO_MIN), RTO_MAX);
}

static void first_sample(struct rtt *r, nsec_t sample)
{
    r->srtt = sample;
    r->mdev = sample / 2;
    r->mdev_max = r->mdev;
    r->rttvar = r->mdev;
}

static void next_sample(struct rtt *r, nsec_t sample)
{
    const int64_t err = (int64_t)(sample - r->srtt);
    const int64_t size = err < 0 ? -err : err;
    r->srtt = (nsec_t)((int64_t)r->srtt + err / 8);
    int64_t widen = (size - (int64_t)r->mdev) / 4;
    /* A shorter round trip is good news: let it count for an eighth. */
    if (err < 0 && widen > 0)
        widen /= 8;
    r->mdev = (nsec_t)((int64_t)r->mdev + widen);
    r->mdev_max = max_u64(r->mdev_max, r->mdev);
    r->rttvar = max_u64(r->rttvar, r->mdev_max);
}

/* A path may become longer: what was measured long ago says nothing any more. */
static void note_min(struct rtt *r, nsec_t sample, nsec_t now)
{
    const uint32_t at = (now >> MIN_UNIT_SHIFT) & MIN_AT_MASK;
    const uint32_t age = (at - r->min_at) & MIN_AT_MASK;
    if (r->min_rtt == 0 || sample <= r->min_rtt || age > MIN_WINDOW >> MIN_UNIT_SHIFT) {
        r->min_rtt = sample;
        r->min_at = at;
    }
}

void rtt_sample(struct rtt *r, nsec_t sample, nsec_t now)
{
    sample = max_u64(min_u64(sample, SAMPLE_MAX), 1);
    note_min(r, sample, now);
    if (r->srtt == 0)
        first_sample(r, sample);
    else
        next_sample(r, sample);
    if (!r->rounds_told)
        decay(r);
    set_rto(r);
}

void rtt_round(struct rtt *r)
{
    /* The first call only begins the first round. */
    const bool begins = !r->rounds_told;
    r->rounds_told = true;
    if (begins || r->srtt == 0)
        return;
    decay(r);
    set_rto(r);
}

nsec_t rtt_backed_off(const struct rtt *r, unsigned backoffs, nsec_t most)
{
    nsec_t rto = r->rto;
    while (backoffs-- > 0 && rto < most)
        rto *= 2;
    return min_u64(rto, most);
}
