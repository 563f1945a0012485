# Two commands do all the set-up on a fresh machine: `make demo` and `make test`.
# With a sourced ROS 2 they use that ROS, otherwise ROS 2 Jazzy wheels from PyPI.

PYTHON ?= python3
VENV := .venv
MINUTES ?= 30
BIN := $(VENV)/bin
PIP := PIP_CONSTRAINT=$(VENV)/constraints.txt PYTHONWARNINGS=ignore::UserWarning \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check
# Sourcing a ROS 2 sets AMENT_PREFIX_PATH; activating .venv does not.
HAVE_ROS := $(if $(AMENT_PREFIX_PATH),$(shell $(PYTHON) -c 'import rclpy' 2>/dev/null && echo yes))

ifeq ($(HAVE_ROS),yes)
VENV_FLAGS := --system-site-packages
EXTRA_ROS :=
# The installed cv_bridge was built against this NumPy.
CONSTRAINT := numpy==$(shell $(PYTHON) -c 'import numpy; print(numpy.__version__)')
else
VENV_FLAGS :=
EXTRA_ROS := ros,
CONSTRAINT :=
endif

.PHONY: help setup setup-test demo test test-all lint bench soak clean

help:
	@echo 'make demo      set up, then derain a rainy driving clip through the node'
	@echo 'make test      set up with torch, then lint and tests (about 12 minutes on two cores)'
	@echo 'make test-all  the same with the long tests'
	@echo 'make bench     speed of engines and node, each figure beside its bar'
	@echo 'make soak      the node under full load for MINUTES=30; curves in out/soak/'
	@echo 'make setup     only leave .venv/bin/{python,derain,derain_node}'
	@echo 'make clean     remove what the others made'

setup: $(VENV)/.setup

setup-test: $(VENV)/.setup-test

$(VENV)/.setup: setup.py setup.cfg Makefile
	$(PYTHON) -m venv $(VENV_FLAGS) $(VENV)
	echo '$(CONSTRAINT)' > $(VENV)/constraints.txt
	$(PIP) --upgrade 'pip>=23.1' 'setuptools>=68' wheel
	$(PIP) --no-build-isolation --use-pep517 -e '.[$(EXTRA_ROS)tools]'
	touch $@

# This torch release first: its build for the CPU satisfies the range of the extra.
$(VENV)/.setup-test: $(VENV)/.setup
	$(PIP) torch==2.13.0
	$(PIP) --no-build-isolation --use-pep517 -e '.[$(EXTRA_ROS)tools,train,tensorrt,test]'
	touch $@

demo: setup
	$(BIN)/derain demo --output out/demo

test: lint
	$(BIN)/python -m pytest -m 'not slow'

test-all: lint
	$(BIN)/python -m pytest

lint: setup-test
	$(BIN)/python -m ruff check .

bench: setup
	$(BIN)/derain bench --json out/bench.json

soak: setup
	$(BIN)/derain soak --minutes $(MINUTES) --output out/soak

clean:
	rm -rf $(VENV) build install log out *.egg-info
