# make demo            sets up and runs the main job
# make test            sets up, lints, checks types and runs the tests, on TensorFlow
# make test-backends   tests JAX and PyTorch, in an environment without TensorFlow
# make test-oldest     tests the tracker with the oldest versions supported
PYTHON ?= $(shell command -v python3.11 || command -v python3)
# Python 3.10 if it runs: pyenv has a program of this name for every version that it knows.
OLDEST_PYTHON ?= $(shell PYENV_VERSION=3.10 python3.10 -c 'import sys; print(sys.executable)' 2>/dev/null || echo $(PYTHON))
BIN := .venv/bin
READY := .venv/ready
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check
PYTEST := -m pytest -n logical --dist worksteal

.PHONY: demo test test-backends test-jax test-torch test-oldest lint benchmark validate diagnosis docs lessons clean

demo: $(READY)
	$(BIN)/python ann_gradient_visualization.py

test: lint
	$(BIN)/python $(PYTEST)

test-backends: test-jax test-torch

# The tests of a backend, a lesson, and the program with small settings.
test-jax test-torch: export KERAS_BACKEND = $*
test-jax test-torch: test-%: .venv-jax-torch/ready
	.venv-jax-torch/bin/python $(PYTEST) tests/backends
	KGRAD_FAST=1 MPLBACKEND=Agg .venv-jax-torch/bin/python lessons/03_vanishing.py
	.venv-jax-torch/bin/python ann_gradient_visualization.py --epochs 2 --seeds 1 --layers 4 \
		--distributions --probe --output build/$*

test-oldest: .venv-oldest/ready
	.venv-oldest/bin/python $(PYTEST) tests/measure/test_tracker*.py tests/measure/test_event_files.py

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

benchmark: $(READY)
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/callback.py
	$(BIN)/python benchmarks/app.py

# Compares the theory's predictions with networks and writes docs/validation.md (minutes).
validate: $(READY)
	$(BIN)/python benchmarks/validation.py

# Trains the gallery of runs and scores the diagnosis (a quarter of an hour).
diagnosis: $(READY)
	$(BIN)/python -m benchmarks.diagnosis --output docs/diagnosis_score.md

# Redraws the figures of docs/ and prints the numbers in its pages.
docs: $(READY) .venv-jax-torch/ready
	$(BIN)/python docs/reference.py
	$(BIN)/python docs/readme_figure.py
	$(BIN)/python docs/make_figures.py
	$(BIN)/python docs/remedies_figure.py
	$(BIN)/python docs/diagnosis_examples.py
	$(BIN)/python docs/flow_figure.py
	$(BIN)/python docs/app_figures.py
	cd docs/figures && for example in ../../examples/*.py; do ../../$(BIN)/python $$example; done
	cd docs/figures && ../../.venv-jax-torch/bin/python ../../examples/any_backend.py

# Runs the lessons and writes docs/lessons and, for reading offline, build/lessons.
lessons: $(READY)
	$(BIN)/python lessons/render.py

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python $(PIP_INSTALL) --constraint constraints.txt --editable ".[dev,tensorflow]"
	touch $@

# torch's wheel for the CPU is small, but the default one on Linux brings 5 GB of GPU libraries:
# docs/install.md says how to choose.
.venv-jax-torch/ready: pyproject.toml constraints.txt constraints-jax-torch.txt
	$(PYTHON) -m venv .venv-jax-torch
	.venv-jax-torch/bin/python $(PIP_INSTALL) --constraint constraints-jax-torch.txt \
		--editable ".[jax,torch,tensorboard]" pytest pytest-xdist
	touch $@

.venv-oldest/ready: pyproject.toml constraints-oldest.txt
	$(OLDEST_PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python $(PIP_INSTALL) --constraint constraints-oldest.txt \
		--editable ".[tensorflow,tensorboard]" pytest pytest-xdist
	touch $@

clean:
	rm -rf .venv .venv-jax-torch .venv-oldest gradient_output build *.egg-info
