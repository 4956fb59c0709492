"""Drives the simulator (simulate_worker.cc): many runs of one workload, over all cores."""

import concurrent.futures
import json
import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
WORKER = ROOT / "build" / "release" / "plexus_bench_simulate"


class Simulator:
    """A pool of worker processes with one workload loaded."""

    def __init__(self, workload: str, processes: int | None = None):
        count = processes or len(os.sched_getaffinity(0))
        self._idle = []
        for _ in range(count):
            process = subprocess.Popen(
                [str(WORKER), workload], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            self._idle.append(process)
        about = [self._line(process) for process in self._idle]
        self.about = about[0]
        self._pool = concurrent.futures.ThreadPoolExecutor(count)

    @staticmethod
    def _line(process) -> dict:
        line = process.stdout.readline()
        if not line:
            raise RuntimeError("the simulator ended early; its reason stands above")
        return json.loads(line)

    def _run(self, change: dict) -> dict:
        process = self._idle.pop()
        try:
            process.stdin.write(json.dumps(change) + "\n")
            process.stdin.flush()
            answer = self._line(process)
        finally:
            self._idle.append(process)
        if "error" in answer:
            raise RuntimeError(f"{change}: {answer['error']}")
        return answer

    def run(self, changes: list) -> list:
        """The reports of runs with these changes, in their order."""
        return list(self._pool.map(self._run, changes))

    def close(self) -> None:
        self._pool.shutdown()
        for process in self._idle:
            process.stdin.close()
            process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
