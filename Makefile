# Two commands matter to a new user: `make demo` and `make test`. Each creates .venv by itself.
# `make help` lists the rest.

# TORCH=auto|cpu|cuda: which build of torch (scripts/install-requirements says what they mean).
TORCH ?= auto
# IMAGE: the image's tag. BASE_IMAGE and RUNTIME_IMAGE: other bases than the public one (scripts/build-image).
IMAGE ?= metseg:local
# THREADS: how many tests run at once.
THREADS ?= 2

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEMO := demo
TOOLS := .cache/tools

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

# ---- for users

.PHONY: demo
demo: $(INSTALLED) ## make two sample cases, segment them, score them
	@scripts/run-demo $(BIN)/python $(DEMO)

.PHONY: test
test: $(INSTALLED) ## run the tests (no Docker needed)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not image and not callers" --numprocesses $(THREADS)

# ---- the image

.PHONY: image
image: ## build the image
	scripts/build-image $(IMAGE)

.PHONY: image-test
image-test: image $(INSTALLED) ## build the image and run it under hostile conditions
	METSEG_IMAGE=$(IMAGE) $(BIN)/python -m pytest -m image tests/image

.PHONY: callers-test
callers-test: image $(INSTALLED) ## run the image as MLCube, MedPerf, Synapse, the BraTS orchestrator and Apptainer do
	scripts/make-tool-environment tests/image/requirements-mlcube.txt $(TOOLS)/mlcube
	scripts/make-tool-environment tests/image/requirements-brats.txt $(TOOLS)/brats
	METSEG_IMAGE=$(IMAGE) $(BIN)/python -m pytest -m callers tests/image

.PHONY: pin
pin: ## write a published image into the callers' files: make pin IMAGE=NAME@sha256:DIGEST (docs/publish.md)
	scripts/pin-image $(IMAGE)

.PHONY: apptainer
apptainer: ## get Apptainer on Debian (root, 0.4 GB), for callers-test
	scripts/make-apptainer .cache/apptainer

# ---- for developers

.PHONY: venv
venv: $(INSTALLED) ## create .venv with everything a checkout needs

$(INSTALLED): requirements-dev.txt requirements-torch-cpu.txt requirements-torch-cuda.txt pyproject.toml
	@python=$$(scripts/find-python) && { [ -x $(BIN)/python ] || "$$python" -m venv $(VENV); }
	@echo "installing into $(VENV): two minutes or so, and a download of 0.6 GB (torch with CUDA: 3 GB)"
	scripts/install-requirements $(BIN)/python $(TORCH) requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index --editable .
	@touch $@

.PHONY: lint
lint: $(INSTALLED) ## ruff, mypy, and which room may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/python scripts/count-structure --check
	$(BIN)/mypy

.PHONY: format
format: $(INSTALLED) ## let ruff format the code
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

.PHONY: requirements
requirements: $(INSTALLED) ## pin again what pyproject.toml asks for (UPGRADE=--upgrade takes newer releases)
	scripts/compile-requirements $(UPGRADE)

.PHONY: sbom
sbom: image ## list what the image contains: build/metseg.cdx.json (CycloneDX)
	scripts/make-tool-environment scripts/requirements-supply-chain.txt $(TOOLS)/supply-chain
	scripts/make-sbom $(IMAGE) build/metseg.cdx.json $(TOOLS)/supply-chain

.PHONY: audit
audit: ## look the pinned packages up in PyPI's database of vulnerabilities
	scripts/make-tool-environment scripts/requirements-supply-chain.txt $(TOOLS)/supply-chain
	$(TOOLS)/supply-chain/bin/python scripts/audit-requirements $(TOOLS)/supply-chain/bin/pip-audit \
	  requirements.txt requirements-torch-cpu.txt requirements-torch-cuda.txt

.PHONY: clean
clean: ## remove what was built (.venv stays; `rm -rf .venv` for that too)
	rm -rf build dist $(DEMO) .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -not -path './.cache/*' -prune -exec rm -rf {} +
