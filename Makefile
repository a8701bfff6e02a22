# The targets that people need are listed by `make help`. Each target sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
GENERATOR := .tools/proto
REFERENCE := .tools/parity
PEERS := .tools/peers
# Waiting threads sleep instead of spinning, because several torch processes share few cores.
export OMP_WAIT_POLICY ?= passive
# Tests start hundreds of processes that import PyTorch. Without bytecode files, each of them compiles it again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install demo serve test soak parity check format proto pins bench bench-quality bench-peers gpu image image-gpu image-test clean

help:
	@echo "make demo           train on real images, watch the model learn, get a picture (IMAGES=DIR: your own images)"
	@echo "make test           run the test suite"
	@echo "make soak           run each test of faults ROUNDS=50 times, and all long tests, for at most MINUTES=10; continues after the last run"
	@echo "make parity         compare losses, optimizers and evaluation with lightly, the reference"
	@echo "make check          check format, lint, types, import contracts, and that the generated stubs are up to date"
	@echo "make serve          run a server on 127.0.0.1:50051 with its data in ./data"
	@echo "make bench          measure the cost of the service, recovery, selection, and waiting times (IMAGES=DIR BENCH_DATA=DIR)"
	@echo "make bench-quality  compare each method with lightly's loop on CIFAR-10, CELLS=1 table cells at a time (IMAGES=DIR)"
	@echo "make bench-peers    compare embedding with other servers on this CPU, CELLS=1 table cells at a time (IMAGES=DIR)"
	@echo "make gpu            compare every CUDA path with the CPU and measure this machine's GPU; without a GPU, a dry run"
	@echo "make image          build the container image for a CPU, 1.5 GB; docker compose up runs it"
	@echo "make image-gpu      build the container image for an NVIDIA GPU, 6.3 GB"
	@echo "make image-test     test the image and docker-compose.yml from outside; needs a Docker engine"

install: $(INSTALLED)

# uv installs the pinned packages in seconds. pip installs uv itself, by hash.
$(INSTALLED): requirements/bootstrap.txt requirements/dev.txt pyproject.toml
	@echo "Setting up $(VENV): PyTorch and the rest, about 3 GB (under a minute with a fast network)."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "manyview needs Python 3.11 or newer, this is %d.%d" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements/bootstrap.txt requirements/dev.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(INSTALLED)
	$(BIN)/python -m examples.demo $(if $(IMAGES),--images "$(IMAGES)") $(DEMO_ARGS)

serve: $(INSTALLED)
	$(BIN)/manyview-server serve --listen 127.0.0.1:50051 --data data

# Three processes keep two cores busy, because tests often wait for the processes that they start. Each file runs in one
# of them, in the order of the folders: tests of whole servers, which take longest, come first.
PROCESSES ?= 3
test: $(INSTALLED)
	$(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile --no-loadscope-reorder $(TEST_ARGS)

ROUNDS ?= 50
soak: $(INSTALLED)
	MANYVIEW_SOAK=$(ROUNDS) MANYVIEW_SOAK_MINUTES=$(MINUTES) $(BIN)/python -m pytest -n 2 --dist worksteal -m "not image" $(TEST_ARGS)

# The reference has an environment of its own, with everything that the tests need.
$(REFERENCE)/.installed: requirements/parity.txt $(INSTALLED)
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(REFERENCE)
	$(BIN)/uv pip sync --quiet --python $(REFERENCE)/bin/python --require-hashes requirements/dev.txt requirements/parity.txt
	$(BIN)/uv pip install --quiet --python $(REFERENCE)/bin/python --no-deps --no-build-isolation --editable .
	@touch $@

# This is not part of `make test`, because the reference brings packages that nothing else needs.
parity: $(REFERENCE)/.installed
	$(REFERENCE)/bin/python -m pytest tests/parity $(TEST_ARGS)

check: $(INSTALLED) $(GENERATOR)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python proto/check.py --generator $(GENERATOR)/bin/python

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# An old generator in an environment of its own writes the stubs, because they must work with protobuf 4.25 to 7.
$(GENERATOR)/.installed: requirements/proto.txt $(INSTALLED)
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(GENERATOR)
	$(BIN)/uv pip sync --quiet --python $(GENERATOR)/bin/python --require-hashes requirements/proto.txt \
	  || echo "the pinned generator does not install on this Python: proto/check.py compares descriptors instead"
	@touch $@

proto: $(GENERATOR)/.installed
	PROTO_PYTHON=$(CURDIR)/$(GENERATOR)/bin/python proto/generate

pins: $(INSTALLED)
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --upgrade requirements/bootstrap.in -o requirements/bootstrap.txt
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --upgrade requirements/proto.in -o requirements/proto.txt
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --upgrade --extra dev pyproject.toml -o requirements/dev.txt
# The image and the comparison with the reference use the versions that were tested, those of dev.txt.
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -c requirements/dev.txt requirements/build.in -o requirements/build.txt
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -c requirements/dev.txt requirements/parity.in -o requirements/parity.txt
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -c requirements/dev.txt requirements/peers.in -o requirements/peers.txt
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -c requirements/dev.txt --extra server pyproject.toml -o requirements/server.txt

# IMAGES=DIR is a folder of images for the benchmark of the service. BENCH_DATA is filled with a million images (2 GB).
BENCH_DATA ?= bench-data
bench: $(INSTALLED)
	$(BIN)/python -m benchmarks.recovery measure --data "$(BENCH_DATA)"
	$(BIN)/python -m benchmarks.selection
	$(BIN)/python -m benchmarks.loop
	$(BIN)/python -m benchmarks.starts measure
	$(BIN)/python -m benchmarks.estimates measure --images "$(IMAGES)"
	$(BIN)/python -m benchmarks.service training --images "$(IMAGES)"
	$(BIN)/python -m benchmarks.service embedding --images "$(IMAGES)"

# IMAGES=DIR has CIFAR-10 as DIR/train/CLASS/*.jpg and DIR/test/CLASS/*.jpg. This measures the next CELLS cells.
CELLS ?= 1
bench-quality: $(REFERENCE)/.installed
	$(REFERENCE)/bin/python -m benchmarks.quality --images "$(IMAGES)" --cells $(CELLS)

# Each peer has an environment of its own. uv links the files of its cache into it.
$(PEERS)/.installed: requirements/peers.txt $(INSTALLED)
	$(BIN)/python -m benchmarks.peers install
	@touch $@

# IMAGES=DIR is a folder of JPEG files. This tries the batching of the peers, and then measures the next CELLS cells.
bench-peers: $(PEERS)/.installed
	$(BIN)/python -m benchmarks.peers sweep --images "$(IMAGES)" --cells 100 || [ $$? = 3 ]
	$(BIN)/python -m benchmarks.peers measure --images "$(IMAGES)" --cells $(CELLS)

# This takes at most eight minutes with a CUDA device. Without one, the CPU runs every line at tiny sizes.
gpu: $(INSTALLED)
	$(BIN)/python -m benchmarks.gpu $(GPU_ARGS)

image:
	docker compose build

image-gpu:
	docker compose -f docker-compose.yml -f compose.gpu.yml build

# This is not part of `make test`, because it builds the image for the CPU, which takes some minutes. The image for a GPU is
# larger: IMAGE_TESTS=image builds and tests it as well.
IMAGE_TESTS ?= image and not long
image-test: $(INSTALLED)
	$(BIN)/python -m pytest -m "$(IMAGE_TESTS)" tests/image $(TEST_ARGS)

clean:
	rm -rf $(VENV) .tools demo-output .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache bench-data
