# From a fresh clone to a running limpet: `make run`. `make` alone lists the targets.
# Needs make and Python 3.10 or later; the rest goes into .venv, once, and again only
# when pyproject.toml changes.

PYTHON ?= python3
TORCH_VERSION := 2.13.0

# Where the PyTorch wheel comes from, beside what pip itself is configured with.
#   auto   On Linux, PyPI's own wheel brings several GB of CUDA libraries that nothing here needs.
#          So PyTorch's CPU index is added if it answers within 5 seconds; a machine that cannot
#          reach it (behind a mirror, say) goes on at once with pip's own sources.
#   none   pip's own sources only
#   URL    that index: make run TORCH_INDEX=https://download.pytorch.org/whl/cpu
# Indexes are only ever added, so a pip.conf or PIP_* variable keeps its effect.
TORCH_INDEX ?= auto
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
MADE := $(VENV)/.made
TORCH := $(VENV)/.torch-$(TORCH_VERSION)
INSTALLED := $(VENV)/.installed

.PHONY: help run test test-slow lint bench reference reference-navigation reference-grasp setup clean

help:
	@echo "make run        set up, then the demo: bundle, server, sensor streams, alerts"
	@echo "make test       set up, then the fast tests"
	@echo "make test-slow  set up, then the slow tests"
	@echo "make lint       ruff and mypy"
	@echo "make bench      measure serving and streams, into tests/benchmarks/results"
	@echo "make reference  train the anomaly bundle in robot_configs/bundles anew"
	@echo "make reference-navigation   the same for navigation, in hours"
	@echo "make reference-grasp        the same for grasping, in an hour and a half"
	@echo "make setup      only the set-up: .venv with limpet and all its extras"
	@echo "make clean      remove .venv, caches and build outputs"

run: $(INSTALLED)
	@$(BIN)/limpet demo

test: $(INSTALLED)
	@echo "==> fast tests"
	@$(BIN)/python -m pytest -m "not slow"

test-slow: $(INSTALLED)
	@echo "==> slow tests"
	@$(BIN)/python -m pytest -m slow

lint: $(INSTALLED)
	@echo "==> ruff check"
	@$(BIN)/ruff check --quiet .
	@echo "==> ruff format --check"
	@$(BIN)/ruff format --check --quiet .
	@echo "==> mypy --strict"
	@$(BIN)/mypy --strict runtime/limpet training/limpet export/limpet

bench: $(INSTALLED)
	@mkdir -p tests/benchmarks/results
	@$(BIN)/limpet bench serve --overload-s 60 --mixed-s 600 \
	  --json tests/benchmarks/results/serve.json --picture tests/benchmarks/results/serve.png
	@$(BIN)/limpet bench stream --json tests/benchmarks/results/stream.json

# Two minutes. The recording's first 1,998 rows precede its first known fault.
REFERENCE := machine_temperature
reference: $(INSTALLED)
	@$(BIN)/limpet train anomaly --data runtime/limpet/runtime/demo/recordings/$(REFERENCE).csv \
	  --config runtime/limpet/runtime/demo/recordings/$(REFERENCE).toml \
	  --train-rows 1998 --out runs/reference_anomaly --force
	@$(BIN)/limpet export runs/reference_anomaly --out robot_configs/bundles/anomaly --force
	@$(BIN)/limpet verify robot_configs/bundles/anomaly

# Hours on two cores: 94 layouts to render, the encoder, then the policy in others.
TEXTURES ?= ../shared/data/textures
reference-navigation: $(INSTALLED)
	@$(BIN)/python -m limpet.training.navigation.pairs --out runs/navigation_pairs \
	  --layouts 0 94 --textures $(TEXTURES)
	@$(BIN)/limpet train navigation --data runs/navigation_pairs --out runs/reference_navigation \
	  --config training/limpet/training/navigation/reference.toml
	@$(BIN)/python -m limpet.training.navigation.policy_train runs/reference_navigation \
	  --config training/limpet/training/navigation/reference_policy.toml \
	  --textures $(TEXTURES)
	@$(BIN)/python -m limpet.training.navigation.pairs --out runs/navigation_unseen --set test \
	  --layouts 5000 5024 --textures $(TEXTURES)
	@$(BIN)/limpet evaluate navigation runs/reference_navigation --data runs/navigation_unseen \
	  --textures $(TEXTURES) --record
	@$(BIN)/limpet export runs/reference_navigation --out robot_configs/bundles/navigation --force
	@$(BIN)/limpet verify robot_configs/bundles/navigation

# An hour and a half on two cores: 84 scenes settled, rendered and labelled, then the encoder.
reference-grasp: $(INSTALLED)
	@$(BIN)/python -m limpet.training.grasp.scenes.generate --out runs/grasp_clutter \
	  --train 60 --validation 6 --seen 6 --similar 6 --novel 6 --workers 2
	@$(BIN)/limpet train grasp --data runs/grasp_clutter --out runs/reference_grasp \
	  --config training/limpet/training/grasp/reference.toml
	@$(BIN)/limpet export runs/reference_grasp --out robot_configs/bundles/grasp --force
	@$(BIN)/limpet verify robot_configs/bundles/grasp

setup: $(INSTALLED)

# Debian and Ubuntu ship python3 without ensurepip, and venv fails half-way without it.
$(MADE):
	@command -v $(PYTHON) >/dev/null || { \
	  echo "==> no '$(PYTHON)' here: install Python 3.10 or later, or name one: make PYTHON=python3.12" >&2; \
	  exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "==> limpet needs Python 3.10 or later, '$(PYTHON)' is $$($(PYTHON) --version 2>&1);" \
	    "name a later one: make PYTHON=python3.12" >&2; \
	  exit 1; }
	@if ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
	  package=$$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
	  if ! command -v apt-get >/dev/null; then \
	    echo "==> '$(PYTHON)' cannot make virtual environments (no ensurepip):" \
	      "install your system's venv package for Python, then make again" >&2; exit 1; \
	  elif [ "$$(id -u)" = 0 ]; then as_root=; \
	  elif command -v sudo >/dev/null; then as_root=sudo; \
	  else \
	    echo "==> '$(PYTHON)' has no ensurepip; as root, type: apt-get install $$package" >&2; exit 1; \
	  fi; \
	  echo "==> installing $$package with apt-get ('$(PYTHON)' has no ensurepip)"; \
	  $$as_root apt-get -qq update || true; \
	  $$as_root env DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes \
	    apt-get -qq install -y --no-install-recommends $$package >/dev/null || { \
	    echo "==> apt-get failed; as root, type: apt-get install $$package" >&2; exit 1; }; \
	fi
	@echo "==> making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

# First and pinned, so that limpet's own `torch>=` finds it satisfied. The alarm, unlike
# urlopen's timeout, also ends a name server that does not answer.
$(TORCH): | $(MADE)
	@index='$(TORCH_INDEX)'; \
	if [ "$$index" = auto ]; then \
	  index=none; \
	  if [ "$$(uname -s)" = Linux ] && { $(BIN)/python -c "import signal, urllib.request as r; \
	    signal.alarm(5); r.urlopen(r.Request('$(TORCH_CPU_INDEX)/torch/', method='HEAD'))"; \
	  } >/dev/null 2>&1; then index=$(TORCH_CPU_INDEX); fi; \
	fi; \
	if [ "$$index" = none ] || [ -z "$$index" ]; then \
	  echo "==> installing PyTorch $(TORCH_VERSION) from pip's own sources (once; may take minutes)"; \
	  $(PIP) install torch==$(TORCH_VERSION); \
	else \
	  echo "==> installing PyTorch $(TORCH_VERSION) from $$index (once; may take minutes)"; \
	  $(PIP) install --extra-index-url "$$index" torch==$(TORCH_VERSION); \
	fi
	@touch $@

# Open3D's wheel leaves a few libraries to the system, which a bare Debian lacks.
$(INSTALLED): pyproject.toml | $(TORCH)
	@echo "==> installing limpet with its extras into $(VENV)"
	@$(PIP) install --editable ".[training,export,tensorrt,dashboard,dev]"
	@if ! $(BIN)/python -c 'import open3d' 2>/dev/null; then \
	  packages='libusb-1.0-0 libgl1 libgomp1 libx11-6'; \
	  if [ "$$(id -u)" = 0 ]; then as_root=; else as_root=$$(command -v sudo || echo none); fi; \
	  if command -v apt-get >/dev/null && [ "$$as_root" != none ]; then \
	    echo "==> installing $$packages with apt-get (Open3D cannot be loaded without)"; \
	    $$as_root apt-get -qq update || true; \
	    $$as_root env DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes \
	      apt-get -qq install -y --no-install-recommends $$packages >/dev/null || true; \
	  fi; \
	  $(BIN)/python -c 'import open3d' || \
	    echo "==> going on without Open3D, which navigation's scenes need;" \
	      "on Debian, as root: apt-get install $$packages" >&2; \
	fi
	@touch $@

clean:
	@echo "==> removing $(VENV), caches and build outputs"
	@rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find runtime training export tests -name __pycache__ -type d -prune -exec rm -rf {} +
