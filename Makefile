# make help lists the targets. Written for GNU Make 3.81, which macOS ships.

# What runs in .venv; makes or completes it first where needed. The server and deployments need
# few packages: RUN. Tests and checks need many: DEV.
RUN := local/virtualenv.sh run
DEV := local/virtualenv.sh dev
PYTHON := $(RUN) python

export PORT DATA_DIR EMULATOR_PORT EMULATOR_DIR
RECEIVER_PORT ?= 9000
ifdef ENGINE
export TIMERS_ENGINE := $(ENGINE)
endif

ifdef CLOCK
export TIMERS_CLOCK := $(CLOCK)
endif

STAGE ?= dev

# Keys are this machine's unless the command line names a stage: the default of STAGE names none.
KEYS := $(PYTHON) -m $(if $(filter command,$(origin STAGE)),infra.keys $(STAGE),local.keys)
TENANT ?= default

.PHONY: help run receiver key keys revoke emulator infra deploy package release rearm destroy secret test simulate \
	check format docs openapi policies resolve lock second-opinions bench clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile

run: ## Serve the API and fire timers (PORT=8000, DATA_DIR=~/.local/share/webhook-timers, ENGINE=embedded; CLOCK=test: a clock that you move)
	@exec $(PYTHON) -m local

receiver: ## Print every webhook that arrives, and how late it was (RECEIVER_PORT=9000)
	@exec $(PYTHON) -m local.receiver $(RECEIVER_PORT)

key: ## Make an API key and print it; it is not shown again (TENANT=default; STAGE=dev for one on AWS)
	@$(KEYS) issue '$(TENANT)'

keys: ## List keys: id, created, tenant; the key itself is not stored (STAGE=dev for those on AWS)
	@$(KEYS) list

revoke: ## Revoke an API key; it ends within 60 s (KEY=its id; STAGE=dev for one on AWS)
	@$(KEYS) revoke '$(KEY)'

emulator: ## Run an emulator of AWS for "make run ENGINE=aws" (EMULATOR_PORT=4566)
	@exec $(PYTHON) -m local.emulator

infra: ## Create on AWS what Chalice does not: table, queues, roles, alarms (STAGE=dev, ALARM_TOPIC=an SNS topic's ARN)
	@$(PYTHON) -m infra infra $(STAGE) $(if $(ALARM_TOPIC),--alarm-topic $(ALARM_TOPIC))

deploy: ## Do infra, then `chalice deploy` (STAGE=dev)
	@$(PYTHON) -m infra deploy $(STAGE)

package: ## Write the template and the code of `chalice package` to dist/ (STAGE=dev)
	@$(PYTHON) -m infra package $(STAGE)

release: ## Do infra and package, then deploy the package with CloudFormation (STAGE=dev, FROM=a stage: the very package that it runs)
	@$(PYTHON) -m infra release $(STAGE) $(if $(FROM),--from $(FROM))

rearm: ## Register the wake-ups of a stage's timers anew, after its queue or schedules were lost (STAGE=dev)
	@$(PYTHON) -m infra rearm $(STAGE)

destroy: ## Remove a stage from AWS; only the table and secrets of prod are kept (STAGE=dev, CONFIRM=account/region for prod)
	@$(PYTHON) -m infra destroy $(STAGE) $(if $(CONFIRM),--confirm $(CONFIRM))

secret: ## Print a new signing secret; STAGE=dev also puts it into that stage (FINISH=1: remove the old one)
	@$(PYTHON) -m infra secret $(if $(filter command,$(origin STAGE)),$(STAGE)) $(if $(FINISH),--finish)

test: ## Run all tests
	$(DEV) python -m pytest -n auto --maxprocesses 4 --dist loadfile

simulate: ## Try to break delivery: seeded faults in virtual time (STORE=sqlite, dynamodb or embedded; RUNS=10000, SEED=1; MUTANTS=1 plants bugs)
	@$(DEV) python -m tests.simulation $(if $(STORE),--store $(STORE)) $(if $(RUNS),--runs $(RUNS)) $(if $(SEED),--seed $(SEED)) $(if $(MUTANTS),--mutants)

check: ## Check format, lint, types, imports, generated documents and requirements
	$(DEV) ruff format --check .
	$(DEV) ruff check .
	$(DEV) mypy
	$(DEV) lint-imports
	$(DEV) python -m local.documents --check
	$(DEV) python -m infra.policies --check
	$(DEV) openapi-spec-validator docs/openapi.yaml
	$(DEV) python -m local.resolution --if-online

format: ## Format the code, and fix what ruff can
	$(DEV) ruff format .
	$(DEV) ruff check --fix .

docs: ## Write the documents that are generated from the code, docs/openapi.yaml among them
	@$(DEV) python -m local.documents

openapi: docs ## The same as docs

policies: ## Write the IAM policies of every stage to .chalice/
	@$(DEV) python -m infra.policies

resolve: ## Check that every requirements file has a solution on every supported Python (needs the network)
	@$(DEV) python -m local.resolution

second-opinions: ## Ask tools of others about the package and the policies (needs the network)
	@$(DEV) python -m local.second_opinions

lock: ## Write constraints.txt: the version of every library that the Lambdas ship (needs the network)
	@$(DEV) python -m local.resolution --lock

bench: ## Measure this machine: requests per second, lateness, memory; prints JSON
	@$(PYTHON) -m bench

clean: ## Remove what make made; your timers stay
	rm -rf dist .venv .venvs .venv-emulator .venv-emulator.lock .venv-opinions .venv-opinions.lock .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .chalice/deployments
