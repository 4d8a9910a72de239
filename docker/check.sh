#!/usr/bin/env bash
# Checks what is for Docker as far as a machine without an engine can: docker/check.py, whose needs it installs into FLYWHEEL_CACHE.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${FLYWHEEL_CACHE:-$HOME/.cache/flywheel}/docker

if ! cmp -s "$here/requirements.txt" "$cache/installed"; then
  rm -rf "$cache"
  mkdir -p "$cache"
  python3 -m venv "$cache"
  "$cache/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
  cp "$here/requirements.txt" "$cache/installed"
fi
PATH="$cache/bin:$PATH" exec "$cache/bin/python" "$here/check.py"
