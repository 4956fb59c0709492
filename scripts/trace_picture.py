"""Draws traces of Plexus (docs/tracing.md) as one SVG: who ran where, and how long each job took.

    trace_picture.py [-o FILE.svg] [TITLE=]TRACE.json ...
    trace_picture.py [-o FILE.svg] --workload FILE.yaml --policies fifo,srpt

The second form takes the traces itself, from `plexus simulate`. Standard library only.
"""

import argparse
import html
import json
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
PALETTE = ["#b5533c", "#2a7f62", "#33658a", "#e0a030", "#7a5195", "#5f9ea0", "#8a8d33", "#c06c84"]
LEFT, WIDTH, ROW, GAP = 120, 640, 16, 4


class Trace:
    """What a picture needs of a trace: blocks by unit and jobs, times in µs."""

    def __init__(self, document: dict):
        events = document["traceEvents"]
        self.tracks = {}  # (pid, tid): name
        order = {}
        for e in events:
            if e["ph"] == "M" and e["name"] == "thread_name":
                self.tracks[e["pid"], e["tid"]] = e["args"]["name"]
            if e["ph"] == "M" and e["name"] == "thread_sort_index":
                order[e["pid"], e["tid"]] = e["args"]["sort_index"]
        self.blocks, self.jobs = {}, []
        with_units = set()
        for e in events:
            if e["ph"] != "X":
                continue
            key = (e["pid"], e["tid"])
            span = (e["ts"], e["ts"] + e["dur"], e["args"].get("job"))
            if e["cat"] == "blocks":
                self.blocks.setdefault(key, []).append(span)
                with_units.update([key] if self.tracks[key] != "launches" else [])
            elif e["cat"] == "job" and "status" in e["args"]:
                self.jobs.append((*span, e["name"]))
        # Launches that the hardware placed say nothing that its units do not say better.
        if with_units:
            for key in [k for k in self.blocks if self.tracks[k].startswith("launches")]:
                del self.blocks[key]
        self.units = sorted(self.blocks, key=lambda k: (k[0], order.get(k, k[1])))
        self.jobs.sort(key=lambda job: (job[0], job[2]))
        starts = [s[0] for spans in self.blocks.values() for s in spans]
        starts += [job[0] for job in self.jobs]
        if not starts:
            raise ValueError("the trace holds no jobs and no blocks")
        self.begin = min(starts)
        ends = [s[1] for spans in self.blocks.values() for s in spans]
        self.end = max(ends + [job[1] for job in self.jobs])


def _merged(spans: list) -> list:
    """Neighbouring blocks of one job become one box."""
    out = []
    for begin, end, job in sorted(spans):
        if out and out[-1][2] == job and begin - out[-1][1] < 1:
            out[-1] = (out[-1][0], max(end, out[-1][1]), job)
        else:
            out.append((begin, end, job))
    return out


def _mean_ms(trace: Trace) -> float:
    return sum(job[1] - job[0] for job in trace.jobs) / len(trace.jobs) / 1e3


def draw(traces: list) -> str:
    """traces: (title, Trace) in the order of the panels; all share one time axis."""
    span = max(t.end - t.begin for _, t in traces) or 1
    colors = {}
    out = []

    def color(job) -> str:
        return colors.setdefault(job, PALETTE[len(colors) % len(PALETTE)])

    def bar(x0, x1, y, height, fill, opacity=1.0):
        out.append(
            f'<rect x="{LEFT + x0 / span * WIDTH:.2f}" y="{y:.1f}" '
            f'width="{max((x1 - x0) / span * WIDTH, 0.5):.2f}" height="{height}" fill="{fill}"'
            + (f' opacity="{opacity}"' if opacity < 1 else "")
            + "/>"
        )

    def label(x, y, text, anchor="start", size=12, fill="#222"):
        out.append(
            f'<text x="{x}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{fill}">'
            f"{html.escape(text)}</text>"
        )

    y = 8
    for title, trace in traces:
        if trace.jobs:
            title = f"{title}: mean {_mean_ms(trace):.2f} ms"
        y += 20
        label(8, y, title, size=14)
        y += 8
        for job in trace.jobs:
            color(job[2])
        first_run = {}
        for key in trace.units:
            label(LEFT - 6, y + ROW - 4, trace.tracks.get(key, "unit"), "end")
            for begin, end, job in _merged(trace.blocks[key]):
                bar(begin - trace.begin, end - trace.begin, y, ROW - 2, color(job))
                first_run[job] = min(first_run.get(job, begin), begin)
            y += ROW
        y += GAP
        for begin, end, job, name in trace.jobs:
            text = re.sub(r" #\d+$", "", name)
            label(LEFT - 6, y + ROW - 4, text, "end", fill=color(job))
            runs = first_run.get(job, end)
            bar(begin - trace.begin, runs - trace.begin, y + 5, 4, color(job), 0.3)
            bar(runs - trace.begin, end - trace.begin, y + 3, 8, color(job))
            at = LEFT + (end - trace.begin) / span * WIDTH + 4
            label(at, y + ROW - 4, f"{(end - begin) / 1e3:.2f} ms", size=11)
            y += ROW
        y += GAP
    y += 14
    step = 10 ** len(str(int(span / 5))) / 10
    step *= next(f for f in (1, 2, 5, 10) if span / (step * f) <= 8)
    tick = 0.0
    while tick <= span:
        label(LEFT + tick / span * WIDTH, y, f"{tick / 1e3:g}", "middle", 11, "#666")
        tick += step
    label(LEFT + WIDTH + 40, y, "ms", size=11, fill="#666")
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 80}" height="{y + 10:.0f}" '
        'font-family="sans-serif"><rect width="100%" height="100%" fill="white"/>'
    )
    return head + "\n".join(out) + "\n</svg>\n"


def _simulated(workload: str, policies: list) -> list:
    plexus = ROOT / "build" / "release" / "plexus"
    traces = []
    with tempfile.TemporaryDirectory() as folder:
        for policy in policies:
            file = pathlib.Path(folder) / "trace.json"
            command = [plexus, "simulate", workload, "--policy", policy, "--trace", file, "--json"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            traces.append((f"{policy} (simulated)", Trace(json.loads(file.read_text()))))
    return traces


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("traces", nargs="*", metavar="[TITLE=]TRACE.json")
    parser.add_argument("-o", "--output", default="-", help="FILE.svg (default: stdout)")
    parser.add_argument("--workload", help="for plexus simulate")
    parser.add_argument("--policies", default="fifo,srpt", help="one panel each")
    args = parser.parse_args()
    try:
        traces = _simulated(args.workload, args.policies.split(",")) if args.workload else []
        for given in args.traces:
            title, _, path = given.rpartition("=")
            path = pathlib.Path(path)
            traces.append((title or path.stem, Trace(json.loads(path.read_text()))))
        if not traces:
            parser.error("give a trace, or --workload")
        svg = draw(traces)
    except (OSError, ValueError, KeyError, subprocess.CalledProcessError) as error:
        print(f"trace_picture.py: {error}", file=sys.stderr)
        return 1
    if args.output == "-":
        print(svg, end="")
    else:
        pathlib.Path(args.output).write_text(svg)
    return 0


if __name__ == "__main__":
    sys.exit(main())
