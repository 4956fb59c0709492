#!/usr/bin/env bash
# Installs what a build of Plexus needs and is missing: Debian or Ubuntu packages (apt, as root or
# with sudo) and a Python environment in build/venv. Does nothing, quickly, when all is there.
#
#   scripts/setup.sh [--bench] [--audio] [--ocr] [--quiet]
#     --bench   ONNX Runtime too: for benchmarks and scripts/make_expected.py
#     --ocr     RapidOCR too: for scripts/make_expected.py and examples/make_images.py
#     --audio   espeak-ng too: for examples/make_audio.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

BENCH=0
AUDIO=0
OCR=0
for arg in "$@"; do
  case "$arg" in
    --bench) BENCH=1 ;;
    --audio) AUDIO=1 ;;
    --ocr) OCR=1 ;;
    --quiet) SAY_FD=2 ;;
    -h | --help)
      sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    *) die "unknown option '$arg'; see scripts/setup.sh --help" ;;
  esac
done

REQUIRED=(
  g++ cmake ninja-build ccache pkg-config libprotobuf-dev protobuf-compiler
  libdnnl-dev ocl-icd-opencl-dev # the second only because dnnl's CMake package looks for it
  libboost-dev libboost-system-dev libsimdjson-dev nlohmann-json3-dev libyaml-cpp-dev
  libcli11-dev libxxhash-dev libssl-dev libgtest-dev libbenchmark-dev zlib1g-dev
  libopencv-core-dev libopencv-imgproc-dev libopencv-imgcodecs-dev
  python3 python3-venv curl ca-certificates
)
OPTIONAL=(mold) # links faster; older releases do not have it
[ "$AUDIO" -eq 0 ] || REQUIRED+=(espeak-ng)
[ "$OCR" -eq 0 ] || REQUIRED+=(fonts-dejavu-core)

missing_of() {
  local name
  for name in "$@"; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null || true)" = installed ] ||
      echo "$name"
  done
}

apt_update() {
  local attempt
  for attempt in 1 2 3; do
    if as_root apt-get -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 update -qq; then
      return 0
    fi
    say "    apt-get update failed (attempt $attempt of 3)"
    sleep $((attempt * 5))
  done
  die "apt-get update failed three times: is there a network?"
}

apt_install() {
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -o Acquire::Retries=3 \
    -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@"
}

install_packages() {
  local missing optional
  mapfile -t missing < <(missing_of "${REQUIRED[@]}")
  if [ "${#missing[@]}" -eq 0 ]; then
    say "==> system packages: all there"
    return 0
  fi
  command -v apt-get >/dev/null ||
    die "no apt-get here; install by hand what matches: ${missing[*]}"
  say "==> system packages: installing ${missing[*]}"
  mkdir -p "$LOG_DIR"
  apt_update >"$LOG_DIR/apt.log" 2>&1 || {
    tail -n 20 "$LOG_DIR/apt.log" >&2
    exit 1
  }
  apt_install "${missing[@]}" >>"$LOG_DIR/apt.log" 2>&1 || {
    tail -n 30 "$LOG_DIR/apt.log" >&2
    die "apt-get install failed; its log: $LOG_DIR/apt.log"
  }
  mapfile -t optional < <(missing_of "${OPTIONAL[@]}")
  if [ "${#optional[@]}" -gt 0 ]; then
    apt_install "${optional[@]}" >>"$LOG_DIR/apt.log" 2>&1 ||
      say "    optional and not available here: ${optional[*]}"
  fi
}

# The first Python from 3.10 on that can make an environment with pip.
find_python() {
  local candidate
  for candidate in python3 /usr/bin/python3 python3.13 python3.12 python3.11 python3.10; do
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' \
      2>/dev/null; then
      echo "$candidate"
      return 0
    fi
  done
  die "no Python from 3.10 on with the venv module"
}

# install_python NAME: requirements file NAME into the environment, unless its checksum is
# recorded as installed there.
install_python() {
  local name="$1" file sum stamp
  file="$PLEXUS_ROOT/scripts/$name.txt"
  sum=$(sha256sum <"$file" | cut -d' ' -f1)
  stamp="$VENV/.installed.$name.$sum"
  [ ! -e "$stamp" ] || return 0
  run_step "Python packages of scripts/$name.txt" 900 quiet "$PYTHON" -m pip install \
    --disable-pip-version-check --require-hashes --no-deps --only-binary :all: -r "$file"
  rm -f "$VENV/.installed.$name."*
  touch "$stamp"
}

install_packages
mkdir -p "$BUILD_ROOT"
if ! "$PYTHON" -m pip --version >/dev/null 2>&1; then
  rm -rf "$VENV"
  run_step "Python environment in build/venv" 120 quiet "$(find_python)" -m venv "$VENV"
fi
install_python requirements
[ "$BENCH" -eq 0 ] || install_python requirements-bench
[ "$OCR" -eq 0 ] || install_python requirements-ocr
say "==> Python environment: ready in build/venv"
