"""Eight CNNs under one load: Plexus's policies, ONNX Runtime's ways to serve, an ideal queue.

Real runs on this machine's CPU. Every system gets identical arrivals, open loop; latency counts
from the scheduled arrival. Each run's sample has the mix's exact shares in shuffled order, and its
gaps are scaled so that the offered load is exactly the stated share of the best ONNX Runtime
configuration's saturation. Slowdown is latency over the model's time alone on one core of the idle
machine, in Plexus, for every system; `slowdown2` over its time alone on both cores.
"""

import contextlib
import os
import pathlib
import sys
import tempfile
import time

import numpy as np

import load_setup
import models
import queue_model
import report
import workers
from load_setup import MIX, NAMES

# Fair shares are the models', each a tenant: a model may lack one second of device time.
PLEXUS = {
    "plexus_fifo": "fifo",
    "plexus_srpt": "srpt",
    "plexus_stretch": "stretch",
    "plexus_fair": "fair(srpt, 1000000)",
}
ORT = {"ort_1x2": "1x2", "ort_2x1": "2x1", "ort_per_request": "per-request"}
IDEAL = ("fifo", "srpt", "stretch")
KEY_CELL = (1.5, 70)
BACKLOG = 120
# Requests per run; the cell whose ratios are targets gets most of the time.
REQUESTS = {KEY_CELL: 800}
OTHER_REQUESTS = 160
QUICK_REQUESTS = 200
TARGETS = {
    "mean_gain": 1.5,
    "slowdown_gain": 4.0,
    "p99_short_gain": 5.0,
    "p99_all_gain": 0.85,
    "slowdown_gain_stretch": 3.3,
    "mean_of_ideal": 0.9,
    "saturation_ratio": 0.95,
}


def log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Systems:
    """The processes: one Plexus, one ONNX Runtime per configuration; all loaded and warm."""

    def __init__(self, stack: contextlib.ExitStack, folder: pathlib.Path):
        self.stack = stack
        self.inputs = load_setup.Inputs(folder)
        self.workers = {}
        self.choices = {}

        reference = self._start(workers.ort_load("2x1"))
        self.inputs.take_expected(reference)
        for name in NAMES:
            self.inputs.prepare(reference, name)
        self.workers["ort_2x1"] = reference
        # With one thread inside a run there is no pool whose threads could spin.
        self.workers["ort_per_request"] = self._start(workers.ort_load("per-request"))
        self.workers["ort_1x2"] = self._best_two_threads()
        self.plexus = self._start(workers.plexus_worker(0))
        self.policy = None

    def _start(self, context):
        worker = self.stack.enter_context(context)
        self.inputs.load_into(worker)
        load_setup.warm(worker)
        return worker

    def _best_two_threads(self):
        """Idle pools may spin or sleep, and be shared by the sessions or not: keeps the best."""
        best, best_rate = None, 0.0
        # The sessions' own option has no effect on a shared pool.
        for options in (("spin",), ("nospin",), ("spin", "shared")):
            worker = workers.ort_load("1x2", *options)
            worker.__enter__()
            self.inputs.load_into(worker)
            load_setup.warm(worker)
            rate = max(self._rate(worker, seed) for seed in (1, 2))
            self.choices[" ".join(options)] = round(rate, 2)
            if rate > best_rate:
                best, worker, best_rate = worker, best, rate
            if worker is not None:
                worker.__exit__(None, None, None)
        self.stack.push(best)
        return best

    @staticmethod
    def _rate(worker, seed: int) -> float:
        rng = np.random.default_rng(seed)
        which = queue_model.mixture(MIX, BACKLOG, rng)
        return BACKLOG / load_setup.replay(worker, [0] * BACKLOG, which)["wall_ms"] * 1e3

    def names(self) -> list:
        return [*PLEXUS, *ORT]

    def pids(self) -> list:
        return [self.plexus.process.pid] + [w.process.pid for w in self.workers.values()]

    def select(self, system: str):
        if system not in PLEXUS:
            return self.workers[system]
        if self.policy != system:
            self.plexus.call(cmd="policy", policy=PLEXUS[system])
            self.policy = system
        return self.plexus

    def saturation(self, rounds: int) -> dict:
        """Requests per second with all requests there from the start, by round."""
        rates = {name: [] for name in self.names()}
        for i in range(rounds):
            order = self.names() if i % 2 == 0 else reversed(self.names())
            for name in order:
                rates[name].append(self._rate(self.select(name), i + 1))
        return rates


def service_times(inputs: load_setup.Inputs, plexus, runs: int):
    """(one-core, two-core) times alone, both Plexus's own."""
    with workers.plexus_worker(1) as single:
        inputs.load_into(single)
        load_setup.warm(single)
        one = load_setup.alone_ms(single, runs)
    two = load_setup.alone_ms(plexus, runs)
    return one, two


class Sample:
    """Latencies of one system in one cell, all seeds together."""

    def __init__(self):
        self.runs = []  # (which, latency)

    def add(self, which, latency) -> None:
        self.runs.append((np.asarray(which), np.asarray(latency)))

    def _pool(self, seeds):
        chosen = [self.runs[s] for s in (range(len(self.runs)) if seeds is None else seeds)]
        return tuple(np.concatenate(part) for part in zip(*chosen))

    def value(self, metric: str, one, two, seeds=None) -> float:
        which, latency = self._pool(seeds)
        if metric == "mean":
            return float(np.mean(latency))
        if metric == "slowdown":
            return float(np.mean(latency / np.asarray(one)[which]))
        if metric == "slowdown2":
            return float(np.mean(latency / np.asarray(two)[which]))
        if metric == "p99_short":
            short = np.isin(which, [NAMES.index(n) for n in load_setup.SHORT])
            return float(np.percentile(latency[short], 99))
        return float(np.percentile(latency, 99))

    def summary(self, one, two) -> dict:
        which, latency = self._pool(None)
        out = _summary(latency, np.asarray(one)[which], np.asarray(two)[which])
        out["p99_short_ms"] = round(self.value("p99_short", one, two), 3)
        out["models"] = {
            name: _summary(latency[which == i], one[i], two[i])
            for i, name in enumerate(NAMES)
            if np.any(which == i)
        }
        return out


def _summary(latency, one, two) -> dict:
    slowdown = latency / one
    return {
        "requests": int(latency.size),
        "mean_ms": round(float(np.mean(latency)), 3),
        "p50_ms": round(float(np.percentile(latency, 50)), 3),
        "p99_ms": round(float(np.percentile(latency, 99)), 3),
        "mean_slowdown": round(float(np.mean(slowdown)), 3),
        "p99_slowdown": round(float(np.percentile(slowdown, 99)), 3),
        "mean_slowdown2": round(float(np.mean(latency / two)), 3),
    }


def ratio(over: Sample, under: Sample, metric: str, one, two) -> dict:
    """Ratio of the pooled values; 95 % interval by resampling whole runs (bootstrap, seed 1)."""
    rng = np.random.default_rng(1)
    count = len(over.runs)
    draws = []
    for _ in range(400):
        seeds = rng.integers(0, count, count)
        draws.append(over.value(metric, one, two, seeds) / under.value(metric, one, two, seeds))
    low, high = np.percentile(draws, [2.5, 97.5])
    value = over.value(metric, one, two) / under.value(metric, one, two)
    return {"value": round(value, 3), "low": round(float(low), 3), "high": round(float(high), 3)}


def run(quick: bool, only: set | None):
    models.prepare()
    sigmas = (1.5,) if quick else (1.5, 2.0)
    loads = (70,) if quick else (50, 70, 85)
    seeds = (1, 2) if quick else (1, 2, 3, 4, 5)
    began = time.monotonic()
    cores = len(os.sched_getaffinity(0))
    cells, worst_error, runs = {}, {}, []
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        systems = Systems(stack, folder)
        names = [n for n in systems.names() if only is None or n in only]
        one, two = service_times(systems.inputs, systems.plexus, 5 if quick else 11)
        log("alone, one core:  " + "  ".join(f"{n} {t:.1f}" for n, t in zip(NAMES, one)))
        log("alone, two cores: " + "  ".join(f"{n} {t:.1f}" for n, t in zip(NAMES, two)))
        rates = systems.saturation(2 if quick else 4)
        saturation = {name: round(float(np.median(r)), 3) for name, r in rates.items()}
        best_ort = max(ORT, key=lambda name: saturation[name])
        log(f"saturation (requests/s): {saturation}; best ONNX Runtime: {best_ort}")
        other = load_setup.OtherLoad(systems.pids())

        turn = 0
        for sigma in sigmas:
            for load in loads:
                cell = cells[(sigma, load)] = {}
                count = QUICK_REQUESTS if quick else REQUESTS.get((sigma, load), OTHER_REQUESTS)
                for seed in seeds:
                    rng = np.random.default_rng(seed)
                    which = queue_model.mixture(MIX, count, rng)
                    at = np.asarray(queue_model.arrivals(count, sigma, rng))
                    at *= count / at[-1] * 1e3 / (saturation[best_ort] * load / 100)
                    order = names if turn % 2 == 0 else list(reversed(names))
                    turn += 1
                    for name in order:
                        other.share(cores)
                        answer = load_setup.replay(systems.select(name), at, which)
                        cell.setdefault(name, Sample()).add(which, answer["latency_ms"])
                        worst_error[name] = max(worst_error.get(name, 0.0), answer["rel_err"])
                        runs.append(
                            {
                                "sigma": sigma,
                                "load": load,
                                "seed": seed,
                                "system": name,
                                "mean_ms": round(float(np.mean(answer["latency_ms"])), 3),
                                "late_p99_ms": round(
                                    float(np.percentile(answer["late_ms"], 99)), 3
                                ),
                                "other_load": round(other.share(cores), 3),
                            }
                        )
                        log(str(runs[-1]))
                    for policy in IDEAL:
                        latency = queue_model.ideal(list(at), which, one, two, policy)
                        cell.setdefault(f"ideal_{policy}", Sample()).add(which, latency)

    result = {
        "experiment": "mix8",
        "environment": report.environment(),
        "quick": quick,
        "policies": PLEXUS,
        "tenants": "one per model (fair)",
        "slowdown_reference": "Plexus alone, one core (slowdown) and both cores (slowdown2)",
        "alone_1_core_ms": dict(zip(NAMES, (round(t, 3) for t in one))),
        "alone_2_cores_ms": dict(zip(NAMES, (round(t, 3) for t in two))),
        "ort_1x2_choices_rps": systems.choices,
        "saturation_rps": saturation,
        "best_ort": best_ort,
        "requests_per_run": {
            f"{s}/{c}": len(cells[(s, c)]["ideal_srpt"].runs[0][0]) for s, c in cells
        },
        "seeds": list(seeds),
    }
    for (sigma, load), cell in cells.items():
        result.setdefault(f"sigma_{sigma}", {})[f"load_{load}"] = {
            name: sample.summary(one, two) for name, sample in cell.items()
        }
    if only is None:
        result |= headline(cells[KEY_CELL], best_ort, saturation, one, two)
    result["worst_rel_err"] = worst_error
    result["wrong_outputs"] = [n for n, e in worst_error.items() if e > load_setup.TOLERANCE]
    result["runs"] = runs
    result["other_load_mean"] = round(float(np.mean([r["other_load"] for r in runs])), 3)
    result["seconds"] = round(time.monotonic() - began)
    for name in result["wrong_outputs"]:
        log(f"WRONG OUTPUTS: {name}: error {worst_error[name]:.2e}")
    return result, plot(cells[KEY_CELL], one, two)


def headline(cell: dict, best_ort: str, saturation: dict, one, two) -> dict:
    """The ratios at 70 %, sigma 1.5, against the ONNX Runtime with the highest saturation; and the
    same against each of the others."""
    wanted = {
        "mean_gain": ("mean", "plexus_srpt"),
        "slowdown_gain": ("slowdown", "plexus_srpt"),
        "slowdown2_gain": ("slowdown2", "plexus_srpt"),
        "p99_short_gain": ("p99_short", "plexus_srpt"),
        "p99_all_gain": ("p99", "plexus_stretch"),
        "slowdown_gain_stretch": ("slowdown", "plexus_stretch"),
        "slowdown2_gain_stretch": ("slowdown2", "plexus_stretch"),
    }

    def gains(baseline, ours=lambda name: name):
        return {
            key: ratio(cell[baseline], cell[ours(name)], metric, one, two)
            for key, (metric, name) in wanted.items()
        }

    against = {name: gains(name) for name in ORT}
    ideal = ratio(cell["ideal_srpt"], cell["plexus_srpt"], "mean", one, two)
    out = {key: value["value"] for key, value in against[best_ort].items()}
    out["mean_of_ideal"] = ideal["value"]
    ours = max(saturation[name] for name in PLEXUS)
    out["saturation_ratio"] = round(ours / saturation[best_ort], 4)
    out["intervals"] = against[best_ort] | {"mean_of_ideal": ideal}
    out["gains_against"] = {
        system: {key: value["value"] for key, value in row.items()}
        for system, row in against.items()
    }
    # What the ideal queue itself would reach here: the bound on every gain.
    out["ideal_gains"] = {
        key: value["value"]
        for key, value in gains(best_ort, lambda name: name.replace("plexus", "ideal")).items()
    }
    out["targets"] = {key: {"target": t, "met": out[key] >= t} for key, t in TARGETS.items()}
    return out


def plot(cell: dict, one, two) -> str:
    rows = []
    for name, sample in cell.items():
        slow = sample.value("slowdown", one, two)
        mean = sample.value("mean", one, two)
        p99 = sample.value("p99", one, two)
        rows.append((name, slow, f"{slow:.2f}  (mean {mean:.0f} ms, p99 {p99:.0f} ms)"))
    return report.bars("Eight CNNs at 70 % load, sigma 1.5: mean slowdown", rows, "times alone")
