"""Sharing against no sharing over how much is shared, by how many, and how often inputs are equal.

Generated families (paths/family.h): models of BLOCKS blocks, of which the last ones are each
member's own; `fraction` is the part of a member's work that all of its family share. Two servers
over HTTP on this machine's CPU, one with --no-sharing, are asked in turn, in slices of a fraction
of a second, so that drift meets both; the other one is idle meanwhile. A round asks every pipeline
once, all at the same time; in `duplicates` percent of the rounds about the same input, else each
about its own. Four rounds, about different inputs, are under way at once. Three pairs of servers
take the points one after the other, for no process is quite as fast as the next; before each point
come rounds that do not count, for a server goes on for some 30 requests as the point before has
taught it. The rounds of a slice are the same for both servers, and so must be the outputs.

gain: throughput of shared over unshared, median over pairs of slices with its interval. limit: what
arithmetic allows, from the processor time of a member and of the shared part by itself:
n·T / (n·T - duplicates·(n-1)·S). On a CPU distinct inputs leave nothing to gain but memory.

overhead_at_zero: the most that sharing costs where there is nothing to share. worst_gain: the least
gain of all points. `simulated`: the same sweep on a simulated GPU, where requests, paths and
dispatcher are the real ones and time is the model's; nothing is computed there.
"""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np

import report
from serving import Connection, Crew, Server, busy_ms, decode, encode
from sharing import SETTLE

FRACTIONS = (0, 25, 50, 75, 100)
FAN_OUTS = (2, 4, 8)
DUPLICATES = (0, 50, 100)
BLOCKS, WIDTH, ROWS = 24, 256, 64
SIM_DEVICE, SIM_BLOCKS, SIM_WIDTH, SIM_ROWS = "a100", 16, 512, 1024
SLICE_S = 0.1
IN_FLIGHT = 4  # rounds: one job at a time does not fill even two cores
PAIRS = 3  # of servers, one after the other: where a process's memory lies costs some percent
POOL = 128  # inputs; no two that are asked about at one time are the same by chance
BINARIES = report.ROOT / "build" / "release"


def log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def write_family(folder: pathlib.Path, name: str, members: int, blocks: int, changed: int, seed):
    arguments = [name, "last-layers", members, blocks, WIDTH, changed, seed]
    command = [str(BINARIES / "plexus_family_files"), str(folder), *map(str, arguments)]
    subprocess.run(command, check=True)


def write_repository(folder: pathlib.Path) -> None:
    """A family per fraction, and what its members share as a pipeline of its own."""
    for fraction in FRACTIONS:
        changed = BLOCKS * (100 - fraction) // 100
        seed = fraction + 1
        write_family(folder, f"f{fraction}", max(FAN_OUTS), BLOCKS, changed, seed)
        if changed < BLOCKS:
            write_family(folder, f"stem{fraction}", 1, BLOCKS - changed, 0, seed)


class Point:
    """One point of the sweep on a pair of servers."""

    def __init__(self, servers: dict, names: list, duplicates: int, bodies: list, seed: int):
        self.crews = {name: Crew(server, names, IN_FLIGHT) for name, server in servers.items()}
        self.names, self.duplicates, self.bodies = names, duplicates, bodies
        self.rng = np.random.default_rng(seed)
        self.next_body = 0
        self.rounds = 2 * IN_FLIGHT  # of a slice: even, for half of them to be duplicates

    def _rounds(self) -> list:
        """Bodies by name, for each round of a slice."""
        same = [i * 100 < self.rounds * self.duplicates for i in range(self.rounds)]
        self.rng.shuffle(same)
        out = []
        for one in same:
            distinct = 1 if one else len(self.names)
            picked = [self.bodies[(self.next_body + i) % POOL] for i in range(distinct)]
            self.next_body += distinct
            out.append(picked * (len(self.names) // distinct))
        return out

    def slice(self, first: str) -> tuple:
        """(seconds by system, whether outputs were equal)"""
        rounds = self._rounds()
        seconds, answers = {}, {}
        for system in sorted(self.crews, key=lambda name: name != first):
            begin = time.monotonic()
            answers[system] = self.crews[system].rounds(rounds)
            seconds[system] = time.monotonic() - begin
        same = all(
            np.array_equal(decode(ours[0])["y"], decode(theirs[0])["y"])
            for a, b in zip(answers["shared"], answers["none"], strict=True)
            for ours, theirs in zip(a, b, strict=True)
        )
        return seconds, same

    def measure(self, settle: int, measure_s: float) -> dict:
        """Answers per second of both systems, slice by slice, and whether outputs were equal.
        `settle`: rounds that come before and do not count."""
        same = True
        for _ in range(-(-settle // self.rounds)):
            seconds, equal = self.slice("shared")
            same = same and equal
        per_round = max(seconds.values()) / self.rounds
        self.rounds = 2 * max(IN_FLIGHT, round(SLICE_S / per_round / 2))
        found, spent = {"shared": [], "none": []}, 0.0
        while spent < measure_s or len(found["shared"]) < 4:
            seconds, equal = self.slice("none" if len(found["shared"]) % 2 else "shared")
            for system, took in seconds.items():
                found[system].append(self.rounds * len(self.names) / took)
            spent += sum(seconds.values())
            same = same and equal
        return {**found, "outputs_equal": same}


def measure_costs(server: Server, body, runs: int) -> dict:
    """fraction: (ms of a member, the shared part of it), processor time alone."""
    costs = {}
    for fraction in FRACTIONS:
        member, stem = f"f{fraction}-0", f"stem{fraction}-0"
        times = busy_ms(server, [member, stem] if fraction > 0 else [member], body, runs)
        ratios = np.asarray(times.get(stem, 0.0)) / np.asarray(times[member])
        whole, part = float(np.median(times[member])), min(1.0, float(np.median(ratios)))
        costs[fraction] = (whole, part)
        log(f"{fraction:3} % shared: a member {whole:.2f} ms, the shared part {part:.3f} of it")
    return costs


def limit_of(cost: tuple, fan_out: int, duplicates: int) -> float:
    return fan_out / (fan_out - duplicates / 100 * (fan_out - 1) * cost[1])


def run_pair(folder, pair: int, bodies: list, quick: bool, found: dict):
    """Starts a pair of servers and measures every point on it; adds to `found`, by point."""
    settle, measure_s = (SETTLE // 2, 0.6) if quick else (SETTLE, 1.9)
    with contextlib.ExitStack() as stack:
        systems = [("shared", []), ("none", ["--no-sharing"])]
        servers = {
            system: stack.enter_context(Server(folder, *flags))
            for system, flags in (systems if pair % 2 == 0 else systems[::-1])
        }
        for server in servers.values():  # compiles
            connection = Connection(server)
            for fraction in FRACTIONS:
                for member in range(max(FAN_OUTS)):
                    connection.ask(f"f{fraction}-{member}", *bodies[0])
        costs = measure_costs(servers["none"], bodies[0], 5 if quick else 15)
        for key, slices in found.items():
            fraction, fan_out, duplicates = key
            names = [f"f{fraction}-{member}" for member in range(fan_out)]
            point = Point(servers, names, duplicates, bodies, seed=pair * 1000 + hash(key) % 1000)
            got = point.measure(settle, measure_s)
            for system in ("shared", "none"):
                slices[system] += got[system]
            slices["outputs_equal"] = slices["outputs_equal"] and got["outputs_equal"]
            gain = np.median(np.asarray(got["shared"]) / np.asarray(got["none"]))
            log(
                f"pair {pair}, {fraction:3} % of {fan_out}, {duplicates:3} % equal inputs: gain "
                f"{gain:.3f}, limit {limit_of(costs[fraction], fan_out, duplicates):.3f}"
            )
        return costs, servers["shared"].sharing()


def run_cpu(quick: bool) -> dict:
    pairs = 1 if quick else PAIRS
    rng = np.random.default_rng(1)
    bodies = [
        encode({"x": rng.standard_normal((ROWS, WIDTH)).astype(np.float32)}, binary_outputs=True)
        for _ in range(POOL)
    ]
    found = {
        (fraction, fan_out, duplicates): {"shared": [], "none": [], "outputs_equal": True}
        for fraction in FRACTIONS
        for fan_out in FAN_OUTS
        for duplicates in DUPLICATES
    }
    with tempfile.TemporaryDirectory() as folder:
        write_repository(pathlib.Path(folder))
        told = [run_pair(pathlib.Path(folder), p, bodies, quick, found) for p in range(pairs)]
    costs = {
        fraction: tuple(np.median([pair_costs[fraction] for pair_costs, _ in told], axis=0))
        for fraction in FRACTIONS
    }
    points = []
    for (fraction, fan_out, duplicates), slices in found.items():
        gain = report.paired_ratio(slices["shared"], slices["none"])
        limit = limit_of(costs[fraction], fan_out, duplicates)
        points.append(
            {
                "fraction": fraction,
                "fan_out": fan_out,
                "duplicates": duplicates,
                "gain": gain,
                "limit": round(limit, 4),
                "of_limit": round(gain["median"] / limit, 4),
                "slices": len(slices["shared"]),
                "shared_answers_per_s": round(float(np.median(slices["shared"])), 1),
                "unshared_answers_per_s": round(float(np.median(slices["none"])), 1),
                "outputs_equal": slices["outputs_equal"],
            }
        )
    return {
        "pairs_of_servers": pairs,
        "costs_ms": {
            str(fraction): {"member": round(whole, 4), "shared_part": round(whole * part, 4)}
            for fraction, (whole, part) in costs.items()
        },
        "points": points,
        "sharing_counters": [counters for _, counters in told],
    }


def run_simulated(quick: bool) -> dict:
    sizes = [SIM_ROWS, SIM_BLOCKS, SIM_WIDTH, 8 if quick else 16]
    command = [str(BINARIES / "plexus_sharing_sim"), SIM_DEVICE, *map(str, sizes)]
    points = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            points.append({k: round(v, 4) for k, v in json.loads(line).items()})
    if process.returncode != 0:
        raise RuntimeError("plexus_sharing_sim failed; its reason stands above")
    for point in points:
        point["of_limit"] = round(point["gain"] / point["limit"], 4)
    return {"simulated": True, "device": SIM_DEVICE, "points": points, **_summary(points)}


def _gain(point: dict) -> float:
    gain = point["gain"]
    return gain["median"] if isinstance(gain, dict) else gain


def _summary(points: list) -> dict:
    curve = {
        str(fan_out): {
            str(duplicates): [
                {"fraction": p["fraction"], "gain": _gain(p), "limit": p["limit"]}
                for p in points
                if p["fan_out"] == fan_out and p["duplicates"] == duplicates
            ]
            for duplicates in DUPLICATES
        }
        for fan_out in FAN_OUTS
    }
    return {
        "gain_curve": curve,
        "overhead_at_zero": round(max(1 - _gain(p) for p in points if p["fraction"] == 0), 4),
        "worst_gain": min(_gain(p) for p in points),
        "best_gain": max(_gain(p) for p in points),
    }


def run(quick: bool, only: set | None):
    simulated = run_simulated(quick)
    log(f"simulated {SIM_DEVICE}: worst gain {simulated['worst_gain']}, best "
        f"{simulated['best_gain']}")
    cpu = run_cpu(quick)
    result = {
        "experiment": "sharing-sweep",
        "environment": report.environment(),
        "quick": quick,
        "family": {"blocks": BLOCKS, "width": WIDTH, "rows": ROWS},
        "family_simulated": {"blocks": SIM_BLOCKS, "width": SIM_WIDTH, "rows": SIM_ROWS},
        **_summary(cpu["points"]),
        "outputs_equal": all(p["outputs_equal"] for p in cpu["points"]),
        **cpu,
        "simulated": simulated,
        "cores": len(os.sched_getaffinity(0)),
    }
    result["targets"] = {
        "overhead_at_zero": {"target": 0.02, "met": result["overhead_at_zero"] <= 0.02},
        "worst_gain": {"target": 0.98, "met": result["worst_gain"] >= 0.98},
        "outputs_equal": {"target": True, "met": result["outputs_equal"]},
    }
    series = {}
    for fan_out in FAN_OUTS:
        for name, key in (("", "gain"), (" (limit)", "limit")):
            series[f"{fan_out} pipelines, equal inputs{name}"] = [
                (p["fraction"], p[key]) for p in result["gain_curve"][str(fan_out)]["100"]
            ]
    series["8 pipelines, half equal"] = [
        (p["fraction"], p["gain"]) for p in result["gain_curve"]["8"]["50"]
    ]
    series["8 pipelines, own inputs"] = [
        (p["fraction"], p["gain"]) for p in result["gain_curve"]["8"]["0"]
    ]
    svg = report.curves(
        "Throughput of sharing over no sharing, CPU", series, "percent shared", "times"
    )
    return result, svg
