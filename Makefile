# Every target installs what it needs into .venv. Needed beforehand: Python 3.11 or newer, git, make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST_ARGS ?=
UP_ARGS ?=
JOBS ?= 2
IMAGE_ARGS ?=
FUZZ_ARGS ?=
CHAOS_ARGS ?=
SEEDS ?= 1000
FIRST ?= 0
BASE_ARG = $(if $(BASE_IMAGE),--build-arg BASE_IMAGE=$(BASE_IMAGE))
CACHE_POLICIES := lru,lru-paged,walru,ttl,agent-walru,agent-ttl,agent-tags,saga,agent-values,causal,belady
CODE := shared services loadgen tests bench plugins

.PHONY: help demo test check chromium fuzz fuzz-parsers chaos chaos-seeds soak soak-live up sglang-cpu test-sglang image test-compose bench bench-quick bench-paper bench-headline bench-ablation bench-keeping bench-retention bench-fairness bench-flood bench-order bench-placement bench-slo bench-sweep bench-caps bench-throughput bench-shared-tier bench-rivals bench-cache bench-report format clean
.DEFAULT_GOAL := help

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z.-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.venv: $(STAMP) ## Install the `saga` command and all that the tests need

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $(STAMP)

demo: $(STAMP) ## Replay 60 recorded agent sessions (drawn ones where there are none) on 4 simulated engines, baseline and saga side by side
	$(BIN)/saga bench live --demo

test: $(STAMP) ## Run all tests (unit and integration)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(STAMP) ## Lint, formatting, types and the rules on who imports whom
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports

chromium: ## Debian's Chromium, for the tests of the console's page (as root; without it they are skipped)
	@command -v chromium >/dev/null \
	  || (test "$$(id -u)" = 0 && command -v apt-get >/dev/null \
	      && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends chromium) \
	  || echo "no Chromium could be installed: the tests of the console's page will be skipped"

fuzz: $(STAMP) ## Odd and broken requests to a gateway in memory (FUZZ_ARGS="--seed 1 --requests 200000")
	$(BIN)/python tests/fuzz/fuzz_run.py $(FUZZ_ARGS)

fuzz-parsers: $(STAMP) ## Broken messages, KV events, rows, traces, recordings (FUZZ_ARGS="--seed 1 --inputs 1000000")
	$(BIN)/python tests/fuzz/fuzz_parsers_run.py $(FUZZ_ARGS)

chaos: $(STAMP) ## Kill, stop, cut off and starve each process of a mesh under load (CHAOS_ARGS="--fault kill-nats --seed 1")
	$(BIN)/python -m saga.chaos $(CHAOS_ARGS)

chaos-seeds: $(STAMP) ## All cores under faults drawn from seeds, in virtual time (SEEDS=1000 FIRST=0)
	$(BIN)/python tests/faults/seeds_run.py --seeds $(SEEDS) --first $(FIRST) --jobs $(JOBS)

soak: $(STAMP) ## Three hours of virtual time at 80 % load: no book of any core grows without end (minutes)
	$(BIN)/python bench/soak.py

soak-live: $(STAMP) ## Ten minutes of a live mesh at 80 % load: memory of each process, leases, failed steps
	$(BIN)/python bench/soak_live.py

up: $(STAMP) ## Start a whole mesh on this machine (UP_ARGS="--workers 4 --speed 10")
	$(BIN)/saga up $(UP_ARGS)

sglang-cpu: $(STAMP) ## Build SGLang with a tiny model, for machines without a GPU (3.5 GB)
	$(BIN)/python tests/real_sglang/environment/build.py .venv-sglang

test-sglang: sglang-cpu ## The same mesh over real SGLang servers (about 10 minutes)
	$(BIN)/python -m pytest tests/real_sglang $(PYTEST_ARGS)

image: ## Build the images of a composed cluster (BASE_IMAGE=..., IMAGE_ARGS="--secret id=pip,src=...")
	DOCKER_BUILDKIT=1 docker build --file compose/Dockerfile --target saga --tag saga-mesh $(BASE_ARG) $(IMAGE_ARGS) .
	DOCKER_BUILDKIT=1 docker build --file compose/Dockerfile --target prometheus --tag saga-prometheus $(BASE_ARG) $(IMAGE_ARGS) .

test-compose: $(STAMP) ## Compose clusters on a Docker engine of their own, break them, watch them heal (root, Debian; minutes)
	$(BIN)/python -m pytest tests/compose -rs $(PYTEST_ARGS)

bench-quick: $(STAMP) ## Compare three systems in virtual time, within two minutes
	$(BIN)/saga bench suite quick --jobs $(JOBS) --json bench-quick.json --html bench-quick.html

bench-paper: $(STAMP) ## The published workloads, all systems, three seeds (within 40 minutes; goes on when interrupted)
	$(BIN)/saga bench suite paper --jobs $(JOBS) --keep .saga/runs --json bench-paper.json --html bench-paper.html

bench-headline: $(STAMP) ## saga and session affinity where KV is short, three seeds (half an hour of one core)
	$(BIN)/saga bench suite headline --jobs $(JOBS) --keep .saga/runs --json bench-headline.json

bench-ablation: $(STAMP) ## saga with each part taken out, and the baseline with each part alone (hours; goes on when interrupted)
	$(BIN)/saga bench suite ablation --jobs $(JOBS) --keep .saga/runs --json bench-ablation.json --html bench-ablation.html

bench-keeping: $(STAMP) ## Policies of retention under saga's active set, and supersession
	$(BIN)/saga bench suite keeping --jobs $(JOBS) --keep .saga/runs --json bench-keeping.json

bench-retention: $(STAMP) ## saga with session tags against plain LRU, ten seeds
	$(BIN)/saga bench suite retention --jobs $(JOBS) --keep .saga/runs --json bench-retention.json

bench-fairness: $(STAMP) ## A flood by one tenant: published fair share, by age, and saga (minutes)
	$(BIN)/saga bench suite fairness --jobs $(JOBS) --keep .saga/runs --json bench-fairness.json --details bench-fairness-details.json
	$(BIN)/saga bench report --json bench-fairness.json --markdown bench-fairness.md

bench-flood: $(STAMP) ## What a flood by one tenant costs the others, against a backlog at its share
	$(BIN)/saga bench suite flood --jobs $(JOBS) --keep .saga/runs --json bench-flood.json --details bench-flood-details.json
	$(BIN)/saga bench report --json bench-flood.json --markdown bench-flood.md --details bench-flood-details.json --figures docs/figures

bench-placement: $(STAMP) ## Homes by price and moves: skewed tasks, a worker that joins, workers that die (hours)
	$(BIN)/saga bench suite placement --jobs $(JOBS) --keep .saga/runs --json bench-placement.json --details bench-placement-details.json
	$(BIN)/saga bench report --json bench-placement.json --details bench-placement-details.json --markdown bench-placement.md --figures bench-placement-figures
	cp bench-placement-figures/moves-*.svg docs/figures/

bench-order: $(STAMP) ## The order of workflows inside a tenant: age, least attained service, slack, work left
	$(BIN)/saga bench suite order --jobs $(JOBS) --keep .saga/runs --json bench-order.json
	$(BIN)/saga bench report --json bench-order.json --markdown bench-order.md

bench-slo: $(STAMP) ## Objectives of tenants of three sizes at 80 % of the measured peak, ten seeds
	$(BIN)/saga bench suite slo --jobs $(JOBS) --keep .saga/runs --json bench-slo.json
	$(BIN)/saga bench report --json bench-slo.json --markdown bench-slo.md

bench-rivals: $(STAMP) ## Saga against the baselines that come near it, without and with a host KV tier (an hour)
	$(BIN)/saga bench suite rivals --jobs $(JOBS) --keep .saga/runs --json bench-rivals.json
	$(BIN)/saga bench report --json bench-rivals.json --markdown bench-rivals.md

bench-shared-tier: $(STAMP) ## A KV store that all engines share, behind their host tiers: with and without, two seeds
	$(BIN)/saga bench suite shared-tier --jobs $(JOBS) --keep .saga/runs --json bench-shared-tier.json
	$(BIN)/saga bench report --json bench-shared-tier.json --markdown bench-shared-tier.md

bench-sweep: $(STAMP) ## With and without the active set, pressures 0.25 to 8, one to ten seeds (hours)
	$(BIN)/saga bench suite sweep --jobs $(JOBS) --keep .saga/runs --json bench-sweep.json
	$(BIN)/saga bench report --json bench-sweep.json --markdown bench-sweep.md

bench-caps: $(STAMP) ## saga against swept static caps, and its first tokens against fcfs engines
	$(BIN)/saga bench suite caps --jobs $(JOBS) --keep .saga/runs --json bench-caps.json
	$(BIN)/saga bench report --json bench-caps.json --markdown bench-caps.md

bench-throughput: $(STAMP) ## Tasks a minute against completion time, by the share of KV that is filled
	$(BIN)/saga bench suite throughput --jobs $(JOBS) --keep .saga/runs --json bench-throughput.json
	$(BIN)/saga bench report --json bench-throughput.json --markdown bench-throughput.md --figures docs/figures

bench-cache: $(STAMP) ## Eviction alone, against Belady and the best causal policy (minutes)
	@set -e; for workload in coding-sessions swe-bench webarena; do \
	  $(BIN)/saga bench cache --workload $$workload --policy $(CACHE_POLICIES) --json bench-cache-$$workload.json; done

bench-report: $(STAMP) bench-cache ## The full report, all systems: docs/evaluation-results.md and charts (hours; goes on when interrupted)
	$(BIN)/saga bench suite report --jobs $(JOBS) --keep .saga/runs --json bench-report.json --details bench-details.json
	$(BIN)/saga bench suite ablation --jobs $(JOBS) --keep .saga/runs --json bench-ablation.json
	$(BIN)/saga bench report --json bench-report.json --details bench-details.json --ablation bench-ablation.json \
	  --cache bench-cache-coding-sessions.json --html bench-report.html --markdown docs/evaluation-results.md --figures docs/figures

bench: $(STAMP) ## Measure what the README states (bench/*.py; those over real SGLang need `make sglang-cpu`)
	@set -e; for script in $(filter-out bench/soak%.py,$(wildcard bench/*.py)); do echo "== $$script"; $(BIN)/python "$$script"; done

format: $(STAMP) ## Rewrite the code as `make check` wants it
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

clean: ## Remove what was built, and the state of `saga up`
	rm -rf $(VENV) .saga .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
