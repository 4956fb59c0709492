"""The models that latency and compile measure, with inputs from seed 1."""

import dataclasses
import pathlib
import subprocess
import sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "build" / "samples" / "repository"
GENERATED = ROOT / "build" / "bench-models"
CNNS = [
    "resnet18",
    "resnet34",
    "resnet50",
    "mobilenetv2",
    "squeezenet1.1",
    "densenet121",
    "googlenet",
    "inceptionv3",
]


@dataclasses.dataclass
class Case:
    """One line of the results: a model and the input sets that are run in turn."""

    name: str
    path: pathlib.Path
    inputs: list  # of {input name: array}
    # Inputs of another shape, for a first request on a new shape; None where the shape is fixed.
    other: dict | None = None
    # Largest error allowed, of the output's largest magnitude. int8 rounds differently by kernel.
    tolerance: float = 1e-3


def _image(rng, size, rows=1):
    return {"input": rng.standard_normal((rows, 3, size, size), dtype=np.float32)}


def _tokens(rng, length, rows=1):
    return {
        "input_ids": rng.integers(0, 30522, (rows, length)),
        "attention_mask": np.ones((rows, length), np.int64),
        "token_type_ids": np.zeros((rows, length), np.int64),
    }


def cases() -> list[Case]:
    rng = np.random.default_rng(1)
    out = []
    for name in CNNS:
        size = 299 if name == "inceptionv3" else 224
        out.append(
            Case(name, GENERATED / f"{name}.onnx", [_image(rng, size)], _image(rng, size, rows=2))
        )

    def sample(model):
        return SAMPLES / model / "1" / "model.onnx"

    audio = (rng.standard_normal((1, 32000)) * 3000).astype(np.float32)
    longer = (rng.standard_normal((1, 48000)) * 3000).astype(np.float32)
    out.append(Case("mel", sample("melspectrogram"), [{"input": audio}], {"input": longer}))
    for rows in (1, 8):
        frames = rng.standard_normal((rows, 76, 32, 1), dtype=np.float32) + 2
        other = rng.standard_normal((rows + 2, 76, 32, 1), dtype=np.float32) + 2
        out.append(
            Case(
                f"embedding-b{rows}",
                sample("embedding_model"),
                [{"input_1": frames}],
                {"input_1": other},
            )
        )
    for head, rows in (
        ("alexa", 16),
        ("hey_jarvis", 16),
        ("hey_mycroft", 16),
        ("hey_rhasspy", 16),
        ("timer", 34),
        ("weather", 22),
    ):
        name = "x.1" if head == "hey_jarvis" else "onnx::Flatten_0"
        x = rng.standard_normal((1, rows, 96), dtype=np.float32)
        out.append(Case(head.replace("_", "-"), sample(head), [{name: x}]))
    tokens = rng.integers(0, 256, (1, 2048)).astype(np.int32)
    out.append(
        Case("magika", sample("magika"), [{"bytes": tokens}], {"bytes": np.tile(tokens, (2, 1))})
    )
    bert = GENERATED / "bert-base.onnx"
    out.append(Case("bert-s16", bert, [_tokens(rng, 16)], _tokens(rng, 24)))
    out.append(Case("bert-s128", bert, [_tokens(rng, 128)], _tokens(rng, 100)))
    lengths = (12, 31, 57, 64, 90, 118)
    out.append(Case("bert-varied", bert, [_tokens(rng, n) for n in lengths]))
    out.append(
        Case(
            "resnet18-int8",
            GENERATED / "resnet18-int8.onnx",
            [_image(rng, 224)],
            _image(rng, 224, rows=2),
            tolerance=0.05,
        )
    )
    return out


def prepare() -> None:
    """Makes and fetches what cases() names; quick when it is all there."""
    subprocess.run(["bash", "scripts/make_samples.sh", "--quiet"], cwd=ROOT, check=True, stdout=sys.stderr)
    subprocess.run(
        [sys.executable, "scripts/make_models.py", "all"], cwd=ROOT, check=True, stdout=sys.stderr
    )


def write_inputs(folder: pathlib.Path, label: str, inputs: dict) -> dict:
    """Writes arrays for the workers; returns the `inputs` entry of a run command."""
    names = {"float32": "FP32", "int64": "INT64", "int32": "INT32"}
    out = {}
    for i, (name, array) in enumerate(inputs.items()):
        file = folder / f"{label}.{i}.in"
        np.ascontiguousarray(array).tofile(file)
        out[name] = {"dtype": names[str(array.dtype)], "shape": list(array.shape), "file": str(file)}
    return out


def relative_error(expected: list, actual: list) -> float:
    """Largest difference over the largest magnitude, over all outputs (entries of a run answer)."""
    from workers import DTYPES

    worst = 0.0
    if len(expected) != len(actual):
        return float("inf")
    for e, a in zip(expected, actual):
        if e["shape"] != a["shape"] or e["dtype"] != a["dtype"]:
            return float("inf")
        x = np.fromfile(e["file"], DTYPES[e["dtype"]]).astype(np.float64)
        y = np.fromfile(a["file"], DTYPES[a["dtype"]]).astype(np.float64)
        if not np.all(np.isfinite(y)):
            return float("inf")
        scale = np.max(np.abs(x)) if x.size else 1.0
        worst = max(worst, float(np.max(np.abs(x - y)) / max(scale, 1e-30)) if x.size else 0.0)
    return worst
