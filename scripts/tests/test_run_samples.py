"""run_samples.py against a server that answers from examples/expected.json."""

import contextlib
import http.server
import io
import json
import pathlib
import struct
import sys
import threading
import unittest
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import run_samples
import sample_inputs

CASES = json.loads(sample_inputs.EXPECTED.read_text())["cases"]

# The first pixels of image 1, computed apart from sample_inputs.py.
EXPECTED_PIXELS = [-0.8163528442382812, -0.2045745849609375, -0.40583038330078125]


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers each infer request in the order of CASES; `spoil(case, outputs)` may change it."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer in one piece: in two, the second waits for the first's receipt
    spoil = staticmethod(lambda case, outputs: outputs)

    def reply(self, status, body, headers=()):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for key, value in headers:
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.reply(200, b"")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        size = int(self.headers.get("Inference-Header-Content-Length") or len(body))
        request = json.loads(body[:size])
        case = CASES[self.server.asked]
        source = case["inputs"][0]
        raw = sample_inputs.content(source["kind"], source["source"])
        answers = json.loads(json.dumps(case["outputs"]))
        row = self.server.row
        if case.get("stream"):
            assert request["parameters"]["sequence_start"] == (row == 0)
            chunk = 2 * source["shape"][0]
            raw = raw[row * chunk : (row + 1) * chunk]
            for value in answers:
                columns = value["shape"][1]
                value["shape"] = [1, columns]
                value["data"] = value["data"][row * columns : (row + 1) * columns]
            self.server.row += 1
        for value in answers:
            if "every" in value:  # the rows between those that are kept: whatever
                columns, kept = value["shape"][1], value["data"]
                whole = [0.5] * (value["shape"][0] * columns)
                for i in range(0, len(kept), columns):
                    whole[i * value["every"] : i * value["every"] + columns] = kept[i : i + columns]
                value["data"] = whole
        if not case.get("stream") or request["parameters"]["sequence_end"]:
            self.server.asked += 1
            self.server.row = 0
        if "data" in request["inputs"][0]:
            assert request["inputs"][0]["data"] == run_samples.unpacked(raw, source["datatype"])
        elif source["datatype"] == "BYTES":
            assert body[size:] == struct.pack("<I", len(raw)) + raw
        else:
            assert body[size:] == raw
        outputs = self.spoil(case, answers)
        self.reply(200, json.dumps({"model_name": case["pipeline"], "outputs": outputs}).encode())

    def log_message(self, *args):
        pass


def run_main(spoil=None):
    """(exit status, the JSON object) of `run_samples.py --json` against such a server."""
    handler = type("Spoilt", (Answers,), {"spoil": staticmethod(spoil)}) if spoil else Answers
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.asked = server.row = 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    out = io.StringIO()
    arguments = ["run_samples.py", "--json", "--http-port", str(server.server_port), "--wait", "5"]
    try:
        with mock.patch.object(sys, "argv", arguments), contextlib.redirect_stdout(out):
            with contextlib.redirect_stderr(io.StringIO()):
                status = run_samples.main()
    finally:
        server.shutdown()
        server.server_close()
    return status, json.loads(out.getvalue().splitlines()[-1])


class Table(unittest.TestCase):
    def test_a_long_answer_is_cut_and_a_short_one_is_not(self):
        width = run_samples.CELL_WIDTH
        self.assertEqual(run_samples.cut("x" * width), "x" * width)
        shown = run_samples.cut("word, " * 20)
        self.assertTrue(shown.endswith("...") and len(shown) <= width, shown)


class RunSamples(unittest.TestCase):
    def test_right_answers_pass(self):
        status, report = run_main()
        self.assertEqual(status, 0)
        self.assertTrue(report["ok"])
        self.assertEqual(len(report["results"]), len(CASES))
        for result in report["results"]:
            self.assertLessEqual({"pipeline", "input", "output", "expected", "ok"}, result.keys())

    def test_a_score_beyond_the_tolerance_fails(self):
        def spoil(case, outputs):
            if case["pipeline"] == "wake-weather" and outputs[0]["data"]:
                outputs[0]["data"][3] += 0.0011
            return outputs

        status, report = run_main(spoil)
        self.assertEqual(status, 1)
        self.assertEqual(sum(not result["ok"] for result in report["results"]), 2)

    def test_another_label_shape_or_value_that_is_no_number_fails(self):
        def spoil(case, outputs):
            data = outputs[0]["data"]
            if outputs[0]["datatype"] == "BYTES":
                outputs[0]["data"] = ["unheard-of"]
            elif outputs[0]["shape"][0] == 0:
                outputs[0]["shape"], outputs[0]["data"] = [1, 1], [0.0]
            else:
                data[0] = float("nan")
            return outputs

        status, report = run_main(spoil)
        self.assertEqual(status, 1)
        self.assertFalse(any(result["ok"] for result in report["results"]))

    def test_a_missing_output_and_a_wrong_count_fail(self):
        def spoil(case, outputs):
            if case["pipeline"] == "file-type":
                return outputs[:1]
            outputs[0]["data"] = outputs[0]["data"] + [0.0]
            return outputs

        status, report = run_main(spoil)
        self.assertEqual(status, 1)
        self.assertFalse(any(result["ok"] for result in report["results"]))

    def test_no_server_is_an_error_and_still_one_json_object(self):
        out = io.StringIO()
        arguments = ["run_samples.py", "--json", "--http-port", "1", "--wait", "0"]
        with mock.patch.object(sys, "argv", arguments), contextlib.redirect_stdout(out):
            with contextlib.redirect_stderr(io.StringIO()):
                self.assertEqual(run_samples.main(), 1)
        report = json.loads(out.getvalue())
        self.assertFalse(report["ok"])
        self.assertIn("error", report)


class SampleInputs(unittest.TestCase):
    def test_images_are_the_same_everywhere(self):
        raw = sample_inputs.image(1)
        self.assertEqual(len(raw), 4 * 3 * 224 * 224)
        values = run_samples.unpacked(raw, "FP32")
        self.assertLessEqual(max(map(abs, values)), 2.0)
        self.assertEqual(values[:3], EXPECTED_PIXELS)
        self.assertNotEqual(raw, sample_inputs.image(2))

    def test_every_wake_word_has_a_clip_that_says_it_and_one_too_short(self):
        by_pipeline = {}
        for case in CASES:
            if case["pipeline"].startswith("wake-"):
                by_pipeline.setdefault(case["pipeline"], []).append(case["outputs"][0])
        self.assertEqual(len(by_pipeline), 6)
        for outputs in by_pipeline.values():
            self.assertIn(0, [output["shape"][0] for output in outputs])
            self.assertGreater(max(max(output["data"], default=0) for output in outputs), 0.85)


if __name__ == "__main__":
    unittest.main()
