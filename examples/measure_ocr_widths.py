#!/usr/bin/env python3
"""What the widths that a recogniser's input is filled up to cost in accuracy (docs/ocr.md).

Draws 200 lines of text, seeded, and reads them with RapidOCR's recogniser under ONNX Runtime, each
filled up to the width that a policy chooses. Needs scripts/setup.sh --bench --ocr and Debian's
fonts-dejavu-core; takes a few minutes.

    build/venv/bin/python examples/measure_ocr_widths.py
"""

import pathlib
import random
import sys

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rapidocr_onnxruntime import RapidOCR

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "scripts"))
from make_expected import ctc_text

FONTS = pathlib.Path("/usr/share/fonts/truetype/dejavu")
FACES = ["Sans", "Serif", "SansMono", "Sans-Bold", "Serif-Bold"]
WORDS = (
    "platform train leaves coffee bread total invoice number street house garden window Monday "
    "July 2024 19:30 4.75 12 100 EUR account street-level open closed order seat row price weight "
    "report under above signal method queue"
).split()
LINES = 200


def first_of(widths):
    return lambda width: next((w for w in widths if w >= width), widths[-1])


POLICIES = {
    "own width": lambda width: width,
    "multiples of 32": lambda width: -(-width // 32) * 32,
    "320, 480, 640, 960, 1280": first_of((320, 480, 640, 960, 1280)),
    "320, 640, 1280": first_of((320, 640, 1280)),
    "1280": first_of((1280,)),
}


def drawn_lines():
    """(text, image) pairs: dark on light with a little noise."""
    draw = random.Random(7)
    for index in range(LINES):
        text = " ".join(draw.choice(WORDS) for _ in range(draw.choice([1, 1, 2, 3, 4, 6, 8])))
        face = FONTS / f"DejaVu{draw.choice(FACES)}.ttf"
        font = ImageFont.truetype(str(face), draw.choice([18, 24, 32, 44]))
        left, top, right, bottom = font.getbbox(text)
        border = draw.choice([2, 4, 6])
        line = Image.new("L", (right - left + 2 * border, bottom - top + 2 * border), 255)
        ImageDraw.Draw(line).text((border - left, border - top), text, fill=0, font=font)
        noise = np.random.default_rng(index).normal(0, 6, (line.height, line.width))
        grey = np.clip(np.asarray(line, np.float32) + noise, 0, 255).astype(np.uint8)
        yield text, cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)


def edits(a, b):
    """Characters to insert, drop or replace to get from a to b."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


def main():
    engine = RapidOCR()
    characters = engine.text_rec.postprocess_op.character
    lines = list(drawn_lines())
    letters = sum(len(text.replace(" ", "")) for text, _ in lines)
    print("widths | shapes | lines right | wrong characters | mean score")
    for name, policy in POLICIES.items():
        shapes, right, wrong, scores = set(), 0, 0, []
        for text, image in lines:
            width = policy(-(-48 * image.shape[1] // image.shape[0]))
            engine.text_rec.rec_image_shape = [3, 48, width]
            # Lines beyond the widest are squeezed into it, as the operator `resize` does.
            image = cv2.resize(image, (min(image.shape[1], width * image.shape[0] // 48),
                                       image.shape[0]))
            pixels = engine.text_rec.resize_norm_img(image, width / 48)[None]
            shapes.add(width)
            got, score = ctc_text(engine.text_rec.session(pixels)[0][0], characters)
            scores.append(score)
            right += got == text
            wrong += edits(got.replace(" ", ""), text.replace(" ", ""))
        row = [name, len(shapes), f"{right / len(lines):.3f}", f"{wrong / letters:.2%}"]
        print(" | ".join(map(str, [*row, f"{np.mean(scores):.3f}"])), flush=True)


if __name__ == "__main__":
    main()
