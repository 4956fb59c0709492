#!/usr/bin/env python3
"""Sends every sample request to a Plexus server and compares with examples/expected.json.

Speaks the Open Inference Protocol v2 over HTTP, with the standard library alone. Prints a table;
with --json the table goes to stderr and one JSON object is the last line of stdout:
{"ok":true,"results":[{"pipeline","input","output","expected","max_error","ok"}, ...]}.
Exit status 0 only if every answer is right.
"""

import argparse
import array
import http.client
import json
import math
import os
import struct
import sys
import time

import sample_inputs

REQUEST_LIMIT_S = 120  # a first request waits for its compile
CELL_WIDTH = 32  # of the table's columns; what is longer is cut
SHOWN_VALUES = 4000  # in the JSON object; of larger outputs shape and largest value
DTYPES = {"FP32": "f", "FP64": "d", "INT16": "h", "INT32": "i", "INT64": "q", "UINT8": "B"}


class ServerError(Exception):
    """The server's answer, or the lack of one, in words."""


class Client:
    """One keep-alive connection, remade when it broke."""

    def __init__(self, host, port):
        self.host, self.port = host, port
        self.connection = None

    def close(self):
        if self.connection:
            self.connection.close()
        self.connection = None

    def call(self, method, path, body=b"", headers=None, limit_s=REQUEST_LIMIT_S):
        """(status, headers, body); ServerError when no answer comes."""
        try:
            if not self.connection:
                self.connection = http.client.HTTPConnection(self.host, self.port, timeout=limit_s)
            self.connection.request(method, path, body, headers or {})
            answer = self.connection.getresponse()
            return answer.status, answer.headers, answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise ServerError(f"{type(error).__name__}: {error}") from error

    def wait_ready(self, names, limit_s, pid):
        """Returns when the server and all `names` are ready; `pid` is the server's, or None."""
        deadline = time.monotonic() + limit_s
        wanted = ["/v2/health/ready", *(f"/v2/models/{name}/ready" for name in names)]
        last = "no answer yet"
        while wanted:
            try:
                status, _, body = self.call("GET", wanted[0], limit_s=10)
                if status == 200:
                    wanted.pop(0)
                    continue
                last = f"status {status} {body[:200].decode(errors='replace')}".strip()
            except ServerError as error:
                last = str(error)
            if pid is not None and not is_alive(pid):
                raise ServerError("the server has ended")
            if time.monotonic() > deadline:
                raise ServerError(f"{wanted[0]} not ready within {limit_s} s: {last}")
            time.sleep(0.1)

    def infer(self, case, as_json):
        """The answer's outputs: name -> (datatype, shape, flat list).

        A case with "stream" is a session: its one input in pieces of its shape, one request each,
        and as outputs the rows of all answers in order.
        """
        raws = [sample_inputs.content(value["kind"], value["source"]) for value in case["inputs"]]
        if not case.get("stream"):
            return self.ask(case, raws, as_json, {})
        value = case["inputs"][0]
        size = math.prod(value["shape"]) * array.array(DTYPES[value["datatype"]]).itemsize
        pieces = [raws[0][at : at + size] for at in range(0, len(raws[0]) - size + 1, size)]
        outputs = {}
        for index, piece in enumerate(pieces):
            parameters = {
                "sequence_id": f"sample {value['source']}",
                "sequence_start": index == 0,
                "sequence_end": index == len(pieces) - 1,
            }
            answer = self.ask(case, [piece], as_json, parameters)
            for name, (datatype, shape, data) in answer.items():
                joined = outputs.setdefault(name, (datatype, [0, *shape[1:]], []))
                joined[1][0] += shape[0]
                joined[2].extend(data)
        return outputs

    def ask(self, case, raws, as_json, parameters):
        """One request: `raws` are its inputs' bytes."""
        inputs, binary = [], b""
        for value, raw in zip(case["inputs"], raws):
            spec = {key: value[key] for key in ("name", "datatype", "shape")}
            if value["datatype"] == "BYTES":
                raw = struct.pack("<I", len(raw)) + raw
            if as_json:
                spec["data"] = unpacked(raw, value["datatype"])
            else:
                spec["parameters"] = {"binary_data_size": len(raw)}
                binary += raw
            inputs.append(spec)
        outputs = [
            {"name": value["name"], "parameters": {"binary_data": not as_json}}
            for value in case["outputs"]
        ]
        request = {"inputs": inputs, "outputs": outputs, "parameters": parameters}
        header = json.dumps(request).encode()
        headers = {"Content-Type": "application/json"}
        if not as_json:
            headers["Content-Type"] = "application/octet-stream"
            headers["Inference-Header-Content-Length"] = str(len(header))
        path = f"/v2/models/{case['pipeline']}/infer"
        status, answer, body = self.call("POST", path, header + binary, headers)
        if status != 200:
            raise ServerError(f"status {status}: {body[:300].decode(errors='replace')}")
        try:
            return parsed(body, answer.get("Inference-Header-Content-Length"))
        except (KeyError, TypeError, ValueError, struct.error) as error:
            raise ServerError(f"malformed answer: {type(error).__name__} {error}") from error


def is_alive(pid):
    try:
        os.kill(pid, 0)
        return True
    except PermissionError:
        return True
    except ProcessLookupError:
        return False


def unpacked(raw, datatype):
    """Little-endian tensor bytes as a flat list; BYTES elements as text."""
    if datatype == "BYTES":
        values, at = [], 0
        while at < len(raw):
            (size,) = struct.unpack_from("<I", raw, at)
            if at + 4 + size > len(raw):
                raise ValueError("a BYTES element is longer than its tensor")
            values.append(raw[at + 4 : at + 4 + size].decode(errors="replace"))
            at += 4 + size
        return values
    values = array.array(DTYPES[datatype])
    values.frombytes(raw)
    if sys.byteorder == "big":
        values.byteswap()
    return values.tolist()


def parsed(body, header_length):
    """An infer answer's outputs: name -> (datatype, shape, flat list)."""
    header_size = int(header_length) if header_length else len(body)
    header, at = json.loads(body[:header_size]), header_size
    outputs = {}
    for value in header["outputs"]:
        size = value.get("parameters", {}).get("binary_data_size")
        if size is None:
            data = value["data"]
        else:
            data = unpacked(body[at : at + size], value["datatype"])
            at += size
        shape = list(value["shape"])
        if len(data) != math.prod(shape):
            raise ValueError(f"'{value['name']}' has {len(data)} values for shape {shape}")
        outputs[value["name"]] = (value["datatype"], shape, data)
    return outputs


def thinned(case, outputs):
    """The outputs; of those with "every" in the case one row in so many, under the whole shape."""
    steps = {value["name"]: value["every"] for value in case["outputs"] if "every" in value}
    result = dict(outputs)
    for name in steps.keys() & outputs.keys():
        datatype, shape, data = outputs[name]
        columns = math.prod(shape[1:])
        rows = [data[at : at + columns] for at in range(0, len(data), columns or 1)]
        result[name] = (datatype, shape, sum(rows[:: steps[name]], []))
    return result


def compared(expected, got):
    """(largest error, reason it is wrong or None) of one output, an entry of expected.json."""
    if got is None:
        return None, f"no output '{expected['name']}'"
    datatype, shape, data = got
    if datatype != expected["datatype"] or shape != expected["shape"]:
        wanted = f"{expected['datatype']}{expected['shape']}"
        return None, f"{expected['name']} is {datatype}{shape}, not {wanted}"
    if len(data) != len(expected["data"]):
        return None, f"{expected['name']} has {len(data)} values, not {len(expected['data'])}"
    if datatype == "BYTES":
        return 0.0, None if data == expected["data"] else f"{expected['name']} differs"
    errors = [abs(float(a) - b) for a, b in zip(data, expected["data"])]
    if any(math.isnan(error) for error in errors):
        return None, f"{expected['name']} has NaN"
    worst = max(errors, default=0.0)
    limit = expected["tolerance"]
    return worst, None if worst <= limit else f"{expected['name']} off by {worst:.3g} > {limit:.3g}"


def shown(outputs):
    """Outputs, name -> (datatype, shape, flat list), for JSON: rows of a 2-D tensor, a single value
    as itself, and of more than 100 columns the five largest as [column, value]."""
    result = {}
    for name, (datatype, shape, data) in outputs.items():
        if datatype != "BYTES":  # JSON has no NaN and no infinity
            data = [value if math.isfinite(value) else None for value in data]
        columns = shape[-1] if len(shape) == 2 else 0
        if math.prod(shape) > SHOWN_VALUES and datatype != "BYTES":
            largest = max((value for value in data if value is not None), default=None)
            result[name] = {"shape": shape, "max": largest}
        elif columns > 100 and shape[0] == 1 and None not in data:
            best = sorted(range(len(data)), key=lambda index: -data[index])[:5]
            result[name] = {"top5": [[index, data[index]] for index in best]}
        elif columns:
            result[name] = [data[at : at + columns] for at in range(0, len(data), columns)]
        else:
            result[name] = data[0] if len(data) == 1 else data
    return result


def summary(outputs):
    """The same in a few words for the table."""
    words = []
    lines = [data for datatype, _, data in outputs.values() if datatype == "BYTES"]
    if len(outputs) > 2 and lines:  # a text's lines
        return " / ".join(lines[0]) or "no text"
    if len(outputs) > 2:  # of each the largest
        rows = max(shape[0] for _, shape, _ in outputs.values())
        best = (f"{name} {max(data):.2f}" for name, (_, _, data) in outputs.items() if data)
        return f"{rows} rows, max {', '.join(best)}"
    for datatype, shape, data in outputs.values():
        if datatype == "BYTES":
            words.append(" ".join(data))
        elif len(data) == 0:
            words.append("no rows")
        elif len(data) == 1:
            words.append(f"{data[0]:.4f}")
        elif len(shape) == 2 and shape[0] == 1 and shape[1] > 100:
            best = max(range(len(data)), key=data.__getitem__)
            words.append(f"class {best} ({data[best]:.2f})")
        elif len(shape) == 2:
            best = [max(data[column :: shape[1]]) for column in range(shape[1])]
            peak = " ".join(f"{value:.4f}" if len(best) == 1 else f"{value:.2f}" for value in best)
            words.append(f"{shape[0]} rows, max {peak}")
        else:
            words.append(f"{len(data)} values")
    return " ".join(words)


def ask(client, case, as_json):
    """One case's entry of the results, with the table's words under the key `_row`."""
    source = case["inputs"][0]["source"]
    name = f"image {source}" if isinstance(source, int) else source.split("/")[-1]
    wanted = {v["name"]: (v["datatype"], v["shape"], v["data"]) for v in case["outputs"]}
    result = {
        "pipeline": case["pipeline"],
        "input": name,
        "output": None,
        "expected": shown(wanted),
    }
    row = [case["pipeline"], name, "", summary(wanted), "", "WRONG"]
    try:
        got = thinned(case, client.infer(case, as_json))
        verdicts = [compared(value, got.get(value["name"])) for value in case["outputs"]]
        problems = [problem for _, problem in verdicts if problem]
        result["output"], row[2] = shown(got), summary(got)
        if not problems:
            worst = max(range(len(verdicts)), key=lambda index: verdicts[index][0])
            result["max_error"] = verdicts[worst][0]
            row[4], row[5] = f"{result['max_error']:.1e}", "ok"
            kinds = {value.get("tolerance") for value in case["outputs"]} - {None}
            if len(kinds) > 1 and result["max_error"] > 0:
                row[4] += f" ({case['outputs'][worst]['name']})"  # not all numbers are of a kind
    except ServerError as error:
        problems = [str(error)]
        row[2] = "-"
    result["ok"] = not problems
    if problems:
        result["error"] = "; ".join(problems)
    result["_row"] = row
    return result


def cut(text):
    """`text`, or as much of it as a cell of the table holds."""
    return text if len(text) <= CELL_WIDTH else text[: CELL_WIDTH - 3].rstrip(" ,/") + "..."


def print_table(results, file):
    rows = [["pipeline", "input", "output", "expected", "error", ""]]
    rows += [[cut(text) for text in result["_row"]] for result in results]
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip(), file=file)
    for result in results:
        if not result["ok"]:
            print(f"WRONG {result['pipeline']} on {result['input']}: {result['error']}", file=file)
    right = sum(result["ok"] for result in results)
    print(f"{right} of {len(results)} answers agree with ONNX Runtime's", file=file)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--http-port", type=int, default=8000)
    parser.add_argument("--wait", type=float, default=120.0, help="seconds until it must be ready")
    parser.add_argument("--pid", type=int, help="give up as soon as this process has ended")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    args = parser.parse_args()
    cases = json.loads(sample_inputs.EXPECTED.read_text())["cases"]
    client = Client(args.host, args.http_port)
    table = sys.stderr if args.json else sys.stdout
    report = {"ok": False, "results": []}
    try:
        client.wait_ready(
            list(dict.fromkeys(case["pipeline"] for case in cases)), args.wait, args.pid
        )
    except ServerError as error:
        print(f"error: {error}", file=sys.stderr)
        report["error"] = str(error)
    else:
        # Every third request travels as JSON; files are not text, so they stay binary.
        for index, case in enumerate(cases):
            as_json = index % 3 == 2 and case["inputs"][0]["datatype"] != "BYTES"
            report["results"].append(ask(client, case, as_json))
        print_table(report["results"], table)
        for result in report["results"]:
            del result["_row"]
        report["ok"] = all(result["ok"] for result in report["results"])
    finally:
        client.close()
    if args.json:
        print(json.dumps(report, separators=(",", ":"), allow_nan=False), flush=True)
    return 0 if report["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
