# Two commands for a fresh machine: `make demo` and `make test`. Both build .venv on first use.
#   PYTHON=python3.12 make demo      another interpreter
#   CMAKE_ARGS=... make demo         another llama.cpp build (CUDA, BLAS, ...); see README

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# Only the libraries that the runtime loads; 4 times faster to build (README, "Build time").
export CMAKE_ARGS ?= -DCMAKE_PROJECT_llama_cpp_INCLUDE=$(CURDIR)/jetson/llama-cpp-minimal.cmake -DLLAMA_OPENSSL=OFF
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test check lint format bench clean help-text

demo: $(VENV)/.installed
	@$(BIN)/smoltools-edge pull demo
	@$(BIN)/python -m edge.examples.demo

test: lint
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile -m "not oracle and not heavy and not device"

check: test

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $(PYTHON) is older than 3.11; try PYTHON=python3.12 make ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# pip keeps the wheel that it builds in its cache, so a second clone on the same machine does not compile again.
$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing; the first time llama.cpp is compiled, which takes a few minutes"
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache

# After a change to the commands: the text that --help prints without importing them.
help-text: $(VENV)/.installed-dev
	$(BIN)/python -c 'from edge.cli.app import render_help; print(render_help(), end="")' > edge/cli/help.txt
