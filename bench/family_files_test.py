"""Families written as files are what discovery says of the generated ones.

family_files_test.py PLEXUS_FAMILY_FILES PLEXUS
"""

import json
import pathlib
import subprocess
import sys
import tempfile

MEMBERS, BLOCKS, WIDTH = 3, 6, 64
# kind, changed, users of the segments in the order of a member's calls
CASES = [
    ("heads", 0, [3, 1]),
    ("last-layers", 2, [3, 1]),
    ("last-layers", BLOCKS, [1]),
    ("last-layers", 0, [3]),
    ("decoders", 2, [1, 3]),
    ("adapters", 2, [3, 1, 3, 1]),
]


def inspect(plexus: str, folder: pathlib.Path) -> dict:
    command = [plexus, "inspect", str(folder), "--shape", f"x=4,{WIDTH}", "--json"]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["paths"]


def main() -> int:
    writer, plexus = sys.argv[1:]
    for kind, changed, users in CASES:
        with tempfile.TemporaryDirectory() as folder:
            arguments = [folder, "m", kind, MEMBERS, BLOCKS, WIDTH, changed, 1]
            subprocess.run([writer, *map(str, arguments)], check=True)
            paths = inspect(plexus, pathlib.Path(folder))
            of = {segment["name"]: len(segment["pipelines"]) for segment in paths["segments"]}
            assert set(paths["pipelines"]) == {f"m-{i}" for i in range(MEMBERS)}, paths["pipelines"]
            for name, path in paths["pipelines"].items():
                found = [of[call["segment"]] for call in path["calls"]]
                assert found == users, f"{kind}, {changed} changed: {name} calls {found}"
    bad = subprocess.run([writer, folder, "m", "heads", "1", "1", "1", "0", "1"], check=False)
    assert bad.returncode == 1
    assert subprocess.run([writer], check=False).returncode == 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
