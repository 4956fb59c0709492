"""Servers as child processes and a client that costs little, for experiments over HTTP.

The client shares the machine with the servers it measures, so it does as little as it can: one
thread, requests put together beforehand, answers decoded afterwards.
"""

import contextlib
import http.client
import json
import pathlib
import select
import socket
import struct
import subprocess
import time

import numpy as np

import report

DATATYPES = {"int16": "INT16", "float32": "FP32", "int64": "INT64"}


class Server:
    """plexus serve on a folder, as a context manager."""

    def __init__(self, repository: pathlib.Path, *flags: str):
        self.command = [
            str(report.ROOT / "build" / "release" / "plexus"),
            *("serve", "--repository", str(repository), "--json"),
            *("--http-port", "0", "--admin-port", "0"),
            *flags,
        ]

    def __enter__(self):
        self.process = subprocess.Popen(
            self.command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        announced = json.loads(self.process.stdout.readline())
        self.port = int(announced["url"].rsplit(":", 1)[1].strip("/"))
        self.admin_port = int(announced["admin_url"].rsplit(":", 1)[1].strip("/"))
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                if self.get("/v2/health/ready", self.port)[0] == 200:
                    return self
            time.sleep(0.05)
        raise RuntimeError("the server did not become ready")

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(timeout=20)

    def get(self, path: str, port: int):
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()

    def stats(self) -> dict:
        return json.loads(self.get("/stats", self.admin_port)[1])

    def busy_ns(self) -> int:
        """Processor time of all kernels so far."""
        return self.stats()["dispatcher"]["busy_ns"]

    def processor_ns(self) -> int:
        """Processor time of the whole process so far: host steps and the server's own as well."""
        return time.clock_gettime_ns((~self.process.pid << 3) | 2)  # clock_getcpuclockid(3)

    def sharing(self) -> dict:
        return self.stats()["sharing"]

    def resident_bytes(self) -> int:
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        return int(fields["RssAnon"].split()[0]) * 1024


def _tensor(name: str, value):
    """An input's entry in the JSON, and its bytes; `value` is an array or the bytes of one file."""
    if isinstance(value, bytes):
        datatype, shape, data = "BYTES", [1], struct.pack("<I", len(value)) + value
    else:
        datatype, shape, data = DATATYPES[str(value.dtype)], list(value.shape), value.tobytes()
    parameters = {"binary_data_size": len(data)}
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": parameters}, data


def encode(inputs: dict, binary_outputs: bool = False):
    """One binary request body of named inputs, and the length of its JSON."""
    tensors = [_tensor(name, value) for name, value in inputs.items()]
    head = {"inputs": [entry for entry, _ in tensors]}
    if binary_outputs:
        head["parameters"] = {"binary_data_output": True}
    text = json.dumps(head).encode()
    return text + b"".join(data for _, data in tensors), len(text)


def decode(answer) -> dict:
    """Outputs by name, of what Connection.receive gave: f32, or texts where they came as JSON."""
    status, json_bytes, body = answer
    told = json.loads(body[:json_bytes] if json_bytes else body)
    if status != 200:
        raise RuntimeError(f"{status}: {told}")
    outputs, at = {}, json_bytes
    for output in told["outputs"]:
        if "data" in output:
            kind = object if output["datatype"] == "BYTES" else np.float32
            array = np.asarray(output["data"], kind)
        else:
            size = output["parameters"]["binary_data_size"]
            array = np.frombuffer(body[at : at + size], np.float32)
            at += size
        outputs[output["name"]] = array.reshape(output["shape"])
    return outputs


class Connection:
    """One request at a time to one server."""

    def __init__(self, server: Server):
        self.socket = socket.create_connection(("127.0.0.1", server.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray()

    def send(self, name: str, body: bytes, json_bytes: int) -> None:
        head = (
            f"POST /v2/models/{name}/infer HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            "Content-Type: application/octet-stream\r\n"
            f"Inference-Header-Content-Length: {json_bytes}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode()
        sent = self.socket.sendmsg([head, body]) - len(head)
        if sent < 0:
            raise RuntimeError("the socket took less than a request's head")
        if sent < len(body):
            self.socket.sendall(memoryview(body)[sent:])

    def receive(self):
        """(status, bytes of JSON or 0 where all is JSON, body)"""
        end = -1
        while end < 0:
            self._more()
            end = self.buffer.find(b"\r\n\r\n")
        lines = self.buffer[:end].decode("latin-1").split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in lines[1:])
        total = end + 4 + int(fields["content-length"])
        while len(self.buffer) < total:
            self._more()
        body = bytes(self.buffer[end + 4 : total])
        self.buffer.clear()
        json_bytes = int(fields.get("inference-header-content-length", 0))
        return int(lines[0].split(" ", 2)[1]), json_bytes, body

    def _more(self) -> None:
        data = self.socket.recv(1 << 20)
        if not data:
            raise RuntimeError("the server closed the connection")
        self.buffer += data

    def ask(self, name: str, body: bytes, json_bytes: int) -> dict:
        """Outputs by name."""
        self.send(name, body, json_bytes)
        return decode(self.receive())


class Crew:
    """Asks several names at once: a round is one request to each.

    Up to `in_flight` rounds are under way at a time; the next begins when one has all its answers.
    `servers`: one for all names, or a list with one for each.
    """

    def __init__(self, servers, names, in_flight: int = 1):
        self.names = list(names)
        if isinstance(servers, Server):
            servers = [servers] * len(self.names)
        self.lanes = [[Connection(server) for server in servers] for _ in range(in_flight)]
        self.poll = select.poll()
        self.by_fd = {}
        for lane, connections in enumerate(self.lanes):
            for i, connection in enumerate(connections):
                self.by_fd[connection.socket.fileno()] = (lane, i)
                self.poll.register(connection.socket, select.POLLIN)

    def rounds(self, bodies: list) -> list:
        """By round and name: (answer as of Connection.receive, seconds). `bodies`: likewise."""
        answers = [[None] * len(self.names) for _ in bodies]
        begins = [[0.0] * len(self.names) for _ in bodies]
        at = [0] * len(self.lanes)  # the round of each lane
        left = [0] * len(bodies)
        begun = ended = 0

        def begin(lane: int) -> None:
            nonlocal begun
            at[lane], left[begun] = begun, len(self.names)
            for i, connection in enumerate(self.lanes[lane]):
                begins[begun][i] = time.monotonic()
                connection.send(self.names[i], *bodies[begun][i])
            begun += 1

        for lane in range(min(len(self.lanes), len(bodies))):
            begin(lane)
        while ended < len(bodies):
            for fd, _ in self.poll.poll():
                lane, i = self.by_fd[fd]
                answer = self.lanes[lane][i].receive()
                index = at[lane]
                answers[index][i] = (answer, time.monotonic() - begins[index][i])
                left[index] -= 1
                if left[index] == 0:
                    ended += 1
                    if begun < len(bodies):
                        begin(lane)
        return answers


def busy_ms(server: Server, names, body, runs: int, spent_ns=Server.busy_ns) -> dict:
    """Processor times of single requests, by name; all are asked in turn, so that drift meets all.

    `spent_ns`: the server's counter that says so.
    """
    connection = Connection(server)
    times = {name: [] for name in names}
    for i in range(runs + 3):
        for name in names:
            before = spent_ns(server)
            connection.ask(name, *body)
            if i >= 3:
                times[name].append((spent_ns(server) - before) / 1e6)
    return times
