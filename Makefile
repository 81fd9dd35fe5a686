# modhaven: `make up` brings the lab up and deploys onto it, `make test` proves it, `make down` removes it.
.DEFAULT_GOAL := help
SHELL := /bin/bash
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export MODHAVEN_INVENTORY ?= inventories/lab

SHELL_SCRIPTS = .ci/run $(shell git ls-files '*.sh')
PYTHON_SOURCES = app plugins tests

.PHONY: help
help: ## List what there is to do
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: prerequisites
prerequisites:
	@tests/lab/prerequisites.sh

.PHONY: python
python:
	@tests/lab/prerequisites.sh --python

.venv/installed: requirements/dev.txt | python
	@echo "==> Installing Ansible, the linters and the go command into .venv (pinned, hashed)"
	@/usr/bin/python3 -m venv --clear .venv
	@.venv/bin/python -m pip install --quiet --quiet --disable-pip-version-check --require-hashes --requirement requirements/dev.txt
	@touch $@

.PHONY: up
up: prerequisites .venv/installed ## Bring up the lab, deploy with site.yml, show a real download through it
	@tests/lab/up.sh

.PHONY: down
down: ## Remove every trace of the lab
	@tests/lab/down.sh

.PHONY: test
test: prerequisites lint unit integration up e2e ## Lint, unit, integration, then end-to-end tests against the lab

.PHONY: lint
lint: .venv/installed ## ruff, mypy, ansible-lint, yamllint, shellcheck, gixy and nginx -t
	ruff check $(PYTHON_SOURCES)
	ruff format --check $(PYTHON_SOURCES)
	mypy
	yamllint --strict .
	shellcheck $(SHELL_SCRIPTS)
	ansible-lint --offline --profile production
	tests/lint/nginx.sh

.PHONY: snapshots
snapshots: .venv/installed ## Take what nginx is given now, in every variant, for what lint compares with
	tests/lint/nginx.sh --write

.PHONY: unit
unit: .venv/installed ## Unit tests
	pytest tests/unit -n auto --dist loadfile

.PHONY: integration
integration: .venv/installed ## Tests against real processes on loopback
	pytest tests/integration -n 2 --dist loadfile

.PHONY: e2e
e2e: .venv/installed ## Tests against the lab that `make up` made: these kill things, and put them back
	pytest tests/e2e --durations 30

.PHONY: soak
soak: export MODHAVEN_SOAK_SECONDS ?= 600
soak: .venv/installed ## Ten minutes of random mirror faults under cold downloads, in the lab that `make up` made
	pytest tests/e2e/test_mirror_faults.py -k random

.PHONY: drill
drill: .venv/installed ## Break the lab that `make up` made in every way there is, and report what users saw: ten minutes
	ansible-playbook -i $(MODHAVEN_INVENTORY) playbooks/drill.yml $(if $(SCENARIOS),-e drill_scenarios=$(SCENARIOS))

.PHONY: bench
bench: python .venv/installed ## Measure on loopback what docs/benchmarks.md tells (MODHAVEN_BENCH_OTHER=URL compares another proxy): twenty minutes, 8 GB
	python -m tests.bench

.PHONY: requirements
requirements: ## Pin the newest versions that requirements/*.in allow, with hashes
	@requirements/compile.sh
