#!/usr/bin/env python3
"""Turns a mono 16-bit WAV of any rate into a 16 kHz one with silence before and after.

resample.py IN.wav OUT.wav [--before SECONDS] [--after SECONDS]
"""

import argparse
import wave

import numpy as np

RATE = 16000


def resampled(samples, rate):
    """Band-limited resampling to RATE by cutting the spectrum. samples: f64[n]."""
    count = round(len(samples) * RATE / rate)
    spectrum = np.fft.rfft(samples)
    spectrum = np.pad(spectrum, (0, max(0, count // 2 + 1 - len(spectrum))))[: count // 2 + 1]
    return np.fft.irfft(spectrum, count) * (count / len(samples))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--before", type=float, default=0.0, help="seconds of silence")
    parser.add_argument("--after", type=float, default=0.0, help="seconds of silence")
    args = parser.parse_args()
    with wave.open(args.source) as file:
        if file.getnchannels() != 1 or file.getsampwidth() != 2:
            parser.error(f"{args.source} is not mono 16-bit")
        rate = file.getframerate()
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float64)
    spoken = np.clip(np.round(resampled(samples, rate)), -32768, 32767)
    silence = [np.zeros(round(seconds * RATE)) for seconds in (args.before, args.after)]
    clip = np.concatenate([silence[0], spoken, silence[1]]).astype("<i2")
    with wave.open(args.target, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(clip.tobytes())


if __name__ == "__main__":
    main()
