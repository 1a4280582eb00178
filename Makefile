# make demo          train the capsule network on real digits, in an environment made here
# make test          the whole suite (minutes); make test-nightly runs more random programs
# make test-interop  the tests with PyTorch and JAX, which it installs
# make check         format, lint, types and tests, as contributors run them
#
# Only Python 3.11 or later must be present. A re-run installs nothing.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/installed
FRAMEWORKS := $(VENV)/frameworks-installed
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
ARGS ?=
TESTS ?= tests
WORKERS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1); \
	[ $$n -gt 4 ] && n=4; echo $$n)

.PHONY: demo test test-nightly test-interop check bench clean

demo: $(READY)
	$(BIN)/summand demo $(ARGS)

test: $(READY)
	$(BIN)/python -m pytest -n $(WORKERS) $(TESTS) $(ARGS)

test-nightly: $(READY)
	SUMMAND_TEST_PROFILE=nightly $(BIN)/python -m pytest -n $(WORKERS) $(TESTS) $(ARGS)

# Half a gigabyte a process: two are enough. PyTorch's own threads would compete with ours.
test-interop: $(FRAMEWORKS)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile tests/interop $(ARGS)

check: $(READY)
	PATH="$(CURDIR)/$(BIN):$$PATH" scripts/check

bench: $(READY)
	$(BIN)/python -m benchmarks.core $(ARGS)

clean:
	rm -rf $(VENV)

$(READY): pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed; none was found."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo,dev]'
	@touch $(READY)

$(FRAMEWORKS): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'torch==2.13.0' 'jax>=0.5,<0.11' 'optax>=0.2,<1'
	@touch $(FRAMEWORKS)
