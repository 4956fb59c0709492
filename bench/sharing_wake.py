"""Six wake words on one shared path, against no sharing and sharing of whole models.

Real servers on this machine's CPU, over HTTP. Six pipelines have the mel spectrogram and the
embedding in common; sharing.py says how they are asked.

`none` is a server without sharing of work and, for memory, a server process per pipeline. Sharing
of whole models, by file, is what a server has that loads each model once and lets all pipelines use
it: one process, each model's weights once, every request does its own work. A server that holds
constants by content and runs with --no-sharing is just that, so `none` is its time as well; it has
an entry of its own in the results (`whole_model_sharing`) with its memory.

arithmetic_limit: the processor time of the six pipelines by themselves over what is left when the
shared path is counted once; the shared path's own time comes from a pipeline that ends before the
head. of_limit: throughput_gain of the group over it.
"""

import contextlib
import os
import pathlib
import tempfile
import wave

import numpy as np

import report
import sharing
from serving import Server, busy_ms, encode

WORDS = ("alexa", "hey-jarvis", "hey-mycroft", "hey-rhasspy", "timer", "weather")
NAMES = [f"wake-{word}" for word in WORDS]
PATH = "shared-path"  # a pipeline of the common stages alone
CLIPS = ("alexa.wav", "hey-jarvis.wav", "timer.wav", "weather.wav")
TARGETS = {"of_limit": 0.9, "of_limit_separate": 0.9}


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


def shared_path() -> str:
    source = (sharing.REPOSITORY / "pipelines" / "wake-alexa.yaml").read_text()
    lines = source.replace("name: wake-alexa", f"name: {PATH}").splitlines()
    cut = next(i for i, line in enumerate(lines) if "name: history" in line)
    return "\n".join(lines[:cut]) + "\noutputs:\n  - {name: vectors, from: vectors}\n"


def run(quick: bool, only: set | None):
    pairs, repeats, slices, rounds = (1, 2, 6, 5) if quick else (3, 3, 10, 5)
    comparison = sharing.Comparison(NAMES, variants)
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        repositories = sharing.Repositories(folder, NAMES, {PATH: shared_path()})
        clip = encode({"audio": clips()[0]})
        memory = sharing.memory_of(repositories, NAMES, clip)

        with Server(repositories.whole, "--no-sharing") as server:
            times = busy_ms(server, [*NAMES, PATH], clip, 5 if quick else 25)
        limit, alone, path = sharing.arithmetic_limit(times, NAMES, PATH)
        counters = []
        for _ in range(pairs):
            with Server(repositories.whole) as shared:
                with Server(repositories.whole, "--no-sharing") as unshared:
                    systems = {"shared": [shared] * len(NAMES), "none": [unshared] * len(NAMES)}
                    comparison.meet(systems, repeats, rounds, slices)
                    counters.append(shared.sharing())

    gains = comparison.gains("none")
    result = {
        "experiment": "sharing-wake",
        "environment": report.environment(),
        "quick": quick,
        "pairs_of_servers": pairs,
        "repeats": repeats,
        "slices_per_repeat": slices,
        "clips_per_slice": rounds,
        "busy_ms_alone": {name: round(ms, 3) for name, ms in alone.items()},
        "busy_ms_shared_path": round(path, 3),
        **sharing.summary(gains, limit),
        **memory,
        "whole_model_sharing": {
            "times_of": "none",
            "memory_mib": memory["memory_mib"]["one_process_no_sharing"],
            "why": "the same server as none, by construction: one process, each model loaded once, "
            "every request does its own work",
        },
        "outputs_equal": comparison.same,
        "gains": gains,
        "sharing_counters": counters,
        "cores": len(os.sched_getaffinity(0)),
    }
    result["targets"] = {key: {"target": t, "met": result[key] >= t} for key, t in TARGETS.items()}
    return result, sharing.picture("Six wake words: throughput over no sharing", gains, limit)
