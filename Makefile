# One door: `make demo`, `make test`, `make check`, `make serve`, `make bench`, `make gpu`, `make proto`, `make image`. Each sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
GENERATOR := .tools/proto
REFERENCE := .tools/parity
# Several torch processes on few cores: waiting threads sleep instead of spinning.
export OMP_WAIT_POLICY ?= passive

.PHONY: help install demo serve test soak parity check format proto pins bench bench-quality gpu image image-test clean

help:
	@echo "make demo           train on real images, watch it learn, get a picture (IMAGES=DIR for your own)"
	@echo "make test           the test suite"
	@echo "make soak           the tests of faults, ROUNDS=50 times each; goes on where the last run stopped (MINUTES=10: at most)"
	@echo "make parity         losses, optimizers and evaluation side by side with lightly, the reference"
	@echo "make check          format, lint, types, import contracts, freshness of the generated stubs"
	@echo "make serve          a server on 127.0.0.1:50051, data in ./data"
	@echo "make bench          what the service costs, how soon it recovers, how fast it selects, how long others wait (IMAGES=DIR)"
	@echo "make bench-quality  each method beside lightly's loop on CIFAR-10, cell by cell (IMAGES=DIR CELLS=1)"
	@echo "make gpu            every CUDA path beside the CPU, and figures of this machine's GPU; without one, a dry run"
	@echo "make image          the container image; docker compose up runs it"
	@echo "make image-test     the image and docker-compose.yml, tried from outside; needs a Docker engine"

install: $(INSTALLED)

# uv installs the pinned packages in seconds; uv itself comes from pip, by hash.
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

# In two processes, a file in either: most of the time tests wait for the processes that they start.
test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist loadfile $(TEST_ARGS)

ROUNDS ?= 50
soak: $(INSTALLED)
	MANYVIEW_SOAK=$(ROUNDS) MANYVIEW_SOAK_MINUTES=$(MINUTES) $(BIN)/python -m pytest -n 2 --dist worksteal tests/faults $(TEST_ARGS)

# The reference in an environment of its own, beside all that the tests need.
$(REFERENCE)/.installed: requirements/parity.txt $(INSTALLED)
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(REFERENCE)
	$(BIN)/uv pip sync --quiet --python $(REFERENCE)/bin/python --require-hashes requirements/dev.txt requirements/parity.txt
	$(BIN)/uv pip install --quiet --python $(REFERENCE)/bin/python --no-deps --no-build-isolation --editable .
	@touch $@

# Not a part of `make test`: the reference brings packages that nothing else needs.
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

# The stubs come from an old generator in an environment of its own: what it writes imports beside protobuf 4.25 to 7.
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
# What the image installs, and what is compared with the reference, is what was tested: the same versions as in dev.txt.
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -c requirements/dev.txt requirements/build.in -o requirements/build.txt
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -c requirements/dev.txt requirements/parity.in -o requirements/parity.txt
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -c requirements/dev.txt --extra server pyproject.toml -o requirements/server.txt

# IMAGES=DIR: a folder of images for the benchmark of the service.
bench: $(INSTALLED)
	$(BIN)/python -m benchmarks.recovery
	$(BIN)/python -m benchmarks.selection
	$(BIN)/python -m benchmarks.loop
	$(BIN)/python -m benchmarks.service training --images "$(IMAGES)"
	$(BIN)/python -m benchmarks.service embedding --images "$(IMAGES)"

# IMAGES=DIR: CIFAR-10 as DIR/train/CLASS/*.jpg and DIR/test/CLASS/*.jpg. The next CELLS that were not measured yet.
CELLS ?= 1
bench-quality: $(REFERENCE)/.installed
	$(REFERENCE)/bin/python -m benchmarks.quality --images "$(IMAGES)" --cells $(CELLS)

# On a machine with a CUDA device: at most eight minutes. Elsewhere the CPU tries every line at tiny sizes.
gpu: $(INSTALLED)
	$(BIN)/python -m benchmarks.gpu $(GPU_ARGS)

image:
	docker compose build

# Not a part of `make test`: it builds the image, about 6.5 GB, and takes some minutes.
image-test: $(INSTALLED)
	$(BIN)/python -m pytest -m image tests/image $(TEST_ARGS)

clean:
	rm -rf $(VENV) .tools demo-output .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
