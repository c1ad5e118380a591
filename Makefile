PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install -q --disable-pip-version-check -c constraints.txt

.PHONY: demo test results clean

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

test: $(VENV)/test-installed
	$(BIN)/python -m pytest

# The tables of benchmarks/results from runs that are there; runs what is missing. Needs datasets/acdc and datasets/mscmr.
results: $(VENV)/installed
	$(BIN)/scribbleseg bench benchmarks/plans/comparison.toml

clean:
	rm -rf $(VENV)
