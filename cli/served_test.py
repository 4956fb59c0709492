"""What a real server does with pipelines, sessions and requests that are no good.

usage: served_test.py PLEXUS MODEL.onnx SAMPLES  (as cli_test.py)
"""

import json
import os
import pathlib
import shutil
import socket
import struct
import tempfile
import threading
import time
import unittest

from cli_test import MODEL, PATIENCE_S, SAMPLES, Server

HEAD = "name: {name}\ninputs:\n  - {{name: a, dtype: FP32, shape: [4]}}\n"
TAIL = "outputs: [{name: out, from: s}]\n"

FAN_OUT = """name: {name}
inputs: [{{name: rows, dtype: FP32, shape: [-1, 2]}}]
stages:
  - name: each
    foreach: rows
    as: row
{limit}    stages:
      - {{name: flat, op: reshape, input: row, shape: [-1]}}
      - {{name: mark, op: compare, input: flat, is: greater, to: 0}}
      - {{name: kept, op: filter, inputs: [flat, mark]}}
      - {{name: index, op: cast, input: flat, to: INT64}}
      - {{name: table, op: constant, dtype: FP32, shape: [10]}}
      - {{name: checked, op: gather, inputs: [table, index]}}
    outputs: [{{name: all, from: kept, sizes: counts}}, checked]
outputs:
  - {{name: all, from: each.all}}
  - {{name: counts, from: each.counts}}
"""

LOOP = """name: {name}
inputs: [{{name: x, dtype: FP32, shape: [1]}}]
stages:
  - {{name: zero, op: scale, input: x, scale: 0}}
  - name: forever
    repeat: {{limit: {limit}, while: going}}
    state: [{{name: value, from: x, next: more}}]
    stages:
      - {{name: more, op: add, inputs: [value, zero]}}
      - {{name: going, op: compare, inputs: [more, value], is: equal}}
    outputs: [value]
outputs: [{{name: out, from: forever}}]
"""

SUM = """name: sum
inputs: [{name: x, dtype: FP32, shape: [1]}]
state: [{name: total, dtype: FP32, shape: [1], next: more}]
idle_seconds: 0.3
stages: [{name: more, op: add, inputs: [total, x]}]
outputs: [{name: out, from: more}]
"""

# What is wrong, and what the message must name.
WRONG = {
    "cycle": (
        "stages:\n  - {name: s, op: scale, input: t}\n  - {name: t, op: scale, input: s}\n",
        ["cycle.yaml", "is part of a cycle", "'s'"],
    ),
    "self": ("stages: [{name: s, op: scale, input: s}]\n", ["stage 's'", "part of a cycle"]),
    "type": (
        "stages:\n  - {name: whole, op: cast, input: a, to: INT64}\n"
        "  - {name: s, model: good, input: whole}\n",
        ["stage 's'", "input 'x' of model 'good' is FP32, 'whole' is INT64"],
    ),
    "shape": (
        "stages:\n  - {name: part, op: slice, input: a, end: 3}\n"
        "  - {name: s, op: add, inputs: [a, part]}\n",
        ["'s'", "[4]", "[3]"],
    ),
    "reshape": ("stages: [{name: s, op: reshape, input: a, shape: [5]}]\n", ["'s'", "[5]", "[4]"]),
    "unknown": ("stages: [{name: s, op: scale, input: b}]\n", ["stage 's'", "reads 'b'"]),
}


def infer_body(name, dtype, shape, data, **parameters):
    tensor = {"name": name, "datatype": dtype, "shape": shape, "data": data}
    return json.dumps({"inputs": [tensor], "parameters": parameters})


class ServedTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="plexus-served-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        repository = cls.folder / "repository"
        pipelines = repository / "pipelines"
        pipelines.mkdir(parents=True)
        (repository / "good").mkdir()
        shutil.copy(MODEL, repository / "good" / "model.onnx")
        for name, (stages, _) in WRONG.items():
            (pipelines / f"{name}.yaml").write_text(HEAD.format(name=name) + stages + TAIL)
        (pipelines / "fan-out.yaml").write_text(FAN_OUT.format(name="fan-out", limit=""))
        (pipelines / "wide.yaml").write_text(
            FAN_OUT.format(name="wide", limit="    limit: 1000000\n")
        )
        (pipelines / "loop.yaml").write_text(LOOP.format(name="loop", limit=100))
        (pipelines / "long-loop.yaml").write_text(LOOP.format(name="long-loop", limit=1000000))
        (pipelines / "sum.yaml").write_text(SUM)
        cls.server = Server(repository, "--admin-port", "0", "--request-memory-bytes", "512MB")
        cls.server.__enter__()
        cls.addClassCleanup(cls.server.__exit__)
        admin = cls.server.process.stdout.readline().split()[-1]
        cls.admin_port = int(admin.rsplit(":", 1)[1])
        # Its log would fill the pipe.
        threading.Thread(target=cls.server.process.stderr.read, daemon=True).start()

    def infer(self, model, *args, **parameters):
        status, body = self.server.call(
            "POST", f"/v2/models/{model}/infer", infer_body(*args, **parameters)
        )
        return status, json.loads(body)

    def rows(self, model, rows, **parameters):
        flat = [value for row in rows for value in row]
        return self.infer(model, "rows", "FP32", [len(rows), 2], flat, **parameters)

    def stats(self, what):
        port, self.server.port = self.server.port, self.admin_port
        try:
            return json.loads(self.server.call("GET", "/stats")[1])[what]
        finally:
            self.server.port = port

    def tearDown(self):
        status, answer = self.rows("fan-out", [[1, 2], [0, 3]])
        self.assertEqual(status, 200, "it must serve on")
        self.assertEqual(answer["outputs"][1]["data"], [2, 1])

    def test_what_is_wrong_with_a_pipeline_is_told_when_it_is_loaded(self):
        index = json.loads(self.server.call("POST", "/v2/repository/index")[1])
        reasons = {entry["name"]: entry for entry in index}
        for name, (_, parts) in WRONG.items():
            self.assertEqual(reasons[name]["state"], "UNAVAILABLE", name)
            for part in parts:
                self.assertIn(part, reasons[name]["reason"], name)
            status, body = self.server.call("POST", f"/v2/repository/models/{name}/load")
            self.assertEqual(status, 400, body)
        self.assertEqual(reasons["good"]["state"], "READY")

    def test_a_fan_out_over_nothing_gives_nothing(self):
        status, answer = self.rows("fan-out", [])
        self.assertEqual(status, 200, answer)
        self.assertEqual([o["shape"] for o in answer["outputs"]], [[0], [0]])

    def test_a_fan_out_of_a_million_is_refused_before_it_runs(self):
        before = self.stats("dispatcher")["jobs_submitted"]
        status, answer = self.rows("fan-out", [[1, 1]] * 10001)
        self.assertEqual(status, 400)
        self.assertIn("stage 'each': 10001 elements, its limit is 10000", answer["error"])
        many = 1_000_000
        header = json.dumps(
            {
                "inputs": [
                    {"name": "rows", "datatype": "FP32", "shape": [many, 2],
                     "parameters": {"binary_data_size": many * 8}}
                ]
            }
        ).encode()
        body = header + struct.pack("<2f", 1, 0) * many
        headers = {"Inference-Header-Content-Length": str(len(header))}
        status, answer = self.server.call("POST", "/v2/models/fan-out/infer", body, headers)
        self.assertEqual(status, 400, answer)
        self.assertIn(b"1000000 elements, its limit is 10000", answer)
        self.assertEqual(self.stats("dispatcher")["jobs_submitted"], before)

    def test_a_fan_out_of_a_million_where_the_file_allows_it_keeps_to_time_and_memory(self):
        many = 1_000_000
        header = json.dumps(
            {
                "inputs": [
                    {"name": "rows", "datatype": "FP32", "shape": [many, 2],
                     "parameters": {"binary_data_size": many * 8}}
                ],
                "parameters": {"timeout": 2_000_000},
            }
        ).encode()
        body = header + struct.pack("<2f", 1, 0) * many
        headers = {"Inference-Header-Content-Length": str(len(header))}
        began = time.monotonic()
        status, answer = self.server.call("POST", "/v2/models/wide/infer", body, headers)
        self.assertLess(time.monotonic() - began, PATIENCE_S)
        self.assertIn(status, (200, 503, 504), answer[:300])
        # What ended early is not still at it.
        for _ in range(600):
            if self.stats("dispatcher")["in_flight"] == 0:
                break
            time.sleep(0.1)
        self.assertEqual(self.stats("dispatcher")["in_flight"], 0)

    def test_a_loop_that_never_ends_ends_at_its_limit_or_its_timeout(self):
        status, answer = self.infer("loop", "x", "FP32", [1], [1])
        self.assertEqual(status, 400, answer)
        self.assertIn("stage 'forever'", answer["error"])
        self.assertIn("100", answer["error"])
        status, answer = self.infer("long-loop", "x", "FP32", [1], [1], timeout=200_000)
        self.assertEqual(status, 504, answer)

    def test_an_element_that_fails_fails_its_own_request(self):
        answers = [None] * 16

        def ask(i):
            value = 99 if i % 4 == 0 else i % 9
            answers[i] = self.rows("fan-out", [[1, 2], [value, 3], [0, 1]])

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(answers))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for i, (status, answer) in enumerate(answers):
            if i % 4 == 0:
                self.assertEqual(status, 400, answer)
                self.assertIn("stage 'each', element 1:", answer["error"])
            else:
                self.assertEqual(status, 200, answer)
                self.assertEqual(answer["outputs"][1]["data"], [2, 2 if i % 9 else 1, 1])

    def test_a_session_whose_client_vanishes_expires(self):
        before = self.stats("sessions")
        status, answer = self.infer(
            "sum", "x", "FP32", [1], [4], sequence_id="gone", sequence_start=True
        )
        self.assertEqual(status, 200, answer)
        # One more request, of a client that does not wait for the answer.
        body = infer_body("x", "FP32", [1], [1], sequence_id="gone").encode()
        with socket.create_connection(("127.0.0.1", self.server.port)) as client:
            client.sendall(
                b"POST /v2/models/sum/infer HTTP/1.1\r\nHost: x\r\nContent-Length: "
                + str(len(body)).encode() + b"\r\n\r\n" + body
            )
        for _ in range(600):
            sessions = self.stats("sessions")
            if sessions["expired"] == before["expired"] + 1:
                break
            time.sleep(0.1)
        self.assertEqual(sessions["open"], before["open"])
        self.assertEqual(sessions["bytes"], before["bytes"])
        self.assertEqual(sessions["expired"], before["expired"] + 1)
        status, answer = self.infer("sum", "x", "FP32", [1], [4], sequence_id="gone")
        self.assertEqual(status, 400)
        self.assertIn("sequence 'gone' of 'sum' is not there", answer["error"])


@unittest.skipUnless(SAMPLES and os.path.isdir(SAMPLES), "no sample repository")
class MustNotBatchTest(unittest.TestCase):
    """hey_jarvis takes a branch by what a row says: rows of a batch must not see each other's."""

    def test_a_batch_gives_the_bytes_of_its_rows(self):
        samples = pathlib.Path(SAMPLES)
        examples = pathlib.Path(__file__).resolve().parent.parent / "examples"
        with tempfile.TemporaryDirectory(prefix="plexus-served-") as folder:
            repository = pathlib.Path(folder)
            for model in ("melspectrogram", "embedding_model", "hey_jarvis"):
                (repository / model).symlink_to(samples / model)
            (repository / "pipelines").mkdir()
            yaml = (samples / "pipelines" / "wake-hey-jarvis.yaml").read_text()
            (repository / "pipelines" / "wake-hey-jarvis.yaml").write_text(yaml)
            head = next(line for line in yaml.splitlines() if "model: hey_jarvis" in line)
            rows = head.split('": ')[1].split("}")[0]
            (repository / "pipelines" / "rows.yaml").write_text(
                yaml[: yaml.index("outputs:")].replace("name: wake-hey-jarvis", "name: rows")
                + f"outputs: [{{name: rows, from: {rows}}}]\n"
            )
            clip = (examples / "audio" / "hey-jarvis.wav").read_bytes()
            pcm = clip[clip.index(b"data") + 8 :]
            with Server(repository, "--admin-port", "0") as server:
                admin = server.process.stdout.readline().split()[-1]
                scores = self.ask(server, "wake-hey-jarvis", "audio", "INT16", [len(pcm) // 2], pcm)
                rows = self.ask(server, "rows", "audio", "INT16", [len(pcm) // 2], pcm)
                row_bytes = 16 * 96 * 4
                self.assertEqual(len(rows) % row_bytes, 0)
                alone = b"".join(
                    self.ask(server, "hey_jarvis", None, "FP32", [1, 16, 96],
                             rows[at : at + row_bytes])
                    for at in range(0, len(rows), row_bytes)
                )
                self.assertEqual(scores, alone)
                values = struct.unpack(f"<{len(scores) // 4}f", scores)
                self.assertGreater(max(values), 0.5, "one branch")
                self.assertLess(min(values), 0.5, "the other one")
                server.port = int(admin.rsplit(":", 1)[1])
                segments = json.loads(server.call("GET", "/paths")[1])["segments"]
        jarvis = [s for s in segments if "hey_jarvis" in s["pipelines"] and not s["batchable"]]
        self.assertTrue(any("If" in s["why_not_batchable"] for s in jarvis), segments)
        # Its largest value is taken over all rows.
        mel = [s for s in segments if "melspectrogram" in s["pipelines"] and not s["batchable"]]
        self.assertTrue(any("ReduceMax" in s["why_not_batchable"] for s in mel), segments)

    def ask(self, server, model, name, dtype, shape, data):
        if name is None:
            about = json.loads(server.call("GET", f"/v2/models/{model}")[1])
            name = about["inputs"][0]["name"]
        tensor = {"name": name, "datatype": dtype, "shape": shape,
                  "parameters": {"binary_data_size": len(data)}}
        header = json.dumps(
            {"inputs": [tensor], "parameters": {"binary_data_output": True}}
        ).encode()
        headers = {"Inference-Header-Content-Length": str(len(header))}
        status, body = server.call("POST", f"/v2/models/{model}/infer", header + data, headers)
        self.assertEqual(status, 200, body[:300])
        size = len(body) - body.index(b"]}") - 2  # behind the JSON
        size = json.loads(body[: len(body) - size])["outputs"][0]["parameters"]["binary_data_size"]
        return body[len(body) - size :]


if __name__ == "__main__":
    unittest.main(argv=["served_test.py"], verbosity=2)
