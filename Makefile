# Everything runs from a virtual environment in .venv; PYTHON chooses the interpreter it is made with.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test check install install-dev clean

demo: .venv/.installed  ## install and draw pictures with the model that ships in the repository
	$(BIN)/python examples/demo.py

test: .venv/.installed-dev  ## install and pass every test
	$(BIN)/python -m pytest --numprocesses 2

check: .venv/.installed-dev  ## formatting, lint, types, import directions
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --quiet tests/test_architecture.py

install: .venv/.installed
install-dev: .venv/.installed-dev

.venv/bin/python:
	$(PYTHON) -m venv .venv

# torch first and pinned, so that nothing which depends on it brings another one.
.venv/.installed: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) torch==2.13.0
	$(PIP) --editable .
	touch $@

.venv/.installed-dev: .venv/.installed
	$(PIP) --editable '.[dev]'
	# A reference of the CLIP tests, without the torchvision it asks for: there is no CPU build of that.
	$(PIP) --no-deps open_clip_torch==3.3.0 ftfy==6.3.1 wcwidth==0.9.4
	touch $@

clean:
	rm -rf .venv build dist
