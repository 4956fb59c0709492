# shellcheck shell=bash
# Shared by ./run, ./test and the scripts beside this file: source it, do not run it.
#
# It says what happens, bounds every step in time and ends what it started on every exit path.

set -euo pipefail

PLEXUS_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
BUILD_ROOT="$PLEXUS_ROOT/build"
LOG_DIR="$BUILD_ROOT/log"
VENV="$BUILD_ROOT/venv"
PYTHON="$VENV/bin/python"
# Clones of the tree share what ccache holds.
export CCACHE_BASEDIR="$PLEXUS_ROOT" CCACHE_NOHASHDIR=1
# Where say() writes; `--json` moves it to stderr so that stdout carries the answer alone.
SAY_FD=1
STEP_PID=""

say() { echo "$*" >&"$SAY_FD"; }
die() {
  echo "error: $*" >&2
  exit 1
}

# end_child PID: TERM, then KILL after 10 s. Safe on a PID that is gone.
end_child() {
  local pid="$1" i
  kill -TERM "$pid" 2>/dev/null || return 0
  for i in $(seq 100); do
    kill -0 "$pid" 2>/dev/null || return 0
    sleep 0.1
  done
  kill -KILL "$pid" 2>/dev/null || true
}

cleanup() {
  if [ -n "$STEP_PID" ]; then
    end_child "$STEP_PID"
    STEP_PID=""
  fi
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# bounded SECONDS CMD...: runs CMD in its own process group, ends the group when the time is over
# or when this script is interrupted. Returns CMD's status, 124 when the time was over.
bounded() {
  local limit="$1" rc=0
  shift
  timeout -k 10 "$limit" "$@" </dev/null &
  STEP_PID=$!
  wait "$STEP_PID" || rc=$?
  STEP_PID=""
  return "$rc"
}

# run_step TITLE SECONDS SHOW CMD...: says TITLE, keeps CMD's output in build/log/, shows it only
# if CMD failed (SHOW=quiet) or as it comes (SHOW=show), says how long it took. Dies on failure.
run_step() {
  local title="$1" limit="$2" show="$3" rc=0 log begin
  shift 3
  mkdir -p "$LOG_DIR"
  log="$LOG_DIR/$(echo "$title" | tr -cs 'a-zA-Z0-9.\n' '-' | cut -c1-60 | sed 's/-$//').log"
  say "==> $title"
  begin=$SECONDS
  if [ "$show" = show ]; then
    bounded "$limit" "$@" > >(tee "$log" >&"$SAY_FD") 2>&1 || rc=$?
    sleep 0.1  # lets tee write the closing lines before ours
  else
    bounded "$limit" "$@" >"$log" 2>&1 || rc=$?
  fi
  if [ "$rc" -ne 0 ]; then
    if [ "$show" != show ]; then tail -n 60 "$log" >&2; fi
    if [ "$rc" -eq 124 ]; then die "'$title' took longer than $limit s; its log: $log"; fi
    die "'$title' failed with status $rc; its log: $log"
  fi
  say "    done in $((SECONDS - begin)) s"
}

# as_root CMD...: runs CMD as root, through sudo where needed.
as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    die "'$*' needs root: run as root or install sudo"
  fi
}

# build_jobs: as many compilers as there are cores, fewer where memory is scarce (1.5 GB each).
build_jobs() {
  local cores mem_kb by_mem
  cores=$(nproc)
  mem_kb=$(awk '/^MemAvailable:/ {print $2}' /proc/meminfo)
  by_mem=$((mem_kb / 1500000))
  [ "$by_mem" -ge 1 ] || by_mem=1
  echo $((cores < by_mem ? cores : by_mem))
}

# configure_and_build PRESET SECONDS [TARGET...]: CMake preset PRESET into build/PRESET.
configure_and_build() {
  local preset="$1" limit="$2"
  shift 2
  cd "$PLEXUS_ROOT"
  run_step "configure $preset" 300 quiet cmake --preset "$preset"
  run_step "build $preset" "$limit" quiet cmake --build "build/$preset" -j "$(build_jobs)" \
    ${1:+--target "$@"}
}
