"""What is measured and what is asked of it. A measure has variants, which run in turn, round after round;
the first is what the others are compared with, round by round."""

import collections

# Pairs of CLIENT-SERVER.
KK, UK, KU, UU = "K-K", "U-K", "K-U", "U-U"
PAIRS = (KK, UK, KU, UU)
SMALL = "k-K"    # the kernel on both sides, the client's SO_SNDBUF set small
LIMIT = "limit"  # without a TCP: packet sockets that exchange as many frames, or a unix socket
# the same where one side is the kernel's TCP
LIMIT_UK, LIMIT_KU = "limit U-K", "limit K-U"
LIMITS = {UU: LIMIT, UK: LIMIT_UK, KU: LIMIT_KU}

# A variant's bound: a ratio to the base, or with `plus` what it may be more than the base.
Target = collections.namedtuple("Target", "bound plus", defaults=(False,))

# Units of which more is better; of all others less is.
MORE = ("Gbit/s", "Mbit/s", "conn/s", "req/s", "GB/s")

# name: as on the command line. run(bench): {unit: value} of one variant, which bench.variant names.
# targets: {unit: {variant: Target or None}}. place: CPUs of the two sides, None: the scheduler's choice.
# asides: ((title, base, variants), ...): further comparisons of the same values, without target.
# lab(bench): another laboratory than the usual. together: the variants of a round run side by side, where
# most of the time is spent waiting. rounds: at most so many; 0: as many as asked for.
Measure = collections.namedtuple("Measure", "name what run variants targets place asides lab together rounds",
                                 defaults=(None, (), None, False, 0))


def asked(both, mixed):
    """Targets of a pair by how many of its sides are the user stack."""
    return {UU: Target(both), UK: Target(mixed), KU: Target(mixed)}
