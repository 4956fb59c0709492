"""Six wake words on one shared path, against no sharing and sharing of whole models.

Real servers on this machine's CPU, over HTTP. Six pipelines have the mel spectrogram and the
embedding in common. The same clips are asked

- in one request that names all six pipelines (group),
- in six requests at once, on six connections (separate: coalesced where the server shares), and
- in six requests at once, each with a clip of its own (distinct: nothing to compute once).

`none` is a server without sharing of work and, for memory, a server process per pipeline. `models`
shares by file: one process, each model's weights once, every request does its own work; in a server
that holds constants by content that is the same process as `none` has for time.

arithmetic_limit: the processor time of the six pipelines by themselves over what is left when the
shared path is counted once; the shared path's own time comes from a pipeline that ends before the
head. of_limit: throughput_gain of the group over it.
"""

import contextlib
import os
import pathlib
import shutil
import sys
import tempfile
import time
import wave

import numpy as np

import report
from serving import Connection, Crew, Server, busy_ms, decode, encode

WORDS = ("alexa", "hey-jarvis", "hey-mycroft", "hey-rhasspy", "timer", "weather")
NAMES = [f"wake-{word}" for word in WORDS]
PATH = "shared-path"  # a pipeline of the common stages alone
CLIPS = ("alexa.wav", "hey-jarvis.wav", "timer.wav", "weather.wav")
REPOSITORY = report.ROOT / "build" / "samples" / "repository"
TARGETS = {"of_limit": 0.9, "of_limit_separate": 0.9}


def log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def clips() -> list:
    out = []
    for name in CLIPS:
        with wave.open(str(report.ROOT / "examples" / "audio" / name)) as file:
            out.append(np.frombuffer(file.readframes(file.getnframes()), np.int16))
    return out


def variants(count: int, rng) -> list:
    """Clips that no two requests share: recordings with a little noise of their own."""
    base = clips()
    out = []
    for i in range(count):
        noise = rng.integers(-2, 3, len(base[i % len(base)])).astype(np.int16)
        out.append(encode({"audio": base[i % len(base)] + noise}))
    return out


def measure(server: Server, mode: str, rounds: int, rng) -> dict:
    """Answers to all six pipelines per round, for `rounds` clips."""
    bodies = variants(rounds * (len(NAMES) if mode == "distinct" else 1), rng)
    names = [",".join(NAMES)] if mode == "group" else NAMES
    crew = Crew(server, names)
    if mode == "distinct":
        asked = [bodies[i * len(names) : (i + 1) * len(names)] for i in range(rounds)]
    else:
        asked = [[body] * len(names) for body in bodies]
    begin = time.monotonic()
    answers = [answer for one in crew.rounds(asked) for answer in one]
    wall = time.monotonic() - begin
    decoded = [decode(answer) for answer, _ in answers]
    if mode == "group":
        scores = [one[f"{name}.score"] for one in decoded for name in NAMES]
    else:
        scores = [one["score"] for one in decoded]
    return {
        "per_s": rounds * len(NAMES) / wall,
        "p99_ms": float(np.percentile([took for _, took in answers], 99)) * 1e3,
        "outputs": scores,
    }


def equal(a: list, b: list) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def make_repositories(folder: pathlib.Path):
    """(all six and the shared path, one per pipeline)"""
    whole = folder / "whole"
    shutil.copytree(REPOSITORY, whole, symlinks=True)
    source = (REPOSITORY / "pipelines" / "wake-alexa.yaml").read_text()
    lines = source.replace("name: wake-alexa", f"name: {PATH}").splitlines()
    cut = next(i for i, line in enumerate(lines) if "name: history" in line)
    text = "\n".join(lines[:cut]) + "\noutputs:\n  - {name: vectors, from: vectors}\n"
    (whole / "pipelines" / f"{PATH}.yaml").write_text(text)
    singles = []
    for name in NAMES:
        single = folder / name
        (single / "pipelines").mkdir(parents=True)
        shutil.copy(REPOSITORY / "pipelines" / f"{name}.yaml", single / "pipelines")
        text = (single / "pipelines" / f"{name}.yaml").read_text()
        for model in REPOSITORY.iterdir():
            if f"model: {model.name}," in text:
                shutil.copytree(model, single / model.name)
        singles.append(single)
    six = folder / "six"
    for single in singles:
        shutil.copytree(single, six, dirs_exist_ok=True)
    (folder / "empty").mkdir()
    return whole, six, singles, folder / "empty"


def memory(repository: pathlib.Path, names: list) -> int:
    with Server(repository) as server:
        connection, body = Connection(server), encode({"audio": clips()[0]})
        for name in names:
            connection.ask(name, *body)
        return server.resident_bytes()


def run(quick: bool, only: set | None):
    rounds, repeats = (20, 3) if quick else (40, 10)
    modes = ["group", "separate", "distinct"]
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        whole, six, singles, empty = make_repositories(folder)
        nothing = memory(empty, [])
        together = memory(six, NAMES) - nothing
        apart = sum(memory(single, [name]) - nothing for single, name in zip(singles, NAMES))

        shared = stack.enter_context(Server(whole))
        unshared = stack.enter_context(Server(whole, "--no-sharing"))
        runs = 5 if quick else 25
        clip = encode({"audio": clips()[0]})
        times = busy_ms(unshared, [*NAMES, PATH], clip, runs)
        alone = {name: float(np.median(times[name])) for name in NAMES}
        # The shared path's part of a pipeline, run by run.
        mean = np.mean([times[name] for name in NAMES], axis=0)
        part = min(1.0, float(np.median(np.asarray(times[PATH]) / mean)))
        path = part * sum(alone.values()) / len(NAMES)
        limit = len(NAMES) / (len(NAMES) - (len(NAMES) - 1) * part)
        log(f"processor time, ms: {alone}, shared path {path:.2f}: limit {limit:.2f}")

        found = {mode: {"shared": [], "none": []} for mode in modes}
        same = True
        for server in (shared, unshared):
            measure(server, "separate", 3, np.random.default_rng(0))  # compiles
        for repeat in range(repeats):
            for mode in modes:
                # Without sharing six pipelines are six requests, whatever they are asked about.
                how_unshared = mode.replace("group", "separate")
                systems = [("shared", shared, mode), ("none", unshared, how_unshared)]
                outputs = {}
                for system, server, how in systems if repeat % 2 == 0 else systems[::-1]:
                    got = measure(server, how, rounds, np.random.default_rng(repeat + 1))
                    outputs[system] = got.pop("outputs")
                    found[mode][system].append(got)
                same = same and equal(outputs["shared"], outputs["none"])
                log(
                    f"{mode}: {found[mode]['shared'][-1]['per_s']:.1f} answers/s shared, "
                    f"{found[mode]['none'][-1]['per_s']:.1f} unshared; outputs equal: {same}"
                )
        counters = shared.sharing()

    def gain(mode, key):
        ours = [r[key] for r in found[mode]["shared"]]
        theirs = [r[key] for r in found[mode]["none"]]
        if key == "per_s":
            return report.paired_ratio(ours, theirs)
        return report.paired_ratio(theirs, ours)

    gains = {m: {"throughput_gain": gain(m, "per_s"), "p99_gain": gain(m, "p99_ms")} for m in modes}
    result = {
        "experiment": "sharing-wake",
        "environment": report.environment(),
        "quick": quick,
        "clips": rounds,
        "repeats": repeats,
        "busy_ms_alone": {name: round(ms, 3) for name, ms in alone.items()},
        "busy_ms_shared_path": round(path, 3),
        "arithmetic_limit": round(limit, 3),
        "throughput_gain": gains["group"]["throughput_gain"]["median"],
        "throughput_gain_separate": gains["separate"]["throughput_gain"]["median"],
        "throughput_gain_distinct": gains["distinct"]["throughput_gain"]["median"],
        "of_limit": round(gains["group"]["throughput_gain"]["median"] / limit, 3),
        "of_limit_separate": round(gains["separate"]["throughput_gain"]["median"] / limit, 3),
        "p99_gain": gains["group"]["p99_gain"]["median"],
        "memory_gain": round(apart / together, 3),
        "memory_mib": {
            "process_per_pipeline": round(apart / 2**20, 1),
            "one_process": round(together / 2**20, 1),
        },
        "outputs_equal": same,
        "gains": gains,
        "sharing_counters": counters,
        "cores": len(os.sched_getaffinity(0)),
    }
    result["targets"] = {key: {"target": t, "met": result[key] >= t} for key, t in TARGETS.items()}
    medians = {mode: gains[mode]["throughput_gain"]["median"] for mode in modes}
    rows = [
        ("arithmetic limit", limit, f"{limit:.2f}"),
        *((mode, medians[mode], f"{medians[mode]:.2f}") for mode in modes),
    ]
    return result, report.bars("Six wake words: throughput over no sharing", rows, "times")
