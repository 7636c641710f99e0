# make demo   installs what is pinned into .venv and runs a complete study on synthetic data, on the CPU
# make truth  the truth test: two larger synthetic studies, then pass or fail for each claim; an hour on 2 cores
# make test   installs and runs the tests
# make test-cluster   the tests on a real SLURM, brought up on this Debian machine and taken down again; needs root
# make bench  installs what the benchmarks need and runs them all, quickly: one table
# make docs   writes config.yaml and the pages that are generated from the code
# make lint   formatting, types and workflow checks
PYTHON ?= python3
# Relative, since make splits a path at its blanks.
BIN := .venv/bin
INSTALLED := .venv/.installed
export PYTHONNOUSERSITE := 1

.PHONY: install demo truth test test-cluster bench docs lint format clean

install: $(INSTALLED)

# The packages of envs/constraints.txt, all in .venv: the machine's own Python stays as it is.
$(INSTALLED): pyproject.toml envs/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "cxrscale needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c envs/constraints.txt -e '.[dev,slurm]'
	touch $@

demo: $(INSTALLED)
	$(BIN)/snakemake --cores all --configfile config/demo.yaml
	@cat results/demo/report/summary.txt

truth: $(INSTALLED)
	$(BIN)/snakemake --cores all --configfile config/truth.yaml
	$(BIN)/snakemake --cores all --configfile config/truth.yaml config/truth-lossless.yaml
	$(BIN)/python -m cxrscale.truth results/truth --data results/data/synthetic-truth --lossless results/truth-lossless

test: $(INSTALLED)
	$(BIN)/python -m pytest -n auto --dist worksteal --durations 25

test-cluster: $(INSTALLED)
	tests/cluster/slurm.sh run $(BIN)/python -m pytest -p no:cacheprovider tests/cluster

bench: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c envs/constraints.txt -e '.[bench]'
	$(BIN)/python benchmarks/all.py --quick

# Pages that are written from the code.
docs: $(INSTALLED)
	$(BIN)/python -m cxrscale.workflow.config_page
	$(BIN)/python -m cxrscale.workflow.contracts_page > docs/contracts.md

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/python tests/lint_workflow.py

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
