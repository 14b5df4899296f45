# make demo: install and run the demo study. make test: install, lint, types, tests. Either may come first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help install demo test lint site bench gpu-check lock clean

help:
	@echo "make demo    install into $(VENV), run the demo study, write its report"
	@echo "make test    install into $(VENV), check style and types, run the tests"
	@echo "make site    install into $(VENV), build the documentation into site/, and fail on any warning"
	@echo "make bench   time metrics, epochs, data, solvers and training steps, beside others' where there are"
	@echo "make gpu-check   check everything that needs CUDA, in under 5 minutes on one GPU, and print a table"
	@echo "make lock    resolve requirements.lock anew (needs uv)"

install: $(INSTALLED)

# A second call finds the stamp newer than the lock file and installs nothing.
$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else "deq-collapse needs Python 3.11 to 3.13, and $(PYTHON) is %d.%d: choose another one with make PYTHON=python3.12" % v)'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# One thread: its numbers do not depend on the number of cores; see docs/first_steps.md for what a processor changes.
demo: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/deq-collapse study run conf/study/demo.yaml

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# A file's tests stay in one process: they share what they trained. Files start in order: those of most tests first
# would leave the longest to the end, where one process waits for the other.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder

# Pages open from disk: site/index.html.
site: $(INSTALLED)
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet --doctree-dir build/doctrees docs site
	@echo "Site: site/index.html"

bench: $(INSTALLED)
	$(BIN)/python tests/benchmarks/bench_metrics.py
	OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/compare_tools.py
	$(BIN)/python tests/benchmarks/bench_epoch.py
	$(BIN)/python tests/benchmarks/bench_data.py
	$(BIN)/python tests/benchmarks/bench_solvers.py
	$(BIN)/python tests/benchmarks/bench_steps.py

gpu-check: $(INSTALLED)
	@$(BIN)/python tests/benchmarks/gpu_check.py

lock:
	uv pip compile --universal --generate-hashes --python-version 3.11 --extra dev pyproject.toml \
		--quiet --custom-compile-command "make lock" --output-file requirements.lock

clean:
	rm -rf $(VENV) build site jupyter_execute .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info
