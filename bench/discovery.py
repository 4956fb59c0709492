"""What discovery costs: seconds and memory for 10 to 500 generated pipelines of 100 to 1,000 nodes.

Pipelines come in families of up to 20 (one backbone and many heads; the last layers changed; one
decoder behind many encoders; adapters in the middle), of half to all of the nodes named. They are
prepared beforehand; measured is PathFinder::Update over all at once, with the analysis of rows.
"""

import json
import math
import statistics
import subprocess
import sys

import report

BINARY = report.ROOT / "build" / "release" / "plexus_discovery"
KINDS = ["heads", "last-layers", "decoders", "adapters"]
COUNTS = [10, 20, 50, 100, 200, 500]
NODES = [100, 300, 1000]
TARGET_S = 2.0


def _run(kind: str, pipelines: int, nodes: int) -> dict:
    command = [str(BINARY), kind, str(pipelines), str(nodes)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(out)


def _slope(points: list) -> float:
    """Exponent of y ~ x^slope, least squares on logarithms."""
    xs = [math.log(x) for x, _ in points]
    ys = [math.log(y) for _, y in points]
    mean_x, mean_y = statistics.fmean(xs), statistics.fmean(ys)
    return sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / sum(
        (x - mean_x) ** 2 for x in xs
    )


def run(quick: bool, only: set | None):
    rounds = 2 if quick else 3
    counts = [10, 50, 200] if quick else COUNTS
    kinds = [k for k in KINDS if only is None or k in only]
    cases = []
    for kind in kinds:
        for nodes in NODES:
            for pipelines in counts:
                rows = [_run(kind, pipelines, nodes) for _ in range(rounds)]
                case = sorted(rows, key=lambda row: row["all_s"])[len(rows) // 2]
                case["member_nodes"] = nodes
                case["memory_bytes"] = case["peak_bytes"] - case["bytes_before"]
                cases.append(case)
                print(
                    f"{kind:12} {pipelines:4} x {nodes:5} nodes  {case['all_s']:7.3f} s  "
                    f"{case['memory_bytes'] / 2**20:7.1f} MiB  one more {case['load_one_s']:6.3f} s",
                    file=sys.stderr,
                )
    at_200 = [c for c in cases if c["pipelines"] == 200]
    slopes = {
        f"{kind}.{nodes}": round(
            _slope(
                [
                    (c["nodes"], c["all_s"])
                    for c in cases
                    if c["kind"] == kind and c["member_nodes"] == nodes
                ]
            ),
            3,
        )
        for kind in kinds
        for nodes in NODES
    }
    result = {
        "experiment": "discovery",
        "environment": report.environment(),
        "quick": quick,
        "rounds": rounds,
        "cases": cases,
        "exponent": slopes,
        "worst_exponent": max(slopes.values()),
        "seconds_200_pipelines": max(c["all_s"] for c in at_200),
        "cpu_seconds_200_pipelines": max(c["all_cpu_s"] for c in at_200),
        "seconds_200_pipelines_target": TARGET_S,
        "load_one_s_200_pipelines": max(c["load_one_s"] for c in at_200),
    }
    series = {
        f"{kind}, {nodes} nodes": [
            (c["pipelines"], c["all_s"] * 1000)
            for c in cases
            if c["kind"] == kind and c["member_nodes"] == nodes
        ]
        for kind in kinds
        for nodes in (NODES[0], NODES[-1])
    }
    svg = report.lines("Discovery over all pipelines at once", series, "pipelines", "milliseconds")
    return result, svg
