# make train    fetch MNIST, train DT-RAM on it, evaluate it
# make test     lint, types and the default tests: what every change must pass (6 minutes on 2 cores)
# make test-all          the same with the slow tests
# make test-gymnasium    the default tests on the oldest supported Gymnasium, then on the newest
# make lint     lint, format check and types only
# make bench    the benchmarks
# make gpu      whatever needs a GPU, in 9 minutes; ARGS=--dry-run: in seconds, without one
# make demo     a page that runs the shipped models, built and served; it prints its address
# make docs     needs npm, as demo does: generated pages, and HTML in docs/_build/html
# make clean    remove the virtual environment and caches; keep runs/ and downloaded data
#
# Every command but gpu creates .venv if it is missing and updates it when pyproject.toml changes.
# PYTHON is the interpreter that creates it, 3.11.4 or newer: make train PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check
PYTEST := $(PY) -m pytest -n auto --maxprocesses=4
READY := $(VENV)/.ready
BENCH_READY := $(VENV)/.ready-bench
DOCS_READY := $(VENV)/.ready-docs
BUSY := $(VENV)/.installing

# Reinstall if the clone was moved or the interpreter of .venv is gone.
ifneq ($(shell [ "$$(cat $(READY) 2>&1)" = "$(CURDIR)" ] && $(PY) -c "" 2>&1 && echo sound),sound)
$(shell rm -f $(READY) $(BENCH_READY) $(DOCS_READY))
endif

.PHONY: train test test-all test-gymnasium lint bench gpu demo docs clean mnist
.DELETE_ON_ERROR:

# An interrupted run continues, and a finished one prints its result again. The checksum of the code
# names the run folder, so changed code starts a new run.
CODE := $(sort $(shell find agents dtram_env train -name "*.py"))
train: $(READY) mnist
	$(PY) train/reinforce.py --recipe mnist-map --epochs 10 --stop after max_mean_glimpses=3 \
	  --resume --run-dir runs/make-train-$(firstword $(shell cat $(CODE) | cksum))

test: lint mnist
	$(PYTEST)

test-all: lint mnist
	$(PYTEST) -m ""

# The oldest release is installed into a folder of its own, which then comes first on the path.
OLDEST := 1.2
OLD := $(CURDIR)/$(VENV)/gymnasium-$(OLDEST)
test-gymnasium: $(READY) mnist
	$(PIP) --no-deps --upgrade --target $(OLD) 'gymnasium==$(OLDEST).*'
	$(PIP) --upgrade gymnasium
	set -e; for first in $(OLD) $(CURDIR); do \
	  PYTHONPATH=$$first $(PY) -c 'import gymnasium; print("== Gymnasium", gymnasium.__version__)'; \
	  PYTHONPATH=$$first $(PYTEST); done

lint: $(READY)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

# drawn_parts.py and gpu.py take minutes: they are run by hand. timing.py is what the others share.
bench: $(BENCH_READY) mnist
	set -e; for program in $(filter-out %/drawn_parts.py %/gpu.py %/timing.py,$(wildcard benchmarks/*.py)); do \
	  echo "== $$program"; $(PY) $$program; done

# Installs nothing: the machine may have no network, and packages of its own.
gpu:
	$(if $(wildcard $(PY)),$(PY),$(PYTHON)) benchmarks/gpu.py $(ARGS)

demo: $(READY) mnist
	$(PY) demo/build.py --serve

docs: $(DOCS_READY) mnist
	$(PY) docs/build.py

mnist: $(READY)
	@$(PY) -m dtram_env.datasets download mnist

clean:
	rm -rf $(VENV) build dist demo/_build docs/_build .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find agents benchmarks demo docs dtram_env examples tests train -name __pycache__ -type d -prune -exec rm -rf {} +

# An interrupted installation can leave half a package that pip takes for complete, so start over
# then. A working .venv that the user made some other way is kept.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 4))' || { echo \
	  "PYTHON=$(PYTHON): expected Python 3.11.4 or newer; name one, as in: make train PYTHON=python3.12" \
	  >&2; exit 1; }
	@if [ -e $(BUSY) ] || ! $(PY) -c 'import sys, pip; sys.exit(sys.version_info < (3, 11, 4))' 2>/dev/null; \
	then $(PYTHON) -m venv --clear $(VENV); fi
	@touch $(BUSY)
	$(PIP) --editable '.[dev]'
	@rm -f $(BUSY)
	@echo "$(CURDIR)" > $@

$(BENCH_READY): $(READY)
	$(PIP) --editable '.[bench]'
	@touch $@

$(DOCS_READY): $(READY)
	$(PIP) --editable '.[docs]'
	@touch $@
