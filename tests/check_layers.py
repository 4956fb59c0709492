"""Fails on an include that goes up the house (docs/design.md), or into a library a layer may not use."""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

# layer: the layers whose headers it may include besides its own. Longest matching folder wins.
USES = {
    "base": [],
    "yaml": ["base"],
    "graph": ["base"],
    "graph/onnx": ["base", "graph"],
    "program": ["base", "graph"],
    "profile": ["base"],
    "device": ["base", "graph", "program"],
    "device/sim": ["base", "graph", "program", "device"],
    "device/cpu": ["base", "graph", "program", "device"],
    "device/cpu/vision": ["base", "graph", "program"],
    "sched": ["base", "graph", "program", "profile", "device"],
    "paths": ["base", "graph"],
    "simulate": [
        "base",
        "yaml",
        "graph",
        "graph/onnx",
        "program",
        "profile",
        "device",
        "device/sim",
        "sched",
    ],
    "pipeline": [
        "base",
        "yaml",
        "graph",
        "program",
        "profile",
        "device",
        "device/cpu",
        "device/cpu/vision",
        "sched",
        "paths",
    ],
    "serve": [
        "base",
        "yaml",
        "graph",
        "graph/onnx",
        "program",
        "profile",
        "device",
        "sched",
        "paths",
        "pipeline",
    ],
    "client": ["base", "graph"],
    "cli": [
        "base",
        "graph",
        "graph/onnx",
        "program",
        "profile",
        "device",
        "sched",
        "paths",
        "pipeline",
        "simulate",
        "serve",
        "client",
    ],
}
# Tests of a layer may also use what implements the interfaces that they test.
TESTS_ALSO = {"sched": ["device/sim"], "device/cpu": ["graph/onnx", "sched"], "serve": ["client"]}
# Nothing but the standard library and the system: these build on a bare GPU host.
BARE = ("base", "graph", "program", "profile", "device", "device/sim", "sched")
STANDARD = re.compile(r"^(?!.*\.h$).*$|^(sys/|linux/|netinet/|arpa/|immintrin)")
SYSTEM_HEADERS = {"pthread.h", "sched.h", "time.h", "unistd.h", "fcntl.h", "errno.h", "signal.h"}
TESTING = ("gtest/", "benchmark/")


def layer_of(path: str) -> str | None:
    folders = path.split("/")
    for n in range(len(folders), 0, -1):
        if "/".join(folders[:n]) in USES:
            return "/".join(folders[:n])
    return None


def problems_in(file: pathlib.Path) -> list[str]:
    path = file.relative_to(ROOT).as_posix()
    layer = layer_of(str(pathlib.PurePosixPath(path).parent))
    if layer is None:
        return []
    is_test = re.search(r"_(test|bench|fuzz)\.cc$|/test_", path) is not None
    allowed = [layer, *USES[layer], *(TESTS_ALSO.get(layer, []) if is_test else [])]
    found = []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        if match := re.match(r'\s*#include "([^"]+)"', line):
            target = layer_of(str(pathlib.PurePosixPath(match[1]).parent))
            if target is not None and target not in allowed:
                found.append(f"{path}:{number}: {layer} may not include {match[1]}")
        elif match := re.match(r"\s*#include <([^>]+)>", line):
            header = match[1]
            fine = STANDARD.match(header) or header in SYSTEM_HEADERS
            if layer in BARE and not fine and not (is_test and header.startswith(TESTING)):
                found.append(f"{path}:{number}: {layer} may not use <{header}>")
    return found


def main() -> int:
    files = [
        f
        for layer in USES
        if "/" not in layer
        for f in sorted((ROOT / layer).rglob("*"))
        if f.suffix in (".h", ".cc")
    ]
    found = [problem for file in files for problem in problems_in(file)]
    print("\n".join(found) if found else f"{len(files)} files keep to their layers")
    return 1 if found or not files else 0


if __name__ == "__main__":
    sys.exit(main())
