#!/usr/bin/env python3
"""Writes examples/expected.json: what ONNX Runtime answers to every sample request.

Each pipeline is written out here in numpy and ONNX Runtime, independently of examples/pipelines.
Text on images is read by RapidOCR's own code. Needs scripts/setup.sh --bench --ocr,
scripts/fetch_models.py and `scripts/make_models.py samples`.

    build/venv/bin/python scripts/make_expected.py [--check]     (--check compares, writes nothing)
"""

import argparse
import hashlib
import json
import pathlib
import sys

import numpy as np
import onnxruntime

import sample_inputs

ROOT = pathlib.Path(__file__).resolve().parent.parent
DEPS = ROOT / "build" / "deps"
SCORE_TOLERANCE = 1e-3  # absolute: scores are probabilities
LOGIT_TOLERANCE = 1e-3  # of the largest magnitude

# pipeline: (head's file, embeddings it looks at, clip that says its words, a clip that does not)
WAKE_WORDS = {
    "wake-alexa": ("alexa", 16, "alexa.wav", "weather.wav"),
    "wake-hey-jarvis": ("hey_jarvis", 16, "hey-jarvis.wav", "alexa.wav"),
    "wake-hey-mycroft": ("hey_mycroft", 16, "hey-mycroft.wav", "hey-jarvis.wav"),
    "wake-hey-rhasspy": ("hey_rhasspy", 16, "hey-rhasspy.wav", "hey-mycroft.wav"),
    "wake-timer": ("timer", 34, "timer.wav", "hey-rhasspy.wav"),
    "wake-weather": ("weather", 22, "weather.wav", "timer.wav"),
}
# stream-wake: output and head's file: embeddings it looks at
STREAM_HEADS = {
    "alexa": 16,
    "hey_jarvis": 16,
    "hey_mycroft": 16,
    "hey_rhasspy": 16,
    "timer": 34,
    "weather": 22,
}
STREAM_CLIPS = ("alexa.wav", "timer.wav", "too-short.wav")
STREAM_CHUNK = 1280
FILES = [
    "files/greeting.py",
    "files/settings.json",
    "files/page.html",
    "files/notes.md",
    "files/server.c",
    "files/measurements.csv",
    "files/backup.sh",
    "audio/alexa.wav",
]
MUSIC = ("melody.wav", "two-notes.wav")
# Basic Pitch: audio in windows of two seconds that overlap by 30 of its frames of 256 samples.
MUSIC_RATE, MUSIC_FRAME = 22050, 256
MUSIC_WINDOW, MUSIC_OVERLAP = 2 * MUSIC_RATE - MUSIC_FRAME, 30 * MUSIC_FRAME
MUSIC_FRAMES_PER_SECOND = MUSIC_RATE // MUSIC_FRAME
MUSIC_HEADS = {
    "note": "StatefulPartitionedCall:1",
    "onset": "StatefulPartitionedCall:2",
    "contour": "StatefulPartitionedCall:0",
}
MUSIC_EVERY = 8  # of the rows, one in so many is kept: all of them would be megabytes
OCR_IMAGES = ("receipt.png", "notice.png", "ticket.png", "blank.png")
OCR_WIDTHS = (320, 480, 640, 960, 1280)  # of the recogniser's input, as in examples/pipelines
DIGITS = "0123456789.,:-"
TEXT_TOLERANCE = 0.05  # absolute: scores are probabilities, of crops that may be a pixel apart
BOX_TOLERANCE = 2.0  # pixels
CNNS = ("resnet18", "mobilenetv2")
IMAGE_SEEDS = (1, 2)


def generated(name):
    return ROOT / "build" / "samples" / "models" / f"{name}.onnx"


def sha256_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def session(path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run(model, *inputs):
    """The first output of `model`, its inputs given by position."""
    names = [value.name for value in model.get_inputs()]
    return model.run(None, dict(zip(names, inputs)))[0]


def rounded(values, digits=7):
    return [float(f"{value:.{digits}g}") for value in np.asarray(values, np.float64).ravel()]


def windows(rows, size, step):
    """rows: [n, ...] -> [count, size, ...]; count is 0 where n < size."""
    count = max(0, (len(rows) - size) // step + 1)
    if count == 0:
        return np.zeros((0, size, *rows.shape[1:]), rows.dtype)
    return np.stack([rows[i * step : i * step + size] for i in range(count)])


def case(pipeline, kind, source, name, datatype, shape, outputs):
    inputs = [{"name": name, "datatype": datatype, "shape": shape, "kind": kind, "source": source}]
    return {"pipeline": pipeline, "inputs": inputs, "outputs": outputs}


def output(name, datatype, shape, data, tolerance=None):
    made = {"name": name, "datatype": datatype, "shape": list(shape), "data": data}
    if tolerance is not None:
        made["tolerance"] = tolerance
    return made


def wake_word_cases():
    models = DEPS / "openwakeword"
    mel, embedding = session(models / "melspectrogram.onnx"), session(
        models / "embedding_model.onnx"
    )

    def embeddings(samples):
        """samples: int16[n] -> f32[b,96], one for each 80 ms from the first 760 ms on."""
        frames = run(mel, samples.astype(np.float32)[None]) * np.float32(0.1) + np.float32(2.0)
        images = windows(frames.reshape(-1, 32), 76, 8)[..., None]
        if len(images) == 0:
            return np.zeros((0, 96), np.float32)
        return run(embedding, images).reshape(-1, 96)

    for pipeline, (head_name, size, own, other) in WAKE_WORDS.items():
        head = session(models / f"{head_name}_v0.1.onnx")
        columns = head.get_outputs()[0].shape[1]
        for clip in (own, other, "too-short.wav"):
            samples = np.frombuffer(sample_inputs.audio(clip), "<i2")
            rows = [run(head, row[None]) for row in windows(embeddings(samples), size, 1)]
            scores = np.concatenate(rows) if rows else np.zeros((0, columns), np.float32)
            made = output("score", "FP32", scores.shape, rounded(scores), SCORE_TOLERANCE)
            yield case(pipeline, "audio", clip, "audio", "INT16", [len(samples)], [made])


def stream_wake_cases():
    """Each clip in chunks of 80 ms through one session; a row of scores per chunk."""
    models = DEPS / "openwakeword"
    mel = session(models / "melspectrogram.onnx")
    embedding = session(models / "embedding_model.onnx")
    heads = {
        name: (session(models / f"{name}_v0.1.onnx"), size)
        for name, size in STREAM_HEADS.items()
    }
    for clip in STREAM_CLIPS:
        samples = np.frombuffer(sample_inputs.audio(clip), "<i2")
        heard = np.zeros(480, np.int16)
        frames = np.ones((76, 32), np.float32)
        vectors = np.zeros((34, 96), np.float32)
        scores = {name: [] for name in heads}
        for at in range(0, len(samples) - STREAM_CHUNK + 1, STREAM_CHUNK):
            window = np.concatenate([heard, samples[at : at + STREAM_CHUNK]])
            heard = window[-480:]
            new = run(mel, window.astype(np.float32)[None]) * np.float32(0.1) + np.float32(2.0)
            frames = np.concatenate([frames, new.reshape(-1, 32)])[-76:]
            vector = run(embedding, frames[None, :, :, None]).reshape(1, 96)
            vectors = np.concatenate([vectors, vector])[-34:]
            for name, (head, size) in heads.items():
                scores[name].append(run(head, vectors[None, -size:]))
        outputs = []
        for name, rows in scores.items():
            rows = np.concatenate(rows)
            outputs.append(output(name, "FP32", rows.shape, rounded(rows, 5), SCORE_TOLERANCE))
        made = case("stream-wake", "audio", clip, "chunk", "INT16", [STREAM_CHUNK], outputs)
        made["stream"] = True
        yield made


def file_type_cases():
    model = session(DEPS / "magika" / "model.onnx")
    config = json.loads((DEPS / "magika" / "config.min.json").read_text())
    labels, block = config["target_labels_space"], config["block_size"]
    for name in FILES:
        content = sample_inputs.content("file", name)
        first = content[:block].lstrip()[: config["beg_size"]]
        last = content[-block:].rstrip()[-config["end_size"] :]
        tokens = np.full(
            (1, config["beg_size"] + config["end_size"]), config["padding_token"], np.int32
        )
        tokens[0, : len(first)] = list(first)
        tokens[0, tokens.shape[1] - len(last) :] = list(last)
        scores = run(model, tokens)[0]
        best = int(scores.argmax())
        outputs = [
            output("label", "BYTES", [1], [labels[best]]),
            output("score", "FP32", [1], rounded(scores[best : best + 1]), SCORE_TOLERANCE),
        ]
        yield case("file-type", "file", name, "file", "BYTES", [1], outputs)


def music_cases():
    """As the package's inference.py does it, one window after the other."""
    model = session(DEPS / "basic_pitch" / "nmp.onnx")
    name = model.get_inputs()[0].name
    half = MUSIC_OVERLAP // MUSIC_FRAME // 2
    for clip in MUSIC:
        samples = np.frombuffer(sample_inputs.music(clip), "<i2")
        filled = np.concatenate(
            [np.zeros(MUSIC_OVERLAP // 2, np.float32), samples.astype(np.float32) / 32768]
        )
        found = {head: [] for head in MUSIC_HEADS}
        for at in range(0, len(filled), MUSIC_WINDOW - MUSIC_OVERLAP):
            window = np.zeros((1, MUSIC_WINDOW, 1), np.float32)
            piece = filled[at : at + MUSIC_WINDOW]
            window[0, : len(piece), 0] = piece
            for head, frames in zip(found, model.run(list(MUSIC_HEADS.values()), {name: window})):
                found[head].append(frames[0, half:-half])
        rows = int(np.floor(len(samples) * (MUSIC_FRAMES_PER_SECOND / MUSIC_RATE)))
        outputs = []
        for head, frames in found.items():
            whole = np.concatenate(frames)[:rows]
            kept = rounded(whole[::MUSIC_EVERY], 5)
            made = output(head, "FP32", whole.shape, kept, SCORE_TOLERANCE)
            made["every"] = MUSIC_EVERY
            outputs.append(made)
        yield case("music-notes", "music", clip, "audio", "INT16", [len(samples)], outputs)


def ctc_text(probabilities, characters, allowed=None):
    """Best path of f32[T,C]: (text, mean probability of its characters). Class 0 is the blank."""
    text, scores, before = "", [], 0
    for step in probabilities:
        best = int(step.argmax())
        if best not in (0, before) and (allowed is None or characters[best] in allowed):
            text += characters[best]
            scores.append(step[best])
        before = best
    return text, float(np.mean(scores)) if scores else 0.0


def ocr_cases():
    # Only here: these packages are for this script alone.
    import cv2
    from rapidocr_onnxruntime import RapidOCR

    engine = RapidOCR()
    characters = engine.text_rec.postprocess_op.character
    for name in OCR_IMAGES:
        image = cv2.imread(str(sample_inputs.EXAMPLES / "images" / name))
        boxes, _ = engine.auto_text_det(image)
        boxes = [] if boxes is None else boxes
        crops = engine.text_cls(engine.get_crop_img_list(image, boxes))[0] if boxes else []
        found = {"ocr": [], "ocr-digits": []}
        for crop in crops:
            natural = -(-48 * crop.shape[1] // crop.shape[0])
            width = next((w for w in OCR_WIDTHS if w >= natural), OCR_WIDTHS[-1])
            pixels = engine.text_rec.resize_norm_img(crop, width / 48)[None]
            if pixels.shape[3] != width:
                raise SystemExit(f"error: {name}: a crop became {pixels.shape}, not {width} wide")
            probabilities = engine.text_rec.session(pixels)[0][0]
            found["ocr"].append(ctc_text(probabilities, characters))
            found["ocr-digits"].append(ctc_text(probabilities, characters, DIGITS))
        corners = np.array(boxes, np.float32).reshape(-1, 4, 2)
        for pipeline, lines in found.items():
            scores = [score for _, score in lines]
            outputs = [
                output("text", "BYTES", [len(lines)], [text for text, _ in lines]),
                output("score", "FP32", [len(lines)], rounded(scores), TEXT_TOLERANCE),
                output("box", "FP32", corners.shape, rounded(corners), BOX_TOLERANCE),
            ]
            yield case(pipeline, "file", f"images/{name}", "image", "BYTES", [1], outputs)


def cnn_cases():
    for name in CNNS:
        model = session(generated(name))
        for seed in IMAGE_SEEDS:
            pixels = np.frombuffer(sample_inputs.image(seed), "<f4")
            logits = run(model, pixels.reshape(sample_inputs.IMAGE_SHAPE))
            tolerance = LOGIT_TOLERANCE * float(np.abs(logits).max())
            made = output(
                "logits", "FP32", logits.shape, rounded(logits, 6), rounded([tolerance], 3)[0]
            )
            shape = sample_inputs.IMAGE_SHAPE
            yield case(name, "image", seed, "input", "FP32", shape, [made])


def difference(old, new):
    """The first difference between two lists of cases that matters, or None."""
    if len(old) != len(new):
        return f"{len(old)} cases, now {len(new)}"
    for a, b in zip(old, new):
        where = f"{b['pipeline']} on {b['inputs'][0]['source']}"
        if a["pipeline"] != b["pipeline"] or a["inputs"] != b["inputs"]:
            return f"{where}: another case"
        for x, y in zip(a["outputs"], b["outputs"]):
            if x["shape"] != y["shape"] or (x["datatype"] == "BYTES" and x["data"] != y["data"]):
                return f"{where}: {x['name']} differs"
            limit = y.get("tolerance", 0) / 10
            if x["datatype"] != "BYTES" and not np.allclose(
                x["data"], y["data"], rtol=0, atol=limit
            ):
                return f"{where}: {x['name']} differs by more than {limit:.2g}"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with the file, do not write")
    args = parser.parse_args()
    cases = [
        *wake_word_cases(),
        *stream_wake_cases(),
        *file_type_cases(),
        *music_cases(),
        *ocr_cases(),
        *cnn_cases(),
    ]
    if args.check:
        found = difference(json.loads(sample_inputs.EXPECTED.read_text())["cases"], cases)
        print(f"examples/expected.json: {found or f'{len(cases)} cases agree'}")
        sys.exit(1 if found else 0)
    lines = ",\n".join(json.dumps(item) for item in cases)
    generator = f"scripts/make_expected.py with ONNX Runtime {onnxruntime.__version__}"
    sums = json.dumps({name: sha256_of(generated(name)) for name in CNNS})
    text = f'{{"generator": "{generator}",\n"models": {sums},\n"cases": [\n{lines}\n]}}\n'
    sample_inputs.EXPECTED.write_text(text)
    print(f"examples/expected.json: {len(cases)} cases, {len(text)} bytes")


if __name__ == "__main__":
    main()
