"""The ideal queue: what a load would take if switching cost nothing and cores did not disturb
each other.

Two cores. Preemptive at any instant. A job alone takes both cores and its two-thread time; where
several wait, the first two in the policy's order take one core each, at their one-thread time.
"""

import math

STRETCH = 8.0


def mixture(shares: dict, count: int, rng) -> list:
    """`count` indices into shares, each as often as its share says (largest remainders), shuffled."""
    total = sum(shares.values())
    exact = [count * share / total for share in shares.values()]
    whole = [math.floor(x) for x in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: whole[i] - exact[i])
    for i in by_remainder[: count - sum(whole)]:
        whole[i] += 1
    which = [i for i, n in enumerate(whole) for _ in range(n)]
    rng.shuffle(which)
    return which


def arrivals(count: int, sigma: float, rng) -> list:
    """Arrival times with lognormal gaps of mean 1 (mu = -sigma^2 / 2), from the first gap on."""
    at, out = 0.0, []
    for gap in rng.lognormal(-(sigma**2) / 2, sigma, count):
        at += gap
        out.append(at)
    return out


def ideal(at: list, which: list, one: list, two: list, policy: str, wide: bool = True) -> list:
    """Latency of each request. `one` and `two`: the models' times on one and on both cores."""
    left = {}  # job: share of it that is still to do
    latency = [0.0] * len(at)

    def key(job):
        if policy == "fifo":
            return at[job]
        if policy == "srpt":
            return left[job] * one[which[job]]
        return at[job] + STRETCH * one[which[job]]  # stretch

    now, arrived = 0.0, 0
    while arrived < len(at) or left:
        until = at[arrived] if arrived < len(at) else math.inf
        if len(left) == 1 and wide:
            running = {job: two[which[job]] for job in left}
        else:
            first = sorted(left, key=lambda job: (key(job), job))[:2]
            running = {job: one[which[job]] for job in first}
        ends = {job: now + left[job] * takes for job, takes in running.items()}
        step = min([until, *ends.values()])
        for job, takes in running.items():
            if ends[job] <= step:
                del left[job]
                latency[job] = step - at[job]
            else:
                left[job] -= (step - now) / takes
        now = step
        if arrived < len(at) and now >= until:
            left[arrived] = 1.0
            arrived += 1
    return latency
