PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test clean

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt torch
	$(BIN)/pip install -q -c constraints.txt -e '.[test]'
	touch $@

demo: $(VENV)/installed
	rm -rf runs/demo
	$(BIN)/scribbleseg demo

test: $(VENV)/installed
	$(BIN)/python -m pytest

clean:
	rm -rf $(VENV) runs
