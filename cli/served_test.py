"""What a real server does with pipelines, sessions and requests that are no good.

usage: served_test.py PLEXUS MODEL.onnx SAMPLES  (as cli_test.py)
"""

import concurrent.futures
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
import zlib

from cli_test import MODEL, PATIENCE_S, SAMPLES, Server

MEMORY_BYTES = 512_000_000  # of one request

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

# 200 kB an element.
LARGE = """name: large
inputs: [{name: rows, dtype: FP32, shape: [-1, 1]}]
stages:
  - name: each
    foreach: rows
    as: row
    limit: 1000000
    stages:
      - {name: wide, op: constant, dtype: FP32, shape: [1, 50000]}
      - {name: sum, op: add, inputs: [wide, row]}
      - {name: flat, op: reshape, input: sum, shape: [-1]}
      - {name: mark, op: compare, input: flat, is: greater, to: 0}
      - {name: kept, op: filter, inputs: [flat, mark]}
    outputs: [{name: all, from: kept, sizes: counts}]
outputs: [{name: all, from: each.all}]
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

# Finds the bright spots of a picture, and how bright each is.
SPOTS = """name: {name}
inputs: [{{name: image, dtype: BYTES, shape: [1]}}]
stages:
  - {{name: picture, op: decode_image, input: image}}
  - {{name: planes, op: normalize, input: picture}}
  - {{name: map, op: slice, input: planes, axis: 1, end: 1}}
  - {{name: found, op: db_boxes, inputs: [map, picture], max_boxes: 100000}}
  - name: spots
    foreach: found.boxes
    as: box
    limit: {limit}
    stages:
      - {{name: crop, op: perspective_crop, inputs: [picture, box]}}
      - {{name: small, op: resize, input: crop, height: 8, widths: [8, 16], to: FP32}}
      - {{name: small_planes, op: normalize, input: small}}
      - {{name: mean, op: reduce, input: small_planes, kind: mean, axes: [0, 1, 2, 3]}}
    outputs: [mean]
outputs:
  - {{name: mean, from: spots.mean, shape: [-1]}}
  - {{name: box, from: found.boxes, shape: [-1, 4, 2]}}
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


def spotted_png(columns, rows):
    """A PNG with a grid of bright spots, each 12 x 8 pixels in a field of 24 x 20."""
    dark, light = b"\0" * 24, b"\0" * 6 + b"\xff" * 12 + b"\0" * 6
    band = 6 * [dark] + 8 * [light] + 6 * [dark]
    data = zlib.compress(rows * b"".join(b"\0" + field * columns for field in band), 1)

    def chunk(kind, content):
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    head = struct.pack(">IIBBBBB", 24 * columns, 20 * rows, 8, 0, 0, 0, 0)  # 8 bits of grey
    end = chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + end


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
        (pipelines / "spots.yaml").write_text(SPOTS.format(name="spots", limit=10000))
        (pipelines / "few-spots.yaml").write_text(SPOTS.format(name="few-spots", limit=1000))
        (pipelines / "large.yaml").write_text(LARGE)
        cls.server = Server(repository, "--admin-port", "0", "--request-memory-bytes", str(MEMORY_BYTES))
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

    def spots(self, model, png):
        data = struct.pack("<I", len(png)) + png
        tensor = {"name": "image", "datatype": "BYTES", "shape": [1],
                  "parameters": {"binary_data_size": len(data)}}
        header = json.dumps({"inputs": [tensor]}).encode()
        headers = {"Inference-Header-Content-Length": str(len(header))}
        status, body = self.server.call(
            "POST", f"/v2/models/{model}/infer", header + data, headers
        )
        return status, json.loads(body)

    def peak_bytes(self):
        status = pathlib.Path(f"/proc/{self.server.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024

    def stats(self, what):
        port, self.server.port = self.server.port, self.admin_port
        try:
            return json.loads(self.server.call("GET", "/stats")[1])[what]
        finally:
            self.server.port = port

    def resident_bytes(self, what="VmRSS"):
        status = pathlib.Path(f"/proc/{self.server.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith(what + ":"))
        return int(line.split()[1]) * 1024

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

    def ask_many(self, model, shape, value, **parameters):
        raw = struct.pack("<f", value) * (shape[0] * shape[1])
        tensor = {"name": "rows", "datatype": "FP32", "shape": shape,
                  "parameters": {"binary_data_size": len(raw)}}
        header = json.dumps({"inputs": [tensor], "parameters": parameters}).encode()
        headers = {"Inference-Header-Content-Length": str(len(header))}
        return self.server.call("POST", f"/v2/models/{model}/infer", header + raw, headers)

    def test_a_fan_out_of_a_million_where_the_file_allows_it_keeps_to_its_time(self):
        # A million elements take far longer.
        status, answer = self.ask_many("wide", [1_000_000, 2], 1, timeout=300_000)
        self.assertEqual(status, 504, answer[:300])
        # What ended early is not still at it.
        for _ in range(600):
            if self.stats("dispatcher")["in_flight"] == 0:
                break
            time.sleep(0.1)
        self.assertEqual(self.stats("dispatcher")["in_flight"], 0)

    def test_a_fan_out_that_fills_the_memory_of_its_request_ends_there(self):
        status, answer = self.ask_many("large", [1, 1], 1)
        self.assertEqual(status, 200, answer[:300])
        before = self.resident_bytes()
        status, answer = self.ask_many("large", [100_000, 1], 1)  # 20 GB
        self.assertEqual(status, 503, answer[:300])
        self.assertIn(b"the request holds", answer)
        self.assertLess(self.resident_bytes("VmHWM"), before + 2 * MEMORY_BYTES)  # of 20 GB

    def test_a_page_of_thousands_of_boxes_is_read_in_bounded_memory(self):
        self.assertEqual(self.spots("spots", spotted_png(8, 4))[0], 200)
        before = self.peak_bytes()
        page = spotted_png(80, 40)  # 1920 x 800
        status, answer = self.spots("spots", page)
        self.assertEqual(status, 200, str(answer)[:300])
        mean, box = answer["outputs"]
        self.assertEqual((mean["shape"], box["shape"]), ([3200], [3200, 4, 2]))
        self.assertGreater(min(mean["data"]), 0.1, "each shows its spot")
        # The picture, its planes, and what a few boxes need at a time.
        self.assertLess(self.peak_bytes() - before, 256 << 20)

    def test_a_page_with_more_boxes_than_the_fan_out_may_take_is_refused(self):
        status, answer = self.spots("few-spots", spotted_png(80, 40))
        self.assertEqual(status, 400, str(answer)[:300])
        self.assertIn("stage 'spots': 3200 elements, its limit is 1000", answer["error"])
        status, answer = self.spots("few-spots", spotted_png(25, 40))
        self.assertEqual(status, 200, str(answer)[:300])
        self.assertEqual(answer["outputs"][0]["shape"], [1000])

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
    """melspectrogram takes its largest value over all rows, hey_jarvis a branch by what a row says:
    rows of a batch must not see each other's."""

    def serve(self, *flags):
        """A server with the two, a model that can be batched, and pipelines over them."""
        samples = pathlib.Path(SAMPLES)
        folder = tempfile.TemporaryDirectory(prefix="plexus-served-")
        self.addCleanup(folder.cleanup)
        repository = pathlib.Path(folder.name)
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
        server = Server(repository, "--admin-port", "0", *flags)
        self.addCleanup(server.__exit__)
        server.__enter__()
        threading.Thread(target=server.process.stderr.read, daemon=True).start()
        admin = server.process.stdout.readline().split()[-1]
        return server, int(admin.rsplit(":", 1)[1])

    def clip_and_rows(self, server):
        """The sample's words, and what hey_jarvis gets of it: f32[16,96] each."""
        examples = pathlib.Path(__file__).resolve().parent.parent / "examples"
        clip = (examples / "audio" / "hey-jarvis.wav").read_bytes()
        pcm = clip[clip.index(b"data") + 8 :]
        rows = self.ask(server, "rows", "audio", "INT16", [len(pcm) // 2], pcm)
        size = 16 * 96 * 4
        self.assertEqual(len(rows) % size, 0)
        return pcm, [rows[at : at + size] for at in range(0, len(rows), size)]

    def test_a_batch_gives_the_bytes_of_its_rows(self):
        server, admin = self.serve()
        pcm, rows = self.clip_and_rows(server)
        scores = self.ask(server, "wake-hey-jarvis", "audio", "INT16", [len(pcm) // 2], pcm)
        alone = b"".join(
            self.ask(server, "hey_jarvis", None, "FP32", [1, 16, 96], row) for row in rows
        )
        self.assertEqual(scores, alone)
        values = struct.unpack(f"<{len(scores) // 4}f", scores)
        self.assertGreater(max(values), 0.5, "one branch")
        self.assertLess(min(values), 0.5, "the other one")
        server.port = admin
        segments = json.loads(server.call("GET", "/paths")[1])["segments"]
        jarvis = [s for s in segments if "hey_jarvis" in s["pipelines"] and not s["batchable"]]
        self.assertTrue(any("If" in s["why_not_batchable"] for s in jarvis), segments)
        # Its largest value is taken over all rows.
        mel = [s for s in segments if "melspectrogram" in s["pipelines"] and not s["batchable"]]
        self.assertTrue(any("ReduceMax" in s["why_not_batchable"] for s in mel), segments)

    def test_rows_that_must_not_meet_do_not_where_others_do(self):
        server, admin = self.serve("--threads", "1", "--batching", "immediate", "--no-sharing")
        pcm, rows = self.clip_and_rows(server)
        many = 16
        samples = struct.unpack(f"<{len(pcm) // 2}h", pcm)
        clips = []
        for i in range(many):  # loud and quiet ones: beside a loud one a quiet one has no floor
            part = samples[500 * i : 500 * i + 8000]
            scale = 1 if i % 2 else 1e-3
            clips.append(struct.pack("<8000f", *(scale * value for value in part)))
        mel = [("melspectrogram", None, "FP32", [1, 8000], clip) for clip in clips]
        image = struct.pack(f"<{76 * 32}f", *(value / 1000 for value in samples[: 76 * 32]))
        control = [("embedding_model", None, "FP32", [1, 76, 32, 1], image)] * many
        step = max(1, len(rows) // many)  # both branches
        jarvis = [("hey_jarvis", None, "FP32", [1, 16, 96], row) for row in rows[::step]]

        def batches():
            port, server.port = server.port, admin
            try:
                return json.loads(server.call("GET", "/stats")[1])["batching"]["batches"]
            finally:
                server.port = port

        with concurrent.futures.ThreadPoolExecutor(len(rows)) as pool:
            def at_once(calls):
                return list(pool.map(lambda call: self.ask(server, *call), calls))

            alone = {calls[0][0]: [self.ask(server, *call) for call in calls]
                     for calls in (mel, jarvis)}
            rounds = 0
            while batches() == 0 and rounds < 500:
                at_once(control)
                rounds += 1
            before = batches()
            self.assertGreater(before, 0, "what may be batched is")
            for _ in range(rounds + 10):
                self.assertEqual(at_once(mel), alone["melspectrogram"])
            self.assertEqual(batches(), before)
            for _ in range(rounds + 10):  # up to its If it may be batched
                for got, wanted in zip(at_once(jarvis), alone["hey_jarvis"], strict=True):
                    got, wanted = struct.unpack("<f", got)[0], struct.unpack("<f", wanted)[0]
                    self.assertAlmostEqual(got, wanted, delta=1e-5)
        scores = [struct.unpack("<f", score)[0] for score in alone["hey_jarvis"]]
        self.assertGreater(max(scores), 0.5, "one branch")
        self.assertLess(min(scores), 0.5, "the other one")

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
