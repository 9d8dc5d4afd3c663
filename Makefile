# make reproduce   simulate, compare with theory, draw, write results/report/index.html
# make test        lint, type check and tests
# make fresh       like reproduce, after setting older results aside
# make bench       what steps, batches of runs, folding, sweeps, upsampling and fine-tuning cost, against bounds and the
#                  last release; stopped, it goes on where it was; make bench PARTS="steps sweeps" takes some of it
# make study       the small study of language models: easy and hard arithmetic, a quarter of an hour on two cores
# make docs        the site: guides, tutorials (which it runs), formulas, reference: results/docs/index.html
# make install     the environment alone, in .venv
# make lock        resolve requirements.lock again from pyproject.toml

VENV := .venv
BIN := $(VENV)/bin
# The first interpreter that starts and is at least 3.11; override with `make PYTHON=/path/to/python`.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

.PHONY: install reproduce fresh bench study test check docs lock clean
.DEFAULT_GOAL := reproduce

install: $(VENV)/.ready

reproduce: $(VENV)/.ready
	$(BIN)/python -m experiments

fresh: $(VENV)/.ready
	$(BIN)/python -m experiments --fresh

bench: $(VENV)/.ready
	$(BIN)/python -m experiments.benchmarks $(PARTS)

study: $(VENV)/.ready
	$(BIN)/python -m experiments.language_models.arithmetic_study

test: $(VENV)/.ready check
	$(BIN)/python -m experiments.docs --check
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.ready
	$(BIN)/python -m experiments.docs

lock: $(VENV)/.ready
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --upgrade --no-emit-index-url --no-emit-find-links \
		--custom-compile-command "make lock" --python-version 3.11 --extra dev pyproject.toml -o requirements.lock

$(VENV)/.ready: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "No Python >= 3.11 found: install one, or call make PYTHON=/path/to/python" >&2; exit 2; }
	@echo "Building $(VENV) with $(PYTHON) from requirements.lock (hashes checked; takes a minute or two) ..."
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
