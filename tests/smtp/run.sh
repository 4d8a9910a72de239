#!/usr/bin/env bash
# The SMTP channel against aiosmtpd, an independent server: once in the clear, once with STARTTLS and a certificate of our own making.
# Every message must be stored once, byte for byte as mail programs read it. Installs aiosmtpd into FLYWHEEL_CACHE when it is missing.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${FLYWHEEL_CACHE:-$HOME/.cache/flywheel}/smtp
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if ! cmp -s "$here/requirements.txt" "$cache/installed"; then
  rm -rf "$cache"
  mkdir -p "$cache"
  python3 -m venv "$cache"
  "$cache/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
  cp "$here/requirements.txt" "$cache/installed"
fi

# An authority and a certificate for localhost: rustls takes no authority for a server.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test-authority \
  -keyout "$work/ca.key" -out "$work/ca.pem" 2>/dev/null
openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost \
  -keyout "$work/server.key" -out "$work/server.csr" 2>/dev/null
printf 'subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n' >"$work/extensions"
openssl x509 -req -in "$work/server.csr" -CA "$work/ca.pem" -CAkey "$work/ca.key" -CAcreateserial -days 2 \
  -extfile "$work/extensions" -out "$work/server.pem" 2>/dev/null

"$cache/bin/python" "$here/check.py" "$work"
