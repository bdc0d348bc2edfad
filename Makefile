# Install into .venv, then run. Interrupted steps are done again; steps that are done are not.

PYTHON ?= python3
VENV ?= .venv
TORCH_VERSION ?= 2.14.1
TORCHVISION_VERSION ?= 0.29.1
# Passed on to pip for torch and torchvision, e.g. --index-url https://download.pytorch.org/whl/cpu
TORCH_PIP_ARGS ?=
TEST_WORKERS ?= 2
PYTEST_ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check
# The stamp carries a checksum of what decides the install, so a change of it installs again.
STAMP := $(VENV)/.installed-$(shell cat setup.py pyproject.toml Makefile virtex_det/cli/install_detectron2.py | cksum | cut -d' ' -f1)

.PHONY: help setup demo test lint clean

help:
	@echo 'make setup          install torch, Detectron2 and virtex_det into $(VENV)'
	@echo 'make demo           captions in, box and mask AP out, on images that it draws (QUICK=1: only that all parts run)'
	@echo 'make test           the tests (PYTEST_ARGS="-k name" for some of them)'
	@echo 'make lint           ruff and mypy'
	@echo 'make clean          remove .venv and what tools cached'
	@echo 'docs/install.md has the settings: PYTHON, VENV, TORCH_VERSION, TORCHVISION_VERSION, TORCH_PIP_ARGS'

setup: $(STAMP)

demo: $(STAMP)
	$(BIN)/python tools/demo.py $(if $(filter-out 0,$(QUICK)),--quick)

# One thread per process: the workers, and the processes that tests launch, share the cores. The modules stay in the
# order of tests/conftest.py; xdist's own would put those of few tests last, and they take the longest.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv build virtex_det.egg-info .pytest_cache .mypy_cache .ruff_cache

# Detectron2 comes last: whether one is here is found out by importing it, and that takes torch and its companions.
$(STAMP):
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { $(make_venv); }
	@if $(BIN)/python -c 'import torch, torchvision' 2>/dev/null; \
	then echo '[1/3] torch and torchvision: already here, kept'; \
	else echo '[1/3] torch $(TORCH_VERSION) and torchvision $(TORCHVISION_VERSION): the large ones'; \
	$(PIP) $(TORCH_PIP_ARGS) torch==$(TORCH_VERSION) torchvision==$(TORCHVISION_VERSION); fi
	@echo '[2/3] virtex_det and what it needs'
	@$(PIP) --quiet --editable '.[pretrain,dev]'
	@echo '[3/3] Detectron2'
	@$(BIN)/python tools/install_detectron2.py
	@$(BIN)/python -c 'import virtex_det; print("virtex_det", virtex_det.__version__, "is ready in $(VENV)")'
	@rm -f $(VENV)/.installed-*
	@touch $@

# The first Python of a version that virtex_det supports makes the environment.
define make_venv
for python in $(PYTHON) python3.13 python3.12 python3.11 python3.10; do \
	if $$python -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1; then \
		echo "$(VENV): made with $$($$python --version)"; exec $$python -m venv $(VENV); fi; \
	done; \
	echo "virtex_det needs Python 3.10 to 3.13, and $(PYTHON) is $$($(PYTHON) --version 2>&1);" \
	"install one of them, or say where it is: make setup PYTHON=/path/to/python3.12" >&2; exit 1
endef
