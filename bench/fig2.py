"""fig2: head-of-line blocking by the number of hardware queues, against the published curve.

10,000 jobs of 8 dependent one-block kernels (128 threads, 0.6 ms) on a simulated T4; for each number
of queues the best time over the arrival rates (Paella, SOSP 2023, figure 2).
"""

import report
from simulated import Simulator

QUEUES = [1, 2, 4, 8, 16, 32]
PUBLISHED_FIFO_S = [47.8, 23, 11, 5.4, 2.9, 1.8]
RATES = [1000, 2000, 4000, 6000, 8000, 10000]
SYSTEMS = {"fifo": "job-by-job", "kbk": "kernel-by-kernel"}


def run(quick: bool, only: set | None):
    rates = [1000, 10000] if quick else RATES
    points = [(s, q, r) for s in SYSTEMS for q in QUEUES for r in rates]
    changes = [
        {"system": SYSTEMS[s], "mean_gap_ms": 1000 / r, "device": {"queues": q}}
        for s, q, r in points
    ]
    with Simulator("preset:fig2") as simulator:
        reports = simulator.run(changes)
        about = simulator.about
    times = {}
    for (system, queues, rate), answer in zip(points, reports):
        times.setdefault(system, {}).setdefault(queues, {})[rate] = answer["makespan_s"]
    best = {s: [round(min(times[s][q].values()), 3) for q in QUEUES] for s in SYSTEMS}
    errors = [abs(a / b - 1) for a, b in zip(best["fifo"], PUBLISHED_FIFO_S)]
    result = {
        "experiment": "fig2",
        "simulated": True,
        "environment": report.environment(),
        "device": about["device"],
        "workload": about["models"],
        "jobs": 10000,
        "arrivals": "Poisson, seed 1",
        "rates_per_s": rates,
        "queues": QUEUES,
        "fifo_s": best["fifo"],
        "kbk_s": best["kbk"],
        "published_fifo_s": PUBLISHED_FIFO_S,
        "relative_error": [round(e, 4) for e in errors],
        "max_rel_error": round(max(errors), 4),
        "seconds_by_rate": times,
    }
    lines = {
        "submit all at once, FIFO": best["fifo"],
        "kernel by kernel": best["kbk"],
        "published FIFO (T4)": PUBLISHED_FIFO_S,
    }
    svg = report.lines(
        "10,000 jobs of 8 dependent kernels (simulated T4)",
        {name: list(zip(QUEUES, values)) for name, values in lines.items()},
        "hardware queues",
        "seconds until all are done",
    )
    return result, svg
