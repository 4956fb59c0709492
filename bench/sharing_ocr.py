"""Text and numbers on the same images: two pipelines that share their models, against no sharing.

Real servers on this machine's CPU, over HTTP. `ocr` and `ocr-digits` have everything in common but
what they make of the recogniser's characters; sharing.py says how they are asked.

`none` is a server without sharing of work, `processes` a server process for each pipeline with
models of its own.

arithmetic_limit: the processor time of the two pipelines by themselves, host steps included, over
what is left when the shared path is counted once; the shared path's own time comes from a pipeline
that ends with the recogniser. of_limit: throughput_gain of the group over it.

Two rounds are under way at a time: a request by itself leaves a core idle while it decodes its
image or waits for its last line, whatever it shares. throughput_gain_alone is that of one round at
a time.
"""

import contextlib
import os
import pathlib
import struct
import tempfile
import zlib

import report
import sharing
from serving import Server, busy_ms, encode

NAMES = ["ocr", "ocr-digits"]
PATH = "shared-path"  # a pipeline of the common stages alone
IMAGES = ("receipt.png", "notice.png", "ticket.png")
IN_FLIGHT = 2  # rounds
TARGETS = {"of_limit": 0.9, "of_limit_separate": 0.9}


def chunks(png: bytes):
    at = 8
    while at < len(png):
        (size,) = struct.unpack(">I", png[at : at + 4])
        yield png[at + 4 : at + 8], png[at + 8 : at + 8 + size]
        at += size + 12


def tinted(png: bytes, change: tuple) -> bytes:
    """The image with its colours a little darker: every entry of its palette."""
    out = [png[:8]]
    for kind, data in chunks(png):
        if kind == b"PLTE":
            data = bytes(max(0, value - change[i % 3]) for i, value in enumerate(data))
        check = zlib.crc32(kind + data)
        out += [struct.pack(">I", len(data)), kind, data, struct.pack(">I", check)]
    return b"".join(out)


def images() -> list:
    return [(report.ROOT / "examples" / "images" / name).read_bytes() for name in IMAGES]


def variants(count: int, rng) -> list:
    """Images that no two requests share: the samples in colours of their own."""
    base = images()
    out = []
    for i, change in enumerate(rng.permutation(16**3)[:count].tolist()):
        colour = (change % 16, change // 16 % 16, change // 256)
        out.append(encode({"image": tinted(base[i % len(base)], colour)}))
    return out


def shared_path() -> str:
    """ocr.yaml with a corner of the recogniser's output in place of its text."""
    source = (sharing.REPOSITORY / "pipelines" / "ocr.yaml").read_text()
    lines = source.replace("name: ocr\n", f"name: {PATH}\n").splitlines()
    cut = next(i for i, line in enumerate(lines) if "name: read" in line)
    return "\n".join(
        lines[:cut]
        + [
            "      - {name: step, op: slice, input: characters, start: 0, end: 1, axis: 1}",
            "      - {name: corner, op: slice, input: step, start: 0, end: 1, axis: 2}",
            "    outputs: [{name: corner, from: corner}]",
            "outputs:",
            "  - {name: corner, from: lines.corner}",
            "  - {name: box, from: found.boxes}",
            "",
        ]
    )


def run(quick: bool, only: set | None):
    repeats, slices, rounds = (3, 2, 6) if quick else (10, 3, 8)
    comparison = sharing.Comparison(NAMES, variants, in_flight=IN_FLIGHT)
    one_at_a_time = sharing.Comparison(NAMES, variants, modes=("group",))
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        repositories = sharing.Repositories(folder, NAMES, {PATH: shared_path()})
        first = encode({"image": images()[0]})
        memory = sharing.memory_of(repositories, NAMES, first)

        shared = stack.enter_context(Server(repositories.whole))
        unshared = stack.enter_context(Server(repositories.whole, "--no-sharing"))
        each = [stack.enter_context(Server(folder)) for folder in repositories.each]
        runs = 7 if quick else 21
        times = busy_ms(unshared, [*NAMES, PATH], first, runs, Server.processor_ns)
        limit, alone, path = sharing.arithmetic_limit(times, NAMES, PATH)
        systems = {"shared": [shared] * 2, "none": [unshared] * 2, "processes": each}
        comparison.meet(systems, repeats, rounds, slices)
        one_at_a_time.meet(systems, repeats, rounds, 1)
        counters = shared.sharing()

    gains = comparison.gains("none")
    alone_gains = one_at_a_time.gains("none")
    result = {
        "experiment": "sharing-ocr",
        "environment": report.environment(),
        "quick": quick,
        "repeats": repeats,
        "slices_per_repeat": slices,
        "images_per_slice": rounds,
        "processor_ms_alone": {name: round(ms, 3) for name, ms in alone.items()},
        "processor_ms_shared_path": round(path, 3),
        "rounds_in_flight": IN_FLIGHT,
        **sharing.summary(gains, limit),
        "throughput_gain_alone": alone_gains["group"]["throughput_gain"]["median"],
        **memory,
        "outputs_equal": comparison.same and one_at_a_time.same,
        "gains": gains,
        "gains_alone": alone_gains,
        "gains_over_processes": comparison.gains("processes"),
        "sharing_counters": counters,
        "cores": len(os.sched_getaffinity(0)),
    }
    result["targets"] = {key: {"target": t, "met": result[key] >= t} for key, t in TARGETS.items()}
    title = "Text and numbers on images: throughput over no sharing"
    return result, sharing.picture(title, gains, limit)
