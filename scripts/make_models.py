#!/usr/bin/env python3
"""Generates seeded models with real topologies: the compute of the real ones, no downloads.

    build/venv/bin/python scripts/make_models.py [--out FOLDER] [--force] NAME... | samples | all

`samples` are the models of the sample repository (default folder build/samples/models), `all` every
model for benchmarks (default folder build/bench-models). A model that is there and was written by
the same version of the generator is kept.
"""

import argparse
import hashlib
import pathlib
import time

from modelgen import bert, cnn

ROOT = pathlib.Path(__file__).resolve().parent.parent

MODELS = {
    "resnet18": cnn.resnet18,
    "resnet34": cnn.resnet34,
    "resnet50": cnn.resnet50,
    "mobilenetv2": cnn.mobilenetv2,
    "squeezenet1.1": cnn.squeezenet,
    "densenet121": cnn.densenet121,
    "googlenet": cnn.googlenet,
    "inceptionv3": cnn.inceptionv3,
    "resnet18-int8": cnn.resnet18_int8,
    "bert-base": bert.bert_base,
}
SAMPLES = ("resnet18", "mobilenetv2")


def generator_version():
    """Changes whenever the generator's own source does."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "scripts" / "modelgen").glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def shown(path):
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def make(name, folder, force):
    path, stamp = folder / f"{name}.onnx", folder / f".{name}.version"
    version = generator_version()
    if not force and path.exists() and stamp.exists() and stamp.read_text() == version:
        print(f"{name}: already in {shown(path)}")
        return
    begin = time.monotonic()
    content = MODELS[name]().SerializeToString(deterministic=True)
    partial = folder / f".{name}.partial"
    partial.write_bytes(content)
    partial.replace(path)
    stamp.write_text(version)
    print(
        f"{name}: {len(content) / 1e6:.1f} MB in {time.monotonic() - begin:.1f} s -> {shown(path)}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    choices = [*MODELS, "samples", "all"]
    parser.add_argument(
        "names", nargs="+", choices=choices, metavar="NAME", help=", ".join(choices)
    )
    parser.add_argument("--out", type=pathlib.Path, help="folder to write to")
    parser.add_argument("--force", action="store_true", help="write even what is there")
    args = parser.parse_args()
    names = []
    for name in args.names:
        names += SAMPLES if name == "samples" else MODELS if name == "all" else [name]
    default = "samples/models" if args.names == ["samples"] else "bench-models"
    folder = args.out or ROOT / "build" / default
    folder.mkdir(parents=True, exist_ok=True)
    for name in dict.fromkeys(names):
        make(name, folder, args.force)


if __name__ == "__main__":
    main()
