# Every target sets up .venv first, once; a second call installs nothing.
PYTHON ?= python3
UV ?= uv

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# TensorFlow's start-up notes are of no use to a reader of tests or of the demo.
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: demo test lint bench lock clean

demo: $(INSTALLED)
	$(BIN)/python scripts/demo.py --output_dir runs/demo --overwrite

# One process cannot hold both Kerases. The second run starts even if the first
# one failed; the exit code tells of either.
test: $(INSTALLED)
	@failed=0; \
	for legacy in 1 0; do \
		TF_USE_LEGACY_KERAS=$$legacy TF_KERAS=$$legacy $(BIN)/python -m pytest || failed=1; \
	done; \
	exit $$failed

lint: $(INSTALLED)
	@failed=0; \
	$(BIN)/ruff check . || failed=1; \
	$(BIN)/ruff format --check . || failed=1; \
	exit $$failed

bench: $(INSTALLED)
	@for script in $(sort $(wildcard benchmarks/[a-z]*.py)); do \
		echo "$$script"; $(BIN)/python $$script || exit 1; \
	done

# --no-deps: the lock file is complete, and bert4keras' own pin must not count.
$(INSTALLED): requirements.lock setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --no-deps -r requirements.lock -e .
	touch $@

lock:
	$(UV) pip compile --universal --python-version 3.10 --upgrade \
		setup.py requirements.in --extra demo --extra test \
		--no-python-downloads --no-emit-index-url --no-emit-find-links \
		--custom-compile-command "make lock" --output-file requirements.lock

# runs/ stays: it holds results.
clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
