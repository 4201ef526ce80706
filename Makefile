# The project's verbs. Everything is installed into .venv; nothing outside this folder is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
INSTALLED := $(VENV)/.installed
export PATH := $(PATH):$(abspath $(BIN))

.PHONY: help setup demo docs test test-slow test-gpu bench-gpu lint native tokenizer triton wheels release aarch64 sanitize sanitize-threads fuzz fuzz-readers valgrind bench bench-serving soak bench-results depth train-hops train-walk train-text clean

help:
	@echo "make demo    set up, export the demo models, ask them questions, let them generate"
	@echo "make test    set up, lint, type check, and run all fast tests"
	@echo "make test-slow  what takes minutes: exports that are killed, disks that are full, both wheels"
	@echo "make test-gpu  what needs an NVIDIA GPU (nothing of it has been run yet); make bench-gpu: its figures, part by part"
	@echo "make lint    ruff and mypy"
	@echo "make docs    the documentation as a site, into build/site"
	@echo "make native  build the CPU kernels into build/kernels, the C++ runtime into build/native"
	@echo "make tokenizer  build what the C++ runtime reads a tokenizer.json with (needs cargo)"
	@echo "make wheels  both distributions into dist/, as a registry would take them"
	@echo "make release  those, with what they are made of and SHA256SUMS"
	@echo "make aarch64  cross-compile kernels and C++ runtime, run their tests under qemu (apt-get install g++-aarch64-linux-gnu qemu-user)"
	@echo "make sanitize, make sanitize-threads, make fuzz, make valgrind BUNDLE=...  checks of the C++ runtime"
	@echo "make fuzz-readers  10,000 damaged checkpoints, configurations, tokenizers and manifests (minutes)"
	@echo "make bench   both benchmark models against every peer, and the CPU kernels against ONNX Runtime's own operators"
	@echo "make train-hops, make train-walk, make train-text  train the models that ship here (build/train; minutes, on a CPU)"
	@echo "make depth   depth against quality and cost of the shipped models: reports and picture in build/depth/reports"
	@echo "make bench-serving  load on mythos serve, with curves; make soak: 100,000 tokens through the engine, then 30 minutes of traffic"
	@echo "make bench-results  all committed reports anew, and the tables of README and docs from them (on a quiet machine)"

setup: $(INSTALLED)

# mythos-runtime and mythos-export, both from here; the CPU kernels where there is a C++ compiler (cmake comes from the
# package index where the system has none).
$(INSTALLED): pyproject.toml runtimes/python/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.11"; exit 3; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "python3-venv is missing: apt-get install python3-venv"; exit 3; }
	$(PIP) -e 'runtimes/python[tokenizers,chat,bf16,serve]' -e '.[tensorrt,triton,hub,benchmarks,dev]'
	@test -x $(BIN)/mythos || $(PIP) --force-reinstall --no-deps -e runtimes/python  # gone with an older mythos-export
	@command -v cmake >/dev/null || ! command -v c++ >/dev/null || $(PIP) cmake
	@$(BIN)/python cmake/build_native.py || true  # it has said why; the portable operators serve
	@touch $@

demo: setup
	@$(MAKE) --no-print-directory native || echo "the C++ runtime was not built (see above); Python's engine serves"
	$(BIN)/mythos-export mythos_model/pretrained/hops --target tensorrt -o demo/hops --force --cases mythos_model/pretrained/hops/held_out.safetensors
	$(BIN)/python -m benchmarks.demo demo/hops
	$(BIN)/mythos-export mythos_model/pretrained/walk --target onnx -o demo/walk --force --cases mythos_model/pretrained/walk/held_out.safetensors
	$(BIN)/python -m benchmarks.demo_walk demo/walk

lint: setup
	$(BIN)/ruff check .
	$(BIN)/mypy

test: setup lint
	@$(MAKE) --no-print-directory native || echo "native kernels were not built (see above); their tests are skipped"
	@if test -x build/native/mythos_run; then ctest --test-dir build/native --output-on-failure; fi
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-slow: setup
	@$(PIP) -e 'runtimes/python[ray]' || echo "Ray cannot be installed: replicas are not tested"
	@$(MAKE) --no-print-directory triton || echo "nvidia-pytriton cannot be installed: its server is not tested"
	@$(MAKE) --no-print-directory tokenizer || echo "the tests of the C++ runtime with a tokenizer.json are skipped"
	@$(MAKE) --no-print-directory native || echo "native kernels were not built (see above); their tests are skipped"
	$(BIN)/python -m pytest -m slow -n 2 --dist worksteal --durations=5

# A real tritonserver and its clients, in an environment of their own: they want numpy 1.
triton: build/triton/bin/python
build/triton/bin/python:
	$(PYTHON) -m venv build/triton
	build/triton/bin/pip install --quiet --disable-pip-version-check nvidia-pytriton==0.7.0 || { rm -rf build/triton; exit 3; }

# Where a GPU is there may be no network: then without `make setup`, in the Python that is there (its own PyTorch, Triton,
# ONNX), with a description of the packages in place of their installation.
GPU_PYTHON ?= $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))
GPU_OUT ?= benchmarks/results/gpu
GPU_PATH := PYTHONPATH=build/gpu/site:.:runtimes/python:$(PYTHONPATH)

test-gpu:
	$(GPU_PYTHON) -m benchmarks.gpu.pack --site-only
	$(GPU_PATH) $(GPU_PYTHON) -m pytest tests/gpu -m gpu -rs

# ARGS="--parts kernels,loop --seconds 200", or ARGS=--dry-run without a GPU. See benchmarks/gpu.
bench-gpu:
	$(GPU_PYTHON) -m benchmarks.gpu.pack
	$(GPU_PATH) $(GPU_PYTHON) -m benchmarks.gpu --out $(GPU_OUT) $(ARGS)

# The site, into build/site; a warning is an error, and a dead link is a warning.
docs: setup
	$(PIP) -e runtimes/python -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

native: setup
	$(BIN)/python cmake/build_native.py --tests
	$(BIN)/python cmake/build_runtime.py

# From crates.io; where that is out of reach, with the crates of Debian.
tokenizer: setup
	$(BIN)/python cmake/build_tokenizer.py || $(BIN)/python cmake/build_tokenizer.py --debian

wheels:
	$(PYTHON) cmake/build_wheels.py dist

# Distributions, bills of materials and checksums, into an empty dist/.
release:
	$(PYTHON) cmake/build_release.py dist

aarch64: setup
	$(BIN)/python cmake/build_aarch64.py

sanitize: setup
	$(BIN)/python cmake/build_runtime.py sanitize

sanitize-threads: build/fuzz/bundle
	$(BIN)/python cmake/build_runtime.py threads build/fuzz/bundle

fuzz: setup
	$(BIN)/python cmake/build_runtime.py fuzz

# What a bundle is made of: one that was exported by older code is exported anew.
EXPORTER := $(shell find mythos_export mythos_model runtimes/python/mythos_runtime -name '*.py')

build/fuzz/bundle: tests/golden/training_checkpoint/step_0000010.pt $(EXPORTER) | setup
	$(BIN)/mythos-export tests/golden/training_checkpoint/step_0000010.pt --target onnx -o build/fuzz/bundle --force

# ARGS="--count 300 --seed 7 --keep FOLDER": another number, other mutants, those kept that something is wrong with.
fuzz-readers: build/fuzz/bundle
	PYTHONPATH=tests $(BIN)/python -m fuzz_readers --bundle build/fuzz/bundle $(ARGS)

# Benchmarks of the server: load with curves, and half an hour of mixed traffic (ARGS="--minutes 5").
bench-serving: setup native
	$(PIP) -e '.[benchmarks]'
	$(BIN)/python -m benchmarks.serving -o $(BENCH_OUT)/serving

soak: setup native
	$(BIN)/python -m benchmarks.engine_soak
	$(BIN)/python -m benchmarks.serving.soak $(ARGS)

BUNDLE ?= build/text
build/text: mythos_model/pretrained/text/model.safetensors $(EXPORTER) | setup
	$(BIN)/mythos-export mythos_model/pretrained/text --target onnx --tokenizer bytes -o build/text --force

valgrind: native $(BUNDLE)
	@command -v valgrind >/dev/null || { echo "valgrind is missing: apt-get install valgrind"; exit 3; }
	MYTHOS_OP_LIBRARY=none valgrind --quiet --suppressions=runtimes/cpp/tests/onnxruntime.supp --leak-check=full --error-exitcode=1 build/native/mythos_run $(BUNDLE) --ids 1,2,3 --max-new-tokens 32 --threads 1

# Where the reports go; bench-results puts them into the repository.
BENCH_OUT ?= build/bench
DEPTH_OUT ?= build/depth/reports

bench: setup native
	@$(PIP) -e runtimes/python -e '.[peers]' || echo "peers that cannot be installed are left out"
	$(BIN)/python -m benchmarks.peers -o $(BENCH_OUT)/peers
	$(BIN)/python -m benchmarks.kernels_cpu

bench-results:
	$(MAKE) bench BENCH_OUT=benchmarks/results
	$(BIN)/python -m benchmarks.latency -o benchmarks/results/latency
	$(BIN)/python -m benchmarks.quantization -o benchmarks/results
	$(BIN)/python -m benchmarks.mixes -o benchmarks/results
	$(MAKE) depth DEPTH_OUT=benchmarks/results/depth
	$(BIN)/python -m benchmarks.tables

depth: setup
	$(BIN)/mythos-export mythos_model/pretrained/hops --target onnx -o build/depth/hops --force
	$(BIN)/mythos-export mythos_model/pretrained/text --target onnx --tokenizer bytes -o build/depth/text --force
	$(BIN)/python -m benchmarks.depth build/depth/hops --data mythos_model/pretrained/hops/held_out.safetensors --inputs 224 --budget-ms 3 --budget-ms 10 --out $(DEPTH_OUT)
	$(BIN)/python -m benchmarks.depth build/depth/text --data mythos_model/pretrained/text/held_out.safetensors --budget-ms 12 --budget-ms 50 --out $(DEPTH_OUT)
	$(BIN)/python -m benchmarks.depth $(DEPTH_OUT)/hops.json $(DEPTH_OUT)/text.json --picture $(DEPTH_OUT)/curves.svg

# ARGS=--resume goes on with a run that was stopped.
train-hops: setup
	$(BIN)/python -m mythos_model.training hops --out build/train/hops $(ARGS)

train-walk: setup
	$(BIN)/python -m mythos_model.training walk --out build/train/walk $(ARGS)

train-text: setup
	$(BIN)/python -m mythos_model.training text --out build/train/text $(ARGS)

clean:
	rm -rf build demo .pytest_cache .mypy_cache .ruff_cache
