"""fig13: fairness between the two extremes, all jobs at once (workloads/fig13.yaml).

The published scheduler's threshold counts launches per model type; Plexus's counts device time per
tenant, here one per model, summed over blocks, in milliseconds: fair(srpt, 1000 x threshold).
"""

import load_sweep
import models
import report
from simulated import ROOT, Simulator

THRESHOLDS = [0.01, 0.1, 1, 10, 100, 1e3, 1e4, 1e5]


def run(quick: bool, only: set | None, processes: int | None = None):
    models.prepare()
    jobs = 1000 if quick else 3000
    base = {"kind": "at-once", "jobs": jobs}
    curves = {
        "paella": [
            {**base, "system": "paella", "scheduler": {"fairness_threshold": t}} for t in THRESHOLDS
        ],
        "plexus": [
            {**base, "system": "plexus", "policy": f"fair(srpt,{1000 * t:g})"} for t in THRESHOLDS
        ],
    }
    fairness, missing = {}, {}
    workload = str(ROOT / "bench" / "workloads" / "fig13.yaml")
    with Simulator(workload, processes) as simulator:
        for system, changes in curves.items():
            try:
                answers = simulator.run(changes)
            except RuntimeError as e:
                missing[system] = str(e).split(": ", 1)[-1]
                continue
            fairness[system] = [
                {"threshold": t, **load_sweep.short(a)} for t, a in zip(THRESHOLDS, answers)
            ]
        about = simulator.about
    result = {
        "experiment": "fig13",
        "simulated": True,
        "environment": report.environment(),
        "parameters": "bench/workloads/fig13.yaml",
        "workload": about,
        "jobs": jobs,
        "thresholds": THRESHOLDS,
        "missing": missing,
        "mean_ms": {
            system: {
                m["model"]: [p["models"][m["model"]]["mean_ms"] for p in points]
                for m in about["models"]
            }
            for system, points in fairness.items()
        },
        "fairness": fairness,
    }
    shown = {
        f"{system}, {model}": list(zip(THRESHOLDS, values))
        for system, by_model in result["mean_ms"].items()
        for model, values in by_model.items()
    }
    svg = report.lines(
        "fig13: mean time by fairness threshold, all at once (simulated T4)",
        shown,
        "threshold (paella: launches; plexus: ms of block time)",
        "mean, ms",
    )
    return result, svg
