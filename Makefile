# make run: the whole suite in the demo profile, reports in outputs/demo/reports
# make test: every test, offline once installed
# make test-browser: notebook 04's box in a real browser; wants Chromium (CHROMIUM=... names it), not part of make test
# make ablations: which choices matter; stops after an hour, and goes on from there when called again
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: run test test-browser lint doctor figures ablations rehearse-full clean

run: $(STAMP)
	$(BIN)/python -m llmft_helpers run $(if $(PROFILE),--profile $(PROFILE))

# a process a core, each with one thread; a file's tests stay together, as they share what they prepare
test: $(STAMP) lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test-browser: $(STAMP)
	$(BIN)/python -m pip install --quiet -r requirements-browser.txt
	$(BIN)/python -m pytest tests/browser

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

doctor: $(STAMP)
	$(BIN)/python -m llmft_helpers doctor

# the README's table and docs/results.md, from what outputs/demo, outputs/long and outputs/coder hold
figures: $(STAMP)
	$(BIN)/python benchmarks/readme_table.py

ablations: $(STAMP)
	$(BIN)/python benchmarks/ablations.py $(if $(PROFILE),--profile $(PROFILE),--profile demo --docs docs/ablations.md)

# profile full without a GPU: a random 1B Llama through the notebooks, about 5 minutes and 8 GB on 2 cores
rehearse-full: $(STAMP)
	$(BIN)/python benchmarks/rehearse_full.py

# Installs again only when a requirements file changes; the stamp is written last.
$(STAMP): requirements.txt requirements-nodeps.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps -r requirements-nodeps.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

clean:
	rm -rf $(VENV) outputs/cache outputs/tiny outputs/full-rehearsal/model
