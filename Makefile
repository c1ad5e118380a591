PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install -q --disable-pip-version-check -c constraints.txt

.PHONY: demo check format docs test test-slow results papers clean

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) -e .
	touch $@

$(VENV)/test-installed: $(VENV)/installed
	$(PIP) -e '.[test]'
	touch $@

demo: $(VENV)/installed
	rm -rf runs/demo
	$(BIN)/scribbleseg demo

# lint, format and types
check: $(VENV)/test-installed
	$(BIN)/pre-commit run --all-files

format: $(VENV)/test-installed
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# the site of the pages in docs, in site; a warning is an error
docs: $(VENV)/installed
	$(PIP) -e '.[docs]'
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs site

PYTEST := $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: $(VENV)/test-installed
	$(PYTEST) -m "not slow"

# a Ray cluster, Slurm scripts, several processes, a browser, and a short training of every method
test-slow: $(VENV)/test-installed
	$(PYTEST) -m slow

# Every run of docs/results.md that is not done, in order of value, and its tables. Needs datasets/acdc and datasets/mscmr.
# make results MINUTES=9 stops at a checkpoint; the same command carries on.
results: $(VENV)/installed
	$(PIP) -e '.[bench]'
	$(BIN)/python benchmarks/studies/results.py $(if $(MINUTES),--minutes $(MINUTES))

# The runs at the papers' length, one after the other; carries on. make papers MINUTES=60 stops at a checkpoint.
papers: $(VENV)/installed
	$(PIP) -e '.[bench]'
	$(BIN)/python benchmarks/studies/papers.py $(if $(MINUTES),--minutes $(MINUTES))

clean:
	rm -rf $(VENV)
