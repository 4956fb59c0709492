#!/usr/bin/env python3
"""Draws the sample images in examples/images, which are committed. Needs scripts/setup.sh --ocr and
Debian's fonts-dejavu-core.

    build/venv/bin/python examples/make_images.py
"""

import pathlib

from PIL import Image, ImageDraw, ImageFont

FONTS = pathlib.Path("/usr/share/fonts/truetype/dejavu")
IMAGES = pathlib.Path(__file__).resolve().parent / "images"

RECEIPT = [
    ("Corner Bakery", 40, "DejaVuSans-Bold.ttf"),
    ("Rye bread 2 x 3.40", 26, "DejaVuSansMono.ttf"),
    ("Apple cake 4.75", 26, "DejaVuSansMono.ttf"),
    ("Coffee 2.10", 26, "DejaVuSansMono.ttf"),
    ("Total 13.65", 34, "DejaVuSans-Bold.ttf"),
    ("Thank you", 30, "DejaVuSans.ttf"),
]
NOTICE = [
    ("Platform 9 is closed today", 34, "DejaVuSerif.ttf"),
    ("Trains leave from platform 12", 34, "DejaVuSans.ttf"),
    ("Upside down", 40, "DejaVuSans.ttf"),
    ("We are sorry for the delay", 34, "DejaVuSerif-Bold.ttf"),
]
TICKET = [
    ("Seat 47B", 52, "DejaVuSans-Bold.ttf"),
    ("Row 16 window", 44, "DejaVuSans.ttf"),
    ("Begins at 19:30", 44, "DejaVuSans.ttf"),
]


def draw_line(page, text, size, font, x, y, upside_down=False):
    """Draws one line with its top left corner at (x, y)."""
    font = ImageFont.truetype(str(FONTS / font), size)
    left, top, right, bottom = font.getbbox(text)
    line = Image.new("L", (right - left + 8, bottom - top + 8), 255)
    ImageDraw.Draw(line).text((4 - left, 4 - top), text, fill=0, font=font)
    page.paste(line.rotate(180) if upside_down else line, (x, y))


def page_of(lines, size, spacing, turned=None):
    page = Image.new("L", size, 255)
    for index, (text, height, font) in enumerate(lines):
        draw_line(page, text, height, font, 40, 36 + spacing * index, index == turned)
    return page


def save(image, name):
    # 16 greys keep the files small and the text as readable.
    image.quantize(16).save(IMAGES / name, optimize=True)
    print(f"{name}: {(IMAGES / name).stat().st_size} bytes")


def main():
    IMAGES.mkdir(exist_ok=True)
    save(page_of(RECEIPT, (560, 480), 72), "receipt.png")
    save(page_of(NOTICE, (760, 420), 92, turned=2), "notice.png")
    ticket = page_of(TICKET, (560, 340), 90)
    save(ticket.rotate(-9, Image.Resampling.BICUBIC, expand=True, fillcolor=255), "ticket.png")
    save(Image.new("L", (320, 240), 255), "blank.png")


if __name__ == "__main__":
    main()
