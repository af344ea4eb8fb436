# make train    fetch MNIST, train DT-RAM on it, evaluate it
# make test     everything a change must pass: lint, types, tests
# make lint     lint, format check and types alone
# make bench    the benchmarks, with the packages that they compare against
# make test-gymnasium   the tests on the oldest Gymnasium that is supported, and on the newest
# make docs     the documentation's generated pages, its doctests, HTML in docs/_build/html
# make clean    remove the virtual environment and caches; runs/ and downloaded data stay
#
# Each makes .venv when it is missing and brings it up to date when pyproject.toml changes.
# PYTHON is the interpreter to make it with, 3.11 or newer: make train PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
BENCH_READY := $(VENV)/.ready-bench
DOCS_READY := $(VENV)/.ready-docs
BUSY := $(VENV)/.installing

# A clone that was moved, or whose interpreter is gone, has to be installed again.
ifneq ($(shell [ "$$(cat $(READY) 2>&1)" = "$(CURDIR)" ] && $(PY) -c "" 2>&1 && echo sound),sound)
$(shell rm -f $(READY) $(BENCH_READY) $(DOCS_READY))
endif

.PHONY: train test test-gymnasium lint bench docs clean mnist
.DELETE_ON_ERROR:

# A run that was interrupted goes on; one that is finished prints its result again. The folder is
# named by the checksum of all that makes the result, so that other code starts a run of its own.
CODE := $(sort $(shell find agents dtram_env train -name "*.py"))
train: $(READY) mnist
	$(PY) train/reinforce.py --resume \
	  --run-dir runs/make-train-$(firstword $(shell cat $(CODE) | cksum))

test: lint mnist
	$(PY) -m pytest -n auto --maxprocesses=4

# The oldest release lies in a folder of its own that comes first on the path; the newest is in .venv.
OLDEST := 1.2
OLD := $(CURDIR)/$(VENV)/gymnasium-$(OLDEST)
test-gymnasium: $(READY) mnist
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
	  --target $(OLD) 'gymnasium==$(OLDEST).*'
	$(PY) -m pip install --quiet --disable-pip-version-check --upgrade gymnasium
	set -e; for first in $(OLD) $(CURDIR); do \
	  PYTHONPATH=$$first $(PY) -c 'import gymnasium; print("== Gymnasium", gymnasium.__version__)'; \
	  PYTHONPATH=$$first $(PY) -m pytest -n auto --maxprocesses=4; done

lint: $(READY)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

# Those that train networks take up to an hour and are run by themselves.
TRAINED := benchmarks/birds_small.py benchmarks/drawn_parts.py
bench: $(BENCH_READY) mnist
	set -e; for program in $(filter-out $(TRAINED),$(wildcard benchmarks/*.py)); do echo "== $$program"; $(PY) $$program; done

docs: $(DOCS_READY) mnist
	$(PY) docs/build.py

mnist: $(READY)
	@$(PY) -m dtram_env.datasets download mnist

clean:
	rm -rf $(VENV) build dist docs/_build .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find agents benchmarks docs dtram_env examples tests train -name __pycache__ -type d -prune -exec rm -rf {} +

# An install that broke off may have left half a package that pip takes for whole: start over then.
# A .venv that works and was made by other means is kept.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo \
	  "PYTHON=$(PYTHON): expected Python 3.11 or newer; name one, as in: make train PYTHON=python3.12" \
	  >&2; exit 1; }
	@if [ -e $(BUSY) ] || ! $(PY) -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	then $(PYTHON) -m venv --clear $(VENV); fi
	@touch $(BUSY)
	$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@rm -f $(BUSY)
	@echo "$(CURDIR)" > $@

$(BENCH_READY): $(READY)
	$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@touch $@

$(DOCS_READY): $(READY)
	$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@
