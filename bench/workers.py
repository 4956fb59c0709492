"""Two processes that speak one protocol: Plexus (plexus_bench_worker) and ONNX Runtime (this file).

One JSON command per line, one JSON answer per line, {"error": ...} on failure:
  {"cmd": "load", "name", "path"}                                    -> {"ms"}
  {"cmd": "run", "name", "inputs": [{input: {dtype, shape, file}}],
   "iterations", "outputs_to"?}                 -> {"ms": [...], "outputs": [{dtype, shape, file}]}
  {"cmd": "memory"}                                                  -> {"rss_bytes", "peak_bytes"}
  {"cmd": "unload", "name"}                                          -> {}
Under load (the peer is ort_load.py, which knows the first two):
  {"cmd": "prepare", "name", "inputs": {input: ...}, "expected": [{dtype, shape, file}]}  -> {}
  {"cmd": "replay", "models": [name], "which": [index], "arrivals_ms", "tenants"}
                                                 -> {"latency_ms", "late_ms", "wall_ms", "rel_err"}
  {"cmd": "clients", "models", "seconds", "clients": [{"tenant", "in_flight", "which", "think_ms"}]}
                         -> {"clients": [{"latency_ms", "which", "tenant_ms"}], "rel_err", "wall_ms"}
  {"cmd": "policy", "policy"}, {"cmd": "weight", "tenant", "weight"}                      -> {}
`inputs` lists sets that are run in turn, once each per iteration; `outputs` are the last run's.
"""

import json
import os
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
DTYPES = {
    "FP32": "float32",
    "FP64": "float64",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "INT8": "int8",
    "BOOL": "bool",
}


class Worker:
    """A child process; use as a context manager."""

    def __init__(self, label: str, command: list[str]):
        self.label = label
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )

    def call(self, **command):
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.label} ended during {command['cmd']}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"{self.label}: {command}: {answer['error']}")
        return answer

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()


def plexus_worker(threads: int) -> Worker:
    binary = os.environ.get("PLEXUS_BENCH_WORKER", "build/release/plexus_bench_worker")
    return Worker(f"plexus {threads}t", [binary, "--threads", str(threads)])


def ort_worker(threads: int) -> Worker:
    return Worker(f"ort {threads}t", [sys.executable, __file__, str(threads)])


def ort_load(system: str, *options: str) -> Worker:
    command = [sys.executable, str(ROOT / "bench" / "ort_load.py"), system, *options]
    return Worker(f"ort {system}", command)


def _status_bytes(field: str) -> int:
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    return 0


def _serve_ort(threads: int) -> None:
    """ONNX Runtime with all its optimisations, its arena and bound inputs and outputs."""
    import numpy as np
    import onnxruntime as ort

    sessions = {}

    def load(command):
        begin = time.perf_counter()
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        sessions[command["name"]] = ort.InferenceSession(
            command["path"], options, providers=["CPUExecutionProvider"]
        )
        return {"ms": (time.perf_counter() - begin) * 1e3}

    def run(command):
        session = sessions[command["name"]]
        bindings = []
        for inputs in command["inputs"]:
            binding = session.io_binding()
            for wanted in session.get_inputs():
                spec = inputs[wanted.name]
                array = np.fromfile(spec["file"], DTYPES[spec["dtype"]]).reshape(spec["shape"])
                binding.bind_ortvalue_input(wanted.name, ort.OrtValue.ortvalue_from_numpy(array))
            for output in session.get_outputs():
                binding.bind_output(output.name)
            bindings.append(binding)
        times = []
        for _ in range(command["iterations"]):
            for binding in bindings:
                begin = time.perf_counter_ns()
                session.run_with_iobinding(binding)
                times.append((time.perf_counter_ns() - begin) * 1e-6)
        answer = {"ms": times}
        if "outputs_to" in command:
            answer["outputs"] = []
            names = {v: k for k, v in DTYPES.items()}
            for i, array in enumerate(bindings[-1].copy_outputs_to_cpu()):
                file = f"{command['outputs_to']}.{i}.bin"
                array.tofile(file)
                answer["outputs"].append(
                    {"dtype": names[str(array.dtype)], "shape": list(array.shape), "file": file}
                )
        return answer

    def memory(_):
        return {"rss_bytes": _status_bytes("VmRSS"), "peak_bytes": _status_bytes("VmHWM")}

    def unload(command):
        del sessions[command["name"]]
        return {}

    handlers = {"load": load, "run": run, "memory": memory, "unload": unload}
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = handlers[command["cmd"]](command)
        except Exception as error:  # pylint: disable=broad-except
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _serve_ort(int(sys.argv[1]))
