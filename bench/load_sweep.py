"""What fig11 and fig12 have in common: systems over load on the simulated T4.

Parameters are frozen in workloads/*.yaml. Loads are shares of the faithful Paella's saturation, its
throughput when all jobs are there at once.
"""

import report
from simulated import ROOT, Simulator

SYSTEMS = {
    "one-stream": {"system": "one-stream"},
    "stream-per-job": {"system": "stream-per-job"},
    "job-by-job": {"system": "job-by-job"},
    "kernel-by-kernel": {"system": "kernel-by-kernel"},
    "paella": {"system": "paella"},
    "bounded-srpt": {"system": "bounded", "policy": "srpt"},
    "bounded-edf": {"system": "bounded", "policy": "edf"},
    "plexus-fifo": {"system": "plexus", "policy": "fifo"},
    "plexus-srpt": {"system": "plexus", "policy": "srpt"},
    "plexus-edf": {"system": "plexus", "policy": "edf"},
    "plexus-stretch": {"system": "plexus", "policy": "stretch"},
    # Without what block messages give a single job: branches of its graph side by side.
    "plexus-edf-in-order": {"system": "plexus", "policy": "edf", "scheduler": {"in_order": True}},
    "plexus-stretch-in-order": {
        "system": "plexus",
        "policy": "stretch",
        "scheduler": {"in_order": True},
    },
}
RIVALS = ("paella", "bounded-srpt", "bounded-edf")
SIGMAS = [1.5, 2]
LOADS = [0.2, 0.5, 0.7, 0.8, 0.9, 1.0]
QUICK_LOADS = [0.3, 0.7, 0.9, 1.0]
P99_LIMIT_MS = 75
# name: (group, key, frozen value, factors, the systems that it says something about, by their
# first letters). The gap between kernels of one stream is not here: none of these systems has two
# kernels of a job at the device.
SENSITIVITY = {
    "launch latency": ("device", "launch_latency_us", 2.15, (0.5, 2), ""),
    "notification latency": ("device", "notification_latency_us", 1.5, (0.5, 2), "p"),
    "completion latency": ("device", "completion_latency_us", 4.5, (0.5, 2), "bounded"),
    "jitter": ("device", "jitter", 0.1, (0.5, 2), ""),
    "host launch": ("scheduler", "host_launch_us", 2, (0.5, 2), ""),
    "host notification": ("scheduler", "host_notification_us", 0.2, (0.5, 2), ""),
    "B (paella)": ("scheduler", "waiting_kernels", 2, (0.5, 2, 4, 8), "paella"),
    "K (bounded)": ("scheduler", "in_flight", 16, (0.5, 1.5, 2, 4), "bounded"),
    "job depth (bounded)": ("scheduler", "job_depth", 1, (2,), "bounded"),
    "quantum (plexus)": ("scheduler", "quantum_us", 200, (0.5, 2), "plexus"),
    "in-flight bound (plexus)": ("scheduler", "hardware_bound_us", 120, (0.25, 0.5, 2), "plexus"),
}


def known_systems(simulator: Simulator, jobs: int) -> dict:
    """Those that this build has: a policy may be missing."""
    systems = {}
    for name, change in SYSTEMS.items():
        try:
            simulator.run([{**change, "kind": "at-once", "jobs": 1}])
            systems[name] = change
        except RuntimeError as e:
            if "unknown policy" not in str(e):
                raise
    return systems


def short(answer: dict) -> dict:
    """What of a report is kept: overall and per model."""
    keys = ("mean_ms", "p50_ms", "p99_ms", "mean_slowdown")

    def pick(row):
        return {k: float(f"{row[k]:.4g}") for k in keys if k in row}

    return {
        "throughput": round(answer["throughput_per_s"], 2),
        "all": pick(answer["all"]),
        "models": {m["model"]: pick(m) for m in answer["models"]},
    }


def throughput_within(points: list) -> float:
    """The throughput at which p99 crosses the limit first; (throughput, p99) by load."""
    best = 0.0
    for (t0, p0), (t1, p1) in zip([(0.0, 0.0)] + points, points):
        if p1 > P99_LIMIT_MS:
            return round(t0 + (t1 - t0) * (P99_LIMIT_MS - p0) / (p1 - p0), 1)
        best = t1
    return round(best, 1)


def gains(p99: dict) -> dict:
    """Rival's p99 / ours: of the means, and of each seed, since both saw the same arrivals."""
    return {
        str(sigma): {
            f"{rival}/{ours}": {
                "ratio": round(sum(by[rival]) / sum(by[ours]), 3),
                "by_seed": [round(a / b, 3) for a, b in zip(by[rival], by[ours])],
            }
            for ours in by
            if ours.startswith("plexus")
            for rival in RIVALS
        }
        for sigma, by in p99.items()
    }


def mean(values: list) -> float:
    return float(f"{sum(values) / len(values):.4g}")


def run(name: str, workload: str, quick: bool, num_seeds: int, processes: int | None):
    jobs = 1000 if quick else 3000
    loads = QUICK_LOADS if quick else LOADS
    seeds = [1] if quick else list(range(1, num_seeds + 1))
    with Simulator(str(ROOT / "bench" / "workloads" / workload), processes) as simulator:
        systems = known_systems(simulator, jobs)
        at_once = simulator.run(
            [{**c, "kind": "at-once", "jobs": jobs, "seed": 1} for c in systems.values()]
        )
        saturation = {s: round(a["throughput_per_s"], 1) for s, a in zip(systems, at_once)}
        base = saturation["paella"]

        def change(system, sigma, load, seed=1):
            arrivals = {"sigma": sigma, "mean_gap_ms": 1000 / (base * load)}
            return {**systems[system], **arrivals, "jobs": jobs, "seed": seed}

        points = [(s, g, x) for g in SIGMAS for s in systems for x in loads]
        curves = {}
        for (system, sigma, load), answer in zip(
            points, simulator.run([change(*p) for p in points])
        ):
            curves.setdefault(str(sigma), {}).setdefault(system, {})[str(load)] = short(answer)

        result = {
            "experiment": name,
            "simulated": True,
            "environment": report.environment(),
            "parameters": f"bench/workloads/{workload}",
            "workload": simulator.about,
            "jobs": jobs,
            "seeds": seeds,
            "full": seeds == [1, 2, 3, 4, 5],
            "loads": loads,
            "saturation_per_s": saturation,
            "missing_systems": [s for s in SYSTEMS if s not in systems],
            "throughput_at_p99_75ms": {},
        }
        for sigma, by_system in curves.items():
            result["throughput_at_p99_75ms"][sigma] = {
                s: throughput_within([(p["throughput"], p["all"]["p99_ms"]) for p in by.values()])
                for s, by in by_system.items()
            }
        for percent in (80, 95):
            chosen = seeds if percent == 95 else seeds[:3]
            points = [(s, g, percent / 100, k) for g in SIGMAS for s in systems for k in chosen]
            answers = simulator.run([change(*p) for p in points])
            rows = {}
            for (system, sigma, _, _), answer in zip(points, answers):
                rows.setdefault((str(sigma), system), []).append(answer["all"])
            for key, field in (
                ("p99_ms", "p99_ms"),
                ("mean_ms", "mean_ms"),
                ("p50_ms", "p50_ms"),
                ("slowdown", "mean_slowdown"),
            ):
                table = result[f"{key}_at_{percent}pct"] = {}
                for (sigma, system), values in rows.items():
                    table.setdefault(sigma, {})[system] = mean([v[field] for v in values])
            p99 = {
                sigma: {s: [v["p99_ms"] for v in rows[str(sigma), s]] for s in systems}
                for sigma in SIGMAS
            }
            result[f"p99_gain_at_{percent}pct"] = gains(p99)
        result["sensitivity_p99_ms_at_95pct"] = sensitivity(
            simulator, systems, change, seeds[:1], quick
        )
        result["curves"] = curves
    shown = {}
    for system, by_load in curves["1.5"].items():
        shown[system] = [(p["throughput"], p["all"]["p99_ms"]) for p in by_load.values()]
    svg = report.lines(
        f"{name}: p99 against throughput, sigma 1.5 (simulated T4)",
        shown,
        "jobs per second",
        "p99, ms",
        limit=3000,
    )
    return result, svg


def sensitivity(simulator, systems, change, seeds, quick) -> dict:
    """p99 at 95 % load, sigma 1.5, with one parameter changed; the rate stays the same."""
    chosen = [s for s in (*RIVALS, "plexus-srpt", "plexus-stretch") if s in systems]
    rows = [("frozen", None, 1, chosen)]
    for name, (_, _, _, factors, prefix) in SENSITIVITY.items():
        concerned = [s for s in chosen if s.startswith(prefix)]
        rows += [(f"{name} x{f:g}", name, f, concerned) for f in factors if not quick or f == 2]
    points, changes = [], []
    for label, parameter, factor, concerned in rows:
        for system in concerned:
            for seed in seeds:
                c = change(system, 1.5, 0.95, seed)
                if parameter:
                    group, key, value = SENSITIVITY[parameter][:3]
                    new = value * factor
                    whole = key in ("waiting_kernels", "in_flight", "job_depth")
                    new = max(1, int(new)) if whole else new
                    c[group] = {**c.get(group, {}), key: new}
                points.append((label, system))
                changes.append(c)
    values = {}
    for point, answer in zip(points, simulator.run(changes)):
        values.setdefault(point, []).append(answer["all"]["p99_ms"])
    table = {}
    for (label, system), p99 in values.items():
        table.setdefault(label, {})[system] = mean(p99)
    return table
