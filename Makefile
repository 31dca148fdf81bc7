# Everything this repository can do, one word each. `make` alone lists it.
#
# Rules: every target works on a fresh machine with Python 3.11 or newer, as root or as an ordinary user; nothing is
# installed outside .venv; an installation is repeated only when pyproject.toml changed (the stamps in .venv).

SHELL := /bin/bash
.DEFAULT_GOAL := help

# The newest Python that is there; say `make PYTHON=/path/to/python3.12 run` to choose.
ifndef PYTHON
PYTHON := $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
endif
BIN := .venv/bin
# Two workers: more make it faster on two cores, and disturb the tests that wait for real processes.
WORKERS ?= 2
# A test that takes longer than this many seconds hangs: it fails, with the stack of every thread.
HANG_S ?= 300
# What to test: `make test T=tests/daemon`.
T ?= tests
ARGS ?=
# How often `make crash` kills each of a service and the daemon. In `make test` it is 25 times; 1,000 take about half an hour.
KILLS ?= 1000
# How often it cuts the power, and at which system calls of a fixed run it lets the disk fail: all, or some as in `make test`.
CUTS ?= 1000
SWEEP ?= all
# How long `make quiet` listens, in seconds. In `make test` it is 60.
QUIET_S ?= 600
# How often `make crash-client` kills a process that runs tasks, and how many events these must have acknowledged by then.
CLIENT_KILLS ?= 1000
CLIENT_EVENTS ?= 5000000
# How many damaged journals `make fuzz-journal` reads. In `make test` it is 20,000.
MUTANTS ?= 1000000
# How many tasks `make queues` sends through each system. In `make test` it is 60.
TASKS ?= 10000
# How long `make soak` goes on, in seconds.
SOAK_S ?= 7200
# How many replay orders `make storm-replay` has, and how many of their claimants are killed (two of three) or stopped. In `make test`: 300,12.
STORM ?= 10000,300
# How many requests `make fuzz` sends. In `make test` it is 2,000.
CASES ?= 20000

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help run test lint format demo crash quiet clean soak bench bench-ingest bench-burst bench-detection bench-footprint bench-client bench-notices bench-service bench-plan bench-storm fuzz crash-client fuzz-journal queues rabbitmq storm-replay coverage screenshots bench-pages bench-stream bench-telemetry bench-asyncio bench-scale docs

help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: .venv/stamp-run ## start the daemon with its dashboard (installs it first)
	@printf '\n  looseends is starting. The line with "sign-in" below opens the dashboard, once.\n'
	@printf '  Then, in a second terminal:  make demo   (loses work on purpose, on a daemon of its own)\n'
	@printf '  or put it into a service:    README.md, "Quickstart".   Stop with Ctrl-C.\n\n'
	@exec $(BIN)/looseends serve $(ARGS)

# Queue libraries pin each other's versions apart, so each has an environment of its own.
QUEUES := $(patsubst tests/integrations/queues/requirements/%.txt,.venv/queues/%/stamp,$(wildcard tests/integrations/queues/requirements/*.txt))

test: .venv/stamp-dev $(QUEUES) ## run the whole test suite (T=tests/daemon for a part)
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --timeout $(HANG_S) $(T) $(ARGS)

lint: .venv/stamp-dev ## ruff (rules and format) and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --strict examples bench tests/*.py

format: .venv/stamp-dev ## let ruff mend what it can
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

demo: .venv/stamp-dev ## lose work in several ways while you watch, and see each one caught
	@exec $(BIN)/python examples/demo.py $(ARGS)

crash: .venv/stamp-dev ## 1,000 kills of services and of the daemon, 1,000 power cuts, a fault at every write (quick: KILLS=25 CUTS=60 SWEEP=some)
	@CRASH_KILLS=$(KILLS) CRASH_CUTS=$(CUTS) CRASH_SWEEP=$(SWEEP) $(BIN)/python -m pytest tests/crash -q $(ARGS)

quiet: .venv/stamp-dev ## 10 minutes of everything that must not alarm, with 100 losses planted in it (QUIET_S=60 for a quick one)
	@QUIET_S=$(QUIET_S) $(BIN)/python -m pytest tests/quiet -q $(ARGS)

storm-replay: .venv/stamp-dev ## 10,000 replay orders, 4 claimants, 200 of them killed and 100 stopped and woken: none is done twice (quick: STORM=300,12)
	@REPLAY_STORM=$(STORM) $(BIN)/python -m pytest tests/daemon/replay/test_storm.py -q -s --timeout 3600 $(ARGS)

crash-client: .venv/stamp-dev ## 1,000 kills of processes that run tasks, on a full disk too: nothing acknowledged is lost (quick: CLIENT_KILLS=40 CLIENT_EVENTS=0)
	@CLIENT_KILLS=$(CLIENT_KILLS) CLIENT_EVENTS=$(CLIENT_EVENTS) $(BIN)/python -m pytest tests/crash_client -q $(ARGS)

fuzz-journal: .venv/stamp-dev ## 1,000,000 damaged journals: nothing raised, no task invented (quick: MUTANTS=20000)
	@MUTANTS=$(MUTANTS) $(BIN)/python -m pytest tests/client/journal/test_mutated_segments.py -q $(ARGS)

queues: .venv/stamp-dev $(QUEUES) ## 10,000 tasks through each queue system, with kills, held against their own receipts (TASKS=1000 for a quick one)
	@QUEUE_TASKS=$(TASKS) QUEUE_WAIT_S=7200 $(BIN)/python -m pytest tests/integrations/queues/test_receipts.py -q -s $(ARGS)

rabbitmq: .venv/stamp-dev $(QUEUES) ## Celery on a real RabbitMQ, where one is installed: success, failure, retry, kill, redelivery
	@if [ -z "$$(PATH=$$PATH:/usr/sbin:/usr/local/sbin command -v rabbitmq-server)" ]; then \
		echo "not run: there is no rabbitmq-server on this machine (on Debian and Ubuntu: apt-get install rabbitmq-server)"; \
	else $(BIN)/python -m pytest tests/integrations/queues/on_rabbitmq.py -q -s -p no:xdist --timeout $(HANG_S) $(ARGS); fi

coverage: .venv/stamp-dev $(QUEUES) ## run the tests that docs/coverage.md rests on, and write it if all of them pass
	@COVERAGE_WRITE=docs/coverage.md $(BIN)/python -m pytest tests/integrations -m cells -q -p no:xdist $(ARGS)

fuzz: .venv/stamp-dev ## 20,000 requests at every door, good, odd and hostile (CASES=2000 for a quick one)
	@FUZZ_CASES=$(CASES) $(BIN)/python -m pytest tests/daemon/fuzz -q $(ARGS)

bench: .venv/ingest/stamp .venv/stamp-bench ## all of the benchmarks below that need no browser, in a short form; each has a longer one of its own
	@$(BIN)/python bench/client.py --rounds 5; $(BIN)/python bench/ingest.py --rounds 1 --seconds 0.5; \
	$(BIN)/python bench/burst.py --tasks 60000; $(BIN)/python bench/detection.py --seconds 5 --kills 4; \
	$(BIN)/python bench/footprint.py --starts 3 --idle 3; $(BIN)/python bench/soak.py --seconds 48; true

bench-ingest: .venv/ingest/stamp .venv/stamp-dev ## durable events a second, beside SQLite alone, a bare handler, a self-made table and Flower's store
	@$(BIN)/python bench/ingest.py $(ARGS)

bench-burst: .venv/stamp-dev ## a million events from spools at once: the drain, and verdicts meanwhile
	@$(BIN)/python bench/burst.py $(ARGS)

bench-detection: .venv/stamp-dev ## from due to verdict under load, from SIGKILL to verdict, from verdict to webhook
	@$(BIN)/python bench/detection.py $(ARGS)

bench-footprint: .venv/stamp-dev ## memory of an idle daemon, its start, and what each import costs
	@$(BIN)/python bench/footprint.py $(ARGS)

soak: .venv/stamp-dev ## two hours of load with a kill every five minutes: what grows, what slows, what is lost (SOAK_S=120 for a short one)
	@$(BIN)/python bench/soak.py --seconds $(SOAK_S) $(ARGS)

bench-client: .venv/stamp-bench ## what an audited call costs, beside rivals in the same run, and the cost of the import
	@$(BIN)/python bench/client.py --rivals $(ARGS)

bench-notices: .venv/stamp-dev ## from a failure's report to its webhook over 1,000 incidents; ARGS=--hostile: beside bad receivers
	@$(BIN)/python bench/notices.py $(ARGS)

bench-storm: .venv/stamp-dev ## 100,000 failures in a minute: how many notices, when each type is named, memory
	@$(BIN)/python bench/storm.py $(ARGS)

bench-plan: .venv/stamp-dev ## what a replay plan over 100,000 tasks costs: seconds, memory, the weight of its pages
	@$(BIN)/python bench/plan.py $(ARGS)

bench-service: .venv/stamp-bench ## a service at 2,000 requests a second with and without a task each, and beside a daemon in trouble
	@$(BIN)/python bench/service.py $(ARGS)

bench-pages: .venv/pages/stamp .venv/stamp-bench ## a first visit of the dashboard beside Flower and rq-dashboard: bytes, requests, paint, axe, Lighthouse
	@$(BIN)/python bench/pages.py $(ARGS)

bench-telemetry: .venv/stamp-dev ## what metrics and traces cost the ingest: its p99 with both on, against off
	@$(BIN)/python bench/telemetry.py $(ARGS)

bench-asyncio: .venv/stamp-bench ## what the asyncio hook costs a create_task, beside a bare one and Sentry's
	@$(BIN)/python bench/asyncio_factory.py $(ARGS)

bench-scale: .venv/stamp-dev ## ten million tasks in one file beside half a million: rate, bytes, memory, start, every page, detection, retention (the first run builds them, half an hour)
	@$(BIN)/python bench/scale.py $(ARGS)

bench-stream: .venv/stamp-dev ## how long a change takes to reach a hundred open pages
	@$(BIN)/python bench/stream.py $(ARGS)

docs: .venv/stamp-dev ## the documents as a site, in .run/site; a link that leads nowhere fails
	@$(BIN)/python docs/site/reference.py
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet $(ARGS)
	@echo "open .run/site/index.html"

screenshots: .venv/stamp-dev ## every page, light and dark, wide and narrow, full, empty and in error: pictures and a contact sheet in .run/screenshots
	@$(BIN)/python tests/browser/screenshots.py $(ARGS)

clean: ## remove what was built or installed here (never your data)
	rm -rf .venv dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .run
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The virtual environment. One that was moved or copied is made anew: its scripts point to where it was.
PLACE := $(shell cat .venv/stamp-venv 2>/dev/null)
ifneq ($(PLACE),$(CURDIR))
.PHONY: .venv/stamp-venv
endif
.venv/stamp-venv:
	@if [ -z "$(PYTHON)" ]; then echo "looseends needs Python 3.11 or newer, and none was found: install one, or name it with make PYTHON=/path/to/python3.11" >&2; exit 2; fi
	@$(PYTHON) -c 'import sys; sys.exit(f"looseends needs Python 3.11 or newer; $(PYTHON) is {sys.version.split()[0]}" if sys.version_info < (3, 11) else 0)'
	@echo "Making .venv with $$($(PYTHON) --version) ..."
	@$(PYTHON) -m venv $(if $(PLACE),--clear) .venv || { echo "$(PYTHON) cannot make a virtual environment: on Debian and Ubuntu install python3-venv" >&2; exit 2; }
	@pwd > $@

.venv/stamp-run: .venv/stamp-venv pyproject.toml
	@echo "Installing the daemon into .venv ..."
	@$(BIN)/python -m pip install --quiet --editable '.[daemon]'
	@touch $@

# pip before 25.1 knows no dependency groups; the one inside .venv is brought up to date, the machine's own stays.
.venv/stamp-dev: .venv/stamp-run pyproject.toml
	@echo "Installing what development needs into .venv ..."
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --group dev
	@touch $@

.venv/queues/%/stamp: tests/integrations/queues/requirements/%.txt .venv/stamp-venv
	@echo "Installing $* into an environment of its own ..."
	@$(BIN)/python -m venv $(@D)
	@$(@D)/bin/python -m pip install --quiet --requirement $<
	@touch $@

.venv/ingest/stamp: bench/ingest.txt .venv/stamp-venv
	@echo "Installing what ingest is compared with into an environment of its own ..."
	@$(BIN)/python -m venv $(@D)
	@$(@D)/bin/python -m pip install --quiet --requirement $<
	@touch $@

.venv/pages/stamp: bench/pages.txt .venv/stamp-venv
	@echo "Installing the dashboards to compare with into an environment of their own ..."
	@$(BIN)/python -m venv $(@D)
	@$(@D)/bin/python -m pip install --quiet --requirement $<
	@touch $@

.venv/stamp-bench: .venv/stamp-dev pyproject.toml
	@echo "Installing the rivals of the benchmarks into .venv ..."
	@$(BIN)/python -m pip install --quiet --group bench
	@touch $@
