"""Drives the simulator (simulate_worker.cc): many runs of one workload, over all cores.

A run depends on nothing but the worker's program, the workload and what was changed, so answers are
kept in build/simulated and an experiment that was interrupted goes on where it was.
"""

import concurrent.futures
import hashlib
import json
import os
import pathlib
import subprocess
import threading

ROOT = pathlib.Path(__file__).resolve().parent.parent
WORKER = ROOT / "build" / "release" / "plexus_bench_simulate"


class Simulator:
    """A pool of worker processes with one workload loaded."""

    def __init__(self, workload: str, processes: int | None = None):
        count = processes or len(os.sched_getaffinity(0))
        self._open_store(workload)
        self._idle = []
        for _ in range(count):
            process = subprocess.Popen(
                [str(WORKER), workload], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            self._idle.append(process)
        about = [self._line(process) for process in self._idle]
        self.about = about[0]
        self._pool = concurrent.futures.ThreadPoolExecutor(count)

    def _open_store(self, workload: str) -> None:
        digest = hashlib.sha256(WORKER.read_bytes())
        path = pathlib.Path(workload)
        digest.update(path.read_bytes() if path.exists() else workload.encode())
        folder = ROOT / "build" / "simulated"
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{path.stem.replace(':', '-')}-{digest.hexdigest()[:16]}.jsonl"
        self._known, self._lock = {}, threading.Lock()
        if file.exists():
            for line in file.read_text().splitlines():
                try:
                    change, answer = json.loads(line)
                except ValueError:  # cut off in the middle
                    continue
                self._known[json.dumps(change, sort_keys=True)] = answer
        self._store = file.open("a")

    @staticmethod
    def _line(process) -> dict:
        line = process.stdout.readline()
        if not line:
            raise RuntimeError("the simulator ended early; its reason stands above")
        return json.loads(line)

    def _run(self, change: dict) -> dict:
        key = json.dumps(change, sort_keys=True)
        if key not in self._known:
            answer = self._ask(change)
            with self._lock:
                self._known[key] = answer
                self._store.write(json.dumps([change, answer]) + "\n")
                self._store.flush()
        return self._known[key]

    def _ask(self, change: dict) -> dict:
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
        self._pool.shutdown(cancel_futures=True)
        self._store.close()
        for process in self._idle:
            process.stdin.close()
            process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
