# make demo   sets up and runs the main job
# make test   sets up, lints, checks types and runs the tests
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/ready

.PHONY: demo test lint benchmark validate diagnosis docs lessons clean

demo: $(READY)
	$(BIN)/python ann_gradient_visualization.py

test: lint
	$(BIN)/python -m pytest -n logical --dist worksteal

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
docs: $(READY)
	$(BIN)/python docs/reference.py
	$(BIN)/python docs/readme_figure.py
	$(BIN)/python docs/make_figures.py
	$(BIN)/python docs/remedies_figure.py
	$(BIN)/python docs/diagnosis_examples.py
	$(BIN)/python docs/flow_figure.py
	$(BIN)/python docs/app_figures.py
	cd docs/figures && for example in ../../examples/*.py; do ../../$(BIN)/python $$example; done

# Runs the lessons and writes docs/lessons and, for reading offline, build/lessons.
lessons: $(READY)
	$(BIN)/python lessons/render.py

$(READY): pyproject.toml requirements.txt constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf .venv gradient_output build *.egg-info
