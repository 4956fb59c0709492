"""The sample inputs in examples/, read with the standard library alone.

Used by make_expected.py, which computes what is right, and by run_samples.py, which asks a server.
"""

import array
import pathlib
import sys
import wave

ROOT = pathlib.Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
EXPECTED = EXAMPLES / "expected.json"
IMAGE_SHAPE = [1, 3, 224, 224]


def samples(path, rate):
    """The samples of a mono 16-bit WAV of that rate as little-endian int16 bytes."""
    with wave.open(str(path)) as file:
        if (file.getnchannels(), file.getsampwidth(), file.getframerate()) != (1, 2, rate):
            raise ValueError(f"{path.name} is not {rate} Hz mono 16-bit")
        return file.readframes(file.getnframes())


def audio(name):
    """Speech: examples/audio/NAME, 16 kHz."""
    return samples(EXAMPLES / "audio" / name, 16000)


def music(name):
    """Music: examples/music/NAME, 22,050 Hz."""
    return samples(EXAMPLES / "music" / name, 22050)


def image(seed):
    """A synthetic normalised image, f32[1,3,224,224] as little-endian bytes.

    Blocks of 28 x 28 pixels of one brightness plus noise, all from one linear congruential
    generator: the same bytes everywhere. Values lie in [-2, 2].
    """
    state = seed * 2654435761 % (1 << 32)

    def uniform():
        nonlocal state
        state = (1664525 * state + 1013904223) % (1 << 32)
        return (state >> 16) / 32768.0 - 1.0

    _, channels, height, width = IMAGE_SHAPE
    pixels = array.array("f")
    for _ in range(channels):
        blocks = [[1.25 * uniform() for _ in range(width // 28)] for _ in range(height // 28)]
        for y in range(height):
            row = blocks[y // 28]
            pixels.extend([row[x // 28] + 0.75 * uniform() for x in range(width)])
    if sys.byteorder == "big":
        pixels.byteswap()
    return pixels.tobytes()


def content(kind, source):
    """The bytes of one case's input: `source` of kind `audio`, `music`, `image` or `file`."""
    if kind == "audio":
        return audio(source)
    if kind == "music":
        return music(source)
    if kind == "image":
        return image(source)
    return (EXAMPLES / source).read_bytes()
