# One door to the project: `make help` names what is behind it.
# Everything is installed into .venv, from locks with hashes; nothing else is touched.

VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
UV := $(BIN)/uv --quiet
INSTALL := $(UV) pip install --python $(BIN)/python
# A lock is whole, but for what OpenVINO would send its makers telemetry with.
INSTALL_LOCK := $(INSTALL) --no-deps --require-hashes -r
FAULTS := $(BIN)/python -m pytest -q -o addopts= --durations=0 --durations-min=10 tests/faults
COMPILE := $(BIN)/uv --quiet pip compile setup.cfg --universal \
	--python-version 3.11 --generate-hashes --custom-compile-command "make lock" \
	--no-emit-package openvino-telemetry

# Options passed on: make run ARGS=--no-demo, make test ARGS='-k storage'.
ARGS ?=
# The Python that .venv is made with: the first of these that is 3.11 to 3.13.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	2>/dev/null && echo $$python && break; done)

.DEFAULT_GOAL := help
.PHONY: help run test test-without-programs test-faults test-disasters test-hostile check audit-packages bench bench-full bench-compare bench-retrieval bench-sync compare-openapi check-weights docs readme screenshots lock relock

help: ## Show this list.
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | while IFS='	' read -r name text; \
	do printf '  make %-22s %s\n' "$$name" "$$text"; done

# `exec` and the option: when make is killed, even by SIGKILL, the system goes with it.
run: $(VENV)/.run ## Install what is needed and run the whole system; ARGS='--no-demo --port 8081'.
	@exec $(BIN)/deeplens up --with-parent $(ARGS)

# What Python compiles is kept, also where it is told not to: tests start a few hundred processes.
test test-without-programs test-faults test-disasters test-hostile: export PYTHONDONTWRITEBYTECODE =

# In the order of tests/conftest.py, not by how many tests a file has. Much of it waits: four at
# once also where there are fewer cores.
test: $(VENV)/.dev ## Run the tests; ARGS='-k storage' chooses.
	@exec $(BIN)/python -m pytest -q -n 4 --dist loadfile --no-loadscope-reorder $(ARGS)

test-without-programs: $(VENV)/.dev ## Run the tests that need other programs where there are none: all are skipped.
	@exec $(BIN)/python -m tests.support.without_programs

# Most of them wait, each on a Kafka of its own: five at once. Then those that need both cores. With
# ARGS one of the two may find nothing to run, which pytest says with 5.
test-faults: $(VENV)/.dev ## Kill, starve and cut off parts of a running system; takes minutes.
	@$(FAULTS) -n 5 --dist worksteal -m "not alone" $(ARGS) || test $$? -eq 5
	@$(FAULTS) -s -m alone $(ARGS) || test $$? -eq 5

test-disasters: $(VENV)/.dev ## Damage each part of a system in each way and bring it back; ARGS='-m sample'.
	@exec $(BIN)/python -m pytest -q -o addopts= -n 2 --dist worksteal tests/disasters $(ARGS)

test-hostile: $(VENV)/.dev ## Send thousands of damaged pictures and odd requests; takes minutes.
	@exec $(BIN)/python -m pytest -q -s -o addopts= tests/hostile $(ARGS)

check: $(VENV)/.dev ## Lint, formatting, types, the direction of imports, and what bandit finds.
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/bandit --quiet --recursive --configfile pyproject.toml \
		deeplens_streams agents models tables benchmarks docker docs

# Not part of `check`: it asks PyPI, and what is found there changes without a change here.
audit-packages: $(VENV)/.uv ## Look up known vulnerabilities of the locked packages; needs PyPI itself.
	@$(BIN)/uvx --quiet pip-audit@2.10.1 --strict --require-hashes --disable-pip \
		--requirement requirements.lock $(ARGS)

bench: $(VENV)/.dev ## Measure throughput and latency.
	@exec $(BIN)/python -m benchmarks $(ARGS)

bench-full: $(VENV)/.dev ## The same, then 20,000 pictures through the real model; ARGS='--pictures 300'.
	@$(BIN)/python -m benchmarks; bench=$$?; $(BIN)/python -m benchmarks.soak $(ARGS) && exit $$bench

bench-compare: $(VENV)/.dev ## Measure this commit against another, in turn; BASE=v1 ARGS='--quick --json figures.json'.
	@exec $(BIN)/python -m benchmarks.compare $(BASE) $(ARGS)

bench-retrieval: $(VENV)/.dev ## Measure how well changed pictures are found again; ARGS='--models resnet50'.
	@exec $(BIN)/python -m benchmarks.retrieval $(ARGS)

bench-sync: $(VENV)/.dev ## Measure what it costs to survive a power cut; ARGS='--folder /mnt/disk'.
	@exec $(BIN)/python -m benchmarks.synced $(ARGS)

compare-openapi: $(VENV)/.dev ## List what the OpenAPI document lost and gained since another commit; BASE=v1.
	@exec $(BIN)/python -m docs.compare_openapi $(BASE) $(ARGS)

check-weights: $(VENV)/.dev ## Test search with the pretrained weights, where they are.
	@exec $(BIN)/python -m pytest -q -rs tests/weights $(ARGS)

docs: $(VENV)/.dev ## Write the pages that are made from the code.
	@exec $(BIN)/python docs/generate_configuration.py

readme: $(VENV)/.dev ## Write the answers that README shows anew; beside make run ARGS=--no-demo on a new folder.
	@exec $(BIN)/python docs/run_readme.py

screenshots: $(VENV)/.dev ## Take the picture of the page that README shows, with Chromium.
	@exec $(BIN)/python -m docs.screenshots

lock: $(VENV)/.uv ## Bring requirements*.lock up to date with setup.cfg, changing as little as needed.
	@$(COMPILE) --extra model --extra embedded --output-file requirements.lock $(ARGS)
	@$(COMPILE) --extra dev --constraint requirements.lock --output-file requirements-dev.lock

relock: ## The same, with the newest versions of everything.
	@$(MAKE) --no-print-directory lock ARGS=--upgrade

$(VENV)/.uv:
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed; name one with make PYTHON=…" >&2; exit 1; }
	@echo "making $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

$(VENV)/.run: requirements.lock setup.cfg | $(VENV)/.uv
	@echo "installing what it runs on; the first time takes some minutes"
	@$(INSTALL_LOCK) requirements.lock
	@$(INSTALL) --no-deps --editable .
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.run
	@echo "installing the development tools"
	@$(INSTALL_LOCK) requirements-dev.lock
	@touch $@
