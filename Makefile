# The two commands of the README are `make demo` and `make test`; both work on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test check format qgis-plugin system-deps clean

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "geocd needs Python 3.11 or newer"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[archive,dev,train]"
	touch $@

demo: $(INSTALLED)  ## paint a survey pair, find what changed, compare with what was painted
	$(BIN)/geocd demo --output demo --overwrite

test: $(INSTALLED)  ## everything: tests, lint, types, contracts, notebooks
	$(BIN)/python -m pytest

check: $(INSTALLED)  ## the quick part: format, lint, types, contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

qgis-plugin:  ## dist/geocd_qgis-VERSION.zip, to be installed in QGIS from a ZIP file
	$(PYTHON) qgis/make_zip.py dist

system-deps:  ## Debian, as root: what the tests of maps need (QGIS, Chromium)
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
		qgis python3-qgis chromium

clean:
	rm -rf $(VENV) demo build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
