# Two commands do all the set-up on a fresh machine: `make demo` and `make test`.
# With a sourced ROS 2 they use that ROS, otherwise ROS 2 Jazzy wheels from PyPI.

PYTHON ?= python3
VENV := .venv
MINUTES ?= 30
BIN := $(VENV)/bin
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check
PIP := PIP_CONSTRAINT=$(VENV)/constraints.txt PYTHONWARNINGS=ignore::UserWarning \
	$(BIN)/python $(PIP_INSTALL)
# Sourcing a ROS 2 sets AMENT_PREFIX_PATH; activating .venv does not.
HAVE_ROS := $(if $(AMENT_PREFIX_PATH),$(shell $(PYTHON) -c 'import rclpy' 2>/dev/null && echo yes))

ifeq ($(HAVE_ROS),yes)
VENV_FLAGS := --system-site-packages
PACKAGE := .[tools]
# The installed cv_bridge was built against this NumPy.
CONSTRAINT := numpy==$(shell $(PYTHON) -c 'import numpy; print(numpy.__version__)')
else
VENV_FLAGS :=
PACKAGE := .[ros,tools]
CONSTRAINT :=
# Two more environments for `make test-all`: what Ubuntu 22.04 has, and ROS 2 Kilted.
OTHERS := test-jammy test-kilted
JAMMY_PYTHON ?= $(shell python3.10 -c '' 2>/dev/null && echo python3.10 || echo $(PYTHON))
endif

.PHONY: help setup setup-test demo test test-all test-jammy test-kilted lint bench soak clean

help:
	@echo 'make demo      set up, then derain a rainy driving clip through the node'
	@echo 'make test      set up with torch, then lint and tests (about ten minutes on two cores)'
	@echo 'make test-all  the same with the long tests, and with what Ubuntu 22.04 and Kilted have'
	@echo 'make bench     speed of engines and node, each figure beside its bar'
	@echo 'make soak      the node under full load for MINUTES=30; curves in out/soak/'
	@echo 'make setup     only leave .venv/bin/{python,derain,derain_node}'
	@echo 'make clean     remove what the others made'

setup: $(VENV)/.setup

setup-test: $(VENV)/.setup-test

$(VENV)/.setup: setup.py setup.cfg Makefile
	$(PYTHON) -m venv $(VENV_FLAGS) $(VENV)
	echo '$(CONSTRAINT)' > $(VENV)/constraints.txt
	$(PIP) --upgrade 'pip>=23.1' 'setuptools>=68,<80' wheel  # colcon takes none newer
	$(PIP) --no-build-isolation --use-pep517 -e '$(PACKAGE)'
	touch $@

# This torch release first: its build for the CPU satisfies the range of the extra.
$(VENV)/.setup-test: $(VENV)/.setup
	$(PIP) torch==2.13.0
	$(PIP) --no-build-isolation --use-pep517 -e '.[train,tensorrt,test]'
	touch $@

demo: setup
	$(BIN)/derain demo --output out/demo

# Files run side by side; those of nodes, which wait for most of their time, after those that compute.
WORKERS ?= $(shell nproc 2>/dev/null || echo 2)
NODE_TESTS := test/node test/live test/bench test/launch test/config
PYTEST := $(BIN)/python -m pytest -m 'not slow' -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test: lint
	$(PYTEST) $(addprefix --ignore=,$(NODE_TESTS))
	$(PYTEST) $(NODE_TESTS)

test-all: lint
	$(PIP) colcon-bash colcon-metadata colcon-ros
	$(BIN)/python -m pytest
	$(if $(OTHERS),$(MAKE) $(OTHERS))

test-jammy: $(VENV)-jammy/.setup
	$(VENV)-jammy/bin/python -m pytest -m 'not slow'

test-kilted: $(VENV)-kilted/.setup
	$(VENV)-kilted/bin/python -m pytest -m 'not slow' test/node test/live test/images test/bench

$(VENV)-jammy/.setup: .ci/jammy.txt setup.py Makefile
	$(JAMMY_PYTHON) -m venv $(VENV)-jammy
	$(VENV)-jammy/bin/python $(PIP_INSTALL) --upgrade 'pip>=23.1' 'setuptools>=68' wheel
	PIP_CONSTRAINT=.ci/jammy.txt $(VENV)-jammy/bin/python $(PIP_INSTALL) --use-pep517 -e '.[ros,tools,test]'
	touch $@

$(VENV)-kilted/.setup: setup.py Makefile
	$(PYTHON) -m venv $(VENV)-kilted
	$(VENV)-kilted/bin/python $(PIP_INSTALL) --upgrade 'pip>=23.1' 'setuptools>=68' wheel
	$(VENV)-kilted/bin/python $(PIP_INSTALL) --use-pep517 -e '.[kilted,tools,test]'
	touch $@

lint: setup-test
	$(BIN)/python -m ruff check .

bench: setup
	$(BIN)/derain bench --json out/bench.json

soak: setup
	$(BIN)/derain soak --minutes $(MINUTES) --output out/soak

clean:
	rm -rf $(VENV) $(VENV)-jammy $(VENV)-kilted build install log out *.egg-info
