# make help lists the targets. Written for GNU Make 3.81, which macOS ships.

PYTHON := .venv/bin/python
export PORT DATA_DIR EMULATOR_PORT EMULATOR_DIR
RECEIVER_PORT ?= 9000
ifdef ENGINE
export TIMERS_ENGINE := $(ENGINE)
endif

STAGE ?= dev

# Keys are this machine's unless the command line names a stage: the default of STAGE names none.
KEYS := $(PYTHON) -m $(if $(filter command,$(origin STAGE)),infra.keys $(STAGE),local.keys)
TENANT ?= default

.PHONY: help run receiver key keys revoke emulator infra deploy package release destroy secret test simulate \
	check format bench clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

run: .venv ## Serve the API with firing timers (PORT=8000, DATA_DIR=~/.local/share/webhook-timers, ENGINE=embedded)
	@exec $(PYTHON) -m local

receiver: .venv ## Print every webhook that arrives, with its lateness (RECEIVER_PORT=9000)
	@exec $(PYTHON) -m local.receiver $(RECEIVER_PORT)

key: .venv ## Make an API key and print it this once (TENANT=default; STAGE=dev for one on AWS)
	@$(KEYS) issue '$(TENANT)'

keys: .venv ## List the API keys, which themselves are not known (STAGE=dev for those on AWS)
	@$(KEYS) list

revoke: .venv ## Revoke an API key, within 60 s (KEY=its id; STAGE=dev for one on AWS)
	@$(KEYS) revoke '$(KEY)'

emulator: .venv ## Run an emulator of AWS for "make run ENGINE=aws" (EMULATOR_PORT=4566)
	@exec $(PYTHON) -m local.emulator

infra: .venv ## Make on AWS what Chalice does not: table, queues, roles, alarms (STAGE=dev, ALARM_TOPIC=an SNS topic's ARN)
	@$(PYTHON) -m infra infra $(STAGE) $(if $(ALARM_TOPIC),--alarm-topic $(ALARM_TOPIC))

deploy: .venv ## infra, then `chalice deploy` (STAGE=dev)
	@$(PYTHON) -m infra deploy $(STAGE)

package: .venv ## Write the template and the code of `chalice package` to dist/ (STAGE=dev)
	@$(PYTHON) -m infra package $(STAGE)

release: .venv ## infra, then package and deploy that with CloudFormation (STAGE=dev)
	@$(PYTHON) -m infra release $(STAGE)

destroy: .venv ## Remove a stage from AWS; only the table of prod is kept (STAGE=dev)
	@$(PYTHON) -m infra destroy $(STAGE)

secret: .venv ## Print a new signing secret; with STAGE=dev put it into that stage too (FINISH=1: drop the old)
	@$(PYTHON) -m infra secret $(if $(filter command,$(origin STAGE)),$(STAGE)) $(if $(FINISH),--finish)

test: .venv ## Run all tests
	$(PYTHON) -m pytest -n auto --maxprocesses 4 --dist loadfile

simulate: .venv ## Try to break delivery: seeded faults in virtual time (STORE=sqlite, dynamodb or embedded; HISTORIES=10000, SEED=1; BUGS=1 plants bugs)
	@$(PYTHON) -m tests.simulation $(if $(STORE),--store $(STORE)) $(if $(HISTORIES),--histories $(HISTORIES)) $(if $(SEED),--seed $(SEED)) $(if $(BUGS),--bugs)

check: .venv ## Check format, lint, types, the direction of imports, and the OpenAPI document
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/openapi-spec-validator docs/openapi.yaml

format: .venv ## Format the code and fix what ruff can
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

bench: .venv ## Measure this machine: requests per second, lateness, memory; prints JSON
	@$(PYTHON) -m bench

clean: ## Remove what make made (not your timers)
	rm -rf .venv .venv-emulator .venv-emulator.lock .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .chalice/deployments

.PHONY: .venv
.venv:
	@local/bootstrap.sh
