PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo docs test test-long lint clean

demo: $(INSTALLED)
	$(BIN)/python benchmarks/demo.py -o demo

docs: $(INSTALLED)
	$(BIN)/python docs/reference.py build/docs

# Two processes of one thread each; a file's tests share what they train.
test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-long: $(INSTALLED)
	$(BIN)/python -m pytest -m ""

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) demo build dist *.egg-info
