"""What tracing costs: the same requests with the recorder on, off, and absent.

mobilenetv2, resnet18, squeezenet1.1 and a wake word head, four requests in flight, on all cores of
one process. The three are interleaved (A B C C B A ...) in rounds of about 0.2 s, over several
processes, since where the memory of a process happens to lie moves times by more than a recorder.
"""

import json
import subprocess
import sys

import models
import report

# Requests per round.
WORK = {"mobilenetv2": 8, "resnet18": 4, "squeezenet1.1": 8, "alexa": 200}


def _measure(cases: dict, rounds: int, first: str) -> dict:
    worker = models.ROOT / "build" / "release" / "plexus_trace_overhead"
    command = [str(worker), "--rounds", str(rounds), "--first", first]
    command += [f"{name}={cases[name].path}={count}" for name, count in WORK.items()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)


def _overhead(rounds: list, ours: str, theirs: str, key: str) -> dict:
    ratio = report.paired_ratio([r[ours][key] for r in rounds], [r[theirs][key] for r in rounds])
    return {k: round(v - 1, 4) for k, v in ratio.items()}


def run(quick: bool, only: set | None):
    models.prepare()
    cases = {c.name: c for c in models.cases()}
    processes, rounds = (4, 10) if quick else (8, 20)
    runs = []
    for i in range(processes):
        runs.append(_measure(cases, rounds, "off" if i % 2 == 0 else "absent"))
        print(f"process {i + 1} of {processes}", file=sys.stderr, flush=True)
    every = [r for one in runs for r in one["rounds"]]
    result = {
        "experiment": "trace-overhead",
        "environment": report.environment(),
        "quick": quick,
        "work": WORK,
        "processes": processes,
        "rounds": len(every),
        # Wall time of a round of the same requests, on against off and off against absent.
        "overhead_on": _overhead(every, "on", "off", "ms"),
        "overhead_off": _overhead(every, "off", "absent", "ms"),
        # The same of processor time, which other processes disturb less.
        "overhead_on_cpu": _overhead(every, "on", "off", "cpu_ms"),
        "overhead_off_cpu": _overhead(every, "off", "absent", "cpu_ms"),
        "events_per_s": round(report.geomean(r["events_per_s"] for r in runs)),
        "ns_per_event": round(min(r["ns_per_event"] for r in runs), 1),
        "ns_per_event_2_threads": round(min(r["ns_per_event_2_threads"] for r in runs), 1),
    }
    rows = []
    for label, key in (
        ("on / off", "overhead_on"),
        ("on / off, CPU", "overhead_on_cpu"),
        ("off / absent", "overhead_off"),
        ("off / absent, CPU", "overhead_off_cpu"),
    ):
        m, low, high = (100 * result[key][k] for k in ("median", "low", "high"))
        rows.append((label, max(m, 0), f"{m:.2f} [{low:.2f}, {high:.2f}]"))
    svg = report.bars("What tracing costs", rows, "percent of a round's time; the line: 2 %", 2.0)
    return result, svg
