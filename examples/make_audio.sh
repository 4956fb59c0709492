#!/usr/bin/env bash
# Speaks the sample clips in audio/ with espeak-ng: 16 kHz mono 16-bit WAV, silence around the words
# so that each clip has more embeddings than its head looks at. The clips are committed; run this
# only to change them, then scripts/make_expected.py.
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"
bash "$PLEXUS_ROOT/scripts/setup.sh" --audio

cd "$PLEXUS_ROOT/examples"
raw=$(mktemp -d)
trap 'rm -rf "$raw"; cleanup' EXIT

# speak NAME BEFORE AFTER WORDS: seconds of silence before and after.
speak() {
  espeak-ng -v en-us -s 150 -w "$raw/$1.wav" "$4"
  "$PYTHON" resample.py "$raw/$1.wav" "audio/$1.wav" --before "$2" --after "$3"
}

speak alexa 1.5 1.0 "alexa"
speak hey-jarvis 1.5 1.0 "hey jarvis"
speak hey-mycroft 1.5 1.0 "hey my croft" # so spelled it sounds right
speak hey-rhasspy 1.5 1.0 "hey raspy"
speak timer 2.0 1.5 "set a timer for ten minutes"
speak weather 1.5 1.0 "what is the weather"
# Too short for any head: every wake word pipeline answers with zero rows.
speak too-short 0.1 0.1 "no"
