"""Runs the `plexus` binary as a user does: exit codes, messages, start, drain.

usage: cli_test.py PLEXUS MODEL.onnx SAMPLES  (SAMPLES: a sample repository, or "")
"""

import contextlib
import http.client
import json
import os
import pathlib
import resource
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree

PLEXUS, MODEL, SAMPLES = (os.path.abspath(a) if a else "" for a in sys.argv[1:4])
PATIENCE_S = 60


def plexus(*args, **kwargs):
    return subprocess.run(
        [PLEXUS, *args], capture_output=True, text=True, timeout=PATIENCE_S, **kwargs
    )


class Server:
    """`plexus serve` on a free port."""

    def __init__(self, repository, *flags, **process):
        self.process = subprocess.Popen(
            [PLEXUS, "serve", "--repository", str(repository), "--http-port", "0", *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **process,
        )
        first = self.process.stdout.readline()
        if not first.startswith("plexus: serving http://127.0.0.1:"):
            raise AssertionError(first + self.process.communicate()[1])
        self.url = first.split()[-1]
        self.port = int(self.url.rsplit(":", 1)[1])

    def __enter__(self):
        # "ready" comes last in the log once everything is loaded.
        for line in self.process.stderr:
            if line.rstrip().endswith(" ready"):
                return self
        raise AssertionError("the server ended")

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def call(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, data

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode


class SimulateTest(unittest.TestCase):
    def test_reports_the_same_numbers_for_the_same_seed(self):
        flags = ["simulate", "--preset", "fig2", "--jobs", "200", "--json"]
        first, second = plexus(*flags), plexus(*flags)
        self.assertEqual(first.returncode, 0, first.stderr)
        self.assertEqual(first.stdout, second.stdout)
        report = json.loads(first.stdout)
        self.assertTrue(report["simulated"])
        self.assertEqual(report["all"]["jobs"], 200)

    def test_writes_plot_and_trace(self):
        with tempfile.TemporaryDirectory() as folder:
            plot, trace = f"{folder}/a.svg", f"{folder}/a.json"
            done = plexus(
                "simulate", "--preset", "fig2", "--jobs", "20", "--plot", plot, "--trace", trace
            )
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("simulated t4", done.stdout)
            self.assertIn("<svg", pathlib.Path(plot).read_text())
            events = json.loads(pathlib.Path(trace).read_text())["traceEvents"]
            self.assertGreaterEqual(len(events), 20 * 9)

    def test_files_that_cannot_be_written_are_found_out_before_the_run(self):
        for flag in ("--plot", "--trace"):
            done = plexus("simulate", "--preset", "fig2", "--jobs", "20", flag, "/none/file")
            self.assertEqual((done.returncode, done.stdout), (1, ""), flag)
            self.assertIn("plexus: cannot write to '/none/file': No such file", done.stderr)

    def test_what_makes_no_sense_is_refused(self):
        for flags in (
            [],
            ["--preset", "nothing"],
            ["--preset", "fig2", "--system", "magic"],
            ["--preset", "fig2", "--policy", "magic"],
            ["--preset", "fig2", "--system", "paella", "--policy", "srpt"],
            ["--preset", "fig2", "--jobs", "0"],
            ["--preset", "fig2", "--load", "nan"],
        ):
            done = plexus("simulate", *flags)
            self.assertEqual(done.returncode, 2, f"{flags}: {done.stderr}")
            self.assertTrue(done.stderr.startswith("plexus: "), done.stderr)
        self.assertEqual(plexus("simulate", "/nonexistent.yaml").returncode, 1)


class CliTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="plexus-cli-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.repository = self.folder / "repository"
        (self.repository / "good").mkdir(parents=True)
        shutil.copy(MODEL, self.repository / "good" / "model.onnx")

    def add_broken(self):
        (self.repository / "broken").mkdir()
        (self.repository / "broken" / "model.onnx").write_bytes(b"no model")

    def test_version_and_help(self):
        self.assertRegex(plexus("--version").stdout, r"^plexus \d+\.\d+\.\d+\n$")
        for command in ([], ["serve"], ["inspect"], ["compile"], ["infer"]):
            done = plexus(*command, "--help")
            self.assertEqual(done.returncode, 0)
            self.assertIn("Exit codes", done.stdout)

    def test_wrong_command_lines_exit_2(self):
        for args in (
            [],
            ["frobnicate"],
            ["serve"],
            ["serve", "--repository", "x", "--http-port", "70000"],
            ["serve", "--repository", "x", "--policy", "nope"],
            ["serve", "--repository", "x", "--no-such-flag"],
            ["infer"],
            ["inspect", str(self.repository), "--shape", "x=1,,2"],
            ["inspect", str(self.repository), "--shape", "x=1", "--shape", "x=2"],
        ):
            done = plexus(*args)
            self.assertEqual(done.returncode, 2, f"{args}: {done.stderr}")
            self.assertTrue(done.stderr.strip(), args)

    def test_usage_errors_are_one_line_of_ours_with_the_way_out(self):
        a_number = "expected a whole number from "
        for args, message, help_of in (
            ([], "a command is missing: serve, infer, inspect, compile, simulate or trace", ""),
            (["frobnicate"], "unknown command 'frobnicate'", ""),
            (["--frobnicate"], "unknown flag '--frobnicate'", ""),
            (["serve"], "--repository is required", " serve"),
            (["serve", "--repository"], "--repository: its value is missing", " serve"),
            (["infer"], "NAME is required", " infer"),
            (["inspect"], "PATH is required", " inspect"),
            (["inspect", "a", "b"], "unexpected argument 'b'", " inspect"),
            (["compile", "a", "--b"], "unknown flag '--b'", " compile"),
            (["inspect", "a", "--json=maybe"], "--json takes no value", " inspect"),
            (
                ["serve", "--repository", "a", "--http-port", "abc"],
                f"--http-port: {a_number}0 to 65535, got 'abc'",
                " serve",
            ),
            (
                ["serve", "--repository", "a", "--threads", "-1"],
                f"--threads: {a_number}0 to 1024, got '-1'",
                " serve",
            ),
            (
                ["serve", "--repository", "a", "--max-body-bytes", "5XB"],
                "--max-body-bytes: expected a size such as 512MB or 1GiB, got '5XB'",
                " serve",
            ),
            (
                ["serve", "--repository", "a", "--max-body-bytes", "0"],
                "--max-body-bytes: expected from 1 to 2147483648 bytes, got '0'",
                " serve",
            ),
            (
                ["serve", "--repository", "a", "--log-level", "loud"],
                "--log-level: expected debug, error, info, off or warning, got 'loud'",
                " serve",
            ),
            (
                ["serve", "--repository", "a", "--policy", "fair(srpt, nan)"],
                "--policy: policy 'fair(srpt, nan)': the threshold is microseconds of device time, "
                "at least 0, or inf; got 'nan'",
                " serve",
            ),
            (
                ["infer", "a", "--timeout", "soon"],
                "--timeout: expected seconds from 0 to 86400, got 'soon'",
                " infer",
            ),
            (
                ["infer", "a", "--server", "http://b", "--repository", "c"],
                "--server and --repository exclude each other",
                " infer",
            ),
            (
                ["trace", "-o", "a", "--duration", "long"],
                "--duration: expected a time such as 5s, 500ms or 2m, at most a day, got 'long'",
                " trace",
            ),
            (["trace"], "--output is required", " trace"),
            (
                ["trace", "-o", "a", "--server", "http://"],
                "'http://' is no URL like http://127.0.0.1:8000",
                " trace",
            ),
        ):
            done = plexus(*args)
            self.assertEqual(done.returncode, 2, args)
            self.assertEqual(done.stderr, f"plexus: {message} (see plexus{help_of} --help)\n")
            self.assertEqual(done.stdout, "")

    def test_what_cannot_start_exits_3(self):
        done = plexus("serve", "--repository", str(self.folder / "nowhere"))
        self.assertEqual(done.returncode, 3, done.stderr)
        self.assertIn("nowhere", done.stderr)
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = str(taken.getsockname()[1])
            done = plexus("serve", "--repository", str(self.repository), "--http-port", port)
        self.assertEqual(done.returncode, 3, done.stderr)
        self.assertIn(f"127.0.0.1:{port}: the port is in use", done.stderr)
        done = plexus(
            "serve", "--repository", str(self.repository), "--host", "300.1.1.1"
        )
        self.assertEqual(done.returncode, 3, done.stderr)
        self.assertIn("300.1.1.1", done.stderr)

    def test_a_profile_path_that_cannot_be_written_exits_3(self):
        done = plexus(
            "serve",
            "--repository",
            str(self.repository),
            "--http-port",
            "0",
            "--profile-path",
            str(self.folder / "no" / "folder" / "profile"),
        )
        self.assertEqual(done.returncode, 3, done.stderr)
        self.assertIn("--profile-path", done.stderr)

    def test_a_profile_path_that_is_no_regular_file_exits_3_and_is_left_alone(self):
        pipe = self.folder / "pipe"
        os.mkfifo(pipe)
        flags = ["--repository", str(self.repository), "--http-port", "0"]
        for path in (pipe, self.folder):
            done = plexus("serve", *flags, "--profile-path", str(path))
            self.assertEqual(done.returncode, 3, done.stderr)
            self.assertIn("not a regular file", done.stderr)
        self.assertTrue(stat.S_ISFIFO(os.stat(pipe).st_mode))

    def test_a_flood_of_connections_leaves_files_and_the_administration_port(self):
        def few_files():
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

        with contextlib.ExitStack() as stack:
            server = stack.enter_context(
                Server(self.repository, "--admin-port", "0", preexec_fn=few_files)
            )
            admin = int(server.process.stdout.readline().rsplit(":", 1)[1])
            for _ in range(100):
                address = ("127.0.0.1", server.port)
                stack.enter_context(socket.create_connection(address, PATIENCE_S))
            connection = http.client.HTTPConnection("127.0.0.1", admin, timeout=PATIENCE_S)
            stack.callback(connection.close)
            connection.request("GET", "/policy")
            self.assertEqual(connection.getresponse().status, 200)

    def test_a_configuration_that_makes_no_sense_exits_3_with_the_reason(self):
        config = self.folder / "server.yaml"
        config.write_text("tenants:\n  shop: {weight: -3}\n")
        flags = ["--repository", str(self.repository), "--http-port", "0"]
        done = plexus("serve", *flags, "--config", str(config))
        self.assertEqual(done.returncode, 3, done.stderr)
        self.assertIn("tenant 'shop'", done.stderr)
        self.assertIn("from 0.001 to 1000000", done.stderr)
        done = plexus("serve", *flags, "--config", str(self.folder / "none.yaml"))
        self.assertEqual(done.returncode, 3, done.stderr)

    def test_a_broken_model_leaves_the_others_served(self):
        self.add_broken()
        with Server(self.repository) as server:
            self.assertEqual(server.call("GET", "/v2/models/good/ready")[0], 200)
            status, body = server.call("GET", "/v2/models/broken")
            self.assertEqual(status, 503)
            self.assertIn("broken", json.loads(body)["error"])
            index = json.loads(server.call("POST", "/v2/repository/index")[1])
            states = {entry["name"]: entry["state"] for entry in index}
            self.assertEqual(states, {"good": "READY", "broken": "UNAVAILABLE"})
            self.assertEqual(server.stop(), 0)

    def test_both_signals_end_it_with_0_and_keep_the_profile(self):
        profile = self.folder / "profile"
        for how in (signal.SIGTERM, signal.SIGINT):
            with Server(self.repository, "--profile-path", str(profile)) as server:
                self.assertEqual(server.stop(how), 0)
        self.assertTrue(profile.exists())

    def test_a_server_announces_itself_as_json(self):
        process = subprocess.Popen(
            [PLEXUS, "serve", "--repository", str(self.repository), "--http-port", "0"]
            + ["--admin-port", "0", "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        announced = json.loads(process.stdout.readline())
        process.terminate()
        process.communicate(timeout=PATIENCE_S)
        self.assertEqual(set(announced), {"url", "admin_url"})

    def test_a_trace_of_a_running_server_holds_its_requests(self):
        file = self.folder / "trace.json"
        flags = ["--admin-port", "0", "--trace-sample", "1"]
        with Server(self.repository, *flags) as server:
            admin = server.process.stdout.readline().split()[-1]
            for _ in range(3):
                sent = plexus("infer", "good", "--server", server.url, "--input", "x=[1,2,3]")
                self.assertEqual(sent.returncode, 0, sent.stderr)
            # What the standing sample has recorded.
            done = plexus("trace", "--server", admin, "--duration", "0", "-o", str(file), "--json")
            self.assertEqual(done.returncode, 0, done.stderr)
            summary = json.loads(done.stdout)
            self.assertEqual(summary["requests"], 3)
            self.assertEqual(summary["dropped"], 0)
            self.assertEqual(summary["bytes"], file.stat().st_size)
            events = json.loads(file.read_text())["traceEvents"]
            self.assertEqual(sum(e["ph"] == "b" and e["name"] == "good" for e in events), 3)
            # A trace of its own forgets that.
            done = plexus("trace", "--server", admin, "--duration", "20ms", "-o", str(file))
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("0 requests", done.stdout)
            # The wrong port, and a file that cannot be: said before anything is recorded.
            wrong = plexus("trace", "--server", server.url, "-o", str(file))
            self.assertEqual(wrong.returncode, 1)
            self.assertIn("administration port", wrong.stderr)
            nowhere = plexus("trace", "--server", admin, "-o", str(self.folder / "no" / "file"))
            self.assertEqual(nowhere.returncode, 1)
            self.assertIn("cannot write", nowhere.stderr)

    def test_infer_in_process_and_over_http_agree(self):
        values = "[1,-2,3.5]"
        local = plexus(
            "infer", "good", "--repository", str(self.repository), "--input", f"x={values}", "--json"
        )
        self.assertEqual(local.returncode, 0, local.stderr)
        with Server(self.repository) as server:
            remote = plexus(
                "infer", "good", "--server", server.url, "--input", f"x={values}", "--json"
            )
            self.assertEqual(remote.returncode, 0, remote.stderr)
            self.assertEqual(remote.stdout, local.stdout)
            out = self.folder / "out"
            raw = self.folder / "x.bin"
            raw.write_bytes(struct.pack("<3f", 1, -2, 3.5))
            saved = plexus(
                "infer", "good", "--server", server.url, "--input", f"x=@{raw}",
                "--output-dir", str(out),
            )
            self.assertEqual(saved.returncode, 0, saved.stderr)
            again = plexus(
                "infer", "good", "--server", server.url, "--input", f"x=@{out / 'y.npy'}", "--json"
            )
            self.assertEqual(again.stdout, local.stdout, again.stderr)
        answer = json.loads(local.stdout)
        self.assertEqual(answer["outputs"][0]["data"], [1, -2, 3.5])

    def test_infer_asks_several_at_once_in_process_and_over_http(self):
        self.shared_pipelines()
        group = self.repository / "pipelines" / "both.yaml"
        group.write_text("name: both\ngroup: [one, two, good]\n")
        ask = ["--input", "x=[1,2,3,4]", "--json"]
        answers = {}
        with Server(self.repository) as server:
            for name in ("one,two,good", "both"):
                for where in (["--repository", str(self.repository)], ["--server", server.url]):
                    done = plexus("infer", name, *where, *ask)
                    self.assertEqual(done.returncode, 0, done.stderr)
                    answers[name, where[0]] = json.loads(done.stdout)["outputs"]
        first = answers["both", "--repository"]
        self.assertEqual([o["name"] for o in first], ["one.y", "two.y", "good.y"])
        self.assertEqual(first[1]["data"], [4, 7, 10, 13])
        for key, answer in answers.items():
            self.assertEqual(answer, first, key)
        done = plexus("infer", "one,three", "--repository", str(self.repository), *ask)
        self.assertEqual(done.returncode, 1)
        self.assertIn("'three'", done.stderr)

    def test_infer_goes_on_with_a_sequence(self):
        pipelines = self.repository / "pipelines"
        pipelines.mkdir()
        (pipelines / "sum.yaml").write_text(
            "name: sum\ninputs: [{name: x, dtype: FP32, shape: [1]}]\n"
            "state: [{name: total, dtype: FP32, shape: [1], next: more}]\n"
            "stages: [{name: more, op: add, inputs: [total, x]}]\n"
            "outputs: [{name: out, from: more}]\n"
        )

        def ask(where, *flags):
            done = plexus("infer", "sum", *where, "--input", "x=[2]", "--json", *flags)
            if done.returncode != 0:
                return done.returncode, done.stderr
            return json.loads(done.stdout)["outputs"][0]["data"], done.stderr

        with Server(self.repository) as server:
            where = ["--server", server.url]
            for sequence in ("7", "seven"):
                flags = ["--sequence-id", sequence]
                self.assertEqual(ask(where, *flags, "--sequence-start"), ([2], ""))
                self.assertEqual(ask(where, *flags), ([4], ""))
                self.assertEqual(ask(where, *flags, "--sequence-end"), ([6], ""))
                code, message = ask(where, *flags)
                self.assertEqual(code, 1)
                self.assertIn("is not there", message)
        where = ["--repository", str(self.repository)]
        data, note = ask(where, "--sequence-id", "7", "--sequence-start")
        self.assertEqual(data, [2])
        self.assertIn("note: in this process a sequence ends with the command", note)
        code, message = ask(where, "--sequence-start")
        self.assertEqual(code, 2)
        self.assertIn("need --sequence-id", message)

    def test_infer_says_what_is_wrong(self):
        for args, message in (
            (["nope", "--input", "x=1"], "'nope'"),
            (["good", "--input", "x=@/no/such/file"], "/no/such/file"),
            (["good"], "input 'x' is missing"),
        ):
            done = plexus("infer", *args, "--repository", str(self.repository))
            self.assertEqual(done.returncode, 1, args)
            self.assertIn(message, done.stderr)
        for args, message in (
            (["--input", "y=1"], "--input y=1: no such input; 'good' has: x"),
            (["--input", "x"], "--input x: expected NAME=@FILE or NAME=VALUE"),
            (["--input", "x=1", "--input", "x=2"], "given twice"),
            (["--input", "x=hello"], "--input x: expected JSON, such as [1, 2, 3], got 'hello'"),
            (["--input", "x=[1,2]", "--shape", "x=3"], "3 elements"),
            (["--input", "x=1", "--shape", "y=1"], "--shape y=[1]: no such input"),
            (["--input", "x=1", "--shape", "x=1,,2"], "--shape x=1,,2: expected NAME=1,3"),
        ):
            done = plexus("infer", "good", *args, "--repository", str(self.repository))
            self.assertEqual(done.returncode, 2, f"{args}: {done.stderr}")
            self.assertIn(message, done.stderr)
            self.assertIn("(see plexus infer --help)", done.stderr)
        self.assertEqual(plexus("infer", "good", "--server", "ftp://x").returncode, 2)
        done = plexus("infer", "good", "--server", "http://127.0.0.1:1", "--input", "x=1")
        self.assertEqual(done.returncode, 1)
        self.assertIn("127.0.0.1:1", done.stderr)

    def test_only_a_servers_answers_carry_http_statuses(self):
        local = plexus("infer", "good", "--repository", str(self.repository))
        self.assertEqual(local.stderr, "plexus: input 'x' is missing\n")
        with Server(self.repository) as server:
            remote = plexus("infer", "good", "--server", server.url)
        self.assertEqual(remote.stderr, "plexus: input 'x' is missing (HTTP 400)\n")

    def test_inspect_refuses_the_shape_of_an_input_that_is_not_there(self):
        for command in ("inspect", "compile"):
            for path in (MODEL, str(self.repository)):
                done = plexus(command, path, "--shape", "y=8")
                self.assertEqual(done.returncode, 2, done.stderr)
                self.assertEqual(
                    done.stderr,
                    "plexus: --shape y=8: no input of such a name and shape; there are: x FP32[n] "
                    f"(see plexus {command} --help)\n",
                )
                self.assertEqual(done.stdout, "")
                done = plexus(command, path, "--shape", "x=8,2")
                self.assertEqual(done.returncode, 2, done.stderr)
            self.assertEqual(plexus(command, MODEL, "--shape", "8").returncode, 0)

    def test_inspect_says_nothing_but_the_error_about_what_is_no_model(self):
        empty = self.folder / "empty"
        (empty / "inner").mkdir(parents=True)
        text = self.folder / "text"
        text.write_text("root:x:0:0:root:/root:/bin/bash\n")
        for command in ("inspect", "compile"):
            for path in (text, empty, self.folder / "nothing"):
                done = plexus(command, str(path))
                self.assertEqual(done.returncode, 1)
                self.assertEqual(done.stdout, "")
                self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
                self.assertEqual(done.stderr.count(path.name), 1, done.stderr)

    def test_inspect_shows_the_shapes_asked_for_and_not_those_of_warm_up(self):
        (self.repository / "good" / "config.yaml").write_text("warm_up: [{x: [3]}, {x: [5]}]\n")
        done = plexus("inspect", str(self.repository), "--shape", "x=8", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        regions = json.loads(done.stdout)["models"][0]["regions"]
        self.assertEqual([region["inputs"] for region in regions], [["x FP32[8]"]])

    def add_pipeline(self):
        """Windows of 400 samples: one sample gives none, and nothing to run the model on."""
        (self.repository / "pipelines").mkdir()
        (self.repository / "pipelines" / "listen.yaml").write_text(
            "name: listen\n"
            "inputs: [{name: audio, dtype: INT16, shape: [-1]}]\n"
            "stages:\n"
            "  - {name: samples, op: cast, input: audio, to: FP32}\n"
            "  - {name: windows, op: window, input: samples, size: 400}\n"
            "  - {name: flat, op: reshape, input: windows, shape: [-1]}\n"
            "  - {name: same, model: good, inputs: {x: flat}}\n"
            "outputs: [{name: y, from: same}]\n"
        )

    def test_inspect_names_the_shape_that_an_open_input_needs(self):
        self.add_pipeline()
        wanted = "--shape audio=64000"
        done = plexus("inspect", str(self.repository))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(f"input 'audio' INT16[-1] has no fixed size: give {wanted}\n", done.stdout)
        self.assertRegex(done.stdout, r"same +model good +\d+ +.* flat\n")  # a stage
        self.assertRegex(done.stdout, r"\ngood +3 .* 1 +1 ")  # the model's row: 1 region, 1 kernel
        done = plexus("compile", str(self.repository))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, rf"listen .* give {wanted}\n")
        done = plexus("compile", str(self.repository), *wanted.split())
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertNotIn("give", done.stdout)

    def test_inspect_shows_a_pipelines_stages_and_regions(self):
        self.add_pipeline()
        path = str(self.repository / "pipelines" / "listen.yaml")
        done = plexus("inspect", path, "--shape", "audio=401", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        model = json.loads(done.stdout)["models"][0]
        self.assertEqual(
            [(s["name"], s.get("op", s.get("model")), s["inputs"]) for s in model["stages"]],
            [
                ("samples", "cast", ["audio"]),
                ("windows", "window", ["samples"]),
                ("flat", "reshape", ["windows"]),
                ("same", "good", ["flat"]),
            ],
        )
        self.assertEqual(model["shapes"], "audio=401")
        self.assertNotIn("advice", model)
        self.assertEqual(model["regions"][0]["outputs"], ["output y FP32[800]"])
        self.assertEqual(model["kernels"], sum(len(r["kernels"]) for r in model["regions"]))
        text = plexus("inspect", path, "--shape", "audio=401").stdout
        self.assertIn("audio INT16[401]", text)
        self.assertRegex(text, r"total of \d+ kernel")
        # Too short for a window: given by hand, so it is no advice but a note.
        text = plexus("inspect", path, "--shape", "audio=8").stdout
        self.assertIn("output 'y' has no element on these shapes", text)

    def shared_pipelines(self, both=False):
        """Two pipelines over one model, each with an operator of its own behind it. `both`: they
        give out what the model makes as well, so that it is no part of what comes behind."""
        pipelines = self.repository / "pipelines"
        pipelines.mkdir()
        head = "inputs: [{name: x, dtype: FP32, shape: [4]}]\nstages:\n"
        head += "  - {name: same, model: good, input: x}\n"
        more = "  - {name: scaled, op: scale, input: same, scale: %d, offset: 1}\n"
        tail = "outputs: [{name: y, from: scaled}%s]\n" % (", {name: z, from: same}" * both)
        for name, scale in (("one", 2), ("two", 3)):
            (pipelines / f"{name}.yaml").write_text(f"name: {name}\n" + head + more % scale + tail)

    def test_inspect_shows_what_pipelines_share(self):
        self.shared_pipelines(both=True)
        done = plexus("inspect", str(self.repository), "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        paths = json.loads(done.stdout)["paths"]
        self.assertEqual(sorted(paths["pipelines"]), ["one", "two"])  # "good" is their part
        users = [segment["pipelines"] for segment in paths["segments"]]
        self.assertEqual(sorted(users), [["one"], ["one", "two"], ["two"]])
        self.assertTrue(paths["flops_complete"])
        self.assertGreater(paths["flops_saved"], 0)
        self.assertLess(paths["flops_saved"], paths["flops"] / 2)
        text = plexus("inspect", str(self.repository)).stdout
        self.assertIn("shared paths: 2 pipelines in", text)

    def test_inspect_names_the_first_difference(self):
        self.shared_pipelines()
        where = str(self.repository)
        done = plexus("inspect", where, "--diff", "one", "two")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("'one' leaves what it shares with 'two' at", done.stdout)
        self.assertIn("scale", done.stdout)
        read = json.loads(plexus("inspect", where, "--diff", "one", "two", "--json").stdout)
        self.assertEqual((read["first"], read["second"]), ("one", "two"))
        self.assertIn("scale", read["difference"])
        same = plexus("inspect", where, "--diff", "one", "one").stdout
        self.assertIn("all that 'one' computes, 'one' computes too", same)
        unknown = plexus("inspect", where, "--diff", "one", "three")
        self.assertEqual(unknown.returncode, 1)
        self.assertIn("'three' is not loaded", unknown.stderr)
        self.assertEqual(plexus("inspect", where, "--diff", "one").returncode, 2)

    def test_inspect_draws_paths(self):
        self.shared_pipelines()
        dot, svg = self.folder / "p.dot", self.folder / "p.svg"
        done = plexus("inspect", str(self.repository), "--dot", str(dot), "--svg", str(svg))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue(dot.read_text().startswith("digraph"))
        root = xml.etree.ElementTree.parse(svg).getroot()
        self.assertTrue(root.tag.endswith("svg"))
        self.assertIn("one", "".join(root.itertext()))
        nowhere = plexus("inspect", str(self.repository), "--svg", str(self.folder / "no" / "p.svg"))
        self.assertEqual(nowhere.returncode, 1)
        self.assertIn("cannot write", nowhere.stderr)

    def test_inspect_and_compile(self):
        done = plexus("inspect", MODEL, "--shape", "x=8", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        model = json.loads(done.stdout)["models"][0]
        self.assertEqual(model["inputs"], [{"name": "x", "datatype": "FP32", "shape": "[n]"}])
        self.assertIn("regions", model)
        self.assertIn("output    y  FP32[n]", plexus("inspect", str(self.repository)).stdout)
        self.add_broken()
        done = plexus("compile", str(self.repository), "--json")
        self.assertEqual(done.returncode, 1)
        models = {m["name"]: m for m in json.loads(done.stdout)["models"]}
        self.assertIn("error", models["broken"])
        self.assertGreater(models["good"]["first_run_ms"], 0)
        self.assertEqual(plexus("inspect", str(self.folder / "nothing")).returncode, 1)

    @unittest.skipUnless(SAMPLES and os.path.isdir(SAMPLES), "no sample repository")
    def test_the_samples_run_in_process(self):
        examples = pathlib.Path(__file__).resolve().parent.parent / "examples"
        done = plexus(
            "infer", "wake-alexa", "--repository", SAMPLES, "--json",
            "--input", f"audio=@{examples}/audio/alexa.wav",
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertGreater(max(json.loads(done.stdout)["outputs"][0]["data"]), 0.85)
        done = plexus(
            "infer", "file-type", "--repository", SAMPLES,
            "--input", f"file=@{examples}/files/greeting.py",
        )
        self.assertIn('"python"', done.stdout, done.stderr)

    @unittest.skipUnless(SAMPLES and os.path.isdir(SAMPLES), "no sample repository")
    def test_the_samples_can_be_inspected(self):
        # An image for resnet18; the mel spectrogram's 'input' has another shape.
        done = plexus("compile", SAMPLES, "--json", "--shape", "input=2,3,224,224")
        self.assertEqual(done.returncode, 0, done.stderr)
        done = plexus("inspect", SAMPLES, "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        models = {m["name"]: m for m in json.loads(done.stdout)["models"]}
        self.assertGreater(models["file-type"]["kernels"], 5)  # magika's
        self.assertIn("--shape audio=64000", models["wake-timer"]["advice"])
        done = plexus("inspect", f"{SAMPLES}/pipelines/wake-timer.yaml", "--json", "--shape",
                      "audio=64000")
        timer = json.loads(done.stdout)["models"][0]
        kernels = [k["name"] for region in timer["regions"] for k in region["kernels"]]
        for stage in ("(mel/", "(embedding/", "(head/"):
            self.assertTrue(any(stage in name for name in kernels), stage)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
