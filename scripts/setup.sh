#!/usr/bin/env bash
# Installs what building and testing need, only what is missing: a C compiler for bundled C libraries, OpenSSL's headers for the Kafka client,
# Python and Node for the SDK tests. The services that adapters are tested against: scripts/services/install.sh.
set -euo pipefail

missing=()
command -v cc >/dev/null || missing+=(build-essential)
command -v curl >/dev/null || missing+=(curl)
command -v python3 >/dev/null || missing+=(python3)
python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
command -v pkg-config >/dev/null || missing+=(pkg-config)
pkg-config --exists openssl 2>/dev/null || missing+=(libssl-dev)
command -v openssl >/dev/null || missing+=(openssl)
command -v node >/dev/null || missing+=(nodejs npm)

if [ ${#missing[@]} -gt 0 ]; then
  echo "installing: ${missing[*]}"
  if ! command -v apt-get >/dev/null; then
    echo "this machine has no apt-get; install the equivalents of: ${missing[*]}" >&2
    exit 1
  fi
  sudo=""
  [ "$(id -u)" = 0 ] || sudo=sudo
  $sudo apt-get update -qq
  $sudo apt-get install -y -qq "${missing[@]}"
fi

# Rust by rustup, which leaves a toolchain that is there alone. `make` finds what it installs.
wanted=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$(dirname "$0")/../Cargo.toml")
export PATH="$HOME/.cargo/bin:$PATH"
if ! command -v cargo >/dev/null; then
  echo "installing: Rust $wanted"
  if ! curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y -q --profile minimal --default-toolchain "$wanted" -c rustfmt -c clippy; then
    echo "Rust could not be installed: install $wanted or newer from https://rustup.rs and run this again" >&2
    exit 1
  fi
fi
found=$(cargo --version | cut -d ' ' -f 2)
if [ "$(printf '%s\n%s\n' "$wanted" "$found" | sort -V | head -n 1)" != "$wanted" ]; then
  echo "cargo is $found, $wanted or newer is needed: run 'rustup update' and this again" >&2
  exit 1
fi
