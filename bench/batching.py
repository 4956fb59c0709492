"""Batching policies against each other under deadlines: a simulated A100, and this machine's CPU.

attainment: the part of all requests that ended within their deadline, 5 times their time alone,
counted from the scheduled arrival; by policy and load. Loads are multiples of what the system does
without batches when everything is there at once.

Simulated: four pipelines on one backbone (workloads/batching.yaml, which gives the segments' times
by batch size), the real dispatcher and the real queues, the code of the server.

Real: three rankers (layers of 2048 x 2048 in common, a head of their own: reading the weights is
what takes the time, so batches pay) and squeezenet1.1 (where they do not), every request with
another input; outputs are compared with ONNX Runtime's.
"""

import contextlib
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import queue_model
import report
from onnx import helper, numpy_helper
from simulated import ROOT, Simulator
from workers import Worker

import models

POLICIES = ["none", "immediate", "timeout(500)", "deferred", "path-aware"]
SLO_SCALE = 5
SIM_LOADS = [0.5, 0.8, 1.0, 1.5, 2.0, 3.0]
REAL_LOADS = [0.5, 0.8, 1.0, 1.3]
RANKERS = 3
WIDTH, LAYERS, CLASSES = 2048, 4, 512
VARIANTS = 32
# In the order of the files below.
SHARES = {**{f"ranker-{i}": 0.27 for i in range(RANKERS)}, "squeezenet1.1": 0.19}
SIGMA = 1.5
TOLERANCE = 1e-3


def log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# --- Simulated


def simulate(quick: bool, processes: int | None) -> dict:
    jobs = 1000 if quick else 3000
    seeds = [1] if quick else [1, 2, 3, 4, 5]
    loads = [0.5, 1.0, 2.0] if quick else SIM_LOADS
    workload = str(ROOT / "bench" / "workloads" / "batching.yaml")
    with Simulator(workload, processes) as simulator:
        at_once = {"kind": "at-once", "jobs": jobs, "seed": 1}
        saturation = {
            policy: simulator.run([{**at_once, "scheduler": {"batching": policy}}])[0][
                "throughput_per_s"
            ]
            for policy in POLICIES
            if not policy.startswith("timeout")
        }
        base = saturation["none"]
        points = [(p, load, seed) for p in POLICIES for load in loads for seed in seeds]
        answers = simulator.run(
            [
                {
                    "jobs": jobs,
                    "seed": seed,
                    "mean_gap_ms": 1e3 / (base * load),
                    "slo_scale": SLO_SCALE,
                    "scheduler": {"batching": policy},
                }
                for policy, load, seed in points
            ]
        )
        about = simulator.about
    by = {}
    for (policy, load, _), answer in zip(points, answers):
        by.setdefault(policy, {}).setdefault(str(load), []).append(answer["all"])
    return {
        "device": about["device"],
        "alone_ms": {m["model"]: round(m["alone_ms"], 4) for m in about["models"]},
        "saturation_rps": {p: round(v, 1) for p, v in saturation.items()},
        "seeds": seeds,
        "attainment": {
            p: {k: round(float(np.mean([r["attainment"] for r in rows])), 4) for k, rows in v.items()}
            for p, v in by.items()
        },
        "mean_ms": {
            p: {k: round(float(np.mean([r["mean_ms"] for r in rows])), 4) for k, rows in v.items()}
            for p, v in by.items()
        },
        "p99_ms": {
            p: {k: round(float(np.mean([r["p99_ms"] for r in rows])), 4) for k, rows in v.items()}
            for p, v in by.items()
        },
    }


# --- Real


def write_rankers(folder: Path) -> dict:
    """ONNX files by name: equal layers, then a head of each one's own."""
    rng = np.random.default_rng(7)
    trunk = [
        (rng.standard_normal((WIDTH, WIDTH)) * (2 / WIDTH) ** 0.5).astype(np.float32)
        for _ in range(LAYERS)
    ]
    files = {}
    for index in range(RANKERS):
        head = (rng.standard_normal((WIDTH, CLASSES)) / WIDTH**0.5).astype(np.float32)
        nodes, constants, value = [], [], "features"
        for i, weights in enumerate([*trunk, head]):
            constants.append(numpy_helper.from_array(weights, f"w{i}"))
            last = i == LAYERS
            product = "scores" if last else f"m{i}"
            nodes.append(helper.make_node("MatMul", [value, f"w{i}"], [product], f"matmul{i}"))
            if not last:
                nodes.append(helper.make_node("Relu", [product], [f"r{i}"], f"relu{i}"))
                value = f"r{i}"
        shape = ["batch", WIDTH]
        graph = helper.make_graph(
            nodes,
            f"ranker-{index}",
            [helper.make_tensor_value_info("features", onnx.TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, ["batch", CLASSES])],
            constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        files[f"ranker-{index}"] = folder / f"ranker-{index}.onnx"
        onnx.save(model, files[f"ranker-{index}"])
    files["squeezenet1.1"] = models.GENERATED / "squeezenet1.1.onnx"
    return files


def expected_outputs(path: Path, inputs: list) -> list:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return [session.run(None, each) for each in inputs]


class Real:
    """Workers with one batching policy each, all on the same models and inputs."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.files = write_rankers(folder)
        rng = np.random.default_rng(11)
        self.cases = []  # (alias, model, inputs, expected)
        for name, path in self.files.items():
            shape = (1, 3, 224, 224) if name == "squeezenet1.1" else (1, WIDTH)
            feed = "input" if name == "squeezenet1.1" else "features"
            variants = [
                {feed: rng.standard_normal(shape, dtype=np.float32)} for _ in range(VARIANTS)
            ]
            for i, (inputs, outputs) in enumerate(zip(variants, expected_outputs(path, variants))):
                alias = f"{name}#{i}"
                self.cases.append(
                    (
                        alias,
                        name,
                        models.write_inputs(folder, alias, inputs),
                        [self._write(alias, o) for o in outputs],
                    )
                )
        self.names = list(self.files)

    def _write(self, alias: str, array: np.ndarray) -> dict:
        file = self.folder / f"{alias}.expected"
        array.tofile(file)
        return {"dtype": "FP32", "shape": list(array.shape), "file": str(file)}

    def start(self, policy: str) -> Worker:
        binary = str(ROOT / "build" / "release" / "plexus_bench_worker")
        worker = Worker(policy, [binary, "--policy", "edf", "--batching", policy])
        for name, path in self.files.items():
            worker.call(cmd="load", name=name, path=str(path))
        for alias, name, inputs, expected in self.cases:
            worker.call(cmd="prepare", name=name, inputs=inputs, expected=expected, **{"as": alias})
        return worker

    def alone_ms(self, worker) -> dict:
        out = {}
        for name in self.names:
            sets = [inputs for _, model, inputs, _ in self.cases if model == name][:4]
            times = worker.call(cmd="run", name=name, inputs=sets, iterations=8)["ms"]
            out[name] = float(np.median(times))
        return out

    def requests(self, rate: float, count: int, seed: int):
        rng = np.random.default_rng(seed)
        at = [1e3 / rate * t for t in queue_model.arrivals(count, SIGMA, rng)]
        which = queue_model.mixture(SHARES, count, rng)
        return at, [w * VARIANTS + i % VARIANTS for i, w in enumerate(which)]

    def replay(self, worker, at, which, deadlines: dict | None) -> dict:
        answer = worker.call(
            cmd="replay",
            models=[alias for alias, *_ in self.cases],
            which=which,
            arrivals_ms=at,
            tenants=[0] * len(at),
            **({"deadlines_ms": [deadlines[name] for _, name, *_ in self.cases]} if deadlines else {}),
        )
        latency = np.array(answer["latency_ms"])
        due = np.array([deadlines[self.cases[w][1]] if deadlines else np.inf for w in which])
        return {
            "attainment": float(np.mean(latency <= due)),
            "mean_ms": float(latency.mean()),
            "p99_ms": float(np.percentile(latency, 99)),
            "rows_per_batch": answer["batched_rows"] / max(1, answer["batches"]),
            "batched": answer["batched_rows"] / len(which),
            "rel_err": answer["rel_err"],
            "rps": 1e3 * len(which) / answer["wall_ms"],
        }


def measure(quick: bool) -> dict:
    seeds = [1] if quick else [1, 2, 3]
    loads = [0.5, 1.0] if quick else REAL_LOADS
    seconds = 4 if quick else 8
    with tempfile.TemporaryDirectory() as folder:
        real = Real(Path(folder))
        with contextlib.ExitStack() as stack:
            workers = {policy: stack.enter_context(real.start(policy)) for policy in POLICIES}
            alone = real.alone_ms(workers["none"])
            deadlines = {name: SLO_SCALE * ms for name, ms in alone.items()}
            # Everything at once: programs for batches are made here, and the rate without them.
            saturation = {}
            for _ in range(2):
                for policy, worker in workers.items():
                    _, which = real.requests(1000, 600, 99)
                    at_once = real.replay(worker, [0.0] * len(which), which, None)
                    saturation[policy] = at_once["rps"]
            log(f"alone {alone}, saturation {saturation}")
            by, worst = {}, 0.0
            for load in loads:
                rate = load * saturation["none"]
                for seed in seeds:
                    at, which = real.requests(rate, int(rate * seconds), seed)
                    for policy, worker in workers.items():
                        row = real.replay(worker, at, which, deadlines)
                        by.setdefault(policy, {}).setdefault(str(load), []).append(row)
                        worst = max(worst, row["rel_err"])
                        log(f"{policy} {load} {seed} {row}")
    keys = ("attainment", "mean_ms", "p99_ms", "rows_per_batch", "batched")
    return {
        "alone_ms": {k: round(v, 3) for k, v in alone.items()},
        "saturation_rps": {k: round(v, 1) for k, v in saturation.items()},
        "seeds": seeds,
        **{
            key: {
                p: {k: round(float(np.mean([r[key] for r in rows])), 4) for k, rows in v.items()}
                for p, v in by.items()
            }
            for key in keys
        },
        "worst_rel_err": worst,
        "outputs_equal": worst <= TOLERANCE,
    }


def run(quick: bool, only: set | None, processes: int | None = None):
    models.prepare()
    result = {"experiment": "batching", "quick": quick, "environment": report.environment()}
    result["slo_scale"] = SLO_SCALE
    result["simulated"] = simulate(quick, processes)
    log(f"simulated {result['simulated']['attainment']}")
    result["cpu"] = measure(quick)
    rows = [
        (f"{p}, load {load}", value, f"{100 * value:.1f} %")
        for load in list(result["simulated"]["attainment"]["none"])[1:]
        for p in POLICIES
        for value in [result["simulated"]["attainment"][p][load]]
    ]
    svg = report.bars("In time, simulated A100 (deadline 5x alone)", rows, "")
    return result, svg
