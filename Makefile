# Two commands do the work: `make reproduce` and `make test`. Each prepares the environment first; `make help` lists all.

DATA     ?= simulated
BACKBONE ?= embedded
PRESET   ?=
ONLY     ?=
ARGS     ?=

# Which Python: the one on the command line, that of an active virtual or conda environment, else .venv (`make setup`).
ifeq ($(origin PYTHON),command line)
  KIND := given
else ifneq ($(VIRTUAL_ENV),)
  KIND   := venv
  PYTHON := $(VIRTUAL_ENV)/bin/python
else ifneq ($(filter-out base,$(CONDA_DEFAULT_ENV)),)
  KIND   := conda
  PYTHON := $(CONDA_PREFIX)/bin/python
else
  KIND   := own
  PYTHON := .venv/bin/python
endif

# rmlib sets this too (rmlib/training/machine.py), but too late for who imports torch first.
export OMP_WAIT_POLICY = PASSIVE
export PYTHONHASHSEED = 0
export TOKENIZERS_PARALLELISM = false
# The model hub is reached only where the data or the backbone has to come from it.
ifeq ($(filter hub,$(DATA))$(if $(filter embedded minilm,$(BACKBONE)),,$(if $(wildcard $(BACKBONE)/.),,hub)),)
  export HF_HUB_OFFLINE = 1
endif

comma := ,
EXTRAS := notebooks
figures: EXTRAS :=
test: EXTRAS := notebooks dev
# The stamp is named by the checksum of the lock and pyproject.toml: a change of either installs again, nothing else does.
STAMP   := .venv/.ready-$(shell cat requirements.lock pyproject.toml | cksum | cut -d ' ' -f 1)
INSTALL  = $(PYTHON) -m pip install -r requirements.lock && $(PYTHON) -m pip install --quiet --no-deps --no-build-isolation -e .

ALIGNED := $(if $(wildcard notebooks/07_*.ipynb),06$(comma)07,06)

.DEFAULT_GOAL := help
.PHONY: help setup setup-own setup-venv setup-conda setup-given reproduce alignment test lab figures notebooks lock clean

help: ## this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1|\2/' | while IFS='|' read -r name text; \
	  do printf '%-18s %s\n' "$$name" "$$text"; done
	@echo
	@echo '  DATA=simulated     simulated (default), hub, or a folder of pairs'
	@echo '  BACKBONE=embedded  embedded (default), minilm, a model of the hub, or a folder'
	@echo '  PRESET= ONLY=02,03 ARGS="-p name value"   scale, choice of notebooks and their parameters'
	@echo '  PYTHON=python3     use this Python as it is; else an active environment, else .venv'

setup: setup-$(KIND) ## prepare the environment (every other target does it first)

setup-own: $(STAMP)

$(STAMP):
	@echo 'setup: exact versions of requirements.lock into .venv (once; some 3 GB on disk, more with CUDA libraries)'
	@for python in python3.11 python3.12 python3; do \
	  if $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null; \
	  then $$python -m venv .venv && exit 0; fi; \
	done; echo 'setup: needs Python 3.11 or 3.12 on the PATH, or PYTHON=<path of one that has the packages>' >&2; exit 1
	@$(INSTALL)
	@rm -f .venv/.ready-* && touch $@
	@echo 'setup: .venv is ready'

setup-venv:
	@$(PYTHON) tools/environment.py check $(EXTRAS) > /dev/null || { \
	  echo 'setup: the active environment $(VIRTUAL_ENV) lacks'; $(PYTHON) tools/environment.py check $(EXTRAS); \
	  echo 'setup: installing the exact versions of requirements.lock into it'; $(INSTALL); }

setup-conda:
	@$(PYTHON) tools/environment.py check $(EXTRAS) || { echo 'setup: the active conda environment lacks the above;' \
	  'make one with: conda env create -f environment.yml && conda activate rmlib' >&2; exit 1; }

setup-given:
	@$(PYTHON) tools/environment.py check $(EXTRAS) || { echo 'setup: $(PYTHON) lacks the above; install it, and this' \
	  'folder with: $(PYTHON) -m pip install --no-deps --no-build-isolation -e .' >&2; exit 1; }

reproduce: setup ## run notebooks 01-05; writes figures/ and data/results/
	@$(PYTHON) -m tools.reproduce --data '$(DATA)' --backbone '$(BACKBONE)' \
	  $(if $(ONLY),--only '$(ONLY)') $(if $(PRESET),-p preset '$(PRESET)') $(ARGS)

alignment: setup ## run notebooks 06 and 07: policies aligned by the reward models, and written justifications
	@$(PYTHON) -m tools.reproduce --data '$(DATA)' --backbone '$(BACKBONE)' \
	  --only '$(or $(ONLY),$(ALIGNED))' $(if $(PRESET),-p preset '$(PRESET)') $(ARGS)

test: setup ## everything that CI runs: linter, type checker, tests, every notebook small
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy
	MPLBACKEND=Agg $(PYTHON) -m pytest -n auto --maxprocesses 4 --dist loadfile

lab: setup ## open JupyterLab at the first notebook
	@$(PYTHON) -m jupyter lab notebooks/00_start_here.ipynb

figures: setup ## draw every figure again, from the records alone
	@MPLBACKEND=Agg $(PYTHON) -m rmlib.figures

notebooks: setup ## run the committed notebooks again in place, with their own parameters
	@$(PYTHON) -m tools.reproduce --write-back $(if $(ONLY),--only '$(ONLY)')

lock: ## renew requirements.lock and environment.yml from the ranges of pyproject.toml
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && python3.11 -m venv "$$folder" && \
	  "$$folder/bin/python" -m pip install --quiet -e '.[notebooks,offline,dev]' && \
	  "$$folder/bin/python" -m pip list --format=freeze > "$$folder/freeze" && \
	  "$$folder/bin/python" tools/environment.py lock < "$$folder/freeze"

clean: ## remove .venv and the tools' caches (runs/, records and figures stay)
	rm -rf .venv build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find rmlib tests tools notebooks -type d \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} + 2>/dev/null || true
