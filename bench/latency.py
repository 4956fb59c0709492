"""Batch-1 latency and memory of every model, 1 and 2 threads, against ONNX Runtime.

Both systems run in processes of their own with all models loaded. Per model and thread count the
systems are interleaved (A B B A ...) over at least 10 rounds; a round's value is the median of its
runs. Outputs are compared in the same run.
"""

import pathlib
import sys
import tempfile
import time

import numpy as np

import models
import report
import workers

THREADS = (1, 2)
# A round runs at least so long per system, so that its median is of many runs where runs are short.
ROUND_MS = 60
# Threads of the other system may still spin after its round.
SETTLE_S = 0.03


def _measure(pair: dict, case: models.Case, inputs: list, rounds: int, iterations: dict) -> dict:
    times = {label: [] for label in pair}
    order = list(pair)
    for i in range(rounds):
        for label in order if i % 2 == 0 else reversed(order):
            time.sleep(SETTLE_S)
            answer = pair[label].call(
                cmd="run", name=str(case.path), inputs=inputs, iterations=iterations[label]
            )
            # The mean over the input sets, the median over the iterations.
            runs = np.asarray(answer["ms"]).reshape(-1, len(inputs)).mean(axis=1)
            times[label].append(float(np.median(runs)))
    return times


def run(quick: bool, only: set | None):
    models.prepare()
    rounds = 10 if quick else 20
    cases = [c for c in models.cases() if only is None or c.name in only]
    results = {c.name: {} for c in cases}
    ratios = {t: {} for t in THREADS}
    memory = {}
    failed = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        for threads in THREADS:
            with workers.plexus_worker(threads) as plexus, workers.ort_worker(threads) as ort:
                pair = {"plexus": plexus, "ort": ort}
                base = {k: w.call(cmd="memory")["peak_bytes"] for k, w in pair.items()}
                loaded = {}
                present = set()
                for case in cases:
                    name = str(case.path)
                    inputs = [
                        models.write_inputs(folder, f"{case.name}.{i}", s)
                        for i, s in enumerate(case.inputs)
                    ]
                    outputs, iterations = {}, {}
                    for label, worker in pair.items():
                        if case.path not in present:
                            worker.call(cmd="load", name=name, path=str(case.path))
                        warm = worker.call(
                            cmd="run",
                            name=name,
                            inputs=inputs,
                            iterations=3,
                            outputs_to=str(folder / f"{case.name}.{label}"),
                        )
                        outputs[label] = warm["outputs"]
                        per_iteration = min(warm["ms"][-len(inputs) :]) * len(inputs)
                        iterations[label] = int(np.clip(ROUND_MS / max(per_iteration, 1e-3), 3, 400))
                    error = models.relative_error(outputs["ort"], outputs["plexus"])
                    results[case.name]["rel_err"] = max(
                        error, results[case.name].get("rel_err", 0.0)
                    )
                    if not error <= case.tolerance:
                        failed.append(f"{case.name} ({threads}t): error {error:.2e}")
                    present.add(case.path)
                    loaded[case.name] = (inputs, iterations)
                memory[threads] = {
                    k: w.call(cmd="memory")["peak_bytes"] - base[k] for k, w in pair.items()
                }
                for case in cases:
                    inputs, iterations = loaded[case.name]
                    times = _measure(pair, case, inputs, rounds, iterations)
                    for label in pair:
                        results[case.name][f"{label}_ms_{threads}t"] = round(
                            float(np.median(times[label])), 5
                        )
                    ratio = report.paired_ratio(times["plexus"], times["ort"])
                    ratios[threads][case.name] = ratio
                    results[case.name][f"ratio_{threads}t"] = ratio
                    print(
                        f"{case.name:16} {threads}t  plexus {np.median(times['plexus']):9.4f} ms  "
                        f"ort {np.median(times['ort']):9.4f} ms  ratio {ratio['median']:.3f} "
                        f"[{ratio['low']:.3f}, {ratio['high']:.3f}]  "
                        f"err {results[case.name]['rel_err']:.1e}",
                        file=sys.stderr,
                        flush=True,
                    )
    medians = {t: {n: r["median"] for n, r in ratios[t].items()} for t in THREADS}
    result = {
        "experiment": "latency",
        "environment": report.environment(),
        "quick": quick,
        "rounds": rounds,
        "models": results,
        "geomean_ratio_1t": round(report.geomean(medians[1].values()), 4),
        "geomean_ratio_2t": round(report.geomean(medians[2].values()), 4),
        "worst_ratio": round(max(max(m.values()) for m in medians.values()), 4),
        "rss_ratio": round(
            max(memory[t]["plexus"] / max(memory[t]["ort"], 1) for t in THREADS), 4
        ),
        "peak_bytes": memory,
        "wrong_outputs": failed,
    }
    rows = [
        (f"{name} {t}t", m, f"{m:.2f}")
        for name in results
        for t, m in ((t, medians[t][name]) for t in THREADS)
    ]
    svg = report.bars(
        "Latency, batch 1: Plexus / ONNX Runtime (below 1 is faster)", rows, "ratio of medians", 1.0
    )
    if failed:
        print("WRONG OUTPUTS: " + "; ".join(failed), file=sys.stderr)
    return result, svg
