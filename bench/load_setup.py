"""What the experiments under load share: the mix, its models in every process, and their times."""

import pathlib
import time

import numpy as np

import models

# Shares of requests in Paella's experiment with eight CNNs (SOSP 2023).
MIX = {
    "mobilenetv2": 0.257,
    "densenet121": 0.0706,
    "googlenet": 0.0546,
    "inceptionv3": 0.0138,
    "resnet18": 0.272,
    "resnet34": 0.168,
    "resnet50": 0.0745,
    "squeezenet1.1": 0.0895,
}
NAMES = list(MIX)
SHORT = ("mobilenetv2", "squeezenet1.1", "resnet18")
TOLERANCE = 1e-3
WARM_RUNS = 6


class Inputs:
    """The mix's models with one input each, and ONNX Runtime's outputs for it."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.cases = {c.name: c for c in models.cases() if c.name in MIX}
        self.files = {
            name: models.write_inputs(folder, name, case.inputs[0])
            for name, case in self.cases.items()
        }
        self.expected = {name: [] for name in MIX}

    def take_expected(self, ort) -> None:
        for name in NAMES:
            answer = ort.call(
                cmd="run", name=name, iterations=1, outputs_to=str(self.folder / f"{name}.expected")
            )
            self.expected[name] = answer["outputs"]

    def load_into(self, worker) -> None:
        for name in NAMES:
            worker.call(cmd="load", name=name, path=str(self.cases[name].path))
            self.prepare(worker, name)

    def prepare(self, worker, name: str) -> None:
        worker.call(
            cmd="prepare", name=name, inputs=self.files[name], expected=self.expected[name]
        )


def replay(worker, at_ms, which, tenants=None) -> dict:
    return worker.call(
        cmd="replay",
        models=NAMES,
        which=[int(i) for i in which],
        arrivals_ms=[float(t) for t in at_ms],
        tenants=[1 + int(i) for i in which] if tenants is None else tenants,
    )


def warm(worker) -> None:
    """Every model alone, then some at a time: compiles, learns times, fills pools."""
    for _ in range(WARM_RUNS):
        for index in range(len(NAMES)):
            replay(worker, [0], [index])
    replay(worker, [0] * 2 * len(NAMES), list(range(len(NAMES))) * 2)


def alone_ms(worker, runs: int) -> list:
    """Median latency of each model on the idle machine: one request at a time, with pauses."""
    out = []
    for index in range(len(NAMES)):
        one = replay(worker, [0], [index])["latency_ms"][0]
        gap = one * 1.3 + 5
        answer = replay(worker, [gap * i for i in range(runs)], [index] * runs)
        out.append(float(np.median(answer["latency_ms"])))
    return out


class OtherLoad:
    """How much of the machine others used since the last call, 0..1: a measurement wants 0."""

    def __init__(self, pids):
        self.pids = list(pids)
        self.tick = 0.01
        self.before = self._read()

    def _read(self):
        fields = pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:]
        user, nice, system, _, _, irq, softirq, steal = (int(x) for x in fields[:8])
        busy = user + nice + system + irq + softirq + steal
        ours = 0
        for pid in [*self.pids, "self"]:
            stat = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            ours += int(stat[11]) + int(stat[12])
        return time.monotonic(), busy, ours

    def share(self, cores: int) -> float:
        now = self._read()
        wall, busy, ours = (a - b for a, b in zip(now, self.before))
        self.before = now
        return max(0.0, (busy - ours) * self.tick / max(wall * cores, 1e-9))
