"""ONNX Runtime under load, in a process of its own: the peer of plexus_bench_worker's `replay`.

ort_load.py SYSTEM [spin|nospin] [shared|own]. Systems, all fed first come, first served:
  1x2         one worker, two threads inside a run
  2x1         two workers, one thread inside a run
  per-request a thread for every request, one thread inside a run
`spin`: idle threads of a pool spin for a while before they sleep; `shared`: the sessions share one
pool. Commands as in workers.py: load, prepare, run, replay.
"""

import json
import queue
import sys
import threading
import time

import numpy as np
import onnxruntime as ort

import workers


class Server:
    def __init__(self, system: str, spin: bool, shared: bool):
        self.system = system
        self.spin = spin
        self.shared = shared
        self.threads = 2 if system == "1x2" else 1
        if shared:
            ort.set_global_thread_pool_sizes(self.threads, 1)
        self.sessions = {}
        self.prepared = {}

    def load(self, command):
        begin = time.perf_counter()
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        if self.shared:
            options.use_per_session_threads = False
        else:
            options.intra_op_num_threads = self.threads
            options.inter_op_num_threads = 1
        options.add_session_config_entry(
            "session.intra_op.allow_spinning", "1" if self.spin else "0"
        )
        self.sessions[command["name"]] = ort.InferenceSession(
            command["path"], options, providers=["CPUExecutionProvider"]
        )
        return {"ms": (time.perf_counter() - begin) * 1e3}

    def prepare(self, command):
        session = self.sessions[command["name"]]
        feed = {}
        for wanted in session.get_inputs():
            spec = command["inputs"][wanted.name]
            array = np.fromfile(spec["file"], workers.DTYPES[spec["dtype"]]).reshape(spec["shape"])
            feed[wanted.name] = ort.OrtValue.ortvalue_from_numpy(array)
        names = [output.name for output in session.get_outputs()]
        expected = [
            np.fromfile(e["file"], workers.DTYPES[e["dtype"]]).reshape(e["shape"])
            for e in command["expected"]
        ]
        self.prepared[command["name"]] = (session, names, feed, expected)
        return {}

    def run(self, command):
        session, names, feed, _ = self.prepared[command["name"]]
        times = []
        for _ in range(command["iterations"]):
            begin = time.perf_counter_ns()
            outputs = session.run_with_ort_values(names, feed)
            times.append((time.perf_counter_ns() - begin) * 1e-6)
        answer = {"ms": times, "outputs": []}
        dtypes = {v: k for k, v in workers.DTYPES.items()}
        for i, value in enumerate(outputs if "outputs_to" in command else []):
            array = value.numpy()
            file = f"{command['outputs_to']}.{i}.bin"
            array.tofile(file)
            answer["outputs"].append(
                {"dtype": dtypes[str(array.dtype)], "shape": list(array.shape), "file": file}
            )
        return answer

    def replay(self, command):
        models = [self.prepared[name] for name in command["models"]]
        which = command["which"]
        count = len(which)
        arrivals = [int(ms * 1e6) for ms in command["arrivals_ms"]]
        finished = [0] * count
        late = [0] * count
        last = [None] * len(models)
        failed = []

        def serve(index):
            model = which[index]
            session, names, feed, _ = models[model]
            try:
                last[model] = session.run_with_ort_values(names, feed)
            except Exception as error:  # pylint: disable=broad-except
                failed.append(error)
            finished[index] = time.perf_counter_ns()

        def work():
            while True:
                index = waiting.get()
                if index is None:
                    return
                serve(index)

        waiting = queue.SimpleQueue()
        threads = []
        if self.system != "per-request":
            threads = [threading.Thread(target=work) for _ in range(3 - self.threads)]
            for thread in threads:
                thread.start()
        begin = time.perf_counter_ns() + 1_000_000
        for index, arrival in enumerate(arrivals):
            due = begin + arrival
            left = due - time.perf_counter_ns()
            if left > 0:
                time.sleep(left * 1e-9)
            late[index] = time.perf_counter_ns() - due
            if self.system == "per-request":
                thread = threading.Thread(target=serve, args=(index,))
                thread.start()
                threads.append(thread)
            else:
                waiting.put(index)
        if self.system != "per-request":
            for _ in threads:
                waiting.put(None)
        for thread in threads:
            thread.join()
        if failed:
            raise failed[0]
        return {
            "latency_ms": [(f - begin - a) * 1e-6 for f, a in zip(finished, arrivals)],
            "late_ms": [x * 1e-6 for x in late],
            "wall_ms": (max(finished) - begin) * 1e-6,
            "rel_err": max(
                (self.error(models[m][3], outputs) for m, outputs in enumerate(last) if outputs),
                default=0.0,
            ),
        }

    @staticmethod
    def error(expected, outputs):
        worst, scale = 0.0, 1e-30
        for e, a in zip(expected, outputs):
            scale = max(scale, float(np.max(np.abs(e))))
            worst = max(worst, float(np.max(np.abs(a.numpy() - e))))
        return worst / scale


def main() -> None:
    server = Server(sys.argv[1], "nospin" not in sys.argv, "shared" in sys.argv)
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = getattr(server, command["cmd"])(command)
        except Exception as error:  # pylint: disable=broad-except
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
