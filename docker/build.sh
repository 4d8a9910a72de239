#!/bin/sh
# The image's build: the binary with all adapters, into the folder $1. docker/Dockerfile runs it, and docker/check.py without Docker.
#
# FLYWHEEL_PROFILE is Cargo's profile, release if not set.
set -eu
profile=${FLYWHEEL_PROFILE:-release}
cargo build --locked --bin flywheel --features cluster --profile "$profile"
case $profile in dev) folder=debug ;; *) folder=$profile ;; esac
mkdir -p "$1"
# Without line tables, which are most of it; a backtrace still names functions.
strip --strip-debug -o "$1/flywheel" "${CARGO_TARGET_DIR:-target}/$folder/flywheel"
