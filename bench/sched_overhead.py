"""What a scheduling decision costs, for every policy and number of ready jobs.

A decision is one block-finished event in and one launch out: occupancy, the tenant's charge, the
job's key, the choice, the launch. The device behind it only holds launches; jobs that end are
replaced outside of the measured time. p50 and p99 are over the decisions of a run, of which the
median over the rounds is reported; reading the clock is part of each sample (`clock_ns`).
"""

import json
import subprocess
import sys

import numpy as np
import report

BINARY = report.ROOT / "build" / "release" / "sched" / "overhead_bench"
TARGET_P50_NS = 500  # at 1,000 jobs
TARGET_GROWTH = 3  # from 10 to 100,000 jobs


def run(quick: bool, only: set | None):
    rounds = 3 if quick else 11
    command = [str(BINARY), "--decisions", "20000" if quick else "50000"]
    for policy in sorted(only or []):
        command += ["--policy", policy]
    rows = []
    for _ in range(rounds):
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        rows += [json.loads(line) for line in out.splitlines()]
    table, launched = {}, True
    for policy in dict.fromkeys(row["policy"] for row in rows):
        table[policy] = {}
        for jobs in dict.fromkeys(row["jobs"] for row in rows):
            of = [r for r in rows if r["policy"] == policy and r["jobs"] == jobs]
            table[policy][str(jobs)] = {
                "p50": round(float(np.median([r["p50_ns"] for r in of]))),
                "p99": round(float(np.median([r["p99_ns"] for r in of]))),
            }
            launched = launched and all(r["launched"] == r["decisions"] for r in of)
        p50 = [f"{n:>7} jobs {v['p50']} ns" for n, v in table[policy].items()]
        print(f"{policy:20} p50 {', '.join(p50)}", file=sys.stderr)
    growth = {p: round(t["100000"]["p50"] / t["10"]["p50"], 2) for p, t in table.items()}
    result = {
        "experiment": "sched-overhead",
        "environment": report.environment(),
        "quick": quick,
        "rounds": rounds,
        "decisions_per_run": rows[0]["decisions"],
        "clock_ns": round(float(np.median([r["clock_ns"] for r in rows]))),
        "ns_per_decision": table,
        "growth_10_to_100000": growth,
        "worst_p50_ns_at_1000": max(t["1000"]["p50"] for t in table.values()),
        "worst_growth": max(growth.values()),
        "allocations": sum(r["allocations"] for r in rows),
        "every_decision_launched": launched,
        "target": {"p50_ns_at_1000": TARGET_P50_NS, "growth": TARGET_GROWTH, "allocations": 0},
    }
    series = {
        policy: [(int(jobs), v["p50"]) for jobs, v in values.items()]
        for policy, values in table.items()
    }
    svg = report.lines("One scheduling decision, median", series, "ready jobs", "ns")
    return result, svg
