"""What the sample pipelines give does not depend on what they share: bit for bit, where no batch
was formed, and nearly where rows of several requests ran as one.

usage: sharing_test.py PLEXUS MODEL.onnx SAMPLES  (as cli_test.py)
"""

import array
import json
import os
import pathlib
import shutil
import struct
import sys
import tempfile
import threading
import time
import unittest

from cli_test import PATIENCE_S, SAMPLES, Server

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "scripts"))
import run_samples  # noqa: E402
import sample_inputs  # noqa: E402

WAKES = [f"wake-{w}" for w in
         ("alexa", "hey-jarvis", "hey-mycroft", "hey-rhasspy", "timer", "weather")]
# Pipelines that take the same input, and the inputs that they are asked about.
FAMILIES = [
    (WAKES, "audio", "INT16", "audio", ["timer.wav", "alexa.wav", "too-short.wav"]),
    (["ocr", "ocr-digits"], "image", "BYTES", "file", ["images/ticket.png", "images/blank.png"]),
    (["resnet18", "mobilenetv2"], "input", "FP32", "image", [1, 2]),
    (["file-type"], "file", "BYTES", "file", ["files/greeting.py", "files/notes.md"]),
    (["music-notes"], "audio", "INT16", "music", ["two-notes.wav", "melody.wav"]),
]
STREAM, CHUNK, STREAMED = "stream-wake", 1280, ("alexa.wav", "timer.wav")
# What fuses in it depends on sizes that only a request tells, so that it may run as fewer kernels
# in one piece than segment by segment (docs/sharing.md).
LAST_BITS = {"file-type"}
# One of each family; what they share with the others comes later.
FIRST = ["wake-alexa", "ocr", "resnet18", "file-type", "music-notes"]


def tensor(name, dtype, kind, source):
    raw = sample_inputs.content(kind, source)
    shape = [1]
    if kind == "image":
        shape = sample_inputs.IMAGE_SHAPE
    elif dtype == "BYTES":
        raw = struct.pack("<I", len(raw)) + raw
    else:
        shape = [len(raw) // 2]
    return name, dtype, shape, raw


QUESTIONS = [
    [(member, tensor(name, dtype, kind, source)) for member in members]
    for members, name, dtype, kind, sources in FAMILIES
    for source in sources
]


class Asked:
    """A server that runs, and what it is asked."""

    def __init__(self, cleanup, repository, *flags):
        self.server = Server(repository, "--admin-port", "0", "--threads", "2", *flags)
        self.server.__enter__()
        cleanup(self.server.__exit__)
        admin = self.server.process.stdout.readline().split()[-1]
        self.admin_port = int(admin.rsplit(":", 1)[1])
        # Its log would fill the pipe.
        threading.Thread(target=self.server.process.stderr.read, daemon=True).start()

    def stats(self):
        client = run_samples.Client("127.0.0.1", self.admin_port)
        try:
            return json.loads(client.call("GET", "/stats")[2])
        finally:
            client.close()

    def ask(self, model, given, **parameters):
        """Outputs: name -> (datatype, shape, bytes)."""
        name, dtype, shape, raw = given
        request = {
            "inputs": [{"name": name, "datatype": dtype, "shape": shape,
                        "parameters": {"binary_data_size": len(raw)}}],
            "parameters": {**parameters, "binary_data_output": True},
        }
        header = json.dumps(request).encode()
        headers = {"Inference-Header-Content-Length": str(len(header))}
        client = run_samples.Client("127.0.0.1", self.server.port)
        try:
            status, answer, body = client.call(
                "POST", f"/v2/models/{model}/infer", header + raw, headers
            )
        finally:
            client.close()
        if status != 200:
            raise AssertionError(f"{model}: {status} {body[:300]}")
        at = int(answer["Inference-Header-Content-Length"])
        outputs = {}
        for value in json.loads(body[:at])["outputs"]:
            size = value["parameters"]["binary_data_size"]
            outputs[value["name"]] = (value["datatype"], value["shape"], body[at : at + size])
            at += size
        return outputs

    def stream(self, source):
        """The answers to a session's chunks, as the outputs of one: name -> (..., bytes)."""
        raw = sample_inputs.content("audio", source)
        size = 2 * CHUNK
        pieces = [raw[at : at + size] for at in range(0, len(raw) - size + 1, size)]
        joined = {}
        for i, piece in enumerate(pieces):
            answer = self.ask(
                STREAM, ("chunk", "INT16", [CHUNK], piece), sequence_id=f"{source} {id(raw)}",
                sequence_start=i == 0, sequence_end=i == len(pieces) - 1,
            )
            for name, (dtype, shape, data) in answer.items():
                before = joined.get(name, (dtype, [0, *shape[1:]], b""))
                rows = [before[1][0] + shape[0], *shape[1:]]
                joined[name] = (dtype, rows, before[2] + data)
        return joined

    def at_once(self, calls):
        """The answers to (model, tensor) pairs that are asked at the same time."""
        answers, barrier = [None] * len(calls), threading.Barrier(len(calls))

        def run(i, model, given):
            barrier.wait()
            answers[i] = self.stream(given) if model == STREAM else self.ask(model, given)

        threads = [threading.Thread(target=run, args=(i, *c)) for i, c in enumerate(calls)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return answers

    def group(self, questions):
        """The answers of one request to all of a family, a member each."""
        names = [model for model, _ in questions]
        outputs = self.ask(",".join(names), questions[0][1])
        return [
            {k[len(name) + 1 :]: v for k, v in outputs.items() if k.startswith(name + ".")}
            for name in names
        ]


def nearly(expected, got):
    """Whether two outputs differ at most in their last bits."""
    if expected[:2] != got[:2] or expected[0] != "FP32":
        return expected == got
    a, b = (array.array("f", x[2]) for x in (expected, got))
    limit = 1e-4 * max((abs(x) for x in a), default=0)
    return all(abs(x - y) <= limit for x, y in zip(a, b, strict=True))


@unittest.skipUnless(SAMPLES and os.path.isdir(SAMPLES), "no sample repository")
class SharingTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        plain = Asked(cls.addClassCleanup, SAMPLES, "--no-sharing", "--batching", "none")
        cls.alone = [[plain.ask(*q) for q in questions] for questions in QUESTIONS]
        cls.streams = [plain.stream(source) for source in STREAMED]
        plain.server.__exit__()

    def check(self, expected, got, exact, what):
        self.assertEqual(expected.keys(), got.keys(), what)
        for name in expected:
            same = expected[name] == got[name] if exact else nearly(expected[name], got[name])
            self.assertTrue(same, f"{what}: output {name}, exact: {exact}")

    def compare(self, server, expected, calls, ask, what):
        """Exactly, unless rows ran as a batch meanwhile."""
        before = server.stats()["batching"]["batches"]
        answers = ask(calls)
        exact = server.stats()["batching"]["batches"] == before
        for (model, given), wanted, got in zip(calls, expected, answers, strict=True):
            source = given if model == STREAM else f"{given[0]} of {len(given[3])} bytes"
            bits = exact and model not in LAST_BITS
            self.check(wanted, got, bits, f"{what}: {model} on {source}")
        return exact

    def compare_all(self, server):
        """How many comparisons were exact, and how many there were."""
        exact = []
        for turn in range(2):
            for questions, alone in zip(QUESTIONS, self.alone, strict=True):
                what = f"turn {turn}, at once"
                calls, expected = questions + questions[:1], alone + alone[:1]
                exact.append(self.compare(server, expected, calls, server.at_once, what))
                if len(questions) > 1:
                    what = f"turn {turn}, as a group"
                    exact.append(self.compare(server, alone, questions, server.group, what))
            streams = [(STREAM, source) for source in STREAMED]
            exact.append(self.compare(server, self.streams, streams, server.at_once, "at once"))
        # Requests of all kinds and inputs together.
        calls = [q for questions in QUESTIONS for q in questions]
        expected = [answer for answers in self.alone for answer in answers]
        exact.append(self.compare(server, expected, calls, server.at_once, "all at once"))
        return sum(exact), len(exact)

    def wait_for_paths(self, server):
        end = time.monotonic() + PATIENCE_S
        while server.stats()["sharing"]["paths"] < len(WAKES) and time.monotonic() < end:
            time.sleep(0.05)
        self.assertGreaterEqual(server.stats()["sharing"]["paths"], len(WAKES))

    def test_without_batches_all_is_equal_to_the_last_bit_however_it_was_loaded(self):
        samples = pathlib.Path(SAMPLES)
        with tempfile.TemporaryDirectory(prefix="plexus-sharing-") as folder:
            repository = pathlib.Path(folder)
            (repository / "pipelines").mkdir()
            entries = {p.stem: p for p in (samples / "pipelines").glob("*.yaml")}
            for labels in (samples / "pipelines").glob("*.txt"):
                shutil.copy(labels, repository / "pipelines")
            models = [p for p in samples.iterdir() if p.name != "pipelines"]
            first = "".join(entries[name].read_text() for name in FIRST if name in entries)
            for model in models:
                if model.name in FIRST or f"model: {model.name}," in first:
                    (repository / model.name).symlink_to(model)
            for name in FIRST:
                if name in entries:
                    (repository / "pipelines" / f"{name}.yaml").symlink_to(entries[name])
            server = Asked(self.addCleanup, repository, "--batching", "none")
            self.ask_the_first(server, "by themselves")
            later = [m for m in models if not (repository / m.name).exists()]
            for model in later:
                (repository / model.name).symlink_to(model)
            for name, path in entries.items():
                if not (repository / "pipelines" / path.name).exists():
                    (repository / "pipelines" / path.name).symlink_to(path)
                    later.append(pathlib.Path(name))
            for entry in later:
                status, body = server.server.call(
                    "POST", f"/v2/repository/models/{entry.name}/load"
                )
                self.assertEqual(status, 200, body)
            self.wait_for_paths(server)
            self.ask_the_first(server, "after others were loaded")
            exact, count = self.compare_all(server)
            self.assertEqual(exact, count)
            self.assertGreater(server.stats()["sharing"]["joined"], 0)
            server.server.__exit__()

    def ask_the_first(self, server, what):
        for questions, alone in zip(QUESTIONS, self.alone, strict=True):
            pairs = [(q, a) for q, a in zip(questions, alone, strict=True) if q[0] in FIRST]
            calls, expected = [q for q, _ in pairs], [a for _, a in pairs]
            self.compare(server, expected, calls, lambda c: [server.ask(*q) for q in c], what)

    def test_as_it_is_started_all_is_equal_but_for_the_last_bits_of_batches(self):
        server = Asked(self.addCleanup, SAMPLES)
        self.wait_for_paths(server)
        exact, _ = self.compare_all(server)
        self.assertGreater(exact, 0)
        self.assertGreater(server.stats()["sharing"]["joined"], 0)
        server.server.__exit__()


if __name__ == "__main__":
    unittest.main(argv=["sharing_test.py"], verbosity=2)
