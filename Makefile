# New users need only `make demo` and `make test`, which first set up a virtual environment.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed

.PHONY: demo test test-all lint format tensorboard clean

demo: $(STAMP)
	$(VENV)/bin/python pipelines/demo.py

# One process per core with one thread each: small tensors do not benefit from more threads.
PYTEST := OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n auto --dist worksteal

test: $(STAMP)
	$(PYTEST) -m "not slow" $(PYTEST_ARGS)

# With the slow tests: killed and resumed jobs, pipeline scripts, several processes. Half as long again.
test-all: $(STAMP)
	$(PYTEST) $(PYTEST_ARGS)

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(STAMP)
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

tensorboard: $(STAMP)
	$(VENV)/bin/tensorboard --logdir runs

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache

# Install the pinned versions; does nothing if none of these files has changed.
$(STAMP): pyproject.toml constraints.txt hatch_build.py
	@$(PYTHON) -c 'import sys; v = sys.version_info; ok = (3, 11) <= v[:2] <= (3, 13); \
	  sys.exit(0 if ok else f"medunet needs Python 3.11 to 3.13, this is {v[0]}.{v[1]}. Try: make PYTHON=python3.12")'
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(STAMP)
