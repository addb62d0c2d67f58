# The commands of this repository. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CLUSTER ?= auto
export CLUSTER

.PHONY: help demo demo-down test check unit story integration e2e cluster-up cluster-down benchmarks lock generated clean

help:  ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 16

demo: $(VENV)/.installed  ## a cluster, both images, the chart, traffic, a good revision, one with wrong prices, one that turns bad
	$(BIN)/python -m demo up

demo-down: $(VENV)/.installed  ## remove what the demo made, and say what stays
	$(BIN)/python -m demo down

test: check unit story integration e2e  ## every layer that this machine can run

check: $(VENV)/.installed  ## style, types, import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check operator inference cluster lab tests benchmarks demo charts docs/generate_reference.py
	$(BIN)/mypy
	PYTHONPATH=operator:inference $(BIN)/lint-imports --no-cache

unit: $(VENV)/.installed  ## the pure core, the model, the server, the chart
	$(BIN)/python -m pytest tests/unit -n 2

story: $(VENV)/.installed  ## whole rollouts in fake time
	$(BIN)/python -m pytest tests/story -n 2

integration: $(VENV)/.installed  ## a real API server, a real Prometheus, the operator as a process
	$(BIN)/python -m pytest tests/integration -n 2 --dist loadfile --no-loadscope-reorder

e2e: $(VENV)/.installed  ## a whole cluster with both images, real traffic and bad revisions
	$(BIN)/python -m pytest tests/e2e -n 3 --dist loadscope --no-loadscope-reorder

cluster-up:  ## a one-node Kubernetes with a Gateway and Prometheus (CLUSTER=auto|kind|local|current)
	$(PYTHON) -m cluster up

cluster-down:  ## take it down and leave nothing behind
	$(PYTHON) -m cluster down

benchmarks: $(VENV)/.installed  ## what benchmarks/README.md describes, JSON into benchmarks/results
	$(BIN)/python -m benchmarks.rivals --output benchmarks/results/rivals.json --table benchmarks/results/rivals.md \
		--plot docs/images/rivals.png
	$(BIN)/python -m benchmarks.single_quotes --output benchmarks/results/single_quotes.json
	$(BIN)/python -m benchmarks.server --output benchmarks/results/server.json
	$(BIN)/python -m benchmarks.cache_hit --output benchmarks/results/cache_hit.json
	$(BIN)/python -m benchmarks.hit_rate --output benchmarks/results/hit_rate.json
	$(BIN)/python -m benchmarks.workers --output benchmarks/results/workers.json
	$(BIN)/python -m benchmarks.memory --requests 100000 --output benchmarks/results/memory.json
	$(BIN)/python -m benchmarks.load --users 10 --minutes 5 --output benchmarks/results/load-10.json
	$(BIN)/python benchmarks/operator_footprint.py
	$(BIN)/python -m benchmarks.detection --output benchmarks/results/detection.json

generated: $(VENV)/.installed  ## the chart's CRD and the reference, from crds/pinnservices.yaml
	$(BIN)/python charts/sync_crd.py
	$(BIN)/python docs/generate_reference.py

lock: $(VENV)/.installed  ## write requirements/*.lock anew from pyproject.toml
	UV=$(BIN)/uv requirements/compile.sh

$(VENV)/.installed: pyproject.toml requirements/dev.lock requirements/build.lock
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version) if sys.version_info < (3, 11) else None'
	@$(PYTHON) -m requirements.install $(VENV)
	@touch $@

clean:  ## remove the virtual environment and every cache of the tools
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
