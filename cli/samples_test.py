"""Asks a real server every sample request, as ./run does.

usage: samples_test.py PLEXUS MODEL.onnx SAMPLES  (as cli_test.py)
"""

import json
import os
import pathlib
import subprocess
import sys
import threading
import unittest

from cli_test import SAMPLES, Server

ROOT = pathlib.Path(__file__).resolve().parent.parent


@unittest.skipUnless(SAMPLES and os.path.isdir(SAMPLES), "no sample repository")
class SamplesTest(unittest.TestCase):
    def test_every_sample_request_is_answered_right(self):
        with Server(SAMPLES) as server:
            # Its log would fill the pipe.
            threading.Thread(target=server.process.stderr.read, daemon=True).start()
            done = subprocess.run(
                [sys.executable, str(ROOT / "scripts" / "run_samples.py"), "--json",
                 "--http-port", str(server.port), "--pid", str(server.process.pid)],
                capture_output=True, text=True, timeout=500,
            )
        self.assertEqual(done.returncode, 0, done.stderr)
        report = json.loads(done.stdout.splitlines()[-1])
        self.assertTrue(report["ok"], done.stderr)
        asked = {result["pipeline"] for result in report["results"]}
        pipelines = {path.stem for path in pathlib.Path(SAMPLES, "pipelines").glob("*.yaml")}
        self.assertEqual(pipelines - asked, set(), "each is asked")


if __name__ == "__main__":
    unittest.main(argv=["samples_test.py"], verbosity=2)
