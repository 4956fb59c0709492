"""Load time, memory, first request and first request on a new shape, against ONNX Runtime.

Each model in fresh processes of both systems, interleaved; medians over the rounds.
"""

import pathlib
import sys
import tempfile

import numpy as np

import models
import report
import workers

KEYS = ("load_ms", "first_ms", "warm_ms", "new_shape_ms", "memory_mb")


def _one(start, case, first: dict, other: dict | None) -> dict:
    with start(2) as worker:
        base = worker.call(cmd="memory")["rss_bytes"]
        out = {"load_ms": worker.call(cmd="load", name="m", path=str(case.path))["ms"]}

        def run(inputs, iterations=1):
            return worker.call(cmd="run", name="m", inputs=[inputs], iterations=iterations)["ms"]

        out["first_ms"] = run(first)[0]
        out["warm_ms"] = float(np.median(run(first, 5)))
        if other is not None:
            out["new_shape_ms"] = run(other)[0]
        out["memory_mb"] = (worker.call(cmd="memory")["rss_bytes"] - base) / 2**20
        return out


def run(quick: bool, only: set | None):
    models.prepare()
    rounds = 3 if quick else 5
    starts = {"plexus": workers.plexus_worker, "ort": workers.ort_worker}
    results = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        for case in models.cases():
            if only is not None and case.name not in only:
                continue
            first = models.write_inputs(folder, case.name, case.inputs[0])
            other = None
            if case.other is not None:
                other = models.write_inputs(folder, case.name + ".other", case.other)
            samples = {label: [] for label in starts}
            for i in range(rounds):
                for label in list(starts) if i % 2 == 0 else reversed(list(starts)):
                    samples[label].append(_one(starts[label], case, first, other))
            results[case.name] = {
                label: {
                    key: round(float(np.median([s[key] for s in rows])), 3)
                    for key in KEYS
                    if key in rows[0]
                }
                for label, rows in samples.items()
            }
            print(f"{case.name:16} {results[case.name]}", file=sys.stderr, flush=True)

    def ratio(key):
        pairs = [
            (r["plexus"][key], r["ort"][key])
            for r in results.values()
            if key in r["plexus"] and r["ort"][key] > 0
        ]
        return round(report.geomean(max(a, 1e-6) / b for a, b in pairs), 4)

    def ready(system):
        return [r[system]["load_ms"] + r[system]["first_ms"] for r in results.values()]

    result = {
        "experiment": "compile",
        "environment": report.environment(),
        "quick": quick,
        "rounds": rounds,
        "models": results,
        "geomean_load_ratio": ratio("load_ms"),
        "geomean_load_and_first_ratio": round(
            report.geomean(a / b for a, b in zip(ready("plexus"), ready("ort"))), 4
        ),
        "geomean_new_shape_ratio": ratio("new_shape_ms"),
        "total_memory_ratio": round(
            sum(r["plexus"]["memory_mb"] for r in results.values())
            / max(sum(r["ort"]["memory_mb"] for r in results.values()), 1e-6),
            4,
        ),
    }
    rows = [
        (name, a / b, f"{a:.0f} / {b:.0f} ms")
        for name, a, b in zip(results, ready("plexus"), ready("ort"))
    ]
    svg = report.bars(
        "Load and first request: Plexus / ONNX Runtime (below 1 is faster)", rows, "ratio", 1.0
    )
    return result, svg
