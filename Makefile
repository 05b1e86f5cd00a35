# Flightpath. `make help` lists the targets; each installs what it needs on its first call.
SHELL := /bin/bash
.DEFAULT_GOAL := help
unexport PYTHONDONTWRITEBYTECODE

PY := .venv/bin/python
READY := .venv/.ready
ARGS ?=

$(READY): pyproject.toml constraints.txt .ci/setup .ci/overrides.txt
	@./.ci/setup

.PHONY: help setup demo down status test soak scan test-cluster test-e2e test-e2e-clouds check bench bench-gateway bench-llm bench-rollback bench-operator bench-terraform bench-gates bench-regions knobs constraints clean

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: $(READY) ## .venv with everything

demo: $(READY) ## release the next version of the model to three local regions (ARGS="--help")
	@$(PY) -m flightpath demo $(ARGS)

down: $(READY) ## end everything that the demo left running
	@$(PY) -m flightpath down

status: $(READY) ## what the regions run
	@$(PY) -m flightpath status

test: $(READY) ## unit and integration tests, real components; simulated regions
	@$(PY) -m pytest tests/unit tests/simulation tests/integration --numprocesses=2 --dist=loadfile --no-loadscope-reorder $(ARGS)

soak: $(READY) ## regions simulated on a virtual clock: kills, cuts, losses, outages, orders (SEEDS=200 FIRST=0)
	@$(PY) -m tests.simulation.soak --seeds $(or $(SEEDS),200) --first $(or $(FIRST),0)

test-e2e: $(READY) ## the long chains: training, release, regions, kills
	@.ci/e2e regions $(ARGS)

test-e2e-clouds: $(READY) ## the long chains of clusters and clouds: Terraform against moto, Prometheus, PostgreSQL
	@.ci/e2e clouds $(ARGS)

check: $(READY) ## format, lint, types, layers, tables of knobs, Terraform's format
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports
	@$(PY) .ci/knobs.py --check
	@if command -v terraform >/dev/null; then terraform fmt -check -recursive infra; \
	  else echo "terraform fmt: not checked, there is no terraform on this machine"; fi

scan: build/checkov/bin/checkov ## a security scanner over the Terraform modules
	@build/checkov/bin/checkov -d infra --framework terraform --compact --quiet --skip-download $(ARGS)

# An environment of its own: its pins clash with ours.
build/checkov/bin/checkov: | $(READY)
	@uv=$$(command -v uv || echo build/uv/bin/uv); $$uv venv --quiet --python $(PY) build/checkov \
	  && $$uv pip install --quiet --python build/checkov/bin/python 'checkov==3.3.30'

test-cluster: $(READY) ## the operator's suites on a real control plane (KUBECONFIG=…)
	@KUBECONFIG_REAL=$(KUBECONFIG) $(PY) -m pytest tests/integration tests/cluster -m cluster $(ARGS)

bench: bench-gateway bench-llm bench-rollback bench-operator bench-terraform bench-gates bench-regions ## every benchmark

bench-gateway: $(READY) ## what the gateway adds to a model server
	@$(PY) -m tests.bench.bench_gateway

bench-llm: $(READY) ## vLLM through the gateway against vLLM alone
	@$(PY) -m tests.bench.bench_llm

bench-rollback: $(READY) ## how long users meet the bad version after a rollback was ordered
	@$(PY) -m tests.bench.bench_rollback

bench-operator: $(READY) ## the operator against Kopf's standard handlers and bare API writes
	@$(PY) -m tests.bench.bench_operator

bench-terraform: $(READY) ## the Terraform driver against Terraform's own commands, and a region's plan
	@$(PY) -m tests.bench.bench_terraform

bench-gates: $(READY) ## false rollbacks and caught effects in simulated promotions, beside thresholds and Mann-Whitney (ARGS="--quick")
	@$(PY) -m tests.bench.bench_gates $(ARGS)

bench-regions: $(READY) ## a region's copies against cp and rclone, rollback without home, SIGSTOP (ARGS="lag rollback")
	@$(PY) -m tests.bench.bench_regions $(ARGS)

knobs: ## the tables of knobs in docs/api.md, from the code
	@python3 .ci/knobs.py

constraints: $(READY) ## resolve constraints.txt anew
	@.ci/constraints

clean: ## remove environment and caches (state in .flightpath stays)
	rm -rf .venv build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
