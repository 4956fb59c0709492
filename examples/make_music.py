#!/usr/bin/env python3
"""Writes examples/music/*.wav: short pieces of plucked strings, 22,050 Hz mono, 16 bit.

Sums of decaying harmonics, the same bytes everywhere. The clips are committed; run this only to
change them, then scripts/make_expected.py. Standard library only.
"""

import array
import math
import pathlib
import sys
import wave

FOLDER = pathlib.Path(__file__).resolve().parent / "music"
RATE = 22050
# clip: (seconds, [(MIDI note, begins at, seconds)])
CLIPS = {
    # A melody over a chord; longer than one window of the model.
    "melody.wav": (
        2.2,
        [(48, 0.1, 2.0), (55, 0.1, 2.0), (64, 0.2, 0.4), (67, 0.6, 0.4), (72, 1.0, 0.4)]
        + [(71, 1.4, 0.3), (67, 1.7, 0.4)],
    ),
    "two-notes.wav": (0.6, [(57, 0.05, 0.3), (69, 0.3, 0.3)]),
}


def clip(seconds, notes):
    samples = [0.0] * round(seconds * RATE)
    for key, begin, length in notes:
        pitch = 440.0 * 2.0 ** ((key - 69) / 12)
        first, last = round(begin * RATE), min(round((begin + length) * RATE), len(samples))
        for i in range(first, last):
            t = (i - first) / RATE
            fade = min(1.0, t / 0.005) * min(1.0, (last - i) / RATE / 0.02) * math.exp(-2.5 * t)
            for harmonic in range(1, 7):
                angle = 2 * math.pi * harmonic * pitch * t
                samples[i] += 4000 * fade * math.sin(angle) / harmonic**1.3
    pcm = array.array("h", (max(-32768, min(32767, round(s))) for s in samples))
    if sys.byteorder == "big":
        pcm.byteswap()
    return pcm.tobytes()


def main():
    FOLDER.mkdir(exist_ok=True)
    for name, (seconds, notes) in CLIPS.items():
        with wave.open(str(FOLDER / name), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes(clip(seconds, notes))
        print(f"examples/music/{name}")


if __name__ == "__main__":
    main()
