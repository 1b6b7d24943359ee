# `make demo` and `make test` on a fresh machine do all the set-up first.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-services check bench soak cluster-folder constraints clean

help:
	@echo "make demo           train on the shipped corpus with a simulated judge (half a minute)"
	@echo "make test           unit tests and one small Ray session"
	@echo "make test-services  tests that need a browser, PostgreSQL, S3, promtool or a Ray head; installs them"
	@echo "make check          lint, types, import contract"
	@echo "make bench          the benchmarks of docs/measured.md; resumable, hours on two cores"
	@echo "make soak           long fuzz and load runs, by hand"
	@echo "make cluster-folder what a cluster's machines get: wheel, pins, token, secrets (cluster.yaml)"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing red_ray and its dependencies into $(VENV) (about two minutes) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]' 2>$(VENV)/pip.log \
		|| { cat $(VENV)/pip.log; exit 1; }
	@touch $@

demo: setup
	@$(BIN)/red-ray demo

test: setup
	$(BIN)/python -m pytest -n auto --dist loadfile tests/unit
	$(BIN)/python -m pytest tests/ray

test-services: setup
	@bash scripts/install_services.sh || true
	@# By names, not by the count of tests: the longest files have few, and would begin last.
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder tests/services

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	$(BIN)/python -m benchmarks.no_judge
	$(BIN)/python -m benchmarks.accuracy
	$(BIN)/python -m benchmarks.early_stop
	$(BIN)/python -m benchmarks.labels
	$(BIN)/python -m benchmarks.drift
	$(BIN)/python -m benchmarks.cold_start
	$(BIN)/python -m benchmarks.judge_loop
	$(BIN)/python -m benchmarks.escalation
	$(BIN)/python -m benchmarks.promise
	$(BIN)/python -m benchmarks.none
	$(BIN)/python -m benchmarks.router_usage
	$(BIN)/python -m benchmarks.red_table
	$(BIN)/python -m benchmarks.throughput
	$(BIN)/python -m benchmarks.judge_pool
	$(BIN)/python -m benchmarks.ledger
	$(BIN)/python -m benchmarks.serving
	$(BIN)/python -m benchmarks.batch
	$(BIN)/python -m benchmarks.scale
	$(BIN)/python -m benchmarks.sizing
	$(BIN)/python -m benchmarks.matrix models
	for name in here many_labels; do \
	  $(BIN)/python -m benchmarks.matrix run --config $$name && \
	  $(BIN)/python -m benchmarks.matrix report matrix/$$name || exit 1; \
	  for table in matrix/$$name/report/*.md; do \
	    cp $$table benchmarks/results/matrix_$${name}_$${table##*/}; done; done
	$(BIN)/python -m benchmarks.readme

soak: setup
	$(BIN)/python -m pytest tests/soak

cluster-folder: setup
	@bash scripts/cluster_folder.sh $(BIN)/python build/cluster

constraints:
	rm -rf build/constraints && $(PYTHON) -m venv build/constraints
	build/constraints/bin/python -m pip install --quiet torch==2.13.0 -e '.[dev]'
	{ echo "# The tested set: every dependency, pinned. Made by \`make constraints\`."; \
	  build/constraints/bin/python -m pip freeze --exclude-editable | sed 's/+cpu//'; } > constraints.txt

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
