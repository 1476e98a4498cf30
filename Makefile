# `make study` and `make test` need nothing but Python 3.11 or newer; everything is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Processes that the tests are shared out to, a file at a time; some start Ray and take two cores then. In the order of
# their names: by default files of a single test, which are those with Ray, would all be left for the end.
WORKERS ?= 2
# A worker that dies is a failure, and no other one begins its file anew.
PARALLEL := -n $(WORKERS) --dist loadfile --no-loadscope-reorder --max-worker-restart 0

.PHONY: study test tests-alone test-slow test-notebooks lint style types docs figures notebooks soak bench gpu release clean

study: $(VENV)/.installed
	$(BIN)/d2l run --space first_study
	$(BIN)/d2l tables first_study --metric bag_auc
	@echo; echo "For the commands above, d2l …, first type: . $(BIN)/activate"

# mypy takes a core for a minute in a new clone, so it runs beside the tests. Tests start some hundred processes, each of
# which would compile the code anew where this is set (as in containers).
test: export PYTHONDONTWRITEBYTECODE =
test: $(VENV)/.installed-dev style
	$(MAKE) --no-print-directory --jobs=2 types tests-alone

tests-alone:
	$(BIN)/python -m pytest -m "not soak and not slow" $(PARALLEL)

# The tests that take three seconds or more each: servers, other runtimes, whole figures and pages, much tissue. Before
# a landing; `.ci/run` always.
test-slow: export PYTHONDONTWRITEBYTECODE =
test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m "slow and not soak" $(PARALLEL)

# The notebooks of docs/notebooks as tests, on smaller spaces: two minutes, most of them Ray's and MLflow's starts. After
# a change of the commands, the Python interface or the notebooks; `.ci/run` always. A cell may take ten minutes on a busy
# machine.
test-notebooks: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --nbmake --nbmake-timeout 600 -n $(WORKERS) docs/notebooks

lint: style types

style: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.installed-dev
	$(BIN)/mypy

# The documentation site, in build/site: open build/site/index.html. A link without a target fails.
docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "wrote build/site/index.html"

# The figures of the documentation, in docs/figures, from the records in benchmarks/records. Nothing is trained.
figures: $(VENV)/.installed
	$(BIN)/python benchmarks/figures

# Runs the notebooks of docs/notebooks and keeps their outputs: minutes.
notebooks: $(VENV)/.installed-dev
	$(BIN)/python docs/notebooks/execute.py

# Long tests: kills, clusters, fuzzing. By hand.
soak: $(VENV)/.installed-soak
	$(BIN)/python -m pytest -m soak

# The claims of speed, in a short version (minutes); each script's --help says how to run it in full.
bench: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/first_layer.py
	$(BIN)/python benchmarks/regularizer_cost.py --rounds 10
	$(BIN)/python benchmarks/step_bound.py --bags 1
	$(BIN)/python benchmarks/plain_loop.py --seeds 2
	$(BIN)/python benchmarks/packed.py --device cpu --seconds 0.3
	$(BIN)/python benchmarks/packed_host.py
	$(BIN)/python benchmarks/loader.py
	$(BIN)/python benchmarks/feature_store.py --slides 4
	$(BIN)/python benchmarks/orchestration.py --trials 100

# A page about this machine's GPU, in build/gpu: equality, steps, a study. Needs PyTorch alone; nothing is installed.
gpu:
	$(or $(wildcard $(BIN)/python),$(PYTHON)) benchmarks/gpu_check.py

# Wheel and archive, in dist; the wheel is tried in a clean environment. Nothing is uploaded.
release: $(VENV)/.installed-dev
	$(BIN)/python .ci/release.py --out dist

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: Python 3.11 or newer is needed; found $$($(PYTHON) --version 2>&1). Name one: make PYTHON=python3.12 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing PyTorch, Ray, MLflow and others into $(VENV): minutes, without a line until it is done"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.installed $(VENV)/.installed-docs

$(VENV)/.installed-docs: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-soak: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,cluster]'
	@touch $@ $(VENV)/.installed-dev $(VENV)/.installed-docs $(VENV)/.installed

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache
