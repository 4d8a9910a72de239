# Two commands for a fresh machine: `make demo` and `make test`. Both install what is missing first.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.PHONY: demo test build setup services lint unit sdk registry smtp docker-check readme bench clean

CARGO ?= cargo
export CARGO_TARGET_DIR ?= $(CURDIR)/target
# Where scripts/setup.sh puts Rust if it is missing.
export PATH := $(PATH):$(HOME)/.cargo/bin
BIN := $(CARGO_TARGET_DIR)/release/flywheel

## demo: build, then replay a real purchase history through the whole product
demo: build
	$(BIN) demo

## test: everything, in the order in which it fails fastest
test: setup services lint unit smtp sdk registry readme

build: setup
	$(CARGO) build --release --locked

setup:
	scripts/setup.sh

## services: what the tests of adapters start: Kafka, Cassandra, PostgreSQL, Redis
services:
	@scripts/services/install.sh >/dev/null

# The embedded product alone has to compile too: it is the default.
lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --features cluster --locked -- -D warnings
	$(CARGO) check --all-targets --locked

## unit: unit, property, contract, simulation, conformance, crash and topology tests, against real services where there is an adapter
unit:
	$(CARGO) test --features cluster --locked

## sdk: published Segment SDKs against the running binary
sdk: build
	FLYWHEEL_BIN=$(BIN) tests/sdk/run.sh

## registry: the published confluent-kafka[avro] client against our schema registry and decoder
registry: build
	FLYWHEEL_BIN=$(BIN) tests/registry/run.sh

## smtp: the mail channel against a real SMTP server
smtp:
	tests/smtp/run.sh

## docker-check: compose file and image, as far as a machine without Docker can
docker-check:
	docker/check.sh

## readme: the commands of README.md, as written
readme: build
	FLYWHEEL_BIN=$(BIN) tests/readme.sh

## bench: the table of docs/benchmarks.md, as JSON lines
bench: build
	$(BIN) bench

clean:
	$(CARGO) clean
