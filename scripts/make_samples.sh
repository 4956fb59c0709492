#!/usr/bin/env bash
# Lays out the sample repository in build/samples/repository: NAME/1/model.onnx and
# pipelines/NAME.yaml. Needs scripts/setup.sh; fetches and generates what is missing. Running it
# again changes nothing.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
[ "${1:-}" != --quiet ] || SAY_FD=2

DEPS="$BUILD_ROOT/deps"
SAMPLES="$BUILD_ROOT/samples"
REPOSITORY="$SAMPLES/repository"

cd "$PLEXUS_ROOT"
run_step "sample models from PyPI" 1200 show "$PYTHON" scripts/fetch_models.py openwakeword magika \
  basic_pitch rapidocr_onnxruntime
run_step "generated sample models" 600 show "$PYTHON" scripts/make_models.py samples

# put SOURCE TARGET: copies, whole or not at all, unless both are the same already.
put() {
  cmp -s "$1" "$2" && return 0
  mkdir -p "$(dirname "$2")"
  cp "$1" "$2.partial"
  mv "$2.partial" "$2"
}

for name in melspectrogram embedding_model; do
  put "$DEPS/openwakeword/$name.onnx" "$REPOSITORY/$name/1/model.onnx"
done
for name in alexa hey_jarvis hey_mycroft hey_rhasspy timer weather; do
  put "$DEPS/openwakeword/${name}_v0.1.onnx" "$REPOSITORY/$name/1/model.onnx"
done
put "$DEPS/magika/model.onnx" "$REPOSITORY/magika/1/model.onnx"
put "$DEPS/basic_pitch/nmp.onnx" "$REPOSITORY/basic_pitch/1/model.onnx"
OCR="$DEPS/rapidocr_onnxruntime"
put "$OCR/ch_PP-OCRv4_det_infer.onnx" "$REPOSITORY/text_detector/1/model.onnx"
put "$OCR/ch_ppocr_mobile_v2.0_cls_infer.onnx" "$REPOSITORY/text_direction/1/model.onnx"
put "$OCR/ch_PP-OCRv4_rec_infer.onnx" "$REPOSITORY/text_recognizer/1/model.onnx"
for name in resnet18 mobilenetv2; do
  put "$SAMPLES/models/$name.onnx" "$REPOSITORY/$name/1/model.onnx"
done

mkdir -p "$REPOSITORY/pipelines"
for file in examples/pipelines/*.yaml; do
  put "$file" "$REPOSITORY/pipelines/$(basename "$file")"
done
"$PYTHON" - "$DEPS/magika/config.min.json" "$SAMPLES/file-type.labels.txt" <<'PYTHON'
import json, pathlib, sys

labels = json.loads(pathlib.Path(sys.argv[1]).read_text())["target_labels_space"]
pathlib.Path(sys.argv[2]).write_text("\n".join(labels) + "\n")
PYTHON
put "$SAMPLES/file-type.labels.txt" "$REPOSITORY/pipelines/file-type.labels.txt"
# The recogniser's characters stand in its own metadata.
"$PYTHON" - "$OCR/ch_PP-OCRv4_rec_infer.onnx" "$SAMPLES/ocr.labels.txt" <<'PYTHON'
import pathlib, sys
import onnx

metadata = {entry.key: entry.value for entry in onnx.load(sys.argv[1]).metadata_props}
pathlib.Path(sys.argv[2]).write_text(metadata["character"].rstrip("\n") + "\n", newline="\n")
PYTHON
put "$SAMPLES/ocr.labels.txt" "$REPOSITORY/pipelines/ocr.labels.txt"
say "==> sample repository: $(find "$REPOSITORY" -name model.onnx | wc -l) models," \
  "$(find "$REPOSITORY/pipelines" -name '*.yaml' | wc -l) pipelines in build/samples/repository"
