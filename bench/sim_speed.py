"""How fast the simulator runs: block events per second of one core, real dispatcher included.

Each case is a closed population of jobs on a simulated GPU under `srpt`. A block event is one
finished block. Blocks report in messages of 16, as the simulated device's kernels would send them,
so a message of 16 blocks counts as 16 block events; messages, of starts too, are counted beside.
With jitter every block ends at a time of its own; without, blocks that start together end together.
"""

import json
import subprocess
import sys

import report

BINARY = report.ROOT / "build" / "release" / "sched" / "sim_speed_bench"
TARGET = 2e6
CASES = [("h100", 64), ("h100", 1000), ("t4", 64)]


def _run(preset: str, jobs: int, blocks: int) -> list[dict]:
    command = [str(BINARY), "--preset", preset, "--jobs", str(jobs), "--blocks", str(blocks)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [json.loads(line) for line in out.splitlines()]


def run(quick: bool, only: set | None):
    rounds = 5 if quick else 10
    blocks = 5_000_000 if quick else 20_000_000
    samples = {}
    for _ in range(rounds):
        for preset, jobs in CASES:
            if only is not None and preset not in only:
                continue
            for row in _run(preset, jobs, blocks):
                kind = "jitter" if row["block_jitter"] > 0 else "exact"
                samples.setdefault(f"{preset}.{jobs}_jobs.{kind}", []).append(row)
    cases = {}
    for name, rows in samples.items():
        rates = sorted(row["block_events_per_s"] for row in rows)
        middle = sorted(rows, key=lambda row: row["block_events_per_s"])[len(rows) // 2]
        cases[name] = middle | {"slowest": rates[0], "fastest": rates[-1]}
        print(f"{name:24} {middle['block_events_per_s'] / 1e6:.2f} M/s", file=sys.stderr)
    result = {
        "experiment": "sim-speed",
        "environment": report.environment(),
        "quick": quick,
        "rounds": rounds,
        "policy": "srpt",
        "counts": "finished blocks; a message of 16 blocks is 16 block events",
        "cases": cases,
        # The slower kind: every block an event of its own.
        "block_events_per_s": cases.get("h100.64_jobs.jitter", {}).get("block_events_per_s"),
        "block_events_per_s_exact": cases.get("h100.64_jobs.exact", {}).get("block_events_per_s"),
        "target": TARGET,
    }
    bars = [
        (name, case["block_events_per_s"] / 1e6, f"{case['block_events_per_s'] / 1e6:.1f}")
        for name, case in cases.items()
    ]
    svg = report.bars("Simulator with the real dispatcher, one core", bars, "million block events/s")
    return result, svg
