# Every target does the set-up it needs: on a machine with Python >= 3.11, venv and make, `make demo` is enough.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# The first interpreter that is new enough; `make PYTHON=/path/to/python demo` names another.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
# Independent programs that tests talk to, and recorded prompts for the recognition bar.
PEERS := chromium sip-tester baresip-core kamailio kamailio-tls-modules sipsak tshark sox dnsmasq-base postgresql flite asterisk-core-sounds-en asterisk-core-sounds-en-wav asterisk-core-sounds-es-wav asterisk-core-sounds-fr-wav asterisk-core-sounds-it-wav asterisk-core-sounds-ru-wav asterisk-moh-opsound-wav
# Without what it depends on, which only its own command line needs.
RNNOISE := pyrnnoise>=0.4.5
PYTEST := $(BIN)/python -m pytest
# Files of tests that run at a time: most of them wait for their peers.
TEST_WORKERS ?= 3
BARS := sipp_load lossy softphones setup_latency asr_wire turn_latency pacing crash soak_calls torture storm flood \
	playback_truth carrier_load stream_faults llm_failures turns endpointing barge_in denoise waste asr_batch \
	speech routing calling_windows campaign_prediction answering
# An interpreter with Pipecat 1.14.0, for the bars that compare with it: make PIPECAT=/path/to/python bars
export PIPECAT

.PHONY: help
help: ## what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/' | expand -t 18

.PHONY: setup
setup: $(VENV)/.setup ## virtual environment, dependencies, model files

.PHONY: setup-dev
setup-dev: $(VENV)/.setup-dev ## the same with what developers need

$(VENV)/bin/python:
	@[ -n "$(PYTHON)" ] || { echo "no Python >= 3.11 with venv found; install one (Debian: apt install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.setup: pyproject.toml | $(VENV)/bin/python
	@echo "installing the appliance into $(VENV)"
	$(PIP) install -e .
	$(BIN)/appliance models pull
	@touch $@

$(VENV)/.setup-dev: pyproject.toml $(VENV)/.setup
	@echo "installing the developers' tools into $(VENV)"
	$(PIP) install -e '.[dev,calendar,mcp,postgres,twilio,whisper]'
	@$(PIP) install --only-binary :all: 'gguf>=0.17' 'xllamacpp>=0.2' >/dev/null 2>&1 \
		|| echo "there is no llama.cpp for this machine (pip install '.[peers]'): the tests that talk to it are skipped"
	@$(PIP) install --only-binary :all: --no-deps '$(RNNOISE)' >/dev/null 2>&1 \
		|| echo "there is no RNNoise (pyrnnoise) for this machine: the tests that suppress noise by it are skipped"
	@touch $@

.PHONY: demo
demo: $(VENV)/.setup ## a whole call on this machine: a caller speaks, is understood and answered
	$(BIN)/appliance demo

.PHONY: peers
peers: ## the independent softphones and prompts the tests use (Debian, as root; elsewhere those tests are skipped)
	@if dpkg -s $(PEERS) >/dev/null 2>&1; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "installing $(PEERS)"; \
		export DEBIAN_FRONTEND=noninteractive; \
		{ apt-get update -qq && apt-get install -y -qq --no-install-recommends $(PEERS); } >/dev/null 2>$(VENV)/apt.log \
			|| { echo "apt could not install them; tests that need them are skipped:"; tail -3 $(VENV)/apt.log; }; \
	else \
		echo "not root on a Debian machine: tests that need $(PEERS) are skipped"; \
	fi

.PHONY: lint
lint: $(VENV)/.setup-dev ## ruff, mypy, import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: check
check: lint ## lint and the unit tests in virtual time; the inner loop, about three minutes on two cores
	$(PYTEST) -n $(TEST_WORKERS) --dist loadfile -m 'not peer and not slow'

.PHONY: test
test: $(VENV)/.setup-dev peers ## every test, the ones against independent softphones included
	$(PYTEST) -n $(TEST_WORKERS) --dist loadfile

.PHONY: bars
bars: $(VENV)/.setup-dev peers ## the measured bars, each printing its figure (an hour and a half)
	@failed=""; for bar in $(BARS); do \
		$(BIN)/python -m tests.bench.$$bar || [ $$? = 77 ] || failed="$$failed $$bar"; \
	done; \
	[ -z "$$failed" ] || { echo "below the bar:$$failed" >&2; exit 1; }

.PHONY: fuzz
fuzz: $(VENV)/.setup-dev ## ten minutes of damaged input for every parser (make test gives each four seconds)
	$(BIN)/python -m tests.bench.fuzz

.PHONY: interop
interop: $(VENV)/.setup-dev peers ## the tests against independent SIP peers; writes docs/sip.md from what passed
	$(BIN)/python -m tests.interop.table

.PHONY: soak
soak: $(VENV)/.setup-dev peers ## the long runs: an hour of one call, thousands of short ones
	$(BIN)/python -m tests.bench.soak_calls --calls 5000
	$(BIN)/python -m tests.bench.pacing --calls 100 --seconds 3600

.PHONY: clean
clean: ## remove what was built and recorded here
	rm -rf $(VENV) build dist var *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
