# Every target does its own set-up: `make run` and `make test` work on a fresh clone.
# Paths are relative throughout, so that a directory with a space in its name works too.

VENV ?= .venv
PY := $(VENV)/bin/python
ARGS ?=
export PYTHON VENV

# The tests start hundreds of processes, and each would compile the program for itself.
unexport PYTHONDONTWRITEBYTECODE

# Two processes at least, as much of the end-to-end tests is waiting; more cores, more processes.
WORKERS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); echo $$((n > 2 ? n : 2)))
PYTEST := $(PY) -m pytest
IN_PARALLEL := -n $(WORKERS) --dist worksteal

.PHONY: help run test test-oldest lint format types unit e2e e2e-tools drift bench docs reference \
  wheel seccomp lock venv clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' Makefile

run: venv ## start the proxy; make run ARGS="--port 9052" passes options on
	@exec $(VENV)/bin/claude-proxy serve $(ARGS)

test: venv e2e-tools ## run every check and every test, and measure the coverage
	@$(MAKE) --no-print-directory lint types
	@mkdir -p build/coverage
	@rm -f build/coverage/data*
	@sh tools/retest $(PY) -m coverage run -m pytest $(IN_PARALLEL) $(ARGS)
	@$(PY) -m coverage combine --quiet
	@$(PY) -m coverage report
	@sh tools/smoke-oldest

test-oldest: ## run the tests that drive no other program on the oldest Python
	@oldest=$$(sh tools/find-python 3.12) && \
	  $(MAKE) --no-print-directory unit VENV=build/oldest PYTHON="$$oldest"

lint: venv ## check style and formatting
	$(PY) -m ruff check
	$(PY) -m ruff format --check

format: venv ## fix style and formatting
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

types: venv ## check types
	$(PY) -m mypy

unit: venv ## run the tests that drive no other program
	@sh tools/retest $(PYTEST) $(IN_PARALLEL) -m "not e2e" $(ARGS)

e2e: venv e2e-tools ## run the tests that drive curl, git, npm, Claude Code and others
	@sh tools/retest $(PYTEST) $(IN_PARALLEL) -m e2e $(ARGS)

e2e-tools: ## install the programs that the end-to-end tests drive
	@bash tools/e2e $(E2E)

drift: venv ## try the newest clients and libraries, and print what they change
	$(PY) tools/drift.py $(IN_PARALLEL) $(ARGS)

bench: venv ## measure the proxy beside others
	$(PY) -m bench $(ARGS)

docs: venv ## build the pages as a static site in build/docs; a broken link is an error
	$(PY) -m sphinx -b html -W --keep-going --nitpicky --quiet -d build/doctrees docs build/docs $(ARGS)
	@echo "build/docs/index.html"

reference: venv ## write docs/reference from the program's own tables
	$(PY) -m tools.reference

wheel: venv ## build dist/*.whl and *.tar.gz
	@rm -rf dist
	$(PY) -c "from poetry.core.masonry import api; api.build_sdist('dist'); api.build_wheel('dist')"
	@ls dist

seccomp: venv ## build the system call filters with libseccomp
	$(PY) -m tools.seccomp_filter
	$(PY) -m tools.container_filter

lock: ## choose the versions that poetry.lock pins
	@test -x build/poetry/bin/poetry || { \
	  "$$(sh tools/find-python)" -m venv --clear build/poetry && \
	  build/poetry/bin/pip install --quiet "poetry>=2.1,<3"; }
	build/poetry/bin/python tools/lock.py $(ARGS)

venv:
	@sh tools/setup

clean: ## remove everything that was made here
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
