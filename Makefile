# Every target sets up .venv first, once; a second call installs nothing.
PYTHON ?= python3
UV ?= uv

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
HUB_VENV := .venv-hub
HUB_BIN := $(HUB_VENV)/bin
HUB_INSTALLED := $(HUB_VENV)/.installed
PEERS_VENV := .venv-peers
PEERS_BIN := $(PEERS_VENV)/bin
PEERS_INSTALLED := $(PEERS_VENV)/.installed
DOCS_VENV := .venv-docs
DOCS_BIN := $(DOCS_VENV)/bin
DOCS_INSTALLED := $(DOCS_VENV)/.installed
NEWEST_VENV := .venv-newest
NEWEST_BIN := $(NEWEST_VENV)/bin
# A CPU build: where PyPI has none for a machine, PIP_FIND_LINKS or
# PIP_EXTRA_INDEX_URL names a place that has.
PEERS_PYTHON ?= python3.11
TORCH ?= torch==2.13.0

# TensorFlow's start-up notes are of no use to a reader of tests or of the demo.
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: demo test test-keras-3 test-keras-2 test-all mutations test-peers \
	test-newest lint docs gallery bench lock clean

demo: $(INSTALLED)
	$(BIN)/python scripts/demo.py --output_dir runs/demo --overwrite

# One process cannot hold both Kerases: one runs after the other, each with as many
# processes as there are cores. A file stays in one process, as its models do.
WORKERS ?= auto
PYTEST := $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile tests
KERAS_2 := TF_USE_LEGACY_KERAS=1 TF_KERAS=1
KERAS_3 := TF_USE_LEGACY_KERAS=0 TF_KERAS=0

test: $(INSTALLED)
	@failed=0; \
	$(KERAS_3) $(PYTEST) || failed=1; \
	$(KERAS_2) $(PYTEST) || failed=1; \
	exit $$failed

test-keras-3: $(INSTALLED)
	@$(KERAS_3) $(PYTEST)

test-keras-2: $(INSTALLED)
	@$(KERAS_2) $(PYTEST)

# Each one-line mistake that mutations.py makes in a copy of the library must fail the
# tests that it names.
mutations: $(INSTALLED)
	@$(BIN)/python tests/mutations.py

# All tests in both Kerases, the slow ones too: real models, cut at every one of their
# tensors, examples that train, every variant of every method, more random models; and
# keras-hub, which bert4keras' process cannot import.
test-all: $(INSTALLED) $(HUB_INSTALLED)
	@failed=0; \
	export TIEDBERT_EXAMPLES=20 PYTEST_ADDOPTS="$$PYTEST_ADDOPTS -m ''"; \
	$(MAKE) --no-print-directory test || failed=1; \
	$(HUB_BIN)/python -m pytest tests/hub || failed=1; \
	exit $$failed

# The same numbers as Hugging Face and keras-hub. keras-hub needs Keras 3, bert4keras
# Keras 2: the tests for keras-hub ask a process of their own for our numbers.
test-peers: $(PEERS_INSTALLED)
	@failed=0; \
	for legacy in 1 0; do \
		TF_USE_LEGACY_KERAS=$$legacy TF_KERAS=$$legacy \
			$(PEERS_BIN)/python -m pytest tests/peers || failed=1; \
	done; \
	exit $$failed

# The Keras 3 tests with the newest TensorFlow and Keras that pip finds, whatever upper
# bounds pyproject.toml has. Run it before you raise a bound. A failure here is no fault
# of the supported versions: it names what the new version changed.
test-newest:
	$(PYTHON) -m venv $(NEWEST_VENV)
	$(NEWEST_BIN)/python -m pip install --quiet --no-deps -e .
	$(NEWEST_BIN)/python -c "$$NAMES_OF_REQUIREMENTS" > $(NEWEST_VENV)/requirements.txt
	$(NEWEST_BIN)/python -m pip install --quiet --upgrade --upgrade-strategy eager \
		-r $(NEWEST_VENV)/requirements.txt
	$(NEWEST_BIN)/python -m pip list | grep -iE '^(tensorflow|keras|tf.keras|numpy) '
	TF_USE_LEGACY_KERAS=0 TF_KERAS=0 $(NEWEST_BIN)/python -m pytest \
		--numprocesses $(WORKERS) --dist loadfile tests

# What tiedbert and its tests require, by name alone.
define NAMES_OF_REQUIREMENTS
import importlib.metadata, re
for line in importlib.metadata.requires("tiedbert"):
    if "extra ==" not in line or "test" in line.partition(";")[2]:
        print(re.match("[A-Za-z0-9_.-]+", line)[0])
endef
export NAMES_OF_REQUIREMENTS

lint: $(INSTALLED)
	@failed=0; \
	$(BIN)/ruff check . || failed=1; \
	$(BIN)/ruff format --check . || failed=1; \
	$(BIN)/mypy || failed=1; \
	exit $$failed

# The site, in site/. After the first call, which installs the tools, it needs no network.
docs: $(DOCS_INSTALLED)
	@NO_MKDOCS_2_WARNING=1 $(DOCS_BIN)/mkdocs build --strict

# Run the examples again and record what they print, for the gallery of the site.
gallery: $(INSTALLED) $(HUB_INSTALLED)
	@$(BIN)/python docs/gallery.py
	@$(HUB_BIN)/python docs/gallery.py adversarial_keras_hub.py

bench: $(INSTALLED)
	@for script in $(sort $(wildcard benchmarks/[a-z]*.py)); do \
		echo "$$script"; $(BIN)/python $$script || exit 1; \
	done

# --no-deps: the lock file is complete, and bert4keras' own pin must not count.
$(INSTALLED): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --no-deps -r requirements.lock -e .
	touch $@

# keras-hub has an environment of its own: requirements-hub.in says why.
$(HUB_INSTALLED): requirements-hub.lock pyproject.toml
	$(PYTHON) -m venv $(HUB_VENV)
	$(HUB_BIN)/python -m pip install --no-deps -r requirements-hub.lock -e .
	touch $@

# --no-deps above all for PyTorch: requirements-peers.in says why.
$(PEERS_INSTALLED): requirements-peers.lock pyproject.toml
	$(PEERS_PYTHON) -m venv $(PEERS_VENV)
	$(PEERS_BIN)/python -m pip install --no-deps $(TORCH) \
		-r requirements-peers.lock -e .
	touch $@

$(DOCS_INSTALLED): requirements-docs.lock
	$(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_BIN)/python -m pip install --no-deps -r requirements-docs.lock
	touch $@

# `make lock UPGRADE=` adds what is new and leaves every other version as it is.
UPGRADE ?= --upgrade
LOCK = $(UV) pip compile --universal --python-version 3.10 $(UPGRADE) \
	--no-python-downloads --no-emit-index-url --no-emit-find-links \
	--custom-compile-command "make lock"

# The other environments take their versions from the first.
lock:
	$(LOCK) pyproject.toml requirements.in --extra bert4keras --extra demo \
		--extra test --output-file requirements.lock
	$(LOCK) pyproject.toml requirements-hub.in --extra test \
		--constraint requirements.lock --output-file requirements-hub.lock
	$(LOCK) pyproject.toml requirements-peers.in --extra bert4keras --extra test \
		--constraint requirements.lock --output-file requirements-peers.lock
	$(LOCK) requirements-docs.in --output-file requirements-docs.lock

# runs/ stays: it holds results.
clean:
	rm -rf $(VENV) $(HUB_VENV) $(PEERS_VENV) $(DOCS_VENV) $(NEWEST_VENV)
	rm -rf build dist site *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
