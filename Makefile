# make demo            sets up and runs the main job
# make test            sets up, lints, checks types and runs the tests, on TensorFlow
# make test-backends   tests JAX and PyTorch, in an environment without TensorFlow
# make test-oldest     tests the tracker with the oldest versions supported
# make site            builds the documentation into build/site, to read offline or put on a host
# make test-package    builds the wheel and uses it in clean environments, oldest and newest Python
PYTHON ?= $(shell command -v python3.11 || command -v python3)
# Python 3.10 if it runs: pyenv has a program of this name for every version that it knows.
OLDEST_PYTHON ?= $(shell PYENV_VERSION=3.10 python3.10 -c 'import sys; print(sys.executable)' 2>/dev/null || command -v python3)
NEWEST_PYTHON ?= $(shell PYENV_VERSION=3.13 python3.13 -c 'import sys; print(sys.executable)' 2>/dev/null || command -v python3)
BIN := .venv/bin
READY := .venv/ready
PYTEST := -m pytest -n logical --dist worksteal

.PHONY: demo test test-backends test-jax test-torch test-oldest test-package lint torture benchmark validate diagnosis docs site lessons clean

demo: $(READY)
	$(BIN)/python ann_gradient_visualization.py

test: lint
	$(BIN)/python $(PYTEST)

test-backends: test-jax test-torch

# The tests of a backend, a lesson, and the program with small settings.
test-jax test-torch: export KERAS_BACKEND = $*
# Many tests compile the same steps; JAX keeps compiled programs that took more than a second only.
test-jax: export JAX_COMPILATION_CACHE_DIR = $(CURDIR)/build/jax_cache
test-jax: export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS = 0
test-jax test-torch: test-%: .venv-jax-torch/ready
	.venv-jax-torch/bin/python $(PYTEST) tests/backends
	KGRAD_FAST=1 MPLBACKEND=Agg .venv-jax-torch/bin/python lessons/03_vanishing.py
	.venv-jax-torch/bin/python ann_gradient_visualization.py --epochs 2 --seeds 1 --layers 4 \
		--distributions --probe --output build/$*

test-oldest: .venv-oldest/ready
	.venv-oldest/bin/python $(PYTEST) tests/measure/test_tracker*.py tests/measure/test_event_files.py

test-package: $(READY)
	PYTHONS="$(sort $(OLDEST_PYTHON) $(NEWEST_PYTHON))" $(BIN)/python -m pytest tests/package.py

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

benchmark: $(READY)
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/callback.py
	$(BIN)/python benchmarks/live.py
	$(BIN)/python benchmarks/app.py
	$(BIN)/python benchmarks/sweeps.py

# Compares the theory's predictions with networks and writes docs/validation.md (minutes).
validate: $(READY)
	$(BIN)/python benchmarks/validation.py

# Trains the gallery of runs and scores the diagnosis and the remedies (an hour and a half).
diagnosis: $(READY)
	$(BIN)/python -m benchmarks.diagnosis --calibrate --output docs/diagnosis_score.md
	$(BIN)/python -m benchmarks.diagnosis.remedies --output docs/remedies_score.md

# Kills sweeps, their workers and a cluster's scheduler at random moments (an hour).
torture: $(READY)
	$(BIN)/python tests/robustness/kill_sweeps.py --moments 30

# Redraws the figures of docs/ and prints the numbers in its pages.
docs: $(READY) .venv-jax-torch/ready
	$(BIN)/python docs/reference.py
	$(BIN)/python docs/lesson_ideas.py
	$(BIN)/python docs/gallery.py
	$(BIN)/python docs/readme_figure.py
	$(BIN)/python docs/make_figures.py
	$(BIN)/python docs/remedies_figure.py
	$(BIN)/python docs/diagnosis_examples.py
	$(BIN)/python docs/flow_figure.py
	$(BIN)/python docs/app_figures.py
	cd docs/figures && for example in ../../examples/*.py; do ../../$(BIN)/python $$example; done
	cd docs/figures && ../../.venv-jax-torch/bin/python ../../examples/any_backend.py

# Not --quiet, which also makes --strict let warnings pass. The variable hides an advertisement.
site: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	$(BIN)/python -m pytest -n 0 tests/site.py

# Runs the lessons and writes docs/lessons and, for reading offline, build/lessons.
lessons: $(READY)
	$(BIN)/python lessons/render.py

# Creates the environment of a target; $(PYTHON) and $(PACKAGES) are the target's own. uv needs a
# sixth of pip's time, and looks for wheels where pip was told to.
define create_environment
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check "uv>=0.9,<1"
	UV_FIND_LINKS="$${UV_FIND_LINKS:-$$PIP_FIND_LINKS}" \
		$(@D)/bin/uv pip install --quiet --python $(@D) $(PACKAGES)
	touch $@
endef

$(READY): PACKAGES = --constraint constraints.txt --editable ".[dev,tensorflow]"
$(READY): pyproject.toml constraints.txt
	$(create_environment)

# torch's wheel for the CPU is small, but the default one on Linux brings 5 GB of GPU libraries:
# docs/install.md says how to choose.
.venv-jax-torch/ready: PACKAGES = --constraint constraints-jax-torch.txt \
	--editable ".[jax,torch,tensorboard]" pytest pytest-xdist
.venv-jax-torch/ready: pyproject.toml constraints.txt constraints-jax-torch.txt
	$(create_environment)

.venv-oldest/ready: PACKAGES = --constraint constraints-oldest.txt \
	--editable ".[tensorflow,tensorboard]" pytest pytest-xdist
.venv-oldest/ready: PYTHON = $(OLDEST_PYTHON)
.venv-oldest/ready: pyproject.toml constraints-oldest.txt
	$(create_environment)

clean:
	rm -rf .venv .venv-jax-torch .venv-oldest gradient_output* build *.egg-info
