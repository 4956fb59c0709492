"""Tenants that share a CPU: what a flood does to a light tenant, and what weights are worth.

Real runs. A light tenant asks for one resnet18 at a time (closed loop, exponential pauses) while
another keeps FLOOD requests of the eight-CNN mix going; then two tenants flood with weights 3:1,
and the device time each got while both were at it is compared.
"""

import contextlib
import os
import pathlib
import sys
import tempfile

import numpy as np

import load_setup
import models
import queue_model
import report
import workers
from load_setup import MIX, NAMES

LIGHT, HEAVY = 1, 2
FLOOD = 8
# Device time that a tenant may lack before it goes first: below what one block of the flood takes.
THRESHOLD_US = 100
FAIR = f"fair(srpt, {THRESHOLD_US})"
THINK_MS = 400.0  # a resnet18 is 35 ms of one of two cores: under 5 % of the machine
WEIGHTS = (3.0, 1.0)
TARGETS = {"light_p99_ratio": 1.5, "weight_ratio_error": 0.05}


def log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def light(rng) -> dict:
    return {
        "tenant": LIGHT,
        "in_flight": 1,
        "which": [NAMES.index("resnet18")],
        "think_ms": [float(t) for t in rng.exponential(THINK_MS, 1000)],
    }


def flood(tenant: int, rng) -> dict:
    which = queue_model.mixture(MIX, 1000, rng)
    return {
        "tenant": tenant,
        "in_flight": FLOOD,
        "which": [int(i) for i in which],
        "think_ms": [],
    }


def clients(worker, seconds: float, *specs) -> dict:
    return worker.call(cmd="clients", models=NAMES, seconds=seconds, clients=list(specs))


def run(quick: bool, only: set | None):
    models.prepare()
    # Alone and under the flood take turns: A B B A.
    rounds, seconds = (2, 20) if quick else (8, 30)
    policies = [FAIR, "fifo", "srpt"]
    alone, loaded, shares, errors, others = [], {p: [] for p in policies}, [], [], []
    load_share = []
    cores = len(os.sched_getaffinity(0))
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        inputs = load_setup.Inputs(folder)
        with workers.ort_load("2x1") as ort:
            inputs.load_into(ort)
            inputs.take_expected(ort)
        plexus = stack.enter_context(workers.plexus_worker(0))
        inputs.load_into(plexus)
        load_setup.warm(plexus)
        other = load_setup.OtherLoad([plexus.process.pid])

        def measure(policy, *specs):
            plexus.call(cmd="policy", policy=policy)
            other.share(cores)
            answer = clients(plexus, seconds, *specs)
            others.append(other.share(cores))
            errors.append(answer["rel_err"])
            return answer

        for i in range(rounds):
            rng = np.random.default_rng(i + 1)
            steps = ["alone", FAIR] if i % 2 == 0 else [FAIR, "alone"]
            # The others are for comparison only.
            for step in steps + (policies[1:] if i < 2 else []):
                if step == "alone":
                    answer = measure(FAIR, light(rng))
                    alone.append(answer["clients"][0]["latency_ms"])
                    latency = alone[-1]
                else:
                    answer = measure(step, light(rng), flood(HEAVY, rng))
                    loaded[step].append(answer["clients"][0]["latency_ms"])
                    latency = loaded[step][-1]
                    if step == FAIR:
                        times = [c["tenant_ms"] for c in answer["clients"]]
                        load_share.append(times[0] / sum(times))
                log(
                    f"{step}: resnet18 x {len(latency)}, median {np.median(latency):.1f} ms, "
                    f"p99 {np.percentile(latency, 99):.1f} ms; others {others[-1]:.2f}"
                )

        for tenant, weight in zip((LIGHT, HEAVY), WEIGHTS):
            plexus.call(cmd="weight", tenant=tenant, weight=weight)
        for i in range(max(2, rounds // 2)):
            rng = np.random.default_rng(i + 101)
            answer = measure(FAIR, flood(LIGHT, rng), flood(HEAVY, rng))
            times = [c["tenant_ms"] for c in answer["clients"]]
            shares.append(times[0] / times[1])
            log(f"weights 3:1: device time {times[0]:.0f} and {times[1]:.0f} ms")

    pooled = {"alone": np.concatenate(alone)}
    pooled |= {p: np.concatenate(latencies) for p, latencies in loaded.items()}
    alone_p99 = float(np.percentile(pooled["alone"], 99))
    wanted = WEIGHTS[0] / WEIGHTS[1]
    ratio = float(np.median(shares))
    result = {
        "experiment": "fairness",
        "environment": report.environment(),
        "quick": quick,
        "policy": FAIR,
        "flood_in_flight": FLOOD,
        "think_ms": THINK_MS,
        "light": {
            name: {
                "requests": int(latency.size),
                "p50_ms": round(float(np.percentile(latency, 50)), 3),
                "p99_ms": round(float(np.percentile(latency, 99)), 3),
                "p99_ratio": round(float(np.percentile(latency, 99)) / alone_p99, 3),
            }
            for name, latency in pooled.items()
        },
        "light_share_of_device_time": round(float(np.mean(load_share)), 4),
        "light_p99_ratio": round(float(np.percentile(pooled[FAIR], 99)) / alone_p99, 3),
        "weights": WEIGHTS,
        "weight_ratios": [round(s, 4) for s in shares],
        "weight_ratio": round(ratio, 4),
        "weight_ratio_error": round(abs(ratio / wanted - 1), 4),
        "worst_rel_err": max(errors),
        "wrong_outputs": max(errors) > load_setup.TOLERANCE,
        "other_load_mean": round(float(np.mean(others)), 3),
    }
    result["targets"] = {
        key: {"target": t, "met": result[key] <= t} for key, t in TARGETS.items()
    }
    rows = [
        (name, row["p99_ratio"], f"{row['p99_ratio']:.2f}  (p99 {row['p99_ms']:.0f} ms)")
        for name, row in result["light"].items()
    ]
    svg = report.bars("A light tenant beside a flood: p99 of resnet18", rows, "times alone", 1.5)
    return result, svg
