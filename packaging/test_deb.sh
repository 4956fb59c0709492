#!/usr/bin/env bash
# Builds the Debian package, installs it in a clean root and runs it there once: the version, then
# a server with one model that answers. Needs root, a network and debootstrap (installed if
# missing). Where no clean root can be made it says so and runs the unpacked package on this system.
#
#   packaging/test_deb.sh [--keep]     (--keep leaves the clean root in build/package/root)
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"

KEEP=0
case "${1:-}" in
  "") ;;
  --keep) KEEP=1 ;;
  *) die "unknown option '$1'" ;;
esac

PACKAGE="$BUILD_ROOT/package"
CLEAN="$PACKAGE/root"
SERVER_PID=""

remove_root() {
  # Nothing of this system is mounted below, but make sure before removing.
  if grep -q " $CLEAN/" /proc/mounts; then die "something is mounted below $CLEAN"; fi
  as_root rm -rf "$CLEAN"
}

finish() {
  cleanup
  if [ -n "$SERVER_PID" ]; then end_child "$SERVER_PID"; fi
  if [ "$KEEP" -eq 0 ] && [ -d "$CLEAN" ]; then remove_root; fi
}
trap finish EXIT

make_clean_root() {
  [ "$(id -u)" -eq 0 ] || return 1
  command -v debootstrap >/dev/null || {
    apt-get update -qq && apt-get install -y -qq --no-install-recommends debootstrap
  } >"$LOG_DIR/debootstrap-install.log" 2>&1 || return 1
  local suite mirror
  suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
  # The mirror that this system itself uses for its release.
  mirror=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(COMPONENT)' \
    'Created-By: Packages' | awk -v suite="$suite" '$2 == suite && $3 == "main" {print $1; exit}')
  [ -n "$mirror" ] || return 1
  say "==> clean root: $suite from $mirror"
  bounded 900 debootstrap --variant=minbase "$suite" "$CLEAN" "$mirror" \
    >"$LOG_DIR/debootstrap.log" 2>&1 || return 1
  # Security updates and the like: the package may depend on their versions of libraries.
  cp -r /etc/apt/sources.list /etc/apt/sources.list.d "$CLEAN/etc/apt/" 2>/dev/null || true
  find "$CLEAN/etc/apt/sources.list.d" -type f ! -name 'debian*' ! -name 'ubuntu*' -delete
  [ -s "$CLEAN/etc/apt/sources.list" ] || ls "$CLEAN/etc/apt/sources.list.d/"* >/dev/null 2>&1 ||
    echo "deb $mirror $suite main" >"$CLEAN/etc/apt/sources.list"
}

# try_server PORT CMD...: starts CMD, waits until its model is ready, asks it, ends it with SIGTERM.
try_server() {
  local port="$1" i status
  shift
  "$@" </dev/null >"$LOG_DIR/package-server.log" 2>&1 &
  SERVER_PID=$!
  for i in $(seq 300); do
    if curl -fs -m 5 -o /dev/null "http://127.0.0.1:$port/v2/models/alexa/ready"; then break; fi
    kill -0 "$SERVER_PID" 2>/dev/null || die "the server ended: see $LOG_DIR/package-server.log"
    [ "$i" -lt 300 ] || die "the server was not ready within 30 s"
    sleep 0.1
  done
  # alexa's head: f32[1,16,96], here all zero.
  "$PYTHON" -c 'import json; print(json.dumps({"inputs": [{"name": "onnx::Flatten_0",
    "datatype": "FP32", "shape": [1, 16, 96], "data": [0] * 1536}]}))' >"$PACKAGE/request.json"
  curl -fsS -m 30 -H 'Content-Type: application/json' --data-binary "@$PACKAGE/request.json" \
    "http://127.0.0.1:$port/v2/models/alexa/infer" | cut -c1-200
  kill -TERM "$SERVER_PID"
  status=0
  wait "$SERVER_PID" || status=$?
  SERVER_PID=""
  [ "$status" -eq 0 ] || die "the server ended with status $status after SIGTERM, not 0"
}

cd "$PLEXUS_ROOT"
bash scripts/setup.sh
bash scripts/make_samples.sh
if ! command -v dpkg-shlibdeps >/dev/null || ! command -v file >/dev/null; then
  as_root apt-get update -qq
  as_root apt-get install -y -qq --no-install-recommends dpkg-dev file >/dev/null
fi
configure_and_build release 3600 plexus
mkdir -p "$PACKAGE"
remove_root
rm -f "$PACKAGE"/*.deb
run_step "package" 300 quiet cpack -G DEB --config build/release/CPackConfig.cmake -B "$PACKAGE"
DEB=$(ls "$PACKAGE"/*.deb)
say "    $(basename "$DEB"), $(du -k "$DEB" | cut -f1) KiB; depends: $(dpkg-deb -f "$DEB" Depends)"
PORT=$("$PYTHON" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0))
print(s.getsockname()[1])')

if make_clean_root; then
  cp "$DEB" "$CLEAN/tmp/plexus.deb"
  cp -L /etc/resolv.conf "$CLEAN/etc/resolv.conf" 2>/dev/null || true
  run_step "install in the clean root" 600 quiet chroot "$CLEAN" \
    env DEBIAN_FRONTEND=noninteractive sh -c \
    'apt-get update -qq && apt-get install -y -qq --no-install-recommends /tmp/plexus.deb'
  mkdir -p "$CLEAN/var/lib/plexus/repository/alexa/1"
  cp build/samples/repository/alexa/1/model.onnx "$CLEAN/var/lib/plexus/repository/alexa/1/"
  say "==> run in the clean root"
  chroot "$CLEAN" plexus --version
  try_server "$PORT" chroot "$CLEAN" plexus serve --repository /var/lib/plexus/repository \
    --http-port "$PORT"
  for file in /usr/lib/systemd/system/plexus.service /etc/plexus/plexus.env; do
    [ -e "$CLEAN$file" ] || die "the package did not install $file"
  done
  "$PYTHON" tests/check_links.py "$CLEAN/usr/share/doc/plexus"
  run_step "remove from the clean root" 120 quiet chroot "$CLEAN" dpkg --purge plexus
  [ ! -e "$CLEAN/usr/bin/plexus" ] && [ ! -e "$CLEAN/etc/plexus" ] ||
    die "purging the package left files behind"
  [ -e "$CLEAN/var/lib/plexus/repository/alexa/1/model.onnx" ] ||
    die "purging the package removed the operator's models"
  say "==> the package was installed, run and purged in a clean root"
else
  say "==> NO clean root here (see $LOG_DIR/debootstrap*.log): the package is only unpacked and" \
    "run on this system, which has its dependencies already"
  dpkg -x "$DEB" "$CLEAN"
  ! ldd "$CLEAN/usr/bin/plexus" | grep 'not found' || die "libraries are missing"
  "$CLEAN/usr/bin/plexus" --version
  "$PYTHON" tests/check_links.py "$CLEAN/usr/share/doc/plexus"
  try_server "$PORT" "$CLEAN/usr/bin/plexus" serve --repository build/samples/repository \
    --http-port "$PORT"
fi
