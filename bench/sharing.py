"""What the experiments on sharing have in common: rounds of equal requests to real servers.

A round asks every pipeline once. Modes:

- group: one request that names all pipelines,
- separate: a request per pipeline at the same time, all with the same input (coalesced where the
  server shares), and
- distinct: the same, each request with an input of its own (nothing to compute once).
"""

import pathlib
import shutil
import sys
import time

import numpy as np

import report
from serving import Connection, Crew, Server, decode

REPOSITORY = report.ROOT / "build" / "samples" / "repository"
MODES = ("group", "separate", "distinct")
SETTLE = 40


def log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def measure(
    servers: list, names: list, mode: str, rounds: int, bodies: list, in_flight: int = 1
) -> dict:
    """Answers per second, each answer's time in ms, and outputs. `servers` has one for each pipeline, perhaps the same;
    `bodies` one per round, in mode distinct one per round and pipeline; `in_flight`: rounds under
    way at a time."""
    count = len(names)
    asked = [",".join(names)] if mode == "group" else names
    crew = Crew(servers[: len(asked)], asked, in_flight)
    if mode == "distinct":
        rows = [bodies[i * count : (i + 1) * count] for i in range(rounds)]
    else:
        rows = [[body] * len(asked) for body in bodies]
    begin = time.monotonic()
    answers = [answer for row in crew.rounds(rows) for answer in row]
    wall = time.monotonic() - begin
    outputs = []
    for answer, _ in answers:
        decoded = decode(answer)
        if mode == "group":
            for name in names:
                start = name + "."
                outputs.append(
                    {k[len(start) :]: v for k, v in decoded.items() if k.startswith(start)}
                )
        else:
            outputs.append(decoded)
    return {
        "per_s": rounds * count / wall,
        "took_ms": [took * 1e3 for _, took in answers],
        "outputs": outputs,
    }


def equal(a: list, b: list) -> bool:
    """Whether two measurements gave the same, bit for bit."""
    return all(
        x.keys() == y.keys() and all(np.array_equal(x[key], y[key]) for key in x)
        for x, y in zip(a, b, strict=True)
    )


class Repositories:
    """Sample repositories in `folder`: `whole` with everything and `extra` pipelines (text by
    name), `each` with one pipeline of `names` and what it needs, `joint` with those together."""

    def __init__(self, folder: pathlib.Path, names: list, extra: dict):
        self.whole, self.joint = folder / "whole", folder / "joint"
        shutil.copytree(REPOSITORY, self.whole, symlinks=True)
        for name, text in extra.items():
            (self.whole / "pipelines" / f"{name}.yaml").write_text(text)
        self.each = []
        for name in names:
            single = folder / name
            (single / "pipelines").mkdir(parents=True)
            text = (REPOSITORY / "pipelines" / f"{name}.yaml").read_text()
            (single / "pipelines" / f"{name}.yaml").write_text(text)
            for labels in (REPOSITORY / "pipelines").glob("*.txt"):
                if f"labels: {labels.name}" in text:
                    shutil.copy(labels, single / "pipelines")
            for model in REPOSITORY.iterdir():
                if f"model: {model.name}," in text or f"model: {model.name}}}" in text:
                    shutil.copytree(model, single / model.name)
            self.each.append(single)
            shutil.copytree(single, self.joint, dirs_exist_ok=True)
        self.empty = folder / "empty"
        self.empty.mkdir()


def memory(repository: pathlib.Path, names: list, body: tuple, *flags: str) -> int:
    """Resident bytes of a server that has answered one request of each."""
    with Server(repository, *flags) as server:
        connection = Connection(server)
        for name in names:
            connection.ask(name, *body)
        return server.resident_bytes()


def memory_of(repositories: Repositories, names: list, body: tuple) -> dict:
    nothing = memory(repositories.empty, [], body)
    together = memory(repositories.joint, names, body) - nothing
    by_file = memory(repositories.joint, names, body, "--no-sharing") - nothing
    apart = sum(
        memory(single, [name], body) - nothing
        for single, name in zip(repositories.each, names, strict=True)
    )
    return {
        "memory_gain": round(apart / together, 3),
        "memory_mib": {
            "process_per_pipeline": round(apart / 2**20, 1),
            "one_process": round(together / 2**20, 1),
            "one_process_no_sharing": round(by_file / 2**20, 1),
        },
    }


class Comparison:
    """Systems asked in turn, in short slices: a neighbour on the same host that takes the memory for
    a second meets all of them.

    `bodies_of(count, rng)` makes inputs that no two requests share. No process is quite as fast as
    the next, so a comparison may go on with others of the same systems (`meet`)."""

    def __init__(self, names: list, bodies_of, modes=MODES, in_flight: int = 1):
        self.names, self.bodies_of, self.modes, self.in_flight = names, bodies_of, modes, in_flight
        self.found = {mode: {} for mode in modes}
        self.same = True
        self._seed = 0

    def meet(self, systems: dict, repeats: int, rounds: int, slices: int):
        """One mode after the other: `repeats` times `slices` slices of `rounds` rounds each;
        `shared` is first in one slice and last in the next. `systems`: for each its servers, one
        per pipeline. Before each mode come SETTLE rounds that do not count: a server goes on for
        some 30 requests as the mode before has taught it."""
        names, count = self.names, len(self.names)
        for system, servers in systems.items():
            warm = self.bodies_of(3 * count, np.random.default_rng(0))
            measure(servers, names, "separate", 3, warm)  # compiles
            if system == "shared":
                measure(servers, names, "group", 3, warm)
        for mode in self.modes:
            self._slice(systems, mode, SETTLE)
            for _ in range(repeats):
                got = [self._slice(systems, mode, rounds) for _ in range(slices)]
                for system in systems:
                    took = [ms for each in got for ms in each[system]["took_ms"]]
                    self.found[mode].setdefault(system, []).append(
                        {
                            "per_s": [each[system]["per_s"] for each in got],
                            "p99_ms": float(np.percentile(took, 99)),
                        }
                    )
                rates = {
                    system: round(float(np.median(self.found[mode][system][-1]["per_s"])), 1)
                    for system in systems
                }
                log(f"{mode}: answers/s {rates}; outputs equal: {self.same}")

    def _slice(self, systems: dict, mode: str, rounds: int) -> dict:
        self._seed += 1
        order = list(systems) if self._seed % 2 else list(systems)[::-1]
        count = rounds * (len(self.names) if mode == "distinct" else 1)
        bodies = self.bodies_of(count, np.random.default_rng(self._seed))
        got = {}
        for system in order:
            # Without sharing several pipelines are several requests, however they are asked.
            how = "separate" if mode == "group" and system != "shared" else mode
            got[system] = measure(
                systems[system], self.names, how, rounds, bodies, self.in_flight
            )
        outputs = [got[system].pop("outputs") for system in systems]
        self.same = self.same and all(equal(outputs[0], other) for other in outputs[1:])
        return got

    def gains(self, over: str) -> dict:
        """Per mode throughput_gain and p99_gain of `shared` over another system: of pairs of
        slices, and of pairs of repeats."""
        out = {}
        for mode, systems in self.found.items():
            ours, theirs = systems["shared"], systems[over]
            out[mode] = {
                "throughput_gain": report.paired_ratio(
                    [rate for r in ours for rate in r["per_s"]],
                    [rate for r in theirs for rate in r["per_s"]],
                ),
                "p99_gain": report.paired_ratio(
                    [r["p99_ms"] for r in theirs], [r["p99_ms"] for r in ours]
                ),
            }
        return out


def arithmetic_limit(times: dict, names: list, path: str):
    """Of the gain: the pipelines by themselves, over what is left with the shared path once.

    `times` as of busy_ms. Gives (limit, each pipeline's median, the shared path's time)."""
    alone = {name: float(np.median(times[name])) for name in names}
    # The shared path's part of a pipeline, run by run.
    mean = np.mean([times[name] for name in names], axis=0)
    part = min(1.0, float(np.median(np.asarray(times[path]) / mean)))
    shared = part * sum(alone.values()) / len(names)
    limit = len(names) / (len(names) - (len(names) - 1) * part)
    log(f"processor time, ms: {alone}, shared path {shared:.2f}: limit {limit:.2f}")
    return limit, alone, shared


def summary(over_none: dict, limit: float) -> dict:
    """The result's keys that every experiment on sharing has."""
    medians = {mode: g["throughput_gain"]["median"] for mode, g in over_none.items()}
    return {
        "arithmetic_limit": round(limit, 3),
        "throughput_gain": medians["group"],
        "throughput_gain_separate": medians["separate"],
        "throughput_gain_distinct": medians["distinct"],
        "of_limit": round(medians["group"] / limit, 3),
        "of_limit_separate": round(medians["separate"] / limit, 3),
        "p99_gain": over_none["group"]["p99_gain"]["median"],
    }


def picture(title: str, over_none: dict, limit: float) -> str:
    medians = {mode: g["throughput_gain"]["median"] for mode, g in over_none.items()}
    rows = [
        ("arithmetic limit", limit, f"{limit:.2f}"),
        *((mode, medians[mode], f"{medians[mode]:.2f}") for mode in MODES),
    ]
    return report.bars(title, rows, "times")
